//! Sleeps that can be ended.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cancel::Stopped;
use super::clock::Clock;
use super::lock::lock;
use super::monotonic::machine_now;
use super::sync::{AtomicBool, Condvar, Mutex};

/// Blocks threads for a time, or until [`Sleeper::stop`] is called.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    clock: Clock,
    stopped: AtomicBool,
    /// Held while a sleeper checks whether it is stopped, so that no wake-up is lost.
    sleepers: Mutex<()>,
    wake: Condvar,
}

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

    /// Wakes every sleeper, so that the sleeper checks whether it is stopped.
    pub(crate) fn wake(&self) {
        drop(lock(&self.sleepers));
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

    /// Like [`sleep`](Sleeper::sleep), but ends early when `is_over` returns `true` after a
    /// [wake-up](Sleeper::wake).
    pub(crate) fn sleep_unless(
        &self,
        duration: Duration,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        let is_stopped = || self.is_stopped() || is_over();
        match &self.clock {
            Clock::System => self.sleep_on_system_clock(duration, is_stopped),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.sleep(duration, is_stopped),
        }
    }

    fn sleep_on_system_clock(
        &self,
        duration: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        let start = machine_now();
        let mut sleepers = lock(&self.sleepers);
        loop {
            if is_stopped() {
                return Err(Stopped);
            }
            let left = duration.saturating_sub(machine_now() - start);
            if left.is_zero() {
                return Ok(());
            }
            sleepers = self
                .wake
                .wait_timeout(sleepers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualTime;
    use std::sync::Arc;
    use std::time::SystemTime;

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
