//! The public type: its settings and its methods.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::admission::{Admission, AdmissionFailure, AdmissionRequest};
use super::class::ModelClass;
use super::cost::{Cost, to_duration};
use super::limiter::decision::NotNow;
use super::limits::Limits;
use super::plan::Plan;
use super::reservation::Reservation;
use super::shared::{BudgetState, SharedBudget};
use super::snapshot::ClassSnapshot;
use super::wait::Wait;
use crate::clock::{Clock, lock};
use crate::error::Result;
use crate::types::{Model, WaitCause};

/// A rate limiter for all threads that send: decides when each request may be sent.
///
/// Needs no settings: the budget learns the server's limits from the headers of the first response.
/// Clones share everything. Every method but [`reserve`](Budget::reserve) returns at once.
///
/// A [`Client`](crate::Client) has a budget and waits for admission before each request. A budget
/// without a client serves requests that your own code sends.
///
/// ```
/// use anthropic_blocking::{Budget, Limits, ModelClass};
///
/// // At most half of what the organization has, for one class of models.
/// let half = Limits::per_minute().requests(500).input_tokens(200_000);
/// let budget = Budget::new().limits(ModelClass::of("claude-haiku-4-5"), half);
/// ```
#[derive(Clone)]
pub struct Budget {
    pub(super) shared: Arc<SharedBudget>,
}

/// The minimum wait of a request.
pub(crate) struct MinimumWait {
    pub(crate) total: Duration,
    /// The part of `total` that is a pause or an overload.
    pub(crate) suspended: Duration,
}

/// The state of all queues.
pub(crate) struct QueueStatus {
    /// How many requests of all classes wait.
    pub(crate) waiting: usize,
    /// What the head of the longest queue waits for.
    pub(crate) cause: Option<WaitCause>,
}

