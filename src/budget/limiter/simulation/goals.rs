//! The goals of the limiter as assertions: one or two seeds in every test run, and the whole table
//! of all rows on request.
//!
//! `cargo test --release --lib the_whole -- --ignored --nocapture` prints the table in about 13 s,
//! over 10 seeds or over `SEEDS`. The output is deterministic. Docs of constants refer to its rows.

use super::rivals::Rival;
use super::scenario::{Report, Scenario, Storm, Tenant};
use crate::budget::cost::{INPUT, OUTPUT, REQUESTS};
use crate::types::Dimension;

/// The bounds of a scenario, on average over the seeds and in the worst of them.
struct Goal {
    name: &'static str,
    scenario: Scenario,
    /// The makespan over demand / limit, on average.
    ratio: f64,
    /// The 429s on average, and in the worst run.
    refused: (f64, usize),
}

fn goal(name: &'static str, scenario: Scenario, ratio: f64, refused: (f64, usize)) -> Goal {
    Goal {
        name,
        scenario,
        ratio,
        refused,
    }
}

fn runs(scenario: &Scenario, seeds: u64) -> Vec<Report> {
    (1..=seeds).map(|seed| scenario.seed(seed).run()).collect()
}

fn mean(reports: &[Report], of: impl Fn(&Report) -> f64) -> f64 {
    reports.iter().map(of).sum::<f64>() / reports.len() as f64
}

fn most(reports: &[Report], of: impl Fn(&Report) -> f64) -> f64 {
    reports.iter().map(of).fold(0.0, f64::max)
}

impl Goal {
    #[track_caller]
    fn assert(&self, seeds: u64) -> Vec<Report> {
        let reports = runs(&self.scenario, seeds);
        let (ratio, refused) = (
            mean(&reports, |report| report.ratio),
            mean(&reports, |report| report.refused as f64),
        );
        let name = self.name;
        // The mean of a few seeds strays.
        let few = seeds < 5;
        let most = self.ratio + if few { 0.025 } else { 0.0 };
        assert!(ratio <= most, "{name}: {ratio:.3} of {most}");
        assert!(
            few || refused <= self.refused.0,
            "{name}: {refused} 429s on average"
        );
        for report in &reports {
            assert!(report.refused <= self.refused.1, "{name}: {report:?}");
            assert!(report.lost == 0 && report.conserved, "{name}: {report:?}");
            if let Some(limit) = self.scenario.promise.of(Dimension::Requests) {
                let admitted = report.admitted[REQUESTS];
                assert!(admitted <= 1.0, "{name}: {admitted} of {limit} requests");
            }
        }
        reports
    }
}

fn unknown(scenario: Scenario) -> Scenario {
    Scenario {
        knows_limits: false,
        ..scenario
    }
}

/// The server counts requests over one second.
fn per_second(scenario: Scenario) -> Scenario {
    let depth = (1.0 / scenario.rate(REQUESTS)).max(1.0);
    Scenario {
        depth: [depth, 60.0, 60.0],
        ..scenario
    }
}

fn tenant(tenant: Tenant, scenario: Scenario) -> Scenario {
    Scenario { tenant, ..scenario }
}

fn storm(odds: f64, scenario: Scenario) -> Scenario {
    let storm = Storm {
        from: 120.0,
        to: 180.0,
        odds,
    };
    Scenario {
        storm: Some(storm),
        ..scenario
    }
}

fn processes(clients: usize, scenario: Scenario) -> Scenario {
    Scenario {
        clients,
        ..scenario
    }
}

fn no_headers(scenario: Scenario) -> Scenario {
    Scenario {
        sends_headers: false,
        ..scenario
    }
}

fn mute(scenario: Scenario) -> Scenario {
    Scenario {
        explains_nothing: true,
        ..unknown(no_headers(scenario))
    }
}

fn strict(scenario: Scenario) -> Scenario {
    let promise = scenario.promise.strict();
    Scenario {
        promise,
        ..scenario
    }
}

/// One client without limits of its own; the server's limits are learned from headers, or known.
fn alone() -> Vec<Goal> {
    const NONE: (f64, usize) = (0.0, 0);
    vec![
        goal("input 5000", unknown(Scenario::itpm(5_000)), 1.01, NONE),
        goal("requests 5000", unknown(Scenario::rpm(5_000)), 1.01, NONE),
        goal("output 5000", unknown(Scenario::otpm(5_000)), 1.01, NONE),
        goal("input 5000, known", Scenario::itpm(5_000), 1.01, NONE),
        goal("requests 5000, known", Scenario::rpm(5_000), 1.01, NONE),
        goal("output 5000, known", Scenario::otpm(5_000), 1.01, NONE),
        goal("input 500", unknown(Scenario::itpm(500)), 0.97, NONE),
        goal("requests 500", unknown(Scenario::rpm(500)), 0.97, NONE),
        goal("output 500", unknown(Scenario::otpm(500)), 0.97, NONE),
    ]
}

