//! The tokens that a request used.

use super::wire::wire_struct;

wire_struct! {
    /// The tokens that a request used, input and output.
    ///
    /// ```
    /// use anthropic_blocking::Usage;
    ///
    /// let mut usage = Usage::new(12, 300);
    /// usage.cache_read_input_tokens = Some(4_000);
    /// assert_eq!(usage.total_input_tokens(), 4_012);
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Usage {
        /// Input tokens that were neither written to the cache nor read from it; see
        /// [`Usage::total_input_tokens`].
        def input_tokens: u64,
        /// Output tokens, thinking included.
        def output_tokens: u64,
        /// Input tokens written to the cache.
        opt cache_creation_input_tokens: u64,
        /// Input tokens read from the cache.
        opt cache_read_input_tokens: u64,
        /// The input tokens written to the cache, by lifetime.
        opt cache_creation: CacheCreation,
        /// The output tokens by purpose.
        opt output_tokens_details: OutputTokensDetails,
        /// Requests made by server tools.
        opt server_tool_use: ServerToolUsage,
        /// The service tier: `standard`, `priority` or `batch`.
        opt service_tier: String,
        /// Where the model ran, such as `us` or `global`.
        opt inference_geo: String,
        /// The speed: `standard` or `fast`.
        opt speed: String,
    }
}

wire_struct! {
    /// Input tokens written to the cache, by lifetime.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// if let Some(written) = &message.usage.cache_creation {
    ///     println!("{} tokens stay for an hour", written.ephemeral_1h_input_tokens);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct CacheCreation {
        /// Tokens cached for five minutes.
        def ephemeral_5m_input_tokens: u64,
        /// Tokens cached for one hour.
        def ephemeral_1h_input_tokens: u64,
    }
}

wire_struct! {
    /// Output tokens by purpose.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// let details = message.usage.output_tokens_details.as_ref();
    /// println!("{} tokens of thinking", details.map_or(0, |details| details.thinking_tokens));
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct OutputTokensDetails {
        /// Tokens of thinking; [`Usage::output_tokens`] includes them.
        def thinking_tokens: u64,
    }
}

wire_struct! {
    /// Requests made by server tools.
    ///
    /// ```
    /// # fn show(message: &anthropic_blocking::Message) {
    /// let tools = message.usage.server_tool_use.as_ref();
    /// println!("{} searches", tools.map_or(0, |tools| tools.web_search_requests));
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct ServerToolUsage {
        /// The number of web searches.
        def web_search_requests: u64,
        /// The number of web pages fetched.
        def web_fetch_requests: u64,
    }
}

impl Usage {
    /// Creates the usage of a request without caching.
    pub fn new(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        }
    }

    /// Returns all input tokens: uncached, written to the cache and read from it.
    pub fn total_input_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_creation_input_tokens.unwrap_or(0))
            .saturating_add(self.cache_read_input_tokens.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn total_input_includes_the_cache_and_saturates() {
        let usage: Usage = serde_json::from_value(json!({"input_tokens":1,
            "cache_creation_input_tokens":2,"cache_read_input_tokens":u64::MAX}))
        .unwrap();
        assert_eq!(usage.total_input_tokens(), u64::MAX);
    }
}
