//! Messages: the turns of a conversation, and the answer.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::content::{Content, ContentBlock, ToolUseBlock};
use super::id::RequestId;
use super::meta::{Attempt, RateLimits, ResponseMeta};
use super::model::Model;
use super::wait::Waits;
use super::wire::{Absent, open_enum, wire_struct};

open_enum! {
    /// Whose turn a message is.
    ///
    /// ```
    /// use anthropic_blocking::Role;
    ///
    /// assert_eq!(Role::from("assistant"), Role::Assistant);
    /// assert_eq!(Role::User.as_str(), "user");
    /// ```
    pub enum Role {
        /// Yours.
        User = "user",
        /// The model's.
        Assistant = "assistant",
        /// An instruction in mid conversation, which some models accept.
        System = "system",
    }
}

impl Absent for Role {
    /// Whose turn an answer is that does not say so.
    fn absent() -> Role {
        Role::Assistant
    }
}

wire_struct! {
    /// One turn of the input.
    ///
    /// ```
    /// use anthropic_blocking::{MessageParam, MessageRequest};
    ///
    /// let mut history = vec![MessageParam::user("Name a river.")];
    /// history.push(MessageParam::assistant("The Tagus."));
    /// history.push(MessageParam::user("And a town on it?"));
    /// let mut request = MessageRequest::new("claude-haiku-4-5", 64);
    /// request.messages = history;
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageParam {
        /// Whose turn it is.
        req role: Role,
        /// What is said.
        req content: Content,
    }
}

impl MessageParam {
    /// A turn of yours.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageParam, Role};
    ///
    /// let sky = ContentBlock::image_url("https://example.com/sky.jpg");
    /// let turn = MessageParam::user(vec![sky, ContentBlock::text("Which clouds are these?")]);
    /// assert_eq!(turn.role, Role::User);
    /// ```
    pub fn user(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::User, content)
    }

    /// A turn of the model's.
    ///
    /// ```
    /// use anthropic_blocking::{MessageParam, MessageRequest};
    ///
    /// // An answer that was corrected by hand before the conversation goes on.
    /// let mut request = MessageRequest::new("claude-haiku-4-5", 64).user("Name a river.");
    /// request.push(MessageParam::assistant("The Tagus."));
    /// request.push(MessageParam::user("And a town on it?"));
    /// # assert_eq!(request.messages.len(), 3);
    /// ```
    pub fn assistant(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::Assistant, content)
    }

    /// A turn of any role.
    ///
    /// ```
    /// use anthropic_blocking::MessageParam;
    ///
    /// // A history that was stored as pairs of strings.
    /// let stored = [("user", "Name a river."), ("assistant", "The Tagus.")];
    /// let history = stored.map(|(role, text)| MessageParam::new(role, text));
    /// assert_eq!(history[1], MessageParam::assistant("The Tagus."));
    /// ```
    pub fn new(role: impl Into<Role>, content: impl Into<Content>) -> MessageParam {
        MessageParam {
            role: role.into(),
            content: content.into(),
            extra: Map::new(),
        }
    }

    /// The turn as the server takes it; `None` where nothing of it can be sent. What it answered may
    /// be refused when it comes back: text that is empty, or blank without other text beside it, a
    /// turn without content, input of a tool call that is no object.
    pub(super) fn sendable(&self) -> Option<Cow<'_, MessageParam>> {
        let blocks = match &self.content {
            _ if self.role != Role::Assistant => return Some(Cow::Borrowed(self)),
            Content::Text(text) => return (!is_blank(text)).then_some(Cow::Borrowed(self)),
            Content::Blocks(blocks) => blocks,
        };
        let mut texts = blocks.iter().filter_map(ContentBlock::as_text);
        let has_text = texts.any(|text| !is_blank(text));
        let is_taken = |block: &ContentBlock| match block.as_text() {
            Some(text) => has_text && !text.is_empty(),
            None => true,
        };
        if !blocks.iter().any(is_taken) {
            return None;
        }
        let is_fine = |block: &ContentBlock| is_taken(block) && !block.has_odd_input();
        if blocks.iter().all(is_fine) {
            return Some(Cow::Borrowed(self));
        }
        let taken = blocks.iter().filter(|block| is_taken(block));
        let mut taken: Vec<ContentBlock> = taken.cloned().collect();
        taken.iter_mut().for_each(ContentBlock::wrap_odd_input);
        Some(Cow::Owned(MessageParam {
            role: self.role.clone(),
            content: Content::Blocks(taken),
            extra: self.extra.clone(),
        }))
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

