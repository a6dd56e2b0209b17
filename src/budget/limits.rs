//! The caller's own limits per minute.

use crate::types::Dimension;

/// The caller's own limits in any 60 seconds; a dimension that is not set is unlimited.
///
/// As a promise ([`Budget::limits`](crate::Budget::limits)) it holds whatever the server would
/// allow, in any 60 seconds, not only in minutes of the clock. Requests never exceed it. Tokens are
/// estimated before a request is sent and corrected as the response arrives, so that a minute may
/// exceed it by the error of the estimates, some percent, unless it is [`strict`](Limits::strict).
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
    ///
    /// ```
    /// use anthropic_blocking::Limits;
    ///
    /// // What a file of settings leaves out is not limited.
    /// let of_settings = |requests: Option<u64>| match requests {
    ///     Some(requests) => Limits::per_minute().requests(requests),
    ///     None => Limits::per_minute(),
    /// };
    /// assert_eq!(of_settings(None), Limits::default());
    /// ```
    pub const fn per_minute() -> Limits {
        Limits {
            requests: None,
            input_tokens: None,
            output_tokens: None,
            strict: false,
        }
    }

    /// Sets the most requests, by default unlimited; with 0 every request fails.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, Limits, ModelClass};
    ///
    /// // Nobody is to use the dearest model by mistake.
    /// let opus = ModelClass::of("claude-opus-5");
    /// let budget = Budget::new().limits(opus.clone(), Limits::per_minute().requests(0));
    /// assert!(budget.reserve(&opus, Cost::request(), None).is_err());
    /// ```
    #[must_use]
    pub const fn requests(mut self, requests: u64) -> Limits {
        self.requests = Some(requests);
        self
    }

    /// Sets the most input tokens, by default unlimited. Tokens read from the cache do not count,
    /// except where the server counts them.
    ///
    /// ```
    /// use anthropic_blocking::{Admission, Budget, Cost, Limits, ModelClass};
    ///
    /// let budget = Budget::new().default_limits(Limits::per_minute().input_tokens(30_000));
    /// let class = ModelClass::of("claude-haiku-4-5");
    /// let document = Cost::request().input_tokens(20_000);
    /// assert!(matches!(budget.try_reserve(&class, document)?, Admission::Granted(_)));
    /// assert!(matches!(budget.try_reserve(&class, document)?, Admission::NotBefore(_)));
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[must_use]
    pub const fn input_tokens(mut self, tokens: u64) -> Limits {
        self.input_tokens = Some(tokens);
        self
    }

    /// Sets the most output tokens, by default unlimited.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, Dimension, Limits, ModelClass, WaitCause};
    ///
    /// // Short questions, long answers: the output is what binds.
    /// let limits = Limits::per_minute().requests(50).output_tokens(8_000);
    /// let budget = Budget::new().default_limits(limits);
    /// let story = Cost::request().input_tokens(40).max_tokens(2_000);
    /// let plan = budget.plan((0..20).map(|_| (ModelClass::of("claude-haiku-4-5"), story)));
    /// assert_eq!(plan.binding, Some(WaitCause::Limit(Dimension::OutputTokens)));
    /// ```
    #[must_use]
    pub const fn output_tokens(mut self, tokens: u64) -> Limits {
        self.output_tokens = Some(tokens);
        self
    }

    /// Counts every request with `max_tokens` output tokens until its response ends, so that no
    /// response, however long, exceeds the limit. Costs throughput: most responses are much
    /// shorter. Input is exact if it was counted.
    ///
    /// ```
    /// use anthropic_blocking::Limits;
    ///
    /// let limits = Limits::per_minute().output_tokens(20_000).strict();
    /// assert!(limits.is_strict() && !limits.is_unlimited());
    /// ```
    #[must_use]
    pub const fn strict(mut self) -> Limits {
        self.strict = true;
        self
    }

    /// Returns the limit of one dimension, if it is set.
    ///
    /// ```
    /// use anthropic_blocking::{Dimension, Limits};
    ///
    /// // Each of four machines gets a fourth.
    /// let all = Limits::per_minute().requests(50);
    /// assert_eq!(all.of(Dimension::Requests).map(|requests| requests / 4), Some(12));
    /// assert_eq!(all.of(Dimension::OutputTokens), None);
    /// ```
    pub const fn of(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::InputTokens => self.input_tokens,
            Dimension::OutputTokens => self.output_tokens,
        }
    }

    /// Whether the promise is [`strict`](Limits::strict).
    ///
    /// ```
    /// use anthropic_blocking::Limits;
    ///
    /// let limits = Limits::per_minute().output_tokens(20_000);
    /// let promise = if limits.is_strict() { "never more than" } else { "about" };
    /// assert_eq!(format!("{promise} 20,000 tokens a minute"), "about 20,000 tokens a minute");
    /// ```
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether nothing is limited.
    ///
    /// ```
    /// use anthropic_blocking::Limits;
    ///
    /// // To be strict about nothing is no limit, and nothing at all is one.
    /// assert!(Limits::per_minute().strict().is_unlimited());
    /// assert!(!Limits::per_minute().requests(0).is_unlimited());
    /// ```
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
