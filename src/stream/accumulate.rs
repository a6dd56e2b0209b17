//! Folds the events of a stream into a [`Message`].
//!
//! Blocks are found by their `index` and stand in the order in which they began. What does not fit
//! is passed over, as the official clients do: events before `message_start`, a second one, deltas
//! for a block that never began or is of another kind, deltas and events of unknown kinds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::merge::{apply_message_delta, json_len, remove_extra};
use crate::types::{
    Citation, ContentBlock, ContentDelta, DeltaKind, Message, RawEvent, StreamEvent, TextBlock,
};

/// Folds the events of one stream into a message, which can be looked at at any time.
///
/// While a tool's input arrives, it is raw text (see
/// [`ToolUseBlock::raw_input`](crate::ToolUseBlock::raw_input)); it is read when its block ends, or
/// the message does, and stays raw text if it is no valid JSON or the stream breaks before.
///
/// It takes in [`MAX_CONTENT`] bytes and the rest of an event at most, and says so: see
/// [`Accumulator::room`].
#[derive(Debug)]
pub(crate) struct Accumulator {
    message: Option<Message>,
    /// Where the block with this index stands in the message's content.
    blocks: BTreeMap<u64, BlockState>,
    is_complete: bool,
    discards_content: bool,
    /// How much has been taken in, in bytes, roughly.
    kept: usize,
    /// The most of that.
    limit: usize,
}

impl Default for Accumulator {
    fn default() -> Accumulator {
        Accumulator {
            message: None,
            blocks: BTreeMap::new(),
            is_complete: false,
            discards_content: false,
            kept: 0,
            limit: MAX_CONTENT,
        }
    }
}

/// There is more content than is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    /// The most that is kept, in bytes.
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

#[derive(Debug)]
struct BlockState {
    position: usize,
    input: InputState,
}

/// How far the input of a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputState {
    /// As the block began with it.
    Initial,
    /// Text in the making.
    Raw,
    /// All there.
    Done,
}

impl Accumulator {
    /// Begins with nothing.
    pub(crate) fn new() -> Accumulator {
        Accumulator::default()
    }

    /// Forgets the content, and takes in no more of it.
    pub(crate) fn discard_content(&mut self) {
        self.discards_content = true;
        self.kept = 0;
        self.blocks.clear();
        if let Some(message) = &mut self.message {
            message.content = Vec::new();
        }
    }

    /// Takes in the next event. After `message_stop` nothing changes any more, nor once there is no
    /// room.
    pub(crate) fn apply(&mut self, event: &RawEvent<'_>) {
        if self.kept > self.limit {
            return;
        }
        match event {
            RawEvent::Delta { index, delta } => self.append_text(*index, delta.kind, &delta.text),
            RawEvent::Event(event) => self.apply_event(event),
        }
    }

    /// The same for an event that nobody else needs.
    pub(crate) fn absorb(&mut self, event: RawEvent<'_>) {
        match event {
            RawEvent::Event(StreamEvent::MessageStart(event)) if self.message.is_none() => {
                self.start(event.message);
            }
            event => self.apply(&event),
        }
    }