impl From<Message> for MessageParam {
    /// An answer as a turn of the conversation, its content unchanged.
    fn from(message: Message) -> MessageParam {
        MessageParam::new(message.role, message.content)
    }
}

impl From<&Message> for MessageParam {
    fn from(message: &Message) -> MessageParam {
        MessageParam::new(message.role.clone(), message.content.clone())
    }
}

impl From<&MessageParam> for MessageParam {
    fn from(message: &MessageParam) -> MessageParam {
        message.clone()
    }
}

open_enum! {
    /// Why the model stopped.
    ///
    /// ```
    /// use anthropic_blocking::{Message, StopReason};
    ///
    /// # fn check(message: &Message) {
    /// match &message.stop_reason {
    ///     Some(StopReason::EndTurn) => {}
    ///     Some(StopReason::MaxTokens) => eprintln!("cut off: raise max_tokens"),
    ///     Some(StopReason::Refusal) => eprintln!("refused: {:?}", message.stop_details),
    ///     other => eprintln!("stopped: {other:?}"),
    /// }
    /// # }
    /// ```
    pub enum StopReason {
        /// It was finished.
        EndTurn = "end_turn",
        /// It reached `max_tokens`; the input of a last tool call may be incomplete.
        MaxTokens = "max_tokens",
        /// It wrote one of the stop sequences.
        StopSequence = "stop_sequence",
        /// It waits for the results of tool calls.
        ToolUse = "tool_use",
        /// A long turn with server tools was paused: send the content back to go on.
        PauseTurn = "pause_turn",
        /// It declined; see [`Message::stop_details`]. Take the turn that was refused out of the
        /// conversation before you go on.
        Refusal = "refusal",
        /// The context window is full.
        ContextWindowExceeded = "model_context_window_exceeded",
        /// The conversation was summarised (beta).
        Compaction = "compaction",
    }
}

wire_struct! {
    /// The model's answer.
    ///
    /// Two messages are equal when the server said the same; how they were obtained
    /// ([`attempts`](Message::attempts) and the like) does not count.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// let answer = Message::for_test("The Tagus.");
    /// println!("{} ({} tokens)", answer.text(), answer.usage.output_tokens);
    ///
    /// // An answer goes back into the conversation as it came.
    /// let request = MessageRequest::new("claude-haiku-4-5", 64)
    ///     .user("Name a river.")
    ///     .message(answer)
    ///     .user("And a town on it?");
    /// assert_eq!(request.messages.len(), 3);
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Message {
        /// The message's id.
        def id: String,
        /// `message`.
        def kind = "type": String,
        /// [`Role::Assistant`].
        def role: Role,
        /// The model that answered.
        def model: Model,
        /// What it said; may be empty.
        req content: Vec<ContentBlock>,
        /// Why it stopped.
        opt stop_reason: StopReason,
        /// The stop sequence that it wrote.
        opt stop_sequence: String,
        /// More about a refusal.
        opt stop_details: StopDetails,
        /// The code execution container that was used.
        opt container: Value,
        /// What it cost.
        def usage: Usage,
    }
    skip {
        /// How the answer was obtained.
        meta: ResponseMeta,
    }
}

wire_struct! {
    /// More about a refusal.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// if let Some(details) = &message.stop_details {
    ///     eprintln!("{:?}: {:?}", details.category, details.explanation);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct StopDetails {
        /// `refusal`.
        req kind = "type": String,
        /// What the request was taken for.
        opt category: String,
        /// An explanation for people.
        opt explanation: String,
    }
}

