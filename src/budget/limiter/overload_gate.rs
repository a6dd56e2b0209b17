//! The overload gate of a host: one probe at a time, then a graded reopening. The [parent
//! module](super) says what "Moves" means in the docs of the constants;
//! `529s` are responses with status 529.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::budget::cost::Time;

/// Holds requests back from a host that responds with 529 (overloaded).
///
/// A host refuses within a second, but takes many seconds for a response. So a request counts as
/// accepted once its response begins, or once it was not refused for a time, the proof time. Until
/// then the request is unproven. The number of requests that may be unproven at once, the width of
/// the gate, grows with each accepted request. An open gate delays no request and keeps no list of
/// requests. One gate serves all model classes of a host.
#[derive(Debug, Clone)]
pub(crate) struct OverloadGate {
    state: GateState,
    /// The mean time in seconds from sending a request to its refusal; `None` before the first.
    refusal_time: Option<f64>,
    /// Requests neither refused nor proven accepted, oldest first; empty while the gate is open.
    unproven: VecDeque<UnprovenRequest>,
    /// How many requests have passed since the gate was made.
    passed_count: u64,
    /// How many requests had passed when the gate was last closed.
    passed_count_at_closing: u64,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum GateState {
    Open,
    /// One probe (a request that tests whether the host accepts again) at a time, none before
    /// `until`.
    Closed {
        /// How many probes in a row failed; halved when a probe between them was accepted.
        failed_probes: u32,
        until: Time,
    },
    /// At most `width` (rounded down) unproven requests at once, none before `until`.
    Opening {
        width: f64,
        until: Time,
        /// The failed probes of the closed state that came before: where the pauses go on if the
        /// gate closes again.
        failed_probes: u32,
    },
}

/// The number of a request that passed the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatePass {
    number: u64,
}

/// A request that the host has neither refused nor, as far as is known, accepted.
#[derive(Debug, Clone, Copy)]
struct UnprovenRequest {
    pass: GatePass,
    sent_at: Time,
}

impl OverloadGate {
    pub(crate) fn new(rng: Rng) -> OverloadGate {
        OverloadGate {
            state: GateState::Open,
            refusal_time: None,
            unproven: VecDeque::new(),
            passed_count: 0,
            passed_count_at_closing: 0,
            rng,
        }
    }

    /// Returns when the next request may pass; `None` if it may pass at once. Counts the requests
    /// whose proof time is over as accepted.
    pub(crate) fn earliest(&mut self, now: Time) -> Option<Time> {
        if self.state == GateState::Open {
            return None;
        }
        self.accept_unrefused(now);
        let (width, until) = match self.state {
            GateState::Open => return None,
            GateState::Closed { until, .. } => (1, until),
            GateState::Opening { width, until, .. } => (width as usize, until),
        };
        if now < until {
            return Some(until);
        }
        let oldest = self.unproven.front()?;
        (self.unproven.len() >= width).then(|| oldest.sent_at + self.proof_time())
    }

    /// Lets a request pass.
    pub(crate) fn pass(&mut self, now: Time) -> GatePass {
        self.passed_count += 1;
        let pass = GatePass {
            number: self.passed_count,
        };
        if self.state != GateState::Open {
            let sent_at = now;
            self.unproven.push_back(UnprovenRequest { pass, sent_at });
        }
        pass
    }

    /// Closes or narrows the gate: the host refused a request as overloaded. `wait` is the
    /// `retry-after` of the refusal in seconds.
    pub(crate) fn record_refusal(
        &mut self,
        now: Time,
        sent_at: Time,
        pass: GatePass,
        wait: Option<f64>,
    ) {
        let took = (now - sent_at).clamp(0.0, MAX_PROOF_TIME);
        self.refusal_time = Some(match self.refusal_time {
            None => took,
            Some(mean) => mean + REFUSAL_TIME_GAIN * (took - mean),
        });
        let was_unproven = self.forget(pass);
        let passed_before_closing = pass.number <= self.passed_count_at_closing;
        self.state = match self.state {
            GateState::Open => self.close(now, 0),
            // An overloaded host refuses all requests in flight: their refusals together count as
            // the one that closed the gate.
            GateState::Closed { .. } | GateState::Opening { .. } if passed_before_closing => {
                self.state
            }
            GateState::Closed { failed_probes, .. } => self.close(now, failed_probes + 1),
            // The host accepted the request and refused in the middle of the response.
            GateState::Opening { failed_probes, .. } if !was_unproven => {
                self.close(now, failed_probes + 1)
            }
            // A host that accepts a probe and refuses the next requests is still overloaded. The
            // accepted probe halves the count, so that the next pause is shorter.
            GateState::Opening {
                width,
                failed_probes,
                ..
            } if width < FIRST_WIDTH => self.close(now, failed_probes / 2),
            GateState::Opening {
                width,
                until,
                failed_probes,
            } => GateState::Opening {
                width: width * WIDTH_CUT,
                until,
                failed_probes,
            },
        };
        if let (GateState::Closed { until, .. } | GateState::Opening { until, .. }, Some(wait)) =
            (&mut self.state, wait)
        {
            *until = until.max(now + wait);
        }
    }

