//! One of the server's token buckets: its arithmetic, and how headers correct it.
//!
//! "Foreign use" is what other clients with the same limits take from the bucket. "Moves" in the
//! docs of the constants names rows of the simulation's table that change with the constant; the
//! section "Tuning" of [`super`] explains these lines.

use super::math::{SECONDS_PER_MINUTE, exp};
use crate::budget::cost::{REQUESTS, Time, greater, lesser};

/// A model of one token bucket of the server.
///
/// The bucket refills continuously by `limit` per minute up to its capacity. All amounts are in
/// requests or tokens. According to the model, the level of the server's bucket is between
/// `available` (the server has charged all requests in flight in full) and `available + uncharged`
/// (the server has charged nothing of that part).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenBucket {
    /// The refill per minute; 0 while it is unknown.
    pub(crate) limit: f64,
    /// The level of a full bucket.
    pub(crate) capacity: f64,
    /// What may still be reserved. Negative if requests cost more than was estimated.
    pub(crate) available: f64,
    /// The expected cost of the requests in flight.
    pub(crate) reserved: f64,
    /// The part of `reserved` that the server may not have charged yet.
    pub(crate) uncharged: f64,
    /// The sum of the variances of the costs of the requests in flight.
    pub(crate) variance: f64,
    /// The estimated use by other clients, per second.
    pub(crate) foreign_rate: f64,
    /// The part of the admission margin that grows with each refusal and shrinks with each success.
    pub(crate) refusal_margin: f64,
    /// The largest `remaining` of any header.
    pub(crate) highest_remaining: f64,
    /// The time of the last header with a `remaining`.
    pub(crate) last_header: Time,
    /// The sum of all corrections of `available` so far; lowering counts as positive. Levels are
    /// recorded with the sum at that time added. Subtracting the present sum from a recorded level
    /// applies the corrections since then.
    pub(crate) corrections: f64,
    /// What this client has used so far.
    pub(crate) total_used: f64,
    /// Whether the limit was guessed after refusals without headers; a guessed limit grows.
    pub(crate) is_guess: bool,
}

/// One value for each modelled bucket, by index: 0 requests, 1 input tokens, 2 output tokens
/// charged as they are produced, 3 output tokens charged as `max_tokens`.
pub(crate) type PerBucket<T> = [T; 4];

/// The lowest and the highest level that were possible in a span of time, according to the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LevelRange {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The `remaining` of one response, and the state of the model since its request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderSample {
    pub(crate) remaining: f64,
    /// The levels since the request was sent, recorded with the sum of corrections added; see
    /// [`TokenBucket::corrections`].
    pub(crate) band: LevelRange,
    pub(crate) now: Time,
    /// The seconds since the request was sent.
    pub(crate) age: f64,
    /// What this client used since the request was sent.
    pub(crate) used: f64,
}

/// Whether this client has requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// None.
    Idle,
    /// One or more.
    InFlight,
}

/// The state of one bucket, for snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BucketView {
    /// The limit per minute.
    pub(crate) limit: f64,
    /// What may still be reserved; negative if requests cost more than was estimated.
    pub(crate) available: f64,
    /// The estimated use by other clients, per minute.
    pub(crate) foreign_per_minute: f64,
}

impl TokenBucket {
    /// Refills for `passed` seconds. `decay` is `decay(passed)`, which the caller computes once for
    /// all buckets.
    pub(crate) fn refill(&mut self, passed: f64, decay: f64) {
        if !self.is_known() {
            return;
        }
        if self.is_guess && self.limit < MAX_GUESS {
            let growth = exp(passed * GUESS_GROWTH).min(MAX_GUESS / self.limit);
            (self.limit, self.capacity) = (self.limit * growth, self.capacity * growth);
        }
        // The integral of the decaying rate over the time passed.
        let taken = self.foreign_rate * FOREIGN_USE_DECAY_TIME * (1.0 - decay);
        self.foreign_rate *= decay;
        let highest_level = self.available + self.uncharged;
        let refilled = highest_level + self.rate() * passed - taken;
        self.available += lesser(refilled, greater(self.capacity, highest_level)) - highest_level;
    }

    /// Sets the available amount from the first header with a limit. It replaces a level that was
    /// only assumed.
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

