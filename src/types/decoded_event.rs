//! Decodes stream events; the common kind without copying.
//!
//! Nearly all events of a stream carry a small piece of text. These are read in one pass, and their
//! text is borrowed from the data. Any other event, even a delta with one unknown field, is read as
//! a [`StreamEvent`], which keeps all of its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::api_error::{ApiError, ApiErrorType};
use super::delta::{ContentDelta, InputJsonDelta, SignatureDelta, TextDelta, ThinkingDelta};
use super::event::{ContentBlockDelta, StreamEvent};
use super::json::{BorrowedStr, ParsedJson, parse_response_text};
use super::request_id::RequestId;
use super::wire::WireValue;

/// A decoded event. The text of a plain delta is borrowed from the event's data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DecodedEvent<'a> {
    /// A `content_block_delta` with a piece of text and no unknown field.
    Delta { index: u64, delta: RawDelta<'a> },
    /// Any other event.
    Event(StreamEvent),
}

/// Why an event could not be decoded.
#[derive(Debug)]
pub(crate) enum EventError {
    /// The event is an `error` event: the stream has failed.
    Error(Box<ErrorEvent>),
    /// The data is not a JSON object, or an event of a known type lacks required fields.
    Unreadable(serde_json::Error),
}

impl From<serde_json::Error> for EventError {
    fn from(error: serde_json::Error) -> EventError {
        EventError::Unreadable(error)
    }
}

/// The content of an `error` event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorEvent {
    pub(crate) error: ApiError,
    pub(crate) request_id: Option<RequestId>,
}

/// A piece of text to append to a content block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawDelta<'a> {
    pub(crate) kind: DeltaKind,
    pub(crate) text: Cow<'a, str>,
}

/// The field of a content block to which a piece of text is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaKind {
    Text,
    InputJson,
    Thinking,
    Signature,
}

impl<'a> DecodedEvent<'a> {
    /// Decodes an event from its name, which may be empty, and its data.
    ///
    /// Returns `None` for events to ignore: those without data, and the `[DONE]` that some gateways
    /// send. The event's type is the `type` in the data or, if that is missing, the event's name.
    /// Invalid UTF-8 is replaced, as the HTML standard requires for event streams.
    ///
    /// # Errors
    ///
    /// For an `error` event, and for data that is not an event.
    pub(crate) fn decode(
        name: &[u8],
        data: &'a [u8],
    ) -> Result<Option<DecodedEvent<'a>>, EventError> {
        if !matches!(name, b"" | b"content_block_delta") {
            return DecodedEvent::decode_any(name, data);
        }
        // Checks the whole data at once, which is faster than `from_slice`: that checks each
        // string.
        match std::str::from_utf8(data).map(serde_json::from_str) {
            Ok(Ok(PlainDelta { index, delta })) => Ok(Some(DecodedEvent::Delta { index, delta })),
            _ => DecodedEvent::decode_any(name, data),
        }
    }

    /// Converts the event into the public type.
    pub(crate) fn into_event(self) -> StreamEvent {
        match self {
            DecodedEvent::Delta { index, delta } => {
                StreamEvent::ContentBlockDelta(ContentBlockDelta {
                    index,
                    delta: delta.into(),
                    extra: Map::new(),
                })
            }
            DecodedEvent::Event(event) => event,
        }
    }

    #[cold]
    fn decode_any(name: &[u8], data: &[u8]) -> Result<Option<DecodedEvent<'static>>, EventError> {
        // The lossy conversion is slow and rarely needed.
        let text = match std::str::from_utf8(data) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(data),
        };
        if matches!(text.trim(), "" | "[DONE]") {
            return Ok(None);
        }
        let mut json: ParsedJson<'_> = match parse_response_text(&text) {
            Ok(json) => json,
            Err(_) if name == b"error" => {
                return Err(unknown_error(text.into_owned(), Map::new()));
            }
            Err(error) => return Err(error.into()),
        };
        let name = String::from_utf8_lossy(name);
        if let ParsedJson::Object(object) = &mut json {
            if object.get("type").is_none_or(ParsedJson::is_null) && !name.is_empty() {
                object.set("type", ParsedJson::Text(Cow::Borrowed(&name)));
            }
            let is_error = match object.tag() {
                Some("error") => true,
                None | Some("") => object.get("error").is_some(),
                Some(_) => name == "error",
            };
            if is_error {
                return Err(match ApiError::from_object(object) {
                    Some((error, request_id)) => {
                        EventError::Error(Box::new(ErrorEvent { error, request_id }))
                    }
                    None => unknown_error(String::new(), object.to_map()),
                });
            }
            if object.tag().is_none_or(str::is_empty) {
                return Ok(Some(DecodedEvent::Event(StreamEvent::Other(
                    object.to_map(),
                ))));
            }
        }
        match StreamEvent::read(&json) {
            Ok(event) => Ok(Some(DecodedEvent::Event(event))),
            Err(mismatch) => Err(EventError::Unreadable(serde::de::Error::custom(mismatch))),
        }
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

/// A `content_block_delta` with these fields and no others. Deserializing any other event fails.
struct PlainDelta<'a> {
    index: u64,
    delta: RawDelta<'a>,
}

