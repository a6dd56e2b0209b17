//! The attempts of a call.

use std::fmt;
use std::time::Duration;

use super::error_kind::ErrorKind;
use super::request_id::RequestId;
use super::wait::Waits;

/// How far a request got, which decides whether sending it again may pay for it twice.
///
/// ```
/// use anthropic_blocking::{Delivery, Error};
///
/// /// Whether a failed request may be billed.
/// fn may_be_billed(error: &Error) -> bool {
///     error.attempts().iter().any(|attempt| attempt.delivery == Delivery::Unknown)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The server never received the whole request, so it cannot have acted on it.
    NotSent,
    /// The request was sent, but no complete response arrived: it may have been carried out and
    /// billed.
    Unknown,
    /// The server responded.
    Responded,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delivery::NotSent => "not sent",
            Delivery::Unknown => "sent, outcome unknown",
            Delivery::Responded => "responded",
        })
    }
}

/// One HTTP request of a call with its outcome, failed or not.
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
    /// The HTTP status; `None` if no response arrived.
    pub status: Option<u16>,
    /// The kind of failure; `None` for the attempt that succeeded.
    pub failure: Option<ErrorKind>,
    /// The id under which the server logged the request, if it sent one.
    pub request_id: Option<RequestId>,
    /// How long the call waited before this attempt, by cause.
    pub waited: Waits,
    /// How long the attempt took, without the wait before it.
    pub took: Duration,
}
