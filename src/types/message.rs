//! Messages: the turns of a conversation, and the answer.

use serde_json::{Map, Value};

use super::attempt::Attempt;
use super::content::{Content, ContentBlock, ToolUseBlock};
use super::message_param::{MessageParam, Role};
use super::meta::ResponseMeta;
use super::model::Model;
use super::rate_limits::RateLimits;
use super::request_id::RequestId;
use super::usage::Usage;
use super::wait::Waits;
use super::wire::{WireDefault, open_enum, wire_struct};

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

impl Message {
    /// A message of which nothing has arrived.
    pub(crate) fn nothing() -> Message {
        Message {
            id: String::new(),
            kind: "message".to_owned(),
            role: Role::Assistant,
            model: Model::wire_default(),
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
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// What the response headers said about rate limits.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Every HTTP meta that this answer took, the successful one last.
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// How long the attempts waited before they were sent, and for what.
    pub fn waited(&self) -> Waits {
        self.meta.waited()
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
}
