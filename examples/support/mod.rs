//! Helpers of the examples: a client for the real API or the test server, arguments, log lines.

#![allow(dead_code, reason = "no example uses all of these helpers")]

use std::io;

use anthropic_blocking::testing::TestServer;
use anthropic_blocking::{Client, Result};

/// Returns a client for the real API where a key is set, or else for the test server that `start`
/// returns. The server runs until it is dropped.
pub fn client_or(
    start: impl FnOnce() -> io::Result<TestServer>,
) -> Result<(Client, Option<TestServer>)> {
    let set = |name| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    if set("ANTHROPIC_API_KEY") || set("ANTHROPIC_AUTH_TOKEN") {
        return Ok((Client::from_env()?, None));
    }
    eprintln!("No ANTHROPIC_API_KEY is set: a test server on this machine replies instead.\n");
    let server = start().expect("a free port on the loopback interface");
    let client = Client::builder()
        .api_key("test")
        .base_url(server.base_url())
        .build()?;
    Ok((client, Some(server)))
}

/// Returns the arguments of the program. `--help` prints the usage; any other option is an error.
pub fn arguments(usage: &str) -> Vec<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = format!("usage: {} {usage}", env!("CARGO_BIN_NAME"));
    match arguments.iter().find(|argument| argument.starts_with('-')) {
        None => arguments,
        Some(option) if matches!(option.as_str(), "-h" | "--help") => {
            println!("{usage}");
            std::process::exit(0);
        }
        Some(option) => {
            eprintln!("there is no option {option}\n{usage}");
            std::process::exit(2);
        }
    }
}

/// Prints the client's log lines: every retry, every wait.
pub fn log_to_stderr() {
    static LOGGER: Stderr = Stderr;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "anthropic_blocking"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!(
                "[{}] {}",
                record.level().as_str().to_lowercase(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}
