//! The server's buckets, as this client understands them: what it may send without a refusal.

use crate::types::Dimension;

use super::estimate::{BOUND_DEVIATIONS, Estimate};
use super::headers::{HeaderValues, LimitHeaders};
use super::level_history::LevelHistory;
use super::token_bucket::{self, BucketView, PerBucket, TOKENS_ROUNDING, TokenBucket};
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
    pub(super) buckets: PerBucket<TokenBucket>,
    pub(super) history: LevelHistory,
    pub(super) now: Time,
    in_flight: usize,
    /// The server is believed to reserve `max_tokens` at the start.
    pub(super) reserves_most: bool,
    /// By how many tokens headers surprised more than they would if output were charged the other
    /// way.
    charging_mismatch: f64,
    /// No request has ended, and no header told what remains of the output.
    is_charging_untested: bool,
    /// When the last refusal was made use of: once per round, not once per request.
    pub(super) last_refusal_round: Time,
}

/// The bucket of output, if `max_tokens` is reserved.
pub(crate) const MAX_OUTPUT: usize = 3;

/// What the server holds for a request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketHold {
    cost: PerBucket<f64>,
    uncharged: PerBucket<f64>,
    variance: PerBucket<f64>,
    /// What had been spent when it was sent.
    total_used: PerBucket<f64>,
    sent_at: Time,
}

