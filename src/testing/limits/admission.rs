//! The decisions of the limit mode: a time and a request in, a decision out.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::buckets::{BucketLevels, ClassBuckets, RefusalCause, ResponsePlan, full_buckets};
use super::ledger::{AdmittedRequest, LedgerEntries, Refusals};
use super::settings::{Charging, ClassLimits, EachLimit, LogNormal, ServerLimits};

/// Decides which requests are admitted, and records them.
///
/// It has no clock: times are seconds since the first request, in order.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    limits: Arc<ServerLimits>,
    /// The limits per minute of the classes that have their own.
    class_limits: BTreeMap<String, EachLimit<u64>>,
    classes: BTreeMap<String, ClassBuckets>,
    now: f64,
    /// When each of the open requests ends.
    open_until: Vec<f64>,
    random: RandomSequences,
    ledger: LedgerEntries,
}

/// A request as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivedRequest<'a> {
    pub(super) class: &'a str,
    /// Input tokens, without those read from the cache.
    pub(super) input: u64,
    pub(super) max_tokens: u64,
    /// The output tokens that the request states; `None` takes the next random number.
    pub(super) output: Option<u64>,
    /// The latency in seconds that the request states; `None` takes the next random number.
    pub(super) latency: Option<f64>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AdmissionDecision {
    Admitted(ResponsePlan, BucketLevels),
    /// A 429.
    RateLimited(RefusalCause, BucketLevels),
    /// A 529.
    Overloaded,
}

impl AdmissionControl {
    pub(super) fn new(limits: ServerLimits) -> AdmissionControl {
        AdmissionControl {
            class_limits: class_limits(&limits),
            random: RandomSequences::new(&limits),
            limits: Arc::new(limits),
            classes: BTreeMap::new(),
            now: 0.0,
            open_until: Vec::new(),
            ledger: LedgerEntries::default(),
        }
    }

    pub(super) fn limits(&self) -> &Arc<ServerLimits> {
        &self.limits
    }

    pub(super) fn entries(&self) -> &LedgerEntries {
        &self.ledger
    }

    /// Decides about a request that arrives now, and charges it if it is admitted.
    pub(super) fn decide(&mut self, now: f64, request: ArrivedRequest<'_>) -> AdmissionDecision {
        self.advance(now);
        let now = self.now;
        self.ledger.last_arrival = now;
        if self.is_overloaded() {
            self.ledger.refused(request.class).overloaded += 1;
            return AdmissionDecision::Overloaded;
        }
        let class = self
            .classes
            .entry(request.class.to_owned())
            .or_insert_with(|| {
                let own = self.class_limits.get(request.class);
                let per_minute = own.unwrap_or(&self.limits.per_minute);
                ClassBuckets::new(now, full_buckets(*per_minute, &self.limits))
            });
        class.advance(now, self.limits.tenant);
        let output_on_arrival = match self.limits.charging {
            Charging::AsProduced => 1,
            Charging::Reserved => request.max_tokens.max(1),
        };
        let need = [1, request.input, output_on_arrival];
        if let Some(cause) = class.shortage(need) {
            *cause.counter(self.ledger.refused(request.class)) += 1;
            return AdmissionDecision::RateLimited(cause, class.levels());
        }
        let plan = self.random.plan(now, request);
        class.charge(now, need, &plan, self.limits.charging);
        let levels = class.levels();
        self.random.draw_next();
        self.open_until.push(plan.to);
        self.record(request, &plan);
        AdmissionDecision::Admitted(plan, levels)
    }

    fn record(&mut self, request: ArrivedRequest<'_>, plan: &ResponsePlan) {
        let admitted = AdmittedRequest {
            at: self.now,
            input: request.input,
            output: plan.output,
            from: plan.from,
            to: plan.to,
        };
        self.ledger.add_admitted(request.class, admitted);
        self.ledger.most_open = self.ledger.most_open.max(self.open_until.len());
        self.ledger.last_end = self.ledger.last_end.max(plan.to);
    }

    /// Decides by chance whether the request that arrives now gets a 529.
    fn is_overloaded(&mut self) -> bool {
        let periods = self.limits.overloads.iter();
        let probability = periods
            .map(|period| period.probability_at(self.now))
            .fold(0.0, f64::max);
        probability > 0.0 && self.random.overload.f64() < probability
    }

