//! Recordings of the real API, not written for this project: exchanges, headers, streams, and what
//! the official clients make of them. They are no part of the crate; `ANTHROPIC_RECORDINGS` names
//! their folder:
//!
//! ```sh
//! ANTHROPIC_RECORDINGS=/its/folder cargo test -- --ignored record
//! ```

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

// Exchanges.

/// The recorded failures: the beginning of the file name, the error kind, and part of its text.
const FAILURES: [(&str, ErrorKind, &str); 18] = {
    use ErrorKind::{Auth, InvalidRequest, NotFound, RateLimit};
    const MODEL: &str = "check the model's id";
    const KEY: &str = "check the key";
    [
        ("01_429", RateLimit, "larger than the whole limit"),
        ("02_400", InvalidRequest, "shorten the prompt"),
        ("03_401", Auth, KEY),
        ("04_401", Auth, KEY),
        ("05_401", Auth, KEY),
        ("06_401", Auth, KEY),
        (
            "07_401",
            Auth,
            "132 bytes compressed with br; check the key",
        ),
        ("08_400", InvalidRequest, ""),
        ("09_400", InvalidRequest, "end the conversation with a user"),
        ("10_400", InvalidRequest, ""),
        ("11_400", InvalidRequest, ""),
        ("12_400", InvalidRequest, ""),
        ("13_400", InvalidRequest, ""),
        ("14_400", InvalidRequest, ""),
        ("15_404", NotFound, MODEL),
        ("16_404", NotFound, MODEL),
        ("17_404", NotFound, ""),
        ("18_404", NotFound, MODEL),
    ]
};

