//! Content, content blocks, and the blocks that contain content.
//!
//! These types contain each other (a tool result holds content, which consists of blocks, one of
//! which may be a tool result), so that they share this file. Blocks without content are in
//! `leaf_blocks`; `source`, `conversions` and `constructors` create these types.

use std::mem;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cache_control::CacheControl;
use super::leaf_blocks::{
    ContainerUploadBlock, RedactedThinkingBlock, ServerToolResultBlock, ServerToolUseBlock,
    TextBlock, ThinkingBlock, ToolUseBlock,
};
use crate::types::json::{JsonView, ParsedJson};
use crate::types::wire::{self, Mismatch, WireValue, read_variant, wire_struct};

/// The content of a message or of a tool result: a string, or blocks.
///
/// ```
/// use anthropic_blocking::{Content, ContentBlock, MessageRequest};
///
/// // Strings, blocks and lists of blocks convert to content.
/// let request = MessageRequest::new("claude-haiku-4-5", 64)
///     .user("Hello?")
///     .user(vec![ContentBlock::text("What is"), ContentBlock::text(" this?")]);
/// assert_eq!(Content::from("Hello?").text(), "Hello?");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A string; equivalent to one text block.
    Text(String),
    /// Blocks.
    Blocks(Vec<ContentBlock>),
}

impl Content {
    /// Returns the text of all text blocks, concatenated.
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Blocks(blocks) => blocks.iter().filter_map(ContentBlock::as_text).collect(),
        }
    }

    /// Converts the content into blocks; a string becomes one text block.
    pub fn into_blocks(self) -> Vec<ContentBlock> {
        match self {
            Content::Text(text) => vec![ContentBlock::text(text)],
            Content::Blocks(blocks) => blocks,
        }
    }
}

impl WireValue for Content {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        match json {
            ParsedJson::Text(text) => Ok(Content::Text(text.clone().into_owned())),
            ParsedJson::Array(_) => Vec::read(json).map(Content::Blocks),
            other => Err(Mismatch::wrong_type(
                other,
                "a string or an array of content blocks",
            )),
        }
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            Content::Text(text) => JsonView::Text(text),
            Content::Blocks(blocks) => blocks.write(),
        }
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

/// One block of a message's content.
///
/// Requests and responses use the same type, so that a received message can be sent back unchanged.
/// Blocks of a type or shape that this version does not know are kept in [`ContentBlock::Other`],
/// unknown fields of known blocks in `extra`.
///
/// ```
/// use anthropic_blocking::{ContentBlock, Message};
///
/// # fn show(message: &Message) {
/// for block in &message.content {
///     match block {
///         ContentBlock::Text(block) => println!("{}", block.text),
///         ContentBlock::ToolUse(call) => println!("wants {} of {}", call.name, call.input),
///         other => println!("({})", other.kind()),
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ContentBlock {
    /// Text.
    Text(TextBlock),
    /// An image.
    Image(ImageBlock),
    /// A document: a PDF or plain text.
    Document(DocumentBlock),
    /// A search result that the model may cite.
    SearchResult(SearchResultBlock),
    /// The model's reasoning. Send it back unchanged.
    Thinking(ThinkingBlock),
    /// Encrypted reasoning. Send it back unchanged.
    RedactedThinking(RedactedThinkingBlock),
    /// A call of one of your tools.
    ToolUse(ToolUseBlock),
    /// The result of a call of one of your tools.
    ToolResult(ToolResultBlock),
    /// A call of a tool that runs on the server.
    ServerToolUse(ServerToolUseBlock),
    /// The result of a tool that ran on the server, of any `*_tool_result` type.
    ServerToolResult(ServerToolResultBlock),
    /// A file made available to the code execution container.
    ContainerUpload(ContainerUploadBlock),
    /// A block of unknown type or shape, as its JSON object. To create one, deserialize a
    /// [`ContentBlock`] from JSON.
    Other(Map<String, Value>),
}

