//! What a client has done so far: calls, attempts, tokens, waits.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::clock::lock;
use crate::types::{Attempt, ErrorKind, Model, Usage, Waits};

/// What a client and all its copies have done so far; from
/// [`Client::totals`](crate::Client::totals).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// All calls of all endpoints.
    pub all: Tally,
    /// Messages, by the model that was asked.
    pub by_model: BTreeMap<Model, Tally>,
}

/// Sums over calls.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Calls that came to an end, well or not.
    pub calls: u64,
    /// Those among them that ended with an error.
    pub failed: u64,
    /// HTTP exchanges.
    pub attempts: u64,
    /// Those among them that were refused for a rate limit.
    pub rate_limited: u64,
    /// Those among them that were refused for an overload.
    pub overloaded: u64,
    /// Input after the last cache breakpoint.
    pub input_tokens: u64,
    /// Input written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Input read from the cache.
    pub cache_read_input_tokens: u64,
    /// Output, also of answers that broke off, as far as they were seen.
    pub output_tokens: u64,
    /// How long the attempts waited before they were sent, by cause. Threads that waited at the
    /// same time count each.
    pub waited: Waits,
}

impl Tally {
    fn add_usage(&mut self, usage: &Usage) {
        let optional = |tokens: Option<u64>| tokens.unwrap_or(0);
        for (sum, tokens) in [
            (&mut self.input_tokens, usage.input_tokens),
            (
                &mut self.cache_creation_input_tokens,
                optional(usage.cache_creation_input_tokens),
            ),
            (
                &mut self.cache_read_input_tokens,
                optional(usage.cache_read_input_tokens),
            ),
            (&mut self.output_tokens, usage.output_tokens),
        ] {
            *sum = sum.saturating_add(tokens);
        }
    }
}

/// The totals that all copies of a client write into.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Totals>);

impl Books {
    pub(crate) fn totals(&self) -> Totals {
        lock(&self.0).clone()
    }

    /// One HTTP exchange is over.
    pub(crate) fn attempt(&self, model: Option<&Model>, attempt: &Attempt) {
        self.write(model, |tally| {
            tally.attempts += 1;
            tally.rate_limited += u64::from(attempt.failure == Some(ErrorKind::RateLimit));
            tally.overloaded += u64::from(attempt.failure == Some(ErrorKind::Overloaded));
            tally.waited.add_all(&attempt.waited);
        });
    }

    /// Tokens were used, whatever became of the answer.
    pub(crate) fn usage(&self, model: Option<&Model>, usage: &Usage) {
        self.write(model, |tally| tally.add_usage(usage));
    }

    /// A call is over.
    pub(crate) fn call(&self, model: Option<&Model>, is_failed: bool) {
        self.write(model, |tally| {
            tally.calls += 1;
            tally.failed += u64::from(is_failed);
        });
    }

    fn write(&self, model: Option<&Model>, change: impl Fn(&mut Tally)) {
        let totals = &mut *lock(&self.0);
        change(&mut totals.all);
        let Some(model) = model else { return };
        match totals.by_model.get_mut(model) {
            Some(tally) => change(tally),
            None => change(totals.by_model.entry(model.clone()).or_default()),
        }
    }
}