    /// Whether there is room for more content. Ask after each event, and fail the stream.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] from the event on with which the limit is passed.
    #[inline]
    pub(crate) fn room(&self) -> Result<(), TooLarge> {
        if self.kept > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// The message so far; `None` before `message_start`.
    pub(crate) fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// The message as it is now.
    pub(crate) fn into_message(self) -> Option<Message> {
        self.message
    }

    /// Whether `message_stop` has come, and the message is whole.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn apply_event(&mut self, event: &StreamEvent) {
        if self.is_complete {
            return;
        }
        let Some(message) = &mut self.message else {
            if let StreamEvent::MessageStart(event) = event {
                self.start(event.message.clone());
            }
            return;
        };
        match event {
            StreamEvent::ContentBlockStart(_) if self.discards_content => {}
            StreamEvent::ContentBlockStart(event) => {
                finish_block(message, self.blocks.get_mut(&event.index));
                self.kept += BLOCK_OVERHEAD + json_len(&event.content_block);
                let place = BlockState::at(message.content.len());
                message.content.push(event.content_block.clone());
                self.blocks.insert(event.index, place);
            }
            StreamEvent::ContentBlockDelta(event) => match &event.delta {
                ContentDelta::Text(delta) => {
                    self.append_text(event.index, DeltaKind::Text, &delta.text)
                }
                ContentDelta::InputJson(delta) => {
                    self.append_text(event.index, DeltaKind::InputJson, &delta.partial_json);
                }
                ContentDelta::Thinking(delta) => {
                    self.append_text(event.index, DeltaKind::Thinking, &delta.thinking);
                }
                ContentDelta::Signature(delta) => {
                    self.append_text(event.index, DeltaKind::Signature, &delta.signature);
                }
                delta => self.apply_rare_delta(event.index, delta),
            },
            StreamEvent::ContentBlockStop(event) => {
                finish_block(message, self.blocks.get_mut(&event.index));
            }
            StreamEvent::MessageDelta(event) => {
                // Known fields replace what was there; only unknown ones can become more and more.
                self.kept += apply_message_delta(message, event);
            }
            StreamEvent::MessageStop(_) => {
                for place in self.blocks.values_mut() {
                    finish_block(message, Some(place));
                }
                self.is_complete = true;
            }
            _ => {}
        }
    }

    /// Begins the message. Gateways may send content with it, whose blocks count from zero.
    fn start(&mut self, mut message: Message) {
        if self.discards_content {
            message.content = Vec::new();
        }
        for (index, block) in message.content.iter().enumerate() {
            self.kept += BLOCK_OVERHEAD + json_len(block);
            self.blocks.insert(index as u64, BlockState::at(index));
        }
        self.message = Some(message);
    }

    fn append_text(&mut self, index: u64, kind: DeltaKind, text: &str) {
        if self.is_complete {
            return;
        }
        let Some((block, input)) = self.block(index) else {
            return;
        };
        match (kind, block) {
            (DeltaKind::Text, ContentBlock::Text(block)) => block.text.push_str(text),
            (DeltaKind::Text, block) => append_to_untyped_text(block, text),
            (DeltaKind::Thinking, ContentBlock::Thinking(block)) => {
                block.thinking.push_str(text);
                remove_extra(&mut block.extra, "thinking", block.thinking.is_empty());
            }
            (DeltaKind::Signature, ContentBlock::Thinking(block)) => {
                text.clone_into(&mut block.signature);
                remove_extra(&mut block.extra, "signature", text.is_empty());
            }
            (DeltaKind::InputJson, block) => append_input(block, input, text),
            _ => return,
        }
        // What replaces something, or comes too late, counts as well: near enough.
        self.kept = self.kept.saturating_add(text.len());
    }

