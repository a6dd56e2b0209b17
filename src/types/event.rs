//! The events of a streamed response.

use std::collections::VecDeque;
use std::mem;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::ContentBlock;
use super::delta::ContentDelta;
use super::json::{JsonView, ParsedJson};
use super::message::{Message, StopDetails, StopReason};
use super::usage::Usage;
use super::wire::{self, Mismatch, WireStruct, WireValue, wire_struct};

/// One event of a streamed response.
///
/// Events of a type that this version does not know are kept in [`StreamEvent::Other`], unknown
/// fields of known events in `extra`. The `error` event has no variant: a stream returns it as an
/// [`Error`](crate::Error).
///
/// ```
/// use anthropic_blocking::{MessageStream, Result, StreamEvent};
///
/// # fn follow(stream: MessageStream) -> Result<()> {
/// for event in stream {
///     match event? {
///         StreamEvent::ContentBlockStart(start) => println!("[{}]", start.content_block.kind()),
///         StreamEvent::ContentBlockDelta(event) => print!("{:?}", event.delta.as_text()),
///         StreamEvent::MessageDelta(end) => println!("\nbecause of {:?}", end.delta.stop_reason),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The message begins.
    MessageStart(Box<MessageStart>),
    /// A content block begins.
    ContentBlockStart(Box<ContentBlockStart>),
    /// A content block continues.
    ContentBlockDelta(ContentBlockDelta),
    /// A content block is complete.
    ContentBlockStop(ContentBlockStop),
    /// The end of the content: the stop reason and the usage.
    MessageDelta(Box<MessageDelta>),
    /// The message is complete.
    MessageStop(MessageStop),
    /// A keep-alive event without content.
    Ping(Ping),
    /// An event of unknown type, as its JSON object.
    Other(Map<String, Value>),
}

wire_struct! {
    /// The message begins.
    ///
    /// ```
    /// use anthropic_blocking::StreamEvent;
    ///
    /// # fn see(event: &StreamEvent) {
    /// if let StreamEvent::MessageStart(start) = event {
    ///     println!("{} reads {} tokens", start.message.model, start.message.usage.input_tokens);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageStart as "message_start" {
        /// The message so far: no content, and the usage of the input.
        req message: Message,
    }
}

wire_struct! {
    /// A content block begins.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, StreamEvent};
    ///
    /// # fn see(event: &StreamEvent) {
    /// if let StreamEvent::ContentBlockStart(start) = event {
    ///     if let ContentBlock::ToolUse(call) = &start.content_block {
    ///         println!("block {} calls {}", start.index, call.name);
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockStart as "content_block_start" {
        /// The block's index in the message's content.
        req index: u64,
        /// The block so far; results of server tools are complete already.
        req content_block: ContentBlock,
    }
}

wire_struct! {
    /// A content block continues.
    ///
    /// ```
    /// use anthropic_blocking::{ContentDelta, StreamEvent};
    ///
    /// # fn see(event: &StreamEvent) {
    /// if let StreamEvent::ContentBlockDelta(event) = event {
    ///     if let ContentDelta::Thinking(delta) = &event.delta {
    ///         eprint!("{}", delta.thinking);
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockDelta as "content_block_delta" {
        /// The block's index in the message's content.
        req index: u64,
        /// What to add to the block.
        req delta: ContentDelta,
    }
}

wire_struct! {
    /// A content block is complete.
    ///
    /// ```
    /// use anthropic_blocking::StreamEvent;
    ///
    /// let json = r#"{"type":"content_block_stop","index":2}"#;
    /// let event: StreamEvent = serde_json::from_str(json)?;
    /// assert!(matches!(event, StreamEvent::ContentBlockStop(stop) if stop.index == 2));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockStop as "content_block_stop" {
        /// The block's index in the message's content.
        req index: u64,
    }
}

wire_struct! {
    /// The end of the content: the stop reason and the usage.
    ///
    /// ```
    /// use anthropic_blocking::{StopReason, StreamEvent};
    ///
    /// # fn see(event: &StreamEvent) {
    /// if let StreamEvent::MessageDelta(end) = event {
    ///     if end.delta.stop_reason == Some(StopReason::MaxTokens) {
    ///         eprintln!("cut off");
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageDelta as "message_delta" {
        /// Why the model stopped.
        def delta: StopDelta,
        /// The usage so far. The counts are cumulative: a field that is set replaces the earlier
        /// value.
        opt usage: Usage,
    }
}

