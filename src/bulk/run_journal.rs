//! The journal of a run: which keys are done, and the messages of the keys that the run adds.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, sanitize};
use crate::journal::{Journal, RecordPosition};
use crate::types::Message;

/// The open journal of a run, with the keys that it contains.
pub(super) struct RunJournal {
    journal: Journal<JournalKey>,
    keys: HashMap<String, KeySeen>,
    /// Whether the messages of earlier runs are returned.
    replay: bool,
    synced: Instant,
}

/// What the journal says of an item.
pub(super) enum JournalCheck {
    /// The item must be sent.
    NotDone,
    /// The item is done, and has no result because replay is off.
    Done,
    /// The item is done; this is its message.
    Replay(Box<Message>),
    /// The item cannot be sent: its key is a duplicate, or the journal cannot be read.
    Failed(Error),
}

/// Where a key was seen.
#[derive(Clone, Copy)]
enum KeySeen {
    /// In the journal of an earlier run, with its message at this place.
    Before(RecordPosition),
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

/// The message of a line of the journal.
#[derive(Deserialize)]
struct JournalMessage {
    message: Message,
}

impl RunJournal {
    /// Opens and locks the file, and reads its keys.
    pub(super) fn open(path: &Path, replay: bool, now: Instant) -> Result<RunJournal> {
        let mut keys = HashMap::new();
        let journal = Journal::open_each(path, "bulk", |line: JournalKey, place| {
            keys.insert(line.key, KeySeen::Before(place));
        })?;
        Ok(RunJournal {
            journal,
            keys,
            replay,
            synced: now,
        })
    }

    /// Looks up a key, and notes that the run has taken it.
    pub(super) fn look_up(&mut self, key: &str) -> JournalCheck {
        let place = match self.keys.insert(key.to_owned(), KeySeen::Now) {
            None => return JournalCheck::NotDone,
            Some(KeySeen::Before(place)) => place,
            Some(KeySeen::Now) => {
                let shown = sanitize(key, MAX_SHOWN_KEY);
                let what = format!(
                    "the key {shown:?} occurs twice; with a journal, each request needs a key of \
                     its own"
                );
                return JournalCheck::Failed(Error::rejected("a bulk run", what));
            }
        };
        if !self.replay {
            return JournalCheck::Done;
        }
        match self.journal.read_at(place) {
            Ok(JournalMessage { message }) => JournalCheck::Replay(Box::new(message)),
            Err(error) => JournalCheck::Failed(error),
        }
    }

    /// Appends a message, and flushes the file to the disk once every [`SYNC_INTERVAL`].
    pub(super) fn append(&mut self, key: &str, message: &Message, now: Instant) -> Result<()> {
        self.journal
            .append_unsynced(&JournalLine { key, message })?;
        if now.saturating_duration_since(self.synced) >= SYNC_INTERVAL {
            self.synced = now;
            self.journal.sync()?;
        }
        Ok(())
    }

    /// Flushes the file to the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.journal.sync()
    }
}

/// Interval between flushes of the journal: a crash of the machine loses at most as much work.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How many characters of a key an error shows.
const MAX_SHOWN_KEY: usize = 100;
