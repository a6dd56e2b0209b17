//! Creating a batch exactly once: what becomes of a request whose outcome is unknown.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use log::info;
use serde::{Deserialize, Serialize};

use super::{Batches, PATH};
use crate::call::classify::RetryAction;
use crate::call::response::read_json;
use crate::call::retry::{Decision, RetryState};
use crate::call::{Call, LOG};
use crate::client::{Client, Options};
use crate::clock::lock;
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::http::rate_limits;
use crate::types::{Attempt, Delivery, MessageBatch};

/// The newest batch before one was created: what the list has above it came later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Landmark {
    id: String,
    created_at: Option<String>,
}

/// What tells a batch that may be ours from those that cannot be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since<'a> {
    /// All batches are newer that stand above this one; all, where there was none before.
    Landmark(Option<&'a Landmark>),
    /// It was sent then, or later.
    Sent(Instant),
}

impl Batches<'_> {
    /// Sends the body of a batch. A request whose outcome is unknown is not repeated before the list
    /// of batches was looked through. With a landmark, a batch found there is taken for ours;
    /// without one the error says what was found. Says also whether the batch was found only.
    /// `strangers` are batches of others.
    pub(super) fn send(
        &self,
        body: &[u8],
        count: u64,
        landmark: Option<Option<&Landmark>>,
        strangers: &HashSet<String>,
    ) -> Result<(MessageBatch, bool)> {
        let core = self.client.core();
        let clock = core.sleeper.clock();
        let settings = self.client.settings();
        let start = clock.now();
        let left = || {
            let passed = clock.now().saturating_duration_since(start);
            settings
                .deadline
                .map(|deadline| deadline.saturating_sub(passed))
        };
        let mut retry_state = RetryState::new(settings.retry, lock(&core.rng).fork());
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let mut error = match self.send_once(body, left()) {
                Ok(mut batch) => {
                    self.claim(&batch.id);
                    attempts.append(&mut batch.meta.attempts);
                    batch.meta.attempts = attempts;
                    return Ok((batch, false));
                }
                Err(error) => error,
            };
            let outcome = Outcome::of(&error);
            attempts.extend(error.attempts().iter().cloned());
            error = error.with_attempts(attempts.clone());
            if outcome == Outcome::Final || left().is_some_and(|left| left.is_zero()) {
                let last = error.attempts().last();
                let is_open = last.is_some_and(|last| last.delivery == Delivery::Unknown);
                return Err(with(error, (is_open || outcome.is_open()).then(open)));
            }
            if outcome != Outcome::NotDone {
                let since = match landmark {
                    Some(landmark) => Since::Landmark(landmark),
                    None => Since::Sent(start),
                };
                info!(target: LOG, "{error}: looking for a batch of {count} requests");
                match self.find_lost(outcome, count, since, strangers, left) {
                    Ok(Some(batch)) => return Ok((batch, true)),
                    Ok(None) => {}
                    Err(reason) => return Err(with(error, reason)),
                }
            }
            let cure = match outcome {
                Outcome::Unknown => RetryAction::IfRepeatable,
                _ => RetryAction::AfterBackoff,
            };
            let decision = retry_state.decide(cure, error.retry_after(), false, || {
                lock(&core.retries).withdraw(clock.now())
            });
            let wait = match decision {
                Decision::Again(wait) => wait,
                // Only of calls that the budget admits.
                Decision::Queue => Duration::ZERO,
                Decision::GiveUp(reason) => {
                    let none = format!("no batch of {count} requests was created since");
                    let reason = match outcome {
                        Outcome::NotDone => reason,
                        _ => Some(none),
                    };
                    return Err(with(error, reason));
                }
            };
            if left().is_some_and(|left| wait >= left) {
                return Err(with(error, outcome.is_open().then(open)));
            }
            info!(target: LOG, "{error}: trying again");
            if core.sleeper.sleep(wait).is_err() {
                return Err(shut_down(attempts));
            }
        }
    }

    /// Looks for the batch of a request whose outcome is unknown: there it is, or there is none, and
    /// the request may be sent again. Else it must not be, for this reason.
    fn find_lost(
        &self,
        outcome: Outcome,
        count: u64,
        since: Since<'_>,
        strangers: &HashSet<String>,
        left: impl Fn() -> Option<Duration>,
    ) -> Result<Option<MessageBatch>, Option<String>> {
        let looks = match outcome {
            Outcome::Doubtful => &LOOKS[..1],
            _ => &LOOKS[..],
        };
        let found = self
            .find(count, since, strangers, looks, left)
            .map_err(|other| format!("whether it was created could not be found out: {other}"))?;
        match (&found[..], since) {
            ([], _) if outcome == Outcome::Unreadable => Err(None),
            ([], _) => Ok(None),
            ([batch], Since::Landmark(_)) if self.claim(&batch.id) => {
                info!(target: LOG, "{} was created by that request", batch.id);
                Ok(Some(batch.clone()))
            }
            _ => Err(Some(told(&found, count))),
        }
    }

    fn send_once(&self, body: &[u8], left: Option<Duration>) -> Result<MessageBatch> {
        let policy = self.client.settings().retry;
        let mut options = Options::new().retry(policy.max_attempts(1).max_repeats(1));
        if let Some(left) = left {
            options = options.deadline(left);
        }
        let client: Client = self.client.with(options);
        let call = client.call("POST", PATH, Some(body));
        let (mut batch, meta) =
            call.ask(|answer| read_json::<MessageBatch>(answer, super::BATCH))?;
        batch.meta = meta;
        Ok(batch)
    }

    /// The newest batch, to tell later ones from it.
    pub(super) fn landmark(&self) -> Result<Option<Landmark>> {
        let newest = self.list().limit(1).next().transpose()?;
        Ok(newest.map(|batch| Landmark {
            id: batch.id,
            created_at: batch.created_at,
        }))
    }

    /// Takes note of whose a batch is; `false` if somebody else was faster.
    pub(super) fn claim(&self, id: &str) -> bool {
        lock(&self.client.core().batches).insert(id.to_owned())
    }

    /// Forgets whose a batch is, so that it can be found again.
    pub(super) fn disclaim(&self, id: &str) {
        lock(&self.client.core().batches).remove(id);
    }

    /// Batches of so many requests that were created since, and of which nobody who shares this
    /// client knows whose they are. Before it says that there is none, it looks again after each of
    /// these waits, while time is left: the server may still be at work.
    pub(super) fn find(
        &self,
        count: u64,
        since: Since<'_>,
        strangers: &HashSet<String>,
        looks: &[Duration],
        left: impl Fn() -> Option<Duration>,
    ) -> Result<Vec<MessageBatch>> {
        let core = self.client.core();
        let mut looks = looks.iter();
        loop {
            let mut found = match since {
                Since::Landmark(landmark) => self.above(landmark)?,
                Since::Sent(start) => self.sent_since(start)?,
            };
            {
                let claimed = lock(&core.batches);
                found.retain(|batch| {
                    batch.request_counts.total() == count
                        && !claimed.contains(&batch.id)
                        && !strangers.contains(&batch.id)
                });
            }
            let wait = looks.next().map_or(Duration::ZERO, |wait| {
                left().map_or(*wait, |left| left.min(*wait))
            });
            if !found.is_empty() || wait.is_zero() {
                return Ok(found);
            }
            if core.sleeper.sleep(wait).is_err() {
                return Err(shut_down(Vec::new()));
            }
        }
    }

    fn above(&self, landmark: Option<&Landmark>) -> Result<Vec<MessageBatch>> {
        let created = |at: &Option<String>| at.as_deref().and_then(rate_limits::date);
        let mark = landmark.and_then(|landmark| created(&landmark.created_at));
        let mut above = Vec::new();
        for batch in self.list().limit(100) {
            let batch = batch?;
            let is_older = mark
                .zip(created(&batch.created_at))
                .is_some_and(|(mark, created)| created < mark);
            if is_older || landmark.is_some_and(|landmark| landmark.id == batch.id) {
                break;
            }
            if above.len() == MOST_LOOKED_AT {
                let what = "there are more than 2,000 newer batches than before it was created";
                let cause = Cause::Rejected(what.into());
                return Err(Error::new(ErrorKind::Config, format!("GET {PATH}"), cause));
            }
            above.push(batch);
        }
        Ok(above)
    }

    /// The newest batches that were created since, by the server's clock.
    fn sent_since(&self, start: Instant) -> Result<Vec<MessageBatch>> {
        #[derive(Deserialize)]
        struct Newest {
            data: Vec<MessageBatch>,
        }
        let clock = self.client.core().sleeper.clock();
        let mut now = clock.wall();
        let path = format!("{PATH}?limit=100");
        let call = Call {
            repeatable: true,
            ..self.client.call("GET", &path, None)
        };
        let (newest, _) = call.ask(|answer| {
            now = answer
                .header("date")
                .and_then(rate_limits::date)
                .unwrap_or(now);
            read_json::<Newest>(answer, "a list of batches")
        })?;
        // Only now: the answer may have taken a while, and its date is that of the last attempt. The
        // date is cut to whole seconds.
        let ago = clock.now().saturating_duration_since(start);
        let since = now.checked_sub(ago + Duration::from_secs(1));
        let is_since = |batch: &MessageBatch| {
            let created: Option<SystemTime> =
                batch.created_at.as_deref().and_then(rate_limits::date);
            created.is_none_or(|created| since.is_none_or(|since| created >= since))
        };
        Ok(newest.data.into_iter().filter(is_since).collect())
    }
}

