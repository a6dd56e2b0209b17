//! The runner of the fault matrix: rows of what a server does, and the outcome that must follow.

use std::time::Duration;

use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
use anthropic_blocking::{
    Attempt, Client, ClientBuilder, Delivery, Error, ErrorKind, RequestId, Result, RetryPolicy,
};
use serde_json::json;

use crate::support::{HANG, KEY, PROMPT, builder, is_stretched, millis, request, seconds};

/// One row: what the server does at each attempt, and the outcome that must follow.
pub struct Case {
    pub name: String,
    pub ways: &'static [Way],
    pub tune: fn(ClientBuilder) -> ClientBuilder,
    pub steps: Vec<Step>,
    pub end: End,
}

/// One attempt: what the server does, how the attempt must be recorded, and the wait after it.
#[derive(Clone)]
pub struct Step {
    /// `None` for a good response.
    pub reply: Option<Reply>,
    pub delivery: Delivery,
    pub status: Option<u16>,
    pub failure: Option<ErrorKind>,
    /// The request id that must be reported.
    pub id: Id,
    pub wait: Wait,
    /// On a slow machine, a time limit passes before status and id are read.
    pub is_hasty: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Id {
    /// The id that the test server generates.
    Served,
    Missing,
    Own(&'static str),
}

/// A wait between two attempts.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// No attempt follows.
    Over,
    /// The backoff of failures: decorrelated, from 1 s to 16 s.
    Backoff,
    /// The backoff of overloads, which is drawn separately.
    Gate,
    /// The wait that the server asked for, and up to a tenth more.
    Asked(Duration),
    /// The backoff of failures, or the wait that the server asked for if that is longer.
    BackoffOrAsked(Duration),
    /// The backoff of overloads, or the wait that the server asked for if that is longer.
    GateOrAsked(Duration),
}

/// What the error must be, in addition to its last attempt. Ignored for a success.
#[derive(Clone, Default)]
pub struct End {
    pub is_retryable: bool,
    pub retry_after: Option<Duration>,
    /// Parts of the error's text.
    pub says: Vec<String>,
    /// Whether the server's own error object must have been found.
    pub has_api_error: bool,
}

/// The method that is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// `create`, with a response in one piece.
    Plain,
    /// `create`, streamed underneath.
    Streamed,
    /// `stream`, read to its end.
    Events,
    Count,
    Get,
    Post,
    Delete,
}

pub use Way::{Count, Delete, Events, Get, Plain, Post, Streamed};

pub const CREATE: &[Way] = &[Plain, Streamed, Events];
pub const ALL: &[Way] = &[Plain, Streamed, Events, Count, Get, Post, Delete];

impl Way {
    pub fn run(self, client: &Client) -> Result<(Vec<Attempt>, Option<RequestId>)> {
        let (raw, messages) = (client.raw(), client.messages());
        let returned = match self {
            Plain | Streamed => {
                let message = messages.create(&request())?;
                assert_eq!(message.text(), "Seven.");
                return Ok((message.attempts().to_vec(), message.request_id().cloned()));
            }
            Events => {
                let message = messages.stream(&request())?.final_message()?;
                assert_eq!(message.text(), "Seven.");
                return Ok((message.attempts().to_vec(), message.request_id().cloned()));
            }
            Count => {
                assert_eq!(messages.count_tokens(&request())?, 7);
                return Ok((Vec::new(), None));
            }
            Get => raw.get("/v1/x")?,
            Post => raw.post("/v1/x", &json!({"a": 1}))?,
            Delete => raw.delete("/v1/x")?,
        };
        Ok((returned.attempts().to_vec(), returned.request_id().cloned()))
    }

    /// Whether the budget waits for limits and overloads: only on endpoints that it knows.
    pub fn waits_in_queue(self) -> bool {
        !matches!(self, Get | Post | Delete)
    }

