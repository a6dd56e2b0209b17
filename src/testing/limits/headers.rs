//! The rate limit headers of the limit mode.

use super::buckets::{BucketLevel, BucketLevels};
use super::settings::{HeaderMode, INPUT, OUTPUT, REQUESTS};
use crate::testing::dates::rfc3339;

/// Returns the headers of the groups that the mode sends and `is_shown` selects; `now` is the time
/// in seconds since 1970.
pub(super) fn rate_limit_headers(
    levels: &BucketLevels,
    mode: HeaderMode,
    now: f64,
    is_shown: impl Fn(usize) -> bool,
) -> Vec<(&'static str, String)> {
    // The API's order.
    let sent: &[usize] = match mode {
        HeaderMode::All => &[INPUT, OUTPUT, REQUESTS, TOKENS],
        HeaderMode::None => &[],
    };
    let shown = sent.iter().filter(|index| is_shown(**index));
    let group = |limit: usize| HeaderGroup::of(limit, &levels[limit]);
    let headers = shown.flat_map(|&index| {
        let shown = match index {
            TOKENS => group(INPUT).and(&group(OUTPUT)),
            _ => group(index),
        };
        let [limit, remaining, reset] = NAMES[index];
        let full_at = (now + shown.full_in).ceil() as u64;
        [
            (limit, shown.limit.to_string()),
            (remaining, shown.remaining.to_string()),
            (reset, rfc3339(full_at)),
        ]
    });
    headers.collect()
}

/// A group of headers before it is written.
struct HeaderGroup {
    limit: u64,
    remaining: u64,
    full_in: f64,
}

impl HeaderGroup {
    fn of(limit: usize, level: &BucketLevel) -> HeaderGroup {
        let remaining = match limit {
            REQUESTS => (level.remaining + ROUNDING_ERROR).floor(),
            // As the API rounds.
            _ => (level.remaining / 1e3).round() * 1e3,
        };
        HeaderGroup {
            limit: level.limit,
            remaining: (remaining as u64).min(level.limit),
            full_in: level.full_in.min(LONGEST_RESET),
        }
    }

    /// The combined group, with the earlier reset, as recorded.
    fn and(&self, other: &HeaderGroup) -> HeaderGroup {
        HeaderGroup {
            limit: self.limit.saturating_add(other.limit),
            remaining: self.remaining.saturating_add(other.remaining),
            full_in: self.full_in.min(other.full_in),
        }
    }
}

/// The combined group of tokens, after those of the three dimensions.
const TOKENS: usize = 3;

/// The longest time to a reset, in seconds: a year, so that an empty limit has a valid date.
const LONGEST_RESET: f64 = 31_536_000.0;

/// By how much a level may be wrong: a full bucket must not show one request less.
const ROUNDING_ERROR: f64 = 1e-6;

/// For each group: limit, remaining, reset.
#[rustfmt::skip]
const NAMES: [[&str; 3]; 4] = [
    ["anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"],
    ["anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"],
    ["anthropic-ratelimit-output-tokens-limit", "anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"],
    ["anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_groups_are_written_as_recorded() {
        let level = |limit, remaining, full_in| BucketLevel {
            limit,
            remaining,
            full_in,
        };
        let levels = [
            level(50, 49.9999999, 0.3),
            level(450_000, 123_500.0, 43.2),
            level(8_000, 7_499.9, 4.0),
        ];
        let now = 1_795_428_245.5;
        let text = |mode, is_shown: fn(usize) -> bool| -> String {
            let lines = rate_limit_headers(&levels, mode, now, is_shown).into_iter();
            let line = |(name, value): (&str, String)| {
                format!(
                    "{}: {value}\n",
                    name.trim_start_matches("anthropic-ratelimit-")
                )
            };
            lines.map(line).collect()
        };
        let expected = "input-tokens-limit: 450000\n\
             input-tokens-remaining: 124000\n\
             input-tokens-reset: 2026-11-23T10:04:49Z\n\
             output-tokens-limit: 8000\n\
             output-tokens-remaining: 7000\n\
             output-tokens-reset: 2026-11-23T10:04:10Z\n\
             requests-limit: 50\n\
             requests-remaining: 50\n\
             requests-reset: 2026-11-23T10:04:06Z\n\
             tokens-limit: 458000\n\
             tokens-remaining: 131000\n\
             tokens-reset: 2026-11-23T10:04:10Z\n";
        assert_eq!(text(HeaderMode::All, |_| true), expected);
        let only = text(HeaderMode::All, |index| index == REQUESTS);
        assert!(only.contains("requests-limit"), "{only}");
        assert_eq!(only.lines().count(), 3);
        assert_eq!(text(HeaderMode::None, |_| true), "");
    }
}
