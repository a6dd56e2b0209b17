//! A model of the server's buckets of one model class, which tells when the server has room.

use crate::types::Dimension;

use super::estimate::{BOUND_DEVIATIONS, Estimate};
use super::headers::{HeaderValues, LimitHeaders};
use super::level_history::LevelHistory;
use super::token_bucket::{
    self, BucketView, HeaderSample, Load, PerBucket, TOKENS_ROUNDING, TokenBucket,
};
use crate::budget::cost::{INPUT, OUTPUT, PerDimension, REQUESTS, Time, greater, lesser};

/// The server's token buckets for requests, input tokens and output tokens.
///
/// A reservation moves its expected cost from the available amount to the reserved one, and counts
/// as uncharged until the server surely has charged it. Refills and refunds never lift available
/// and uncharged cost together above the capacity. It follows that available and reserved cost are
/// together at most the server's level plus what the server has charged to the requests in flight:
/// if the estimates are in sum at least the truth, the server refuses nothing. Only foreign use
/// lowers the server's level unseen, and the headers show it.
///
/// A server charges output tokens as they are produced, or `max_tokens` at the start with a refund
/// at the end, as the API did until 2025. Output has a bucket for each way; the one whose model
/// the headers fit better counts.
#[derive(Debug, Clone)]
pub(crate) struct ServerBuckets {
    pub(super) buckets: PerBucket<TokenBucket>,
    pub(super) history: LevelHistory,
    pub(super) now: Time,
    in_flight: usize,
    /// How the server seems to charge output.
    pub(super) charging: OutputCharging,
    /// The sum by which the headers were further from the model of this charging than from four
    /// times the other one, in tokens.
    charging_mismatch: f64,
    /// Whether no request has ended, and no header had a `remaining` of output: the bucket was full.
    is_charging_untested: bool,
    /// The time of the last refusal that changed the model; those that follow at once are its round.
    pub(super) last_refusal_round: Time,
}

/// How a server charges output tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputCharging {
    AsProduced,
    /// `max_tokens` at the start, with a refund at the end.
    MaxTokens,
}

/// Index of the bucket of output tokens that are charged as `max_tokens`.
pub(crate) const MAX_OUTPUT: usize = 3;

/// What the buckets hold for a request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketHold {
    cost: PerBucket<f64>,
    uncharged: PerBucket<f64>,
    variance: PerBucket<f64>,
    /// What this client had used when the request was sent.
    total_used: PerBucket<f64>,
    sent_at: Time,
}

/// When the server has room for a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    Now,
    At(Time, Dimension),
    /// Never by refill alone: a request in flight must arrive or end first.
    AfterEvent(Dimension),
}

/// What the server is expected to charge for a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedCharge {
    pub(crate) cost: PerBucket<f64>,
    pub(crate) variance: PerBucket<f64>,
}

/// A limit that a header changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LimitChange {
    /// The limit per minute of before; 0 where it was unknown.
    pub(crate) old: f64,
    pub(crate) new: f64,
}

