//! The public methods of the Message Batches API.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::body::{
    BatchBody, MAX_REQUESTS, Pushed, check_custom_id, duplicate_custom_id, invalid, too_large,
};
use super::create::BatchCreation;
use super::endpoints;
use super::lookup::{BatchLookup, CreatedAfter};
use super::results::BatchResults;
use super::run::BatchRun;
use super::runner::{BatchRunner, RunSettings};
use super::wait::{BatchProgress, BatchWaiter, OnBatchProgress};
use crate::api::pages::Pages;
use crate::client::Client;
use crate::error::Result;
use crate::types::{MessageBatch, MessageRequest};

impl Client {
    /// Returns the methods of the Message Batches API: requests that can wait, up to 24 hours, for
    /// half the price and under limits of their own.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::from_env()?;
    /// let towns = ["Lima", "Oslo", "Pune"];
    /// let request = |town: &str| {
    ///     MessageRequest::new("claude-haiku-4-5", 256).user(format!("One sentence about {town}."))
    /// };
    /// let requests = towns.map(|town| (town, request(town)));
    /// for entry in client.batches().journal("towns.journal").run(requests)? {
    ///     let (id, message) = entry?.into_parts();
    ///     println!("{id}: {}", message?.text());
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn batches(&self) -> Batches<'_> {
        Batches {
            client: self,
            deadline: None,
            on_progress: None,
            run_settings: RunSettings {
                batch_size: MAX_REQUESTS,
                resubmit: 0,
                journal: None,
            },
        }
    }
}

/// The Message Batches API; see [`Client::batches`].
///
/// [`run`](Batches::run) does everything: it creates batches, waits for them, and returns the
/// results in the order of the requests. The other methods are its parts.
///
/// `get`, `list`, `cancel` and `delete` are short calls: each attempt may take the client's
/// [`timeout`](crate::ClientBuilder::timeout), by default as long as its idle timeout of 180 s.
/// Failures are retried, up to the client's deadline.
///
/// ```
/// use anthropic_blocking::{Client, MessageRequest, Result};
///
/// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
/// // Step by step, with the id in between.
/// let batch = client.batches().create(requests)?;
/// println!("created {}", batch.id);
/// let batch = client.batches().wait(&batch.id)?;
/// for entry in client.batches().results(&batch.id)? {
///     let (key, message) = entry?.into_parts();
///     println!("{key}: {:?}", message.map(|message| message.text()));
/// }
/// # Ok(()) }
/// ```
#[must_use]
pub struct Batches<'a> {
    client: &'a Client,
    deadline: Option<Duration>,
    on_progress: Option<Box<OnBatchProgress<'a>>>,
    run_settings: RunSettings,
}

