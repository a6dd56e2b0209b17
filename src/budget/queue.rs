//! The queue of one class: which requests wait, in which order, and which of them is woken.
//!
//! Only the head of a queue sleeps until a computed time; every other waiter sleeps until its
//! predecessor leaves the queue. Each grant thus wakes two threads: the head, whose time has come,
//! and its successor, which becomes the head.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::cost::{Cost, Time, to_duration};
use super::limiter::class_limiter::ClassLimiter;
use super::limiter::decision::NotNow;
use super::limiter::overload_gate::OverloadGate;
use super::limiter::slab::SlabKey;
use crate::clock::sync::Condvar;
use crate::types::{WaitCause, Waits};

/// The limiter of one class and its waiters.
#[derive(Debug)]
pub(super) struct ClassQueue {
    pub(super) limiter: ClassLimiter,
    waiters: VecDeque<Arc<Waiter>>,
    next_ticket: u64,
    /// The sum of the waits of all heads so far, by cause.
    waits: Waits,
    /// The time up to which `waits` is complete.
    counted_until: Time,
    /// What the head has waited for since `counted_until`.
    head_cause: WaitCause,
    /// The end of the head's sleep; `None` if the head waits for an event or has not tried yet.
    head_until: Option<Time>,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) cost: Cost,
    pub(super) wait_limits: WaitLimits,
    pub(super) wake: Condvar,
    /// The queue's `waits` when the request joined.
    waits_before: Waits,
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimits {
    /// The latest admission, whatever the request waits for.
    pub(super) deadline: Option<Time>,
    /// The longest wait for pauses and overloads together.
    pub(super) max_wait: Option<Duration>,
}

/// Which of its [`WaitLimits`] a request would exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum WaitLimitExceeded {
    Deadline,
    /// `max_wait`, by a pause or an overload.
    MaxWait(WaitCause),
}

impl WaitLimits {
    /// Returns the limit that a wait exceeds if it ends neither before `earliest` nor before the
    /// end of `suspension`.
    pub(super) fn exceeded(
        &self,
        now: Time,
        earliest: Time,
        suspension: Option<Suspension>,
    ) -> Option<WaitLimitExceeded> {
        if self.deadline.is_some_and(|deadline| earliest > deadline) {
            return Some(WaitLimitExceeded::Deadline);
        }
        let Suspension { until, cause } = suspension?;
        let is_too_long = |max_wait: Duration| to_duration(until - now) > max_wait;
        self.max_wait
            .is_some_and(is_too_long)
            .then_some(WaitLimitExceeded::MaxWait(cause))
    }
}

/// A pause or an overload: no request of the class is admitted before its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspension {
    pub(super) until: Time,
    pub(super) cause: WaitCause,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedWait {
    /// The end of the wait; `None` where only an event ends the wait.
    pub(super) until: Option<Time>,
    pub(super) cause: WaitCause,
}

impl ClassQueue {
    pub(super) fn new(limiter: ClassLimiter) -> ClassQueue {
        ClassQueue {
            limiter,
            waiters: VecDeque::new(),
            next_ticket: 0,
            waits: Waits::default(),
            counted_until: 0.0,
            head_cause: WaitCause::Turn,
            head_until: None,
        }
    }

    /// Issues the number that orders a request in the queue; a refused request keeps its ticket.
    pub(super) fn issue_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Whether no waiter is ahead of a request with this ticket.
    pub(super) fn is_next(&self, ticket: u64) -> bool {
        self.waiters
            .front()
            .is_none_or(|head| ticket <= head.ticket)
    }

    /// Adds a waiter, in the order of the tickets.
    pub(super) fn join(
        &mut self,
        now: Time,
        ticket: u64,
        cost: Cost,
        wait_limits: WaitLimits,
    ) -> Arc<Waiter> {
        self.count_waits(now);
        let waiter = Arc::new(Waiter {
            ticket,
            cost,
            wait_limits,
            wake: Condvar::new(),
            waits_before: self.waits.clone(),
        });
        let position = self.waiters.partition_point(|other| other.ticket < ticket);
        if position == 0 {
            self.head_until = None;
        }
        self.waiters.insert(position, Arc::clone(&waiter));
        waiter
    }

