//! The rate limit headers of the limit mode.

use super::buckets::{Group, Standing};
use super::settings::{HeaderMode, INPUT, OUTPUT, REQUESTS};
use crate::testing::dates::rfc3339;

/// The headers of the groups that are sent and shown; `day` is the time in seconds since 1970.
pub(super) fn groups(
    standing: &Standing,
    mode: HeaderMode,
    day: f64,
    is_shown: impl Fn(usize) -> bool,
) -> Vec<(&'static str, String)> {
    // The API's order.
    let sent: &[usize] = match mode {
        HeaderMode::All => &[INPUT, OUTPUT, REQUESTS, TOKENS],
        HeaderMode::None => &[],
    };
    let shown = sent.iter().filter(|index| is_shown(**index));
    let group = |dimension: usize| Shown::of(dimension, &standing[dimension]);
    let headers = shown.flat_map(|&index| {
        let shown = match index {
            TOKENS => group(INPUT).and(&group(OUTPUT)),
            _ => group(index),
        };
        let [limit, remaining, reset] = NAMES[index];
        let full_at = (day + shown.full_in).ceil() as u64;
        [
            (limit, shown.limit.to_string()),
            (remaining, shown.remaining.to_string()),
            (reset, rfc3339(full_at)),
        ]
    });
    headers.collect()
}

/// A group of headers before it is written.
struct Shown {
    limit: u64,
    remaining: u64,
    full_in: f64,
}

impl Shown {
    fn of(dimension: usize, group: &Group) -> Shown {
        let remaining = match dimension {
            REQUESTS => (group.left + 1e-6).floor(),
            _ => (group.left / 1e3).round() * 1e3,
        };
        Shown {
            limit: group.limit,
            remaining: (remaining as u64).min(group.limit),
            full_in: group.full_in.min(LONGEST),
        }
    }

    /// The combined group, with the earlier reset, as recorded.
    fn and(&self, other: &Shown) -> Shown {
        Shown {
            limit: self.limit.saturating_add(other.limit),
            remaining: self.remaining.saturating_add(other.remaining),
            full_in: self.full_in.min(other.full_in),
        }
    }
}

/// The combined group of tokens, after those of the three dimensions.
const TOKENS: usize = 3;

/// The longest time to a reset, in seconds: a year.
const LONGEST: f64 = 31_536_000.0;

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
    fn groups_are_written_as_recorded() {
        let group = |limit, left, full_in| Group {
            limit,
            left,
            full_in,
        };
        let standing = [
            group(50, 49.9999999, 0.3),
            group(450_000, 123_500.0, 43.2),
            group(8_000, 7_499.9, 4.0),
        ];
        let day = 1_795_428_245.5;
        let text = |mode, is_shown: fn(usize) -> bool| -> String {
            let lines = groups(&standing, mode, day, is_shown).into_iter();
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
