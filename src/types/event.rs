//! Stream events: what a streamed answer arrives in.
//!
//! [`RawEvent::decode`] reads an event's data. Nearly all events of a stream are small pieces of
//! text, so that these are read in one pass and borrowed from the data; whatever is unusual about
//! an event, be it one unknown field, makes it a [`StreamEvent`] that keeps all of it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::api_error::{ApiError, ApiErrorType};
use super::content::{Citation, ContentBlock};
use super::id::RequestId;
use super::message::{Message, StopDetails, StopReason, Usage};
use super::wire::{Key, read_object, wire_struct, write_struct};

/// One event of a streamed answer.
///
/// An event of a kind that this version does not know is kept in [`StreamEvent::Other`], and an
/// unknown field of a known event in its `extra`. The `error` event is none of these: a stream
/// turns it into an [`Error`](crate::Error).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The answer begins.
    MessageStart(Box<MessageStart>),
    /// A content block begins.
    ContentBlockStart(Box<ContentBlockStart>),
    /// A content block goes on.
    ContentBlockDelta(ContentBlockDelta),
    /// A content block is complete.
    ContentBlockStop(ContentBlockStop),
    /// All content is there: why the model stopped, and what it cost.
    MessageDelta(Box<MessageDelta>),
    /// The answer is complete.
    MessageStop(MessageStop),
    /// A sign of life.
    Ping(Ping),
    /// Any other event, as the JSON object that it is.
    Other(Map<String, Value>),
}

wire_struct! {
    /// The answer begins.
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageStart as "message_start" {
        /// The answer so far: no content, and the tokens of the input.
        req message: Message,
    }
}

wire_struct! {
    /// A content block begins.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockStart as "content_block_start" {
        /// The block's number.
        req index: u64,
        /// The block so far; results of server tools arrive whole.
        req content_block: ContentBlock,
    }
}

wire_struct! {
    /// A content block goes on.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockDelta as "content_block_delta" {
        /// The block's number.
        req index: u64,
        /// What is new.
        req delta: ContentDelta,
    }
}

wire_struct! {
    /// A content block is complete.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContentBlockStop as "content_block_stop" {
        /// The block's number.
        req index: u64,
    }
}

wire_struct! {
    /// All content is there: why the model stopped, and what it cost.
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageDelta as "message_delta" {
        /// Why the model stopped.
        def delta: StopDelta,
        /// The tokens so far, cumulative: a field that is set replaces the one before.
        opt usage: Usage,
    }
}

wire_struct! {
    /// Why the model stopped, as a [`MessageDelta`] says it.
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct StopDelta {
        /// Why it stopped.
        opt stop_reason: StopReason,
        /// The stop sequence that it wrote.
        opt stop_sequence: String,
        /// More about a refusal.
        opt stop_details: StopDetails,
        /// The code execution container that was used.
        opt container: Value,
    }
}

wire_struct! {
    /// The answer is complete.
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageStop as "message_stop" {}
}

wire_struct! {
    /// A sign of life.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Ping as "ping" {}
}

/// What is new in a content block.
///
/// A delta of a kind that this version does not know, or in another shape than the documented one,
/// is kept in [`ContentDelta::Other`]; the accumulated message does without it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ContentDelta {
    /// More text.
    Text(TextDelta),
    /// More of a tool's input.
    InputJson(InputJsonDelta),
    /// More reasoning.
    Thinking(ThinkingDelta),
    /// The signature of a thinking block.
    Signature(SignatureDelta),
    /// One more citation.
    Citations(Box<CitationsDelta>),
    /// Any other delta, as the JSON object that it is.
    Other(Map<String, Value>),
}

wire_struct! {
    /// More text.
    #[derive(Debug, Clone, PartialEq)]
    pub struct TextDelta as "text_delta" {
        /// The text to append.
        req text: String,
    }
}

wire_struct! {
    /// More of a tool's input.
    #[derive(Debug, Clone, PartialEq)]
    pub struct InputJsonDelta as "input_json_delta" {
        /// A piece of JSON text: all pieces of a block joined are the input.
        req partial_json: String,
    }
}

wire_struct! {
    /// More reasoning.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ThinkingDelta as "thinking_delta" {
        /// The text to append.
        req thinking: String,
    }
}

wire_struct! {
    /// The signature of a thinking block.
    #[derive(Debug, Clone, PartialEq)]
    pub struct SignatureDelta as "signature_delta" {
        /// The whole signature; replaces the one before.
        req signature: String,
    }
}

