//! The forecast for a list of requests: a dry run on copies of the limiters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::class::ModelClass;
use super::cost::{Cost, INPUT, OUTPUT, Time, to_duration, whole};
use super::limiter::class_limiter::ClassLimiter;
use super::limiter::decision::NotNow;
use super::limiter::overload_gate::OverloadGate;
use super::limiter::slab::SlabKey;
use super::shared::SharedBudget;
use crate::clock::lock;
use crate::prices::{Prices, sum_costs};
use crate::types::{Model, Tokens, Usage, WaitCause, Waits};

/// The forecast for a list of requests, from [`Budget::plan`](crate::Budget::plan).
///
/// ```
/// use anthropic_blocking::{Client, MessageRequest, Prices, Result};
///
/// # fn tell(client: &Client, requests: &[MessageRequest]) -> Result<()> {
/// let plan = client.messages().plan(requests)?;
/// println!("{} requests, {:?}, because of {:?}", plan.requests, plan.duration, plan.binding);
/// println!("{} are too large to be sent at all", plan.impossible);
/// if let Some(dollars) = plan.cost(&Prices::published()) {
///     println!("about ${dollars:.2}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Plan {
    /// How many requests can be sent.
    pub requests: u64,
    /// How many requests can never be sent, because each is larger than a limit.
    pub impossible: u64,
    /// The expected input tokens that count against limits.
    pub input_tokens: u64,
    /// The expected output tokens.
    pub output_tokens: u64,
    /// From now to the last response, with enough threads to send each request as soon as it is
    /// admitted.
    pub duration: Duration,
    /// The cause of the longest wait; `None` if nothing waits.
    pub binding: Option<WaitCause>,
    /// How long the requests at the head wait, by cause, in the class that takes longest.
    pub waits: Waits,
    /// Expected tokens by model, where models were given.
    pub by_model: BTreeMap<Model, Tokens>,
}

impl Plan {
    /// Runs these requests on copies of the limiters of their classes.
    pub(super) fn forecast<'m>(
        shared: &SharedBudget,
        requests: impl IntoIterator<Item = (ModelClass, Cost, Option<&'m Model>)>,
    ) -> Plan {
        let mut costs: BTreeMap<ModelClass, Vec<(Cost, Option<&Model>)>> = BTreeMap::new();
        for (class, cost, model) in requests {
            costs.entry(class).or_default().push((cost, model));
        }
        let mut plan = Plan::default();
        let now = shared.now();
        for (class, costs) in costs {
            let mut state = lock(&shared.state);
            let (queue, gate) = state.queue(&class);
            let mut run = DryRun::new(now, queue.limiter.clone(), gate.clone());
            let before: Vec<Cost> = queue.queued_costs().collect();
            drop(state);
            for cost in &before {
                if let Some(key) = run.admit(cost) {
                    run.begin(key, cost);
                }
            }
            plan.add_class(run.into_plan(&costs));
        }
        plan
    }

    fn add_class(&mut self, class: Plan) {
        self.requests += class.requests;
        self.impossible += class.impossible;
        self.input_tokens = self.input_tokens.saturating_add(class.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(class.output_tokens);
        for (model, tokens) in class.by_model {
            self.by_model.entry(model).or_default().add(&tokens);
        }
        if class.duration >= self.duration {
            self.duration = class.duration;
            self.binding = class
                .waits
                .iter()
                .max_by_key(|(_, wait)| *wait)
                .map(|(cause, _)| cause);
            self.waits = class.waits;
        }
    }

    /// Returns the expected cost in dollars, without cache and without the surcharge for long
    /// requests. `None` if a model has no price, or if the plan has no models: plans of
    /// [`Messages::plan`](crate::Messages::plan) have them, plans of
    /// [`Budget::plan`](crate::Budget::plan) do not.
    pub fn cost(&self, prices: &Prices) -> Option<f64> {
        let costs = self.by_model.iter();
        let cost = costs.map(|(model, tokens)| Some(prices.get(model)?.cost(tokens)));
        let is_known = self.requests == 0 || !self.by_model.is_empty();
        sum_costs(cost).filter(|_| is_known)
    }
}

struct DryRun {
    start: Time,
    now: Time,
    limiter: ClassLimiter,
    gate: OverloadGate,
    /// The end of each request in flight, in nanoseconds, and its index in `responses`.
    in_flight: BinaryHeap<Reverse<(u64, usize)>>,
    responses: Vec<(SlabKey, Usage)>,
    plan: Plan,
}

impl DryRun {
    fn new(now: Time, limiter: ClassLimiter, gate: OverloadGate) -> DryRun {
        let mut run = DryRun {
            start: now,
            now,
            limiter,
            gate,
            in_flight: BinaryHeap::new(),
            responses: Vec::new(),
            plan: Plan::default(),
        };
        for (key, cost) in run.limiter.requests_in_flight() {
            run.begin(key, &cost);
        }
        run
    }

    fn into_plan(mut self, costs: &[(Cost, Option<&Model>)]) -> Plan {
        for (cost, model) in costs {
            match self.admit(cost) {
                Some(key) => {
                    let (input, output) = self.begin(key, cost);
                    self.plan.requests += 1;
                    self.plan.input_tokens += input;
                    self.plan.output_tokens += output;
                    let Some(model) = *model else { continue };
                    let tokens = Tokens::new(input, output);
                    match self.plan.by_model.get_mut(model) {
                        Some(sum) => sum.add(&tokens),
                        None => drop(self.plan.by_model.insert(model.clone(), tokens)),
                    }
                }
                None => self.plan.impossible += 1,
            }
        }
        while let Some(end) = self.next_end() {
            self.move_to(end);
        }
        self.plan.duration = to_duration(self.now - self.start);
        self.plan
    }

