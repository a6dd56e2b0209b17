//! The request for a message.

use serde_json::{Map, Value};

use super::content::{CacheControl, Content};
use super::digest::Digest;
use super::message_param::MessageParam;
use super::model::Model;
use super::thinking::Thinking;
use super::tool::{Tool, ToolChoice};
use super::wire::wire_struct;

// In `wire_struct!`, a field is `req` (required), `opt` (an `Option`) or `def` (left out if it has
// its default value).
wire_struct! {
    /// A request for a message, for [`Messages::create`](crate::Messages::create).
    ///
    /// Only fields that were set are sent; for all others, the server's defaults apply.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .system("You answer in one sentence.")
    ///     .user("Why is the sky blue?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageRequest {
        /// The model.
        req model: Model,
        /// The maximum number of output tokens, thinking included.
        req max_tokens: u64,
        /// The conversation so far.
        req messages: Vec<MessageParam>,
        /// The system prompt.
        opt system: Content,
        /// Strings at which the model stops generating.
        def stop_sequences: Vec<String>,
        /// Information about the end user.
        opt metadata: Metadata,
        /// The randomness of the output, 0 to 1. Newer models accept only 1.
        opt temperature: f64,
        /// Nucleus sampling: the probability mass to sample from, 0 to 1. Newer models accept only
        /// 0.99 and above.
        opt top_p: f64,
        /// How many of the most likely tokens are sampled from. Newer models reject `top_k`.
        opt top_k: u64,
        /// Whether and how the model thinks before it responds.
        opt thinking: Thinking,
        /// Tools that the model may call.
        def tools: Vec<Tool>,
        /// How the model chooses among the tools.
        opt tool_choice: ToolChoice,
        /// How much effort the model makes, and the format of its output.
        opt output_config: OutputConfig,
        /// Tells the server to cache the prompt up to the last block that can be cached.
        opt cache_control: CacheControl,
        /// The service tier: `auto` (the server's default) or `standard_only`.
        opt service_tier: String,
        /// The code execution container to reuse.
        opt container: Value,
        /// Where the model runs: `us` or `global`.
        opt inference_geo: String,
        /// The speed: `standard` or `fast`.
        opt speed: String,
    }
}

wire_struct! {
    /// Information about the end user of a request.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).metadata("customer-4711");
    /// let metadata = request.metadata.expect("set above");
    /// assert_eq!(metadata.user_id.as_deref(), Some("customer-4711"));
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Metadata {
        /// An opaque id of the end user. Do not send names, e-mail addresses or phone numbers.
        opt user_id: String,
    }
}

wire_struct! {
    /// How much effort the model makes, and the format of its output.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).effort("low").user("A prime?");
    /// assert_eq!(request.output_config.and_then(|config| config.effort).as_deref(), Some("low"));
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct OutputConfig {
        /// The effort of the model: `low`, `medium`, `high`, `xhigh` or `max`.
        opt effort: String,
        /// The output format: `{"type": "json_schema", "schema": …}` for JSON that matches the
        /// schema.
        opt format: Value,
    }
}

impl MessageRequest {
    /// Creates a request without messages. The model generates at most `max_tokens` output tokens.
    pub fn new(model: impl Into<Model>, max_tokens: u64) -> MessageRequest {
        MessageRequest {
            model: model.into(),
            max_tokens,
            messages: Vec::new(),
            system: None,
            stop_sequences: Vec::new(),
            metadata: None,
            temperature: None,
            top_p: None,
            top_k: None,
            thinking: None,
            tools: Vec::new(),
            tool_choice: None,
            output_config: None,
            cache_control: None,
            service_tier: None,
            container: None,
            inference_geo: None,
            speed: None,
            extra: Map::new(),
        }
    }

    /// Adds a turn of the user, given as text or as content blocks.
    #[must_use]
    pub fn user(self, content: impl Into<Content>) -> MessageRequest {
        self.message(MessageParam::user(content))
    }

    /// Adds a turn of the model, such as an example of the expected output, given as text or as
    /// content blocks.
    #[must_use]
    pub fn assistant(self, content: impl Into<Content>) -> MessageRequest {
        self.message(MessageParam::assistant(content))
    }

    /// Adds a turn: a [`MessageParam`], or a [`Message`](crate::Message) as received.
    ///
    /// Models sometimes generate content that the server rejects in later requests. Turns of the
    /// model are therefore sent without empty text, and not at all if they have no content. The
    /// input of a tool call that was cut off is sent inside an object; see
    /// [`raw_input`](crate::ToolUseBlock::raw_input). The request itself keeps the content as
    /// received.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// # fn next(message: Message) -> MessageRequest {
    /// MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user("Name a river.")
    ///     .message(message)
    ///     .user("And a town on it?")
    /// # }
    /// ```
    #[must_use]
    pub fn message(mut self, message: impl Into<MessageParam>) -> MessageRequest {
        self.push(message);
        self
    }

