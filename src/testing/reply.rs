//! Scripted replies: content, framing and faults.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::stream::{StreamScript, quoted};
use crate::types::{Content as MessageContent, ContentBlock, ToolUseBlock};

/// A response of a [`TestServer`](super::TestServer), with its faults; cheap to clone.
///
/// A constructor sets the content, and setters change how it is sent. By default a reply is sent at
/// once, in one piece, with a content length (a stream: in HTTP chunks), and the connection stays
/// open for the next request. A reply has at most one fault: the last one set.
///
/// Replies carry `content-type`, `request-id` (`req_test_000001` for the first request that the
/// server received, and so on) and `anthropic-organization-id`. Only [`html`](Reply::html) and
/// [`status`](Reply::status) have no ids, because they stand for responses of a proxy.
///
/// # What a reset is
///
/// The server closes the socket while the end of the request is still unread in the kernel, which
/// makes the kernel send a TCP reset (RST): the client sees "connection reset" on Linux, Windows
/// and most other systems. On Linux the client can still read the bytes that arrived before the
/// reset, but of a body beyond some 64 kB the rest may be lost; on other systems all bytes may be
/// lost. If a client sends several requests without waiting for the responses, the end of the
/// request may have been read already, and the connection closes without a reset.
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
    /// Headers of the constructor; those of the caller replace them.
    pub(super) defaults: Vec<(&'static str, DefaultValue)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) without: Vec<String>,
    pub(super) body: Option<Arc<[u8]>>,
    pub(super) framing: Framing,
    /// Whether the connection closes after the reply.
    pub(super) is_last: bool,
    pub(super) delay: Duration,
    pub(super) fault: Option<InjectedFault>,
    pub(super) dribble: Option<Dribble>,
}

impl Reply {
    /// Creates a JSON response: `body` is JSON text or a `serde_json::Value`, by value or by
    /// reference.
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

    /// Creates a message with this content, a text or [`ContentBlock`]s: a stream if the request
    /// asks for one, as a plain [`create`](crate::Messages::create) does, otherwise JSON.
    ///
    /// The model is that of the request; the input tokens are a quarter of the bytes of the
    /// request's `messages`, the output tokens a quarter of the bytes of all text, thinking and
    /// tool input, both rounded up. The stop reason is `tool_use` if there is such a block,
    /// otherwise `end_turn`.
    pub fn message(content: impl Into<MessageContent>) -> Self {
        let blocks = match content.into() {
            MessageContent::Text(text) => vec![ContentBlock::text(text)],
            MessageContent::Blocks(blocks) => blocks,
        };
        Reply::new(ReplyContent::Message(blocks.into()))
    }

    /// Creates a message whose only block is a tool use; `input` is JSON.
    pub fn tool_use(
        id: impl Into<String>,
        name: impl Into<String>,
        input: impl Into<Value>,
    ) -> Self {
        Reply::message(ContentBlock::from(ToolUseBlock::new(id, name, input)))
    }

    /// Creates an error like the API's, such as `(400, "invalid_request_error", "…")`.
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

    /// Creates an error with this `details.error_code`, such as `enforced_spend_limit_reached`.
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

    /// Creates a 429 for used-up input tokens, with `retry-after` and the rate limit headers of the
    /// API.
    ///
    /// The headers state 50 requests, 50,000 input tokens, 10,000 output tokens and 60,000 tokens
    /// per minute; no input tokens are left, and their `reset` is a minute ahead.
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

    /// Creates a 529 as recorded from the API: `x-should-retry: true`, no `retry-after`, no id in
    /// the body.
    pub fn overloaded() -> Self {
        let inner = r#"{"type":"overloaded_error","message":"Overloaded"}"#;
        Reply::new(ReplyContent::Error {
            status: 529,
            inner: inner.into(),
            has_request_id: false,
        })
        .by_default("x-should-retry", true)
    }

    /// Creates an HTML page with this title, as a proxy in front of the API sends it.
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

    /// Creates a response with this status and an empty body, as a proxy sends it.
    pub fn status(status: u16) -> Self {
        Reply::new(ReplyContent::Fixed {
            status,
            content_type: "",
            body: Arc::default(),
        })
        .without_ids()
    }

