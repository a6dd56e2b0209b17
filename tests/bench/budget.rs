//! The budget without a client: the cost of a reservation, and how threads wait.

use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anthropic_blocking::{
    Admission, Budget, Cost, Limits, ModelClass, RateLimit, RateLimits, Reservation, Usage,
};

use crate::measure::{Figure, Goal, Options, Row, cost, in_turn};

pub fn run(options: &Options, ramped_up: Option<RampedUpBudget>) {
    alone(options);
    together(options);
    if let Some(ramped_up) = ramped_up {
        ramped_up.enough.send(()).expect("the thread receives");
        paced(options, join(ramped_up.thread));
    }
    asleep(options);
}

/// Threads that wait at a time.
const THREADS: usize = 64;

fn class() -> ModelClass {
    ModelClass::of("claude-haiku-4-5")
}

const COST: Cost = Cost::request().input_bytes(5_000).max_tokens(1_024);

fn usage() -> Usage {
    let mut usage = Usage::default();
    (usage.input_tokens, usage.output_tokens) = (1_400, 200);
    usage
}

/// A limit that no run reaches.
const ENDLESS: u64 = 1 << 50;

/// Returns a budget with own limits and known server limits, none of which causes a wait.
fn roomy() -> Budget {
    let limits = Limits::per_minute()
        .requests(ENDLESS)
        .input_tokens(ENDLESS)
        .output_tokens(ENDLESS);
    Budget::new()
        .limits(class(), limits)
        .assume_server(class(), limits)
}

/// Returns the headers of such a server: full buckets.
fn headers() -> RateLimits {
    let mut group = RateLimit::default();
    (group.limit, group.remaining) = (Some(ENDLESS), Some(ENDLESS));
    let mut limits = RateLimits::default();
    limits.requests = Some(group);
    limits.input_tokens = Some(group);
    limits.output_tokens = Some(group);
    limits
}

/// The floor: three amounts behind a mutex, locked once to take and once to return.
#[derive(Default)]
struct Account {
    used: Mutex<[u64; 3]>,
}

impl Account {
    fn reserve_and_settle(&self, count: usize) {
        let (expected, actual) = black_box(([1, 1_400, 300], [1, 1_400, 200]));
        for _ in 0..count {
            let mut used = self.used.lock().expect("no panic");
            assert!((0..3).all(|i| used[i] + expected[i] <= ENDLESS));
            (0..3).for_each(|i| used[i] += expected[i]);
            drop(used);
            let mut used = self.used.lock().expect("no panic");
            (0..3).for_each(|i| used[i] -= expected[i] - actual[i]);
        }
    }
}

fn reserve_and_settle(budget: &Budget, count: usize, headers: Option<&RateLimits>) {
    let (class, usage) = (class(), usage());
    for _ in 0..count {
        let reservation = budget.reserve(&class, COST, None).expect("room");
        reservation.settle(&usage, headers);
    }
}

/// Measures one thread.
fn alone(options: &Options) {
    const COUNT: usize = 200_000;
    let headers = headers();
    for (name, headers) in [
        ("reserve + settle, three limits", None),
        (
            "the same, headers learned (reserve + settle)",
            Some(&headers),
        ),
    ] {
        if !options.wants(name) {
            continue;
        }
        let (budget, account) = (roomy(), Account::default());
        let ours = || 1e3 * cost(COUNT, || reserve_and_settle(&budget, COUNT, headers)).cpu;
        let floor = || 1e3 * cost(COUNT, || account.reserve_and_settle(COUNT)).cpu;
        ours();
        Row {
            name,
            unit: "ns",
            rounds: in_turn(options.rounds(31), ours, floor),
            goal: Goal::AtMost(500.0),
        }
        .print(options);
    }
}

/// Measures threads that only reserve and settle, without pauses.
fn together(options: &Options) {
    for threads in [1, 2, 8, THREADS] {
        let name = format!("reserve + settle, {threads} threads");
        if !options.wants(&name) {
            continue;
        }
        let (budget, account) = (roomy(), Account::default());
        let ours = || throughput(threads, |count| reserve_and_settle(&budget, count, None));
        let floor = || throughput(threads, |count| account.reserve_and_settle(count));
        Row {
            name: &name,
            unit: "million/s",
            rounds: in_turn(options.rounds(21), ours, floor),
            goal: match threads {
                THREADS => Goal::AtLeast(2.0),
                _ => Goal::None,
            },
        }
        .print(options);
    }
}

