//! How the threads of the test server wait for each other and stop.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Tells the threads of the server that it stops, and ends their pauses.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    is_stopping: Mutex<bool>,
    stopped: Condvar,
}

impl StopSignal {
    pub(super) fn stop(&self) {
        *lock(&self.is_stopping) = true;
        self.stopped.notify_all();
    }

    /// Blocks for `duration`, or until the server stops. Returns whether the server goes on.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let guard = lock(&self.is_stopping);
        let waited = self
            .stopped
            .wait_timeout_while(guard, duration, |is_stopping| !*is_stopping);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*guard
    }
}

/// Locks a mutex, even if a thread panicked while it held the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
