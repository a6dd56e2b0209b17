//! The limiter of one model class: window, server's buckets, pace and estimates as one machine.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::types::{Delivery, Dimension, Usage, WaitCause};

use super::decision::{LimiterView, NotNow, OverLimit};
use super::estimate::{Estimate, Estimates, PromiseBasis};
use super::headers::{LimitHeaders, Refusal};
use super::math::SECONDS_PER_MINUTE;
use super::overload_gate::{GatePass, OverloadGate};
use super::pacer::{PaceRates, Pacer};
use super::server_buckets::{BucketHold, ExpectedCharge, LimitChange, Room, ServerBuckets};
use super::slab::{Slab, SlabKey};
use super::window::{Window, WindowEntry};
use crate::budget::cost::{Cost, INPUT, OUTPUT, PerDimension, REQUESTS, Time, at_most, whole};
use crate::budget::limits::Limits;

/// Decides when the requests of one model class may be sent, and learns from their outcomes.
///
/// A request goes through [`try_admit`](ClassLimiter::try_admit) until it is admitted; then, as
/// they come, [`learn_from_headers`](ClassLimiter::learn_from_headers) with the headers,
/// [`record_start`](ClassLimiter::record_start) with the usage of `message_start`,
/// [`record_output`](ClassLimiter::record_output); and exactly one end:
/// [`settle`](ClassLimiter::settle), [`record_refusal`](ClassLimiter::record_refusal),
/// [`record_overload`](ClassLimiter::record_overload) or
/// [`record_failure`](ClassLimiter::record_failure). Calls after the end are ignored.
#[derive(Debug, Clone)]
pub(crate) struct ClassLimiter {
    window: Window,
    server: ServerBuckets,
    pacer: Pacer,
    estimates: Estimates,
    requests: Slab<RequestInFlight>,
    /// Requests that may not have arrived at the server yet, oldest first.
    travelling: VecDeque<TravellingRequest>,
    /// The end of the pause after a refusal.
    paused_until: Time,
    /// The pauses without a success between them.
    consecutive_pauses: i32,
    /// When a refusal last slowed the pace down. Requests sent before belong to that refusal.
    last_slow_down: Time,
    concurrency_limit: Option<ConcurrencyLimit>,
    /// Whether a response came without any header: there is no reason to wait for one.
    has_no_headers: bool,
    counts_cache_reads: bool,
    rng: Rng,
}

/// A request that was admitted and has not ended.
#[derive(Debug, Clone)]
struct RequestInFlight {
    cost: Cost,
    hold: BucketHold,
    entry: WindowEntry,
    pass: GatePass,
    sent_at: Time,
    /// The input that the server reported.
    input: Option<u64>,
    /// The output that the stream has shown.
    output: u64,
}

#[derive(Debug, Clone, Copy)]
struct TravellingRequest {
    key: SlabKey,
    sent_at: Time,
}

/// The requests that may be in flight at once, after the server refused a request for concurrency.
#[derive(Debug, Clone, Copy)]
struct ConcurrencyLimit {
    most: f64,
    until: Time,
}

/// What a request finally counts.
#[derive(Debug, Clone, Copy)]
struct FinalCost {
    server: PerDimension<u64>,
    window: PerDimension<u64>,
}

impl FinalCost {
    fn of_both(cost: PerDimension<u64>) -> FinalCost {
        FinalCost {
            server: cost,
            window: cost,
        }
    }
}

impl ClassLimiter {
    /// Creates a limiter that keeps `limits` and knows nothing about the server.
    pub(crate) fn new(limits: Limits, counts_cache_reads: bool, rng: Rng) -> ClassLimiter {
        ClassLimiter {
            window: Window::new(limits),
            server: ServerBuckets::new(),
            pacer: Pacer::new(),
            estimates: Estimates::new(),
            requests: Slab::new(),
            travelling: VecDeque::new(),
            paused_until: 0.0,
            consecutive_pauses: 0,
            last_slow_down: f64::NEG_INFINITY,
            concurrency_limit: None,
            has_no_headers: false,
            counts_cache_reads,
            rng,
        }
    }

    /// Changes the caller's own limits, which apply to the past minute at once.
    pub(crate) fn set_limits(&mut self, now: Time, limits: Limits) {
        self.advance(now);
        for dimension in Dimension::ALL {
            if let Some(old) = self.window.limits().of(dimension) {
                // A limit that is removed leaves no debt.
                let new = limits.of(dimension).map_or(f64::INFINITY, |new| new as f64);
                self.pacer
                    .rescale_debt(now, dimension.index(), old as f64, new);
            }
        }
        self.window.set_limits(limits);
    }

    /// Sets the limits of the server that the caller knows, until a header tells others.
    pub(crate) fn assume_server(&mut self, now: Time, limits: &Limits) {
        self.advance(now);
        let limits = Dimension::ALL.map(|d| limits.of(d).map(|limit| limit as f64));
        self.server.assume_limits(&limits);
    }

    /// Returns whether a request could be sent now, and if not, why and until when.
    pub(crate) fn check_admission(
        &mut self,
        now: Time,
        cost: &Cost,
        gate: &mut OverloadGate,
    ) -> Result<(), NotNow> {
        self.advance(now);
        let estimate = self.estimate(cost);
        let charge = ExpectedCharge::new(&estimate, cost.max_tokens);
        self.find_pace(now, &estimate, &charge, gate).map(|_| ())
    }

