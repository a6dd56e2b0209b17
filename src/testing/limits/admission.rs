//! The arithmetic of the limit mode: time and a request in, a verdict out.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::buckets::{Cause, Class, Plan, Standing, buckets};
use super::ledger::{Entry, LedgerEntries, Refusals};
use super::settings::{Charging, Each, ServerLimits, Spread};

/// The limits at work. It has no clock: times are seconds since the first request, in order.
#[derive(Debug)]
pub(super) struct Machine {
    limits: Arc<ServerLimits>,
    rates: BTreeMap<String, Each<u64>>,
    classes: BTreeMap<String, Class>,
    now: f64,
    /// When each of the open requests ends.
    open: Vec<f64>,
    draws: Draws,
    ledger: LedgerEntries,
}

/// A request as the machine needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) class: &'a str,
    /// Without what is read from the cache.
    pub(super) input: u64,
    pub(super) max_tokens: u64,
    /// As the request states them; otherwise they are drawn.
    pub(super) output: Option<u64>,
    pub(super) latency: Option<f64>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Admitted(Plan, Standing),
    /// A 429.
    Limited(Cause, Standing),
    /// A 529.
    Overloaded,
}

impl Machine {
    pub(super) fn new(limits: ServerLimits) -> Machine {
        Machine {
            rates: rates(&limits),
            draws: Draws::new(&limits),
            limits: Arc::new(limits),
            classes: BTreeMap::new(),
            now: 0.0,
            open: Vec::new(),
            ledger: LedgerEntries::default(),
        }
    }

    pub(super) fn limits(&self) -> &Arc<ServerLimits> {
        &self.limits
    }

    pub(super) fn entries(&self) -> &LedgerEntries {
        &self.ledger
    }

    /// Decides about a request that arrives now, and charges it where it is admitted.
    pub(super) fn at(&mut self, now: f64, ask: Ask<'_>) -> Verdict {
        self.advance(now);
        let now = self.now;
        self.ledger.last_arrival = now;
        if self.is_overloaded() {
            self.ledger.refused(ask.class).overloaded += 1;
            return Verdict::Overloaded;
        }
        let plan = self.draws.plan(now, ask);
        let class = self.classes.entry(ask.class.to_owned()).or_insert_with(|| {
            let rates = self.rates.get(ask.class).unwrap_or(&self.limits.rates);
            Class::new(now, buckets(*rates, &self.limits))
        });
        class.advance(now, self.limits.tenant);
        let need = [1, ask.input, reserved(self.limits.charging, &ask)];
        if let Some(cause) = class.shortage(need) {
            *cause.counter(self.ledger.refused(ask.class)) += 1;
            return Verdict::Limited(cause, class.standing());
        }
        class.charge(now, need, &plan, self.limits.charging);
        let standing = class.standing();
        self.draws.next();
        self.open.push(plan.to);
        self.book(ask, &plan);
        Verdict::Admitted(plan, standing)
    }

    fn book(&mut self, ask: Ask<'_>, plan: &Plan) {
        let entry = Entry {
            at: self.now,
            input: ask.input,
            output: plan.output,
            from: plan.from,
            to: plan.to,
        };
        self.ledger.admitted(ask.class, entry);
        self.ledger.most_open = self.ledger.most_open.max(self.open.len());
        self.ledger.last_end = self.ledger.last_end.max(plan.to);
    }

    /// Whether a storm strikes the request that arrives now.
    fn is_overloaded(&mut self) -> bool {
        let storms = self.limits.storms.iter().map(|storm| storm.at(self.now));
        let odds = storms.fold(0.0, f64::max);
        odds > 0.0 && self.draws.storm.f64() < odds
    }

    fn advance(&mut self, now: f64) {
        self.now = self.now.max(now);
        let now = self.now;
        self.open.retain(|end| *end > now);
    }
}

impl Cause {
    fn counter(self, refused: &mut Refusals) -> &mut u64 {
        match self {
            Cause::Limit(dimension, _) => refused.of(dimension),
            Cause::TooLarge(_) => &mut refused.too_large,
        }
    }
}

