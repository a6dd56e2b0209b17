//! Scripted replies: what each says, how it is framed, and what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::stream::{StreamScript, quoted};
use crate::types::{Content as MessageContent, ContentBlock, ToolUseBlock};

/// One answer of a [`TestServer`](super::TestServer), with its faults; cheap to clone.
///
/// A reply begins with one of the constructors; the setters change it. Unless a setter says
/// otherwise it is sent at once, in one piece, with a content length (a stream: in HTTP chunks), and
/// the connection stays open for the next request. A reply has at most one fault: the last one set.
///
/// Replies carry `content-type`, `request-id` (`req_test_000001` for the first request that the
/// server received, and so on) and `anthropic-organization-id`. Only [`html`](Reply::html) and
/// [`status`](Reply::status), which come from a proxy and not from the API, have no ids.
///
/// # What a reset is
///
/// The socket is closed while the end of the request is still unread in the kernel, which makes the
/// kernel send a TCP reset (RST): the client sees "connection reset" on Linux, Windows and most
/// other systems. On Linux the client can still read what had reached it before the reset, but of a
/// body beyond some 64 kB the rest may be lost; elsewhere all of it may. Where one client sends
/// several requests without waiting for the answers, the end may have been read already, and the
/// connection ends without a reset.
///
/// ```
/// use std::time::Duration;
/// use anthropic_blocking::testing::{Reply, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// server.push_all([
///     Reply::rate_limited(1),
///     Reply::overloaded().delay(Duration::from_millis(5)),
///     Reply::message("Seven.").reset_in_body(20),
///     Reply::message("Seven."),
/// ]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    pub(super) content: ReplyContent,
    /// Headers of the constructor; a header set by the caller replaces them.
    pub(super) defaults: Vec<(&'static str, DefaultValue)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) without: Vec<String>,
    pub(super) body: Option<Arc<[u8]>>,
    pub(super) framing: Framing,
    pub(super) is_last: bool,
    pub(super) delay: Duration,
    pub(super) fault: Option<InjectedFault>,
    pub(super) dribble: Option<(usize, Duration)>,
}

impl Reply {
    /// A JSON answer: `body` is JSON text or a `serde_json::Value`, by value or by reference.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    /// use serde_json::json;
    ///
    /// let reply = Reply::json(200, json!({"input_tokens": 12})).header("x-note", "counted");
    /// ```
    pub fn json(status: u16, body: impl ToString) -> Self {
        Reply::new(ReplyContent::Fixed {
            status,
            content_type: "application/json",
            body: body.to_string().into_bytes().into(),
        })
    }

    /// A message that says this, a text or [`ContentBlock`]s: a stream when the request asks for one,
    /// as that of a plain [`create`](crate::Messages::create) does, otherwise JSON.
    ///
    /// The model is the one of the request; the input tokens are a quarter of the bytes of the
    /// request's `messages`, the output tokens a quarter of the bytes of all text, thinking and tool
    /// input, both rounded up. The stop reason is `tool_use` if there is such a block, otherwise
    /// `end_turn`.
    pub fn message(content: impl Into<MessageContent>) -> Self {
        let blocks = match content.into() {
            MessageContent::Text(text) => vec![ContentBlock::text(text)],
            MessageContent::Blocks(blocks) => blocks,
        };
        Reply::new(ReplyContent::Message(blocks.into()))
    }

    /// A message that calls one tool, and says nothing else; `input` is JSON.
    pub fn tool_use(
        id: impl Into<String>,
        name: impl Into<String>,
        input: impl Into<Value>,
    ) -> Self {
        Reply::message(ContentBlock::from(ToolUseBlock::new(id, name, input)))
    }

    /// An error in the API's envelope, such as `(400, "invalid_request_error", "…")`.
    pub fn error(status: u16, error_type: &str, message: &str) -> Self {
        let inner = format!(
            r#"{{"type":{},"message":{}}}"#,
            quoted(error_type),
            quoted(message)
        );
        Reply::new(ReplyContent::Error {
            status,
            inner: inner.into(),
            has_request_id: true,
        })
    }

    /// An error with the cause in `details.error_code`, such as `enforced_spend_limit_reached`.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// let text = "You have reached your specified API usage limits.";
    /// let reply =
    ///     Reply::error_code(429, "rate_limit_error", "enforced_spend_limit_reached", text);
    /// ```
    pub fn error_code(status: u16, error_type: &str, error_code: &str, message: &str) -> Self {
        let inner = format!(
            r#"{{"type":{},"message":{},"details":{{"error_code":{}}}}}"#,
            quoted(error_type),
            quoted(message),
            quoted(error_code)
        );
        Reply::new(ReplyContent::Error {
            status,
            inner: inner.into(),
            has_request_id: true,
        })
    }

