//! An append-only file of records that survives if the process is killed: one JSON record a line, on
//! the disk before [`Journal::append`] returns.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Sleeper;
use crate::error::{Cause, Error, ErrorKind, Result, json_error, sanitize};
use crate::types::parse;

/// An open journal of records of one kind. The file is locked until the journal is dropped.
pub(crate) struct Journal<R> {
    file: File,
    path: PathBuf,
    /// Whether something was written that may not be on the disk yet.
    is_dirty: bool,
    /// Where a write began that failed. The next write first cuts the file there.
    torn_at: Option<u64>,
    records: PhantomData<fn(R)>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens a journal, or creates it, and returns it with its records. If the last line was being
    /// written when its writer was killed, that line is removed. Blocks for up to 200 ms while
    /// another handle holds the lock.
    ///
    /// # Errors
    ///
    /// Kind `Config` if the file cannot be opened, is in use by another run, is not a journal of this
    /// kind or contains a broken record; the file is then left as it is.
    pub(crate) fn open(path: &Path, kind: &str) -> Result<(Journal<R>, Vec<R>)> {
        let mut records = Vec::new();
        let each = |record, _| records.push(record);
        let journal = Journal::open_with(path, kind, ZeroedLines::Refuse, each)?;
        Ok((journal, records))
    }

    /// Like [`open`](Journal::open), but passes each record to `each`, with its place in the file, and
    /// skips lines that hold zeros. A crash of the machine can leave zeros wherever the file was not
    /// synced; this is for journals whose owner can do without some records.
    pub(crate) fn open_each(
        path: &Path,
        kind: &str,
        each: impl FnMut(R, RecordPosition),
    ) -> Result<Journal<R>> {
        Journal::open_with(path, kind, ZeroedLines::Skip, each)
    }

    fn open_with(
        path: &Path,
        kind: &str,
        zeros: ZeroedLines,
        each: impl FnMut(R, RecordPosition),
    ) -> Result<Journal<R>> {
        let failed = |source| io_failure(path, "cannot be opened", source);
        let file = options().open(path).map_err(failed)?;
        lock(&file, path)?;
        let mut journal = Journal {
            file,
            path: path.to_owned(),
            is_dirty: false,
            torn_at: None,
            records: PhantomData,
        };
        let header = to_line(&JournalHeader {
            journal: kind.into(),
            version: VERSION,
        })?;
        let header_length = header.len() as u64;
        let mut start = Vec::new();
        Read::take(&journal.file, header_length)
            .read_to_end(&mut start)
            .map_err(failed)?;
        if header.starts_with(&start) && start.len() < header.len() {
            // The file is new, or its writer was killed while it wrote the header.
            journal.torn_at = (!start.is_empty()).then_some(0);
            journal.write_header(&header)?;
        } else if start != header {
            let problem = format!("is not a journal of {kind} that this version can read");
            return Err(unusable_journal(path, &problem));
        } else {
            journal.read_records(header_length, zeros, each)?;
        }
        Ok(journal)
    }

    /// Writes a record, and returns when the record is on the disk.
    pub(crate) fn append(&mut self, record: &R) -> Result<()> {
        self.append_unsynced(record)?;
        self.sync()
    }

    /// Writes a record without waiting for the disk. The record survives if this process is killed;
    /// it survives a crash of the machine only after a [`sync`](Journal::sync).
    pub(crate) fn append_unsynced(&mut self, record: &impl Serialize) -> Result<()> {
        let line = to_line(record)?;
        self.is_dirty = true;
        self.write(&line)
            .map_err(|error| io_failure(&self.path, "cannot be written", error))
    }

    /// Waits until everything written is on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.is_dirty {
            let synced = self.file.sync_data();
            synced.map_err(|error| io_failure(&self.path, "cannot be written", error))?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Reads the record at a place that [`open_each`](Journal::open_each) has passed.
    pub(crate) fn read_at<T: DeserializeOwned>(&mut self, place: RecordPosition) -> Result<T> {
        let mut bytes = vec![0; place.length];
        let read = self
            .file
            .seek(SeekFrom::Start(place.start))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| io_failure(&self.path, "cannot be read", error))?;
        parse(&bytes).map_err(|error| unreadable(&self.path, None, &error))
    }

    fn write_header(&mut self, header: &[u8]) -> Result<()> {
        let written = self.write(header).and_then(|()| self.file.sync_data());
        written.map_err(|error| io_failure(&self.path, "cannot be written", error))?;
        // The name of a new file survives a crash of the machine only once its folder is synced. Some
        // systems cannot sync a folder, and some folders cannot be read: the journal works without.
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let is_current = folder.as_os_str().is_empty();
            let folder = if is_current { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(whole) = self.torn_at {
            self.file.set_len(whole)?;
            self.torn_at = None;
        }
        // Reads have moved the position; and where no lock keeps other runs away, the file may have
        // grown.
        let end = self.file.seek(SeekFrom::End(0))?;
        let written = self.file.write_all(line);
        written.inspect_err(|_| self.torn_at = Some(end))
    }

    /// Reads the records after the header, and removes a last line that is incomplete or holds zeros.
    fn read_records(
        &mut self,
        header_length: u64,
        zeros: ZeroedLines,
        mut each: impl FnMut(R, RecordPosition),
    ) -> Result<()> {
        let failed = |error| io_failure(&self.path, "cannot be read", error);
        let end = self.file.metadata().map_err(failed)?.len();
        let mut lines = BufReader::new(&self.file);
        let (mut start, mut number) = (header_length, 1);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let length = lines.read_until(b'\n', &mut bytes).map_err(failed)?;
            number += 1;
            if bytes.last() != Some(&b'\n') {
                break;
            }
            match parse(&bytes) {
                Ok(record) => each(record, RecordPosition { start, length }),
                // A crash of the machine can leave zeros at the end of a file.
                Err(_) if start + length as u64 == end && bytes.contains(&0) => break,
                Err(_) if zeros == ZeroedLines::Skip && bytes.contains(&0) => {}
                Err(error) => return Err(unreadable(&self.path, Some(number), &error)),
            }
            start += length as u64;
        }
        if start < end {
            let cut = self.file.set_len(start);
            let cut = cut.and_then(|()| self.file.sync_data());
            cut.map_err(|error| io_failure(&self.path, "cannot be repaired", error))?;
        }
        Ok(())
    }
}

