//! One of the server's token buckets: its arithmetic, and what headers teach about it.

use super::math::exp;
use crate::budget::cost::{REQUESTS, Time, greater, lesser};

/// One of the server's buckets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenBucket {
    /// Per minute; 0 while unknown.
    pub(crate) limit: f64,
    /// How much it holds when full.
    pub(crate) capacity: f64,
    /// Free to promise.
    pub(crate) available: f64,
    /// Expected cost of the requests in flight.
    pub(crate) reserved: f64,
    /// The part of it that the server may not have charged yet.
    pub(crate) uncharged: f64,
    /// The sum of the variances of the requests in flight.
    pub(crate) variance: f64,
    /// Use by others, per second.
    pub(crate) foreign_rate: f64,
    /// By how much headers surprise, on average.
    pub(crate) noise: f64,
    /// An extra margin after refusals; it decays.
    pub(crate) refusal_margin: f64,
    /// The largest `remaining` that was seen.
    pub(crate) highest_remaining: f64,
    /// When headers last told what remains.
    pub(crate) last_header: Time,
    /// What corrections by headers came to so far.
    pub(crate) corrections: f64,
    /// What this client used so far.
    pub(crate) total_used: f64,
    /// The limit is a guess after refusals without headers, and grows.
    pub(crate) is_guess: bool,
}

impl TokenBucket {
    pub(crate) fn view(&self) -> Option<BucketView> {
        self.is_known().then_some(BucketView {
            limit: self.limit,
            available: self.available,
            foreign_per_minute: self.foreign_rate * MINUTE,
        })
    }

    pub(crate) fn is_known(&self) -> bool {
        self.limit > 0.0
    }

    /// A measure of what there is to forget: neither is ever negative.
    pub(crate) fn remembered(&self) -> f64 {
        self.foreign_rate + self.noise
    }

    /// Whether time alone changes its margins or its depth to speak of.
    pub(crate) fn is_margin_decaying(&self) -> bool {
        self.is_guess
            || self.foreign_rate > MIN_FOREIGN_USE * self.rate()
            || self.noise > MIN_NOISE * self.capacity
    }

    pub(crate) fn rate(&self) -> f64 {
        self.limit / MINUTE
    }

    /// Refills for the time that passed, over which the share `kept` of foreign use is remembered.
    pub(crate) fn refill(&mut self, passed: f64, decay: f64) {
        if !self.is_known() {
            return;
        }
        if self.is_guess && self.limit < HIGHEST_GUESS {
            let grown = exp(passed * GUESS_GROWTH).min(HIGHEST_GUESS / self.limit);
            (self.limit, self.capacity) = (self.limit * grown, self.capacity * grown);
        }
        let taken = self.foreign_rate * FOREIGN_USE_MEMORY * (1.0 - decay);
        self.foreign_rate *= decay;
        self.noise *= decay;
        let level = self.available + self.uncharged;
        let refilled = level + self.rate() * passed - taken;
        self.available += lesser(refilled, greater(self.capacity, level)) - level;
    }

    /// How long it takes to refill by `tokens`: foreign use is forgotten meanwhile. Never too long.
    pub(crate) fn time_to_refill(&self, tokens: f64) -> f64 {
        let mut time = tokens / self.rate();
        for _ in 0..REFILL_TIME_STEPS {
            let taken = self.foreign_rate * FOREIGN_USE_MEMORY * (1.0 - decay(time));
            time = (tokens + taken) / self.rate();
        }
        time
    }

    /// The first header: what the bucket was taken to be before is no measure.
    pub(crate) fn start_from_header(&mut self, now: Time, remaining: f64) {
        self.last_header = now;
        self.is_guess = false;
        self.foreign_rate = 0.0;
        let available = (remaining - self.reserved).max(0.0);
        let before = std::mem::replace(&mut self.available, available);
        self.corrections -= available - before;
        self.limit_to_capacity();
        self.highest_remaining = self.highest_remaining.max(remaining);
    }

