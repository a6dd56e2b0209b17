//! The one retry loop: send, read, diagnose, wait or return.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{debug, info};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::{Clock, Sleeper, lock};
use crate::diagnose::{Cure, Symptom, Verdict, diagnose};
use crate::error::{Cause, Error, Phase, Result, TimeLimit, clean, json_error, spoken};
use crate::rate_limits;
use crate::retry::{Decision, RetryBudget, RetryPolicy, Tries};
use crate::transport::{
    Answer, AnswerBody, BaseUrl, Fault, Headers, Outgoing, Patience, Transport,
};
use crate::types::{
    ApiError, Attempt, Delivery, ErrorEvent, ErrorKind, Exchange, Message, RateLimits, RequestId,
};

/// What a client shares with its clones.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) base: BaseUrl,
    pub(crate) transport: Transport,
    pub(crate) sleeper: Sleeper,
    pub(crate) dice: Mutex<Rng>,
    pub(crate) retries: Mutex<RetryBudget>,
    /// How many streams not to wait for the end of their bodies; see `stream.rs`.
    pub(crate) endless_bodies: AtomicU32,
}

/// What may differ between the clones of a client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) headers: Headers,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// For an answer in one piece; `None` is the default of ten minutes.
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) stream_underneath: bool,
}

/// One call of an endpoint.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Core,
    pub(crate) settings: &'a Settings,
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    /// Whether the request may be sent again whatever became of it: it reads, or costs nothing.
    pub(crate) repeatable: bool,
    /// How long to wait for an answer that comes in one piece after long work.
    pub(crate) answer_timeout: Option<Duration>,
}

/// Why an attempt failed, as far as its reader knows.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
    /// Whether the answer was a stream that had begun; its headers speak of a success.
    pub(crate) streamed: bool,
    /// Said inside the answer.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) partial: Option<Box<Message>>,
}

/// What the head of an answer said.
#[derive(Debug, Default)]
struct Head {
    status: Option<u16>,
    request_id: Option<RequestId>,
    rate_limits: RateLimits,
    should_retry: Option<bool>,
}

impl Call<'_> {
    /// Sends the request until `read` made something of an answer, or there is no more use in it.
    ///
    /// `read` is given answers with a status of success only. Blocks as long as the settings
    /// permit.
    pub(crate) fn run<T>(
        &self,
        mut read: impl FnMut(&mut Answer) -> Result<T, Failure>,
    ) -> Result<(T, Exchange)> {
        let mut progress = Progress::new(self);
        loop {
            if let Some(error) = progress.ended() {
                return Err(error);
            }
            let began = self.core.sleeper.clock().now();
            let (head, outcome) = self.attempt(progress.left(), &mut read);
            let took = self
                .core
                .sleeper
                .clock()
                .now()
                .saturating_duration_since(began);
            match outcome {
                Ok(value) => {
                    lock(&self.core.retries).deposit();
                    return Ok((value, progress.succeeded(head, took)));
                }
                Err(failure) => progress.failed(head, failure, took)?,
            }
        }
    }

    fn attempt<T>(
        &self,
        left: Option<Duration>,
        read: &mut impl FnMut(&mut Answer) -> Result<T, Failure>,
    ) -> (Head, Result<T, Failure>) {
        let outgoing = Outgoing {
            method: self.method,
            url: self.core.base.join(self.path),
            headers: &self.settings.headers,
            body: self.body,
            patience: Patience {
                connect: self.settings.connect_timeout,
                idle: self.settings.idle_timeout,
                answer: self.answer_timeout,
                deadline: left,
            },
        };
        let mut answer = match self.core.transport.send(&outgoing) {
            Ok(answer) => answer,
            Err(fault) => return (Head::default(), Err(fault.into())),
        };
        let mut head = self.read_head(&answer);
        let outcome = match answer.status {
            200..=299 => read(&mut answer),
            _ => Err(read_error(
                &mut answer,
                &mut head,
                self.core.sleeper.clock(),
            )),
        };
        (head, outcome)
    }

    fn read_head(&self, answer: &Answer) -> Head {
        let wall = self.core.sleeper.clock().wall();
        Head {
            status: Some(answer.status),
            request_id: answer.header("request-id").and_then(RequestId::new),
            rate_limits: rate_limits::read(answer.headers(), wall),
            should_retry: match answer.header("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
        }
    }

    /// What the call does, and to whom where that one was not reached.
    fn doing(&self, cause: &Cause) -> String {
        match cause.is_out_of_reach() {
            true => format!("{} to {}", self.action(), self.core.base.host()),
            false => self.action(),
        }
    }

    pub(crate) fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or("");
        format!("{} {path}", self.method)
    }
}

