//! Content blocks: what a message is made of, in requests and in answers alike.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::{Json, Written};
use super::wire::{self, Field, Misfit, read_variant, wire_struct};

/// One piece of a message.
///
/// The same type serves both directions, so that an answer can go back into the conversation as it
/// came. A block of a kind that this version does not know, or in another shape than the documented
/// one, is kept in [`ContentBlock::Other`], and an unknown field of a known block in its `extra`.
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
    /// A PDF or a plain text.
    Document(DocumentBlock),
    /// A search result that the model may cite.
    SearchResult(SearchResultBlock),
    /// The model's reasoning; goes back unchanged.
    Thinking(ThinkingBlock),
    /// Reasoning in encrypted form; goes back unchanged.
    RedactedThinking(RedactedThinkingBlock),
    /// A call of one of your tools.
    ToolUse(ToolUseBlock),
    /// Your answer to a tool call.
    ToolResult(ToolResultBlock),
    /// A call of a tool that runs on the server.
    ServerToolUse(ServerToolUseBlock),
    /// The result of such a call, of any of the `*_tool_result` kinds.
    ServerToolResult(ServerToolResultBlock),
    /// A file made available to the code execution container.
    ContainerUpload(ContainerUploadBlock),
    /// Any other block, as the JSON object that it is.
    Other(Map<String, Value>),
}

wire_struct! {
    /// Text, in answers with its citations.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, TextBlock};
    ///
    /// let block = ContentBlock::from(TextBlock::new("Light is scattered."));
    /// assert_eq!(block.as_text(), Some("Light is scattered."));
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct TextBlock as "text" {
        /// The text itself.
        req text: String,
        /// What the text is based on.
        opt citations: Vec<Citation>,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
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
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A PDF or a plain text that the model reads, and may cite.
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
        /// Its title.
        opt title: String,
        /// What the model should know about it; not cited.
        opt context: String,
        /// Whether the model cites it: `{"enabled": true}`.
        opt citations: Value,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A search result of your own that the model may cite.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, SearchResultBlock};
    ///
    /// let found = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.").cited();
    /// let answer_to_tool = ContentBlock::tool_result("toolu_1", vec![ContentBlock::from(found)]);
    /// assert_eq!(answer_to_tool.kind(), "tool_result");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct SearchResultBlock as "search_result" {
        /// Where it was found.
        req source: String,
        /// Its title.
        req title: String,
        /// Its text.
        req content: Vec<ContentBlock>,
        /// Whether the model cites it: `{"enabled": true}`.
        opt citations: Value,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// The model's reasoning.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn show(message: &Message) {
    /// for block in &message.content {
    ///     if let ContentBlock::Thinking(block) = block {
    ///         println!("({})", block.thinking);
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ThinkingBlock as "thinking" {
        /// The reasoning, or its summary; empty where it is omitted.
        def thinking: String,
        /// Proves that the block is the model's own.
        def signature: String,
    }
}

wire_struct! {
    /// Reasoning in encrypted form.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, RedactedThinkingBlock};
    ///
    /// let block: RedactedThinkingBlock =
    ///     serde_json::from_str(r#"{"type":"redacted_thinking","data":"c2VjcmV0"}"#)?;
    /// assert_eq!(ContentBlock::from(block).kind(), "redacted_thinking");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct RedactedThinkingBlock as "redacted_thinking" {
        /// The encrypted reasoning.
        req data: String,
    }
}

