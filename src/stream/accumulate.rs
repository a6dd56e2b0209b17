//! Folds the events of a stream into a [`Message`].
//!
//! Blocks are identified by their `index` and kept in the order in which they began. Events that make
//! no sense are ignored, as by the official clients: events before `message_start`, a second
//! `message_start`, deltas for a block that never began or is of another kind, deltas and events of
//! unknown kinds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::merge::{apply_message_delta, json_len, remove_extra};
use crate::types::{
    Citation, ContentBlock, ContentDelta, DecodedEvent, DeltaKind, Message, StreamEvent, TextBlock,
};

/// Folds the events of one stream into a message, which can be read at any time.
///
/// The input of a tool call is raw text while it arrives (see
/// [`ToolUseBlock::raw_input`](crate::ToolUseBlock::raw_input)). It is parsed when its block or the
/// message ends, and stays raw text if it is not valid JSON or if the stream breaks before.
///
/// The accumulator keeps at most [`MAX_CONTENT`] bytes, and the event that passes this limit; then
/// [`Accumulator::check_size`] returns an error.
#[derive(Debug)]
pub(crate) struct Accumulator {
    message: Option<Message>,
    /// The blocks by their index.
    blocks: BTreeMap<u64, BlockState>,
    is_complete: bool,
    discards_content: bool,
    /// The approximate size of the content received, in bytes.
    content_size: usize,
    /// The most that `content_size` may be.
    limit: usize,
}

impl Accumulator {
    /// Makes an accumulator without a message.
    pub(crate) fn new() -> Accumulator {
        Accumulator::default()
    }

    /// Drops the content, and ignores all further content.
    pub(crate) fn discard_content(&mut self) {
        self.discards_content = true;
        self.content_size = 0;
        self.blocks.clear();
        if let Some(message) = &mut self.message {
            message.content = Vec::new();
        }
    }

    /// Applies the next event. Changes nothing after `message_stop`, or once the limit is passed.
    pub(crate) fn apply(&mut self, event: &DecodedEvent<'_>) {
        if self.content_size > self.limit {
            return;
        }
        match event {
            DecodedEvent::Delta { index, delta } => {
                self.apply_text_delta(*index, delta.kind, &delta.text)
            }
            DecodedEvent::Event(event) => self.apply_event(event),
        }
    }

    /// Like [`apply`](Accumulator::apply), but moves the message out of a `message_start`.
    pub(crate) fn apply_owned(&mut self, event: DecodedEvent<'_>) {
        match event {
            DecodedEvent::Event(StreamEvent::MessageStart(event)) if self.message.is_none() => {
                self.start_message(event.message);
            }
            event => self.apply(&event),
        }
    }

    /// Returns an error if the limit is passed. Check this after each event, and fail the stream.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] from the event on that passes the limit.
    #[inline]
    pub(crate) fn check_size(&self) -> Result<(), TooLarge> {
        if self.content_size > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Returns the message so far, or `None` before `message_start`.
    pub(crate) fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// Returns the message so far by value.
    pub(crate) fn into_message(self) -> Option<Message> {
        self.message
    }

    /// Whether `message_stop` has arrived, so that the message is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn apply_event(&mut self, event: &StreamEvent) {
        if self.is_complete {
            return;
        }
        let Some(message) = &mut self.message else {
            if let StreamEvent::MessageStart(event) = event {
                self.start_message(event.message.clone());
            }
            return;
        };
        match event {
            StreamEvent::ContentBlockStart(_) if self.discards_content => {}
            StreamEvent::ContentBlockStart(event) => {
                finish_block(message, self.blocks.get_mut(&event.index));
                self.content_size += BLOCK_OVERHEAD + json_len(&event.content_block);
                let state = BlockState::at(message.content.len());
                message.content.push(event.content_block.clone());
                self.blocks.insert(event.index, state);
            }
            StreamEvent::ContentBlockDelta(event) => match &event.delta {
                ContentDelta::Text(delta) => {
                    self.apply_text_delta(event.index, DeltaKind::Text, &delta.text)
                }
                ContentDelta::InputJson(delta) => {
                    self.apply_text_delta(event.index, DeltaKind::InputJson, &delta.partial_json);
                }
                ContentDelta::Thinking(delta) => {
                    self.apply_text_delta(event.index, DeltaKind::Thinking, &delta.thinking);
                }
                ContentDelta::Signature(delta) => {
                    self.apply_text_delta(event.index, DeltaKind::Signature, &delta.signature);
                }
                delta => self.apply_rare_delta(event.index, delta),
            },
            StreamEvent::ContentBlockStop(event) => {
                finish_block(message, self.blocks.get_mut(&event.index));
            }
            StreamEvent::MessageDelta(event) => {
                // Known fields replace each other; only unknown fields add to the size.
                self.content_size += apply_message_delta(message, event);
            }
            StreamEvent::MessageStop(_) => {
                for state in self.blocks.values_mut() {
                    finish_block(message, Some(state));
                }
                self.is_complete = true;
            }
            _ => {}
        }
    }