    /// Moves to the admission of a request; `None` if the request exceeds a limit.
    fn admit(&mut self, cost: &Cost) -> Option<SlabKey> {
        loop {
            let (until, cause) = match self.limiter.try_admit(self.now, cost, &mut self.gate) {
                Ok(key) => return Some(key),
                Err(NotNow::Never(_)) => return None,
                Err(NotNow::NotBefore(time, cause)) => (time, cause),
                Err(NotNow::OnEvent(cause)) => (f64::INFINITY, cause),
            };
            let next = self.next_end().unwrap_or(f64::INFINITY).min(until);
            // Nothing is in flight and no time is known: the limiter changes as time passes.
            let next = if next.is_finite() {
                next
            } else {
                self.now + STEP_WITHOUT_EVENT
            };
            let next = next.max(self.now + MIN_STEP);
            self.plan.waits.add(cause, to_duration(next - self.now));
            self.move_to(next);
        }
    }

    /// Adds a request in flight, and returns the tokens that it is expected to use.
    fn begin(&mut self, key: SlabKey, cost: &Cost) -> (u64, u64) {
        let expected = self.limiter.expected_cost(cost);
        let usage = Usage {
            input_tokens: whole(expected[INPUT]),
            output_tokens: whole(expected[OUTPUT]),
            ..Usage::default()
        };
        let tokens = (usage.input_tokens, usage.output_tokens);
        let end = self.now + FIRST_TOKEN_LATENCY + expected[OUTPUT] / OUTPUT_SPEED;
        let nanos = to_duration(end).as_nanos().min(u128::from(u64::MAX)) as u64;
        self.in_flight.push(Reverse((nanos, self.responses.len())));
        self.responses.push((key, usage));
        tokens
    }

    fn next_end(&self) -> Option<Time> {
        let Reverse((nanos, _)) = self.in_flight.peek()?;
        Some(Duration::from_nanos(*nanos).as_secs_f64())
    }

    fn move_to(&mut self, time: Time) {
        self.now = time.max(self.now);
        while let Some(Reverse((nanos, index))) = self.in_flight.peek().copied() {
            if Duration::from_nanos(nanos).as_secs_f64() > self.now {
                break;
            }
            self.in_flight.pop();
            let (key, usage) = &self.responses[index];
            self.limiter.settle(self.now, *key, usage, &mut self.gate);
        }
    }
}

/// Assumed time to the first token of a response, in seconds.
const FIRST_TOKEN_LATENCY: f64 = 1.0;

/// Assumed output tokens per second after the first token.
const OUTPUT_SPEED: f64 = 60.0;

/// The step of the dry run when no event is ahead, in seconds.
const STEP_WITHOUT_EVENT: f64 = 1.0;

/// The shortest step of the dry run, in seconds, so that each step makes progress.
const MIN_STEP: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Limits};

    const SMALL: Cost = Cost::request().input_tokens(100).max_tokens(100);

    fn class() -> ModelClass {
        ModelClass::of("claude-haiku-4-5")
    }

    fn plan(budget: &Budget, count: usize, cost: Cost) -> Plan {
        budget.plan((0..count).map(|_| (class(), cost)))
    }

    #[test]
    fn unknown_limits_bind_nothing_for_long() {
        let plan = plan(&Budget::new(), 50, SMALL);
        assert_eq!((plan.requests, plan.impossible), (50, 0));
        assert_eq!(plan.input_tokens, 5_000);
        assert!(plan.duration < Duration::from_secs(10), "{plan:?}");
    }

    #[test]
    fn own_limits_set_the_duration() {
        let budget = Budget::new().default_limits(Limits::per_minute().requests(60));
        let plan = plan(&budget, 600, SMALL);
        let minutes = plan.duration.as_secs_f64() / 60.0;
        assert!((9.0..10.5).contains(&minutes), "{plan:?}");
        let pace = |cause| matches!(cause, WaitCause::Limit(_) | WaitCause::Pace(_));
        assert!(plan.binding.is_some_and(pace), "{plan:?}");
        assert_eq!(budget.snapshot()[0].requests.used, 0, "nothing was spent");
    }

    #[test]
    fn oversized_requests_count_as_impossible() {
        let budget = Budget::new().default_limits(Limits::per_minute().input_tokens(1_000));
        let requests = [SMALL, SMALL.input_tokens(1_001)].map(|cost| (class(), cost));
        let plan = budget.plan(requests);
        assert_eq!((plan.requests, plan.impossible), (1, 1));
    }

    #[test]
    fn plan_includes_requests_in_flight_and_pauses() {
        let budget = Budget::new();
        let held = budget.reserve(&class(), SMALL, None).unwrap();
        assert!(plan(&budget, 1, SMALL).waits.total() > Duration::ZERO);
        let limits = crate::types::RateLimits {
            retry_after: Some(Duration::from_secs(30)),
            ..Default::default()
        };
        held.refuse(None, &limits);
        let plan = plan(&budget, 1, SMALL);
        assert_eq!(plan.binding, Some(WaitCause::Pause));
        assert!(plan.duration > Duration::from_secs(29), "{plan:?}");
    }
}
