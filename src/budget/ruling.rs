//! What an account answers: whether a request may be sent, what it waits for, how things stand.

use std::fmt;

use super::bucket::ServerView;
use super::cost::{Dimension, Each, Time};
use super::limits::Limits;

/// Why a request may not be sent now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Later {
    /// Not before that time, unless something gets better earlier; then ask again.
    NotBefore(Time, WaitCause),
    /// Not before something in flight moves or ends.
    OnEvent(WaitCause),
    /// It can never fit.
    Never(Excess),
}

/// A request that is larger than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) dimension: Dimension,
    pub(crate) estimate: u64,
    pub(crate) limit: u64,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitCause {
    /// The server asked to wait.
    Pause,
    /// The host is overloaded.
    Overload,
    /// The caller's own limit.
    Limit(Dimension),
    /// The server's limit.
    Server(Dimension),
    /// The pace, which grows at the start of a run.
    Pace(Dimension),
    /// The first answer, which shows the server's limits.
    FirstAnswer,
    /// An end of another request, for there are too many at once.
    Concurrency,
    /// Requests of its class that came before it.
    Turn,
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitCause::Pause => f.write_str("the server asked to wait"),
            WaitCause::Overload => f.write_str("the server is overloaded"),
            WaitCause::Limit(dimension) => write!(f, "own limit of {dimension} per minute"),
            WaitCause::Server(dimension) => {
                write!(f, "the server's limit of {dimension} per minute")
            }
            WaitCause::Pace(dimension) => write!(f, "pace of {dimension}"),
            WaitCause::FirstAnswer => f.write_str("the first answer will show the limits"),
            WaitCause::Turn => f.write_str("others came before"),
            WaitCause::Concurrency => f.write_str("the server allows no more requests at once"),
        }
    }
}

/// What an account looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) limits: Limits,
    /// What counts against them in the last 60 s.
    pub(crate) used: Each<u64>,
    pub(crate) in_flight: usize,
    pub(crate) server: Each<Option<ServerView>>,
    pub(crate) pause_until: Time,
}
