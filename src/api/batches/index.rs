//! Results put into the order of the requests.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Deserialize;

use super::results::BatchResults;
use crate::client::Client;
use crate::error::{Cause, Error, ErrorKind, Result, json_error, sanitize};
use crate::types::{BatchEntry, parse_response};

/// Which request is in which batch.
#[derive(Debug, Default)]
pub(super) struct BatchIndex {
    /// The ids of the batches.
    pub(super) ids: Vec<String>,
    /// The requests of each batch, as places in `keys`, in order.
    pub(super) members: Vec<Vec<usize>>,
    /// The ids of the requests, in order.
    pub(super) keys: Vec<Arc<str>>,
    pub(super) places: HashMap<Arc<str>, usize>,
    /// For each request the number of the batch that holds its result.
    pub(super) batch_of: Vec<usize>,
}

/// The results of [`Batches::run`](crate::Batches::run): an iterator in the order of the input.
///
/// One item for each request: its result, whatever that is, or an error where there is none. Beyond
/// that, a line that cannot be read, a result that nobody asked for, and a download that could not
/// be finished are errors of their own, and the rest is delivered; a request whose result such a
/// download kept back has an error of the same kind. Results come in another order
/// than requests: those that come before their turn are held in memory, as bytes.
///
/// ```
/// use anthropic_blocking::{BatchRun, Result};
///
/// fn show(run: BatchRun) -> Result<()> {
///     println!("batches: {:?}", run.ids());
///     for entry in run {
///         let (key, answer) = entry?.into_parts();
///         println!("{key}: {:?}", answer.map(|message| message.text()));
///     }
///     Ok(())
/// }
/// ```
#[must_use = "the results are read as the iterator goes"]
pub struct BatchRun {
    client: Client,
    index: BatchIndex,
    /// The downloads that were begun, by batch; `None` for those that were read to their ends.
    downloads: HashMap<usize, Option<BatchResults>>,
    /// The downloads that broke for good, by batch: how, and whether another try may help.
    broken: HashMap<usize, (ErrorKind, bool)>,
    /// Results that came before their turn.
    early: HashMap<usize, Box<[u8]>>,
    has_come: Vec<bool>,
    next: usize,
    is_over: bool,
}

/// What a line of the results is about.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) custom_id: Cow<'a, str>,
}

impl BatchIndex {
    /// The place of a request, if it is in this batch.
    pub(super) fn place(&self, batch: usize, custom_id: &str) -> Option<usize> {
        let place = self.places.get(custom_id).copied()?;
        let is_member = self.members[batch].binary_search(&place).is_ok();
        is_member.then_some(place)
    }
}

impl BatchRun {
    pub(super) fn new(client: Client, index: BatchIndex) -> BatchRun {
        BatchRun {
            client,
            has_come: vec![false; index.keys.len()],
            index,
            downloads: HashMap::new(),
            broken: HashMap::new(),
            early: HashMap::new(),
            next: 0,
            is_over: false,
        }
    }

