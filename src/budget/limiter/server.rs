//! The server's buckets, as this client understands them: what it may send without a refusal.

mod refused;

use crate::types::Dimension;

use super::bucket::{self, Bucket, PerBucket, ServerView, TOKENS_ROUNDING};
use super::estimate::{BOUND_DEVIATIONS, Estimate};
use super::headers::{HeaderValues, LimitHeaders};
use super::history::LevelHistory;
use crate::budget::cost::{Each, INPUT, OUTPUT, REQUESTS, Time, greater, lesser};

/// The server's three token buckets for one model class, followed through the headers.
///
/// Of each bucket it knows what is free to promise and what is promised. What is promised counts
/// as held until it is charged for certain; refill never lifts free and held together above the
/// depth of the bucket. From this follows that with promises that are in sum at least the truth,
/// the server can refuse nothing. Foreign use is the one thing that lowers the server's
/// level unseen: the headers show it.
///
/// Servers charge output as it is produced, or reserve `max_tokens` at the start and give back the
/// rest at the end, as the API did until 2025. The bucket is followed both ways, and believed the
/// way that the headers surprise less.
#[derive(Debug, Clone)]
pub(crate) struct ServerBuckets {
    buckets: PerBucket<Bucket>,
    history: LevelHistory,
    now: Time,
    in_flight: usize,
    /// The server is believed to reserve `max_tokens` at the start.
    reserves_most: bool,
    /// By how many tokens headers surprised more than they would if output were charged the other
    /// way.
    doubt: f64,
    /// No request has ended, and no header told what remains of the output.
    is_fresh: bool,
    /// When the last refusal was made use of: once per round, not once per request.
    last_round: Time,
}

/// The bucket of output, if `max_tokens` is reserved.
pub(crate) const RESERVED: usize = 3;

/// What the server holds for a request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketHold {
    cost: PerBucket<f64>,
    held: PerBucket<f64>,
    variance: PerBucket<f64>,
    /// What had been spent when it was sent.
    spent: PerBucket<f64>,
    sent: Time,
}

/// When a request will fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    Now,
    At(Time, Dimension),
    /// Refill alone brings none: something in flight must arrive or end first.
    NotNow(Dimension),
}

/// What the server will charge for a request, as expected, and how uncertain that is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedCharge {
    pub(crate) cost: PerBucket<f64>,
    pub(crate) variance: PerBucket<f64>,
}

impl ExpectedCharge {
    pub(crate) fn new(estimate: &Estimate, max_tokens: u64) -> ExpectedCharge {
        let ([requests, input, output], [_, unsure_input, unsure_output]) =
            (estimate.mean, estimate.variance);
        ExpectedCharge {
            cost: [requests, input, output, max_tokens as f64],
            variance: [0.0, unsure_input, unsure_output, 0.0],
        }
    }
}