impl<R> Journal<R> {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl<R> fmt::Debug for Journal<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The first line of a journal.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct JournalHeader<'a> {
    /// The kind of the records.
    journal: Cow<'a, str>,
    version: u32,
}

/// The version of the format, in the first line of the file.
const VERSION: u32 = 1;

/// What to do with a line that holds zeros and is not the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ZeroedLines {
    Refuse,
    Skip,
}

/// Where a record is in its file, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordPosition {
    start: u64,
    length: usize,
}

/// Returns how a journal is opened. All reads and writes go through the one handle that holds the
/// lock: Windows lets no other handle read a locked file.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true);
    // Windows does not shorten a file that is open for appending.
    #[cfg(windows)]
    options.write(true).truncate(false);
    // Two runs that nothing keeps apart do not overwrite each other's records.
    #[cfg(not(windows))]
    options.append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A journal may hold replies: only its owner may read it.
        options.mode(0o600);
    }
    options
}

/// Locks the file against all other handles, in this process and in others. The system releases the
/// lock when the file is closed or the process ends, however it ends.
///
/// Blocks for up to [`LOCK_RETRIES`] times [`LOCK_RETRY_INTERVAL`].
fn lock(file: &File, path: &Path) -> Result<()> {
    let mut retries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if retries < LOCK_RETRIES => {}
            Err(error) => return warn_or_fail(error, path),
        }
        retries += 1;
        let _ = Sleeper::default().sleep(LOCK_RETRY_INTERVAL);
    }
}

/// Returns the error for a journal that cannot be locked. A system or file system without locks is
/// none: it must not stop the work, so that a warning is logged instead.
fn warn_or_fail(error: TryLockError, path: &Path) -> Result<()> {
    match error {
        TryLockError::WouldBlock => Err(unusable_journal(path, "is in use by another run")),
        TryLockError::Error(error) if error.kind() == io::ErrorKind::Unsupported => {
            warn!(
                target: "anthropic_blocking",
                "the journal {} cannot be locked, because its file system has no locks; \
                 make sure that no other run uses it",
                display(path)
            );
            Ok(())
        }
        TryLockError::Error(error) => Err(io_failure(
            path,
            "cannot be locked; keep the journal on a local disk",
            error,
        )),
    }
}

/// How often locking a journal is retried; with [`LOCK_RETRY_INTERVAL`] for 200 ms.
///
/// A lock may outlive the process that held it by a moment: on Unix a child that the process was
/// just starting holds the open files of its parent until it runs its own program, and Windows takes
/// a moment to release the locks of a process that has ended.
const LOCK_RETRIES: u32 = 40;

