//! Creates a batch without creating it twice.
//!
//! If the response to a request is lost, the list of batches is searched for the batch before the
//! request is sent again.

use std::time::Duration;

use log::info;

use super::endpoints::{EXPECTED, PATH};
use super::lookup::{
    BatchLookup, CreatedAfter, LOOKUP_WAITS, claim, describe_candidates, shutdown_error,
};
use crate::call::LOG;
use crate::call::classify::RetryAction;
use crate::call::response::read_json;
use crate::call::retry::{Decision, RetryState};
use crate::client::Options;
use crate::clock::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Attempt, Delivery, MessageBatch};

/// A batch to be created, and the lookup that finds the batch after a lost response.
pub(super) struct BatchCreation<'a> {
    /// The complete JSON body of the request.
    pub(super) body: &'a [u8],
    /// The lookup, which also holds the client that sends the request.
    pub(super) lookup: BatchLookup<'a>,
}

/// A batch that [`BatchCreation::create_once`] created.
pub(super) struct CreatedBatch {
    pub(super) batch: MessageBatch,
    pub(super) origin: BatchOrigin,
}

/// Where the id of a created batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchOrigin {
    /// The server's response to the request that created the batch.
    Response,
    /// A lookup in the list of batches: the batch may belong to another user of the workspace.
    Lookup,
}

impl BatchCreation<'_> {
    /// Sends the request until the batch is created, and blocks for as long as the client's retry
    /// policy and deadline permit.
    ///
    /// A [`Call`](crate::call::Call) with retries would send the request again after a lost
    /// response, without a lookup. So each attempt is a `Call` of its own without retries, and this
    /// function does the retries.
    pub(super) fn create_once(&self) -> Result<CreatedBatch> {
        let client = self.lookup.client;
        let core = client.core();
        let clock = core.sleeper.clock();
        let settings = client.settings();
        let start = clock.now();
        // `None` without a deadline.
        let time_left = || {
            let passed = clock.now().saturating_duration_since(start);
            settings
                .deadline
                .map(|deadline| deadline.saturating_sub(passed))
        };
        let mut retry_state = RetryState::new(settings.retry, lock(&core.rng).fork());
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let error = match self.send_attempt(time_left()) {
                Ok(mut batch) => {
                    // From here on no lookup of this client takes the batch for a lost one.
                    claim(client, &batch.id);
                    attempts.append(&mut batch.meta.attempts);
                    batch.meta.attempts = attempts;
                    return Ok(CreatedBatch {
                        batch,
                        origin: BatchOrigin::Response,
                    });
                }
                Err(error) => error,
            };
            let outcome = CreationOutcome::from_error(&error);
            attempts.extend(error.attempts().iter().cloned());
            let error = error.with_attempts(attempts.clone());
            if outcome == CreationOutcome::Final || time_left().is_some_and(|left| left.is_zero()) {
                // A shutdown is final, but may have interrupted a request in flight.
                let last = error.attempts().last();
                let is_unknown = last.is_some_and(|last| last.delivery == Delivery::Unknown);
                let may_be_created = is_unknown || outcome.may_be_created();
                return Err(add_reason(
                    error,
                    may_be_created.then(describe_possible_batch),
                ));
            }
            if outcome.may_be_created() {
                let count = self.lookup.count;
                info!(target: LOG, "{error}: looking for a batch of {count} requests");
                match self.wait_for_lost_batch(outcome, time_left) {
                    Ok(Some(batch)) => {
                        return Ok(CreatedBatch {
                            batch,
                            origin: BatchOrigin::Lookup,
                        });
                    }
                    Ok(None) => {}
                    Err(reason) => return Err(add_reason(error, reason)),
                }
            }
            let wait = match self.decide_retry(&mut retry_state, outcome, &error) {
                Ok(wait) => wait,
                Err(reason) => return Err(add_reason(error, reason)),
            };
            if time_left().is_some_and(|left| wait >= left) {
                return Err(add_reason(
                    error,
                    outcome.may_be_created().then(describe_possible_batch),
                ));
            }
            info!(target: LOG, "{error}: retrying");
            if core.sleeper.sleep(wait).is_err() {
                return Err(shutdown_error(attempts));
            }
        }
    }

    /// Returns how long to wait before the retry. Counts the retry in `retry_state` and in the
    /// client's retry budget, but neither sleeps nor sends.
    ///
    /// To give up is an error, with a reason if the failed attempt alone does not explain it.
    fn decide_retry(
        &self,
        retry_state: &mut RetryState,
        outcome: CreationOutcome,
        error: &Error,
    ) -> Result<Duration, Option<String>> {
        let core = self.lookup.client.core();
        let action = match outcome {
            // The policy limits the repetitions of a request that may have been carried out, even
            // if a lookup found no batch.
            CreationOutcome::Unknown => RetryAction::IfRepeatable,
            _ => RetryAction::AfterBackoff,
        };
        let decision = retry_state.decide(action, error.retry_after(), false, || {
            lock(&core.retry_budget).take_retry(core.sleeper.clock().now())
        });
        match decision {
            Decision::RetryAfter(wait) => Ok(wait),
            // Unreachable: only a call that waits in the budget's queue is sent back there.
            Decision::Requeue => Ok(Duration::ZERO),
            Decision::GiveUp(_) if outcome.may_be_created() => {
                let count = self.lookup.count;
                Err(Some(format!(
                    "no batch of {count} requests was created since"
                )))
            }
            Decision::GiveUp(reason) => Err(reason),
        }
    }

    /// Sends the request once and blocks until the response. Waits for rate limits and overloads
    /// inside the call, but never sends the request again after another failure.
    fn send_attempt(&self, time_left: Option<Duration>) -> Result<MessageBatch> {
        let policy = self.lookup.client.settings().retry;
        let mut options = Options::new().retry(policy.max_attempts(1).max_repeats(1));
        if let Some(left) = time_left {
            options = options.deadline(left);
        }
        let client = self.lookup.client.with(options);
        let call = client.call("POST", PATH, Some(self.body));
        let (mut batch, meta) =
            call.run_without_tokens(|response| read_json::<MessageBatch>(response, EXPECTED))?;
        batch.meta = meta;
        Ok(batch)
    }

    /// Fetches the list of batches until the batch of a failed attempt is in it, and sleeps between
    /// the requests. Returns `None` if there is no such batch and the request may be sent again.
    ///
    /// A batch is only taken for ours if the newest batch before the request is known and no other
    /// candidate exists. If the request must not be sent again, that is an error, with a reason if
    /// the failed attempt alone does not explain it.
    fn wait_for_lost_batch(
        &self,
        outcome: CreationOutcome,
        time_left: impl Fn() -> Option<Duration>,
    ) -> Result<Option<MessageBatch>, Option<String>> {
        let waits = match outcome {
            // Most likely there is no batch: one further look is enough.
            CreationOutcome::ServerFailed => &LOOKUP_WAITS[..1],
            _ => &LOOKUP_WAITS[..],
        };
        let candidates = self
            .lookup
            .fetch_candidates(waits, time_left)
            .map_err(|error| {
                format!("could not find out whether the batch was created: {error}")
            })?;
        let knows_newest_before = matches!(self.lookup.created_after, CreatedAfter::Batch(_));
        match &candidates[..] {
            // The server reported success: the batch probably exists, but is not in the list yet.
            [] if outcome == CreationOutcome::Unreadable => Err(None),
            [] => Ok(None),
            [batch] if knows_newest_before && claim(self.lookup.client, &batch.id) => {
                info!(target: LOG, "{} was created by that request", batch.id);
                Ok(Some(batch.clone()))
            }
            _ => Err(Some(describe_candidates(&candidates, self.lookup.count))),
        }
    }
}