/// The client's own limits are those of the server, or half of them.
fn promised() -> Vec<Goal> {
    const NONE: (f64, usize) = (0.0, 0);
    let of = |scenario: Scenario| unknown(scenario).promising(1.0);
    let half = |scenario: Scenario| unknown(scenario).promising(0.5);
    vec![
        goal(
            "input 5000, promised",
            of(Scenario::itpm(5_000)),
            1.08,
            NONE,
        ),
        goal(
            "requests 5000, promised",
            of(Scenario::rpm(5_000)),
            1.03,
            NONE,
        ),
        goal(
            "output 5000, promised",
            of(Scenario::otpm(5_000)),
            1.13,
            NONE,
        ),
        goal("input 5000, half", half(Scenario::itpm(5_000)), 1.15, NONE),
        goal(
            "requests 5000, half",
            half(Scenario::rpm(5_000)),
            1.15,
            NONE,
        ),
        goal("output 5000, half", half(Scenario::otpm(5_000)), 1.15, NONE),
        goal(
            "output 5000, strict",
            strict(of(Scenario::otpm(5_000))),
            2.6,
            NONE,
        ),
        goal(
            "long answers 500, promised",
            of(Scenario::long(500)),
            1.45,
            (8.0, 20),
        ),
    ]
}

/// Servers that differ from the documented one.
fn odd_servers() -> Vec<Goal> {
    let second = per_second(Scenario::rpm(5_000));
    let hidden = Scenario {
        hides_depth: true,
        ..second.clone()
    };
    let fifty = Scenario {
        limits: [50.0, 2e6, 4e5],
        ..Scenario::rpm(500)
    };
    let reserved = Scenario {
        reserves_most: true,
        ..Scenario::otpm(5_000)
    };
    let late = unknown(Scenario {
        has_slow_headers: true,
        ..reserved.clone()
    });
    let growth = Scenario {
        growth_baseline: 2.4,
        ..Scenario::itpm(5_000)
    };
    let large = Scenario {
        max_tokens: 32_000,
        ..Scenario::otpm(5_000)
    };
    let low_guess = Scenario {
        guess_factor: 0.6,
        ..Scenario::itpm(5_000)
    };
    vec![
        goal("per second", second.clone(), 1.05, (1.0, 2)),
        goal(
            "per second, promised",
            second.promising(1.0),
            1.08,
            (4.0, 4),
        ),
        goal("per second, hidden", hidden, 1.06, (1.0, 2)),
        goal(
            "per second, 50 a minute, 500",
            per_second(fifty),
            1.18,
            (4.0, 4),
        ),
        goal("max_tokens reserved", reserved.clone(), 1.06, (4.0, 4)),
        goal(
            "max_tokens reserved, promised",
            reserved.promising(1.0),
            1.16,
            (4.0, 4),
        ),
        goal(
            "max_tokens reserved, slow headers",
            late.clone(),
            1.06,
            (4.0, 4),
        ),
        goal(
            "max_tokens reserved, slow headers, 500",
            Scenario { jobs: 500, ..late },
            1.26,
            (1.0, 4),
        ),
        goal("growth limited", growth, 1.01, (2.0, 4)),
        goal("max_tokens of 85 answers", large, 1.01, (0.0, 0)),
        goal("guess 40% too low", low_guess, 1.01, (0.0, 0)),
        goal(
            "long answers 500",
            unknown(Scenario::long(500)),
            1.45,
            (5.0, 8),
        ),
        goal("small tier 500", Scenario::tier1(500), 1.02, (1.0, 4)),
    ]
}

