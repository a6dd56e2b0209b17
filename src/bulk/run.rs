//! A run over a lazy iterator of requests, whose results come out in the order of completion.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cache_warmer::CacheWarmer;
use super::panic::panicked;
use super::progress::Progress;
use super::settings::BulkSettings;
use super::workers::Workers;
use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::Mutex;
use crate::error::{Cause, Error, Result};
use crate::journal::{Journal, Place};
use crate::types::{ErrorKind, Message, MessageRequest};

/// The results of a [bulk run](crate::Bulk::run), in the order of completion: each key of the input
/// once, with the message or the error. `next` blocks until there is a result.
///
/// Messages that an earlier run left in the [journal](crate::Bulk::journal) come in between, each
/// when its request is taken from the input.
///
/// Dropping a `BulkRun` stops the run: nothing more is sent, responses that are being streamed are
/// cut, and the threads end. The journal is closed, and can be opened again.
///
/// ```
/// use anthropic_blocking::{BulkRun, Result};
///
/// fn first_ten(run: BulkRun<u32>) -> Result<Vec<(u32, String)>> {
///     // Dropped after the tenth, it stops.
///     run.take(10).map(|(n, answer)| Ok((n, answer?.text()))).collect()
/// }
/// ```
#[must_use = "dropping the answers stops the run"]
pub struct BulkRun<K> {
    /// `None` after the end of all threads.
    answers: Option<Receiver<(K, Result<Message>)>>,
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
    replay: bool,
    cache_warmer: Option<CacheWarmer>,
}

/// A request with its key, and the key as text if there is a journal.
struct BulkItem<K> {
    key: K,
    name: Option<String>,
    request: MessageRequest,
}

/// The open journal, with the keys that it contains.
struct RunJournal {
    journal: Journal<JournalKey>,
    keys: HashMap<String, KeySeen>,
    synced: Instant,
}

/// Where a key was seen.
#[derive(Clone, Copy)]
enum KeySeen {
    /// In the journal of an earlier run, with its message at this place.
    Before(Place),
    /// In the input of this run.
    Now,
}

/// The key of a line of the journal.
#[derive(Serialize, Deserialize)]
struct JournalKey {
    key: String,
}

/// A line of the journal.
#[derive(Serialize)]
struct JournalLine<'a> {
    key: &'a str,
    message: &'a Message,
}

#[derive(Deserialize)]
struct JournalMessage {
    message: Message,
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
        let done = match &settings.journal {
            Some(path) => {
                let mut keys = HashMap::new();
                let journal = Journal::open_each(path, "bulk", |line: JournalKey, place| {
                    keys.insert(line.key, KeySeen::Before(place));
                })?;
                let synced = workers.client().core().sleeper.clock().now();
                Some(RunJournal {
                    journal,
                    keys,
                    synced,
                })
            }
            None => None,
        };
        let shared = Arc::new(RunState {
            workers: Arc::new(workers),
            input: Mutex::new(Some(input)),
            panic: Mutex::new(None),
            has_journal: done.is_some(),
            journal: Mutex::new(done),
            replay: settings.replay,
            cache_warmer: settings.warm_first.then(CacheWarmer::default),
        });
        let (sender, answers) = sync_channel(settings.concurrency.min(MAX_UNREAD_RESULTS));
        spawn_worker(&shared, 0, &sender).map_err(|source| {
            let cause = Cause::Unusable {
                what: "no thread can be started".into(),
                source: Box::new(source),
            };
            Error::new(ErrorKind::Config, "a bulk run", cause)
        })?;
        Ok(BulkRun {
            answers: Some(answers),
            shared,
            is_over: false,
        })
    }

    /// Returns the progress of the run.
    pub fn progress(&self) -> Progress {
        self.shared.workers.current_progress()
    }

    /// Stops the run: requests in flight are finished, the rest fails with the kind
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
    /// for (n, answer) in run.take_while(|(_, answer)| answer.is_ok()) {
    ///     println!("{n}: {}", answer?.text());
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn stopper(&self) -> impl Fn() + Clone + Send + Sync + use<K> {
        let workers = Arc::clone(&self.shared.workers);
        move || workers.stop(STOP_REQUESTED)
    }

    /// Returns why the run was stopped before its end, if it was stopped.
    pub fn stop_cause(&self) -> Option<String> {
        self.shared.workers.stop_reason()
    }
}