    /// Widens the gate: the response to a request began.
    pub(crate) fn record_acceptance(&mut self, pass: GatePass) {
        if self.forget(pass) {
            self.widen();
        }
    }

    /// Drops a request from the unproven ones, without counting it as refused or accepted. Returns
    /// whether the request was unproven.
    pub(crate) fn forget(&mut self, pass: GatePass) -> bool {
        let index = self
            .unproven
            .iter()
            .position(|request| request.pass == pass);
        index.is_some_and(|index| self.unproven.remove(index).is_some())
    }

    /// Returns the time before which no request passes; `None` if the gate is open.
    pub(crate) fn closed_until(&self) -> Option<Time> {
        match self.state {
            GateState::Open => None,
            GateState::Closed { until, .. } | GateState::Opening { until, .. } => Some(until),
        }
    }

    /// Returns whether requests pass freely.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.state == GateState::Open
    }

    /// Returns the closed state, with a pause that doubles with each failed probe. Requests that
    /// passed until now are not its probes.
    fn close(&mut self, now: Time, failed_probes: u32) -> GateState {
        self.passed_count_at_closing = self.passed_count;
        let failed_probes = failed_probes.min(MAX_FAILED_PROBES);
        let pause_bound = (FIRST_PAUSE * 2f64.powi(failed_probes as i32)).min(LONGEST_PAUSE);
        let until = now + pause_bound * ((1.0 - PAUSE_JITTER) + PAUSE_JITTER * self.rng.f64());
        GateState::Closed {
            failed_probes,
            until,
        }
    }

    /// Counts the requests that were not refused within the proof time as accepted.
    fn accept_unrefused(&mut self, now: Time) {
        let proof_time = self.proof_time();
        while self
            .unproven
            .front()
            .is_some_and(|request| now >= request.sent_at + proof_time)
        {
            self.unproven.pop_front();
            self.widen();
        }
    }

    /// Counts one request as accepted: a closed gate begins to open, an opening gate becomes wider,
    /// or open once it is wide enough.
    fn widen(&mut self) {
        self.state = match self.state {
            GateState::Open => GateState::Open,
            GateState::Closed {
                failed_probes,
                until,
            } => GateState::Opening {
                width: FIRST_WIDTH,
                until,
                failed_probes,
            },
            GateState::Opening {
                width,
                until,
                failed_probes,
            } => GateState::Opening {
                width: width + WIDTH_STEP,
                until,
                failed_probes,
            },
        };
        if matches!(self.state, GateState::Opening { width, .. } if width > OPEN_WIDTH) {
            self.state = GateState::Open;
            self.unproven.clear();
        }
    }

    /// Returns the seconds after which a request that was not refused counts as accepted.
    fn proof_time(&self) -> f64 {
        let refusal_time = self.refusal_time.unwrap_or(MAX_PROOF_TIME);
        (PROOF_REFUSAL_TIMES * refusal_time).clamp(MIN_PROOF_TIME, MAX_PROOF_TIME)
    }
}

/// Upper bound of the pause before the first probe, in seconds; it doubles with each failed probe.
///
/// Moves, doubled: `storm 0.9` 529s 26 → 23.
const FIRST_PAUSE: f64 = 0.5;

/// Upper bound of the pauses between probes, in seconds.
///
/// Moves, halved: `storm 0.9` 529s 26 → 40; `storm 1.0` 529s 22 → 36; 2 more. Doubled: `storm
/// 0.9` 529s 26 → 18; `storm 1.0` 529s 22 → 14; 2 more.
const LONGEST_PAUSE: f64 = 4.0;

/// Maximum of the failed probes in a row that are counted: three reach [`LONGEST_PAUSE`];
/// halving the count of four leaves a pause of half that length.
///
/// Moves, halved: `storm 0.9` 529s 26 → 40; `storm 1.0` 529s 22 → 36; 2 more.
const MAX_FAILED_PROBES: u32 = 4;

/// Share of a pause that is random, so that several processes do not probe at once.
///
/// Moves, halved: `storm 0.9` 529s 26 → 23; `storm 1.0` 529s 22 → 19; 1 more. Doubled: `storm
/// 0.9` 529s 26 → 35; `storm 1.0` 529s 22 → 30; 2 more.
const PAUSE_JITTER: f64 = 0.5;

/// Width after an accepted probe: the unproven requests that may be in flight at once.
///
/// Moves, doubled: `storm 0.9, promised` 529s 24 → 30; `storm 0.9` 529s 26 → 31.
const FIRST_WIDTH: f64 = 2.0;

/// Growth of the width with each accepted request. As many requests as the width are accepted in
/// one proof time, so that the width doubles.
///
/// Moves no row: flat; the storms change in the third digit.
const WIDTH_STEP: f64 = 1.0;

/// Factor of the width for each refusal while the gate opens.
///
/// Moves, at 1: `storm 0.9` 529s 25 → 220; `storm 0.9, promised` 529s 24 → 180. Flat between 0.25
/// and 0.8.
const WIDTH_CUT: f64 = 0.5;

