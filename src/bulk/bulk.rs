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

/// Many requests over threads, as fast as the limits allow; see [`Client::bulk`].
///
/// The threads wait in the client's [budget](Client::budget). A call waits for limits and overloads
/// for as long as it takes, whatever the client's `max_wait` says; its deadline holds. One failure
/// never ends the run. A failure that affects all requests, such as a wrong key or a spend limit,
/// stops the run at once, and each request that was not sent fails with the kind
/// [`NotRun`](ErrorKind::NotRun).
///
/// Requests that can wait for a day cost half as [batches](Client::batches), whose
/// [`run`](crate::Batches::run) takes the same requests under the same keys.
///
/// ```no_run
/// use anthropic_blocking::{Client, MessageRequest};
///
/// let client = Client::from_env()?;
/// let requests = ["Lima", "Oslo", "Pune"].map(|town| {
///     let prompt = format!("One sentence about {town}.");
///     (town, MessageRequest::new("claude-haiku-4-5", 256).user(prompt))
/// });
/// for (town, answer) in client.bulk().journal("towns.jsonl").run(requests)? {
///     match answer {
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
    /// The most worker threads by default: 64. Few runs need all of them, see
    /// [`concurrency`](Bulk::concurrency).
    pub const DEFAULT_CONCURRENCY: usize = 64;

    /// How long it takes by default until all threads may work: a minute.
    pub const DEFAULT_RAMP_UP: Duration = Duration::from_secs(60);

    /// Sets the most requests at once, by default [64](Bulk::DEFAULT_CONCURRENCY); 0 counts as 1. Each
    /// has a thread. A thread is added only while fewer than two requests wait in the budget for a
    /// class of models that the run uses: more threads would not send anything sooner.
    pub fn concurrency(mut self, requests: usize) -> Bulk<'a> {
        self.settings.concurrency = requests.max(1);
        self
    }

    /// Sets the ramp-up time, because the API refuses use that grows too fast: four threads begin
    /// at once, their number doubles after every sixth of this time, and all have begun at its end;
    /// more than 256 threads double more often. The default is [a minute](Bulk::DEFAULT_RAMP_UP):
    /// the threads double every ten seconds, like the pace of the requests.
    pub fn ramp_up(mut self, time: Duration) -> Bulk<'a> {
        self.settings.ramp_up = time;
        self
    }

    /// Keeps a journal of the messages in this file, so that a run can be killed and started again:
    /// [`run`](Bulk::run) then sends no request whose key is in the journal, and hands out its
    /// message from the file in its turn. Each message is one line of JSON with its key; failures
    /// are not kept, and are sent again. At most the messages of the last second are not on the
    /// disk yet, or more while the caller takes no results.
    ///
    /// The file belongs to one run at a time. While a run has it open, it is locked: a second run with
    /// the same journal, in this process, another process or another container, is an error. A file
    /// system without locks, such as some network file systems, cannot refuse the second run: a
    /// warning is logged, and you must see to it that no two runs send the same requests and write to
    /// the same file. On Windows, other programs cannot read the file while it is locked.
    ///
    /// The journal holds the messages in plain text. On Unix a new file is readable by its owner
    /// only (mode 600).
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Bulk<'a> {
        self.settings.journal = Some(path.into());
        self
    }

    /// Sets whether messages from the journal are handed out in their turn like new ones, by
    /// default yes. A message is in the journal before it is handed out: without replay, no run
    /// would hand out the messages that the program had not taken when it ended. `false` is for
    /// programs that read the journal themselves.
    pub fn replay(mut self, replay: bool) -> Bulk<'a> {
        self.settings.replay = replay;
        self
    }

    /// Sets whether one of the requests that share a cached prefix is sent first, and the others
    /// when its response begins, so that they read the cache instead of writing it. By default yes.
    /// Follows the marks of [`CacheControl`](crate::CacheControl): model, tools, system prompt and
    /// messages up to the first mark. Applies to [`run`](Bulk::run) only. The wait for the first
    /// request does not count towards the client's deadline.
    pub fn warm_first(mut self, warm: bool) -> Bulk<'a> {
        self.settings.warm_first = warm;
        self
    }

    /// Stops a [`run`](Bulk::run) before it could cost more than this, in dollars: a request is sent
    /// only if there is room for the most that it and those under way can cost: a token for each
    /// byte, an image of the largest size for each image, and `max_tokens`; twice as much in fast
    /// mode, and a tenth more with an `inference_geo`. Counts attempts that failed and answers that
    /// broke off, as far as their tokens were seen; that such a request is sent again can exceed the
    /// limit by as much. So can what no request says: searches and other tools of the server, and
    /// documents by address or id, which count as some pages. Requests of models without a
    /// [price](Bulk::prices) stop the run.
    ///
    /// The limit applies to one run of this process: the cost of earlier runs, also with the same
    /// journal, does not count.
    ///
    /// A [`map`](Bulk::map) does not know the requests of its closure: it begins no item once the
    /// limit is spent, at the usual prices.
    ///
    /// A negative number or NaN is an error of kind [`Config`](ErrorKind::Config): of `run` itself,
    /// and of each item of a `map`.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, requests: Vec<(u32, MessageRequest)>) -> Result<()> {
    /// let mut run = client.bulk().spend_limit(20.0).run(requests)?;
    /// let answered = run.by_ref().filter(|(_, answer)| answer.is_ok()).count();
    /// match run.stop_cause() {
    ///     Some(reason) => println!("{answered} answers, then: {reason}"),
    ///     None => println!("all of them, for {:?} dollars", run.progress().cost),
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

    /// Calls `report` when items are done, at most ten times a second, and at the end. It is called
    /// on a thread of the run, one call at a time, outside of any lock; the other threads go on
    /// meanwhile. The last report comes on the thread of the caller: where the answers of a
    /// [`run`](Bulk::run) are taken, when there is none left, or before a [`map`](Bulk::map)
    /// returns. A run that is dropped before its end has no last report. If `report` panics, it is
    /// not called again.
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

    /// Calls a closure with each item on the worker threads, and blocks until all items are done.
    /// Returns the results in the order of the items.
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

    /// Sends requests, each under its own key, and hands out the results in the order of
    /// completion.
    ///
    /// A request is taken from the iterator when a worker is free, and the workers wait when
    /// results are not taken: memory use does not grow with the list, except for the keys if there
    /// is a journal. With a [journal](Bulk::journal), the text of the key tells whether a request
    /// is done already; a second request with the same key is an error.
    /// [`MessageRequest::fingerprint`] makes a key where there is none; equal requests have equal
    /// ones, so that all but one must be removed before.
    ///
    /// Returns at once; `next` of the returned iterator blocks until there is a result. Dropping
    /// the iterator stops the run: nothing more is sent, and responses that are being streamed are
    /// cut. A panic of the iterator of requests stops the run as well, and resumes in
    /// [`next`](Iterator::next) after the last result.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](ErrorKind::Config) when the journal cannot be used, no thread be started, or the
    /// [`spend_limit`](Bulk::spend_limit) is no amount.
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