/// All that is drawn, in three rows that do not disturb each other.
#[derive(Debug)]
struct Draws {
    storm: Rng,
    sizes: Rng,
    latencies: Rng,
    output: Option<f64>,
    latency: f64,
    limits: (Option<Spread>, Spread),
}

impl Draws {
    fn new(limits: &ServerLimits) -> Draws {
        let mut seeds = Rng::with_seed(limits.seed);
        let mut draws = Draws {
            storm: seeds.fork(),
            sizes: seeds.fork(),
            latencies: seeds.fork(),
            output: None,
            latency: 0.0,
            limits: (limits.output, limits.latency),
        };
        draws.next();
        draws
    }

    /// Draws for the request after the one that was admitted.
    fn next(&mut self) {
        let (output, latency) = self.limits;
        self.output = output.map(|output| output.draw(&mut self.sizes));
        self.latency = latency.draw(&mut self.latencies);
    }

    fn plan(&self, now: f64, ask: Ask<'_>) -> Plan {
        let most = ask.max_tokens.clamp(1, LARGEST);
        let drawn = self.output.map_or(1, |output| output as u64);
        let wanted = ask.output.unwrap_or(drawn).max(1);
        let latency = ask.latency.unwrap_or(self.latency).min(LONGEST);
        Plan {
            output: wanted.min(most),
            is_cut: wanted > most,
            from: now + latency * FIRST,
            to: now + latency,
        }
    }
}

/// How many tokens of output must be there on arrival.
fn reserved(charging: Charging, ask: &Ask<'_>) -> u64 {
    match charging {
        Charging::AsProduced => 1,
        Charging::Reserved => ask.max_tokens.max(1),
    }
}

/// The limits of the classes that have their own.
fn rates(limits: &ServerLimits) -> BTreeMap<String, Each<u64>> {
    let classes = limits.classes.iter();
    let class = |(model, rates): &(String, _)| (limits.grouping.class_of(model), *rates);
    classes.map(class).collect()
}

