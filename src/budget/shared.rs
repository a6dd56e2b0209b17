//! What the clones of a budget share: the clock, the lock, and the state under it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::class::ModelClass;
use super::cost::{Time, to_duration};
use super::limiter::class_limiter::ClassLimiter;
use super::limiter::overload_gate::OverloadGate;
use super::limits::Limits;
use super::queue::{ClassQueue, Waiter};
use super::wait::OnWait;
use crate::clock::sync::{Mutex, MutexGuard};
use crate::clock::{Clock, lock};
use crate::types::Model;

pub(super) struct SharedBudget {
    clock: Clock,
    created: Instant,
    pub(super) state: Mutex<BudgetState>,
}

pub(super) struct BudgetState {
    pub(super) queues: BTreeMap<ModelClass, ClassQueue>,
    pub(super) gate: OverloadGate,
    pub(super) default_limits: Limits,
    pub(super) limits: BTreeMap<ModelClass, Limits>,
    pub(super) assumed: BTreeMap<ModelClass, Limits>,
    pub(super) classify: Option<Arc<Classify>>,
    pub(super) on_wait: Option<Arc<OnWait>>,
    rng: Rng,
}

pub(super) type Classify = dyn Fn(&Model) -> ModelClass + Send + Sync;

impl SharedBudget {
    pub(super) fn new(clock: Clock, mut rng: Rng) -> SharedBudget {
        let state = BudgetState {
            queues: BTreeMap::new(),
            gate: OverloadGate::new(rng.fork()),
            default_limits: Limits::per_minute(),
            limits: BTreeMap::new(),
            assumed: BTreeMap::new(),
            classify: None,
            on_wait: None,
            rng,
        };
        SharedBudget {
            created: clock.now(),
            clock,
            state: Mutex::new(state),
        }
    }

    /// Takes the lock, applies `change`, and wakes each head of a queue that can be admitted before
    /// its sleep ends.
    pub(super) fn transact<T>(&self, change: impl FnOnce(&mut BudgetState, Time) -> T) -> T {
        let now = self.now();
        let mut state = lock(&self.state);
        let result = change(&mut state, now);
        state.wake_heads(now);
        result
    }

    /// Reports an outcome to the limiter of a class, in a [`transact`](SharedBudget::transact).
    pub(super) fn update_limiter<T>(
        &self,
        class: &ModelClass,
        change: impl FnOnce(&mut ClassLimiter, Time, &mut OverloadGate) -> T,
    ) -> Option<T> {
        self.transact(|state, now| {
            let limiter = &mut state.queues.get_mut(class)?.limiter;
            Some(change(limiter, now, &mut state.gate))
        })
    }

    /// Wakes the waiters whose limits are exceeded by a pause or an overload that has begun.
    pub(super) fn wake_over_max_wait(&self) {
        let now = self.now();
        let state = lock(&self.state);
        for queue in state.queues.values() {
            queue.wake_over_max_wait(now, &state.gate);
        }
    }

    /// Returns the seconds since the budget was created.
    pub(super) fn now(&self) -> Time {
        self.clock
            .now()
            .saturating_duration_since(self.created)
            .as_secs_f64()
    }

    /// Blocks until the waiter is woken, until the time `until` or until `deadline`; gives up the
    /// lock meanwhile. May return early.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, BudgetState>,
        waiter: &Waiter,
        until: Option<Time>,
        deadline: Option<Time>,
    ) -> MutexGuard<'a, BudgetState> {
        // Rounded up, so that the time has come when the wait ends. A time that `Instant` cannot
        // represent counts as none.
        let instant = |time: Time| self.created.checked_add(to_duration(time + ROUNDING));
        self.clock.wait(
            &waiter.wake,
            state,
            until.and_then(instant),
            deadline.and_then(instant),
        )
    }
}

impl BudgetState {
    /// Returns the queue of a class, and the overload gate of all queues.
    pub(super) fn queue(&mut self, class: &ModelClass) -> (&mut ClassQueue, &mut OverloadGate) {
        let BudgetState {
            queues,
            gate,
            limits,
            default_limits,
            assumed,
            rng,
            ..
        } = self;
        let queue = queues.entry(class.clone()).or_insert_with(|| {
            let limits = limits_for(class, limits).unwrap_or(*default_limits);
            let mut limiter = ClassLimiter::new(limits, class.counts_cache_reads(), rng.fork());
            if let Some(assumed) = assumed.get(class) {
                limiter.assume_server(0.0, assumed);
            }
            ClassQueue::new(limiter)
        });
        (queue, gate)
    }

    /// Gives the limiter of each class the limits that are set now.
    pub(super) fn apply_limits(&mut self, now: Time) {
        for (class, queue) in &mut self.queues {
            let limits = limits_for(class, &self.limits).unwrap_or(self.default_limits);
            queue.limiter.set_limits(now, limits);
        }
    }

    /// Wakes each head of a queue that can be admitted before its sleep ends.
    pub(super) fn wake_heads(&mut self, now: Time) {
        for queue in self.queues.values_mut() {
            queue.wake_head_if_earlier(now, &mut self.gate);
        }
    }
}

/// Returns the limits set for a class; a class in fast mode without limits of its own has those of
/// its base class.
fn limits_for(class: &ModelClass, limits: &BTreeMap<ModelClass, Limits>) -> Option<Limits> {
    let set = |class: &ModelClass| limits.get(class).copied();
    set(class).or_else(|| set(&class.base()?))
}

/// The most that a time loses by conversion from and to `Instant`, in seconds.
const ROUNDING: Time = 1e-6;