impl ServerBuckets {
    pub(crate) fn new() -> ServerBuckets {
        ServerBuckets {
            buckets: [Bucket::default(); 4],
            history: LevelHistory::new(),
            now: 0.0,
            in_flight: 0,
            reserves_most: false,
            doubt: 0.0,
            is_fresh: true,
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
        let to_forget: f64 = self.buckets.iter().map(Bucket::remembered).sum();
        let kept = match to_forget > 0.0 {
            true => bucket::kept(passed),
            false => 1.0,
        };
        for bucket in &mut self.buckets {
            bucket.refill(passed, kept);
        }
        self.record();
    }

    /// When a request will fit.
    pub(crate) fn room(&self, charge: &ExpectedCharge) -> Room {
        let mut room = Room::Now;
        for dimension in Dimension::ALL {
            let d = self.believed(dimension.at());
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let need = bucket.need(d, charge.cost[d], charge.variance[d], self.in_flight == 0);
            // A sum of floats may miss a full bucket by a hair, for ever.
            if bucket.free >= need * (1.0 - SUM_TOLERANCE) {
                continue;
            }
            if need > bucket.depth - bucket.held {
                room = Room::NotNow(dimension);
                break;
            }
            let time = self.now + bucket.time_for(need - bucket.free) + TIME_TOLERANCE;
            if !matches!(room, Room::At(latest, _) if latest >= time) {
                room = Room::At(time, dimension);
            }
        }
        room
    }

    /// Promises a request's cost.
    pub(crate) fn admit(&mut self, charge: &ExpectedCharge) -> BucketHold {
        let ExpectedCharge { cost, variance } = *charge;
        let hold = BucketHold {
            cost,
            held: cost,
            variance,
            spent: self.buckets.each_ref().map(|bucket| bucket.spent),
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

    /// The request has surely arrived: what the server charges on arrival is charged.
    pub(crate) fn arrived(&mut self, hold: &mut BucketHold) {
        let unsure = BOUND_DEVIATIONS * hold.variance[INPUT].sqrt();
        self.hold_only(hold, REQUESTS, 0.0);
        self.hold_only(hold, INPUT, unsure);
        self.hold_only(hold, RESERVED, 0.0);
    }

    /// The server told what the input came to.
    pub(crate) fn input_is(&mut self, hold: &mut BucketHold, tokens: f64) {
        self.recharge(hold, INPUT, tokens);
        let bucket = &mut self.buckets[INPUT];
        bucket.variance -= std::mem::take(&mut hold.variance[INPUT]);
        self.hold_only(hold, INPUT, 0.0);
    }

    /// The stream has shown so much output: so much is charged, and no longer held.
    pub(crate) fn output_seen(&mut self, hold: &mut BucketHold, tokens: f64) {
        if tokens > hold.cost[OUTPUT] {
            self.recharge(hold, OUTPUT, tokens);
        }
        let rest = (hold.cost[OUTPUT] - tokens).max(0.0);
        self.hold_only(hold, OUTPUT, rest);
    }

    /// The request is over and came to `actual`.
    pub(crate) fn complete(&mut self, hold: &BucketHold, actual: &Each<f64>) {
        self.in_flight -= 1;
        self.is_fresh = false;
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let actual = actual[told_of(d)];
            bucket.held -= hold.held[d];
            bucket.promised -= hold.cost[d];
            bucket.variance -= hold.variance[d];
            bucket.spent += actual - hold.cost[d];
            if self.in_flight == 0 {
                // Sums of floats drift.
                (bucket.held, bucket.promised, bucket.variance) = (0.0, 0.0, 0.0);
            }
            // A debt of more than a bucket is no bucket's: a header will say what is left.
            bucket.free = greater(bucket.free + hold.cost[d] - actual, -bucket.depth);
            bucket.clip();
        }
        self.record();
    }

    /// A success: guards relax.
    pub(crate) fn succeeded(&mut self) {
        for bucket in &mut self.buckets {
            bucket.guard *= REFUSAL_MARGIN_DECAY;
        }
    }

    /// Learns from the headers of an answer to a request sent at `hold.sent`. Returns each limit
    /// that changed, with the old one.
    pub(crate) fn learn(
        &mut self,
        hold: &BucketHold,
        headers: &LimitHeaders,
    ) -> Each<Option<(f64, f64)>> {
        let mut changes = [None; 3];
        self.learn_first(hold, &headers.told[OUTPUT]);
        let ranges = self.history.since(hold.sent);
        let mut surprises = [0.0; 4];
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let told = headers.told[told_of(d)];
            if let Some(limit) = told.limit.filter(|limit| *limit > 0.0) {
                let first = !bucket.is_known() || bucket.guessed;
                if limit != bucket.limit {
                    changes[told_of(d)] = Some((bucket.limit, limit));
                    bucket.set_limit(limit, 1.0);
                }
                if first {
                    bucket.begin(self.now, told.remaining.unwrap_or(limit).min(limit));
                    continue;
                }
            }
            if let Some(remaining) = told.remaining.filter(|_| bucket.is_known()) {
                let life = self.now - hold.sent;
                let used = bucket.spent - hold.spent[d];
                surprises[d] = bucket.compare(d, remaining, ranges[d], self.now, life, used);
            }
        }
        self.record();
        self.estimate_size(surprises[OUTPUT], surprises[RESERVED]);
        changes
    }

    /// Sets what is known of the server beforehand. The buckets are taken to be full.
    pub(crate) fn assume(&mut self, limits: &Each<Option<f64>>) {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(limit) = limits[told_of(d)].filter(|limit| *limit > 0.0) {
                let was_known = bucket.is_known() && !bucket.guessed;
                bucket.guessed = false;
                bucket.set_limit(limit, 1.0);
                if !was_known {
                    bucket.free = limit - bucket.promised;
                }
                bucket.clip();
            }
        }
        self.history = LevelHistory::new();
        self.record();
    }

