//! Blocks that hold no other content.

use serde_json::{Map, Value};

use super::cache_control::CacheControl;
use super::citation::Citation;
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

impl TextBlock {
    /// Text without citations.
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
        /// The reasoning, or its summary; empty where it is omitted.
        def thinking: String,
        /// Proves that the block is the model's own.
        def signature: String,
    }
}

impl ThinkingBlock {
    /// Reasoning with the signature that the server gave for it: it accepts no other, so that this
    /// is for reasoning that you stored, and for tests.
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

impl RedactedThinkingBlock {
    /// Encrypted reasoning as the server gave it, which you stored.
    pub fn new(data: impl Into<String>) -> RedactedThinkingBlock {
        RedactedThinkingBlock {
            data: data.into(),
            extra: Map::new(),
        }
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

impl ToolUseBlock {
    /// A call as the model makes it, for conversations that you put together, and for tests.
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

impl ServerToolResultBlock {
    /// The code with which the tool failed, such as `max_uses_exceeded`.
    pub fn error_code(&self) -> Option<&str> {
        self.content.get("error_code")?.as_str()
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
