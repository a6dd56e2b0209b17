//! The request for a message.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::{Map, Value};

use super::content::{CacheControl, Content};
use super::digest::Digest;
use super::json::JsonView;
use super::message_param::MessageParam;
use super::model::Model;
use super::tool::{Tool, ToolChoice};
use super::wire::{WireStruct, WireValue, wire_struct};

wire_struct! {
    /// A request for a message: what [`Messages::create`](crate::Messages::create) takes.
    ///
    /// Nothing is sent that was not set: the server's defaults stay the server's.
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
        /// The most output tokens, thinking included.
        req max_tokens: u64,
        /// The conversation so far.
        req messages: Vec<MessageParam>,
        /// The system prompt.
        opt system: Content,
        /// Strings at which the model stops.
        def stop_sequences: Vec<String>,
        /// About the end user.
        opt metadata: Metadata,
        /// How random the output is, 0 to 1; newer models take only 1.
        opt temperature: f64,
        /// Nucleus sampling; restricted like the temperature.
        opt top_p: f64,
        /// Sampling among the k likeliest; not taken by newer models.
        opt top_k: u64,
        /// Whether and how the model thinks first.
        opt thinking: Thinking,
        /// Tools that the model may call.
        def tools: Vec<Tool>,
        /// How the model chooses among the tools.
        opt tool_choice: ToolChoice,
        /// Effort and form of the output.
        opt output_config: OutputConfig,
        /// Caches the prefix up to the last block that can be cached.
        opt cache_control: CacheControl,
        /// `auto` (what the server takes when unset) or `standard_only`.
        opt service_tier: String,
        /// The code execution container to use again.
        opt container: Value,
        /// Where the model runs: `us` or `global`.
        opt inference_geo: String,
        /// `standard` or `fast`.
        opt speed: String,
    }
}

wire_struct! {
    /// About the end user of a request.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).metadata("customer-4711");
    /// let metadata = request.metadata.expect("what was set");
    /// assert_eq!(metadata.user_id.as_deref(), Some("customer-4711"));
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Metadata {
        /// An opaque id; no name, address or number of a person.
        opt user_id: String,
    }
}

wire_struct! {
    /// Whether and how the model thinks before it answers. Which forms a model takes depends on
    /// the model.
    ///
    /// ```
    /// use anthropic_blocking::{MessageRequest, Thinking};
    ///
    /// let request = MessageRequest::new("claude-opus-5", 16_000)
    ///     .thinking(Thinking::adaptive().display("summarized"))
    ///     .effort("high")
    ///     .user("Is 2^61 - 1 a prime?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Thinking {
        /// `enabled`, `adaptive`, `disabled` or `between_tools`.
        req kind = "type": String,
        /// The most tokens of thinking, at least 1024 and fewer than `max_tokens`.
        opt budget_tokens: u64,
        /// `summarized` or `omitted`.
        opt display: String,
    }
}

wire_struct! {
    /// Effort and form of the output.
    ///
    /// ```
    /// use anthropic_blocking::MessageRequest;
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).effort("low").user("A prime?");
    /// assert_eq!(request.output_config.and_then(|config| config.effort).as_deref(), Some("low"));
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct OutputConfig {
        /// `low`, `medium`, `high`, `xhigh` or `max`.
        opt effort: String,
        /// `{"type": "json_schema", "schema": …}` for an answer of that shape.
        opt format: Value,
    }
}

impl MessageRequest {
    /// A request without messages yet; `max_tokens` is the most output tokens to generate.
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

    /// Adds a turn of yours: text, or blocks.
    #[must_use]
    pub fn user(self, content: impl Into<Content>) -> MessageRequest {
        self.message(MessageParam::user(content))
    }

    /// Adds a turn of the model's.
    #[must_use]
    pub fn assistant(self, content: impl Into<Content>) -> MessageRequest {
        self.message(MessageParam::assistant(content))
    }

    /// Adds a turn: a [`MessageParam`], or a [`Message`](crate::Message) as it was answered.
    ///
    /// The model sometimes answers what the server does not take back, and each later request would
    /// be refused. So turns of the model's are sent without empty text, and not at all without
    /// content; the input of a tool call that was cut off is sent inside of an object, see
    /// [`raw_input`](crate::ToolUseBlock::raw_input). The request itself keeps what was answered.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// # fn next(answer: Message) -> MessageRequest {
    /// MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user("Name a river.")
    ///     .message(answer)
    ///     .user("And a town on it?")
    /// # }
    /// ```
    #[must_use]
    pub fn message(mut self, message: impl Into<MessageParam>) -> MessageRequest {
        self.push(message);
        self
    }

