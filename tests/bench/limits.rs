//! Whole runs against a server with limits, in real time: this client, and beside it the retries of the
//! official clients, each with its own server.
//!
//! The server's buckets are full at first, so demand D under a limit of r a minute takes at least
//! (D - r) / r minutes. The ratio is makespan over D / r, for the demand that was answered. All
//! contenders get the same jobs in the same order, at the same time: they mostly wait, so that one
//! machine can run them all.

use std::thread;

use anthropic_blocking::testing::Amounts;

use crate::bindings::{BINDINGS, Binding, Demand, draw};
use crate::measure::{Figure, Goal, Options, Row};
use crate::workers::{By, Outcome, contenders, run_jobs};

/// The amount of work.
pub struct Settings {
    pub demands: Vec<Demand>,
    /// Multiplies the limits and the speed of the replies: more jobs in the same time.
    scale: u64,
}

impl Settings {
    /// Takes the settings of these runs out of the arguments.
    pub fn take(arguments: &mut Vec<String>) -> Settings {
        let mut settings = Settings {
            demands: Vec::new(),
            scale: 1,
        };
        if let Some(seconds) = take(arguments, "--seconds") {
            settings.demands.push(Demand::Seconds(seconds));
        }
        if let Some(jobs) = take(arguments, "--jobs") {
            settings.demands.push(Demand::Jobs(jobs as usize));
        }
        if let Some(scale) = take(arguments, "--scale") {
            settings.scale = (scale as u64).max(1);
        }
        settings
    }
}

/// Removes a flag and its number, and returns the number.
fn take(arguments: &mut Vec<String>, flag: &str) -> Option<f64> {
    let at = arguments.iter().position(|argument| argument == flag)?;
    let value = arguments.drain(at..(at + 2).min(arguments.len())).nth(1);
    let value = value.and_then(|value| value.parse().ok());
    let value = value.filter(|value: &f64| value.is_finite());
    Some(value.unwrap_or_else(|| panic!("{flag} needs a number")))
}

pub fn run(options: &Options, settings: &Settings) {
    for demand in &settings.demands {
        run_at_once(options, settings.scale, *demand);
    }
}

fn run_at_once(options: &Options, scale: u64, demand: Demand) {
    let scaled = BINDINGS.map(|mut binding| {
        binding.limits = binding.limits.map(|limit| limit * scale);
        binding
    });
    let wanted: Vec<&Binding> = scaled
        .iter()
        .filter(|one| options.wants(one.name))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let (jobs, counts) = draw(&wanted, demand, scale);
    let rows = || {
        wanted
            .iter()
            .zip(&counts)
            .map(|(one, count)| (*one, &jobs[..*count]))
    };
    let most = rows()
        .map(|(binding, jobs)| binding.seconds(jobs))
        .fold(0.0, f64::max);
    if !options.json {
        println!(
            "\nwhole runs under limits, at once, in real time: {:.0} min",
            most / 60.0
        );
        println!(
            "{:<14} {:<26} {:>5} {:>10} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>8} {:>8}",
            "binding",
            "by",
            "jobs",
            "makespan",
            "ratio",
            "best",
            "minute",
            "429s",
            "529s",
            "lost",
            "sent",
            "longest"
        );
    }
    thread::scope(|scope| {
        let mut runs = Vec::new();
        for (binding, jobs) in rows() {
            for by in contenders(binding) {
                let run = scope.spawn(move || run_jobs(by, binding, jobs));
                runs.push((binding, by, jobs, run));
            }
        }
        for (binding, by, jobs, run) in runs {
            let outcome = run.join().expect("no panic");
            outcome.print(
                options,
                &RunId {
                    binding,
                    by,
                    jobs: jobs.len(),
                    scale,
                },
            );
        }
    });
}

/// Identifies a run.
struct RunId<'a> {
    binding: &'a Binding,
    by: By,
    jobs: usize,
    scale: u64,
}

