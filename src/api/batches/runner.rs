//! One run: creates batches, waits for them, and submits failed requests again. A journal lets the
//! next run continue where a killed one stopped.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::info;

use super::body::{BatchBody, Pushed, check_custom_id, duplicate_custom_id, too_large};
use super::create::{BatchCreation, BatchOrigin};
use super::endpoints::PATH;
use super::index::{BatchIndex, ResultLine};
use super::lookup::{
    BatchLookup, CreatedAfter, LOOKUP_WAITS, NewestBatch, claim, describe_candidates, release_claim,
};
use super::record::{PlannedBatch, RunRecord};
use super::results::BatchResults;
use super::run::BatchRun;
use super::wait::BatchWaiter;
use crate::call::LOG;
use crate::client::Client;
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::journal::{Journal, unusable_journal};
use crate::types::digest::Digest;
use crate::types::{Delivery, MessageRequest};

/// The settings of a run.
#[derive(Debug, Clone)]
pub(super) struct RunSettings {
    /// The maximum number of requests in a batch.
    pub(super) batch_size: usize,
    /// How often a request that expired or failed at the server is submitted again.
    pub(super) resubmit: u32,
    pub(super) journal: Option<PathBuf>,
}

/// A batch that exists.
struct KnownBatch {
    id: String,
    origin: BatchOrigin,
}

/// A run until its batches have ended.
pub(super) struct BatchRunner<'a> {
    client: &'a Client,
    settings: &'a RunSettings,
    journal: Option<Journal<RunRecord>>,
    /// The batches that the journal plans, by position.
    planned: HashMap<usize, PlannedBatch>,
    /// The ids of the batches that the journal knows, by position.
    created: HashMap<usize, String>,
    /// The batches that were found in the list, and may be somebody else's.
    unverified: HashSet<usize>,
    /// The ids of batches that were found and are somebody else's.
    not_ours: HashSet<String>,
    /// The bodies of the first round, if they may be needed again.
    first_round: Vec<BatchBody>,
    index: BatchIndex,
}

