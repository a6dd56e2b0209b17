//! The gate of a host that is overloaded: one probe at a time, then a graded reopening.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::budget::cost::Time;

/// Holds back the requests to a host that answers 529.
///
/// Refusals come back in well under a second, answers take many: what has not been refused after
/// three refusal times has been accepted, and the number that may be under way unproven grows with
/// each one accepted. An open gate costs nothing. One gate serves all model classes of a host.
#[derive(Debug, Clone)]
pub(crate) struct OverloadGate {
    state: GateState,
    /// How long refusals take to come back: a moving mean.
    refusal_time: Option<f64>,
    /// Sent and neither refused nor proven accepted, oldest first; empty while open.
    unproven: VecDeque<(Time, GatePass)>,
    passed: u64,
    /// How many had passed when the gate was closed last.
    passed_at_closing: u64,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum GateState {
    Open,
    /// One probe at a time, none before `hold`; `failed` probes in a row.
    Closed {
        failed_probes: u32,
        hold: Time,
    },
    /// So many may be young at once; none is sent before `hold`. `failed` is as it was when closed.
    Opening {
        width: f64,
        hold: Time,
        failed_probes: u32,
    },
}

/// What a request passed the gate with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatePass(u64);

impl OverloadGate {
    pub(crate) fn new(rng: Rng) -> OverloadGate {
        OverloadGate {
            state: GateState::Open,
            refusal_time: None,
            unproven: VecDeque::new(),
            passed: 0,
            passed_at_closing: 0,
            rng,
        }
    }

    /// When the next request may pass; `None` for now.
    pub(crate) fn earliest(&mut self, now: Time) -> Option<Time> {
        if self.state == GateState::Open {
            return None;
        }
        self.accept_expired(now);
        let (width, hold) = match self.state {
            GateState::Open => return None,
            GateState::Closed { hold, .. } => (1, hold),
            GateState::Opening { width, hold, .. } => (width as usize, hold),
        };
        if now < hold {
            return Some(hold);
        }
        let (oldest, _) = self
            .unproven
            .front()
            .filter(|_| self.unproven.len() >= width)?;
        Some(oldest + self.proof_time())
    }

    /// Before which time surely nothing passes; `None` when that is now.
    pub(crate) fn hold(&self) -> Option<Time> {
        match self.state {
            GateState::Open => None,
            GateState::Closed { hold, .. } | GateState::Opening { hold, .. } => Some(hold),
        }
    }

    /// Lets a request pass.
    pub(crate) fn pass(&mut self, now: Time) -> GatePass {
        self.passed += 1;
        let pass = GatePass(self.passed);
        if self.state != GateState::Open {
            self.unproven.push_back((now, pass));
        }
        pass
    }

    /// The host refused a request as overloaded, and may have said how long to wait.
    pub(crate) fn record_refusal(
        &mut self,
        now: Time,
        sent: Time,
        pass: GatePass,
        wait: Option<f64>,
    ) {
        let took = (now - sent).clamp(0.0, MAX_PROOF_TIME);
        self.refusal_time = Some(match self.refusal_time {
            None => took,
            Some(mean) => mean + REFUSAL_TIME_GAIN * (took - mean),
        });
        let was_young = self.forget(pass);
        self.state = match self.state {
            GateState::Open => self.closed_state(now, 0),
            // All that was in flight comes back refused: one storm, one pause.
            GateState::Closed { .. } | GateState::Opening { .. }
                if pass.0 <= self.passed_at_closing =>
            {
                self.state
            }
            GateState::Closed { failed_probes, .. } => {
                self.closed_state(now, (failed_probes + 1).min(MAX_FAILED_PROBES))
            }
            // Taken, and refused in the middle of the answer: the host is not well yet.
            GateState::Opening { failed_probes, .. } if !was_young => {
                self.closed_state(now, (failed_probes + 1).min(MAX_FAILED_PROBES))
            }
            // A host that took one request and refuses the next is as bad as it was.
            GateState::Opening {
                width,
                failed_probes,
                ..
            } if width < FIRST_WIDTH => self.closed_state(now, failed_probes / 2),
            GateState::Opening {
                width,
                hold,
                failed_probes,
            } => GateState::Opening {
                width: width * WIDTH_CUT,
                hold,
                failed_probes,
            },
        };
        if let (GateState::Closed { hold, .. } | GateState::Opening { hold, .. }, Some(wait)) =
            (&mut self.state, wait)
        {
            *hold = hold.max(now + wait);
        }
    }

    /// The host took a request: its answer began.
    pub(crate) fn record_acceptance(&mut self, pass: GatePass) {
        if self.forget(pass) {
            self.widen();
        }
    }