    /// Admits a request that may be sent now; otherwise returns why and until when not.
    pub(crate) fn try_admit(
        &mut self,
        now: Time,
        cost: &Cost,
        gate: &mut OverloadGate,
    ) -> Result<SlabKey, NotNow> {
        self.advance(now);
        let estimate = self.estimate(cost);
        let charge = ExpectedCharge::new(&estimate, cost.max_tokens);
        let pace = self.find_pace(now, &estimate, &charge, gate)?;
        if self.is_exempt_from_pace() {
            self.pacer.clear_debt(now, &pace);
        }
        self.pacer.add_debt(now, &estimate.mean, &pace);
        let request = RequestInFlight {
            cost: *cost,
            hold: self.server.reserve(&charge),
            entry: self.window.admit(&estimate),
            pass: gate.pass(now),
            sent_at: now,
            input: None,
            output: 0,
        };
        let key = self.requests.insert(request);
        self.travelling
            .push_back(TravellingRequest { key, sent_at: now });
        Ok(key)
    }

    /// Learns from the headers of a response of any status.
    pub(crate) fn learn_from_headers(&mut self, now: Time, key: SlabKey, headers: &LimitHeaders) {
        self.advance(now);
        let Some(request) = self.requests.find(key) else {
            return;
        };
        let changes = self.server.learn_from_headers(&request.hold, headers);
        for (d, change) in changes.iter().enumerate() {
            if let Some(LimitChange { old, new }) = change {
                self.pacer.rescale_debt(now, d, *old, *new);
            }
        }
    }

    /// Records that the response began: the host accepted the request. `usage` has the input
    /// tokens, or nothing with gateways that report them at the end only.
    pub(crate) fn record_start(
        &mut self,
        now: Time,
        key: SlabKey,
        usage: &Usage,
        gate: &mut OverloadGate,
    ) {
        self.advance(now);
        let input = self.counted_input(usage);
        let Some(request) = self.requests.find(key) else {
            return;
        };
        gate.record_acceptance(request.pass);
        self.has_no_headers |= !self.server.has_known_limit();
        let Some(input) = input else { return };
        if request.input.replace(input).is_none() {
            self.estimates.learn_input(&request.cost, input);
        }
        self.server.settle_input(&mut request.hold, input as f64);
        let mut counts = request.entry.counted();
        counts[INPUT] = input;
        self.window.correct(&mut request.entry, counts);
    }

    /// Records the output tokens that the stream has shown in all.
    pub(crate) fn record_output(&mut self, now: Time, key: SlabKey, tokens: u64) {
        self.advance(now);
        let tokens = at_most(tokens, MAX_REQUEST_TOKENS);
        let Some(request) = self
            .requests
            .find(key)
            .filter(|request| request.output < tokens)
        else {
            return;
        };
        self.estimates
            .update_unfinished(&request.cost, request.output, tokens);
        request.output = tokens;
        self.server.charge_output(&mut request.hold, tokens as f64);
        self.window.raise_output(&mut request.entry, tokens);
    }

    /// Ends a request that succeeded, with its actual usage.
    pub(crate) fn settle(
        &mut self,
        now: Time,
        key: SlabKey,
        usage: &Usage,
        gate: &mut OverloadGate,
    ) {
        self.record_start(now, key, usage, gate);
        let output = at_most(usage.output_tokens, MAX_REQUEST_TOKENS);
        let Some(request) = self.end_request(key, |request, counted| {
            // Input that was never reported stays as estimated.
            FinalCost::of_both([1, request.input.unwrap_or(counted[INPUT]), output])
        }) else {
            return;
        };
        self.estimates.learn_output(&request.cost, output);
        self.server.relax_refusal_margins();
        self.pacer.recover_ramp_start();
        self.consecutive_pauses = 0;
        if let Some(limit) = &mut self.concurrency_limit {
            limit.most += 1.0 / limit.most.max(1.0);
        }
    }

    /// Ends a request that the server refused with a 429 which succeeds after a pause, and starts
    /// the pause. Returns the limit that the request alone exceeds, if no pause helps.
    pub(crate) fn record_refusal(
        &mut self,
        now: Time,
        key: SlabKey,
        refusal: Refusal,
        headers: &LimitHeaders,
        gate: &mut OverloadGate,
    ) -> Option<OverLimit> {
        self.learn_from_headers(now, key, headers);
        // As far as is known, a refusal costs nothing at the server. The caller's own limit counts
        // every request that was sent.
        let request = self.end_request(key, |_, _| FinalCost {
            server: [0, 0, 0],
            window: [1, 0, 0],
        })?;
        gate.forget(request.pass);
        self.start_pause(now, headers.retry_after);
        let estimate = self.estimate(&request.cost);
        self.learn_from_refusal(now, &request, &estimate, refusal, headers);
        let pace = self.current_pace(self.paused_until);
        self.pacer.delay_until(self.paused_until, &pace);
        self.exceeded_limit(&estimate)
            .or_else(|| proven_over_limit(refusal, headers, &estimate))
    }

