//! Locks, condition variables and flags: the standard library's, or those of a model check.

#[cfg(test)]
mod model;

#[cfg(not(all(test, model_check)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8};
#[cfg(not(all(test, model_check)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(all(test, model_check))]
pub(crate) use self::model::*;
#[cfg(all(test, model_check))]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8};
