//! Whole runs against a server that limits, in real time: this client, and beside it the retries of
//! the official clients, each on a server of its own.
//!
//! The server's buckets are full at first, so that demand D under a limit of r a minute can at best
//! be served in (D - r) / r minutes; the ratio is that of the makespan to D / r (DESIGN 10), of
//! what was answered. All contenders of a row get the same jobs in the same order at the same time.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{Books, Charging, ServerLimits, TestServer};
use anthropic_blocking::{Client, MessageRequest, ModelClass};
use fastrand::Rng;
use serde_json::json;

/// The arguments after `limits`.
pub struct Settings {
    /// So many seconds' worth of demand.
    seconds: f64,
    /// So many times the limits, and answers so many times as quick: more jobs in the same time.
    scale: u64,
    json: bool,
    words: Vec<String>,
}

impl Settings {
    pub fn read(arguments: &[String]) -> Settings {
        let mut settings = Settings {
            seconds: 180.0,
            scale: 1,
            json: false,
            words: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => {
                    let value = arguments.next().and_then(|value| value.parse().ok());
                    settings.seconds = value.expect("a number after --seconds");
                }
                "--scale" => {
                    let value = arguments.next().and_then(|value| value.parse().ok());
                    settings.scale = value.expect("a whole number after --scale");
                }
                "--json" => settings.json = true,
                word => settings.words.push(word.to_owned()),
            }
        }
        settings
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

pub fn run(arguments: &[String]) {
    let settings = &Settings::read(arguments);
    if !settings.json {
        println!(
            "{:<14} {:<22} {:>5} {:>10} {:>7} {:>7} {:>6} {:>6} {:>6} {:>8} {:>8}",
            "binding",
            "by",
            "jobs",
            "makespan",
            "ratio",
            "best",
            "429s",
            "529s",
            "lost",
            "sent",
            "longest"
        );
    }
    for mut binding in BINDINGS {
        if settings.wants(binding.name) {
            binding.limits = binding.limits.map(|limit| limit * settings.scale);
            compare(settings, &binding);
        }
    }
}

/// A server on which one of the three limits binds: it allows less than half of what 32 threads
/// could send.
struct Binding {
    name: &'static str,
    /// Per minute: requests, input tokens, output tokens.
    limits: [u64; 3],
    dimension: usize,
    /// What else the server does.
    twist: fn(ServerLimits) -> ServerLimits,
    /// The goals of this client: ratio, 429s, 529s.
    goals: (f64, u64, u64),
}

const BINDINGS: [Binding; 7] = [
    Binding {
        name: "requests",
        limits: [120, 2_000_000, 400_000],
        dimension: 0,
        twist: |limits| limits,
        goals: (0.97, 1, 0),
    },
    Binding {
        name: "input tokens",
        limits: [1_000, 300_000, 400_000],
        dimension: 1,
        twist: |limits| limits,
        goals: (0.97, 1, 0),
    },
    Binding {
        name: "output tokens",
        limits: [1_000, 2_000_000, 40_000],
        dimension: 2,
        twist: |limits| limits,
        goals: (0.97, 1, 0),
    },
    Binding {
        name: "per second",
        limits: [120, 2_000_000, 400_000],
        dimension: 0,
        twist: |limits| limits.requests_per_second(true),
        goals: (f64::INFINITY, 4, 0),
    },
    Binding {
        name: "reserved",
        limits: [1_000, 2_000_000, 60_000],
        dimension: 2,
        twist: |limits| limits.charging(Charging::Reserved),
        goals: (f64::INFINITY, 4, 0),
    },
    Binding {
        name: "tenant",
        limits: [1_000, 500_000, 400_000],
        dimension: 1,
        // 40 % in bursts.
        twist: |limits| limits.tenant_bursts(0.4, Duration::from_secs(20), Duration::from_secs(20)),
        goals: (f64::INFINITY, 40, 0),
    },
    Binding {
        name: "storm",
        limits: [1_000, 300_000, 400_000],
        dimension: 1,
        twist: |limits| limits.overload(Duration::from_secs(60), Duration::from_secs(120), 0.9),
        goals: (f64::INFINITY, 1, 35),
    },
];

impl Binding {
    fn rate(&self) -> f64 {
        self.limits[self.dimension] as f64 / 60.0
    }