    /// Ends a request that the host refused as overloaded, at once or within the response. `wait`
    /// is the `retry-after` in seconds.
    pub(crate) fn record_overload(
        &mut self,
        now: Time,
        key: SlabKey,
        wait: Option<f64>,
        gate: &mut OverloadGate,
    ) {
        self.advance(now);
        let request = self.end_request(key, |request, _| {
            FinalCost::of_both([1, request.input.unwrap_or(0), request.output])
        });
        if let Some(request) = request {
            gate.record_refusal(now, request.sent_at, request.pass, wait);
        }
    }

    /// Ends a request that failed in another way.
    pub(crate) fn record_failure(
        &mut self,
        now: Time,
        key: SlabKey,
        delivery: Delivery,
        gate: &mut OverloadGate,
    ) {
        self.advance(now);
        let request = self.end_request(key, |request, counted| {
            FinalCost::of_both(match delivery {
                Delivery::NotSent => [0; 3],
                Delivery::Responded => [1, request.input.unwrap_or(0), request.output],
                Delivery::Unknown => [1, counted[INPUT], counted[OUTPUT].max(request.output)],
            })
        });
        if let Some(request) = request {
            gate.forget(request.pass);
        }
    }

    /// Returns the expected cost of a request, for the requests that wait behind it.
    pub(crate) fn expected_cost(&self, cost: &Cost) -> PerDimension<f64> {
        self.estimate(cost).mean
    }

    /// Returns the earliest time at which a request can be sent with `queued` ahead of it, in the
    /// best case.
    pub(crate) fn earliest_possible(
        &mut self,
        now: Time,
        queued: &PerDimension<f64>,
        cost: &Cost,
    ) -> Time {
        self.advance(now);
        let estimate = self.estimate(cost);
        let charge = ExpectedCharge::new(&estimate, cost.max_tokens);
        self.paused_until
            .max(self.window.earliest_possible(now, queued, &estimate))
            .max(self.server.earliest_possible(queued, &charge))
    }

    /// Returns the end of the pause after a refusal.
    pub(crate) fn paused_until(&self) -> Time {
        self.paused_until
    }

    /// Returns the requests in flight.
    pub(crate) fn requests_in_flight(&self) -> Vec<(SlabKey, Cost)> {
        let requests = self.requests.iter();
        requests.map(|(key, request)| (key, request.cost)).collect()
    }

    /// Returns the state at `now`.
    pub(crate) fn view(&mut self, now: Time) -> LimiterView {
        self.advance(now);
        LimiterView {
            limits: self.window.limits(),
            used: self.window.sums(),
            in_flight: self.server.in_flight(),
            server: [REQUESTS, INPUT, OUTPUT].map(|d| self.server.view(d)),
            paused_until: self.paused_until,
        }
    }

