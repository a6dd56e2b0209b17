//! Rounds, clocks and ratios, and how the bench prints them.

use std::cell::RefCell;
use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub struct Options {
    pub quick: bool,
    pub json: bool,
    words: Vec<String>,
    counts: RefCell<RowCounts>,
}

/// Counts of the rows so far.
#[derive(Default)]
struct RowCounts {
    judged: usize,
    missed: Vec<String>,
    left_out: usize,
}

impl Options {
    pub fn read(arguments: &[String]) -> Options {
        // The first call starts the clock.
        start();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let (flags, words): (Vec<_>, Vec<_>) =
            arguments.iter().partition(|word| word.starts_with('-'));
        if let Some(unknown) = flags
            .iter()
            .find(|flag| !["--quick", "--json"].contains(&flag.as_str()))
        {
            eprintln!("{unknown} is not an option; the head of tests/bench/main.rs lists them");
            std::process::exit(2);
        }
        Options {
            quick: has("--quick"),
            json: has("--json"),
            words: words.into_iter().cloned().collect(),
            counts: RefCell::default(),
        }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    pub fn rounds(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }

    pub fn head(&self) {
        if !self.json {
            println!(
                "{:<62} {:>10} {:>10} {:<9} {:>6}   quartiles",
                "row (medians)", "ours", "floor", "unit", "ratio"
            );
        }
    }

    /// Prints a row that this run cannot measure.
    pub fn left_out(&self, name: &str, why: &str) {
        self.counts.borrow_mut().left_out += 1;
        if self.json {
            println!("{}", json!({"name": name, "left_out": why}));
        } else {
            println!("{name:<62} left out: {why}");
        }
    }

    /// Counts a goal.
    pub fn judge(&self, name: &str, holds: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.judged += 1;
        if !holds {
            counts.missed.push(name.to_owned());
        }
    }

    /// Prints the counts of all rows; with `--json` on standard error.
    pub fn summary(&self) {
        let counts = self.counts.borrow();
        let RowCounts {
            judged,
            ref missed,
            left_out,
        } = *counts;
        let holds = judged - missed.len();
        let seconds = start().elapsed().as_secs();
        let mut text =
            format!("{holds} of {judged} goals hold, {left_out} rows left out, {seconds} s");
        for name in missed {
            text.push_str("\nMISSED: ");
            text.push_str(name);
        }
        if self.json {
            eprintln!("{text}");
        } else {
            println!("\n{text}");
        }
    }
}

/// A row of the table: a figure of ours beside that of the floor, and the goal.
pub struct Row<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    /// Per round: ours and the floor's.
    pub rounds: Vec<(f64, f64)>,
    pub goal: Goal,
}

/// A row with a figure of ours only, and its goal.
pub struct Figure<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    pub rounds: Vec<f64>,
    pub goal: Goal,
}

/// The goal of a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most this multiple of the floor.
    Ratio(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Without a goal: the row is for comparison.
    None,
}

impl Goal {
    pub fn holds(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Goal::Ratio(most) => ratio.map(|ratio| ratio <= most),
            Goal::AtMost(most) => Some(ours <= most),
            Goal::AtLeast(least) => Some(ours >= least),
            Goal::None => None,
        }
    }
}

impl Row<'_> {
    pub fn print(self, options: &Options) {
        let ratios = self.rounds.iter().map(|(ours, floor)| ours / floor);
        let ratio = Spread::of(ratios.collect());
        let (ours, floor) = self.rounds.into_iter().unzip();
        let floor = Some(Spread::of(floor));
        Line {
            name: self.name,
            unit: self.unit,
            ours: Spread::of(ours),
            floor,
            ratio: Some(ratio),
            goal: self.goal,
        }
        .print(options);
    }
}

impl Figure<'_> {
    pub fn print(self, options: &Options) {
        Line {
            name: self.name,
            unit: self.unit,
            ours: Spread::of(self.rounds),
            floor: None,
            ratio: None,
            goal: self.goal,
        }
        .print(options);
    }
}

/// A row in the form in which it is printed.
struct Line<'a> {
    name: &'a str,
    unit: &'a str,
    ours: Spread,
    floor: Option<Spread>,
    ratio: Option<Spread>,
    goal: Goal,
}