    fn server(&self) -> TestServer {
        let [requests, input, output] = self.limits;
        let limits = ServerLimits::per_minute(requests, input, output)
            .class_by(|model| ModelClass::of(model).as_str().to_owned())
            .refusal_latency(Duration::from_millis(150));
        let limits = (self.twist)(limits);
        let server = TestServer::start().expect("a port");
        server.keep_requests(false);
        server.limit(limits);
        server
    }

    /// Jobs of as many seconds' worth, as prompts of mixed sizes.
    fn jobs(&self, seconds: f64, scale: u64) -> Vec<Job> {
        let mut dice = Rng::with_seed(5);
        let mut demand = 0;
        let mut jobs = Vec::new();
        while (demand as f64) < seconds * self.rate() {
            let job = Job::draw(&mut dice, scale);
            demand += job.cost[self.dimension];
            jobs.push(job);
        }
        jobs
    }
}

/// One message to be answered.
struct Job {
    /// One request, input and output tokens.
    cost: [u64; 3],
    prompt: String,
}

impl Job {
    fn draw(dice: &mut Rng, scale: u64) -> Job {
        let input = lognormal(dice, 1_500.0, 1.2).clamp(50.0, 100_000.0) as u64;
        let output = lognormal(dice, 250.0, 0.9).clamp(1.0, MAX_TOKENS as f64) as u64;
        // Bounded, so that no single answer decides how long the whole takes.
        let latency = lognormal(dice, 6_300.0, 0.7).min(30_000.0) as u64 / scale;
        // Bytes of a token differ from prompt to prompt.
        let bytes = input as f64 * 3.5 * lognormal(dice, 1.0, 0.15);
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

fn lognormal(dice: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - dice.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * dice.f64()).cos();
    median * (sigma * normal).exp()
}

const MODEL: &str = "claude-haiku-4-5";
const MAX_TOKENS: u64 = 4_096;
const THREADS: usize = 32;

/// Who works the jobs off.
#[derive(Clone, Copy)]
enum By {
    /// This client, which knows no limits beforehand.
    Us,
    /// The retries of the official clients, so many at most.
    Retries(u32),
}

impl By {
    fn name(self) -> String {
        match self {
            By::Us => "this client".to_owned(),
            By::Retries(count) => format!("SDK, {count} retries"),
        }
    }
}

fn compare(settings: &Settings, binding: &Binding) {
    let jobs = binding.jobs(settings.seconds, settings.scale);
    let contenders = [By::Us, By::Retries(2), By::Retries(5), By::Retries(10)];
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let runs: Vec<_> = contenders
            .iter()
            .map(|by| scope.spawn(|| work_off(*by, binding, &jobs)))
            .collect();
        let ended = runs.into_iter().map(|run| run.join().expect("no panic"));
        ended.collect()
    });
    for (by, outcome) in contenders.into_iter().zip(outcomes) {
        outcome.print(settings, binding, by, jobs.len());
    }
}

/// What came of a run.
struct Outcome {
    makespan: f64,
    /// What was answered, of the dimension that binds.
    answered: u64,
    lost: usize,
    /// The longest that a job took until it was answered or lost.
    longest: f64,
    books: Books,
}

fn work_off(by: By, binding: &Binding, jobs: &[Job]) -> Outcome {
    let server = binding.server();
    let worker: Box<dyn Fn(&Job) -> bool + Sync> = match by {
        By::Us => {
            let client = client(server.base_url());
            Box::new(move |job| ask(&client, job))
        }
        By::Retries(retries) => {
            let agent = agent();
            let url = format!("{}/v1/messages", server.base_url());
            Box::new(move |job| ask_again(&agent, &url, job, retries))
        }
    };
    let next = AtomicUsize::new(0);
    let ends = Mutex::new(Vec::new());
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let is_answered = worker(job);
                    let end = End {
                        took: begun.elapsed().as_secs_f64(),
                        answered: is_answered.then_some(job.cost[binding.dimension]),
                    };
                    ends.lock().expect("no panic").push(end);
                }
            });
        }
    });
    let makespan = start.elapsed().as_secs_f64();
    let ends = ends.into_inner().expect("no panic");
    Outcome {
        makespan,
        answered: ends.iter().filter_map(|end| end.answered).sum(),
        lost: ends.iter().filter(|end| end.answered.is_none()).count(),
        longest: ends.iter().map(|end| end.took).fold(0.0, f64::max),
        books: server.books(),
    }
}

