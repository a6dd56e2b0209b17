//! Taking a lock.

use std::sync::PoisonError;

use super::sync::{Mutex, MutexGuard};

/// Takes a lock, also a lock that a thread held while it panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
