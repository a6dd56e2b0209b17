//! Reads [`RateLimits`] from response headers: the limits and `retry-after`.

use std::time::{Duration, SystemTime};

use super::dates::{parse_date, parse_rfc3339};
use crate::clock::Clock;
use crate::types::{RateLimit, RateLimits};

impl RateLimits {
    /// Reads the headers of a response that other code received, for use with a
    /// [`Budget`](crate::Budget) without a client.
    ///
    /// Names may be in any case. Other headers, and values that cannot be parsed, are ignored. A
    /// `retry-after` that is a date counts from the response's own `date` header, or from the current
    /// time if there is none.
    ///
    /// ```
    /// use anthropic_blocking::RateLimits;
    /// use std::time::Duration;
    ///
    /// let limits = RateLimits::from_headers([
    ///     ("Anthropic-RateLimit-Requests-Limit", "50"),
    ///     ("Anthropic-RateLimit-Requests-Remaining", "0"),
    ///     ("Retry-After", "30"),
    /// ]);
    /// assert_eq!(limits.requests.and_then(|requests| requests.limit), Some(50));
    /// assert_eq!(limits.retry_after, Some(Duration::from_secs(30)));
    /// ```
    pub fn from_headers<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> RateLimits {
        let lower = |(name, value): (&str, &'h str)| (name.to_ascii_lowercase(), value);
        let headers: Vec<_> = headers.into_iter().map(lower).collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), *value));
        read(headers, Clock::System.wall())
    }
}

/// Reads the rate limit headers of a response, whose names must be in lower case. `wall` is the current
/// time, from which a date in `retry-after` counts if the response has no `date` header.
pub(crate) fn read<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    wall: SystemTime,
) -> RateLimits {
    let mut limits = RateLimits::default();
    let (mut retry_after_ms, mut retry_after, mut date) = (None, None, None);
    for (name, value) in headers {
        match name {
            "retry-after-ms" => retry_after_ms = Some(value),
            "retry-after" => retry_after = Some(value),
            "date" => date = Some(value),
            _ => {
                if let Some(name) = name.strip_prefix("anthropic-") {
                    read_limit_header(&mut limits, name, value);
                }
            }
        }
    }
    limits.retry_after = wait_time(retry_after_ms, retry_after, date, wall);
    limits
}

/// Reads a header such as `ratelimit-input-tokens-remaining`, without its prefix `anthropic-`, into
/// the field of its limit.
fn read_limit_header(limits: &mut RateLimits, name: &str, value: &str) {
    let Some((name, part)) = name.rsplit_once('-') else {
        return;
    };
    let group = match name {
        "ratelimit-requests" => &mut limits.requests,
        "ratelimit-input-tokens" => &mut limits.input_tokens,
        "ratelimit-output-tokens" => &mut limits.output_tokens,
        "ratelimit-tokens" => &mut limits.tokens,
        "fast-input-tokens" => &mut limits.fast_input_tokens,
        "fast-output-tokens" => &mut limits.fast_output_tokens,
        _ => return,
    };
    let mut read = group.unwrap_or_default();
    match part {
        "limit" => read.limit = parse_count(value),
        "remaining" => read.remaining = parse_count(value),
        "reset" => read.reset = parse_rfc3339(value),
        _ => return,
    }
    *group = (read != RateLimit::default()).then_some(read);
}

/// Returns how long the server asks the client to wait: `retry-after-ms`, else `retry-after` in
/// seconds, else `retry-after` as a date, which counts from the response's `date` header. A value that
/// is invalid, not positive or in the past is passed over.
fn wait_time(
    retry_after_ms: Option<&str>,
    retry_after: Option<&str>,
    date: Option<&str>,
    wall: SystemTime,
) -> Option<Duration> {
    if let Some(wait) = retry_after_ms.and_then(|text| parse_wait(text, SECONDS_PER_MS)) {
        return Some(wait);
    }
    let text = retry_after?;
    parse_wait(text, 1.0).or_else(|| {
        let then = parse_date(text)?;
        let now = date.and_then(parse_date).unwrap_or(wall);
        let wait = then.duration_since(now).ok()?.min(MAX_RETRY_AFTER);
        (!wait.is_zero()).then_some(wait)
    })
}