/// Expands to the `cache_control` field of a block that has one: a shared or a mutable reference,
/// as the block is.
macro_rules! cache_control {
    ($block:expr) => {
        match $block {
            ContentBlock::Text(TextBlock { cache_control, .. })
            | ContentBlock::Image(ImageBlock { cache_control, .. })
            | ContentBlock::SearchResult(SearchResultBlock { cache_control, .. })
            | ContentBlock::ToolUse(ToolUseBlock { cache_control, .. })
            | ContentBlock::ToolResult(ToolResultBlock { cache_control, .. })
            | ContentBlock::ServerToolUse(ServerToolUseBlock { cache_control, .. })
            | ContentBlock::ServerToolResult(ServerToolResultBlock { cache_control, .. })
            | ContentBlock::Document(DocumentBlock { cache_control, .. })
            | ContentBlock::ContainerUpload(ContainerUploadBlock { cache_control, .. }) => {
                Some(cache_control)
            }
            ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::Other(_) => None,
        }
    };
}

impl ContentBlock {
    /// Makes the server cache the prompt up to the end of this block. Thinking blocks cannot be
    /// marked and stay unchanged. Blocks of unknown type stay unchanged too: set their
    /// [`field`](ContentBlock::field) `cache_control` instead.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, ContentBlock};
    ///
    /// let block = ContentBlock::document("… a long text …").cached(CacheControl::ephemeral());
    /// assert_eq!(serde_json::to_value(&block)?["cache_control"]["type"], "ephemeral");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn cached(mut self, control: CacheControl) -> ContentBlock {
        if let Some(mark) = cache_control!(&mut self) {
            *mark = Some(control);
        }
        self
    }

    /// Sets a field for which this block's type has no field of its own; a value for a typed field
    /// is ignored if that field is set.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    /// use serde_json::json;
    ///
    /// // The server rejects an image that is too large instead of scaling it down.
    /// let plan = ContentBlock::image_url("https://example.com/plan.png")
    ///     .field("transformations", json!({"oversized_image": "error"}));
    /// assert_eq!(serde_json::to_value(&plan)?["transformations"]["oversized_image"], "error");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> ContentBlock {
        let extra = match &mut self {
            ContentBlock::Text(block) => &mut block.extra,
            ContentBlock::Image(block) => &mut block.extra,
            ContentBlock::Document(block) => &mut block.extra,
            ContentBlock::SearchResult(block) => &mut block.extra,
            ContentBlock::Thinking(block) => &mut block.extra,
            ContentBlock::RedactedThinking(block) => &mut block.extra,
            ContentBlock::ToolUse(block) => &mut block.extra,
            ContentBlock::ToolResult(block) => &mut block.extra,
            ContentBlock::ServerToolUse(block) => &mut block.extra,
            ContentBlock::ServerToolResult(block) => &mut block.extra,
            ContentBlock::ContainerUpload(block) => &mut block.extra,
            ContentBlock::Other(object) => object,
        };
        extra.insert(name.into(), value.into());
        self
    }

    /// Whether this block marks the end of a prefix that the server should cache.
    pub(crate) fn has_cache_control(&self) -> bool {
        cache_control!(self).is_some_and(Option::is_some)
    }

    /// Returns the input of a tool call of any kind: known, of a server tool, or unknown.
    pub(crate) fn input_mut(&mut self) -> Option<&mut Value> {
        match self {
            ContentBlock::ToolUse(block) => Some(&mut block.input),
            ContentBlock::ServerToolUse(block) => Some(&mut block.input),
            ContentBlock::Other(block) if is_tool_use(block) => {
                Some(block.entry("input").or_insert(Value::Null))
            }
            _ => None,
        }
    }

    /// Whether this is a tool call whose input is not an object. The server sends such calls but
    /// rejects them in requests.
    pub(crate) fn has_non_object_input(&self) -> bool {
        match self {
            ContentBlock::ToolUse(block) => !block.input.is_object(),
            ContentBlock::ServerToolUse(block) => !block.input.is_object(),
            ContentBlock::Other(block) => {
                is_tool_use(block) && !block.get("input").is_some_and(Value::is_object)
            }
            _ => false,
        }
    }

    /// Wraps the input of a tool call into an object unless the input is an object already.
    pub(crate) fn wrap_non_object_input(&mut self) {
        let Some(input) = self.input_mut() else {
            return;
        };
        let mut object = Map::new();
        match mem::take(input) {
            Value::Object(whole) => object = whole,
            Value::Null => {}
            Value::String(raw) => drop(object.insert(INVALID_JSON.to_owned(), raw.into())),
            other => drop(object.insert(INVALID_JSON.to_owned(), other.to_string().into())),
        }
        *input = Value::Object(object);
    }

    /// Returns the text, if this is a text block.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ContentBlock::Text(block) => Some(&block.text),
            _ => None,
        }
    }

    /// Returns the block's `type` on the wire; empty for an unknown block without a `type`.
    pub fn kind(&self) -> &str {
        match self {
            ContentBlock::Text(_) => "text",
            ContentBlock::Image(_) => "image",
            ContentBlock::Document(_) => "document",
            ContentBlock::SearchResult(_) => "search_result",
            ContentBlock::Thinking(_) => "thinking",
            ContentBlock::RedactedThinking(_) => "redacted_thinking",
            ContentBlock::ToolUse(_) => "tool_use",
            ContentBlock::ToolResult(_) => "tool_result",
            ContentBlock::ServerToolUse(_) => "server_tool_use",
            ContentBlock::ServerToolResult(block) => &block.kind,
            ContentBlock::ContainerUpload(_) => "container_upload",
            ContentBlock::Other(object) => object.get("type").and_then(Value::as_str).unwrap_or(""),
        }
    }
}

