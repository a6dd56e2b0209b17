//! The soak: very many requests of every kind, from many threads, through one client and every
//! fault that the test server has.
//!
//! Everything is drawn from a seed and the number of the request, which is part of the request: so
//! the server knows which fault is next, the caller which response must come, and the audit which
//! errors that fault can explain. The client's clock jumps over its waits. A short run is part
//! of `cargo test`; the whole soak runs alone, because it measures its process:
//!
//! ```text
//! cargo test --release --test it -- --ignored --nocapture soak    # SOAK_REQUESTS, SOAK_SEED
//! cargo bench -- soak --requests 1000000 --seed 1
//! ```

mod audit;
mod calls;
mod faults;
mod report;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{HeaderMode, ManualClock, ServerLimits};
use anthropic_blocking::{Client, RetryPolicy};

use self::audit::Audit;
use self::calls::{BatchCall, Call, Flag, Site, Task, Tasks, Way, on_all_threads};
use self::faults::{FaultPlan, server};
use self::report::{Report, Sample};

/// The number of requests, and the seed.
pub struct Settings {
    /// At least this many requests arrive at the server.
    pub requests: usize,
    pub seed: u64,
    /// Whether memory, files and threads of the process are this run's alone.
    pub is_alone: bool,
}

impl Settings {
    /// Reads the settings of a run alone in its process: `--requests` and `--seed`, or the
    /// variables `SOAK_REQUESTS` and `SOAK_SEED`.
    pub fn read(arguments: &[String]) -> Settings {
        let number = |name: &str, otherwise: u64| {
            let flag = format!("--{name}");
            let at = arguments.iter().position(|argument| *argument == flag);
            let value = match at {
                Some(at) => arguments.get(at + 1).cloned(),
                None => std::env::var(format!("SOAK_{}", name.to_uppercase())).ok(),
            };
            value.map_or(otherwise, |value| {
                let number = value.parse();
                number.unwrap_or_else(|_| panic!("{flag}: {value:?} is no number"))
            })
        };
        Settings {
            requests: number("requests", 1_000_000) as usize,
            seed: number("seed", 1),
            is_alone: true,
        }
    }

    /// Returns how many calls are made before client and server are compared.
    fn round(&self) -> usize {
        (self.requests / ROUNDS).clamp(1_000, 20_000)
    }
}

/// Runs the soak, and returns a table of all counts.
///
/// # Panics
///
/// Panics with the first complaints if a check failed.
pub fn run(settings: &Settings) -> String {
    let start = Instant::now();
    let mut report = Report::default();
    let before = settings.is_alone.then(Sample::take);
    meet_every_fault(settings, &mut report);
    check_exact_charges(settings, &mut report);
    if let Some(before) = before {
        report.samples.insert(0, before);
        report.check_growth();
        report.check_end(before);
    }
    report.seconds = start.elapsed().as_secs_f64();
    let table = report.table(settings);
    let (count, first) = (report.complaints.len(), &report.complaints);
    let first = &first[..first.len().min(20)];
    assert!(
        count == 0,
        "{table}\n{count} complaints:\n{}",
        first.join("\n")
    );
    table
}

/// Makes rounds of calls of every kind, until enough requests have arrived; after each round no
/// call is in flight, and the callers, the client's totals and the server must agree.
fn meet_every_fault(settings: &Settings, report: &mut Report) {
    let clock = ManualClock::new();
    let plan = Arc::new(FaultPlan::new(settings.seed));
    let server = server(&plan);
    let client = Client::builder()
        .base_url(server.base_url())
        .api_key("test")
        .seed(settings.seed)
        .clock(&clock)
        .idle_timeout(HANG)
        .retry(PATIENT)
        .build()
        .expect("valid settings");
    let site = Site {
        client: &client,
        server: &server,
    };
    let mut tasks = Tasks::new(settings.seed);
    let round = settings.round();
    // Batches run in the first rounds only: the memory that the allocator keeps would hide growth.
    let mut batches = 0..10;
    while server.request_count() < settings.requests && report.complaints.is_empty() {
        server.limit(tight(settings.seed));
        let totals = client.totals();
        let outcomes = on_all_threads(tasks.take(round), &site);
        let mut audit = Audit::new(report, &plan, &outcomes);
        audit.attempts();
        audit.totals(&totals, &client.totals());
        audit.server_ledger(&server);
        check_idle(&client, report);
        report.sample(settings);
        let most = THREADS + MOST_BULK * BULK_THREADS;
        let open = server.open_connections();
        report.check(open <= most, || format!("{open} connections are open"));
        let _ = clock.take_sleeps();
        if let Some(round) = batches.next() {
            run_batches(round, &site, &plan, report);
        }
    }
    // A reservation that was never settled would be missing from the limits now.
    clock.advance(Duration::from_secs(3_600));
    for class in client.budget().snapshot() {
        for (name, dimension) in [
            ("requests", class.requests),
            ("input", class.input_tokens),
            ("output", class.output_tokens),
        ] {
            // Responses to batches carry no limits: after a refusal the limit is guessed, a quarter
            // deep.
            let may_be_guess = class.class.as_str() == "batches";
            let is_full = |(limit, left): (u64, u64)| {
                left == limit || may_be_guess && left.abs_diff(limit / 4) < 2
            };
            let bucket = dimension.server_limit.zip(dimension.server_remaining);
            let is_idle = dimension.used == 0 && bucket.is_none_or(is_full);
            report.check(is_idle, || {
                format!("{name} of {}: {dimension:?}", class.class)
            });
        }
    }
    report.requests += server.request_count();
}