impl<K: ToString + Send + 'static> Iterator for BulkRun<K> {
    type Item = (K, Result<Message>);

    fn next(&mut self) -> Option<(K, Result<Message>)> {
        while let Some(answers) = &self.answers {
            match answers.recv_timeout(SYNC_INTERVAL) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) => self.shared.sync(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.answers = None;
                    self.shared.sync();
                }
            }
        }
        // The workers are gone: report the remaining items as not run.
        while let Some(item) = self.shared.next_item() {
            match self.shared.result_from_journal(&item) {
                None => return Some((item.key, Err(self.shared.workers.fail_not_run()))),
                Some(Some(result)) => return Some((item.key, result)),
                Some(None) => {}
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
        if self.answers.take().is_some() {
            self.shared.workers.stop("its answers were dropped");
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
    answers: &SyncSender<(K, Result<Message>)>,
) -> std::io::Result<()> {
    if number >= shared.workers.concurrency() {
        return Ok(());
    }
    let (shared, answers) = (Arc::clone(shared), answers.clone());
    let name = format!("bulk {number}");
    thread::Builder::new().name(name).spawn(move || {
        if number == 0 || shared.workers.wait_to_begin(number) {
            // If the system has no thread left, the existing workers do the work.
            let _ = spawn_worker(&shared, number + 1, &answers);
            shared.work(&answers);
        }
        // Dropped before the thread ends: after the last result the thread does nothing more.
        drop(shared);
        drop(answers);
    })?;
    Ok(())
}

impl<K: ToString + Send + 'static> RunState<K> {
    fn work(&self, answers: &SyncSender<(K, Result<Message>)>) {
        while !self.workers.is_ending() {
            let Some(item) = self.next_item() else {
                break;
            };
            let result = self
                .result_from_journal(&item)
                .unwrap_or_else(|| Some(self.send(&item)));
            if let Some(result) = result {
                if answers.send((item.key, result)).is_err() {
                    break;
                }
            }
        }
        self.workers.finish();
    }

    /// Returns the result of an item that need not be sent; `Some(None)` if the item is done and
    /// not handed out again.
    fn result_from_journal(&self, item: &BulkItem<K>) -> Option<Option<Result<Message>>> {
        match self.look_up(item.name.as_deref()?) {
            Ok(None) => None,
            Ok(Some(kept)) => {
                self.workers.count_skipped();
                Some(kept.map(Ok))
            }
            Err(error) => {
                self.workers.count_refused();
                Some(Some(Err(error)))
            }
        }
    }

    fn send(&self, item: &BulkItem<K>) -> Result<Message> {
        let request = &item.request;
        let at_stake = self.workers.begin_request(request)?;
        let client = self.workers.client();
        let create = || match &self.cache_warmer {
            Some(warmer) => warmer.create(client, request),
            None => client.messages().create(request),
        };
        // The caller's closures can panic: the budget's, and the logger's.
        let result = catch_unwind(AssertUnwindSafe(create)).unwrap_or_else(panicked);
        if let (Some(name), Ok(message)) = (&item.name, &result) {
            // The message is paid for: it is handed out although it cannot be kept, and the run
            // stops.
            if let Err(error) = self.append_to_journal(name, message) {
                self.workers.stop(&error.to_string());
            }
        }
        self.workers.end_request(result, at_stake, request)
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
            self.workers.stop("the iterator of the requests panicked");
            None
        });
        if next.is_none() {
            *input = None;
        }
        next
    }

    /// Looks up a key in the journal: `None` if the key is new, `Some(None)` if its message is not
    /// handed out again.
    fn look_up(&self, name: &str) -> Result<Option<Option<Message>>> {
        let mut done = lock(&self.journal);
        let Some(done) = &mut *done else {
            return Ok(None);
        };
        let place = match done.keys.insert(name.to_owned(), KeySeen::Now) {
            None => return Ok(None),
            Some(KeySeen::Before(place)) => place,
            Some(KeySeen::Now) => {
                let shown = crate::error::sanitize(name, 100);
                let what =
                    format!("the key {shown:?} comes twice, and the journal knows keys only");
                return Err(Error::rejected("a bulk run", what));
            }
        };
        if !self.replay {
            return Ok(Some(None));
        }
        let kept: JournalMessage = done.journal.read_at(place)?;
        Ok(Some(Some(kept.message)))
    }

    fn append_to_journal(&self, key: &str, message: &Message) -> Result<()> {
        let mut done = lock(&self.journal);
        let Some(done) = &mut *done else {
            return Ok(());
        };
        done.journal
            .append_unsynced(&JournalLine { key, message })?;
        let now = self.workers.client().core().sleeper.clock().now();
        if now.saturating_duration_since(done.synced) >= SYNC_INTERVAL {
            done.synced = now;
            done.journal.sync()?;
        }
        Ok(())
    }
}

impl<K> RunState<K> {
    /// Flushes the journal to the disk.
    fn sync(&self) {
        let done = &mut *lock(&self.journal);
        let synced = done.as_mut().map(|done| done.journal.sync());
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

/// The most results that wait to be taken; more block the workers.
const MAX_UNREAD_RESULTS: usize = 1024;

const STOP_REQUESTED: &str = "it was asked to";

/// Interval between flushes of the journal: a crash of the machine loses at most as much work.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
