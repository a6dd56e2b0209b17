//! Searching the list of batches for a batch whose creation ended with an unknown outcome.
//!
//! The API has no idempotency key for batches, and the list shows no custom ids. A batch may be
//! ours if it is new, has the right number of requests, and belongs to nobody who shares this
//! client.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::endpoints::{self, PATH};
use crate::call::Call;
use crate::call::response::read_json;
use crate::client::Client;
use crate::clock::lock;
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::http::dates;
use crate::types::{Attempt, MessageBatch};

/// The newest batch in the list before ours was created: every batch above it is newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NewestBatch {
    id: String,
    created_at: Option<String>,
}

impl NewestBatch {
    /// Fetches the newest batch of the list; `None` if the list is empty.
    pub(super) fn fetch(client: &Client) -> Result<Option<NewestBatch>> {
        let newest = endpoints::list(client).limit(1).next().transpose()?;
        Ok(newest.map(|batch| NewestBatch {
            id: batch.id,
            created_at: batch.created_at,
        }))
    }
}

/// Which batches of the list are new enough to be ours.
#[derive(Debug, Clone, Copy)]
pub(super) enum CreatedAfter<'a> {
    /// The batches above this one; all batches, where the list was empty.
    Batch(Option<&'a NewestBatch>),
    /// The batches that were created at this instant or later, by the server's clock.
    Instant(Instant),
}

/// A search for the batch that a request may have created.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLookup<'a> {
    pub(super) client: &'a Client,
    /// How many requests the batch has.
    pub(super) count: u64,
    pub(super) created_after: CreatedAfter<'a>,
    /// The ids of batches that are known to be somebody else's.
    pub(super) not_ours: &'a HashSet<String>,
}

impl BatchLookup<'_> {
    /// Fetches the batches that may be ours.
    ///
    /// While there is none, sleeps for the next of `waits`, at most as long as time is left, and
    /// fetches the list again: the server may still be at work.
    pub(super) fn fetch_candidates(
        &self,
        waits: &[Duration],
        time_left: impl Fn() -> Option<Duration>,
    ) -> Result<Vec<MessageBatch>> {
        let core = self.client.core();
        let mut waits = waits.iter();
        loop {
            let mut candidates = match self.created_after {
                CreatedAfter::Batch(newest) => self.fetch_above(newest)?,
                CreatedAfter::Instant(start) => self.fetch_since(start)?,
            };
            {
                let claimed = lock(&core.claimed_batches);
                candidates.retain(|batch| {
                    batch.request_counts.total() == self.count
                        && !claimed.contains(&batch.id)
                        && !self.not_ours.contains(&batch.id)
                });
            }
            let wait = waits.next().map_or(Duration::ZERO, |wait| {
                time_left().map_or(*wait, |left| left.min(*wait))
            });
            if !candidates.is_empty() || wait.is_zero() {
                return Ok(candidates);
            }
            if core.sleeper.sleep(wait).is_err() {
                return Err(shutdown_error(Vec::new()));
            }
        }
    }

    fn fetch_above(&self, newest: Option<&NewestBatch>) -> Result<Vec<MessageBatch>> {
        let date = |at: &Option<String>| at.as_deref().and_then(dates::parse_date);
        let created = newest.and_then(|newest| date(&newest.created_at));
        let mut above = Vec::new();
        for batch in endpoints::list(self.client).limit(100) {
            let batch = batch?;
            // The newest batch itself may have been deleted meanwhile: an older one ends the search
            // as well.
            let is_older = created
                .zip(date(&batch.created_at))
                .is_some_and(|(newest, batch)| batch < newest);
            if is_older || newest.is_some_and(|newest| newest.id == batch.id) {
                break;
            }
            if above.len() == MAX_NEWER_BATCHES {
                let what = "there are more than 2,000 newer batches than before it was created";
                let cause = Cause::Rejected(what.into());
                return Err(Error::new(ErrorKind::Config, format!("GET {PATH}"), cause));
            }
            above.push(batch);
        }
        Ok(above)
    }

    /// Fetches the first page of the list, and keeps the batches that were created since `start`.
    fn fetch_since(&self, start: Instant) -> Result<Vec<MessageBatch>> {
        #[derive(Deserialize)]
        struct FirstPage {
            data: Vec<MessageBatch>,
        }
        let clock = self.client.core().sleeper.clock();
        let mut server_now = clock.wall();
        let path = format!("{PATH}?limit=100");
        let call = Call {
            repeatable: true,
            ..self.client.call("GET", &path, None)
        };
        let (page, _) = call.run_without_tokens(|response| {
            server_now = response
                .header("date")
                .and_then(dates::parse_date)
                .unwrap_or(server_now);
            read_json::<FirstPage>(response, "a list of batches")
        })?;
        // Measured after the response, which may have taken several attempts; its date is that of
        // the last attempt, cut to whole seconds.
        let passed = clock.now().saturating_duration_since(start);
        let since = server_now.checked_sub(passed + Duration::from_secs(1));
        let is_since = |batch: &MessageBatch| {
            let created: Option<SystemTime> =
                batch.created_at.as_deref().and_then(dates::parse_date);
            created.is_none_or(|created| since.is_none_or(|since| created >= since))
        };
        Ok(page.data.into_iter().filter(is_since).collect())
    }
}

/// Records that the owner of a batch is known, so that no lookup takes it for a lost one. Returns
/// `false` if another thread claimed the batch before.
pub(super) fn claim(client: &Client, id: &str) -> bool {
    lock(&client.core().claimed_batches).insert(id.to_owned())
}

/// Takes a claim back, so that a lookup can find the batch again.
pub(super) fn release_claim(client: &Client, id: &str) {
    lock(&client.core().claimed_batches).remove(id);
}

/// Says which batches may be ours, for the reason of an error.
pub(super) fn describe_candidates(candidates: &[MessageBatch], count: u64) -> String {
    let describe = |batch: &MessageBatch| {
        let created = batch.created_at.as_deref().unwrap_or("an unknown time");
        format!("{} (created at {})", batch.id, sanitize(created, 40))
    };
    match candidates {
        [batch] => format!(
            "not repeated: a batch of {count} requests was created since, likely this one: {}",
            describe(batch)
        ),
        _ => {
            let some: Vec<String> = candidates.iter().take(3).map(describe).collect();
            format!(
                "not repeated: {} batches of {count} requests were created since, one of them may \
                 be this one: {}",
                candidates.len(),
                some.join(", ")
            )
        }
    }
}

/// The error for a creation that the client's shutdown ended.
pub(super) fn shutdown_error(attempts: Vec<Attempt>) -> Error {
    let action = format!("POST {PATH}");
    Error::new(ErrorKind::Shutdown, action, Cause::Shutdown).with_attempts(attempts)
}

/// How long to wait before each further lookup: together 30 s, in which a server that a proxy gave
/// up on should have created the batch.
pub(super) const LOOKUP_WAITS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(20),
];

/// How many newer batches a lookup reads before it gives up: 20 pages of 100.
const MAX_NEWER_BATCHES: usize = 2_000;
