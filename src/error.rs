//! The error type of the crate, and how its texts are made.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

// Declared in `types` because a message holds its attempts, each with the kind of its failure.
pub use crate::types::ErrorKind;
use crate::types::{ApiError, Attempt, Message, RateLimits, RequestId};

/// The result of a call of this crate that can fail.
///
/// ```
/// use anthropic_blocking::{Client, MessageRequest};
///
/// fn ask(client: &Client, question: &str) -> anthropic_blocking::Result<String> {
///     let request = MessageRequest::new("claude-haiku-4-5", 256).user(question);
///     Ok(client.messages().create(&request)?.text())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// Match on [`kind`](Error::kind). `{error}` is one line that says what the client did, what happened,
/// the cause as the operating system, TLS or serde names it, what a person can do, and the request
/// id. `{error:?}` is one line for logs: the kind and the same text. Neither contains keys, prompts
/// or replies of a model; of an error response they contain a short excerpt. The text contains what
/// [`source`](std::error::Error::source) says, which is there to be matched on.
/// [`attempts`](Error::attempts) lists each attempt and its failure.
///
/// ```
/// use anthropic_blocking::{Client, ErrorKind};
///
/// let error = Client::new("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert_eq!(error.to_string(), "building the client: the API key is empty");
/// assert_eq!(format!("{error:?}"), "[configuration] building the client: the API key is empty");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    /// What the client did, such as `POST /v1/messages`.
    action: Cow<'static, str>,
    cause: Cause,
    /// What a person can do.
    advice: Option<&'static str>,
    is_retryable: bool,
    request_id: Option<RequestId>,
    rate_limits: RateLimits,
    attempts: Vec<Attempt>,
    partial: Option<Box<Message>>,
    /// Why the call ended here, where that is not plain from the cause.
    reason: Option<String>,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        action: impl Into<Cow<'static, str>>,
        cause: Cause,
    ) -> Error {
        Error(Box::new(Inner {
            kind,
            action: action.into(),
            cause,
            advice: None,
            is_retryable: false,
            request_id: None,
            rate_limits: RateLimits::default(),
            attempts: Vec::new(),
            partial: None,
            reason: None,
        }))
    }

    /// Returns the error for a setting that cannot be used.
    pub(crate) fn config(what: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Config, BUILDING, Cause::Rejected(what.into()))
    }

    /// Returns the error for a setting that the parser of a library refused.
    pub(crate) fn config_from(what: impl Into<Cow<'static, str>>, source: BoxError) -> Error {
        Error::new(
            ErrorKind::Config,
            BUILDING,
            Cause::Unusable {
                what: what.into(),
                source,
            },
        )
    }

    /// Returns the error for a request that is refused before it is sent.
    pub(crate) fn rejected(
        action: impl Into<Cow<'static, str>>,
        what: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(
            ErrorKind::InvalidRequest,
            action,
            Cause::Rejected(what.into()),
        )
    }

    /// Sets what a person can do about the error.
    pub(crate) fn with_advice(mut self, advice: &'static str) -> Error {
        self.0.advice = Some(advice);
        self
    }

    /// Sets whether a retry may succeed, what a person can do, and why the call was not retried, where
    /// that is not plain from the cause.
    pub(crate) fn with_classification(
        mut self,
        is_retryable: bool,
        advice: Option<&'static str>,
        reason: Option<String>,
    ) -> Error {
        self.0.is_retryable = is_retryable;
        self.0.advice = advice;
        self.0.reason = reason;
        self
    }

    /// Adds a reason why the call ended here.
    pub(crate) fn with_reason(mut self, reason: String) -> Error {
        self.0.reason = Some(match self.0.reason.take() {
            Some(before) => format!("{before}; {reason}"),
            None => reason,
        });
        self
    }

    /// Sets what the last response's headers say.
    pub(crate) fn with_response(mut self, id: Option<RequestId>, limits: RateLimits) -> Error {
        self.0.request_id = id;
        self.0.rate_limits = limits;
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Error {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_partial(mut self, partial: Option<Box<Message>>) -> Error {
        self.0.partial = partial;
        self
    }

    /// Returns the kind of the failure.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, request: &MessageRequest) -> Result<Option<String>> {
    /// match client.messages().create(request) {
    ///     Ok(message) => Ok(Some(message.text())),
    ///     Err(error) if error.kind() == ErrorKind::Overloaded => Ok(None),
    ///     Err(error) => Err(error),
    /// }
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the HTTP status of a response that is no success. An error inside a stream has none: the
    /// status of that response was 200.
    pub fn status(&self) -> Option<u16> {
        match &self.0.cause {
            Cause::Api { status, .. } => *status,
            Cause::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns the error object that the server sent, if it sent one.
    pub fn api_error(&self) -> Option<&ApiError> {
        match &self.0.cause {
            Cause::Api { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Returns the id under which the server logged the last attempt: quote it when you ask for support.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.0.request_id.as_ref()
    }

    /// Returns how long the server asked to wait before a retry. Also set when the call ended because
    /// that wait was longer than the settings allow.
    ///
    /// ```
    /// # fn schedule(error: &anthropic_blocking::Error) {
    /// if let Some(wait) = error.retry_after().filter(|_| error.is_retryable()) {
    ///     println!("again in {wait:?}");
    /// }
    /// # }
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.rate_limits.retry_after
    }

    /// Returns what the last response's headers say about rate limits.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.0.rate_limits
    }

    /// Returns every attempt of the call, the last one last; empty if nothing was sent.
    ///
    /// ```
    /// # fn show(error: &anthropic_blocking::Error) {
    /// for attempt in error.attempts() {
    ///     let (status, took) = (attempt.status, attempt.took);
    ///     eprintln!("{status:?} after {took:?}, {}: {:?}", attempt.delivery, attempt.request_id);
    /// }
    /// # }
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }

    /// Returns the part of the message that had arrived before a stream broke.
    ///
    /// ```
    /// use anthropic_blocking::{MessageStream, Result};
    ///
    /// fn read(stream: MessageStream) -> Result<String> {
    ///     match stream.final_message() {
    ///         Ok(message) => Ok(message.text()),
    ///         Err(error) => match error.partial() {
    ///             Some(part) if part.text().len() > 1_000 => Ok(part.text() + " […]"),
    ///             _ => Err(error),
    ///         },
    ///     }
    /// }
    /// ```
    pub fn partial(&self) -> Option<&Message> {
        self.0.partial.as_deref()
    }

    /// Whether the same request may succeed later. The client itself has then retried as often and as
    /// long as its settings allowed.
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{}: {}", inner.action, inner.cause)?;
        if let Some(reason) = &inner.reason {
            write!(f, "; {reason}")?;
        }
        if let Some(advice) = inner.advice {
            write!(f, "; {advice}")?;
        }
        match (&inner.request_id, inner.attempts.len()) {
            (Some(id), 0 | 1) => write!(f, " ({id})"),
            (Some(id), n) => write!(f, " ({id}, {n} attempts)"),
            (None, 0 | 1) => Ok(()),
            (None, n) => write!(f, " ({n} attempts)"),
        }
    }
}

impl fmt::Debug for Error {
    /// One line of text, because a `main` that returns an error prints the `Debug` form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.source()
    }
}