/// The share of the latency before the first token.
const FIRST: f64 = 0.1;
/// The longest latency, in seconds.
const LONGEST: f64 = 3_600.0;
/// The largest output.
const LARGEST: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Ledger;
    use crate::testing::limits::settings::{INPUT, OUTPUT, REQUESTS};

    const PLENTY: u64 = 1_000_000_000;

    fn ask(input: u64, output: u64, latency: f64) -> Ask<'static> {
        Ask {
            class: "a",
            input,
            max_tokens: 1_000,
            output: Some(output),
            latency: Some(latency),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Machine {
        fn ledger(&self) -> Ledger {
            self.ledger.ledger(self.now)
        }

        #[track_caller]
        fn admit(&mut self, now: f64, ask: Ask<'_>) -> Plan {
            match self.at(now, ask) {
                Verdict::Admitted(plan, _) => plan,
                other => panic!("at {now}: {other:?}"),
            }
        }

        #[track_caller]
        fn refuse(&mut self, now: f64, ask: Ask<'_>) -> Cause {
            match self.at(now, ask) {
                Verdict::Limited(cause, _) => cause,
                other => panic!("at {now}: {other:?}"),
            }
        }

        /// The bucket that is short, and for how long.
        #[track_caller]
        fn short(&mut self, now: f64, ask: Ask<'_>) -> (usize, f64) {
            match self.refuse(now, ask) {
                Cause::Limit(dimension, wait) => (dimension, (wait * 1e6).round() / 1e6),
                other => panic!("at {now}: {other:?}"),
            }
        }

        #[track_caller]
        fn standing(&mut self, now: f64, ask: Ask<'_>) -> Standing {
            match self.at(now, ask) {
                Verdict::Admitted(_, standing) | Verdict::Limited(_, standing) => standing,
                Verdict::Overloaded => panic!("at {now}: 529"),
            }
        }
    }

    #[test]
    fn a_bucket_admits_what_it_holds_and_fills_continuously() {
        let mut machine = Machine::new(ServerLimits::per_minute(60, 6_000, PLENTY));
        for _ in 0..60 {
            machine.admit(0.0, ask(10, 1, 0.0));
        }
        assert_eq!(machine.short(0.0, ask(10, 1, 0.0)), (REQUESTS, 1.0));
        assert_eq!(machine.short(0.75, ask(10, 1, 0.0)), (REQUESTS, 0.25));
        machine.admit(1.0, ask(5_495, 1, 0.0));
        assert_eq!(machine.short(2.0, ask(106, 1, 0.0)), (INPUT, 0.01));
        assert_eq!(machine.short(2.0, ask(205, 1, 0.0)), (INPUT, 1.0));
        machine.admit(2.0, ask(105, 1, 0.0));
        let standing = machine.standing(3_600.0, ask(0, 1, 0.0));
        assert_eq!(
            (standing[INPUT].left, standing[INPUT].full_in),
            (6_000.0, 0.0)
        );
        assert_eq!(
            (standing[REQUESTS].left, standing[REQUESTS].full_in),
            (59.0, 1.0)
        );
        let refused = machine.ledger().classes[0].refused;
        assert_eq!((refused.requests, refused.input_tokens), (2, 2));
    }

    #[test]
    fn the_limit_that_takes_longest_is_named() {
        let mut machine =
            Machine::new(ServerLimits::per_minute(60, 6_000, PLENTY).depth(seconds(1)));
        machine.admit(0.0, ask(100, 1, 0.0));
        assert_eq!(machine.short(0.0, ask(50, 1, 0.0)), (REQUESTS, 1.0));
        assert_eq!(machine.short(0.75, ask(99, 1, 0.0)), (REQUESTS, 0.25));
        machine.admit(1.0, ask(100, 1, 0.0));
        assert_eq!(
            machine.refuse(9.0, ask(101, 1, 0.0)),
            Cause::TooLarge(INPUT)
        );
        assert_eq!(machine.ledger().classes[0].refused.too_large, 1);
    }

    #[test]
    fn output_is_taken_as_it_is_produced() {
        let mut machine = Machine::new(ServerLimits::per_minute(PLENTY, PLENTY, 600));
        let plan = machine.admit(0.0, ask(0, 900, 100.0));
        assert_eq!((plan.output, plan.from, plan.to), (900, 10.0, 100.0));
        // 10 a second flow in, 10 out.
        assert_eq!(machine.standing(55.0, ask(0, 1, 0.0))[OUTPUT].left, 599.0);
        machine.admit(55.0, ask(0, 900, 0.0));
        assert_eq!(machine.short(55.0, ask(0, 1, 0.0)), (OUTPUT, 30.2));
        assert_eq!(machine.short(100.0, ask(0, 1, 0.0)), (OUTPUT, 30.2));
        machine.admit(130.2, ask(0, 1, 0.0));
        let ledger = machine.ledger();
        assert_eq!(ledger.classes[0].charged.output_tokens, 1_802);
        // Until 100 s: 600 of the long answer, 901 at 55 s.
        assert_eq!(ledger.classes[0].worst_minute.output_tokens, 1_501);
        // 20 a second out, up to 50 s and no longer.
        let mut machine = Machine::new(ServerLimits::per_minute(PLENTY, PLENTY, 600));
        machine.admit(0.0, ask(0, 900, 50.0));
        assert_eq!(machine.standing(60.0, ask(0, 1, 0.0))[OUTPUT].left, 249.0);
    }

    #[test]
    fn output_is_reserved_and_corrected_at_the_end() {
        let limits = ServerLimits::per_minute(PLENTY, PLENTY, 1_200).charging(Charging::Reserved);
        let mut machine = Machine::new(limits);
        machine.admit(0.0, ask(0, 100, 10.0));
        assert_eq!(machine.short(0.0, ask(0, 100, 10.0)), (OUTPUT, 40.0));
        assert_eq!(machine.short(9.0, ask(0, 100, 10.0)), (OUTPUT, 31.0));
        // 200 left, 200 flowed in, 900 given back; no more than it holds.
        assert_eq!(machine.standing(10.0, ask(0, 100, 1.0))[OUTPUT].left, 200.0);
        let standing = machine.standing(1_000.0, ask(0, 1, 1.0));
        assert_eq!(standing[OUTPUT].left, 200.0);
        let most = Ask {
            max_tokens: 1_201,
            ..ask(0, 1, 0.0)
        };
        assert_eq!(machine.refuse(2_000.0, most), Cause::TooLarge(OUTPUT));
        assert_eq!(machine.ledger().classes[0].charged.output_tokens, 201);
    }

    #[test]
    fn requests_can_be_enforced_per_second() {
        let limits = ServerLimits::per_minute(120, PLENTY, PLENTY).requests_per_second(true);
        let mut machine = Machine::new(limits);
        let standing = machine.standing(0.0, ask(0, 1, 0.0));
        assert_eq!(
            (standing[REQUESTS].limit, standing[REQUESTS].left),
            (120, 1.0)
        );
        machine.admit(0.0, ask(0, 1, 0.0));
        assert_eq!(machine.short(0.0, ask(0, 1, 0.0)), (REQUESTS, 0.5));
        let slow = ServerLimits::per_minute(20, PLENTY, PLENTY).requests_per_second(true);
        let mut machine = Machine::new(slow);
        machine.admit(0.0, ask(0, 1, 0.0));
        assert_eq!(machine.short(0.0, ask(0, 1, 0.0)), (REQUESTS, 3.0));
    }

    #[test]
    fn a_tenant_takes_its_share_first() {
        let limits = ServerLimits::per_minute(PLENTY, 6_000, PLENTY);
        let mut machine = Machine::new(limits.clone().tenant_bursts(
            0.25,
            Duration::MAX,
            Duration::ZERO,
        ));
        machine.admit(0.0, ask(6_000, 1, 0.0));
        assert_eq!(machine.short(10.0, ask(800, 1, 0.0)), (INPUT, 0.5));
        assert_eq!(machine.standing(10.0, ask(100, 1, 0.0))[INPUT].left, 650.0);
        let bursts = limits.tenant_bursts(1.0, seconds(10), seconds(5));
        let mut machine = Machine::new(bursts);
        machine.admit(0.0, ask(6_000, 1, 0.0));
        assert_eq!(machine.standing(10.0, ask(0, 1, 0.0))[INPUT].left, 0.0);
        assert_eq!(machine.standing(32.0, ask(0, 1, 0.0))[INPUT].left, 1_000.0);
    }

    #[test]
    fn storms_strike_by_chance_and_cost_nothing() {
        let limits = ServerLimits::per_minute(1, 1, 1).overload(seconds(10), seconds(20), 0.9);
        let mut machine = Machine::new(limits);
        machine.admit(9.9, ask(1, 1, 0.0));
        let storm = (0..1_000).map(|number| 10.0 + f64::from(number) / 100.0);
        let struck = storm.filter(|now| machine.at(*now, ask(1, 1, 0.0)) == Verdict::Overloaded);
        let struck = struck.count() as u64;
        assert!((870..930).contains(&struck), "{struck}");
        machine.refuse(20.0, ask(1, 1, 0.0));
        machine.admit(69.9, ask(1, 1, 0.0));
        assert_eq!(machine.ledger().overloaded(), struck);
        assert_eq!(machine.ledger().admitted(), 2);
    }

    #[test]
    fn open_requests_are_counted_until_their_end() {
        let mut machine = Machine::new(ServerLimits::per_minute(PLENTY, PLENTY, PLENTY));
        let other = |class| Ask {
            class,
            ..ask(0, 1, 5.0)
        };
        machine.admit(0.0, other("a"));
        machine.admit(1.0, other("b"));
        machine.admit(5.0, other("c"));
        let ledger = machine.ledger();
        assert_eq!(ledger.most_open, 2);
        assert_eq!(
            (ledger.last_arrival, ledger.last_end),
            (seconds(5), seconds(10))
        );
    }

    #[test]
    fn classes_have_buckets_of_their_own() {
        let limits = ServerLimits::per_minute(1, 9, 9).class("b-20260101", 2, 9, 9);
        let mut machine = Machine::new(limits);
        let b = Ask {
            class: "b",
            ..ask(0, 1, 0.0)
        };
        machine.admit(0.0, ask(0, 1, 0.0));
        machine.admit(0.0, b);
        machine.admit(0.0, b);
        assert_eq!(machine.short(0.0, ask(0, 1, 0.0)), (REQUESTS, 60.0));
        assert_eq!(machine.short(0.0, b), (REQUESTS, 30.0));
        machine.admit(60.0, ask(0, 1, 0.0));
        assert_eq!(machine.ledger().admitted(), 4);
    }

    #[test]
    fn zeros_and_huge_numbers_do_no_harm() {
        let mut machine = Machine::new(ServerLimits::per_minute(0, 0, 0));
        assert_eq!(
            machine.refuse(0.0, ask(0, 1, 0.0)),
            Cause::TooLarge(REQUESTS)
        );
        let forever = ServerLimits::per_minute(u64::MAX, u64::MAX, u64::MAX)
            .depth(Duration::MAX)
            .tenant_bursts(f64::NAN, Duration::MAX, Duration::ZERO);
        let mut machine = Machine::new(forever);
        let huge = Ask {
            max_tokens: u64::MAX,
            ..ask(u64::MAX, u64::MAX, f64::MAX)
        };
        let plan = machine.admit(0.0, huge);
        assert_eq!(
            (plan.output, plan.is_cut, plan.to),
            (LARGEST, true, LONGEST)
        );
        machine.admit(1e9, ask(0, 0, 0.0));
        machine.admit(5.0, ask(0, 0, 0.0));
        assert_eq!(machine.ledger().admitted(), 3);
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_number_of_those_admitted_only() {
        let sizes = |seed: u64, requests: u64| -> Vec<(u64, f64)> {
            let limits = ServerLimits::per_minute(requests, PLENTY, PLENTY)
                .output(250, 0.9)
                .latency(seconds(6), 0.6)
                .seed(seed);
            let mut machine = Machine::new(limits);
            let drawn = Ask {
                output: None,
                latency: None,
                ..ask(0, 1, 0.0)
            };
            let plans = (0..400).filter_map(|second| match machine.at(f64::from(second), drawn) {
                Verdict::Admitted(plan, _) => Some((plan.output, plan.to - f64::from(second))),
                _ => None,
            });
            plans
                .take(50)
                .map(|(output, took)| (output, (took * 1e6).round()))
                .collect()
        };
        assert_eq!(sizes(1, 60), sizes(1, 10));
        assert_ne!(sizes(1, 60), sizes(2, 60));
        assert!(
            sizes(1, 60)
                .iter()
                .all(|(output, _)| (1..=1_000).contains(output))
        );
    }

    #[test]
    fn refused_requests_pass_at_the_stated_time() {
        for charging in [Charging::AsProduced, Charging::Reserved] {
            let mut rng = Rng::with_seed(11);
            let limits = ServerLimits::per_minute(50, 30_000, 8_000).charging(charging);
            let mut machine = Machine::new(limits);
            let (mut now, mut refused) = (0.0, 0);
            for _ in 0..5_000 {
                now += rng.f64() * 2.0;
                // No latency, or those under way would go on taking.
                let asked = ask(rng.u64(..12_000), rng.u64(1..1_000), 0.0);
                if let Verdict::Limited(cause, _) = machine.at(now, asked) {
                    let Cause::Limit(_, wait) = cause else {
                        panic!("{cause:?}");
                    };
                    refused += 1;
                    now += wait;
                    machine.admit(now, asked);
                }
            }
            let ledger = machine.ledger();
            assert!(refused > 500 && ledger.admitted() > 500, "{refused}");
            let worst = ledger.classes[0].worst_minute;
            assert!(
                worst.requests <= 100 && worst.input_tokens <= 60_000,
                "{worst:?}"
            );
            assert!(worst.input_tokens > 30_000, "{worst:?}");
        }
    }
}
