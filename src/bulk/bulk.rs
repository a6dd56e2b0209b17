//! The public type: settings, `run` and `map`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::Duration;

use super::panic::panicked;
use super::progress::Progress;
use super::run::BulkRun;
use super::settings::BulkSettings;
use super::workers::Workers;
use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::Mutex;
use crate::error::{Cause, Error, Result};
use crate::prices::Prices;
use crate::types::{ErrorKind, MessageRequest};

impl Client {
    /// Returns a builder for many requests over worker threads.
    pub fn bulk(&self) -> Bulk<'_> {
        Bulk {
            client: self,
            settings: BulkSettings {
                concurrency: Bulk::DEFAULT_CONCURRENCY,
                ramp_up: Bulk::DEFAULT_RAMP_UP,
                journal: None,
                replay: true,
                warm_first: true,
                prices: Prices::published(),
                spend_limit: None,
                on_progress: None,
            },
        }
    }
}

/// The settings of a run of many requests over threads, as fast as the limits allow; see
/// [`Client::bulk`].
///
/// The threads wait in the client's [budget](Client::budget). A call waits for limits and overloads
/// as long as necessary, at most until its deadline; the client's `max_wait` does not apply. The
/// failure of a request does not end the run. A failure that affects all requests, such as a wrong
/// key or a spend limit, stops the run at once, and each request that was not sent fails with the
/// kind [`NotRun`](ErrorKind::NotRun).
///
/// Requests that can wait for a day cost half as much in [batches](Client::batches), whose
/// [`run`](crate::Batches::run) takes requests and keys like these.
///
/// ```no_run
/// use anthropic_blocking::{Client, MessageRequest};
///
/// let client = Client::from_env()?;
/// let requests = ["Lima", "Oslo", "Pune"].map(|town| {
///     let prompt = format!("One sentence about {town}.");
///     (town, MessageRequest::new("claude-haiku-4-5", 256).user(prompt))
/// });
/// for (town, result) in client.bulk().journal("towns.jsonl").run(requests)? {
///     match result {
///         Ok(message) => println!("{town}: {}", message.text()),
///         Err(error) => eprintln!("{town}: {error}"),
///     }
/// }
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is sent before run or map"]
pub struct Bulk<'a> {
    client: &'a Client,
    settings: BulkSettings,
}

impl<'a> Bulk<'a> {
    /// The maximum number of worker threads by default: 64. Few runs need all of them, see
    /// [`concurrency`](Bulk::concurrency).
    pub const DEFAULT_CONCURRENCY: usize = 64;

    /// The default time until all threads may work: a minute.
    pub const DEFAULT_RAMP_UP: Duration = Duration::from_secs(60);

