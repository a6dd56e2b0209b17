//! The blocks, kind by kind.

use serde_json::{Map, Value};

use super::source::{CacheControl, Source};
use super::{Content, ContentBlock};
use crate::types::wire::wire_struct;

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
    ///         let from = citation.extra.get("start_char_index").and_then(|index| index.as_u64());
    ///         println!("  beginning at {from:?}");
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
        /// The source of the search result cited, as the request named it.
        opt source: String,
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
        let thinking = thinking.into();
        let mut extra = Map::new();
        if thinking.is_empty() {
            // The server wants the field even where the reasoning is omitted.
            extra.insert("thinking".to_owned(), Value::from(""));
        }
        ThinkingBlock {
            thinking,
            signature: signature.into(),
            extra,
        }
    }
}

impl RedactedThinkingBlock {
    /// Encrypted reasoning as the server gave it, which you stored.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, RedactedThinkingBlock, ThinkingBlock};
    ///
    /// /// A block of a database's row.
    /// fn block(kind: &str, text: &str, secret: &str) -> ContentBlock {
    ///     match kind {
    ///         "thinking" => ThinkingBlock::new(text, secret).into(),
    ///         "redacted_thinking" => RedactedThinkingBlock::new(secret).into(),
    ///         _ => ContentBlock::text(text),
    ///     }
    /// }
    /// # assert_eq!(block("redacted_thinking", "", "c2VjcmV0").kind(), "redacted_thinking");
    /// ```
    pub fn new(data: impl Into<String>) -> RedactedThinkingBlock {
        RedactedThinkingBlock {
            data: data.into(),
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

    /// Your answer to this call.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, MessageRequest};
    ///
    /// /// The request that answers the tool calls of an answer.
    /// fn next(request: MessageRequest, answer: Message) -> MessageRequest {
    ///     let results: Vec<ContentBlock> =
    ///         answer.tool_uses().map(|call| call.result("21 °C")).collect();
    ///     request.message(answer).user(results)
    /// }
    /// ```
    pub fn result(&self, content: impl Into<Content>) -> ContentBlock {
        let mut result = ToolResultBlock::new(self.id.clone(), content.into());
        result.toolset_name.clone_from(&self.toolset_name);
        ContentBlock::ToolResult(result)
    }

    /// Your answer to this call, which failed; `message` tells the model why.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, ToolUseBlock};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Question {
    ///     town: String,
    /// }
    ///
    /// /// Runs a tool. A model that reads what was wrong with its call mostly calls again.
    /// fn temperature(call: &ToolUseBlock) -> ContentBlock {
    ///     match call.input_as::<Question>() {
    ///         Ok(question) if question.town == "Lima" => call.result("21 °C"),
    ///         Ok(_) => call.error("there is no such town"),
    ///         Err(error) => call.error(error.to_string()),
    ///     }
    /// }
    /// ```
    pub fn error(&self, message: impl Into<String>) -> ContentBlock {
        let message = Content::from(message.into());
        let mut result = ToolResultBlock::new(self.id.clone(), message);
        result.toolset_name.clone_from(&self.toolset_name);
        result.is_error = Some(true);
        ContentBlock::ToolResult(result)
    }

    /// The input as raw text, where it was no valid JSON: cut off by `max_tokens`, or broken.
    ///
    /// Answer such a call with an [`error`](ToolUseBlock::error). The server takes objects only, so
    /// that a request sends the text as `{"INVALID_JSON": "…"}`.
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

impl ToolResultBlock {
    pub(super) fn new(tool_use_id: String, content: Content) -> ToolResultBlock {
        ToolResultBlock {
            tool_use_id,
            content: Some(content),
            is_error: None,
            toolset_name: None,
            cache_control: None,
            extra: Map::new(),
        }
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