/// What became of a request to create a batch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was created, and another try may do it.
    NotDone,
    /// Nothing was created, and nothing will be.
    Final,
    /// It may have been created.
    Unknown,
    /// The server failed: most likely nothing was created.
    Doubtful,
    /// Something on the way gave up on the server, which may still be at work.
    Late,
    /// It was probably created, but the answer made no sense.
    Unreadable,
}

impl Outcome {
    fn of(error: &Error) -> Outcome {
        let last = error.attempts().last();
        let status = last.and_then(|last| last.status);
        match (last.map(|last| last.delivery), error.kind()) {
            (_, ErrorKind::Shutdown) => Outcome::Final,
            (Some(Delivery::Unknown), _) => Outcome::Unknown,
            (_, ErrorKind::Decode) if status.is_some_and(|status| status < 300) => {
                Outcome::Unreadable
            }
            _ if !error.is_retryable() => Outcome::Final,
            (_, ErrorKind::Server) if matches!(status, Some(408 | 502 | 504 | 520..=524)) => {
                Outcome::Late
            }
            (_, ErrorKind::Server) => Outcome::Doubtful,
            // These were waited for already, as long as the policy permits.
            (_, ErrorKind::Overloaded) => Outcome::Final,
            (_, ErrorKind::RateLimit) if error.retry_after().is_some() => Outcome::Final,
            _ => Outcome::NotDone,
        }
    }

