//! Renders a reply as the bytes to send for one request.

use std::sync::Arc;

use crate::testing::canned::{self, MessageParts, RequestSummary};
use crate::testing::dates::rfc3339_in;
use crate::testing::frames::{Frames, MessageStartValues};
use crate::testing::recorded::RecordedRequest;
use crate::testing::reply::{DefaultValue, Framing, ORGANIZATION, Reply, ReplyContent};
use crate::testing::stream::{StreamScript, json_of, quoted};

/// What a reply needs to know about its request.
pub(crate) struct RequestContext<'a> {
    pub(crate) request: &'a RecordedRequest,
    /// 1 for the first request of the server.
    pub(crate) serial: u64,
    /// Whether the client wants the connection closed.
    pub(crate) is_last: bool,
    pub(crate) is_http_1_0: bool,
}

/// A reply to one request, ready to be sent.
pub(super) struct Rendered {
    pub(super) head: Vec<u8>,
    pub(super) body: RenderedBody,
    pub(super) framing: Framing,
    pub(super) is_last: bool,
}

/// Status, content type and body of a response.
struct RenderedContent {
    status: u16,
    /// Empty for none.
    content_type: &'static str,
    body: RenderedBody,
}

/// The body of a response.
pub(super) enum RenderedBody {
    Bytes(Arc<[u8]>),
    Frames(Box<Frames>),
}

impl From<String> for RenderedBody {
    fn from(text: String) -> Self {
        RenderedBody::Bytes(text.into_bytes().into())
    }
}

impl Reply {
    /// Renders this reply as the response to a request.
    pub(super) fn render(&self, context: &RequestContext<'_>) -> Rendered {
        if let ReplyContent::Raw(bytes) = &self.content {
            return Rendered {
                head: Vec::new(),
                body: RenderedBody::Bytes(Arc::clone(bytes)),
                framing: Framing::Close,
                is_last: true,
            };
        }
        let canned;
        let source = match &self.content {
            ReplyContent::Canned => {
                canned = canned::reply_to(context.request);
                &canned
            }
            _ => self,
        };
        let request_id = match self.scripted_header("request-id") {
            Some(request_id) => request_id.to_owned(),
            None => format!("req_test_{:06}", context.serial),
        };
        let mut content = source.render_content(context, &request_id);
        if let Some(bytes) = &self.body {
            content.body = RenderedBody::Bytes(Arc::clone(bytes));
        }
        let framing = self.framing_for(context, &content.body);
        let is_last = self.is_last || context.is_last || framing == Framing::Close;
        let mut head = RenderedHead::new(self, content.status);
        head.put_default("content-type", content.content_type);
        head.put_default("request-id", &request_id);
        head.put_default("anthropic-organization-id", ORGANIZATION);
        for (name, value) in &source.defaults {
            match value {
                DefaultValue::Text(text) => head.put_default(name, text),
                DefaultValue::TimeIn(seconds) => head.put_default(name, &rfc3339_in(*seconds)),
            }
        }
        match (framing, &content.body) {
            (Framing::Chunked, _) => head.put_default("transfer-encoding", "chunked"),
            (Framing::Length, RenderedBody::Bytes(bytes)) if has_body(content.status) => {
                head.put_default("content-length", &bytes.len().to_string());
            }
            _ => {}
        }
        if is_last {
            head.put_default("connection", "close");
        }
        Rendered {
            head: head.finish(),
            body: content.body,
            framing,
            is_last,
        }
    }

    fn render_content(&self, context: &RequestContext<'_>, request_id: &str) -> RenderedContent {
        let rendered = |status, content_type, body| RenderedContent {
            status,
            content_type,
            body,
        };
        let id = || format!("msg_test_{:06}", context.serial);
        match &self.content {
            ReplyContent::Fixed {
                status,
                content_type,
                body,
            } => rendered(*status, content_type, RenderedBody::Bytes(Arc::clone(body))),
            ReplyContent::Error {
                status,
                inner,
                has_request_id,
            } => {
                let mut body = format!(r#"{{"type":"error","error":{inner}"#);
                if *has_request_id {
                    body.push_str(r#","request_id":"#);
                    body.push_str(&quoted(request_id));
                }
                body.push('}');
                rendered(*status, JSON, RenderedBody::from(body))
            }
            ReplyContent::Message(blocks) => {
                let summary = RequestSummary::read(&context.request.body);
                let script = StreamScript::message(blocks);
                if summary.is_stream {
                    return rendered(200, EVENTS, frames(Arc::new(script), id(), summary));
                }
                let parts = MessageParts {
                    content: &json_of(&**blocks),
                    stop_reason: script.stop_reason(),
                    output_tokens: script.output_tokens(),
                    cache_read_tokens: 0,
                };
                let body = canned::message_json(&id(), &summary, &parts);
                rendered(200, JSON, RenderedBody::from(body))
            }
            ReplyContent::Stream(script) => {
                let summary = RequestSummary::read(&context.request.body);
                rendered(200, EVENTS, frames(Arc::clone(script), id(), summary))
            }
            ReplyContent::Raw(bytes) => rendered(200, "", RenderedBody::Bytes(Arc::clone(bytes))),
            // `canned::reply_to` never returns it; an empty response is better than a panic.
            ReplyContent::Canned => rendered(500, "", RenderedBody::from(String::new())),
        }
    }

    fn framing_for(&self, context: &RequestContext<'_>, body: &RenderedBody) -> Framing {
        let wanted = match (self.framing, body) {
            (Framing::Length, RenderedBody::Frames(_)) => Framing::Chunked,
            (framing, _) => framing,
        };
        let is_impossible = match wanted {
            Framing::Length => self.is_without("content-length"),
            Framing::Chunked => context.is_http_1_0 || self.is_without("transfer-encoding"),
            Framing::Close => false,
        };
        if is_impossible {
            Framing::Close
        } else {
            wanted
        }
    }
}

/// The head of a response while it is written.
struct RenderedHead<'a> {
    bytes: Vec<u8>,
    reply: &'a Reply,
}

impl<'a> RenderedHead<'a> {
    fn new(reply: &'a Reply, status: u16) -> RenderedHead<'a> {
        RenderedHead {
            bytes: format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes(),
            reply,
        }
    }

    /// Writes one of the server's own headers, unless the script replaces or removes it.
    fn put_default(&mut self, name: &str, value: &str) {
        let is_replaced = self.reply.scripted_header(name).is_some();
        if !value.is_empty() && !is_replaced && !self.reply.is_without(name) {
            self.put(name, value);
        }
    }

    /// Adds the headers of the script and the empty line at the end.
    fn finish(mut self) -> Vec<u8> {
        for (name, value) in &self.reply.headers {
            self.put(name, value);
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }

    fn put(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }
}

fn frames(script: Arc<StreamScript>, id: String, summary: RequestSummary) -> RenderedBody {
    let opening = MessageStartValues {
        id,
        model: summary.model,
        input_tokens: summary.input_tokens,
    };
    RenderedBody::Frames(Box::new(Frames::new(script, opening)))
}

fn has_body(status: u16) -> bool {
    !(status < 200 || status == 204 || status == 304)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