impl ExpectedCharge {
    pub(crate) fn new(estimate: &Estimate, max_tokens: u64) -> ExpectedCharge {
        let [requests, input, output] = estimate.mean;
        let [_, input_variance, output_variance] = estimate.variance;
        ExpectedCharge {
            cost: [requests, input, output, max_tokens as f64],
            variance: [0.0, input_variance, output_variance, 0.0],
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
            charging: OutputCharging::AsProduced,
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
        let decay = match self.buckets.iter().any(TokenBucket::has_foreign_use) {
            true => token_bucket::decay(passed),
            false => 1.0,
        };
        for bucket in &mut self.buckets {
            bucket.refill(passed, decay);
        }
        self.record_levels();
    }

    /// Reserves the expected cost of a request that is sent now.
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

    /// Counts as charged what the server charges on arrival: the request surely has arrived.
    pub(crate) fn mark_arrived(&mut self, hold: &mut BucketHold) {
        let unsure = BOUND_DEVIATIONS * hold.variance[INPUT].sqrt();
        self.reduce_uncharged(hold, REQUESTS, 0.0);
        self.reduce_uncharged(hold, INPUT, unsure);
        self.reduce_uncharged(hold, MAX_OUTPUT, 0.0);
    }

    /// Replaces the estimated input by what the server reported.
    pub(crate) fn settle_input(&mut self, hold: &mut BucketHold, tokens: f64) {
        self.change_cost(hold, INPUT, tokens);
        let bucket = &mut self.buckets[INPUT];
        bucket.variance -= std::mem::take(&mut hold.variance[INPUT]);
        self.reduce_uncharged(hold, INPUT, 0.0);
    }

    /// Counts as charged the output that the stream has shown so far.
    pub(crate) fn charge_output(&mut self, hold: &mut BucketHold, tokens: f64) {
        if tokens > hold.cost[OUTPUT] {
            self.change_cost(hold, OUTPUT, tokens);
        }
        let rest = (hold.cost[OUTPUT] - tokens).max(0.0);
        self.reduce_uncharged(hold, OUTPUT, rest);
    }

    /// Ends a request: returns its reservation and charges its actual cost.
    pub(crate) fn settle(&mut self, hold: &BucketHold, actual: &PerDimension<f64>) {
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
            // No bucket owes more than its capacity; the next header tells the level.
            bucket.available = greater(bucket.available + hold.cost[d] - actual, -bucket.capacity);
            bucket.limit_to_capacity();
        }
        self.record_levels();
    }

    /// Lowers the margins after refusals: a request succeeded.
    pub(crate) fn relax_refusal_margins(&mut self) {
        for bucket in &mut self.buckets {
            bucket.refusal_margin *= REFUSAL_MARGIN_DECAY;
        }
    }