/// Other clients use the same limits.
fn shared() -> Vec<Goal> {
    let steady = |scenario| tenant(Tenant::Steady(0.3), scenario);
    let bursts = |share, scenario| tenant(Tenant::Switching(share), scenario);
    let (itpm, rpm, otpm) = (
        Scenario::itpm(5_000),
        Scenario::rpm(5_000),
        Scenario::otpm(5_000),
    );
    let random = tenant(Tenant::Random(0.3), itpm.clone());
    vec![
        goal("30% tenant, input", steady(itpm.clone()), 1.02, (1.0, 2)),
        goal("30% tenant, requests", steady(rpm.clone()), 1.02, (1.0, 2)),
        goal("30% tenant, output", steady(otpm.clone()), 1.02, (1.0, 2)),
        goal(
            "30% tenant, promised",
            steady(itpm.clone()).promising(1.0),
            1.02,
            (2.0, 2),
        ),
        goal("30% tenant at random", random, 1.02, (20.0, 40)),
        goal(
            "60% tenant in bursts",
            bursts(0.6, itpm.clone()),
            1.02,
            (40.0, 60),
        ),
        goal(
            "40% tenant in bursts, input",
            bursts(0.4, itpm.clone()),
            1.02,
            (40.0, 40),
        ),
        goal(
            "40% tenant in bursts, output",
            bursts(0.4, otpm.clone()),
            1.02,
            (40.0, 40),
        ),
        goal(
            "2 processes, input",
            processes(2, itpm.clone()),
            1.02,
            (1.0, 4),
        ),
        goal(
            "4 processes, input",
            processes(4, itpm.clone()),
            1.02,
            (2.0, 6),
        ),
        goal(
            "8 processes, input",
            processes(8, itpm.clone()),
            1.02,
            (2.0, 8),
        ),
        goal(
            "4 processes, requests",
            processes(4, rpm.clone()),
            1.02,
            (1.0, 2),
        ),
        goal("4 processes, output", processes(4, otpm), 1.02, (1.0, 2)),
        goal(
            "30% tenant, no headers",
            steady(no_headers(itpm.clone())),
            1.02,
            (100.0, 110),
        ),
        goal(
            "unknown, no headers",
            unknown(no_headers(itpm.clone())),
            1.02,
            (110.0, 150),
        ),
        goal("mute, input", mute(itpm), 1.02, (110.0, 150)),
        goal("mute, requests", mute(rpm), 1.02, (110.0, 150)),
    ]
}

fn storms() -> Vec<Goal> {
    let itpm = Scenario::itpm(5_000);
    vec![
        goal("storm 0.9", storm(0.9, itpm.clone()), 1.015, (0.0, 0)),
        goal("storm 1.0", storm(1.0, itpm.clone()), 1.015, (0.0, 0)),
        goal(
            "storm 0.9, promised",
            storm(0.9, itpm.clone()).promising(1.0),
            1.11,
            (0.0, 0),
        ),
        goal(
            "storm 1.0, promised",
            storm(1.0, itpm).promising(1.0),
            1.11,
            (0.0, 0),
        ),
    ]
}

/// The usual alternatives to this crate, at the same work.
fn rivals() -> Vec<(&'static str, Scenario)> {
    let mut all = Vec::new();
    for (sdk2, sdk5, tutorial, scenario) in [
        (
            "input: SDK, 2 retries",
            "SDK, 5 retries",
            "tutorial",
            Scenario::itpm(5_000),
        ),
        (
            "requests: SDK, 2 retries",
            "SDK, 5 retries",
            "tutorial",
            Scenario::rpm(5_000),
        ),
        (
            "output: SDK, 2 retries",
            "SDK, 5 retries",
            "tutorial",
            Scenario::otpm(5_000),
        ),
        (
            "storm: SDK, 2 retries",
            "SDK, 5 retries",
            "tutorial",
            storm(1.0, Scenario::itpm(5_000)),
        ),
    ] {
        let with = |rival| Scenario {
            rival: Some(rival),
            ..scenario.clone()
        };
        all.push((sdk2, with(Rival::Sdk(2))));
        all.push((sdk5, with(Rival::Sdk(5))));
        all.push((tutorial, with(Rival::tutorial())));
    }
    all
}

fn quick(goals: Vec<Goal>) {
    for goal in goals {
        goal.assert(1);
    }
}

#[test]
fn single_client_reaches_the_limit_unrefused() {
    quick(alone());
}

#[test]
fn own_limits_are_kept_at_the_stated_cost() {
    for goal in promised() {
        let reports = goal.assert(1);
        let charged = |d: usize| {
            (
                most(&reports, |r| r.charged[d]),
                most(&reports, |r| r.above[d]),
            )
        };
        if goal.name == "input 5000, promised" {
            let (worst, above) = charged(INPUT);
            assert!(worst <= 1.05 && above <= 0.005, "{worst} {above}");
        } else if goal.name == "output 5000, promised" {
            let (worst, above) = charged(OUTPUT);
            assert!(worst <= 1.08 && above <= 0.01, "{worst} {above}");
        } else if goal.name == "output 5000, strict" {
            assert!(charged(OUTPUT).0 <= 1.0);
        }
    }
}