/// Recorded requests that we send with another body, and the reason.
const OTHER_REQUESTS: [(&str, &str); 2] = [
    (
        "07_401_brotli",
        "a temperature of 1 is written as 1.0, which is the same number",
    ),
    (
        "12_400_old_2024",
        "a string stands in place of a message, which is its fault",
    ),
];

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn responses_become_the_right_value_or_error() {
    let (mut count, mut failed, mut other_requests) = (0, BTreeSet::new(), BTreeSet::new());
    for exchange in exchanges() {
        let name = exchange.name.as_str();
        let failure = FAILURES.iter().find(|row| name.starts_with(row.0));
        for &way in exchange.ways() {
            let at = format!("{name}, {way:?}");
            let stage = Stage::new();
            stage.server.push(exchange.reply.reply());
            let outcome = exchange.ask(&stage.client(way), way);
            let sent = stage.server.take_requests();
            assert_eq!(sent.len(), 1, "{at}: one attempt");
            assert_eq!(stage.clock.sleeps(), [], "{at}: no wait");
            assert_eq!(sent[0].method, exchange.method, "{at}");
            assert_eq!(sent[0].path, exchange.path(), "{at}");
            if !exchange.is_request(&sent[0]) {
                other_requests.insert(name.to_owned());
            }
            match (outcome, failure) {
                (Ok(returned), None) => exchange.check(&returned, &at),
                (Err(error), Some((_, kind, advice))) => {
                    exchange.reply.check_error(&error, *kind, &at);
                    assert!(error.to_string().contains(advice), "{at}: {error}");
                    assert!(!error.is_retryable(), "{at}");
                    failed.insert(name.to_owned());
                }
                (Ok(_), Some(_)) => panic!("{at}: no error"),
                (Err(error), None) => panic!("{at}: {error:?}"),
            }
            count += 1;
        }
    }
    assert_eq!(failed.len(), FAILURES.len());
    assert_eq!(
        other_requests,
        OTHER_REQUESTS.map(|row| row.0.to_owned()).into()
    );
    println!("33 exchanges, {count} calls");
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn batch_result_messages_round_trip() {
    let mut count = 0;
    for exchange in exchanges() {
        if !exchange.name.contains("jsonl") {
            continue;
        }
        let lines = String::from_utf8(exchange.reply.body).expect("text");
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = &line["result"]["message"];
            let read: Message = serde_json::from_value(message.clone()).expect("a message");
            assert_eq!(&serde_json::to_value(read).expect("JSON"), message);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

/// A recorded request and its response.
struct Exchange {
    name: String,
    method: String,
    /// Path and query.
    target: String,
    request: Value,
    reply: Recorded,
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

/// The value that a call returned.
struct Returned {
    body: Vec<u8>,
    request_id: Option<String>,
    limits: RateLimits,
    attempts: usize,
}

/// Returns all recorded exchanges, in order.
fn exchanges() -> Vec<Exchange> {
    let folder = recordings().join("exchanges");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = files
        .map(|file| file.expect("a file").file_name().into_string())
        .map(|name| name.expect("a name in Unicode"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 33);
    names.iter().map(|name| Exchange::read(name)).collect()
}

impl Exchange {
    fn read(file: &str) -> Exchange {
        let exchange = read_json(&format!("exchanges/{file}"));
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let uri = text(&request["uri"]);
        let target = uri.strip_prefix("https://api.anthropic.com");
        Exchange {
            name: file.trim_end_matches(".json").to_owned(),
            method: text(&request["method"]).to_owned(),
            target: target.expect("the API's address").to_owned(),
            request: serde_json::from_str(text(&request["body"])).unwrap_or_default(),
            reply: Recorded::new(response, text(&response["body"])),
        }
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn ways(&self) -> &'static [Way] {
        match (self.method.as_str(), self.path()) {
            ("POST", "/v1/messages") if self.reply.is_stream() => &[Way::Underneath, Way::Stream],
            ("POST", "/v1/messages") => &[Way::Underneath, Way::InOnePiece, Way::Stream],
            _ => &[Way::Other],
        }
    }

    fn ask(&self, client: &Client, way: Way) -> Result<Returned, Error> {
        let message = match (way, self.method.as_str()) {
            (Way::Underneath | Way::InOnePiece, _) => client.messages().create(&self.request())?,
            (Way::Stream, _) => {
                let stream = client.messages().stream(&self.request())?;
                let (id, limits) = (stream.request_id().cloned(), stream.rate_limits().clone());
                let message = stream.final_message()?;
                assert_eq!(message.request_id(), id.as_ref());
                assert_eq!(message.rate_limits(), &limits);
                message
            }
            (Way::Other, "POST") if self.path() == "/v1/messages/count_tokens" => {
                let count = client.messages().count_tokens(&self.request())?;
                return Ok(Returned {
                    body: json!({"input_tokens": count}).to_string().into_bytes(),
                    // `count_tokens` returns a number, without attempts or headers.
                    request_id: self.reply.request_id(),
                    limits: self.reply.rate_limits(),
                    attempts: 1,
                });
            }
            (Way::Other, method) => {
                let raw = client.raw();
                let returned = match method {
                    "POST" => raw.post(&self.target, &self.request)?,
                    "GET" => raw.get(&self.target)?,
                    "DELETE" => raw.delete(&self.target)?,
                    other => panic!("{other} is no method of this API"),
                };
                return Ok(Returned {
                    request_id: returned.request_id().map(ToString::to_string),
                    limits: returned.rate_limits().clone(),
                    attempts: returned.attempts().len(),
                    body: returned.body,
                });
            }
        };
        Ok(Returned {
            body: serde_json::to_vec(&message).expect("JSON"),
            request_id: message.request_id().map(ToString::to_string),
            limits: message.rate_limits().clone(),
            attempts: message.attempts().len(),
        })
    }

    /// Returns the recorded request, or a substitute for a request that cannot be made.
    fn request(&self) -> MessageRequest {
        let mut request = self.request.clone();
        if request["max_tokens"].is_null() {
            request["max_tokens"] = json!(1);
        }
        serde_json::from_value(request).unwrap_or_else(|_| question())
    }

    /// Whether this request was sent, apart from the `stream` field, which the client sets.
    fn is_request(&self, sent: &RecordedRequest) -> bool {
        let plain = |mut request: Value| {
            if let Value::Object(fields) = &mut request {
                fields.remove("stream");
            }
            request
        };
        let is_read = self.method == "GET" && sent.body.is_empty();
        is_read || plain(sent.json()) == plain(self.request.clone())
    }

    #[track_caller]
    fn check(&self, returned: &Returned, at: &str) {
        let recorded = &self.reply;
        assert_eq!(recorded.status, 200, "{at}");
        assert_eq!(returned.request_id, recorded.request_id(), "{at}");
        assert_eq!(returned.limits, recorded.rate_limits(), "{at}");
        assert_eq!(returned.attempts, 1, "{at}");
        if recorded.is_stream() {
            let message: Message = serde_json::from_slice(&returned.body).expect("a message");
            let body = String::from_utf8_lossy(&recorded.body);
            Seen::of(&events(&body)).check(&message, at);
            assert!(message.stop_reason.is_some(), "{at}");
        } else if recorded.json().is_null() {
            assert_eq!(returned.body, recorded.body, "{at}");
        } else {
            let ours: Value = serde_json::from_slice(&returned.body).expect("JSON");
            assert_eq!(ours, recorded.json(), "{at}");
        }
    }
}

// Headers and bodies of real failures.

#[derive(Debug, Clone, Copy)]
enum After {
    /// The error comes back at once.
    Nothing,
    /// A retry follows after our own backoff.
    Backoff,
    /// A retry follows after the wait that the server asked for.
    Pause(f64),
}

/// The error kinds of the failures in `real_headers.json`, and what follows; one entry per body
/// where there are several bodies.
const REAL: [(&str, &[(ErrorKind, After)]); 14] = {
    use After::{Backoff, Nothing, Pause};
    use ErrorKind::{Auth, Billing, InvalidRequest, Overloaded, RateLimit, Server};
    [
        ("429-tpm-recorded-no-retry", &[(RateLimit, Nothing)]),
        ("429-itpm-2025-04", &[(RateLimit, Pause(4.0))]),
        ("429-itpm-2025-06", &[(RateLimit, Pause(16.0))]),
        ("429-rpm-2024-03-no-retry-after", &[(RateLimit, Backoff)]),
        ("429-headerless-gateway", &[(RateLimit, Backoff)]),
        ("429-edge-cloudflare", &[(RateLimit, Pause(6.0))]),
        ("413-edge", &[(InvalidRequest, Nothing)]),
        ("529-body", &[(Overloaded, Backoff)]),
        ("529-body-null-request-id", &[(Overloaded, Backoff)]),
        ("stream-error-overloaded", &[(Overloaded, Backoff)]),
        ("stream-error-rate-limit-on-200", &[(RateLimit, Backoff)]),
        ("stream-error-api-error", &[(Server, Backoff)]),
        (
            "429-messages-seen",
            &[
                (RateLimit, Backoff),
                (RateLimit, Backoff),
                // "Extra usage is required": no waiting helps.
                (Billing, Nothing),
                (RateLimit, Backoff),
                (RateLimit, Backoff),
            ],
        ),
        ("403-permission-details", &[(Auth, Nothing)]),
    ]
};

/// The responses in `real_headers.json` that are no failures.
const REAL_SUCCESSES: [(&str, f64); 2] = [
    ("200-retry-after-success", 31.0),
    ("200-batch-poll-retry-after", 10.0),
];

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn real_failures_are_classified_and_awaited() {
    let items = read_json("real_headers.json");
    let mut count = 0;
    for item in list(&items["items"]) {
        let id = text(&item["id"]);
        let Some((_, expected)) = REAL.iter().find(|row| row.0 == id) else {
            assert!(REAL_SUCCESSES.iter().any(|row| row.0 == id), "{id} is new");
            continue;
        };
        let bodies = match &item["bodies"] {
            Value::Array(bodies) => bodies.iter().map(text).collect(),
            _ => vec![
                item["body"]
                    .as_str()
                    .or(item["body_start"].as_str())
                    .unwrap_or_default(),
            ],
        };
        assert_eq!(bodies.len(), expected.len(), "{id}");
        for (body, (kind, after)) in bodies.iter().zip(*expected) {
            let recorded = Recorded::new(item, body);
            for way in [Way::Underneath, Way::Stream] {
                let at = format!("{id}, {way:?}: {body}");
                check_failure(&recorded, *kind, *after, way, &at);
                count += 1;
            }
        }
    }
    assert_eq!(count, 2 * (REAL.len() + 4));
}

#[track_caller]
fn check_failure(recorded: &Recorded, kind: ErrorKind, after: After, way: Way, at: &str) {
    let stage = Stage::new();
    let impatient = stage
        .client(way)
        .with(Options::new().retry(RetryPolicy::none()));
    stage.server.push(recorded.reply());
    let error = ask(&impatient, way).expect_err(at);
    recorded.check_error(&error, kind, at);
    assert_eq!(stage.clock.sleeps(), [], "{at}");
    let will_retry = !matches!(after, After::Nothing);
    assert_eq!(error.is_retryable(), will_retry, "{at}");

    // A new client: the first call of the old one would begin with the rest of the pause.
    let stage = Stage::new();
    let client = stage.client(way);
    stage
        .server
        .push_all([recorded.reply(), Reply::message("Seven.")]);
    let outcome = ask(&client, way);
    let sleeps = stage.clock.sleeps();
    match (after, outcome) {
        (After::Nothing, Err(error)) => {
            recorded.check_error(&error, kind, at);
            assert_eq!(sleeps, [], "{at}");
        }
        (After::Backoff, Ok(message)) => {
            check_recovery(&message, kind, at);
            let waited = message.attempts()[1].waited.total();
            let (least, most) = match kind {
                ErrorKind::Overloaded => (0.25, 0.51),
                _ => (1.0, 3.0),
            };
            assert!(is_between(waited, least, most), "{at}: {waited:?}");
        }
        (After::Pause(asked), Ok(message)) => {
            check_recovery(&message, kind, at);
            check_wait(&sleeps, asked, asked + 0.11, at);
        }
        (after, outcome) => panic!("{at}: {after:?} was expected, not {outcome:?}"),
    }
}

#[track_caller]
fn check_recovery(message: &Message, kind: ErrorKind, at: &str) {
    assert_eq!(message.text(), "Seven.", "{at}");
    let failures: Vec<_> = message.attempts().iter().map(|a| a.failure).collect();
    assert_eq!(failures, [Some(kind), None], "{at}");
}

#[track_caller]
fn check_wait(sleeps: &[Duration], least: f64, most: f64, at: &str) {
    let [wait] = sleeps else {
        panic!("{at}: {sleeps:?} is not one wait");
    };
    assert!(is_between(*wait, least, most), "{at}: waited {wait:?}");
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn retry_after_on_a_success_is_not_awaited() {
    let items = read_json("real_headers.json");
    for (id, asked) in REAL_SUCCESSES {
        let item = list(&items["items"]).iter().find(|item| item["id"] == id);
        let item = item.expect(id);
        let is_stream = id == "200-retry-after-success";
        let body = if is_stream {
            String::from_utf8(StreamScript::text("Seven.").to_bytes()).expect("text")
        } else {
            json!({"id": "msgbatch_1", "processing_status": "in_progress"}).to_string()
        };
        let recorded = Recorded::new(item, &body);
        let stage = Stage::new();
        let client = stage.client(Way::Underneath);
        stage.server.push(recorded.reply());
        let limits = if is_stream {
            let message = client.messages().create(&question()).expect(id);
            assert_eq!(message.text(), "Seven.");
            message.rate_limits().clone()
        } else {
            let returned = client.raw().get("/v1/messages/batches/msgbatch_1");
            let returned = returned.expect(id);
            assert_eq!(returned.text(), body);
            returned.rate_limits().clone()
        };
        assert_eq!(limits, recorded.rate_limits(), "{id}");
        assert_eq!(limits.retry_after, Some(Duration::from_secs_f64(asked)));
        assert_eq!(stage.clock.sleeps(), [], "{id}");
        assert_eq!(stage.server.request_count(), 1, "{id}");
    }
}

// What the official clients make of `retry-after`.

/// How long a client waits after a refusal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wait {
    /// For these seconds; we add up to 0.1 s, and wait at least 0.25 s for an overload.
    Asked(f64),
    /// For its own backoff; ours is one second for a 429, in which all requests of the model pause.
    Own,
    /// Not at all: the client fails, or retries at once.
    Not,
}

/// Where we wait differently from an official client: the table, the headers, how we wait, and
/// the reason. Each difference must occur in the test.
const OTHER_WAITS: &[(&str, &str, Wait, &str)] = {
    use Wait::{Asked, Own};
    const LONG: &str = "it said that an earlier try fails, so that a long wait is not shortened";
    const DATE: &str = "a date of RFC 3339 is as clear as one of HTTP";
    const FIRST: &str = "a useless retry-after-ms does not make a good retry-after useless";
    const BOUND: &str =
        "a finite wait is believed, if only for 49 days; Client::deadline bounds it";
    &[
        ("python 0.125", "retry-after: 61", Asked(61.0), LONG),
        (
            "python 0.125",
            "retry-after: Fri, 29 Sep 2023 16:27:38 GMT",
            Asked(61.0),
            LONG,
        ),
        (
            "python 0.125",
            "retry-after: 99999999999999999999999999999999999",
            Asked(4_294_967.0),
            BOUND,
        ),
        (
            "python",
            "retry-after: inf",
            Own,
            "what is not finite is no number of seconds",
        ),
        (
            "python",
            "retry-after: 1_000",
            Own,
            "digits with underscores are Python's own",
        ),
        (
            "python",
            "retry-after: 2023-09-29T16:26:57Z",
            Asked(20.0),
            DATE,
        ),
        (
            "python",
            "retry-after: ١٢",
            Own,
            "a header that is not ASCII is no reason to fail",
        ),
        (
            "python",
            "retry-after-ms: 0, retry-after: 20",
            Asked(20.0),
            FIRST,
        ),
        (
            "typescript",
            "retry-after: 7s",
            Own,
            "a number with something behind it is not what the standard says",
        ),
        (
            "typescript",
            "retry-after: 2147484",
            Asked(2_147_484.0),
            BOUND,
        ),
        (
            "go",
            "retry-after: -10",
            Own,
            "retrying at once would be the worst reaction",
        ),
        (
            "go",
            "retry-after: 5000000",
            Asked(4_294_967.0),
            "cut to 49 days, as Python does it",
        ),
    ]
};

/// Rows that state the rules of the TypeScript and Go clients.
const WORDED: [(&str, &str, &str, Wait); 12] = [
    ("typescript", "retry-after-ms", "10", Wait::Asked(0.01)),
    ("typescript", "retry-after", "0.1", Wait::Asked(0.1)),
    ("typescript", "retry-after", "7s", Wait::Asked(7.0)),
    ("typescript", "retry-after", "1e3", Wait::Asked(1000.0)),
    ("typescript", "retry-after", "soon", Wait::Own),
    ("typescript", "retry-after", "2147484", Wait::Own),
    ("go", "retry-after", "0.1", Wait::Asked(0.1)),
    ("go", "retry-after-ms", "100", Wait::Asked(0.1)),
    ("go", "retry-after", "-10", Wait::Not),
    ("go", "retry-after", "7200", Wait::Asked(7200.0)),
    ("go", "retry-after", "5000000", Wait::Asked(5_000_000.0)),
    (
        "go",
        "retry-after",
        "Fri, 29 Sep 2023 16:26:57 GMT",
        Wait::Asked(20.0),
    ),
];

/// A row of a table: the client, the headers, the number of earlier failed attempts, the wait.
struct Row {
    table: &'static str,
    headers: Vec<(String, String)>,
    failures: usize,
    theirs: Wait,
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn retry_after_is_parsed_like_official_clients() {
    let mut unseen: Vec<_> = OTHER_WAITS.iter().map(|row| (row.0, row.1)).collect();
    let rows = rows();
    assert_eq!(rows.len(), 16 + 51 + WORDED.len());
    for row in &rows {
        let headers: Vec<_> = row
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}"))
            .collect();
        let headers = headers.join(", ");
        let other = OTHER_WAITS
            .iter()
            .find(|other| (other.0, other.1) == (row.table, headers.as_str()));
        for status in [429, 503] {
            let at = format!("{}, {status}, {headers:?}", row.table);
            let wait = wait_after(status, row);
            if let Some((table, name, ours, _)) = other {
                assert!(
                    fits(status, wait, *ours),
                    "{at}: waited {wait:?}, not {ours:?}"
                );
                let theirs = row.theirs;
                assert!(
                    !fits(status, wait, theirs),
                    "{at}: {theirs:?} is no difference any more"
                );
                unseen.retain(|seen| *seen != (*table, *name));
            } else {
                let theirs = row.theirs;
                assert!(
                    fits(status, wait, theirs),
                    "{at}: waited {wait:?}, they {theirs:?}"
                );
            }
        }
    }
    assert!(unseen.is_empty(), "no row is so: {unseen:?}");
    println!(
        "{} rows, {} of them with a difference",
        rows.len(),
        OTHER_WAITS.len()
    );
}

fn rows() -> Vec<Row> {
    let tables = read_json("retry_cases.json");
    assert_eq!(tables["clock_unix"], CLOCK);
    let mut rows = Vec::new();
    for row in list(&tables["sdk_python_0_125_table"]["rows"]) {
        let headers = vec![("retry-after".to_owned(), text(&row[1]).to_owned())];
        rows.push(Row::of_python("python 0.125", headers, &row[0], &row[2]));
    }
    for row in list(&tables["measured_python"]["rows"]) {
        assert_eq!(row["max_retries"], 3);
        let headers = row["headers"].as_object().expect("headers");
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value).to_owned()))
            .collect();
        // `retry-after-ms` takes precedence.
        headers.sort_by_key(|(name, _)| !name.ends_with("-ms"));
        let (left, wait) = (&row["remaining_retries"], &row["timeout_s"]);
        rows.push(Row::of_python("python", headers, left, wait));
    }
    rows.extend(WORDED.map(|(table, name, value, theirs)| Row {
        table,
        headers: vec![(name.to_owned(), value.to_owned())],
        failures: 0,
        theirs,
    }));
    rows
}

impl Row {
    fn of_python(
        table: &'static str,
        headers: Vec<(String, String)>,
        retries_left: &Value,
        wait: &Value,
    ) -> Row {
        let retries = 3 - retries_left.as_i64().expect("a number");
        let computed = (0.5 * 2_f64.powf(retries as f64)).min(8.0);
        Row {
            table,
            headers,
            failures: usize::try_from(retries).expect("no retry in advance"),
            theirs: match wait.as_f64() {
                Some(wait) if wait == computed => Wait::Own,
                Some(wait) => Wait::Asked(wait),
                None => Wait::Not,
            },
        }
    }
}

/// Returns the wait after a response with this status and the row's headers. The backoff takes
/// milliseconds, so that it cannot be confused with the wait that the server asks for.
#[track_caller]
fn wait_after(status: u16, row: &Row) -> Duration {
    // Nine failures show what a thousand would; the client's retry budget permits ten.
    let failures = row.failures.min(9);
    let stage = Stage::new();
    let refusal = Recorded::of(status, &row.headers).reply();
    stage.server.push_all(vec![refusal; failures + 1]);
    stage.server.push(Reply::message("Seven."));
    let outcome = stage.ask_with(quick(u32::MAX));
    let message = outcome.unwrap_or_else(|error| panic!("{:?}: {error:?}", row.headers));
    let waits: Vec<_> = message.attempts()[1..]
        .iter()
        .map(|attempt| attempt.waited.total())
        .collect();
    assert_eq!(waits.len(), failures + 1);
    if failures > 0 && status != 429 {
        check_backoff(&waits, 0.001, 0.016);
    }
    waits[0]
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

fn fits(status: u16, wait: Duration, expected: Wait) -> bool {
    match expected {
        Wait::Asked(asked) if status == 429 => is_between(wait, asked, asked + 0.11),
        Wait::Asked(asked) => is_between(wait, asked.max(0.25), asked.max(0.5) + 0.01),
        Wait::Own if status == 429 => is_between(wait, 1.0, 1.11),
        Wait::Own => is_between(wait, 0.001, 0.003),
        Wait::Not => wait.is_zero(),
    }
}

// What the official clients retry.

/// Where we retry differently from the official clients: status, `x-should-retry`, and the reason.
const OTHER_RETRIES: [(u16, Option<&str>, &str); 12] = {
    const DONE: &str = "a success is no failure, whatever its headers say";
    const MONEY: &str = "no retry pays a bill";
    const NEVER: &str = "the server will not learn the method or the version between two attempts";
    [
        (200, Some("true"), DONE),
        (201, Some("true"), DONE),
        (204, Some("true"), DONE),
        (402, Some("true"), MONEY),
        (501, None, NEVER),
        (501, Some("True"), NEVER),
        (501, Some("1"), NEVER),
        (501, Some(""), NEVER),
        (505, None, NEVER),
        (505, Some("True"), NEVER),
        (505, Some("1"), NEVER),
        (505, Some(""), NEVER),
    ]
};

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn statuses_are_retried_like_official_clients() {
    let tables = read_json("retry_cases.json");
    let rows = list(&tables["measured_should_retry"]["rows"]);
    assert_eq!(rows.len(), 222);
    let mut differences = Vec::new();
    for row in rows {
        let status = row[0]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        let (status, header) = (status.expect("a status"), row[1].as_str());
        let theirs = row[2].as_bool().expect("a decision");
        if is_retried(status, header) != theirs {
            differences.push((status, header));
        }
    }
    let expected = OTHER_RETRIES.map(|row| (row.0, row.1));
    assert_eq!(differences, expected);
    println!("{} rows, {} differences", rows.len(), differences.len());
}

fn is_retried(status: u16, should_retry: Option<&str>) -> bool {
    let stage = Stage::new();
    let header = should_retry.map(|value| ("x-should-retry".to_owned(), value.to_owned()));
    let mut recorded = Recorded::of(status, header.as_slice());
    if matches!(status, 200 | 201) {
        recorded.body = json!({"content": []}).to_string().into_bytes();
    }
    stage.server.push(recorded.reply());
    stage.server.push(Reply::message("Seven."));
    let outcome = stage.ask_with(quick(2));
    let text = outcome.map(|message| message.text());
    match stage.server.request_count() {
        2 => {
            assert_eq!(text.ok().as_deref(), Some("Seven."), "{status}");
            true
        }
        1 => {
            let is_success = matches!(status, 200 | 201);
            assert_eq!(text.ok().as_deref(), is_success.then_some(""), "{status}");
            false
        }
        more => panic!("{status}: {more} requests"),
    }
}

// The official clients' own test cases.

/// Where a case ends differently from an official client: the client, the difference, the reason.
/// Each difference must occur in the test.
const OTHER_ENDS: [(&str, &str, &str); 7] = {
    const TELEMETRY: &str = "counting retries in a header is the official clients' telemetry";
    [
        ("typescript", COUNT, TELEMETRY),
        ("java", COUNT, TELEMETRY),
        (
            "java",
            "backoff",
            "decorrelated, from 1 s to 16 s: it serves most clients, at the lowest peaks",
        ),
        ("go", COUNT, TELEMETRY),
        (
            "go",
            "attempts",
            "a wait that the server asks for is flow control: it uses no attempt, and is bounded \
             by max_wait and the deadline",
        ),
        (
            "ruby",
            "first delay",
            "their first retry comes at once; ours after 1 s at least",
        ),
        (
            "ruby",
            "attempts by default",
            "five, not three: an overload outlasts a second",
        ),
    ]
};

/// The differences from one client that occurred.
struct Differences {
    client: &'static str,
    seen: BTreeSet<&'static str>,
}

impl Differences {
    fn of(client: &'static str) -> Differences {
        let seen = BTreeSet::new();
        Differences { client, seen }
    }

    #[track_caller]
    fn show(&mut self, what: &'static str, is_same: bool) {
        assert!(!is_same, "{what} is no difference any more");
        self.seen.insert(what);
    }

    #[track_caller]
    fn all(self) {
        let rows = OTHER_ENDS.iter().filter(|row| row.0 == self.client);
        assert_eq!(self.seen, rows.map(|row| row.1).collect());
    }
}

/// The header in which the official clients count their retries.
const COUNT: &str = "x-stainless-retry-count";

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn typescript_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    assert_eq!(list(&tables["typescript"]["rules"]).len(), 6);
    let cases = list(&tables["typescript"]["tests"]);
    assert_eq!(cases.len(), 6);
    let mut differences = Differences::of("typescript");
    for case in &cases[..2] {
        let headers = case["headers"].as_object().expect("headers");
        let (name, value) = headers.iter().next().expect("a header");
        let number: f64 = text(value).parse().expect("a number");
        let unit = if name.ends_with("-Ms") { 1e-3 } else { 1.0 };
        let stage = Stage::new();
        let refusal = Reply::status(429).header(name, text(value));
        stage.server.push_all([refusal, Reply::message("Seven.")]);
        stage.ask_with(quick(2)).expect("a message");
        assert_eq!(case["requests"], stage.server.request_count());
        check_wait(
            &stage.clock.sleeps(),
            number * unit,
            number * unit + 0.11,
            name,
        );
    }

    assert_eq!(cases[2]["name"], "retry on timeout");
    let stage = Stage::new();
    let client = stage.builder().idle_timeout(Duration::from_millis(500));
    let client = client.retry(quick(2)).build().expect("a client");
    let silence = Reply::status(200).stall_before_headers();
    stage.server.push_all([silence, Reply::message("Seven.")]);
    let message = client.messages().create(&question()).expect("a message");
    assert_eq!(cases[2]["requests"], stage.server.request_count());
    assert_eq!(message.attempts()[0].failure, Some(ErrorKind::Timeout));
    assert_eq!(message.attempts()[0].delivery, Delivery::Unknown);

    assert_eq!(cases[3]["failures"], 2);
    let theirs = &cases[3]["x-stainless-retry-count of the last request"];
    let ours = counts_sent(Reply::status(429), None);
    differences.show(COUNT, theirs.as_str() == ours[2].as_deref());
    let given = text(&cases[4]["given"]);
    let sent = text(&cases[4]["sent"]).to_owned();
    let ours = counts_sent(Reply::status(429), Some(given));
    assert_eq!(ours, vec![Some(sent); 3]);
    // The official client omits the header on request; we always omit it.
    assert!(cases[5]["sent"].is_null());
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn java_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    let cases = list(&tables["java"]["cases"]);
    assert_eq!(cases.len(), 6);
    let mut differences = Differences::of("java");
    for case in &cases[..2] {
        // Five seconds before the date of the first case, 2015-10-21 07:28:00.
        let stage = Stage::at(1_445_412_480 - 5);
        for response in list(&case["responses"]) {
            stage.server.push(match asked_by(response) {
                Some((name, value)) => {
                    assert_eq!(response["status"], 503);
                    Reply::status(503).header(name, value)
                }
                None => Reply::message("Seven."),
            });
        }
        stage.ask_with(quick(9)).expect("a message");
        let (sleeps, expected) = (stage.clock.sleeps(), list(&case["sleeps_ms"]));
        assert_eq!(sleeps.len(), expected.len());
        for (sleep, expected) in sleeps.iter().zip(expected) {
            let asked = expected.as_f64().expect("a number") / 1000.0;
            assert!(fits(503, *sleep, Wait::Asked(asked)), "{sleep:?}, {case}");
        }
    }
    let counts = counts_sent(Reply::status(503).header("retry-after", "1.234"), None);
    differences.show(COUNT, cases[0][COUNT] == json!(counts));

    for (case, retries) in [(&cases[2], 3), (&cases[3], 6)] {
        assert_eq!(case["max_retries"], retries);
        let stage = Stage::new();
        stage.server.answer_with(|_| Reply::status(503));
        let policy = RetryPolicy::new().max_attempts(1 + retries);
        let error = stage.ask_with(policy).expect_err("a 503");
        assert_eq!(error.status(), Some(503));
        assert_eq!(case["requests"], stage.server.request_count());
        let sleeps = stage.clock.sleeps();
        check_backoff(&sleeps, 1.0, 16.0);
        let ranges = &case["sleeps_ms_between"];
        let theirs = ranges.as_array().into_iter().flatten().zip(&sleeps);
        for (range, ours) in theirs {
            let bound = |at: usize| range[at].as_f64().expect("a number") / 1000.0;
            differences.show("backoff", is_between(*ours, bound(0), bound(1)));
        }
    }
    assert_eq!(cases[2]["returned_status"], 503);
    // The official backoff lies between 6 s and 8 s; ours may differ, as listed above.
    assert_eq!(cases[3]["sleeps_5_and_6_ms_between"], json!([6000, 8000]));

    let given = text(&cases[4]["caller_header"][COUNT]);
    assert_eq!(cases[4]["sent"], format!("{given} every time"));
    let sent = counts_sent(Reply::status(503), Some(given));
    assert_eq!(sent, vec![Some(given.to_owned()); 3]);

    assert_eq!(cases[5]["error"], "connection error once");
    assert_eq!(cases[5]["then"], 200);
    let stage = Stage::new();
    let broken = Reply::status(200).reset_before_headers();
    stage.server.push_all([broken, Reply::message("Seven.")]);
    let message = stage.ask_with(RetryPolicy::new()).expect("a message");
    assert_eq!(message.attempts()[0].failure, Some(ErrorKind::Connection));
    check_backoff(&stage.clock.sleeps(), 1.0, 16.0);
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn go_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    assert_eq!(list(&tables["go"]["rules"]).len(), 4);
    let cases = list(&tables["go"]["cases"]);
    assert_eq!(cases.len(), 2);
    let mut differences = Differences::of("go");
    for case in cases {
        let (name, value) = asked_by(case).expect("a header");
        let refusal = Reply::status(429).header(name, value);
        let stage = Stage::new();
        stage.server.push_all(vec![refusal.clone(); 5]);
        stage.server.push(Reply::message("Seven."));
        let message = stage.ask_with(quick(3)).expect("a message");
        differences.show("attempts", case["attempts"] == message.attempts().len());
        // We first wait as the server asks; then our wait grows to a second, to avoid a hot loop.
        let sleeps = stage.clock.sleeps();
        assert!(is_between(sleeps[0], 0.1, 0.21), "{sleeps:?}");
        assert!(
            sleeps.iter().all(|sleep| is_between(*sleep, 0.1, 1.11)),
            "{sleeps:?}"
        );
        // With room for two waits we make as many attempts as the official client.
        stage.server.push_all(vec![refusal.clone(); 3]);
        let policy = quick(3).max_wait(Duration::from_millis(350));
        let error = stage.ask_with(policy).expect_err("a 429");
        assert_eq!(case["attempts"], error.attempts().len());
        if case[COUNT].is_array() {
            let ours = json!(counts_sent(refusal, None));
            differences.show(COUNT, case[COUNT] == ours);
        }
    }
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn ruby_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    let cases = list(&tables["ruby"]["cases"]);
    assert_eq!(cases.len(), 7);
    let mut differences = Differences::of("ruby");
    // Returns the requests, and the waits between them, when the server always fails with a 500.
    let run = |client: RetryPolicy, call: Option<RetryPolicy>, header: Option<(&str, &str)>| {
        let stage = Stage::new();
        let mut client = stage.builder().retry(client).build().expect("a client");
        if let Some(policy) = call {
            client = client.with(Options::new().retry(policy));
        }
        let reply = header
            .into_iter()
            .fold(Reply::status(500), |reply, header| {
                reply.header(header.0, header.1)
            });
        stage.server.answer_with(move |_| reply.clone());
        let error = client.messages().create(&question()).expect_err("a 500");
        assert_eq!(error.status(), Some(500));
        (stage.server.request_count(), stage.clock.sleeps())
    };
    assert_eq!(cases[0]["status"], 500);
    assert_eq!(cases[0]["default max_retries"], 2);
    assert_eq!(cases[0]["requests"], run(quick(3), None, None).0);
    let (requests, sleeps) = run(RetryPolicy::new(), None, None);
    differences.show("attempts by default", cases[0]["requests"] == requests);
    differences.show("first delay", sleeps[0].is_zero());
    assert_eq!(cases[1]["client max_retries"], 3);
    assert_eq!(cases[1]["requests"], run(quick(4), None, None).0);
    assert_eq!(cases[2]["request max_retries"], 3);
    assert_eq!(cases[2]["requests"], run(quick(3), Some(quick(4)), None).0);
    assert_eq!(cases[3]["client 3, request 4"], true);
    assert_eq!(cases[3]["requests"], run(quick(4), Some(quick(5)), None).0);
    for (case, name) in [(&cases[4], "retry-after"), (&cases[6], "retry-after-ms")] {
        assert_eq!(case["max_retries"], 1);
        assert_eq!(case["last_sleep_s"], 1.3);
        let (requests, sleeps) = run(quick(2), None, Some((name, text(&case[name]))));
        assert_eq!(requests, 2);
        check_wait(&sleeps, 1.3, 1.43, name);
    }
    assert_eq!(cases[5]["retry-after"], "now+10 as HTTP date");
    let date = ("retry-after", "Fri, 29 Sep 2023 16:26:47 GMT");
    let (_, sleeps) = run(quick(2), None, Some(date));
    check_wait(&sleeps, 10.0, 11.0, "a date");
    assert_eq!(tables["real_world"], "see real_headers.json");
    differences.all();
}

/// Returns the header of a case that asks for a wait.
fn asked_by(case: &Value) -> Option<(&'static str, &str)> {
    let mut names = ["retry-after", "retry-after-ms"].into_iter();
    names.find_map(|name| Some((name, case[name].as_str()?)))
}

/// Returns the retry counts in the headers of the three requests that two refusals cause.
fn counts_sent(refusal: Reply, given: Option<&str>) -> Vec<Option<String>> {
    let stage = Stage::new();
    let mut builder = stage.builder().retry(quick(3));
    if let Some(given) = given {
        builder = builder.header(COUNT, given);
    }
    let client = builder.build().expect("a client");
    stage.server.push_all([refusal.clone(), refusal]);
    stage.server.push(Reply::message("Seven."));
    client.messages().create(&question()).expect("a message");
    let requests = stage.server.take_requests();
    let counts = requests.iter().map(|request| request.header(COUNT));
    counts.map(|count| count.map(str::to_owned)).collect()
}

// Streams.

/// The recorded stream that is not compared with the official client's message.
const NOT_COMPARED: (&str, &str) = (
    "f95fa102eb9124f97d6b2f8224329f0d94cd59f4e0652c716ab879bf41294f72",
    "a gateway sends `[DONE]` after message_stop, at which the official client fails",
);

/// How the bytes of a stream arrive.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// At once, with a length.
    Whole,
    /// Each byte in its own HTTP chunk.
    Bytes,
    /// In HTTP chunks of random length.
    Chunks,
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn streams_accumulate_like_the_official_client() {
    let streams = streams();
    let calls = AtomicUsize::new(0);
    in_parallel(&streams, |seed, recorded| {
        let stage = Stage::new();
        let client = stage.builder().retry(RetryPolicy::none()).build();
        let client = client.expect("a client");
        for arrival in [Arrival::Whole, Arrival::Bytes, Arrival::Chunks] {
            let at = format!("{}, {arrival:?}", recorded.name);
            let reply = recorded.reply(arrival, seed as u64);
            stage.server.push_all([reply.clone(), reply]);
            let message = client.messages().create(&question());
            let message = message.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            recorded.check(&message, &at);
            let stream = client.messages().stream(&question());
            let mut stream = stream.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            let events: Vec<_> = stream
                .by_ref()
                .map(|event| serde_json::to_value(event.expect(&at)).expect("JSON"))
                .collect();
            recorded.check_events(&events, &at);
            assert_eq!(stream.partial(), &message, "{at}");
            assert_eq!(stream.final_message().expect(&at), message, "{at}");
            calls.fetch_add(2, Ordering::Relaxed);
        }
        assert_eq!(stage.server.connections(), 1, "{}", recorded.name);
    });
    println!("{} streams, {} calls", streams.len(), calls.into_inner());
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn streams_arriving_byte_by_byte_accumulate_alike() {
    let streams = streams();
    let calls = AtomicUsize::new(0);
    in_parallel(&streams, |_, recorded| {
        // Each byte costs a system call, so only the shorter streams are used.
        if recorded.body.len() > 4000 {
            return;
        }
        let stage = Stage::new();
        let reply = recorded.reply(Arrival::Whole, 0).dribble(1, Duration::ZERO);
        stage.server.push(reply);
        let message = stage.client(Way::Underneath).messages().create(&question());
        let message = message.unwrap_or_else(|error| panic!("{}: {error:?}", recorded.name));
        recorded.check(&message, &recorded.name);
        calls.fetch_add(1, Ordering::Relaxed);
    });
    println!("{} streams", calls.into_inner());
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn cut_streams_are_errors_with_partial_content() {
    let streams = streams();
    let cuts = AtomicUsize::new(0);
    in_parallel(&streams, |seed, recorded| {
        let stage = Stage::new();
        stage.server.keep_requests(false);
        let client = stage.builder().retry(RetryPolicy::none()).build();
        let client = client.expect("a client");
        let events = events(&recorded.body);
        let mut rng = Rng::with_seed(seed as u64);
        for round in 0..CUTS {
            let length = rng.usize(..recorded.least_whole());
            let at = format!("{} cut at {length}, round {round}", recorded.name);
            stage.server.push(recorded.cut(length, round));
            let arrived = events
                .iter()
                .take_while(|event| event.end <= length)
                .count();
            let seen = Seen::of(&events[..arrived]);
            let error = if round % 2 == 0 {
                client.messages().create(&question()).expect_err(&at)
            } else {
                read_cut_stream(&client, arrived, &at)
            };
            assert_eq!(error.kind(), ErrorKind::Stream, "{at}: {error:?}");
            assert_eq!(error.status(), None, "{at}");
            assert_eq!(error.attempts().len(), 1, "{at}");
            assert_eq!(error.attempts()[0].delivery, Delivery::Unknown, "{at}");
            match error.partial() {
                Some(partial) => seen.check(partial, &at),
                None => assert!(!seen.begun, "{at}: no partial message"),
            }
            cuts.fetch_add(1, Ordering::Relaxed);
        }
    });
    let cuts = cuts.into_inner();
    assert_eq!(cuts, CUTS * streams.len());
    println!("{} streams, {cuts} cuts", streams.len());
}

/// Number of cuts of each stream.
const CUTS: usize = 200;

/// Reads a stream that was cut after this many events, and returns its error.
#[track_caller]
fn read_cut_stream(client: &Client, arrived: usize, at: &str) -> Error {
    let mut stream = match client.messages().stream(&question()) {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let mut count = 0;
    let error = loop {
        match stream.next() {
            Some(Ok(_)) => count += 1,
            Some(Err(error)) => break error,
            None => panic!("{at}: the stream ended well"),
        }
    };
    assert_eq!(count, arrived, "{at}");
    assert_eq!(error.partial(), Some(stream.partial()), "{at}");
    assert!(stream.next().is_none(), "{at}: not fused");
    assert!(stream.final_message().is_err(), "{at}: a whole message");
    error
}

/// A recorded stream.
struct RecordedStream {
    name: String,
    body: String,
    /// The messages that the plain and the beta types of the official client make; null where it
    /// fails.
    finals: [Value; 2],
}

/// An event of a recorded stream, and the position of its end.
struct RecordedEvent {
    end: usize,
    data: Value,
}

/// What the events say of a message, by the simplest possible reading.
#[derive(Default)]
struct Seen {
    begun: bool,
    blocks: usize,
    text: String,
    thinking: String,
    stop_reason: Option<String>,
    output_tokens: Option<u64>,
}

fn streams() -> Vec<RecordedStream> {
    let lines = read("streams.jsonl");
    let streams: Vec<_> = lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            RecordedStream {
                name: text(&line["sha256"]).to_owned(),
                body: text(&line["body"]).to_owned(),
                finals: [line["final"].clone(), line["final_beta"].clone()],
            }
        })
        .collect();
    assert_eq!(streams.len(), 382);
    streams
}

impl RecordedStream {
    fn reply(&self, arrival: Arrival, seed: u64) -> Reply {
        let bytes = self.body.as_bytes();
        let mut rng = Rng::with_seed(seed);
        let mut script = StreamScript::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = match arrival {
                Arrival::Whole => rest.len(),
                Arrival::Bytes => 1,
                Arrival::Chunks if rng.bool() => rng.usize(1..=20),
                Arrival::Chunks => rng.usize(1..=2000),
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            script = script.raw(piece);
            rest = after;
        }
        match arrival {
            Arrival::Whole => self.with_length(),
            Arrival::Bytes | Arrival::Chunks => Reply::stream(script),
        }
    }

    fn with_length(&self) -> Reply {
        Reply::status(200)
            .header("content-type", "text/event-stream; charset=utf-8")
            .body(self.body.as_bytes())
    }

    /// Returns the stream, cut after this many bytes. Most cuts are orderly ends, which leave the
    /// connection reusable: a new connection costs more than the stream.
    fn cut(&self, length: usize, round: usize) -> Reply {
        let begin = &self.body.as_bytes()[..length];
        match round {
            // A reset discards bytes that were not yet sent, which may be the rest of a longer
            // body.
            0..16 if length < 16 * 1024 => self.with_length().reset_in_body(length),
            0..32 => self.with_length().truncate(length),
            32..48 => self.with_length().body(begin).close_delimited(),
            _ => Reply::stream(StreamScript::new().raw(begin)),
        }
    }

    /// Returns the number of bytes after which nothing is missing: up to the last brace of
    /// `message_stop`, since the line end and the blank line after it carry no data.
    fn least_whole(&self) -> usize {
        let stop = self.body.find("\ndata: {\"type\":\"message_stop\"");
        let stop = stop.unwrap_or_else(|| panic!("{} has no end", self.name));
        let end = self.body[stop..].find('}').expect("a brace");
        stop + end + 1
    }

    #[track_caller]
    fn check(&self, message: &Message, at: &str) {
        let ours = serde_json::to_value(message).expect("JSON");
        if self.name == NOT_COMPARED.0 {
            assert!(self.finals.iter().all(Value::is_null), "{at}");
            return Seen::of(&events(&self.body)).check(message, at);
        }
        let mut faults = Vec::new();
        for theirs in &self.finals {
            assert!(theirs.is_object(), "{at}");
            compare(at, &ours, theirs, &mut faults);
        }
        surplus(at, &ours, &self.finals.each_ref(), &mut faults);
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// Checks that every event was handed out as it was recorded, up to `message_stop`.
    #[track_caller]
    fn check_events(&self, ours: &[Value], at: &str) {
        let recorded = events(&self.body);
        let mut theirs = recorded
            .iter()
            .map(|event| &event.data)
            .filter(|data| !data.is_null());
        assert!(theirs.by_ref().take(ours.len()).eq(ours), "{at}");
        assert!(theirs.next().is_none(), "{at}: there are more events");
        assert_eq!(
            ours.last().expect("an event")["type"],
            "message_stop",
            "{at}"
        );
    }
}

/// Returns the events of a recorded body; the data is null where it is no JSON. All recordings end
/// their lines in LF and have one data line per event.
fn events(body: &str) -> Vec<RecordedEvent> {
    let mut end = 0;
    let mut events = Vec::new();
    for frame in body.split_inclusive("\n\n") {
        end += frame.len();
        let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
        if let Some(data) = data {
            let data = serde_json::from_str(data).unwrap_or_default();
            events.push(RecordedEvent { end, data });
        }
    }
    events
}

impl Seen {
    fn of(events: &[RecordedEvent]) -> Seen {
        let mut seen = Seen::default();
        for event in events {
            let data = &event.data;
            let part = |name: &str, field: &str| data[name][field].as_str().unwrap_or_default();
            match data["type"].as_str().unwrap_or_default() {
                "message_start" => {
                    seen.begun = true;
                    seen.output_tokens = data["message"]["usage"]["output_tokens"].as_u64();
                }
                "content_block_start" => {
                    seen.blocks += 1;
                    seen.text += part("content_block", "text");
                    seen.thinking += part("content_block", "thinking");
                }
                "content_block_delta" => {
                    seen.text += part("delta", "text");
                    seen.thinking += part("delta", "thinking");
                }
                "message_delta" => {
                    let reason = data["delta"]["stop_reason"].as_str();
                    seen.stop_reason = reason.map(str::to_owned);
                    let tokens = data["usage"]["output_tokens"].as_u64();
                    seen.output_tokens = tokens.or(seen.output_tokens);
                }
                _ => {}
            }
        }
        seen
    }

    #[track_caller]
    fn check(&self, message: &Message, at: &str) {
        assert!(self.begun, "{at}");
        assert_eq!(message.content.len(), self.blocks, "{at}");
        assert_eq!(message.text(), self.text, "{at}");
        let thinking = message.content.iter().filter_map(|block| match block {
            ContentBlock::Thinking(block) => Some(block.thinking.as_str()),
            _ => None,
        });
        assert_eq!(thinking.collect::<String>(), self.thinking, "{at}");
        let reason = message.stop_reason.as_ref().map(StopReason::as_str);
        assert_eq!(reason, self.stop_reason.as_deref(), "{at}");
        let tokens = message.usage.output_tokens;
        assert_eq!(tokens, self.output_tokens.unwrap_or_default(), "{at}");
    }
}

/// Lists what is missing or different in our message, apart from nulls.
fn compare(path: &str, ours: &Value, theirs: &Value, faults: &mut Vec<String>) {
    match (ours, theirs) {
        (_, Value::Null) => {}
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, theirs) in theirs {
                let ours = ours.get(key).unwrap_or(&Value::Null);
                compare(&format!("{path}.{key}"), ours, theirs, faults);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                compare(&format!("{path}[]"), ours, theirs, faults);
            }
        }
        _ if ours == theirs => {}
        _ => faults.push(format!("{path}: ours is {ours}, theirs {theirs}")),
    }
}

/// Lists what is in our message and in none of theirs, apart from nulls.
fn surplus(path: &str, ours: &Value, theirs: &[&Value], faults: &mut Vec<String>) {
    match ours {
        Value::Object(ours) => {
            for (key, ours) in ours {
                let theirs: Vec<_> = theirs.iter().filter_map(|t| t.get(key)).collect();
                surplus(&format!("{path}.{key}"), ours, &theirs, faults);
            }
        }
        Value::Array(ours) => {
            for (at, ours) in ours.iter().enumerate() {
                let theirs: Vec<_> = theirs.iter().filter_map(|t| t.get(at)).collect();
                surplus(&format!("{path}[]"), ours, &theirs, faults);
            }
        }
        Value::Null => {}
        _ if theirs.iter().any(|theirs| !theirs.is_null()) => {}
        _ => faults.push(format!("{path}: ours is {ours}, theirs unset")),
    }
}

/// Calls `work` with each item, on as many threads as there are cores.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    work(at, item);
                }
            });
        }
    });
}

// Helpers.

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
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
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