wire_struct! {
    /// A call of one of your tools: answer it with [`ContentBlock::tool_result`] in the next user
    /// message.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn answers(message: &Message) -> Vec<ContentBlock> {
    /// let results = message.tool_uses().map(|call| match call.name.as_str() {
    ///     "get_temp" => ContentBlock::tool_result(&call.id, "21 °C"),
    ///     other => ContentBlock::tool_error(&call.id, format!("there is no tool {other}")),
    /// });
    /// results.collect()
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ToolUseBlock as "tool_use" {
        /// The id that the result must name.
        req id: String,
        /// Which tool.
        req name: String,
        /// The input, an object. A JSON string here is input that was cut off or broken on the
        /// way, as raw text; see [`ToolUseBlock::raw_input`].
        def input: Value,
        /// The toolset that the tool belongs to; copy it to the result.
        opt toolset_name: String,
        /// Who called: the model itself or code that it runs.
        opt caller: Value,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// Your answer to a tool call.
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
        /// The id of the call.
        req tool_use_id: String,
        /// What the tool gave.
        opt content: Content,
        /// Whether the tool failed.
        opt is_error: bool,
        /// Copied from the call.
        opt toolset_name: String,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A call of a tool that runs on the server; nothing to do but to send it back.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn searches(message: &Message) -> usize {
    /// let is_search = |block: &&ContentBlock| match block {
    ///     ContentBlock::ServerToolUse(call) => call.name == "web_search",
    ///     _ => false,
    /// };
    /// message.content.iter().filter(is_search).count()
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ServerToolUseBlock as "server_tool_use" {
        /// The call's id.
        req id: String,
        /// Which tool, such as `web_search`.
        req name: String,
        /// The input; see [`ToolUseBlock::input`].
        def input: Value,
        /// Who called: the model itself or code that it runs.
        opt caller: Value,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// The result of a tool that ran on the server, such as `web_search_tool_result`.
    ///
    /// ```
    /// use anthropic_blocking::ServerToolResultBlock;
    /// use serde_json::json;
    ///
    /// let block: ServerToolResultBlock = serde_json::from_value(json!({
    ///     "type": "web_search_tool_result",
    ///     "tool_use_id": "srvtoolu_1",
    ///     "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
    /// }))?;
    /// assert_eq!(block.error_code(), Some("max_uses_exceeded"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ServerToolResultBlock {
        /// The block's `type`, which names the tool.
        req kind = "type": String,
        /// The id of the call.
        req tool_use_id: String,
        /// The result or an error object; its shape depends on the tool.
        def content: Value,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// A file for the code execution container.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::container_upload("file_01Example");
    /// assert_eq!(block.kind(), "container_upload");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContainerUploadBlock as "container_upload" {
        /// The file's id.
        req file_id: String,
        /// Marks the end of a prefix that the server should cache.
        opt cache_control: CacheControl,
    }
}

wire_struct! {
    /// What a passage of an answer is based on; the location's fields, which depend on the kind,
    /// are in `extra`.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn show(message: &Message) {
    /// for block in &message.content {
    ///     let ContentBlock::Text(block) = block else { continue };
    ///     println!("{}", block.text);
    ///     for citation in block.citations.iter().flatten() {
    ///         println!("  from {:?}: {}", citation.document_title, citation.cited_text);
    ///     }
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Citation {
        /// The kind, such as `char_location` or `web_search_result_location`.
        req kind = "type": String,
        /// The text cited.
        def cited_text: String,
        /// The index of the document cited, counted over the whole request.
        opt document_index: u64,
        /// The title of the document cited.
        opt document_title: String,
        /// The title of the search result or page cited.
        opt title: String,
        /// The address of the page cited.
        opt url: String,
    }
}

wire_struct! {
    /// Where an image's or document's bytes come from.
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
        /// `base64`, `url`, `file`, `text` or `content`.
        req kind = "type": String,
        /// What the bytes are, such as `image/png`.
        opt media_type: String,
        /// The bytes in base64, or the text.
        opt data: String,
        /// The address that the server fetches.
        opt url: String,
        /// The id of an uploaded file.
        opt file_id: String,
    }
}

wire_struct! {
    /// Marks the end of a prefix that the server should cache.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, ContentBlock, MessageRequest};
    ///
    /// let statutes = ContentBlock::text("… thousands of words …").cached(CacheControl::one_hour());
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .system(vec![statutes])
    ///     .user("What do members pay?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct CacheControl {
        /// `ephemeral`.
        req kind = "type": String,
        /// How long: `5m` (what the server takes when unset) or `1h`.
        opt ttl: String,
    }
}

