//! The mark up to which the server caches a prompt.

use serde_json::Map;

use crate::types::wire::wire_struct;

wire_struct! {
    /// Marks the end of a prefix that the server should cache.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, ContentBlock, MessageRequest};
    ///
    /// let statutes = ContentBlock::text("… thousands of words …").cached(CacheControl::one_hour());
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .system(vec![statutes])
    ///     .user("What do members pay?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct CacheControl {
        /// `ephemeral`.
        req kind = "type": String,
        /// How long: `5m` (what the server takes when unset) or `1h`.
        opt ttl: String,
    }
}

impl CacheControl {
    /// Cached for five minutes after its last use.
    pub fn ephemeral() -> CacheControl {
        CacheControl {
            kind: "ephemeral".to_owned(),
            ttl: None,
            extra: Map::new(),
        }
    }

    /// Cached for an hour after its last use.
    pub fn one_hour() -> CacheControl {
        CacheControl {
            ttl: Some("1h".to_owned()),
            ..CacheControl::ephemeral()
        }
    }
}