    /// Corrects the available amount by the `remaining` of a response. Returns how far `remaining`
    /// was outside of the band, which is the range of levels that the model allows.
    ///
    /// `index` is the bucket's index in [`PerBucket`]. A value below the band means that other
    /// clients use the bucket. The band covers the whole time since the request was sent, since the
    /// server may read `remaining` at any instant of it. The sum of corrections prevents two
    /// responses from correcting the same difference.
    pub(crate) fn correct_from_header(&mut self, index: usize, header: &HeaderSample) -> f64 {
        let HeaderSample {
            remaining,
            now,
            age,
            used,
            ..
        } = *header;
        let rounding = match index {
            REQUESTS => REQUESTS_ROUNDING,
            _ => TOKENS_ROUNDING,
        };
        let low = header.band.low - self.corrections;
        let high = header.band.high - self.corrections;
        let is_low = remaining < LOW_REMAINING * self.highest_remaining;
        // The difference has grown since the last header, or since the request was sent.
        let interval = age.max(now - self.last_header).max(MIN_INTERVAL);
        self.last_header = now;
        let mut difference = 0.0;
        if remaining + rounding < low.max(0.0) {
            difference = low - remaining - rounding;
            self.available -= difference;
            self.corrections += difference;
            if is_low || self.foreign_rate > 0.0 {
                // The server's bucket may hold less than one minute of its limit. Only what it is
                // known to have held can have been taken by other clients.
                let full = self.highest_remaining - used;
                let taken = (low.min(full) - remaining - rounding).max(0.0);
                let rate = self.foreign_rate + FOREIGN_USE_GAIN * taken / interval;
                self.foreign_rate = rate.min(MAX_FOREIGN_USE * self.rate());
            }
        } else if remaining - rounding > high {
            difference = remaining - rounding - high;
            let raise = RAISE_SHARE * difference;
            self.available += raise;
            self.corrections -= raise;
            self.limit_to_capacity();
            let rate = self.foreign_rate - FOREIGN_USE_GAIN * raise / interval;
            self.foreign_rate = rate.max(0.0);
        }
        self.highest_remaining = self.highest_remaining.max(remaining);
        difference
    }

    /// Sets the limit, and the capacity to what the limit refills in `minutes`. A lower limit
    /// reduces the available amount in proportion.
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

    /// Lowers the available amount to `amount` if it is higher.
    pub(crate) fn lower_to(&mut self, amount: f64) {
        if amount < self.available {
            self.corrections += self.available - amount;
            self.available = amount;
        }
    }

    /// Lowers the available amount so that its sum with the uncharged cost is at most the capacity.
    pub(crate) fn limit_to_capacity(&mut self) {
        if self.is_known() {
            self.available = lesser(self.available, self.capacity - self.uncharged);
        }
    }

    /// Raises the estimate of foreign use, after a refusal that the use by this client cannot
    /// explain.
    pub(crate) fn suspect_foreign_use(&mut self) {
        let rate = self.foreign_rate + SUSPECTED_USE * self.rate();
        self.foreign_rate = rate.min(MAX_FOREIGN_USE * self.rate());
    }

    /// Returns the amount that must be available to admit a request: its cost and a margin.
    ///
    /// `index` is the bucket's index in [`PerBucket`]; `variance` is that of the cost.
    pub(crate) fn required(&self, index: usize, cost: f64, variance: f64, load: Load) -> f64 {
        let mut margin = self.refusal_margin;
        if index != REQUESTS {
            margin += BASE_MARGIN * self.capacity;
        }
        let deviation = greater(self.variance + variance, 0.0).sqrt();
        margin += lesser(
            MARGIN_DEVIATIONS * deviation,
            MAX_DEVIATION_MARGIN * self.capacity,
        );
        if self.foreign_rate > MIN_FOREIGN_USE * self.rate() {
            margin += self.room_for_others(index, cost);
        }
        let cost = lesser(cost, self.capacity);
        let mut margin = lesser(margin, self.capacity - cost);
        if load == Load::Idle {
            margin = lesser(margin, MAX_IDLE_MARGIN * self.capacity);
        }
        cost + margin
    }

    /// Returns the amount that a request of this cost must leave to other clients.
    fn room_for_others(&self, index: usize, cost: f64) -> f64 {
        let most = MAX_ROOM_FOR_OTHERS * self.highest_remaining;
        let room = lesser(ROOM_FOR_OTHERS * self.capacity, most);
        if index == REQUESTS {
            return room;
        }
        // Without room for large requests, the small requests of several processes would keep the
        // level too low for a large one for minutes. A large request may use that room itself:
        // therefore its cost is subtracted.
        greater(
            room,
            lesser(LARGE_REQUEST_ROOM * self.capacity, most) - cost,
        )
    }