    /// Learns limits and levels from the headers of a response. Returns each limit that changed.
    pub(crate) fn learn_from_headers(
        &mut self,
        hold: &BucketHold,
        headers: &LimitHeaders,
    ) -> PerDimension<Option<LimitChange>> {
        let mut changes = [None; 3];
        self.detect_charging(hold, &headers.values[OUTPUT]);
        let bands = self.history.since(hold.sent_at);
        let mut surprises = [0.0; 4];
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            let HeaderValues { limit, remaining } = headers.values[dimension_of(d)];
            if let Some(new) = limit.filter(|limit| *limit > 0.0) {
                let is_first = !bucket.is_known() || bucket.is_guess;
                if new != bucket.limit {
                    let old = bucket.limit;
                    changes[dimension_of(d)] = Some(LimitChange { old, new });
                    bucket.set_limit(new, FULL_MINUTE);
                }
                if is_first {
                    bucket.start_from_header(self.now, remaining.unwrap_or(new).min(new));
                    continue;
                }
            }
            if let Some(remaining) = remaining.filter(|_| bucket.is_known()) {
                let sample = HeaderSample {
                    remaining,
                    band: bands[d],
                    now: self.now,
                    age: self.now - hold.sent_at,
                    used: bucket.total_used - hold.total_used[d],
                };
                surprises[d] = bucket.correct_from_header(d, &sample);
            }
        }
        self.record_levels();
        self.weigh_charging(surprises[OUTPUT], surprises[MAX_OUTPUT]);
        changes
    }

    /// Sets limits that the caller knows. Buckets that were unknown are taken to be full.
    pub(crate) fn assume_limits(&mut self, limits: &PerDimension<Option<f64>>) {
        for (d, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(limit) = limits[dimension_of(d)].filter(|limit| *limit > 0.0) {
                let was_known = bucket.is_known() && !bucket.is_guess;
                bucket.is_guess = false;
                bucket.set_limit(limit, FULL_MINUTE);
                if !was_known {
                    bucket.available = limit - bucket.reserved;
                }
                bucket.limit_to_capacity();
            }
        }
        self.history = LevelHistory::new();
        self.record_levels();
    }

    /// Sets how the server charges output, and forgets what the other way had learned.
    pub(crate) fn set_charging(&mut self, charging: OutputCharging) {
        self.charging = charging;
        self.charging_mismatch = 0.0;
        self.buckets[self.bucket_of(OUTPUT)].foreign_rate = 0.0;
    }

    /// Tells when the server has room for a request.
    pub(crate) fn find_room(&self, charge: &ExpectedCharge) -> Room {
        let load = match self.in_flight {
            0 => Load::Idle,
            _ => Load::InFlight,
        };
        let mut room = Room::Now;
        for dimension in Dimension::ALL {
            let d = self.bucket_of(dimension.index());
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let required = bucket.required(d, charge.cost[d], charge.variance[d], load);
            if bucket.available >= required * (1.0 - SUM_TOLERANCE) {
                continue;
            }
            if required > bucket.capacity - bucket.uncharged {
                room = Room::AfterEvent(dimension);
                break;
            }
            let refill = bucket.time_to_refill(required - bucket.available);
            let time = self.now + refill + TIME_TOLERANCE;
            if !matches!(room, Room::At(latest, _) if latest >= time) {
                room = Room::At(time, dimension);
            }
        }
        room
    }

    /// Returns the earliest time at which `queued` and a request can all have been admitted, in the
    /// best case: without margins and foreign use, and if the requests in flight cost nothing.
    pub(crate) fn earliest_possible(
        &self,
        queued: &PerDimension<f64>,
        charge: &ExpectedCharge,
    ) -> Time {
        let mut earliest = self.now;
        for (dimension, queued) in queued.iter().enumerate() {
            let d = self.bucket_of(dimension);
            let bucket = &self.buckets[d];
            if !bucket.is_known() {
                continue;
            }
            let variance = (bucket.variance + charge.variance[d]).max(0.0);
            let deviation = BOUND_DEVIATIONS * variance.sqrt();
            let available = (bucket.available + bucket.reserved).min(bucket.capacity);
            let cost = queued + charge.cost[d].min(bucket.capacity);
            let missing = cost - available - deviation;
            earliest = earliest.max(self.now + missing / bucket.rate());
        }
        earliest
    }

    /// Returns the dimension in which a request can never fit. Output is none: the server charges
    /// output as it is produced.
    pub(crate) fn exceeded_dimension(&self, estimate: &Estimate) -> Option<Dimension> {
        let bucket = &self.buckets[INPUT];
        let is_limit_known = bucket.is_known() && !bucket.is_guess;
        (is_limit_known && estimate.lower_bound(INPUT) > bucket.capacity)
            .then_some(Dimension::InputTokens)
    }

    /// Returns the refill per second that is left to this client; infinite where it is unknown.
    pub(crate) fn refill_rates(&self) -> PerDimension<f64> {
        let mut rates = [f64::INFINITY; 3];
        for (d, rate) in rates.iter_mut().enumerate() {
            let bucket = &self.buckets[self.bucket_of(d)];
            if bucket.is_known() {
                *rate = bucket.rate() - bucket.foreign_rate;
            }
        }
        rates
    }

    pub(crate) fn has_known_limit(&self) -> bool {
        self.buckets.iter().any(TokenBucket::is_known)
    }

    /// Returns whether time alone lowers the margin of a dimension or raises its capacity.
    pub(crate) fn is_margin_decaying(&self, dimension: Dimension) -> bool {
        self.buckets[self.bucket_of(dimension.index())].is_margin_decaying()
    }

    pub(crate) fn view(&self, d: usize) -> Option<BucketView> {
        self.buckets[self.bucket_of(d)].view()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns what is available and what is reserved of a dimension.
    #[cfg(test)]
    pub(crate) fn level(&self, d: usize) -> (f64, f64) {
        let bucket = &self.buckets[self.bucket_of(d)];
        (bucket.available, bucket.reserved)
    }

    /// Returns whether nothing is reserved or uncharged.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&self) -> bool {
        let rests = |b: &TokenBucket| b.reserved == 0.0 && b.uncharged == 0.0 && b.variance == 0.0;
        self.in_flight == 0 && self.buckets.iter().all(rests)
    }

    /// Returns the index of the bucket that counts for a dimension.
    pub(super) fn bucket_of(&self, d: usize) -> usize {
        match (d, self.charging) {
            (OUTPUT, OutputCharging::MaxTokens) => MAX_OUTPUT,
            _ => d,
        }
    }

    /// Adds the levels of now to the history.
    pub(super) fn record_levels(&mut self) {
        let buckets = self.buckets.each_ref();
        let low = buckets.map(|bucket| bucket.available + bucket.corrections);
        let mut high =
            buckets.map(|bucket| bucket.available + bucket.reserved + bucket.corrections);
        // `max_tokens` is charged on arrival and not while the request is in flight.
        let bucket = &self.buckets[MAX_OUTPUT];
        high[MAX_OUTPUT] = bucket.available + bucket.uncharged + bucket.corrections;
        self.history.record(self.now, &low, &high);
    }

    /// Detects from the first header that the server charges `max_tokens`: the bucket was full
    /// before, so little is gone where output is charged as it is produced.
    fn detect_charging(&mut self, hold: &BucketHold, output: &HeaderValues) {
        if !self.is_charging_untested || output.remaining.is_none() {
            return;
        }
        self.is_charging_untested = false;
        if let (Some(limit), Some(remaining)) = (output.limit, output.remaining) {
            let gone = limit - remaining;
            let least = hold.total_used[MAX_OUTPUT] + hold.cost[MAX_OUTPUT];
            // Requests that were sent later may have arrived too.
            let most = self.buckets[MAX_OUTPUT].total_used;
            if least >= MIN_RESERVED_EVIDENCE
                && gone >= ARRIVED_SHARE * least - TOKENS_ROUNDING
                && gone <= most + TOKENS_ROUNDING
            {
                self.set_charging(OutputCharging::MaxTokens);
            }
        }
    }

    /// Compares how far a header was from the models of both ways of charging, and changes to the
    /// other way when it fits clearly better. Where the other way explains less than three quarters
    /// of the surprise, other clients were the cause.
    fn weigh_charging(&mut self, as_produced: f64, max_tokens: f64) {
        let (current, other, other_charging) = match self.charging {
            OutputCharging::AsProduced => (as_produced, max_tokens, OutputCharging::MaxTokens),
            OutputCharging::MaxTokens => (max_tokens, as_produced, OutputCharging::AsProduced),
        };
        let most = MAX_CHARGING_MISMATCH * self.buckets[OUTPUT].capacity;
        let mismatch = (current - OTHER_CHARGING_WEIGHT * other).clamp(-most, most);
        self.charging_mismatch = (self.charging_mismatch + mismatch).max(0.0);
        if self.charging_mismatch > most {
            self.set_charging(other_charging);
        }
    }

    fn reduce_uncharged(&mut self, hold: &mut BucketHold, d: usize, rest: f64) {
        let rest = lesser(rest, hold.uncharged[d]);
        self.buckets[d].uncharged -= hold.uncharged[d] - rest;
        hold.uncharged[d] = rest;
    }

    fn change_cost(&mut self, hold: &mut BucketHold, d: usize, cost: f64) {
        let more = cost - std::mem::replace(&mut hold.cost[d], cost);
        let bucket = &mut self.buckets[d];
        bucket.reserved += more;
        bucket.total_used += more;
        bucket.available -= more;
        bucket.limit_to_capacity();
        self.record_levels();
    }
}