/// How a job ended.
struct End {
    took: f64,
    /// What it came to, unless it was lost.
    answered: Option<u64>,
}

fn client(url: &str) -> Client {
    let builder = Client::builder().api_key("test").base_url(url);
    builder.build().expect("valid settings")
}

fn ask(client: &Client, job: &Job) -> bool {
    let request = MessageRequest::new(MODEL, MAX_TOKENS).user(&job.prompt);
    match client.messages().create(&request) {
        Ok(message) => message.usage.output_tokens == job.cost[2],
        Err(error) => {
            eprintln!("lost: {error}");
            false
        }
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(THREADS)
        .max_idle_connections_per_host(THREADS)
        .build();
    config.new_agent()
}

/// As the official clients do it: what may pass is tried again so many times, after the time that
/// the server names if that is a minute at most, and else after half a second, doubled up to eight
/// seconds, less up to a quarter.
fn ask_again(agent: &ureq::Agent, url: &str, job: &Job, retries: u32) -> bool {
    let turn = json!({"role": "user", "content": job.prompt});
    let body = json!({"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [turn]}).to_string();
    for attempt in 0..=retries {
        let sent = agent
            .post(url)
            .header("x-api-key", "test")
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .send(body.as_bytes());
        let mut asked = None;
        if let Ok(mut answer) = sent {
            // Reads to the end, so that the connection can be used again.
            let is_whole = answer.body_mut().read_to_vec().is_ok();
            let status = answer.status().as_u16();
            if status == 200 && is_whole {
                return true;
            }
            let header = |name: &str| answer.headers().get(name)?.to_str().ok();
            let is_passing = matches!(status, 200 | 408 | 409 | 429 | 500..);
            match header("x-should-retry") {
                Some("true") => {}
                Some("false") => return false,
                _ if is_passing => {}
                _ => return false,
            }
            asked = header("retry-after").and_then(|text| text.parse::<f64>().ok());
        }
        if attempt < retries {
            let own = (0.5 * 2_f64.powi(attempt as i32)).min(8.0) * (1.0 - 0.25 * fastrand::f64());
            let wait = asked.filter(|wait| (0.0..=60.0).contains(wait));
            thread::sleep(Duration::from_secs_f64(wait.unwrap_or(own)));
        }
    }
    false
}

impl Outcome {
    fn print(&self, settings: &Settings, binding: &Binding, by: By, jobs: usize) {
        let Outcome {
            makespan,
            lost,
            longest,
            ref books,
            ..
        } = *self;
        let demand = self.answered as f64 / binding.rate();
        let (ratio, best) = (makespan / demand, (demand - 60.0).max(0.0) / demand);
        let (limited, overloaded) = (books.limited(), books.overloaded());
        let sent = books.admitted() + limited + overloaded;
        let (name, by_name) = (binding.name, by.name());
        if settings.json {
            println!(
                "{}",
                json!({"binding": name, "by": by_name, "jobs": jobs, "makespan": makespan,
                    "ratio": ratio, "best": best, "429s": limited, "529s": overloaded,
                    "lost": lost, "sent": sent, "longest": longest})
            );
            return;
        }
        // The goals are for hundreds of jobs: with fewer, the last answers decide.
        let is_judged = matches!(by, By::Us) && settings.seconds >= 180.0;
        let (most, refusals, overloads) = binding.goals;
        let holds = ratio <= most && limited <= refusals && overloaded <= overloads && lost == 0;
        let verdict = match (is_judged, holds) {
            (true, true) => format!("  goals {most}, {refusals}, {overloads}, 0 lost hold"),
            (true, false) => format!("  goals {most}, {refusals}, {overloads}, 0 lost MISSED"),
            (false, _) => String::new(),
        };
        println!(
            "{name:<14} {by_name:<22} {jobs:>5} {makespan:>8.1} s {ratio:>7.3} {best:>7.3} \
             {limited:>6} {overloaded:>6} {lost:>6} {sent:>8} {longest:>6.1} s{verdict}"
        );
    }
}
