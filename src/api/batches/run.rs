//! From requests to results in one call that survives being killed: create, wait, match.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use log::info;
use serde::{Deserialize, Serialize};

use super::body::{Body, check_id, too_large, twice};
use super::create::{LOOKS, Landmark, Since, told};
use super::index::{BatchIndex, BatchRun, Line};
use super::{Batches, PATH};
use crate::call::LOG;
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::journal::{Journal, unusable};
use crate::types::digest::Digest;
use crate::types::{Delivery, MessageRequest};

impl Batches<'_> {
    /// Creates batches of these requests, waits until they have ended, and gives back one result
    /// for each, in the order of the input.
    ///
    /// Inputs of more than 100,000 requests or 256 MB become several batches. With a
    /// [`journal`](Batches::journal) the same call goes on where it was killed: it creates nothing
    /// twice and waits on. With [`resubmit`](Batches::resubmit), what expired or failed at the
    /// server is submitted again.
    ///
    /// The requests may be owned or borrowed, are taken and checked one by one, and are kept as JSON
    /// only until their batch is created, which is as soon as it is full. Blocks until all batches
    /// have ended, up to 24 hours each, or for the [`deadline`](Batches::deadline); batches go on
    /// whatever becomes of the program.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
    /// for entry in client.batches().journal("reviews.journal").run(requests)? {
    ///     let (key, answer) = entry?.into_parts();
    ///     match answer {
    ///         Ok(message) => println!("{key}: {}", message.text()),
    ///         Err(error) => eprintln!("{key}: {error}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`create`](Batches::create) and [`wait`](Batches::wait); the text names the batches
    /// that were created before. Kind [`Config`](ErrorKind::Config) when the journal cannot be used:
    /// it is in use, is no journal, or is the journal of other requests.
    pub fn run<K, R>(&self, entries: impl IntoIterator<Item = (K, R)>) -> Result<BatchRun>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut work = Work::open(self)?;
        let outcome = work.submit(entries).and_then(|()| work.finish());
        outcome.map_err(|error| work.name_batches(error))?;
        Ok(BatchRun::new(self.client.clone(), work.index))
    }
}

/// What a journal says. Landmarks and digests, not requests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    /// A batch is about to be created.
    Creating(Plan),
    /// It was created.
    Created {
        batch: usize,
        id: String,
        /// Nobody said so: it was found in the list.
        #[serde(default)]
        found: bool,
    },
    /// What was found is somebody else's.
    Stranger { batch: usize, id: String },
    /// It was refused, and will be created anew.
    Refused { batch: usize },
}

/// A batch to be created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plan {
    /// Its number, from 0.
    batch: usize,
    /// 0 for the requests as they were given, then how often these were submitted before.
    round: u32,
    requests: u64,
    /// Of the body.
    digest: String,
    /// The newest batch before it.
    newest: Option<Landmark>,
}

/// A run on its way.
struct Work<'a> {
    batches: &'a Batches<'a>,
    journal: Option<Journal<Record>>,
    /// From the journal: what was to be created, and what was.
    plans: HashMap<usize, Plan>,
    created: HashMap<usize, String>,
    /// Batches that were found in the list, and may be somebody else's.
    found: HashSet<usize>,
    /// The ids of those that were.
    strangers: HashSet<String>,
    /// The bodies of the first round, if they are needed again.
    kept: Vec<Body>,
    index: BatchIndex,
}