    /// Free and held together never exceed the depth.
    pub(crate) fn limit_to_capacity(&mut self) {
        if self.is_known() {
            self.available = lesser(self.available, self.capacity - self.uncharged);
        }
    }

    pub(crate) fn set_limit(&mut self, limit: f64, minutes: f64) {
        if self.is_known() && limit < self.limit {
            let before = self.available;
            self.available *= if self.available > 0.0 {
                limit / self.limit
            } else {
                1.0
            };
            self.corrections += before - self.available;
        }
        self.limit = limit;
        self.capacity = (limit * minutes).max(1.0);
        self.refusal_margin = self.refusal_margin.min(MAX_REFUSAL_MARGIN * self.capacity);
        self.limit_to_capacity();
    }

    pub(crate) fn lower_to(&mut self, level: f64) {
        if level < self.available {
            self.corrections += self.available - level;
            self.available = level;
        }
    }

    /// What must be free for a request of `cost`.
    pub(crate) fn required(&self, d: usize, cost: f64, variance: f64, is_idle: bool) -> f64 {
        let mut margin = self.refusal_margin + NOISE_MARGIN * self.noise;
        if d != REQUESTS {
            margin += BASE_MARGIN * self.capacity;
        }
        let spread = MARGIN_DEVIATIONS * greater(self.variance + variance, 0.0).sqrt();
        margin += lesser(spread, MAX_DEVIATION_MARGIN * self.capacity);
        if self.foreign_rate > MIN_FOREIGN_USE * self.rate() {
            // Others are here: stay off the floor.
            let most = MAX_SHARED_FLOOR * self.highest_remaining;
            let mut floor = lesser(SHARED_FLOOR * self.capacity, most);
            if d != REQUESTS {
                // What is smaller than a quarter of the bucket leaves room for what is not: who has
                // one of these would wait for the others for ever.
                floor = greater(
                    floor,
                    lesser(LARGE_REQUEST_ROOM * self.capacity, most) - cost,
                );
            }
            margin += floor;
        }
        let cost = lesser(cost, self.capacity);
        let mut margin = lesser(margin, self.capacity - cost);
        if is_idle {
            margin = lesser(margin, MAX_IDLE_MARGIN * self.capacity);
        }
        cost + margin
    }

    /// Compares what the server says is left with the range that the model took while the request
    /// lived: a value below it means that others are using the bucket. Returns by how much
    /// it surprises.
    pub(crate) fn correct_from_header(
        &mut self,
        d: usize,
        remaining: f64,
        range: (f64, f64),
        now: Time,
        life: f64,
        used: f64,
    ) -> f64 {
        // Tokens are rounded to thousands.
        let rounding = if d == REQUESTS {
            REQUESTS_ROUNDING
        } else {
            TOKENS_ROUNDING
        };
        let (low, high) = (range.0 - self.corrections, range.1 - self.corrections);
        let busy = used >= BUSY_USE * self.rate() * life.max(MIN_INTERVAL)
            || remaining < LOW_LEVEL * self.highest_remaining;
        // A surprise has grown since the last headers, or since the request was sent.
        let span = life.max(now - self.last_header).max(MIN_INTERVAL);
        self.last_header = now;
        let most = MAX_NOISE_SAMPLE * self.capacity;
        let mut surprise = 0.0;
        if remaining + rounding < low.max(0.0) {
            let missing = low - remaining - rounding;
            surprise = missing;
            self.available -= missing;
            self.corrections += missing;
            self.noise += NOISE_GAIN * (missing.min(most) - self.noise);
            if busy || self.foreign_rate > 0.0 {
                // What the server never held, nobody took: the bucket may be shallower than thought.
                let full = self.highest_remaining - used;
                let taken = (low.min(full) - remaining - rounding).max(0.0);
                self.foreign_rate = (self.foreign_rate + FOREIGN_USE_GAIN * taken / span)
                    .min(MAX_FOREIGN_USE * self.rate());
            }
        } else if remaining - rounding > high {
            surprise = remaining - rounding - high;
            let more = RAISE_SHARE * surprise;
            self.available += more;
            self.corrections -= more;
            self.limit_to_capacity();
            self.noise += NOISE_GAIN * (more.min(most) - self.noise);
            self.foreign_rate = (self.foreign_rate - FOREIGN_USE_GAIN * more / span).max(0.0);
        } else {
            self.noise *= NOISE_DECAY;
        }
        self.highest_remaining = self.highest_remaining.max(remaining);
        surprise
    }

