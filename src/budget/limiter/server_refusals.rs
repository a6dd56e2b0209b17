//! How a refusal corrects the model of the server's buckets: a lower level, use by other clients,
//! another way of charging, or guessed limits where no header states them.

use crate::types::Dimension;

use super::headers::LimitHeaders;
use super::level_history::LevelHistory;
use super::server_buckets::{
    ExpectedCharge, FULL_MINUTE, MAX_OUTPUT, OutputCharging, ServerBuckets, dimension_of,
};
use super::token_bucket::{MAX_REFUSAL_MARGIN, TOKENS_ROUNDING, TokenBucket};
use crate::budget::cost::{OUTPUT, PerDimension, REQUESTS};

impl ServerBuckets {
    /// Corrects the model after a refusal, whose request has been settled at no cost. The headers of
    /// the refusal are an upper bound of the levels. `dimension` is the limit that the refusal names.
    ///
    /// Returns true if the server refused for the limit of requests although some remain: the server
    /// then counts requests over an interval shorter than a minute. Only the first refusal of a round
    /// returns true.
    pub(crate) fn learn_from_refusal(
        &mut self,
        charge: &ExpectedCharge,
        dimension: Option<Dimension>,
        headers: &LimitHeaders,
    ) -> bool {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let remaining = headers.values[dimension_of(d)].remaining;
            if let Some(remaining) = remaining.filter(|_| bucket.is_known()) {
                let not_yet_charged = match d {
                    OUTPUT => OUTPUT_TO_COME * bucket.reserved,
                    _ => 0.0,
                };
                bucket.lower_to(remaining - not_yet_charged);
            }
        }
        let is_new_round = self.now >= self.last_refusal_round + REFUSAL_ROUND;
        if let Some(dimension) = dimension {
            let remaining = headers.values[dimension.index()].remaining;
            if dimension == Dimension::OutputTokens && self.charging == OutputCharging::AsProduced {
                // Where output is charged as it is produced, one token is enough to begin.
                let is_proof = |left: f64| {
                    left > MIN_LEFT_AS_PROOF && left - TOKENS_ROUNDING < charge.cost[MAX_OUTPUT]
                };
                if remaining.is_some_and(is_proof) {
                    self.set_charging(OutputCharging::MaxTokens);
                }
            }
            let d = self.bucket_of(dimension.index());
            let bucket = &mut self.buckets[d];
            if remaining.is_none() && bucket.is_known() {
                let wait = headers.retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
                // After the wait the refill has made room for the request.
                bucket.lower_to(charge.cost[d] - wait * bucket.rate());
                if is_new_round {
                    bucket.suspect_foreign_use();
                }
            }
            if is_new_round {
                self.react_to_round(d, remaining);
            }
        }
        if is_new_round {
            self.last_refusal_round = self.now;
        }
        self.record_levels();
        let has_requests_left = headers.values[REQUESTS]
            .remaining
            .is_some_and(|left| left >= ONE_REQUEST);
        is_new_round && has_requests_left && dimension == Some(Dimension::Requests)
    }

    /// Reacts to a new round of refusals: raises the margin of a bucket of tokens, and assumes use by
    /// other clients of a bucket of requests that is empty.
    fn react_to_round(&mut self, d: usize, remaining: Option<f64>) {
        let bucket = &mut self.buckets[d];
        if d == REQUESTS {
            if remaining.is_some_and(|remaining| remaining < ONE_REQUEST) {
                bucket.suspect_foreign_use();
            }
            return;
        }
        let margin = bucket.refusal_margin + REFUSAL_MARGIN_STEP * bucket.capacity;
        bucket.refusal_margin = margin.min(MAX_REFUSAL_MARGIN * bucket.capacity);
    }

    /// Guesses limits from what was `used` in the last minute, after a refusal that neither headers
    /// nor text explain. The history of levels starts anew, because the levels were unknown.
    ///
    /// Each further round of refusals lowers a guess; a guess above twice the use is first lowered to
    /// twice the use. No guess is below the lowest limit of any tier: a lower use cannot be the cause
    /// of the refusal.
    pub(crate) fn guess_limits(&mut self, dimension: Option<Dimension>, used: &PerDimension<u64>) {
        let has_guess = self.buckets.iter().any(|bucket| bucket.is_guess);
        if self.now < self.last_refusal_round + REFUSAL_ROUND && has_guess {
            return;
        }
        for (index, bucket) in self.buckets.iter_mut().enumerate() {
            let d = dimension_of(index);
            if dimension.is_some_and(|dimension| dimension.index() != d) {
                continue;
            }
            let used = used[d] as f64;
            if bucket.is_guess {
                let limit = bucket.limit.min(MAX_GUESS_OF_USE * used) * GUESS_OF_USE;
                bucket.set_limit(limit.max(LOWEST_LIMITS[d]), GUESSED_MINUTES);
            } else if !bucket.is_known() && used * GUESS_OF_USE > LOWEST_LIMITS[d] {
                bucket.is_guess = true;
                bucket.set_limit(used * GUESS_OF_USE, GUESSED_MINUTES);
                bucket.available = 0.0;
            }
        }
        self.last_refusal_round = self.now;
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// Sets a limit that the text of a refusal states, unless a header has stated the limit.
    pub(crate) fn set_stated_limit(&mut self, dimension: Dimension, limit: f64) {
        if !self.is_limit_unknown(Some(dimension)) {
            return;
        }
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if dimension_of(d) == dimension.index() {
                bucket.is_guess = false;
                bucket.set_limit(limit, FULL_MINUTE);
            }
        }
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// Returns whether the limit of a dimension, or every limit, is unknown or a guess.
    pub(crate) fn is_limit_unknown(&self, dimension: Option<Dimension>) -> bool {
        let is_unknown = |bucket: &TokenBucket| !bucket.is_known() || bucket.is_guess;
        match dimension {
            Some(dimension) => is_unknown(&self.buckets[dimension.index()]),
            None => self.buckets.iter().all(is_unknown),
        }
    }
}

