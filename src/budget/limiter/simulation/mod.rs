//! A simulation of whole runs in virtual time: the machines of the budget, or their rivals,
//! against a model of the server (LIMITING.md 4).

mod goals;
mod promises;
mod rivals;
mod server;
mod world;

use crate::types::Dimension;

use fastrand::Rng;

use crate::budget::cost::{Each, INPUT, OUTPUT, REQUESTS};
use crate::budget::limits::Limits;
use rivals::Rival;
use world::World;

/// A run to simulate.
#[derive(Debug, Clone)]
struct Scenario {
    jobs: usize,
    threads: usize,
    /// Independent processes that share the jobs and the threads.
    clients: usize,
    /// Per minute: requests, input, output.
    limits: Each<f64>,
    /// How many seconds' worth each bucket holds.
    depth: Each<f64>,
    /// The requests header shows a minute's bucket although the real one is shallower.
    hides_depth: bool,
    reserves_most: bool,
    /// Growth is limited, as seen from so many requests per second; 0 for not at all.
    growth_baseline: f64,
    tenant: Tenant,
    /// From when to when, and how likely a 529 is.
    storm: Option<(f64, f64, f64)>,
    sends_headers: bool,
    /// The headers come after a tenth of an answer's time, however long that is, and show the buckets
    /// as they were when the request arrived.
    has_slow_headers: bool,
    /// Refusals do not say why, as those of a gateway in front of the API.
    explains_nothing: bool,
    /// The client is told the limits beforehand.
    knows_limits: bool,
    /// What the client promises.
    promise: Limits,
    rival: Option<Rival>,
    max_tokens: u64,
    /// Median and largest of the input; median of the output; its tokens per second, where that
    /// decides how long an answer takes.
    input: (f64, f64),
    output: f64,
    speed: Option<f64>,
    /// By what the guess of the input is too high.
    guess_factor: f64,
    seed: u64,
}

/// Others who use the same limits: they take their share first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tenant {
    Nobody,
    Steady(f64),
    /// That share for 30 s, nothing for 30 s.
    Switching(f64),
    /// Requests like ours at random times.
    Random(f64),
}

#[derive(Debug, Clone, Copy)]
struct Job {
    input: u64,
    guess: u64,
    output: u64,
    max_tokens: u64,
    service: f64,
}

impl Scenario {
    fn new(limits: Each<f64>, jobs: usize) -> Scenario {
        Scenario {
            jobs,
            threads: 32,
            clients: 1,
            limits,
            depth: [60.0; 3],
            hides_depth: false,
            reserves_most: false,
            growth_baseline: 0.0,
            tenant: Tenant::Nobody,
            storm: None,
            sends_headers: true,
            has_slow_headers: false,
            explains_nothing: false,
            knows_limits: true,
            promise: Limits::per_minute(),
            rival: None,
            max_tokens: 4_096,
            input: (1_500.0, 100_000.0),
            output: 250.0,
            speed: None,
            guess_factor: 1.0,
            seed: 1,
        }
    }

    fn itpm(jobs: usize) -> Scenario {
        Scenario::new([1_000.0, 450_000.0, 400_000.0], jobs)
    }

    fn rpm(jobs: usize) -> Scenario {
        Scenario::new([120.0, 2_000_000.0, 400_000.0], jobs)
    }

    fn otpm(jobs: usize) -> Scenario {
        Scenario::new([1_000.0, 2_000_000.0, 60_000.0], jobs)
    }

    fn tier1(jobs: usize) -> Scenario {
        Scenario {
            input: (1_500.0, 25_000.0),
            ..Scenario::new([50.0, 30_000.0, 8_000.0], jobs)
        }
    }

    /// Answers of minutes.
    fn long(jobs: usize) -> Scenario {
        Scenario {
            output: 4_000.0,
            speed: Some(60.0),
            max_tokens: 32_000,
            ..Scenario::new([1_000.0, 2_000_000.0, 80_000.0], jobs)
        }
    }

    /// The promise is the server's limits, or a share of them.
    fn promising(self, share: f64) -> Scenario {
        let [requests, input, output] = self.limits.map(|limit| (limit * share) as u64);
        let promise = Limits::per_minute()
            .requests(requests)
            .input_tokens(input)
            .output_tokens(output);
        Scenario { promise, ..self }
    }

    fn seed(&self, seed: u64) -> Scenario {
        Scenario {
            seed,
            ..self.clone()
        }
    }

    fn rate(&self, d: usize) -> f64 {
        self.limits[d] / 60.0
    }

    fn job(&self, rng: &mut Rng) -> Job {
        let (median, largest) = self.input;
        let input = lognormal(rng, median, 1.2).clamp(1.0, largest);
        let output = lognormal(rng, self.output, 0.9);
        let output = output.clamp(1.0, self.max_tokens as f64).floor();
        let service = match self.speed {
            Some(speed) => 1.0 + output / speed,
            None => lognormal(rng, 6.3, 0.70),
        };
        let guess = input * lognormal(rng, self.guess_factor, 0.15);
        Job {
            input: input as u64,
            guess: (guess * 3.5) as u64,
            output: output as u64,
            max_tokens: self.max_tokens,
            service,
        }
    }

    fn run(&self) -> Report {
        World::new(self).run()
    }
}

fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
struct Report {
    /// The makespan over demand / limit of the scarcest dimension, or over the promise.
    ratio: f64,
    makespan: f64,
    refused: usize,
    overloaded: usize,
    lost: usize,
    /// Sent into the storm, and how long after it the tenth success began.
    sent_in_storm: usize,
    tenth_after: f64,
    longest_wait: f64,
    /// The worst 60 s over the promise, or over the limits: as admitted and as charged; and the
    /// share of the run that was above it.
    admitted: Each<f64>,
    charged: Each<f64>,
    above: Each<f64>,
    shares: Vec<usize>,
    decisions: usize,
    conserved: bool,
}

impl Job {
    fn cost(&self) -> Each<f64> {
        [1.0, self.input as f64, self.output as f64]
    }
}
