//! The progress of a run.

use std::time::Duration;

use crate::call::totals::Totals;
use crate::types::WaitCause;

pub(super) type OnProgress = dyn Fn(&Progress) + Send + Sync;

/// The progress of a bulk run; see [`Bulk::on_progress`](crate::Bulk::on_progress).
///
/// ```
/// use anthropic_blocking::Progress;
///
/// fn show(progress: &Progress) {
///     let Progress { done, failed, waiting, cost, .. } = progress;
///     println!("{done} done, {failed} failed, {waiting} wait, {cost:?} dollars");
///     if let Some(cause) = progress.cause {
///         println!("waiting for: {cause}");
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Items that succeeded.
    pub done: u64,
    /// Items that failed, those not sent included.
    pub failed: u64,
    /// Items that were in the journal already, handed out again or not.
    pub skipped: u64,
    /// All items, where the iterator knows how many it has.
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
    /// What the tokens cost so far, in dollars; `None` when a model has no price. Where some requests
    /// of a model are in fast mode or in a geography of their own, as if all of it were.
    pub cost: Option<f64>,
    /// Since the run began.
    pub elapsed: Duration,
    /// The remaining time, roughly: by the limits or by the speed so far, whichever is longer.
    /// `None` while it is not known.
    pub remaining: Option<Duration>,
}

impl Progress {
    /// Returns how many items are finished, successfully or not: the sum of `done`, `failed` and
    /// `skipped`.
    pub fn finished(&self) -> u64 {
        self.done + self.failed + self.skipped
    }
}
