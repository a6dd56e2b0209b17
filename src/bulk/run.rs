//! A run over requests that come lazily, with answers that go out as they come.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Bulk;
use super::crew::Crew;
use super::progress::Progress;
use super::warm::Warmth;
use crate::clock::lock;
use crate::error::{Cause, Error, Result};
use crate::journal::{Journal, Place};
use crate::types::{ErrorKind, Message, MessageRequest};

/// The answers of a [bulk run](Bulk::run), as they come: each key of the input once, with the
/// answer or the error. `next` blocks until there is one.
///
/// Dropping it stops the run: nothing more is sent, answers that are being streamed are cut, and
/// the threads end by themselves.
pub struct BulkRun<K> {
    /// `None` once all threads are gone.
    answers: Option<Receiver<(K, Result<Message>)>>,
    shared: Arc<Shared<K>>,
}

type Input<K> = Box<dyn Iterator<Item = (K, MessageRequest)> + Send>;

struct Shared<K> {
    crew: Crew,
    input: Mutex<Option<Input<K>>>,
    done: Option<Mutex<Done>>,
    replay: bool,
    warmth: Option<Warmth>,
}

/// What is done, by the journal and since.
struct Done {
    journal: Journal<Key>,
    /// Where the answers of earlier runs are in it.
    before: HashMap<String, Place>,
    keys: HashSet<String>,
    synced: Instant,
}

/// A line of the journal, as far as it is needed to pass over what is done.
#[derive(Serialize, Deserialize)]
struct Key {
    key: String,
}

/// A line of the journal.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    message: &'a Message,
}

#[derive(Deserialize)]
struct Kept {
    message: Message,
}

impl<K: ToString + Send + 'static> BulkRun<K> {
    pub(super) fn start(bulk: &Bulk<'_>, input: Input<K>) -> Result<BulkRun<K>> {
        let total = match input.size_hint() {
            (least, Some(most)) if least == most => Some(most as u64),
            _ => None,
        };
        let crew = Crew::new(bulk, total);
        let done = match &bulk.journal {
            Some(path) => {
                let mut before = HashMap::new();
                let journal = Journal::open_each(path, "bulk", |line: Key, place| {
                    before.insert(line.key, place);
                })?;
                let synced = crew.client().core().sleeper.clock().now();
                Some(Mutex::new(Done {
                    journal,
                    before,
                    keys: HashSet::new(),
                    synced,
                }))
            }
            None => None,
        };
        let shared = Arc::new(Shared {
            crew,
            input: Mutex::new(Some(input)),
            done,
            replay: bulk.replay,
            warmth: bulk.warm_first.then(Warmth::default),
        });
        let (sender, answers) = sync_channel(bulk.concurrency);
        recruit(&shared, 0, &sender).map_err(|source| {
            let cause = Cause::Unusable {
                what: "no thread can be started".into(),
                source: Box::new(source),
            };
            Error::new(ErrorKind::Config, "a bulk run", cause)
        })?;
        Ok(BulkRun {
            answers: Some(answers),
            shared,
        })
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        self.shared.crew.now()
    }

    /// Stops the run: what is under way is finished, the rest fails with the kind
    /// [`NotRun`](ErrorKind::NotRun). The answers can still be taken.
    pub fn stop(&self) {
        self.shared.crew.stop("it was asked to");
    }

    /// Why the run was stopped before its end, if it was.
    pub fn stopped(&self) -> Option<String> {
        self.shared.crew.reason()
    }
}

impl<K: ToString + Send + 'static> Iterator for BulkRun<K> {
    type Item = (K, Result<Message>);

    fn next(&mut self) -> Option<(K, Result<Message>)> {
        while let Some(answers) = &self.answers {
            match answers.recv_timeout(SYNC) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) => self.shared.sync(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.answers = None;
                    self.shared.sync();
                }
            }
        }
        // The threads are gone. What is left was not come to.
        while let Some((key, _)) = self.shared.pull() {
            if !self.shared.is_done(&key.to_string()) {
                return Some((key, Err(self.shared.crew.pass_over())));
            }
            self.shared.crew.skip();
        }
        None
    }
}

impl<K> Drop for BulkRun<K> {
    fn drop(&mut self) {
        if self.answers.take().is_some() {
            self.shared.crew.stop("its answers were dropped");
            self.shared.crew.cut();
            self.shared.sync();
        }
    }
}

impl<K> fmt::Debug for BulkRun<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkRun")
            .field("stopped", &self.shared.crew.reason())
            .finish_non_exhaustive()
    }
}