impl Budget {
    /// Creates a budget without limits of the caller's own.
    #[expect(
        clippy::new_without_default,
        reason = "a budget is shared, not a value"
    )]
    pub fn new() -> Budget {
        Budget::with_clock(Clock::System, Rng::new())
    }

    pub(crate) fn with_clock(clock: Clock, rng: Rng) -> Budget {
        Budget {
            shared: Arc::new(SharedBudget::new(clock, rng)),
        }
    }

    /// Limits what a class of models may use in any 60 seconds, whatever the server allows. Can be
    /// called at any time; applies to all clones, and counts the requests of the past minute.
    #[must_use = "the budget itself is returned"]
    pub fn limits(self, class: ModelClass, limits: Limits) -> Budget {
        self.shared.transact(|state, now| {
            state.limits.insert(class, limits);
            state.apply_limits(now);
        });
        self
    }

    /// Limits every class that has no limits of its own, each class separately.
    #[must_use = "the budget itself is returned"]
    pub fn default_limits(self, limits: Limits) -> Budget {
        self.shared.transact(|state, now| {
            state.default_limits = limits;
            state.apply_limits(now);
        });
        self
    }

    /// Sets the server's limits of a class, for a server that sends no headers, as some gateways
    /// do, or so that the first request need not be sent alone to learn them.
    #[must_use = "the budget itself is returned"]
    pub fn assume_server(self, class: ModelClass, limits: Limits) -> Budget {
        self.shared.transact(|state, now| {
            if let Some(queue) = state.queues.get_mut(&class) {
                queue.limiter.assume_server(now, &limits);
            }
            state.assumed.insert(class, limits);
        });
        self
    }

    /// Replaces [`ModelClass::of`] as the rule that says which models share limits. The closure
    /// also decides for requests in fast mode. The budget keeps every class that the closure has
    /// returned: return few classes, not a new class for each request.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Model, ModelClass};
    ///
    /// // This gateway has one limit for all models.
    /// let budget = Budget::new().classify(|_| ModelClass::named("all"));
    /// assert_eq!(budget.class_of(&Model::new("claude-haiku-4-5")), ModelClass::named("all"));
    /// ```
    #[must_use = "the budget itself is returned"]
    pub fn classify(
        self,
        classify: impl Fn(&Model) -> ModelClass + Send + Sync + 'static,
    ) -> Budget {
        let previous = lock(&self.shared.state)
            .classify
            .replace(Arc::new(classify));
        // Dropped outside of the lock: what a closure holds may take the lock.
        drop(previous);
        self
    }

    /// Calls `on_wait` whenever a request begins a wait of a second or more, on the thread that
    /// waits, outside of any lock.
    #[must_use = "the budget itself is returned"]
    pub fn on_wait(self, on_wait: impl Fn(&Wait) + Send + Sync + 'static) -> Budget {
        let previous = lock(&self.shared.state).on_wait.replace(Arc::new(on_wait));
        drop(previous);
        self
    }

    /// Returns the class of a model.
    pub fn class_of(&self, model: &Model) -> ModelClass {
        self.class_for(model, false)
    }

    /// Returns the class of a request: the caller's closure decides, or else the model and the
    /// mode.
    pub(crate) fn class_for(&self, model: &Model, is_fast: bool) -> ModelClass {
        let classify = lock(&self.shared.state).classify.clone();
        match classify {
            Some(classify) => classify(model),
            None if is_fast => ModelClass::of(model).fast(),
            None => ModelClass::of(model),
        }
    }

    /// Waits until a request may be sent, behind the requests of its class that came before.
    ///
    /// Blocks as long as necessary, at most for `deadline`; fails at once if the deadline cannot be
    /// met. Settle the reservation with the outcome of the request; a dropped reservation
    /// counts as sent with unknown outcome.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, ModelClass, Usage};
    ///
    /// let budget = Budget::new();
    /// let class = ModelClass::of("claude-haiku-4-5");
    /// let cost = Cost::request().input_bytes(5_000).max_tokens(1_024);
    /// let reservation = budget.reserve(&class, cost, None)?;
    /// // … send the request …
    /// reservation.settle(&Usage::default(), None);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Budget`](crate::ErrorKind::Budget): the request is larger than a limit, or cannot be
    /// admitted before the deadline; the error text gives the earliest time. If the cause is a
    /// pause after a refusal, the kind is [`RateLimit`](crate::ErrorKind::RateLimit); if the cause
    /// is an overload of the server, the kind is [`Overloaded`](crate::ErrorKind::Overloaded).
    /// Without a deadline only a request that is larger than a limit fails.
    pub fn reserve(
        &self,
        class: &ModelClass,
        cost: Cost,
        deadline: Option<Duration>,
    ) -> Result<Reservation> {
        let request = AdmissionRequest {
            class,
            cost,
            ticket: None,
            was_refused: false,
            time_left: deadline,
            max_wait: None,
            is_stopped: &|| false,
        };
        self.acquire(&request)
            .map_err(|failure| failure.into_error("reserving".into(), deadline))
    }

    /// Reserves without waiting, if the request may be sent now.
    ///
    /// # Errors
    ///
    /// Kind [`Budget`](crate::ErrorKind::Budget): the request is larger than a limit.
    pub fn try_reserve(&self, class: &ModelClass, cost: Cost) -> Result<Admission> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let (queue, gate) = state.queue(class);
        let ticket = queue.issue_ticket();
        if queue.is_next(ticket) {
            match queue.limiter.try_admit(now, &cost, gate) {
                Ok(key) => {
                    let reservation =
                        Reservation::new(Arc::clone(&self.shared), class, key, ticket);
                    return Ok(Admission::Granted(reservation));
                }
                Err(NotNow::NotBefore(time, _)) => {
                    return Ok(Admission::NotBefore(to_duration(time - now)));
                }
                Err(NotNow::Never(excess)) => {
                    return Err(
                        AdmissionFailure::Exceeds(excess).into_error("reserving".into(), None)
                    );
                }
                Err(NotNow::OnEvent(_)) => {}
            }
        }
        let earliest = queue.earliest_start(now, ticket, &cost, gate);
        Ok(Admission::NotBefore(
            to_duration(earliest - now).max(RETRY_WITHOUT_ESTIMATE),
        ))
    }

    /// Returns for each class its use, what its requests wait for, and what is known of the
    /// server's limits.
    pub fn snapshot(&self) -> Vec<ClassSnapshot> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let BudgetState { queues, gate, .. } = &mut *state;
        queues
            .iter_mut()
            .map(|(class, queue)| ClassSnapshot::of(class, queue, gate, now))
            .collect()
    }

    /// Estimates how long a list of requests would take and which limit would bind, without sending
    /// anything: a dry run on copies of the limiters.
    ///
    /// Classes are independent, and requests that wait already come first. Before the first
    /// response of a class the server's limits for it count as unlimited, unless
    /// [`assume_server`](Budget::assume_server) sets them. Takes some microseconds for each
    /// request.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, Dimension, Limits, ModelClass, WaitCause};
    ///
    /// let class = ModelClass::of("claude-haiku-4-5");
    /// let limits = Limits::per_minute().requests(50).input_tokens(30_000);
    /// let budget = Budget::new().assume_server(class.clone(), limits);
    /// let request = Cost::request().input_tokens(3_000).max_tokens(200);
    ///
    /// let plan = budget.plan((0..100).map(|_| (class.clone(), request)));
    /// assert_eq!(plan.requests, 100);
    /// assert_eq!(plan.binding, Some(WaitCause::Server(Dimension::InputTokens)));
    /// assert!(plan.duration.as_secs() > 500);
    /// ```
    pub fn plan(&self, requests: impl IntoIterator<Item = (ModelClass, Cost)>) -> Plan {
        self.plan_for(
            requests
                .into_iter()
                .map(|(class, cost)| (class, cost, None)),
        )
    }

    /// Like [`plan`](Budget::plan), for requests whose model is known.
    pub(crate) fn plan_for<'m>(
        &self,
        requests: impl IntoIterator<Item = (ModelClass, Cost, Option<&'m Model>)>,
    ) -> Plan {
        Plan::forecast(&self.shared, requests)
    }

    /// Waits for admission, behind the requests of the class that came before.
    pub(crate) fn acquire(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<Reservation, AdmissionFailure> {
        request.wait_for_admission(&self.shared)
    }

    /// Returns the minimum wait of a refused request that keeps its ticket.
    pub(crate) fn minimum_wait(&self, class: &ModelClass, ticket: u64, cost: &Cost) -> MinimumWait {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let (queue, gate) = state.queue(class);
        let earliest = queue.earliest_start(now, ticket, cost, gate);
        let suspension = queue.suspension(now, gate);
        MinimumWait {
            total: to_duration(earliest - now),
            suspended: suspension.map_or(Duration::ZERO, |suspension| {
                to_duration(suspension.until - now)
            }),
        }
    }

    /// Returns how many requests wait in the shortest queue of these classes; in all queues
    /// together if `classes` is empty.
    pub(crate) fn waiting(&self, classes: &BTreeSet<ModelClass>) -> usize {
        let state = lock(&self.shared.state);
        let queued = |class| state.queues.get(class).map_or(0, |queue| queue.waiting());
        let shortest = classes.iter().map(queued).min();
        shortest.unwrap_or_else(|| state.queues.values().map(|queue| queue.waiting()).sum())
    }

    /// Returns how many requests of all classes wait, and what the head of the longest queue waits
    /// for.
    pub(crate) fn waiting_now(&self) -> QueueStatus {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let BudgetState { queues, gate, .. } = &mut *state;
        let waiting = queues.values().map(|queue| queue.waiting()).sum();
        let longest = queues.values_mut().max_by_key(|queue| queue.waiting());
        let head = longest.and_then(|queue| queue.head_wait(now, gate));
        QueueStatus {
            waiting,
            cause: head.map(|wait| wait.cause),
        }
    }

    /// Wakes all waiters, so that each checks whether it was cancelled.
    pub(crate) fn wake_all(&self) {
        let state = lock(&self.shared.state);
        state.queues.values().for_each(|queue| queue.wake_all());
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.snapshot()).finish()
    }
}

/// The minimum wait that `try_reserve` returns if admission depends on other requests.
const RETRY_WITHOUT_ESTIMATE: Duration = Duration::from_millis(100);
