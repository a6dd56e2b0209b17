//! The worker threads of a run: when each thread begins, what the run has done, and what stops it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::progress::{OnProgress, Progress};
use super::ramp_up::begin_time;
use super::settings::BulkSettings;
use crate::budget::ModelClass;
use crate::call::retry::scale;
use crate::call::totals::Totals;
use crate::client::Client;
use crate::clock::lock;
use crate::clock::sync::{AtomicBool, Condvar, Mutex, MutexGuard};
use crate::error::{Cause, Error, Result};
use crate::prices::{Prices, surcharge_factor};
use crate::types::{ErrorKind, MessageRequest, Model};

/// The state that the workers of a run share.
pub(super) struct Workers {
    /// A clone with its own totals and its own cancellation.
    client: Client,
    concurrency: usize,
    ramp_up: Duration,
    began: Instant,
    prices: Prices,
    spend_limit: Option<f64>,
    on_progress: Option<Arc<OnProgress>>,
    state: Mutex<WorkersState>,
    changed: Condvar,
    /// No item is left to begin.
    is_finished: AtomicBool,
    /// A report is in progress, or ended in a panic.
    is_reporting: AtomicBool,
}

#[derive(Default)]
struct WorkersState {
    done: u64,
    failed: u64,
    skipped: u64,
    in_flight: u64,
    total: Option<u64>,
    /// The highest possible cost of the requests in flight, in dollars.
    reserved_dollars: f64,
    /// The classes of models that the run has used.
    classes: BTreeSet<ModelClass>,
    /// The highest surcharge of each model in this run, as a factor of its usual price, if above 1.
    surcharges: BTreeMap<Model, f64>,
    stop_reason: Option<String>,
    last_report: Option<Instant>,
}