wire_struct! {
    /// One more citation of a text block.
    #[derive(Debug, Clone, PartialEq)]
    pub struct CitationsDelta as "citations_delta" {
        /// The citation to add.
        req citation: Citation,
    }
}

impl StreamEvent {
    /// The text that a delta adds to the answer's text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            StreamEvent::ContentBlockDelta(event) => event.delta.as_text(),
            _ => None,
        }
    }

    /// The text that this event adds, also where a text block begins with some.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            StreamEvent::ContentBlockDelta(event) => match event.delta {
                ContentDelta::Text(delta) => Some(delta.text),
                _ => None,
            },
            StreamEvent::ContentBlockStart(event) => match event.content_block {
                ContentBlock::Text(block) => Some(block.text),
                _ => None,
            },
            _ => None,
        }
    }

    /// The events of a message that arrived whole.
    pub(crate) fn of_message(mut message: Message) -> VecDeque<StreamEvent> {
        let extra = Map::new;
        let delta = StopDelta {
            stop_reason: message.stop_reason.clone(),
            stop_sequence: message.stop_sequence.clone(),
            stop_details: message.stop_details.clone(),
            container: None,
            extra: extra(),
        };
        let usage = Some(message.usage.clone());
        let blocks = std::mem::take(&mut message.content);
        let start = MessageStart {
            message,
            extra: extra(),
        };
        let mut events = VecDeque::from([StreamEvent::MessageStart(Box::new(start))]);
        for (index, content_block) in (0..).zip(blocks) {
            let start = ContentBlockStart {
                index,
                content_block,
                extra: extra(),
            };
            let stop = ContentBlockStop {
                index,
                extra: extra(),
            };
            events.push_back(StreamEvent::ContentBlockStart(Box::new(start)));
            events.push_back(StreamEvent::ContentBlockStop(stop));
        }
        let delta = MessageDelta {
            delta,
            usage,
            extra: extra(),
        };
        events.push_back(StreamEvent::MessageDelta(Box::new(delta)));
        events.push_back(StreamEvent::MessageStop(MessageStop { extra: extra() }));
        events
    }

    /// The event's `type` on the wire; empty for an unknown event without one.
    pub fn kind(&self) -> &str {
        match self {
            StreamEvent::MessageStart(_) => "message_start",
            StreamEvent::ContentBlockStart(_) => "content_block_start",
            StreamEvent::ContentBlockDelta(_) => "content_block_delta",
            StreamEvent::ContentBlockStop(_) => "content_block_stop",
            StreamEvent::MessageDelta(_) => "message_delta",
            StreamEvent::MessageStop(_) => "message_stop",
            StreamEvent::Ping(_) => "ping",
            StreamEvent::Other(object) => tag(object),
        }
    }

    fn from_object(object: Map<String, Value>) -> Result<StreamEvent, serde_json::Error> {
        Ok(match tag(&object) {
            "message_start" => StreamEvent::MessageStart(Box::new(read_object(object)?)),
            "content_block_start" => StreamEvent::ContentBlockStart(Box::new(read_object(object)?)),
            "content_block_delta" => StreamEvent::ContentBlockDelta(read_object(object)?),
            "content_block_stop" => StreamEvent::ContentBlockStop(read_object(object)?),
            "message_delta" => StreamEvent::MessageDelta(Box::new(read_object(object)?)),
            "message_stop" => StreamEvent::MessageStop(read_object(object)?),
            "ping" => StreamEvent::Ping(read_object(object)?),
            _ => StreamEvent::Other(object),
        })
    }
}

impl ContentDelta {
    /// The text of a text delta.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ContentDelta::Text(delta) => Some(&delta.text),
            _ => None,
        }
    }

    fn from_object(object: Map<String, Value>) -> ContentDelta {
        let known = match tag(&object) {
            "text_delta" => read_object(object.clone()).map(ContentDelta::Text),
            "input_json_delta" => read_object(object.clone()).map(ContentDelta::InputJson),
            "thinking_delta" => read_object(object.clone()).map(ContentDelta::Thinking),
            "signature_delta" => read_object(object.clone()).map(ContentDelta::Signature),
            "citations_delta" => {
                read_object(object.clone()).map(|delta| ContentDelta::Citations(Box::new(delta)))
            }
            _ => return ContentDelta::Other(object),
        };
        known.unwrap_or(ContentDelta::Other(object))
    }
}

impl<'de> Deserialize<'de> for StreamEvent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        StreamEvent::from_object(Map::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ContentDelta {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Map::deserialize(from).map(ContentDelta::from_object)
    }
}

