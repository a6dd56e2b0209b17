//! One of the server's token buckets: its arithmetic, and how headers correct it.

use super::math::{SECONDS_PER_MINUTE, exp};
use crate::budget::cost::{REQUESTS, Time, greater, lesser};

/// A model of one token bucket of the server.
///
/// The bucket refills continuously by `limit` per minute up to its capacity. All amounts are in
/// requests or tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenBucket {
    /// The refill per minute; 0 while it is unknown.
    pub(crate) limit: f64,
    /// The level of a full bucket.
    pub(crate) capacity: f64,
    /// The level minus the expected cost of the requests in flight: what may still be reserved.
    /// Negative where estimates were too low.
    pub(crate) available: f64,
    /// The expected cost of the requests in flight.
    pub(crate) reserved: f64,
    /// The part of `reserved` that the server may not have charged yet.
    pub(crate) uncharged: f64,
    /// The sum of the variances of the requests in flight.
    pub(crate) variance: f64,
    /// The use by other clients, per second.
    pub(crate) foreign_rate: f64,
    /// An extra margin after refusals, which decays with successes.
    pub(crate) refusal_margin: f64,
    /// The largest `remaining` of any header.
    pub(crate) highest_remaining: f64,
    /// The time of the last header with a `remaining`.
    pub(crate) last_header: Time,
    /// The sum of all corrections so far, positive where the level was lowered. Levels plus this
    /// sum can be compared across corrections.
    pub(crate) corrections: f64,
    /// What this client has used so far.
    pub(crate) total_used: f64,
    /// Whether the limit is a guess after refusals without headers; such a limit grows.
    pub(crate) is_guess: bool,
}

/// One value for each modelled bucket: requests, input tokens, output tokens charged as they are
/// produced, output tokens charged as `max_tokens`.
pub(crate) type PerBucket<T> = [T; 4];

/// The lowest and the highest level that the model allowed for in a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LevelRange {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The `remaining` of one response, and what the model says about the life of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderSample {
    pub(crate) remaining: f64,
    /// The levels since the request was sent, plus the corrections up to then.
    pub(crate) band: LevelRange,
    pub(crate) now: Time,
    /// The seconds since the request was sent.
    pub(crate) age: f64,
    /// What this client used since the request was sent.
    pub(crate) used: f64,
}

/// Whether other requests of this client are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Idle,
    InFlight,
}

/// The state of one bucket, for snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BucketView {
    /// The limit per minute.
    pub(crate) limit: f64,
    /// What may still be reserved; negative where estimates were too low.
    pub(crate) available: f64,
    /// The estimated use by other clients, per minute.
    pub(crate) foreign_per_minute: f64,
}

impl TokenBucket {
    /// Refills for `passed` seconds, over which foreign use shrinks by the factor `decay`.
    pub(crate) fn refill(&mut self, passed: f64, decay: f64) {
        if !self.is_known() {
            return;
        }
        if self.is_guess && self.limit < MAX_GUESS {
            let growth = exp(passed * GUESS_GROWTH).min(MAX_GUESS / self.limit);
            (self.limit, self.capacity) = (self.limit * growth, self.capacity * growth);
        }
        let taken = self.foreign_rate * FOREIGN_USE_MEMORY * (1.0 - decay);
        self.foreign_rate *= decay;
        let level = self.available + self.uncharged;
        let refilled = level + self.rate() * passed - taken;
        self.available += lesser(refilled, greater(self.capacity, level)) - level;
    }

    /// Sets the level from the first header with a limit. The model of before was no measurement.
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

    /// Corrects the level by the `remaining` of a response; returns how far outside of the band of
    /// the model it was.
    ///
    /// A value below the band means that other clients use the bucket. The band over the life of
    /// the request makes it irrelevant whether the server takes the value at the start of the
    /// request or of the response, and the sum of corrections keeps one surprise from counting
    /// twice.
    pub(crate) fn correct_from_header(&mut self, d: usize, header: &HeaderSample) -> f64 {
        let HeaderSample {
            remaining,
            now,
            age,
            used,
            ..
        } = *header;
        let rounding = match d {
            REQUESTS => REQUESTS_ROUNDING,
            _ => TOKENS_ROUNDING,
        };
        let low = header.band.low - self.corrections;
        let high = header.band.high - self.corrections;
        let is_busy = remaining < LOW_LEVEL * self.highest_remaining;
        // The difference has grown since the last header, or since the request was sent.
        let interval = age.max(now - self.last_header).max(MIN_INTERVAL);
        self.last_header = now;
        let mut surprise = 0.0;
        if remaining + rounding < low.max(0.0) {
            surprise = low - remaining - rounding;
            self.available -= surprise;
            self.corrections += surprise;
            if is_busy || self.foreign_rate > 0.0 {
                // The bucket may be shallower than its limit says: no other client took what the
                // server never held.
                let full = self.highest_remaining - used;
                let taken = (low.min(full) - remaining - rounding).max(0.0);
                let rate = self.foreign_rate + FOREIGN_USE_GAIN * taken / interval;
                self.foreign_rate = rate.min(MAX_FOREIGN_USE * self.rate());
            }
        } else if remaining - rounding > high {
            surprise = remaining - rounding - high;
            let raise = RAISE_SHARE * surprise;
            self.available += raise;
            self.corrections -= raise;
            self.limit_to_capacity();
            let rate = self.foreign_rate - FOREIGN_USE_GAIN * raise / interval;
            self.foreign_rate = rate.max(0.0);
        }
        self.highest_remaining = self.highest_remaining.max(remaining);
        surprise
    }

