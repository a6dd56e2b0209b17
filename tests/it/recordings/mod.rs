//! Recordings of the real API, not written for this project: exchanges, headers, streams, and what
//! the official clients make of them. They are no part of the crate; `ANTHROPIC_RECORDINGS` names
//! their folder:
//!
//! ```sh
//! ANTHROPIC_RECORDINGS=/its/folder cargo test -- --ignored record
//! ```

mod client_cases;
mod exchanges;
mod failures;
mod retry_after;
mod statuses;
mod streams;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anthropic_blocking::testing::{ManualClock, RecordedRequest, Reply, StreamScript, TestServer};
use anthropic_blocking::{
    Client, ClientBuilder, ContentBlock, Delivery, Error, ErrorKind, Message, MessageRequest,
    Options, RateLimit, RateLimits, RetryPolicy, StopReason,
};
use fastrand::Rng;
use serde_json::{Value, json};

/// A server, and the clock of its clients.
struct Stage {
    server: TestServer,
    clock: ManualClock,
}

impl Stage {
    /// Sets the clock to the time that `retry_cases.json` assumes.
    fn new() -> Stage {
        Stage::at(CLOCK)
    }

    fn at(unix: u64) -> Stage {
        Stage {
            server: TestServer::start().expect("a server"),
            clock: ManualClock::showing(UNIX_EPOCH + Duration::from_secs(unix)),
        }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .api_key("sk-test")
            .base_url(self.server.base_url())
            .clock(&self.clock)
            .seed(1)
    }

    /// Makes one call with this policy.
    fn ask_with(&self, policy: RetryPolicy) -> Result<Message, Error> {
        let client = self.builder().retry(policy).build();
        client.expect("a client").messages().create(&question())
    }

    /// Returns a client that waits as long as a server asks.
    fn client(&self, way: Way) -> Client {
        let policy = RetryPolicy::new()
            .initial_backoff(Duration::from_secs(1))
            .max_backoff(Duration::from_secs(16))
            .max_wait(Duration::MAX);
        self.builder()
            .retry(policy)
            .timeout(Duration::from_secs(60))
            .stream_underneath(way != Way::InOnePiece)
            .build()
            .expect("a client")
    }
}

/// 2023-09-29 16:26:37.
const CLOCK: u64 = 1_696_004_797;

/// A policy whose own backoff is far shorter than every wait that servers ask for.
fn quick(attempts: u32) -> RetryPolicy {
    RetryPolicy::new()
        .max_attempts(attempts)
        .initial_backoff(Duration::from_millis(1))
        .max_backoff(Duration::from_millis(16))
        .max_wait(Duration::MAX)
}

fn question() -> MessageRequest {
    MessageRequest::new("claude-haiku-4-5", 256).user("Name one prime.")
}

/// How a message can be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `create` as it is by default.
    Underneath,
    /// `create` with `stream_underneath(false)`.
    InOnePiece,
    /// `stream`, read to its end.
    Stream,
    /// Another endpoint, which has one way only.
    Other,
}

fn ask(client: &Client, way: Way) -> Result<Message, Error> {
    match way {
        Way::Stream => client.messages().stream(&question())?.final_message(),
        _ => client.messages().create(&question()),
    }
}