/// A call on its way: its time, its attempts, what is left to try.
struct Progress<'a> {
    call: &'a Call<'a>,
    start: Instant,
    tries: Tries,
    attempts: Vec<Attempt>,
    waited: Duration,
}

impl<'a> Progress<'a> {
    fn new(call: &'a Call<'a>) -> Progress<'a> {
        let dice = lock(&call.core.dice).fork();
        Progress {
            call,
            start: call.core.sleeper.clock().now(),
            tries: Tries::new(call.settings.retry, dice),
            attempts: Vec::new(),
            waited: Duration::ZERO,
        }
    }

    /// What is left until the deadline.
    fn left(&self) -> Option<Duration> {
        let now = self.call.core.sleeper.clock().now();
        let passed = now.saturating_duration_since(self.start);
        self.call
            .settings
            .deadline
            .map(|deadline| deadline.saturating_sub(passed))
    }

    /// The error of a call that may not go on.
    fn ended(&mut self) -> Option<Error> {
        if self.call.core.sleeper.is_stopped() {
            return Some(self.shut_down());
        }
        if self.left() != Some(Duration::ZERO) {
            return None;
        }
        let cause = Cause::TimeLimit {
            limit: TimeLimit::Deadline,
        };
        let attempts = std::mem::take(&mut self.attempts);
        let error = Error::new(ErrorKind::Timeout, self.call.action(), cause);
        Some(error.with_verdict(true, None, None).with_attempts(attempts))
    }

    fn succeeded(mut self, head: Head, took: Duration) -> Exchange {
        let attempt = self.attempt(&head, Delivery::Answered, None, took);
        debug!(
            target: LOG,
            "{}: {} in {}{}",
            self.call.action(),
            head.status.unwrap_or(200),
            spoken(took),
            shown(attempt.request_id.as_ref()),
        );
        self.attempts.push(attempt);
        Exchange {
            request_id: head.request_id,
            rate_limits: head.rate_limits,
            attempts: self.attempts,
        }
    }

    /// Takes note of a failure, and returns when it is time to try again.
    fn failed(&mut self, mut head: Head, mut failure: Failure, took: Duration) -> Result<()> {
        let call = self.call;
        head.request_id = head.request_id.or(failure.request_id.take());
        if failure.streamed {
            // It stands on ordinary successes and means nothing there.
            head.rate_limits.retry_after = None;
        }
        if call.core.sleeper.is_stopped() {
            let kind = Some(ErrorKind::Shutdown);
            self.attempts
                .push(self.attempt(&head, failure.delivery, kind, took));
            return Err(self.shut_down());
        }
        let retry_after = head.rate_limits.retry_after;
        let has_content = failure
            .partial
            .as_ref()
            .is_some_and(|part| !part.content.is_empty());
        let mut verdict = diagnose(&Symptom {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: call.repeatable,
            retry_after,
            should_retry: head.should_retry,
        });
        let id = shown(head.request_id.as_ref());
        let what = format!(
            "{}: {}{id}",
            call.doing(&failure.cause),
            failure.cause.brief()
        );
        debug!(target: LOG, "{what}, {} after {}", failure.delivery, spoken(took));
        let attempt = self.attempt(&head, failure.delivery, Some(verdict.kind), took);
        self.attempts.push(attempt);
        if has_content && verdict.cure != Cure::Nothing && !call.settings.retry.may_repeat() {
            verdict.cure = Cure::Repeat;
        }
        let decision = self.tries.decide(verdict.cure, retry_after, || {
            lock(&call.core.retries).withdraw(call.core.sleeper.clock().now())
        });
        let mut wait = match decision {
            Decision::GiveUp(reason) => return Err(self.error(head, failure, verdict, reason)),
            Decision::Again(wait) => wait,
        };
        if let (Some(asked), Some(left)) = (retry_after, self.left()) {
            if asked < left {
                // What is random must not miss the deadline, nor use up the time for the answer.
                wait = wait.min(asked + (left - asked) / 2);
            }
        }
        if self.left().is_some_and(|left| wait >= left) {
            let wait = spoken(wait);
            let reason = format!("the next try, in {wait}, would be after the deadline");
            return Err(self.error(head, failure, verdict, Some(reason)));
        }
        let next = self.attempts.len() + 1;
        info!(target: LOG, "{what}: waiting {} before attempt {next}", spoken(wait));
        self.waited = wait;
        call.core.sleeper.sleep(wait).map_err(|_| self.shut_down())
    }

    fn shut_down(&mut self) -> Error {
        let attempts = std::mem::take(&mut self.attempts);
        Error::new(ErrorKind::Shutdown, self.call.action(), Cause::Shutdown).with_attempts(attempts)
    }

    fn attempt(
        &self,
        head: &Head,
        delivery: Delivery,
        failure: Option<ErrorKind>,
        took: Duration,
    ) -> Attempt {
        Attempt {
            delivery,
            status: head.status,
            failure,
            request_id: head.request_id.clone(),
            waited: self.waited,
            took,
        }
    }

    fn error(
        &mut self,
        head: Head,
        failure: Failure,
        verdict: Verdict,
        reason: Option<String>,
    ) -> Error {
        Error::new(verdict.kind, self.call.doing(&failure.cause), failure.cause)
            .with_verdict(verdict.is_retryable(), verdict.advice, reason)
            .with_answer(head.request_id, head.rate_limits)
            .with_attempts(std::mem::take(&mut self.attempts))
            .with_partial(failure.partial)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure {
            delivery: fault.delivery,
            ..Failure::from(fault.cause)
        }
    }
}