    /// Sets the limit, and a capacity of `minutes` of it. A lower limit scales the level down.
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
        self.capacity = (limit * minutes).max(MIN_CAPACITY);
        self.refusal_margin = self.refusal_margin.min(MAX_REFUSAL_MARGIN * self.capacity);
        self.limit_to_capacity();
    }

    /// Lowers the available amount to `level`, if it is higher.
    pub(crate) fn lower_to(&mut self, level: f64) {
        if level < self.available {
            self.corrections += self.available - level;
            self.available = level;
        }
    }

    /// Cuts the available amount so that it and the uncharged cost fit the capacity together.
    pub(crate) fn limit_to_capacity(&mut self) {
        if self.is_known() {
            self.available = lesser(self.available, self.capacity - self.uncharged);
        }
    }

    /// Raises the estimate of foreign use after a refusal that only other clients explain.
    pub(crate) fn suspect_foreign_use(&mut self) {
        let rate = self.foreign_rate + SUSPECTED_USE * self.rate();
        self.foreign_rate = rate.min(MAX_FOREIGN_USE * self.rate());
    }

    /// Returns what must be available to admit a request of this cost: its cost and a margin.
    pub(crate) fn required(&self, d: usize, cost: f64, variance: f64, load: Load) -> f64 {
        let mut margin = self.refusal_margin;
        if d != REQUESTS {
            margin += BASE_MARGIN * self.capacity;
        }
        let deviation = greater(self.variance + variance, 0.0).sqrt();
        margin += lesser(
            MARGIN_DEVIATIONS * deviation,
            MAX_DEVIATION_MARGIN * self.capacity,
        );
        if self.foreign_rate > MIN_FOREIGN_USE * self.rate() {
            margin += self.shared_floor(d, cost);
        }
        let cost = lesser(cost, self.capacity);
        let mut margin = lesser(margin, self.capacity - cost);
        if load == Load::Idle {
            margin = lesser(margin, MAX_IDLE_MARGIN * self.capacity);
        }
        cost + margin
    }

    /// Returns the level that a request of this cost leaves to other clients.
    fn shared_floor(&self, d: usize, cost: f64) -> f64 {
        let most = MAX_SHARED_FLOOR * self.highest_remaining;
        let floor = lesser(SHARED_FLOOR * self.capacity, most);
        if d == REQUESTS {
            return floor;
        }
        // Without room for large requests, the small requests of several processes would keep the
        // level too low for a large one for minutes.
        greater(
            floor,
            lesser(LARGE_REQUEST_ROOM * self.capacity, most) - cost,
        )
    }

    /// Returns the seconds until `tokens` more are available, or a little less. Foreign use decays
    /// meanwhile, so the equation is solved in steps.
    pub(crate) fn time_to_refill(&self, tokens: f64) -> f64 {
        let mut time = tokens / self.rate();
        for _ in 0..REFILL_TIME_STEPS {
            let taken = self.foreign_rate * FOREIGN_USE_MEMORY * (1.0 - decay(time));
            time = (tokens + taken) / self.rate();
        }
        time
    }

    /// Returns whether time alone lowers the margin or raises the capacity noticeably.
    pub(crate) fn is_margin_decaying(&self) -> bool {
        self.is_guess || self.foreign_rate > MIN_FOREIGN_USE * self.rate()
    }

    /// Returns whether there is foreign use, which decays.
    pub(crate) fn has_foreign_use(&self) -> bool {
        self.foreign_rate > 0.0
    }

    pub(crate) fn is_known(&self) -> bool {
        self.limit > 0.0
    }

    /// Returns the refill per second.
    pub(crate) fn rate(&self) -> f64 {
        self.limit / SECONDS_PER_MINUTE
    }

    pub(crate) fn view(&self) -> Option<BucketView> {
        self.is_known().then_some(BucketView {
            limit: self.limit,
            available: self.available,
            foreign_per_minute: self.foreign_rate * SECONDS_PER_MINUTE,
        })
    }
}