/// Returns the dimension of a bucket: both buckets of output are one.
pub(super) fn dimension_of(bucket: usize) -> usize {
    bucket.min(OUTPUT)
}

/// Capacity of the server's buckets in minutes of their limit: the API documents one minute.
pub(super) const FULL_MINUTE: f64 = 1.0;

/// Factor of the margins after refusals for each success: half in 69 successes.
///
/// Moves, at 0.995: `30% tenant, no headers` 429s 95.6 → 85.7.
const REFUSAL_MARGIN_DECAY: f64 = 0.99;

/// Tokens of `max_tokens` that the first header must cover to prove anything: several times the
/// rounding of the header.
///
/// Moves no row: the first `max_tokens` of the scenarios are larger.
const MIN_RESERVED_EVIDENCE: f64 = 3_000.0;

/// Share of the `max_tokens` sent so far that must be gone from the first header: not all requests
/// may have arrived.
///
/// Moves no row: all requests have arrived at the first header of the scenarios.
const ARRIVED_SHARE: f64 = 0.7;

/// Mismatch at which the other way of charging is believed, as a share of the capacity; also the
/// most that one header can add.
///
/// Moves, halved: `40% tenant in bursts, output` 429s 0.0 → 0.8. Doubled: `max_tokens reserved,
/// promised` 429s 0.8 → 0.0.
const MAX_CHARGING_MISMATCH: f64 = 0.1;

