//! The error of an item whose closure panicked.

use crate::error::{Cause, Error, Result};
use crate::types::ErrorKind;

pub(super) fn panicked<R>(panic: Box<dyn std::any::Any + Send>) -> Result<R> {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let what = match said {
        Some(said) => format!("a closure panicked: {}", crate::error::sanitize(&said, 200)),
        None => "a closure panicked".to_owned(),
    };
    let cause = Cause::Rejected(what.into());
    Err(Error::new(
        ErrorKind::Panicked,
        "an item of a bulk run",
        cause,
    ))
}