/// Returns operations in millions per second of wall time, over all threads.
fn throughput(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    const TOTAL: usize = 200_000;
    let start = Barrier::new(threads);
    let timed = || {
        start.wait();
        let begun = Instant::now();
        work(TOTAL / threads);
        (begun, Instant::now())
    };
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(timed)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let (begun, ended): (Vec<_>, Vec<_>) = times.into_iter().map(|t| t.expect("no panic")).unzip();
    let first = begun.into_iter().min().expect("a thread");
    let last = ended.into_iter().max().expect("a thread");
    (TOTAL / threads * threads) as f64 / (last - first).as_secs_f64() / 1e6
}

/// One reservation of a thread: the times before and after the call.
type Grant = (Instant, Instant);

/// Measures 64 threads that wait for 500 admissions a second.
///
/// After the ramp-up the pace is 500 a second to the microsecond, and the time of each admission
/// follows from the computed time of the previous one, not from when its thread ran. So the n-th
/// admission is due n / 500 s after the time that `try_reserve` returns before the threads start, and
/// its lateness is how much later `reserve` returns. At the end `try_reserve` must return the time that
/// follows in this schedule.
fn paced(options: &Options, (budget, _open): (Budget, Vec<Reservation>)) {
    let span = Duration::from_millis(if options.quick { 1_200 } else { 4_000 });
    let runs: Vec<Paced> = (0..options.rounds(5).max(3))
        .map(|_| paced_run(&budget, span))
        .collect();
    let figure = |name, unit, goal, figure: fn(&Paced) -> f64| {
        Figure {
            name,
            unit,
            rounds: runs.iter().map(figure).collect(),
            goal,
        }
        .print(options);
    };
    figure(WAKES, "", Goal::AtMost(2.1), |run| run.wakes);
    Row {
        name: "lateness of a grant, mean (floor: of a bare sleep)",
        unit: "ms",
        rounds: runs.iter().map(|run| (run.late, run.bare)).collect(),
        goal: Goal::AtMost(0.5),
    }
    .print(options);
    figure("lateness of a grant, 99 of 100", "ms", Goal::None, |run| {
        run.latest
    });
    figure("grants out of turn", "", Goal::AtMost(0.0), |run| {
        run.out_of_turn
    });
    figure(
        "schedule missed at the end",
        "ms",
        Goal::AtMost(0.01),
        |run| run.missed,
    );
}

/// The figures of one run; times in milliseconds.
struct Paced {
    wakes: f64,
    late: f64,
    bare: f64,
    latest: f64,
    out_of_turn: f64,
    missed: f64,
}

const WAKES: &str = "wake-ups per grant, 64 waiting, 500 grants/s";

/// A budget whose ramp-up passes while other rows are measured.
pub struct RampedUpBudget {
    thread: JoinHandle<(Budget, Vec<Reservation>)>,
    enough: Sender<()>,
}

/// Starts the ramp-up, which takes half a minute and no CPU.
pub fn start_ramp_up(options: &Options) -> Option<RampedUpBudget> {
    let names = [WAKES, "lateness of a grant"];
    if !names.iter().any(|name| options.wants(name)) {
        return None;
    }
    let (enough, is_enough) = mpsc::channel();
    let thread = thread::spawn(move || ramped_up(&is_enough));
    Some(RampedUpBudget { thread, enough })
}

/// Returns a budget after its ramp-up: the pace is 1.25 times the limit, which is 500 requests a second.
/// It has enough requests in flight for the pace to apply.
fn ramped_up(is_enough: &Receiver<()>) -> (Budget, Vec<Reservation>) {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(24_000));
    let open = (0..4)
        .map(|_| budget.reserve(&class(), COST, None).expect("room"))
        .collect();
    // The ramp-up starts at a quarter and doubles every ten seconds.
    thread::sleep(Duration::from_secs(24));
    // After a minute without a request the ramp-up would start again.
    while is_enough.recv_timeout(Duration::from_secs(10)) == Err(RecvTimeoutError::Timeout) {
        reserve_and_settle(&budget, 1, None);
    }
    (budget, open)
}

const PACE: f64 = 500.0;

