//! What a client has done so far: calls, attempts, tokens, waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::lock;
use crate::clock::sync::Mutex;
use crate::prices::{LONG_PROMPT, Prices, sum_costs};
use crate::types::{Attempt, ErrorKind, Model, Tokens, Usage, Waits};

/// Sums over all calls of a client and its copies so far; from
/// [`Client::totals`](crate::Client::totals).
///
/// ```
/// # fn tell(client: &anthropic_blocking::Client) {
/// for (model, totals) in &client.totals().by_model {
///     println!("{model}: {} calls, {} output tokens", totals.calls, totals.tokens.output);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// All calls of all endpoints.
    pub all: CallTotals,
    /// Calls for messages, by the model of the request.
    pub by_model: BTreeMap<Model, CallTotals>,
}

impl Totals {
    /// Returns the cost of all calls in dollars, including failed attempts and broken responses as far
    /// as their tokens are known. `None` if a model has no price.
    ///
    /// ```no_run
    /// use anthropic_blocking::Prices;
    ///
    /// # let client = anthropic_blocking::Client::from_env()?;
    /// if let Some(dollars) = client.totals().cost(&Prices::published()) {
    ///     println!("about ${dollars:.2}");
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn cost(&self, prices: &Prices) -> Option<f64> {
        self.cost_with(prices, |_| 1.0)
    }

    /// Like [`cost`](Totals::cost), with the prices of each model multiplied by a factor.
    pub(crate) fn cost_with(&self, prices: &Prices, factor: impl Fn(&Model) -> f64) -> Option<f64> {
        let costs = self.by_model.iter();
        sum_costs(costs.map(|(model, totals)| Some(totals.cost(model, prices)? * factor(model))))
    }
}

/// Sums over calls, for all models or for one.
///
/// ```
/// use anthropic_blocking::{Client, WaitCause};
///
/// # fn tell(client: &Client) {
/// let all = client.totals().all;
/// println!("{} calls in {} attempts, {} failed", all.calls, all.attempts, all.failed);
/// println!("{:?} of backoff", all.waited.of(WaitCause::Backoff));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct CallTotals {
    /// Calls that have ended, successful or not.
    pub calls: u64,
    /// Calls that ended with an error.
    pub failed: u64,
    /// Attempts: HTTP exchanges.
    pub attempts: u64,
    /// Attempts refused for a rate limit, by status or inside of a stream.
    pub rate_limited: u64,
    /// Attempts refused for an overload, by status or inside of a stream.
    pub overloaded: u64,
    /// Tokens, including those of broken responses as far as they are known.
    pub tokens: Tokens,
    /// The part of `tokens` used by requests with more than 100,000 input tokens: some models charge
    /// more for these.
    pub long_prompts: Tokens,
    /// Searches that server tools made.
    pub web_searches: u64,
    /// Time that attempts waited before they were sent, by cause, summed over all threads.
    pub waited: Waits,
}

impl CallTotals {
    /// Returns the cost of calls of one model in dollars.
    fn cost(&self, model: &Model, prices: &Prices) -> Option<f64> {
        prices.cost_of_totals(model, &self.tokens, &self.long_prompts, self.web_searches)
    }

    fn add_refusal(&mut self, failure: Option<ErrorKind>) {
        self.rate_limited += u64::from(failure == Some(ErrorKind::RateLimit));
        self.overloaded += u64::from(failure == Some(ErrorKind::Overloaded));
    }

    fn add_usage(&mut self, usage: &Usage) {
        let tokens = Tokens::of(usage);
        self.tokens.add(&tokens);
        if tokens.total_input() > LONG_PROMPT {
            self.long_prompts.add(&tokens);
        }
        let tools = usage.server_tool_use.as_ref();
        let searches = tools.map_or(0, |tools| tools.web_search_requests);
        self.web_searches = self.web_searches.saturating_add(searches);
    }
}

/// The totals of a client and its copies. The totals of a run have those of its client as parent, to
/// which every entry is added as well.
#[derive(Debug, Default)]
pub(crate) struct SharedTotals {
    totals: Mutex<Totals>,
    parent: Option<Arc<SharedTotals>>,
}

impl SharedTotals {
    /// Returns new totals with a parent, to which every entry is added as well.
    pub(crate) fn child(parent: &Arc<SharedTotals>) -> Arc<SharedTotals> {
        Arc::new(SharedTotals {
            totals: Mutex::default(),
            parent: Some(Arc::clone(parent)),
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        lock(&self.totals).clone()
    }

    /// Adds a finished attempt.
    pub(crate) fn add_attempt(&self, model: Option<&Model>, attempt: &Attempt) {
        self.write(model, |sums| {
            sums.attempts += 1;
            sums.add_refusal(attempt.failure);
            sums.waited.add_all(&attempt.waited);
        });
    }

    /// Adds the refusal of an attempt that was recorded as a success.
    pub(crate) fn add_refusal(&self, model: Option<&Model>, kind: ErrorKind) {
        self.write(model, |sums| sums.add_refusal(Some(kind)));
    }

    /// Adds the usage of a response that did not reach its end.
    pub(crate) fn add_usage(&self, model: Option<&Model>, usage: &Usage) {
        self.write(model, |sums| sums.add_usage(usage));
    }

    /// Adds a successful call and its usage.
    pub(crate) fn add_success(&self, model: Option<&Model>, usage: &Usage) {
        self.write(model, |sums| {
            sums.calls += 1;
            sums.add_usage(usage);
        });
    }

    /// Adds a failed call.
    pub(crate) fn add_failed_call(&self, model: Option<&Model>) {
        self.write(model, |sums| {
            sums.calls += 1;
            sums.failed += 1;
        });
    }

    /// Adds a call whose end is unknown, because the caller dropped its stream.
    pub(crate) fn add_abandoned_call(&self, model: Option<&Model>) {
        self.write(model, |sums| sums.calls += 1);
    }

    fn write(&self, model: Option<&Model>, change: impl Fn(&mut CallTotals)) {
        let mut next = Some(self);
        while let Some(one) = next {
            let totals = &mut *lock(&one.totals);
            change(&mut totals.all);
            if let Some(model) = model {
                match totals.by_model.get_mut(model) {
                    Some(sums) => change(sums),
                    None => change(totals.by_model.entry(model.clone()).or_default()),
                }
            }
            next = one.parent.as_deref();
        }
    }
}
