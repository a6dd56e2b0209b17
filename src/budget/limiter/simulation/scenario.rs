//! The settings of a simulated run, and its report.

use fastrand::Rng;

use super::rivals::Rival;
use crate::budget::cost::PerDimension;
use crate::budget::limits::Limits;

/// A run to simulate.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) jobs: usize,
    pub(super) threads: usize,
    /// Independent processes, which share the jobs and the threads.
    pub(super) clients: usize,
    /// Limits per minute: requests, input tokens, output tokens.
    pub(super) limits: PerDimension<f64>,
    /// The capacity of each bucket, in seconds of its refill.
    pub(super) depth: PerDimension<f64>,
    /// Whether the requests header shows a bucket of a minute although the real one is shallower.
    pub(super) hides_depth: bool,
    pub(super) reserves_most: bool,
    /// Requests per second from which growth is limited; 0 for no limit.
    pub(super) growth_baseline: f64,
    pub(super) tenant: Tenant,
    pub(super) storm: Option<Storm>,
    pub(super) sends_headers: bool,
    /// Whether the headers come after a tenth of the response's duration, however long that is, and
    /// show the buckets of the request's arrival.
    pub(super) has_slow_headers: bool,
    /// Whether refusals give no reason, as those of a gateway in front of the API.
    pub(super) explains_nothing: bool,
    /// Whether the client knows the limits beforehand.
    pub(super) knows_limits: bool,
    /// The client's own limits.
    pub(super) promise: Limits,
    pub(super) rival: Option<Rival>,
    pub(super) max_tokens: u64,
    pub(super) median_input: f64,
    pub(super) max_input: f64,
    pub(super) median_output: f64,
    /// Output tokens per second, where they decide how long a response takes.
    pub(super) speed: Option<f64>,
    /// Median factor between the guessed and the actual input.
    pub(super) guess_factor: f64,
    pub(super) seed: u64,
}

/// A time of overload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storm {
    /// Start and end in seconds.
    pub(super) from: f64,
    pub(super) to: f64,
    /// The probability of a 529.
    pub(super) odds: f64,
}

/// Other clients with the same limits, which take their share first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tenant {
    Nobody,
    Steady(f64),
    /// The share for 30 s, then nothing for 30 s, and so on.
    Switching(f64),
    /// Requests like those of the client, at random times.
    Random(f64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) input: u64,
    pub(super) guess: u64,
    pub(super) output: u64,
    pub(super) max_tokens: u64,
    pub(super) service: f64,
}

impl Scenario {
    pub(super) fn new(limits: PerDimension<f64>, jobs: usize) -> Scenario {
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
            median_input: 1_500.0,
            max_input: 100_000.0,
            median_output: 250.0,
            speed: None,
            guess_factor: 1.0,
            seed: 1,
        }
    }

    pub(super) fn itpm(jobs: usize) -> Scenario {
        Scenario::new([1_000.0, 450_000.0, 400_000.0], jobs)
    }

    pub(super) fn rpm(jobs: usize) -> Scenario {
        Scenario::new([120.0, 2_000_000.0, 400_000.0], jobs)
    }

    pub(super) fn otpm(jobs: usize) -> Scenario {
        Scenario::new([1_000.0, 2_000_000.0, 60_000.0], jobs)
    }

    pub(super) fn tier1(jobs: usize) -> Scenario {
        Scenario {
            max_input: 25_000.0,
            ..Scenario::new([50.0, 30_000.0, 8_000.0], jobs)
        }
    }

    /// Responses that take minutes.
    pub(super) fn long(jobs: usize) -> Scenario {
        Scenario {
            median_output: 4_000.0,
            speed: Some(60.0),
            max_tokens: 32_000,
            ..Scenario::new([1_000.0, 2_000_000.0, 80_000.0], jobs)
        }
    }

    /// Sets the client's own limits to a share of the server's.
    pub(super) fn promising(self, share: f64) -> Scenario {
        let [requests, input, output] = self.limits.map(|limit| (limit * share) as u64);
        let promise = Limits::per_minute()
            .requests(requests)
            .input_tokens(input)
            .output_tokens(output);
        Scenario { promise, ..self }
    }

    pub(super) fn seed(&self, seed: u64) -> Scenario {
        Scenario {
            seed,
            ..self.clone()
        }
    }

    pub(super) fn rate(&self, d: usize) -> f64 {
        self.limits[d] / 60.0
    }

    pub(super) fn job(&self, rng: &mut Rng) -> Job {
        let input = lognormal(rng, self.median_input, 1.2).clamp(1.0, self.max_input);
        let output = lognormal(rng, self.median_output, 0.9);
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
}

fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}

/// The outcome of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// The makespan over demand / limit of the scarcest dimension; the limit is the client's own one
    /// if that is lower.
    pub(super) ratio: f64,
    pub(super) makespan: f64,
    pub(super) refused: usize,
    pub(super) overloaded: usize,
    pub(super) lost: usize,
    /// Requests sent during the storm, and the seconds after it until the tenth response began.
    pub(super) sent_in_storm: usize,
    pub(super) tenth_after: f64,
    pub(super) longest_wait: f64,
    /// The worst 60 s over the client's own limit, or else the server's: as admitted and as charged;
    /// and the share of the run above 1.
    pub(super) admitted: PerDimension<f64>,
    pub(super) charged: PerDimension<f64>,
    pub(super) above: PerDimension<f64>,
    pub(super) shares: Vec<usize>,
    pub(super) decisions: usize,
    pub(super) conserved: bool,
}

impl Job {
    pub(super) fn cost(&self) -> PerDimension<f64> {
        [1.0, self.input as f64, self.output as f64]
    }
}