impl WireValue for ContentBlock {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        let object = wire::as_object(json)?;
        let block = match object.tag() {
            Some("text") => read_variant(object, ContentBlock::Text),
            Some("image") => read_variant(object, ContentBlock::Image),
            Some("document") => read_variant(object, ContentBlock::Document),
            Some("search_result") => read_variant(object, ContentBlock::SearchResult),
            Some("thinking") => read_variant(object, ContentBlock::Thinking),
            Some("redacted_thinking") => read_variant(object, ContentBlock::RedactedThinking),
            Some("tool_use") => read_variant(object, ContentBlock::ToolUse),
            Some("tool_result") => read_variant(object, ContentBlock::ToolResult),
            Some("server_tool_use") => read_variant(object, ContentBlock::ServerToolUse),
            Some("container_upload") => read_variant(object, ContentBlock::ContainerUpload),
            Some(tag) if tag.ends_with("_tool_result") => {
                read_variant(object, ContentBlock::ServerToolResult)
            }
            _ => None,
        };
        Ok(block.unwrap_or_else(|| ContentBlock::Other(object.to_map())))
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            ContentBlock::Text(block) => block.write(),
            ContentBlock::Image(block) => block.write(),
            ContentBlock::Document(block) => block.write(),
            ContentBlock::SearchResult(block) => block.write(),
            ContentBlock::Thinking(block) => block.write(),
            ContentBlock::RedactedThinking(block) => block.write(),
            ContentBlock::ToolUse(block) => block.write(),
            ContentBlock::ToolResult(block) => block.write(),
            ContentBlock::ServerToolUse(block) => block.write(),
            ContentBlock::ServerToolResult(block) => block.write(),
            ContentBlock::ContainerUpload(block) => block.write(),
            ContentBlock::Other(object) => object.write(),
        }
    }
}

