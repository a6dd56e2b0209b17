//! The wait for admission: a request is admitted at once, waits in its queue, or fails.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use super::class::ModelClass;
use super::cost::{Cost, Time, to_duration};
use super::limiter::decision::{NotNow, OverLimit};
use super::queue::{Suspension, WaitLimitExceeded, WaitLimits, Waiter};
use super::reservation::Reservation;
use super::shared::{BudgetState, SharedBudget};
use super::wait::Wait;
use crate::clock::lock;
use crate::clock::sync::MutexGuard;
use crate::error::{Cause, Error, display_duration};
use crate::types::{ErrorKind, WaitCause, Waits};

/// A request for a reservation.
pub(crate) struct AdmissionRequest<'a> {
    pub(crate) class: &'a ModelClass,
    pub(crate) cost: Cost,
    /// The ticket of an earlier attempt, which keeps its place in the queue.
    pub(crate) ticket: Option<u64>,
    /// Whether an earlier attempt was refused; the caller then logs the wait.
    pub(crate) was_refused: bool,
    /// The longest wait, whatever the cause.
    pub(crate) time_left: Option<Duration>,
    /// The longest wait for pauses and overloads together.
    pub(crate) max_wait: Option<Duration>,
    /// Returns whether the request was cancelled meanwhile; called again after `Budget::wake_all`.
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// Whether a request may be sent now; see [`Budget::try_reserve`](crate::Budget::try_reserve).
///
/// ```
/// use anthropic_blocking::{Admission, Budget, Cost, ModelClass, Usage};
///
/// # let budget = Budget::new();
/// let class = ModelClass::of("claude-haiku-4-5");
/// match budget.try_reserve(&class, Cost::request().max_tokens(300))? {
///     Admission::Granted(reservation) => reservation.settle(&Usage::new(20, 300), None),
///     Admission::NotBefore(wait) => println!("do something else for {wait:?}"),
///     _ => {}
/// }
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Admission {
    /// The request may be sent now; its expected cost is reserved.
    Granted(Reservation),
    /// The request cannot be sent before this time has passed; then try again.
    NotBefore(Duration),
}

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AdmissionFailure {
    /// The request is larger than a limit.
    Exceeds(OverLimit),
    /// The earliest admission is after the deadline.
    Late {
        at_least: Duration,
        cause: WaitCause,
    },
    /// This pause or overload lasts longer than `max_wait`.
    MaxWaitExceeded(WaitCause),
    /// The request was cancelled.
    Stopped,
}

