//! The turns of a conversation, as a request sends them.

use std::borrow::Cow;

use serde_json::Map;

use super::content::{Content, ContentBlock};
use super::wire::{WireDefault, open_enum, wire_struct};

open_enum! {
    /// The author of a message.
    ///
    /// ```
    /// use anthropic_blocking::Role;
    ///
    /// assert_eq!(Role::from("assistant"), Role::Assistant);
    /// assert_eq!(Role::User.as_str(), "user");
    /// ```
    pub enum Role {
        /// You, or your user.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// Instructions in the middle of the conversation, which some models accept.
        System = "system",
    }
}

impl WireDefault for Role {
    /// The role of a received message without the field.
    fn wire_default() -> Role {
        Role::Assistant
    }
}

wire_struct! {
    /// One turn of the conversation in a request.
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
        /// The author.
        req role: Role,
        /// The content: text, or blocks.
        req content: Content,
    }
}

impl MessageParam {
    /// Creates a user turn.
    pub fn user(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::User, content)
    }

    /// Creates a turn of the model.
    pub fn assistant(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::Assistant, content)
    }

    /// Creates a turn of any role.
    pub fn new(role: impl Into<Role>, content: impl Into<Content>) -> MessageParam {
        MessageParam {
            role: role.into(),
            content: content.into(),
            extra: Map::new(),
        }
    }

    /// Returns the turn in the form that the server accepts; `None` if nothing of it can be sent.
    ///
    /// The server rejects some content that its models generate: empty text, blank text without
    /// other text beside it, a turn without content, and tool input that is not an object.
    pub(super) fn to_accepted(&self) -> Option<Cow<'_, MessageParam>> {
        let blocks = match &self.content {
            _ if self.role != Role::Assistant => return Some(Cow::Borrowed(self)),
            Content::Text(text) => return (!is_blank(text)).then_some(Cow::Borrowed(self)),
            Content::Blocks(blocks) => blocks,
        };
        let mut texts = blocks.iter().filter_map(ContentBlock::as_text);
        let has_text = texts.any(|text| !is_blank(text));
        let is_accepted = |block: &ContentBlock| match block.as_text() {
            Some(text) => has_text && !text.is_empty(),
            None => true,
        };
        if !blocks.iter().any(is_accepted) {
            return None;
        }
        let is_unchanged =
            |block: &ContentBlock| is_accepted(block) && !block.has_non_object_input();
        if blocks.iter().all(is_unchanged) {
            return Some(Cow::Borrowed(self));
        }
        let accepted = blocks.iter().filter(|block| is_accepted(block));
        let mut accepted: Vec<ContentBlock> = accepted.cloned().collect();
        accepted
            .iter_mut()
            .for_each(ContentBlock::wrap_non_object_input);
        Some(Cow::Owned(MessageParam {
            role: self.role.clone(),
            content: Content::Blocks(accepted),
            extra: self.extra.clone(),
        }))
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

impl From<&MessageParam> for MessageParam {
    fn from(message: &MessageParam) -> MessageParam {
        message.clone()
    }
}
