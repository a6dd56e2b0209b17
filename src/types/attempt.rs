//! One attempt of a call, and how far its request got.

use std::fmt;
use std::time::Duration;

use super::error_kind::ErrorKind;
use super::request_id::RequestId;
use super::wait::Waits;

/// How far a request got: what is at stake when it is sent again.
///
/// ```
/// use anthropic_blocking::{Delivery, Error};
///
/// /// Whether someone may have to pay for a request that failed.
/// fn may_be_billed(error: &Error) -> bool {
///     error.attempts().iter().any(|attempt| attempt.delivery == Delivery::Unknown)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The server cannot have acted on it: it never received the whole request.
    NotSent,
    /// It was sent, and no answer arrived whole: it may have been carried out and billed.
    Unknown,
    /// The server answered.
    Responded,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delivery::NotSent => "not sent",
            Delivery::Unknown => "sent, outcome unknown",
            Delivery::Responded => "answered",
        })
    }
}

/// One HTTP meta of a call, failed or not.
///
/// ```
/// # fn show(message: &anthropic_blocking::Message) {
/// for attempt in message.attempts() {
///     let waited = attempt.waited.total();
///     println!("{:?} after {waited:?}: {:?}", attempt.status, attempt.failure);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// How far the request got.
    pub delivery: Delivery,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// What went wrong; `None` for the attempt that succeeded.
    pub failure: Option<ErrorKind>,
    /// The id under which the server logged the meta.
    pub request_id: Option<RequestId>,
    /// How long the call waited before this attempt, and for what.
    pub waited: Waits,
    /// How long the attempt took.
    pub took: Duration,
}
