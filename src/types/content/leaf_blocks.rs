//! Content blocks that contain no other content.

use serde_json::{Map, Value};

use super::cache_control::CacheControl;
use super::citation::Citation;
use crate::types::wire::wire_struct;

wire_struct! {
    /// Text; in responses with its citations.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, TextBlock};
    ///
    /// let block = ContentBlock::from(TextBlock::new("Light is scattered."));
    /// assert_eq!(block.as_text(), Some("Light is scattered."));
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct TextBlock as "text" {
        /// The text.
        req text: String,
        /// The sources of the text.
        opt citations: Vec<Citation>,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

impl TextBlock {
    /// Creates a block of text without citations.
    pub fn new(text: impl Into<String>) -> TextBlock {
        TextBlock {
            text: text.into(),
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
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
        /// The reasoning or its summary; empty if the response omits it.
        def thinking: String,
        /// Proves to the server that the model generated this block.
        def signature: String,
    }
}

impl ThinkingBlock {
    /// Creates a block from stored reasoning and its signature. The server accepts only its own
    /// signatures.
    pub fn new(thinking: impl Into<String>, signature: impl Into<String>) -> ThinkingBlock {
        let thinking = thinking.into();
        let mut extra = Map::new();
        if thinking.is_empty() {
            // The server requires the field even if the reasoning is omitted.
            extra.insert("thinking".to_owned(), Value::from(""));
        }
        ThinkingBlock {
            thinking,
            signature: signature.into(),
            extra,
        }
    }
}

wire_struct! {
    /// Encrypted reasoning of the model.
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

impl RedactedThinkingBlock {
    /// Creates a block from stored encrypted reasoning.
    pub fn new(data: impl Into<String>) -> RedactedThinkingBlock {
        RedactedThinkingBlock {
            data: data.into(),
            extra: Map::new(),
        }
    }
}

wire_struct! {
    /// A call of one of your tools. Run the tool, and send a [`result`](ToolUseBlock::result) or an
    /// [`error`](ToolUseBlock::error) in the next user turn.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// # fn results(message: &Message) -> Vec<ContentBlock> {
    /// let results = message.tool_uses().map(|call| match call.name.as_str() {
    ///     "get_temp" => call.result("21 °C"),
    ///     other => call.error(format!("there is no tool {other}")),
    /// });
    /// results.collect()
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ToolUseBlock as "tool_use" {
        /// The call's id, which its result must contain.
        req id: String,
        /// The tool's name.
        req name: String,
        /// The input, an object. A JSON string holds the raw text of input that is not valid JSON;
        /// see [`ToolUseBlock::raw_input`].
        def input: Value,
        /// The toolset that the tool belongs to; the result must contain it too.
        opt toolset_name: String,
        /// The caller: the model itself, or code that it runs.
        opt caller: Value,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

impl ToolUseBlock {
    /// Creates a call as the model would make it, for example conversations and for tests.
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

    /// Returns the raw text of the input if it is not valid JSON: cut off by `max_tokens`, or
    /// malformed.
    ///
    /// Send an [`error`](ToolUseBlock::error) as the result of such a call. Since the server
    /// accepts only objects as input, requests send the text as `{"INVALID_JSON": "…"}`.
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

wire_struct! {
    /// A call of a tool that runs on the server. It needs no result; send it back unchanged.
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
        /// The tool's name, such as `web_search`.
        req name: String,
        /// The input; see [`ToolUseBlock::input`].
        def input: Value,
        /// The caller: the model itself, or code that it runs.
        opt caller: Value,
        /// If set, the server caches the prompt up to the end of this block.
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
        /// The id of the tool call.
        req tool_use_id: String,
        /// The result or an error object; its shape depends on the tool.
        def content: Value,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}

impl ServerToolResultBlock {
    /// Returns the error code if the tool failed, such as `max_uses_exceeded`.
    pub fn error_code(&self) -> Option<&str> {
        self.content.get("error_code")?.as_str()
    }
}

wire_struct! {
    /// An uploaded file to put into the code execution container.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::container_upload("file_01Example");
    /// assert_eq!(block.kind(), "container_upload");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ContainerUploadBlock as "container_upload" {
        /// The id of the uploaded file.
        req file_id: String,
        /// If set, the server caches the prompt up to the end of this block.
        opt cache_control: CacheControl,
    }
}