    /// Others seem to be using the bucket.
    pub(crate) fn suspect_foreign_use(&mut self) {
        self.foreign_rate =
            (self.foreign_rate + SUSPECTED_USE * self.rate()).min(MAX_FOREIGN_USE * self.rate());
    }
}

/// The share of foreign use that is remembered after so much time; the same for all buckets.
pub(crate) fn decay(passed: f64) -> f64 {
    exp(-passed / FOREIGN_USE_MEMORY)
}

/// One value for each bucket that is followed: requests, input, output charged as it is produced,
/// output reserved.
pub(crate) type PerBucket<T> = [T; 4];

/// What is known of one of the server's buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BucketView {
    /// Per minute.
    pub(crate) limit: f64,
    /// Free to promise; negative where estimates were too low.
    pub(crate) available: f64,
    /// What others seem to use, per minute.
    pub(crate) foreign_per_minute: f64,
}

const MINUTE: f64 = 60.0;

pub(super) const FOREIGN_USE_MEMORY: f64 = 60.0;
pub(super) const MIN_FOREIGN_USE: f64 = 0.005;
pub(super) const MAX_FOREIGN_USE: f64 = 0.95;
pub(super) const FOREIGN_USE_GAIN: f64 = 0.3;
pub(super) const SUSPECTED_USE: f64 = 0.1;
pub(super) const BUSY_USE: f64 = 0.7;
pub(super) const LOW_LEVEL: f64 = 0.3;
pub(super) const MIN_INTERVAL: f64 = 2.0;
pub(super) const RAISE_SHARE: f64 = 0.5;
pub(super) const REQUESTS_ROUNDING: f64 = 1.0;
pub(super) const TOKENS_ROUNDING: f64 = 500.0;
pub(super) const BASE_MARGIN: f64 = 0.01;
pub(super) const MARGIN_DEVIATIONS: f64 = 2.0;
pub(super) const MAX_DEVIATION_MARGIN: f64 = 0.1;
pub(super) const NOISE_MARGIN: f64 = 3.0;
pub(super) const NOISE_GAIN: f64 = 0.05;
pub(super) const MAX_NOISE_SAMPLE: f64 = 0.05;
pub(super) const NOISE_DECAY: f64 = 0.98;
pub(super) const MIN_NOISE: f64 = 0.001;
pub(super) const SHARED_FLOOR: f64 = 0.08;
pub(super) const LARGE_REQUEST_ROOM: f64 = 0.25;
pub(super) const MAX_SHARED_FLOOR: f64 = 0.3;
pub(super) const MAX_IDLE_MARGIN: f64 = 0.25;
pub(super) const MAX_REFUSAL_MARGIN: f64 = 0.15;

/// By how much a guessed limit grows per second.
pub(super) const GUESS_GROWTH: f64 = 0.005;

/// How high it grows, per minute: more than anyone has, and a number to reckon with.
pub(super) const HIGHEST_GUESS: f64 = 1e12;

