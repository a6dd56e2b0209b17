//! Scripts of streamed answers: what the caller wants sent, event by event.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::types::ContentBlock;

/// Describes the body of a streamed answer, event by event, with its faults.
///
/// [`StreamScript::text`] is a whole, healthy stream; [`StreamScript::new`] is empty and takes the
/// events one by one, up to [`finish`](StreamScript::finish): without it the stream ends too early,
/// and the client tries again. Events are sent in the order in which they were added. By default each event
/// is one HTTP chunk, lines end in LF, and every event carries its name.
///
/// An "event" where a method counts them is any event frame, pings included; comments and raw bytes
/// do not count.
///
/// ```
/// use anthropic_blocking::testing::{Reply, StreamScript, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// let script = StreamScript::new()
///     .message_start(12)
///     .text_block(["Let me ", "look."])
///     .tool_use("toolu_1", "weather", [r#"{"city":"#, r#""Paris"}"#])
///     .finish();
/// server.push(Reply::stream(script));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StreamScript {
    pub(super) steps: Vec<StreamStep>,
    blocks: usize,
    output_bytes: u64,
    has_tool_use: bool,
    pub(super) line_end: &'static str,
    pub(super) named: bool,
    pub(super) padded: bool,
    pub(super) one_chunk: bool,
    pub(super) done_marker: bool,
    pub(super) final_blank_line: bool,
    pub(super) ending: Option<(usize, StreamEnding)>,
    pub(super) ping_every: Option<Duration>,
}

impl StreamScript {
    /// An empty script: no event at all until some are added.
    pub fn new() -> Self {
        StreamScript {
            steps: Vec::new(),
            blocks: 0,
            output_bytes: 0,
            has_tool_use: false,
            line_end: "\n",
            named: true,
            padded: false,
            one_chunk: false,
            done_marker: false,
            final_blank_line: true,
            ending: None,
            ping_every: None,
        }
    }

    /// A whole stream that says `text`, in deltas of about one word.
    ///
    /// The events: `message_start`, `ping`, one text block, `message_delta`, `message_stop`. The input
    /// tokens are a quarter of the bytes of the request's `messages`, the output tokens a quarter of
    /// the bytes of `text`, both rounded up.
    pub fn text(text: &str) -> Self {
        StreamScript::message(&[ContentBlock::text(text)])
    }

    /// A whole stream of these blocks. Text, thinking and tool input come in deltas, other blocks
    /// at once.
    pub(super) fn message(blocks: &[ContentBlock]) -> Self {
        let start = StreamStep::Start { input_tokens: None };
        let script = StreamScript::new().step(start).ping();
        let add = |script: StreamScript, block: &ContentBlock| match block {
            ContentBlock::Text(block) if block.citations.is_none() => {
                script.text_block(pieces(&block.text))
            }
            ContentBlock::Thinking(block) => script.thinking(&block.thinking, &block.signature),
            ContentBlock::ToolUse(call) => {
                script.tool_use(&call.id, &call.name, pieces(&call.input.to_string()))
            }
            other => {
                let (script, index) = script.block(&json_of(other));
                script.block_stop(index)
            }
        };
        blocks.iter().fold(script, add).finish()
    }

    /// Adds `message_start` with this number of input tokens.
    ///
    /// The model is the one of the request.
    pub fn message_start(self, input_tokens: u64) -> Self {
        self.step(StreamStep::Start {
            input_tokens: Some(input_tokens),
        })
    }

