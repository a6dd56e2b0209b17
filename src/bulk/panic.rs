//! The error of an item whose closure panicked.

use crate::error::{Cause, Error, Result, sanitize};
use crate::types::ErrorKind;

/// Returns the error of a closure that panicked, with the message of the panic if it is text.
pub(super) fn panicked<R>(panic: Box<dyn std::any::Any + Send>) -> Result<R> {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let what = match message {
        Some(message) => format!("a closure panicked: {}", sanitize(&message, MAX_SHOWN)),
        None => "a closure panicked".to_owned(),
    };
    let cause = Cause::Rejected(what.into());
    Err(Error::new(
        ErrorKind::Panicked,
        "an item of a bulk run",
        cause,
    ))
}

/// How many characters of a panic message are shown.
const MAX_SHOWN: usize = 200;
