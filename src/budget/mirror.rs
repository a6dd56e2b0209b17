//! The server's buckets, as this client understands them: what it may send without a refusal.

use super::cost::{Dimension, Each, INPUT, OUTPUT, REQUESTS, Time};
use super::estimate::Estimate;
use super::reading::Reading;
use super::trace::Trace;

/// The server's three token buckets for one model class, followed through the headers.
///
/// Of each bucket it knows what is free to promise and what is promised. What is promised counts
/// as held until it is charged for certain; refill never lifts free and held together above the
/// depth of the bucket. From this follows that with promises that are in sum at least the truth,
/// the server can refuse nothing (5.2). Foreign use is the one thing that lowers the server's
/// level unseen: the headers show it (5.4).
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    buckets: Each<Bucket>,
    trace: Trace,
    now: Time,
    in_flight: usize,
    /// The server reserves `max_tokens` at the start, as it did until 2025.
    reserves_most: bool,
    /// Refusals for output in a row while the headers showed room.
    odd_refusals: u32,
    /// When the last refusal was made use of: once per round, not once per request.
    last_round: Time,
}

/// One of the server's buckets.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Per minute; 0 while unknown.
    limit: f64,
    /// How much it holds when full.
    depth: f64,
    /// Free to promise.
    free: f64,
    /// Expected cost of the requests in flight.
    promised: f64,
    /// The part of it that the server may not have charged yet.
    held: f64,
    /// The sum of the variances of the requests in flight.
    variance: f64,
    /// Use by others, per second.
    foreign: f64,
    /// By how much headers surprise, on average.
    noise: f64,
    /// An extra margin after refusals; it decays.
    guard: f64,
    /// The largest `remaining` that was seen.
    seen: f64,
    /// What corrections by headers came to so far.
    corrected: f64,
    /// What this client used so far.
    spent: f64,
    /// The limit is a guess after refusals without headers, and grows.
    guessed: bool,
}

/// What the mirror holds for a request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    cost: Each<f64>,
    held: Each<f64>,
    variance: Each<f64>,
    /// What had been spent when it was sent.
    spent: Each<f64>,
    sent: Time,
}

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

/// When a request will fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    Now,
    At(Time, Dimension),
    /// Refill alone brings none: something in flight must arrive or end first.
    Later(Dimension),
}

impl Mirror {
    pub(crate) fn new() -> Mirror {
        Mirror {
            buckets: [Bucket::default(); 3],
            trace: Trace::new(),
            now: 0.0,
            in_flight: 0,
            reserves_most: false,
            odd_refusals: 0,
            last_round: f64::NEG_INFINITY,
        }
    }

    /// Refills the buckets up to `now`.
    pub(crate) fn refill(&mut self, now: Time) {
        let passed = now - self.now;
        if passed <= 0.0 {
            return;
        }
        self.now = now;
        let kept = (-passed / FORGETTING).exp();
        for bucket in &mut self.buckets {
            bucket.refill(passed, kept);
        }
        self.record();
    }

    /// What the server will charge for a request at most, as expected.
    pub(crate) fn cost(&self, estimate: &Estimate, max_tokens: u64) -> (Each<f64>, Each<f64>) {
        let (mut cost, mut variance) = (estimate.mean, estimate.variance);
        if self.reserves_most {
            cost[OUTPUT] = max_tokens as f64;
            variance[OUTPUT] = 0.0;
        }
        (cost, variance)
    }

    /// When a request will fit (5.3).
    pub(crate) fn room(&self, cost: &Each<f64>, variance: &Each<f64>) -> Room {
        let mut room = Room::Now;
        for dimension in Dimension::ALL {
            let d = dimension.at();
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let need = bucket.need(d, cost[d], variance[d], self.in_flight == 0);
            if bucket.free >= need {
                continue;
            }
            if need > bucket.depth - bucket.held {
                room = Room::Later(dimension);
                break;
            }
            let rate = bucket.rate();
            let wait = (need - bucket.free) / (rate - bucket.foreign).max(0.02 * rate);
            let time = self.now + wait + TICK;
            if !matches!(room, Room::At(latest, _) if latest >= time) {
                room = Room::At(time, dimension);
            }
        }
        room
    }

