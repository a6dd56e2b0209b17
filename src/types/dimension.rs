//! What a rate limit counts.

use std::fmt;

/// What a limit counts.
///
/// ```
/// use anthropic_blocking::{Dimension, Limits};
///
/// let limits = Limits::per_minute().requests(50);
/// assert_eq!(limits.of(Dimension::Requests), Some(50));
/// assert_eq!(Dimension::InputTokens.to_string(), "input tokens");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute: as a rule without those read from the cache.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
}

impl Dimension {
    /// All of them, in the order in which arrays of one value for each hold them.
    pub(crate) const ALL: [Dimension; 3] = [
        Dimension::Requests,
        Dimension::InputTokens,
        Dimension::OutputTokens,
    ];

    /// Its index in such an array.
    pub(crate) const fn at(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dimension::Requests => "requests",
            Dimension::InputTokens => "input tokens",
            Dimension::OutputTokens => "output tokens",
        })
    }
}