/// Width above which the gate is open: more than the usual number of threads.
///
/// Moves no row: the clients of the scenarios have 32 threads.
const OPEN_WIDTH: f64 = 64.0;

/// Weight of one refusal in the mean refusal time.
///
/// Moves no row, nor does 1: refusals of the scenarios take 0.1 to 0.3 s. The mean is for hosts
/// where one refusal comes at once and the next after seconds.
const REFUSAL_TIME_GAIN: f64 = 0.2;

/// The proof time as a multiple of the mean refusal time.
///
/// Moves no row, nor does 1: the storms change by less than a second. Half of the refusals take
/// longer than their mean, so that 1 would count refused requests as accepted.
const PROOF_REFUSAL_TIMES: f64 = 3.0;

/// Lower bound of the proof time, in seconds.
///
/// Moves no row: a bound that the refusal times of the scenarios exceed or hardly touch.
const MIN_PROOF_TIME: f64 = 0.5;

/// Upper bound of the proof time, and of each refusal time that counts for the mean, in seconds.
///
/// Moves no row: a bound; refusals of the scenarios take under 0.5 s.
const MAX_PROOF_TIME: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> (OverloadGate, Time) {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        let pass = gate.pass(0.0);
        gate.record_refusal(0.2, 0.0, pass, None);
        let until = gate.earliest(0.2).expect("closed");
        (gate, until)
    }

    #[test]
    fn open_gate_holds_nothing_back() {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        for _ in 0..1_000 {
            assert_eq!(gate.earliest(1.0), None);
            gate.pass(1.0);
        }
        assert!(gate.unproven.is_empty());
    }

    #[test]
    fn closed_gate_sends_one_probe_at_a_time() {
        let (mut gate, mut time) = closed();
        assert!((0.45..=0.7).contains(&time));
        let mut sent = 0;
        while time < 60.0 {
            assert_eq!(gate.earliest(time), None);
            let pass = gate.pass(time);
            assert!(gate.earliest(time).is_some(), "a second probe");
            gate.record_refusal(time + 0.2, time, pass, None);
            sent += 1;
            time = gate.earliest(time + 0.2).expect("still closed");
        }
        assert!((15..=30).contains(&sent), "{sent}");
    }

    #[test]
    fn requests_sent_before_the_closing_are_not_probes() {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        let passes: Vec<GatePass> = (0..20).map(|_| gate.pass(0.0)).collect();
        for pass in passes {
            gate.record_refusal(0.2, 0.0, pass, None);
        }
        let until = gate.earliest(0.2).expect("closed");
        assert!(until < 0.8, "more than one pause: {until}");
    }

    #[test]
    fn unrefused_requests_reopen_the_gate() {
        let (mut gate, mut time) = closed();
        let mut sent_at = Vec::new();
        while !gate.is_open() && time < 30.0 {
            match gate.earliest(time) {
                None => {
                    gate.pass(time);
                    sent_at.push(time);
                }
                Some(next) => time = next.max(time + 1e-9),
            }
        }
        assert!(gate.is_open());
        let took = time - sent_at[0];
        assert!(
            (3.0..6.0).contains(&took),
            "{took} for {} requests",
            sent_at.len()
        );
    }

    #[test]
    fn started_response_proves_acceptance() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        gate.record_acceptance(pass);
        assert_eq!(gate.earliest(time), None);
        gate.record_acceptance(pass);
        assert!(matches!(gate.state, GateState::Opening { width: 2.0, .. }));
    }

    #[test]
    fn refusals_while_opening_narrow_then_close() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        gate.record_acceptance(pass);
        let (first, second) = (gate.pass(time), gate.pass(time));
        gate.record_refusal(time, time, first, None);
        assert!(matches!(gate.state, GateState::Opening { width: 1.0, .. }));
        gate.record_refusal(time, time, second, None);
        assert!(matches!(
            gate.state,
            GateState::Closed {
                failed_probes: 0,
                ..
            }
        ));
    }

    #[test]
    fn dropped_responses_lengthen_the_pauses() {
        let (mut gate, mut time) = closed();
        for shortest_pause in [0.5, 1.0, 2.0, 2.0] {
            assert_eq!(gate.earliest(time), None);
            let pass = gate.pass(time);
            gate.record_acceptance(pass);
            gate.record_refusal(time + 1.0, time, pass, None);
            let until = gate.earliest(time + 1.0).expect("closed");
            assert!(
                until >= time + 1.0 + shortest_pause,
                "{until} is too soon after {time}: the pause is under {shortest_pause}"
            );
            time = until;
        }
    }

    #[test]
    fn lost_probe_is_replaced_and_retry_after_kept() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        assert!(gate.earliest(time).is_some());
        gate.forget(pass);
        assert_eq!(gate.earliest(time), None);
        let pass = gate.pass(time);
        gate.record_refusal(time, time, pass, Some(30.0));
        assert_eq!(gate.earliest(time), Some(time + 30.0));
    }
}
