//! The contenders under limits: this client, and the retries of the official clients.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{Amounts, Ledger};
use anthropic_blocking::{Client, Limits, MessageRequest, Result};
use serde_json::json;

use crate::bindings::{Binding, Job, MAX_TOKENS, storm};

/// Returns the contenders for a binding. `Limits` are set only where the server has no other quirk.
pub fn contenders(binding: &Binding) -> Vec<By> {
    let mut contenders = vec![By::Bulk, By::Create];
    if binding.twist.is_none() {
        contenders.push(By::BulkLimited);
    }
    contenders.extend([2, 5, 10].map(By::Retries));
    contenders
}

/// Which client runs the jobs.
#[derive(Clone, Copy)]
pub enum By {
    /// This client's bulk, without limits known in advance.
    Bulk,
    /// This client's bulk with `Limits` equal to the server's.
    BulkLimited,
    /// This client's plain calls on threads.
    Create,
    /// The retries of the official clients on threads, at most this many.
    Retries(u32),
}

impl By {
    pub fn name(self) -> String {
        match self {
            By::Bulk => "bulk, Limits unset".to_owned(),
            By::BulkLimited => "bulk, Limits set".to_owned(),
            By::Create => "create, Limits unset".to_owned(),
            By::Retries(count) => format!("as the SDKs, {count} retries"),
        }
    }

    pub fn is_us(self) -> bool {
        !matches!(self, By::Retries(_))
    }
}

/// The outcome of a run.
pub struct Outcome {
    pub makespan: f64,
    /// Answered demand in the dimension that binds.
    pub answered: u64,
    pub lost: usize,
    /// Longest time of a job until it was answered or lost.
    pub longest: f64,
    /// Requests that arrived during the storm.
    pub sent_into_storm: u64,
    pub worst_minute: Amounts,
    pub ledger: Ledger,
}

pub fn run_jobs(by: By, binding: &Binding, jobs: &[Job]) -> Outcome {
    let seconds = binding.seconds(jobs);
    let server = binding.server(seconds);
    let url = server.base_url();
    let begun = Instant::now();
    let ends = match by {
        By::Bulk => in_bulk(&client(url, None), binding, jobs),
        By::BulkLimited => in_bulk(&client(url, Some(binding.limits)), binding, jobs),
        By::Create => {
            let client = client(url, None);
            on_threads(binding, jobs, |job| {
                let answer = ask(&client, job);
                answer
                    .inspect_err(|error| eprintln!("lost: {error}"))
                    .unwrap_or(false)
            })
        }
        By::Retries(retries) => {
            let agent = agent();
            let url = format!("{url}/v1/messages");
            on_threads(binding, jobs, |job| {
                send_with_retries(&agent, &url, job, retries)
            })
        }
    };
    let makespan = begun.elapsed().as_secs_f64();
    let ledger = server.ledger();
    let [from, to] = storm(seconds);
    let class = ledger.classes.first();
    let admitted = class.map_or(0, |class| {
        let within = class.admissions.iter().filter(|at| (from..to).contains(at));
        within.count() as u64
    });
    Outcome {
        makespan,
        answered: ends.iter().filter_map(|end| end.answered).sum(),
        lost: ends.iter().filter(|end| end.answered.is_none()).count(),
        longest: ends.iter().map(|end| end.took).fold(0.0, f64::max),
        sent_into_storm: admitted + ledger.overloaded(),
        worst_minute: class.map(|class| class.worst_minute).unwrap_or_default(),
        ledger,
    }
}

/// How a job ended.
#[derive(Default)]
struct End {
    took: f64,
    /// Its cost in the dimension that binds, unless it was lost.
    answered: Option<u64>,
}

impl End {
    fn new(binding: &Binding, job: &Job, begun: Instant, is_answered: bool) -> End {
        End {
            took: begun.elapsed().as_secs_f64(),
            answered: is_answered.then_some(job.cost[binding.dimension]),
        }
    }
}

fn in_bulk(client: &Client, binding: &Binding, jobs: &[Job]) -> Vec<End> {
    let ends = client.bulk().concurrency(THREADS).map(jobs, |client, job| {
        let begun = Instant::now();
        let is_answered = ask(client, job)?;
        Ok(End::new(binding, job, begun, is_answered))
    });
    let end = |end: Result<End>| end.inspect_err(|error| eprintln!("lost: {error}"));
    ends.into_iter()
        .map(|one| end(one).unwrap_or_default())
        .collect()
}

fn on_threads(binding: &Binding, jobs: &[Job], ask: impl Fn(&Job) -> bool + Sync) -> Vec<End> {
    let next = AtomicUsize::new(0);
    let ends = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let end = End::new(binding, job, begun, ask(job));
                    ends.lock().expect("no panic").push(end);
                }
            });
        }
    });
    ends.into_inner().expect("no panic")
}

fn client(url: &str, limits: Option<[u64; 3]>) -> Client {
    let mut builder = Client::builder().api_key("test").base_url(url);
    if let Some([requests, input, output]) = limits {
        let limits = Limits::per_minute().requests(requests);
        builder = builder.limits(limits.input_tokens(input).output_tokens(output));
    }
    builder.build().expect("valid settings")
}

/// Whether the message is complete.
fn ask(client: &Client, job: &Job) -> Result<bool> {
    let request = MessageRequest::new(MODEL, MAX_TOKENS).user(&job.prompt);
    let message = client.messages().create(&request)?;
    Ok(message.usage.output_tokens == job.cost[2])
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(THREADS)
        .max_idle_connections_per_host(THREADS)
        .build();
    config.new_agent()
}

/// Retries as the official clients do: a failure that may pass is retried at most `retries` times, after
/// the time that the server names if that is at most a minute, or else after half a second, doubled up to
/// eight seconds, reduced at random by up to a quarter.
fn send_with_retries(agent: &ureq::Agent, url: &str, job: &Job, retries: u32) -> bool {
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
            // Read to the end, so that the connection can be reused.
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

const MODEL: &str = "claude-haiku-4-5";
const THREADS: usize = 32;