    /// Promises a request's cost.
    pub(crate) fn admit(&mut self, cost: &Each<f64>, variance: &Each<f64>) -> Hold {
        let hold = Hold {
            cost: *cost,
            held: *cost,
            variance: *variance,
            spent: self.buckets.map(|bucket| bucket.spent),
            sent: self.now,
        };
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            bucket.free -= cost[d];
            bucket.promised += cost[d];
            bucket.held += cost[d];
            bucket.variance += variance[d];
            bucket.spent += cost[d];
        }
        self.in_flight += 1;
        self.record();
        hold
    }

    /// The request has surely arrived: what the server charges on arrival is charged (5.2).
    pub(crate) fn arrived(&mut self, hold: &mut Hold) {
        let rest = if self.reserves_most {
            0.0
        } else {
            hold.held[OUTPUT]
        };
        let unsure = 2.0 * hold.variance[INPUT].sqrt();
        self.hold_only(hold, REQUESTS, 0.0);
        self.hold_only(hold, INPUT, unsure);
        self.hold_only(hold, OUTPUT, rest);
    }

    /// The server told what the input came to.
    pub(crate) fn input_is(&mut self, hold: &mut Hold, tokens: f64) {
        self.recharge(hold, INPUT, tokens);
        let bucket = &mut self.buckets[INPUT];
        bucket.variance -= std::mem::take(&mut hold.variance[INPUT]);
        self.hold_only(hold, INPUT, 0.0);
    }

    /// The stream has shown so much output: so much is charged, and no longer held.
    pub(crate) fn output_seen(&mut self, hold: &mut Hold, tokens: f64) {
        if self.reserves_most {
            return;
        }
        if tokens > hold.cost[OUTPUT] {
            self.recharge(hold, OUTPUT, tokens);
        }
        let rest = (hold.cost[OUTPUT] - tokens).max(0.0);
        self.hold_only(hold, OUTPUT, rest);
    }

    /// The request is over and came to `actual`.
    pub(crate) fn complete(&mut self, hold: &Hold, actual: &Each<f64>) {
        self.in_flight -= 1;
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            bucket.held -= hold.held[d];
            bucket.promised -= hold.cost[d];
            bucket.variance -= hold.variance[d];
            bucket.spent += actual[d] - hold.cost[d];
            if self.in_flight == 0 {
                // Sums of floats drift.
                (bucket.held, bucket.promised, bucket.variance) = (0.0, 0.0, 0.0);
            }
            bucket.free += hold.cost[d] - actual[d];
            bucket.clip();
        }
        self.record();
    }

    /// A success: guards relax.
    pub(crate) fn succeeded(&mut self) {
        self.odd_refusals = 0;
        for bucket in &mut self.buckets {
            bucket.guard *= 0.99;
        }
    }

    /// Learns from the headers of an answer to a request sent at `hold.sent`. Returns each limit
    /// that changed, with the old one.
    pub(crate) fn learn(&mut self, hold: &Hold, reading: &Reading) -> Each<Option<(f64, f64)>> {
        let mut changes = [None; 3];
        let ranges = self.trace.since(hold.sent);
        for d in 0..3 {
            let bucket = &mut self.buckets[d];
            let told = reading.told[d];
            if let Some(limit) = told.limit.filter(|limit| *limit > 0.0) {
                let first = !bucket.is_known() || bucket.guessed;
                if limit != bucket.limit {
                    changes[d] = Some((bucket.limit, limit));
                    bucket.set_limit(limit, 1.0);
                }
                if first {
                    // What it was before its first header is no measure.
                    bucket.guessed = false;
                    bucket.foreign = 0.0;
                    let free = told.remaining.unwrap_or(limit).min(limit) - bucket.promised;
                    let before = std::mem::replace(&mut bucket.free, free.max(0.0));
                    bucket.corrected -= bucket.free - before;
                    bucket.clip();
                    bucket.seen = bucket.seen.max(told.remaining.unwrap_or(0.0));
                    continue;
                }
            }
            if let Some(remaining) = told.remaining.filter(|_| bucket.is_known()) {
                let life = (self.now - hold.sent).max(2.0);
                let used = bucket.spent - hold.spent[d];
                bucket.compare(d, remaining, ranges[d], life, used);
            }
        }
        self.record();
        changes
    }

    /// Sets what is known of the server beforehand. The buckets are taken to be full.
    pub(crate) fn assume(&mut self, limits: &Each<Option<f64>>) {
        for (bucket, limit) in self.buckets.iter_mut().zip(limits) {
            if let Some(limit) = limit.filter(|limit| *limit > 0.0) {
                let was_known = bucket.is_known();
                bucket.set_limit(limit, 1.0);
                if !was_known {
                    bucket.free = limit - bucket.promised;
                }
                bucket.clip();
            }
        }
        self.trace = Trace::new();
        self.record();
    }

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
            self.odd_refusals += 1;
            self.reserves_most |= self.odd_refusals >= 2;
        }
    }

    /// Refused, with neither limits nor headers to know why: the limits become a little less than
    /// what was `used` in the last minute, and shrink with each round of refusals (5.5).
    pub(crate) fn guess_limits(&mut self, dimension: Option<Dimension>, used: &Each<u64>) {
        if self.now < self.last_round + ROUND && self.buckets.iter().any(|b| b.guessed) {
            return;
        }
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if dimension.is_some_and(|dimension| dimension.at() != d) {
                continue;
            }
            if bucket.guessed {
                bucket.set_limit(bucket.limit * BACK_OFF, GUESSED_DEPTH);
            } else if !bucket.is_known() && used[d] > 0 {
                bucket.guessed = true;
                bucket.set_limit(used[d] as f64 * BACK_OFF, GUESSED_DEPTH);
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

    /// Whether the limit of a dimension, or of any, is known.
    pub(crate) fn knows(&self, d: usize) -> bool {
        self.buckets[d].is_known()
    }

    pub(crate) fn knows_any(&self) -> bool {
        self.buckets.iter().any(Bucket::is_known)
    }

    /// What each bucket refills per second for this client; unlimited where unknown.
    pub(crate) fn rates(&self) -> Each<f64> {
        self.buckets.map(|bucket| match bucket.is_known() {
            true => (bucket.rate() - bucket.foreign).max(0.02 * bucket.rate()),
            false => f64::INFINITY,
        })
    }

    /// The earliest time at which `queued` and a request can all have been admitted: margins and
    /// foreign use ignored (5.8).
    pub(crate) fn at_best(
        &self,
        queued: &Each<f64>,
        cost: &Each<f64>,
        variance: &Each<f64>,
    ) -> Time {
        let mut best = self.now;
        for (d, bucket) in self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, b)| b.is_known())
        {
            let spread = 2.0 * (bucket.variance + variance[d]).max(0.0).sqrt();
            // At best what is in flight turns out to have cost nothing.
            let free = (bucket.free + bucket.promised).min(bucket.depth);
            let short = queued[d] + cost[d].min(bucket.depth) - free - spread;
            best = best.max(self.now + short / bucket.rate());
        }
        best
    }

    /// The dimension in which a request can never fit. Output is no reason: it is charged as it
    /// is produced.
    pub(crate) fn excess(&self, estimate: &Estimate) -> Option<Dimension> {
        let bucket = &self.buckets[INPUT];
        (bucket.is_known() && !bucket.guessed && estimate.at_least(INPUT) > bucket.depth)
            .then_some(Dimension::InputTokens)
    }

    /// What is known of a bucket.
    pub(crate) fn view(&self, d: usize) -> Option<ServerView> {
        let bucket = &self.buckets[d];
        bucket.is_known().then(|| ServerView {
            limit: bucket.limit,
            free: bucket.free,
            foreign: bucket.foreign * MINUTE,
        })
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is promised or held.
    pub(crate) fn is_at_rest(&self) -> bool {
        let rests = |b: &Bucket| b.promised == 0.0 && b.held == 0.0 && b.variance == 0.0;
        self.in_flight == 0 && self.buckets.iter().all(rests)
    }

    fn hold_only(&mut self, hold: &mut Hold, d: usize, rest: f64) {
        let rest = rest.min(hold.held[d]);
        self.buckets[d].held -= hold.held[d] - rest;
        hold.held[d] = rest;
    }

    /// Changes a promise to what is known now.
    fn recharge(&mut self, hold: &mut Hold, d: usize, cost: f64) {
        let more = cost - std::mem::replace(&mut hold.cost[d], cost);
        let bucket = &mut self.buckets[d];
        bucket.promised += more;
        bucket.spent += more;
        bucket.free -= more;
        bucket.clip();
        self.record();
    }

    fn record(&mut self) {
        let low = self.buckets.map(|bucket| bucket.free + bucket.corrected);
        let high = self
            .buckets
            .map(|bucket| bucket.free + bucket.promised + bucket.corrected);
        self.trace.record(self.now, &low, &high);
    }
}

