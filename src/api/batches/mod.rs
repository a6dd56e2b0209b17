//! Message batches: for what can wait, at half the price.

mod body;
mod create;
mod index;
mod results;
mod run;
mod wait;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use self::index::BatchRun;
pub use self::results::BatchResults;
pub use self::wait::BatchProgress;

use self::body::{Body, MOST_REQUESTS, check_id, refused, too_large, twice};
use crate::api::endpoint::path_of;
use crate::api::pages::Pages;
use crate::call::classify::{FailureDetails, classify};
use crate::client::Client;
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::types::{
    BatchEntry, BatchResult, Delivery, Message, MessageBatch, MessageRequest, RateLimits, RequestId,
};

impl Client {
    /// Message batches: requests that can wait, up to 24 hours, for half the price and under limits
    /// of their own.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::from_env()?;
    /// let towns = ["Lima", "Oslo", "Pune"];
    /// let ask = |town: &str| {
    ///     MessageRequest::new("claude-haiku-4-5", 256).user(format!("One sentence about {town}."))
    /// };
    /// let entries = towns.map(|town| (town, ask(town)));
    /// for entry in client.batches().journal("towns.journal").run(entries)? {
    ///     let entry = entry?;
    ///     let (id, answer) = entry.into_parts();
    ///     println!("{id}: {}", answer?.text());
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn batches(&self) -> Batches<'_> {
        Batches {
            client: self,
            deadline: None,
            on_progress: None,
            batch_size: MOST_REQUESTS,
            resubmit: 0,
            journal: None,
        }
    }
}

/// The Message Batches endpoints, and how to wait for what they do; see [`Client::batches`].
///
/// [`run`](Batches::run) does everything: it creates, waits, and matches the results to what was
/// asked. The other methods are its parts.
///
/// ```
/// use anthropic_blocking::{Client, MessageRequest, Result};
///
/// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
/// // The same step by step, with the id in between.
/// let batch = client.batches().create(requests)?;
/// println!("{} is on its way", batch.id);
/// let batch = client.batches().wait(&batch.id)?;
/// for entry in client.batches().results(&batch.id)? {
///     let (key, answer) = entry?.into_parts();
///     println!("{key}: {:?}", answer.map(|message| message.text()));
/// }
/// # Ok(()) }
/// ```
#[must_use]
pub struct Batches<'a> {
    client: &'a Client,
    deadline: Option<Duration>,
    on_progress: Option<Report<'a>>,
    batch_size: usize,
    resubmit: u32,
    journal: Option<PathBuf>,
}

type Report<'a> = Box<dyn Fn(&BatchProgress<'_>) + 'a>;