    /// Adds a whole text block, one delta for each piece.
    pub fn text_block<S: AsRef<str>>(self, pieces: impl IntoIterator<Item = S>) -> Self {
        let (mut script, index) = self.block(r#"{"type":"text","text":""}"#);
        for piece in pieces {
            let piece = piece.as_ref();
            script = script.delta(index, "text_delta", "text", piece);
        }
        script.block_stop(index)
    }

    /// Adds a whole thinking block: the text in deltas of about one word, then the signature.
    ///
    /// With an empty text only the signature is sent, as the API does for omitted thinking.
    pub fn thinking(self, text: &str, signature: &str) -> Self {
        let (mut script, index) = self.block(r#"{"type":"thinking","thinking":"","signature":""}"#);
        for piece in pieces(text) {
            script = script.delta(index, "thinking_delta", "thinking", piece);
        }
        let bytes = script.output_bytes;
        script = script.delta(index, "signature_delta", "signature", signature);
        script.output_bytes = bytes;
        script.block_stop(index)
    }

    /// Adds a whole tool use block, one delta for each piece of the input's JSON text. Where the
    /// pieces do not matter, [`Reply::tool_use`](super::Reply::tool_use) is shorter.
    pub fn tool_use<S: AsRef<str>>(
        self,
        id: &str,
        name: &str,
        partial_json: impl IntoIterator<Item = S>,
    ) -> Self {
        let (mut script, index) = self.block(&format!(
            r#"{{"type":"tool_use","id":{},"name":{},"input":{{}}}}"#,
            quoted(id),
            quoted(name)
        ));
        script.has_tool_use = true;
        for piece in partial_json {
            let piece = piece.as_ref();
            script = script.delta(index, "input_json_delta", "partial_json", piece);
        }
        script.block_stop(index)
    }

    /// Adds a whole text block of `count` generated deltas of `bytes_each` bytes of text.
    ///
    /// The deltas are made while they are sent, so a million of them costs no memory. The text is
    /// lower-case ASCII words, the same in every run.
    pub fn deltas(self, count: usize, bytes_each: usize) -> Self {
        let (mut script, index) = self.block(r#"{"type":"text","text":""}"#);
        script.output_bytes += (count as u64).saturating_mul(bytes_each as u64);
        script
            .step(StreamStep::Deltas {
                index,
                count,
                bytes_each,
            })
            .block_stop(index)
    }

    /// Adds any event, with `data` as it is: JSON text, or a `serde_json::Value`.
    ///
    /// A line feed in `data` makes one more `data:` line.
    pub fn event(self, name: impl Into<String>, data: impl ToString) -> Self {
        let (name, data) = (name.into(), data.to_string());
        self.step(StreamStep::Event { name, data })
    }

    /// Adds an event of a type that no client knows (`future_event`).
    pub fn unknown_event(self) -> Self {
        self.event(
            "future_event",
            r#"{"type":"future_event","detail":{"level":1}}"#,
        )
    }

    /// Adds a `ping` event.
    pub fn ping(self) -> Self {
        self.event("ping", PING)
    }

    /// Adds a comment line and an empty line, which proxies send to keep a connection alive.
    pub fn comment(self, text: impl Into<String>) -> Self {
        self.step(StreamStep::Comment(text.into()))
    }

    /// Adds these bytes as they are, whatever they do to the framing.
    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(StreamStep::Raw(bytes.into()))
    }

    /// Adds a pause: what was added before is on the wire, and nothing is sent for this long.
    ///
    /// Stopping the server ends the pause at once.
    pub fn pause(self, duration: Duration) -> Self {
        self.step(StreamStep::Pause(duration))
    }

    /// Adds `message_delta` with this stop reason and cumulative number of output tokens.
    pub fn message_delta(self, stop_reason: &str, output_tokens: u64) -> Self {
        let data = format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":{},"stop_sequence":null}},"usage":{{"output_tokens":{output_tokens}}}}}"#,
            quoted(stop_reason)
        );
        self.event("message_delta", data)
    }

    /// Adds `message_stop`.
    pub fn message_stop(self) -> Self {
        self.event("message_stop", r#"{"type":"message_stop"}"#)
    }

    /// Adds `message_delta` and `message_stop` with the figures that fit the script so far.
    ///
    /// The stop reason is `tool_use` after a tool use block, otherwise `end_turn`. The output tokens
    /// are a quarter of the bytes of all deltas, rounded up.
    pub fn finish(self) -> Self {
        let (reason, output_tokens) = (self.stop_reason(), self.output_tokens());
        self.message_delta(reason, output_tokens).message_stop()
    }

    pub(super) fn stop_reason(&self) -> &'static str {
        match self.has_tool_use {
            true => "tool_use",
            false => "end_turn",
        }
    }

    pub(super) fn output_tokens(&self) -> u64 {
        self.output_bytes.div_ceil(4)
    }

    /// Adds an `error` event. Nothing after it is sent; the body ends orderly.
    pub fn error(self, error_type: &str, message: &str) -> Self {
        self.step(StreamStep::Error(error_data(error_type, message)))
    }

    /// Ends the stream after `events` events with an `error` event; the body ends orderly.
    ///
    /// This and the other `…_after` methods replace each other. A number larger than the script acts
    /// at its end.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, StreamScript};
    ///
    /// let script = StreamScript::text("One two.").error_after(4, "overloaded_error", "Overloaded");
    /// let reply = Reply::stream(script);
    /// ```
    pub fn error_after(self, events: usize, error_type: &str, message: &str) -> Self {
        self.ending(events, StreamEnding::Error(error_data(error_type, message)))
    }

    /// Ends the body orderly after `events` events, usually without `message_stop`.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, StreamScript};
    ///
    /// // It begins, and ends after six events without a word of why.
    /// let reply = Reply::stream(StreamScript::text("One two three four.").cut_after(6));
    /// ```
    pub fn cut_after(self, events: usize) -> Self {
        self.ending(events, StreamEnding::Cut)
    }

    /// Resets the connection after `events` events (see
    /// [`Reply::reset_in_body`](super::Reply::reset_in_body) for what a reset is).
    pub fn reset_after(self, events: usize) -> Self {
        self.ending(events, StreamEnding::Reset)
    }

    /// Falls silent after `events` events, with the connection open, until the client goes away or
    /// the server stops.
    pub fn stall_after(self, events: usize) -> Self {
        self.ending(events, StreamEnding::Stall)
    }

    /// Sends a ping each `interval` while stalled. Default: none. Needs
    /// [`stall_after`](StreamScript::stall_after).
    pub fn pings_while_stalled(mut self, interval: Duration) -> Self {
        self.ping_every = Some(interval);
        self
    }

    /// Ends lines with CR LF. Default: LF.
    pub fn crlf(mut self) -> Self {
        self.line_end = "\r\n";
        self
    }

    /// Ends lines with CR. Default: LF.
    pub fn cr(mut self) -> Self {
        self.line_end = "\r";
        self
    }

    /// Adds `data: [DONE]` at the end, as some gateways do. Default: none, like the API.
    ///
    /// It is left out when the script ends with an error or with one of the `…_after` faults.
    pub fn done_marker(mut self) -> Self {
        self.done_marker = true;
        self
    }

    /// Leaves out the empty line after the last event, so that a correct reader never dispatches it.
    /// This client takes a last `message_stop` for one all the same.
    pub fn without_final_blank_line(mut self) -> Self {
        self.final_blank_line = false;
        self
    }

    /// Leaves out the `event:` lines. Default: every event has one.
    pub fn unnamed(mut self) -> Self {
        self.named = false;
        self
    }

    /// Puts 0 to 15 spaces before the last brace of each event, as the API does. Default: none.
    pub fn padded(mut self) -> Self {
        self.padded = true;
        self
    }

    /// Sends the body as one HTTP chunk. Default: one chunk for each event.
    ///
    /// The whole body is then held in memory while it is sent, up to the first
    /// [`pause`](StreamScript::pause), where a new chunk begins.
    pub fn one_chunk(mut self) -> Self {
        self.one_chunk = true;
        self
    }

    /// Adds a pause until this time, if that is yet to come.
    pub(super) fn pause_until(self, time: Instant) -> Self {
        self.step(StreamStep::Until(time))
    }

    fn step(mut self, step: StreamStep) -> Self {
        self.steps.push(step);
        self
    }

    fn ending(mut self, events: usize, ending: StreamEnding) -> Self {
        self.ending = Some((events, ending));
        self
    }

    pub(super) fn block(mut self, content_block: &str) -> (Self, usize) {
        let index = self.blocks;
        self.blocks += 1;
        let data = format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{content_block}}}"#
        );
        (self.event("content_block_start", data), index)
    }

    pub(super) fn delta(mut self, index: usize, kind: &str, field: &str, text: &str) -> Self {
        self.output_bytes += text.len() as u64;
        let data = format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{field}":{}}}}}"#,
            quoted(text)
        );
        self.event("content_block_delta", data)
    }

    pub(super) fn block_stop(self, index: usize) -> Self {
        let data = format!(r#"{{"type":"content_block_stop","index":{index}}}"#);
        self.event("content_block_stop", data)
    }
}