wire_struct! {
    /// The tokens of an meta.
    ///
    /// ```
    /// use anthropic_blocking::Usage;
    ///
    /// let mut usage = Usage::new(12, 300);
    /// usage.cache_read_input_tokens = Some(4_000);
    /// assert_eq!(usage.total_input_tokens(), 4_012);
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Usage {
        /// Input after the last cache breakpoint; see [`Usage::total_input_tokens`].
        def input_tokens: u64,
        /// Output, thinking included.
        def output_tokens: u64,
        /// Input written to the cache.
        opt cache_creation_input_tokens: u64,
        /// Input read from the cache.
        opt cache_read_input_tokens: u64,
        /// What was written to the cache, by how long it stays.
        opt cache_creation: CacheCreation,
        /// Parts of the output.
        opt output_tokens_details: OutputTokensDetails,
        /// Requests made by server tools.
        opt server_tool_use: ServerToolUsage,
        /// `standard`, `priority` or `batch`.
        opt service_tier: String,
        /// Where the model ran, such as `us` or `global`.
        opt inference_geo: String,
        /// `standard` or `fast`.
        opt speed: String,
    }
}

wire_struct! {
    /// Input written to the cache, by how long it stays there.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// if let Some(written) = &message.usage.cache_creation {
    ///     println!("{} tokens stay for an hour", written.ephemeral_1h_input_tokens);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct CacheCreation {
        /// For five minutes.
        def ephemeral_5m_input_tokens: u64,
        /// For an hour.
        def ephemeral_1h_input_tokens: u64,
    }
}

wire_struct! {
    /// Parts of the output.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// let details = message.usage.output_tokens_details.as_ref();
    /// println!("{} tokens of thinking", details.map_or(0, |details| details.thinking_tokens));
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct OutputTokensDetails {
        /// Tokens of thinking; also counted in the output.
        def thinking_tokens: u64,
    }
}

wire_struct! {
    /// Requests made by server tools.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// let tools = message.usage.server_tool_use.as_ref();
    /// println!("{} searches", tools.map_or(0, |tools| tools.web_search_requests));
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct ServerToolUsage {
        /// Web searches.
        def web_search_requests: u64,
        /// Web pages fetched.
        def web_fetch_requests: u64,
    }
}

impl Message {
    /// A message of which nothing has arrived.
    pub(crate) fn nothing() -> Message {
        Message {
            id: String::new(),
            kind: "message".to_owned(),
            role: Role::Assistant,
            model: Model::absent(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            stop_details: None,
            container: None,
            usage: Usage::default(),
            extra: Map::new(),
            meta: ResponseMeta::default(),
        }
    }

    /// An answer as the server would give it, for the tests of your own program: of the model's
    /// role, with this content, ended by [`StopReason::EndTurn`]. Everything else is unset: no id,
    /// no model, no usage, no attempts. Set what your program looks at:
    ///
    /// ```
    /// use anthropic_blocking::{Message, StopReason, Usage};
    ///
    /// let mut message = Message::for_test("Because of Rayleigh scattering.");
    /// message.stop_reason = Some(StopReason::MaxTokens);
    /// message.usage = Usage::new(12, 7);
    /// assert_eq!(message.text(), "Because of Rayleigh scattering.");
    /// ```
    pub fn for_test(content: impl Into<Content>) -> Message {
        Message {
            content: content.into().into_blocks(),
            stop_reason: Some(StopReason::EndTurn),
            ..Message::nothing()
        }
    }

    /// The text of all text blocks, one after the other.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message};
    ///
    /// let blocks = vec![ContentBlock::text("Light is "), ContentBlock::text("scattered.")];
    /// assert_eq!(Message::for_test(blocks).text(), "Light is scattered.");
    /// ```
    pub fn text(&self) -> String {
        self.content
            .iter()
            .filter_map(ContentBlock::as_text)
            .collect()
    }

    /// The calls of your tools that wait for results.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, ToolUseBlock};
    /// use serde_json::json;
    ///
    /// let call = ToolUseBlock::new("toolu_1", "get_temp", json!({"town": "Lima"}));
    /// let message = Message::for_test(vec![ContentBlock::from(call)]);
    /// let call = message.tool_uses().next().expect("one call");
    /// assert_eq!((call.name.as_str(), &call.input["town"]), ("get_temp", &json!("Lima")));
    /// ```
    pub fn tool_uses(&self) -> impl Iterator<Item = &ToolUseBlock> {
        self.content.iter().filter_map(|block| match block {
            ContentBlock::ToolUse(block) => Some(block),
            _ => None,
        })
    }

    /// The id under which the server logged the meta, where it sent one.
    ///
    /// ```
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// let message = client.messages().create(&request)?;
    /// let id = message.request_id().map(ToString::to_string);
    /// assert_eq!(id.as_deref(), Some("req_test_000001"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// What the response headers said about rate limits.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// server.push(Reply::message("Hello!").header("anthropic-ratelimit-requests-limit", "50"));
    /// let message = client.messages().create(&request)?;
    /// let requests = message.rate_limits().requests.expect("its header");
    /// assert_eq!(requests.limit, Some(50));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Every HTTP meta that this answer took, the successful one last.
    ///
    /// ```
    /// # fn count(message: &anthropic_blocking::Message) {
    /// println!("it took {} attempts", message.attempts().len());
    /// # }
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// How long the attempts waited before they were sent, and for what.
    ///
    /// ```
    /// use anthropic_blocking::WaitCause;
    ///
    /// # fn show(message: &anthropic_blocking::Message) {
    /// println!("{:?} in all", message.waited().total());
    /// println!("{:?} because the server was overloaded", message.waited().of(WaitCause::Overload));
    /// # }
    /// ```
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }
}