    /// Sends exactly these bytes, status line included; then closes the connection.
    ///
    /// Setters of headers, body and framing are ignored. Faults count bytes from the status line.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Reply::new(ReplyContent::Raw(bytes.into().into()))
    }

    /// Creates a stream of server-sent events, whether the request asks for one or not.
    pub fn stream(script: StreamScript) -> Self {
        Reply::new(ReplyContent::Stream(Arc::new(script)))
    }

    /// Creates the response that the server sends if nothing is scripted, rate limits included.
    pub fn canned() -> Self {
        Reply::new(ReplyContent::Canned)
    }

    /// Adds a header, which replaces the server's own header of that name.
    ///
    /// A header that is added twice is sent twice.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.without
            .retain(|known| !known.eq_ignore_ascii_case(&name));
        self.headers.push((name, value.into()));
        self
    }

    /// Leaves out every header of this name, the server's own included.
    ///
    /// Without `content-length`, closing the connection ends the body.
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

    /// Waits this long before the first byte. Default: zero. Stopping the server ends the delay.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in HTTP chunks of at most 4,096 bytes. Streams are sent in chunks by default.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends the body without a length: closing the connection ends it.
    pub fn close_delimited(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Announces `connection: close` and closes the connection after the reply.
    ///
    /// With `.without_header("connection")` the connection closes unannounced.
    pub fn close(mut self) -> Self {
        self.is_last = true;
        self
    }

    /// Resets the connection once the request has been read, before any byte of the response.
    pub fn reset_before_headers(self) -> Self {
        self.fault(InjectedFault::ResetBeforeHeaders)
    }

    /// Resets the connection once the head of the request has been read, before its body is read.
    ///
    /// The request is recorded without its body. The function of
    /// [`respond_with`](super::TestServer::respond_with) sees the body; from there this fault acts
    /// like [`reset_before_headers`](Reply::reset_before_headers).
    pub fn reset_before_body_read(self) -> Self {
        self.fault(InjectedFault::ResetBeforeBodyRead)
    }

    /// Resets the connection in the middle of the response's headers.
    pub fn reset_in_headers(self) -> Self {
        self.fault(InjectedFault::ResetInHeaders)
    }

    /// Resets the connection after this many bytes of the body, at the latest at its end (with HTTP
    /// chunks: before the last, empty chunk).
    pub fn reset_in_body(self, after_bytes: usize) -> Self {
        self.fault(InjectedFault::ResetInBody(after_bytes))
    }

    /// Closes the connection without a reset after this many bytes of the body, fewer than
    /// announced.
    pub fn truncate(self, after_bytes: usize) -> Self {
        self.fault(InjectedFault::Truncate(after_bytes))
    }

    /// Sends nothing after this many bytes of the body, with the connection open, until the client
    /// goes away or the server stops.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use std::time::Duration;
    ///
    /// let server = TestServer::start()?;
    /// server.push_all([Reply::message("Seven.").stall(10), Reply::message("Seven.")]);
    /// // The silence passes in real time, also with a manual clock.
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

    /// Sends the response, headers included, in pieces of `bytes_at_a_time` (at least 1) with a
    /// pause after each.
    pub fn dribble(mut self, bytes_at_a_time: usize, between: Duration) -> Self {
        self.dribble = Some(Dribble {
            bytes_at_a_time: bytes_at_a_time.max(1),
            between,
        });
        self
    }

    /// Adds a header that [`header`](Reply::header) replaces.
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

/// The content of a reply.
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

/// The value of a header that a constructor sets.
#[derive(Clone, Debug)]
pub(super) enum DefaultValue {
    Text(String),
    /// The time of day, so many seconds after the reply is sent.
    TimeIn(u64),
}

/// Sending in small pieces, with a pause after each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dribble {
    pub(super) bytes_at_a_time: usize,
    pub(super) between: Duration,
}

/// What goes wrong on the wire; the numbers are bytes of the body.
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

/// How a response marks the end of its body.
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

/// The organization id in headers and error texts.
pub(super) const ORGANIZATION: &str = "00000000-0000-4000-8000-000000000001";