impl Serialize for StreamEvent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            StreamEvent::MessageStart(event) => write_struct(&**event, to),
            StreamEvent::ContentBlockStart(event) => write_struct(&**event, to),
            StreamEvent::ContentBlockDelta(event) => write_struct(event, to),
            StreamEvent::ContentBlockStop(event) => write_struct(event, to),
            StreamEvent::MessageDelta(event) => write_struct(&**event, to),
            StreamEvent::MessageStop(event) => write_struct(event, to),
            StreamEvent::Ping(event) => write_struct(event, to),
            StreamEvent::Other(object) => object.serialize(to),
        }
    }
}

impl Serialize for ContentDelta {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            ContentDelta::Text(delta) => write_struct(delta, to),
            ContentDelta::InputJson(delta) => write_struct(delta, to),
            ContentDelta::Thinking(delta) => write_struct(delta, to),
            ContentDelta::Signature(delta) => write_struct(delta, to),
            ContentDelta::Citations(delta) => write_struct(&**delta, to),
            ContentDelta::Other(object) => object.serialize(to),
        }
    }
}

/// An event as it comes from the wire: pieces of text are still borrowed from its data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawEvent<'a> {
    /// A `content_block_delta` of one of the kinds that make up nearly all of a stream.
    Delta { index: u64, delta: RawDelta<'a> },
    /// Any other event.
    Event(StreamEvent),
}

/// Why an event's data gave no event.
#[derive(Debug)]
pub(crate) enum NoEvent {
    /// It is an `error` event: the stream has failed.
    Error(Box<ErrorEvent>),
    /// It is no JSON object, or one of a known type without its required fields.
    Unreadable(serde_json::Error),
}

impl From<serde_json::Error> for NoEvent {
    fn from(error: serde_json::Error) -> NoEvent {
        NoEvent::Unreadable(error)
    }
}

/// What an `error` event says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorEvent {
    pub(crate) error: ApiError,
    pub(crate) request_id: Option<RequestId>,
}

/// A piece of text for a content block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawDelta<'a> {
    pub(crate) kind: DeltaKind,
    pub(crate) text: Cow<'a, str>,
}

/// What a piece of text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaKind {
    Text,
    InputJson,
    Thinking,
    Signature,
}

impl<'a> RawEvent<'a> {
    /// Reads an event from its name, which may be empty, and its data.
    ///
    /// `None` is nothing to act on: no data, or the `[DONE]` that some gateways send. The data's
    /// `type` says what it is, and the name where there is none. Bytes that are not UTF-8 are
    /// replaced as the standard for event streams says.
    ///
    /// # Errors
    ///
    /// An `error` event, and data that is no event.
    pub(crate) fn decode(name: &[u8], data: &'a [u8]) -> Result<Option<RawEvent<'a>>, NoEvent> {
        // One check of the whole is faster than one of each string, as `from_slice` does it.
        match std::str::from_utf8(data).map(serde_json::from_str) {
            Ok(Ok(Piece { index, delta })) => Ok(Some(RawEvent::Delta { index, delta })),
            _ => RawEvent::decode_any(name, data),
        }
    }

    /// Turns the event into what a stream hands out.
    pub(crate) fn into_event(self) -> StreamEvent {
        match self {
            RawEvent::Delta { index, delta } => StreamEvent::ContentBlockDelta(ContentBlockDelta {
                index,
                delta: delta.into(),
                extra: Map::new(),
            }),
            RawEvent::Event(event) => event,
        }
    }

    #[cold]
    fn decode_any(name: &[u8], data: &[u8]) -> Result<Option<RawEvent<'static>>, NoEvent> {
        let text = String::from_utf8_lossy(data);
        if matches!(text.trim(), "" | "[DONE]") {
            return Ok(None);
        }
        let mut object: Map<String, Value> = match serde_json::from_str(&text) {
            Ok(object) => object,
            Err(_) if name == b"error" => {
                return Err(unknown_error(text.into_owned(), Map::new()));
            }
            Err(error) => return Err(error.into()),
        };
        if object.get("type").is_none_or(Value::is_null) && !name.is_empty() {
            let name = String::from_utf8_lossy(name).into_owned();
            object.insert("type".to_owned(), Value::String(name));
        }
        let is_error = match tag(&object) {
            "error" => true,
            "" => object.contains_key("error"),
            _ => name == b"error",
        };
        if is_error {
            return Err(match ApiError::from_value(Value::Object(object.clone())) {
                Some((error, request_id)) => {
                    NoEvent::Error(Box::new(ErrorEvent { error, request_id }))
                }
                None => unknown_error(String::new(), object),
            });
        }
        Ok(Some(RawEvent::Event(StreamEvent::from_object(object)?)))
    }
}