/// Refusals within this many seconds are one round: their requests were sent before the first
/// refusal was known.
///
/// Moves (3 seeds), doubled: `unknown, no headers` 429s 67.0 → 82.0; `mute, input` 429s 65.7 →
/// 75.7; 1 more.
const REFUSAL_ROUND: f64 = 2.0;

/// A `remaining` of requests below this is an empty bucket.
const ONE_REQUEST: f64 = 1.0;

/// Share of the reserved output that the server has not produced yet when it refuses.
///
/// Moves no row: no refusal of the scenarios finds the level that wrong.
const OUTPUT_TO_COME: f64 = 0.5;

/// Tokens that must remain at a refusal for output to prove that `max_tokens` is charged: above the
/// rounding of the header.
///
/// Moves no row: refusals of the scenarios for output leave nothing, or much.
const MIN_LEFT_AS_PROOF: f64 = 1_000.0;

/// Wait in seconds that is taken for a missing `retry-after`.
///
/// Moves no row: all refusals of the scenarios have a `retry-after`.
const DEFAULT_RETRY_AFTER: f64 = 1.0;

/// Margin that each round of refusals adds, as a share of the capacity.
///
/// Moves no row between the half and the double. At 0: `30% tenant, no headers` 429s 98.4 → 105.4.
const REFUSAL_MARGIN_STEP: f64 = 0.01;

/// A guessed limit as a share of the use when the server refused, and its factor for each further
/// round of refusals.
///
/// Moves (3 seeds), at 0.68: `mute, requests` 429s 80.7 → 34.7; `unknown, no headers` 429s 67.0
/// → 27.0; 1 more. At 0.95: `unknown, no headers` 429s 67.0 → 220.0; `mute, requests` 429s 80.7
/// → 247.0; 1 more.
const GUESS_OF_USE: f64 = 0.85;

/// Upper bound of a guessed limit in multiples of the use when the server refuses again.
///
/// Moves (3 seeds), halved: `mute, input` 429s 65.7 → 40.7; `mute, requests` 429s 80.7 → 53.7;
/// 1 more.
const MAX_GUESS_OF_USE: f64 = 2.0;

/// Capacity of a guessed bucket in minutes of its limit.
///
/// Moves no row: flat between the half and the double.
const GUESSED_MINUTES: f64 = 0.25;

/// The lowest limits of any tier and model per minute: requests, input tokens, output tokens.
///
/// Moves no row: the limits of the scenarios are far above.
const LOWEST_LIMITS: PerDimension<f64> = [5.0, 10_000.0, 2_000.0];
