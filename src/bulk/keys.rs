//! What tells requests apart, and what they share.

use serde::Serialize;

use crate::digest::Digest;
use crate::types::{Content, ContentBlock, MessageRequest, Tool};

impl MessageRequest {
    /// A key by what is asked, for [bulk runs](crate::Bulk) of requests that have no other: 16
    /// hexadecimal digits, the same for the same request in every version of this crate that writes
    /// it alike.
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
        add(&mut digest, self);
        digest.to_hex()
    }

    /// A digest of what the server may cache of this request, up to the last mark; `None` without
    /// a mark.
    pub(super) fn cached_prefix(&self) -> Option<Digest> {
        let mut digest = Digest::of(self.model.as_str().as_bytes());
        add(&mut digest, &self.tools);
        let is_marked = |content: &Content| last_mark(content).is_some();
        let in_messages = self
            .messages
            .iter()
            .rposition(|message| is_marked(&message.content));
        if let Some(last) = in_messages {
            add(&mut digest, &self.system);
            add(&mut digest, &self.messages[..last]);
            if let Content::Blocks(blocks) = &self.messages[last].content {
                let end = last_mark(&self.messages[last].content)?;
                add(&mut digest, &blocks[..=end]);
            }
            return Some(digest);
        }
        let in_system = self.system.as_ref().is_some_and(is_marked);
        if in_system || (self.cache_control.is_some() && self.system.is_some()) {
            add(&mut digest, &self.system);
            return Some(digest);
        }
        self.tools.iter().any(Tool::is_cached).then_some(digest)
    }
}

fn last_mark(content: &Content) -> Option<usize> {
    match content {
        Content::Text(_) => None,
        Content::Blocks(blocks) => blocks.iter().rposition(ContentBlock::is_cached),
    }
}

fn add(digest: &mut Digest, value: &(impl Serialize + ?Sized)) {
    // What cannot be written is not sent either.
    if let Ok(json) = serde_json::to_vec(value) {
        digest.add(&json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CacheControl;

    fn marked(text: &str) -> ContentBlock {
        ContentBlock::text(text).cached(CacheControl::ephemeral())
    }

    fn ask(prompt: &str) -> MessageRequest {
        MessageRequest::new("claude-haiku-4-5", 64).user(prompt)
    }

    #[test]
    fn requests_share_a_prefix_up_to_the_last_mark() {
        let system = |text, prompt| ask(prompt).system(vec![marked(text)]).cached_prefix();
        assert_eq!(system("long", "one"), system("long", "two"));
        assert_ne!(system("long", "one"), system("other", "one"));
        assert!(system("long", "one").is_some());

        let book = |book, question| {
            let blocks = vec![marked(book), ContentBlock::text(question)];
            MessageRequest::new("claude-haiku-4-5", 64)
                .user(blocks)
                .cached_prefix()
        };
        assert_eq!(book("a book", "who?"), book("a book", "when?"));
        assert_ne!(book("a book", "who?"), book("another", "who?"));
        assert_ne!(book("a book", "who?"), system("a book", "who?"));
    }

    #[test]
    fn without_a_mark_there_is_no_prefix() {
        assert_eq!(ask("one").system("s").cached_prefix(), None);
    }
}