/// Starts a thread that starts the next one when it begins to work.
fn recruit<K: ToString + Send + 'static>(
    shared: &Arc<Shared<K>>,
    number: usize,
    answers: &SyncSender<(K, Result<Message>)>,
) -> std::io::Result<()> {
    if number >= shared.crew.concurrency() {
        return Ok(());
    }
    let (shared, answers) = (Arc::clone(shared), answers.clone());
    let name = format!("bulk {number}");
    thread::Builder::new().name(name).spawn(move || {
        if number == 0 || shared.crew.may_begin(number) {
            // Where the system has no thread left, those that there are do the work.
            let _ = recruit(&shared, number + 1, &answers);
            shared.work(&answers);
        }
    })?;
    Ok(())
}

impl<K: ToString + Send + 'static> Shared<K> {
    fn work(&self, answers: &SyncSender<(K, Result<Message>)>) {
        while !self.crew.is_ending() {
            let Some((key, request)) = self.pull() else {
                break;
            };
            if let Some(result) = self.answer(&key, &request) {
                if answers.send((key, result)).is_err() {
                    break;
                }
            }
        }
        self.crew.finish();
    }

    /// The answer to a request; `None` if it was handed out by an earlier run.
    fn answer(&self, key: &K, request: &MessageRequest) -> Option<Result<Message>> {
        let name = self.done.as_ref().map(|_| key.to_string());
        if let Some(name) = &name {
            match self.before(name) {
                Ok(None) => {}
                Ok(Some(kept)) => {
                    self.crew.skip();
                    return self.replay.then_some(kept).flatten().map(Ok);
                }
                Err(error) => {
                    self.crew.refuse();
                    return Some(Err(error));
                }
            }
        }
        let at_stake = match self.crew.begin_request(request) {
            Ok(at_stake) => at_stake,
            Err(error) => return Some(Err(error)),
        };
        let client = self.crew.client();
        let result = match &self.warmth {
            Some(warmth) => warmth.create(client, request),
            None => client.messages().create(request),
        };
        if let (Some(name), Ok(message)) = (&name, &result) {
            // The answer is there and paid for: it goes out, and no other is asked for.
            if let Err(error) = self.keep(name, message) {
                self.crew.stop(&error.to_string());
            }
        }
        Some(self.crew.end_request(result, at_stake, request))
    }

    /// Takes the next request. An iterator that panics has none any more.
    fn pull(&self) -> Option<(K, MessageRequest)> {
        let mut input = lock(&self.input);
        let next = catch_unwind(AssertUnwindSafe(|| input.as_mut()?.next()));
        let next = next.unwrap_or_else(|_| {
            self.crew.stop("the iterator of the requests panicked");
            None
        });
        if next.is_none() {
            *input = None;
        }
        next
    }

    /// Whether the journal has an answer to this key, and which, if it is to be handed out again.
    fn before(&self, name: &str) -> Result<Option<Option<Message>>> {
        let Some(done) = &self.done else {
            return Ok(None);
        };
        let mut done = lock(done);
        if !done.keys.insert(name.to_owned()) {
            let shown = crate::error::clean(name, 100);
            let what = format!("the key {shown:?} comes twice, and the journal knows keys only");
            return Err(Error::refused("a bulk run", what));
        }
        let Some(place) = done.before.get(name).copied() else {
            return Ok(None);
        };
        if !self.replay {
            return Ok(Some(None));
        }
        let kept: Kept = done.journal.read_at(place)?;
        Ok(Some(Some(kept.message)))
    }

    fn is_done(&self, name: &str) -> bool {
        let done = self.done.as_ref().map(|done| lock(done));
        done.is_some_and(|done| done.before.contains_key(name))
    }

    fn keep(&self, key: &str, message: &Message) -> Result<()> {
        let Some(done) = &self.done else {
            return Ok(());
        };
        let mut done = lock(done);
        done.journal.append_unsynced(&Line { key, message })?;
        let now = self.crew.client().core().sleeper.clock().now();
        if now.saturating_duration_since(done.synced) >= SYNC {
            done.synced = now;
            done.journal.sync()?;
        }
        Ok(())
    }
}

impl<K> Shared<K> {
    /// Puts what was written on the disk. That it failed is said by the next line.
    fn sync(&self) {
        if let Some(done) = &self.done {
            let _ = lock(done).journal.sync();
        }
    }
}

/// How much work a crash of the machine may undo.
const SYNC: Duration = Duration::from_secs(1);