impl ContentBlock {
    /// Text.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// assert_eq!(ContentBlock::text("Hello?"), ContentBlock::from("Hello?"));
    /// ```
    pub fn text(text: impl Into<String>) -> ContentBlock {
        ContentBlock::Text(TextBlock::new(text))
    }

    /// An image from its bytes; `media_type` is `image/jpeg`, `image/png`, `image/gif` or
    /// `image/webp`.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::image("image/png", b"\x89PNG\r\n\x1a\n");
    /// assert_eq!(block.kind(), "image");
    /// ```
    pub fn image(media_type: &str, bytes: &[u8]) -> ContentBlock {
        ContentBlock::image_from(Source::base64(media_type, bytes))
    }

    /// An image that the server fetches.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let sky = ContentBlock::image_url("https://example.com/sky.jpg");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![sky, ContentBlock::text("Which clouds are these?")]);
    /// ```
    pub fn image_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::image_from(Source::url(url))
    }

    /// An image from a file, its kind recognised by its first bytes.
    ///
    /// ```no_run
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let image = ContentBlock::image_file("sky.jpg")?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![image, ContentBlock::text("Which clouds are these?")]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is no JPEG, PNG, GIF or WebP image
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn image_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|error| with_path(path, &error))?;
        match image_type(&bytes) {
            Some(media_type) => Ok(ContentBlock::image(media_type, &bytes)),
            None => Err(invalid(path, "not a JPEG, PNG, GIF or WebP image")),
        }
    }

    /// An image from any source.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Source};
    ///
    /// // A picture that was uploaded once, for many requests.
    /// let sky = ContentBlock::image_from(Source::file("file_01Example"));
    /// assert_eq!(serde_json::to_value(&sky)?["source"]["file_id"], "file_01Example");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn image_from(source: Source) -> ContentBlock {
        ContentBlock::Image(ImageBlock {
            source,
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// A PDF document from its bytes.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// # fn ask(bytes: &[u8]) -> MessageRequest {
    /// // Such as one that came by mail and never was a file.
    /// let invoice = ContentBlock::pdf(bytes);
    /// MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![invoice, ContentBlock::text("What is to be paid, and by when?")])
    /// # }
    /// # let request = ask(b"%PDF-1.7");
    /// # let json = serde_json::to_value(&request.messages[0].content)?;
    /// # assert_eq!(json[0]["source"]["media_type"], "application/pdf");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn pdf(bytes: &[u8]) -> ContentBlock {
        ContentBlock::document_from(Source::base64("application/pdf", bytes))
    }

    /// A plain text document.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let statutes = ContentBlock::document("§ 1: Members pay 10 a year.");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![statutes, ContentBlock::text("What do members pay?")]);
    /// ```
    pub fn document(text: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::text(text))
    }

    /// A document that the server fetches.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let report = ContentBlock::document_url("https://example.com/report.pdf");
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .user(vec![report, ContentBlock::text("Which towns does it name?")]);
    /// # let json = serde_json::to_value(&request)?;
    /// # assert_eq!(json["messages"][0]["content"][0]["source"]["type"], "url");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn document_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::url(url))
    }

    /// A PDF or a UTF-8 text from a file; the file's name becomes the title.
    ///
    /// ```no_run
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let report = ContentBlock::document_file("report.pdf")?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .user(vec![report, ContentBlock::text("Summarise this.")]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is neither a PDF nor UTF-8
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn document_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|error| with_path(path, &error))?;
        let source = if bytes.starts_with(b"%PDF-") {
            Source::base64("application/pdf", &bytes)
        } else {
            match String::from_utf8(bytes) {
                Ok(text) => Source::text(text),
                Err(_) => return Err(invalid(path, "neither a PDF nor a UTF-8 text")),
            }
        };
        let mut block = DocumentBlock::new(source);
        block.title = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(ContentBlock::Document(block))
    }

    /// A document from any source.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Source};
    ///
    /// // Two contracts that were uploaded before, to be compared.
    /// let contracts = ["file_01Example", "file_02Example"];
    /// let blocks = contracts.map(|id| ContentBlock::document_from(Source::file(id)));
    /// assert_eq!(serde_json::to_value(&blocks)?[1]["source"]["file_id"], "file_02Example");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn document_from(source: Source) -> ContentBlock {
        ContentBlock::Document(DocumentBlock::new(source))
    }

    /// A search result of your own, with its text; the model may cite it as a
    /// [`SearchResultBlock::cited`] one.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let found = vec![
    ///     ContentBlock::search_result("wiki/12", "Opening hours", "From 9 to 17."),
    ///     ContentBlock::search_result("wiki/30", "Fees", "10 a year."),
    /// ];
    /// let result = ContentBlock::tool_result("toolu_1", found);
    /// assert_eq!(serde_json::to_value(&result)?["content"][1]["source"], "wiki/30");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn search_result(
        source: impl Into<String>,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> ContentBlock {
        ContentBlock::SearchResult(SearchResultBlock::new(source, title, text))
    }

    /// A file that was uploaded before, for the code execution container.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    /// use serde_json::json;
    ///
    /// let table = ContentBlock::container_upload("file_01Example");
    /// let request = MessageRequest::new("claude-opus-5", 4096)
    ///     .tool(json!({"type": "code_execution_20250825", "name": "code_execution"}))
    ///     .user(vec![table, ContentBlock::text("What is the median of the second column?")]);
    /// # assert_eq!(request.messages.len(), 1);
    /// ```
    pub fn container_upload(file_id: impl Into<String>) -> ContentBlock {
        ContentBlock::ContainerUpload(ContainerUploadBlock {
            file_id: file_id.into(),
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// Your answer to the tool call `tool_use_id`.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, MessageRequest};
    ///
    /// /// The request that answers the tool calls of an answer.
    /// fn next(request: MessageRequest, answer: Message) -> MessageRequest {
    ///     let results: Vec<ContentBlock> =
    ///         answer.tool_uses().map(|call| ContentBlock::tool_result(&call.id, "21 °C")).collect();
    ///     request.message(answer).user(results)
    /// }
    /// ```
    pub fn tool_result(
        tool_use_id: impl Into<String>,
        content: impl Into<Content>,
    ) -> ContentBlock {
        ContentBlock::ToolResult(ToolResultBlock {
            tool_use_id: tool_use_id.into(),
            content: Some(content.into()),
            is_error: None,
            toolset_name: None,
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// Your answer to the tool call `tool_use_id`, which failed; `message` tells the model why.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::tool_error("toolu_1", "there is no such town");
    /// assert_eq!(serde_json::to_value(&block)?["is_error"], true);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn tool_error(tool_use_id: impl Into<String>, message: impl Into<String>) -> ContentBlock {
        let mut block = ContentBlock::tool_result(tool_use_id, message.into());
        if let ContentBlock::ToolResult(result) = &mut block {
            result.is_error = Some(true);
        }
        block
    }

    /// Marks this block as the end of a prefix that the server should cache. Thinking blocks
    /// cannot be marked and stay as they are.
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
        let slot = match &mut self {
            ContentBlock::Text(block) => &mut block.cache_control,
            ContentBlock::Image(block) => &mut block.cache_control,
            ContentBlock::Document(block) => &mut block.cache_control,
            ContentBlock::SearchResult(block) => &mut block.cache_control,
            ContentBlock::ToolUse(block) => &mut block.cache_control,
            ContentBlock::ToolResult(block) => &mut block.cache_control,
            ContentBlock::ServerToolUse(block) => &mut block.cache_control,
            ContentBlock::ServerToolResult(block) => &mut block.cache_control,
            ContentBlock::ContainerUpload(block) => &mut block.cache_control,
            ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::Other(_) => return self,
        };
        *slot = Some(control);
        self
    }

    /// Whether this block is marked as the end of a prefix that the server should cache.
    pub(crate) fn is_cached(&self) -> bool {
        match self {
            ContentBlock::Text(block) => block.cache_control.is_some(),
            ContentBlock::Image(block) => block.cache_control.is_some(),
            ContentBlock::Document(block) => block.cache_control.is_some(),
            ContentBlock::SearchResult(block) => block.cache_control.is_some(),
            ContentBlock::ToolUse(block) => block.cache_control.is_some(),
            ContentBlock::ToolResult(block) => block.cache_control.is_some(),
            ContentBlock::ServerToolUse(block) => block.cache_control.is_some(),
            ContentBlock::ServerToolResult(block) => block.cache_control.is_some(),
            ContentBlock::ContainerUpload(block) => block.cache_control.is_some(),
            ContentBlock::Thinking(_)
            | ContentBlock::RedactedThinking(_)
            | ContentBlock::Other(_) => false,
        }
    }

    /// The text of a text block.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// let paragraphs = vec![ContentBlock::text("First, …"), ContentBlock::text("Second, …")];
    /// let message = Message::for_test(paragraphs);
    /// let last = message.content.iter().rev().find_map(ContentBlock::as_text);
    /// assert_eq!(last, Some("Second, …"));
    /// ```
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ContentBlock::Text(block) => Some(&block.text),
            _ => None,
        }
    }

    /// The block's `type` on the wire; empty for an unknown block without one.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block: ContentBlock = serde_json::from_str(r#"{"type":"hologram","depth":3}"#)?;
    /// // Unknown to this version, and still to be told from others.
    /// assert_eq!(block.kind(), "hologram");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
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

impl From<&str> for ContentBlock {
    fn from(text: &str) -> ContentBlock {
        ContentBlock::text(text)
    }
}

impl From<String> for ContentBlock {
    fn from(text: String) -> ContentBlock {
        ContentBlock::text(text)
    }
}

impl Field for ContentBlock {
    fn read(json: &Json<'_>) -> Result<Self, Misfit> {
        let object = wire::object(json)?;
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

    fn write(&self) -> Written<'_> {
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

impl TextBlock {
    /// Text without citations.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, ContentBlock, TextBlock};
    ///
    /// let mut statutes = TextBlock::new("§ 1: Members pay 10 a year.");
    /// statutes.cache_control = Some(CacheControl::one_hour());
    /// assert_eq!(ContentBlock::from(statutes).as_text(), Some("§ 1: Members pay 10 a year."));
    /// ```
    pub fn new(text: impl Into<String>) -> TextBlock {
        TextBlock {
            text: text.into(),
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
    }
}

impl ThinkingBlock {
    /// Reasoning with the signature that the server gave for it: it accepts no other, so that this
    /// is for reasoning that you stored, and for tests.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, ThinkingBlock};
    ///
    /// let thought = ThinkingBlock::new("A river in Iberia …", "c2lnbmF0dXJl");
    /// let answer = ContentBlock::text("The Tagus.");
    /// let message = Message::for_test(vec![ContentBlock::from(thought), answer]);
    /// assert_eq!(message.text(), "The Tagus.");
    /// ```
    pub fn new(thinking: impl Into<String>, signature: impl Into<String>) -> ThinkingBlock {
        ThinkingBlock {
            thinking: thinking.into(),
            signature: signature.into(),
            extra: Map::new(),
        }
    }
}

impl SearchResultBlock {
    /// A search result of one text, not cited.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, SearchResultBlock};
    ///
    /// let mut hours = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.");
    /// // The model cites each text by itself.
    /// hours.content.push(ContentBlock::text("Closed on Mondays."));
    /// assert_eq!(hours.content.len(), 2);
    /// ```
    pub fn new(
        source: impl Into<String>,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> SearchResultBlock {
        SearchResultBlock {
            source: source.into(),
            title: title.into(),
            content: vec![ContentBlock::text(text)],
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// Asks the model to cite the search result.
    ///
    /// ```
    /// use anthropic_blocking::SearchResultBlock;
    /// use serde_json::json;
    ///
    /// let hours = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.").cited();
    /// assert_eq!(serde_json::to_value(&hours)?["citations"], json!({"enabled": true}));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn cited(mut self) -> SearchResultBlock {
        self.citations = Some(serde_json::json!({"enabled": true}));
        self
    }
}

impl DocumentBlock {
    /// A document without title, context or citations.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year."));
    /// let short = ContentBlock::document("§ 1: Members pay 10 a year.");
    /// assert_eq!(ContentBlock::from(statutes), short);
    /// ```
    pub fn new(source: Source) -> DocumentBlock {
        DocumentBlock {
            source,
            title: None,
            context: None,
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// Gives it a title.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// // Citations name the document by its title.
    /// let statutes = DocumentBlock::new(Source::file("file_01Example")).title("Statutes");
    /// assert_eq!(statutes.title.as_deref(), Some("Statutes"));
    /// ```
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> DocumentBlock {
        self.title = Some(title.into());
        self
    }

    /// Tells the model something about the document that it does not cite.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year."))
    ///     .context("In force until 2024, then replaced");
    /// assert_eq!(statutes.context.as_deref(), Some("In force until 2024, then replaced"));
    /// ```
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> DocumentBlock {
        self.context = Some(context.into());
        self
    }

    /// Asks the model to cite the document.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, MessageRequest, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year.")).cited();
    /// // The text blocks of the answer have `citations` then.
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![ContentBlock::from(statutes), ContentBlock::text("What do members pay?")]);
    /// # let json = serde_json::to_value(&request.messages[0].content)?;
    /// # assert_eq!(json[0]["citations"]["enabled"], true);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn cited(mut self) -> DocumentBlock {
        self.citations = Some(serde_json::json!({"enabled": true}));
        self
    }
}

/// Blocks that have a type of their own as blocks of any kind.
macro_rules! into_block {
    ($( $type:ident => $variant:ident ),* $(,)?) => { $(
        impl From<$type> for ContentBlock {
            fn from(block: $type) -> ContentBlock {
                ContentBlock::$variant(block)
            }
        }
    )* };
}

into_block! {
    TextBlock => Text,
    ImageBlock => Image,
    DocumentBlock => Document,
    SearchResultBlock => SearchResult,
    ThinkingBlock => Thinking,
    RedactedThinkingBlock => RedactedThinking,
    ToolUseBlock => ToolUse,
    ToolResultBlock => ToolResult,
    ServerToolUseBlock => ServerToolUse,
    ServerToolResultBlock => ServerToolResult,
    ContainerUploadBlock => ContainerUpload,
}

impl ToolUseBlock {
    /// A call as the model makes it, for conversations that you put together, and for tests.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest, ToolUseBlock};
    /// use serde_json::json;
    ///
    /// // An example, made up, of how to use the tool.
    /// let call = ToolUseBlock::new("toolu_1", "get_temp", json!({"town": "Lima"}));
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user("How warm is Lima?")
    ///     .assistant(ContentBlock::from(call))
    ///     .user(ContentBlock::tool_result("toolu_1", "21 °C"));
    /// # assert_eq!(request.messages.len(), 3);
    /// ```
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        input: impl Into<Value>,
    ) -> ToolUseBlock {
        ToolUseBlock {
            id: id.into(),
            name: name.into(),
            input: input.into(),
            toolset_name: None,
            caller: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// The input as raw text, where it was no valid JSON: cut off by `max_tokens`, or broken.
    ///
    /// ```
    /// use anthropic_blocking::ToolUseBlock;
    /// use serde_json::json;
    ///
    /// let whole = ToolUseBlock::new("toolu_1", "weather", json!({"town": "Lima"}));
    /// assert_eq!(whole.raw_input(), None);
    /// let cut = ToolUseBlock::new("toolu_1", "weather", r#"{"town": "Li"#);
    /// assert_eq!(cut.raw_input(), Some(r#"{"town": "Li"#));
    /// ```
    pub fn raw_input(&self) -> Option<&str> {
        self.input.as_str()
    }
}

impl ServerToolResultBlock {
    /// The code with which the tool failed, such as `max_uses_exceeded`.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn warn(message: &Message) {
    /// for block in &message.content {
    ///     let ContentBlock::ServerToolResult(result) = block else { continue };
    ///     if let Some(code) = result.error_code() {
    ///         eprintln!("{} failed: {code}", result.kind);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn error_code(&self) -> Option<&str> {
        self.content.get("error_code")?.as_str()
    }
}

impl Source {
    /// Bytes, sent in base64.
    ///
    /// ```
    /// use anthropic_blocking::Source;
    ///
    /// let source = Source::base64("image/png", b"\x89PNG");
    /// assert_eq!(source.data.as_deref(), Some("iVBORw=="));
    /// ```
    pub fn base64(media_type: &str, bytes: &[u8]) -> Source {
        let mut source = Source::of("base64");
        source.media_type = Some(media_type.to_owned());
        source.data = Some(base64(bytes));
        source
    }

    /// Plain text.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// let minutes = DocumentBlock::new(Source::text("It began at nine. …")).title("Minutes");
    /// assert_eq!(minutes.source.media_type.as_deref(), Some("text/plain"));
    /// ```
    pub fn text(text: impl Into<String>) -> Source {
        let mut source = Source::of("text");
        source.media_type = Some("text/plain".to_owned());
        source.data = Some(text.into());
        source
    }

    /// An address that the server fetches.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// let report = DocumentBlock::new(Source::url("https://example.com/9.pdf")).title("Report");
    /// assert_eq!(report.source.url.as_deref(), Some("https://example.com/9.pdf"));
    /// ```
    pub fn url(url: impl Into<String>) -> Source {
        let mut source = Source::of("url");
        source.url = Some(url.into());
        source
    }

    /// A file that was uploaded before.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ContentBlock, Result, Source};
    /// use serde_json::Value;
    ///
    /// # fn newest(client: &Client) -> Result<Option<ContentBlock>> {
    /// let files: Value = client.raw().get("/v1/files?limit=1")?.json()?;
    /// let id = files["data"][0]["id"].as_str();
    /// Ok(id.map(|id| ContentBlock::image_from(Source::file(id))))
    /// # }
    /// ```
    pub fn file(file_id: impl Into<String>) -> Source {
        let mut source = Source::of("file");
        source.file_id = Some(file_id.into());
        source
    }

    fn of(kind: &str) -> Source {
        Source {
            kind: kind.to_owned(),
            media_type: None,
            data: None,
            url: None,
            file_id: None,
            extra: Map::new(),
        }
    }
}

impl CacheControl {
    /// Cached for five minutes after its last use.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, MessageRequest};
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .system("… thousands of words …")
    ///     .cache_control(CacheControl::ephemeral())
    ///     .user("Hello?");
    /// ```
    pub fn ephemeral() -> CacheControl {
        CacheControl {
            kind: "ephemeral".to_owned(),
            ttl: None,
            extra: Map::new(),
        }
    }

    /// Cached for an hour after its last use.
    ///
    /// ```
    /// use anthropic_blocking::CacheControl;
    ///
    /// // For questions that come every twenty minutes: five would not do.
    /// assert_eq!(CacheControl::one_hour().ttl.as_deref(), Some("1h"));
    /// ```
    pub fn one_hour() -> CacheControl {
        CacheControl {
            ttl: Some("1h".to_owned()),
            ..CacheControl::ephemeral()
        }
    }
}

/// A message's or tool result's content: one string, or blocks.
///
/// ```
/// use anthropic_blocking::{Content, ContentBlock, MessageRequest};
///
/// // Text, a block or many: whatever becomes content.
/// let request = MessageRequest::new("claude-haiku-4-5", 64)
///     .user("Hello?")
///     .user(vec![ContentBlock::text("What is"), ContentBlock::text(" this?")]);
/// assert_eq!(Content::from("Hello?").text(), "Hello?");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A string; the same as one text block.
    Text(String),
    /// Blocks.
    Blocks(Vec<ContentBlock>),
}

impl Content {
    /// The text, without blocks of other kinds.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageParam};
    ///
    /// let sky = ContentBlock::image_url("https://example.com/sky.jpg");
    /// let turn = MessageParam::user(vec![sky, ContentBlock::text("Which clouds are these?")]);
    /// assert_eq!(turn.content.text(), "Which clouds are these?");
    /// ```
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Blocks(blocks) => blocks.iter().filter_map(ContentBlock::as_text).collect(),
        }
    }

    /// Turns a string into the block that it stands for.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageParam};
    ///
    /// let turn = MessageParam::user("Which clouds are these?");
    /// let mut blocks = turn.content.into_blocks();
    /// blocks.insert(0, ContentBlock::image_url("https://example.com/sky.jpg"));
    /// assert_eq!(blocks.len(), 2);
    /// ```
    pub fn into_blocks(self) -> Vec<ContentBlock> {
        match self {
            Content::Text(text) => vec![ContentBlock::text(text)],
            Content::Blocks(blocks) => blocks,
        }
    }
}

impl Field for Content {
    fn read(json: &Json<'_>) -> Result<Self, Misfit> {
        match json {
            Json::Text(text) => Ok(Content::Text(text.clone().into_owned())),
            Json::Array(_) => Vec::read(json).map(Content::Blocks),
            other => Err(Misfit::odd(other, "a string or an array of content blocks")),
        }
    }

    fn write(&self) -> Written<'_> {
        match self {
            Content::Text(text) => Written::Text(text),
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

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Text(text.to_owned())
    }
}

impl From<&String> for Content {
    fn from(text: &String) -> Content {
        Content::Text(text.clone())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Content {
        Content::Text(text)
    }
}

impl From<ContentBlock> for Content {
    fn from(block: ContentBlock) -> Content {
        Content::Blocks(vec![block])
    }
}

impl From<Vec<ContentBlock>> for Content {
    fn from(blocks: Vec<ContentBlock>) -> Content {
        Content::Blocks(blocks)
    }
}

impl<const N: usize> From<[ContentBlock; N]> for Content {
    fn from(blocks: [ContentBlock; N]) -> Content {
        Content::Blocks(blocks.into())
    }
}

fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        _ => None,
    }
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {what}", path.display()),
    )
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let first = u32::from(group[0]) << 16;
        let second = u32::from(group.get(1).copied().unwrap_or(0)) << 8;
        let bits = first | second | u32::from(group.get(2).copied().unwrap_or(0));
        for index in 0..4 {
            if index <= group.len() {
                let digit = (bits >> (18 - 6 * index)) & 63;
                text.push(char::from(ALPHABET[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
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
    fn every_kind_of_block_survives_both_directions() {
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
    fn type_need_not_come_first() {
        let block: ContentBlock = serde_json::from_str(r#"{"text":"a","type":"text"}"#).unwrap();
        assert_eq!(block.as_text(), Some("a"));
    }

    #[test]
    fn block_in_another_shape_is_kept_as_it_is() {
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
        for odd in ["null", "5", "\"a\"", "[]", "true"] {
            assert!(serde_json::from_str::<ContentBlock>(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn odd_parts_of_a_block_stay_parts_of_it() {
        for json in [
            json!({"type":"text","text":"a","citations":[{"cited_text":"b"}]}),
            json!({"type":"text","text":"a","cache_control":{"ttl":"1h"}}),
            json!({"type":"text","text":"a","cache_control":1.5}),
        ] {
            assert_eq!(round_trip(json).as_text(), Some("a"));
        }
    }

    #[test]
    fn base64_pads_as_rfc_4648_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn images_are_recognised_by_their_first_bytes() {
        assert_eq!(image_type(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(image_type(b"\x89PNG\r\n"), Some("image/png"));
        assert_eq!(image_type(b"GIF89a"), Some("image/gif"));
        assert_eq!(image_type(b"RIFF1234WEBPVP8"), Some("image/webp"));
        assert_eq!(image_type(b"RIFF1234WAVE"), None);
    }

    #[test]
    fn unreadable_file_is_named_in_the_error() {
        let error = ContentBlock::image_file("/nowhere/cat.png").unwrap_err();
        assert!(error.to_string().contains("/nowhere/cat.png"), "{error}");
    }

    #[test]
    fn cache_mark_is_written_where_it_may_stand() {
        let block = ContentBlock::text("a").cached(CacheControl::one_hour());
        assert_eq!(
            serde_json::to_value(block).unwrap(),
            json!({"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}})
        );
    }
}