    /// Begins the message. Some gateways send content with it, whose blocks have indexes from zero.
    fn start_message(&mut self, mut message: Message) {
        if self.discards_content {
            message.content = Vec::new();
        }
        for (index, block) in message.content.iter().enumerate() {
            self.content_size += BLOCK_OVERHEAD + json_len(block);
            self.blocks.insert(index as u64, BlockState::at(index));
        }
        self.message = Some(message);
    }

    fn apply_text_delta(&mut self, index: u64, kind: DeltaKind, text: &str) {
        if self.is_complete {
            return;
        }
        let Some((block, input)) = self.block_mut(index) else {
            return;
        };
        match (kind, block) {
            (DeltaKind::Text, ContentBlock::Text(block)) => block.text.push_str(text),
            (DeltaKind::Text, block) => append_to_untyped_text(block, text),
            (DeltaKind::Thinking, ContentBlock::Thinking(block)) => {
                block.thinking.push_str(text);
                if !block.thinking.is_empty() {
                    remove_extra(&mut block.extra, "thinking");
                }
            }
            (DeltaKind::Signature, ContentBlock::Thinking(block)) => {
                text.clone_into(&mut block.signature);
                if !text.is_empty() {
                    remove_extra(&mut block.extra, "signature");
                }
            }
            (DeltaKind::InputJson, block) => append_input(block, input, text),
            _ => return,
        }
        // Text that replaces other text, or comes too late, counts as well: an estimate is enough.
        self.content_size = self.content_size.saturating_add(text.len());
    }

    fn apply_rare_delta(&mut self, index: u64, delta: &ContentDelta) {
        let size = match (delta, self.block_mut(index)) {
            (ContentDelta::Citations(delta), Some((ContentBlock::Text(block), _))) => {
                let TextBlock {
                    citations, extra, ..
                } = block;
                let citations = citations.get_or_insert_default();
                citations.push(delta.citation.clone());
                remove_extra(extra, "citations");
                size_of::<Citation>() + json_len(delta)
            }
            (ContentDelta::Other(delta), Some((ContentBlock::Other(block), _)))
                if is_type(delta, "compaction_delta") && is_type(block, "compaction") =>
            {
                if let Some(Value::String(text)) = delta.get("content") {
                    push_str(block.entry("content").or_insert(Value::Null), text);
                }
                if let Some(content) = delta.get("encrypted_content").filter(|c| !c.is_null()) {
                    block.insert("encrypted_content".to_owned(), content.clone());
                }
                json_len(delta)
            }
            _ => 0,
        };
        self.content_size = self.content_size.saturating_add(size);
    }

    fn block_mut(&mut self, index: u64) -> Option<(&mut ContentBlock, &mut InputState)> {
        let state = self.blocks.get_mut(&index)?;
        let block = self.message.as_mut()?.content.get_mut(state.position)?;
        Some((block, &mut state.input))
    }
}

impl Default for Accumulator {
    fn default() -> Accumulator {
        Accumulator {
            message: None,
            blocks: BTreeMap::new(),
            is_complete: false,
            discards_content: false,
            content_size: 0,
            limit: MAX_CONTENT,
        }
    }
}

/// A stream brought more content than an accumulator keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    /// The most content that is kept, in bytes.
    pub(crate) limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "content of the stream is longer than {} bytes",
            self.limit
        )
    }
}

impl std::error::Error for TooLarge {}

/// What is known of a block that has begun.
#[derive(Debug)]
struct BlockState {
    /// The position of the block in the message's content.
    position: usize,
    input: InputState,
}

/// How much of the input of a tool call has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputState {
    /// The value with which the block began.
    Initial,
    /// Raw text that grows.
    Raw,
    /// All of the input; the block has ended.
    Done,
}

impl BlockState {
    fn at(position: usize) -> BlockState {
        BlockState {
            position,
            input: InputState::Initial,
        }
    }
}

/// Appends to a text block that began without a string in `text`: such a block was kept as the JSON
/// that it is, and becomes a text block here.
#[cold]
fn append_to_untyped_text(block: &mut ContentBlock, text: &str) {
    let ContentBlock::Other(object) = block else {
        return;
    };
    if is_type(object, "text") {
        push_str(object.entry("text").or_insert(Value::Null), text);
        let object = Value::Object(std::mem::take(object));
        // Every object can be read as a block.
        *block = ContentBlock::deserialize(object).unwrap_or(ContentBlock::Other(Map::new()));
    }
}

