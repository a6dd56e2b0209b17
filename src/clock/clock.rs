//! Now, wall time, and waits on a condition variable.

#[cfg(feature = "testing")]
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

#[cfg(feature = "testing")]
use super::manual::ManualTime;
use super::monotonic::machine_now;
use super::sync::{Condvar, MutexGuard};

/// Where time comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// A clock that tests control.
    #[cfg(feature = "testing")]
    Manual(Arc<ManualTime>),
}

impl Clock {
    /// Returns the monotonic time.
    pub(crate) fn now(&self) -> Instant {
        match self {
            Clock::System => machine_now(),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.now(),
        }
    }

    /// Blocks on a condition variable until a notification, `until` or `deadline`; may return
    /// early. A manual clock jumps to `until`, never to a deadline.
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

    /// Returns the time of day, only to compare it with times of day that the server sent.
    pub(crate) fn wall(&self) -> SystemTime {
        match self {
            Clock::System => SystemTime::now(),
            #[cfg(feature = "testing")]
            Clock::Manual(time) => time.wall(),
        }
    }
}
