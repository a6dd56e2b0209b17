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
    state: State,
    /// How long refusals take to come back: a moving mean.
    refusal_time: Option<f64>,
    /// Sent and neither refused nor proven accepted, oldest first; empty while open.
    young: VecDeque<(Time, GatePass)>,
    passes: u64,
    /// How many had passed when the gate was closed last.
    closed: u64,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// One probe at a time, none before `hold`; `failed` probes in a row.
    Closed {
        failed: u32,
        hold: Time,
    },
    /// So many may be young at once; none is sent before `hold`. `failed` is as it was when closed.
    Opening {
        width: f64,
        hold: Time,
        failed: u32,
    },
}

/// What a request passed the gate with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatePass(u64);

impl OverloadGate {
    pub(crate) fn new(rng: Rng) -> OverloadGate {
        OverloadGate {
            state: State::Open,
            refusal_time: None,
            young: VecDeque::new(),
            passes: 0,
            closed: 0,
            rng,
        }
    }

    /// When the next request may pass; `None` for now.
    pub(crate) fn earliest(&mut self, now: Time) -> Option<Time> {
        if self.state == State::Open {
            return None;
        }
        self.expire(now);
        let (width, hold) = match self.state {
            State::Open => return None,
            State::Closed { hold, .. } => (1, hold),
            State::Opening { width, hold, .. } => (width as usize, hold),
        };
        if now < hold {
            return Some(hold);
        }
        let (oldest, _) = self.young.front().filter(|_| self.young.len() >= width)?;
        Some(oldest + self.age())
    }

    /// Before which time surely nothing passes; `None` when that is now.
    pub(crate) fn hold(&self) -> Option<Time> {
        match self.state {
            State::Open => None,
            State::Closed { hold, .. } | State::Opening { hold, .. } => Some(hold),
        }
    }

    /// Lets a request pass.
    pub(crate) fn pass(&mut self, now: Time) -> GatePass {
        self.passes += 1;
        let pass = GatePass(self.passes);
        if self.state != State::Open {
            self.young.push_back((now, pass));
        }
        pass
    }

    /// The host refused a request as overloaded, and may have said how long to wait.
    pub(crate) fn refused(&mut self, now: Time, sent: Time, pass: GatePass, wait: Option<f64>) {
        let took = (now - sent).clamp(0.0, MAX_PROOF_TIME);
        self.refusal_time = Some(match self.refusal_time {
            None => took,
            Some(mean) => mean + REFUSAL_TIME_GAIN * (took - mean),
        });
        let was_young = self.forget(pass);
        self.state = match self.state {
            State::Open => self.close(now, 0),
            // All that was in flight comes back refused: one storm, one pause.
            State::Closed { .. } | State::Opening { .. } if pass.0 <= self.closed => self.state,
            State::Closed { failed, .. } => self.close(now, (failed + 1).min(MAX_FAILED_PROBES)),
            // Taken, and refused in the middle of the answer: the host is not well yet.
            State::Opening { failed, .. } if !was_young => {
                self.close(now, (failed + 1).min(MAX_FAILED_PROBES))
            }
            // A host that took one request and refuses the next is as bad as it was.
            State::Opening { width, failed, .. } if width < FIRST_WIDTH => {
                self.close(now, failed / 2)
            }
            State::Opening {
                width,
                hold,
                failed,
            } => State::Opening {
                width: width * WIDTH_CUT,
                hold,
                failed,
            },
        };
        if let (State::Closed { hold, .. } | State::Opening { hold, .. }, Some(wait)) =
            (&mut self.state, wait)
        {
            *hold = hold.max(now + wait);
        }
    }

    /// The host took a request: its answer began.
    pub(crate) fn accepted(&mut self, pass: GatePass) {
        if self.forget(pass) {
            self.widen();
        }
    }

    /// A request came to nothing that says anything about the host's load.
    pub(crate) fn forget(&mut self, pass: GatePass) -> bool {
        let place = self.young.iter().position(|(_, young)| *young == pass);
        place.is_some_and(|place| self.young.remove(place).is_some())
    }