    /// Adds a turn in place, for a conversation that grows.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageParam, MessageRequest, Result};
    ///
    /// fn chat(client: &Client, request: &mut MessageRequest, text: &str) -> Result<String> {
    ///     request.push(MessageParam::user(text));
    ///     let answer = client.messages().create(request)?;
    ///     request.push(&answer);
    ///     Ok(answer.text())
    /// }
    /// ```
    pub fn push(&mut self, message: impl Into<MessageParam>) {
        self.messages.push(message.into());
    }

    /// Sets the system prompt: text, or text blocks.
    #[must_use]
    pub fn system(mut self, system: impl Into<Content>) -> MessageRequest {
        self.system = Some(system.into());
        self
    }

    /// Adds a string at which the model stops.
    #[must_use]
    pub fn stop_sequence(mut self, text: impl Into<String>) -> MessageRequest {
        self.stop_sequences.push(text.into());
        self
    }

    /// Says on whose behalf the request is made.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Metadata>) -> MessageRequest {
        self.metadata = Some(metadata.into());
        self
    }

    /// Sets how random the output is, 0 to 1. Newer models refuse anything but 1.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> MessageRequest {
        self.temperature = Some(temperature);
        self
    }

    /// Sets nucleus sampling, 0 to 1. Newer models refuse anything below 0.99.
    #[must_use]
    pub fn top_p(mut self, top_p: f64) -> MessageRequest {
        self.top_p = Some(top_p);
        self
    }

    /// Samples among the `top_k` likeliest tokens. Newer models refuse it.
    #[must_use]
    pub fn top_k(mut self, top_k: u64) -> MessageRequest {
        self.top_k = Some(top_k);
        self
    }

    /// Sets whether and how the model thinks first.
    #[must_use]
    pub fn thinking(mut self, thinking: Thinking) -> MessageRequest {
        self.thinking = Some(thinking);
        self
    }

    /// Adds a tool: one of your own ([`Tool::new`]), or any other as a JSON object.
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

    /// Adds several tools to those that there are.
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

    /// Sets how much effort the model makes: `low`, `medium`, `high`, `xhigh` or `max`.
    #[must_use]
    pub fn effort(mut self, effort: impl Into<String>) -> MessageRequest {
        self.output_config.get_or_insert_default().effort = Some(effort.into());
        self
    }

    /// Asks for an answer of the shape of this JSON schema.
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

    /// Caches the prefix up to the last block that can be cached.
    #[must_use]
    pub fn cache_control(mut self, control: CacheControl) -> MessageRequest {
        self.cache_control = Some(control);
        self
    }

    /// Sets the service tier: `auto` or `standard_only`.
    #[must_use]
    pub fn service_tier(mut self, tier: impl Into<String>) -> MessageRequest {
        self.service_tier = Some(tier.into());
        self
    }

    /// Uses a code execution container again: its id, or an object.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// # fn next(mut request: MessageRequest, answer: Message) -> MessageRequest {
    /// if let Some(container) = &answer.container {
    ///     // The files that the model made are still there.
    ///     request = request.container(container["id"].clone());
    /// }
    /// request.message(answer).user("Now sort the table by its second column.")
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

    /// Sets a field that this type has no setter for, such as one of a beta. A field that has a
    /// setter keeps what the setter was given; `stream` is the client's own and is ignored.
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

    /// A key by what is asked, for [bulk runs](crate::Bulk) of requests that have no other: 16
    /// hexadecimal digits, the same for the same request in every version of this crate that writes
    /// it alike. Two equal requests have one key, of which a run with a journal answers one: remove
    /// repeats first.
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

impl Thinking {
    /// Thinks with up to `budget_tokens`, at least 1024 and fewer than `max_tokens`. For models up
    /// to the 4.6 generation.
    pub fn enabled(budget_tokens: u64) -> Thinking {
        Thinking {
            budget_tokens: Some(budget_tokens),
            ..Thinking::of_kind("enabled")
        }
    }

    /// The model decides, guided by the effort.
    pub fn adaptive() -> Thinking {
        Thinking::of_kind("adaptive")
    }

    /// No thinking.
    pub fn disabled() -> Thinking {
        Thinking::of_kind("disabled")
    }