/// Weight of the surprise by the other way of charging: the other way must explain three quarters.
///
/// Moves no row: flat between the half and the double.
const OTHER_CHARGING_WEIGHT: f64 = 4.0;

/// Relative tolerance of levels: a sum of floats may miss a full bucket by a hair and never reach it.
///
/// Moves no row: numeric; far below every level that matters.
const SUM_TOLERANCE: f64 = 1e-9;

/// Seconds added to computed times, so that the level is surely reached by then.
///
/// Moves no row: numeric; far below every time that matters.
const TIME_TOLERANCE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::limiter::headers::Refusal;

    /// The charge of one request with these tokens.
    fn charge(input: f64, output: f64, max_tokens: f64) -> ExpectedCharge {
        ExpectedCharge {
            cost: [1.0, input, output, max_tokens],
            variance: [0.0; 4],
        }
    }

    fn values(limit: f64, remaining: f64) -> HeaderValues {
        HeaderValues {
            limit: Some(limit),
            remaining: Some(remaining),
        }
    }

    /// Headers of the input bucket only.
    fn input(limit: f64, remaining: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.values[INPUT] = values(limit, remaining);
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
        let view = server.view(INPUT).expect("a header told the limit");
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
        assert_eq!(
            changes[INPUT],
            Some(LimitChange {
                old: 60_000.0,
                new: 6_000.0
            })
        );
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
        assert_eq!(server.buckets[INPUT].refusal_margin, 600.0);
    }

    #[test]
    fn hidden_interval_is_reported_once_per_round() {
        let mut server = ServerBuckets::new();
        server.assume_limits(&[Some(6_000.0), None, None]);
        let mut headers = LimitHeaders::default();
        headers.values[REQUESTS] = values(6_000.0, 5_000.0);
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
        if let Refusal::Limit(Some(dimension), Some(limit)) = text {
            server.set_stated_limit(dimension, limit);
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

    /// Headers of the output bucket only.
    fn output(remaining: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.values[OUTPUT] = values(60_000.0, remaining);
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
            assert_eq!(
                server.charging,
                OutputCharging::MaxTokens,
                "{sent_before} {sent_after}"
            );
        }
        let mut server = ServerBuckets::new();
        let hold = server.reserve(&charge(0.0, 500.0, 8_000.0));
        server.learn_from_headers(&hold, &output(60_000.0));
        assert_eq!(server.charging, OutputCharging::AsProduced);
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
        // The bucket is not full at first.
        round(&mut server, 30_000.0);
        round(&mut server, 20_000.0);
        round(&mut server, 20_000.0);
        assert_eq!(server.charging, OutputCharging::MaxTokens);
        round(&mut server, 59_000.0);
        round(&mut server, 59_000.0);
        assert_eq!(server.charging, OutputCharging::AsProduced);
        // Other clients lower the level either way.
        for remaining in [10_000.0, 52_000.0, 10_000.0, 40_000.0] {
            round(&mut server, remaining);
        }
        assert_eq!(server.charging, OutputCharging::AsProduced);
    }

    #[test]
    fn refusal_shows_max_tokens_charging() {
        let learn_from_refusal = |most, left| {
            let mut server = ServerBuckets::new();
            server.assume_limits(&[None, None, Some(60_000.0)]);
            let dimension = Some(Dimension::OutputTokens);
            server.learn_from_refusal(&charge(0.0, 500.0, most), dimension, &output(left));
            server.charging == OutputCharging::MaxTokens
        };
        assert!(learn_from_refusal(8_000.0, 7_000.0));
        assert!(!learn_from_refusal(8_000.0, 0.0));
        assert!(!learn_from_refusal(2_000.0, 7_000.0));
    }
}
