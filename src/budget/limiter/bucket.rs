//! One of the server's token buckets: its arithmetic, and what headers teach about it.

use super::math::exp;
use crate::budget::cost::{REQUESTS, Time, greater, lesser};

/// One of the server's buckets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// Per minute; 0 while unknown.
    pub(crate) limit: f64,
    /// How much it holds when full.
    pub(crate) depth: f64,
    /// Free to promise.
    pub(crate) free: f64,
    /// Expected cost of the requests in flight.
    pub(crate) promised: f64,
    /// The part of it that the server may not have charged yet.
    pub(crate) held: f64,
    /// The sum of the variances of the requests in flight.
    pub(crate) variance: f64,
    /// Use by others, per second.
    pub(crate) foreign: f64,
    /// By how much headers surprise, on average.
    pub(crate) noise: f64,
    /// An extra margin after refusals; it decays.
    pub(crate) guard: f64,
    /// The largest `remaining` that was seen.
    pub(crate) seen: f64,
    /// When headers last told what remains.
    pub(crate) read: Time,
    /// What corrections by headers came to so far.
    pub(crate) corrected: f64,
    /// What this client used so far.
    pub(crate) spent: f64,
    /// The limit is a guess after refusals without headers, and grows.
    pub(crate) guessed: bool,
}

impl Bucket {
    pub(crate) fn view(&self) -> Option<ServerView> {
        self.is_known().then_some(ServerView {
            limit: self.limit,
            free: self.free,
            foreign: self.foreign * MINUTE,
        })
    }

    pub(crate) fn is_known(&self) -> bool {
        self.limit > 0.0
    }

    /// A measure of what there is to forget: neither is ever negative.
    pub(crate) fn remembered(&self) -> f64 {
        self.foreign + self.noise
    }

    /// Whether time alone changes its margins or its depth to speak of.
    pub(crate) fn fades(&self) -> bool {
        self.guessed
            || self.foreign > MIN_FOREIGN_USE * self.rate()
            || self.noise > MIN_NOISE * self.depth
    }

    pub(crate) fn rate(&self) -> f64 {
        self.limit / MINUTE
    }

    /// Refills for the time that passed, over which the share `kept` of foreign use is remembered.
    pub(crate) fn refill(&mut self, passed: f64, kept: f64) {
        if !self.is_known() {
            return;
        }
        if self.guessed && self.limit < HIGHEST_GUESS {
            let grown = exp(passed * GUESS_GROWTH).min(HIGHEST_GUESS / self.limit);
            (self.limit, self.depth) = (self.limit * grown, self.depth * grown);
        }
        let taken = self.foreign * FOREIGN_USE_MEMORY * (1.0 - kept);
        self.foreign *= kept;
        self.noise *= kept;
        let level = self.free + self.held;
        let refilled = level + self.rate() * passed - taken;
        self.free += lesser(refilled, greater(self.depth, level)) - level;
    }

    /// How long it takes to refill by `tokens`: foreign use is forgotten meanwhile. Never too long.
    pub(crate) fn time_for(&self, tokens: f64) -> f64 {
        let mut time = tokens / self.rate();
        for _ in 0..REFILL_TIME_STEPS {
            let taken = self.foreign * FOREIGN_USE_MEMORY * (1.0 - kept(time));
            time = (tokens + taken) / self.rate();
        }
        time
    }

    /// The first header: what the bucket was taken to be before is no measure.
    pub(crate) fn begin(&mut self, now: Time, remaining: f64) {
        self.read = now;
        self.guessed = false;
        self.foreign = 0.0;
        let free = (remaining - self.promised).max(0.0);
        let before = std::mem::replace(&mut self.free, free);
        self.corrected -= free - before;
        self.clip();
        self.seen = self.seen.max(remaining);
    }

    /// Free and held together never exceed the depth.
    pub(crate) fn clip(&mut self) {
        if self.is_known() {
            self.free = lesser(self.free, self.depth - self.held);
        }
    }

