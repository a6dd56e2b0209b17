//! The model's message: the response to a request for a message.

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

open_enum! {
    /// Why the model stopped generating.
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
        /// The model finished its turn.
        EndTurn = "end_turn",
        /// The output reached `max_tokens`; the input of the last tool call may be incomplete.
        MaxTokens = "max_tokens",
        /// The model generated one of the stop sequences.
        StopSequence = "stop_sequence",
        /// The model waits for the results of tool calls.
        ToolUse = "tool_use",
        /// The server paused a long turn with server tools. Send the content back to continue.
        PauseTurn = "pause_turn",
        /// The model refused the request; see [`Message::stop_details`]. Remove the refused turn
        /// before you continue the conversation.
        Refusal = "refusal",
        /// The context window is full.
        ContextWindowExceeded = "model_context_window_exceeded",
        /// The server summarized the conversation (beta).
        Compaction = "compaction",
    }
}

wire_struct! {
    /// The model's message: the response to a [`MessageRequest`](crate::MessageRequest).
    ///
    /// Two messages are equal if the server sent the same content; their
    /// [`attempts`](Message::attempts), waits, rate limits and request ids are not compared.
    ///
    /// ```
    /// use anthropic_blocking::{Message, MessageRequest};
    ///
    /// let message = Message::for_test("The Tagus.");
    /// println!("{} ({} tokens)", message.text(), message.usage.output_tokens);
    ///
    /// // To continue the conversation, send the message back unchanged.
    /// let request = MessageRequest::new("claude-haiku-4-5", 64)
    ///     .user("Name a river.")
    ///     .message(message)
    ///     .user("And a town on it?");
    /// assert_eq!(request.messages.len(), 3);
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Message {
        /// The message's id (`msg_…`).
        def id: String,
        /// Always `message`.
        def kind = "type": String,
        /// Always [`Role::Assistant`].
        def role: Role,
        /// The model that generated the message.
        def model: Model,
        /// The content blocks; may be empty.
        req content: Vec<ContentBlock>,
        /// Why the model stopped.
        opt stop_reason: StopReason,
        /// The stop sequence that the model generated, if that is why it stopped.
        opt stop_sequence: String,
        /// Details of a refusal.
        opt stop_details: StopDetails,
        /// The code execution container that was used.
        opt container: Value,
        /// The tokens used.
        def usage: Usage,
    }
    skip {
        /// How the message was obtained.
        meta: ResponseMeta,
    }
}

wire_struct! {
    /// Details of a refusal.
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
        /// Always `refusal`.
        req kind = "type": String,
        /// The category of content because of which the model refused.
        opt category: String,
        /// An explanation for people.
        opt explanation: String,
    }
}

impl Message {
    /// Creates a message without content, for a stream of which no event has arrived.
    pub(crate) fn empty() -> Message {
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

    /// Creates a message as the server would send it, for tests of your program. Role and stop
    /// reason are [`Role::Assistant`] and [`StopReason::EndTurn`]; the id, the model, the usage and
    /// the attempts are empty. Set the fields that your program reads:
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
            ..Message::empty()
        }
    }

    /// Returns the text of all text blocks, concatenated.
    pub fn text(&self) -> String {
        self.content
            .iter()
            .filter_map(ContentBlock::as_text)
            .collect()
    }

    /// Iterates over the calls of your tools; each needs a result in the next user turn.
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

    /// Returns the id under which the server logged the request, if it sent one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// Returns the rate limits that the response headers reported.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Returns every attempt that was made to obtain this message, the successful one last.
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// Returns how long all attempts together waited before they were sent, by cause.
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }
}

impl From<Message> for MessageParam {
    /// Turns a received message into a turn of the conversation; the content stays unchanged.
    fn from(message: Message) -> MessageParam {
        MessageParam::new(message.role, message.content)
    }
}

impl From<&Message> for MessageParam {
    fn from(message: &Message) -> MessageParam {
        MessageParam::new(message.role.clone(), message.content.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_round_trip() {
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
    fn message_with_unreadable_usage_is_read() {
        let message: Message =
            serde_json::from_value(json!({"content":[],"usage":{"input_tokens":"many"}})).unwrap();
        assert_eq!(message.usage.input_tokens, 0);
        let message: Message = serde_json::from_value(json!({"content":[],"usage":null})).unwrap();
        assert_eq!(message.usage, Usage::default());
    }

    #[test]
    fn message_requires_content() {
        assert!(serde_json::from_value::<Message>(json!({"type":"message"})).is_err());
    }

    #[test]
    fn text_and_tool_uses_skip_other_blocks() {
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