impl<'a> BatchRunner<'a> {
    /// Opens the journal, and reads what the runs before did.
    pub(super) fn open(client: &'a Client, settings: &'a RunSettings) -> Result<BatchRunner<'a>> {
        let mut runner = BatchRunner {
            client,
            settings,
            journal: None,
            planned: HashMap::new(),
            created: HashMap::new(),
            unverified: HashSet::new(),
            not_ours: HashSet::new(),
            first_round: Vec::new(),
            index: BatchIndex::default(),
        };
        if let Some(path) = &settings.journal {
            let (journal, records) = Journal::open(path, "batches")?;
            for record in records {
                runner.replay(record);
            }
            runner.journal = Some(journal);
            for id in runner.created.values() {
                claim(client, id);
            }
        }
        Ok(runner)
    }

    fn replay(&mut self, record: RunRecord) {
        match record {
            RunRecord::Creating(plan) => {
                self.planned.insert(plan.batch, plan);
            }
            RunRecord::Created { batch, id, found } => {
                if found {
                    self.unverified.insert(batch);
                }
                self.created.insert(batch, id);
            }
            RunRecord::NotOurs { batch, id } => {
                self.unverified.remove(&batch);
                self.created.remove(&batch);
                self.not_ours.insert(id);
            }
            RunRecord::Refused { batch } => {
                self.planned.remove(&batch);
            }
        }
    }

    /// Creates batches of the requests; each as soon as it is full. Blocks until the last is
    /// created.
    pub(super) fn create_batches<K, R>(
        &mut self,
        entries: impl IntoIterator<Item = (K, R)>,
    ) -> Result<()>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut body = BatchBody::default();
        let mut members = Vec::new();
        for (custom_id, request) in entries {
            let key: Arc<str> = custom_id.into().into();
            check_custom_id(&key)?;
            let position = self.index.keys.len();
            let before = self.index.positions.insert(Arc::clone(&key), position);
            if before.is_some() {
                return Err(duplicate_custom_id(&key));
            }
            let is_full = body.len() >= self.settings.batch_size;
            if is_full || body.push(&key, request.borrow())? == Pushed::NoRoom {
                if body.len() > 0 {
                    self.create_batch(mem::take(&mut body), mem::take(&mut members), 0)?;
                }
                if body.push(&key, request.borrow())? == Pushed::NoRoom {
                    return Err(too_large(&key));
                }
            }
            members.push(position);
            self.index.keys.push(key);
            self.index.batch_of.push(self.index.ids.len());
        }
        if body.len() > 0 {
            self.create_batch(body, members, 0)?;
        }
        let planned = self.planned.values().filter(|plan| plan.round == 0).count();
        match planned > self.index.ids.len() {
            true => Err(self.journal_of_other_requests()),
            false => Ok(()),
        }
    }

    /// Waits until all batches have ended, and submits requests again as often as the settings say.
    pub(super) fn wait_and_resubmit(&mut self, waiter: &BatchWaiter<'_>) -> Result<()> {
        let mut next = 0;
        for round in 0..=self.settings.resubmit {
            let batches = next..self.index.ids.len();
            next = batches.end;
            let mut again = Vec::new();
            for batch in batches {
                let ended = waiter.wait_until_ended(&self.index.ids[batch])?;
                if self.unverified.contains(&batch) {
                    self.verify_found_batch(batch)?;
                }
                let counts = &ended.request_counts;
                let has_failed = counts.errored > 0 || counts.expired > 0;
                if round < self.settings.resubmit && has_failed {
                    again.append(&mut self.read_retryable_requests(batch)?);
                }
            }
            if again.is_empty() {
                break;
            }
            again.sort_unstable();
            self.submit_again(&again, round + 1)?;
        }
        Ok(())
    }

    /// Returns the results of the run, or the reason why it failed with the batches that exist.
    pub(super) fn finish(self, outcome: Result<()>) -> Result<BatchRun> {
        match outcome {
            Ok(()) => Ok(BatchRun::new(self.client.clone(), self.index)),
            Err(error) => Err(self.name_batches(error)),
        }
    }

    /// Creates batches of requests of the first round.
    fn submit_again(&mut self, requests: &[usize], round: u32) -> Result<()> {
        info!(
            target: LOG,
            "submitting again: {} of {} requests",
            requests.len(),
            self.index.keys.len()
        );
        let (mut body, mut members) = (BatchBody::default(), Vec::new());
        for &request in requests {
            let is_full = body.len() >= self.settings.batch_size;
            if is_full || body.push_entry(self.first_round_entry(request)) == Pushed::NoRoom {
                self.create_batch(mem::take(&mut body), mem::take(&mut members), round)?;
                // An empty body has room for each request of the first round.
                let _ = body.push_entry(self.first_round_entry(request));
            }
            members.push(request);
            self.index.batch_of[request] = self.index.ids.len();
        }
        self.create_batch(body, members, round)
    }

    /// Makes sure that a batch that was found in the list holds our requests and no others.
    fn verify_found_batch(&mut self, batch: usize) -> Result<()> {
        let id = self.index.ids[batch].clone();
        let mut results = match BatchResults::fetch(self.client, &id) {
            Err(error) if error.is_retryable() => return Err(error),
            // The iterator over the results will report a final error.
            Err(_) => return Ok(()),
            Ok(results) => results,
        };
        while let Some(line) = results.next_line() {
            let line = match line {
                Ok(line) => line,
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => break,
            };
            let parsed = serde_json::from_slice::<ResultLine<'_>>(results.line(line));
            if parsed.is_ok_and(|parsed| self.index.member(batch, &parsed.custom_id).is_none()) {
                return Err(self.forget_found_batch(batch, id)?);
            }
        }
        self.unverified.remove(&batch);
        Ok(())
    }

    /// Notes that a batch that was found in the list is somebody else's; returns the error of the
    /// run.
    fn forget_found_batch(&mut self, batch: usize, id: String) -> Result<Error> {
        release_claim(self.client, &id);
        self.index.ids.remove(batch);
        let what = format!("{id} was taken for a batch that got lost, but is another one");
        self.append_to_journal(&RunRecord::NotOurs { batch, id })?;
        let advice = match self.journal {
            Some(_) => "run again with the same journal",
            None => "take the results of the others by their ids, and submit the rest again",
        };
        Ok(ambiguous(what, advice))
    }

    /// Reads the results of a batch that has ended, and returns the requests that may succeed in
    /// another batch.
    fn read_retryable_requests(&self, batch: usize) -> Result<Vec<usize>> {
        let mut retryable = Vec::new();
        let mut results = BatchResults::fetch(self.client, &self.index.ids[batch])?;
        while let Some(line) = results.next_line() {
            let line = match line {
                Ok(line) => line,
                Err(error) if error.is_retryable() => return Err(error),
                // The iterator over the results will report a final error.
                Err(_) => break,
            };
            let Ok(entry) = results.parse(line) else {
                continue;
            };
            let request = self.index.positions.get(&*entry.custom_id).copied();
            let request = request.filter(|request| self.index.batch_of[*request] == batch);
            if let Some(request) = request.filter(|_| entry.result.is_retryable()) {
                retryable.push(request);
            }
        }
        retryable.sort_unstable();
        retryable.dedup();
        Ok(retryable)
    }

    /// Returns the JSON of a request from the first round.
    fn first_round_entry(&self, request: usize) -> &[u8] {
        let first = |batch: usize| self.index.members[batch][0];
        let mut batch = self.first_round.len() - 1;
        while first(batch) > request {
            batch -= 1;
        }
        self.first_round[batch].entry(request - first(batch))
    }

    /// Adds a batch to the index, and creates the batch unless the journal knows that it exists.
    fn create_batch(&mut self, mut body: BatchBody, members: Vec<usize>, round: u32) -> Result<()> {
        let batch = self.index.ids.len();
        let requests = body.len() as u64;
        let bytes = body.finish();
        let digest = match self.journal {
            Some(_) => Digest::of(bytes).to_hex(),
            None => String::new(),
        };
        let known = match self.planned.get(&batch).cloned() {
            Some(plan)
                if (plan.round, plan.requests, &plan.digest) != (round, requests, &digest) =>
            {
                return Err(self.journal_of_other_requests());
            }
            Some(plan) => self.find_or_create(&plan, bytes)?,
            None => {
                let plan = PlannedBatch {
                    batch,
                    round,
                    requests,
                    digest,
                    newest: NewestBatch::fetch(self.client)?,
                };
                self.append_to_journal(&RunRecord::Creating(plan.clone()))?;
                self.send_planned(&plan, bytes)?
            }
        };
        let id = known.id;
        let found = known.origin == BatchOrigin::Lookup;
        self.index.ids.push(id.clone());
        self.index.members.push(members);
        if found {
            self.unverified.insert(batch);
        }
        if round == 0 && self.settings.resubmit > 0 {
            self.first_round.push(body);
        }
        if self.created.contains_key(&batch) {
            return Ok(());
        }
        let record = RunRecord::Created {
            batch,
            id: id.clone(),
            found,
        };
        // If the journal does not know the batch, the next run has to find it.
        self.append_to_journal(&record)
            .inspect_err(|_| release_claim(self.client, &id))
    }

    /// Returns the batch of a plan that a run before noted. If that run was killed before the batch
    /// was noted as created, looks for the batch, and creates it if there is none.
    fn find_or_create(&mut self, plan: &PlannedBatch, body: &[u8]) -> Result<KnownBatch> {
        if let Some(id) = self.created.get(&plan.batch) {
            let origin = match self.unverified.contains(&plan.batch) {
                true => BatchOrigin::Lookup,
                false => BatchOrigin::Response,
            };
            return Ok(KnownBatch {
                id: id.clone(),
                origin,
            });
        }
        let lookup = self.lookup(plan);
        let found = lookup.fetch_candidates(&LOOKUP_WAITS, || None)?;
        match &found[..] {
            [] => self.send_planned(plan, body),
            [one] if claim(self.client, &one.id) => {
                info!(target: LOG, "{} was created before the last run was killed", one.id);
                Ok(KnownBatch {
                    id: one.id.clone(),
                    origin: BatchOrigin::Lookup,
                })
            }
            _ => Err(ambiguous(
                describe_candidates(&found, plan.requests),
                CHOOSE,
            )),
        }
    }

    /// Creates a batch that the journal plans. Notes a failure if it is certain that no batch
    /// exists.
    fn send_planned(&mut self, plan: &PlannedBatch, body: &[u8]) -> Result<KnownBatch> {
        let lookup = self.lookup(plan);
        let created = BatchCreation { body, lookup }.create_once();
        let created = created.inspect_err(|error| {
            if is_certainly_not_created(error) {
                // Without this record the next run looks for the batch, which does no harm.
                let _ = self.append_to_journal(&RunRecord::Refused { batch: plan.batch });
            }
        })?;
        Ok(KnownBatch {
            id: created.batch.id,
            origin: created.origin,
        })
    }

    fn lookup<'l>(&'l self, plan: &'l PlannedBatch) -> BatchLookup<'l> {
        BatchLookup {
            client: self.client,
            count: plan.requests,
            created_after: CreatedAfter::Batch(plan.newest.as_ref()),
            not_ours: &self.not_ours,
        }
    }

    fn append_to_journal(&mut self, record: &RunRecord) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.append(record),
            None => Ok(()),
        }
    }

    fn journal_of_other_requests(&self) -> Error {
        let path = self.journal.as_ref().map(Journal::path);
        let path = path.unwrap_or(Path::new(""));
        unusable_journal(path, "is the journal of other requests").with_advice(
            "give the same requests in the same order and batches of the same size, or another \
             journal; the journal of a run whose results you have may be removed",
        )
    }

    /// Adds to an error which batches exist by now.
    fn name_batches(&self, error: Error) -> Error {
        match &self.index.ids[..] {
            [] => error,
            ids => error.with_reason(format!(
                "created so far: {}",
                sanitize(&ids.join(", "), 300)
            )),
        }
    }
}

/// Whether it is certain that no attempt created a batch.
fn is_certainly_not_created(error: &Error) -> bool {
    error
        .attempts()
        .iter()
        .all(|attempt| match attempt.delivery {
            Delivery::NotSent => true,
            // A 408 comes from a proxy, which does not know what the server did.
            Delivery::Responded => attempt
                .status
                .is_some_and(|status| status != 408 && (400..500).contains(&status)),
            _ => false,
        })
}

/// The error for a run that cannot know which batch is its own.
fn ambiguous(what: String, advice: &'static str) -> Error {
    let cause = Cause::Rejected(what.into());
    Error::new(ErrorKind::Config, format!("POST {PATH}"), cause).with_advice(advice)
}

const CHOOSE: &str = "wait for the right one by its id, or begin with another journal";
