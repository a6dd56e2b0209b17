//! What refusals teach: the buckets are lower, shared, counted otherwise, or their limits unknown.

use crate::types::Dimension;

use super::super::cost::{Each, OUTPUT, REQUESTS};
use super::super::reading::Reading;
use super::super::trace::Trace;
use super::{Bucket, Mirror};

impl Mirror {
    /// The server refused a request, which has been completed at no cost (5.5). The headers of
    /// the refusal are an upper bound at once.
    pub(crate) fn refused(
        &mut self,
        cost: &Each<f64>,
        dimension: Option<Dimension>,
        reading: &Reading,
    ) {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(remaining) = reading.told[d].remaining.filter(|_| bucket.is_known()) {
                let coming = match d {
                    OUTPUT if !self.reserves_most => bucket.promised / 2.0,
                    _ => 0.0,
                };
                bucket.lower_to(remaining - coming);
            }
        }
        let new_round = self.now >= self.last_round + ROUND;
        if let Some(dimension) = dimension {
            let d = dimension.at();
            let told = reading.told[d].remaining;
            let bucket = &mut self.buckets[d];
            if told.is_none() && bucket.is_known() {
                let wait = reading.retry_after.unwrap_or(1.0);
                bucket.lower_to(cost[d] - wait * bucket.rate());
                if new_round {
                    bucket.suspect();
                }
            }
            if new_round {
                self.refused_for(d, cost[d], told);
            }
        }
        if new_round {
            self.last_round = self.now;
        }
        self.record();
    }

    fn refused_for(&mut self, d: usize, cost: f64, remaining: Option<f64>) {
        let bucket = &mut self.buckets[d];
        if d == REQUESTS {
            if remaining.is_some_and(|remaining| remaining < 1.0) {
                bucket.suspect();
            }
            return;
        }
        bucket.guard = (bucket.guard + 0.01 * bucket.depth + 0.1 * cost).min(0.15 * bucket.depth);
        if d == OUTPUT && remaining.is_some_and(|remaining| remaining > 1_000.0) {
            self.signs += 1;
            if self.signs >= 2 {
                self.switch_charging(true);
            }
        }
    }

    /// Refused, with neither limits nor headers to know why: the limits become a little less than
    /// what was `used` in the last minute, and shrink with each round of refusals (5.5). No limit is
    /// guessed to be lower than the lowest there is: who used less was not refused for that.
    pub(crate) fn guess_limits(&mut self, dimension: Option<Dimension>, used: &Each<u64>) {
        if self.now < self.last_round + ROUND && self.buckets.iter().any(|b| b.guessed) {
            return;
        }
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if dimension.is_some_and(|dimension| dimension.at() != d) {
                continue;
            }
            let used = used[d] as f64;
            if bucket.guessed {
                let limit = (bucket.limit * BACK_OFF).max(LOWEST[d]);
                bucket.set_limit(limit, GUESSED_DEPTH);
            } else if !bucket.is_known() && used * BACK_OFF > LOWEST[d] {
                bucket.guessed = true;
                bucket.set_limit(used * BACK_OFF, GUESSED_DEPTH);
                bucket.free = 0.0;
            }
        }
        self.last_round = self.now;
        self.trace = Trace::new();
        self.record();
    }

    /// The text of a refusal named a limit: that counts where no header told one.
    pub(crate) fn told_limit(&mut self, dimension: Dimension, limit: f64) {
        let bucket = &mut self.buckets[dimension.at()];
        if !bucket.is_known() || bucket.guessed {
            bucket.guessed = false;
            bucket.set_limit(limit, 1.0);
            self.trace = Trace::new();
            self.record();
        }
    }

    /// Whether a refusal for requests came although some remain: the server counts them over less
    /// than a minute. True once per round; ask after [`refused`](Mirror::refused).
    pub(crate) fn is_tight(&self, reading: &Reading) -> bool {
        let left = reading.told[REQUESTS].remaining;
        self.last_round == self.now && left.is_some_and(|left| left >= 1.0)
    }

    /// Whether the limit of a dimension, or of all, is unknown or a guess.
    pub(crate) fn guesses(&self, dimension: Option<Dimension>) -> bool {
        let guesses = |bucket: &Bucket| !bucket.is_known() || bucket.guessed;
        match dimension {
            Some(dimension) => guesses(&self.buckets[dimension.at()]),
            None => self.buckets.iter().all(guesses),
        }
    }
}

/// Refusals within so many seconds are one round (5.5).
const ROUND: f64 = 2.0;

/// A guessed limit, of what was used when refused; and each time it proves too high.
const BACK_OFF: f64 = 0.85;

/// The lowest limits of any tier and model, per minute: requests, input tokens, output tokens.
const LOWEST: Each<f64> = [5.0, 10_000.0, 2_000.0];

/// A guessed bucket holds 15 s worth.
const GUESSED_DEPTH: f64 = 0.25;
