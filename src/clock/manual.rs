//! Time that a test moves.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::cancel::Stopped;
use super::lock::lock;
use super::monotonic::machine_now;
use super::sync::{Condvar, Mutex, MutexGuard};

/// Time that stands still until it is moved; what `testing::ManualClock` shares with a client.
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
    /// How many sleeps were taken out of these.
    taken: usize,
    /// When those sleeps end that were noted for condition variables, by their addresses.
    ends: BTreeMap<usize, Duration>,
    held: bool,
}

impl ManualTime {
    /// A clock that shows `wall`; while `held`, sleepers wait for someone to move it.
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

    /// Blocks until `count` sleeps have begun since the clock was made, at most for `timeout`;
    /// whether they have.
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

    /// Notes that a sleep begins, and says when it ends; a clock that is not held is there at once.
    fn begin_sleep(&self, state: &mut ManualState, duration: Duration) -> Duration {
        state.sleeps.push(duration);
        let end = state.elapsed.saturating_add(duration).min(FAR);
        if !state.held {
            state.elapsed = end;
        }
        self.moved.notify_all();
        end
    }

    /// Until `until` the clock jumps, or is held. Ends early, again and again, because nobody tells
    /// a condition variable that the clock was moved.
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
            // Who looks again sleeps on.
            let sleeper = std::ptr::from_ref(condvar).addr();
            if !left.is_zero() && state.ends.insert(sleeper, passed) != Some(passed) {
                self.begin_sleep(&mut state, left);
            }
            // At its end a clock shows no later time: then only an event helps.
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

/// As far as a manual clock goes: what an `Instant` can be moved by on every system.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
