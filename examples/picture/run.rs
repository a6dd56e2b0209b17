//! The runs: which client sends which prompts, and the outcome.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{ServerLimits, TestServer};
use anthropic_blocking::{Client, MessageRequest};
use fastrand::Rng;
use serde_json::json;

/// The limits of the class Fable 5 in the tier Start.
pub const REQUESTS_PER_MINUTE: u64 = 1_000;
pub const INPUT_PER_MINUTE: u64 = 500_000;
pub const OUTPUT_PER_MINUTE: u64 = 100_000;
const MODEL: &str = "claude-fable-5";

pub const THREADS: usize = 32;
const MAX_TOKENS: u64 = 2_048;

/// Interval at which the ledger of the server is read.
const BIN: Duration = Duration::from_secs(1);

/// Which client sends the prompts.
#[derive(Clone, Copy)]
pub enum By {
    /// This client, without limits known in advance.
    Client,
    /// The retries of the official clients, at most this many; two are their default.
    Retries(u32),
}

impl fmt::Display for By {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Client => formatter.pad("this client"),
            By::Retries(count) => formatter.pad(&format!("official, {count} retries")),
        }
    }
}

/// The outcome of a run.
pub struct Outcome {
    /// Second by second.
    pub bins: Vec<Bin>,
    pub answered: u64,
    pub lost: u64,
    /// Input tokens of the lost prompts, as a share of all.
    pub lost_tokens: f64,
    /// 429s, as the server counted them.
    pub refused: u64,
    /// Time until the last prompt was answered or lost.
    pub took: Duration,
}

/// What happened within a second.
#[derive(Clone, Copy, Default)]
pub struct Bin {
    /// Input tokens of the requests that the server admitted.
    pub granted: u64,
    /// 429s.
    pub refused: u64,
    /// Prompts given up.
    pub lost: u64,
}

/// One prompt and its size.
pub struct Prompt {
    input: f64,
    text: String,
}

/// Returns the same prompts for all runs: texts of some pages, with replies of some sentences.
pub fn prompts(count: usize) -> Vec<Prompt> {
    let mut rng = Rng::with_seed(1);
    let draw = |_| {
        let input = lognormal(&mut rng, 2_000.0, 0.8).clamp(100.0, 50_000.0);
        let output = lognormal(&mut rng, 250.0, 0.8).clamp(10.0, MAX_TOKENS as f64);
        // The number of bytes of a token differs from text to text.
        let bytes = input * 3.5 * lognormal(&mut rng, 1.0, 0.15);
        // One second, and one more for each 80 tokens.
        let latency = 1_000.0 + output * 12.5;
        let mut text = "word ".repeat(bytes as usize / 5);
        let stated = write!(
            text,
            "[cost input={input:.0} output={output:.0} latency_ms={latency:.0}]"
        );
        stated.expect("a string takes all");
        Prompt { input, text }
    };
    (0..count).map(draw).collect()
}

fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}

/// Sends the prompts in order, on [`THREADS`] threads, to a new server.
pub fn run_prompts(by: By, prompts: &[Prompt]) -> Outcome {
    let limits = ServerLimits::per_minute(REQUESTS_PER_MINUTE, INPUT_PER_MINUTE, OUTPUT_PER_MINUTE)
        .refusal_latency(Duration::from_millis(150));
    let server = TestServer::start().expect("a free port on the loopback interface");
    server.keep_requests(false);
    server.limit(limits);
    let ask: Box<dyn Fn(&Prompt) -> bool + Sync> = match by {
        By::Client => with_client(server.base_url()),
        By::Retries(count) => with_retries(server.base_url(), count),
    };

    let next = AtomicUsize::new(0);
    let ends = Mutex::new(Ends::default());
    let (working, ended) = channel::<()>();
    let start = Instant::now();
    let bins = thread::scope(|scope| {
        for _ in 0..THREADS {
            let (ask, next, ends, working) = (&ask, &next, &ends, working.clone());
            scope.spawn(move || {
                while let Some(prompt) = prompts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let is_answered = ask(prompt);
                    let mut ends = ends.lock().expect("no thread panics with the lock");
                    if is_answered {
                        ends.answered += 1;
                    } else {
                        ends.lost += 1;
                        ends.lost_tokens += prompt.input;
                    }
                    ends.last = start.elapsed();
                }
                drop(working);
            });
        }
        drop(working);
        // Bin by bin, until the last thread has dropped its end of the channel.
        let (mut bins, mut before) = (Vec::new(), Bin::default());
        for count in 1_u32.. {
            let left = (start + BIN * count).saturating_duration_since(Instant::now());
            let is_over = ended.recv_timeout(left) != Err(RecvTimeoutError::Timeout);
            let lost = ends.lock().expect("no thread panics with the lock").lost;
            let ledger = server.ledger();
            let granted = ledger
                .classes
                .iter()
                .map(|class| class.charged.input_tokens);
            let sums = Bin {
                granted: granted.sum(),
                refused: ledger.rate_limited(),
                lost,
            };
            bins.push(sums.since(before));
            before = sums;
            if is_over {
                break;
            }
        }
        bins
    });
    let ends = ends.into_inner().expect("no thread panics with the lock");
    Outcome {
        bins,
        answered: ends.answered,
        lost: ends.lost,
        lost_tokens: ends.lost_tokens / prompts.iter().map(|prompt| prompt.input).sum::<f64>(),
        refused: server.ledger().rate_limited(),
        took: ends.last,
    }
}

