//! The report: counts, complaints, and the memory, files and threads of the process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::ErrorKind;

use super::calls::{Got, Outcome};
use super::{HANG, Settings};

#[derive(Default)]
pub struct Report {
    pub requests: usize,
    pub seconds: f64,
    pub attempts: u64,
    /// Requests that the server read after their call had given up.
    pub late: u64,
    /// Attempts that the server never saw, because it had closed their connection.
    pub lost: u64,
    pub calls: BTreeMap<String, u64>,
    pub outcomes: BTreeMap<String, u64>,
    pub deliveries: BTreeMap<String, u64>,
    pub faults: BTreeMap<String, u64>,
    pub batches: BTreeMap<String, u64>,
    pub samples: Vec<Sample>,
    pub complaints: Vec<String>,
}

impl Report {
    pub fn count(&mut self, outcome: &Outcome, arrived: usize) {
        let outcome_name = match &outcome.got {
            Got::Message { .. } | Got::Counted | Got::Raw => "answered".to_owned(),
            Got::Half => "dropped half-way".to_owned(),
            Got::Cut => "cut with its run".to_owned(),
            Got::Error(kind, _) => format!("error: {kind}"),
            Got::Wrong(_) => "wrong".to_owned(),
        };
        *self.outcomes.entry(outcome_name).or_default() += 1;
        *self
            .calls
            .entry(format!("{:?}", outcome.call.way))
            .or_default() += 1;
        self.attempts += match outcome.got {
            Got::Counted => arrived,
            _ => outcome.attempts.len(),
        } as u64;
        for attempt in &outcome.attempts {
            *self
                .deliveries
                .entry(attempt.delivery.to_string())
                .or_default() += 1;
        }
    }

    pub fn batch(&mut self, outcome: &Result<Option<ErrorKind>, String>, created: u64) {
        let name = match outcome {
            Ok(None) => "results, all of them".to_owned(),
            Ok(Some(kind)) => format!("error: {kind}"),
            Err(_) => "wrong".to_owned(),
        };
        *self.batches.entry(name).or_default() += 1;
        *self
            .batches
            .entry("batches created".to_owned())
            .or_default() += created;
    }

    pub fn check(&mut self, is_so: bool, complaint: impl FnOnce() -> String) {
        if !is_so {
            self.complain(complaint());
        }
    }

    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: &T, should: &T) {
        self.check(is == should, || {
            format!("{what}: {is:?}, should be {should:?}")
        });
    }

    pub fn complain(&mut self, complaint: String) {
        if self.complaints.len() < 1_000 {
            self.complaints.push(complaint);
        }
    }

    pub fn sample(&mut self, settings: &Settings) {
        if settings.is_alone {
            self.samples.push(Sample::take());
        }
    }

    /// Checks that the second half of the run needs no more than the first, by the median of its
    /// rounds, apart from a tenth and a fixed slack for allocators and the scheduler.
    pub fn check_growth(&mut self) {
        let rounds = self.samples[1..].to_vec();
        let (first, second) = rounds.split_at(rounds.len() / 2);
        let middle = |samples: &[Sample], of: Figure| {
            let mut figures: Vec<u64> = samples.iter().map(of).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied()
        };
        let rows: [(&str, Figure, u64); 3] = [
            ("kB of memory", |sample| sample.rss, 8_192),
            ("files", |sample| sample.files, 16),
            ("threads", |sample| sample.threads, 16),
        ];
        for (name, of, slack) in rows {
            let (Some(first), Some(second)) = (middle(first, of), middle(second, of)) else {
                continue;
            };
            self.check(second <= first + first / 10 + slack, || {
                format!("{name} grow: {first} in the first half, {second} in the second")
            });
        }
    }

    /// Checks that the threads and connections of the dropped client and server are gone.
    pub fn check_end(&mut self, before: Sample) {
        let start = Instant::now();
        let mut after = Sample::take();
        let is_more = |after: &Sample| after.files > before.files || after.threads > before.threads;
        while is_more(&after) && start.elapsed() < HANG {
            thread::sleep(Duration::from_millis(10));
            after = Sample::take();
        }
        self.check(!is_more(&after), || {
            format!("left over: {after:?}, before {before:?}")
        });
        self.samples.push(after);
    }

    pub fn table(&self, settings: &Settings) -> String {
        let mut text = String::new();
        let rate = self.requests as f64 / self.seconds;
        let _ = writeln!(
            text,
            "seed {}: {} requests in {:.1} s, {rate:.0} per second; {} attempts, {} requests read late, {} \
             never arrived",
            settings.seed, self.requests, self.seconds, self.attempts, self.late, self.lost
        );
        for (title, counts) in [
            ("calls", &self.calls),
            ("outcomes", &self.outcomes),
            ("attempts", &self.deliveries),
            ("faults", &self.faults),
            ("runs of batches", &self.batches),
        ] {
            let _ = writeln!(text, "{title}:");
            for (name, count) in counts {
                let _ = writeln!(text, "  {name:<40} {count:>9}");
            }
        }
        if let [before, rounds @ .., after] = &self.samples[..] {
            let (middle, last) = (rounds.get(rounds.len() / 2), rounds.last());
            let _ = writeln!(
                text,
                "{:<42} {:>9} {:>9} {:>9}",
                "process:", "RSS, kB", "files", "threads"
            );
            for (name, sample) in [
                ("before", Some(before)),
                ("after the first round", rounds.first()),
                ("in the middle", middle),
                ("after the last round", last),
                ("with client and server gone", Some(after)),
            ] {
                let Sample {
                    rss,
                    files,
                    threads,
                } = sample.copied().unwrap_or_default();
                let _ = writeln!(text, "  {name:<40} {rss:>9} {files:>9} {threads:>9}");
            }
        }
        text
    }
}

type Figure = fn(&Sample) -> u64;

/// What the process uses; zero where the system does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub rss: u64,
    pub files: u64,
    pub threads: u64,
}

impl Sample {
    pub fn take() -> Sample {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        Sample {
            rss: field("VmRSS:"),
            files,
            threads: field("Threads:"),
        }
    }
}
