//! How a request gets its place: at once, or in line, or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, log};

use super::class::ModelClass;
use super::cost::{Cost, Time};
use super::limiter::decision::{NotNow, OverLimit};
use super::queue::{Lack, WaitLimits, Waiter};
use super::reservation::Reservation;
use super::{Budget, OnWait, Shared, State, Wait, seconds};
use crate::clock::lock;
use crate::clock::sync::MutexGuard;
use crate::error::{Cause, Error, display_duration};
use crate::types::{ErrorKind, WaitCause, Waits};

/// A request that wants to be sent.
pub(crate) struct AdmissionRequest<'a> {
    pub(crate) class: &'a ModelClass,
    pub(crate) cost: Cost,
    /// The place in the order that it had, if it was sent before.
    pub(crate) ticket: Option<u64>,
    /// Whether that was refused, so that its caller says by itself that it waits.
    pub(crate) is_back: bool,
    /// How long it will wait in all.
    pub(crate) time_left: Option<Duration>,
    /// How long it will wait for pauses and overloads.
    pub(crate) max_wait: Option<Duration>,
    /// Whether it has become pointless; see [`Budget::wake_all`].
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// Why there is no room, and will be none in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AdmissionFailure {
    /// It can never fit.
    Exceeds(OverLimit),
    /// Not before so much time has passed, which is too late.
    Late {
        at_least: Duration,
        cause: WaitCause,
    },
    /// A pause or an overload lasts longer than the request will wait for it.
    Refused(WaitCause),
    /// It has become pointless.
    Stopped,
}

