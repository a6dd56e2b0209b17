//! Scripts of streamed responses, event by event.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::types::ContentBlock;

/// The body of a streamed response, event by event, with its faults.
///
/// [`StreamScript::text`] is a complete stream. [`StreamScript::new`] is empty and takes the events
/// one by one, up to [`finish`](StreamScript::finish): without `finish` the stream ends too early,
/// and the client retries. Events are sent in the order in which they were added. By default each
/// event is one HTTP chunk, lines end in LF, and every event has a name.
///
/// Methods that count events count pings, but neither comments nor raw bytes.
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
    pub(super) early_end: Option<EarlyEnd>,
    pub(super) ping_every: Option<Duration>,
}

impl StreamScript {
    /// Creates an empty script.
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
            early_end: None,
            ping_every: None,
        }
    }

    /// Creates a complete stream with `text`, in deltas of about one word.
    ///
    /// The events: `message_start`, `ping`, one text block, `message_delta`, `message_stop`. The
    /// input tokens are a quarter of the bytes of the request's `messages`, the output tokens a
    /// quarter of the bytes of `text`, both rounded up.
    pub fn text(text: &str) -> Self {
        StreamScript::message(&[ContentBlock::text(text)])
    }

    /// Creates a complete stream of these blocks. Text, thinking and tool input are sent in deltas,
    /// other blocks in one event.
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
    /// The model is that of the request.
    pub fn message_start(self, input_tokens: u64) -> Self {
        self.step(StreamStep::Start {
            input_tokens: Some(input_tokens),
        })
    }

    /// Adds a complete text block, one delta for each piece.
    pub fn text_block<S: AsRef<str>>(self, pieces: impl IntoIterator<Item = S>) -> Self {
        let (mut script, index) = self.block(r#"{"type":"text","text":""}"#);
        for piece in pieces {
            let piece = piece.as_ref();
            script = script.delta(index, "text_delta", "text", piece);
        }
        script.block_stop(index)
    }

    /// Adds a complete thinking block: the text in deltas of about one word, then the signature.
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

    /// Adds a complete tool use block, one delta for each piece of the input's JSON text. If the
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

    /// Adds a complete text block of `count` generated deltas of `bytes_each` bytes of text.
    ///
    /// The deltas are made while they are sent, so a million of them costs no memory. The text
    /// consists of lower-case ASCII words, the same in every run.
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

    /// Adds any event; `data` is JSON text or a `serde_json::Value`.
    ///
    /// Each line feed in `data` begins another `data:` line.
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

    /// Adds these bytes unchanged, even if they break the framing of events.
    pub fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(StreamStep::Raw(bytes.into()))
    }

    /// Adds a pause: sends what was added before, then nothing for this long.
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

    /// Adds `message_delta` and `message_stop` with the stop reason and usage of the script so far.
    ///
    /// The stop reason is `tool_use` after a tool use block, otherwise `end_turn`. The output
    /// tokens are a quarter of the bytes of all deltas, rounded up.
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

    /// Adds an `error` event, after which the body ends regularly: nothing else is sent.
    pub fn error(self, error_type: &str, message: &str) -> Self {
        self.step(StreamStep::Error(error_data(error_type, message)))
    }

    /// Ends the stream after `events` events with an `error` event; the body ends regularly.
    ///
    /// The `…_after` methods replace each other. A number larger than the script acts at its end.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, StreamScript};
    ///
    /// let script = StreamScript::text("One two.").error_after(4, "overloaded_error", "Overloaded");
    /// let reply = Reply::stream(script);
    /// ```
    pub fn error_after(self, events: usize, error_type: &str, message: &str) -> Self {
        self.end_after(events, StreamEnding::Error(error_data(error_type, message)))
    }

    /// Ends the body regularly after `events` events, usually without `message_stop`.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, StreamScript};
    ///
    /// let reply = Reply::stream(StreamScript::text("One two three four.").cut_after(6));
    /// ```
    pub fn cut_after(self, events: usize) -> Self {
        self.end_after(events, StreamEnding::Cut)
    }

    /// Resets the connection after `events` events (see
    /// [`Reply::reset_in_body`](super::Reply::reset_in_body) for what a reset is).
    pub fn reset_after(self, events: usize) -> Self {
        self.end_after(events, StreamEnding::Reset)
    }

    /// Sends nothing after `events` events, with the connection open, until the client goes away or
    /// the server stops.
    pub fn stall_after(self, events: usize) -> Self {
        self.end_after(events, StreamEnding::Stall)
    }

    /// Sends a ping every `interval` during a stall. Default: no pings. Needs
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
    /// The marker is left out if the script ends with an error or with one of the `…_after` faults.
    pub fn done_marker(mut self) -> Self {
        self.done_marker = true;
        self
    }

    /// Leaves out the empty line after the last event, so that a reader by the standard drops the
    /// event. This client still accepts a last `message_stop`.
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
    /// The whole body is then held in memory. At each [`pause`](StreamScript::pause) a new chunk
    /// begins.
    pub fn one_chunk(mut self) -> Self {
        self.one_chunk = true;
        self
    }

    /// Adds a pause until this instant.
    pub(super) fn pause_until(self, time: Instant) -> Self {
        self.step(StreamStep::Until(time))
    }

    fn step(mut self, step: StreamStep) -> Self {
        self.steps.push(step);
        self
    }

    fn end_after(mut self, events: usize, ending: StreamEnding) -> Self {
        self.early_end = Some(EarlyEnd { events, ending });
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

/// One step of a stream.
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

/// The point at which a stream ends early.
#[derive(Clone, Debug)]
pub(super) struct EarlyEnd {
    /// After so many events, or where the script ends if it has fewer.
    pub(super) events: usize,
    pub(super) ending: StreamEnding,
}

/// How a stream ends early.
#[derive(Clone, Debug)]
pub(super) enum StreamEnding {
    Cut,
    Error(String),
    Reset,
    Stall,
}

/// Returns `text` as a JSON string, with its quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns content blocks as JSON; every block can be written as JSON.
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

/// Cuts `text` into pieces of about one word, none longer than [`LONGEST_PIECE`].
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for word in text.split_inclusive(' ') {
        let mut rest = word;
        while let Some((cut, _)) = rest.char_indices().nth(LONGEST_PIECE) {
            let (piece, tail) = rest.split_at(cut);
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
    }
    pieces
}

/// The most characters in a delta of text, about as in recorded streams.
const LONGEST_PIECE: usize = 24;

pub(super) const PING: &str = r#"{"type":"ping"}"#;
