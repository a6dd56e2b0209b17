//! The rate limits that response headers report.

use std::time::{Duration, SystemTime};

/// One group of rate limit headers, such as `anthropic-ratelimit-requests-*`.
///
/// ```
/// # fn show(message: &anthropic_blocking::Message) {
/// if let Some(requests) = message.rate_limits().requests {
///     println!("{:?} of {:?} requests left", requests.remaining, requests.limit);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimit {
    /// The limit per minute.
    pub limit: Option<u64>,
    /// How much of the limit is left. The server rounds token counts to the nearest thousand.
    pub remaining: Option<u64>,
    /// When the limit will be *fully* replenished, by the server's clock; part of it is free long
    /// before.
    pub reset: Option<SystemTime>,
}

/// The rate limits that a response's headers reported. Any group may be missing.
///
/// ```
/// use anthropic_blocking::{Message, RateLimits};
///
/// # fn show(message: &Message) {
/// let RateLimits { input_tokens, output_tokens, .. } = message.rate_limits();
/// println!("input {input_tokens:?}, output {output_tokens:?}");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimits {
    /// Requests.
    pub requests: Option<RateLimit>,
    /// Input tokens.
    pub input_tokens: Option<RateLimit>,
    /// Output tokens.
    pub output_tokens: Option<RateLimit>,
    /// The most restrictive token limit in force, or input and output tokens together.
    pub tokens: Option<RateLimit>,
    /// Input tokens of requests in fast mode.
    pub fast_input_tokens: Option<RateLimit>,
    /// Output tokens of requests in fast mode.
    pub fast_output_tokens: Option<RateLimit>,
    /// How long the server asks to wait (`retry-after`). Many successful responses carry the header
    /// too; there it is no reason to wait.
    pub retry_after: Option<Duration>,
}
