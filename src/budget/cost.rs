//! The words of the budget: its three dimensions, its time, and what a request may cost.

use crate::types::Dimension;

impl Dimension {
    /// All of them, in the order of [`Each`].
    pub(crate) const ALL: [Dimension; 3] = [
        Dimension::Requests,
        Dimension::InputTokens,
        Dimension::OutputTokens,
    ];

    /// Where it stands in an [`Each`].
    pub(crate) const fn at(self) -> usize {
        self as usize
    }
}

/// One value for each [`Dimension`].
pub(crate) type Each<T> = [T; 3];

pub(crate) const REQUESTS: usize = Dimension::Requests.at();
pub(crate) const INPUT: usize = Dimension::InputTokens.at();
pub(crate) const OUTPUT: usize = Dimension::OutputTokens.at();

/// Seconds since the budget was made, by a clock that never goes back.
///
/// The machines are given times in order; a time before the last one counts as the last one.
pub(crate) type Time = f64;

/// What is known of a request before it is sent, from which the budget estimates its cost.
///
/// ```
/// use anthropic_blocking::Cost;
///
/// const SUMMARY: Cost = Cost::request().input_bytes(12_000).max_tokens(1_024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cost {
    pub(crate) input: Input,
    pub(crate) cached: bool,
    pub(crate) max_tokens: u64,
}

/// How much input a request has, in one measure or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Bytes(u64),
    Tokens(u64),
}

/// How the input of a request is estimated before it is sent.
///
/// What it came to is known from the answer, and corrects the account in any case.
///
/// ```
/// use anthropic_blocking::{Client, InputEstimate, Options};
///
/// # fn strictly(client: &Client) -> Client {
/// client.with(Options::new().input_estimate(InputEstimate::Counted))
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum InputEstimate {
    /// From its length in bytes, and what requests of the same class came to. Needs a few answers
    /// to be good.
    #[default]
    Learned,
    /// By asking the server to [count](crate::Messages::count_tokens) before each request: exact
    /// but for the cache, at the price of one more exchange, which is free of charge.
    Counted,
    /// It is known to be this many tokens.
    Exact(u64),
}

impl Cost {
    /// One request without tokens.
    pub const fn request() -> Cost {
        Cost {
            input: Input::Tokens(0),
            cached: false,
            max_tokens: 0,
        }
    }

    /// Sets how long the prompt is in bytes; how many tokens that makes is learned from the
    /// answers.
    #[must_use]
    pub const fn input_bytes(mut self, bytes: u64) -> Cost {
        self.input = Input::Bytes(at_most(bytes, MOST));
        self
    }

    /// Sets how many tokens the prompt has, counted by the server (`count_tokens`).
    #[must_use]
    pub const fn input_tokens(mut self, tokens: u64) -> Cost {
        self.input = Input::Tokens(at_most(tokens, MOST));
        self
    }

    /// Says that the prompt marks parts for the cache: the share that counts is then learned
    /// apart from that of other prompts.
    #[must_use]
    pub const fn cached(mut self, cached: bool) -> Cost {
        self.cached = cached;
        self
    }

    /// Sets the most tokens of the answer. How many it will really have is learned.
    #[must_use]
    pub const fn max_tokens(mut self, tokens: u64) -> Cost {
        self.max_tokens = at_most(tokens, MOST);
        self
    }
}

/// Token counts end here, so that sums of them never overflow and `f64` holds them exactly.
pub(crate) const MOST: u64 = 1 << 40;

pub(crate) const fn at_most(value: u64, most: u64) -> u64 {
    if value > most { most } else { value }
}

/// Whole tokens that cover an estimate.
pub(crate) fn whole(tokens: f64) -> u64 {
    at_most(tokens.max(0.0).ceil() as u64, MOST)
}