wire_struct! {
    /// Why the model stopped, as part of a [`MessageDelta`].
    ///
    /// ```
    /// use anthropic_blocking::{StopDelta, StopReason};
    ///
    /// let json = r#"{"stop_reason":"stop_sequence","stop_sequence":"."}"#;
    /// let end: StopDelta = serde_json::from_str(json)?;
    /// assert_eq!(end.stop_reason, Some(StopReason::StopSequence));
    /// assert_eq!(end.stop_sequence.as_deref(), Some("."));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct StopDelta {
        /// Why the model stopped.
        opt stop_reason: StopReason,
        /// The stop sequence that the model generated, if that is why it stopped.
        opt stop_sequence: String,
        /// Details of a refusal.
        opt stop_details: StopDetails,
        /// The code execution container that was used.
        opt container: Value,
    }
}

wire_struct! {
    /// The message is complete.
    ///
    /// ```
    /// use anthropic_blocking::StreamEvent;
    ///
    /// let event: StreamEvent = serde_json::from_str(r#"{"type":"message_stop"}"#)?;
    /// assert!(matches!(event, StreamEvent::MessageStop(_)));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageStop as "message_stop" {}
}

wire_struct! {
    /// A keep-alive event without content.
    ///
    /// ```
    /// use anthropic_blocking::StreamEvent;
    ///
    /// let event: StreamEvent = serde_json::from_str(r#"{"type":"ping"}"#)?;
    /// assert_eq!(event.kind(), "ping");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Ping as "ping" {}
}

impl StreamEvent {
    /// Returns the text that this event adds to the message: the text of a delta, or the initial
    /// text of a block (some gateways send the whole text there).
    pub fn as_text(&self) -> Option<&str> {
        match self {
            StreamEvent::ContentBlockDelta(event) => event.delta.as_text(),
            StreamEvent::ContentBlockStart(event) => event.content_block.as_text(),
            _ => None,
        }
    }

    /// Returns the events that a stream of this message would consist of.
    pub(crate) fn of_message(mut message: Message) -> VecDeque<StreamEvent> {
        let delta = StopDelta {
            stop_reason: message.stop_reason.clone(),
            stop_sequence: message.stop_sequence.clone(),
            stop_details: message.stop_details.clone(),
            container: None,
            extra: Map::new(),
        };
        let usage = Some(message.usage.clone());
        let blocks = mem::take(&mut message.content);
        let start = MessageStart {
            message,
            extra: Map::new(),
        };
        let mut events = VecDeque::from([StreamEvent::MessageStart(Box::new(start))]);
        for (index, content_block) in (0..).zip(blocks) {
            let start = ContentBlockStart {
                index,
                content_block,
                extra: Map::new(),
            };
            let stop = ContentBlockStop {
                index,
                extra: Map::new(),
            };
            events.push_back(StreamEvent::ContentBlockStart(Box::new(start)));
            events.push_back(StreamEvent::ContentBlockStop(stop));
        }
        let end = MessageDelta {
            delta,
            usage,
            extra: Map::new(),
        };
        let stop = MessageStop { extra: Map::new() };
        events.push_back(StreamEvent::MessageDelta(Box::new(end)));
        events.push_back(StreamEvent::MessageStop(stop));
        events
    }

    /// Returns the event's `type` on the wire; empty for an unknown event without a `type`.
    pub fn kind(&self) -> &str {
        match self {
            StreamEvent::MessageStart(_) => "message_start",
            StreamEvent::ContentBlockStart(_) => "content_block_start",
            StreamEvent::ContentBlockDelta(_) => "content_block_delta",
            StreamEvent::ContentBlockStop(_) => "content_block_stop",
            StreamEvent::MessageDelta(_) => "message_delta",
            StreamEvent::MessageStop(_) => "message_stop",
            StreamEvent::Ping(_) => "ping",
            StreamEvent::Other(object) => object.get("type").and_then(Value::as_str).unwrap_or(""),
        }
    }
}