impl<'a> Work<'a> {
    fn open(batches: &'a Batches<'a>) -> Result<Work<'a>> {
        let mut work = Work {
            batches,
            journal: None,
            plans: HashMap::new(),
            created: HashMap::new(),
            found: HashSet::new(),
            strangers: HashSet::new(),
            kept: Vec::new(),
            index: BatchIndex::default(),
        };
        if let Some(path) = &batches.journal {
            let (journal, records) = Journal::open(path, "batches")?;
            for record in records {
                match record {
                    Record::Creating(plan) => drop(work.plans.insert(plan.batch, plan)),
                    Record::Created { batch, id, found } => {
                        if found {
                            work.found.insert(batch);
                        }
                        work.created.insert(batch, id);
                    }
                    Record::Stranger { batch, id } => {
                        work.found.remove(&batch);
                        work.created.remove(&batch);
                        work.strangers.insert(id);
                    }
                    Record::Refused { batch } => drop(work.plans.remove(&batch)),
                }
            }
            work.journal = Some(journal);
            for id in work.created.values() {
                batches.claim(id);
            }
        }
        Ok(work)
    }

    /// Creates the batches of the input.
    fn submit<K, R>(&mut self, entries: impl IntoIterator<Item = (K, R)>) -> Result<()>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut body = Body::default();
        let mut members = Vec::new();
        for (custom_id, request) in entries {
            let key: Arc<str> = custom_id.into().into();
            check_id(&key)?;
            let place = self.index.keys.len();
            if self.index.places.insert(Arc::clone(&key), place).is_some() {
                return Err(twice(&key));
            }
            let is_full = body.len() >= self.batches.batch_size;
            if is_full || !body.push(&key, request.borrow())? {
                if body.len() > 0 {
                    self.create(std::mem::take(&mut body), std::mem::take(&mut members), 0)?;
                }
                if !body.push(&key, request.borrow())? {
                    return Err(too_large(&key));
                }
            }
            members.push(place);
            self.index.keys.push(key);
            self.index.batch_of.push(self.index.ids.len());
        }
        if body.len() > 0 {
            self.create(body, members, 0)?;
        }
        let planned = self.plans.values().filter(|plan| plan.round == 0).count();
        match planned > self.index.ids.len() {
            true => Err(self.other_requests()),
            false => Ok(()),
        }
    }

    /// Waits for the batches, and submits again what may be.
    fn finish(&mut self) -> Result<()> {
        let start = self.batches.client.core().sleeper.clock().now();
        let mut next = 0;
        for round in 0..=self.batches.resubmit {
            let batches = next..self.index.ids.len();
            next = batches.end;
            let mut again = Vec::new();
            for batch in batches {
                let ended = self.batches.wait_since(start, &self.index.ids[batch])?;
                if self.found.contains(&batch) {
                    self.check(batch)?;
                }
                let counts = &ended.request_counts;
                let has_failed = counts.errored > 0 || counts.expired > 0;
                if round < self.batches.resubmit && has_failed {
                    again.append(&mut self.retryable(batch)?);
                }
            }
            if again.is_empty() {
                break;
            }
            again.sort_unstable();
            info!(target: LOG, "submitting again: {} of {} requests", again.len(), self.index.keys.len());
            let (mut body, mut members) = (Body::default(), Vec::new());
            for place in again {
                let is_full = body.len() >= self.batches.batch_size;
                if is_full || !body.push_entry(self.entry(place)) {
                    self.create(
                        std::mem::take(&mut body),
                        std::mem::take(&mut members),
                        round + 1,
                    )?;
                    body.push_entry(self.entry(place));
                }
                members.push(place);
                self.index.batch_of[place] = self.index.ids.len();
            }
            self.create(body, members, round + 1)?;
        }
        Ok(())
    }

    /// Makes sure that a batch that was found in the list holds these requests and no others.
    fn check(&mut self, batch: usize) -> Result<()> {
        let id = self.index.ids[batch].clone();
        let mut results = match self.batches.results(&id) {
            Err(error) if error.is_retryable() => return Err(error),
            // What is wrong for good is said when the results are handed out.
            Err(_) => return Ok(()),
            Ok(results) => results,
        };
        while let Some(line) = results.next_line() {
            let line = match line {
                Ok(line) => line,
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => break,
            };
            let about = serde_json::from_slice::<Line<'_>>(results.line(line));
            if about.is_ok_and(|about| self.index.place(batch, &about.custom_id).is_none()) {
                self.batches.disclaim(&id);
                self.index.ids.remove(batch);
                let what = format!("{id} was taken for a batch that got lost, but is another one");
                self.note(&Record::Stranger { batch, id })?;
                let advice = match self.journal {
                    Some(_) => "run again with the same journal",
                    None => "take the results of the others by their ids, and ask the rest again",
                };
                return Err(several(what, advice));
            }
        }
        self.found.remove(&batch);
        Ok(())
    }

    /// The requests of a batch that has ended which may succeed in another one.
    fn retryable(&self, batch: usize) -> Result<Vec<usize>> {
        let mut retryable = Vec::new();
        let mut results = self.batches.results(&self.index.ids[batch])?;
        while let Some(line) = results.next_line() {
            let line = match line {
                Ok(line) => line,
                Err(error) if error.is_retryable() => return Err(error),
                // What is wrong for good is said when the results are handed out.
                Err(_) => break,
            };
            let Ok(entry) = results.read(line) else {
                continue;
            };
            let place = self.index.places.get(&*entry.custom_id).copied();
            let is_ours = |place: &usize| self.index.batch_of[*place] == batch;
            if let Some(place) = place
                .filter(is_ours)
                .filter(|_| entry.result.is_retryable())
            {
                retryable.push(place);
            }
        }
        retryable.sort_unstable();
        retryable.dedup();
        Ok(retryable)
    }

    /// A request of the first round as it was written.
    fn entry(&self, place: usize) -> &[u8] {
        let first = |batch: usize| self.index.members[batch][0];
        let mut batch = self.kept.len() - 1;
        while first(batch) > place {
            batch -= 1;
        }
        self.kept[batch].entry(place - first(batch))
    }

    /// Creates a batch, unless the journal knows of it.
    fn create(&mut self, mut body: Body, members: Vec<usize>, round: u32) -> Result<()> {
        let batch = self.index.ids.len();
        let requests = body.len() as u64;
        let bytes = body.finish();
        let digest = match self.journal {
            Some(_) => Digest::of(bytes).to_hex(),
            None => String::new(),
        };
        let (id, found) = match (self.plans.get(&batch), self.created.get(&batch)) {
            (Some(plan), _)
                if (plan.round, plan.requests, &plan.digest) != (round, requests, &digest) =>
            {
                return Err(self.other_requests());
            }
            (Some(_), Some(id)) => (id.clone(), self.found.contains(&batch)),
            (Some(plan), None) => {
                // Killed in between: it may have been created.
                let newest = plan.newest.clone();
                let since = Since::Landmark(newest.as_ref());
                let found = self
                    .batches
                    .find(requests, since, &self.strangers, &LOOKS, || None)?;
                match &found[..] {
                    [] => self.send(batch, bytes, requests, newest.as_ref())?,
                    [one] if self.batches.claim(&one.id) => {
                        info!(target: LOG, "{} was created before the last run was killed", one.id);
                        (one.id.clone(), true)
                    }
                    _ => return Err(several(told(&found, requests), CHOOSE)),
                }
            }
            (None, _) => {
                let newest = self.batches.landmark()?;
                self.note(&Record::Creating(Plan {
                    batch,
                    round,
                    requests,
                    digest,
                    newest: newest.clone(),
                }))?;
                self.send(batch, bytes, requests, newest.as_ref())?
            }
        };
        self.index.ids.push(id.clone());
        self.index.members.push(members);
        if found {
            self.found.insert(batch);
        }
        if round == 0 && self.batches.resubmit > 0 {
            self.kept.push(body);
        }
        match self.created.contains_key(&batch) {
            true => Ok(()),
            false => self
                .note(&Record::Created {
                    batch,
                    id: id.clone(),
                    found,
                })
                // The next run has to find it.
                .inspect_err(|_| self.batches.disclaim(&id)),
        }
    }

    /// Sends a batch that the journal plans, and notes if it is certain that nothing came of it.
    fn send(
        &mut self,
        batch: usize,
        body: &[u8],
        requests: u64,
        newest: Option<&Landmark>,
    ) -> Result<(String, bool)> {
        let sent = self
            .batches
            .send(body, requests, Some(newest), &self.strangers);
        sent.map(|(batch, found)| (batch.id, found))
            .inspect_err(|error| {
                if is_refused(error) {
                    // Without this note the next run has to look for the batch, which does no harm.
                    let _ = self.note(&Record::Refused { batch });
                }
            })
    }

    fn note(&mut self, record: &Record) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.append(record),
            None => Ok(()),
        }
    }

    fn other_requests(&self) -> Error {
        let path = self
            .journal
            .as_ref()
            .map(Journal::path)
            .unwrap_or("".as_ref());
        unusable(path, "is the journal of other requests").with_advice(
            "give the same requests in the same order and batches of the same size, or another \
                 journal; that of a run whose results you have may be removed",
        )
    }

    /// Adds to an error which batches there are by now.
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

/// Whether it is certain that no attempt created anything.
fn is_refused(error: &Error) -> bool {
    error
        .attempts()
        .iter()
        .all(|attempt| match attempt.delivery {
            Delivery::NotSent => true,
            Delivery::Responded => attempt
                .status
                .is_some_and(|status| status != 408 && (400..500).contains(&status)),
            _ => false,
        })
}

fn several(what: String, advice: &'static str) -> Error {
    let cause = Cause::Rejected(what.into());
    Error::new(ErrorKind::Config, format!("POST {PATH}"), cause).with_advice(advice)
}

const CHOOSE: &str = "wait for the right one by its id, or begin with another journal";