impl Usage {
    /// The tokens of an meta without a cache.
    ///
    /// ```
    /// use anthropic_blocking::{Model, Price, Prices, Usage};
    ///
    /// // What a thousand such answers would cost.
    /// let prices = Prices::none().set("claude-haiku-4-5", Price::new(1.0, 5.0));
    /// let usage = Usage::new(1_000 * 500, 1_000 * 300);
    /// assert_eq!(prices.cost(&Model::new("claude-haiku-4-5"), &usage), Some(2.0));
    /// ```
    pub fn new(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        }
    }

    /// All input: fresh, written to the cache and read from it.
    ///
    /// ```
    /// use anthropic_blocking::Usage;
    ///
    /// let mut usage = Usage::new(12, 300);
    /// usage.cache_creation_input_tokens = Some(4_000);
    /// assert_eq!(usage.total_input_tokens(), 4_012);
    /// ```
    pub fn total_input_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_creation_input_tokens.unwrap_or(0))
            .saturating_add(self.cache_read_input_tokens.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn message_survives_both_directions() {
        for json in [
            json!({"id":"msg_1","type":"message","role":"assistant","model":"m","content":[
                {"type":"text","text":"a"},{"type":"future","x":1}],"stop_reason":"end_turn",
                "stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":6,
                "cache_creation_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0},
                "inference_geo":"us"},"diagnostics":null}),
            json!({"content":[]}),
            json!({"content":[],"stop_reason":"new_reason","usage":{}}),
        ] {
            let message: Message = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&message).unwrap(), json);
        }
    }

    #[test]
    fn odd_usage_does_not_spoil_the_answer() {
        let message: Message =
            serde_json::from_value(json!({"content":[],"usage":{"input_tokens":"many"}})).unwrap();
        assert_eq!(message.usage.input_tokens, 0);
        let message: Message = serde_json::from_value(json!({"content":[],"usage":null})).unwrap();
        assert_eq!(message.usage, Usage::default());
    }

    #[test]
    fn an_object_without_content_is_no_message() {
        assert!(serde_json::from_value::<Message>(json!({"type":"message"})).is_err());
    }

    #[test]
    fn text_and_tool_uses_are_found_among_other_blocks() {
        let message: Message = serde_json::from_value(json!({"content":[
            {"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"a"},
            {"type":"tool_use","id":"t","name":"n","input":{}},{"type":"text","text":"b"}]}))
        .unwrap();
        assert_eq!(message.text(), "ab");
        assert_eq!(
            message
                .tool_uses()
                .map(|call| call.id.as_str())
                .collect::<Vec<_>>(),
            ["t"]
        );
    }

    #[test]
    fn total_input_counts_the_cache_and_does_not_overflow() {
        let usage: Usage = serde_json::from_value(json!({"input_tokens":1,
            "cache_creation_input_tokens":2,"cache_read_input_tokens":u64::MAX}))
        .unwrap();
        assert_eq!(usage.total_input_tokens(), u64::MAX);
    }
}