fn append_input(block: &mut ContentBlock, state: &mut InputState, text: &str) {
    if text.is_empty() || *state == InputState::Done {
        return;
    }
    let Some(input) = block.input_mut() else {
        return;
    };
    if *state == InputState::Raw {
        push_str(input, text);
        return;
    }
    *input = Value::from(text);
    *state = InputState::Raw;
    match block {
        ContentBlock::ToolUse(block) => remove_extra(&mut block.extra, "input"),
        ContentBlock::ServerToolUse(block) => remove_extra(&mut block.extra, "input"),
        _ => {}
    }
}

/// Parses the input of a tool call whose block ends; a call without any input gets an empty object.
///
/// A JSON string or `null` stays raw text: neither is an input, and parsed they would look like raw
/// text that was cut off, and like no input. Input that is nested too deeply also stays raw text, since
/// the message could not be parsed again.
#[inline(never)]
fn finish_block(message: &mut Message, state: Option<&mut BlockState>) {
    let Some(state) = state else {
        return;
    };
    let before = std::mem::replace(&mut state.input, InputState::Done);
    let is_raw = before == InputState::Raw;
    let mut block = message.content.get_mut(state.position);
    if let (InputState::Initial, Some(ContentBlock::ToolUse(call))) = (before, &mut block)
        && call.input.is_null()
    {
        call.input = Value::Object(Map::new());
        remove_extra(&mut call.extra, "input");
    }
    if let Some(input) = block.filter(|_| is_raw).and_then(ContentBlock::input_mut) {
        match input.as_str().map(serde_json::from_str) {
            None | Some(Err(_) | Ok(Value::String(_) | Value::Null)) => {}
            Some(Ok(parsed)) if is_nested_deeper(&parsed, MAX_INPUT_DEPTH) => {}
            Some(Ok(parsed)) => *input = parsed,
        }
    }
}

/// Whether a value has more than `levels` levels of arrays and objects.
fn is_nested_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(array) => {
            levels == 0
                || array
                    .iter()
                    .any(|inner| is_nested_deeper(inner, levels - 1))
        }
        Value::Object(object) => {
            levels == 0
                || object
                    .values()
                    .any(|inner| is_nested_deeper(inner, levels - 1))
        }
        _ => false,
    }
}

/// Appends to a string, or replaces any other value.
fn push_str(value: &mut Value, text: &str) {
    match value {
        Value::String(value) => value.push_str(text),
        other => *other = Value::from(text),
    }
}

fn is_type(object: &Map<String, Value>, name: &str) -> bool {
    object.get("type").and_then(Value::as_str) == Some(name)
}

/// The most content that is kept: 128 MiB, as for a response that is not streamed. The longest outputs
/// are a few hundred thousand tokens, one or two MiB; the rest is for the results of server tools. A
/// server that sends more is broken or malicious.
pub(crate) const MAX_CONTENT: usize = 128 << 20;

/// The most levels of nesting in the input of a tool call. JSON is parsed up to 127 levels; the other 27
/// are for the message and what may contain it: a request, a batch, a journal.
const MAX_INPUT_DEPTH: usize = 100;

/// The size of a block beside its content, in bytes, so that endless empty blocks count as well.
const BLOCK_OVERHEAD: usize = size_of::<ContentBlock>() + size_of::<(u64, BlockState)>();

#[cfg(test)]
#[path = "../../tests/it/support/compare.rs"]
mod compare;

#[cfg(test)]
mod tests {
    use super::compare::{compare, surplus};
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn fold(events: &[Value]) -> Accumulator {
        let mut accumulator = Accumulator::new();
        for event in events {
            feed(&mut accumulator, event);
        }
        accumulator
    }

    #[track_caller]
    fn feed(accumulator: &mut Accumulator, event: &Value) {
        let data = event.to_string();
        let event = DecodedEvent::decode(b"", data.as_bytes()).expect("an event");
        accumulator.apply(&event.expect("something to act on"));
    }

    #[track_caller]
    fn content(accumulator: &Accumulator) -> Value {
        let message = accumulator.message().expect("a message");
        serde_json::to_value(&message.content).expect("JSON")
    }

    fn start() -> Value {
        json!({"type":"message_start","message":{"id":"msg_1","type":"message",
            "role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,
            "usage":{"input_tokens":25,"cache_read_input_tokens":3,"output_tokens":1,
                "service_tier":"standard"}}})
    }

    fn block(index: u64, block: Value) -> Value {
        json!({"type":"content_block_start","index":index,"content_block":block})
    }

    fn tool(index: u64, kind: &str) -> Value {
        block(
            index,
            json!({"type":kind,"id":"t","name":"n","input":{"from":"start"}}),
        )
    }

    fn delta(index: u64, delta: Value) -> Value {
        json!({"type":"content_block_delta","index":index,"delta":delta})
    }

    fn text(index: u64, text: &str) -> Value {
        delta(index, json!({"type":"text_delta","text":text}))
    }