    /// Adds a turn in place, for a conversation that grows. Otherwise like
    /// [`message`](MessageRequest::message).
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageParam, MessageRequest, Result};
    ///
    /// fn chat(client: &Client, request: &mut MessageRequest, text: &str) -> Result<String> {
    ///     request.push(MessageParam::user(text));
    ///     let reply = client.messages().create(request)?;
    ///     request.push(&reply);
    ///     Ok(reply.text())
    /// }
    /// ```
    pub fn push(&mut self, message: impl Into<MessageParam>) {
        self.messages.push(message.into());
    }

    /// Sets the system prompt, given as text or as text blocks.
    #[must_use]
    pub fn system(mut self, system: impl Into<Content>) -> MessageRequest {
        self.system = Some(system.into());
        self
    }

    /// Adds a string at which the model stops generating.
    #[must_use]
    pub fn stop_sequence(mut self, text: impl Into<String>) -> MessageRequest {
        self.stop_sequences.push(text.into());
        self
    }

    /// Sets the opaque id of the end user on whose behalf the request is made.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Metadata>) -> MessageRequest {
        self.metadata = Some(metadata.into());
        self
    }

    /// Sets the randomness of the output, 0 to 1. Newer models accept only 1.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> MessageRequest {
        self.temperature = Some(temperature);
        self
    }

    /// Sets nucleus sampling, 0 to 1. Newer models accept only 0.99 and above.
    #[must_use]
    pub fn top_p(mut self, top_p: f64) -> MessageRequest {
        self.top_p = Some(top_p);
        self
    }

    /// Sets how many of the most likely tokens are sampled from. Newer models reject `top_k`.
    #[must_use]
    pub fn top_k(mut self, top_k: u64) -> MessageRequest {
        self.top_k = Some(top_k);
        self
    }

    /// Sets whether and how the model thinks before it responds.
    #[must_use]
    pub fn thinking(mut self, thinking: Thinking) -> MessageRequest {
        self.thinking = Some(thinking);
        self
    }

    /// Adds a tool: one that your program runs ([`Tool::new`]), or any other as a JSON object.
    ///
    /// ```
    /// use anthropic_blocking::{MessageRequest, Tool};
    /// use serde_json::json;
    ///
    /// let schema = json!({"type": "object", "properties": {"town": {"type": "string"}}});
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .tool(Tool::new("get_temp", schema).description("Temperature of a town in °C"))
    ///     .tool(json!({"type": "web_search_20260318", "name": "web_search"}))
    ///     .user("How warm is Lima, and why?");
    /// ```
    #[must_use]
    pub fn tool(mut self, tool: impl Into<Tool>) -> MessageRequest {
        self.tools.push(tool.into());
        self
    }

    /// Adds several tools.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item: Into<Tool>>) -> MessageRequest {
        self.tools.extend(tools.into_iter().map(Into::into));
        self
    }

    /// Sets how the model chooses among the tools.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> MessageRequest {
        self.tool_choice = Some(choice);
        self
    }

    /// Sets the effort of the model: `low`, `medium`, `high`, `xhigh` or `max`.
    #[must_use]
    pub fn effort(mut self, effort: impl Into<String>) -> MessageRequest {
        self.output_config.get_or_insert_default().effort = Some(effort.into());
        self
    }

    /// Requires the output to be JSON that matches `schema`.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    /// use serde_json::json;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .json_schema(json!({
    ///         "type": "object",
    ///         "properties": {"town": {"type": "string"}, "river": {"type": "string"}},
    ///         "required": ["town", "river"],
    ///         "additionalProperties": false,
    ///     }))
    ///     .user("A town and its river.");
    /// ```
    #[must_use]
    pub fn json_schema(mut self, schema: Value) -> MessageRequest {
        let format = serde_json::json!({"type": "json_schema", "schema": schema});
        self.output_config.get_or_insert_default().format = Some(format);
        self
    }

    /// Tells the server to cache the prompt up to the last block that can be cached.
    #[must_use]
    pub fn cache_control(mut self, control: CacheControl) -> MessageRequest {
        self.cache_control = Some(control);
        self
    }

    /// Sets the service tier: `auto` (the server's default) or `standard_only`.
    #[must_use]
    pub fn service_tier(mut self, tier: impl Into<String>) -> MessageRequest {
        self.service_tier = Some(tier.into());
        self
    }

    /// Reuses a code execution container, given by its id or as an object.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// # fn next(mut request: MessageRequest, message: Message) -> MessageRequest {
    /// if let Some(container) = &message.container {
    ///     // The files that the model created are still in the container.
    ///     request = request.container(container["id"].clone());
    /// }
    /// request.message(message).user("Now sort the table by its second column.")
    /// # }
    /// ```
    #[must_use]
    pub fn container(mut self, container: impl Into<Value>) -> MessageRequest {
        self.container = Some(container.into());
        self
    }

    /// Sets where the model runs: `us` or `global`.
    #[must_use]
    pub fn inference_geo(mut self, geo: impl Into<String>) -> MessageRequest {
        self.inference_geo = Some(geo.into());
        self
    }

    /// Sets the speed: `standard` or `fast`.
    #[must_use]
    pub fn speed(mut self, speed: impl Into<String>) -> MessageRequest {
        self.speed = Some(speed.into());
        self
    }

    /// Sets a field that this type does not have, such as a field of a beta. If the name is that of
    /// a field that this type has, the value is sent only while that field is not set. `stream` is
    /// never sent from here: the client sets it.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    /// use serde_json::json;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).field("mcp_servers", json!([]));
    /// assert_eq!(serde_json::to_value(&request)?["mcp_servers"], json!([]));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> MessageRequest {
        self.extra.insert(name.into(), value.into());
        self
    }

    /// Returns a digest of the request's JSON: 16 hexadecimal digits. Use the digest as the key of
    /// a request in a [bulk run](crate::Bulk) if your data has no keys.
    ///
    /// Equal requests have equal fingerprints, also in other versions of this crate that write the
    /// same JSON. A bulk run with a journal sends only one request per key: remove duplicates
    /// first.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let ask = |text| MessageRequest::new("claude-haiku-4-5", 64).user(text);
    /// assert_eq!(ask("A prime?").fingerprint(), ask("A prime?").fingerprint());
    /// assert_ne!(ask("A prime?").fingerprint(), ask("A square?").fingerprint());
    /// ```
    pub fn fingerprint(&self) -> String {
        let mut digest = Digest::new();
        digest.add_json(self);
        digest.to_hex()
    }
}