    fn advance(&mut self, now: f64) {
        self.now = self.now.max(now);
        let now = self.now;
        self.open_until.retain(|end| *end > now);
    }
}

impl RefusalCause {
    fn counter(self, refused: &mut Refusals) -> &mut u64 {
        match self {
            RefusalCause::Exceeded { limit, .. } => refused.of(limit),
            RefusalCause::TooLarge { .. } => &mut refused.too_large,
        }
    }
}

/// Random numbers from three generators, so that one sequence does not change the others.
#[derive(Debug)]
struct RandomSequences {
    overload: Rng,
    outputs: Rng,
    latencies: Rng,
    output_distribution: Option<LogNormal>,
    latency_distribution: LogNormal,
    /// The output tokens of the next request that is admitted.
    output: Option<f64>,
    /// The latency in seconds of the next request that is admitted.
    latency: f64,
}

impl RandomSequences {
    fn new(limits: &ServerLimits) -> RandomSequences {
        let mut seeds = Rng::with_seed(limits.seed);
        let mut random = RandomSequences {
            overload: seeds.fork(),
            outputs: seeds.fork(),
            latencies: seeds.fork(),
            output_distribution: limits.output,
            latency_distribution: limits.latency,
            output: None,
            latency: 0.0,
        };
        random.draw_next();
        random
    }

    /// Takes the numbers for the next request that is admitted.
    fn draw_next(&mut self) {
        let output = self.output_distribution;
        self.output = output.map(|output| output.draw(&mut self.outputs));
        self.latency = self.latency_distribution.draw(&mut self.latencies);
    }

    fn plan(&self, now: f64, request: ArrivedRequest<'_>) -> ResponsePlan {
        let most = request.max_tokens.clamp(1, LARGEST_OUTPUT);
        let drawn = self.output.map_or(1, |output| output as u64);
        let wanted = request.output.unwrap_or(drawn).max(1);
        let latency = request.latency.unwrap_or(self.latency).min(LONGEST_LATENCY);
        ResponsePlan {
            output: wanted.min(most),
            is_cut: wanted > most,
            from: now + latency * SHARE_BEFORE_FIRST_TOKEN,
            to: now + latency,
        }
    }
}

fn class_limits(limits: &ServerLimits) -> BTreeMap<String, EachLimit<u64>> {
    let of_class = |class: &ClassLimits| {
        let name = limits.grouping.class_of(&class.model);
        (name, class.per_minute)
    };
    limits.classes.iter().map(of_class).collect()
}

/// The share of the latency that passes before the first token; documented at `ServerLimits`.
const SHARE_BEFORE_FIRST_TOKEN: f64 = 0.1;

/// The longest latency, in seconds: an hour, as documented at `ServerLimits::latency`.
const LONGEST_LATENCY: f64 = 3_600.0;