    fn input(index: u64, json: &str) -> Value {
        delta(
            index,
            json!({"type":"input_json_delta","partial_json":json}),
        )
    }

    fn stop(index: u64) -> Value {
        json!({"type":"content_block_stop","index":index})
    }

    fn message_stop() -> Value {
        json!({"type":"message_stop"})
    }

    #[test]
    fn streamed_message_equals_the_unstreamed_one() {
        let accumulator = fold(&[
            start(),
            block(0, json!({"type":"thinking","thinking":"","signature":""})),
            delta(0, json!({"type":"thinking_delta","thinking":"h"})),
            delta(
                0,
                json!({"type":"thinking_delta","thinking":"m","estimated_tokens":9}),
            ),
            delta(0, json!({"type":"signature_delta","signature":"old"})),
            delta(0, json!({"type":"signature_delta","signature":"new"})),
            stop(0),
            json!({"type":"ping"}),
            block(1, json!({"type":"text","text":"","citations":null})),
            text(1, "Sev"),
            delta(
                1,
                json!({"type":"citations_delta","citation":{"type":"c","cited_text":"x"}}),
            ),
            text(1, "en"),
            stop(1),
            block(
                2,
                json!({"type":"tool_use","id":"t","name":"n","input":null}),
            ),
            input(2, ""),
            input(2, "{\"a\": "),
            input(2, "[1]}"),
            stop(2),
            json!({"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},
                "usage":{"output_tokens":6}}),
            message_stop(),
        ]);
        let whole: Message = serde_json::from_value(json!({"id":"msg_1","type":"message",
            "role":"assistant","model":"m","content":[
                {"type":"thinking","thinking":"hm","signature":"new"},
                {"type":"text","text":"Seven","citations":[{"type":"c","cited_text":"x"}]},
                {"type":"tool_use","id":"t","name":"n","input":{"a":[1]}}],
            "stop_reason":"tool_use","stop_sequence":null,
            "usage":{"input_tokens":25,"cache_read_input_tokens":3,"output_tokens":6,
                "service_tier":"standard"}}))
        .unwrap();
        assert!(accumulator.is_complete());
        assert_eq!(accumulator.message().unwrap().usage.output_tokens, 6);
        assert_eq!(accumulator.into_message().unwrap(), whole);
    }

    #[test]
    fn interleaved_blocks_keep_the_order_of_arrival() {
        let accumulator = fold(&[
            start(),
            block(5, json!({"type":"text","text":"a"})),
            tool(2, "tool_use"),
            text(5, "b"),
            input(2, "{}"),
            text(5, "c"),
            stop(2),
            text(5, "d"),
            stop(5),
        ]);
        assert_eq!(
            content(&accumulator),
            json!([{"type":"text","text":"abcd"},
                {"type":"tool_use","id":"t","name":"n","input":{}}])
        );
    }

    #[test]
    fn reused_index_means_the_newest_block() {
        let accumulator = fold(&[
            start(),
            tool(0, "tool_use"),
            input(0, "{\"a\":1}"),
            block(0, json!({"type":"text","text":""})),
            text(0, "b"),
        ]);
        assert_eq!(
            content(&accumulator),
            json!([{"type":"tool_use","id":"t","name":"n","input":{"a":1}},
                {"type":"text","text":"b"}])
        );
    }

    #[test]
    fn tool_input_without_deltas_is_the_initial_one() {
        for kind in ["tool_use", "server_tool_use", "mcp_tool_use"] {
            let accumulator = fold(&[start(), tool(0, kind), input(0, ""), stop(0)]);
            assert_eq!(
                content(&accumulator)[0]["input"],
                json!({"from": "start"}),
                "{kind}"
            );
        }
    }

    #[test]
    fn missing_tool_input_is_an_empty_object() {
        for call in [
            json!({"type":"tool_use","id":"t","name":"n"}),
            json!({"type":"tool_use","id":"t","name":"n","input":null}),
        ] {
            for end in [stop(0), message_stop()] {
                let accumulator = fold(&[start(), block(0, call.clone()), end]);
                assert_eq!(content(&accumulator)[0]["input"], json!({}), "{call}");
            }
        }
    }

    #[test]
    fn tool_input_is_raw_text_until_its_end() {
        for kind in ["tool_use", "server_tool_use", "mcp_tool_use"] {
            for end in [stop(0), message_stop()] {
                let mut accumulator =
                    fold(&[start(), tool(0, kind), input(0, "{\"a\""), input(0, ":1}")]);
                assert_eq!(content(&accumulator)[0]["input"], "{\"a\":1}", "{kind}");
                feed(&mut accumulator, &end);
                assert_eq!(content(&accumulator)[0]["input"], json!({"a": 1}), "{kind}");
                feed(&mut accumulator, &input(0, "late"));
                assert_eq!(content(&accumulator)[0]["input"], json!({"a": 1}), "{kind}");
            }
        }
    }