impl From<RawDelta<'_>> for ContentDelta {
    fn from(delta: RawDelta<'_>) -> ContentDelta {
        let text = delta.text.into_owned();
        let extra = Map::new();
        match delta.kind {
            DeltaKind::Text => ContentDelta::Text(TextDelta { text, extra }),
            DeltaKind::InputJson => ContentDelta::InputJson(InputJsonDelta {
                partial_json: text,
                extra,
            }),
            DeltaKind::Thinking => ContentDelta::Thinking(ThinkingDelta {
                thinking: text,
                extra,
            }),
            DeltaKind::Signature => ContentDelta::Signature(SignatureDelta {
                signature: text,
                extra,
            }),
        }
    }
}

/// A `content_block_delta` with these fields and no other; anything else fails to be one.
struct Piece<'a> {
    index: u64,
    delta: RawDelta<'a>,
}

impl<'de> Deserialize<'de> for Piece<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PieceVisitor;
        impl<'de> Visitor<'de> for PieceVisitor {
            type Value = Piece<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a usual content_block_delta")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Piece<'de>, A::Error> {
                let (mut is_delta, mut index, mut delta) = (false, None, None);
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "type" => {
                            let Key(tag) = map.next_value()?;
                            is_delta = tag == "content_block_delta";
                            if !is_delta {
                                return Err(unusual());
                            }
                        }
                        "index" => index = Some(map.next_value()?),
                        "delta" => delta = Some(map.next_value()?),
                        _ => return Err(unusual()),
                    }
                }
                match (is_delta, index, delta) {
                    (true, Some(index), Some(delta)) => Ok(Piece { index, delta }),
                    _ => Err(unusual()),
                }
            }
        }
        from.deserialize_map(PieceVisitor)
    }
}

impl<'de> Deserialize<'de> for RawDelta<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct DeltaVisitor;
        impl<'de> Visitor<'de> for DeltaVisitor {
            type Value = RawDelta<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a usual delta")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDelta<'de>, A::Error> {
                let (mut kind, mut field, mut text) = (None, None, Cow::Borrowed(""));
                while let Some(Key(key)) = map.next_key()? {
                    let Key(value) = map.next_value()?;
                    if key == "type" && kind.is_none() {
                        kind = Some(DeltaKind::of_tag(&value).ok_or_else(unusual)?);
                    } else if field.is_none() {
                        field = Some(DeltaKind::of_field(&key).ok_or_else(unusual)?);
                        text = value;
                    } else {
                        return Err(unusual());
                    }
                }
                match kind {
                    Some(kind) if field == Some(kind) => Ok(RawDelta { kind, text }),
                    _ => Err(unusual()),
                }
            }
        }
        from.deserialize_map(DeltaVisitor)
    }
}

impl DeltaKind {
    fn of_tag(tag: &str) -> Option<DeltaKind> {
        match tag {
            "text_delta" => Some(DeltaKind::Text),
            "input_json_delta" => Some(DeltaKind::InputJson),
            "thinking_delta" => Some(DeltaKind::Thinking),
            "signature_delta" => Some(DeltaKind::Signature),
            _ => None,
        }
    }

    fn of_field(key: &str) -> Option<DeltaKind> {
        match key {
            "text" => Some(DeltaKind::Text),
            "partial_json" => Some(DeltaKind::InputJson),
            "thinking" => Some(DeltaKind::Thinking),
            "signature" => Some(DeltaKind::Signature),
            _ => None,
        }
    }
}

#[cold]
fn unusual<E: serde::de::Error>() -> E {
    E::custom("unusual")
}

fn unknown_error(message: String, extra: Map<String, Value>) -> NoEvent {
    let error = ApiError {
        kind: ApiErrorType::Other(String::new()),
        message,
        details: None,
        extra,
    };
    NoEvent::Error(Box::new(ErrorEvent {
        error,
        request_id: None,
    }))
}