    /// Whether any limit is known.
    pub(crate) fn knows_any(&self) -> bool {
        self.buckets.iter().any(Bucket::is_known)
    }

    /// What each bucket refills per second for this client; unlimited where unknown.
    pub(crate) fn rates(&self) -> Each<f64> {
        let mut rates = [f64::INFINITY; 3];
        for (d, rate) in rates.iter_mut().enumerate() {
            let bucket = &self.buckets[self.believed(d)];
            if bucket.is_known() {
                *rate = bucket.rate() - bucket.foreign;
            }
        }
        rates
    }

    /// The earliest time at which `queued` and a request can all have been admitted: margins and
    /// foreign use ignored.
    pub(crate) fn at_best(&self, queued: &Each<f64>, charge: &ExpectedCharge) -> Time {
        let mut best = self.now;
        for (dimension, queued) in queued.iter().enumerate() {
            let d = self.believed(dimension);
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let spread = BOUND_DEVIATIONS * (bucket.variance + charge.variance[d]).max(0.0).sqrt();
            // At best what is in flight turns out to have cost nothing.
            let free = (bucket.free + bucket.promised).min(bucket.depth);
            let short = queued + charge.cost[d].min(bucket.depth) - free - spread;
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

    /// Whether time alone lowers what must be free of a dimension, or raises what it holds.
    pub(crate) fn fades(&self, dimension: Dimension) -> bool {
        self.buckets[self.believed(dimension.at())].fades()
    }

    /// What is known of a bucket.
    pub(crate) fn view(&self, d: usize) -> Option<ServerView> {
        self.buckets[self.believed(d)].view()
    }

    /// What is free and what is promised, of one bucket.
    #[cfg(test)]
    pub(crate) fn level(&self, d: usize) -> (f64, f64) {
        let bucket = &self.buckets[self.believed(d)];
        (bucket.free, bucket.promised)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is promised or held.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&self) -> bool {
        let rests = |b: &Bucket| b.promised == 0.0 && b.held == 0.0 && b.variance == 0.0;
        self.in_flight == 0 && self.buckets.iter().all(rests)
    }

    /// Of two buckets for the output, the one that is believed.
    fn believed(&self, d: usize) -> usize {
        match d {
            OUTPUT if self.reserves_most => RESERVED,
            _ => d,
        }
    }

    /// The first headers has nothing to be compared with, unless the bucket was full before: then
    /// little of the output has been produced, and all of it is gone where it is reserved.
    fn learn_first(&mut self, hold: &BucketHold, told: &HeaderValues) {
        if !self.is_fresh || told.remaining.is_none() {
            return;
        }
        self.is_fresh = false;
        if let (Some(limit), Some(remaining)) = (told.limit, told.remaining) {
            let gone = limit - remaining;
            // What was sent later may have arrived too.
            let least = hold.spent[RESERVED] + hold.cost[RESERVED];
            let most = self.buckets[RESERVED].spent;
            let is_much = least >= MIN_RESERVED_EVIDENCE;
            // Not all may have arrived; tokens are rounded to thousands.
            if is_much
                && gone >= ARRIVED_SHARE * least - TOKENS_ROUNDING
                && gone <= most + TOKENS_ROUNDING
            {
                self.switch_charging(true);
            }
        }
    }

    /// Weighs by how much a headers surprises, charged as produced or reserved. Where the other way
    /// explains less than three quarters of it, others have taken something.
    fn estimate_size(&mut self, produced: f64, reserved: f64) {
        let (ours, theirs) = match self.reserves_most {
            true => (reserved, produced),
            false => (produced, reserved),
        };
        let most = MAX_CHARGING_MISMATCH * self.buckets[OUTPUT].depth;
        self.doubt =
            (self.doubt + (ours - OTHER_CHARGING_WEIGHT * theirs).clamp(-most, most)).max(0.0);
        if self.doubt > most {
            self.switch_charging(!self.reserves_most);
        }
    }

    /// Changes how the server is taken to charge output.
    pub(crate) fn switch_charging(&mut self, reserves_most: bool) {
        self.reserves_most = reserves_most;
        self.doubt = 0.0;
        let bucket = &mut self.buckets[self.believed(OUTPUT)];
        (bucket.foreign, bucket.noise) = (0.0, 0.0);
    }

    fn hold_only(&mut self, hold: &mut BucketHold, d: usize, rest: f64) {
        let rest = lesser(rest, hold.held[d]);
        self.buckets[d].held -= hold.held[d] - rest;
        hold.held[d] = rest;
    }

    /// Changes a promise to what is known now.
    fn recharge(&mut self, hold: &mut BucketHold, d: usize, cost: f64) {
        let more = cost - std::mem::replace(&mut hold.cost[d], cost);
        let bucket = &mut self.buckets[d];
        bucket.promised += more;
        bucket.spent += more;
        bucket.free -= more;
        bucket.clip();
        self.record();
    }

    fn record(&mut self) {
        let buckets = self.buckets.each_ref();
        let low = buckets.map(|bucket| bucket.free + bucket.corrected);
        let mut high = buckets.map(|bucket| bucket.free + bucket.promised + bucket.corrected);
        // What is reserved is charged at once.
        let reserved = &self.buckets[RESERVED];
        high[RESERVED] = reserved.free + reserved.held + reserved.corrected;
        self.history.record(self.now, &low, &high);
    }
}

/// The dimension of which headers and usage tell what is in a bucket.
fn told_of(d: usize) -> usize {
    d.min(OUTPUT)
}

const MIN_RESERVED_EVIDENCE: f64 = 3_000.0;
const ARRIVED_SHARE: f64 = 0.7;
const MAX_CHARGING_MISMATCH: f64 = 0.1;
const OTHER_CHARGING_WEIGHT: f64 = 4.0;
const REFUSAL_MARGIN_DECAY: f64 = 0.99;
const SUM_TOLERANCE: f64 = 1e-9;

/// Added to computed times, so that what was computed is surely there.
const TIME_TOLERANCE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::limiter::headers::Refusal;

    /// What costs a request, and so many tokens of input and output.
    fn charge(input: f64, output: f64, max_tokens: f64) -> ExpectedCharge {
        ExpectedCharge {
            cost: [1.0, input, output, max_tokens],
            variance: [0.0; 4],
        }
    }

    fn told(limit: f64, remaining: f64) -> HeaderValues {
        HeaderValues {
            limit: Some(limit),
            remaining: Some(remaining),
        }
    }

    /// Headers that tell of the input bucket only.
    fn input(limit: f64, remaining: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.told[INPUT] = told(limit, remaining);
        headers
    }

    fn known() -> ServerBuckets {
        let mut server = ServerBuckets::new();
        server.assume(&[None, Some(60_000.0), None]);
        server
    }

    fn send(server: &mut ServerBuckets, tokens: f64) -> BucketHold {
        server.admit(&charge(tokens, 0.0, 0.0))
    }

    #[test]
    fn what_is_unknown_holds_nothing_back_and_the_first_header_tells_it() {
        let mut server = ServerBuckets::new();
        assert_eq!(server.room(&charge(1e9, 1e9, 1e9)), Room::Now);
        let hold = send(&mut server, 1_000.0);
        server.refill(1.0);
        server.learn(&hold, &input(60_000.0, 40_000.0));
        let view = server.view(INPUT).expect("it was told");
        assert_eq!((view.limit, view.free), (60_000.0, 39_000.0));
        assert_eq!(server.view(REQUESTS), None);
    }

    #[test]
    fn a_request_fits_at_the_stated_time() {
        let mut server = known();
        let mut hold = send(&mut server, 50_000.0);
        server.refill(2.5);
        server.arrived(&mut hold);
        let Room::At(time, Dimension::InputTokens) = server.room(&charge(12_000.0, 0.0, 0.0))
        else {
            panic!("{server:?}");
        };
        server.refill(time - 0.01);
        assert_ne!(server.room(&charge(12_000.0, 0.0, 0.0)), Room::Now);
        server.refill(time);
        assert_eq!(server.room(&charge(12_000.0, 0.0, 0.0)), Room::Now);
    }

    #[test]
    fn a_refund_never_lifts_the_bucket_above_what_may_still_be_charged() {
        let mut server = known();
        let first = send(&mut server, 30_000.0);
        send(&mut server, 20_000.0);
        server.complete(&first, &[1.0, 0.0, 0.0]);
        assert_eq!(server.level(INPUT), (40_000.0, 20_000.0));
    }

    #[test]
    fn a_reading_below_the_range_means_others_and_one_inside_means_nothing() {
        let mut server = known();
        let hold = send(&mut server, 10_000.0);
        server.refill(1.0);
        server.learn(&hold, &input(60_000.0, 50_000.0));
        assert_eq!(server.view(INPUT).map(|view| view.foreign), Some(0.0));
        let hold = send(&mut server, 40_000.0);
        server.refill(5.0);
        server.learn(&hold, &input(60_000.0, 2_000.0));
        let view = server.view(INPUT).expect("known");
        assert!(view.foreign > 0.0 && view.free < 8_000.0, "{view:?}");
        // The same surprise is not counted twice.
        let before = server.level(INPUT).0;
        server.learn(&hold, &input(60_000.0, 2_000.0));
        assert_eq!(server.level(INPUT).0, before);
    }

    #[test]
    fn limits_that_change_in_midrun_are_followed() {
        let mut server = known();
        let hold = send(&mut server, 1_000.0);
        let changes = server.learn(&hold, &input(6_000.0, 5_000.0));
        assert_eq!(changes[INPUT], Some((60_000.0, 6_000.0)));
        assert!(server.level(INPUT).0 <= 5_500.0);
        server.complete(&hold, &[1.0, 1_000.0, 0.0]);
        server.refill(100.0);
        assert!(server.level(INPUT).0 <= 6_000.0);
    }

    #[test]
    fn a_refusal_lowers_the_level_at_once_and_once_per_round_the_trust() {
        let mut server = known();
        for _ in 0..5 {
            server.refused(
                &charge(5_000.0, 0.0, 0.0),
                Some(Dimension::InputTokens),
                &input(60_000.0, 3_000.0),
            );
        }
        assert_eq!(server.level(INPUT).0, 3_000.0);
        assert_eq!(server.buckets[INPUT].guard, 1_100.0);
    }

    #[test]
    fn refusals_for_requests_although_some_are_left_say_so_once_per_round() {
        let mut server = ServerBuckets::new();
        server.assume(&[Some(6_000.0), None, None]);
        let mut headers = LimitHeaders::default();
        headers.told[REQUESTS] = told(6_000.0, 5_000.0);
        let mut refused = |now| {
            server.refill(now);
            server.refused(&charge(0.0, 0.0, 0.0), Some(Dimension::Requests), &headers)
        };
        let times = [1.0, 1.0, 1.0, 2.5, 3.5];
        assert_eq!(times.map(&mut refused), [true, false, false, false, true]);
    }

    #[test]
    fn without_headers_limits_are_guessed_from_use_and_grow() {
        let mut server = ServerBuckets::new();
        server.refill(10.0);
        server.guess_limits(None, &[100, 50_000, 0]);
        let limit = |server: &ServerBuckets| server.view(INPUT).map_or(0.0, |view| view.limit);
        assert_eq!(limit(&server), 42_500.0);
        server.guess_limits(None, &[100, 50_000, 0]);
        assert_eq!(limit(&server), 42_500.0, "one round, one cut");
        server.refill(13.0);
        server.guess_limits(None, &[100, 50_000, 0]);
        assert!(limit(&server) < 37_000.0);
        server.refill(113.0);
        assert!(limit(&server) > 50_000.0);
        let text = Refusal::Limit(Some(Dimension::InputTokens), Some(30_000.0));
        if let Refusal::Limit(Some(dimension), Some(told)) = text {
            server.told_limit(dimension, told);
        }
        assert_eq!(limit(&server), 30_000.0);
    }

    #[test]
    fn a_guess_that_has_grown_for_days_is_brought_down_by_one_refusal() {
        let mut server = ServerBuckets::new();
        server.guess_limits(None, &[100, 50_000, 0]);
        server.refill(200_000.0);
        server.guess_limits(None, &[100, 50_000, 0]);
        assert_eq!(server.view(INPUT).map(|view| view.limit), Some(85_000.0));
    }

    #[test]
    fn no_limit_is_guessed_to_be_lower_than_the_lowest_there_is() {
        let mut server = ServerBuckets::new();
        server.guess_limits(None, &[2, 3_000, 500]);
        assert!(!server.knows_any());
        server.guess_limits(None, &[2, 12_000, 500]);
        for round in 1..20 {
            server.refill(3.0 * f64::from(round));
            server.guess_limits(None, &[2, 12_000, 500]);
        }
        assert_eq!(server.view(INPUT).map(|view| view.limit), Some(10_000.0));
    }

    #[test]
    fn what_is_larger_than_the_bucket_goes_alone_when_it_is_full() {
        let mut server = known();
        let hold = send(&mut server, 30_000.0);
        let large = charge(90_000.0, 0.0, 0.0);
        assert_eq!(server.room(&large), Room::NotNow(Dimension::InputTokens));
        server.complete(&hold, &[1.0, 30_000.0, 0.0]);
        server.refill(29.0);
        assert!(matches!(server.room(&large), Room::At(time, _) if time < 30.1));
        server.refill(30.1);
        assert_eq!(server.room(&large), Room::Now);
    }

    /// Headers that tell of the output bucket only.
    fn output(remaining: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.told[OUTPUT] = told(60_000.0, remaining);
        headers
    }

    #[test]
    fn a_server_that_reserves_max_tokens_is_recognised_at_the_first_reading() {
        for (sent_before, sent_after) in [(0, 0), (2, 0), (0, 2)] {
            let mut server = ServerBuckets::new();
            let send = |server: &mut ServerBuckets| server.admit(&charge(0.0, 500.0, 8_000.0));
            (0..sent_before).for_each(|_| _ = send(&mut server));
            let hold = send(&mut server);
            (0..sent_after).for_each(|_| _ = send(&mut server));
            server.refill(3.0);
            server.learn(&hold, &output(52_000.0 - 8_000.0 * f64::from(sent_before)));
            assert!(server.reserves_most, "{sent_before} {sent_after}");
        }
        let mut server = ServerBuckets::new();
        let hold = server.admit(&charge(0.0, 500.0, 8_000.0));
        server.learn(&hold, &output(60_000.0));
        assert!(!server.reserves_most);
    }

    #[test]
    fn how_output_is_charged_is_what_surprises_less() {
        let mut server = ServerBuckets::new();
        let mut now = 0.0;
        let mut round = |server: &mut ServerBuckets, remaining: f64| {
            let holds = [0; 5].map(|_| {
                let mut hold = server.admit(&charge(0.0, 500.0, 8_000.0));
                now += 2.0;
                server.refill(now);
                server.arrived(&mut hold);
                hold
            });
            server.learn(&holds[4], &output(remaining));
            for hold in &holds {
                server.complete(hold, &[1.0, 0.0, 500.0]);
            }
            now += 60.0;
            server.refill(now);
        };
        // At first the bucket is not full, whatever the reason.
        round(&mut server, 30_000.0);
        round(&mut server, 20_000.0);
        round(&mut server, 20_000.0);
        assert!(server.reserves_most);
        round(&mut server, 59_000.0);
        round(&mut server, 59_000.0);
        assert!(!server.reserves_most);
        // Others take from the bucket either way.
        for remaining in [10_000.0, 52_000.0, 10_000.0, 40_000.0] {
            round(&mut server, remaining);
        }
        assert!(!server.reserves_most);
    }

    #[test]
    fn a_refusal_while_tokens_are_left_shows_that_max_tokens_is_reserved() {
        let refused = |most, left| {
            let mut server = ServerBuckets::new();
            server.assume(&[None, None, Some(60_000.0)]);
            let dimension = Some(Dimension::OutputTokens);
            server.refused(&charge(0.0, 500.0, most), dimension, &output(left));
            server.reserves_most
        };
        assert!(refused(8_000.0, 7_000.0));
        assert!(!refused(8_000.0, 0.0));
        assert!(!refused(2_000.0, 7_000.0));
    }
}