/// When a request will fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    Now,
    At(Time, Dimension),
    /// Refill alone brings none: something in flight must arrive or end first.
    AfterEvent(Dimension),
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
            buckets: [TokenBucket::default(); 4],
            history: LevelHistory::new(),
            now: 0.0,
            in_flight: 0,
            reserves_most: false,
            charging_mismatch: 0.0,
            is_charging_untested: true,
            last_refusal_round: f64::NEG_INFINITY,
        }
    }

    /// Refills the buckets up to `now`.
    pub(crate) fn refill(&mut self, now: Time) {
        let passed = now - self.now;
        if passed <= 0.0 {
            return;
        }
        self.now = now;
        let to_forget: f64 = self.buckets.iter().map(TokenBucket::remembered).sum();
        let decay = match to_forget > 0.0 {
            true => token_bucket::decay(passed),
            false => 1.0,
        };
        for bucket in &mut self.buckets {
            bucket.refill(passed, decay);
        }
        self.record_levels();
    }

    /// When a request will fit.
    pub(crate) fn find_room(&self, charge: &ExpectedCharge) -> Room {
        let mut find_room = Room::Now;
        for dimension in Dimension::ALL {
            let d = self.bucket_of(dimension.at());
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let required =
                bucket.required(d, charge.cost[d], charge.variance[d], self.in_flight == 0);
            // A sum of floats may miss a full bucket by a hair, for ever.
            if bucket.available >= required * (1.0 - SUM_TOLERANCE) {
                continue;
            }
            if required > bucket.capacity - bucket.uncharged {
                find_room = Room::AfterEvent(dimension);
                break;
            }
            let time =
                self.now + bucket.time_to_refill(required - bucket.available) + TIME_TOLERANCE;
            if !matches!(find_room, Room::At(latest, _) if latest >= time) {
                find_room = Room::At(time, dimension);
            }
        }
        find_room
    }

    /// Promises a request's cost.
    pub(crate) fn reserve(&mut self, charge: &ExpectedCharge) -> BucketHold {
        let ExpectedCharge { cost, variance } = *charge;
        let hold = BucketHold {
            cost,
            uncharged: cost,
            variance,
            total_used: self.buckets.each_ref().map(|bucket| bucket.total_used),
            sent_at: self.now,
        };
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            bucket.available -= cost[d];
            bucket.reserved += cost[d];
            bucket.uncharged += cost[d];
            bucket.variance += variance[d];
            bucket.total_used += cost[d];
        }
        self.in_flight += 1;
        self.record_levels();
        hold
    }

    /// The request has surely arrived: what the server charges on arrival is charged.
    pub(crate) fn mark_arrived(&mut self, hold: &mut BucketHold) {
        let unsure = BOUND_DEVIATIONS * hold.variance[INPUT].sqrt();
        self.reduce_uncharged(hold, REQUESTS, 0.0);
        self.reduce_uncharged(hold, INPUT, unsure);
        self.reduce_uncharged(hold, MAX_OUTPUT, 0.0);
    }

    /// The server told what the input came to.
    pub(crate) fn settle_input(&mut self, hold: &mut BucketHold, tokens: f64) {
        self.change_cost(hold, INPUT, tokens);
        let bucket = &mut self.buckets[INPUT];
        bucket.variance -= std::mem::take(&mut hold.variance[INPUT]);
        self.reduce_uncharged(hold, INPUT, 0.0);
    }

    /// The stream has shown so much output: so much is charged, and no longer held.
    pub(crate) fn charge_output(&mut self, hold: &mut BucketHold, tokens: f64) {
        if tokens > hold.cost[OUTPUT] {
            self.change_cost(hold, OUTPUT, tokens);
        }
        let rest = (hold.cost[OUTPUT] - tokens).max(0.0);
        self.reduce_uncharged(hold, OUTPUT, rest);
    }

    /// The request is over and came to `actual`.
    pub(crate) fn settle(&mut self, hold: &BucketHold, actual: &Each<f64>) {
        self.in_flight -= 1;
        self.is_charging_untested = false;
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let actual = actual[dimension_of(d)];
            bucket.uncharged -= hold.uncharged[d];
            bucket.reserved -= hold.cost[d];
            bucket.variance -= hold.variance[d];
            bucket.total_used += actual - hold.cost[d];
            if self.in_flight == 0 {
                // Sums of floats drift.
                (bucket.uncharged, bucket.reserved, bucket.variance) = (0.0, 0.0, 0.0);
            }
            // A debt of more than a bucket is no bucket's: a header will say what is left.
            bucket.available = greater(bucket.available + hold.cost[d] - actual, -bucket.capacity);
            bucket.limit_to_capacity();
        }
        self.record_levels();
    }

    /// A success: guards relax.
    pub(crate) fn relax_refusal_margins(&mut self) {
        for bucket in &mut self.buckets {
            bucket.refusal_margin *= REFUSAL_MARGIN_DECAY;
        }
    }

    /// Learns from the headers of an answer to a request sent at `hold.sent`. Returns each limit
    /// that changed, with the old one.
    pub(crate) fn learn_from_headers(
        &mut self,
        hold: &BucketHold,
        headers: &LimitHeaders,
    ) -> Each<Option<(f64, f64)>> {
        let mut changes = [None; 3];
        self.detect_charging(hold, &headers.values[OUTPUT]);
        let ranges = self.history.since(hold.sent_at);
        let mut surprises = [0.0; 4];
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let told = headers.values[dimension_of(d)];
            if let Some(limit) = told.limit.filter(|limit| *limit > 0.0) {
                let first = !bucket.is_known() || bucket.is_guess;
                if limit != bucket.limit {
                    changes[dimension_of(d)] = Some((bucket.limit, limit));
                    bucket.set_limit(limit, 1.0);
                }
                if first {
                    bucket.start_from_header(self.now, told.remaining.unwrap_or(limit).min(limit));
                    continue;
                }
            }
            if let Some(remaining) = told.remaining.filter(|_| bucket.is_known()) {
                let life = self.now - hold.sent_at;
                let used = bucket.total_used - hold.total_used[d];
                surprises[d] =
                    bucket.correct_from_header(d, remaining, ranges[d], self.now, life, used);
            }
        }
        self.record_levels();
        self.weigh_charging(surprises[OUTPUT], surprises[MAX_OUTPUT]);
        changes
    }

    /// Sets what is known of the server beforehand. The buckets are taken to be full.
    pub(crate) fn assume_limits(&mut self, limits: &Each<Option<f64>>) {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(limit) = limits[dimension_of(d)].filter(|limit| *limit > 0.0) {
                let was_known = bucket.is_known() && !bucket.is_guess;
                bucket.is_guess = false;
                bucket.set_limit(limit, 1.0);
                if !was_known {
                    bucket.available = limit - bucket.reserved;
                }
                bucket.limit_to_capacity();
            }
        }
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// Whether any limit is known.
    pub(crate) fn has_known_limit(&self) -> bool {
        self.buckets.iter().any(TokenBucket::is_known)
    }

    /// What each bucket refills per second for this client; unlimited where unknown.
    pub(crate) fn refill_rates(&self) -> Each<f64> {
        let mut refill_rates = [f64::INFINITY; 3];
        for (d, rate) in refill_rates.iter_mut().enumerate() {
            let bucket = &self.buckets[self.bucket_of(d)];
            if bucket.is_known() {
                *rate = bucket.rate() - bucket.foreign_rate;
            }
        }
        refill_rates
    }

    /// The earliest time at which `queued` and a request can all have been admitted: margins and
    /// foreign use ignored.
    pub(crate) fn earliest_possible(&self, queued: &Each<f64>, charge: &ExpectedCharge) -> Time {
        let mut best = self.now;
        for (dimension, queued) in queued.iter().enumerate() {
            let d = self.bucket_of(dimension);
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let spread = BOUND_DEVIATIONS * (bucket.variance + charge.variance[d]).max(0.0).sqrt();
            // At best what is in flight turns out to have cost nothing.
            let available = (bucket.available + bucket.reserved).min(bucket.capacity);
            let short = queued + charge.cost[d].min(bucket.capacity) - available - spread;
            best = best.max(self.now + short / bucket.rate());
        }
        best
    }

    /// The dimension in which a request can never fit. Output is no reason: it is charged as it
    /// is produced.
    pub(crate) fn exceeded_dimension(&self, estimate: &Estimate) -> Option<Dimension> {
        let bucket = &self.buckets[INPUT];
        (bucket.is_known() && !bucket.is_guess && estimate.lower_bound(INPUT) > bucket.capacity)
            .then_some(Dimension::InputTokens)
    }

    /// Whether time alone lowers what must be free of a dimension, or raises what it holds.
    pub(crate) fn is_margin_decaying(&self, dimension: Dimension) -> bool {
        self.buckets[self.bucket_of(dimension.at())].is_margin_decaying()
    }

    /// What is known of a bucket.
    pub(crate) fn view(&self, d: usize) -> Option<BucketView> {
        self.buckets[self.bucket_of(d)].view()
    }

    /// What is free and what is promised, of one bucket.
    #[cfg(test)]
    pub(crate) fn level(&self, d: usize) -> (f64, f64) {
        let bucket = &self.buckets[self.bucket_of(d)];
        (bucket.available, bucket.reserved)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is promised or held.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&self) -> bool {
        let rests = |b: &TokenBucket| b.reserved == 0.0 && b.uncharged == 0.0 && b.variance == 0.0;
        self.in_flight == 0 && self.buckets.iter().all(rests)
    }

    /// Of two buckets for the output, the one that is believed.
    pub(super) fn bucket_of(&self, d: usize) -> usize {
        match d {
            OUTPUT if self.reserves_most => MAX_OUTPUT,
            _ => d,
        }
    }

    /// The first headers has nothing to be compared with, unless the bucket was full before: then
    /// little of the output has been produced, and all of it is gone where it is reserved.
    fn detect_charging(&mut self, hold: &BucketHold, told: &HeaderValues) {
        if !self.is_charging_untested || told.remaining.is_none() {
            return;
        }
        self.is_charging_untested = false;
        if let (Some(limit), Some(remaining)) = (told.limit, told.remaining) {
            let gone = limit - remaining;
            // What was sent later may have arrived too.
            let least = hold.total_used[MAX_OUTPUT] + hold.cost[MAX_OUTPUT];
            let most = self.buckets[MAX_OUTPUT].total_used;
            let is_much = least >= MIN_RESERVED_EVIDENCE;
            // Not all may have arrived; tokens are rounded to thousands.
            if is_much
                && gone >= ARRIVED_SHARE * least - TOKENS_ROUNDING
                && gone <= most + TOKENS_ROUNDING
            {
                self.set_charging(true);
            }
        }
    }

    /// Weighs by how much a headers surprises, charged as produced or reserved. Where the other way
    /// explains less than three quarters of it, others have taken something.
    fn weigh_charging(&mut self, produced: f64, reserved: f64) {
        let (ours, theirs) = match self.reserves_most {
            true => (reserved, produced),
            false => (produced, reserved),
        };
        let most = MAX_CHARGING_MISMATCH * self.buckets[OUTPUT].capacity;
        self.charging_mismatch = (self.charging_mismatch
            + (ours - OTHER_CHARGING_WEIGHT * theirs).clamp(-most, most))
        .max(0.0);
        if self.charging_mismatch > most {
            self.set_charging(!self.reserves_most);
        }
    }

    /// Changes how the server is taken to charge output.
    pub(crate) fn set_charging(&mut self, reserves_most: bool) {
        self.reserves_most = reserves_most;
        self.charging_mismatch = 0.0;
        let bucket = &mut self.buckets[self.bucket_of(OUTPUT)];
        (bucket.foreign_rate, bucket.noise) = (0.0, 0.0);
    }

    fn reduce_uncharged(&mut self, hold: &mut BucketHold, d: usize, rest: f64) {
        let rest = lesser(rest, hold.uncharged[d]);
        self.buckets[d].uncharged -= hold.uncharged[d] - rest;
        hold.uncharged[d] = rest;
    }

    /// Changes a promise to what is known now.
    fn change_cost(&mut self, hold: &mut BucketHold, d: usize, cost: f64) {
        let more = cost - std::mem::replace(&mut hold.cost[d], cost);
        let bucket = &mut self.buckets[d];
        bucket.reserved += more;
        bucket.total_used += more;
        bucket.available -= more;
        bucket.limit_to_capacity();
        self.record_levels();
    }

    pub(super) fn record_levels(&mut self) {
        let buckets = self.buckets.each_ref();
        let low = buckets.map(|bucket| bucket.available + bucket.corrections);
        let mut high =
            buckets.map(|bucket| bucket.available + bucket.reserved + bucket.corrections);
        // What is reserved is charged at once.
        let reserved = &self.buckets[MAX_OUTPUT];
        high[MAX_OUTPUT] = reserved.available + reserved.uncharged + reserved.corrections;
        self.history.record(self.now, &low, &high);
    }
}