#[test]
fn unusual_servers_cost_few_refusals() {
    quick(odd_servers());
}

#[test]
fn foreign_use_is_detected_and_left_its_share() {
    quick(shared());
}

#[test]
fn overload_costs_few_probes_and_no_job() {
    for goal in storms() {
        let reports = goal.assert(2);
        let sent = mean(&reports, |report| report.sent_in_storm as f64);
        let after = mean(&reports, |report| report.tenth_after);
        assert!(
            sent <= 35.0 && after <= 12.0,
            "{}: {sent} {after}",
            goal.name
        );
    }
}

#[test]
fn retrying_without_a_budget_loses_jobs() {
    let rival = Scenario {
        rival: Some(Rival::Sdk(2)),
        ..Scenario::rpm(500)
    };
    let report = rival.run();
    assert!(report.lost > 50 && report.refused > 300, "{report:?}");
}

/// With the same floor for all requests, the small requests of three processes kept the level so
/// low that a request of a fifth of the capacity waited for 17 minutes and met 39 refusals.
#[test]
fn large_request_is_not_starved_by_processes() {
    let report = processes(4, Scenario::itpm(5_000)).seed(10).run();
    assert!(report.longest_wait < 180.0, "{report:?}");
    assert!(report.refused < 10, "{report:?}");
}

#[test]
#[ignore = "prints and asserts the whole table: run in release"]
fn the_whole_table_of_goals_is_reached() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    let seeds = seeds.unwrap_or(10);
    println!("{HEAD}");
    let mut failures = Vec::new();
    for goal in [alone(), promised(), odd_servers(), shared(), storms()]
        .into_iter()
        .flatten()
    {
        let reports = runs(&goal.scenario, seeds);
        let goals = format!(
            "{:.2} / {:.0} ({})",
            goal.ratio, goal.refused.0, goal.refused.1
        );
        println!("{}", row(goal.name, &goals, &goal.scenario, &reports));
        let kept = std::panic::catch_unwind(|| goal.assert(seeds));
        failures.extend(kept.is_err().then_some(goal.name));
    }
    for (name, scenario) in rivals() {
        println!(
            "{}",
            row(name, "", &scenario, &runs(&scenario, seeds.min(3)))
        );
    }
    let top = Scenario {
        threads: 512,
        ..Scenario::new([10_000.0, 10_000_000.0, 2_000_000.0], 50_000)
    };
    let reports = runs(&top, 1);
    println!(
        "{}",
        row(
            "top tier, 512 threads, 50,000 jobs",
            "1.00 / 0",
            &top,
            &reports
        )
    );
    assert!(failures.is_empty(), "{failures:?}");
    assert!(reports[0].ratio <= 1.0 && reports[0].refused == 0);
}

const HEAD: &str = "scenario | goal: ratio / 429s (worst) | ratio (worst) | 429s (worst) | lost | \
                    529s | longest wait | admitted, charged / limit, share above";

fn row(name: &str, goals: &str, scenario: &Scenario, reports: &[Report]) -> String {
    let dimension = (0..3).max_by(|a, b| reports[0].charged[*a].total_cmp(&reports[0].charged[*b]));
    let d = dimension.unwrap_or(0);
    let mut row = format!(
        "{name} | {goals} | {:.3} ({:.3}) | {:.1} ({:.0}) | {:.0} | {:.0} | {:.0} s | {} {:.3}, {:.3}, {:.1}%",
        mean(reports, |r| r.ratio),
        most(reports, |r| r.ratio),
        mean(reports, |r| r.refused as f64),
        most(reports, |r| r.refused as f64),
        mean(reports, |r| r.lost as f64),
        mean(reports, |r| r.overloaded as f64),
        most(reports, |r| r.longest_wait),
        Dimension::ALL[d],
        most(reports, |r| r.admitted[d]),
        most(reports, |r| r.charged[d]),
        100.0 * most(reports, |r| r.above[d]),
    );
    if scenario.storm.is_some() {
        row += &format!(
            " | sent into the storm {:.1} ({:.0}), tenth success after {:.1} s ({:.1})",
            mean(reports, |r| r.sent_in_storm as f64),
            most(reports, |r| r.sent_in_storm as f64),
            mean(reports, |r| r.tenth_after),
            most(reports, |r| r.tenth_after),
        );
    }
    if scenario.clients > 1 {
        row += &format!(" | shares {:?}", reports[0].shares);
    }
    row
}
