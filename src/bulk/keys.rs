//! What tells requests apart, and what they share.

use crate::types::digest::Digest;
use crate::types::{Content, ContentBlock, MessageRequest, Tool};

impl MessageRequest {
    /// A digest of what the server may cache of this request, up to the first mark: what comes after
    /// it may be each request's own, and a mark there changes nothing of what they share. `None`
    /// without a mark.
    pub(super) fn cached_prefix(&self) -> Option<Digest> {
        let mut digest = Digest::of(self.model.as_str().as_bytes());
        if let Some(first) = self.tools.iter().position(Tool::is_cached) {
            digest.add_json(&self.tools[..=first]);
            return Some(digest);
        }
        digest.add_json(&self.tools);
        if let Some(marked) = self.system.as_ref().and_then(up_to_mark) {
            digest.add_json(marked);
            return Some(digest);
        }
        let first = self
            .messages
            .iter()
            .position(|message| up_to_mark(&message.content).is_some());
        // Where the server sets the mark, which is at the end, this is what requests share before it.
        let is_automatic = self.cache_control.is_some() && self.system.is_some();
        if first.is_none() && !is_automatic {
            return None;
        }
        digest.add_json(&self.system);
        if let Some(first) = first {
            digest.add_json(&self.messages[..first]);
            digest.add_json(&up_to_mark(&self.messages[first].content));
        }
        Some(digest)
    }
}

/// The blocks up to the first that is marked.
fn up_to_mark(content: &Content) -> Option<&[ContentBlock]> {
    let Content::Blocks(blocks) = content else {
        return None;
    };
    let first = blocks.iter().position(ContentBlock::is_cached)?;
    Some(&blocks[..=first])
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
    fn requests_share_a_prefix_up_to_the_first_mark() {
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

        let twice = |system, question| {
            let request = MessageRequest::new("claude-haiku-4-5", 64).system(vec![marked(system)]);
            request.user(vec![marked(question)]).cached_prefix()
        };
        assert_eq!(twice("long", "one"), twice("long", "two"));
        assert_ne!(twice("long", "one"), twice("other", "one"));
    }

    #[test]
    fn a_mark_that_the_server_sets_is_for_the_system_prompt() {
        let automatic = |system, prompt| {
            let request = ask(prompt).cache_control(CacheControl::ephemeral());
            request.system(system).cached_prefix()
        };
        assert!(automatic("long", "one").is_some());
        assert_eq!(automatic("long", "one"), automatic("long", "two"));
        assert_ne!(automatic("long", "one"), automatic("other", "one"));
    }

    #[test]
    fn without_a_mark_there_is_no_prefix() {
        assert_eq!(ask("one").system("s").cached_prefix(), None);
    }
}
