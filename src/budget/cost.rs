//! Values that the whole budget uses: one per dimension, its time, and the cost of a request.

use std::time::Duration;

use crate::types::Dimension;

/// One value for each [`Dimension`].
pub(crate) type PerDimension<T> = [T; 3];

pub(crate) const REQUESTS: usize = Dimension::Requests.index();
pub(crate) const INPUT: usize = Dimension::InputTokens.index();
pub(crate) const OUTPUT: usize = Dimension::OutputTokens.index();

/// Seconds since the budget was created, by a clock that never goes back.
///
/// The limiters get times in order; a time earlier than the previous time counts as the previous.
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
    pub(crate) input: InputSize,
    pub(crate) cached: bool,
    pub(crate) max_tokens: u64,
}

/// The input size of a request, in bytes or in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum InputSize {
    Bytes(u64),
    Tokens(u64),
}

/// How the input of a request is estimated before it is sent.
///
/// The response shows the real size, which corrects the limiter in any case.
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
    /// From the length in bytes, and the sizes of earlier requests of the class. Accurate after a
    /// few responses.
    #[default]
    Learned,
    /// By a [`count_tokens`](crate::Messages::count_tokens) request before each request: exact
    /// except for the cache. The additional HTTP request is free of charge.
    Counted,
    /// The caller knows the number of tokens.
    Exact(u64),
}

impl Cost {
    /// Creates the cost of one request without tokens.
    pub const fn request() -> Cost {
        Cost {
            input: InputSize::Tokens(0),
            cached: false,
            max_tokens: 0,
        }
    }

    /// Sets the length of the prompt in bytes; the number of tokens per byte is learned from the
    /// responses.
    #[must_use]
    pub const fn input_bytes(mut self, bytes: u64) -> Cost {
        self.input = InputSize::Bytes(at_most(bytes, MOST));
        self
    }

    /// Sets the number of tokens of the prompt, as counted by the server (`count_tokens`).
    #[must_use]
    pub const fn input_tokens(mut self, tokens: u64) -> Cost {
        self.input = InputSize::Tokens(at_most(tokens, MOST));
        self
    }

    /// Says that the prompt marks parts for the cache. The share of the input that counts against
    /// limits is then learned separately from other prompts; before the fifth response, all input
    /// counts.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, ModelClass, Usage};
    ///
    /// let (budget, class) = (Budget::new(), ModelClass::of("claude-haiku-4-5"));
    /// let question = Cost::request().input_tokens(20_000).cached(true);
    /// // Nearly all of each prompt is read from the cache, and does not count.
    /// let mut usage = Usage::new(500, 200);
    /// usage.cache_read_input_tokens = Some(19_500);
    /// for _ in 0..5 {
    ///     budget.reserve(&class, question, None)?.settle(&usage, None);
    /// }
    /// assert_eq!(budget.plan([(class, question)]).input_tokens, 500);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[must_use]
    pub const fn cached(mut self, cached: bool) -> Cost {
        self.cached = cached;
        self
    }

    /// Sets the maximum number of output tokens. The usual number is learned from the responses.
    #[must_use]
    pub const fn max_tokens(mut self, tokens: u64) -> Cost {
        self.max_tokens = at_most(tokens, MOST);
        self
    }
}

/// The largest token count, 2^40, so that sums never overflow and `f64` holds them exactly.
pub(crate) const MOST: u64 = 1 << 40;

pub(crate) const fn at_most(value: u64, most: u64) -> u64 {
    if value > most { most } else { value }
}

/// Rounds an estimate up to whole tokens, from 0 to [`MOST`].
pub(crate) fn whole(tokens: f64) -> u64 {
    // A negative number becomes 0. `ceil` would call the system's library for mathematics.
    let whole = at_most(tokens as u64, MOST - 1);
    whole + u64::from(tokens > whole as f64)
}

/// Returns the lesser of two numbers. `f64::min` handles NaN, in five times the instructions, and
/// the limiters have no NaN.
pub(crate) const fn lesser(one: f64, other: f64) -> f64 {
    if one < other { one } else { other }
}

/// Returns the greater of two numbers; see [`lesser`].
pub(crate) const fn greater(one: f64, other: f64) -> f64 {
    if one > other { one } else { other }
}

/// Converts a span of budget time to a `Duration`; a negative span becomes zero.
pub(crate) fn to_duration(time: Time) -> Duration {
    Duration::try_from_secs_f64(time.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_rounds_up_from_zero_to_most() {
        for (tokens, covered) in [
            (f64::NEG_INFINITY, 0),
            (-0.5, 0),
            (0.0, 0),
            (1e-9, 1),
            (1.0, 1),
            (1.5, 2),
            (MOST as f64 - 0.5, MOST),
            (MOST as f64 + 0.5, MOST),
            (f64::INFINITY, MOST),
            (f64::NAN, 0),
        ] {
            assert_eq!(whole(tokens), covered, "{tokens}");
        }
    }
}