    /// Returns the seconds until `tokens` more are available. Foreign use decays meanwhile, so the
    /// equation is solved by iteration; the result may be slightly too short, never too long.
    pub(crate) fn time_to_refill(&self, tokens: f64) -> f64 {
        let mut time = tokens / self.rate();
        for _ in 0..REFILL_TIME_STEPS {
            let taken = self.foreign_rate * FOREIGN_USE_DECAY_TIME * (1.0 - decay(time));
            time = (tokens + taken) / self.rate();
        }
        time
    }

    /// Returns whether room can appear without an event: since foreign use decays and with it the
    /// margin, or since a guessed limit grows.
    pub(crate) fn is_margin_decaying(&self) -> bool {
        self.is_guess || self.foreign_rate > MIN_FOREIGN_USE * self.rate()
    }

    /// Returns whether the estimate of foreign use is above 0, so that
    /// [`refill`](TokenBucket::refill) needs its `decay`.
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
    exp(-passed / FOREIGN_USE_DECAY_TIME)
}

/// Time constant in seconds of the decay of the estimate of foreign use: one minute, as long as a
/// bucket takes to fill. The decay also evens out the shares of several processes: the higher the
/// estimate of a process, the more it falls per second.
///
/// Moves, halved: `30% tenant, no headers` 429s 95.6 → 129.0. Doubled: `30% tenant, no headers`
/// 429s 95.6 → 60.6.
const FOREIGN_USE_DECAY_TIME: f64 = 60.0;

/// Share of the refill above which foreign use makes requests leave room for other clients.
///
/// Moves no row, nor does 0: the estimates of the scenarios are 0 or far above. But an estimate
/// decays and never reaches 0: without this bound, room would be left to other clients forever.
const MIN_FOREIGN_USE: f64 = 0.005;

/// Upper bound of foreign use as a share of the refill, so that the rest of the refill is above 0.
///
/// Moves, at 0.475: `8 processes, input` 429s 0.4 → 1.2.
const MAX_FOREIGN_USE: f64 = 0.95;

/// Weight of the rate that one header implies, in the estimate of foreign use.
///
/// Moves, doubled: `60% tenant in bursts` 429s 0.3 → 1.2.
const FOREIGN_USE_GAIN: f64 = 0.3;

/// Foreign use that one refusal adds to the estimate, as a share of the refill.
///
/// Moves, halved: `30% tenant, no headers` 429s 95.6 → 128.4. Doubled: `30% tenant, no headers`
/// 429s 95.6 → 60.0.
const SUSPECTED_USE: f64 = 0.1;

/// Share of the highest `remaining` below which a `remaining` under the band is evidence of other
/// clients. Above this share, the server's bucket may just hold less than its limit says.
///
/// Moves, halved: `30% tenant, output` 429s 0.0 → 0.8. At infinity, so that each difference means
/// other clients, no row moves; but where levels in headers are off by up to 5 %, `requests 500`
/// ratio 0.94 → 0.99.
const LOW_REMAINING: f64 = 0.3;

/// Lower bound in seconds of the interval over which a difference has grown: a shorter interval
/// would exaggerate the rate of foreign use.
///
/// Moves, halved: `60% tenant in bursts` 429s 0.3 → 1.2.
const MIN_INTERVAL: f64 = 2.0;

/// Share of the difference by which a `remaining` above the band raises the available amount. An
/// amount that is too high costs refusals; one that is too low costs only time.
///
/// Moves no row: headers above the band are rare and close to it. At 1 none moves by the threshold
/// (`30% tenant, output` 429s 0.2 → 0.6); but where levels in headers are off by up to 5 %, `input
/// 500` ratio 0.881 → 0.895 (5 seeds).
const RAISE_SHARE: f64 = 0.5;

/// Rounding error of the `remaining` requests: the API sends whole requests.
///
/// Moves, halved: `per second` ratio 1.04 → 1.02, 429s 1.0 → 0.3.
const REQUESTS_ROUNDING: f64 = 1.0;

/// Rounding error of the `remaining` tokens: the API rounds to the nearest thousand.
///
/// Moves no row: a fact about the API and not a tuning value.
pub(super) const TOKENS_ROUNDING: f64 = 500.0;

