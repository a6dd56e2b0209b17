//! Time that a test moves.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::cancel::Stopped;
use super::lock::lock;
use super::monotonic::machine_now;
use super::sync::{Condvar, Mutex, MutexGuard};

/// Time that only a test or a sleep moves; shared by `testing::ManualClock` and a client.
#[derive(Debug)]
pub(crate) struct ManualTime {
    start: Instant,
    wall_start: SystemTime,
    state: Mutex<ManualState>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct ManualState {
    elapsed: Duration,
    sleeps: Vec<Duration>,
    /// The number of sleeps that `take_sleeps` has removed from `sleeps`.
    taken: usize,
    /// The ends of the sleeps on condition variables, by address of the condition variable.
    ends: BTreeMap<usize, Duration>,
    /// Whether only the test moves the clock; otherwise each sleep moves it.
    held: bool,
}

impl ManualTime {
    /// Creates a clock that shows `wall`; while `held`, a sleep lasts until the test moves the
    /// clock.
    pub(crate) fn new(wall: SystemTime, held: bool) -> ManualTime {
        ManualTime {
            start: Instant::now(),
            wall_start: wall,
            state: Mutex::new(ManualState {
                held,
                ..ManualState::default()
            }),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        lock(&self.state).elapsed
    }

    pub(crate) fn sleeps(&self) -> Vec<Duration> {
        lock(&self.state).sleeps.clone()
    }

    pub(crate) fn take_sleeps(&self) -> Vec<Duration> {
        let mut state = lock(&self.state);
        let sleeps = std::mem::take(&mut state.sleeps);
        state.taken += sleeps.len();
        sleeps
    }

    pub(crate) fn advance(&self, by: Duration) {
        {
            let mut state = lock(&self.state);
            state.elapsed = state.elapsed.saturating_add(by).min(FAR);
        }
        self.moved.notify_all();
    }

    /// Blocks until `count` sleeps have begun since the clock was created, at most for `timeout`;
    /// returns whether they have begun.
    pub(crate) fn wait_for_sleeps(&self, count: usize, timeout: Duration) -> bool {
        let start = machine_now();
        let mut state = lock(&self.state);
        while state.taken + state.sleeps.len() < count {
            let left = timeout.saturating_sub(machine_now() - start);
            if left.is_zero() {
                return false;
            }
            state = self
                .moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    pub(super) fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.wall_start + self.elapsed()
    }

    pub(super) fn wake(&self) {
        drop(lock(&self.state));
        self.moved.notify_all();
    }

    /// Notes that a sleep begins, and returns its end; a clock that is not held jumps to the end at
    /// once.
    fn begin_sleep(&self, state: &mut ManualState, duration: Duration) -> Duration {
        state.sleeps.push(duration);
        let end = state.elapsed.saturating_add(duration).min(FAR);
        if !state.held {
            state.elapsed = end;
        }
        self.moved.notify_all();
        end
    }

    /// Jumps to `until` unless the clock is held. Returns early every millisecond, because nothing
    /// notifies the condition variable when the clock moves.
    pub(super) fn wait<'a, T>(
        &self,
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        if let Some(until) = until {
            let mut state = lock(&self.state);
            let passed = until.saturating_duration_since(self.start);
            let left = passed.saturating_sub(state.elapsed);
            let elapsed = state.elapsed;
            state.ends.retain(|_, end| *end > elapsed);
            // A waiter that checks again continues its sleep: no new sleep is noted.
            let sleeper = std::ptr::from_ref(condvar).addr();
            if !left.is_zero() && state.ends.insert(sleeper, passed) != Some(passed) {
                self.begin_sleep(&mut state, left);
            }
            // A clock at `FAR` shows no later time: only a notification ends the wait.
            if state.elapsed >= passed {
                return guard;
            }
        }
        condvar
            .wait_timeout(guard, Duration::from_millis(1))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    pub(super) fn sleep(
        &self,
        duration: Duration,
        stopped: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        let mut state = lock(&self.state);
        if stopped() {
            return Err(Stopped);
        }
        let end = self.begin_sleep(&mut state, duration);
        while state.elapsed < end {
            if stopped() {
                return Err(Stopped);
            }
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

/// The latest time of a manual clock, a hundred years after its start: every system can add so much
/// to an `Instant`.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