/// What a failed attempt to create a batch may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreationOutcome {
    /// Nothing was created; a retry may succeed.
    NotCreated,
    /// The request is not sent again: a retry cannot succeed, the call has already waited for as
    /// long as the retry policy permits, or the client was shut down.
    Final,
    /// The batch may have been created: the response was lost.
    Unknown,
    /// The server reported a failure of its own: most likely nothing was created.
    ServerFailed,
    /// A proxy timed out, while the server may still create the batch.
    ProxyTimedOut,
    /// The batch was probably created, but the response could not be read.
    Unreadable,
}

impl CreationOutcome {
    /// Classifies the error of a single attempt.
    fn from_error(error: &Error) -> CreationOutcome {
        let last = error.attempts().last();
        let status = last.and_then(|last| last.status);
        match (last.map(|last| last.delivery), error.kind()) {
            (_, ErrorKind::Shutdown) => CreationOutcome::Final,
            (Some(Delivery::Unknown), _) => CreationOutcome::Unknown,
            (_, ErrorKind::Decode) if status.is_some_and(is_success) => CreationOutcome::Unreadable,
            _ if !error.is_retryable() => CreationOutcome::Final,
            (_, ErrorKind::Server) if status.is_some_and(is_from_proxy) => {
                CreationOutcome::ProxyTimedOut
            }
            (_, ErrorKind::Server) => CreationOutcome::ServerFailed,
            // The call has already waited for overloads, and for rate limits with a `retry-after`, as
            // long as the retry policy permits.
            (_, ErrorKind::Overloaded) => CreationOutcome::Final,
            (_, ErrorKind::RateLimit) if error.retry_after().is_some() => CreationOutcome::Final,
            _ => CreationOutcome::NotCreated,
        }
    }

    /// Returns whether a batch may have been created.
    fn may_be_created(self) -> bool {
        !matches!(self, CreationOutcome::NotCreated | CreationOutcome::Final)
    }
}

fn is_success(status: u16) -> bool {
    status < 300
}

/// Returns whether a status is one with which a proxy gives up on the server. Those of Cloudflare
/// are 520 to 524.
fn is_from_proxy(status: u16) -> bool {
    matches!(status, 408 | 502 | 504 | 520..=524)
}

/// Adds a reason for giving up to an error, if there is one.
fn add_reason(error: Error, reason: Option<String>) -> Error {
    match reason {
        Some(reason) => error.with_reason(reason),
        None => error,
    }
}

/// Returns the reason for giving up where a batch may have been created that no lookup has found.
fn describe_possible_batch() -> String {
    "the batch may have been created: look through the list before it is sent again".to_owned()
}