    /// A 429 for used-up input tokens, with `retry-after` and the rate limit headers of the API.
    ///
    /// The headers state 50 requests, 50,000 input tokens, 10,000 output tokens and 60,000 tokens a
    /// minute; nothing is left of the input tokens, and their `reset` is a minute ahead.
    pub fn rate_limited(retry_after_seconds: u64) -> Self {
        Reply::error(429, "rate_limit_error", RATE_LIMITED)
            .by_default("retry-after", retry_after_seconds)
            .by_default("x-should-retry", true)
            .by_default("anthropic-ratelimit-requests-limit", 50)
            .by_default("anthropic-ratelimit-requests-remaining", 49)
            .resets_in("anthropic-ratelimit-requests-reset", 2)
            .by_default("anthropic-ratelimit-input-tokens-limit", 50_000)
            .by_default("anthropic-ratelimit-input-tokens-remaining", 0)
            .resets_in("anthropic-ratelimit-input-tokens-reset", 60)
            .by_default("anthropic-ratelimit-output-tokens-limit", 10_000)
            .by_default("anthropic-ratelimit-output-tokens-remaining", 10_000)
            .resets_in("anthropic-ratelimit-output-tokens-reset", 2)
            .by_default("anthropic-ratelimit-tokens-limit", 60_000)
            .by_default("anthropic-ratelimit-tokens-remaining", 10_000)
            .resets_in("anthropic-ratelimit-tokens-reset", 60)
    }

    /// A 529 as it was recorded: `x-should-retry: true`, no `retry-after`, no id in the body.
    pub fn overloaded() -> Self {
        let inner = r#"{"type":"overloaded_error","message":"Overloaded"}"#;
        Reply::new(ReplyContent::Error {
            status: 529,
            inner: inner.into(),
            has_request_id: false,
        })
        .by_default("x-should-retry", true)
    }