impl<'a> Batches<'a> {
    /// Sets how long [`wait`](Batches::wait) waits for its batch, and [`run`](Batches::run) for all of
    /// its batches. By default until they have ended, which the server promises within 24 hours. The
    /// client's own deadline holds for each request that is sent meanwhile.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, TestServer};
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest};
    /// use std::time::Duration;
    ///
    /// # let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// # server.batch_polls(usize::MAX);
    /// # let client = Client::builder().api_key("test").base_url(server.base_url());
    /// # let client = client.clock(&clock).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Lima?");
    /// let batch = client.batches().create([("lima", request)])?;
    /// // The report goes out in ten minutes, with it or without. The batch itself goes on.
    /// let patient = client.batches().deadline(Duration::from_secs(600));
    /// assert_eq!(patient.wait(&batch.id).unwrap_err().kind(), ErrorKind::Timeout);
    /// assert!(!client.batches().get(&batch.id)?.is_ended());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(mut self, deadline: Duration) -> Batches<'a> {
        self.deadline = Some(deadline);
        self
    }

    /// Sets a function that is called after each poll of a batch that is waited for.
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

    /// Sets how many requests [`run`](Batches::run) puts into one batch at most; between 1 and
    /// 100,000, by default as many. Whatever the size, a batch of 256 MB is full.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # server.batch_polls(0);
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let ask = |n| MessageRequest::new("claude-haiku-4-5", 64).user(format!("Prime? {n}"));
    /// // The first results can be had when the first batch has ended.
    /// let requests = (1..=10).map(|n| (format!("n{n}"), ask(n)));
    /// let run = client.batches().batch_size(4).run(requests)?;
    /// assert_eq!(run.ids().len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch_size(mut self, requests: usize) -> Batches<'a> {
        self.batch_size = requests.clamp(1, MOST_REQUESTS);
        self
    }

    /// Sets how often [`run`](Batches::run) submits again what expired or failed at the server, by
    /// default not at all. What the request itself made fail, and what was canceled, is never
    /// submitted again. Costs the memory of all requests until the end of the run.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
    /// for entry in client.batches().resubmit(2).run(requests)? {
    ///     println!("{}", entry?.result.as_str());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn resubmit(mut self, times: u32) -> Batches<'a> {
        self.resubmit = times;
        self
    }

    /// Sets the file in which [`run`](Batches::run) keeps the ids of its batches, so that the same
    /// call with the same journal goes on after a crash. The file is made if there is none.
    ///
    /// It holds ids, counts and digests: no key, no request, no answer. While a run has it open, it is
    /// locked: a second run with the same journal, in this process, another process or another
    /// container, is an error. A file system without locks, such as some network file systems, cannot
    /// refuse the second run: a warning is logged.
    ///
    /// A journal is for one run: after its end the same call gives the same results again, for 29
    /// days. To ask anew, remove the file or give another one.
    ///
    /// A batch that got lost because the program was killed while it created it is known again by
    /// its time and its number of requests. Programs of one workspace that create batches of one
    /// size at the same time should therefore have other `custom_id`s each, so that the results of
    /// one can never pass for those of another.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(String, MessageRequest)>) -> Result<()> {
    /// let run = client.batches().journal("reviews.journal").resubmit(2).run(requests)?;
    /// # Ok(()) }
    /// ```
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Batches<'a> {
        self.journal = Some(path.into());
        self
    }

    /// Creates a batch of requests, each with an id of yours by which to find its result: 1 to 64
    /// letters, digits, `_` and `-`. At most 100,000 requests and 256 MB;
    /// [`run`](Batches::run) splits what is larger.
    ///
    /// The requests may be owned or borrowed. They are taken one by one and kept as JSON only. The
    /// server looks at them later: what is wrong with one shows in its result.
    ///
    /// Blocks until the batch is created. Where a failure leaves open whether it was, the list of
    /// batches is looked through before anything is sent again: there is no second batch. If
    /// there is a new one of the same size, the error names it.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # fn ask(client: &Client) -> anthropic_blocking::Result<()> {
    /// let ask = |town: &str| {
    ///     MessageRequest::new("claude-haiku-4-5", 256).user(format!("One sentence about {town}."))
    /// };
    /// let batch = client.batches().create(["lima", "oslo"].map(|town| (town, ask(town))))?;
    /// println!("{}: {} requests", batch.id, batch.request_counts.total());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](ErrorKind::InvalidRequest), before anything is sent: no request or too
    /// many, an id that is malformed or there twice, a field that a batch does not take, such as
    /// `stream`. Else those of any call.
    pub fn create<K, R>(&self, entries: impl IntoIterator<Item = (K, R)>) -> Result<MessageBatch>
    where
        K: Into<String>,
        R: Borrow<MessageRequest>,
    {
        let mut body = Body::default();
        let mut ids = HashSet::new();
        for (custom_id, request) in entries {
            let custom_id = custom_id.into();
            check_id(&custom_id)?;
            if body.len() == MOST_REQUESTS {
                return Err(refused("a batch has at most 100,000 requests").with_advice(SPLIT));
            }
            if !body.push(&custom_id, request.borrow())? {
                let count = body.len();
                return Err(match count {
                    0 => too_large(&custom_id),
                    _ => {
                        let what =
                            format!("a batch has at most 256 MB, which {count} requests fill");
                        refused(what).with_advice(SPLIT)
                    }
                });
            }
            if let Some(twin) = ids.replace(custom_id) {
                return Err(twice(&twin));
            }
        }
        drop(ids);
        if body.len() == 0 {
            return Err(refused("a batch has at least one request"));
        }
        let count = body.len() as u64;
        let (batch, _) = self.send(body.finish(), count, None, &HashSet::new())?;
        Ok(batch)
    }

    /// How far a batch is. Does not wait for its end.
    ///
    /// ```
    /// # fn look(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// let batch = client.batches().get("msgbatch_01Example")?;
    /// println!("{}, until {:?}", batch.processing_status, batch.expires_at);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of any call, such as [`NotFound`](ErrorKind::NotFound).
    pub fn get(&self, id: &str) -> Result<MessageBatch> {
        self.ask("GET", &path_of("GET", PATH, id)?)
    }

    /// All batches of the key's workspace, the newest first. An iterator that asks for a page when
    /// it needs one.
    ///
    /// ```
    /// # fn running(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// for batch in client.batches().list().limit(100) {
    ///     let batch = batch?;
    ///     if !batch.is_ended() {
    ///         println!("{} goes on", batch.id);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn list(&self) -> Pages<'a, MessageBatch> {
        Pages::by_id(self.client, PATH)
    }

    /// Cancels a batch. It goes on until it has ended: what was begun may still be carried out.
    ///
    /// ```
    /// # fn end(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// client.batches().cancel("msgbatch_01Example")?;
    /// let batch = client.batches().wait("msgbatch_01Example")?;
    /// println!("{} were answered before", batch.request_counts.succeeded);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of any call.
    pub fn cancel(&self, id: &str) -> Result<MessageBatch> {
        let path = path_of("POST", PATH, id)?;
        self.ask("POST", &format!("{path}/cancel"))
    }

    /// Deletes a batch that has ended, with its results.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    ///
    /// /// Removes the results of all batches that have ended.
    /// fn tidy_up(client: &Client) -> Result<()> {
    ///     for batch in client.batches().list().limit(100) {
    ///         let batch = batch?;
    ///         if batch.is_ended() {
    ///             client.batches().delete(&batch.id)?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of any call; `InvalidRequest` for a batch that goes on: cancel it first.
    pub fn delete(&self, id: &str) -> Result<()> {
        let path = path_of("DELETE", PATH, id)?;
        let deleted = self
            .client
            .ask::<serde::de::IgnoredAny>("DELETE", &path, "JSON");
        match deleted {
            // It was deleted by an attempt whose answer got lost.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && error
                        .attempts()
                        .iter()
                        .any(|attempt| attempt.delivery == Delivery::Unknown) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// The results of a batch that has ended, in no order: an iterator that reads line by line, in
    /// flat memory. Asks for the batch first, to know how many results there must be.
    ///
    /// The key goes to the client's base URL only: even if the batch names another host for its
    /// results, they are asked for at the base URL.
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
    /// Kind [`InvalidRequest`](ErrorKind::InvalidRequest) when the batch goes on, and
    /// [`NotFound`](ErrorKind::NotFound) when its results are gone: 29 days after it was created.
    /// Else those of any call.
    pub fn results(&self, id: &str) -> Result<BatchResults> {
        let batch = self.get(id)?;
        let path = format!("{}/results", path_of("GET", PATH, id)?);
        if !batch.is_ended() {
            let what = format!("{} goes on, and has no results yet", sanitize(id, 100));
            return Err(
                Error::rejected(format!("GET {path}"), what).with_advice("wait for it first")
            );
        }
        let Some(url) = &batch.results_url else {
            let what = format!("{} has no results any more", sanitize(id, 100));
            let cause = Cause::Rejected(what.into());
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("GET {path}"),
                cause,
            ));
        };
        let path = self.below_base(url).map_or(path, str::to_owned);
        BatchResults::open(self.client, &batch, path)
    }

    /// Waits until a batch has ended.
    ///
    /// Looks at it at intervals that grow from 2 s to 60 s, or as the server suggests. A poll that
    /// fails is ignored, unless it shows that no later one can succeed, or the ten before it failed
    /// as well.
    ///
    /// Blocks up to 24 hours, or for the [`deadline`](Batches::deadline). The batch goes on
    /// whatever becomes of the program: another one can wait for it.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, Result};
    /// use std::time::Duration;
    ///
    /// # fn wait(client: &Client) -> Result<()> {
    /// let hour = Duration::from_secs(3600);
    /// match client.batches().deadline(hour).wait("msgbatch_01Example") {
    ///     Ok(batch) => println!("{} answers", batch.request_counts.succeeded),
    ///     Err(error) if error.kind() == ErrorKind::Timeout => println!("not yet"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Timeout`](ErrorKind::Timeout) at the deadline, [`Shutdown`](ErrorKind::Shutdown), or
    /// those of any call.
    pub fn wait(&self, id: &str) -> Result<MessageBatch> {
        self.wait_since(self.client.core().sleeper.clock().now(), id)
    }

    fn ask(&self, method: &'static str, path: &str) -> Result<MessageBatch> {
        let (mut batch, meta) = self.client.ask::<MessageBatch>(method, path, BATCH)?;
        batch.meta = meta;
        Ok(batch)
    }

    /// The path of a URL that is below the base URL.
    fn below_base<'u>(&self, url: &'u str) -> Option<&'u str> {
        let path = url.strip_prefix(self.client.core().base.as_str())?;
        let is_clean = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        (path.starts_with('/') && is_clean).then_some(path)
    }
}