impl Workers {
    pub(super) fn new(client: &Client, settings: &BulkSettings, total: Option<u64>) -> Workers {
        let client = client.for_run();
        Workers {
            concurrency: settings.concurrency,
            ramp_up: settings.ramp_up,
            began: client.core().sleeper.clock().now(),
            client,
            prices: settings.prices.clone(),
            spend_limit: settings.spend_limit,
            on_progress: settings.on_progress.clone(),
            state: Mutex::new(WorkersState {
                total,
                ..WorkersState::default()
            }),
            changed: Condvar::new(),
            is_finished: AtomicBool::new(false),
            is_reporting: AtomicBool::new(false),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Blocks until the worker of this number may begin; returns `false` if the worker is not
    /// needed any more.
    pub(super) fn wait_to_begin(&self, number: usize) -> bool {
        let due = begin_time(number, self.concurrency, self.ramp_up);
        let passed = self.run_time();
        let sleeper = &self.client.core().sleeper;
        if sleeper
            .sleep_unless(due.saturating_sub(passed), || self.is_over())
            .is_err()
        {
            return false;
        }
        // While requests wait in the budget, another worker would only wait behind them, unless its
        // request has another class.
        let mut state = lock(&self.state);
        loop {
            if self.is_over() {
                return false;
            }
            if self.client.budget().waiting(&state.classes) < ENOUGH_WAITING {
                return true;
            }
            state = self.wait(state);
        }
    }

    /// Notes the class of a model that the run uses.
    fn note_class(&self, model: &Model, is_fast: bool) {
        let budget = self.client.budget();
        // The caller's closure can panic; the call that needs the class then reports the panic.
        let class = catch_unwind(AssertUnwindSafe(|| budget.class_for(model, is_fast)));
        if let Ok(class) = class {
            lock(&self.state).classes.insert(class);
        }
    }

    /// Begins an item of unknown cost, unless the run is stopped or the spend limit is reached.
    pub(super) fn begin(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if let Some(limit) = self.spend_limit {
            match self.spent(&state, &self.client.totals()) {
                Some(spent) if spent < limit => {}
                Some(spent) => {
                    let (spent, limit) = (dollars(spent), dollars(limit));
                    let reason = format!("{spent} of the spend limit of {limit} is spent");
                    self.stop_with(&mut state, reason);
                }
                None => {
                    let reason = "a model has no price, so the spend limit cannot be checked";
                    self.stop_with(&mut state, reason.to_owned());
                }
            }
        }
        if self.is_ending() {
            state.failed += 1;
            return Err(self.not_run(&state));
        }
        state.in_flight += 1;
        Ok(())
    }

    /// Begins a request; blocks until the spend limit has room for its highest possible cost, and
    /// returns that cost in dollars.
    pub(super) fn begin_request(&self, request: &MessageRequest) -> Result<f64> {
        let is_fast = request.speed.as_deref() == Some("fast");
        self.note_class(&request.model, is_fast);
        let surcharge = self.note_surcharge(request);
        let Some(limit) = self.spend_limit else {
            return self.begin().map(|()| 0.0);
        };
        let body = serde_json::to_vec(request).map_or(0, |body| body.len());
        let most = self
            .prices
            .max_cost(
                &request.model,
                request.estimate_size(body).max_tokens,
                request.max_tokens,
            )
            .map(|most| most * surcharge);
        let mut state = lock(&self.state);
        loop {
            if self.is_ending() {
                state.failed += 1;
                return Err(self.not_run(&state));
            }
            let spent = self.spent(&state, &self.client.totals());
            let (Some(most), Some(spent)) = (most, spent) else {
                let model = &request.model;
                let reason = format!(
                    "{model} has no price, so the spend limit cannot be checked; set the price \
                     with Bulk::prices"
                );
                self.stop_with(&mut state, reason);
                continue;
            };
            if spent + state.reserved_dollars + most <= limit {
                state.reserved_dollars += most;
                state.in_flight += 1;
                return Ok(most);
            }
            if state.in_flight == 0 {
                let [spent, most, limit] = [spent, most, limit].map(dollars);
                let reason = format!(
                    "{spent} of the spend limit of {limit} is spent, and the next request could \
                     cost {most}"
                );
                self.stop_with(&mut state, reason);
                continue;
            }
            state = self.wait(state);
        }
    }

    /// Returns the cost so far in dollars; `None` if a model has no price. The totals do not
    /// separate requests with a surcharge: all requests of such a model count with the surcharge.
    fn spent(&self, state: &WorkersState, totals: &Totals) -> Option<f64> {
        let factor = |model: &Model| state.surcharges.get(model).copied().unwrap_or(1.0);
        totals.cost_with(&self.prices, factor)
    }

    /// Notes and returns the surcharge of a request, as a factor of the usual price.
    fn note_surcharge(&self, request: &MessageRequest) -> f64 {
        let surcharge = surcharge_factor(request);
        if surcharge > 1.0 {
            let surcharges = &mut lock(&self.state).surcharges;
            let most = surcharges.entry(request.model.clone()).or_insert(1.0);
            *most = most.max(surcharge);
        }
        surcharge
    }

    /// Ends an item that was begun with `reserved_dollars`.
    pub(super) fn end_request<T>(
        &self,
        result: Result<T>,
        reserved_dollars: f64,
        request: &MessageRequest,
    ) -> Result<T> {
        lock(&self.state).reserved_dollars -= reserved_dollars;
        self.end(result, Some(request))
    }

    /// Ends an item of a map, whose models are known only now.
    pub(super) fn end_item<T>(&self, result: Result<T>) -> Result<T> {
        for model in self.client.totals().by_model.keys() {
            self.note_class(model, false);
        }
        self.end(result, None)
    }

    /// Ends an item. A failure caused by the stop of the run becomes a `NotRun` error with its
    /// reason.
    fn end<T>(&self, result: Result<T>, sample: Option<&MessageRequest>) -> Result<T> {
        let mut state = lock(&self.state);
        state.in_flight -= 1;
        let result = match result {
            Ok(value) => {
                state.done += 1;
                Ok(value)
            }
            Err(error) => {
                state.failed += 1;
                let is_client_over = self.client.core().sleeper.is_stopped();
                if error.kind() == ErrorKind::Shutdown && self.is_ending() && !is_client_over {
                    Err(self.not_run(&state))
                } else {
                    if is_fatal(&error, state.done > 0, sample.is_some()) {
                        self.stop_with(&mut state, error.to_string());
                    }
                    Err(error)
                }
            }
        };
        self.changed.notify_all();
        self.report_if_due(state, sample);
        result
    }

    /// Counts an item that was in the journal.
    pub(super) fn count_skipped(&self) {
        let mut state = lock(&self.state);
        state.skipped += 1;
        self.report_if_due(state, None);
    }

    /// Counts an item that failed before it was begun.
    pub(super) fn count_refused(&self) {
        lock(&self.state).failed += 1;
    }

    /// Notes that no item is left to begin; workers that have not begun end.
    pub(super) fn finish(&self) {
        self.is_finished.store(true, Ordering::SeqCst);
        // A worker that checked before the store is waiting by now.
        drop(lock(&self.state));
        self.changed.notify_all();
        self.client.core().sleeper.wake();
    }

    /// Stops the run: no further item is begun.
    pub(super) fn stop(&self, reason: &str) {
        self.stop_with(&mut lock(&self.state), reason.to_owned());
    }

    /// Cuts the requests in flight.
    pub(super) fn abort(&self) {
        self.client.settings().cancel.abort();
    }

    pub(super) fn stop_reason(&self) -> Option<String> {
        lock(&self.state).stop_reason.clone()
    }

    /// Counts an item that is not run, and returns its error.
    pub(super) fn fail_not_run(&self) -> Error {
        let mut state = lock(&self.state);
        state.failed += 1;
        self.not_run(&state)
    }

    /// Reports the progress, on one thread at a time, so that no report is older than the previous
    /// report. After a panic nothing more is reported, and the run continues.
    pub(super) fn report(&self, sample: Option<&MessageRequest>) {
        let Some(on_progress) = &self.on_progress else {
            return;
        };
        if !self.is_reporting.swap(true, Ordering::SeqCst) {
            let progress = self.progress(lock(&self.state), sample);
            let outcome = catch_unwind(AssertUnwindSafe(|| on_progress(&progress)));
            self.is_reporting.store(outcome.is_err(), Ordering::SeqCst);
        }
    }

    /// Returns the progress now.
    pub(super) fn current_progress(&self) -> Progress {
        self.progress(lock(&self.state), None)
    }

    fn progress(
        &self,
        state: MutexGuard<'_, WorkersState>,
        sample: Option<&MessageRequest>,
    ) -> Progress {
        let totals = self.client.totals();
        let mut progress = Progress {
            done: state.done,
            failed: state.failed,
            skipped: state.skipped,
            total: state.total,
            in_flight: state.in_flight,
            waiting: 0,
            cause: None,
            cost: self.spent(&state, &totals),
            totals,
            elapsed: self.run_time(),
            remaining: None,
        };
        drop(state);
        let queues = self.client.budget().waiting_now();
        progress.waiting = queues.waiting;
        progress.cause = queues.cause;
        progress.remaining = self.remaining(&progress, sample);
        progress
    }

    /// Returns the remaining time: by the speed so far or by the limits for requests like `sample`,
    /// whichever is longer.
    fn remaining(&self, progress: &Progress, sample: Option<&MessageRequest>) -> Option<Duration> {
        let worked = progress.done + progress.failed;
        let left = progress.total?.saturating_sub(progress.finished());
        if worked == 0 {
            return None;
        }
        let by_speed = scale(progress.elapsed, left as f64 / worked as f64);
        let unsent = left.saturating_sub(progress.in_flight);
        let planned = unsent.min(MAX_PLANNED);
        let by_limits = sample.filter(|_| planned > 0).and_then(|request| {
            let messages = self.client.messages();
            // The caller's closure can panic here as well; the item is already counted.
            let plan = || messages.plan_repeated(request, planned as usize).ok();
            let plan = catch_unwind(AssertUnwindSafe(plan)).ok()??;
            Some(scale(plan.duration, unsent as f64 / planned as f64))
        });
        Some(by_speed.max(by_limits.unwrap_or_default()))
    }

    /// Reports the progress, if a report is due.
    fn report_if_due(
        &self,
        mut state: MutexGuard<'_, WorkersState>,
        sample: Option<&MessageRequest>,
    ) {
        if self.on_progress.is_none() {
            return;
        }
        let now = self.client.core().sleeper.clock().now();
        let is_due = state
            .last_report
            .is_none_or(|last| now.saturating_duration_since(last) >= REPORT_INTERVAL);
        if is_due {
            state.last_report = Some(now);
            drop(state);
            self.report(sample);
        }
    }

    fn stop_with(&self, state: &mut WorkersState, reason: String) {
        if state.stop_reason.is_none() {
            state.stop_reason = Some(reason);
        }
        if self.client.settings().cancel.stop() {
            self.client.budget().wake_all();
            self.client.core().sleeper.wake();
        }
        self.changed.notify_all();
    }

    fn not_run(&self, state: &WorkersState) -> Error {
        let fallback = match self.client.core().sleeper.is_stopped() {
            true => "the client was shut down",
            false => "the enclosing run was stopped",
        };
        let reason = state.stop_reason.as_deref().unwrap_or(fallback);
        let what = format!("not sent, because the run was stopped: {reason}");
        let cause = Cause::Rejected(what.into());
        Error::new(ErrorKind::NotRun, "an item of a bulk run", cause)
            .with_classification(true, None, None)
    }

    /// Whether no further worker needs to begin. Takes no lock, because the sleeper calls it under
    /// its own lock.
    fn is_over(&self) -> bool {
        self.is_finished.load(Ordering::SeqCst) || self.is_ending()
    }

    /// Whether the run or the client is stopped, so that no further item is begun.
    pub(super) fn is_ending(&self) -> bool {
        self.client.settings().cancel.is_stopped() || self.client.core().sleeper.is_stopped()
    }

    fn run_time(&self) -> Duration {
        let now = self.client.core().sleeper.clock().now();
        now.saturating_duration_since(self.began)
    }

    /// Blocks until a change, at most for [`POLL_INTERVAL`], because some changes do not notify.
    fn wait<'a>(&self, state: MutexGuard<'a, WorkersState>) -> MutexGuard<'a, WorkersState> {
        let woken = self.changed.wait_timeout(state, POLL_INTERVAL);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Whether a failure affects all items. All items of a run share its settings, whereas a `Config`
/// error from the closure of a map can concern a single item.
fn is_fatal(error: &Error, has_succeeded: bool, is_run: bool) -> bool {
    let is_on_hold = error
        .api_error()
        .is_some_and(|error| error.error_code() == Some("organization_on_hold"));
    is_on_hold
        || match error.kind() {
            ErrorKind::Billing | ErrorKind::Shutdown => true,
            ErrorKind::Config => is_run,
            ErrorKind::Auth => error.status() == Some(401) || !has_succeeded,
            _ => false,
        }
}

/// Formats dollars, with four decimals below one dollar.
fn dollars(sum: f64) -> String {
    let digits = if sum.abs() < 1.0 { 4 } else { 2 };
    format!("${sum:.digits$}")
}

/// The number of waiting requests of a class at which another worker would send nothing sooner.
const ENOUGH_WAITING: usize = 2;

/// Interval at which a waiting worker checks the state without a notification.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Minimum interval between progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// The maximum number of requests in a plan of the remaining time; longer runs are extrapolated.
const MAX_PLANNED: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classify_closure_also_decides_for_fast_mode() {
        let client = Client::builder().api_key("test").build().unwrap();
        let workers = client.bulk().workers(None);
        let model = Model::new("claude-opus-5");
        workers.note_class(&model, true);
        let fast = ModelClass::of("claude-opus-5").fast();
        assert_eq!(lock(&workers.state).classes, BTreeSet::from([fast.clone()]));
        drop(
            client
                .budget()
                .clone()
                .classify(|_| ModelClass::named("all")),
        );
        workers.note_class(&model, true);
        let all = ModelClass::named("all");
        assert_eq!(lock(&workers.state).classes, BTreeSet::from([all, fast]));
    }
}