    /// Removes a waiter; if it was the head, wakes the next waiter.
    pub(super) fn leave(&mut self, now: Time, waiter: &Waiter) {
        let mut waiters = self.waiters.iter();
        let Some(position) = waiters.position(|other| other.ticket == waiter.ticket) else {
            return;
        };
        self.count_waits(now);
        self.waiters.remove(position);
        if position == 0 {
            self.head_until = None;
            self.head_cause = WaitCause::Turn;
            self.wake_head();
        }
    }

    /// Returns what a waiter has waited for until now. A waiter behind the head waits for the cause
    /// that the head waits for.
    pub(super) fn waited(&mut self, now: Time, waiter: &Waiter) -> Waits {
        self.count_waits(now);
        self.waits.since(&waiter.waits_before)
    }

    fn count_waits(&mut self, now: Time) {
        if !self.waiters.is_empty() {
            let waited = to_duration(now - self.counted_until);
            self.waits.add(self.head_cause, waited);
        }
        self.counted_until = now;
    }

    /// Admits a waiter if it is the head and the limiter has room. Otherwise notes until when the
    /// head sleeps.
    pub(super) fn try_admit(
        &mut self,
        waiter: &Waiter,
        now: Time,
        gate: &mut OverloadGate,
    ) -> Result<SlabKey, NotNow> {
        if !self.is_next(waiter.ticket) {
            let head = self.head_wait(now, gate);
            return Err(NotNow::OnEvent(
                head.map_or(WaitCause::Turn, |wait| wait.cause),
            ));
        }
        self.count_waits(now);
        let result = self.limiter.try_admit(now, &waiter.cost, gate);
        (self.head_until, self.head_cause) = match result {
            Err(NotNow::NotBefore(time, cause)) => (Some(time), cause),
            Err(NotNow::OnEvent(cause)) => (None, cause),
            _ => (None, WaitCause::Turn),
        };
        result
    }

    /// Wakes the head if it can be admitted earlier than the end of its sleep.
    pub(super) fn wake_head_if_earlier(&mut self, now: Time, gate: &mut OverloadGate) {
        let Some(head) = self.waiters.front() else {
            return;
        };
        let is_earlier = match self.limiter.check_admission(now, &head.cost, gate) {
            Ok(()) | Err(NotNow::Never(_)) => true,
            Err(NotNow::NotBefore(time, _)) => self
                .head_until
                .is_none_or(|until| time + MIN_GAIN_TO_WAKE < until),
            Err(NotNow::OnEvent(_)) => false,
        };
        if is_earlier {
            self.wake_head();
        }
    }