impl AdmissionRequest<'_> {
    /// Blocks until the request is admitted, behind the earlier requests of its class.
    pub(super) fn wait_for_admission(
        &self,
        shared: &Arc<SharedBudget>,
    ) -> Result<Reservation, AdmissionFailure> {
        let start = shared.now();
        let deadline = self
            .time_left
            .map(|time_left| start + time_left.as_secs_f64());
        let wait_limits = WaitLimits {
            deadline,
            max_wait: self.max_wait,
        };
        let mut state = lock(&shared.state);
        let (queue, gate) = state.queue(self.class);
        let ticket = self.ticket.unwrap_or_else(|| queue.issue_ticket());
        if queue.is_next(ticket) {
            match queue.limiter.try_admit(start, &self.cost, gate) {
                Ok(key) => {
                    // Other threads need not wait while the reservation is made.
                    drop(state);
                    return Ok(Reservation::new(
                        Arc::clone(shared),
                        self.class,
                        key,
                        ticket,
                    ));
                }
                Err(NotNow::Never(excess)) => return Err(AdmissionFailure::Exceeds(excess)),
                Err(_) => {}
            }
        }
        let earliest = queue.earliest_start(start, ticket, &self.cost, gate);
        let suspension = queue.suspension(start, gate);
        if let Some(exceeded) = wait_limits.exceeded(start, earliest, suspension) {
            return Err(match exceeded {
                WaitLimitExceeded::Deadline => AdmissionFailure::Late {
                    at_least: to_duration(earliest - start),
                    cause: queue.cause_for(start, ticket, &self.cost, gate),
                },
                WaitLimitExceeded::MaxWait(cause) => AdmissionFailure::MaxWaitExceeded(cause),
            });
        }
        let waiter = queue.join(start, ticket, self.cost, wait_limits);
        drop(state);
        let place = QueuePlace {
            shared,
            class: self.class,
            waiter,
        };
        self.wait_in_queue(&place, start)
    }

    /// Blocks until the request is the head of its queue and is admitted.
    fn wait_in_queue(
        &self,
        place: &QueuePlace<'_>,
        start: Time,
    ) -> Result<Reservation, AdmissionFailure> {
        let (shared, waiter) = (place.shared, &*place.waiter);
        let mut is_announced = false;
        let mut state = lock(&shared.state);
        loop {
            if (self.is_stopped)() {
                return Err(AdmissionFailure::Stopped);
            }
            let now = shared.now();
            let (queue, gate) = state.queue(self.class);
            let waits = queue.waited(now, waiter);
            let (until, cause) = match queue.try_admit(waiter, now, gate) {
                Ok(key) => {
                    queue.leave(now, waiter);
                    let shared = Arc::clone(shared);
                    let reservation = Reservation::new(shared, self.class, key, waiter.ticket);
                    return Ok(reservation.with_waits(waits));
                }
                Err(NotNow::Never(excess)) => return Err(AdmissionFailure::Exceeds(excess)),
                Err(NotNow::NotBefore(time, cause)) => (Some(time), cause),
                Err(NotNow::OnEvent(cause)) => (None, cause),
            };
            // An event can shorten the wait, but not below this bound.
            let earliest = queue.earliest_start(now, waiter.ticket, &waiter.cost, gate);
            let left = waiter.wait_limits.after(&waits);
            let suspension = queue.suspension(now, gate);
            match left.exceeded_by_waiter(now, earliest, suspension, cause) {
                Some(WaitLimitExceeded::Deadline) => {
                    let at_least = to_duration(earliest.max(until.unwrap_or(now)) - start);
                    return Err(AdmissionFailure::Late { at_least, cause });
                }
                Some(WaitLimitExceeded::MaxWait(cause)) => {
                    return Err(AdmissionFailure::MaxWaitExceeded(cause));
                }
                None => {}
            }
            let expected = match cause {
                // The first response can arrive at any time.
                WaitCause::FirstResponse => earliest,
                _ => until.unwrap_or(earliest),
            };
            let expected = to_duration(expected - now);
            if !is_announced && expected >= MIN_ANNOUNCED_WAIT {
                is_announced = true;
                state = self.announce_wait(shared, state, cause, expected);
                continue;
            }
            state = shared.wait(state, waiter, until, left.next_check(now, cause));
        }
    }

    /// Logs that a wait begins and calls `on_wait`, both without the lock.
    fn announce_wait<'s>(
        &self,
        shared: &'s SharedBudget,
        mut state: MutexGuard<'s, BudgetState>,
        cause: WaitCause,
        expected: Duration,
    ) -> MutexGuard<'s, BudgetState> {
        let wait = Wait {
            class: self.class.clone(),
            cause,
            expected,
            waiting: state.queue(self.class).0.waiting(),
        };
        let on_wait = state.on_wait.clone();
        drop(state);
        // The call has already logged why a refused request is retried.
        let level = if self.was_refused {
            Level::Debug
        } else {
            Level::Info
        };
        wait.announce(level, on_wait.as_deref());
        // Dropped outside of the lock: this may be the last clone, and what the closure holds may
        // take the lock.
        drop(on_wait);
        lock(&shared.state)
    }
}

impl WaitLimits {
    /// Returns the limits that are left after these waits.
    fn after(self, waits: &Waits) -> WaitLimits {
        let waited = waits.of(WaitCause::Pause) + waits.of(WaitCause::Overload);
        let max_wait = self.max_wait.map(|most| most.saturating_sub(waited));
        WaitLimits { max_wait, ..self }
    }

    /// Like [`exceeded`](WaitLimits::exceeded), for a request that waits for `cause` already and
    /// has these limits left.
    fn exceeded_by_waiter(
        &self,
        now: Time,
        earliest: Time,
        suspension: Option<Suspension>,
        cause: WaitCause,
    ) -> Option<WaitLimitExceeded> {
        match self.exceeded(now, earliest, suspension) {
            None if self.is_over(now) => Some(WaitLimitExceeded::Deadline),
            None if is_suspension(cause) && self.is_spent() => {
                Some(WaitLimitExceeded::MaxWait(cause))
            }
            exceeded => exceeded,
        }
    }