fn tag(object: &Map<String, Value>) -> &str {
    object.get("type").and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn decode<'a>(name: &str, data: &'a str) -> RawEvent<'a> {
        RawEvent::decode(name.as_bytes(), data.as_bytes())
            .expect("an event")
            .expect("something to act on")
    }

    #[track_caller]
    fn error(name: &str, data: &str) -> (ApiError, Option<RequestId>) {
        match RawEvent::decode(name.as_bytes(), data.as_bytes()) {
            Err(NoEvent::Error(event)) => (event.error, event.request_id),
            other => panic!("no error event: {other:?}"),
        }
    }

    #[test]
    fn every_kind_of_event_survives_both_directions() {
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
    fn every_kind_of_delta_survives_both_directions() {
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
        let event = decode("", &text).into_event();
        assert_eq!(&serde_json::to_value(&event).unwrap(), json);
        assert_eq!(
            serde_json::from_str::<StreamEvent>(&text).unwrap(),
            event,
            "{text}"
        );
        assert_eq!(event.kind(), json["type"]);
    }

    #[test]
    fn piece_of_text_is_borrowed_in_any_order_of_keys_and_with_any_padding() {
        for data in [
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"hi"}}"#,
            r#" {"delta" : {"text":"hi" , "type":"text_delta"} ,"index":2,
                "type":"content_block_delta"  }   "#,
        ] {
            let RawEvent::Delta { index: 2, delta } = decode("", data) else {
                panic!("not read as a piece: {data}");
            };
            assert_eq!(delta.kind, DeltaKind::Text);
            assert!(matches!(delta.text, Cow::Borrowed("hi")), "{delta:?}");
        }
        let escaped = r#"{"type":"content_block_delta","index":0,
            "delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#;
        let RawEvent::Delta { delta, .. } = decode("", escaped) else {
            panic!("not read as a piece");
        };
        assert_eq!((delta.kind, &*delta.text), (DeltaKind::InputJson, "{\"a\""));
    }

    #[test]
    fn type_wins_over_the_name_which_stands_in_where_it_is_missing() {
        let ping = |name, data| decode(name, data).into_event().kind() == "ping";
        assert!(ping("message_stop", r#"{"type":"ping"}"#));
        assert!(ping("ping", "{}"));
        assert!(ping("ping", r#"{"type":null}"#));
        let event = decode(
            "content_block_delta",
            r#"{"index":0,"delta":{"type":"text_delta","text":"a"}}"#,
        );
        assert_eq!(event.into_event().as_text(), Some("a"));
        let event = decode("", r#"{"index":0}"#).into_event();
        assert!(matches!(event, StreamEvent::Other(_)) && event.kind().is_empty());
    }

    #[test]
    fn no_data_and_the_done_mark_of_gateways_are_passed_over() {
        for data in ["", "  ", "[DONE]", "[DONE] "] {
            assert_eq!(RawEvent::decode(b"data", data.as_bytes()).unwrap(), None);
        }
    }

    #[test]
    fn error_event_is_known_by_type_name_or_shape() {
        let data = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},
            "request_id":"req_1"}"#;
        for name in ["error", "", "other"] {
            let (error, request_id) = error(name, data);
            assert_eq!(error.kind, ApiErrorType::Overloaded);
            assert_eq!(request_id.unwrap().as_str(), "req_1");
        }
        let bare = r#"{"type":"api_error","message":"a"}"#;
        assert_eq!(error("error", bare).0.kind, ApiErrorType::Api);
        assert_eq!(error("", r#"{"error":"bad"}"#).0.message, "bad");
    }

    #[test]
    fn error_event_of_any_content_is_an_error() {
        assert_eq!(error("error", "upstream died").0.message, "upstream died");
        let odd = error("error", r#"{"code":5}"#).0;
        assert_eq!(odd.extra["code"], 5);
        assert_eq!(error("error", r#"{"type":"error","error":null}"#).1, None);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for data in [
            "<html>",
            "5",
            "[1]",
            r#"{"type":"ping""#,
            r#"{"type":"message_start"}"#,
            r#"{"type":"content_block_delta","index":-1,"delta":{}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":"a"}"#,
            r#"{"type":"content_block_stop"}"#,
        ] {
            assert!(
                RawEvent::decode(b"ping", data.as_bytes()).is_err(),
                "{data}"
            );
        }
    }

    #[test]
    fn malformed_utf_8_is_replaced() {
        let data = b"{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\xff\"}}";
        let event = RawEvent::decode(b"", data).unwrap().unwrap();
        assert_eq!(event.into_event().as_text(), Some("a\u{fffd}"));
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_as_in_any_json() {
        for data in [
            r#"{"type":"content_block_delta","index":0,
                "delta":{"type":"text_delta","text":"a","text":"b"}}"#,
            r#"{"type":"ping","index":1,"index":0,"delta":{"type":"text_delta","text":"a"},
                "type":"content_block_delta","delta":{"type":"text_delta","text":"b"}}"#,
            r#"{"type":"content_block_delta","index":1,"index":0,
                "delta":"a","delta":{"type":"x","type":"text_delta","text":"b"}}"#,
        ] {
            let event = decode("", data).into_event();
            assert_eq!(event.as_text(), Some("b"));
            assert_eq!(serde_json::to_value(event).unwrap()["index"], 0);
        }
    }
}
