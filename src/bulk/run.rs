//! A run over a lazy iterator of requests; its results are in the order of completion.

use std::any::Any;
use std::fmt;
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use super::cache_warmer::CacheWarmer;
use super::panic::panicked;
use super::progress::Progress;
use super::run_journal::{JournalCheck, RunJournal, SYNC_INTERVAL};
use super::settings::BulkSettings;
use super::workers::Workers;
use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::Mutex;
use crate::error::{Cause, Error, Result};
use crate::types::{ErrorKind, Message, MessageRequest};

/// The results of a [bulk run](crate::Bulk::run), in the order of completion: each key of the input
/// once, with the message or the error. `next` blocks until there is a result.
///
/// A message that an earlier run left in the [journal](crate::Bulk::journal) is returned when its
/// request is taken from the input.
///
/// Dropping a `BulkRun` stops the run: nothing more is sent, streams in flight are cut, and the
/// threads end. The journal is closed, and can be opened again.
///
/// ```
/// use anthropic_blocking::{BulkRun, Result};
///
/// fn first_ten(run: BulkRun<u32>) -> Result<Vec<(u32, String)>> {
///     // The run is dropped after the tenth result, and stops.
///     run.take(10).map(|(n, result)| Ok((n, result?.text()))).collect()
/// }
/// ```
#[must_use = "dropping a BulkRun stops the run"]
pub struct BulkRun<K> {
    /// `None` after the end of all threads.
    results: Option<Receiver<(K, Result<Message>)>>,
    shared: Arc<RunState<K>>,
    is_over: bool,
}

type RequestSource<K> = Box<dyn Iterator<Item = (K, MessageRequest)> + Send>;

struct RunState<K> {
    workers: Arc<Workers>,
    input: Mutex<Option<RequestSource<K>>>,
    /// The panic of the iterator of requests.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    has_journal: bool,
    /// `None` without a journal, and after the journal is closed.
    journal: Mutex<Option<RunJournal>>,
    cache_warmer: Option<CacheWarmer>,
}

/// A request with its key, and the key as text if there is a journal.
struct BulkItem<K> {
    key: K,
    name: Option<String>,
    request: MessageRequest,
}

impl<K: ToString + Send + 'static> BulkRun<K> {
    pub(super) fn start(
        client: &Client,
        settings: &BulkSettings,
        input: RequestSource<K>,
    ) -> Result<BulkRun<K>> {
        let total = match input.size_hint() {
            (least, Some(most)) if least == most => Some(most as u64),
            _ => None,
        };
        let workers = Workers::new(client, settings, total);
        let now = workers.client().core().sleeper.clock().now();
        let open = |path: &PathBuf| RunJournal::open(path, settings.replay, now);
        let journal = settings.journal.as_ref().map(open).transpose()?;
        let shared = Arc::new(RunState {
            workers: Arc::new(workers),
            input: Mutex::new(Some(input)),
            panic: Mutex::new(None),
            has_journal: journal.is_some(),
            journal: Mutex::new(journal),
            cache_warmer: settings.warm_first.then(CacheWarmer::default),
        });
        let (sender, results) = sync_channel(settings.concurrency.min(MAX_UNREAD_RESULTS));
        spawn_worker(&shared, 0, &sender).map_err(|source| {
            let cause = Cause::Unusable {
                what: "no thread can be started".into(),
                source: Box::new(source),
            };
            Error::new(ErrorKind::Config, "a bulk run", cause)
        })?;
        Ok(BulkRun {
            results: Some(results),
            shared,
            is_over: false,
        })
    }

    /// Returns the progress of the run.
    pub fn progress(&self) -> Progress {
        self.shared.workers.current_progress()
    }

    /// Stops the run: requests in flight are finished, the other requests fail with the kind
    /// [`NotRun`](ErrorKind::NotRun). The results can still be taken.
    pub fn stop(&self) {
        self.shared.workers.stop(STOP_REQUESTED);
    }

    /// Returns a function that stops the run like [`stop`](BulkRun::stop), for other threads and
    /// signal handlers.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::from_env()?;
    /// let primes = (0..).map(|n| {
    ///     let prompt = format!("Is {n} a prime?");
    ///     (n, MessageRequest::new("claude-haiku-4-5", 64).user(prompt))
    /// });
    /// let run = client.bulk().run(primes)?;
    /// let stop = run.stopper();
    /// std::thread::spawn(move || {
    ///     let _ = std::io::stdin().read_line(&mut String::new());
    ///     stop();
    /// });
    /// for (n, result) in run.take_while(|(_, result)| result.is_ok()) {
    ///     println!("{n}: {}", result?.text());
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn stopper(&self) -> impl Fn() + Clone + Send + Sync + use<K> {
        let workers = Arc::clone(&self.shared.workers);
        move || workers.stop(STOP_REQUESTED)
    }

    /// Returns why the run was stopped before its end; `None` if it was not stopped.
    pub fn stop_cause(&self) -> Option<String> {
        self.shared.workers.stop_reason()
    }
}

impl<K: ToString + Send + 'static> Iterator for BulkRun<K> {
    type Item = (K, Result<Message>);

    fn next(&mut self) -> Option<(K, Result<Message>)> {
        while let Some(results) = &self.results {
            match results.recv_timeout(SYNC_INTERVAL) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) => self.shared.sync(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.results = None;
                    self.shared.sync();
                }
            }
        }
        // The workers are gone: report the remaining items as not run.
        while let Some(item) = self.shared.next_item() {
            match self.shared.check_journal(&item) {
                JournalCheck::NotDone => {
                    return Some((item.key, Err(self.shared.workers.fail_not_run())));
                }
                JournalCheck::Done => {}
                JournalCheck::Replay(message) => return Some((item.key, Ok(*message))),
                JournalCheck::Failed(error) => return Some((item.key, Err(error))),
            }
        }
        if !self.is_over {
            self.is_over = true;
            self.shared.close();
            self.shared.workers.report(None);
        }
        let panic = lock(&self.shared.panic).take();
        panic.map(|panic| resume_unwind(panic))
    }
}