impl From<Cause> for Failure {
    /// The worst case: sent, outcome unknown.
    fn from(cause: Cause) -> Failure {
        Failure {
            cause,
            delivery: Delivery::Unknown,
            streamed: false,
            request_id: None,
            partial: None,
        }
    }
}

impl From<ErrorEvent> for Failure {
    fn from(event: ErrorEvent) -> Failure {
        let cause = Cause::Api {
            status: None,
            error: Box::new(event.error),
        };
        let (delivery, request_id) = (Delivery::Answered, event.request_id);
        Failure {
            delivery,
            request_id,
            ..Failure::from(cause)
        }
    }
}

/// Writes the body of a request.
pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| {
        let cause = Cause::Unusable {
            what: "it cannot be written as JSON".into(),
            source: json_error(&error),
        };
        Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
    })
}

/// Reads an answer in one piece; whether that was all of it is the second value.
pub(crate) fn read_bytes(answer: &mut Answer) -> Result<(Vec<u8>, bool), Failure> {
    let mut body = Vec::new();
    let whole = read_rest(&mut answer.body, &mut body)?;
    Ok((body, whole))
}

/// Whether a body is the beginning of JSON, of an answer that does not say where it ends.
pub(crate) fn is_cut(answer: &Answer, body: &[u8]) -> bool {
    !answer.is_framed()
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof())
}

/// The connection was closed in the middle of an answer.
pub(crate) fn cut() -> Failure {
    let source = "the connection was closed in the middle of it".into();
    Failure::from(Cause::Transport {
        phase: Phase::Body,
        source,
    })
}

/// Reads the rest of an answer in one piece; says whether that was all of it.
pub(crate) fn read_rest(body: &mut AnswerBody, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
    body.read_up_to(LARGEST_ANSWER, bytes)
}

/// Reads an answer in one piece as JSON.
pub(crate) fn read_json<T: DeserializeOwned>(
    answer: &mut Answer,
    expected: &'static str,
) -> Result<T, Failure> {
    let (body, whole) = read_bytes(answer)?;
    parse_json(&body, whole, answer, expected)
}