impl Budget {
    /// Waits for room, behind those of its class that came before.
    pub(crate) fn acquire(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<Reservation, AdmissionFailure> {
        let shared = &*self.shared;
        let start = shared.now();
        let deadline = request
            .time_left
            .map(|time_left| start + time_left.as_secs_f64());
        let wait_limits = WaitLimits {
            deadline,
            max_wait: request.max_wait,
        };
        let mut state = lock(&shared.state);
        let (queue, gate) = state.queue(request.class);
        let ticket = request.ticket.unwrap_or_else(|| queue.ticket());
        if queue.is_next(ticket) {
            match queue.limiter.try_admit(start, &request.cost, gate) {
                Ok(key) => {
                    // Others need not wait while this one is made.
                    drop(state);
                    return Ok(Reservation::new(self.clone(), request.class, key, ticket));
                }
                Err(NotNow::Never(excess)) => return Err(AdmissionFailure::Exceeds(excess)),
                Err(_) => {}
            }
        }
        let at_best = queue.at_best(start, ticket, &request.cost, gate);
        if let Some(lack) = wait_limits.lack(start, at_best, queue.refused_until(start, gate)) {
            return Err(match lack {
                Lack::Time => AdmissionFailure::Late {
                    at_least: seconds(at_best - start),
                    cause: queue.cause_for(start, ticket, &request.cost, gate),
                },
                Lack::Wait(cause) => AdmissionFailure::Refused(cause),
            });
        }
        let waiter = queue.enter(start, ticket, request.cost, wait_limits);
        drop(state);
        let place = Place {
            shared,
            class: request.class,
            waiter,
        };
        self.wait_in(&place, request, start)
    }

    /// How long a request that comes back with its old ticket will wait at least, and how long of
    /// it for a pause or an overload.
    pub(crate) fn at_least(
        &self,
        class: &ModelClass,
        ticket: u64,
        cost: &Cost,
    ) -> (Duration, Duration) {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let (queue, gate) = state.queue(class);
        let at_best = queue.at_best(now, ticket, cost, gate);
        let refused_until = queue
            .refused_until(now, gate)
            .map_or(now, |(until, _)| until);
        (seconds(at_best - now), seconds(refused_until - now))
    }

    /// How many requests wait in the shortest line of these classes; where none is named, in all.
    pub(crate) fn waiting(&self, classes: &BTreeSet<ModelClass>) -> usize {
        let state = lock(&self.shared.state);
        let in_line = |class| state.queues.get(class).map_or(0, |queue| queue.waiting());
        let shortest = classes.iter().map(in_line).min();
        shortest.unwrap_or_else(|| state.queues.values().map(|queue| queue.waiting()).sum())
    }

    /// How many requests wait, of all classes, and what the first of the longest line waits for.
    pub(crate) fn head(&self) -> (usize, Option<WaitCause>) {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let State { queues, gate, .. } = &mut *state;
        let waiting = queues.values().map(|queue| queue.waiting()).sum();
        let longest = queues.values_mut().max_by_key(|queue| queue.waiting());
        let cause = longest.and_then(|queue| queue.head_outlook(now, gate));
        (waiting, cause.map(|(_, cause)| cause))
    }

    /// Wakes all that wait, so that they see whether they have become pointless.
    pub(crate) fn wake_all(&self) {
        let state = lock(&self.shared.state);
        state.queues.values().for_each(|queue| queue.wake_all());
    }

    /// Wakes those who wait and have no time_left for a pause or an overload that has begun.
    pub(super) fn wake_impatient(&self) {
        let now = self.shared.now();
        let state = lock(&self.shared.state);
        for queue in state.queues.values() {
            queue.wake_impatient(now, &state.gate);
        }
    }

    /// Waits for the turn of a place, and for room then.
    fn wait_in(
        &self,
        place: &Place<'_>,
        request: &AdmissionRequest<'_>,
        start: Time,
    ) -> Result<Reservation, AdmissionFailure> {
        let (shared, waiter) = (place.shared, &*place.waiter);
        let mut announced = false;
        let mut state = lock(&shared.state);
        loop {
            if (request.is_stopped)() {
                return Err(AdmissionFailure::Stopped);
            }
            let now = shared.now();
            let (queue, gate) = state.queue(request.class);
            let waits = queue.waited(now, waiter);
            let (until, cause) = match queue.turn(waiter, now, gate) {
                Ok(key) => {
                    queue.leave(now, waiter);
                    let reservation =
                        Reservation::new(self.clone(), request.class, key, waiter.ticket);
                    return Ok(reservation.after(waits));
                }
                Err(NotNow::Never(excess)) => return Err(AdmissionFailure::Exceeds(excess)),
                Err(NotNow::NotBefore(time, cause)) => (Some(time), cause),
                Err(NotNow::OnEvent(cause)) => (None, cause),
            };
            // An event may better what is waited for, but not the lower bound.
            let best = queue.at_best(now, waiter.ticket, &waiter.cost, gate);
            let left = waiter.wait_limits.after(&waits);
            let is_refused = matches!(cause, WaitCause::Pause | WaitCause::Overload);
            let lack = match left.lack(now, best, queue.refused_until(now, gate)) {
                None if left.is_over(now) => Some(Lack::Time),
                None if is_refused && left.is_spent() => Some(Lack::Wait(cause)),
                lack => lack,
            };
            match lack {
                Some(Lack::Time) => {
                    return Err(AdmissionFailure::Late {
                        at_least: seconds(best.max(until.unwrap_or(now)) - start),
                        cause,
                    });
                }
                Some(Lack::Wait(cause)) => return Err(AdmissionFailure::Refused(cause)),
                None => {}
            }
            if !announced {
                let expected = match cause {
                    // It may come at any time.
                    WaitCause::FirstResponse => best,
                    _ => until.unwrap_or(best),
                };
                let expected = seconds(expected - now);
                if expected >= WORTH_SAYING {
                    announced = true;
                    let wait = Wait {
                        class: request.class.clone(),
                        cause,
                        expected,
                        waiting: queue.waiting(),
                    };
                    let on_wait = state.on_wait.clone();
                    drop(state);
                    // A call says by itself why it comes back.
                    let level = if request.is_back {
                        Level::Debug
                    } else {
                        Level::Info
                    };
                    wait.announce(level, on_wait.as_deref());
                    // Outside of the lock: it may be the last of it, and what it holds may lock.
                    drop(on_wait);
                    state = lock(&shared.state);
                    continue;
                }
            }
            // A refusal that comes meanwhile wakes who had too little time_left from the start: who
            // has used it up looks again.
            let least = match is_refused {
                true => Duration::ZERO,
                false => LOOK_AGAIN,
            };
            let given_up = left.max_wait;
            let given_up = given_up.map(|left| now + left.max(least).as_secs_f64());
            let ends = [left.deadline, given_up].into_iter().flatten();
            let end = ends.reduce(Time::min);
            state = shared.wait(state, waiter, until, end);
        }
    }
}

impl Shared {
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        waiter: &Waiter,
        until: Option<Time>,
        deadline: Option<Time>,
    ) -> MutexGuard<'a, State> {
        // Rounded up, so that it is time then. A time that no clock can show is none.
        let instant = |time: Time| self.birth.checked_add(seconds(time + ROUNDING));
        self.clock.wait(
            &waiter.wake,
            state,
            until.and_then(instant),
            deadline.and_then(instant),
        )
    }
}