/// Part of the admission margin that applies to tokens at all times, as a share of the capacity.
///
/// Moves, at 0: `60% tenant in bursts` 429s 0.1 → 1.3. Flat between the half and the double.
const BASE_MARGIN: f64 = 0.01;

/// Part of the admission margin for the errors of estimates, in standard deviations of the summed
/// cost of the requests in flight and the new one.
///
/// Moves, doubled: `output 500` ratio 0.914 → 0.924.
const MARGIN_DEVIATIONS: f64 = 2.0;

/// Upper bound of the `MARGIN_DEVIATIONS` part as a share of the capacity: the deviations of long
/// outputs can exceed the whole bucket.
///
/// Moves, doubled: `long answers 500` ratio 1.144 → 1.162; `long answers 500, promised` ratio
/// 1.173 → 1.183.
const MAX_DEVIATION_MARGIN: f64 = 0.1;

/// Amount that requests leave to other clients, as a share of the capacity. An earlier simulation
/// of a steady tenant of 30 % had 39, 4.7, 0.3 and 0 refusals at 0, 3, 6 and 10 %.
///
/// Moves, at 0: `4 processes, requests` 429s 0.0 → 97.0; `30% tenant, requests` 429s 0.0 → 2.0.
/// Flat between the half and the double; for tokens `LARGE_REQUEST_ROOM` is mostly higher.
const ROOM_FOR_OTHERS: f64 = 0.08;

/// Amount that small requests leave to the large requests of other clients, as a share of the
/// capacity.
///
/// Moves, halved: `8 processes, input` 429s 0.4 → 11.4, longest wait 69 → 410 s; `4 processes,
/// input` 429s 0.1 → 5.8, longest wait 58 → 226 s; 2 more.
const LARGE_REQUEST_ROOM: f64 = 0.25;

/// Upper bound of `ROOM_FOR_OTHERS` and `LARGE_REQUEST_ROOM` as a share of the highest `remaining`:
/// if other clients never leave more, a request with more room would wait forever.
///
/// Moves, halved: `8 processes, input` 429s 0.4 → 11.9, longest wait 69 → 445 s; `4 processes,
/// input` 429s 0.1 → 5.4, longest wait 58 → 222 s; 2 more.
const MAX_ROOM_FOR_OTHERS: f64 = 0.3;

/// Upper bound of the whole margin as a share of the capacity while no request is in flight: what
/// the limit refills in 15 s, the longest time for which an idle client waits for the margin alone
/// (longer with foreign use).
///
/// Moves, doubled: `30% tenant at random` 429s 0.0 → 0.8.
const MAX_IDLE_MARGIN: f64 = 0.25;

/// Upper bound of `refusal_margin` as a share of the capacity.
///
/// Moves no row: a safety bound that a few refusals do not reach.
pub(super) const MAX_REFUSAL_MARGIN: f64 = 0.15;

/// Exponential growth of a guessed limit per second: ln 2 / 0.005, so 139 s, doubles it.
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

/// Number of iterations of `time_to_refill`; each raises the result towards the true time.
///
/// Moves no row: a matter of numerical precision; the iteration converges.
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
        assert_eq!(bucket.required(INPUT, 900.0, 1e12, Load::InFlight), 1_000.0);
        assert_eq!(
            bucket.required(INPUT, 5_000.0, 1e12, Load::InFlight),
            1_000.0
        );
        assert_eq!(bucket.required(INPUT, 100.0, 1e12, Load::Idle), 350.0);
    }

    #[test]
    fn small_requests_leave_room_for_large_ones() {
        let mut bucket = TokenBucket::default();
        bucket.set_limit(10_000.0, 1.0);
        bucket.highest_remaining = 10_000.0;
        let required = |bucket: &TokenBucket, index, cost| {
            bucket.required(index, cost, 0.0, Load::InFlight).round()
        };
        assert_eq!(required(&bucket, INPUT, 100.0), 200.0);
        bucket.foreign_rate = 0.5 * bucket.rate();
        for (cost, needed) in [(100.0, 2_600.0), (1_000.0, 2_600.0), (4_000.0, 4_900.0)] {
            assert_eq!(required(&bucket, INPUT, cost), needed, "{cost}");
        }
        // In the requests bucket each request costs 1: no room for larger ones.
        assert_eq!(required(&bucket, REQUESTS, 1.0), 801.0);
        // The highest `remaining` bounds the room for others.
        bucket.highest_remaining = 1_000.0;
        assert_eq!(required(&bucket, INPUT, 100.0), 500.0);
    }
}