impl RunId<'_> {
    /// The goal of the makespan: with few jobs the last replies dominate, and with large limits the full
    /// buckets of the start.
    fn makespan(&self) -> Goal {
        let is_plain = self.binding.twist.is_none() && self.scale == 1;
        match (self.by, self.jobs) {
            (By::BulkLimited, 5_000..) if is_plain => Goal::Ratio(self.binding.goals.set),
            (By::Bulk | By::Create, 5_000..) if is_plain => Goal::Ratio(1.01),
            (By::Bulk | By::Create, 500..) if is_plain => Goal::Ratio(0.97),
            _ => Goal::None,
        }
    }

    fn limited(&self) -> Goal {
        match self.by {
            By::Bulk | By::Create => Goal::AtMost(self.binding.goals.limited),
            By::BulkLimited => Goal::AtMost(0.0),
            By::Retries(_) => Goal::None,
        }
    }
}

impl Outcome {
    fn print(&self, options: &Options, id: &RunId) {
        let RunId {
            binding, by, jobs, ..
        } = *id;
        let prefix = format!("limits: {}, {jobs} jobs, {}", binding.name, by.name());
        let demand = self.answered as f64 / binding.rate();
        let per_minute = |amounts: &Amounts| {
            [
                amounts.requests,
                amounts.input_tokens,
                amounts.output_tokens,
            ]
            .map(|n| n as f64)
        };
        let worst = per_minute(&self.worst_minute);
        let limits = binding.limits.map(|limit| limit as f64);
        let only = |is_so: bool, goal| if is_so { goal } else { Goal::None };
        let limited = self.ledger.rate_limited();
        let mut rows = vec![
            ("makespan", "s", self.makespan, Some(demand), id.makespan()),
            ("429s", "", limited as f64, None, id.limited()),
            (
                "lost",
                "jobs",
                self.lost as f64,
                None,
                only(by.is_us(), Goal::AtMost(0.0)),
            ),
            (
                "worst minute, requests",
                "",
                worst[0],
                Some(limits[0]),
                only(matches!(by, By::BulkLimited), Goal::Ratio(1.0)),
            ),
            ("longest job", "s", self.longest, None, Goal::None),
        ];
        if binding.dimension > 0 {
            let (worst, limit) = (worst[binding.dimension], limits[binding.dimension]);
            rows.push(("worst minute, tokens", "", worst, Some(limit), Goal::None));
        }
        if let Some(most) = binding.goals.sent {
            let sent = self.sent_into_storm as f64;
            let goal = only(by.is_us(), Goal::AtMost(most));
            rows.push(("sent into the storm", "", sent, None, goal));
        }
        if options.json {
            for (part, unit, ours, floor, goal) in rows {
                let name = &format!("{prefix}: {part}");
                match floor {
                    Some(floor) => Row {
                        name,
                        unit,
                        rounds: vec![(ours, floor)],
                        goal,
                    }
                    .print(options),
                    None => Figure {
                        name,
                        unit,
                        rounds: vec![ours],
                        goal,
                    }
                    .print(options),
                }
            }
            return;
        }
        let mut verdict = "";
        for (part, _, ours, floor, goal) in rows {
            let Some(holds) = goal.holds(ours, floor.map(|floor| ours / floor)) else {
                continue;
            };
            options.judge(&format!("{prefix}: {part}"), holds);
            if !holds {
                verdict = "  MISSED";
            } else if verdict.is_empty() {
                verdict = "  holds";
            }
        }
        let (ratio, best) = (self.makespan / demand, (demand - 60.0).max(0.0) / demand);
        let overloaded = self.ledger.overloaded();
        let sent = self.ledger.admitted() + limited + overloaded;
        println!(
            "{:<14} {:<26} {jobs:>5} {:>8.1} s {ratio:>7.3} {best:>7.3} {:>7.3} {limited:>6} \
             {overloaded:>6} {:>6} {sent:>8} {:>6.1} s{verdict}",
            binding.name,
            by.name(),
            self.makespan,
            worst[binding.dimension] / limits[binding.dimension],
            self.lost,
            self.longest,
        );
    }
}