/// The dimension of which headers and usage tell what is in a bucket.
pub(super) fn dimension_of(d: usize) -> usize {
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
        headers.values[INPUT] = told(limit, remaining);
        headers
    }

    fn known() -> ServerBuckets {
        let mut server = ServerBuckets::new();
        server.assume_limits(&[None, Some(60_000.0), None]);
        server
    }

    fn send(server: &mut ServerBuckets, tokens: f64) -> BucketHold {
        server.reserve(&charge(tokens, 0.0, 0.0))
    }

    #[test]
    fn first_header_sets_an_unknown_bucket() {
        let mut server = ServerBuckets::new();
        assert_eq!(server.find_room(&charge(1e9, 1e9, 1e9)), Room::Now);
        let hold = send(&mut server, 1_000.0);
        server.refill(1.0);
        server.learn_from_headers(&hold, &input(60_000.0, 40_000.0));
        let view = server.view(INPUT).expect("it was told");
        assert_eq!((view.limit, view.available), (60_000.0, 39_000.0));
        assert_eq!(server.view(REQUESTS), None);
    }

    #[test]
    fn request_fits_at_the_computed_time() {
        let mut server = known();
        let mut hold = send(&mut server, 50_000.0);
        server.refill(2.5);
        server.mark_arrived(&mut hold);
        let Room::At(time, Dimension::InputTokens) = server.find_room(&charge(12_000.0, 0.0, 0.0))
        else {
            panic!("{server:?}");
        };
        server.refill(time - 0.01);
        assert_ne!(server.find_room(&charge(12_000.0, 0.0, 0.0)), Room::Now);
        server.refill(time);
        assert_eq!(server.find_room(&charge(12_000.0, 0.0, 0.0)), Room::Now);
    }

    #[test]
    fn refund_leaves_room_for_uncharged_cost() {
        let mut server = known();
        let first = send(&mut server, 30_000.0);
        send(&mut server, 20_000.0);
        server.settle(&first, &[1.0, 0.0, 0.0]);
        assert_eq!(server.level(INPUT), (40_000.0, 20_000.0));
    }

    #[test]
    fn header_below_the_band_means_foreign_use() {
        let mut server = known();
        let hold = send(&mut server, 10_000.0);
        server.refill(1.0);
        server.learn_from_headers(&hold, &input(60_000.0, 50_000.0));
        assert_eq!(
            server.view(INPUT).map(|view| view.foreign_per_minute),
            Some(0.0)
        );
        let hold = send(&mut server, 40_000.0);
        server.refill(5.0);
        server.learn_from_headers(&hold, &input(60_000.0, 2_000.0));
        let view = server.view(INPUT).expect("known");
        assert!(
            view.foreign_per_minute > 0.0 && view.available < 8_000.0,
            "{view:?}"
        );
        // The same surprise is not counted twice.
        let before = server.level(INPUT).0;
        server.learn_from_headers(&hold, &input(60_000.0, 2_000.0));
        assert_eq!(server.level(INPUT).0, before);
    }

    #[test]
    fn changed_limits_are_followed() {
        let mut server = known();
        let hold = send(&mut server, 1_000.0);
        let changes = server.learn_from_headers(&hold, &input(6_000.0, 5_000.0));
        assert_eq!(changes[INPUT], Some((60_000.0, 6_000.0)));
        assert!(server.level(INPUT).0 <= 5_500.0);
        server.settle(&hold, &[1.0, 1_000.0, 0.0]);
        server.refill(100.0);
        assert!(server.level(INPUT).0 <= 6_000.0);
    }

    #[test]
    fn refusals_of_a_round_raise_the_margin_once() {
        let mut server = known();
        for _ in 0..5 {
            server.learn_from_refusal(
                &charge(5_000.0, 0.0, 0.0),
                Some(Dimension::InputTokens),
                &input(60_000.0, 3_000.0),
            );
        }
        assert_eq!(server.level(INPUT).0, 3_000.0);
        assert_eq!(server.buckets[INPUT].refusal_margin, 1_100.0);
    }

    #[test]
    fn hidden_interval_is_reported_once_per_round() {
        let mut server = ServerBuckets::new();
        server.assume_limits(&[Some(6_000.0), None, None]);
        let mut headers = LimitHeaders::default();
        headers.values[REQUESTS] = told(6_000.0, 5_000.0);
        let mut learn_from_refusal = |now| {
            server.refill(now);
            server.learn_from_refusal(&charge(0.0, 0.0, 0.0), Some(Dimension::Requests), &headers)
        };
        let times = [1.0, 1.0, 1.0, 2.5, 3.5];
        assert_eq!(
            times.map(&mut learn_from_refusal),
            [true, false, false, false, true]
        );
    }

    #[test]
    fn limits_are_guessed_without_headers_and_grow() {
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
            server.set_stated_limit(dimension, told);
        }
        assert_eq!(limit(&server), 30_000.0);
    }

    #[test]
    fn refusal_brings_a_grown_guess_down() {
        let mut server = ServerBuckets::new();
        server.guess_limits(None, &[100, 50_000, 0]);
        server.refill(200_000.0);
        server.guess_limits(None, &[100, 50_000, 0]);
        assert_eq!(server.view(INPUT).map(|view| view.limit), Some(85_000.0));
    }

    #[test]
    fn guess_is_never_below_the_lowest_tier() {
        let mut server = ServerBuckets::new();
        server.guess_limits(None, &[2, 3_000, 500]);
        assert!(!server.has_known_limit());
        server.guess_limits(None, &[2, 12_000, 500]);
        for round in 1..20 {
            server.refill(3.0 * f64::from(round));
            server.guess_limits(None, &[2, 12_000, 500]);
        }
        assert_eq!(server.view(INPUT).map(|view| view.limit), Some(10_000.0));
    }

    #[test]
    fn request_over_capacity_waits_for_a_full_bucket() {
        let mut server = known();
        let hold = send(&mut server, 30_000.0);
        let large = charge(90_000.0, 0.0, 0.0);
        assert_eq!(
            server.find_room(&large),
            Room::AfterEvent(Dimension::InputTokens)
        );
        server.settle(&hold, &[1.0, 30_000.0, 0.0]);
        server.refill(29.0);
        assert!(matches!(server.find_room(&large), Room::At(time, _) if time < 30.1));
        server.refill(30.1);
        assert_eq!(server.find_room(&large), Room::Now);
    }

    /// Headers that tell of the output bucket only.
    fn output(remaining: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.values[OUTPUT] = told(60_000.0, remaining);
        headers
    }

    #[test]
    fn first_header_shows_max_tokens_charging() {
        for (sent_before, sent_after) in [(0, 0), (2, 0), (0, 2)] {
            let mut server = ServerBuckets::new();
            let send = |server: &mut ServerBuckets| server.reserve(&charge(0.0, 500.0, 8_000.0));
            (0..sent_before).for_each(|_| _ = send(&mut server));
            let hold = send(&mut server);
            (0..sent_after).for_each(|_| _ = send(&mut server));
            server.refill(3.0);
            server.learn_from_headers(&hold, &output(52_000.0 - 8_000.0 * f64::from(sent_before)));
            assert!(server.reserves_most, "{sent_before} {sent_after}");
        }
        let mut server = ServerBuckets::new();
        let hold = server.reserve(&charge(0.0, 500.0, 8_000.0));
        server.learn_from_headers(&hold, &output(60_000.0));
        assert!(!server.reserves_most);
    }

    #[test]
    fn charging_follows_the_smaller_surprise() {
        let mut server = ServerBuckets::new();
        let mut now = 0.0;
        let mut round = |server: &mut ServerBuckets, remaining: f64| {
            let holds = [0; 5].map(|_| {
                let mut hold = server.reserve(&charge(0.0, 500.0, 8_000.0));
                now += 2.0;
                server.refill(now);
                server.mark_arrived(&mut hold);
                hold
            });
            server.learn_from_headers(&holds[4], &output(remaining));
            for hold in &holds {
                server.settle(hold, &[1.0, 0.0, 500.0]);
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
    fn refusal_shows_max_tokens_charging() {
        let learn_from_refusal = |most, left| {
            let mut server = ServerBuckets::new();
            server.assume_limits(&[None, None, Some(60_000.0)]);
            let dimension = Some(Dimension::OutputTokens);
            server.learn_from_refusal(&charge(0.0, 500.0, most), dimension, &output(left));
            server.reserves_most
        };
        assert!(learn_from_refusal(8_000.0, 7_000.0));
        assert!(!learn_from_refusal(8_000.0, 0.0));
        assert!(!learn_from_refusal(2_000.0, 7_000.0));
    }
}
