//! The results of a run, in the order of its requests.

use std::collections::HashMap;
use std::fmt;
use std::iter::FusedIterator;

use super::index::{BatchIndex, ResultLine};
use super::results::BatchResults;
use crate::client::Client;
use crate::error::{Cause, Error, ErrorKind, Result, json_error, sanitize};
use crate::types::{BatchEntry, parse_response};

/// The results of [`Batches::run`](crate::Batches::run): an iterator in the order of the input.
///
/// Yields one item for each request: its result, succeeded or not, or an error if there is none.
/// A line that cannot be read, a result for an unknown request, and a download that broke for good
/// are additional errors; the other results follow. A request whose result such a download would
/// have held gets an error of the same kind.
///
/// Downloads as it advances: `next` blocks as that of [`BatchResults`](crate::BatchResults) does.
/// The server sends results in any order: a result that arrives before its turn is held in memory,
/// as JSON.
///
/// ```
/// use anthropic_blocking::{BatchRun, Result};
///
/// fn show(run: BatchRun) -> Result<()> {
///     println!("batches: {:?}", run.ids());
///     for entry in run {
///         let (key, message) = entry?.into_parts();
///         println!("{key}: {:?}", message.map(|message| message.text()));
///     }
///     Ok(())
/// }
/// ```
#[must_use = "the iterator downloads the results as it advances"]
pub struct BatchRun {
    client: Client,
    index: BatchIndex,
    /// The downloads by batch; `None` for a download that has ended or failed.
    downloads: HashMap<usize, Option<BatchResults>>,
    /// The downloads that broke for good, by batch.
    broken: HashMap<usize, BrokenDownload>,
    /// The JSON of results that arrived before their turn, by request.
    held: HashMap<usize, Box<[u8]>>,
    /// For each request whether its result has arrived.
    has_arrived: Vec<bool>,
    /// The request whose result is handed out next.
    next: usize,
    is_over: bool,
}

/// Why a download broke for good.
#[derive(Debug, Clone, Copy)]
struct BrokenDownload {
    kind: ErrorKind,
    is_retryable: bool,
}

impl BatchRun {
    pub(super) fn new(client: Client, index: BatchIndex) -> BatchRun {
        BatchRun {
            client,
            has_arrived: vec![false; index.keys.len()],
            index,
            downloads: HashMap::new(),
            broken: HashMap::new(),
            held: HashMap::new(),
            next: 0,
            is_over: false,
        }
    }

    /// Returns the ids of the batches, in the order in which they were created.
    ///
    /// ```
    /// # fn ask(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// # let requests: Vec<(String, anthropic_blocking::MessageRequest)> = Vec::new();
    /// let mut run = client.batches().run(requests)?;
    /// let entries = run.by_ref().collect::<anthropic_blocking::Result<Vec<_>>>()?;
    /// // All results were read: they need not stay at the server.
    /// for id in run.ids() {
    ///     client.batches().delete(id)?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn ids(&self) -> &[String] {
        &self.index.ids
    }

    /// Downloads lines of a batch until there is an item: the result of the request `next`, or an
    /// error. Returns `None` at the end of the batch. Holds other results back.
    fn read_batch(&mut self, batch: usize) -> Option<Result<BatchEntry>> {
        if !self.downloads.contains_key(&batch) {
            match BatchResults::fetch(&self.client, &self.index.ids[batch]) {
                Ok(results) => drop(self.downloads.insert(batch, Some(results))),
                Err(error) => return Some(Err(self.end_broken(batch, error))),
            }
        }
        loop {
            let results = self.downloads.get_mut(&batch)?.as_mut()?;
            let line = match results.next_line() {
                Some(Ok(line)) => line,
                Some(Err(error)) => return Some(Err(self.end_broken(batch, error))),
                None => {
                    self.downloads.insert(batch, None);
                    return None;
                }
            };
            let parsed: ResultLine<'_> = match serde_json::from_slice(results.line(line.clone())) {
                Ok(parsed) => parsed,
                Err(error) => return Some(Err(results.unreadable_line(&error))),
            };
            let request = self.index.member(batch, &parsed.custom_id);
            match request {
                // The request was submitted again, and a later batch holds its result.
                Some(request) if self.index.batch_of[request] != batch => {}
                Some(request) if !self.has_arrived[request] => {
                    self.has_arrived[request] = true;
                    if request == self.next {
                        self.next += 1;
                        return Some(results.parse(line));
                    }
                    self.held.insert(request, results.line(line).into());
                }
                _ => {
                    let id = sanitize(&parsed.custom_id, 80);
                    let what = match request {
                        Some(_) => format!("{id} has two results"),
                        None => format!("there is a result for {id}, which was never requested"),
                    };
                    let cause = Cause::Rejected(what.into());
                    return Some(Err(results.error(ErrorKind::Decode, cause)));
                }
            }
        }
    }

    /// Takes the result of the request `next` from those held back.
    fn take_held(&mut self) -> Option<Result<BatchEntry>> {
        let line = self.held.remove(&self.next)?;
        self.next += 1;
        Some(parse_response(&line).map_err(|error| {
            let cause = Cause::Unusable {
                what: "the result cannot be read".into(),
                source: json_error(&error),
            };
            Error::new(ErrorKind::Decode, self.action(self.next - 1), cause)
        }))
    }

    /// Ends a download that broke for good, and returns its error.
    fn end_broken(&mut self, batch: usize, error: Error) -> Error {
        self.downloads.insert(batch, None);
        // After an error of kind `Decode` a new download would not help: the results were there,
        // and made no sense.
        if error.kind() != ErrorKind::Decode {
            let broken = BrokenDownload {
                kind: error.kind(),
                is_retryable: error.is_retryable(),
            };
            self.broken.insert(batch, broken);
        }
        error
    }

    /// The error for a request without a result.
    fn missing_result(&self, request: usize) -> Error {
        let number = self.index.batch_of[request];
        let batch = &self.index.ids[number];
        let new = |kind, what: String| {
            Error::new(kind, self.action(request), Cause::Rejected(what.into()))
        };
        match self.broken.get(&number) {
            None => new(ErrorKind::Decode, format!("{batch} gave no result for it")),
            Some(broken) => {
                let what = format!("the download of {batch} broke before its result came");
                let advice = Some(READ_AGAIN);
                new(broken.kind, what).with_classification(broken.is_retryable, advice, None)
            }
        }
    }

    fn action(&self, request: usize) -> String {
        format!("the request {}", self.index.keys[request])
    }
}

impl Iterator for BatchRun {
    type Item = Result<BatchEntry>;

    fn next(&mut self) -> Option<Result<BatchEntry>> {
        while !self.is_over {
            if self.next == self.index.keys.len() {
                // Anything left in the batches is an error: all requests have their results.
                for batch in 0..self.index.ids.len() {
                    if let Some(surplus) = self.read_batch(batch) {
                        return Some(surplus);
                    }
                }
                self.is_over = true;
                break;
            }
            if let Some(entry) = self.take_held() {
                return Some(entry);
            }
            if let Some(item) = self.read_batch(self.index.batch_of[self.next]) {
                return Some(item);
            }
            if self.held.contains_key(&self.next) {
                continue;
            }
            self.next += 1;
            return Some(Err(self.missing_result(self.next - 1)));
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

const READ_AGAIN: &str =
    "the result may exist: read the results of the batch again, do not submit the request again";
