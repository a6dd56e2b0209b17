//! The figures of LIMITING.md 7 and 10.5, and DESIGN.md 10.

use super::*;

#[test]
#[ignore = "prints figures: run in release"]
fn quick_look() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3);
    let show = |name: &str, scenario: Scenario| {
        let runs: Vec<Report> = (1..=seeds).map(|seed| scenario.seed(seed).run()).collect();
        let mean = |f: &dyn Fn(&Report) -> f64| runs.iter().map(f).sum::<f64>() / runs.len() as f64;
        let max = |f: &dyn Fn(&Report) -> f64| runs.iter().map(f).fold(f64::MIN, f64::max);
        println!(
            "{name:28} {:6.3} (max {:6.3}) 429 {:7.1} (max {:5}) 529 {:4.0} lost {:4.0} wait {:5.0} \
             adm {:.3} {:.3} {:.3} chg {:.3} {:.3} {:.3} above {:.3}/{:.3} storm {:.0} tenth {:.1} conserved {} rulings/job {:.1}",
            mean(&|r| r.ratio),
            max(&|r| r.ratio),
            mean(&|r| r.refused as f64),
            max(&|r| r.refused as f64),
            mean(&|r| r.overloaded as f64),
            mean(&|r| r.lost as f64),
            max(&|r| r.longest_wait),
            max(&|r| r.admitted[0]),
            max(&|r| r.admitted[1]),
            max(&|r| r.admitted[2]),
            max(&|r| r.charged[0]),
            max(&|r| r.charged[1]),
            max(&|r| r.charged[2]),
            max(&|r| r.above[1]),
            max(&|r| r.above[2]),
            max(&|r| r.sent_in_storm as f64),
            max(&|r| r.tenth_after),
            runs.iter().all(|r| r.conserved),
            mean(&|r| r.rulings as f64) / scenario.jobs as f64,
        );
    };
    let known = |known, s: Scenario| Scenario { known, ..s };
    for jobs in [500, 5000] {
        for k in [true, false] {
            show(
                &format!("itpm {jobs} known={k}"),
                known(k, Scenario::itpm(jobs)),
            );
            show(
                &format!("rpm {jobs} known={k}"),
                known(k, Scenario::rpm(jobs)),
            );
            show(
                &format!("otpm {jobs} known={k}"),
                known(k, Scenario::otpm(jobs)),
            );
        }
    }
    show("tier1 500", Scenario::tier1(500));
    show(
        "otpm 32k",
        Scenario {
            max_tokens: 32_000,
            ..Scenario::otpm(5000)
        },
    );
    show("long 500", Scenario::long(500));
    show("long 500 unknown", known(false, Scenario::long(500)));
    show(
        "guess 40% low",
        Scenario {
            guess: 0.6,
            ..Scenario::itpm(5000)
        },
    );
    println!("-- promise");
    for jobs in [500, 5000] {
        show(
            &format!("itpm {jobs} h"),
            known(false, Scenario::itpm(jobs)).promising(1.0),
        );
        show(
            &format!("rpm {jobs} h"),
            known(false, Scenario::rpm(jobs)).promising(1.0),
        );
        show(
            &format!("otpm {jobs} h"),
            known(false, Scenario::otpm(jobs)).promising(1.0),
        );
        show(
            &format!("itpm {jobs} half"),
            known(false, Scenario::itpm(jobs)).promising(0.5),
        );
        show(
            &format!("rpm {jobs} half"),
            known(false, Scenario::rpm(jobs)).promising(0.5),
        );
        show(
            &format!("otpm {jobs} half"),
            known(false, Scenario::otpm(jobs)).promising(0.5),
        );
    }
    show("tier1 500 h", Scenario::tier1(500).promising(1.0));
    show(
        "long 500 h",
        known(false, Scenario::long(500)).promising(1.0),
    );
    let strict = |s: Scenario| Scenario {
        promise: s.promise.strict(),
        ..s
    };
    show(
        "otpm 500 strict",
        strict(Scenario::otpm(500).promising(1.0)),
    );
    show(
        "otpm 5000 strict",
        strict(Scenario::otpm(5000).promising(1.0)),
    );
    show(
        "long 500 strict",
        strict(Scenario::long(500).promising(1.0)),
    );
    show(
        "itpm 5000 h no headers",
        Scenario {
            headers: false,
            ..known(false, Scenario::itpm(5000))
        }
        .promising(1.0),
    );
    show(
        "same, 30% tenant",
        Scenario {
            headers: false,
            tenant: Tenant::Steady(0.3),
            ..known(false, Scenario::itpm(5000))
        }
        .promising(1.0),
    );
    println!("-- servers");
    for (name, promise) in [("", false), (" h", true)] {
        let p = |s: Scenario| if promise { s.promising(1.0) } else { s };
        let second = |s: Scenario| {
            let rate = s.rate(0);
            Scenario {
                depth: [1.0_f64.max(1.0 / rate), 60.0, 60.0],
                ..s
            }
        };
        show(
            &format!("per second rpm{name}"),
            p(second(Scenario::rpm(5000))),
        );
        show(
            &format!("per second unreported{name}"),
            p(Scenario {
                hides_depth: true,
                ..second(Scenario::rpm(5000))
            }),
        );
        show(
            &format!("per second 50 rpm, 500{name}"),
            p(second(Scenario {
                limits: [50.0, 2e6, 4e5],
                ..Scenario::rpm(500)
            })),
        );
        show(
            &format!("reserved otpm{name}"),
            p(Scenario {
                reserves_most: true,
                ..Scenario::otpm(5000)
            }),
        );
        show(
            &format!("growth itpm{name}"),
            p(Scenario {
                limits_growth: true,
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("growth itpm unknown{name}"),
            p(Scenario {
                limits_growth: true,
                ..known(false, Scenario::itpm(5000))
            }),
        );
        show(
            &format!("30% tenant itpm{name}"),
            p(Scenario {
                tenant: Tenant::Steady(0.3),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("30% tenant rpm{name}"),
            p(Scenario {
                tenant: Tenant::Steady(0.3),
                ..Scenario::rpm(5000)
            }),
        );
        show(
            &format!("30% tenant otpm{name}"),
            p(Scenario {
                tenant: Tenant::Steady(0.3),
                ..Scenario::otpm(5000)
            }),
        );
        show(
            &format!("30% tenant random{name}"),
            p(Scenario {
                tenant: Tenant::Random(0.3),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("60% on/off{name}"),
            p(Scenario {
                tenant: Tenant::Switching(0.6),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("40% on/off otpm{name}"),
            p(Scenario {
                tenant: Tenant::Switching(0.4),
                ..Scenario::otpm(5000)
            }),
        );
        show(
            &format!("40% on/off{name}"),
            p(Scenario {
                tenant: Tenant::Switching(0.4),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("storm 0.9{name}"),
            p(Scenario {
                storm: Some((120.0, 180.0, 0.9)),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("storm 1.0{name}"),
            p(Scenario {
                storm: Some((120.0, 180.0, 1.0)),
                ..Scenario::itpm(5000)
            }),
        );
        show(
            &format!("storm 0.3{name}"),
            p(Scenario {
                storm: Some((120.0, 180.0, 0.3)),
                ..Scenario::itpm(5000)
            }),
        );
    }
    println!("-- ignorance, sharing");
    show(
        "30% tenant, no headers",
        Scenario {
            headers: false,
            tenant: Tenant::Steady(0.3),
            ..Scenario::itpm(5000)
        },
    );
    show(
        "unknown, no headers",
        Scenario {
            headers: false,
            known: false,
            ..Scenario::itpm(5000)
        },
    );
    show(
        "unknown, no headers, mute",
        Scenario {
            headers: false,
            is_mute: true,
            known: false,
            ..Scenario::itpm(5000)
        },
    );
    for (name, s) in [
        ("itpm", Scenario::itpm(5000)),
        ("rpm", Scenario::rpm(5000)),
        ("otpm", Scenario::otpm(5000)),
    ] {
        show(
            &format!("2 processes {name}"),
            Scenario {
                clients: 2,
                ..s.clone()
            },
        );
        show(
            &format!("4 processes {name}"),
            Scenario {
                clients: 4,
                ..s.clone()
            },
        );
        println!(
            "   shares {:?}",
            Scenario {
                clients: 4,
                ..s.clone()
            }
            .run()
            .shares
        );
    }
    for (name, s) in [
        ("itpm", Scenario::itpm(5000)),
        ("rpm", Scenario::rpm(5000)),
        ("otpm", Scenario::otpm(5000)),
        (
            "storm",
            Scenario {
                storm: Some((120.0, 180.0, 1.0)),
                ..Scenario::itpm(5000)
            },
        ),
    ] {
        show(
            &format!("sdk 2 {name}"),
            Scenario {
                rival: Some(Rival::Sdk(2)),
                ..s.clone()
            },
        );
        show(
            &format!("sdk 5 {name}"),
            Scenario {
                rival: Some(Rival::Sdk(5)),
                ..s.clone()
            },
        );
        show(
            &format!("tutorial {name}"),
            Scenario {
                rival: Some(Rival::Tutorial(Default::default())),
                ..s.clone()
            },
        );
    }
    if seeds > 5 {
        show(
            "top tier",
            Scenario {
                threads: 512,
                ..Scenario::new([10_000.0, 1e7, 2e6], 50_000)
            },
        );
    }
}
