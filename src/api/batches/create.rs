//! Creating a batch exactly once, also where the outcome of a request is unknown.

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

/// A batch to be created, and how to look for it where the outcome is unknown.
pub(super) struct BatchCreation<'a> {
    /// The complete JSON.
    pub(super) body: &'a [u8],
    pub(super) lookup: BatchLookup<'a>,
}

/// A batch that [`BatchCreation::create_once`] created.
pub(super) struct CreatedBatch {
    pub(super) batch: MessageBatch,
    pub(super) origin: BatchOrigin,
}

/// How we know of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchOrigin {
    /// The server said so in its response to the creation.
    Response,
    /// A lookup found it in the list: it may be somebody else's.
    Lookup,
}

impl BatchCreation<'_> {
    /// Sends the batch until it is created, and blocks for as long as the client's settings permit.
    ///
    /// A call would repeat a request whose outcome is unknown; here a lookup must come first, so
    /// this loop sends calls of one attempt each. If the lookup knows the newest batch before ours,
    /// a single candidate counts as ours; otherwise the error names the candidates.
    pub(super) fn create_once(&self) -> Result<CreatedBatch> {
        let client = self.lookup.client;
        let count = self.lookup.count;
        let core = client.core();
        let clock = core.sleeper.clock();
        let settings = client.settings();
        let start = clock.now();
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
                    claim(client, &batch.id);
                    attempts.append(&mut batch.meta.attempts);
                    batch.meta.attempts = attempts;
                    let origin = BatchOrigin::Response;
                    return Ok(CreatedBatch { batch, origin });
                }
                Err(error) => error,
            };
            let outcome = CreationOutcome::of(&error);
            attempts.extend(error.attempts().iter().cloned());
            let error = error.with_attempts(attempts.clone());
            if outcome == CreationOutcome::Final || time_left().is_some_and(|left| left.is_zero()) {
                let last = error.attempts().last();
                let is_unknown = last.is_some_and(|last| last.delivery == Delivery::Unknown);
                let is_open = is_unknown || outcome.is_open();
                return Err(with_reason(error, is_open.then(may_exist)));
            }
            if outcome.is_open() {
                info!(target: LOG, "{error}: looking for a batch of {count} requests");
                match self.find_lost_batch(outcome, time_left) {
                    Ok(Some(batch)) => {
                        let origin = BatchOrigin::Lookup;
                        return Ok(CreatedBatch { batch, origin });
                    }
                    Ok(None) => {}
                    Err(reason) => return Err(with_reason(error, reason)),
                }
            }
            let wait = match self.decide_retry(&mut retry_state, outcome, &error) {
                Ok(wait) => wait,
                Err(reason) => return Err(with_reason(error, reason)),
            };
            if time_left().is_some_and(|left| wait >= left) {
                return Err(with_reason(error, outcome.is_open().then(may_exist)));
            }
            info!(target: LOG, "{error}: retrying");
            if core.sleeper.sleep(wait).is_err() {
                return Err(shutdown_error(attempts));
            }
        }
    }

    /// Returns how long to wait before the retry, or the reason to give up, where there is more to
    /// say than the failure itself. Sends nothing.
    fn decide_retry(
        &self,
        retry_state: &mut RetryState,
        outcome: CreationOutcome,
        error: &Error,
    ) -> Result<Duration, Option<String>> {
        let core = self.lookup.client.core();
        let action = match outcome {
            CreationOutcome::Unknown => RetryAction::IfRepeatable,
            _ => RetryAction::AfterBackoff,
        };
        let decision = retry_state.decide(action, error.retry_after(), false, || {
            lock(&core.retries).take_retry(core.sleeper.clock().now())
        });
        match decision {
            Decision::Again(wait) => Ok(wait),
            // Only for calls that wait in the budget's queue.
            Decision::Queue => Ok(Duration::ZERO),
            Decision::GiveUp(_) if outcome.is_open() => {
                let count = self.lookup.count;
                Err(Some(format!(
                    "no batch of {count} requests was created since"
                )))
            }
            Decision::GiveUp(reason) => Err(reason),
        }
    }

    /// Sends the batch once: retries and lookups are decided here, not in the call.
    fn send_attempt(&self, time_left: Option<Duration>) -> Result<MessageBatch> {
        let policy = self.lookup.client.settings().retry;
        let mut options = Options::new().retry(policy.max_attempts(1).max_repeats(1));
        if let Some(left) = time_left {
            options = options.deadline(left);
        }
        let client = self.lookup.client.with(options);
        let call = client.call("POST", PATH, Some(self.body));
        let (mut batch, meta) =
            call.ask(|response| read_json::<MessageBatch>(response, EXPECTED))?;
        batch.meta = meta;
        Ok(batch)
    }

    /// Looks for the batch after an attempt with an open outcome.
    ///
    /// Returns the batch, or `None` if there is none and the request may be sent again. The error
    /// is the reason why it must not be sent again, where there is more to say than the failure
    /// itself.
    fn find_lost_batch(
        &self,
        outcome: CreationOutcome,
        time_left: impl Fn() -> Option<Duration>,
    ) -> Result<Option<MessageBatch>, Option<String>> {
        let waits = match outcome {
            CreationOutcome::ServerFailed => &LOOKUP_WAITS[..1],
            _ => &LOOKUP_WAITS[..],
        };
        let found = self.lookup.fetch_candidates(waits, time_left);
        let found =
            found.map_err(|other| format!("could not find out whether it was created: {other}"))?;
        let is_exact = matches!(self.lookup.created_after, CreatedAfter::Batch(_));
        match &found[..] {
            [] if outcome == CreationOutcome::Unreadable => Err(None),
            [] => Ok(None),
            [batch] if is_exact && claim(self.lookup.client, &batch.id) => {
                info!(target: LOG, "{} was created by that request", batch.id);
                Ok(Some(batch.clone()))
            }
            _ => Err(Some(describe_candidates(&found, self.lookup.count))),
        }
    }
}