    pub(crate) fn set_limit(&mut self, limit: f64, minutes: f64) {
        if self.is_known() && limit < self.limit {
            let before = self.free;
            self.free *= if self.free > 0.0 {
                limit / self.limit
            } else {
                1.0
            };
            self.corrected += before - self.free;
        }
        self.limit = limit;
        self.depth = (limit * minutes).max(1.0);
        self.guard = self.guard.min(MAX_REFUSAL_MARGIN * self.depth);
        self.clip();
    }

    pub(crate) fn lower_to(&mut self, level: f64) {
        if level < self.free {
            self.corrected += self.free - level;
            self.free = level;
        }
    }

    /// What must be free for a request of `cost`.
    pub(crate) fn need(&self, d: usize, cost: f64, variance: f64, idle: bool) -> f64 {
        let mut margin = self.guard + NOISE_MARGIN * self.noise;
        if d != REQUESTS {
            margin += BASE_MARGIN * self.depth;
        }
        let spread = MARGIN_DEVIATIONS * greater(self.variance + variance, 0.0).sqrt();
        margin += lesser(spread, MAX_DEVIATION_MARGIN * self.depth);
        if self.foreign > MIN_FOREIGN_USE * self.rate() {
            // Others are here: stay off the floor.
            let lent = MAX_SHARED_FLOOR * self.seen;
            let mut floor = lesser(SHARED_FLOOR * self.depth, lent);
            if d != REQUESTS {
                // What is smaller than a quarter of the bucket leaves room for what is not: who has
                // one of these would wait for the others for ever.
                floor = greater(floor, lesser(LARGE_REQUEST_ROOM * self.depth, lent) - cost);
            }
            margin += floor;
        }
        let cost = lesser(cost, self.depth);
        let mut margin = lesser(margin, self.depth - cost);
        if idle {
            margin = lesser(margin, MAX_IDLE_MARGIN * self.depth);
        }
        cost + margin
    }

    /// Compares what the server says is left with the range that the model took while the request
    /// lived: a value below it means that others are using the bucket. Returns by how much
    /// it surprises.
    pub(crate) fn compare(
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
        let (low, high) = (range.0 - self.corrected, range.1 - self.corrected);
        let busy = used >= BUSY_USE * self.rate() * life.max(MIN_INTERVAL)
            || remaining < LOW_LEVEL * self.seen;
        // A surprise has grown since the last headers, or since the request was sent.
        let span = life.max(now - self.read).max(MIN_INTERVAL);
        self.read = now;
        let most = MAX_NOISE_SAMPLE * self.depth;
        let mut surprise = 0.0;
        if remaining + rounding < low.max(0.0) {
            let missing = low - remaining - rounding;
            surprise = missing;
            self.free -= missing;
            self.corrected += missing;
            self.noise += NOISE_GAIN * (missing.min(most) - self.noise);
            if busy || self.foreign > 0.0 {
                // What the server never held, nobody took: the bucket may be shallower than thought.
                let full = self.seen - used;
                let taken = (low.min(full) - remaining - rounding).max(0.0);
                self.foreign = (self.foreign + FOREIGN_USE_GAIN * taken / span)
                    .min(MAX_FOREIGN_USE * self.rate());
            }
        } else if remaining - rounding > high {
            surprise = remaining - rounding - high;
            let more = RAISE_SHARE * surprise;
            self.free += more;
            self.corrected -= more;
            self.clip();
            self.noise += NOISE_GAIN * (more.min(most) - self.noise);
            self.foreign = (self.foreign - FOREIGN_USE_GAIN * more / span).max(0.0);
        } else {
            self.noise *= NOISE_DECAY;
        }
        self.seen = self.seen.max(remaining);
        surprise
    }

    /// Others seem to be using the bucket.
    pub(crate) fn suspect(&mut self) {
        self.foreign =
            (self.foreign + SUSPECTED_USE * self.rate()).min(MAX_FOREIGN_USE * self.rate());
    }
}

/// The share of foreign use that is remembered after so much time; the same for all buckets.
pub(crate) fn kept(passed: f64) -> f64 {
    exp(-passed / FOREIGN_USE_MEMORY)
}

/// One value for each bucket that is followed: requests, input, output charged as it is produced,
/// output reserved.
pub(crate) type PerBucket<T> = [T; 4];