    /// Returns whether nothing is in flight, and nothing reserved for it.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&mut self, now: Time) -> bool {
        self.advance(now);
        self.server.is_at_rest() && self.window.is_at_rest()
    }

    /// Moves window and buckets on to `now`.
    fn advance(&mut self, now: Time) {
        self.window.advance(now);
        while let Some(TravellingRequest { key, sent_at }) = self.travelling.front().copied() {
            let arrived_at = sent_at + ARRIVAL_TIME;
            if arrived_at > now {
                break;
            }
            self.travelling.pop_front();
            if let Some(request) = self.requests.find(key) {
                // In the order of time: a refill must not see later charges.
                self.server.refill(arrived_at);
                self.server.mark_arrived(&mut request.hold);
            }
        }
        self.server.refill(now);
    }

    /// Returns the pace at which a request may be sent now.
    fn find_pace(
        &mut self,
        now: Time,
        estimate: &Estimate,
        charge: &ExpectedCharge,
        gate: &mut OverloadGate,
    ) -> Result<PaceRates, NotNow> {
        if let Some(excess) = self.exceeded_limit(estimate) {
            return Err(NotNow::Never(excess));
        }
        let in_flight = self.server.in_flight();
        if let Some(ConcurrencyLimit { most, until }) = self.concurrency_limit
            && now < until
            && in_flight as f64 + 1.0 > most.max(1.0)
        {
            return Err(NotNow::NotBefore(until, WaitCause::Concurrency));
        }
        if in_flight > 0 && self.is_probing() {
            // A response that is not streamed may begin after minutes, so others go meanwhile, one
            // in each `ARRIVAL_TIME`.
            if let Some(last) = self.travelling.back() {
                let time = last.sent_at + ARRIVAL_TIME;
                return Err(NotNow::NotBefore(time, WaitCause::FirstResponse));
            }
        }
        let pace = self.current_pace(now);
        let room = self.server.find_room(charge);
        if let Room::AfterEvent(dimension) = room {
            let why = WaitCause::Server(dimension);
            return Err(match self.travelling.front() {
                Some(first) => NotNow::NotBefore(first.sent_at + ARRIVAL_TIME, why),
                None if self.server.is_margin_decaying(dimension) => {
                    NotNow::NotBefore(now + RECHECK_INTERVAL, why)
                }
                None => NotNow::OnEvent(why),
            });
        }
        match self.latest_constraint(now, estimate, &pace, room, gate) {
            Some((time, why)) => Err(NotNow::NotBefore(time, why)),
            None => Ok(pace),
        }
    }

    /// Returns the last of the times that a request must wait for.
    fn latest_constraint(
        &self,
        now: Time,
        estimate: &Estimate,
        pace: &PaceRates,
        room: Room,
        gate: &mut OverloadGate,
    ) -> Option<(Time, WaitCause)> {
        let limit = self.window.earliest(estimate);
        let due = match self.is_exempt_from_pace() {
            true => None,
            false => self.pacer.earliest(now, pace),
        };
        let times = [
            Some((self.paused_until, WaitCause::Pause)),
            gate.earliest(now).map(|time| (time, WaitCause::Overload)),
            limit.map(|(time, dimension)| (time, WaitCause::Limit(dimension))),
            match room {
                Room::At(time, dimension) => Some((time, WaitCause::Server(dimension))),
                Room::Now | Room::AfterEvent(_) => None,
            },
            due.map(|(time, dimension)| (time, WaitCause::Pace(dimension))),
        ];
        let later = times.into_iter().flatten().filter(|(time, _)| *time > now);
        later.max_by(|(one, _), (other, _)| one.total_cmp(other))
    }

    /// Returns the pace at `now`.
    fn current_pace(&mut self, now: Time) -> PaceRates {
        let window = Dimension::ALL.map(|dimension| match self.window.limits().of(dimension) {
            Some(limit) => limit as f64 / SECONDS_PER_MINUTE,
            None => f64::INFINITY,
        });
        let mut server = self.server.refill_rates();
        let is_unlimited = server[REQUESTS].min(window[REQUESTS]).is_infinite();
        if self.consecutive_pauses > 0 && is_unlimited {
            // Refused requests do not all return at once, even where no limit is known.
            server[REQUESTS] = REQUESTS_AFTER_REFUSAL;
        }
        self.pacer.pace(now, &server, &window)
    }

    /// Removes a request and settles its final cost in buckets and window, which must have moved on
    /// to the present. The function gets what the window counts so far.
    fn end_request(
        &mut self,
        key: SlabKey,
        final_cost: impl FnOnce(&RequestInFlight, PerDimension<u64>) -> FinalCost,
    ) -> Option<RequestInFlight> {
        let mut request = self.requests.take(key)?;
        let cost = final_cost(&request, request.entry.counted());
        self.server
            .settle(&request.hold, &cost.server.map(|tokens| tokens as f64));
        self.window.correct(&mut request.entry, cost.window);
        self.window.remove_in_flight(&request.entry);
        self.estimates
            .update_unfinished(&request.cost, request.output, 0);
        Some(request)
    }

    /// Changes the model of the server after a refusal of `request`, by the reason of the refusal.
    fn learn_from_refusal(
        &mut self,
        now: Time,
        request: &RequestInFlight,
        estimate: &Estimate,
        refusal: Refusal,
        headers: &LimitHeaders,
    ) {
        match refusal {
            Refusal::Limit(dimension, limit) => {
                if let (Some(dimension), Some(limit)) = (dimension, limit) {
                    self.server.set_stated_limit(dimension, limit);
                }
                if !self.server.is_limit_unknown(dimension) {
                    let charge = ExpectedCharge::new(estimate, request.cost.max_tokens);
                    if self.server.learn_from_refusal(&charge, dimension, headers) {
                        self.pacer.space_requests(now);
                    }
                } else {
                    self.server.guess_limits(dimension, &self.window.sums());
                }
            }
            // With no limit known it may be any.
            Refusal::Unexplained if self.server.is_limit_unknown(None) => {
                self.server.guess_limits(None, &self.window.sums());
            }
            // All requests in flight are refused in one round, which slows down once.
            _ if request.sent_at < self.last_slow_down => {}
            Refusal::Growth | Refusal::Unexplained => self.slow_down(now),
            Refusal::Concurrency => {
                let in_flight = self.server.in_flight() as f64 + 1.0;
                self.concurrency_limit = Some(ConcurrencyLimit {
                    most: (CONCURRENCY_CUT * in_flight).max(1.0),
                    until: self.paused_until.max(now) + CONCURRENCY_LIMIT_DURATION,
                });
                self.slow_down(now);
            }
        }
    }

    fn slow_down(&mut self, now: Time) {
        self.last_slow_down = now;
        self.pacer.slow_down(now, self.paused_until);
    }

    /// Pauses for `retry_after`, or for a time that doubles with each pause without a success
    /// between them. Repeated pauses have a lower bound that doubles too. A refusal during a pause
    /// belongs to that pause.
    fn start_pause(&mut self, now: Time, retry_after: Option<f64>) {
        if now >= self.paused_until {
            self.consecutive_pauses = (self.consecutive_pauses + 1).min(MAX_COUNTED_PAUSES);
        }
        let doubled = FIRST_PAUSE * 2f64.powi(self.consecutive_pauses - 1);
        let wait = match retry_after {
            Some(wait) if self.consecutive_pauses > 1 => {
                wait.max((REPEATED_PAUSE_FLOOR * doubled).min(MAX_PAUSE_FLOOR))
            }
            Some(wait) => wait,
            None => doubled,
        };
        // Several processes with the same `retry-after` do not return at the same time.
        let jitter = PAUSE_JITTER * self.rng.f64();
        self.paused_until = self.paused_until.max(now + wait + jitter);
    }

    fn estimate(&self, cost: &Cost) -> Estimate {
        let basis = match self.window.limits().is_strict() {
            true => PromiseBasis::Maximum,
            false => PromiseBasis::Expected,
        };
        self.estimates.estimate(cost, basis)
    }

    /// Returns the limit that a request exceeds for certain.
    fn exceeded_limit(&self, estimate: &Estimate) -> Option<OverLimit> {
        if let Some(dimension) = self.window.exceeded_dimension(estimate) {
            return Some(OverLimit {
                dimension,
                estimate: estimate.promise[dimension.index()],
                limit: self.window.limits().of(dimension).unwrap_or(0),
            });
        }
        let dimension = self.server.exceeded_dimension(estimate)?;
        let limit = self.server.view(dimension.index())?.limit;
        Some(OverLimit {
            dimension,
            estimate: whole(estimate.mean[dimension.index()]),
            limit: whole(limit),
        })
    }

    /// Returns whether one request goes ahead to learn the limits. With limits of the caller's own
    /// the ramp is probe enough.
    fn is_probing(&self) -> bool {
        !self.has_no_headers
            && !self.server.has_known_limit()
            && self.window.limits().is_unlimited()
    }

    /// Returns whether a request need not wait for the pace: with none in flight it floods no
    /// server, and a person may be waiting for it.
    fn is_exempt_from_pace(&self) -> bool {
        self.server.in_flight() == 0 && !self.pacer.is_careful()
    }

    /// Returns the input that counts against limits; `None` where the usage has no input at all,
    /// since no prompt is empty.
    fn counted_input(&self, usage: &Usage) -> Option<u64> {
        let reads = usage.cache_read_input_tokens.unwrap_or(0);
        let written = usage.cache_creation_input_tokens.unwrap_or(0);
        let fresh = usage.input_tokens.saturating_add(written);
        let all = fresh.saturating_add(reads);
        let counted = if self.counts_cache_reads { all } else { fresh };
        (all > 0).then(|| at_most(counted, MAX_REQUEST_TOKENS))
    }
}

