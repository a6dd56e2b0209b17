//! One request of each cached prefix goes ahead, the others follow when its answer begins.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::{Condvar, Mutex};
use crate::error::Result;
use crate::types::digest::Digest;
use crate::types::{Message, MessageRequest};

/// Which prefixes the server has in its cache, as far as this run knows.
#[derive(Default)]
pub(super) struct CacheWarmer {
    prefixes: Mutex<HashMap<Digest, Prefix>>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Prefix {
    /// A request is on its way that will have the server cache it.
    OnItsWay,
    Warm,
}

impl CacheWarmer {
    /// Sends a request, after one of the same prefix.
    pub(super) fn create(&self, client: &Client, request: &MessageRequest) -> Result<Message> {
        match request.cached_prefix() {
            Some(prefix) if self.goes_ahead(client, &prefix) => {
                let lead = LeadRequest {
                    warmth: self,
                    prefix,
                };
                // When the answer begins, the cache can be read.
                let warm = || lead.set(Prefix::Warm);
                client.messages().create_telling(request, &warm)
            }
            _ => client.messages().create(request),
        }
    }

    /// Whether this one is the first of its prefix; otherwise blocks until that one's answer has
    /// begun. If that one fails, the next goes ahead.
    fn goes_ahead(&self, client: &Client, prefix: &Digest) -> bool {
        let mut prefixes = lock(&self.prefixes);
        loop {
            match prefixes.get(prefix) {
                Some(Prefix::Warm) => return false,
                None => {
                    begin(&mut prefixes, prefix);
                    return true;
                }
                Some(Prefix::OnItsWay) => {}
            }
            if client.settings().cancel.is_stopped() || client.core().sleeper.is_stopped() {
                return false;
            }
            prefixes = self
                .changed
                .wait_timeout(prefixes, LOOK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Takes note of a prefix whose first request goes ahead. A run may have any number of prefixes;
/// when there are too many, those that are warm are forgotten, which costs one request ahead each.
fn begin(prefixes: &mut HashMap<Digest, Prefix>, prefix: &Digest) {
    if prefixes.len() >= MOST_PREFIXES {
        prefixes.retain(|_, state| *state == Prefix::OnItsWay);
    }
    prefixes.insert(prefix.clone(), Prefix::OnItsWay);
}

/// The request that goes ahead. If it comes to nothing, another one has to.
struct LeadRequest<'a> {
    warmth: &'a CacheWarmer,
    prefix: Digest,
}

impl LeadRequest<'_> {
    fn set(&self, state: Prefix) {
        lock(&self.warmth.prefixes).insert(self.prefix.clone(), state);
        self.warmth.changed.notify_all();
    }
}

impl Drop for LeadRequest<'_> {
    fn drop(&mut self) {
        let mut prefixes = lock(&self.warmth.prefixes);
        if prefixes.get(&self.prefix) == Some(&Prefix::OnItsWay) {
            prefixes.remove(&self.prefix);
            self.warmth.changed.notify_all();
        }
    }
}

const MOST_PREFIXES: usize = 10_000;

/// How often those who follow look whether the run is over.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_prefixes_takes_little_room() {
        let mut prefixes = HashMap::new();
        let first = Digest::of(b"first");
        begin(&mut prefixes, &first);
        for number in 0..100_000_u32 {
            let prefix = Digest::of(&number.to_le_bytes());
            begin(&mut prefixes, &prefix);
            prefixes.insert(prefix, Prefix::Warm);
            assert!(prefixes.len() <= MOST_PREFIXES);
        }
        assert!(prefixes.contains_key(&first), "what is on its way is kept");
    }
}
