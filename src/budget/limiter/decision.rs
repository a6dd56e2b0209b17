//! What an limiter answers: whether a request may be sent, what it waits for, how things stand.

use std::fmt;

use super::token_bucket::BucketView;
use crate::budget::cost::{Each, Time};
use crate::budget::limits::Limits;
use crate::types::{Dimension, WaitCause};

/// Why a request may not be sent now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NotNow {
    /// Not before that time, unless something gets better earlier; then ask again.
    NotBefore(Time, WaitCause),
    /// Not before something in flight moves or ends.
    OnEvent(WaitCause),
    /// It can never fit.
    Never(OverLimit),
}

/// A request that is larger than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) dimension: Dimension,
    pub(crate) estimate: u64,
    pub(crate) limit: u64,
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OverLimit {
            dimension,
            estimate,
            limit,
        } = self;
        write!(
            f,
            "a request of {estimate} {dimension} can never fit the limit of {limit} per minute"
        )
    }
}

/// What an limiter looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LimiterView {
    pub(crate) limits: Limits,
    /// What counts against them in the last 60 s.
    pub(crate) used: Each<u64>,
    pub(crate) in_flight: usize,
    pub(crate) server: Each<Option<BucketView>>,
    pub(crate) pause_until: Time,
}