/// Returns the limit that a refused request exceeds although its size is a guess: the server
/// refused it with a full bucket, and by the estimate it is larger than the bucket.
fn proven_over_limit(
    refusal: Refusal,
    headers: &LimitHeaders,
    estimate: &Estimate,
) -> Option<OverLimit> {
    let Refusal::Limit(Some(Dimension::InputTokens), stated) = refusal else {
        return None;
    };
    let input = headers.values[INPUT];
    let limit = input.limit.or(stated)?;
    let is_full = input.remaining? >= limit;
    (is_full && estimate.mean[INPUT] > limit).then(|| OverLimit {
        dimension: Dimension::InputTokens,
        estimate: whole(estimate.mean[INPUT]),
        limit: whole(limit),
    })
}

/// Upper bound of the tokens of one request: a larger number is an error of the server, and must
/// not block the limiter for hours.
///
/// Moves no row: a safety bound; no response of the scenarios is wrong.
const MAX_REQUEST_TOKENS: u64 = 1 << 24;

/// Seconds after which a request has surely arrived at the server.
///
/// Moves, doubled: `max_tokens reserved` ratio 1.03 → 1.13, 429s 0.0 → 0.8, longest wait 28 →
/// 57 s; `max_tokens reserved, promised` ratio 1.14 → 1.18; 2 more.
const ARRIVAL_TIME: f64 = 2.0;

/// Seconds after which a request looks again whether a decaying margin makes room.
///
/// Moves no row: no request of the scenarios waits for a margin alone.
const RECHECK_INTERVAL: f64 = 5.0;

/// Seconds of the first pause in a row without a `retry-after`.
///
/// Moves no row: all refusals of the scenarios have a `retry-after`.
const FIRST_PAUSE: f64 = 1.0;

/// Pauses in a row that are counted: the pause doubles up to half a minute.
///
/// Moves no row: all refusals of the scenarios have a `retry-after`.
const MAX_COUNTED_PAUSES: i32 = 6;

/// Lower bound of a repeated pause, as a share of a pause without `retry-after`.
///
/// Moves no row: every `retry-after` of the scenarios is longer.
const REPEATED_PAUSE_FLOOR: f64 = 0.05;

/// Upper bound in seconds of that lower bound.
///
/// Moves no row: every `retry-after` of the scenarios is at least as long.
const MAX_PAUSE_FLOOR: f64 = 1.0;

/// Seconds by which a pause is randomly longer.
///
/// Moves no row: flat; it is for many processes with one `retry-after`.
const PAUSE_JITTER: f64 = 0.1;

/// Requests per second after a refusal and until a success, where no limit of requests is known.
///
/// Moves no row: the first refusal of the scenarios makes a limit known or guessed.
const REQUESTS_AFTER_REFUSAL: f64 = 50.0;

/// Requests that may be in flight after a refusal for concurrency, as a share of those in flight.
///
/// Moves no row: no scenario limits concurrency.
const CONCURRENCY_CUT: f64 = 0.75;