    /// Returns a good response.
    pub fn good(self) -> Reply {
        match self {
            Plain | Streamed | Events => Reply::message("Seven."),
            Count => Reply::json(200, r#"{"input_tokens":7}"#),
            Get | Post | Delete => Reply::json(200, "{}"),
        }
    }
}

pub fn case(name: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Case {
    Case {
        name: name.into(),
        ways: &[Plain, Streamed],
        tune: |builder| builder,
        steps: steps.into_iter().collect(),
        end: End::default(),
    }
}

impl Case {
    pub fn ways(mut self, ways: &'static [Way]) -> Case {
        self.ways = ways;
        self
    }

    pub fn tune(mut self, tune: fn(ClientBuilder) -> ClientBuilder) -> Case {
        self.tune = tune;
        self
    }

    /// Adds an attempt that succeeds.
    pub fn then_succeeds(mut self) -> Case {
        self.steps.push(good());
        self
    }

    /// Expects the error to say that a retry may help.
    pub fn retryable(mut self) -> Case {
        self.end.is_retryable = true;
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Case {
        self.end.retry_after = Some(wait);
        self
    }

    pub fn says<S: Into<String>>(mut self, parts: impl IntoIterator<Item = S>) -> Case {
        self.end.says.extend(parts.into_iter().map(Into::into));
        self
    }

    pub fn has_api_error(mut self) -> Case {
        self.end.has_api_error = true;
        self
    }

    /// Runs the row in each of its ways, and returns the failures.
    fn complaints(&self) -> Vec<String> {
        let run = |way: &Way| {
            let outcome = self.run(*way);
            let complaint = outcome.err()?;
            Some(format!("{} ({way:?}): {complaint}", self.name))
        };
        self.ways.iter().filter_map(run).collect()
    }

    pub fn run(&self, way: Way) -> Result<(), String> {
        let (server, clock) = (TestServer::start().map_err(text)?, ManualClock::new());
        for step in &self.steps {
            server.push(step.reply.clone().unwrap_or_else(|| way.good()));
        }
        let builder = builder(&server)
            .clock(&clock)
            .stream_underneath(way != Plain);
        let client = (self.tune)(builder).build().map_err(text)?;
        let last = self.steps.last().ok_or("a row without steps")?;
        let (attempts, id) = match (way.run(&client), last.failure) {
            (Ok(returned), None) => returned,
            (Ok(_), Some(kind)) => return Err(format!("no error of kind {kind:?}")),
            (Err(error), None) => return Err(format!("{error:?}")),
            (Err(error), Some(_)) => {
                self.check_error(&error, last)?;
                (error.attempts().to_vec(), error.request_id().cloned())
            }
        };
        if last.is_hasty {
            // The server may not have read the last request yet.
            let _ = server.wait_for_requests(self.steps.len(), HANG);
        }
        let count = server.request_count();
        same("requests at the server", &count, &self.steps.len())?;
        same("unused replies", &server.unused_replies(), &0)?;
        same("different bodies", &(bodies(&server) > 1), &false)?;
        let slept = clock.sleeps().iter().sum();
        let waited = client.totals().all.waited.total();
        if !is_about(waited, slept) {
            return Err(format!("slept {slept:?}, and says {waited:?}"));
        }
        if way == Count && last.failure.is_none() {
            return Ok(());
        }
        if !last.is_hasty {
            let id = id.map(|id| id.to_string());
            same("request id", &id, &last.id(self.steps.len()))?;
        }
        self.check_attempts(&attempts)?;
        let waits: Vec<Duration> = attempts.iter().map(|a| a.waited.total()).collect();
        same("wait before the first attempt", &waits[0], &Duration::ZERO)?;
        self.check_waits(way, &waits[1..])
    }

    fn check_error(&self, error: &Error, last: &Step) -> Result<(), String> {
        same("kind", &Some(error.kind()), &last.failure)?;
        let status = last.status.filter(|status| !(200..300).contains(status));
        same("status()", &error.status(), &status)?;
        same(
            "is_retryable",
            &error.is_retryable(),
            &self.end.is_retryable,
        )?;
        same("retry_after", &error.retry_after(), &self.end.retry_after)?;
        same(
            "api_error",
            &error.api_error().is_some(),
            &self.end.has_api_error,
        )?;
        let said = error.to_string();
        for part in &self.end.says {
            if !said.contains(part) {
                return Err(format!("{said:?} does not say {part:?}"));
            }
        }
        for form in [said, format!("{error:?}")] {
            let is_line = form.chars().all(|c| !c.is_control()) && form.len() < 2_500;
            if !is_line || form.contains(KEY) || form.contains(PROMPT) {
                return Err(format!("unfit for a terminal: {form:?}"));
            }
        }
        Ok(())
    }

    fn check_attempts(&self, attempts: &[Attempt]) -> Result<(), String> {
        same("attempts", &attempts.len(), &self.steps.len())?;
        for (index, (attempt, step)) in attempts.iter().zip(&self.steps).enumerate() {
            let at = |what: &str| format!("{what} of attempt {}", index + 1);
            same(&at("delivery"), &attempt.delivery, &step.delivery)?;
            same(&at("failure"), &attempt.failure, &step.failure)?;
            if !(step.is_hasty && attempt.status.is_none()) {
                let id = attempt.request_id.as_ref().map(ToString::to_string);
                same(&at("status"), &attempt.status, &step.status)?;
                same(&at("request id"), &id, &step.id(index + 1))?;
            }
        }
        Ok(())
    }

    /// Checks the waits against their bounds. Backoffs are decorrelated: each lies between the
    /// shortest and three times the one before, and below the longest. Where the budget waits, a
    /// pause is at most a tenth of a second longer than asked for, or two seconds where a second
    /// pause follows; and the wait of an overload is a quarter of a second to four seconds.
    fn check_waits(&self, way: Way, waits: &[Duration]) -> Result<(), String> {
        let (shortest, longest) = (seconds(1), seconds(16));
        let expected = self.steps[..self.steps.len() - 1].iter();
        let expected: Vec<Wait> = expected.map(|step| step.wait).collect();
        same("number of waits", &waits.len(), &expected.len())?;
        let (mut failure, mut overload) = (shortest, shortest);
        for (index, (waited, wait)) in waits.iter().zip(expected).enumerate() {
            let slack = if index == 0 { millis(110) } else { seconds(2) };
            let (previous, asked) = match wait {
                Wait::Over => return Err("a wait is missing in the row".to_owned()),
                Wait::Asked(asked) if way.waits_in_queue() => {
                    if *waited < asked || *waited > asked + slack {
                        return Err(format!("{waited:?} is no {wait:?}, in {waits:?}"));
                    }
                    continue;
                }
                Wait::Gate | Wait::GateOrAsked(_) if way.waits_in_queue() => {
                    let asked = match wait {
                        Wait::GateOrAsked(asked) => asked,
                        _ => Duration::ZERO,
                    };
                    let most = asked.max(seconds(4)) + millis(110);
                    if *waited < asked.max(millis(250)) || *waited > most {
                        return Err(format!("{waited:?} is no {wait:?}, in {waits:?}"));
                    }
                    continue;
                }
                Wait::Asked(asked) => (None, asked),
                Wait::Backoff => (Some(&mut failure), Duration::ZERO),
                Wait::BackoffOrAsked(asked) => (Some(&mut failure), asked),
                Wait::Gate => (Some(&mut overload), Duration::ZERO),
                Wait::GateOrAsked(asked) => (Some(&mut overload), asked),
            };
            let is_kept = match previous {
                None => is_stretched(*waited, asked),
                Some(previous) => {
                    let most = (*previous * 3).min(longest);
                    *previous = if asked.is_zero() { *waited } else { longest };
                    *waited >= shortest.max(asked) && *waited <= most.max(asked.mul_f64(1.1))
                }
            };
            if !is_kept {
                return Err(format!("{waited:?} is no {wait:?}, in {waits:?}"));
            }
        }
        Ok(())
    }
}

/// Whether two sums of waits agree, apart from a clock's rounding.
fn is_about(waited: Duration, slept: Duration) -> bool {
    waited.abs_diff(slept) < millis(1)
}

impl Step {
    fn id(&self, serial: usize) -> Option<String> {
        match self.id {
            Id::Served => Some(format!("req_test_{serial:06}")),
            Id::Missing => None,
            Id::Own(id) => Some(id.to_owned()),
        }
    }

    pub fn anonymous(mut self) -> Step {
        self.id = Id::Missing;
        self
    }

    pub fn hasty(mut self) -> Step {
        self.is_hasty = true;
        self
    }

    pub fn named(mut self, id: &'static str) -> Step {
        self.id = Id::Own(id);
        self
    }

    pub fn times(self, count: usize) -> impl Iterator<Item = Step> {
        std::iter::repeat_n(self, count)
    }
}

/// The server responds with a status that is no success; the wait follows.
pub fn answered(status: u16, reply: Reply, failure: ErrorKind, wait: Wait) -> Step {
    Step {
        reply: Some(reply),
        delivery: Delivery::Responded,
        status: Some(status),
        failure: Some(failure),
        id: Id::Served,
        wait,
        is_hasty: false,
    }
}

/// Nothing usable arrives, not even a status.
pub fn silent(reply: Reply, failure: ErrorKind, delivery: Delivery, wait: Wait) -> Step {
    Step {
        reply: Some(reply),
        delivery,
        status: None,
        failure: Some(failure),
        id: Id::Missing,
        wait,
        is_hasty: false,
    }
}

/// The response begins well and breaks.
pub fn broken(reply: Reply, failure: ErrorKind, wait: Wait) -> Step {
    Step {
        delivery: Delivery::Unknown,
        ..answered(200, reply, failure, wait)
    }
}

pub fn good() -> Step {
    Step {
        reply: None,
        delivery: Delivery::Responded,
        status: Some(200),
        failure: None,
        id: Id::Served,
        wait: Wait::Over,
        is_hasty: false,
    }
}

/// A success with another response than the usual one.
pub fn served(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        ..good()
    }
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Result<(), String> {
    if is == should {
        return Ok(());
    }
    Err(format!("{what}: {is:?}, should be {should:?}"))
}

pub fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// Counts the different bodies that arrived: a retry sends an identical one.
pub fn bodies(server: &TestServer) -> usize {
    let requests = server.requests().into_iter();
    let mut bodies: Vec<Vec<u8>> = requests.map(|request| request.body).collect();
    bodies.retain(|body| !body.is_empty());
    bodies.dedup();
    bodies.len()
}

/// Runs all rows and reports those that fail.
#[track_caller]
pub fn check(rows: impl IntoIterator<Item = Case>) {
    let complaints: Vec<String> = rows.into_iter().flat_map(|row| row.complaints()).collect();
    let (count, first) = (complaints.len(), &complaints[..complaints.len().min(20)]);
    assert!(count == 0, "{count} rows fail:\n{}", first.join("\n"));
}

/// Each cause is retried once, after a second. Where the budget waits, an overload lasts less
/// than a second: a `max_wait` of 300 ms has room for one such wait.
pub const TWO_ATTEMPTS: RetryPolicy = RetryPolicy::new()
    .max_attempts(2)
    .initial_backoff(Duration::from_secs(1))
    .max_backoff(Duration::from_secs(1))
    .max_wait(Duration::from_secs(1));

pub fn limited(message: &str) -> Reply {
    Reply::error(429, "rate_limit_error", message)
}

pub fn coded(status: u16, kind: &str, code: &str) -> Reply {
    Reply::error_code(status, kind, code, "A cause with a name")
}

pub fn limit(reply: Reply, wait: Wait) -> Step {
    answered(429, reply, ErrorKind::RateLimit, wait)
}

pub const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m",
    "content":[{"type":"text","text":"Seven."}],"stop_reason":"end_turn",
    "usage":{"input_tokens":1,"output_tokens":1}}"#;

pub fn raw_answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
