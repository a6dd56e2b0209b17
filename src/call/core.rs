//! What the calls of a client share, and the settings of one copy of a client.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::retry::{RetryBudget, RetryPolicy};
use super::totals::SharedTotals;
use crate::budget::{Budget, InputEstimate};
use crate::clock::sync::Mutex;
use crate::clock::{CancelToken, Sleeper};
use crate::http::drain::DrainPolicy;
use crate::http::{BaseUrl, Headers, Transport};

/// What a client shares with its clones and copies.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) base_url: BaseUrl,
    pub(crate) transport: Transport,
    pub(crate) sleeper: Sleeper,
    /// The source of all random generators of calls.
    pub(crate) rng: Mutex<Rng>,
    pub(crate) retry_budget: Mutex<RetryBudget>,
    pub(crate) budget: Budget,
    /// The ids of batches whose creator is known: a search for a lost batch passes over them.
    pub(crate) claimed_batches: Mutex<HashSet<String>>,
    pub(crate) drain_policy: DrainPolicy,
}

/// The settings of a client, in which its copies may differ.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) headers: Headers,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// The timeout of a response that comes in one piece; `None` is the default of ten minutes.
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) stream_underneath: bool,
    pub(crate) input_estimate: InputEstimate,
    pub(crate) totals: Arc<SharedTotals>,
    /// Cancels the calls of this copy of the client, and of no other.
    pub(crate) cancel: CancelToken,
}

/// The target of all log lines.
pub(crate) const LOG: &str = "anthropic_blocking";