    pub(super) fn wake_head(&self) {
        if let Some(head) = self.waiters.front() {
            head.wake.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        for waiter in &self.waiters {
            waiter.wake.notify_one();
        }
    }

    /// Wakes the waiters whose limits the current suspension exceeds.
    pub(super) fn wake_over_max_wait(&self, now: Time, gate: &OverloadGate) {
        let Some(suspension) = self.suspension(now, gate) else {
            return;
        };
        for waiter in &self.waiters {
            let limits = waiter.wait_limits;
            let exceeded = limits.exceeded(now, suspension.until, Some(suspension));
            if exceeded.is_some() {
                waiter.wake.notify_one();
            }
        }
    }

    /// Returns the costs of the waiters, in their order.
    pub(super) fn queued_costs(&self) -> impl Iterator<Item = Cost> + '_ {
        self.waiters.iter().map(|waiter| waiter.cost)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Returns the earliest possible admission of a request behind all waiters with lower tickets.
    pub(super) fn earliest_start(
        &mut self,
        now: Time,
        ticket: u64,
        cost: &Cost,
        gate: &mut OverloadGate,
    ) -> Time {
        let mut queued = [0.0; 3];
        let before = self.waiters.iter();
        for other in before.take_while(|other| other.ticket < ticket) {
            // Estimated now: the estimate may have changed since the waiter joined.
            let expected = self.limiter.expected_cost(&other.cost);
            for (sum, expected) in queued.iter_mut().zip(expected) {
                *sum += expected;
            }
        }
        let gate = gate.closed_until().unwrap_or(now);
        self.limiter.earliest_possible(now, &queued, cost).max(gate)
    }

    /// Returns the pause of the class or the current overload, whichever ends later.
    pub(super) fn suspension(&self, now: Time, gate: &OverloadGate) -> Option<Suspension> {
        let pause = Suspension {
            until: self.limiter.paused_until(),
            cause: WaitCause::Pause,
        };
        let overload = gate.closed_until().map(|until| Suspension {
            until,
            cause: WaitCause::Overload,
        });
        let both = [Some(pause), overload].into_iter().flatten();
        let current = both.filter(|suspension| suspension.until > now);
        current.max_by(|one, other| one.until.total_cmp(&other.until))
    }

    /// Returns what a request behind all waiters with lower tickets would wait for.
    pub(super) fn cause_for(
        &mut self,
        now: Time,
        ticket: u64,
        cost: &Cost,
        gate: &mut OverloadGate,
    ) -> WaitCause {
        let head = match self.is_next(ticket) {
            true => expected_wait(&mut self.limiter, now, cost, gate),
            false => self.head_wait(now, gate),
        };
        head.map_or(WaitCause::Turn, |wait| wait.cause)
    }

    /// Returns what the head waits for; `None` if the queue is empty or the head can be admitted.
    pub(super) fn head_wait(&mut self, now: Time, gate: &mut OverloadGate) -> Option<ExpectedWait> {
        let head = self.waiters.front()?;
        expected_wait(&mut self.limiter, now, &head.cost, gate)
    }
}

fn expected_wait(
    limiter: &mut ClassLimiter,
    now: Time,
    cost: &Cost,
    gate: &mut OverloadGate,
) -> Option<ExpectedWait> {
    match limiter.check_admission(now, cost, gate) {
        Err(NotNow::NotBefore(time, cause)) => Some(ExpectedWait {
            until: Some(time),
            cause,
        }),
        Err(NotNow::OnEvent(cause)) => Some(ExpectedWait { until: None, cause }),
        Ok(()) | Err(NotNow::Never(_)) => None,
    }
}

/// The minimum gain for which the head is woken, in seconds: half a millisecond, about the cost of
/// waking a thread.
const MIN_GAIN_TO_WAKE: Time = 0.0005;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Limits;
    use crate::budget::limiter::headers::{LimitHeaders, Refusal};
    use crate::types::Dimension;
    use fastrand::Rng;

    fn queue(limits: Limits) -> (ClassQueue, OverloadGate) {
        let rng = Rng::with_seed(1);
        let limiter = ClassLimiter::new(limits, false, rng.clone());
        (ClassQueue::new(limiter), OverloadGate::new(rng))
    }

    #[test]
    fn waiter_waits_for_the_causes_of_its_head() {
        let (mut queue, mut gate) = queue(Limits::per_minute().requests(100));
        let cost = Cost::request();
        let key = queue
            .limiter
            .try_admit(0.0, &cost, &mut gate)
            .expect("room");
        let pause = LimitHeaders {
            retry_after: Some(20.0),
            ..LimitHeaders::default()
        };
        let limiter = &mut queue.limiter;
        limiter.record_refusal(0.0, key, Refusal::Unexplained, &pause, &mut gate);
        let wait_limits = WaitLimits {
            deadline: None,
            max_wait: None,
        };
        let mut enter = |ticket| queue.join(0.0, ticket, cost, wait_limits);
        let [head, second] = [1, 2].map(&mut enter);
        let until = |decision: Result<SlabKey, NotNow>| match decision {
            Err(NotNow::NotBefore(time, cause)) => (time, cause),
            other => panic!("{other:?}"),
        };
        let (pause, why) = until(queue.try_admit(&head, 0.0, &mut gate));
        assert_eq!(why, WaitCause::Pause);
        queue
            .try_admit(&second, 0.0, &mut gate)
            .expect_err("behind");
        // New limits are set during the pause; the head waits for them next.
        let limits = Limits::per_minute().requests(1);
        queue.limiter.set_limits(1.0, limits);
        let (time, why) = until(queue.try_admit(&head, pause, &mut gate));
        assert_eq!(why, WaitCause::Limit(Dimension::Requests));
        queue.try_admit(&head, time, &mut gate).expect("room");
        queue.leave(time, &head);
        let (next, last) = until(queue.try_admit(&second, time, &mut gate));
        let mut expected = Waits::default();
        for (cause, from, to) in [
            (WaitCause::Pause, 0.0, pause),
            (why, pause, time),
            (last, time, next),
        ] {
            expected.add(cause, to_duration(to - from));
        }
        assert_eq!(queue.waited(next, &second), expected);
        assert!(expected.of(why) > Duration::from_secs(39), "{expected:?}");
    }
}