impl WireValue for StreamEvent {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        let object = wire::as_object(json)?;
        Ok(match object.tag().ok_or(Mismatch::Missing("type"))? {
            "message_start" => {
                StreamEvent::MessageStart(Box::new(WireStruct::read_fields(object)?))
            }
            "content_block_start" => {
                StreamEvent::ContentBlockStart(Box::new(WireStruct::read_fields(object)?))
            }
            "content_block_delta" => {
                StreamEvent::ContentBlockDelta(WireStruct::read_fields(object)?)
            }
            "content_block_stop" => StreamEvent::ContentBlockStop(WireStruct::read_fields(object)?),
            "message_delta" => {
                StreamEvent::MessageDelta(Box::new(WireStruct::read_fields(object)?))
            }
            "message_stop" => StreamEvent::MessageStop(WireStruct::read_fields(object)?),
            "ping" => StreamEvent::Ping(WireStruct::read_fields(object)?),
            _ => StreamEvent::Other(object.to_map()),
        })
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            StreamEvent::MessageStart(event) => event.write(),
            StreamEvent::ContentBlockStart(event) => event.write(),
            StreamEvent::ContentBlockDelta(event) => event.write(),
            StreamEvent::ContentBlockStop(event) => event.write(),
            StreamEvent::MessageDelta(event) => event.write(),
            StreamEvent::MessageStop(event) => event.write(),
            StreamEvent::Ping(event) => event.write(),
            StreamEvent::Other(object) => object.write(),
        }
    }
}

impl<'de> Deserialize<'de> for StreamEvent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

impl Serialize for StreamEvent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_every_kind_round_trip() {
        for json in [
            json!({"type":"message_start","message":{"id":"m","content":[],"stop_reason":null,
                "usage":{"input_tokens":0}},"new":[]}),
            json!({"type":"content_block_start","index":0,"content_block":{"type":"text",
                "text":"","citations":null}}),
            json!({"type":"content_block_start","index":1,"content_block":{"type":"future"},"x":1}),
            json!({"type":"content_block_stop","index":7}),
            json!({"type":"content_block_stop","index":7,"x":null}),
            json!({"type":"message_delta","delta":{"stop_reason":null,"stop_sequence":null,
                "stop_details":{"type":"refusal","category":null},"container":{"id":"c"},"x":1},
                "usage":{"output_tokens":0,"iterations":[{"type":"message"}],
                "server_tool_use":{"web_search_requests":0}},
                "context_management":{"applied_edits":[]}}),
            json!({"type":"message_delta","delta":{},"usage":null}),
            json!({"type":"message_stop"}),
            json!({"type":"message_stop","amazon-bedrock-invocationMetrics":{"n":1}}),
            json!({"type":"ping"}),
            json!({"type":"ping","sent":1.5}),
            json!({"type":"future","index":0,"delta":{"type":"text_delta","text":"a"}}),
        ] {
            round_trip(&json);
        }
    }

    #[test]
    fn deltas_of_every_kind_round_trip() {
        for delta in [
            json!({"type":"text_delta","text":"a\n\u{1f600}\"b"}),
            json!({"type":"text_delta","text":"a","new":null}),
            json!({"type":"text_delta","text":null}),
            json!({"type":"text_delta","text":"a","thinking":"b"}),
            json!({"type":"thinking_delta","text":"a","thinking":"b"}),
            json!({"type":"input_json_delta","partial_json":""}),
            json!({"type":"thinking_delta","thinking":"a"}),
            json!({"type":"thinking_delta","thinking":"","estimated_tokens":50}),
            json!({"type":"signature_delta","signature":"a"}),
            json!({"type":"signature_delta","text":"a"}),
            json!({"type":"citations_delta","citation":{"type":"new","cited_text":"","x":[1]}}),
            json!({"type":"citations_delta","citation":"odd"}),
            json!({"type":"future_delta","text":"a"}),
            json!({"text":"a"}),
            json!({}),
        ] {
            round_trip(&json!({"type":"content_block_delta","index":3,"delta":delta}));
        }
        round_trip(&json!({"type":"content_block_delta","index":3,"new":1,
            "delta":{"type":"text_delta","text":"a"}}));
    }

    #[track_caller]
    fn round_trip(json: &Value) {
        let text = json.to_string();
        let event: StreamEvent = serde_json::from_str(&text).unwrap();
        assert_eq!(&serde_json::to_value(&event).unwrap(), json);
        let from_value: StreamEvent = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(from_value, event, "{text}");
        assert_eq!(event.kind(), json["type"]);
    }
}