    /// No thinking, but short notes on the progress between tool calls, which come as thinking blocks.
    /// For Sonnet 5.5, with an effort of up to `high`.
    pub fn between_tools() -> Thinking {
        Thinking::of_kind("between_tools")
    }

    /// Sets what is shown of the thinking: `summarized` or `omitted`.
    #[must_use]
    pub fn display(mut self, display: impl Into<String>) -> Thinking {
        self.display = Some(display.into());
        self
    }

    fn of_kind(kind: &str) -> Thinking {
        Thinking {
            kind: kind.to_owned(),
            budget_tokens: None,
            display: None,
            extra: Map::new(),
        }
    }
}

/// A request as the body of a call that creates a message.
pub(crate) struct CreateBody<'a> {
    pub(crate) request: &'a MessageRequest,
    pub(crate) stream: bool,
}

impl Serialize for CreateBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        write_body(self.request, &["stream"], self.stream, to)
    }
}

/// A request as the body of a call that counts its tokens, which takes fewer fields.
pub(crate) struct CountBody<'a>(pub(crate) &'a MessageRequest);

impl Serialize for CountBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        const NOT_TAKEN: &[&str] = &[
            "stream",
            "max_tokens",
            "stop_sequences",
            "metadata",
            "temperature",
            "top_p",
            "top_k",
            "service_tier",
            "container",
            "inference_geo",
            "diagnostics",
            // Of betas.
            "thread",
            "fallbacks",
            "fallback_credit_token",
        ];
        write_body(self.0, NOT_TAKEN, false, to)
    }
}

/// Writes a request without these fields, and with the turns as the server takes them.
fn write_body<S: Serializer>(
    request: &MessageRequest,
    without: &[&str],
    stream: bool,
    to: S,
) -> Result<S::Ok, S::Error> {
    let turns = accepted_turns(&request.messages);
    let mut entries = request.entries();
    entries.retain(|(name, _)| !without.contains(name));
    if let Some(turns) = &turns {
        let messages = entries.iter_mut().find(|(name, _)| *name == "messages");
        if let Some((_, messages)) = messages {
            *messages = JsonView::Array(turns.iter().map(|turn| turn.write()).collect());
        }
    }
    if stream {
        entries.push(("stream", JsonView::Bool(true)));
    }
    JsonView::Object(entries).serialize(to)
}

/// The turns as the server takes them, where these are others.
fn accepted_turns(turns: &[MessageParam]) -> Option<Vec<Cow<'_, MessageParam>>> {
    let is_unchanged = |turn: &MessageParam| matches!(turn.to_accepted(), Some(Cow::Borrowed(_)));
    let are_unchanged = turns.iter().all(is_unchanged);
    (!are_unchanged).then(|| turns.iter().filter_map(MessageParam::to_accepted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_is_sent_that_was_not_set() {
        let request = MessageRequest::new("m", 5).user("hi");
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]})
        );
    }

    #[test]
    fn every_setter_lands_in_its_field() {
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

    #[test]
    fn stream_is_the_clients_own() {
        let request = MessageRequest::new("m", 5).field("stream", false);
        let body = |stream| {
            serde_json::to_value(CreateBody {
                request: &request,
                stream,
            })
            .unwrap()
        };
        assert_eq!(body(true)["stream"], json!(true));
        assert!(body(false).get("stream").is_none());
    }

    #[test]
    fn counting_sends_only_what_counts() {
        let counted = json!({"model":"m","messages":[{"role":"user","content":"a"}],"system":"s",
            "tools":[{"name":"t","input_schema":{}}],"tool_choice":{"type":"none"},
            "thinking":{"type":"adaptive"},"output_config":{"effort":"low"},
            "cache_control":{"type":"ephemeral"},"speed":"fast","context_management":{},
            "mcp_servers":[],"compaction":{"type":"summarize"},"billing_policy":{}});
        let others = json!({"stream":true,"max_tokens":5,"stop_sequences":["x"],
            "metadata":{"user_id":"u"},"temperature":1.0,"top_p":1.0,"top_k":1,
            "service_tier":"auto","container":"c","inference_geo":"us","diagnostics":{},
            "thread":{"type":"create"},"fallbacks":"default","fallback_credit_token":"f"});
        let mut all = counted.clone();
        let fields = all.as_object_mut().unwrap();
        fields.extend(others.as_object().unwrap().clone());
        let request: MessageRequest = serde_json::from_value(all).unwrap();
        assert_eq!(serde_json::to_value(CountBody(&request)).unwrap(), counted);
    }
}