impl fmt::Debug for Batches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("client", &self.client)
            .field("deadline", &self.deadline)
            .field("batch_size", &self.batch_size)
            .field("resubmit", &self.resubmit)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl BatchEntry {
    /// The custom id and the answer, as [bulk runs](crate::Bulk::run) give them; see
    /// [`into_message`](BatchEntry::into_message) for the errors.
    ///
    /// ```
    /// use anthropic_blocking::BatchEntry;
    ///
    /// let entry: BatchEntry =
    ///     serde_json::from_str(r#"{"custom_id":"lima","result":{"type":"canceled"}}"#)?;
    /// let (key, answer) = entry.into_parts();
    /// assert_eq!(key, "lima");
    /// assert_eq!(answer.unwrap_err().to_string(), "the request lima: canceled with its batch");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn into_parts(self) -> (String, Result<Message>) {
        (self.custom_id.clone(), self.into_message())
    }

    /// The answer; everything else as an error, such as the server's own.
    ///
    /// ```
    /// use anthropic_blocking::{BatchEntry, ErrorKind};
    ///
    /// let entry: BatchEntry =
    ///     serde_json::from_str(r#"{"custom_id":"lima","result":{"type":"expired"}}"#)?;
    /// let error = entry.into_message().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotRun);
    /// assert!(error.is_retryable());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](ErrorKind::InvalidRequest), [`Server`](ErrorKind::Server) and the like
    /// for a request that failed, [`NotRun`](ErrorKind::NotRun) for one that expired or was canceled,
    /// [`Decode`](ErrorKind::Decode) for a result of an unknown kind.
    pub fn into_message(self) -> Result<Message> {
        let retryable = self.result.is_retryable();
        let action = format!("the request {}", sanitize(&self.custom_id, 80));
        let other = |kind, what: &'static str| {
            Error::new(kind, action.clone(), Cause::Rejected(what.into()))
                .with_classification(retryable, None, None)
        };
        Err(match self.result {
            BatchResult::Succeeded(success) => return Ok(success.message),
            BatchResult::Errored(failure) => {
                let id = failure.error.request_id.as_deref().and_then(RequestId::new);
                let cause = Cause::Api {
                    status: None,
                    error: Box::new(failure.error.error),
                };
                let classification = classify(&FailureDetails {
                    cause: &cause,
                    delivery: Delivery::Responded,
                    repeatable: true,
                    retry_after: None,
                    should_retry: None,
                });
                Error::new(classification.kind, action, cause)
                    .with_classification(retryable, classification.advice, None)
                    .with_answer(id, RateLimits::default())
            }
            BatchResult::Canceled(_) => other(ErrorKind::NotRun, "canceled with its batch"),
            BatchResult::Expired(_) => other(ErrorKind::NotRun, "not carried out within 24 hours"),
            BatchResult::Other(_) => other(ErrorKind::Decode, "the result is of an unknown kind"),
        })
    }
}

const PATH: &str = "/v1/messages/batches";

/// What an answer is said not to be.
const BATCH: &str = "a batch";

const SPLIT: &str = "split it, or let `run` do so";