impl Bucket {
    fn is_known(&self) -> bool {
        self.limit > 0.0
    }

    fn rate(&self) -> f64 {
        self.limit / MINUTE
    }

    fn refill(&mut self, passed: f64, kept: f64) {
        if !self.is_known() {
            return;
        }
        self.foreign *= kept;
        let level = self.free + self.held;
        let refilled = level + (self.rate() - self.foreign) * passed;
        self.free += refilled.min(self.depth.max(level)) - level;
        if self.guessed {
            let shallow = self.depth / self.limit;
            self.limit *= (passed * GROWTH).exp();
            self.depth = self.limit * shallow;
        }
    }

    /// Free and held together never exceed the depth.
    fn clip(&mut self) {
        if self.is_known() {
            self.free = self.free.min(self.depth - self.held);
        }
    }

    fn set_limit(&mut self, limit: f64, minutes: f64) {
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
        self.guard = self.guard.min(0.15 * self.depth);
        self.clip();
    }

    fn lower_to(&mut self, level: f64) {
        if level < self.free {
            self.corrected += self.free - level;
            self.free = level;
        }
    }

    /// What must be free for a request of `cost`.
    fn need(&self, d: usize, cost: f64, variance: f64, idle: bool) -> f64 {
        let mut margin = self.guard + 3.0 * self.noise;
        if d != REQUESTS {
            margin += 0.01 * self.depth;
        }
        let spread = 2.0 * (self.variance + variance).max(0.0).sqrt();
        margin += spread.min(0.1 * self.depth);
        if self.foreign > 0.005 * self.rate() {
            // Others are here: stay off the floor.
            margin += (0.08 * self.depth).min(0.3 * self.seen);
        }
        let cost = cost.min(self.depth);
        let mut margin = margin.min(self.depth - cost);
        if idle {
            margin = margin.min(0.25 * self.depth);
        }
        cost + margin
    }

