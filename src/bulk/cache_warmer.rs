//! Cache warming: the first request of each cached prefix leads; the other requests follow when its
//! response begins.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::{Condvar, Mutex};
use crate::error::Result;
use crate::types::digest::Digest;
use crate::types::{Content, ContentBlock, Message, MessageRequest, Tool};

/// The prefixes that the server has in its cache, as far as this run knows.
#[derive(Default)]
pub(super) struct CacheWarmer {
    prefixes: Mutex<HashMap<Digest, PrefixState>>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum PrefixState {
    /// A request in flight makes the server cache the prefix.
    Warming,
    Warm,
}

impl CacheWarmer {
    /// Sends a request; blocks first until the response to the leading request of its prefix
    /// begins.
    pub(super) fn create(&self, client: &Client, request: &MessageRequest) -> Result<Message> {
        match request.cached_prefix() {
            Some(prefix) if self.wait_or_lead(client, &prefix) => {
                let lead = LeadRequest {
                    warmer: self,
                    prefix,
                };
                // The cache can be read when the response begins.
                let warm = || lead.set(PrefixState::Warm);
                client.messages().create_with_callback(request, &warm)
            }
            _ => client.messages().create(request),
        }
    }

    /// Returns `true` if the request leads its prefix; otherwise blocks until the response to the
    /// leading request has begun. If the leading request fails, the next request leads.
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

/// Notes that a request of this prefix leads. A run can have any number of prefixes: at
/// [`MAX_PREFIXES`] the warm prefixes are removed, and each then needs another leading request.
fn begin_warming(prefixes: &mut HashMap<Digest, PrefixState>, prefix: &Digest) {
    if prefixes.len() >= MAX_PREFIXES {
        prefixes.retain(|_, state| *state == PrefixState::Warming);
    }
    prefixes.insert(prefix.clone(), PrefixState::Warming);
}

/// The leading request of a prefix. If it is dropped before its response begins, another request
/// leads.
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

/// The number of prefixes at which warm prefixes are removed, to bound the memory.
const MAX_PREFIXES: usize = 10_000;

/// Interval at which waiting requests check whether the run is stopped.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl MessageRequest {
    /// Returns a digest of the part that the server may cache, up to the first cache mark: requests
    /// can differ after it, and later marks do not change the shared part. `None` without a mark.
    fn cached_prefix(&self) -> Option<Digest> {
        let mut digest = Digest::of(self.model.as_str().as_bytes());
        if let Some(first) = self.tools.iter().position(Tool::has_cache_control) {
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
        // An automatic mark stands at the end of the prompt; the requests share the system prompt
        // before it.
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

/// Returns the blocks up to the first marked block.
fn up_to_mark(content: &Content) -> Option<&[ContentBlock]> {
    let Content::Blocks(blocks) = content else {
        return None;
    };
    let first = blocks.iter().position(ContentBlock::has_cache_control)?;
    Some(&blocks[..=first])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CacheControl;

    #[test]
    fn warm_prefixes_are_bounded() {
        let mut prefixes = HashMap::new();
        let first = Digest::of(b"first");
        begin_warming(&mut prefixes, &first);
        for number in 0..100_000_u32 {
            let prefix = Digest::of(&number.to_le_bytes());
            begin_warming(&mut prefixes, &prefix);
            prefixes.insert(prefix, PrefixState::Warm);
            assert!(prefixes.len() <= MAX_PREFIXES);
        }
        assert!(
            prefixes.contains_key(&first),
            "prefixes being warmed are kept"
        );
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
    fn automatic_mark_covers_the_system_prompt() {
        let automatic = |system, prompt| {
            let request = ask(prompt).cache_control(CacheControl::ephemeral());
            request.system(system).cached_prefix()
        };
        assert!(automatic("long", "one").is_some());
        assert_eq!(automatic("long", "one"), automatic("long", "two"));
        assert_ne!(automatic("long", "one"), automatic("other", "one"));
    }

    #[test]
    fn unmarked_request_has_no_prefix() {
        assert_eq!(ask("one").system("s").cached_prefix(), None);
    }
}
