//! What a client has done so far: calls, attempts, tokens, waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::lock;
use crate::clock::sync::Mutex;
use crate::prices::{LONG_PROMPT, Prices, sum};
use crate::types::{Attempt, ErrorKind, Model, Tokens, Usage, Waits};

/// What a client and all its copies have done so far; from
/// [`Client::totals`](crate::Client::totals).
///
/// ```
/// # fn tell(client: &anthropic_blocking::Client) {
/// for (model, tally) in &client.totals().by_model {
///     println!("{model}: {} calls, {} tokens written", tally.calls, tally.tokens.output);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// All calls of all endpoints.
    pub all: CallTotals,
    /// Messages, by the model that was asked.
    pub by_model: BTreeMap<Model, CallTotals>,
}

impl Totals {
    /// What all of it cost, in dollars: also attempts that failed and answers that broke off, as
    /// far as their tokens were seen. `None` when a model has no price.
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

    /// The same, with the prices of each model multiplied.
    pub(crate) fn cost_with(&self, prices: &Prices, factor: impl Fn(&Model) -> f64) -> Option<f64> {
        let costs = self.by_model.iter();
        sum(costs.map(|(model, tally)| Some(tally.cost(model, prices)? * factor(model))))
    }
}

/// Sums over calls.
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
    /// Calls that came to an end, well or not.
    pub calls: u64,
    /// Those among them that ended with an error.
    pub failed: u64,
    /// HTTP exchanges.
    pub attempts: u64,
    /// Those among them that were refused for a rate limit, at once or in the middle of the answer.
    pub rate_limited: u64,
    /// Those among them that were refused for an overload, at once or in the middle of the answer.
    pub overloaded: u64,
    /// Tokens, also those of answers that broke off, as far as they were seen.
    pub tokens: Tokens,
    /// Those among them that requests with more than 100,000 input tokens used: some models charge
    /// more for them.
    pub long_prompts: Tokens,
    /// Searches that server tools made.
    pub web_searches: u64,
    /// How long the attempts waited before they were sent, by cause. Threads that waited at the
    /// same time count each.
    pub waited: Waits,
}

impl CallTotals {
    /// What calls of one model cost, in dollars.
    fn cost(&self, model: &Model, prices: &Prices) -> Option<f64> {
        prices.cost_of_sums(model, &self.tokens, &self.long_prompts, self.web_searches)
    }

    fn add_refusal(&mut self, failure: Option<ErrorKind>) {
        self.rate_limited += u64::from(failure == Some(ErrorKind::RateLimit));
        self.overloaded += u64::from(failure == Some(ErrorKind::Overloaded));
    }

    fn add_usage(&mut self, usage: &Usage) {
        let tokens = Tokens::of(usage);
        self.tokens.add(&tokens);
        if tokens.all_input() > LONG_PROMPT {
            self.long_prompts.add(&tokens);
        }
        let tools = usage.server_tool_use.as_ref();
        let searches = tools.map_or(0, |tools| tools.web_search_requests);
        self.web_searches = self.web_searches.saturating_add(searches);
    }
}

/// The totals that all copies of a client write into, and with each entry into those of the client
/// that these belong to.
#[derive(Debug, Default)]
pub(crate) struct SharedTotals {
    totals: Mutex<Totals>,
    parent: Option<Arc<SharedTotals>>,
}

impl SharedTotals {
    /// New totals, as a part of those parent.
    pub(crate) fn child(parent: &Arc<SharedTotals>) -> Arc<SharedTotals> {
        Arc::new(SharedTotals {
            totals: Mutex::default(),
            parent: Some(Arc::clone(parent)),
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        lock(&self.totals).clone()
    }

    /// One HTTP exchange is over.
    pub(crate) fn attempt(&self, model: Option<&Model>, attempt: &Attempt) {
        self.write(model, |tally| {
            tally.attempts += 1;
            tally.add_refusal(attempt.failure);
            tally.waited.add_all(&attempt.waited);
        });
    }

    /// An exchange that was taken for a success broke off.
    pub(crate) fn broke(&self, model: Option<&Model>, kind: ErrorKind) {
        self.write(model, |tally| tally.add_refusal(Some(kind)));
    }

    /// Tokens were used, whatever became of the answer.
    pub(crate) fn usage(&self, model: Option<&Model>, usage: &Usage) {
        self.write(model, |tally| tally.add_usage(usage));
    }

    /// A call came to a good end, and used so much.
    pub(crate) fn settled(&self, model: Option<&Model>, usage: &Usage) {
        self.write(model, |tally| {
            tally.calls += 1;
            tally.add_usage(usage);
        });
    }

    /// A call is over.
    pub(crate) fn call(&self, model: Option<&Model>, is_failed: bool) {
        self.write(model, |tally| {
            tally.calls += 1;
            tally.failed += u64::from(is_failed);
        });
    }

    fn write(&self, model: Option<&Model>, change: impl Fn(&mut CallTotals)) {
        let mut next = Some(self);
        while let Some(one) = next {
            let totals = &mut *lock(&one.totals);
            change(&mut totals.all);
            if let Some(model) = model {
                match totals.by_model.get_mut(model) {
                    Some(tally) => change(tally),
                    None => change(totals.by_model.entry(model.clone()).or_default()),
                }
            }
            next = one.parent.as_deref();
        }
    }
}
