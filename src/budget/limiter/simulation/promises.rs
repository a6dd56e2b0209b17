//! Invariants under random load: with estimates that are upper bounds the server refuses nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use super::scenario::{Scenario, Storm, Tenant};
use crate::budget::cost::{Cost, INPUT, OUTPUT};
use crate::budget::limiter::class_limiter::ClassLimiter;
use crate::budget::limiter::overload_gate::OverloadGate;
use crate::budget::limiter::server_buckets::{
    BucketHold, ExpectedCharge, MAX_OUTPUT, OutputCharging, Room, ServerBuckets,
};
use crate::budget::limits::Limits;
use crate::types::Usage;

/// When the server charges.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Charging {
    OnArrival,
    AsProduced,
    Reserved,
}

impl Charging {
    fn dimension(self) -> usize {
        match self {
            Charging::OnArrival => INPUT,
            Charging::AsProduced | Charging::Reserved => OUTPUT,
        }
    }
}

/// A request whose promise is at least its actual cost.
struct Request {
    hold: BucketHold,
    promise: f64,
    actual: f64,
    arrives: f64,
    ends: f64,
    /// What the server has charged for the request so far.
    charged: f64,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Moment {
    Arrive,
    SurelyArrived,
    Report,
    End,
}

/// One bucket of the server, its model, and a client that sends as fast as the model allows.
struct AdversarialRun {
    charging: Charging,
    server: ServerBuckets,
    requests: Vec<Request>,
    in_flight: Vec<usize>,
    moments: BinaryHeap<Reverse<(u64, usize, u8)>>,
    level: f64,
    at: f64,
    refused: usize,
    rng: Rng,
}

const LIMIT: f64 = 60_000.0;

impl AdversarialRun {
    fn new(charging: Charging, rng: Rng) -> AdversarialRun {
        let mut server = ServerBuckets::new();
        let mut limits = [None; 3];
        limits[charging.dimension()] = Some(LIMIT);
        server.assume_limits(&limits);
        if charging == Charging::Reserved {
            server.set_charging(OutputCharging::MaxTokens);
        }
        AdversarialRun {
            charging,
            server,
            requests: Vec::new(),
            in_flight: Vec::new(),
            moments: BinaryHeap::new(),
            level: LIMIT,
            at: 0.0,
            refused: 0,
            rng,
        }
    }

    /// Moves the server on to `now`; output is charged in steps from moment to moment.
    fn advance(&mut self, now: f64) {
        let passed = now - self.at;
        self.level = (self.level + passed * LIMIT / 60.0).min(LIMIT);
        if self.charging == Charging::AsProduced {
            for place in &self.in_flight {
                let request = &mut self.requests[*place];
                if request.arrives < now {
                    let share = (now - request.arrives) / (request.ends - request.arrives);
                    let produced = request.actual * share.clamp(0.0, 1.0);
                    self.level -= produced - request.charged;
                    request.charged = produced;
                }
            }
        }
        self.at = now;
    }

    fn plan(&mut self, time: f64, request: usize, moment: Moment) {
        // Whole microseconds have an exact order; rounded up, no moment is early.
        let key = ((time * 1e6).ceil() as u64, request, moment as u8);
        self.moments.push(Reverse(key));
    }

    /// Handles all moments until `end`.
    fn wait(&mut self, end: f64) {
        while let Some(Reverse((time, place, moment))) = self.moments.peek().copied() {
            let time = time as f64 / 1e6;
            if time > end {
                break;
            }
            self.moments.pop();
            self.advance(time);
            self.server.refill(time);
            self.handle(place, moment);
            self.check();
        }
        self.advance(end);
        self.server.refill(end);
    }

    fn handle(&mut self, place: usize, moment: u8) {
        let request = &mut self.requests[place];
        if moment == Moment::Arrive as u8 {
            let need = match self.charging {
                Charging::Reserved => request.promise,
                _ => request.actual,
            };
            self.refused += usize::from(self.level < need - 1e-3);
            if self.charging != Charging::AsProduced {
                self.level -= need;
                request.charged = need;
            }
        } else if moment == Moment::SurelyArrived as u8 {
            if !request.ended {
                self.server.mark_arrived(&mut request.hold);
            }
        } else if moment == Moment::Report as u8 {
            match self.charging {
                Charging::OnArrival => self.server.settle_input(&mut request.hold, request.actual),
                Charging::AsProduced => {
                    let seen = request.charged;
                    self.server.charge_output(&mut request.hold, seen);
                }
                Charging::Reserved => {}
            }
        } else {
            if self.charging == Charging::Reserved {
                self.level = (self.level + request.promise - request.actual).min(LIMIT);
            }
            request.ended = true;
            self.in_flight.retain(|in_flight| *in_flight != place);
            let mut actual = [1.0, 0.0, 0.0];
            actual[self.charging.dimension()] = request.actual;
            self.server.settle(&request.hold, &actual);
        }
    }

    /// Asserts that available and reserved cost are at most the server's level plus its charges to the
    /// requests in flight.
    fn check(&self) {
        let (free, promised) = self.server.level(self.charging.dimension());
        let charged: f64 = self
            .in_flight
            .iter()
            .map(|place| self.requests[*place].charged)
            .sum();
        let (ours, theirs) = (free + promised, self.level + charged);
        assert!(
            ours <= theirs + 1e-3,
            "{:?} at {}: {ours} > {theirs}",
            self.charging,
            self.at
        );
    }