    /// Returns when a waiter must check its limits again, whatever else wakes it.
    ///
    /// A pause or overload that begins meanwhile wakes each waiter whose whole `max_wait` is
    /// shorter; a waiter that has used up a part of its `max_wait` wakes by this time.
    fn next_check(&self, now: Time, cause: WaitCause) -> Option<Time> {
        let least = match is_suspension(cause) {
            true => Duration::ZERO,
            false => MIN_RECHECK_INTERVAL,
        };
        let max_wait = self.max_wait;
        let max_wait_ends = max_wait.map(|left| now + left.max(least).as_secs_f64());
        let ends = [self.deadline, max_wait_ends].into_iter().flatten();
        ends.reduce(Time::min)
    }

    fn is_over(&self, now: Time) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn is_spent(&self) -> bool {
        self.max_wait.is_some_and(|left| left.is_zero())
    }
}

/// A place in a queue; dropping it leaves the queue, also when the thread panics.
struct QueuePlace<'a> {
    shared: &'a Arc<SharedBudget>,
    class: &'a ModelClass,
    waiter: Arc<Waiter>,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        // Read under the lock, so that the queue gets times in order.
        let now = self.shared.now();
        if let Some(queue) = state.queues.get_mut(self.class) {
            queue.leave(now, &self.waiter);
        }
    }
}

impl AdmissionFailure {
    /// Returns the error of a request that was never sent.
    pub(crate) fn into_error(self, action: String, time_left: Option<Duration>) -> Error {
        let kind = match self {
            AdmissionFailure::Late { cause, .. } | AdmissionFailure::MaxWaitExceeded(cause) => {
                match cause {
                    WaitCause::Overload => ErrorKind::Overloaded,
                    WaitCause::Pause => ErrorKind::RateLimit,
                    _ => ErrorKind::Budget,
                }
            }
            AdmissionFailure::Exceeds(_) => ErrorKind::Budget,
            AdmissionFailure::Stopped => ErrorKind::Shutdown,
        };
        let cause = match self {
            AdmissionFailure::Exceeds(excess) => Cause::Rejected(excess.to_string().into()),
            AdmissionFailure::Late { at_least, cause } => {
                let (time_left, at_least) =
                    (time_left.unwrap_or_default(), display_duration(at_least));
                let time_left = display_duration(time_left);
                let what = format!(
                    "no admission within {time_left}, but after {at_least} at the earliest: \
                     {cause}; set a longer deadline"
                );
                Cause::Rejected(what.into())
            }
            AdmissionFailure::MaxWaitExceeded(cause) => {
                Cause::Rejected(format!("{cause}, for longer than max_wait permits").into())
            }
            AdmissionFailure::Stopped => Cause::Shutdown,
        };
        let is_retryable = matches!(
            self,
            AdmissionFailure::Late { .. } | AdmissionFailure::MaxWaitExceeded(_)
        );
        Error::new(kind, action, cause).with_classification(is_retryable, None, None)
    }
}

/// Whether this cause is a pause or an overload, which `max_wait` limits.
fn is_suspension(cause: WaitCause) -> bool {
    matches!(cause, WaitCause::Pause | WaitCause::Overload)
}

/// The shortest wait that is logged and passed to `on_wait`.
const MIN_ANNOUNCED_WAIT: Duration = Duration::from_secs(1);

/// Minimum interval between re-checks of `max_wait`.
const MIN_RECHECK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::clock::Clock;
    use fastrand::Rng;
    use std::cell::Cell;

    #[test]
    fn zero_max_wait_does_not_poll_during_other_waits() {
        let budget = Budget::with_clock(Clock::System, Rng::with_seed(1));
        let (class, cost) = (ModelClass::of("claude-haiku-4-5"), Cost::request());
        // The second request waits for the headers of the first response.
        let first = budget.reserve(&class, cost, None).expect("room");
        let checks = Cell::new(0);
        let request = AdmissionRequest {
            class: &class,
            cost,
            ticket: None,
            was_refused: false,
            time_left: Some(Duration::from_millis(50)),
            max_wait: Some(Duration::ZERO),
            is_stopped: &|| {
                checks.set(checks.get() + 1);
                false
            },
        };
        let result = budget.acquire(&request).map(drop);
        assert!(
            matches!(result, Err(AdmissionFailure::Late { .. })),
            "{result:?}"
        );
        assert!(checks.get() < 10, "{} checks", checks.get());
        drop(first);
    }
}