    #[test]
    fn tool_input_cut_by_max_tokens_stays_raw_text() {
        for raw in ["{\"a\":", "{\"a\":1}}", "\"a\"", "null", " "] {
            for end in [stop(0), message_stop()] {
                let accumulator = fold(&[start(), tool(0, "tool_use"), input(0, raw), end]);
                let message = accumulator.into_message().unwrap();
                let call = message.tool_uses().next().unwrap();
                assert_eq!(call.raw_input(), Some(raw));
            }
        }
    }

    #[test]
    fn usage_is_overwritten_by_fields_that_are_not_null() {
        let accumulator = fold(&[
            start(),
            json!({"type":"message_delta","delta":{},"usage":{"input_tokens":null,
                "output_tokens":5,"cache_read_input_tokens":0,"service_tier":null,
                "server_tool_use":{"web_search_requests":1,"new":2},
                "iterations":[{"type":"message"}],"inference_geo":"us","speed":null}}),
            json!({"type":"message_delta","delta":{},"usage":{"output_tokens":9}}),
            json!({"type":"message_delta","delta":{}}),
            json!({"type":"message_delta","delta":{},"usage":null}),
        ]);
        assert_eq!(
            serde_json::to_value(accumulator.message().map(|message| &message.usage)).unwrap(),
            json!({"input_tokens":25,"output_tokens":9,"cache_read_input_tokens":0,
                "service_tier":"standard","server_tool_use":{"web_search_requests":1,"new":2},
                "iterations":[{"type":"message"}],"inference_geo":"us"})
        );
        let usage = &accumulator.message().unwrap().usage;
        assert_eq!(usage.total_input_tokens(), 25);
        assert_eq!(usage.inference_geo.as_deref(), Some("us"));
        assert_eq!(usage.speed, None);
    }

    #[test]
    fn output_tokens_may_fall_to_zero() {
        let accumulator = fold(&[
            start(),
            json!({"type":"message_delta","delta":{},"usage":{"output_tokens":0}}),
        ]);
        assert_eq!(accumulator.message().unwrap().usage.output_tokens, 0);
    }

    #[test]
    fn usage_may_first_come_with_message_delta() {
        let mut first = start();
        first["message"]["usage"] = json!(null);
        let delta = json!({"type":"message_delta","delta":{},"usage":{"output_tokens":5}});
        let message = fold(&[first, delta]).into_message().unwrap();
        assert_eq!(message.usage.output_tokens, 5);
        assert!(!message.extra.contains_key("usage"));
    }

    #[test]
    fn null_overwrites_stop_fields_but_not_the_container() {
        let mut accumulator = fold(&[
            start(),
            json!({"type":"message_delta","delta":{"stop_reason":"refusal","stop_sequence":"x",
                "stop_details":{"type":"refusal"},"container":{"id":"c"}}}),
            json!({"type":"message_delta","delta":{"stop_sequence":null,"container":null}}),
        ]);
        let message = accumulator.message().unwrap();
        assert_eq!(message.stop_reason.as_ref().unwrap().as_str(), "refusal");
        assert!(message.stop_details.is_some());
        assert_eq!(message.stop_sequence, None);
        assert_eq!(message.container, Some(json!({"id": "c"})));
        let null = json!({"type":"message_delta","delta":{"stop_reason":null,"stop_details":null}});
        feed(&mut accumulator, &null);
        let message = accumulator.message().unwrap();
        assert_eq!(
            (&message.stop_reason, &message.stop_details),
            (&None, &None)
        );
    }

    #[test]
    fn unknown_fields_of_message_delta_are_kept() {
        let accumulator = fold(&[
            start(),
            json!({"type":"message_delta","delta":{"new":1,"null":null,"content":"odd"},
                "context_management":{"applied_edits":[]},"id":"other"}),
        ]);
        let json = serde_json::to_value(accumulator.message().unwrap()).unwrap();
        assert_eq!(json["new"], 1);
        assert_eq!(json["context_management"], json!({"applied_edits": []}));
        assert_eq!(
            (&json["id"], &json["content"]),
            (&json!("msg_1"), &json!([]))
        );
        let extra = &accumulator.message().unwrap().extra;
        for name in ["null", "id", "content", "delta"] {
            assert!(!extra.contains_key(name), "{name}");
        }
    }