    /// A request came to nothing that says anything about the host's load.
    pub(crate) fn forget(&mut self, pass: GatePass) -> bool {
        let place = self
            .unproven
            .iter()
            .position(|(_, unproven)| *unproven == pass);
        place.is_some_and(|place| self.unproven.remove(place).is_some())
    }

    /// Whether requests pass freely.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.state == GateState::Open
    }

    fn closed_state(&mut self, now: Time, failed_probes: u32) -> GateState {
        self.passed_at_closing = self.passed;
        let longest = (FIRST_PAUSE * 2f64.powi(failed_probes.min(MAX_FAILED_PROBES) as i32))
            .min(LONGEST_PAUSE);
        let hold = now + longest * ((1.0 - PAUSE_JITTER) + PAUSE_JITTER * self.rng.f64());
        GateState::Closed {
            failed_probes,
            hold,
        }
    }

    /// Counts as accepted what has not been refused for so long.
    fn accept_expired(&mut self, now: Time) {
        let proof_time = self.proof_time();
        while self
            .unproven
            .front()
            .is_some_and(|(sent, _)| now >= sent + proof_time)
        {
            self.unproven.pop_front();
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.state = match self.state {
            GateState::Open => GateState::Open,
            GateState::Closed {
                failed_probes,
                hold,
            } => GateState::Opening {
                width: FIRST_WIDTH,
                hold,
                failed_probes,
            },
            GateState::Opening {
                width,
                hold,
                failed_probes,
            } => GateState::Opening {
                width: width + WIDTH_STEP,
                hold,
                failed_probes,
            },
        };
        if matches!(self.state, GateState::Opening { width, .. } if width > OPEN_WIDTH) {
            self.state = GateState::Open;
            self.unproven.clear();
        }
    }

    /// After how long a request that was not refused has been accepted.
    fn proof_time(&self) -> f64 {
        (PROOF_REFUSAL_TIMES * self.refusal_time.unwrap_or(MAX_PROOF_TIME))
            .clamp(MIN_PROOF_TIME, MAX_PROOF_TIME)
    }
}

/// With so many young requests the gate is no hindrance any more.
const OPEN_WIDTH: f64 = 64.0;

/// The longest pause between probes, in seconds, and the count at which it surely is reached.
const LONGEST_PAUSE: f64 = 4.0;
const MAX_FAILED_PROBES: u32 = 4;

const REFUSAL_TIME_GAIN: f64 = 0.2;
const FIRST_PAUSE: f64 = 0.5;
const PAUSE_JITTER: f64 = 0.5;
const FIRST_WIDTH: f64 = 2.0;
const WIDTH_STEP: f64 = 1.0;
const WIDTH_CUT: f64 = 0.5;
const PROOF_REFUSAL_TIMES: f64 = 3.0;
const MIN_PROOF_TIME: f64 = 0.5;

/// The longest wait for a refusal, in seconds.
const MAX_PROOF_TIME: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> (OverloadGate, Time) {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        let pass = gate.pass(0.0);
        gate.record_refusal(0.2, 0.0, pass, None);
        let hold = gate.earliest(0.2).expect("closed");
        (gate, hold)
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
    fn earlier_requests_are_not_probes() {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        let passed: Vec<GatePass> = (0..20).map(|_| gate.pass(0.0)).collect();
        for pass in passed {
            gate.record_refusal(0.2, 0.0, pass, None);
        }
        let hold = gate.earliest(0.2).expect("closed");
        assert!(hold < 0.8, "one storm, one pause: {hold}");
    }

    #[test]
    fn unrefused_requests_reopen_the_gate() {
        let (mut gate, mut time) = closed();
        let mut passed = Vec::new();
        while !gate.is_open() && time < 30.0 {
            match gate.earliest(time) {
                None => {
                    gate.pass(time);
                    passed.push(time);
                }
                Some(next) => time = next.max(time + 1e-9),
            }
        }
        assert!(gate.is_open());
        let took = time - passed[0];
        assert!(
            (3.0..6.0).contains(&took),
            "{took} for {} requests",
            passed.len()
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
        for least in [0.5, 1.0, 2.0, 2.0] {
            assert_eq!(gate.earliest(time), None);
            let pass = gate.pass(time);
            gate.record_acceptance(pass);
            gate.record_refusal(time + 1.0, time, pass, None);
            let hold = gate.earliest(time + 1.0).expect("closed");
            assert!(
                hold >= time + 1.0 + least,
                "{hold} is not {least} after {time}"
            );
            time = hold;
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
