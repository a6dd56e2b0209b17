//! What refusals teach: the buckets are lower, shared, counted otherwise, or their limits unknown.

use crate::types::Dimension;

use super::headers::LimitHeaders;
use super::level_history::LevelHistory;
use super::server_buckets::{ExpectedCharge, MAX_OUTPUT, ServerBuckets, dimension_of};
use super::token_bucket::{MAX_REFUSAL_MARGIN, TOKENS_ROUNDING, TokenBucket};
use crate::budget::cost::{Each, OUTPUT, REQUESTS};

impl ServerBuckets {
    /// The server refused a request, which has been completed at no cost. The headers of
    /// the refusal are an upper bound at once. Returns whether it was for requests although some
    /// remain, and so shows that the server counts them over less than a minute: once per round.
    pub(crate) fn learn_from_refusal(
        &mut self,
        charge: &ExpectedCharge,
        dimension: Option<Dimension>,
        headers: &LimitHeaders,
    ) -> bool {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(remaining) = headers.values[dimension_of(d)]
                .remaining
                .filter(|_| bucket.is_known())
            {
                let coming = if d == OUTPUT {
                    OUTPUT_TO_COME * bucket.reserved
                } else {
                    0.0
                };
                bucket.lower_to(remaining - coming);
            }
        }
        let new_round = self.now >= self.last_refusal_round + REFUSAL_ROUND;
        if let Some(dimension) = dimension {
            let told = headers.values[dimension.at()].remaining;
            if dimension == Dimension::OutputTokens && !self.reserves_most {
                // Output that is charged as it is produced needs one token to begin.
                let is_proof = |left: f64| {
                    left > MIN_LEFT_AS_PROOF && left - TOKENS_ROUNDING < charge.cost[MAX_OUTPUT]
                };
                if told.is_some_and(is_proof) {
                    self.set_charging(true);
                }
            }
            let d = self.bucket_of(dimension.at());
            let bucket = &mut self.buckets[d];
            if told.is_none() && bucket.is_known() {
                let wait = headers.retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
                bucket.lower_to(charge.cost[d] - wait * bucket.rate());
                if new_round {
                    bucket.suspect_foreign_use();
                }
            }
            if new_round {
                self.raise_refusal_margin(d, charge.cost[d], told);
            }
        }
        if new_round {
            self.last_refusal_round = self.now;
        }
        self.record_levels();
        let left = headers.values[REQUESTS].remaining;
        let is_odd = left.is_some_and(|left| left >= 1.0);
        new_round && is_odd && dimension == Some(Dimension::Requests)
    }

    fn raise_refusal_margin(&mut self, d: usize, cost: f64, remaining: Option<f64>) {
        let bucket = &mut self.buckets[d];
        if d == REQUESTS {
            if remaining.is_some_and(|remaining| remaining < 1.0) {
                bucket.suspect_foreign_use();
            }
            return;
        }
        bucket.refusal_margin = (bucket.refusal_margin
            + REFUSAL_MARGIN_STEP * bucket.capacity
            + REFUSAL_MARGIN_OF_COST * cost)
            .min(MAX_REFUSAL_MARGIN * bucket.capacity);
    }

    /// Refused, with neither limits nor headers to know why: the limits become a little less than
    /// what was `used` in the last minute, and shrink with each round of refusals; however far they
    /// grew meanwhile, from no more than twice the use. No limit is guessed to be lower than the
    /// lowest there is: who used less was not refused for that.
    pub(crate) fn guess_limits(&mut self, dimension: Option<Dimension>, used: &Each<u64>) {
        if self.now < self.last_refusal_round + REFUSAL_ROUND
            && self.buckets.iter().any(|b| b.is_guess)
        {
            return;
        }
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let told = dimension_of(d);
            if dimension.is_some_and(|dimension| dimension.at() != told) {
                continue;
            }
            let used = used[told] as f64;
            if bucket.is_guess {
                let limit = bucket.limit.min(MAX_GUESS_OF_USE * used) * GUESS_OF_USE;
                bucket.set_limit(limit.max(LOWEST_LIMITS[told]), GUESSED_MINUTES);
            } else if !bucket.is_known() && used * GUESS_OF_USE > LOWEST_LIMITS[told] {
                bucket.is_guess = true;
                bucket.set_limit(used * GUESS_OF_USE, GUESSED_MINUTES);
                bucket.available = 0.0;
            }
        }
        self.last_refusal_round = self.now;
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// The text of a refusal named a limit: that counts where no header told one.
    pub(crate) fn set_stated_limit(&mut self, dimension: Dimension, limit: f64) {
        if !self.is_limit_unknown(Some(dimension)) {
            return;
        }
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if dimension_of(d) == dimension.at() {
                bucket.is_guess = false;
                bucket.set_limit(limit, 1.0);
            }
        }
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// Whether the limit of a dimension, or of all, is unknown or a guess.
    pub(crate) fn is_limit_unknown(&self, dimension: Option<Dimension>) -> bool {
        let is_limit_unknown = |bucket: &TokenBucket| !bucket.is_known() || bucket.is_guess;
        match dimension {
            Some(dimension) => is_limit_unknown(&self.buckets[dimension.at()]),
            None => self.buckets.iter().all(is_limit_unknown),
        }
    }
}

const OUTPUT_TO_COME: f64 = 0.5;
const MIN_LEFT_AS_PROOF: f64 = 1_000.0;
const DEFAULT_RETRY_AFTER: f64 = 1.0;
const REFUSAL_MARGIN_STEP: f64 = 0.01;
const REFUSAL_MARGIN_OF_COST: f64 = 0.1;
const MAX_GUESS_OF_USE: f64 = 2.0;

/// Refusals within so many seconds are one round.
const REFUSAL_ROUND: f64 = 2.0;

/// A guessed limit, of what was used when refused; and each time it proves too high.
const GUESS_OF_USE: f64 = 0.85;

/// The lowest limits of any tier and model, per minute: requests, input tokens, output tokens.
const LOWEST_LIMITS: Each<f64> = [5.0, 10_000.0, 2_000.0];

/// A guessed bucket holds 15 s worth.
const GUESSED_MINUTES: f64 = 0.25;
