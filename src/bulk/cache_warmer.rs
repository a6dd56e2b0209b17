//! One request of each cached prefix goes ahead, the others follow when its answer begins.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::{Condvar, Mutex};
use crate::error::Result;
use crate::types::digest::Digest;
use crate::types::{Content, ContentBlock, Message, MessageRequest, Tool};

/// Which prefixes the server has in its cache, as far as this run knows.
#[derive(Default)]
pub(super) struct CacheWarmer {
    prefixes: Mutex<HashMap<Digest, PrefixState>>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum PrefixState {
    /// A request is on its way that will have the server cache it.
    Warming,
    Warm,
}

impl CacheWarmer {
    /// Sends a request, after one of the same prefix.
    pub(super) fn create(&self, client: &Client, request: &MessageRequest) -> Result<Message> {
        match request.cached_prefix() {
            Some(prefix) if self.wait_or_lead(client, &prefix) => {
                let lead = LeadRequest {
                    warmer: self,
                    prefix,
                };
                // When the answer begins, the cache can be read.
                let warm = || lead.set(PrefixState::Warm);
                client.messages().create_telling(request, &warm)
            }
            _ => client.messages().create(request),
        }
    }

    /// Whether this one is the first of its prefix; otherwise blocks until that one's answer has
    /// begun. If that one fails, the next goes ahead.
    fn wait_or_lead(&self, client: &Client, prefix: &Digest) -> bool {
        let mut prefixes = lock(&self.prefixes);
        loop {
            match prefixes.get(prefix) {
                Some(PrefixState::Warm) => return false,
                None => {
                    begin_warming(&mut prefixes, prefix);
                    return true;
                }
                Some(PrefixState::Warming) => {}
            }
            if client.settings().cancel.is_stopped() || client.core().sleeper.is_stopped() {
                return false;
            }
            prefixes = self
                .changed
                .wait_timeout(prefixes, POLL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Takes note of a prefix whose first request goes ahead. A run may have any number of prefixes;
/// when there are too many, those that are warm are forgotten, which costs one request ahead each.
fn begin_warming(prefixes: &mut HashMap<Digest, PrefixState>, prefix: &Digest) {
    if prefixes.len() >= MAX_PREFIXES {
        prefixes.retain(|_, state| *state == PrefixState::Warming);
    }
    prefixes.insert(prefix.clone(), PrefixState::Warming);
}

/// The request that goes ahead. If it comes to nothing, another one has to.
struct LeadRequest<'a> {
    warmer: &'a CacheWarmer,
    prefix: Digest,
}

impl LeadRequest<'_> {
    fn set(&self, state: PrefixState) {
        lock(&self.warmer.prefixes).insert(self.prefix.clone(), state);
        self.warmer.changed.notify_all();
    }
}

impl Drop for LeadRequest<'_> {
    fn drop(&mut self) {
        let mut prefixes = lock(&self.warmer.prefixes);
        if prefixes.get(&self.prefix) == Some(&PrefixState::Warming) {
            prefixes.remove(&self.prefix);
            self.warmer.changed.notify_all();
        }
    }
}

const MAX_PREFIXES: usize = 10_000;

/// How often those who follow look whether the run is over.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl MessageRequest {
    /// A digest of what the server may cache of this request, up to the first mark: what comes after
    /// it may be each request's own, and a mark there changes nothing of what they share. `None`
    /// without a mark.
    fn cached_prefix(&self) -> Option<Digest> {
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

    #[test]
    fn any_number_of_prefixes_takes_little_room() {
        let mut prefixes = HashMap::new();
        let first = Digest::of(b"first");
        begin_warming(&mut prefixes, &first);
        for number in 0..100_000_u32 {
            let prefix = Digest::of(&number.to_le_bytes());
            begin_warming(&mut prefixes, &prefix);
            prefixes.insert(prefix, PrefixState::Warm);
            assert!(prefixes.len() <= MAX_PREFIXES);
        }
        assert!(prefixes.contains_key(&first), "what is on its way is kept");
    }

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

        let document = |text, question| {
            let blocks = vec![marked(text), ContentBlock::text(question)];
            MessageRequest::new("claude-haiku-4-5", 64)
                .user(blocks)
                .cached_prefix()
        };
        assert_eq!(document("a text", "who?"), document("a text", "when?"));
        assert_ne!(document("a text", "who?"), document("another", "who?"));
        assert_ne!(document("a text", "who?"), system("a text", "who?"));

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