/// Reads JSON that came with a status of success.
pub(crate) fn parse_json<T: DeserializeOwned>(
    body: &[u8],
    whole: bool,
    answer: &Answer,
    expected: &'static str,
) -> Result<T, Failure> {
    let encoding = answer.header("content-encoding");
    if is_cut(answer, body) {
        return Err(cut());
    }
    let parsed = if whole {
        serde_json::from_slice(body).map_err(Some)
    } else {
        Err(None)
    };
    parsed.map_err(|error| match ApiError::from_envelope(body) {
        Some((error, request_id)) => Failure::from(ErrorEvent { error, request_id }),
        None => {
            let source = error.as_ref().map(json_error);
            let excerpt = excerpt_of_success(body, encoding);
            let cause = Cause::Decode {
                expected,
                excerpt,
                source,
            };
            Failure {
                delivery: Delivery::Answered,
                ..Failure::from(cause)
            }
        }
    })
}

/// Reads the body of an answer whose status is no success. A body that breaks off is read as far
/// as it came: the status says enough.
fn read_error(answer: &mut Answer, head: &mut Head, clock: &Clock) -> Failure {
    let mut body = Vec::new();
    let _ = answer
        .body
        .read_for(LONGEST_ERROR, clock, LARGEST_ERROR, &mut body);
    let cause = match ApiError::from_body(&body) {
        Some((error, request_id)) => {
            head.request_id = head.request_id.take().or(request_id);
            Cause::Api {
                status: Some(answer.status),
                error: Box::new(error),
            }
        }
        None => {
            let redirect = (300..400).contains(&answer.status);
            let excerpt = match answer.header("location").filter(|_| redirect) {
                Some(location) => format!("redirect to {}", clean(location, 200)),
                None => excerpt(&body, answer.header("content-encoding")),
            };
            Cause::Status {
                status: answer.status,
                excerpt,
            }
        }
    };
    Failure {
        delivery: Delivery::Answered,
        ..Failure::from(cause)
    }
}

/// A few words of a body that is not what it should be: the title of a page, or its beginning.
fn excerpt(body: &[u8], encoding: Option<&str>) -> String {
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
        return format!(
            "{} bytes compressed with {}",
            body.len(),
            clean(encoding, 20)
        );
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(LARGEST_ERROR)]);
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let start = start + "<title>".len();
        let length = lower[start..].find("</title>")?;
        text.get(start..start + length)
    });
    clean(title.unwrap_or(&text), 200)
}

/// The same for a body that came with a status of success: unless it is a page, it may be an answer
/// and is not shown.
fn excerpt_of_success(body: &[u8], encoding: Option<&str>) -> String {
    match body.trim_ascii_start().first() {
        None => "it is empty".to_owned(),
        Some(b'<') => excerpt(body, encoding),
        Some(_) if encoding.is_some_and(|encoding| encoding != "identity") => {
            excerpt(body, encoding)
        }
        Some(_) => String::new(),
    }
}

fn shown(request_id: Option<&RequestId>) -> String {
    request_id.map(|id| format!(" ({id})")).unwrap_or_default()
}

/// The target of all log lines.
pub(crate) const LOG: &str = "anthropic_blocking";

/// The most bytes of an answer in one piece; the longest answers have some hundred kilobytes.
const LARGEST_ANSWER: usize = 128 << 20;

/// How long an error body is read that comes in drops: the status says enough.
const LONGEST_ERROR: Duration = Duration::from_secs(5);

/// The most bytes of an error body.
const LARGEST_ERROR: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_by_their_title() {
        let page = b"<html>\n<head><TITLE>502 Bad\n Gateway</TITLE></head><body>x</body></html>";
        assert_eq!(excerpt(page, None), "502 Bad Gateway");
        assert_eq!(excerpt(b"<title>never closed", None), "<title>never closed");
        assert_eq!(
            excerpt("<title>\u{130}</title>".as_bytes(), None),
            "\u{130}"
        );
    }

    #[test]
    fn other_bodies_are_cut_and_compressed_ones_named() {
        assert_eq!(excerpt(&[0xff; 10_000], None).chars().count(), 201);
        assert_eq!(excerpt(b"", None), "");
        assert_eq!(
            excerpt(&[31, 139, 8], Some("gzip")),
            "3 bytes compressed with gzip"
        );
        assert_eq!(excerpt(b"plain", Some("identity")), "plain");
    }
}