/// What a failed attempt to create a batch may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreationOutcome {
    /// Nothing was created; a retry may succeed.
    NotCreated,
    /// Nothing was created, and nothing is retried: a retry cannot succeed, or the call has waited
    /// as long as the policy permits.
    Final,
    /// The batch may have been created: the response was lost.
    Unknown,
    /// The server reported a failure of its own: most likely nothing was created.
    ServerFailed,
    /// A proxy gave up on the server, which may still be at work.
    ProxyTimedOut,
    /// The batch was probably created, but the response could not be read.
    Unreadable,
}

impl CreationOutcome {
    fn of(error: &Error) -> CreationOutcome {
        let last = error.attempts().last();
        let status = last.and_then(|last| last.status);
        match (last.map(|last| last.delivery), error.kind()) {
            (_, ErrorKind::Shutdown) => CreationOutcome::Final,
            (Some(Delivery::Unknown), _) => CreationOutcome::Unknown,
            (_, ErrorKind::Decode) if status.is_some_and(|status| status < 300) => {
                CreationOutcome::Unreadable
            }
            _ if !error.is_retryable() => CreationOutcome::Final,
            (_, ErrorKind::Server) if matches!(status, Some(408 | 502 | 504 | 520..=524)) => {
                CreationOutcome::ProxyTimedOut
            }
            (_, ErrorKind::Server) => CreationOutcome::ServerFailed,
            // The call itself has waited for these already, as long as the policy permits.
            (_, ErrorKind::Overloaded) => CreationOutcome::Final,
            (_, ErrorKind::RateLimit) if error.retry_after().is_some() => CreationOutcome::Final,
            _ => CreationOutcome::NotCreated,
        }
    }

    /// Whether a batch may have been created.
    fn is_open(self) -> bool {
        !matches!(self, CreationOutcome::NotCreated | CreationOutcome::Final)
    }
}

fn with_reason(error: Error, reason: Option<String>) -> Error {
    match reason {
        Some(reason) => error.with_reason(reason),
        None => error,
    }
}

/// The reason of an error with an open outcome that no lookup followed.
fn may_exist() -> String {
    "the batch may have been created: look through the list before it is sent again".to_owned()
}