/// What is known of one of the server's buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ServerView {
    /// Per minute.
    pub(crate) limit: f64,
    /// Free to promise; negative where estimates were too low.
    pub(crate) free: f64,
    /// What others seem to use, per minute.
    pub(crate) foreign: f64,
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
    fn refill_takes_as_long_as_was_said_whoever_else_uses_the_bucket() {
        for foreign in [0.0, 300.0, 950.0] {
            let mut bucket = Bucket::default();
            bucket.set_limit(60_000.0, 1.0);
            (bucket.free, bucket.foreign) = (0.0, foreign);
            let time = bucket.time_for(20_000.0);
            bucket.refill(time, kept(time));
            assert!((16_000.0..20_000.01).contains(&bucket.free), "{bucket:?}");
        }
    }

    #[test]
    fn refill_in_steps_and_at_once_come_to_the_same() {
        let mut at_once = Bucket::default();
        at_once.set_limit(60_000.0, 1.0);
        (at_once.free, at_once.foreign) = (0.0, 500.0);
        let mut in_steps = at_once;
        at_once.refill(30.0, kept(30.0));
        (0..300).for_each(|_| in_steps.refill(0.1, kept(0.1)));
        assert!((at_once.free - in_steps.free).abs() < 1e-6);
    }

    #[test]
    fn a_guess_grows_to_a_number_and_not_beyond() {
        for passed in [600.0, 1e5, 1e9, 1e300] {
            let mut bucket = Bucket::default();
            bucket.set_limit(60_000.0, 0.25);
            bucket.guessed = true;
            for _ in 0..3 {
                bucket.refill(passed, kept(passed));
            }
            let Bucket {
                limit, depth, free, ..
            } = bucket;
            assert!(
                limit > 1e6 && limit <= HIGHEST_GUESS * 1.001,
                "{passed}: {limit}"
            );
            assert!(
                (depth - limit / 4.0).abs() < 1.0 && free <= depth * 1.001,
                "{bucket:?}"
            );
        }
    }

    #[test]
    fn what_others_took_since_the_first_header_is_spread_over_that_time() {
        let foreign = |first: Time| {
            let mut bucket = Bucket::default();
            bucket.set_limit(60_000.0, 1.0);
            bucket.begin(first, 60_000.0);
            bucket.compare(1, 9_500.0, (60_000.0, 60_000.0), 100.0, 2.0, 0.0);
            bucket.foreign
        };
        // 50,000 in 50 s and in 5 s.
        assert_eq!((foreign(50.0), foreign(95.0)), (300.0, 950.0));
    }

    #[test]
    fn margins_never_exceed_what_the_bucket_holds() {
        let mut bucket = Bucket::default();
        bucket.set_limit(1_000.0, 1.0);
        (bucket.guard, bucket.noise, bucket.seen) = (1e9, 1e9, 1e9);
        bucket.foreign = bucket.rate();
        assert_eq!(bucket.need(1, 900.0, 1e12, false), 1_000.0);
        assert_eq!(bucket.need(1, 5_000.0, 1e12, false), 1_000.0);
        assert_eq!(bucket.need(1, 100.0, 1e12, true), 350.0);
    }

    #[test]
    fn where_others_are_small_requests_leave_room_for_large_ones() {
        let mut bucket = Bucket::default();
        bucket.set_limit(10_000.0, 1.0);
        bucket.seen = 10_000.0;
        let need = |bucket: &Bucket, d, cost| bucket.need(d, cost, 0.0, false).round();
        assert_eq!(need(&bucket, INPUT, 100.0), 200.0);
        bucket.foreign = 0.5 * bucket.rate();
        for (cost, needed) in [(100.0, 2_600.0), (1_000.0, 2_600.0), (4_000.0, 4_900.0)] {
            assert_eq!(need(&bucket, INPUT, cost), needed, "{cost}");
        }
        // One is like the other.
        assert_eq!(need(&bucket, REQUESTS, 1.0), 801.0);
        // Others that never leave much are not waited for.
        bucket.seen = 1_000.0;
        assert_eq!(need(&bucket, INPUT, 100.0), 500.0);
    }
}
