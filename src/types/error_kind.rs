//! What kind of failure an error is.

use std::fmt;

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