impl<'a> Batches<'a> {
    /// Sets how long [`wait`](Batches::wait) waits for its batch, and [`run`](Batches::run) for all
    /// of its batches together. By default they wait until the batches have ended, which the server
    /// promises within 24 hours. The batches themselves go on after the deadline.
    ///
    /// The client's own deadline holds for each single request of the wait.
    pub fn deadline(mut self, deadline: Duration) -> Batches<'a> {
        self.deadline = Some(deadline);
        self
    }

    /// Sets a function that [`wait`](Batches::wait) and [`run`](Batches::run) call after each poll
    /// of a batch, on the caller's thread.
    ///
    /// ```no_run
    /// # let client = anthropic_blocking::Client::from_env()?;
    /// let batch = client
    ///     .batches()
    ///     .on_progress(|progress| eprintln!("{:?} so far", progress.waited))
    ///     .wait("msgbatch_01Example")?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn on_progress(mut self, report: impl Fn(&BatchProgress<'_>) + 'a) -> Batches<'a> {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// Sets the maximum number of requests that [`run`](Batches::run) puts into one batch: between
    /// 1 and 100,000, by default 100,000. A batch also holds at most 256 MB. The results of a small
    /// batch can be read earlier than those of a large one.
    pub fn batch_size(mut self, requests: usize) -> Batches<'a> {
        self.run_settings.batch_size = requests.clamp(1, MAX_REQUESTS);
        self
    }

    /// Sets how often [`run`](Batches::run) submits a request again that expired or failed at the
    /// server; by default 0 times. A request that failed through its own fault, and a canceled
    /// request, are never submitted again. Keeps all requests in memory as JSON until the end of
    /// the run.
    pub fn resubmit(mut self, times: u32) -> Batches<'a> {
        self.run_settings.resubmit = times;
        self
    }

    /// Sets the file in which [`run`](Batches::run) keeps the ids of its batches, so that the same
    /// call with the same journal continues after a crash. The file is created if it does not
    /// exist.
    ///
    /// The journal holds ids, counts and digests: no key, no request, no response. It is locked
    /// while a run has it open: a second run with the same journal, in this process, another
    /// process or another container, is an error. A file system without locks, such as some network
    /// file systems, cannot refuse the second run: a warning is logged.
    ///
    /// A journal is for one run: after its end the same call returns the same results, for 29 days.
    /// To send the requests anew, remove the file or name another one.
    ///
    /// If the program is killed while it creates a batch, the next run recognizes the batch by its
    /// time and its number of requests, and checks later that its results carry our custom ids.
    /// Programs of one workspace that create batches of one size at the same time should therefore
    /// use different custom ids, so that one program's results never pass for another's.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
    /// let run = client.batches().journal("reviews.journal").resubmit(2).run(requests)?;
    /// # Ok(()) }
    /// ```
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Batches<'a> {
        self.run_settings.journal = Some(path.into());
        self
    }

    /// Creates a batch of requests: `POST /v1/messages/batches`. Each request has a custom id of 1
    /// to 64 letters, digits, `_` and `-`, which names its result. A batch has at most 100,000
    /// requests and 256 MB; [`run`](Batches::run) splits larger inputs.
    ///
    /// The requests may be owned or borrowed. They are taken one by one and kept as JSON only. The
    /// server validates them later: an invalid request shows in its result.
    ///
    /// Blocks until the batch is created, for as long as any call: at most for the client's
    /// [`deadline`](crate::ClientBuilder::deadline), if there is one. If a failure leaves open
    /// whether the batch was created, searches the list of batches (up to 30 s) before sending
    /// anything again, so that there is never a second batch. If the list holds a new batch of this
    /// size, the error names it.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # fn ask(client: &Client) -> anthropic_blocking::Result<()> {
    /// let request = |town: &str| {
    ///     MessageRequest::new("claude-haiku-4-5", 256).user(format!("One sentence about {town}."))
    /// };
    /// let batch = client.batches().create(["lima", "oslo"].map(|town| (town, request(town))))?;
    /// println!("{}: {} requests", batch.id, batch.request_counts.total());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest), before anything is sent, for no
    /// requests or too many, a malformed or duplicate custom id, or a field that batches do not
    /// support, such as `stream`. Otherwise the errors of any call.
    pub fn create<K, R>(&self, entries: impl IntoIterator<Item = (K, R)>) -> Result<MessageBatch>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut body = write_body(entries)?;
        let not_ours = HashSet::new();
        let creation = BatchCreation {
            lookup: BatchLookup {
                client: self.client,
                count: body.len() as u64,
                created_after: CreatedAfter::Instant(self.client.core().sleeper.clock().now()),
                not_ours: &not_ours,
            },
            body: body.finish(),
        };
        Ok(creation.create_once()?.batch)
    }

    /// Fetches the state of a batch: `GET /v1/messages/batches/{id}`. Does not wait for its end;
    /// blocks for one short call.
    ///
    /// # Errors
    ///
    /// The errors of any call, such as [`NotFound`](crate::ErrorKind::NotFound); `InvalidRequest`
    /// for an empty id, before anything is sent.
    pub fn get(&self, id: &str) -> Result<MessageBatch> {
        endpoints::get(self.client, id)
    }

    /// Lists all batches of the key's workspace, the newest first: `GET /v1/messages/batches`. Each
    /// page is requested when the iterator needs it.
    ///
    /// ```
    /// # fn running(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// for batch in client.batches().list().limit(100) {
    ///     let batch = batch?;
    ///     if !batch.is_ended() {
    ///         println!("{} has not ended", batch.id);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn list(&self) -> Pages<'a, MessageBatch> {
        endpoints::list(self.client)
    }

    /// Cancels a batch: `POST /v1/messages/batches/{id}/cancel`. Does not wait for its end:
    /// requests that the server has begun may still be carried out. Blocks for one short call.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Batches::get).
    pub fn cancel(&self, id: &str) -> Result<MessageBatch> {
        endpoints::cancel(self.client, id)
    }

    /// Deletes a batch that has ended, with its results: `DELETE /v1/messages/batches/{id}`. Blocks
    /// for one short call.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Batches::get); `InvalidRequest` for a batch that has not ended: cancel it
    /// first.
    pub fn delete(&self, id: &str) -> Result<()> {
        endpoints::delete(self.client, id)
    }

    /// Downloads the results of a batch that has ended, in no order: an iterator that reads line by
    /// line in constant memory. Sends `GET /v1/messages/batches/{id}` first, to know how many
    /// results there must be, then `GET /v1/messages/batches/{id}/results`.
    ///
    /// Blocks until the download begins; each `next` blocks until a line arrives.
    ///
    /// The key is sent to the client's base URL only: even if the batch names another host for its
    /// results, they are requested from the base URL.
    ///
    /// ```
    /// # fn read(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// for entry in client.batches().results("msgbatch_01Example")? {
    ///     let entry = entry?;
    ///     println!("{}: {}", entry.custom_id, entry.result.as_str());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if the batch has not ended, and
    /// [`NotFound`](crate::ErrorKind::NotFound) if its results are gone, which is 29 days after it
    /// was created. Otherwise the errors of any call.
    pub fn results(&self, id: &str) -> Result<BatchResults> {
        BatchResults::fetch(self.client, id)
    }

    /// Waits until a batch has ended: polls `GET /v1/messages/batches/{id}`.
    ///
    /// The intervals between polls grow from 2 s to 60 s, unless the server suggests others. A
    /// failed poll is ignored if a later one may succeed; the eleventh failure in a row ends the
    /// wait.
    ///
    /// Blocks up to 24 hours, or until the [`deadline`](Batches::deadline). The batch goes on if
    /// the program ends: another program can wait for it.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, Result};
    /// use std::time::Duration;
    ///
    /// # fn wait(client: &Client) -> Result<()> {
    /// let hour = Duration::from_secs(3600);
    /// match client.batches().deadline(hour).wait("msgbatch_01Example") {
    ///     Ok(batch) => println!("{} succeeded", batch.request_counts.succeeded),
    ///     Err(error) if error.kind() == ErrorKind::Timeout => println!("not yet"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Timeout`](crate::ErrorKind::Timeout) at the deadline,
    /// [`Shutdown`](crate::ErrorKind::Shutdown) when the client is shut down, or the errors of any
    /// call.
    pub fn wait(&self, id: &str) -> Result<MessageBatch> {
        self.waiter().wait_until_ended(id)
    }

    /// Creates batches of these requests, waits until they have ended, and returns one result for
    /// each request, in the order of the input.
    ///
    /// An input of more than 100,000 requests or 256 MB becomes several batches. With a
    /// [`journal`](Batches::journal) the same call continues where it was killed: it creates no
    /// batch twice, and goes on waiting. With [`resubmit`](Batches::resubmit), requests that
    /// expired or failed at the server are submitted again.
    ///
    /// The requests may be owned or borrowed. They are taken and checked one by one, and kept as
    /// JSON until their batch is created, which is as soon as it is full. Sends the requests of
    /// [`create`](Batches::create), [`wait`](Batches::wait) and [`results`](Batches::results).
    /// Blocks until all batches have ended, up to 24 hours each, or until the
    /// [`deadline`](Batches::deadline). The batches go on if the program ends.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
    /// for entry in client.batches().journal("reviews.journal").run(requests)? {
    ///     let (key, message) = entry?.into_parts();
    ///     match message {
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
    /// that were created before. Kind [`Config`](crate::ErrorKind::Config) if the journal cannot be
    /// used: it is in use, it is no journal, or it is the journal of other requests.
    pub fn run<K, R>(&self, entries: impl IntoIterator<Item = (K, R)>) -> Result<BatchRun>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut runner = BatchRunner::open(self.client, &self.run_settings)?;
        let outcome = runner
            .create_batches(entries)
            .and_then(|()| runner.wait_and_resubmit(&self.waiter()));
        runner.finish(outcome)
    }

    /// A waiter whose deadline runs from now.
    fn waiter(&self) -> BatchWaiter<'_> {
        BatchWaiter {
            client: self.client,
            start: self.client.core().sleeper.clock().now(),
            deadline: self.deadline,
            on_progress: self.on_progress.as_deref(),
        }
    }
}