fn paced_run(budget: &Budget, span: Duration) -> Paced {
    let first = drain(budget);
    let is_over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (budget, is_over) = (budget.clone(), Arc::clone(&is_over));
            waiter(move || {
                let mut grants = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    grants.push(grant(&budget));
                }
                grants
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let from = (Instant::now(), switches());
    thread::sleep(span);
    let until = (Instant::now(), switches());
    is_over.store(true, Ordering::Relaxed);
    let mut grants: Vec<Grant> = threads.into_iter().flat_map(join).collect();
    let next = drain(budget);

    grants.sort_by_key(|(_, granted)| *granted);
    let due = |number: usize| first + Duration::from_secs_f64(number as f64 / PACE);
    let within = |at: Instant| from.0 <= at && at < until.0;
    let mut late: Vec<f64> = grants
        .iter()
        .enumerate()
        .filter(|(_, (_, granted))| within(*granted))
        .map(|(number, (_, granted))| millis_after(due(number), *granted))
        .collect();
    let wakes = (until.1 - from.1) as f64 / late.len() as f64;
    late.sort_by(f64::total_cmp);
    Paced {
        wakes,
        late: mean(&late),
        bare: bare_lateness(),
        latest: late[late.len() * 99 / 100],
        out_of_turn: out_of_turn(&grants) as f64,
        missed: millis_after(due(grants.len()), next).abs(),
    }
}

/// Reserves until there is no room, and returns when the next request has room.
fn drain(budget: &Budget) -> Instant {
    loop {
        let before = Instant::now();
        match budget.try_reserve(&class(), COST).expect("it can fit") {
            Admission::Granted(reservation) => reservation.settle(&usage(), None),
            Admission::NotBefore(wait) => return before + wait,
            _ => unreachable!("no third answer"),
        }
    }
}

fn grant(budget: &Budget) -> Grant {
    let asked = Instant::now();
    let reservation = budget.reserve(&class(), COST, None).expect("room");
    let granted = Instant::now();
    reservation.settle(&usage(), None);
    (asked, granted)
}

/// Counts admissions of a thread although another thread had called `reserve` earlier, by more than the
/// call takes.
fn out_of_turn(grants: &[Grant]) -> usize {
    const AT_ONCE: Duration = Duration::from_millis(1);
    let mut latest: Option<Grant> = None;
    let mut count = 0;
    for (asked, granted) in grants {
        match latest {
            Some((later, before)) if *asked + AT_ONCE < later && before + AT_ONCE < *granted => {
                count += 1;
            }
            _ => {}
        }
        if latest.is_none_or(|(later, _)| *asked > later) {
            latest = Some((*asked, *granted));
        }
    }
    count
}

/// Measures the lateness of a bare sleep on this machine: the floor of every lateness.
fn bare_lateness() -> f64 {
    let late: Vec<f64> = (0..200)
        .map(|_| {
            let due = Instant::now() + Duration::from_millis(2);
            thread::sleep(due - Instant::now());
            millis_after(due, Instant::now())
        })
        .collect();
    mean(&late)
}

fn millis_after(due: Instant, at: Instant) -> f64 {
    let late = at.saturating_duration_since(due).as_secs_f64();
    let early = due.saturating_duration_since(at).as_secs_f64();
    1e3 * (late - early)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Measures 64 threads in the queue, whose head sleeps to a time four minutes ahead.
fn asleep(options: &Options) {
    let seconds = if options.quick { 3 } else { 60 };
    let name = format!("CPU while 64 threads wait for {seconds} s");
    if !options.wants(&name) {
        return;
    }
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(1));
    drop(budget.reserve(&class(), COST, None).expect("room"));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let budget = budget.clone();
            waiter(move || grant(&budget))
        })
        .collect();
    while budget.snapshot()[0].waiting < THREADS {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(500));
    let before = process_cpu();
    thread::sleep(Duration::from_secs(seconds));
    let used = process_cpu() - before;
    drop(budget.limits(class(), Limits::per_minute()));
    for thread in threads {
        join(thread);
    }
    Figure {
        name: &name,
        unit: "ms",
        rounds: vec![used.as_secs_f64() * 1e3],
        goal: Goal::AtMost(10.0),
    }
    .print(options);
}

/// Spawns a thread that [`switches`] finds by its name.
fn waiter<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let builder = thread::Builder::new().name(WAITER.to_owned());
    builder.spawn(work).expect("a thread")
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

const WAITER: &str = "waiter";

/// Counts how often the waiting threads have gone to sleep so far: as often as they were woken.
fn switches() -> u64 {
    let count = |folder: &str| {
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let is_waiter = field("Name:")?.trim() == WAITER;
        let count: u64 = field("voluntary_ctxt_switches:")?.trim().parse().ok()?;
        is_waiter.then_some(count)
    };
    tasks().iter().filter_map(|folder| count(folder)).sum()
}

/// Returns the CPU time of all live threads of this process.
fn process_cpu() -> Duration {
    let nanos = |folder: &String| -> Option<u64> {
        let text = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks().iter().filter_map(nanos).sum())
}

/// Returns the folders of this process's threads (Linux only).
fn tasks() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path().to_str()?.to_owned()))
        .collect()
}