/// Runs batches from several threads: each result comes once and is the right one, and no batch is
/// created twice, although the server creates some and loses the response.
fn run_batches(round: u64, site: &Site<'_>, plan: &FaultPlan, report: &mut Report) {
    let runs: Vec<BatchCall> = (round * 4..round * 4 + 4).map(BatchCall::new).collect();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let spawn = |run| scope.spawn(move || BatchCall::run(run, site));
        let threads: Vec<_> = runs.iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for (run, outcome) in runs.iter().zip(outcomes) {
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked".to_owned()));
        let created = plan.created(run.number);
        report.batch(&outcome, created);
        if let Err(complaint) = outcome {
            report.complain(format!("{run:?}: {complaint}"));
        }
        report.check(created <= 1, || format!("{run:?}: created {created} times"));
    }
}

/// Makes a run in which every charge is known: no waits, so that all requests stay in the budget's
/// window, and no attempt of which the server could know more than the client. The window and the
/// totals must equal exactly what the server charged.
fn check_exact_charges(settings: &Settings, report: &mut Report) {
    let clock = ManualClock::new();
    let plan = Arc::new(FaultPlan::new(settings.seed));
    let server = server(&plan);
    let none = RetryPolicy::new()
        .initial_backoff(Duration::ZERO)
        .max_backoff(Duration::ZERO);
    let client = Client::builder()
        .base_url(server.base_url())
        .api_key("test")
        .clock(&clock)
        .idle_timeout(HANG)
        .retry(none)
        .build()
        .expect("valid settings");
    let site = Site {
        client: &client,
        server: &server,
    };
    let call = |number: u64| Call {
        number,
        way: [Way::Plain, Way::Streamed, Way::Events][number as usize % 3],
        flag: Flag::Ledger,
    };
    let mut charged = [0; 2];
    let mut numbers = 0..settings.requests as u64 / 10;
    while !numbers.is_empty() {
        let wide = ServerLimits::per_minute(1 << 40, 1 << 40, 1 << 40).headers(HeaderMode::None);
        server.limit(wide);
        let before = client.totals();
        // After its first response a class knows that this server shows no limits.
        let warm = call(numbers.start).is_warm();
        let size = if warm { MODELS.len() } else { settings.round() };
        let calls = numbers.by_ref().take(size).map(call);
        let outcomes = match warm {
            true => calls.map(|call| call.run(&site)).collect(),
            false => on_all_threads(calls.map(Task::One).collect(), &site),
        };
        let mut audit = Audit::new(report, &plan, &outcomes);
        audit.attempts();
        audit.totals(&before, &client.totals());
        let [input, output] = audit.server_ledger(&server);
        charged = [charged[0] + input, charged[1] + output];
        check_idle(&client, report);
        report.sample(settings);
    }
    let mut used = [0; 3];
    for class in client.budget().snapshot() {
        let dimensions = [class.requests, class.input_tokens, class.output_tokens];
        for (sum, dimension) in used.iter_mut().zip(dimensions) {
            *sum += dimension.used;
        }
    }
    let [input, output] = charged;
    let arrived = server.request_count() as u64;
    report.same("the window", &used, &[arrived, input, output]);
    let totals = client.totals();
    let seen = [totals.all.tokens.input, totals.all.tokens.output];
    report.same("the tokens of the totals", &seen, &charged);
    report.same(
        "waits where none was needed",
        &clock.elapsed(),
        &Duration::ZERO,
    );
    report.requests += server.request_count();
}

/// Checks that no request is in flight and none waits.
fn check_idle(client: &Client, report: &mut Report) {
    for class in client.budget().snapshot() {
        let is_at_rest = class.in_flight == 0 && class.waiting == 0;
        report.check(is_at_rest, || format!("not at rest: {class:?}"));
    }
}

/// Limits tight enough to be met: the server's minute takes six milliseconds.
fn tight(seed: u64) -> ServerLimits {
    ServerLimits::per_minute(600, 40_000, 40_000)
        .scale(10_000.0)
        .overload(Duration::from_secs(20), Duration::from_secs(40), 0.5)
        .seed(seed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time limit: only a hang takes longer.
const HANG: Duration = Duration::from_secs(60);

/// Never gives up a wait for limits or overloads.
const PATIENT: RetryPolicy = RetryPolicy::new().max_wait(Duration::MAX);

const THREADS: usize = 32;
const BULK_THREADS: usize = 4;
const MOST_BULK: usize = 32;
const ROUNDS: usize = 50;
/// Attempts of a call whose failures are retried, by the default policy.
const MOST_ATTEMPTS: u64 = 5;
/// Upper bounds of the tokens that one response can use.
const MOST_INPUT: u64 = 100;
const MOST_OUTPUT: u64 = 10_000;

const MODELS: [&str; 4] = [
    "claude-haiku-4-5",
    "claude-sonnet-5",
    "claude-opus-5-5",
    "claude-haiku-5-5",
];

#[test]
fn thousands_of_calls_survive_every_fault() {
    run(&Settings {
        requests: 3_000,
        seed: 1,
        is_alone: false,
    });
}

#[test]
#[ignore = "a million requests: minutes, in a process of its own"]
fn million_requests_survive_and_nothing_grows() {
    println!("{}", run(&Settings::read(&[])));
}
