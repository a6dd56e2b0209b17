//! Tests that run in a child process, which can be killed, and files for their journals.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anthropic_blocking::Client;
use anthropic_blocking::testing::{ManualClock, TestServer};
use fastrand::Rng;

/// A command that runs one ignored test of this program, in a process of its own.
pub fn command(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored"]);
    command
}

/// Starts an ignored test of this program, which gets its client and its journal from [`as_child`].
pub fn child(test: &str, server: &TestServer, journal: &Path) -> Child {
    command(test)
        .arg("--nocapture")
        .env(URL, server.base_url())
        .env(JOURNAL, journal)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Returns the client and the journal of a child, or `None` in a process that is no child.
pub fn as_child() -> Option<(Client, PathBuf)> {
    let url = env::var(URL).ok()?;
    let journal = env::var_os(JOURNAL).expect("both are set");
    let client = Client::builder()
        .base_url(url)
        .api_key("test")
        .clock(&ManualClock::new())
        .build()
        .expect("valid settings");
    Some((client, journal.into()))
}

const URL: &str = "ANTHROPIC_BLOCKING_CHILD_URL";
const JOURNAL: &str = "ANTHROPIC_BLOCKING_CHILD_JOURNAL";

/// Cuts the last line of a journal at a random byte, as a crash during the write would.
pub fn cut_last_line(path: &Path, rng: &mut Rng) {
    let Ok(bytes) = fs::read(path) else { return };
    let before = bytes[..bytes.len().saturating_sub(1)]
        .iter()
        .rposition(|byte| *byte == b'\n');
    let start = before.map_or(0, |at| at + 1);
    fs::write(path, &bytes[..rng.usize(start..bytes.len().max(start + 1))]).expect("a journal");
}

/// The path of a temporary file, which is removed before and after the test.
pub struct TemporaryFile {
    pub path: PathBuf,
}

impl TemporaryFile {
    pub fn new(name: &str) -> TemporaryFile {
        let name = format!("anthropic-blocking-it-{}-{name}", std::process::id());
        let file = TemporaryFile {
            path: env::temp_dir().join(name),
        };
        let _ = fs::remove_file(&file.path);
        file
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