/// What happened, in an attempt or before the first one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// A check of ours failed, such as that of a setting or of a request.
    #[error("{0}")]
    Rejected(Cow<'static, str>),
    /// The operating system or a parser refused something of the caller's, such as a file, a setting
    /// or a value that cannot be written as JSON.
    #[error("{what}{}", source_text(.source))]
    Unusable {
        what: Cow<'static, str>,
        source: BoxError,
    },
    /// The server sent its error object.
    #[error("{}", api_text(.status, .error))]
    Api {
        /// `None` for an error inside a stream.
        status: Option<u16>,
        error: Box<ApiError>,
    },
    /// The server, or something on the way, sent a status with another body.
    #[error("{}", status_text(*.status, .excerpt))]
    Status { status: u16, excerpt: String },
    /// The connection failed.
    #[error("{phase} failed{}", source_text(.source))]
    Transport { phase: Phase, source: BoxError },
    /// The server's certificate is not trusted.
    #[error("the server's certificate was refused{}", source_text(.source))]
    Certificate { source: BoxError },
    /// The stream ended before its last event.
    #[error("the stream ended before its last event")]
    Truncated,
    /// A time limit of one attempt passed.
    #[error("{limit}")]
    TimeLimit { limit: TimeLimit },
    /// The response cannot be parsed.
    #[error("the response is not {expected}{}", decode_text(.excerpt, .source))]
    Decode {
        expected: &'static str,
        /// The title of a page, or a few words about the body; empty where the body may be a reply.
        excerpt: String,
        source: Option<BoxError>,
    },
    /// The client was shut down.
    #[error("the client was shut down")]
    Shutdown,
}