/// The pause before locking a journal is retried.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Writes a record as one line of JSON.
fn to_line(record: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record).map_err(|error| {
        let cause = Cause::Unusable {
            what: "a record cannot be written as JSON".into(),
            source: json_error(&error),
        };
        Error::new(ErrorKind::Config, OPENING, cause)
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Returns the error for a journal that cannot be used for this run; `problem` continues a sentence
/// that begins with the path.
pub(crate) fn unusable_journal(path: &Path, problem: &str) -> Error {
    let what = format!("{} {problem}", display(path));
    Error::new(ErrorKind::Config, OPENING, Cause::Rejected(what.into()))
}

/// Returns the error for a record that cannot be parsed; lines count from 1.
fn unreadable(path: &Path, line: Option<usize>, error: &serde_json::Error) -> Error {
    let line = line.map_or("a line".to_owned(), |line| format!("line {line}"));
    let path = display(path);
    let cause = Cause::Unusable {
        what: format!("{line} of the journal {path} is not a record that this version can read")
            .into(),
        source: json_error(error),
    };
    Error::new(ErrorKind::Config, OPENING, cause)
}

fn io_failure(path: &Path, problem: &str, source: io::Error) -> Error {
    let cause = Cause::Unusable {
        what: format!("{} {problem}", display(path)).into(),
        source: Box::new(source),
    };
    Error::new(ErrorKind::Config, "keeping the journal", cause)
}

/// Returns a path without control characters, cut to 200 characters.
fn display(path: &Path) -> String {
    sanitize(&path.display().to_string(), 200)
}

/// The action that errors name.
const OPENING: &str = "opening the journal";

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::{env, fs};

    /// A path of its own for each test, removed at its end.
    struct TemporaryFile(PathBuf);

    impl TemporaryFile {
        fn new(name: &str) -> TemporaryFile {
            let name = format!("anthropic-blocking-{}-{name}", std::process::id());
            let file = TemporaryFile(std::env::temp_dir().join(name));
            let _ = fs::remove_file(&file.0);
            file
        }

        fn open(&self) -> Result<(Journal<String>, Vec<String>)> {
            Journal::open(&self.0, "words")
        }

        fn words(&self) -> Vec<String> {
            self.open().unwrap().1
        }
    }

    impl Drop for TemporaryFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn journal_cut_at_any_byte_keeps_whole_records() {
        let file = TemporaryFile::new("cut");
        let (mut journal, records) = file.open().unwrap();
        assert!(records.is_empty());
        for word in ["one", "two\n", "three"] {
            journal.append(&word.to_owned()).unwrap();
        }
        drop(journal);
        let whole = fs::read(&file.0).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&file.0, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            let (mut journal, records) = file.open().unwrap();
            assert_eq!(
                records,
                ["one", "two\n", "three"][..lines.saturating_sub(1)]
            );
            journal.append(&"more".to_owned()).unwrap();
            drop(journal);
            assert_eq!(file.words().last().unwrap(), "more");
        }
    }

    #[test]
    fn foreign_file_is_refused_and_left_as_it_is() {
        let file = TemporaryFile::new("foreign");
        for text in [
            "my data",
            "{}\n",
            "{\"journal\":\"bulk\",\"version\":1}\n",
            "\n",
        ] {
            fs::write(&file.0, text).unwrap();
            let error = file.open().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains("not a journal of words"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&file.0).unwrap(), text);
        }
    }

    #[test]
    fn broken_record_is_an_error_but_zeros_at_the_end_not() {
        let file = TemporaryFile::new("broken");
        let (mut journal, _) = file.open().unwrap();
        journal.append(&"one".to_owned()).unwrap();
        drop(journal);
        let whole = fs::read(&file.0).unwrap();
        fs::write(&file.0, [&whole[..], b"{}\n\"two\"\n"].concat()).unwrap();
        let error = file.open().unwrap_err().to_string();
        assert!(error.contains("line 3 of the journal"), "{error}");
        fs::write(&file.0, [&whole[..], &[0; 50], b"\n"].concat()).unwrap();
        assert_eq!(file.words(), ["one"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn child_being_started_does_not_hold_a_journal() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (file, is_over) = (TemporaryFile::new("child"), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = std::process::Command::new("true").status();
                }
            });
            let opened = (0..2_000).all(|_| file.open().is_ok());
            is_over.store(true, Ordering::Relaxed);
            assert!(opened);
        });
    }

    #[test]
    fn second_handle_in_one_process_is_refused() {
        let file = TemporaryFile::new("lock");
        let first = file.open().unwrap();
        let error = file.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().ends_with("is in use by another run"),
            "{error}"
        );
        drop(first);
        file.open().unwrap();
    }

    #[test]
    fn lock_of_another_process_ends_when_it_is_killed() {
        let file = TemporaryFile::new("process");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .env(CHILD_JOURNAL, &file.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("holds the journal")));
        let error = file.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.ends_with("is in use by another run"), "{text}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(file.words(), ["from the child"]);
    }

    #[test]
    #[ignore = "started by another test, in a process of its own"]
    fn child_that_holds_a_journal() {
        let Some(path) = env::var_os(CHILD_JOURNAL) else {
            return;
        };
        let (mut journal, _) = Journal::open(Path::new(&path), "words").unwrap();
        journal.append(&"from the child".to_owned()).unwrap();
        println!("\nthis child holds the journal");
        // Ends when the parent is gone.
        let _ = io::stdin().read(&mut [0]);
    }

    const CHILD: &str = "journal::tests::child_that_holds_a_journal";
    const CHILD_JOURNAL: &str = "ANTHROPIC_BLOCKING_TEST_JOURNAL";

    #[test]
    fn file_system_without_locks_does_not_stop_a_run() {
        let outcome = |kind: io::ErrorKind| {
            let error = TryLockError::Error(kind.into());
            warn_or_fail(error, Path::new("words.jsonl"))
        };
        assert!(outcome(io::ErrorKind::Unsupported).is_ok());
        let error = outcome(io::ErrorKind::PermissionDenied).unwrap_err();
        assert!(error.to_string().contains("cannot be locked"), "{error}");
    }
}