    /// The ids of the batches, in the order in which they were created.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # server.batch_polls(0);
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let requests = [("lima", MessageRequest::new("claude-haiku-4-5", 64).user("Lima?"))];
    /// let mut run = client.batches().run(requests)?;
    /// let entries = run.by_ref().collect::<anthropic_blocking::Result<Vec<_>>>()?;
    /// // All is read: the answers need not stay at the server.
    /// for id in run.ids() {
    ///     client.batches().delete(id)?;
    /// }
    /// assert_eq!(client.batches().list().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ids(&self) -> &[String] {
        &self.index.ids
    }

    /// Reads on in a batch until it has an item: the result of the request at `next`, or an error.
    /// `None` at its end.
    fn read(&mut self, batch: usize) -> Option<Result<BatchEntry>> {
        if !self.downloads.contains_key(&batch) {
            let results = self.client.batches().results(&self.index.ids[batch]);
            match results {
                Ok(results) => drop(self.downloads.insert(batch, Some(results))),
                Err(error) => return Some(Err(self.broke(batch, error))),
            }
        }
        loop {
            let results = self.downloads.get_mut(&batch)?.as_mut()?;
            let line = match results.next_line() {
                Some(Ok(line)) => line,
                Some(Err(error)) => return Some(Err(self.broke(batch, error))),
                None => {
                    self.downloads.insert(batch, None);
                    return None;
                }
            };
            let about: Line<'_> = match serde_json::from_slice(results.line(line.clone())) {
                Ok(about) => about,
                Err(error) => return Some(Err(results.unreadable(&error))),
            };
            let place = self.index.place(batch, &about.custom_id);
            match place {
                // It was submitted again, and its result is in a later batch.
                Some(place) if self.index.batch_of[place] != batch => {}
                Some(place) if !self.has_come[place] => {
                    self.has_come[place] = true;
                    if place == self.next {
                        self.next += 1;
                        return Some(results.read(line));
                    }
                    self.early.insert(place, results.line(line).into());
                }
                _ => {
                    let id = sanitize(&about.custom_id, 80);
                    let what = match place {
                        Some(_) => format!("{id} has two results"),
                        None => format!("there is a result for {id}, which was never asked for"),
                    };
                    return Some(Err(
                        results.error(ErrorKind::Decode, Cause::Rejected(what.into()))
                    ));
                }
            }
        }
    }

    /// The result of the request at `next`, where it came before its turn.
    fn take_early(&mut self) -> Option<Result<BatchEntry>> {
        let line = self.early.remove(&self.next)?;
        self.next += 1;
        Some(parse_response(&line).map_err(|error| {
            let cause = Cause::Unusable {
                what: "the result cannot be read".into(),
                source: json_error(&error),
            };
            Error::new(ErrorKind::Decode, self.action(self.next - 1), cause)
        }))
    }

    /// Takes note that there is no more to be had from a batch, although there may be more in it.
    fn broke(&mut self, batch: usize, error: Error) -> Error {
        self.downloads.insert(batch, None);
        // Else what there was has been read, and made no sense.
        if error.kind() != ErrorKind::Decode {
            let how = (error.kind(), error.is_retryable());
            self.broken.insert(batch, how);
        }
        error
    }

    /// The error for a request without a result.
    fn missing(&self, place: usize) -> Error {
        let number = self.index.batch_of[place];
        let batch = &self.index.ids[number];
        let new =
            |kind, what: String| Error::new(kind, self.action(place), Cause::Rejected(what.into()));
        match self.broken.get(&number) {
            None => new(ErrorKind::Decode, format!("{batch} gave no result for it")),
            Some((kind, retryable)) => {
                let what = format!("the download of {batch} broke before its result came");
                new(*kind, what).with_classification(*retryable, Some(STILL_THERE), None)
            }
        }
    }

    fn action(&self, place: usize) -> String {
        format!("the request {}", self.index.keys[place])
    }
}

impl Iterator for BatchRun {
    type Item = Result<BatchEntry>;

    fn next(&mut self) -> Option<Result<BatchEntry>> {
        while !self.is_over {
            if self.next == self.index.keys.len() {
                // What else there is in the results, nobody asked for.
                for batch in 0..self.index.ids.len() {
                    if let Some(stray) = self.read(batch) {
                        return Some(stray);
                    }
                }
                self.is_over = true;
                break;
            }
            if let Some(entry) = self.take_early() {
                return Some(entry);
            }
            if let Some(item) = self.read(self.index.batch_of[self.next]) {
                return Some(item);
            }
            if self.early.contains_key(&self.next) {
                continue;
            }
            self.next += 1;
            return Some(Err(self.missing(self.next - 1)));
        }
        None
    }
}

impl FusedIterator for BatchRun {}

impl fmt::Debug for BatchRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRun")
            .field("ids", &self.index.ids)
            .field("requests", &self.index.keys.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

const STILL_THERE: &str =
    "it may be there: read the results of the batch again, do not submit it again";