impl Cause {
    /// Returns the cause for a response that is not what it should be, without an excerpt of it.
    pub(crate) fn unreadable(expected: &'static str, source: Option<BoxError>) -> Cause {
        Cause::Decode {
            expected,
            excerpt: String::new(),
            source,
        }
    }

    /// Returns the text for a log line: shorter than that of an error.
    pub(crate) fn brief(&self) -> String {
        sanitize(&self.to_string(), MAX_BRIEF)
    }

    /// Whether the request cannot have reached the server.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        matches!(
            self,
            Cause::Transport {
                phase: Phase::Resolve | Phase::Connect | Phase::Tls | Phase::Send,
                ..
            } | Cause::TimeLimit {
                limit: TimeLimit::Connect
            } | Cause::Certificate { .. }
                | Cause::Unusable { .. }
        )
    }
}

pub(crate) type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What the client did with the connection when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Resolve,
    Connect,
    Tls,
    Send,
    Head,
    Body,
    Stream,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "looking up the host",
            Phase::Connect => "connecting",
            Phase::Tls => "the TLS handshake",
            Phase::Send => "sending the request",
            Phase::Head => "waiting for the response",
            Phase::Body => "reading the response",
            Phase::Stream => "reading the stream",
        })
    }
}

/// A time limit of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// No connection within the connect timeout.
    Connect,
    /// No byte within the idle timeout.
    Idle,
    /// No response within the timeout.
    Response,
    /// The deadline of the call passed during the attempt.
    Deadline,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeLimit::Connect => "no connection within the connect timeout",
            TimeLimit::Idle => "no byte arrived within the idle timeout",
            TimeLimit::Response => "no response within the timeout",
            TimeLimit::Deadline => "the deadline passed",
        })
    }
}

/// Returns text from outside as one line for a terminal: without control characters and characters
/// that change the direction of writing, with each run of white space as one blank, cut after
/// `max_chars` characters.
pub(crate) fn sanitize(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    let is_bidi_control = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control() || is_bidi_control(c))
        .filter(|word| !word.is_empty())
    {
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for character in word.chars() {
            if length >= max_chars {
                line.push('…');
                return line;
            }
            line.push(character);
            length += 1;
        }
    }
    line
}

/// Returns what serde says about JSON, without the value that serde quotes, which may be a part of a
/// prompt or a reply.
pub(crate) fn json_error(error: &serde_json::Error) -> BoxError {
    let text = error.to_string();
    let quote = if text.starts_with("missing field") {
        // Quotes the name of a field, which is not a value.
        None
    } else {
        text.find(['"', '`'])
    };
    let what = match quote {
        None => text,
        Some(quote) if error.line() == 0 => text[..quote].trim_end().to_owned(),
        Some(quote) => {
            let (before, line, column) = (text[..quote].trim_end(), error.line(), error.column());
            format!("{before} at line {line} column {column}")
        }
    };
    what.into()
}

/// Returns a duration as people say it: `850 ms`, `1.5 s`, `4 min 10 s`, `2 h 5 min`.
pub(crate) fn display_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{:.0} s", duration.as_secs_f64()),
        120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn api_text(status: &Option<u16>, error: &ApiError) -> String {
    let kind = sanitize(error.kind.as_str(), MAX_ERROR_TYPE);
    let mut text = match status {
        Some(status) if kind.is_empty() => format!("status {status}"),
        Some(status) => format!("{status} {kind}"),
        None => format!("{kind} after status 200"),
    };
    if let Some(code) = error.error_code() {
        text += &format!(" ({})", sanitize(code, MAX_ERROR_TYPE));
    }
    let message = sanitize(&error.message, MAX_EXCERPT);
    if !message.is_empty() {
        text += ": ";
        text += message.trim_end_matches('.');
    }
    text
}

fn status_text(status: u16, excerpt: &str) -> String {
    if excerpt.is_empty() {
        format!("status {status} without a body")
    } else {
        format!("status {status}: {excerpt}")
    }
}