const SECONDS_PER_MS: f64 = 1e-3;

/// The longest wait; longer ones are shortened to it, as by the official Python client: 2^32 ms,
/// about 49 days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(4_294_967);

/// Parses a positive number of units, each of which has so many seconds.
fn parse_wait(text: &str, seconds_per_unit: f64) -> Option<Duration> {
    let value = text.trim().parse::<f64>().ok()? * seconds_per_unit;
    if !value.is_finite() || value <= 0.0 {
        return None;
    }
    let wait = Duration::from_secs_f64(value.min(MAX_RETRY_AFTER.as_secs_f64()));
    (!wait.is_zero()).then_some(wait)
}

/// Parses a number of requests or tokens; a fraction is cut off, and a negative number is zero.
fn parse_count(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(value.clamp(0.0, MAX_COUNT) as u64)
    })
}

/// The largest number that is read from a float: it fits into a `u64`.
const MAX_COUNT: f64 = 1e18;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix)
    }

    fn wait(headers: &[(&str, &'static str)]) -> Option<f64> {
        let now = at(1_696_004_797); // 2023-09-29 16:26:37
        let limits = read(headers.iter().copied(), now);
        limits.retry_after.map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn random_text_does_not_panic() {
        let mut rng = fastrand::Rng::with_seed(1);
        let alphabet: Vec<char> = "0123456789:-+TZ ,.SepGMTé\u{661}".chars().collect();
        for _ in 0..20_000 {
            let length = rng.usize(..40);
            let text: String = (0..length)
                .map(|_| *rng.choice(&alphabet).expect("some"))
                .collect();
            let _ = (
                parse_date(&text),
                parse_wait(&text, 1.0),
                parse_count(&text),
            );
        }
    }

    #[test]
    fn milliseconds_come_first_and_garbage_is_ignored() {
        assert_eq!(
            wait(&[("retry-after-ms", "1500.5"), ("retry-after", "20")]),
            Some(1.5005)
        );
        for useless in ["", "abc", "0", "-5", "nan", "inf", "1_000", "1e-300"] {
            assert_eq!(
                wait(&[("retry-after-ms", useless), ("retry-after", "20")]),
                Some(20.0)
            );
            assert_eq!(wait(&[("retry-after", useless)]), None, "{useless}");
        }
    }

    #[test]
    fn retry_date_counts_from_the_date_header() {
        let date = ("retry-after", "Fri, 29 Sep 2023 16:26:57 GMT");
        assert_eq!(wait(&[date]), Some(20.0));
        assert_eq!(
            wait(&[date, ("date", "Fri, 29 Sep 2023 16:26:50 GMT")]),
            Some(7.0)
        );
        assert_eq!(
            wait(&[date, ("date", "Fri, 29 Sep 2023 16:26:57 GMT")]),
            None
        );
    }

    #[test]
    fn limits_are_read_independently() {
        let headers = [
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "-1"),
            (
                "anthropic-ratelimit-input-tokens-reset",
                "2026-06-08T18:45:39Z",
            ),
            ("anthropic-ratelimit-output-tokens-limit", "lots"),
        ];
        let limits = read(headers.into_iter(), at(0));
        let requests = limits.requests.expect("the requests group");
        assert_eq!(
            (requests.limit, requests.remaining, requests.reset),
            (Some(50), Some(0), None)
        );
        assert_eq!(
            limits.input_tokens.expect("input").reset,
            Some(at(1_780_944_339))
        );
        assert_eq!(limits.output_tokens, None);
        assert_eq!(limits.tokens, None);
    }
}
