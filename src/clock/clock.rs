//! Now, wall time and sleep: the only file that reads a clock or stops a thread.

pub(crate) mod sync;

#[cfg(feature = "testing")]
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::sync::{AtomicBool, AtomicU8, Condvar, Mutex, MutexGuard};

/// Where time comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// A clock that a test moves.
    #[cfg(feature = "testing")]
    Manual(Arc<ManualTime>),
}

impl Clock {
    /// Monotonic time.
    pub(crate) fn now(&self) -> Instant {
        match self {
            Clock::System => now(),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.now(),
        }
    }

    /// Blocks on a condition variable until it is notified, or `until` or `deadline` has come; may
    /// end early. A manual clock jumps to `until`, never to a deadline.
    pub(crate) fn wait<'a, T>(
        &self,
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        until: Option<Instant>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        #[cfg(feature = "testing")]
        if let Clock::Manual(time) = self {
            return time.wait(condvar, guard, until);
        }
        let Some(end) = [until, deadline].into_iter().flatten().min() else {
            return condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        let left = end.saturating_duration_since(self.now());
        condvar
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// The time of day, only to compare with times of day that the server sent.
    pub(crate) fn wall(&self) -> SystemTime {
        match self {
            Clock::System => SystemTime::now(),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.wall(),
        }
    }
}

/// What the machine's monotonic clock shows.
fn now() -> Instant {
    #[cfg(all(test, model_check))]
    return crate::clock::sync::now();
    #[cfg(not(all(test, model_check)))]
    Instant::now()
}

/// Ends some calls: first nothing more is sent, then what is under way is cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    level: AtomicU8,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// One that also ends when this one does.
    pub(crate) fn child(&self) -> CancelToken {
        CancelToken(Arc::new(CancelState {
            parent: Some(self.clone()),
            ..CancelState::default()
        }))
    }

    /// Has nothing more sent; returns whether that is new. Who waits must be woken.
    pub(crate) fn stop(&self) -> bool {
        self.0.level.fetch_max(1, Ordering::SeqCst) == 0
    }

    /// Has what is under way cut as well.
    pub(crate) fn abort(&self) {
        self.0.level.store(2, Ordering::SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.level() > 0
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.level() > 1
    }

    fn level(&self) -> u8 {
        let parent = self.0.parent.as_ref().map_or(0, CancelToken::level);
        self.0.level.load(Ordering::SeqCst).max(parent)
    }
}

/// Puts threads to sleep until a time has come or [`Sleeper::stop`] is called.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    clock: Clock,
    stopped: AtomicBool,
    bed: Mutex<()>,
    wake: Condvar,
}

/// A sleep ended because of [`Sleeper::stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Sleeper {
    pub(crate) fn new(clock: Clock) -> Sleeper {
        Sleeper {
            clock,
            ..Sleeper::default()
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Ends every sleep, now and later.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has every sleeper look whether it is stopped.
    pub(crate) fn wake(&self) {
        drop(lock(&self.bed));
        self.wake.notify_all();
        #[cfg(feature = "testing")]
        if let Clock::Manual(time) = &self.clock {
            time.wake();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Blocks this thread for `duration`.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        self.sleep_unless(duration, || false)
    }

    /// The same, and no longer than until `is_over`, for which it must be [woken](Sleeper::wake).
    pub(crate) fn sleep_unless(
        &self,
        duration: Duration,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        let is_stopped = || self.is_stopped() || is_over();
        match &self.clock {
            Clock::System => self.sleep_here(duration, is_stopped),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.sleep(duration, is_stopped),
        }
    }

    fn sleep_here(&self, duration: Duration, is_stopped: impl Fn() -> bool) -> Result<(), Stopped> {
        let start = now();
        let mut bed = lock(&self.bed);
        loop {
            if is_stopped() {
                return Err(Stopped);
            }
            let left = duration.saturating_sub(now() - start);
            if left.is_zero() {
                return Ok(());
            }
            bed = self
                .wake
                .wait_timeout(bed, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Takes a lock, also after a thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time that stands still until it is moved; what `testing::ManualClock` shares with a client.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub(crate) struct ManualTime {
    start: Instant,
    wall_start: SystemTime,
    state: Mutex<ManualState>,
    moved: Condvar,
}

/// As far as a manual clock goes: what an `Instant` can be moved by on every system.
#[cfg(feature = "testing")]
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(feature = "testing")]
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

#[cfg(feature = "testing")]
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
        let start = now();
        let mut state = lock(&self.state);
        while state.taken + state.sleeps.len() < count {
            let left = timeout.saturating_sub(now() - start);
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

    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn wall(&self) -> SystemTime {
        self.wall_start + self.elapsed()
    }

    fn wake(&self) {
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
    fn wait<'a, T>(
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

    fn sleep(&self, duration: Duration, stopped: impl Fn() -> bool) -> Result<(), Stopped> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn stop_ends_a_sleep_of_an_hour() {
        let sleeper = Arc::new(Sleeper::new(Clock::System));
        let other = Arc::clone(&sleeper);
        let thread = std::thread::spawn(move || other.sleep(Duration::from_secs(3600)));
        sleeper.stop();
        assert_eq!(thread.join().expect("no panic"), Err(Stopped));
        assert_eq!(sleeper.sleep(Duration::from_secs(3600)), Err(Stopped));
    }

    #[test]
    fn manual_time_passes_by_sleeping() {
        let time = Arc::new(ManualTime::new(SystemTime::UNIX_EPOCH, false));
        let sleeper = Sleeper::new(Clock::Manual(Arc::clone(&time)));
        let start = sleeper.clock().now();
        assert_eq!(sleeper.sleep(Duration::from_secs(3600)), Ok(()));
        assert_eq!(sleeper.clock().now() - start, Duration::from_secs(3600));
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        assert_eq!(sleeper.clock().wall(), wall);
        assert_eq!(time.sleeps(), [Duration::from_secs(3600)]);
    }

    #[test]
    fn held_time_passes_only_when_moved() {
        let time = Arc::new(ManualTime::new(SystemTime::UNIX_EPOCH, true));
        let sleeper = Arc::new(Sleeper::new(Clock::Manual(Arc::clone(&time))));
        let other = Arc::clone(&sleeper);
        let thread = std::thread::spawn(move || other.sleep(Duration::from_secs(10)));
        assert!(time.wait_for_sleeps(1, Duration::from_secs(60)));
        time.advance(Duration::from_secs(9));
        assert!(!thread.is_finished());
        time.advance(Duration::from_secs(1));
        assert_eq!(thread.join().expect("no panic"), Ok(()));
    }
}