    fn apply_rare_delta(&mut self, index: u64, delta: &ContentDelta) {
        let size = match (delta, self.block(index)) {
            (ContentDelta::Citations(delta), Some((ContentBlock::Text(block), _))) => {
                let TextBlock {
                    citations, extra, ..
                } = block;
                let citations = citations.get_or_insert_default();
                citations.push(delta.citation.clone());
                remove_extra(extra, "citations", false);
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
        self.kept = self.kept.saturating_add(size);
    }

    fn block(&mut self, index: u64) -> Option<(&mut ContentBlock, &mut InputState)> {
        let place = self.blocks.get_mut(&index)?;
        let block = self.message.as_mut()?.content.get_mut(place.position)?;
        Some((block, &mut place.input))
    }
}

impl BlockState {
    fn at(position: usize) -> BlockState {
        BlockState {
            position,
            input: InputState::Initial,
        }
    }
}

/// Appends to a text block that began without a text that is a string, and was kept as it is.
#[cold]
fn append_to_untyped_text(block: &mut ContentBlock, text: &str) {
    let ContentBlock::Other(object) = block else {
        return;
    };
    if is_type(object, "text") {
        push_str(object.entry("text").or_insert(Value::Null), text);
        let object = Value::Object(std::mem::take(object));
        // An object is always a block, of whatever kind.
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
        ContentBlock::ToolUse(block) => remove_extra(&mut block.extra, "input", false),
        ContentBlock::ServerToolUse(block) => remove_extra(&mut block.extra, "input", false),
        _ => {}
    }
}

/// Reads the input of a tool call whose block ends; none at all is an empty one. A JSON string or `null` stays raw text as well:
/// it is no input, and the one would pass for text that was cut off, the other for none. So does what
/// is nested so deep that nobody could read the message again.
#[inline(never)]
fn finish_block(message: &mut Message, place: Option<&mut BlockState>) {
    let Some(place) = place else {
        return;
    };
    let before = std::mem::replace(&mut place.input, InputState::Done);
    let is_raw = before == InputState::Raw;
    let mut block = message.content.get_mut(place.position);
    if let (InputState::Initial, Some(ContentBlock::ToolUse(call))) = (before, &mut block) {
        if call.input.is_null() {
            call.input = Value::Object(Map::new());
            remove_extra(&mut call.extra, "input", false);
        }
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

/// Appends to a string; anything else is replaced.
fn push_str(value: &mut Value, text: &str) {
    match value {
        Value::String(value) => value.push_str(text),
        other => *other = Value::from(text),
    }
}

fn is_type(object: &Map<String, Value>, name: &str) -> bool {
    object.get("type").and_then(Value::as_str) == Some(name)
}

/// The most content that is kept: 128 MiB, as much as is read of an answer that is not streamed. The
/// longest outputs are of a few hundred thousand tokens, one or two MiB; the rest is for what
/// server tools find. Beyond that a server is broken or means ill.
pub(crate) const MAX_CONTENT: usize = 128 << 20;

/// The most levels of a tool's input. JSON is read to 127 levels; what is left is for the message and
/// what that may be put into: a request, a batch, a journal.
const MAX_INPUT_DEPTH: usize = 100;

/// What a block takes beside its content, so that endless empty blocks count as well.
const BLOCK_OVERHEAD: usize = size_of::<ContentBlock>() + size_of::<(u64, BlockState)>();

#[cfg(test)]
mod tests {
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
        let event = RawEvent::decode(b"", data.as_bytes()).expect("an event");
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
    fn message_equals_the_one_that_is_not_streamed() {
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
    fn interleaved_blocks_are_told_apart_and_stand_in_order_of_arrival() {
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
    fn reused_index_means_the_block_that_began_last() {
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
    fn tool_input_without_deltas_is_that_of_the_start() {
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
    fn tool_input_of_which_nothing_came_is_empty() {
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
    fn tool_input_is_raw_text_until_its_block_or_the_message_ends() {
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
    fn usage_is_overwritten_by_what_is_there_and_not_null() {
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
    fn usage_that_the_start_lacks_comes_with_message_delta() {
        let mut first = start();
        first["message"]["usage"] = json!(null);
        let delta = json!({"type":"message_delta","delta":{},"usage":{"output_tokens":5}});
        let message = fold(&[first, delta]).into_message().unwrap();
        assert_eq!(message.usage.output_tokens, 5);
        assert!(!message.extra.contains_key("usage"));
    }

    #[test]
    fn stop_fields_are_overwritten_even_by_null_and_the_container_is_not() {
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
    fn unknown_fields_of_message_delta_are_kept_on_the_message() {
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
    fn what_does_not_fit_is_passed_over() {
        let unknown = delta(0, json!({"type":"future_delta","text":"x"}));
        let data = unknown.to_string();
        let event = RawEvent::decode(b"", data.as_bytes()).unwrap();
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
    fn events_before_the_start_are_passed_over() {
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
    fn content_of_the_start_is_kept_and_goes_on() {
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
            accumulator.limit = accumulator.kept + 10_000;
            let (mut rounds, mut held) = (0, 0);
            while accumulator.room().is_ok() {
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
            assert_eq!(accumulator.room(), Err(refused), "{name}");
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
    fn unknown_fields_without_end_are_refused() {
        let mut accumulator = fold(&[start()]);
        accumulator.limit = 10_000;
        let same = json!({"type":"message_delta","delta":{"x":1},"usage":{"output_tokens":5}});
        for _ in 0..1000 {
            feed(&mut accumulator, &same);
        }
        assert_eq!(accumulator.room(), Ok(()));
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
            assert!(accumulator.room().is_err());
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
            assert!(accumulator.room().is_err(), "{part}");
        }
    }

    #[test]
    fn usage_takes_over_what_is_said_and_not_null() {
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

    /// An object with the fields of another one in place of its own.
    fn said_with(object: &Value, said: &Value) -> Value {
        let mut object = object.as_object().unwrap().clone();
        object.extend(said.as_object().unwrap().clone());
        Value::Object(object)
    }

    #[test]
    fn thousands_of_updates_of_usage_take_no_longer_than_they_are_long() {
        let mut accumulator = fold(&[start()]);
        let began = std::time::Instant::now();
        for round in 0..20_000 {
            let name = format!("new_{round}");
            feed(
                &mut accumulator,
                &json!({"type":"message_delta","usage":{name:1}}),
            );
        }
        // Tenths of a second; with a copy of it all each time, some minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(30));
        let message = accumulator.into_message().unwrap();
        assert!(message.usage.extra.len() >= 20_000);
    }

    #[test]
    fn input_is_read_as_deep_as_a_message_can_be_read_again() {
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
    fn without_content_nothing_is_kept_and_nothing_counts() {
        let mut accumulator = fold(&[start(), block(0, json!({"type":"text","text":"a"}))]);
        accumulator.limit = 1000;
        feed(&mut accumulator, &text(0, &"x".repeat(900)));
        assert!(accumulator.kept > 0);
        accumulator.discard_content();
        for index in 0..100 {
            feed(
                &mut accumulator,
                &block(index, json!({"type":"text","text":"a"})),
            );
            feed(&mut accumulator, &text(index, &"x".repeat(900)));
            feed(&mut accumulator, &stop(index));
        }
        assert_eq!((accumulator.kept, accumulator.room()), (0, Ok(())));
        feed(&mut accumulator, &message_stop());
        assert!(accumulator.is_complete());
        let mut early = Accumulator::new();
        early.discard_content();
        let mut first = start();
        first["message"]["content"] = json!([{"type":"text","text":"a"}]);
        feed(&mut early, &first);
        feed(&mut early, &text(0, "b"));
        assert_eq!((content(&early), early.kept), (json!([]), 0));
    }

    #[test]
    fn refusal_names_the_limit() {
        assert_eq!(
            TooLarge { limit: 16 }.to_string(),
            "content of the stream is longer than 16 bytes"
        );
    }

    #[test]
    fn compaction_grows_and_its_secret_is_replaced() {
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

    /// The recorded streams with which something is the matter: what, and why.
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
    fn recorded_streams_accumulate_to_what_the_official_client_makes_of_them() {
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
    fn recorded_events_are_written_as_they_came() {
        for line in recordings() {
            let mut decoder = crate::stream::sse::Decoder::new();
            decoder.feed(line["body"].as_str().expect("a body").as_bytes());
            while let Some(event) = decoder.next_event().expect("short events") {
                let Some(raw) = RawEvent::decode(event.name, event.data).expect("an event") else {
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
            if let Some(event) = RawEvent::decode(event.name, event.data).expect("an event") {
                accumulator.apply(&event);
            }
        }
        accumulator
    }

    /// Finds what of theirs, nulls aside, is missing or other in ours.
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

    /// Finds what of ours, nulls aside, is in none of theirs.
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
}