#[derive(Default)]
struct Ends {
    answered: u64,
    lost: u64,
    lost_tokens: f64,
    last: Duration,
}

fn with_client(url: &str) -> Box<dyn Fn(&Prompt) -> bool + Sync> {
    let builder = Client::builder().api_key("test").base_url(url);
    let client = builder.build().expect("valid settings");
    Box::new(move |prompt| {
        let request = MessageRequest::new(MODEL, MAX_TOKENS).user(&prompt.text);
        client.messages().create(&request).is_ok()
    })
}

/// Retries as the official clients do, in Python and in TypeScript alike: a failure that may pass is
/// retried at most `retries` times, after the time that the server names, or else after half a second,
/// doubled up to eight seconds, reduced at random by up to a quarter.
fn with_retries(url: &str, retries: u32) -> Box<dyn Fn(&Prompt) -> bool + Sync> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(THREADS)
        .max_idle_connections_per_host(THREADS)
        .build();
    let agent = config.new_agent();
    let url = format!("{url}/v1/messages");
    Box::new(move |prompt| {
        let turn = json!({"role": "user", "content": prompt.text});
        let body = json!({"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [turn]});
        let body = body.to_string();
        for retry in 0..=retries {
            let retry_after = match attempt(&agent, &url, &body) {
                Attempt::Answered => return true,
                Attempt::Final => return false,
                Attempt::Passing(asked) => asked,
            };
            if retry < retries {
                let own =
                    (0.5 * 2_f64.powi(retry as i32)).min(8.0) * (1.0 - 0.25 * fastrand::f64());
                thread::sleep(retry_after.unwrap_or(Duration::from_secs_f64(own)));
            }
        }
        false
    })
}

/// How one attempt ended.
enum Attempt {
    Answered,
    /// A failure that is not retried.
    Final,
    /// A failure that is retried, after this time if the server named one.
    Passing(Option<Duration>),
}

fn attempt(agent: &ureq::Agent, url: &str, body: &str) -> Attempt {
    let sent = agent
        .post(url)
        .header("x-api-key", "test")
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .send(body.as_bytes());
    let Ok(mut response) = sent else {
        return Attempt::Passing(None);
    };
    // Read to the end, so that the connection can be reused.
    let is_whole = response.body_mut().read_to_vec().is_ok();
    let status = response.status().as_u16();
    if status == 200 && is_whole {
        return Attempt::Answered;
    }
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let is_passing = match header("x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status, 200 | 408 | 409 | 429 | 500..),
    };
    if !is_passing {
        return Attempt::Final;
    }
    let asked = header("retry-after").and_then(|text| text.parse::<f64>().ok());
    let asked = asked.filter(|wait| *wait > 0.0);
    Attempt::Passing(asked.and_then(|wait| Duration::try_from_secs_f64(wait).ok()))
}

impl Bin {
    fn since(self, before: Bin) -> Bin {
        Bin {
            granted: self.granted - before.granted,
            refused: self.refused - before.refused,
            lost: self.lost - before.lost,
        }
    }
}