/// Returns the factor by which foreign use shrinks in `passed` seconds.
pub(crate) fn decay(passed: f64) -> f64 {
    exp(-passed / FOREIGN_USE_MEMORY)
}

/// Time constant in seconds of the decay of foreign use: one minute, as deep as a bucket.
/// The decay also makes the shares of several processes even: a process that believes in more
/// foreign use regains more per second.
///
/// Moves, halved: `30% tenant, no headers` 429s 95.6 → 129.0. Doubled: `30% tenant, no headers`
/// 429s 95.6 → 60.6.
const FOREIGN_USE_MEMORY: f64 = 60.0;

/// Foreign use above this share of the refill counts as "others are here".
///
/// Moves no row, nor does 0: the estimates of the scenarios are 0 or far above. But an estimate
/// decays and never reaches 0, so that without this bound the floor for others would never end.
const MIN_FOREIGN_USE: f64 = 0.005;

/// Upper bound of foreign use as a share of the refill, so that a rate is left to compute with.
///
/// Moves, at 0.475: `8 processes, input` 429s 0.4 → 1.2.
const MAX_FOREIGN_USE: f64 = 0.95;

/// Weight of one header in the estimate of foreign use.
///
/// Moves, doubled: `60% tenant in bursts` 429s 0.3 → 1.2.
const FOREIGN_USE_GAIN: f64 = 0.3;

/// Foreign use that one refusal suggests, as a share of the refill.
///
/// Moves, halved: `30% tenant, no headers` 429s 95.6 → 128.4. Doubled: `30% tenant, no headers`
/// 429s 95.6 → 60.0.
const SUSPECTED_USE: f64 = 0.1;

/// A `remaining` below this share of the highest one seen is a busy bucket: a difference to the
/// header then means other clients. Above it the bucket may only be shallower than its limit says.
///
/// Moves, halved: `30% tenant, output` 429s 0.0 → 0.8. At infinity, so that each difference means
/// other clients, no row moves; but where levels in headers are off by up to 5 %, `requests 500`
/// ratio 0.94 → 0.99.
const LOW_LEVEL: f64 = 0.3;

/// Shortest interval in seconds over which a difference is taken to have grown; shorter ones would
/// exaggerate the rate.
///
/// Moves, halved: `60% tenant in bursts` 429s 0.3 → 1.2.
const MIN_INTERVAL: f64 = 2.0;

/// Share of a header above the band by which the level is raised: too high costs refusals, too low
/// only time.
///
/// Moves no row: headers above the band are rare and close to it. At 1 none moves by the threshold
/// (`30% tenant, output` 429s 0.2 → 0.6); but where levels in headers are off by up to 5 %, `input
/// 500` ratio 0.881 → 0.895 (5 seeds).
const RAISE_SHARE: f64 = 0.5;

/// Rounding of the `remaining` requests: whole ones.
///
/// Moves, halved: `per second` ratio 1.04 → 1.02, 429s 1.0 → 0.3.
const REQUESTS_ROUNDING: f64 = 1.0;

/// Rounding error of the `remaining` tokens: the API rounds to the nearest thousand.
///
/// Moves no row: a fact about the API and not a tuning value.
pub(super) const TOKENS_ROUNDING: f64 = 500.0;

/// Margin of tokens that always stays, as a share of the capacity.
///
/// Moves, at 0: `60% tenant in bursts` 429s 0.1 → 1.3. Flat between the half and the double.
const BASE_MARGIN: f64 = 0.01;

/// Standard deviations of the sum of all estimates in flight that stay free.
///
/// Moves, doubled: `output 500` ratio 0.914 → 0.924.
const MARGIN_DEVIATIONS: f64 = 2.0;

/// Upper bound of that margin as a share of the capacity. Long outputs have deviations that exceed
/// the bucket.
///
/// Moves, doubled: `long answers 500` ratio 1.144 → 1.162; `long answers 500, promised` ratio
/// 1.173 → 1.183.
const MAX_DEVIATION_MARGIN: f64 = 0.1;

