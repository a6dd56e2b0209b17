//! The additions to content blocks that a stream consists of.

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::Citation;
use super::json::{JsonView, ParsedJson};
use super::wire::{self, Mismatch, WireValue, read_variant, wire_struct};

/// An addition to a content block.
///
/// A delta of a type or shape that this version does not know is kept in [`ContentDelta::Other`];
/// the accumulated message does not contain it.
///
/// ```
/// use anthropic_blocking::ContentDelta;
///
/// # fn show(delta: &ContentDelta) {
/// match delta {
///     ContentDelta::Text(delta) => print!("{}", delta.text),
///     ContentDelta::Thinking(delta) => eprint!("{}", delta.thinking),
///     ContentDelta::InputJson(delta) => eprint!("{}", delta.partial_json),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ContentDelta {
    /// More text.
    Text(TextDelta),
    /// More of a tool call's input.
    InputJson(InputJsonDelta),
    /// More reasoning.
    Thinking(ThinkingDelta),
    /// The signature of a thinking block.
    Signature(SignatureDelta),
    /// A further citation.
    Citations(Box<CitationsDelta>),
    /// A delta of unknown type or shape, as its JSON object.
    Other(Map<String, Value>),
}

wire_struct! {
    /// More text.
    ///
    /// ```
    /// use anthropic_blocking::ContentDelta;
    ///
    /// let delta: ContentDelta = serde_json::from_str(r#"{"type":"text_delta","text":"Sev"}"#)?;
    /// assert_eq!(delta.as_text(), Some("Sev"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct TextDelta as "text_delta" {
        /// The text to append.
        req text: String,
    }
}

wire_struct! {
    /// More of a tool call's input.
    ///
    /// ```
    /// use anthropic_blocking::ContentDelta;
    ///
    /// # fn collect(input: &mut String, delta: &ContentDelta) {
    /// if let ContentDelta::InputJson(delta) = delta {
    ///     input.push_str(&delta.partial_json);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct InputJsonDelta as "input_json_delta" {
        /// A piece of JSON text. All pieces of a block, concatenated, are the input.
        req partial_json: String,
    }
}

wire_struct! {
    /// More reasoning.
    ///
    /// ```
    /// use anthropic_blocking::ContentDelta;
    ///
    /// # fn show(delta: &ContentDelta) {
    /// if let ContentDelta::Thinking(delta) = delta {
    ///     eprint!("{}", delta.thinking);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ThinkingDelta as "thinking_delta" {
        /// The text to append.
        req thinking: String,
    }
}

wire_struct! {
    /// The signature of a thinking block.
    ///
    /// ```
    /// use anthropic_blocking::ContentDelta;
    ///
    /// let json = r#"{"type":"signature_delta","signature":"Eq"}"#;
    /// let delta: ContentDelta = serde_json::from_str(json)?;
    /// assert!(matches!(delta, ContentDelta::Signature(delta) if delta.signature == "Eq"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct SignatureDelta as "signature_delta" {
        /// The complete signature; it replaces an earlier one.
        req signature: String,
    }
}

wire_struct! {
    /// A further citation of a text block.
    ///
    /// ```
    /// use anthropic_blocking::ContentDelta;
    ///
    /// # fn show(delta: &ContentDelta) {
    /// if let ContentDelta::Citations(delta) = delta {
    ///     println!("[from {:?}]", delta.citation.url);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct CitationsDelta as "citations_delta" {
        /// The citation to add.
        req citation: Citation,
    }
}

impl ContentDelta {
    /// Returns the text, if this is a text delta.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ContentDelta::Text(delta) => Some(&delta.text),
            _ => None,
        }
    }

    /// Returns what the model generated, of any known kind; empty for citations and unknown deltas.
    pub(crate) fn generated_text(&self) -> &str {
        match self {
            ContentDelta::Text(delta) => &delta.text,
            ContentDelta::InputJson(delta) => &delta.partial_json,
            ContentDelta::Thinking(delta) => &delta.thinking,
            ContentDelta::Signature(delta) => &delta.signature,
            ContentDelta::Citations(_) | ContentDelta::Other(_) => "",
        }
    }
}

impl WireValue for ContentDelta {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        let object = wire::as_object(json)?;
        let delta = match object.tag() {
            Some("text_delta") => read_variant(object, ContentDelta::Text),
            Some("input_json_delta") => read_variant(object, ContentDelta::InputJson),
            Some("thinking_delta") => read_variant(object, ContentDelta::Thinking),
            Some("signature_delta") => read_variant(object, ContentDelta::Signature),
            Some("citations_delta") => {
                read_variant(object, |read| ContentDelta::Citations(Box::new(read)))
            }
            _ => None,
        };
        Ok(delta.unwrap_or_else(|| ContentDelta::Other(object.to_map())))
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            ContentDelta::Text(delta) => delta.write(),
            ContentDelta::InputJson(delta) => delta.write(),
            ContentDelta::Thinking(delta) => delta.write(),
            ContentDelta::Signature(delta) => delta.write(),
            ContentDelta::Citations(delta) => delta.write(),
            ContentDelta::Other(object) => object.write(),
        }
    }
}

impl<'de> Deserialize<'de> for ContentDelta {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

impl Serialize for ContentDelta {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}