/// Seconds after the pause for which the concurrency stays limited.
///
/// Moves no row: no scenario limits concurrency.
const CONCURRENCY_LIMIT_DURATION: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::limiter::headers::HeaderValues;

    const SMALL: Cost = Cost::request().input_tokens(100).max_tokens(100);

    fn limiter(limits: Limits) -> (ClassLimiter, OverloadGate) {
        let rng = Rng::with_seed(1);
        (
            ClassLimiter::new(limits, false, rng.clone()),
            OverloadGate::new(rng),
        )
    }

    fn unlimited() -> (ClassLimiter, OverloadGate) {
        limiter(Limits::per_minute())
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            ..Usage::default()
        }
    }

    fn headers(requests: f64) -> LimitHeaders {
        let mut headers = LimitHeaders::default();
        headers.values[0] = HeaderValues {
            limit: Some(requests),
            remaining: Some(requests - 1.0),
        };
        headers
    }

    #[track_caller]
    fn granted(decision: Result<SlabKey, NotNow>) -> SlabKey {
        decision.expect("room")
    }

    #[track_caller]
    fn not_before(decision: Result<SlabKey, NotNow>) -> (Time, WaitCause) {
        match decision {
            Err(NotNow::NotBefore(time, why)) => (time, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unknown_limits_are_probed_by_one_request() {
        let (mut limiter, mut gate) = unlimited();
        let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        let decision = limiter.try_admit(0.1, &SMALL, &mut gate);
        let soon = NotNow::NotBefore(ARRIVAL_TIME, WaitCause::FirstResponse);
        assert_eq!(decision, Err(soon));
        limiter.learn_from_headers(0.5, key, &headers(1_000.0));
        granted(limiter.try_admit(1.0, &SMALL, &mut gate));
    }

    #[test]
    fn response_without_headers_ends_the_probe() {
        let (mut limiter, mut gate) = unlimited();
        let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        limiter.settle(1.0, key, &usage(100, 10), &mut gate);
        for _ in 0..100 {
            granted(limiter.try_admit(1.0, &SMALL, &mut gate));
        }
    }

    #[test]
    fn own_limits_need_no_probe_and_bound_each_minute() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(6));
        let (mut now, mut sent) = (0.0, Vec::new());
        while now < 300.0 {
            match limiter.try_admit(now, &SMALL, &mut gate) {
                Ok(key) => {
                    sent.push(now);
                    limiter.settle(now, key, &usage(100, 10), &mut gate);
                }
                other => now = not_before(other).0,
            }
        }
        assert!(sent.len() >= 24, "{sent:?}");
        assert!(sent.windows(7).all(|span| span[6] - span[0] >= 60.0));
    }

    #[test]
    fn refusal_pauses_and_counts_as_one_request() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(100));
        let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        let headers = LimitHeaders {
            retry_after: Some(7.0),
            ..headers(1_000.0)
        };
        let refusal = Refusal::Limit(Some(Dimension::InputTokens), None);
        assert_eq!(
            limiter.record_refusal(1.0, key, refusal, &headers, &mut gate),
            None
        );
        let (time, why) = not_before(limiter.try_admit(1.0, &SMALL, &mut gate));
        assert!((8.0..8.1).contains(&time) && why == WaitCause::Pause);
        assert_eq!(limiter.view(1.0).used, [1, 0, 0]);
        granted(limiter.try_admit(time, &SMALL, &mut gate));
    }

    #[test]
    fn pauses_without_retry_after_double() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(100));
        let mut now = 0.0;
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let key = loop {
                match limiter.try_admit(now, &SMALL, &mut gate) {
                    Ok(key) => break key,
                    other => now = not_before(other).0,
                }
            };
            let headers = LimitHeaders::default();
            limiter.record_refusal(now, key, Refusal::Unexplained, &headers, &mut gate);
            pauses.push(limiter.view(now).paused_until - now);
        }
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            assert!((expected..expected + 0.1).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn refusals_of_one_round_slow_down_once() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(6_000));
        let keys: Vec<SlabKey> = (0..16)
            .map(|_| granted(limiter.try_admit(0.0, &SMALL, &mut gate)))
            .collect();
        let headers = LimitHeaders {
            retry_after: Some(1.0),
            ..LimitHeaders::default()
        };
        for key in keys {
            limiter.record_refusal(0.5, key, Refusal::Growth, &headers, &mut gate);
        }
        let (mut now, mut count) = (1.6, 0);
        while now < 11.6 {
            match limiter.try_admit(now, &SMALL, &mut gate) {
                Ok(_) => count += 1,
                other => now = not_before(other).0,
            }
        }
        // The pace starts at an eighth of 100 a second and doubles in these ten seconds.
        assert!((150..220).contains(&count), "{count}");
    }

    #[test]
    fn requests_leave_a_pause_at_the_pace() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(6_000));
        let keys: Vec<SlabKey> = (0..20)
            .map(|_| granted(limiter.try_admit(0.0, &SMALL, &mut gate)))
            .collect();
        let refusal = Refusal::Limit(Some(Dimension::Requests), None);
        let headers = LimitHeaders {
            retry_after: Some(2.0),
            ..headers(1_000.0)
        };
        for key in keys {
            limiter.record_refusal(0.5, key, refusal, &headers, &mut gate);
        }
        let (mut now, mut sent) = (0.5, Vec::new());
        while sent.len() < 20 {
            match limiter.try_admit(now, &SMALL, &mut gate) {
                Ok(_) => sent.push(now),
                other => now = not_before(other).0,
            }
        }
        assert!(
            sent.windows(2).all(|pair| pair[1] - pair[0] > 0.01),
            "{sent:?}"
        );
    }

    #[test]
    fn unknown_limits_leave_a_pause_spread_out() {
        let (mut limiter, mut gate) = unlimited();
        let first = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        limiter.settle(0.1, first, &usage(100, 10), &mut gate);
        let keys: Vec<SlabKey> = (0..20)
            .map(|_| granted(limiter.try_admit(0.2, &SMALL, &mut gate)))
            .collect();
        for key in keys {
            limiter.record_refusal(
                0.5,
                key,
                Refusal::Unexplained,
                &LimitHeaders::default(),
                &mut gate,
            );
        }
        let (mut now, mut sent) = (0.5, Vec::new());
        while sent.len() < 20 {
            match limiter.try_admit(now, &SMALL, &mut gate) {
                Ok(_) => sent.push(now),
                other => now = not_before(other).0,
            }
        }
        assert!(sent[0] > 1.5 && sent[0] < 1.7, "{sent:?}");
        assert!(
            sent.windows(2).all(|pair| pair[1] - pair[0] > 0.01),
            "{sent:?}"
        );
    }

    #[test]
    fn concurrency_limit_ends_after_a_minute() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(1_000));
        let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        let headers = LimitHeaders {
            retry_after: Some(1.0),
            ..LimitHeaders::default()
        };
        limiter.record_refusal(0.0, key, Refusal::Concurrency, &headers, &mut gate);
        granted(limiter.try_admit(5.0, &SMALL, &mut gate));
        let (time, why) = not_before(limiter.try_admit(5.0, &SMALL, &mut gate));
        assert!(
            why == WaitCause::Concurrency && (61.0..61.2).contains(&time),
            "{time}"
        );
        granted(limiter.try_admit(time, &SMALL, &mut gate));
    }

    #[test]
    fn decaying_margin_is_rechecked() {
        let (mut limiter, mut gate) = unlimited();
        limiter.assume_server(0.0, &Limits::per_minute().output_tokens(2_000));
        let cost = Cost::request().input_tokens(10).max_tokens(2_000);
        let key = granted(limiter.try_admit(0.0, &cost, &mut gate));
        let server = WaitCause::Server(Dimension::OutputTokens);
        let decision = limiter.try_admit(9.0, &cost, &mut gate);
        assert_eq!(
            decision,
            Err(NotNow::OnEvent(server)),
            "only the end of the request makes room"
        );
        // The bucket was full, and is empty without a charge to the request: others use it.
        for remaining in [2_000.0, 0.0] {
            let mut headers = LimitHeaders::default();
            headers.values[OUTPUT] = HeaderValues {
                limit: Some(2_000.0),
                remaining: Some(remaining),
            };
            limiter.learn_from_headers(9.0, key, &headers);
        }
        let decision = limiter.try_admit(9.0, &cost, &mut gate);
        assert_eq!(decision, Err(NotNow::NotBefore(14.0, server)));
    }

    #[test]
    fn events_after_the_end_are_ignored() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().requests(100));
        let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
        limiter.settle(1.0, key, &usage(100, 10), &mut gate);
        let used = limiter.view(1.0).used;
        limiter.settle(1.0, key, &usage(900, 90), &mut gate);
        limiter.record_output(1.0, key, 500);
        limiter.record_overload(1.0, key, None, &mut gate);
        limiter.record_failure(1.0, key, Delivery::NotSent, &mut gate);
        assert_eq!(limiter.view(1.0).used, used);
        assert!(limiter.is_at_rest(1.0) && gate.is_open());
    }

    #[test]
    fn failure_leaves_its_possible_cost_in_the_window() {
        for (delivery, expected) in [
            (Delivery::NotSent, [0, 0, 0]),
            (Delivery::Responded, [1, 120, 30]),
            (Delivery::Unknown, [1, 120, 100]),
        ] {
            let (mut limiter, mut gate) = limiter(Limits::per_minute().output_tokens(9_999));
            let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
            limiter.record_start(0.5, key, &usage(120, 1), &mut gate);
            limiter.record_output(1.0, key, 30);
            limiter.record_failure(2.0, key, delivery, &mut gate);
            assert_eq!(limiter.view(2.0).used, expected, "{delivery}");
            assert!(limiter.is_at_rest(2.0));
        }
    }

    #[test]
    fn cache_reads_count_where_the_server_counts_them() {
        let mut usage = usage(10, 1);
        usage.cache_creation_input_tokens = Some(200);
        usage.cache_read_input_tokens = Some(3_000);
        for (counts, expected) in [(false, 210), (true, 3_210)] {
            let rng = Rng::with_seed(1);
            let mut limiter = ClassLimiter::new(Limits::per_minute(), counts, rng.clone());
            let mut gate = OverloadGate::new(rng);
            let key = granted(limiter.try_admit(0.0, &SMALL, &mut gate));
            limiter.settle(1.0, key, &usage, &mut gate);
            assert_eq!(limiter.view(1.0).used[INPUT], expected);
        }
    }

    #[test]
    fn input_of_zero_means_unreported() {
        let cost = Cost::request().input_bytes(3_500).max_tokens(100);
        let (mut limiter, mut gate) = limiter(Limits::per_minute().input_tokens(10_000));
        let limits = Limits::per_minute().input_tokens(20_000);
        limiter.assume_server(0.0, &limits);
        for round in 0..10 {
            let now = f64::from(round) * 61.0;
            let key = granted(limiter.try_admit(now, &cost, &mut gate));
            let before = (limiter.view(now).used, limiter.server.level(INPUT));
            limiter.record_start(now, key, &Usage::default(), &mut gate);
            let after = (limiter.view(now).used, limiter.server.level(INPUT));
            assert_eq!(after, before, "the estimate stays");
            limiter.settle(now + 1.0, key, &usage(1_000, 10), &mut gate);
        }
        let expected = limiter.expected_cost(&cost)[INPUT];
        assert!((expected - 1_000.0).abs() < 1e-6, "{expected}");
        // The input of the next request is never reported.
        let key = granted(limiter.try_admit(700.0, &cost, &mut gate));
        limiter.settle(701.0, key, &usage(0, 10), &mut gate);
        assert_eq!(limiter.view(701.0).used[INPUT], 1_000);
        assert!((limiter.expected_cost(&cost)[INPUT] - 1_000.0).abs() < 1e-6);
        // The input of a prompt from the cache is reported, and free.
        let key = granted(limiter.try_admit(800.0, &cost, &mut gate));
        let mut cached = usage(0, 10);
        cached.cache_read_input_tokens = Some(1_000);
        limiter.settle(801.0, key, &cached, &mut gate);
        assert_eq!(limiter.view(801.0).used[INPUT], 0);
    }

    #[test]
    fn oversized_request_is_rejected_at_once() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().input_tokens(99));
        let excess = OverLimit {
            dimension: Dimension::InputTokens,
            estimate: 100,
            limit: 99,
        };
        assert_eq!(
            limiter.try_admit(0.0, &SMALL, &mut gate),
            Err(NotNow::Never(excess))
        );
        limiter.set_limits(0.0, Limits::per_minute().input_tokens(100));
        granted(limiter.try_admit(0.0, &SMALL, &mut gate));
    }

    #[test]
    fn refusal_by_a_full_bucket_proves_oversize() {
        let cost = Cost::request().input_bytes(70_000).max_tokens(100);
        let (name, other) = (Dimension::InputTokens, Dimension::OutputTokens);
        for (dimension, remaining, limit, expected) in [
            (name, 10_000.0, 10_000.0, true),
            // Other clients use the bucket, or the estimate fits it.
            (name, 9_000.0, 10_000.0, false),
            (name, 30_000.0, 30_000.0, false),
            (other, 10_000.0, 10_000.0, false),
        ] {
            let (mut limiter, mut gate) = unlimited();
            let key = granted(limiter.try_admit(0.0, &cost, &mut gate));
            let mut headers = LimitHeaders::default();
            headers.values[INPUT] = HeaderValues {
                limit: Some(limit),
                remaining: Some(remaining),
            };
            let refusal = Refusal::Limit(Some(dimension), Some(limit));
            let excess = limiter.record_refusal(0.3, key, refusal, &headers, &mut gate);
            assert_eq!(
                excess.is_some(),
                expected,
                "{dimension:?} {remaining} {limit}"
            );
            assert!(
                excess.is_none_or(|excess| (excess.estimate, excess.limit) == (20_000, 10_000))
            );
        }
    }

    #[test]
    fn zero_limit_admits_only_zero_cost() {
        let (mut limiter, mut gate) = limiter(Limits::per_minute().input_tokens(0));
        for cost in [SMALL, Cost::request().input_bytes(10)] {
            let decision = limiter.try_admit(0.0, &cost, &mut gate);
            assert!(matches!(decision, Err(NotNow::Never(_))), "{decision:?}");
        }
        for _ in 0..10 {
            granted(limiter.try_admit(0.0, &Cost::request(), &mut gate));
        }
    }

    #[test]
    fn no_request_is_sent_before_the_earliest_time() {
        let (mut limiter, mut gate) =
            limiter(Limits::per_minute().requests(10).output_tokens(2_000));
        let mut now = 0.0;
        for ahead in 0..60 {
            let queued = limiter
                .expected_cost(&SMALL)
                .map(|cost| cost * f64::from(ahead % 3));
            let best = limiter.earliest_possible(now, &queued, &SMALL);
            for _ in 0..=ahead % 3 {
                let key = loop {
                    match limiter.try_admit(now, &SMALL, &mut gate) {
                        Ok(key) => break key,
                        other => now = not_before(other).0,
                    }
                };
                limiter.settle(now, key, &usage(100, 100), &mut gate);
            }
            assert!(best <= now + 1e-3, "{best} {now}");
        }
    }
}