fn decode_text(excerpt: &str, source: &Option<BoxError>) -> String {
    let mut text = String::new();
    if !excerpt.is_empty() {
        text += &format!(": {excerpt}");
    }
    if let Some(source) = source {
        text += &source_text(source);
    }
    text
}

/// Returns what the operating system, TLS or serde says, to be appended to a text of ours: `: ` and
/// the source, then the sources behind the source, down to the innermost one. Leaves out a source
/// that the text of the one before quotes.
fn source_text(source: &BoxError) -> String {
    let mut text = String::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(&**source);
    while let Some(error) = next {
        let shown = sanitize(&error.to_string(), MAX_EXCERPT);
        if !shown.is_empty() && !text.contains(&shown) {
            text += ": ";
            text += &shown;
        }
        next = error.source();
    }
    text
}

const BUILDING: &str = "building the client";

/// The most characters of a server's text, or of a source, in an error text: five lines of a terminal.
const MAX_EXCERPT: usize = 400;

/// The most characters of a cause in a log line: three lines of a terminal.
const MAX_BRIEF: usize = 240;

/// The most characters of the server's error type, and of its error code, in an error text.
const MAX_ERROR_TYPE: usize = 80;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;

    use super::*;
    use crate::types::{ApiErrorType, Delivery, Waits};

    fn attempt() -> Attempt {
        Attempt {
            delivery: Delivery::Responded,
            status: Some(429),
            failure: Some(ErrorKind::RateLimit),
            request_id: None,
            waited: Waits::default(),
            took: Duration::from_millis(5),
        }
    }

    fn rate_limit_error() -> Error {
        let body =
            br#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow\ndown."}}"#;
        let (error, _) = ApiError::from_body(body).expect("an error object");
        assert_eq!(error.kind, ApiErrorType::RateLimit);
        let cause = Cause::Api {
            status: Some(429),
            error: Box::new(error),
        };
        let id = RequestId::new("req_1");
        Error::new(ErrorKind::RateLimit, "POST /v1/messages", cause)
            .with_response(id, RateLimits::default())
    }

    #[test]
    fn text_has_action_cause_reason_advice_and_id() {
        let text = "POST /v1/messages: 429 rate_limit_error: Slow down";
        assert_eq!(rate_limit_error().to_string(), format!("{text} (req_1)"));
        let error = rate_limit_error()
            .with_attempts(vec![attempt(), attempt()])
            .with_classification(
                true,
                Some("raise max_wait"),
                Some("2 min is longer than max_wait".into()),
            );
        assert_eq!(
            error.to_string(),
            format!("{text}; 2 min is longer than max_wait; raise max_wait (req_1, 2 attempts)")
        );
    }

    #[test]
    fn debug_form_is_one_line_with_the_kind() {
        let io = io::Error::new(io::ErrorKind::ConnectionRefused, "connection\nrefused");
        let cause = Cause::Transport {
            phase: Phase::Connect,
            source: Box::new(io),
        };
        let error = Error::new(ErrorKind::Connection, "GET /v1/models", cause);
        assert_eq!(
            format!("{error:?}"),
            "[connection] GET /v1/models: connecting failed: connection refused"
        );
    }

    #[test]
    fn text_carries_the_error_of_the_operating_system() {
        let full = || io::Error::from_raw_os_error(28).into();
        let cause = Cause::Unusable {
            what: "run.jsonl cannot be written".into(),
            source: full(),
        };
        let error = Error::new(ErrorKind::Config, "keeping the journal", cause);
        let system = io::Error::from_raw_os_error(28).to_string();
        assert_eq!(
            error.to_string(),
            format!("keeping the journal: run.jsonl cannot be written: {system}")
        );
        let cause = Cause::Transport {
            phase: Phase::Connect,
            source: full(),
        };
        assert_eq!(cause.to_string(), format!("connecting failed: {system}"));
        assert_eq!(cause.brief(), cause.to_string());
    }

    #[test]
    fn text_carries_the_error_of_tls() {
        let source = io::Error::other("invalid peer certificate: UnknownIssuer").into();
        assert_eq!(
            Cause::Certificate { source }.to_string(),
            "the server's certificate was refused: invalid peer certificate: UnknownIssuer"
        );
    }

    #[test]
    fn text_carries_the_error_of_serde_without_its_value() {
        let wrong_type = serde_json::from_str::<u32>("\n \"secret\"").unwrap_err();
        let cause = Cause::unreadable("a count", Some(json_error(&wrong_type)));
        assert_eq!(
            cause.to_string(),
            "the response is not a count: invalid type: string at line 2 column 9"
        );
        let cut = serde_json::from_str::<u32>("").unwrap_err();
        let cause = Cause::Decode {
            expected: "a count",
            excerpt: "the body is empty".to_owned(),
            source: Some(json_error(&cut)),
        };
        assert_eq!(
            cause.to_string(),
            "the response is not a count: the body is empty: EOF while parsing a value at line 1 column 0"
        );
        let keys = HashMap::from([((1, 2), 3)]);
        let unwritable = serde_json::to_string(&keys).unwrap_err();
        let cause = Cause::Unusable {
            what: "the request cannot be written as JSON".into(),
            source: json_error(&unwritable),
        };
        assert_eq!(
            cause.to_string(),
            "the request cannot be written as JSON: key must be a string"
        );
    }

    #[test]
    fn text_of_a_source_is_one_bounded_line() {
        let long = format!("a\r\n\u{1b}[2J{}", "x".repeat(10_000));
        let cause = Cause::Transport {
            phase: Phase::Stream,
            source: long.into(),
        };
        let text = cause.to_string();
        assert!(
            text.starts_with("reading the stream failed: a [2Jxx"),
            "{text}"
        );
        assert_eq!(
            text.chars().count(),
            "reading the stream failed: ".len() + MAX_EXCERPT + 1
        );
        assert_eq!(cause.brief().chars().count(), MAX_BRIEF + 1);
    }

    #[test]
    fn each_source_of_a_chain_is_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Link {
            text: &'static str,
            source: Option<Box<Link>>,
        }
        let link = |text, source| Link { text, source };
        let innermost = link("no route", None);
        let quoting = link("dial: no route (7)", Some(Box::new(innermost)));
        let cause = Cause::Transport {
            phase: Phase::Tls,
            source: Box::new(link("proxy", Some(Box::new(quoting)))),
        };
        assert_eq!(
            cause.to_string(),
            "the TLS handshake failed: proxy: dial: no route (7)"
        );
        let error = Error::new(ErrorKind::Connection, "GET /v1/models", cause);
        assert_eq!(
            format!("{error:?}"),
            format!("[connection] {error}"),
            "the debug form repeats nothing"
        );
    }

    #[test]
    fn each_cause_has_its_text() {
        let text = |cause: Cause| cause.to_string();
        assert_eq!(text(Cause::Rejected("x".into())), "x");
        let status = |excerpt: &str| Cause::Status {
            status: 502,
            excerpt: excerpt.into(),
        };
        assert_eq!(text(status("")), "status 502 without a body");
        assert_eq!(text(status("bad gateway")), "status 502: bad gateway");
        for (limit, expected) in [
            (
                TimeLimit::Connect,
                "no connection within the connect timeout",
            ),
            (TimeLimit::Idle, "no byte arrived within the idle timeout"),
            (TimeLimit::Response, "no response within the timeout"),
            (TimeLimit::Deadline, "the deadline passed"),
        ] {
            assert_eq!(text(Cause::TimeLimit { limit }), expected);
        }
        let decode = |excerpt: &str| Cause::Decode {
            expected: "JSON",
            excerpt: excerpt.into(),
            source: None,
        };
        assert_eq!(text(decode("")), "the response is not JSON");
        assert_eq!(text(decode("<p>")), "the response is not JSON: <p>");
        assert_eq!(text(Cause::Shutdown), "the client was shut down");
    }

    #[test]
    fn text_from_outside_is_one_bounded_line() {
        assert_eq!(sanitize("a\u{1b}[31m  b\r\n\tc", 100), "a [31m b c");
        assert_eq!(sanitize("ab\u{202e}dc \u{2066}e", 100), "ab dc e");
        let long = sanitize(&"x".repeat(1_000_000), MAX_EXCERPT);
        assert_eq!(long.chars().count(), MAX_EXCERPT + 1);
    }

    #[test]
    fn durations_read_as_people_say_them() {
        for (millis, expected) in [
            (850, "850 ms"),
            (1_500, "1.5 s"),
            (59_600, "60 s"),
            (250_000, "4 min 10 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(display_duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn error_is_one_word_wide_and_crosses_threads() {
        fn assert_crosses_threads<T: Send + Sync + 'static>() {}
        assert_crosses_threads::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