    #[test]
    fn events_that_do_not_fit_are_ignored() {
        let unknown = delta(0, json!({"type":"future_delta","text":"x"}));
        let data = unknown.to_string();
        let event = DecodedEvent::decode(b"", data.as_bytes()).unwrap();
        assert!(matches!(
            event.unwrap().into_event(),
            StreamEvent::ContentBlockDelta(event) if matches!(event.delta, ContentDelta::Other(_))
        ));
        let accumulator = fold(&[
            start(),
            block(0, json!({"type":"text","text":"a"})),
            unknown,
            delta(0, json!({"type":"thinking_delta","thinking":"x"})),
            delta(0, json!({"type":"signature_delta","signature":"x"})),
            delta(0, json!({"type":"compaction_delta","content":"x"})),
            input(0, "{}"),
            text(1, "x"),
            stop(1),
            json!({"type":"future","index":0}),
            start(),
            text(0, "b"),
            message_stop(),
            text(0, "x"),
            block(1, json!({"type":"text","text":"x"})),
        ]);
        assert_eq!(content(&accumulator), json!([{"type":"text","text":"ab"}]));
    }

    #[test]
    fn events_before_the_start_are_ignored() {
        let mut accumulator = fold(&[
            json!({"type":"ping"}),
            block(0, json!({"type":"text","text":"x"})),
            text(0, "x"),
            json!({"type":"message_delta","delta":{"stop_reason":"end_turn"}}),
            message_stop(),
        ]);
        assert!(accumulator.message().is_none());
        assert!(!accumulator.is_complete());
        feed(&mut accumulator, &start());
        feed(&mut accumulator, &text(0, "x"));
        assert_eq!(content(&accumulator), json!([]));
    }

    #[test]
    fn content_of_the_start_is_kept_and_continued() {
        let mut first = start();
        first["message"]["content"] = json!([{"type":"text","text":"a"}]);
        let accumulator = fold(&[
            first,
            text(0, "b"),
            block(0, json!({"type":"text","text":""})),
            text(0, "c"),
        ]);
        assert_eq!(accumulator.into_message().unwrap().text(), "abc");
    }

    #[test]
    fn text_block_that_began_oddly_loses_no_text() {
        for odd in [json!({"type":"text","text":null}), json!({"type":"text"})] {
            let accumulator = fold(&[start(), block(0, odd), text(0, "a"), text(0, "b"), stop(0)]);
            assert_eq!(content(&accumulator), json!([{"type":"text","text":"ab"}]));
            assert_eq!(accumulator.into_message().unwrap().text(), "ab");
        }
        let odd = block(
            0,
            json!({"type":"tool_use","id":null,"name":"n","input":{}}),
        );
        let accumulator = fold(&[start(), odd, input(0, "{\"a\":1}"), stop(0)]);
        assert_eq!(
            content(&accumulator),
            json!([{"type":"tool_use","id":null,"name":"n","input":{"a":1}}])
        );
    }

    #[test]
    fn content_of_every_kind_is_refused_beyond_the_limit() {
        let long = "x".repeat(100);
        let citation = json!({"type":"c","cited_text":long});
        let cases: [(&str, &[Value]); 7] = [
            ("text", &[text(0, &long)]),
            (
                "thinking",
                &[delta(1, json!({"type":"thinking_delta","thinking":long}))],
            ),
            ("input", &[input(2, &long)]),
            (
                "citations",
                &[delta(
                    0,
                    json!({"type":"citations_delta","citation":citation}),
                )],
            ),
            (
                "compaction",
                &[delta(3, json!({"type":"compaction_delta","content":long}))],
            ),
            (
                "blocks",
                &[block(9, json!({"type":"text","text":""})), stop(9)],
            ),
            ("restarted", &[tool(2, "tool_use"), input(2, &long)]),
        ];
        for (name, events) in cases {
            let mut accumulator = fold(&[
                start(),
                block(0, json!({"type":"text","text":""})),
                block(1, json!({"type":"thinking","thinking":""})),
                tool(2, "tool_use"),
                block(3, json!({"type":"compaction"})),
            ]);
            accumulator.limit = accumulator.content_size + 10_000;
            let (mut rounds, mut held) = (0, 0);
            while accumulator.check_size().is_ok() {
                rounds += 1;
                assert!(rounds < 200, "{name} does not count");
                held = content(&accumulator).to_string().len();
                events
                    .iter()
                    .for_each(|event| feed(&mut accumulator, event));
            }
            let refused = TooLarge {
                limit: accumulator.limit,
            };
            assert_eq!(accumulator.check_size(), Err(refused), "{name}");
            assert!(rounds > 5, "{name} counts too much");
            let kept = content(&accumulator).to_string().len();
            assert!(kept <= held + 200, "{name} was kept beyond the limit");
            events
                .iter()
                .for_each(|event| feed(&mut accumulator, event));
            assert_eq!(content(&accumulator).to_string().len(), kept, "{name}");
            assert!(!accumulator.is_complete());
        }
    }

