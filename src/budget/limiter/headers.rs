//! What the headers and the error of a response say about the server's buckets.

use crate::types::{ApiError, Dimension, RateLimit, RateLimits};

use crate::budget::class::ModelClass;
use crate::budget::cost::{INPUT, PerDimension};

/// The rate-limit headers of one response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct LimitHeaders {
    pub(crate) values: PerDimension<HeaderValues>,
    /// The `retry-after` of a refusal, in seconds.
    pub(crate) retry_after: Option<f64>,
}

/// The headers of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct HeaderValues {
    pub(crate) limit: Option<f64>,
    pub(crate) remaining: Option<f64>,
}

impl LimitHeaders {
    /// Selects the headers of a class; fast mode has buckets of its own.
    pub(crate) fn of_class(class: &ModelClass, limits: &RateLimits) -> LimitHeaders {
        if !class.is_fast() {
            return LimitHeaders::of(limits);
        }
        LimitHeaders::of(&RateLimits {
            requests: limits.requests,
            input_tokens: limits.fast_input_tokens,
            output_tokens: limits.fast_output_tokens,
            retry_after: limits.retry_after,
            ..RateLimits::default()
        })
    }

    /// Converts the headers; `tokens` stands in for input where neither input nor output is given.
    pub(crate) fn of(limits: &RateLimits) -> LimitHeaders {
        let values = |group: &Option<RateLimit>| HeaderValues {
            limit: group
                .and_then(|group| group.limit)
                .map(|limit| limit as f64),
            remaining: group
                .and_then(|group| group.remaining)
                .map(|remaining| remaining as f64),
        };
        let mut headers = LimitHeaders {
            values: [
                values(&limits.requests),
                values(&limits.input_tokens),
                values(&limits.output_tokens),
            ],
            retry_after: limits.retry_after.map(|wait| wait.as_secs_f64()),
        };
        if limits.input_tokens.is_none() && limits.output_tokens.is_none() {
            headers.values[INPUT] = values(&limits.tokens);
        }
        headers
    }

    /// Returns whether no header tells anything about a bucket.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.values == [HeaderValues::default(); 3]
    }
}

/// Why the server refused a request with a 429 that succeeds after a pause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Refusal {
    /// A bucket is empty: its dimension, and its limit per minute, where the text names them.
    Limit(Option<Dimension>, Option<f64>),
    /// Use grew too fast (an acceleration limit).
    Growth,
    /// Too many requests are in flight.
    Concurrency,
    /// The error gives no reason.
    Unexplained,
}

impl Refusal {
    /// Classifies the error of a 429 by its code and text.
    pub(crate) fn of(error: &ApiError) -> Refusal {
        let text = error.message.to_ascii_lowercase();
        let says = |word: &str| text.contains(word);
        if error.error_code() == Some("ramp_limit_exceeded") || says("acceleration") {
            return Refusal::Growth;
        }
        if says("concurrent") {
            return Refusal::Concurrency;
        }
        for (words, dimension) in [
            ("requests per minute", Dimension::Requests),
            ("input tokens per minute", Dimension::InputTokens),
            ("output tokens per minute", Dimension::OutputTokens),
        ] {
            if let Some((before, _)) = text.split_once(words) {
                return Refusal::Limit(Some(dimension), last_number(before));
            }
        }
        if says("per minute") || says("per-minute") {
            return Refusal::Limit(None, None);
        }
        if says("usage increase") || says("increase in usage") {
            return Refusal::Growth;
        }
        Refusal::Unexplained
    }
}

/// Returns the number at the end of a text, such as `… rate limit of 30,000 `.
fn last_number(text: &str) -> Option<f64> {
    let word = text.trim_end().rsplit(' ').next()?;
    let digits: String = word.chars().filter(|c| *c != ',').collect();
    let number = digits.parse::<u64>().ok()?;
    (number > 0).then_some(number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn refusal(message: &str, code: Option<&str>) -> Refusal {
        let details = code.map(|code| json!({"error_code": code}));
        let error = json!({"type": "rate_limit_error", "message": message, "details": details});
        Refusal::of(&serde_json::from_value(error).expect("an error object"))
    }

    #[test]
    fn refusal_names_its_cause() {
        use Dimension::*;
        for (message, code, expected) in [
            (
                "This request would exceed your organization's rate limit of 30,000 input tokens \
                 per minute (org: 1, model: claude-x)",
                None,
                Refusal::Limit(Some(InputTokens), Some(30_000.0)),
            ),
            (
                "This request would exceed the rate limit of 8,000 output tokens per minute.",
                None,
                Refusal::Limit(Some(OutputTokens), Some(8_000.0)),
            ),
            (
                "Number of requests per minute has exceeded your limit",
                None,
                Refusal::Limit(Some(Requests), None),
            ),
            (
                "Number of concurrent connections has exceeded your rate limit.",
                None,
                Refusal::Concurrency,
            ),
            ("slow down", Some("ramp_limit_exceeded"), Refusal::Growth),
            (
                "This request would exceed your acceleration limit",
                None,
                Refusal::Growth,
            ),
            ("", None, Refusal::Unexplained),
        ] {
            assert_eq!(refusal(message, code), expected, "{message}");
        }
    }

    #[test]
    fn tokens_header_stands_in_for_input_only() {
        let group = |limit| RateLimit {
            limit: Some(limit),
            remaining: Some(7),
            ..RateLimit::default()
        };
        let mut limits = RateLimits {
            tokens: Some(group(100)),
            ..RateLimits::default()
        };
        assert_eq!(LimitHeaders::of(&limits).values[INPUT].limit, Some(100.0));
        limits.output_tokens = Some(group(50));
        assert_eq!(
            LimitHeaders::of(&limits).values[INPUT],
            HeaderValues::default()
        );
        limits.fast_input_tokens = Some(group(30));
        let fast = ModelClass::of("claude-opus-5").fast();
        assert_eq!(
            LimitHeaders::of_class(&fast, &limits).values[INPUT].limit,
            Some(30.0)
        );
        assert!(LimitHeaders::of(&RateLimits::default()).is_empty());
    }
}