    /// Runs twenty minutes of bursts and rests; returns the number of admitted requests.
    fn run_to_end(&mut self) -> usize {
        while self.at < 1_200.0 {
            let burst = self.at + self.rng.f64() * 60.0;
            let largest = LIMIT * [0.002, 0.02, 0.3][self.rng.usize(..3)];
            while self.at < burst {
                let actual = 1.0 + (self.rng.f64() * largest).floor();
                // Half of the promises are exact, half up to twelve times too high.
                let promise = match self.rng.bool() {
                    true => actual,
                    false => (actual * (1.0 + 11.0 * self.rng.f64())).min(LIMIT),
                };
                self.send(actual, promise);
            }
            let rest = self.at + self.rng.f64() * 60.0;
            self.wait(rest);
        }
        self.wait(3_000.0);
        assert!(self.server.is_at_rest());
        self.requests.len()
    }

    fn send(&mut self, actual: f64, promise: f64) {
        let d = self.charging.dimension();
        let mut charge = ExpectedCharge {
            cost: [0.0; 4],
            variance: [0.0; 4],
        };
        charge.cost[d] = promise;
        if d == OUTPUT {
            charge.cost[MAX_OUTPUT] = promise;
        }
        // An inexact input has a variance; the promised output is uncharged until it is produced.
        if d == INPUT && promise > actual {
            charge.variance[d] = promise * promise;
        }
        loop {
            match self.server.find_room(&charge) {
                Room::Now => break,
                Room::At(time, _) => self.wait(time),
                Room::AfterEvent(_) => {
                    let Reverse((time, ..)) = self.moments.peek().expect("a request in flight");
                    let time = *time as f64 / 1e6;
                    self.wait(time.max(self.at));
                }
            }
        }
        let hold = self.server.reserve(&charge);
        let arrives = self.at + self.rng.f64();
        let ends = arrives + 0.05 + self.rng.f64() * self.rng.f64() * 40.0;
        let place = self.requests.len();
        self.in_flight.push(place);
        self.requests.push(Request {
            hold,
            promise,
            actual,
            arrives,
            ends,
            charged: 0.0,
            ended: false,
        });
        self.plan(arrives, place, Moment::Arrive);
        if ends > self.at + 2.0 {
            self.plan(self.at + 2.0, place, Moment::SurelyArrived);
        }
        if self.rng.bool() {
            let report = arrives + (ends - arrives) * self.rng.f64();
            self.plan(report, place, Moment::Report);
        }
        self.plan(ends, place, Moment::End);
    }
}

fn adversarial_runs(rounds: u64) -> usize {
    let mut admitted = 0;
    for charging in [
        Charging::OnArrival,
        Charging::AsProduced,
        Charging::Reserved,
    ] {
        for seed in 0..rounds {
            let mut run = AdversarialRun::new(charging, Rng::with_seed(seed * 31 + 5));
            admitted += run.run_to_end();
            assert_eq!(run.refused, 0, "{charging:?}, seed {seed}");
        }
    }
    admitted
}

#[test]
fn upper_bounds_are_never_refused() {
    let admitted = adversarial_runs(4);
    assert!(admitted > 10_000, "{admitted}");
}

#[test]
#[ignore = "a million admissions: run in release"]
fn a_million_upper_bounds_are_never_refused() {
    let admitted = adversarial_runs(70);
    println!("{admitted} admissions in three charging modes, none refused");
    assert!(admitted > 1_000_000, "{admitted}");
}

#[test]
fn settled_runs_leave_only_the_charged_cost() {
    let storm = Scenario {
        storm: Some(Storm {
            from: 20.0,
            to: 40.0,
            odds: 0.5,
        }),
        ..Scenario::itpm(300)
    };
    let tenant = Scenario {
        tenant: Tenant::Switching(0.6),
        ..Scenario::rpm(300)
    };
    for scenario in [
        storm,
        tenant,
        Scenario::otpm(300).promising(0.5),
        Scenario::tier1(60),
    ] {
        let report = scenario.run();
        assert!(report.conserved, "{report:?}");
    }
}

#[test]
#[ignore = "measures: run in release"]
fn admit_and_settle_duration() {
    let rng = Rng::with_seed(1);
    let limits = Limits::per_minute()
        .requests(100_000_000)
        .input_tokens(1 << 39);
    let mut limiter = ClassLimiter::new(limits.output_tokens(1 << 39), false, rng.clone());
    limiter.assume_server(0.0, &limits.output_tokens(1 << 39));
    let mut gate = OverloadGate::new(rng);
    let cost = Cost::request().input_bytes(5_000).max_tokens(1_000);
    let usage = Usage {
        input_tokens: 1_400,
        output_tokens: 200,
        ..Usage::default()
    };
    const ROUNDS: u32 = 1_000_000;
    let start = std::time::Instant::now();
    for round in 0..ROUNDS {
        let now = 100.0 + f64::from(round) * 1e-5;
        let Ok(key) = limiter.try_admit(now, &cost, &mut gate) else {
            continue;
        };
        limiter.settle(now + 5e-6, key, &usage, &mut gate);
    }
    println!("{:?} for each request", start.elapsed() / ROUNDS);
}
