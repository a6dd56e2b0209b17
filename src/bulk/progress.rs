//! The progress of a run.

use std::time::Duration;

use crate::call::totals::Totals;
use crate::types::WaitCause;

/// The callback of a run for progress reports.
pub(super) type OnProgress = dyn Fn(&Progress) + Send + Sync;

/// The progress of a bulk run; see [`Bulk::on_progress`](crate::Bulk::on_progress).
///
/// ```
/// use anthropic_blocking::Progress;
///
/// fn show(progress: &Progress) {
///     println!("{} done, {} failed", progress.done, progress.failed);
///     if let Some(cause) = progress.cause {
///         println!("{} requests wait for: {cause}", progress.waiting);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Items that succeeded.
    pub done: u64,
    /// Items that failed, including the items that were not sent.
    pub failed: u64,
    /// Items that were in the journal already, whether replayed or not.
    pub skipped: u64,
    /// The number of all items, if the input iterator knows it.
    pub total: Option<u64>,
    /// Items that workers have begun. Items that wait for admission count here, but not in
    /// [`ClassSnapshot::in_flight`](crate::ClassSnapshot::in_flight).
    pub in_flight: u64,
    /// Requests that wait in the budget, including those of other users of the budget.
    pub waiting: usize,
    /// What the head of the longest queue waits for.
    pub cause: Option<WaitCause>,
    /// Calls, tokens and waits of this run.
    pub totals: Totals,
    /// The cost of the tokens so far, in dollars; `None` if a model has no price. If some requests
    /// of a model have a surcharge for fast mode or `inference_geo`, all requests of the model
    /// count with it.
    pub cost: Option<f64>,
    /// The time since the run began.
    pub elapsed: Duration,
    /// The estimated remaining time, by the limits or by the speed so far, whichever is longer.
    /// `None` before the first item is done, and if `total` is `None`.
    pub remaining: Option<Duration>,
}

impl Progress {
    /// Returns how many items are finished, with success or failure: the sum of `done`, `failed`
    /// and `skipped`.
    pub fn finished(&self) -> u64 {
        self.done + self.failed + self.skipped
    }
}