    /// Compares what the server says is left with the range that the model took while the request
    /// lived (5.4): a value below it means that others are using the bucket.
    fn compare(&mut self, d: usize, remaining: f64, range: (f64, f64), life: f64, used: f64) {
        self.seen = self.seen.max(remaining);
        // Tokens are rounded to thousands.
        let rounding = if d == REQUESTS { 1.0 } else { 500.0 };
        let (low, high) = (range.0 - self.corrected, range.1 - self.corrected);
        let busy = used >= 0.7 * self.rate() * life || remaining < 0.3 * self.seen;
        let most = 0.05 * self.depth;
        if remaining + rounding < low.max(0.0) {
            let missing = low - remaining - rounding;
            self.free -= missing;
            self.corrected += missing;
            self.noise += 0.05 * (missing.min(most) - self.noise);
            if busy || self.foreign > 0.0 {
                self.foreign = (self.foreign + 0.3 * missing / life).min(0.95 * self.rate());
            }
        } else if remaining - rounding > high {
            let more = (remaining - rounding - high) / 2.0;
            self.free += more;
            self.corrected -= more;
            self.clip();
            self.noise += 0.05 * (more.min(most) - self.noise);
            self.foreign = (self.foreign - 0.3 * more / life).max(0.0);
        } else {
            self.noise *= 0.98;
        }
    }

    /// Others seem to be using the bucket.
    fn suspect(&mut self) {
        self.foreign = (self.foreign + 0.1 * self.rate()).min(0.95 * self.rate());
    }
}

const MINUTE: f64 = 60.0;

/// Foreign use is forgotten over so many seconds, which also makes shares even (5.4).
const FORGETTING: f64 = 60.0;

/// Refusals within so many seconds are one round (5.5).
const ROUND: f64 = 2.0;

/// A guessed limit, of what was used when refused; and by how much it grows per second.
const BACK_OFF: f64 = 0.85;
const GROWTH: f64 = 0.005;

/// A guessed bucket holds 15 s worth.
const GUESSED_DEPTH: f64 = 0.25;

/// Added to computed times, so that what was computed is surely there.
const TICK: f64 = 1e-6;