    /// Whether a batch may have been created.
    fn is_open(self) -> bool {
        !matches!(self, Outcome::NotDone | Outcome::Final)
    }
}

/// Says which batches may be the one that was asked for.
pub(super) fn told(found: &[MessageBatch], count: u64) -> String {
    let one = |batch: &MessageBatch| {
        let created = batch.created_at.as_deref().unwrap_or("an unknown time");
        format!(
            "{} (created at {})",
            batch.id,
            crate::error::sanitize(created, 40)
        )
    };
    match found {
        [batch] => format!(
            "not repeated: a batch of {count} requests was created since, likely this one: {}",
            one(batch)
        ),
        _ => {
            let some: Vec<String> = found.iter().take(3).map(one).collect();
            format!(
                "not repeated: {} batches of {count} requests were created since, one of them may \
                 be this one: {}",
                found.len(),
                some.join(", ")
            )
        }
    }
}

fn with(error: Error, reason: Option<String>) -> Error {
    reason.into_iter().fold(error, Error::with_reason)
}

/// The reason of an error after which nobody looked.
fn open() -> String {
    "the batch may have been created: look through the list before it is sent again".to_owned()
}

fn shut_down(attempts: Vec<Attempt>) -> Error {
    let action = format!("POST {PATH}");
    Error::new(ErrorKind::Shutdown, action, Cause::Shutdown).with_attempts(attempts)
}

/// How long to wait before each further look into the list.
pub(super) const LOOKS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(20),
];

/// How many batches are looked at in search of one.
const MOST_LOOKED_AT: usize = 2_000;
