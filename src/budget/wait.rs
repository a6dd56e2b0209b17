//! The report of a wait that begins, for the log and for the caller.

use std::time::Duration;

use log::{Level, log};

use super::class::ModelClass;
use crate::error::display_duration;
use crate::types::WaitCause;

/// The report of a wait that begins; see [`Budget::on_wait`](crate::Budget::on_wait).
///
/// ```
/// use anthropic_blocking::{Budget, Wait};
///
/// let budget = Budget::new().on_wait(|wait: &Wait| {
///     eprintln!("{}: {} ({} waiting, {:?})", wait.class, wait.cause, wait.waiting, wait.expected);
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// The class of models that the request belongs to.
    pub class: ModelClass,
    /// What the request waits for; behind other waiters, what the head of the queue waits for.
    pub cause: WaitCause,
    /// The expected duration. A response that ends, or uses less than expected, shortens
    /// the wait.
    pub expected: Duration,
    /// How many requests of the class wait, including this request.
    pub waiting: usize,
}

pub(super) type OnWait = dyn Fn(&Wait) + Send + Sync;

impl Wait {
    pub(super) fn announce(&self, level: Level, on_wait: Option<&OnWait>) {
        log!(
            target: "anthropic_blocking",
            level,
            "{}: waiting about {}: {} ({} in the queue)",
            self.class,
            display_duration(self.expected),
            self.cause,
            self.waiting,
        );
        if let Some(on_wait) = on_wait {
            on_wait(self);
        }
    }
}
