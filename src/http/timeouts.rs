//! How long the parts of an exchange may take.

use std::time::Duration;

/// How long one exchange may take over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// Between any two bytes.
    pub(crate) idle: Duration,
    /// Until an answer that comes in one piece begins, and again until it is there; replaces the
    /// idle timeout, because nothing is heard before.
    pub(crate) answer: Option<Duration>,
    /// For all of it.
    pub(crate) deadline: Option<Duration>,
}

impl Timeouts {
    /// The time limit of each read.
    pub(super) fn per_read(&self) -> Option<Duration> {
        match self.answer {
            Some(_) => None,
            None => ureq_timeout(self.idle),
        }
    }
}

/// A time limit as ureq can add it to the time; one of over a year is none.
pub(super) fn ureq_timeout(limit: Duration) -> Option<Duration> {
    (limit < Duration::from_secs(365 * 86_400)).then_some(limit)
}
