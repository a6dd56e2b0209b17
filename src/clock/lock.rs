//! Taking a lock.

use std::sync::PoisonError;

use super::sync::{Mutex, MutexGuard};

/// Takes a lock, also after a thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