/// Steps towards the time of refill; each comes nearer from below.
const REFILL_TIME_STEPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::cost::INPUT;

    #[test]
    fn refill_takes_the_time_that_was_computed() {
        for foreign_rate in [0.0, 300.0, 950.0] {
            let mut bucket = TokenBucket::default();
            bucket.set_limit(60_000.0, 1.0);
            (bucket.available, bucket.foreign_rate) = (0.0, foreign_rate);
            let time = bucket.time_to_refill(20_000.0);
            bucket.refill(time, decay(time));
            assert!(
                (16_000.0..20_000.01).contains(&bucket.available),
                "{bucket:?}"
            );
        }
    }

    #[test]
    fn refill_in_steps_equals_refill_at_once() {
        let mut at_once = TokenBucket::default();
        at_once.set_limit(60_000.0, 1.0);
        (at_once.available, at_once.foreign_rate) = (0.0, 500.0);
        let mut in_steps = at_once;
        at_once.refill(30.0, decay(30.0));
        (0..300).for_each(|_| in_steps.refill(0.1, decay(0.1)));
        assert!((at_once.available - in_steps.available).abs() < 1e-6);
    }

    #[test]
    fn guessed_limit_grows_to_a_finite_number() {
        for passed in [600.0, 1e5, 1e9, 1e300] {
            let mut bucket = TokenBucket::default();
            bucket.set_limit(60_000.0, 0.25);
            bucket.is_guess = true;
            for _ in 0..3 {
                bucket.refill(passed, decay(passed));
            }
            let TokenBucket {
                limit,
                capacity,
                available,
                ..
            } = bucket;
            assert!(
                limit > 1e6 && limit <= HIGHEST_GUESS * 1.001,
                "{passed}: {limit}"
            );
            assert!(
                (capacity - limit / 4.0).abs() < 1.0 && available <= capacity * 1.001,
                "{bucket:?}"
            );
        }
    }

    #[test]
    fn foreign_use_is_spread_since_the_last_header() {
        let foreign_rate = |first: Time| {
            let mut bucket = TokenBucket::default();
            bucket.set_limit(60_000.0, 1.0);
            bucket.start_from_header(first, 60_000.0);
            bucket.correct_from_header(1, 9_500.0, (60_000.0, 60_000.0), 100.0, 2.0, 0.0);
            bucket.foreign_rate
        };
        // 50,000 in 50 s and in 5 s.
        assert_eq!((foreign_rate(50.0), foreign_rate(95.0)), (300.0, 950.0));
    }

    #[test]
    fn margins_never_exceed_the_capacity() {
        let mut bucket = TokenBucket::default();
        bucket.set_limit(1_000.0, 1.0);
        (
            bucket.refusal_margin,
            bucket.noise,
            bucket.highest_remaining,
        ) = (1e9, 1e9, 1e9);
        bucket.foreign_rate = bucket.rate();
        assert_eq!(bucket.required(1, 900.0, 1e12, false), 1_000.0);
        assert_eq!(bucket.required(1, 5_000.0, 1e12, false), 1_000.0);
        assert_eq!(bucket.required(1, 100.0, 1e12, true), 350.0);
    }

    #[test]
    fn small_requests_leave_room_for_large_ones() {
        let mut bucket = TokenBucket::default();
        bucket.set_limit(10_000.0, 1.0);
        bucket.highest_remaining = 10_000.0;
        let required = |bucket: &TokenBucket, d, cost| bucket.required(d, cost, 0.0, false).round();
        assert_eq!(required(&bucket, INPUT, 100.0), 200.0);
        bucket.foreign_rate = 0.5 * bucket.rate();
        for (cost, needed) in [(100.0, 2_600.0), (1_000.0, 2_600.0), (4_000.0, 4_900.0)] {
            assert_eq!(required(&bucket, INPUT, cost), needed, "{cost}");
        }
        // One is like the other.
        assert_eq!(required(&bucket, REQUESTS, 1.0), 801.0);
        // Others that never leave much are not waited for.
        bucket.highest_remaining = 1_000.0;
        assert_eq!(required(&bucket, INPUT, 100.0), 500.0);
    }
}