    /// A page of HTML with this title, as a proxy in front of the API sends it.
    pub fn html(status: u16, title: &str) -> Self {
        let page = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
             <center><h1>{title}</h1></center>\r\n<hr><center>cloudflare</center>\r\n\
             </body>\r\n</html>\r\n"
        );
        Reply::new(ReplyContent::Fixed {
            status,
            content_type: "text/html; charset=UTF-8",
            body: page.into_bytes().into(),
        })
        .without_ids()
    }

    /// A status with an empty body, as a proxy sends it.
    pub fn status(status: u16) -> Self {
        Reply::new(ReplyContent::Fixed {
            status,
            content_type: "",
            body: Arc::default(),
        })
        .without_ids()
    }

    /// Exactly these bytes on the wire, status line included; then the connection is closed.
    ///
    /// Headers, body and framing that setters ask for are ignored. Faults count bytes from the status
    /// line.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Reply::new(ReplyContent::Raw(bytes.into().into()))
    }

    /// A stream of server-sent events, whether the request asked for one or not.
    pub fn stream(script: StreamScript) -> Self {
        Reply::new(ReplyContent::Stream(Arc::new(script)))
    }

    /// What the server would answer if nothing were scripted, rate limits included.
    pub fn canned() -> Self {
        Reply::new(ReplyContent::Canned)
    }

    /// Adds a header. It replaces the server's own header of that name; set twice, it is sent twice.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.without
            .retain(|known| !known.eq_ignore_ascii_case(&name));
        self.headers.push((name, value.into()));
        self
    }

    /// Leaves out every header of this name, the server's own included.
    ///
    /// Without `content-length` the body ends where the connection ends.
    pub fn without_header(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        self.without.push(name);
        self
    }

    /// Replaces the body; status and headers stay.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into().into());
        self
    }

    /// Waits this long before the first byte. Default: not at all. Stopping the server ends it.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in HTTP chunks of at most 4,096 bytes. Streams are sent in chunks by default.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends the body without a length, so that it ends where the connection ends.
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Announces `connection: close` and closes the connection after the reply.
    ///
    /// With `.without_header("connection")` it is closed without notice.
    pub fn close(mut self) -> Self {
        self.is_last = true;
        self
    }

    /// Resets the connection once the request has been read, before any byte of the answer.
    pub fn reset_before_headers(self) -> Self {
        self.fault(InjectedFault::ResetBeforeHeaders)
    }

    /// Resets the connection once the request's head has been read, before its body is.
    ///
    /// The request is recorded without its body. This acts where the reply is pushed or set with
    /// [`on`](super::TestServer::on); from [`answer_with`](super::TestServer::answer_with), which
    /// sees the body, it is the same as
    /// [`reset_before_headers`](Reply::reset_before_headers).
    pub fn reset_before_body_read(self) -> Self {
        self.fault(InjectedFault::ResetBeforeBodyRead)
    }

    /// Resets the connection in the middle of the answer's headers.
    pub fn reset_in_headers(self) -> Self {
        self.fault(InjectedFault::ResetInHeaders)
    }

    /// Resets the connection after this many bytes of the body, at the latest at its end (in chunks:
    /// before the last, empty chunk).
    pub fn reset_in_body(self, after_bytes: usize) -> Self {
        self.fault(InjectedFault::ResetInBody(after_bytes))
    }

    /// Ends the connection orderly after this many bytes of the body, although more was promised.
    pub fn truncate(self, after_bytes: usize) -> Self {
        self.fault(InjectedFault::Truncate(after_bytes))
    }

    /// Falls silent after this many bytes of the body, with the connection open, until the client
    /// goes away or the server stops.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use std::time::Duration;
    ///
    /// let server = TestServer::start()?;
    /// server.push_all([Reply::message("Seven.").stall(10), Reply::message("Seven.")]);
    /// // Sockets know no manual clock: the silence passes in real time.
    /// let client = Client::builder()
    ///     .api_key("test")
    ///     .base_url(server.base_url())
    ///     .idle_timeout(Duration::from_secs(1))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stall(self, after_bytes: usize) -> Self {
        self.fault(InjectedFault::Stall(after_bytes))
    }

    /// Reads the request and then sends nothing, until the client goes away or the server stops.
    pub fn stall_before_headers(self) -> Self {
        self.fault(InjectedFault::StallBeforeHeaders)
    }

    /// Sends the answer, headers included, in pieces of `bytes_at_a_time` (at least 1) with a pause
    /// after each.
    pub fn dribble(mut self, bytes_at_a_time: usize, between: Duration) -> Self {
        self.dribble = Some((bytes_at_a_time.max(1), between));
        self
    }

    /// A header that a header set by the caller replaces.
    pub(super) fn by_default(mut self, name: &'static str, value: impl ToString) -> Self {
        self.defaults
            .push((name, DefaultValue::Text(value.to_string())));
        self
    }

    fn new(content: ReplyContent) -> Self {
        Reply {
            content,
            defaults: Vec::new(),
            headers: Vec::new(),
            without: Vec::new(),
            body: None,
            framing: Framing::Length,
            is_last: false,
            delay: Duration::ZERO,
            fault: None,
            dribble: None,
        }
    }

    fn fault(mut self, fault: InjectedFault) -> Self {
        self.fault = Some(fault);
        self
    }

    fn resets_in(mut self, name: &'static str, seconds: u64) -> Self {
        self.defaults.push((name, DefaultValue::TimeIn(seconds)));
        self
    }

    fn without_ids(self) -> Self {
        self.without_header("request-id")
            .without_header("anthropic-organization-id")
    }

    pub(super) fn is_without(&self, name: &str) -> bool {
        self.without
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    }

    pub(super) fn scripted_header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What a reply says.
#[derive(Clone, Debug)]
pub(super) enum ReplyContent {
    Canned,
    Message(Arc<[ContentBlock]>),
    Stream(Arc<StreamScript>),
    Raw(Arc<[u8]>),
    Fixed {
        status: u16,
        content_type: &'static str,
        body: Arc<[u8]>,
    },
    Error {
        status: u16,
        inner: Arc<str>,
        has_request_id: bool,
    },
}

/// The value of a header that the constructor sets.
#[derive(Clone, Debug)]
pub(super) enum DefaultValue {
    Text(String),
    /// A wall clock time, so many seconds after the reply is sent.
    TimeIn(u64),
}

/// What goes wrong; the numbers are bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    ResetBeforeBodyRead,
    ResetBeforeHeaders,
    ResetInHeaders,
    ResetInBody(usize),
    Truncate(usize),
    Stall(usize),
    StallBeforeHeaders,
}

/// How the end of the body is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    Close,
}

const RATE_LIMITED: &str = "This request would exceed your organization's rate limit of 50,000 \
    input tokens per minute (org: 00000000-0000-4000-8000-000000000001). For details, refer to: \
    https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. \
    Please reduce the prompt length or the maximum tokens requested, or try again later.";

pub(super) const ORGANIZATION: &str = "00000000-0000-4000-8000-000000000001";