impl WaitLimits {
    /// What is left of it after those waits.
    fn after(self, waits: &Waits) -> WaitLimits {
        let waited = waits.of(WaitCause::Pause) + waits.of(WaitCause::Overload);
        let max_wait = self.max_wait.map(|most| most.saturating_sub(waited));
        WaitLimits { max_wait, ..self }
    }

    fn is_over(&self, now: Time) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn is_spent(&self) -> bool {
        self.max_wait.is_some_and(|left| left.is_zero())
    }
}

/// A place in a queue, which is given up whatever happens to the thread.
struct Place<'a> {
    shared: &'a Shared,
    class: &'a ModelClass,
    waiter: Arc<Waiter>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        // By the lock: times of others are not before it.
        let now = self.shared.now();
        if let Some(queue) = state.queues.get_mut(self.class) {
            queue.leave(now, &self.waiter);
        }
    }
}

impl Wait {
    fn announce(&self, level: Level, on_wait: Option<&OnWait>) {
        log!(
            target: "anthropic_blocking",
            level,
            "{}: waiting about {}: {} ({} in line)",
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

impl AdmissionFailure {
    /// The error of a request that was never sent.
    pub(crate) fn into_error(self, action: String, time_left: Option<Duration>) -> Error {
        let kind = match self {
            AdmissionFailure::Late { cause, .. } | AdmissionFailure::Refused(cause) => {
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
                let room = "there is no room within";
                Cause::Rejected(
                    format!("{room} {time_left}, but after {at_least} at the earliest: {cause}")
                        .into(),
                )
            }
            AdmissionFailure::Refused(cause) => {
                Cause::Rejected(format!("{cause}, and max_wait permits no longer wait").into())
            }
            AdmissionFailure::Stopped => Cause::Shutdown,
        };
        let is_retryable = matches!(
            self,
            AdmissionFailure::Late { .. } | AdmissionFailure::Refused(_)
        );
        Error::new(kind, action, cause).with_classification(is_retryable, None, None)
    }
}

/// A wait shorter than a second is not worth a line.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// How often at most a request looks whether it has come to wait for a refusal.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What times may lose on their way through a clock, in seconds.
const ROUNDING: Time = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use fastrand::Rng;
    use std::cell::Cell;

    #[test]
    fn who_would_wait_for_no_refusal_sleeps_while_it_waits_for_something_else() {
        let budget = Budget::on(Clock::System, Rng::with_seed(1));
        let (class, cost) = (ModelClass::of("claude-haiku-4-5"), Cost::request());
        // The next one waits for its headers.
        let first = budget.reserve(&class, cost, None).expect("room");
        let looked = Cell::new(0);
        let request = AdmissionRequest {
            class: &class,
            cost,
            ticket: None,
            is_back: false,
            time_left: Some(Duration::from_millis(50)),
            max_wait: Some(Duration::ZERO),
            is_stopped: &|| {
                looked.set(looked.get() + 1);
                false
            },
        };
        let denied = budget.acquire(&request).map(drop);
        assert!(
            matches!(denied, Err(AdmissionFailure::Late { .. })),
            "{denied:?}"
        );
        assert!(looked.get() < 10, "looked {} times", looked.get());
        drop(first);
    }
}
