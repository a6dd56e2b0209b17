//! The rate limits that response headers report.

use std::time::{Duration, SystemTime};

/// One group of rate limit headers.
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
    /// The most per minute.
    pub limit: Option<u64>,
    /// What is left; token counts are rounded to the nearest thousand by the server.
    pub remaining: Option<u64>,
    /// When the bucket will be *full* again, by the server's clock; there is room long before.
    pub reset: Option<SystemTime>,
}

/// What the response headers said about rate limits. Any group may be missing.
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
    /// The most restrictive token limit in force, or input and output together.
    pub tokens: Option<RateLimit>,
    /// Input tokens of requests in fast mode.
    pub fast_input_tokens: Option<RateLimit>,
    /// Output tokens of requests in fast mode.
    pub fast_output_tokens: Option<RateLimit>,
    /// How long the server asks to wait. It stands on many successful answers too, where it is no
    /// reason to wait.
    pub retry_after: Option<Duration>,
}