    /// Whether requests pass freely.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    fn close(&mut self, now: Time, failed: u32) -> State {
        self.closed = self.passes;
        let longest =
            (FIRST_PAUSE * 2f64.powi(failed.min(MAX_FAILED_PROBES) as i32)).min(LONGEST_PAUSE);
        let hold = now + longest * ((1.0 - PAUSE_JITTER) + PAUSE_JITTER * self.rng.f64());
        State::Closed { failed, hold }
    }

    /// Counts as accepted what has not been refused for so long.
    fn expire(&mut self, now: Time) {
        let age = self.age();
        while self
            .young
            .front()
            .is_some_and(|(sent, _)| now >= sent + age)
        {
            self.young.pop_front();
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.state = match self.state {
            State::Open => State::Open,
            State::Closed { failed, hold } => State::Opening {
                width: FIRST_WIDTH,
                hold,
                failed,
            },
            State::Opening {
                width,
                hold,
                failed,
            } => State::Opening {
                width: width + WIDTH_STEP,
                hold,
                failed,
            },
        };
        if matches!(self.state, State::Opening { width, .. } if width > OPEN_WIDTH) {
            self.state = State::Open;
            self.young.clear();
        }
    }

    /// After how long a request that was not refused has been accepted.
    fn age(&self) -> f64 {
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
        gate.refused(0.2, 0.0, pass, None);
        let hold = gate.earliest(0.2).expect("closed");
        (gate, hold)
    }

    #[test]
    fn an_open_gate_holds_nothing_back() {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        for _ in 0..1_000 {
            assert_eq!(gate.earliest(1.0), None);
            gate.pass(1.0);
        }
        assert!(gate.young.is_empty());
    }

    #[test]
    fn after_a_refusal_one_probe_goes_at_a_time_and_each_failure_waits_longer() {
        let (mut gate, mut time) = closed();
        assert!((0.45..=0.7).contains(&time));
        let mut sent = 0;
        while time < 60.0 {
            assert_eq!(gate.earliest(time), None);
            let pass = gate.pass(time);
            assert!(gate.earliest(time).is_some(), "a second probe");
            gate.refused(time + 0.2, time, pass, None);
            sent += 1;
            time = gate.earliest(time + 0.2).expect("still closed");
        }
        assert!((15..=30).contains(&sent), "{sent}");
    }

    #[test]
    fn requests_sent_before_the_refusal_are_no_probes() {
        let mut gate = OverloadGate::new(Rng::with_seed(3));
        let passes: Vec<GatePass> = (0..20).map(|_| gate.pass(0.0)).collect();
        for pass in passes {
            gate.refused(0.2, 0.0, pass, None);
        }
        let hold = gate.earliest(0.2).expect("closed");
        assert!(hold < 0.8, "one storm, one pause: {hold}");
    }

    #[test]
    fn what_is_not_refused_in_time_opens_the_gate_by_doubling() {
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
    fn an_answer_that_begins_proves_acceptance_at_once() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        gate.accepted(pass);
        assert_eq!(gate.earliest(time), None);
        gate.accepted(pass);
        assert!(matches!(gate.state, State::Opening { width: 2.0, .. }));
    }

    #[test]
    fn a_refusal_while_opening_halves_and_then_closes() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        gate.accepted(pass);
        let (first, second) = (gate.pass(time), gate.pass(time));
        gate.refused(time, time, first, None);
        assert!(matches!(gate.state, State::Opening { width: 1.0, .. }));
        gate.refused(time, time, second, None);
        assert!(matches!(gate.state, State::Closed { failed: 0, .. }));
    }

    #[test]
    fn a_host_that_takes_requests_and_drops_them_is_waited_for_longer_each_time() {
        let (mut gate, mut time) = closed();
        for least in [0.5, 1.0, 2.0, 2.0] {
            assert_eq!(gate.earliest(time), None);
            let pass = gate.pass(time);
            gate.accepted(pass);
            gate.refused(time + 1.0, time, pass, None);
            let hold = gate.earliest(time + 1.0).expect("closed");
            assert!(
                hold >= time + 1.0 + least,
                "{hold} is not {least} after {time}"
            );
            time = hold;
        }
    }

    #[test]
    fn a_lost_probe_makes_room_for_another_and_a_stated_wait_is_kept() {
        let (mut gate, time) = closed();
        let pass = gate.pass(time);
        assert!(gate.earliest(time).is_some());
        gate.forget(pass);
        assert_eq!(gate.earliest(time), None);
        let pass = gate.pass(time);
        gate.refused(time, time, pass, Some(30.0));
        assert_eq!(gate.earliest(time), Some(time + 30.0));
    }
}
