//! What an HTTP meta came to, beside its body: errors by kind, attempts, rate limits.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::id::RequestId;
use super::wait::Waits;

/// What kind of failure an [`Error`](crate::Error) is: match on this.
///
/// ```
/// use anthropic_blocking::{Error, ErrorKind};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::Auth | ErrorKind::Billing => "ask whoever pays",
///         ErrorKind::InvalidRequest => "it is our mistake",
///         _ if error.is_retryable() => "later",
///         _ => "look at the log",
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong: a key, a header, an address, a proxy, a certificate. Nothing was sent, or it
    /// was not received by the API: a redirect of another server is this as well.
    Config,
    /// The request is wrong, or more than the endpoint takes. The same request fails again.
    InvalidRequest,
    /// The server refused the credentials (401 or 403): they are wrong, revoked, not allowed to do
    /// this, or missing, because something on the way took them out. Where none are set, no client is
    /// built: that is [`Config`](ErrorKind::Config).
    Auth,
    /// Money: a spend limit, credit or billing. Waiting does not help, a person must act.
    Billing,
    /// There is no such resource or model.
    NotFound,
    /// A rate limit that was not waited out: the wait was longer than allowed.
    RateLimit,
    /// The API is overloaded, and stayed so for longer than the call was allowed to wait.
    Overloaded,
    /// The server, or something on the way to it, failed.
    Server,
    /// No connection, or one that broke.
    Connection,
    /// A time limit of this client passed: connect, idle, total or deadline.
    Timeout,
    /// The answer could not be read.
    Decode,
    /// A stream ended before its last event.
    Stream,
    /// A request of a batch was not carried out, because it expired or was canceled; or an item of
    /// a bulk run, because the run was stopped.
    NotRun,
    /// The closure of a bulk run panicked, or one of the budget while an item waited.
    Panicked,
    /// The request can never fit the limits, or not before the deadline.
    Budget,
    /// [`Client::shutdown`](crate::Client::shutdown) was called.
    Shutdown,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Config => "configuration",
            ErrorKind::InvalidRequest => "invalid request",
            ErrorKind::Auth => "authentication",
            ErrorKind::Billing => "billing",
            ErrorKind::NotFound => "not found",
            ErrorKind::RateLimit => "rate limit",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Server => "server error",
            ErrorKind::Connection => "connection",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Decode => "unreadable answer",
            ErrorKind::Stream => "broken stream",
            ErrorKind::NotRun => "not carried out",
            ErrorKind::Panicked => "panic",
            ErrorKind::Budget => "budget",
            ErrorKind::Shutdown => "shut down",
        })
    }
}

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

/// One group of rate limit headers.
///
/// ```
/// # fn show(message: &anthropic_blocking::Message) {
/// if let Some(requests) = message.rate_limits().requests {
///     println!("{:?} of {:?} requests left", requests.remaining, requests.limit);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimit {
    /// The most per minute.
    pub limit: Option<u64>,
    /// What is left; token counts are rounded to the nearest thousand by the server.
    pub remaining: Option<u64>,
    /// When the bucket will be *full* again, by the server's clock; there is room long before.
    pub reset: Option<SystemTime>,
}

/// What the response headers said about rate limits. Any group may be missing.
///
/// ```
/// use anthropic_blocking::{Message, RateLimits};
///
/// # fn show(message: &Message) {
/// let RateLimits { input_tokens, output_tokens, .. } = message.rate_limits();
/// println!("input {input_tokens:?}, output {output_tokens:?}");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimits {
    /// Requests.
    pub requests: Option<RateLimit>,
    /// Input tokens.
    pub input_tokens: Option<RateLimit>,
    /// Output tokens.
    pub output_tokens: Option<RateLimit>,
    /// The most restrictive token limit in force, or input and output together.
    pub tokens: Option<RateLimit>,
    /// Input tokens of requests in fast mode.
    pub fast_input_tokens: Option<RateLimit>,
    /// Output tokens of requests in fast mode.
    pub fast_output_tokens: Option<RateLimit>,
    /// How long the server asks to wait. It stands on many successful answers too, where it is no
    /// reason to wait.
    pub retry_after: Option<Duration>,
}

/// How an answer was obtained.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseMeta {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) rate_limits: RateLimits,
    pub(crate) attempts: Vec<Attempt>,
}

/// How it was obtained makes no difference between two answers.
impl PartialEq for ResponseMeta {
    fn eq(&self, _: &ResponseMeta) -> bool {
        true
    }
}

impl ResponseMeta {
    /// How long all attempts waited.
    pub(crate) fn waited(&self) -> Waits {
        let mut waits = Waits::default();
        for attempt in &self.attempts {
            waits.add_all(&attempt.waited);
        }
        waits
    }
}