/// The most output tokens: the text is made in memory, four bytes for each token.
const LARGEST_OUTPUT: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Ledger;
    use crate::testing::limits::settings::{INPUT, OUTPUT, REQUESTS};

    const PLENTY: u64 = 1_000_000_000;

    fn request(input: u64, output: u64, latency: f64) -> ArrivedRequest<'static> {
        ArrivedRequest {
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

    impl AdmissionControl {
        fn ledger(&self) -> Ledger {
            self.ledger.ledger(self.now)
        }

        #[track_caller]
        fn admit(&mut self, now: f64, request: ArrivedRequest<'_>) -> ResponsePlan {
            match self.decide(now, request) {
                AdmissionDecision::Admitted(plan, _) => plan,
                other => panic!("at {now}: {other:?}"),
            }
        }

        #[track_caller]
        fn refuse(&mut self, now: f64, request: ArrivedRequest<'_>) -> RefusalCause {
            match self.decide(now, request) {
                AdmissionDecision::RateLimited(cause, _) => cause,
                other => panic!("at {now}: {other:?}"),
            }
        }

        /// Returns the exceeded limit and its wait, rounded to microseconds.
        #[track_caller]
        fn short(&mut self, now: f64, request: ArrivedRequest<'_>) -> (usize, f64) {
            match self.refuse(now, request) {
                RefusalCause::Exceeded { limit, wait } => (limit, (wait * 1e6).round() / 1e6),
                other => panic!("at {now}: {other:?}"),
            }
        }

        #[track_caller]
        fn levels(&mut self, now: f64, request: ArrivedRequest<'_>) -> BucketLevels {
            match self.decide(now, request) {
                AdmissionDecision::Admitted(_, levels)
                | AdmissionDecision::RateLimited(_, levels) => levels,
                AdmissionDecision::Overloaded => panic!("at {now}: 529"),
            }
        }
    }

    #[test]
    fn bucket_admits_its_level_and_fills_continuously() {
        let mut control = AdmissionControl::new(ServerLimits::per_minute(60, 6_000, PLENTY));
        for _ in 0..60 {
            control.admit(0.0, request(10, 1, 0.0));
        }
        assert_eq!(control.short(0.0, request(10, 1, 0.0)), (REQUESTS, 1.0));
        assert_eq!(control.short(0.75, request(10, 1, 0.0)), (REQUESTS, 0.25));
        control.admit(1.0, request(5_495, 1, 0.0));
        assert_eq!(control.short(2.0, request(106, 1, 0.0)), (INPUT, 0.01));
        assert_eq!(control.short(2.0, request(205, 1, 0.0)), (INPUT, 1.0));
        control.admit(2.0, request(105, 1, 0.0));
        let levels = control.levels(3_600.0, request(0, 1, 0.0));
        assert_eq!(
            (levels[INPUT].remaining, levels[INPUT].full_in),
            (6_000.0, 0.0)
        );
        assert_eq!(
            (levels[REQUESTS].remaining, levels[REQUESTS].full_in),
            (59.0, 1.0)
        );
        let refused = control.ledger().classes[0].refused;
        assert_eq!((refused.requests, refused.input_tokens), (2, 2));
    }

    #[test]
    fn refusal_names_the_limit_that_takes_longest() {
        let mut control =
            AdmissionControl::new(ServerLimits::per_minute(60, 6_000, PLENTY).depth(seconds(1)));
        control.admit(0.0, request(100, 1, 0.0));
        assert_eq!(control.short(0.0, request(50, 1, 0.0)), (REQUESTS, 1.0));
        assert_eq!(control.short(0.75, request(99, 1, 0.0)), (REQUESTS, 0.25));
        control.admit(1.0, request(100, 1, 0.0));
        assert_eq!(
            control.refuse(9.0, request(101, 1, 0.0)),
            RefusalCause::TooLarge { limit: INPUT }
        );
        assert_eq!(control.ledger().classes[0].refused.too_large, 1);
    }

    #[test]
    fn output_is_taken_as_it_is_produced() {
        let mut control = AdmissionControl::new(ServerLimits::per_minute(PLENTY, PLENTY, 600));
        let plan = control.admit(0.0, request(0, 900, 100.0));
        assert_eq!((plan.output, plan.from, plan.to), (900, 10.0, 100.0));
        // 10 tokens per second flow in, 10 out.
        assert_eq!(
            control.levels(55.0, request(0, 1, 0.0))[OUTPUT].remaining,
            599.0
        );
        control.admit(55.0, request(0, 900, 0.0));
        assert_eq!(control.short(55.0, request(0, 1, 0.0)), (OUTPUT, 30.2));
        assert_eq!(control.short(100.0, request(0, 1, 0.0)), (OUTPUT, 30.2));
        control.admit(130.2, request(0, 1, 0.0));
        let ledger = control.ledger();
        assert_eq!(ledger.classes[0].charged.output_tokens, 1_802);
        // Until 100 s: 600 of the long response, 901 at 55 s.
        assert_eq!(ledger.classes[0].worst_minute.output_tokens, 1_501);
        // 20 tokens per second flow out, until 50 s.
        let mut control = AdmissionControl::new(ServerLimits::per_minute(PLENTY, PLENTY, 600));
        control.admit(0.0, request(0, 900, 50.0));
        assert_eq!(
            control.levels(60.0, request(0, 1, 0.0))[OUTPUT].remaining,
            249.0
        );
    }

    #[test]
    fn reserved_output_is_refunded_at_the_end() {
        let limits = ServerLimits::per_minute(PLENTY, PLENTY, 1_200).charging(Charging::Reserved);
        let mut control = AdmissionControl::new(limits);
        control.admit(0.0, request(0, 100, 10.0));
        assert_eq!(control.short(0.0, request(0, 100, 10.0)), (OUTPUT, 40.0));
        assert_eq!(control.short(9.0, request(0, 100, 10.0)), (OUTPUT, 31.0));
        // 200 left, 200 flowed in, 900 refunded: more than the capacity.
        assert_eq!(
            control.levels(10.0, request(0, 100, 1.0))[OUTPUT].remaining,
            200.0
        );
        let levels = control.levels(1_000.0, request(0, 1, 1.0));
        assert_eq!(levels[OUTPUT].remaining, 200.0);
        let most = ArrivedRequest {
            max_tokens: 1_201,
            ..request(0, 1, 0.0)
        };
        assert_eq!(
            control.refuse(2_000.0, most),
            RefusalCause::TooLarge { limit: OUTPUT }
        );
        assert_eq!(control.ledger().classes[0].charged.output_tokens, 201);
    }

    #[test]
    fn requests_can_be_enforced_per_second() {
        let limits = ServerLimits::per_minute(120, PLENTY, PLENTY).requests_per_second();
        let mut control = AdmissionControl::new(limits);
        let levels = control.levels(0.0, request(0, 1, 0.0));
        assert_eq!(
            (levels[REQUESTS].limit, levels[REQUESTS].remaining),
            (120, 1.0)
        );
        control.admit(0.0, request(0, 1, 0.0));
        assert_eq!(control.short(0.0, request(0, 1, 0.0)), (REQUESTS, 0.5));
        let slow = ServerLimits::per_minute(20, PLENTY, PLENTY).requests_per_second();
        let mut control = AdmissionControl::new(slow);
        control.admit(0.0, request(0, 1, 0.0));
        assert_eq!(control.short(0.0, request(0, 1, 0.0)), (REQUESTS, 3.0));
    }

    #[test]
    fn tenant_takes_its_share_first() {
        let limits = ServerLimits::per_minute(PLENTY, 6_000, PLENTY);
        let mut control = AdmissionControl::new(limits.clone().tenant_bursts(
            0.25,
            Duration::MAX,
            Duration::ZERO,
        ));
        control.admit(0.0, request(6_000, 1, 0.0));
        assert_eq!(control.short(10.0, request(800, 1, 0.0)), (INPUT, 0.5));
        assert_eq!(
            control.levels(10.0, request(100, 1, 0.0))[INPUT].remaining,
            650.0
        );
        let bursts = limits.tenant_bursts(1.0, seconds(10), seconds(5));
        let mut control = AdmissionControl::new(bursts);
        control.admit(0.0, request(6_000, 1, 0.0));
        assert_eq!(
            control.levels(10.0, request(0, 1, 0.0))[INPUT].remaining,
            0.0
        );
        assert_eq!(
            control.levels(32.0, request(0, 1, 0.0))[INPUT].remaining,
            1_000.0
        );
    }

    #[test]
    fn overloads_are_random_and_cost_nothing() {
        let limits = ServerLimits::per_minute(1, 1, 1).overload(seconds(10), seconds(20), 0.9);
        let mut control = AdmissionControl::new(limits);
        control.admit(9.9, request(1, 1, 0.0));
        let times = (0..1_000).map(|number| 10.0 + f64::from(number) / 100.0);
        let overloaded = times.filter(|now| {
            control.decide(*now, request(1, 1, 0.0)) == AdmissionDecision::Overloaded
        });
        let overloaded = overloaded.count() as u64;
        assert!((870..930).contains(&overloaded), "{overloaded}");
        control.refuse(20.0, request(1, 1, 0.0));
        control.admit(69.9, request(1, 1, 0.0));
        assert_eq!(control.ledger().overloaded(), overloaded);
        assert_eq!(control.ledger().admitted(), 2);
    }

    #[test]
    fn open_requests_are_counted_until_their_end() {
        let mut control = AdmissionControl::new(ServerLimits::per_minute(PLENTY, PLENTY, PLENTY));
        let other = |class| ArrivedRequest {
            class,
            ..request(0, 1, 5.0)
        };
        control.admit(0.0, other("a"));
        control.admit(1.0, other("b"));
        control.admit(5.0, other("c"));
        let ledger = control.ledger();
        assert_eq!(ledger.most_open, 2);
        assert_eq!(
            (ledger.last_arrival, ledger.last_end),
            (seconds(5), seconds(10))
        );
    }

    #[test]
    fn each_class_has_its_own_buckets() {
        let limits = ServerLimits::per_minute(1, 9, 9).class("b-20260101", 2, 9, 9);
        let mut control = AdmissionControl::new(limits);
        let b = ArrivedRequest {
            class: "b",
            ..request(0, 1, 0.0)
        };
        control.admit(0.0, request(0, 1, 0.0));
        control.admit(0.0, b);
        control.admit(0.0, b);
        assert_eq!(control.short(0.0, request(0, 1, 0.0)), (REQUESTS, 60.0));
        assert_eq!(control.short(0.0, b), (REQUESTS, 30.0));
        control.admit(60.0, request(0, 1, 0.0));
        assert_eq!(control.ledger().admitted(), 4);
    }

    #[test]
    fn zeros_and_huge_numbers_do_not_panic() {
        let mut control = AdmissionControl::new(ServerLimits::per_minute(0, 0, 0));
        assert_eq!(
            control.refuse(0.0, request(0, 1, 0.0)),
            RefusalCause::TooLarge { limit: REQUESTS }
        );
        let forever = ServerLimits::per_minute(u64::MAX, u64::MAX, u64::MAX)
            .depth(Duration::MAX)
            .tenant_bursts(f64::NAN, Duration::MAX, Duration::ZERO);
        let mut control = AdmissionControl::new(forever);
        let huge = ArrivedRequest {
            max_tokens: u64::MAX,
            ..request(u64::MAX, u64::MAX, f64::MAX)
        };
        let plan = control.admit(0.0, huge);
        assert_eq!(
            (plan.output, plan.is_cut, plan.to),
            (LARGEST_OUTPUT, true, LONGEST_LATENCY)
        );
        control.admit(1e9, request(0, 0, 0.0));
        control.admit(5.0, request(0, 0, 0.0));
        assert_eq!(control.ledger().admitted(), 3);
    }

    #[test]
    fn sizes_depend_on_seed_and_admitted_requests_only() {
        let sizes = |seed: u64, requests: u64| -> Vec<(u64, f64)> {
            let limits = ServerLimits::per_minute(requests, PLENTY, PLENTY)
                .output(250, 0.9)
                .latency(seconds(6), 0.6)
                .seed(seed);
            let mut control = AdmissionControl::new(limits);
            let drawn = ArrivedRequest {
                output: None,
                latency: None,
                ..request(0, 1, 0.0)
            };
            let plans =
                (0..400).filter_map(|second| match control.decide(f64::from(second), drawn) {
                    AdmissionDecision::Admitted(plan, _) => {
                        Some((plan.output, plan.to - f64::from(second)))
                    }
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
    fn refused_requests_are_admitted_after_the_wait() {
        for charging in [Charging::AsProduced, Charging::Reserved] {
            let mut rng = Rng::with_seed(11);
            let limits = ServerLimits::per_minute(50, 30_000, 8_000).charging(charging);
            let mut control = AdmissionControl::new(limits);
            let (mut now, mut refused) = (0.0, 0);
            for _ in 0..5_000 {
                now += rng.f64() * 2.0;
                // Without latency: requests under way would take more tokens during the wait.
                let asked = request(rng.u64(..12_000), rng.u64(1..1_000), 0.0);
                if let AdmissionDecision::RateLimited(cause, _) = control.decide(now, asked) {
                    let RefusalCause::Exceeded { wait, .. } = cause else {
                        panic!("{cause:?}");
                    };
                    refused += 1;
                    now += wait;
                    control.admit(now, asked);
                }
            }
            let ledger = control.ledger();
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