/// Writes and checks the body of one batch.
fn write_body<K, R>(entries: impl IntoIterator<Item = (K, R)>) -> Result<BatchBody>
where
    K: Into<String>,
    R: Borrow<MessageRequest>,
{
    let mut body = BatchBody::default();
    let mut ids = HashSet::new();
    for (custom_id, request) in entries {
        let custom_id = custom_id.into();
        check_custom_id(&custom_id)?;
        if body.len() == MAX_REQUESTS {
            return Err(invalid("a batch has at most 100,000 requests").with_advice(SPLIT));
        }
        if body.push(&custom_id, request.borrow())? == Pushed::NoRoom {
            let count = body.len();
            if count == 0 {
                return Err(too_large(&custom_id));
            }
            let what = format!("a batch has at most 256 MB, which {count} requests fill");
            return Err(invalid(what).with_advice(SPLIT));
        }
        if let Some(duplicate) = ids.replace(custom_id) {
            return Err(duplicate_custom_id(&duplicate));
        }
    }
    if body.len() == 0 {
        return Err(invalid("a batch has at least one request"));
    }
    Ok(body)
}

impl fmt::Debug for Batches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("client", &self.client)
            .field("deadline", &self.deadline)
            .field("batch_size", &self.run_settings.batch_size)
            .field("resubmit", &self.run_settings.resubmit)
            .field("journal", &self.run_settings.journal)
            .finish_non_exhaustive()
    }
}

const SPLIT: &str = "split it, or let `run` do so";
