//! The caller's own limits per minute.

use crate::types::Dimension;

/// The caller's own limits in any 60 seconds; a dimension that is not set is unlimited.
///
/// Limits set by [`Budget::limits`](crate::Budget::limits) hold in any 60 seconds, not only in
/// minutes of the clock, whatever the server allows. Requests never exceed their limit. Tokens are
/// estimated before a request is sent and corrected as the response arrives, so that a minute may
/// exceed a token limit by the error of the estimates, some percent, unless the limits are
/// [`strict`](Limits::strict).
/// Before the fifth response of a class no request is refused for an estimated size: one request
/// may exceed a token limit by any amount. Leave a limit unset to use all that the server allows:
/// the server's limits are learned from its responses.
///
/// ```
/// use anthropic_blocking::Limits;
///
/// const HALF: Limits = Limits::per_minute().requests(500).input_tokens(225_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    requests: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    strict: bool,
}

impl Limits {
    /// Creates limits with nothing limited.
    pub const fn per_minute() -> Limits {
        Limits {
            requests: None,
            input_tokens: None,
            output_tokens: None,
            strict: false,
        }
    }

    /// Sets the maximum number of requests, unlimited by default; with 0 every request fails.
    #[must_use]
    pub const fn requests(mut self, requests: u64) -> Limits {
        self.requests = Some(requests);
        self
    }

    /// Sets the maximum number of input tokens, unlimited by default. Tokens read from the cache do
    /// not count, except where the server counts them.
    #[must_use]
    pub const fn input_tokens(mut self, tokens: u64) -> Limits {
        self.input_tokens = Some(tokens);
        self
    }

    /// Sets the maximum number of output tokens, unlimited by default.
    #[must_use]
    pub const fn output_tokens(mut self, tokens: u64) -> Limits {
        self.output_tokens = Some(tokens);
        self
    }

    /// Counts every request with `max_tokens` output tokens until its response ends, so that no
    /// response, however long, exceeds the limit. Costs throughput: most responses are much
    /// shorter. Input is exact if its tokens were counted before.
    #[must_use]
    pub const fn strict(mut self) -> Limits {
        self.strict = true;
        self
    }

    /// Returns the limit of a dimension, or `None` if the dimension is unlimited.
    pub const fn of(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::InputTokens => self.input_tokens,
            Dimension::OutputTokens => self.output_tokens,
        }
    }

    /// Whether these limits are [`strict`](Limits::strict).
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether no dimension is limited, however [`strict`](Limits::strict) the limits are.
    pub const fn is_unlimited(&self) -> bool {
        self.requests.is_none() && self.input_tokens.is_none() && self.output_tokens.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_dimension_is_unlimited() {
        const LIMITS: Limits = Limits::per_minute().requests(50).strict();
        assert_eq!(LIMITS.of(Dimension::Requests), Some(50));
        assert_eq!(LIMITS.of(Dimension::InputTokens), None);
        assert!(LIMITS.is_strict() && !LIMITS.is_unlimited());
        assert!(Limits::per_minute().is_unlimited());
    }
}
