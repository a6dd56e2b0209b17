//! Marks up to where the server caches a prompt.

use serde_json::Map;

use crate::types::wire::wire_struct;

wire_struct! {
    /// Marks a block as the end of the part of the prompt that the server should cache.
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
        /// Always `ephemeral`.
        req kind = "type": String,
        /// The lifetime after the last use: `5m` (the server's default) or `1h`.
        opt ttl: String,
    }
}

impl CacheControl {
    /// Caches for five minutes after the last use.
    pub fn ephemeral() -> CacheControl {
        CacheControl {
            kind: "ephemeral".to_owned(),
            ttl: None,
            extra: Map::new(),
        }
    }

    /// Caches for one hour after the last use.
    pub fn one_hour() -> CacheControl {
        CacheControl {
            ttl: Some("1h".to_owned()),
            ..CacheControl::ephemeral()
        }
    }
}
