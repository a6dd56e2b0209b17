//! How the threads of the test server wait for each other and stop.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Ends every pause when the server stops.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    is_stopping: Mutex<bool>,
    signal: Condvar,
}

impl StopSignal {
    pub(super) fn stop(&self) {
        *lock(&self.is_stopping) = true;
        self.signal.notify_all();
    }

    /// Blocks for this long, or until the server stops; returns `false` if the server stops.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let guard = lock(&self.is_stopping);
        let waited = self
            .signal
            .wait_timeout_while(guard, duration, |is_stopping| !*is_stopping);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*guard
    }
}

/// Takes a lock, also after a thread panicked while it held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
