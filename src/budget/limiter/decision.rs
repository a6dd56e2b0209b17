//! The values that a limiter returns: why a request must wait, why it can never be sent, a snapshot.

use std::fmt;

use super::token_bucket::BucketView;
use crate::budget::cost::{PerDimension, Time};
use crate::budget::limits::Limits;
use crate::types::{Dimension, WaitCause};

/// Why a request may not be sent now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NotNow {
    /// Not before that time, unless an event makes room earlier.
    NotBefore(Time, WaitCause),
    /// Not before a request in flight makes progress or ends.
    OnEvent(WaitCause),
    /// Never: the request exceeds a limit.
    Never(OverLimit),
}

/// A request that is larger than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) dimension: Dimension,
    /// The expected or promised cost of the request.
    pub(crate) estimate: u64,
    /// The limit per minute.
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

/// The state of a limiter, for snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LimiterView {
    /// The caller's own limits.
    pub(crate) limits: Limits,
    /// What counts against the limits in the last 60 s.
    pub(crate) used: PerDimension<u64>,
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// The server's buckets, where their limits are known.
    pub(crate) server: PerDimension<Option<BucketView>>,
    /// The end of the pause after a refusal; a past time if there is none.
    pub(crate) paused_until: Time,
}