/// A recorded response.
struct Recorded {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Recorded {
    fn new(recorded: &Value, body: &str) -> Recorded {
        let status = recorded["status"]
            .as_u64()
            .and_then(|s| u16::try_from(s).ok());
        let packed = body.strip_prefix("base64:");
        let headers = recorded["headers"].as_array().into_iter().flatten();
        let headers = headers.map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned()));
        let framing = ["content-length", "transfer-encoding", "connection"];
        let kept = headers.filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            let is_unpacked = name == "content-encoding" && packed.is_none();
            !framing.contains(&name.as_str()) && !is_unpacked
        });
        Recorded {
            status: status.expect("a status"),
            headers: kept.collect(),
            body: packed.map_or_else(|| body.as_bytes().to_vec(), from_base64),
        }
    }

    fn of(status: u16, headers: &[(String, String)]) -> Recorded {
        Recorded {
            status,
            headers: headers.to_vec(),
            body: Vec::new(),
        }
    }

    /// Returns a reply with the recorded status, headers and body, and nothing else.
    fn reply(&self) -> Reply {
        let reply = Reply::status(self.status).body(self.body.as_slice());
        let headers = self.headers.iter();
        headers.fold(reply, |reply, (name, value)| reply.header(name, value))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn is_stream(&self) -> bool {
        let content_type = self.header("content-type").unwrap_or_default();
        content_type.starts_with("text/event-stream")
    }

    /// Returns the body as JSON, or null; of a stream the data of its only event.
    fn json(&self) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        let data = body.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(data.unwrap_or(&body)).unwrap_or_default()
    }

    /// Returns the request id of the header, or else of the body.
    fn request_id(&self) -> Option<String> {
        let header = self.header("request-id").map(str::to_owned);
        header.or_else(|| self.json()["request_id"].as_str().map(str::to_owned))
    }

    /// Returns the rate limits in the headers, each group read separately.
    fn rate_limits(&self) -> RateLimits {
        let group = |name: &str| {
            let part = |part| self.header(&format!("anthropic-ratelimit-{name}-{part}"));
            let number = |text: &str| text.parse().expect("a number");
            let mut group = RateLimit::default();
            group.limit = part("limit").map(number);
            group.remaining = part("remaining").map(number);
            group.reset = part("reset").map(moment);
            (group != RateLimit::default()).then_some(group)
        };
        let seconds = |text: &str| Duration::from_secs(text.parse().expect("a number"));
        let mut limits = RateLimits::default();
        limits.requests = group("requests");
        limits.input_tokens = group("input-tokens");
        limits.output_tokens = group("output-tokens");
        limits.tokens = group("tokens");
        limits.retry_after = self.header("retry-after").map(seconds);
        limits
    }

    /// Checks that an error carries all that this response said.
    #[track_caller]
    fn check_error(&self, error: &Error, kind: ErrorKind, at: &str) {
        assert_eq!(error.kind(), kind, "{at}: {error:?}");
        let is_failure = self.status != 200;
        assert_eq!(error.status(), is_failure.then_some(self.status), "{at}");
        let id = error.request_id().map(ToString::to_string);
        assert_eq!(id, self.request_id(), "{at}");
        assert_eq!(error.rate_limits(), &self.rate_limits(), "{at}");
        assert_eq!(error.retry_after(), self.rate_limits().retry_after, "{at}");
        assert_eq!(error.attempts().len(), 1, "{at}");
        let attempt = &error.attempts()[0];
        assert_eq!(attempt.delivery, Delivery::Responded, "{at}");
        assert_eq!(attempt.status, Some(self.status), "{at}");
        assert_eq!(attempt.failure, Some(kind), "{at}");
        let said = error.to_string();
        let body = self.json();
        if body.is_null() {
            assert_eq!(error.api_error(), None, "{at}");
            return;
        }
        let api = error.api_error().unwrap_or_else(|| panic!("{at}: {error}"));
        let sent = &body["error"];
        assert_eq!(api.kind.as_str(), text(&sent["type"]), "{at}");
        assert_eq!(api.message, text(&sent["message"]), "{at}");
        assert_eq!(api.error_code(), sent["details"]["error_code"].as_str());
        // Error texts are cut at 400 characters, and have no full stop at their end.
        let message = api.message.chars().take(399).collect::<String>();
        assert!(said.contains(message.trim_end_matches('.')), "{at}: {said}");
        assert!(said.contains(api.kind.as_str()), "{at}: {said}");
        let id = self.request_id().unwrap_or_default();
        assert!(said.contains(&id), "{at}: {said}");
    }
}

fn recordings() -> PathBuf {
    let folder = std::env::var_os("ANTHROPIC_RECORDINGS");
    folder
        .expect("ANTHROPIC_RECORDINGS must name the folder with the recordings")
        .into()
}

fn read(name: &str) -> String {
    let path = recordings().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn text(value: &Value) -> &str {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("{value} is no text"))
}

#[track_caller]
fn list(value: &Value) -> &[Value] {
    let list = value.as_array();
    list.unwrap_or_else(|| panic!("{value} is no list"))
}

#[track_caller]
fn check_wait(sleeps: &[Duration], least: f64, most: f64, at: &str) {
    let [wait] = sleeps else {
        panic!("{at}: {sleeps:?} is not one wait");
    };
    assert!(is_between(*wait, least, most), "{at}: waited {wait:?}");
}

/// Checks that each wait lies between the bounds, and is at most three times the one before.
#[track_caller]
fn check_backoff(sleeps: &[Duration], shortest: f64, longest: f64) {
    assert!(!sleeps.is_empty());
    let mut before = shortest;
    for sleep in sleeps {
        let most = f64::min(3.0 * before, longest);
        assert!(is_between(*sleep, shortest, most), "{sleeps:?}");
        before = sleep.as_secs_f64();
    }
}

/// Whether a wait lies between these seconds, apart from rounding.
fn is_between(wait: Duration, least: f64, most: f64) -> bool {
    let wait = wait.as_secs_f64();
    wait >= least - 1e-8 && wait <= most + 1e-8
}

/// Reads a time as the API writes it, such as `2026-06-08T18:45:39Z`.
#[track_caller]
fn moment(text: &str) -> SystemTime {
    let numbers: Vec<u64> = text
        .split(['-', 'T', ':', 'Z'])
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().expect("a number"))
        .collect();
    let [year, month, day, hour, minute, second] = numbers[..] else {
        panic!("{text} is no time");
    };
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 });
    let months = months.into_iter().take(month as usize - 1);
    let days = years.chain(months).sum::<u64>() + day - 1;
    UNIX_EPOCH + Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Decodes base64.
fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|&byte| byte != b'=') {
        let digit = alphabet.iter().position(|&digit| digit == byte);
        bits = bits << 6 | digit.expect("base64") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