impl<K: ToString + Send + 'static> FusedIterator for BulkRun<K> {}

impl<K> Drop for BulkRun<K> {
    fn drop(&mut self) {
        if self.results.take().is_some() {
            self.shared.workers.stop("the BulkRun was dropped");
            self.shared.workers.abort();
        }
        self.shared.close();
    }
}

impl<K> fmt::Debug for BulkRun<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkRun")
            .field("stop_cause", &self.shared.workers.stop_reason())
            .finish_non_exhaustive()
    }
}

/// Starts a worker thread, which starts the next one when it begins to work.
fn spawn_worker<K: ToString + Send + 'static>(
    shared: &Arc<RunState<K>>,
    number: usize,
    results: &SyncSender<(K, Result<Message>)>,
) -> std::io::Result<()> {
    if number >= shared.workers.concurrency() {
        return Ok(());
    }
    let (shared, results) = (Arc::clone(shared), results.clone());
    let name = format!("bulk {number}");
    thread::Builder::new().name(name).spawn(move || {
        if number == 0 || shared.workers.wait_to_begin(number) {
            // If the system has no thread left, the existing workers do the work.
            let _ = spawn_worker(&shared, number + 1, &results);
            shared.work(&results);
        }
        // Dropped before the thread ends: after the last result the thread does nothing more.
        drop(shared);
        drop(results);
    })?;
    Ok(())
}

impl<K: ToString + Send + 'static> RunState<K> {
    fn work(&self, results: &SyncSender<(K, Result<Message>)>) {
        while !self.workers.is_ending() {
            let Some(item) = self.next_item() else {
                break;
            };
            let result = match self.check_journal(&item) {
                JournalCheck::NotDone => self.send(&item),
                JournalCheck::Done => continue,
                JournalCheck::Replay(message) => Ok(*message),
                JournalCheck::Failed(error) => Err(error),
            };
            if results.send((item.key, result)).is_err() {
                break;
            }
        }
        self.workers.finish();
    }

    /// Looks up an item in the journal, and counts it if it need not be sent.
    fn check_journal(&self, item: &BulkItem<K>) -> JournalCheck {
        let Some(name) = item.name.as_deref() else {
            return JournalCheck::NotDone;
        };
        // The lock is given up before the count, which can call `on_progress`.
        let check = match &mut *lock(&self.journal) {
            Some(journal) => journal.look_up(name),
            None => JournalCheck::NotDone,
        };
        match &check {
            JournalCheck::NotDone => {}
            JournalCheck::Done | JournalCheck::Replay(_) => self.workers.count_skipped(),
            JournalCheck::Failed(_) => self.workers.count_refused(),
        }
        check
    }

    fn send(&self, item: &BulkItem<K>) -> Result<Message> {
        let request = &item.request;
        let reserved_dollars = self.workers.begin_request(request)?;
        let client = self.workers.client();
        let create = || match &self.cache_warmer {
            Some(warmer) => warmer.create(client, request),
            None => client.messages().create(request),
        };
        // The caller's closures can panic: the budget's, and the logger's.
        let result = catch_unwind(AssertUnwindSafe(create)).unwrap_or_else(panicked);
        if let (Some(name), Ok(message)) = (&item.name, &result) {
            // The message is paid for: it is returned even if it cannot be written, and the run
            // stops.
            if let Err(error) = self.append_to_journal(name, message) {
                self.workers.stop(&error.to_string());
            }
        }
        self.workers.end_request(result, reserved_dollars, request)
    }

    /// Takes the next request. An iterator that panicked has no more requests.
    fn next_item(&self) -> Option<BulkItem<K>> {
        let mut input = lock(&self.input);
        let next = || {
            let (key, request) = input.as_mut()?.next()?;
            let name = self.has_journal.then(|| key.to_string());
            Some(BulkItem { key, name, request })
        };
        let next = catch_unwind(AssertUnwindSafe(next)).unwrap_or_else(|panic| {
            *lock(&self.panic) = Some(panic);
            self.workers.stop("the iterator of requests panicked");
            None
        });
        if next.is_none() {
            *input = None;
        }
        next
    }

    fn append_to_journal(&self, key: &str, message: &Message) -> Result<()> {
        let mut journal = lock(&self.journal);
        let Some(journal) = &mut *journal else {
            return Ok(());
        };
        let now = self.workers.client().core().sleeper.clock().now();
        journal.append(key, message, now)
    }
}

impl<K> RunState<K> {
    /// Flushes the journal to the disk.
    fn sync(&self) {
        let journal = &mut *lock(&self.journal);
        let synced = journal.as_mut().map(RunJournal::sync);
        if let Some(Err(error)) = synced {
            self.workers.stop(&error.to_string());
        }
    }

    /// Closes the journal, so that other runs can open it.
    fn close(&self) {
        self.sync();
        *lock(&self.journal) = None;
    }
}

/// The maximum number of results that wait to be taken; then the workers block.
const MAX_UNREAD_RESULTS: usize = 1024;

const STOP_REQUESTED: &str = "stop() was called";
