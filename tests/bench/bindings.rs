//! The servers with limits, and the jobs for them.

use std::fmt::Write as _;
use std::time::Duration;

use anthropic_blocking::ModelClass;
use anthropic_blocking::testing::{Charging, ServerLimits, TestServer};
use fastrand::Rng;

#[derive(Clone, Copy)]
pub enum Demand {
    Jobs(usize),
    /// As much as the binding limit admits in this number of seconds.
    Seconds(f64),
}

/// A server on which one of the three limits binds: it allows less than half of what 32 threads could
/// send.
pub struct Binding {
    pub name: &'static str,
    /// Per minute: requests, input tokens, output tokens.
    pub limits: [u64; 3],
    pub dimension: usize,
    /// Sets the other behaviour of the server, given the seconds of demand.
    pub twist: Option<fn(ServerLimits, f64) -> ServerLimits>,
    /// The goals for this client.
    pub goals: Goals,
}

/// The goals for this client.
pub struct Goals {
    /// Most 429s where the client learns the limits.
    pub limited: f64,
    /// Most requests sent into a storm.
    pub sent: Option<f64>,
    /// Ratio of the makespan of 5,000 jobs with `Limits` set.
    pub set: f64,
}

pub const BINDINGS: [Binding; 7] = [
    Binding {
        name: "requests",
        limits: [120, 2_000_000, 400_000],
        dimension: 0,
        twist: None,
        goals: Goals {
            limited: 1.0,
            sent: None,
            set: 1.03,
        },
    },
    Binding {
        name: "input tokens",
        limits: [1_000, 300_000, 400_000],
        dimension: 1,
        twist: None,
        goals: Goals {
            limited: 1.0,
            sent: None,
            set: 1.08,
        },
    },
    Binding {
        name: "output tokens",
        limits: [1_000, 2_000_000, 40_000],
        dimension: 2,
        twist: None,
        goals: Goals {
            limited: 1.0,
            sent: None,
            set: 1.13,
        },
    },
    Binding {
        name: "per second",
        limits: [120, 2_000_000, 400_000],
        dimension: 0,
        twist: Some(|limits, _| limits.requests_per_second()),
        goals: Goals {
            limited: 4.0,
            sent: None,
            set: f64::INFINITY,
        },
    },
    Binding {
        name: "reserved",
        limits: [1_000, 2_000_000, 60_000],
        dimension: 2,
        twist: Some(|limits, _| limits.charging(Charging::Reserved)),
        goals: Goals {
            limited: 4.0,
            sent: None,
            set: f64::INFINITY,
        },
    },
    Binding {
        name: "tenant",
        limits: [1_000, 500_000, 400_000],
        dimension: 1,
        // 40 % in bursts.
        twist: Some(|limits, _| {
            limits.tenant_bursts(0.4, Duration::from_secs(20), Duration::from_secs(20))
        }),
        goals: Goals {
            limited: 40.0,
            sent: None,
            set: f64::INFINITY,
        },
    },
    Binding {
        name: "storm",
        limits: [1_000, 300_000, 400_000],
        dimension: 1,
        twist: Some(|limits, seconds| {
            let [from, to] = storm(seconds);
            limits.overload(from, to, 0.9)
        }),
        goals: Goals {
            limited: 1.0,
            sent: Some(35.0),
            set: f64::INFINITY,
        },
    },
];

/// Returns the time of the storm: the second minute, or the second third of a shorter run.
pub fn storm(seconds: f64) -> [Duration; 2] {
    [1.0, 2.0].map(|part| Duration::from_secs_f64(part * (seconds / 3.0).min(60.0)))
}

impl Binding {
    pub fn rate(&self) -> f64 {
        self.limits[self.dimension] as f64 / 60.0
    }

    /// Returns how long the limit needs for these jobs.
    pub fn seconds(&self, jobs: &[Job]) -> f64 {
        let demand: u64 = jobs.iter().map(|job| job.cost[self.dimension]).sum();
        demand as f64 / self.rate()
    }

    pub fn server(&self, seconds: f64) -> TestServer {
        let [requests, input, output] = self.limits;
        let mut limits = ServerLimits::per_minute(requests, input, output)
            .class_by(|model| ModelClass::of(model).as_str().to_owned())
            .refusal_latency(Duration::from_millis(150));
        if let Some(twist) = self.twist {
            limits = twist(limits, seconds);
        }
        let server = TestServer::start().expect("a port");
        server.keep_requests(false);
        server.limit(limits);
        server
    }
}

/// Draws enough jobs, and returns how many of them each binding takes.
pub fn draw(bindings: &[&Binding], demand: Demand, scale: u64) -> (Vec<Job>, Vec<usize>) {
    let mut rng = Rng::with_seed(5);
    let mut jobs: Vec<Job> = Vec::new();
    let mut sums = [0; 3];
    let mut counts: Vec<Option<usize>> = vec![None; bindings.len()];
    while counts.contains(&None) {
        for (binding, count) in bindings.iter().zip(&mut counts) {
            let is_enough = match demand {
                Demand::Jobs(most) => jobs.len() >= most,
                Demand::Seconds(seconds) => {
                    sums[binding.dimension] as f64 >= seconds * binding.rate()
                }
            };
            if is_enough {
                count.get_or_insert(jobs.len());
            }
        }
        let job = Job::draw(&mut rng, scale);
        (0..3).for_each(|i| sums[i] += job.cost[i]);
        jobs.push(job);
    }
    (jobs, counts.into_iter().flatten().collect())
}

/// One job: a prompt and its size.
pub struct Job {
    /// Requests (1), input tokens and output tokens.
    pub cost: [u64; 3],
    pub prompt: String,
}

impl Job {
    fn draw(rng: &mut Rng, scale: u64) -> Job {
        let input = lognormal(rng, 1_500.0, 1.2).clamp(50.0, 100_000.0) as u64;
        let output = lognormal(rng, 250.0, 0.9).clamp(1.0, MAX_TOKENS as f64) as u64;
        // Bounded, so that no single reply dominates the makespan.
        let latency = lognormal(rng, 6_300.0, 0.7).min(30_000.0) as u64 / scale;
        // The number of bytes of a token differs from prompt to prompt.
        let bytes = input as f64 * 3.5 * lognormal(rng, 1.0, 0.15);
        let mut prompt = "word ".repeat(bytes as usize / 5);
        let stated = write!(
            prompt,
            "[cost input={input} output={output} latency_ms={latency}]"
        );
        stated.expect("a string takes all");
        Job {
            cost: [1, input, output],
            prompt,
        }
    }
}

fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}

/// Upper bound of the replies, in tokens.
pub const MAX_TOKENS: u64 = 4_096;