impl Default for StreamScript {
    fn default() -> Self {
        StreamScript::new()
    }
}

/// One thing to send, in order.
#[derive(Clone, Debug)]
pub(super) enum StreamStep {
    Start {
        input_tokens: Option<u64>,
    },
    Event {
        name: String,
        data: String,
    },
    Deltas {
        index: usize,
        count: usize,
        bytes_each: usize,
    },
    Error(String),
    Comment(String),
    Raw(Vec<u8>),
    Pause(Duration),
    Until(Instant),
}

/// How a stream ends before its script does.
#[derive(Clone, Debug)]
pub(super) enum StreamEnding {
    Cut,
    Error(String),
    Reset,
    Stall,
}

/// `text` as a JSON string, with its quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Blocks as JSON, which each of them can be written as.
pub(super) fn json_of(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn error_data(error_type: &str, message: &str) -> String {
    format!(
        r#"{{"type":"error","error":{{"type":{},"message":{}}}}}"#,
        quoted(error_type),
        quoted(message)
    )
}

/// `text` in pieces of about one word, none longer than 24 characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for word in text.split_inclusive(' ') {
        let mut rest = word;
        while let Some((cut, _)) = rest.char_indices().nth(24) {
            let (piece, tail) = rest.split_at(cut);
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
    }
    pieces
}

pub(super) const PING: &str = r#"{"type":"ping"}"#;