/// Level that is left to other clients, as a share of the capacity. An earlier simulation of a
/// steady tenant of 30 % had 39, 4.7, 0.3 and 0 refusals at 0, 3, 6 and 10 %.
///
/// Moves, at 0: `4 processes, requests` 429s 0.0 → 97.0; `30% tenant, requests` 429s 0.0 → 2.0.
/// Flat between the half and the double; for tokens `LARGE_REQUEST_ROOM` is mostly higher.
const SHARED_FLOOR: f64 = 0.08;

/// Level that small requests leave to larger ones where others are here, as a share of the
/// capacity.
///
/// Moves, halved: `8 processes, input` 429s 0.4 → 11.4, longest wait 69 → 410 s; `4 processes,
/// input` 429s 0.1 → 5.8, longest wait 58 → 226 s; 2 more.
const LARGE_REQUEST_ROOM: f64 = 0.25;

/// Upper bound of both as a share of the highest `remaining`: others may never leave more.
///
/// Moves, halved: `8 processes, input` 429s 0.4 → 11.9, longest wait 69 → 445 s; `4 processes,
/// input` 429s 0.1 → 5.4, longest wait 58 → 222 s; 2 more.
const MAX_SHARED_FLOOR: f64 = 0.3;

/// Upper bound of all margins as a share of the capacity while nothing is in flight, so that a
/// request never waits for a margin alone.
///
/// Moves, doubled: `30% tenant at random` 429s 0.0 → 0.8.
const MAX_IDLE_MARGIN: f64 = 0.25;

/// Upper bound of the margin after refusals, as a share of the capacity.
///
/// Moves no row: a safety bound that a few refusals do not reach.
pub(super) const MAX_REFUSAL_MARGIN: f64 = 0.15;

/// Growth of a guessed limit per second: twice as high in 139 s.
///
/// Moves, halved: `mute, requests` 429s 79.7 → 41.7; `mute, input` 429s 65.2 → 33.3; 1 more.
/// Doubled: `mute, requests` 429s 79.7 → 158.2; `unknown, no headers` 429s 68.6 → 132.1; 1
/// more.
const GUESS_GROWTH: f64 = 0.005;

/// Upper bound of a guessed limit per minute: above every real limit, and finite.
///
/// Moves no row: a safety bound; no guess of the scenarios grows for hours.
const MAX_GUESS: f64 = 1e12;

/// Lower bound of a capacity: one request.
const MIN_CAPACITY: f64 = 1.0;

/// Steps towards the time of a refill; each comes nearer from below.
///
/// Moves no row: numeric; the steps converge.
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
                limit > 1e6 && limit <= MAX_GUESS * 1.001,
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
            let header = HeaderSample {
                remaining: 9_500.0,
                band: LevelRange {
                    low: 60_000.0,
                    high: 60_000.0,
                },
                now: 100.0,
                age: 2.0,
                used: 0.0,
            };
            bucket.correct_from_header(INPUT, &header);
            bucket.foreign_rate
        };
        // 50,000 tokens in 50 s, and in 5 s.
        assert_eq!((foreign_rate(50.0), foreign_rate(95.0)), (300.0, 950.0));
    }

    #[test]
    fn margins_never_exceed_the_capacity() {
        let mut bucket = TokenBucket::default();
        bucket.set_limit(1_000.0, 1.0);
        (bucket.refusal_margin, bucket.highest_remaining) = (1e9, 1e9);
        bucket.foreign_rate = bucket.rate();
        assert_eq!(bucket.required(1, 900.0, 1e12, Load::InFlight), 1_000.0);
        assert_eq!(bucket.required(1, 5_000.0, 1e12, Load::InFlight), 1_000.0);
        assert_eq!(bucket.required(1, 100.0, 1e12, Load::Idle), 350.0);
    }

    #[test]
    fn small_requests_leave_room_for_large_ones() {
        let mut bucket = TokenBucket::default();
        bucket.set_limit(10_000.0, 1.0);
        bucket.highest_remaining = 10_000.0;
        let required =
            |bucket: &TokenBucket, d, cost| bucket.required(d, cost, 0.0, Load::InFlight).round();
        assert_eq!(required(&bucket, INPUT, 100.0), 200.0);
        bucket.foreign_rate = 0.5 * bucket.rate();
        for (cost, needed) in [(100.0, 2_600.0), (1_000.0, 2_600.0), (4_000.0, 4_900.0)] {
            assert_eq!(required(&bucket, INPUT, cost), needed, "{cost}");
        }
        // All requests have the same size.
        assert_eq!(required(&bucket, REQUESTS, 1.0), 801.0);
        // Where other clients never leave much, the floor is low.
        bucket.highest_remaining = 1_000.0;
        assert_eq!(required(&bucket, INPUT, 100.0), 500.0);
    }
}