impl From<&str> for Metadata {
    fn from(user_id: &str) -> Metadata {
        Metadata {
            user_id: Some(user_id.to_owned()),
            extra: Map::new(),
        }
    }
}

impl From<&String> for Metadata {
    fn from(user_id: &String) -> Metadata {
        Metadata::from(user_id.as_str())
    }
}

impl From<String> for Metadata {
    fn from(user_id: String) -> Metadata {
        Metadata {
            user_id: Some(user_id),
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn request_sends_only_fields_that_were_set() {
        let request = MessageRequest::new("m", 5).user("hi");
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]})
        );
    }

    #[test]
    fn every_setter_sets_its_field() {
        let json = json!({
            "model":"m","max_tokens":5,
            "messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],
            "system":"s","stop_sequences":["x"],"metadata":{"user_id":"u"},"temperature":0.5,
            "top_p":0.9,"top_k":3,"thinking":{"type":"enabled","budget_tokens":1024,
            "display":"omitted"},"tools":[{"name":"t","input_schema":{}},{"type":"bash_20250124",
            "name":"bash"}],"tool_choice":{"type":"auto"},"output_config":{"effort":"low",
            "format":{"type":"json_schema","schema":{}}},"cache_control":{"type":"ephemeral"},
            "service_tier":"auto","container":"c","inference_geo":"us","speed":"fast",
            "mcp_servers":[]
        });
        let request = MessageRequest::new("m", 5)
            .user("a")
            .assistant("b")
            .system("s")
            .stop_sequence("x")
            .metadata("u")
            .temperature(0.5)
            .top_p(0.9)
            .top_k(3)
            .thinking(Thinking::enabled(1024).display("omitted"))
            .tool(Tool::new("t", json!({})))
            .tool(json!({"type":"bash_20250124","name":"bash"}))
            .tool_choice(ToolChoice::auto())
            .effort("low")
            .json_schema(json!({}))
            .cache_control(CacheControl::ephemeral())
            .service_tier("auto")
            .container("c")
            .inference_geo("us")
            .speed("fast")
            .field("mcp_servers", json!([]));
        assert_eq!(serde_json::to_value(&request).unwrap(), json);
        assert_eq!(
            serde_json::from_value::<MessageRequest>(json).unwrap(),
            request
        );
    }
}