    /// Sets the maximum number of requests at once, by default [64](Bulk::DEFAULT_CONCURRENCY); 0
    /// counts as 1. Each request in flight has a thread. A thread is added only while fewer than
    /// two requests wait in the budget for a class of models that the run uses: more threads would
    /// not send anything sooner.
    pub fn concurrency(mut self, requests: usize) -> Bulk<'a> {
        self.settings.concurrency = requests.max(1);
        self
    }

    /// Sets the ramp-up time. The API refuses use that grows too fast: four threads begin at once,
    /// their number doubles after every sixth of this time, and all threads have begun at its end;
    /// more than 256 threads double more often. The default is [a minute](Bulk::DEFAULT_RAMP_UP):
    /// the threads double every ten seconds, like the pace of the requests. After a run at full
    /// speed, the next run needs no ramp-up: set [`Duration::ZERO`].
    pub fn ramp_up(mut self, time: Duration) -> Bulk<'a> {
        self.settings.ramp_up = time;
        self
    }

    /// Keeps a journal of the messages in this file, so that a run can be killed and started again:
    /// [`run`](Bulk::run) sends no request whose key is in the journal, and returns the message
    /// from the file instead. Each message is a line of JSON with its key. Failures are not kept;
    /// the next run sends those requests again. A crash of the machine loses at most the messages
    /// of the last second, or more while the caller takes no results.
    ///
    /// A run locks the file while the file is open: a second run with this journal, in this
    /// process, another process or another container, is an error. On a file system without locks,
    /// such as some network file systems, the second run is not refused: a warning is logged, and
    /// you must make sure that no two runs use the file at once. On Windows, other programs cannot
    /// read the file while it is locked.
    ///
    /// The journal holds the messages in plain text. On Unix a new file is readable by its owner
    /// only (mode 600).
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Bulk<'a> {
        self.settings.journal = Some(path.into());
        self
    }

    /// Sets whether a run also returns the messages that are in the journal already, by default
    /// yes. A message is written to the journal before it is returned: without replay, messages
    /// that the program had not taken when it ended would never be returned. `false` is for
    /// programs that read the journal file directly.
    pub fn replay(mut self, replay: bool) -> Bulk<'a> {
        self.settings.replay = replay;
        self
    }

    /// Sets whether, of the requests that share a cached prefix, the first is sent alone and the
    /// others when its response begins, so that the others read the cache instead of writing it. By
    /// default yes; `false` saves the wait where the cache is warm already. The prefix is the
    /// model, the tools, the system prompt and the messages up to the first
    /// [`CacheControl`](crate::CacheControl) mark. Applies to [`run`](Bulk::run) only. The wait for
    /// the first request does not count towards the client's deadline.
    pub fn warm_first(mut self, warm: bool) -> Bulk<'a> {
        self.settings.warm_first = warm;
        self
    }

    /// Stops a [`run`](Bulk::run) before it could cost more than this, in dollars. A request is
    /// sent only if the limit has room for the highest possible cost of this request and of all
    /// requests in flight: a token for each byte, the largest size for each image, and
    /// `max_tokens`; twice as much in fast mode, and a tenth more with an `inference_geo`. A
    /// request of a model without a [price](Bulk::prices) stops the run.
    ///
    /// Failed attempts and streams that broke off count with the tokens that were reported; retries
    /// can exceed the limit by the tokens that were not. Costs that a request does not show can
    /// exceed the limit as well: searches and other server tools, and documents given by URL or
    /// file id, which count with some pages.
    ///
    /// The limit applies to this run only: the cost of earlier runs does not count, not even with
    /// this journal.
    ///
    /// A [`map`](Bulk::map) does not know the requests of its closure: once the limit is spent, at
    /// the prices without surcharges, no further item is begun.
    ///
    /// With a negative number or NaN, `run` fails with the kind [`Config`](ErrorKind::Config), and
    /// a `map` fails so for each item.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(u32, MessageRequest)>) -> Result<()> {
    /// let mut run = client.bulk().spend_limit(20.0).run(requests)?;
    /// let succeeded = run.by_ref().filter(|(_, result)| result.is_ok()).count();
    /// match run.stop_cause() {
    ///     Some(reason) => println!("stopped after {succeeded} messages: {reason}"),
    ///     None => println!("{succeeded} messages for {:?} dollars", run.progress().cost),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn spend_limit(mut self, dollars: f64) -> Bulk<'a> {
        self.settings.spend_limit = Some(dollars);
        self
    }

    /// Sets the prices, by default [`Prices::published`].
    pub fn prices(mut self, prices: Prices) -> Bulk<'a> {
        self.settings.prices = prices;
        self
    }

    /// Calls `report` when items are done, at most ten times a second, and at the end. The calls
    /// come on the threads of the run, one at a time, outside of any lock; the other threads
    /// continue meanwhile. The last call comes on the caller's thread: from
    /// [`next`](Iterator::next) when no result of a [`run`](Bulk::run) is left, or before a
    /// [`map`](Bulk::map) returns. A run that is dropped before its end makes no last call. After a
    /// panic of `report` there are no more calls.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// # fn ask(client: &Client) {
    /// let bulk = client.bulk().on_progress(|progress| {
    ///     let (total, remaining) = (progress.total, progress.remaining);
    ///     eprint!("\r{} of {total:?}, {remaining:?} left", progress.finished());
    /// });
    /// # }
    /// ```
    pub fn on_progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Bulk<'a> {
        self.settings.on_progress = Some(Arc::new(report));
        self
    }

    /// Calls a closure with each item on the worker threads, blocks until all items are done, and
    /// returns the results in the order of the items.
    ///
    /// The closure must send its requests with the client that it gets. A panic of the closure
    /// becomes the error of the item.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::from_env()?;
    /// let files = ["a.txt", "b.txt"];
    /// let summaries = client.bulk().map(files, |client, file| {
    ///     let text = std::fs::read_to_string(file).unwrap_or_default();
    ///     let request = MessageRequest::new("claude-haiku-4-5", 512)
    ///         .user(format!("Summarise in two sentences:\n\n{text}"));
    ///     Ok(client.messages().create(&request)?.text())
    /// });
    /// assert_eq!(summaries.len(), 2);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn map<T, R, F>(&self, items: impl IntoIterator<Item = T>, f: F) -> Vec<Result<R>>
    where
        T: Send,
        R: Send,
        F: Fn(&Client, T) -> Result<R> + Sync,
    {
        let items: Vec<T> = items.into_iter().collect();
        if self.settings_error().is_some() {
            return items
                .iter()
                .filter_map(|_| self.settings_error().map(Err))
                .collect();
        }
        let workers = self.workers(Some(items.len() as u64));
        let results = Mutex::new(Vec::with_capacity(items.len()));
        let items = Mutex::new(items.into_iter().enumerate());
        let work = || {
            loop {
                let Some((index, item)) = lock(&items).next() else {
                    break;
                };
                let result = match workers.begin() {
                    Ok(()) => {
                        let call = || f(workers.client(), item);
                        let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked);
                        workers.end_item(result)
                    }
                    Err(error) => Err(error),
                };
                lock(&results).push((index, result));
            }
            workers.finish();
        };
        thread::scope(|scope| {
            spawn_worker(scope, &workers, 1, &work);
            work();
        });
        workers.report(None);
        let mut results = results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Sends requests, each with a key of its own, and returns the results in the order of
    /// completion.
    ///
    /// A worker takes a request from the iterator when the worker is free, and the workers wait
    /// while results are not taken: memory use does not grow with the list, except for the keys if
    /// there is a journal. With a [journal](Bulk::journal), the text of the key tells whether a
    /// request is done already, and a second request with an equal key is an error.
    /// [`MessageRequest::fingerprint`] makes a key where there is none; equal requests have equal
    /// fingerprints, so remove duplicates first.
    ///
    /// Returns at once; `next` of the returned iterator blocks until there is a result. Dropping
    /// the iterator stops the run: nothing more is sent, and streams in flight are cut. A panic of
    /// the iterator of requests stops the run as well, and resumes in [`next`](Iterator::next)
    /// after the last result.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](ErrorKind::Config) if the journal cannot be used, if no thread can be
    /// started, or if the [`spend_limit`](Bulk::spend_limit) is negative or NaN.
    pub fn run<K, I>(&self, requests: I) -> Result<BulkRun<K>>
    where
        K: ToString + Send + 'static,
        I: IntoIterator<Item = (K, MessageRequest)>,
        I::IntoIter: Send + 'static,
    {
        if let Some(error) = self.settings_error() {
            return Err(error);
        }
        BulkRun::start(self.client, &self.settings, Box::new(requests.into_iter()))
    }

    pub(super) fn workers(&self, total: Option<u64>) -> Workers {
        Workers::new(self.client, &self.settings, total)
    }

    /// Returns the error of invalid settings.
    fn settings_error(&self) -> Option<Error> {
        let limit = self
            .settings
            .spend_limit
            .filter(|limit| limit.is_nan() || *limit < 0.0)?;
        let what = format!("a spend limit of {limit}: give an amount in dollars, of 0 or more");
        let cause = Cause::Rejected(what.into());
        Some(Error::new(ErrorKind::Config, "a bulk run", cause))
    }
}

/// Starts a worker thread, which starts the next one when it begins to work.
fn spawn_worker<'scope, 'env, F>(
    scope: &'scope Scope<'scope, 'env>,
    workers: &'scope Workers,
    number: usize,
    work: &'scope F,
) where
    F: Fn() + Sync,
{
    if number >= workers.concurrency() {
        return;
    }
    // If the system has no thread left, the existing workers do the work.
    let _ = thread::Builder::new().spawn_scoped(scope, move || {
        if workers.wait_to_begin(number) {
            spawn_worker(scope, workers, number + 1, work);
            work();
        }
    });
}

impl fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk")
            .field("concurrency", &self.settings.concurrency)
            .field("ramp_up", &self.settings.ramp_up)
            .field("journal", &self.settings.journal)
            .field("spend_limit", &self.settings.spend_limit)
            .finish_non_exhaustive()
    }
}