impl<'de> Deserialize<'de> for ContentBlock {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

impl Serialize for ContentBlock {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}

/// Whether a block of unknown type is a tool call, such as `mcp_tool_use`.
fn is_tool_use(block: &Map<String, Value>) -> bool {
    let kind = block.get("type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("tool_use"))
}

/// The key under which input that is not an object is sent back, which the API's documentation
/// uses.
const INVALID_JSON: &str = "INVALID_JSON";

wire_struct! {
    /// Where the bytes of an image or document come from.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Source};
    ///
    /// let uploaded = ContentBlock::image_from(Source::file("file_01Example"));
    /// let embedded = ContentBlock::image_from(Source::base64("image/png", b"\x89PNG"));
    /// let fetched = ContentBlock::document_from(Source::url("https://example.com/report.pdf"));
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Source {
        /// The kind: `base64`, `url`, `file`, `text` or `content`.
        req kind = "type": String,
        /// The media type of the data, such as `image/png`.
        opt media_type: String,
        /// The data: base64, or plain text if the kind is `text`.
        opt data: String,
        /// The URL from which the server fetches the data.
        opt url: String,
        /// The id of an uploaded file.
        opt file_id: String,
        /// The content of the document: text and image blocks.
        opt content: Content,
    }
}

wire_struct! {
    /// An image.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let image = ContentBlock::image_url("https://example.com/sky.jpg");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![image, ContentBlock::text("Which clouds are these?")]);
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ImageBlock as "image" {
        /// Where the image comes from.
        req source: Source,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A PDF or plain text that the model reads and may cite.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, MessageRequest, Source};
    ///
    /// let document = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year."))
    ///     .title("Statutes")
    ///     .context("As of 2026")
    ///     .cited();
    /// let question = ContentBlock::text("What do members pay?");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![ContentBlock::from(document), question]);
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct DocumentBlock as "document" {
        /// Where the document comes from.
        req source: Source,
        /// The title, which citations contain.
        opt title: String,
        /// Information about the document for the model, which the model does not cite.
        opt context: String,
        /// Enables citations: `{"enabled": true}`.
        opt citations: Value,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A search result of your own search, which the model may cite.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, SearchResultBlock};
    ///
    /// let found = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.").cited();
    /// let result = ContentBlock::tool_result("toolu_1", vec![ContentBlock::from(found)]);
    /// assert_eq!(result.kind(), "tool_result");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct SearchResultBlock as "search_result" {
        /// Where the result was found, such as a URL.
        req source: String,
        /// The title.
        req title: String,
        /// The text, as text blocks.
        req content: Vec<ContentBlock>,
        /// Enables citations: `{"enabled": true}`.
        opt citations: Value,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// The result of a call of one of your tools; belongs in the next user turn.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    /// use serde_json::json;
    ///
    /// let result = ContentBlock::tool_result("toolu_1", "21 °C");
    /// assert_eq!(
    ///     serde_json::to_value(&result)?,
    ///     json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": "21 °C"}),
    /// );
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ToolResultBlock as "tool_result" {
        /// The id of the tool call.
        req tool_use_id: String,
        /// The output of the tool.
        opt content: Content,
        /// Whether the tool failed.
        opt is_error: bool,
        /// The toolset of the tool, copied from the call.
        opt toolset_name: String,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn round_trip(json: Value) -> ContentBlock {
        let block: ContentBlock = serde_json::from_value(json.clone()).expect("a block");
        assert_eq!(serde_json::to_value(&block).expect("JSON"), json);
        let text = json.to_string();
        assert_eq!(
            serde_json::from_str::<ContentBlock>(&text).expect("a block"),
            block
        );
        block
    }

    #[test]
    fn blocks_of_every_kind_round_trip() {
        for (json, kind) in [
            (json!({"type":"text","text":"a","citations":null}), "text"),
            (
                json!({"type":"text","text":"a","citations":[{"type":"char_location",
                "cited_text":"b","document_index":0,"document_title":null,
                "start_char_index":0,"end_char_index":1}],"new":1}),
                "text",
            ),
            (
                json!({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="},
                "transformations":{"oversized_image":"error"}}),
                "image",
            ),
            (
                json!({"type":"document","source":{"type":"content","content":[]},"title":null,
                "citations":{"enabled":true}}),
                "document",
            ),
            (
                json!({"type":"search_result","source":"s","title":"t",
                "content":[{"type":"text","text":"x"}]}),
                "search_result",
            ),
            (
                json!({"type":"thinking","thinking":"","signature":"s"}),
                "thinking",
            ),
            (json!({"type":"thinking","signature":"s"}), "thinking"),
            (
                json!({"type":"redacted_thinking","data":"d"}),
                "redacted_thinking",
            ),
            (
                json!({"type":"tool_use","id":"t","name":"n","input":{"a":[1.5,null]},
                "caller":{"type":"direct"}}),
                "tool_use",
            ),
            (
                json!({"type":"tool_result","tool_use_id":"t","content":"x","is_error":false}),
                "tool_result",
            ),
            (
                json!({"type":"tool_result","tool_use_id":"t","content":[
                {"type":"tool_reference","tool_name":"n"}]}),
                "tool_result",
            ),
            (
                json!({"type":"server_tool_use","id":"s","name":"web_search","input":{}}),
                "server_tool_use",
            ),
            (
                json!({"type":"web_search_tool_result","tool_use_id":"s","content":{
                "type":"web_search_tool_result_error","error_code":"unavailable"}}),
                "web_search_tool_result",
            ),
            (
                json!({"type":"container_upload","file_id":"f"}),
                "container_upload",
            ),
            (
                json!({"type":"compaction","content":null,"signature":"s"}),
                "compaction",
            ),
        ] {
            assert_eq!(round_trip(json).kind(), kind);
        }
    }

    #[test]
    fn block_type_need_not_come_first() {
        let block: ContentBlock = serde_json::from_str(r#"{"text":"a","type":"text"}"#).unwrap();
        assert_eq!(block.as_text(), Some("a"));
    }

    #[test]
    fn block_of_unknown_shape_is_kept() {
        for json in [
            json!({"type":"text","text":null}),
            json!({"type":"text","text":["a"],"citations":[{"type":"c"}],"new":1}),
            json!({"type":"text"}),
            json!({"type":"tool_use","id":null,"name":"n","input":{"a":1.5}}),
            json!({"type":"tool_use","id":"t","name":{"a":1},"input":null,"caller":null}),
            json!({"type":"server_tool_use","id":7,"name":"n","input":{}}),
            json!({"type":"x_tool_result","tool_use_id":null}),
            json!({"type":"x_tool_result","tool_use_id":{},"content":[],
                "cache_control":{"type":"ephemeral"}}),
            json!({"type":"tool_result","tool_use_id":null,"content":[{"type":"text"}],
                "is_error":false}),
            json!({"type":"image","source":"a"}),
            json!({"type":"image","source":{"media_type":"image/png"}}),
            json!({"type":"document","source":null,"title":"t"}),
            json!({"type":"search_result","source":"s","title":"t","content":"a"}),
            json!({"type":"redacted_thinking"}),
            json!({"type":"container_upload","file_id":false}),
            json!({"type":null}),
            json!({"type":null,"text":"a"}),
            json!({"type":5}),
            json!({"type":-5}),
            json!({"type":0.5}),
            json!({"type":true}),
            json!({"type":["text"],"text":"a"}),
            json!({"type":{"a":"text"},"text":"a"}),
            json!({"text":"a"}),
            json!({}),
        ] {
            let block = round_trip(json.clone());
            assert!(matches!(block, ContentBlock::Other(_)), "{json}");
        }
        let after: ContentBlock = serde_json::from_str(r#"{"text":1,"type":"text"}"#).unwrap();
        assert_eq!(after.kind(), "text");
        for other in ["null", "5", "\"a\"", "[]", "true"] {
            assert!(
                serde_json::from_str::<ContentBlock>(other).is_err(),
                "{other}"
            );
        }
    }

    #[test]
    fn unreadable_fields_of_a_block_are_kept() {
        for json in [
            json!({"type":"text","text":"a","citations":[{"cited_text":"b"}]}),
            json!({"type":"text","text":"a","cache_control":{"ttl":"1h"}}),
            json!({"type":"text","text":"a","cache_control":1.5}),
        ] {
            assert_eq!(round_trip(json).as_text(), Some("a"));
        }
    }

    #[test]
    fn cached_block_writes_its_cache_control() {
        let block = ContentBlock::text("a").cached(CacheControl::one_hour());
        assert_eq!(
            serde_json::to_value(block).unwrap(),
            json!({"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}})
        );
    }

    #[test]
    fn blocks_of_every_kind_take_unknown_fields() {
        for kind in [
            "text",
            "image",
            "document",
            "search_result",
            "thinking",
            "redacted_thinking",
            "tool_use",
            "tool_result",
            "server_tool_use",
            "web_search_tool_result",
            "container_upload",
            "future",
        ] {
            let mut json = json!({"type":kind,"text":"a","source":{"type":"url"},"title":"t",
                "content":[],"data":"d","id":"i","name":"n","tool_use_id":"t","file_id":"f"});
            if kind == "search_result" {
                json["source"] = json!("s");
            }
            let block: ContentBlock = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(
                matches!(block, ContentBlock::Other(_)),
                kind == "future",
                "{kind}"
            );
            json["new"] = json!(1);
            assert_eq!(serde_json::to_value(block.field("new", 1)).unwrap(), json);
        }
    }
}