    #[test]
    fn endless_unknown_fields_are_refused() {
        let mut accumulator = fold(&[start()]);
        accumulator.limit = 10_000;
        let same = json!({"type":"message_delta","delta":{"x":1},"usage":{"output_tokens":5}});
        for _ in 0..1000 {
            feed(&mut accumulator, &same);
        }
        assert_eq!(accumulator.check_size(), Ok(()));
        let news: [fn(String) -> Value; 2] = [
            |name| json!({"type":"message_delta","delta":{name:"x"}}),
            |name| json!({"type":"message_delta","delta":{},"usage":{name:"x"}}),
        ];
        for new in news {
            let mut accumulator = fold(&[start()]);
            accumulator.limit = 10_000;
            for round in 0..1000 {
                feed(&mut accumulator, &new(format!("new_{round}")));
            }
            assert!(accumulator.check_size().is_err());
        }
    }

    #[test]
    fn unknown_fields_that_grow_are_refused() {
        for part in ["delta", "usage"] {
            let mut accumulator = fold(&[start()]);
            accumulator.limit = 10_000;
            for value in ["".to_owned(), "x".repeat(1000)] {
                for round in 0..20 {
                    let name = format!("new_{round}");
                    feed(
                        &mut accumulator,
                        &json!({"type":"message_delta",part:{name:value}}),
                    );
                }
            }
            assert!(accumulator.check_size().is_err(), "{part}");
        }
    }

