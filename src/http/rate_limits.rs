//! Response headers read into [`RateLimits`]: limits, `retry-after`, and the dates in them.

use std::time::{Duration, SystemTime};

pub(crate) use super::dates::parse_date as date;
use super::dates::parse_rfc3339;
use crate::clock::Clock;
use crate::types::{RateLimit, RateLimits};

impl RateLimits {
    /// Reads the headers of an answer that other code received, for a [`Budget`](crate::Budget) by
    /// itself.
    ///
    /// Names may be in any case; other headers, and values that cannot be read, are ignored. Where
    /// `retry-after` is a date, it counts from the answer's own `date`, or from the time of day.
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

/// Reads the rate limit headers of an answer, names in lower case; `wall` is the local time of day,
/// for dates where the answer has no `date` of its own.
pub(crate) fn read<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    wall: SystemTime,
) -> RateLimits {
    let mut limits = RateLimits::default();
    let (mut retry_after_ms, mut after, mut now) = (None, None, None);
    for (name, value) in headers {
        match name {
            "retry-after-ms" => retry_after_ms = Some(value),
            "retry-after" => after = Some(value),
            "date" => now = Some(value),
            _ => {
                if let Some(name) = name.strip_prefix("anthropic-") {
                    read_limit_header(&mut limits, name, value);
                }
            }
        }
    }
    limits.retry_after = retry_after(retry_after_ms, after, now, wall);
    limits
}

/// Reads a header such as `ratelimit-input-tokens-remaining` into its group.
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

/// How long the server asks to wait: `retry-after-ms`, then `retry-after` as seconds, then as a
/// date, counted from the answer's own `date` where it has one. What is garbage, not positive or
/// past falls through to the next.
fn retry_after(
    retry_after_ms: Option<&str>,
    after: Option<&str>,
    now: Option<&str>,
    wall: SystemTime,
) -> Option<Duration> {
    if let Some(wait) = retry_after_ms.and_then(|text| parse_wait(text, 1e-3)) {
        return Some(wait);
    }
    let text = after?;
    parse_wait(text, 1.0).or_else(|| {
        let then = date(text)?;
        let now = now.and_then(date).unwrap_or(wall);
        let wait = then.duration_since(now).ok()?.min(MAX_RETRY_AFTER);
        (!wait.is_zero()).then_some(wait)
    })
}

/// What the official Python client cuts a longer `retry-after` to: 2^32 ms, about 49 days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(4_294_967);

fn parse_wait(text: &str, unit: f64) -> Option<Duration> {
    let value = text.trim().parse::<f64>().ok()? * unit;
    if !value.is_finite() || value <= 0.0 {
        return None;
    }
    let wait = Duration::from_secs_f64(value.min(MAX_RETRY_AFTER.as_secs_f64()));
    (!wait.is_zero()).then_some(wait)
}

fn parse_count(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(value.clamp(0.0, 1e18) as u64)
    })
}

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
    fn random_text_is_survived() {
        let mut rng = fastrand::Rng::with_seed(1);
        let alphabet: Vec<char> = "0123456789:-+TZ ,.SepGMTé\u{661}".chars().collect();
        for _ in 0..20_000 {
            let length = rng.usize(..40);
            let text: String = (0..length)
                .map(|_| *rng.choice(&alphabet).expect("some"))
                .collect();
            let _ = (date(&text), parse_wait(&text, 1.0), parse_count(&text));
        }
    }

    #[test]
    fn milliseconds_go_first_and_garbage_falls_through() {
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
    fn a_date_is_counted_from_the_answers_own_clock() {
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
    fn groups_are_read_each_on_its_own() {
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