impl Line<'_> {
    fn print(&self, options: &Options) {
        let holds = self.holds();
        if let Some(holds) = holds {
            options.judge(self.name, holds);
        }
        if options.json {
            println!("{}", self.json(holds));
        } else {
            self.print_text(holds);
        }
    }

    fn holds(&self) -> Option<bool> {
        let ratio = self.ratio.as_ref().map(|ratio| ratio.median);
        self.goal.holds(self.ours.median, ratio)
    }

    fn json(&self, holds: Option<bool>) -> Value {
        let (goal, goal_is) = match self.goal {
            Goal::Ratio(most) => (Some(most), "ratio at most"),
            Goal::AtMost(most) => (Some(most), "ours at most"),
            Goal::AtLeast(least) => (Some(least), "ours at least"),
            Goal::None => (None, "none"),
        };
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.median,
            "floor": self.floor.as_ref().map(|floor| floor.median),
            "ratio": self.ratio.as_ref().map(|ratio| ratio.median),
            "goal": goal,
            "goal_is": goal_is,
            "holds": holds,
            "spread": {
                "ours": self.ours.json(),
                "floor": self.floor.as_ref().map(Spread::json),
                "ratio": self.ratio.as_ref().map(Spread::json),
            },
        })
    }

    fn print_text(&self, holds: Option<bool>) {
        let Line {
            name, unit, ours, ..
        } = self;
        let (mut floor, mut ratio) = (String::new(), String::new());
        if let Some(spread) = &self.floor {
            floor = figure(spread.median);
        }
        let mut spread = ours;
        if let Some(own) = &self.ratio {
            spread = own;
            ratio = format!("{} x", figure(own.median));
        }
        let (lower, upper) = (figure(spread.lower), figure(spread.upper));
        let goal = match self.goal {
            Goal::Ratio(most) => format!("goal ≤ {most} x"),
            Goal::AtMost(most) => format!("goal ≤ {most} {unit}"),
            Goal::AtLeast(least) => format!("goal ≥ {least} {unit}"),
            Goal::None => String::new(),
        };
        let outcome = match holds {
            Some(true) => "holds",
            Some(false) => "MISSED",
            None => "",
        };
        let line = format!(
            "{name:<62} {:>10} {floor:>10} {unit:<9} {ratio:>6} ({lower}–{upper})  {goal} {outcome}",
            figure(ours.median)
        );
        println!("{}", line.trim_end());
    }
}

/// Formats a value with three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The distribution over the rounds. The quartiles show how certain the median is; the extremes show
/// the noise of the machine.
struct Spread {
    least: f64,
    lower: f64,
    median: f64,
    upper: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let quarter = |number: usize| {
            let (low, high) = (last * number / 4, (last * number).div_ceil(4));
            f64::midpoint(values[low], values[high])
        };
        Spread {
            least: values[0],
            lower: quarter(1),
            median: quarter(2),
            upper: quarter(3),
            most: values[last],
        }
    }

    fn json(&self) -> Value {
        json!({"least": self.least, "lower_quartile": self.lower, "median": self.median,
            "upper_quartile": self.upper, "most": self.most})
    }
}

/// Runs `rounds` rounds of both sides, which take turns at being first.
pub fn in_turn<T>(
    rounds: usize,
    mut ours: impl FnMut() -> T,
    mut floor: impl FnMut() -> T,
) -> Vec<(T, T)> {
    let round = |number| {
        if number % 2 == 0 {
            let first = ours();
            (first, floor())
        } else {
            let first = floor();
            (ours(), first)
        }
    };
    (0..rounds).map(round).collect()
}

/// The cost of a piece of work, in microseconds per part.
#[derive(Clone, Copy)]
pub struct Cost {
    /// CPU time of the threads that do the work.
    pub cpu: f64,
    pub wall: f64,
}

/// Measures the cost of `work` on this thread, for each of `count` parts.
pub fn cost(count: usize, work: impl FnOnce()) -> Cost {
    let (cpu, wall) = (cpu_time(), Instant::now());
    work();
    Cost::of(cpu_time() - cpu, wall.elapsed(), count)
}

/// Measures the cost of `count` calls on `threads` threads.
pub fn cost_of_calls(threads: usize, count: usize, call: &(dyn Fn() + Sync)) -> Cost {
    let calls = count / threads;
    if threads == 1 {
        return cost(calls, || (0..calls).for_each(|_| call()));
    }
    let wall = Instant::now();
    let cpu = thread::scope(|scope| {
        let work = || {
            let before = cpu_time();
            (0..calls).for_each(|_| call());
            cpu_time() - before
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let times = threads.into_iter().map(|thread| thread.join());
        times.map(|time| time.expect("no panic")).sum()
    });
    Cost::of(cpu, wall.elapsed(), calls * threads)
}

impl Cost {
    fn of(cpu: Duration, wall: Duration, count: usize) -> Cost {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        Cost {
            cpu: each(cpu),
            wall: each(wall),
        }
    }
}

/// Prints two rows from the same rounds: CPU time and wall time.
pub fn print_costs(
    options: &Options,
    name: &str,
    unit: &str,
    rounds: &[(Cost, Cost)],
    goals: [Goal; 2],
) {
    let of = |part: fn(&Cost) -> f64| {
        let both = |(ours, floor): &(Cost, Cost)| (part(ours), part(floor));
        rounds.iter().map(both).collect()
    };
    let parts: [(&str, Vec<(f64, f64)>); 2] =
        [("CPU", of(|cost| cost.cpu)), ("wall", of(|cost| cost.wall))];
    for ((part, rounds), goal) in parts.into_iter().zip(goals) {
        Row {
            name: &format!("{name}: {part}"),
            unit,
            rounds,
            goal,
        }
        .print(options);
    }
}

/// Returns the CPU time of this thread so far; the wall time on systems that do not report CPU time.
fn cpu_time() -> Duration {
    // The kernel accounts at context switches and ticks: yield, so that it accounts now.
    thread::yield_now();
    let nanos = fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    match nanos {
        Some(nanos) => Duration::from_nanos(nanos),
        None => start().elapsed(),
    }
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Reads a size from the status of a process, in MB (Linux only).
pub fn memory(process: &str, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1e3)
}
