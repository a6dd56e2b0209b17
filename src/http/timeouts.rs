//! How long the parts of an exchange may take.

use std::time::Duration;

/// The time limits of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Limits the time to resolve the host name and to connect, TLS included.
    pub(crate) connect: Duration,
    /// Limits the time between any two bytes.
    pub(crate) idle: Duration,
    /// Limits the time until a response that comes in one piece begins, and again the time until its
    /// body is complete. Replaces the idle timeout of reads, since no byte arrives while the server
    /// works.
    pub(crate) response: Option<Duration>,
    /// Limits the whole exchange.
    pub(crate) deadline: Option<Duration>,
}

impl Timeouts {
    /// Returns the time limit of each read.
    pub(super) fn per_read(&self) -> Option<Duration> {
        match self.response {
            Some(_) => None,
            None => ureq_timeout(self.idle),
        }
    }
}

/// Converts a time limit for ureq, which adds it to the current time: a limit of a year or more,
/// which might overflow, becomes no limit.
pub(super) fn ureq_timeout(limit: Duration) -> Option<Duration> {
    (limit < ONE_YEAR).then_some(limit)
}

const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