impl<'de> Deserialize<'de> for PlainDelta<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PlainDeltaVisitor;
        impl<'de> Visitor<'de> for PlainDeltaVisitor {
            type Value = PlainDelta<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content_block_delta of known fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PlainDelta<'de>, A::Error> {
                let (mut is_delta, mut index, mut delta) = (false, None, None);
                while let Some(BorrowedStr(key)) = map.next_key()? {
                    match &*key {
                        "type" => {
                            let BorrowedStr(tag) = map.next_value()?;
                            is_delta = tag == "content_block_delta";
                            if !is_delta {
                                return Err(not_plain());
                            }
                        }
                        "index" => index = Some(map.next_value()?),
                        "delta" => delta = Some(map.next_value()?),
                        _ => return Err(not_plain()),
                    }
                }
                match (is_delta, index, delta) {
                    (true, Some(index), Some(delta)) => Ok(PlainDelta { index, delta }),
                    _ => Err(not_plain()),
                }
            }
        }
        from.deserialize_map(PlainDeltaVisitor)
    }
}

impl<'de> Deserialize<'de> for RawDelta<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct RawDeltaVisitor;
        impl<'de> Visitor<'de> for RawDeltaVisitor {
            type Value = RawDelta<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta of known fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDelta<'de>, A::Error> {
                let (mut kind, mut field, mut text) = (None, None, Cow::Borrowed(""));
                while let Some(BorrowedStr(key)) = map.next_key()? {
                    let BorrowedStr(value) = map.next_value()?;
                    if key == "type" && kind.is_none() {
                        kind = Some(DeltaKind::of_tag(&value).ok_or_else(not_plain)?);
                    } else if field.is_none() {
                        field = Some(DeltaKind::of_field(&key).ok_or_else(not_plain)?);
                        text = value;
                    } else {
                        return Err(not_plain());
                    }
                }
                match kind {
                    Some(kind) if field == Some(kind) => Ok(RawDelta { kind, text }),
                    _ => Err(not_plain()),
                }
            }
        }
        from.deserialize_map(RawDeltaVisitor)
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
fn not_plain<E: serde::de::Error>() -> E {
    E::custom("not a plain delta")
}

fn unknown_error(message: String, extra: Map<String, Value>) -> EventError {
    let error = ApiError {
        kind: ApiErrorType::Other(String::new()),
        message,
        details: None,
        extra,
    };
    EventError::Error(Box::new(ErrorEvent {
        error,
        request_id: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn decode<'a>(name: &str, data: &'a str) -> DecodedEvent<'a> {
        DecodedEvent::decode(name.as_bytes(), data.as_bytes())
            .expect("an event")
            .expect("something to act on")
    }

    #[track_caller]
    fn error(name: &str, data: &str) -> (ApiError, Option<RequestId>) {
        match DecodedEvent::decode(name.as_bytes(), data.as_bytes()) {
            Err(EventError::Error(event)) => (event.error, event.request_id),
            other => panic!("no error event: {other:?}"),
        }
    }

    #[test]
    fn plain_delta_is_borrowed_in_any_key_order() {
        for data in [
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"hi"}}"#,
            r#" {"delta" : {"text":"hi" , "type":"text_delta"} ,"index":2,
                "type":"content_block_delta"  }   "#,
        ] {
            let DecodedEvent::Delta { index: 2, delta } = decode("", data) else {
                panic!("not read as a piece: {data}");
            };
            assert_eq!(delta.kind, DeltaKind::Text);
            assert!(matches!(delta.text, Cow::Borrowed("hi")), "{delta:?}");
        }
        let escaped = r#"{"type":"content_block_delta","index":0,
            "delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#;
        let DecodedEvent::Delta { delta, .. } = decode("", escaped) else {
            panic!("not read as a piece");
        };
        assert_eq!((delta.kind, &*delta.text), (DeltaKind::InputJson, "{\"a\""));
    }

    #[test]
    fn event_name_replaces_only_a_missing_type() {
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
    fn empty_data_and_done_marks_are_ignored() {
        for data in ["", "  ", "[DONE]", "[DONE] "] {
            assert_eq!(
                DecodedEvent::decode(b"data", data.as_bytes()).unwrap(),
                None
            );
        }
    }

    #[test]
    fn error_event_is_recognized_by_type_name_or_shape() {
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
    fn data_that_is_no_event_is_rejected() {
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
                DecodedEvent::decode(b"ping", data.as_bytes()).is_err(),
                "{data}"
            );
        }
    }

    #[test]
    fn malformed_utf_8_is_replaced() {
        let data = b"{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\xff\"}}";
        let event = DecodedEvent::decode(b"", data).unwrap().unwrap();
        assert_eq!(event.into_event().as_text(), Some("a\u{fffd}"));
    }

    #[test]
    fn last_of_repeated_keys_counts_in_events() {
        for data in [
            r#"{"type":"content_block_delta","index":0,
                "delta":{"type":"text_delta","text":"a","text":"b"}}"#,
            r#"{"type":"content_block_delta","index":1,"index":0,
                "delta":"a","delta":{"type":"x","type":"text_delta","text":"b"}}"#,
        ] {
            let event = decode("", data).into_event();
            assert_eq!(event.as_text(), Some("b"));
            assert_eq!(serde_json::to_value(event).unwrap()["index"], 0);
        }
    }
}
