//! Rounds, clocks, ratios, and how they are printed.

use std::fs;
use std::time::{Duration, Instant};

pub struct Options {
    pub quick: bool,
    pub json: bool,
    words: Vec<String>,
}

impl Options {
    pub fn read(arguments: &[String]) -> Options {
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let words = arguments
            .iter()
            .filter(|a| !a.starts_with("--"))
            .cloned()
            .collect();
        Options {
            quick: has("--quick"),
            json: has("--json"),
            words,
        }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    pub fn rounds(&self, full: usize) -> usize {
        if self.quick { 3 } else { full }
    }
}

/// A row of the table: a figure, what it is compared with, and the goal.
pub struct Row<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    /// Per round: ours and the floor's.
    pub rounds: Vec<(f64, f64)>,
    pub goal: f64,
}

impl Row<'_> {
    pub fn print(mut self, options: &Options) {
        let ratio = |(ours, floor): &(f64, f64)| ours / floor;
        self.rounds.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let ratios: Vec<f64> = self.rounds.iter().map(ratio).collect();
        let (ours, floor) = self.rounds[self.rounds.len() / 2];
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let middle = ratios[ratios.len() / 2];
        let verdict = if middle <= self.goal {
            "holds"
        } else {
            "MISSED"
        };
        let Row {
            name, unit, goal, ..
        } = self;
        if options.json {
            println!(
                "{}",
                serde_json::json!({"row": name, "unit": unit, "ours": ours, "floor": floor,
                    "ratio": middle, "least": least, "most": most, "goal": goal,
                    "holds": middle <= goal})
            );
        } else {
            println!(
                "{name:<52} {ours:>11.2} {floor:>11.2} {unit:<9} {middle:>5.2} x \
                 ({least:.2}–{most:.2})  goal {goal:<5} {verdict}"
            );
        }
    }
}

/// A row with a figure by itself and the goal for it.
pub struct Figure<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    pub rounds: Vec<f64>,
    pub goal: Goal,
}

/// What a figure is to be.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// It stands beside another one, to compare.
    None,
}

impl Goal {
    fn holds(self, figure: f64) -> bool {
        match self {
            Goal::AtMost(most) => figure <= most,
            Goal::AtLeast(least) => figure >= least,
            Goal::None => true,
        }
    }
}

impl Figure<'_> {
    pub fn print(mut self, options: &Options) {
        self.rounds.sort_by(f64::total_cmp);
        let Figure {
            name,
            unit,
            rounds,
            goal,
        } = self;
        let (least, most) = (rounds[0], rounds[rounds.len() - 1]);
        let middle = rounds[rounds.len() / 2];
        let holds = goal.holds(middle);
        let bound = match goal {
            Goal::AtMost(bound) | Goal::AtLeast(bound) => Some(bound),
            Goal::None => None,
        };
        if options.json {
            println!(
                "{}",
                serde_json::json!({"row": name, "unit": unit, "ours": middle, "least": least,
                    "most": most, "goal": bound, "holds": holds})
            );
            return;
        }
        let verdict = if holds { "holds" } else { "MISSED" };
        let verdict = match goal {
            Goal::AtMost(most) => format!("  goal ≤ {most} {verdict}"),
            Goal::AtLeast(least) => format!("  goal ≥ {least} {verdict}"),
            Goal::None => String::new(),
        };
        println!(
            "{name:<52} {middle:>11.2} {:>11} {unit:<9} ({least:.2}–{most:.2}){verdict}",
            ""
        );
    }
}

pub fn head(options: &Options) {
    if !options.json {
        println!(
            "{:<52} {:>11} {:>11} {:<9} ratio (range)",
            "row", "ours", "floor", "unit"
        );
    }
}

/// The CPU time of this thread so far; the wall clock where the system does not say.
pub fn cpu_time() -> Duration {
    let nanos = fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    match nanos {
        Some(nanos) => Duration::from_nanos(nanos),
        None => start().elapsed(),
    }
}

fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// What a piece of work costs this thread, in microseconds for each of `count`.
pub fn cost(count: usize, work: impl FnOnce()) -> f64 {
    let before = cpu_time();
    work();
    (cpu_time() - before).as_secs_f64() * 1e6 / count as f64
}

/// Resident memory of this process in MB: now, and at its peak.
pub fn memory() -> (f64, f64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    (
        field("VmRSS:").unwrap_or(0.0) / 1e3,
        field("VmHWM:").unwrap_or(0.0) / 1e3,
    )
}
