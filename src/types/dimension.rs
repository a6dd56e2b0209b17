//! What a rate limit counts.

use std::fmt;

/// What a rate limit counts per minute.
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
    /// Requests.
    Requests,
    /// Input tokens. For most models, tokens read from the cache do not count.
    InputTokens,
    /// Output tokens.
    OutputTokens,
}

impl Dimension {
    /// All dimensions, in the order of the arrays that hold one value per dimension.
    pub(crate) const ALL: [Dimension; 3] = [
        Dimension::Requests,
        Dimension::InputTokens,
        Dimension::OutputTokens,
    ];

    /// Returns this dimension's index in an array with one value per dimension, ordered as
    /// [`ALL`](Dimension::ALL).
    pub(crate) const fn index(self) -> usize {
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
