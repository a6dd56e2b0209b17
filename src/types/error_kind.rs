//! The kinds of failures. `error` re-exports [`ErrorKind`]; it is declared here because a message
//! holds its attempts, and each failed attempt its kind.

use std::fmt;

/// The kind of failure that an [`Error`](crate::Error) reports. Match on this.
///
/// ```
/// use anthropic_blocking::{Error, ErrorKind};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::Auth | ErrorKind::Billing => "check the account",
///         ErrorKind::InvalidRequest => "correct the request",
///         _ if error.is_retryable() => "try again later",
///         _ => "look at the log",
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong: a key, a header, an address, a proxy, a certificate. Nothing was sent,
    /// or the request did not reach the API, such as when another server redirects it.
    Config,
    /// The request is invalid or too large for the endpoint. The same request will fail again.
    InvalidRequest,
    /// The server refused the credentials (401 or 403): they are wrong, revoked, not permitted to
    /// do this, or were removed on the way. A client without credentials is not built at all: that
    /// error is [`Config`](ErrorKind::Config).
    Auth,
    /// A spend limit, missing credit or another billing problem. Waiting does not help: a person
    /// must act.
    Billing,
    /// The resource or model does not exist.
    NotFound,
    /// A rate limit required a longer wait than the call was allowed to make.
    RateLimit,
    /// The API stayed overloaded for longer than the call was allowed to wait.
    Overloaded,
    /// The server, or a gateway in front of it, failed.
    Server,
    /// The connection could not be made, or broke.
    Connection,
    /// A timeout of this client passed: connect, idle, total or deadline.
    Timeout,
    /// The response could not be read.
    Decode,
    /// A stream ended before its last event.
    Stream,
    /// A request of a batch was not carried out because it expired or was canceled, or an item of a
    /// bulk run because the run was stopped.
    NotRun,
    /// A closure panicked: that of a bulk run, or one of the budget while an item waited.
    Panicked,
    /// The request exceeds the budget's limits, or does not fit them before the deadline.
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
            ErrorKind::Decode => "unreadable response",
            ErrorKind::Stream => "broken stream",
            ErrorKind::NotRun => "not carried out",
            ErrorKind::Panicked => "panic",
            ErrorKind::Budget => "budget",
            ErrorKind::Shutdown => "shut down",
        })
    }
}
