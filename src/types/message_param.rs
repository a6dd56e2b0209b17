//! The turns of a conversation that a request sends.

use std::borrow::Cow;

use serde_json::Map;

use super::content::{Content, ContentBlock};
use super::wire::{WireDefault, open_enum, wire_struct};

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

impl WireDefault for Role {
    /// Whose turn an answer is that does not say so.
    fn wire_default() -> Role {
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
    pub fn user(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::User, content)
    }

    /// A turn of the model's.
    pub fn assistant(content: impl Into<Content>) -> MessageParam {
        MessageParam::new(Role::Assistant, content)
    }

    /// A turn of any role.
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