    #[test]
    fn usage_update_keeps_odd_values_of_known_fields() {
        let mut accumulator = fold(&[start()]);
        let usage = |accumulator: &Accumulator| {
            let message = accumulator.message().unwrap();
            serde_json::to_value(&message.usage).unwrap()
        };
        let before = usage(&accumulator);
        let said = json!({"input_tokens":null,"output_tokens":null,"service_tier":null,
            "cache_creation":null,"new":null});
        feed(
            &mut accumulator,
            &json!({"type":"message_delta","usage":said}),
        );
        assert_eq!(usage(&accumulator), before);
        for (said, input_tokens, tier) in [
            (
                json!({"input_tokens":0,"output_tokens":"odd","cache_read_input_tokens":"odd",
                    "service_tier":["odd"],"new":{"a":1}}),
                0,
                None,
            ),
            (
                json!({"input_tokens":7,"output_tokens":8,"cache_read_input_tokens":9,
                    "cache_creation_input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":1},
                    "output_tokens_details":{"thinking_tokens":2},
                    "server_tool_use":{"web_search_requests":3},"service_tier":"batch","new":5}),
                7,
                Some("batch"),
            ),
        ] {
            feed(
                &mut accumulator,
                &json!({"type":"message_delta","usage":said}),
            );
            assert_eq!(usage(&accumulator), said_with(&before, &said));
            let usage = &accumulator.message().unwrap().usage;
            assert_eq!(
                (usage.input_tokens, usage.service_tier.as_deref()),
                (input_tokens, tier)
            );
        }
    }

    /// Returns an object in which the fields of another one replace its own.
    fn said_with(object: &Value, said: &Value) -> Value {
        let mut object = object.as_object().unwrap().clone();
        object.extend(said.as_object().unwrap().clone());
        Value::Object(object)
    }

    #[test]
    fn usage_updates_take_linear_time() {
        let mut accumulator = fold(&[start()]);
        let began = std::time::Instant::now();
        for round in 0..20_000 {
            let name = format!("new_{round}");
            feed(
                &mut accumulator,
                &json!({"type":"message_delta","usage":{name:1}}),
            );
        }
        // This takes tenths of a second, or minutes if each update copied all fields.
        assert!(began.elapsed() < std::time::Duration::from_secs(30));
        let message = accumulator.into_message().unwrap();
        assert!(message.usage.extra.len() >= 20_000);
    }

    #[test]
    fn deep_input_stays_raw_so_that_it_can_be_reread() {
        for (levels, is_read) in [(100, true), (101, false), (126, false), (100_000, false)] {
            let text = "[".repeat(levels) + &"]".repeat(levels);
            let accumulator = fold(&[
                start(),
                tool(0, "tool_use"),
                input(0, &text),
                stop(0),
                message_stop(),
            ]);
            let message = accumulator.into_message().unwrap();
            let call = message.tool_uses().next().unwrap();
            assert_eq!(call.raw_input().is_none(), is_read, "{levels}");
            let written = json!({"requests":[{"params":{"messages":[message]}}]}).to_string();
            let read: Value = serde_json::from_str(&written).unwrap();
            let read = &read["requests"][0]["params"]["messages"][0];
            assert_eq!(Message::deserialize(read).unwrap(), message);
        }
    }

    #[test]
    fn discarded_content_is_not_kept_or_counted() {
        let mut accumulator = fold(&[start(), block(0, json!({"type":"text","text":"a"}))]);
        accumulator.limit = 1000;
        feed(&mut accumulator, &text(0, &"x".repeat(900)));
        assert!(accumulator.content_size > 0);
        accumulator.discard_content();
        for index in 0..100 {
            feed(
                &mut accumulator,
                &block(index, json!({"type":"text","text":"a"})),
            );
            feed(&mut accumulator, &text(index, &"x".repeat(900)));
            feed(&mut accumulator, &stop(index));
        }
        assert_eq!(
            (accumulator.content_size, accumulator.check_size()),
            (0, Ok(()))
        );
        feed(&mut accumulator, &message_stop());
        assert!(accumulator.is_complete());
        let mut early = Accumulator::new();
        early.discard_content();
        let mut first = start();
        first["message"]["content"] = json!([{"type":"text","text":"a"}]);
        feed(&mut early, &first);
        feed(&mut early, &text(0, "b"));
        assert_eq!((content(&early), early.content_size), (json!([]), 0));
    }

    #[test]
    fn too_large_names_the_limit() {
        assert_eq!(
            TooLarge { limit: 16 }.to_string(),
            "content of the stream is longer than 16 bytes"
        );
    }

    #[test]
    fn compaction_grows_and_replaces_encrypted_content() {
        let compaction = |content: Value, secret: Value| {
            delta(
                0,
                json!({"type":"compaction_delta","content":content,"encrypted_content":secret}),
            )
        };
        let accumulator = fold(&[
            start(),
            block(0, json!({"type":"compaction","content":null})),
            compaction(json!("a"), json!("old")),
            compaction(json!("b"), json!("new")),
            compaction(json!(null), json!(null)),
            stop(0),
        ]);
        assert_eq!(
            content(&accumulator),
            json!([{"type":"compaction","content":"ab","encrypted_content":"new"}])
        );
    }

    /// The recorded streams that differ: their hash, how they differ, and why.
    const EXCEPTIONS: [(&str, &str, &str); 2] = [
        (
            "665bfc9ff7645bfd0acfad45c7d40a4d630f1401399dc5b02861e008f1e060c8",
            "ours is not complete",
            "the recording lacks the empty line after message_stop, which is not dispatched then",
        ),
        (
            "f95fa102eb9124f97d6b2f8224329f0d94cd59f4e0652c716ab879bf41294f72",
            "theirs failed",
            "a gateway sends `[DONE]` after message_stop, which is JSON to the official client",
        ),
    ];

    #[test]
    #[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
    fn recorded_streams_match_the_official_client() {
        let (mut count, mut faults, mut exceptions) = (0, Vec::new(), Vec::new());
        for line in recordings() {
            count += 1;
            let name = line["sha256"].as_str().expect("a hash").to_owned();
            let accumulator = recorded(line["body"].as_str().expect("a body"));
            if !accumulator.is_complete() {
                exceptions.push((name.clone(), "ours is not complete"));
            }
            let ours = serde_json::to_value(accumulator.into_message()).expect("JSON");
            let theirs = [&line["final"], &line["final_beta"]];
            if line["final_error"].is_string() {
                assert!(ours.is_object(), "{name}");
                exceptions.push((name, "theirs failed"));
                continue;
            }
            for theirs in theirs {
                assert!(theirs.is_object(), "{name}");
                compare(&name, &ours, theirs, &mut faults);
            }
            surplus(&name, &ours, &theirs, &mut faults);
        }
        assert!(faults.is_empty(), "{faults:#?}");
        exceptions.sort();
        let expected = EXCEPTIONS.map(|(name, what, _)| (name.to_owned(), what));
        assert_eq!(exceptions, expected);
        println!("{} of {count} are the same", count - exceptions.len());
    }

    #[test]
    #[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
    fn recorded_events_survive_a_round_trip() {
        for line in recordings() {
            let mut decoder = crate::stream::sse::Decoder::new();
            decoder.feed(line["body"].as_str().expect("a body").as_bytes());
            while let Some(event) = decoder.next_event().expect("short events") {
                let Some(raw) = DecodedEvent::decode(event.name, event.data).expect("an event")
                else {
                    continue;
                };
                let before: Value = serde_json::from_slice(event.data).expect("JSON");
                let after = serde_json::to_value(raw.into_event());
                assert_eq!(after.expect("JSON"), before);
            }
        }
    }

    fn recordings() -> impl Iterator<Item = Value> {
        let folder = std::env::var_os("ANTHROPIC_RECORDINGS")
            .expect("ANTHROPIC_RECORDINGS is set to the folder with streams.jsonl");
        let path = std::path::Path::new(&folder).join("streams.jsonl");
        let lines = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let lines: Vec<_> = lines.lines().map(serde_json::from_str).collect();
        lines.into_iter().map(|line| line.expect("JSON"))
    }

    fn recorded(body: &str) -> Accumulator {
        let mut accumulator = Accumulator::new();
        let mut decoder = crate::stream::sse::Decoder::new();
        decoder.feed(body.as_bytes());
        while let Some(event) = decoder.next_event().expect("short events") {
            if let Some(event) = DecodedEvent::decode(event.name, event.data).expect("an event") {
                accumulator.apply(&event);
            }
        }
        accumulator
    }
}
