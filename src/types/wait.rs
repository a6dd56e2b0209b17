//! What requests wait for, and for how long.

use std::fmt;
use std::iter::Copied;
use std::slice;
use std::time::Duration;

use super::dimension::Dimension;

/// What a request waits for before it is sent.
///
/// ```
/// use anthropic_blocking::{Dimension, WaitCause};
///
/// let cause = WaitCause::Server(Dimension::OutputTokens);
/// assert_eq!(cause.to_string(), "the server's limit of output tokens per minute");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitCause {
    /// The end of a pause that the server asked for with `retry-after`.
    Pause,
    /// The end of an overload of the API.
    Overload,
    /// Room in one of your own [`Limits`](crate::Limits).
    Limit(Dimension),
    /// Room in one of the server's limits.
    Server(Dimension),
    /// The ramp-up: how fast usage may grow at the start of a run.
    Pace(Dimension),
    /// The first response, whose headers report the server's limits.
    FirstResponse,
    /// The end of another request: the server allows no more requests at once.
    Concurrency,
    /// Requests of the same model class that are ahead in the queue.
    Turn,
    /// The backoff after a failed attempt.
    Backoff,
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitCause::Pause => f.write_str("the server asked to wait"),
            WaitCause::Overload => f.write_str("the server is overloaded"),
            WaitCause::Limit(dimension) => write!(f, "own limit of {dimension} per minute"),
            WaitCause::Server(dimension) => {
                write!(f, "the server's limit of {dimension} per minute")
            }
            WaitCause::Pace(dimension) => write!(f, "pace of {dimension}"),
            WaitCause::FirstResponse => f.write_str("the first response will show the limits"),
            WaitCause::Concurrency => f.write_str("the server allows no more requests at once"),
            WaitCause::Turn => f.write_str("earlier requests are ahead in the queue"),
            WaitCause::Backoff => f.write_str("backoff after a failure"),
        }
    }
}

/// How long a call waited, by cause.
///
/// ```
/// # fn show(message: &anthropic_blocking::Message) {
/// for (cause, wait) in &message.waited() {
///     println!("{wait:?}: {cause}");
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waits {
    by_cause: Vec<(WaitCause, Duration)>,
}

impl Waits {
    /// Returns how long the call waited in total.
    pub fn total(&self) -> Duration {
        self.iter()
            .fold(Duration::ZERO, |sum, (_, wait)| sum.saturating_add(wait))
    }

    /// Returns how long the call waited for `cause`; zero if it did not.
    pub fn of(&self, cause: WaitCause) -> Duration {
        let found = self.iter().find(|(other, _)| *other == cause);
        found.map_or(Duration::ZERO, |(_, wait)| wait)
    }

    /// Iterates over the causes with their durations, in the order in which the causes first
    /// occurred.
    pub fn iter(&self) -> impl Iterator<Item = (WaitCause, Duration)> + '_ {
        self.by_cause.iter().copied()
    }

    /// Whether the call did not wait at all.
    pub fn is_empty(&self) -> bool {
        self.by_cause.is_empty()
    }

    pub(crate) fn add(&mut self, cause: WaitCause, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        match self.by_cause.iter_mut().find(|(other, _)| *other == cause) {
            Some((_, sum)) => *sum = sum.saturating_add(wait),
            None => self.by_cause.push((cause, wait)),
        }
    }

    /// Returns the waits that were added since `before`, an earlier copy of these waits.
    pub(crate) fn since(&self, before: &Waits) -> Waits {
        let mut waits = Waits::default();
        for (cause, wait) in self.iter() {
            waits.add(cause, wait.saturating_sub(before.of(cause)));
        }
        waits
    }

    pub(crate) fn add_all(&mut self, others: &Waits) {
        others
            .iter()
            .for_each(|(cause, wait)| self.add(cause, wait));
    }
}

impl<'a> IntoIterator for &'a Waits {
    type Item = (WaitCause, Duration);
    type IntoIter = Copied<slice::Iter<'a, (WaitCause, Duration)>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_cause.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_by_cause() {
        let mut waits = Waits::default();
        assert!(waits.is_empty() && waits.total().is_zero());
        waits.add(WaitCause::Pause, Duration::ZERO);
        assert!(waits.is_empty());
        waits.add(WaitCause::Pause, Duration::from_secs(2));
        waits.add(WaitCause::Backoff, Duration::from_secs(1));
        let copy = waits.clone();
        waits.add_all(&copy);
        assert_eq!(waits.of(WaitCause::Pause), Duration::from_secs(4));
        assert_eq!(waits.of(WaitCause::Turn), Duration::ZERO);
        assert_eq!(waits.total(), Duration::from_secs(6));
        let since = waits.since(&copy);
        assert_eq!(since, copy);
        assert!(waits.since(&waits).is_empty());
        waits.add(WaitCause::Backoff, Duration::MAX);
        assert_eq!(waits.total(), Duration::MAX);
    }
}
