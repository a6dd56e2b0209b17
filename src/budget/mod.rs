//! The budget: what may be sent when, shared by all threads.
//!
//! Every request waits here, in order, until two accounts have room for it: the caller's own
//! sliding window, which keeps a promise, and a server of the server's token buckets, which keeps
//! the server from refusing. The machines are pure and in files of their own; this one holds the
//! lock, the clock and the public face.

mod acquire;
mod class;
mod cost;
mod limiter;
mod limits;
#[cfg(test)]
mod model;
mod plan;
mod queue;
mod reservation;
mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use self::cost::Time;
use self::limiter::class_limiter::ClassLimiter;
use self::limiter::decision::NotNow;
use self::limiter::overload_gate::OverloadGate;
use self::queue::ClassQueue;
use crate::clock::sync::Mutex;
use crate::clock::{Clock, lock};
use crate::error::Result;
use crate::types::{Model, WaitCause};

pub(crate) use self::acquire::{AdmissionFailure, AdmissionRequest};
pub use self::class::ModelClass;
pub use self::cost::{Cost, InputEstimate};
pub(crate) use self::limiter::decision::OverLimit;
pub use self::limits::Limits;
pub use self::plan::Plan;
pub use self::reservation::Reservation;
pub use self::snapshot::{ClassSnapshot, DimensionSnapshot};

/// What may be sent when, shared by all threads that send.
///
/// Left alone it needs no settings: it learns the server's limits from the headers of the first
/// answer. Clones share everything. Every method returns at once but [`reserve`](Budget::reserve).
///
/// A [`Client`](crate::Client) has one, and waits for it before each request. By itself it serves
/// requests that your own code sends.
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
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    birth: Instant,
    state: Mutex<State>,
}

struct State {
    queues: BTreeMap<ModelClass, ClassQueue>,
    gate: OverloadGate,
    default_limits: Limits,
    limits: BTreeMap<ModelClass, Limits>,
    assumed: BTreeMap<ModelClass, Limits>,
    classify: Option<Arc<Classify>>,
    on_wait: Option<Arc<OnWait>>,
    rng: Rng,
}

type Classify = dyn Fn(&Model) -> ModelClass + Send + Sync;
type OnWait = dyn Fn(&Wait) + Send + Sync;

/// A wait that begins; see [`Budget::on_wait`].
///
/// ```
/// use anthropic_blocking::{Budget, Wait};
///
/// let budget = Budget::new().on_wait(|wait: &Wait| {
///     eprintln!("{}: {} ({} in line, {:?})", wait.class, wait.cause, wait.waiting, wait.expected);
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// The class of models that the request belongs to.
    pub class: ModelClass,
    /// What it waits for, or what the request at the head of its queue waits for.
    pub cause: WaitCause,
    /// How long, as things stand: an answer that ends, or costs less than expected, shortens it.
    pub expected: Duration,
    /// How many requests of the class wait, this one included.
    pub waiting: usize,
}

/// Whether a request may be sent now; see [`Budget::try_reserve`].
///
/// ```
/// use anthropic_blocking::{Admission, Budget, Cost, ModelClass, Usage};
///
/// # let budget = Budget::new();
/// let class = ModelClass::of("claude-haiku-4-5");
/// match budget.try_reserve(&class, Cost::request().max_tokens(300))? {
///     Admission::Granted(reservation) => reservation.settle(&Usage::new(20, 300), None),
///     Admission::NotBefore(wait) => println!("do something else for {wait:?}"),
///     _ => {}
/// }
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Admission {
    /// It may, and is accounted for.
    Granted(Reservation),
    /// Not before so much time has passed; then ask again.
    NotBefore(Duration),
}

impl Budget {
    /// A budget without limits of the caller's own.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, ModelClass};
    ///
    /// let budget = Budget::new();
    /// let for_a_thread = budget.clone();
    /// let class = ModelClass::of("claude-haiku-4-5");
    /// let reservation = for_a_thread.reserve(&class, Cost::request(), None)?;
    /// assert_eq!(budget.snapshot()[0].in_flight, 1);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[expect(
        clippy::new_without_default,
        reason = "a budget is shared, not a value"
    )]
    pub fn new() -> Budget {
        Budget::on(Clock::System, Rng::new())
    }

    pub(crate) fn on(clock: Clock, mut rng: Rng) -> Budget {
        let state = State {
            queues: BTreeMap::new(),
            gate: OverloadGate::new(rng.fork()),
            default_limits: Limits::per_minute(),
            limits: BTreeMap::new(),
            assumed: BTreeMap::new(),
            classify: None,
            on_wait: None,
            rng,
        };
        let birth = clock.now();
        Budget {
            shared: Arc::new(Shared {
                clock,
                birth,
                state: Mutex::new(state),
            }),
        }
    }

    /// Limits what a class of models may use in any 60 seconds, whatever the server allows. May be
    /// called at any time; it holds for the past minute at once, and for all clones.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Client, Limits, ModelClass};
    ///
    /// let budget = Budget::new()
    ///     .limits(ModelClass::of("claude-opus-5"), Limits::per_minute().requests(10))
    ///     .default_limits(Limits::per_minute().requests(100));
    /// let client = Client::builder().api_key("test").budget(&budget).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[must_use = "the budget itself is returned"]
    pub fn limits(self, class: ModelClass, limits: Limits) -> Budget {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        state.limits.insert(class, limits);
        state.set_limits(now);
        state.wake_better(now);
        drop(state);
        self
    }

    /// Limits every class that has no limits of its own, each by itself.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Limits};
    ///
    /// // Each class of models by itself.
    /// let budget = Budget::new().default_limits(Limits::per_minute().requests(50));
    /// ```
    #[must_use = "the budget itself is returned"]
    pub fn default_limits(self, limits: Limits) -> Budget {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        state.default_limits = limits;
        state.set_limits(now);
        state.wake_better(now);
        drop(state);
        self
    }

    /// Says what the server allows a class, where it sends no headers, as some gateways do, or to
    /// spare the first request, which goes alone to learn it.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Limits, ModelClass};
    ///
    /// let tier = Limits::per_minute().requests(1_000).input_tokens(450_000).output_tokens(90_000);
    /// let budget = Budget::new().assume_server(ModelClass::of("claude-haiku-4-5"), tier);
    /// ```
    #[must_use = "the budget itself is returned"]
    pub fn assume_server(self, class: ModelClass, limits: Limits) -> Budget {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        if let Some(queue) = state.queues.get_mut(&class) {
            queue.limiter.assume_server(now, &limits);
        }
        state.assumed.insert(class, limits);
        state.wake_better(now);
        drop(state);
        self
    }

    /// Decides otherwise than [`ModelClass::of`] which models share limits. What the closure says
    /// stands, in fast mode as well. Each class that it names is kept as long as the budget: name
    /// few, not a new one for each request.
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
        let before = lock(&self.shared.state)
            .classify
            .replace(Arc::new(classify));
        // Outside of the lock: what a closure holds may take it.
        drop(before);
        self
    }

    /// Calls `on_wait` whenever a request begins a wait of a second or more. It is called on the
    /// thread that waits, outside of any lock.
    ///
    /// ```
    /// use anthropic_blocking::Budget;
    ///
    /// let budget = Budget::new().on_wait(|wait| eprintln!("waiting: {}", wait.cause));
    /// ```
    #[must_use = "the budget itself is returned"]
    pub fn on_wait(self, on_wait: impl Fn(&Wait) + Send + Sync + 'static) -> Budget {
        let before = lock(&self.shared.state).on_wait.replace(Arc::new(on_wait));
        drop(before);
        self
    }

    /// The class that a model belongs to.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Model, ModelClass};
    ///
    /// let model = Model::new("claude-opus-4-8");
    /// assert_eq!(Budget::new().class_of(&model), ModelClass::of("claude-opus-4-5"));
    /// ```
    pub fn class_of(&self, model: &Model) -> ModelClass {
        self.class_for(model, false)
    }

    /// The class that a request belongs to: that of its model, in fast mode unless the caller's
    /// closure decides.
    pub(crate) fn class_for(&self, model: &Model, is_fast: bool) -> ModelClass {
        let classify = lock(&self.shared.state).classify.clone();
        match classify {
            Some(classify) => classify(model),
            None if is_fast => ModelClass::of(model).fast(),
            None => ModelClass::of(model),
        }
    }

    /// Waits until a request may be sent, behind those of its class that came before.
    ///
    /// Blocks for as long as it takes, at most for `deadline`; fails at once where that cannot be
    /// met. Settle the reservation with what became of the request; one that is dropped counts as
    /// sent, outcome unknown.
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
    /// Kind [`Budget`](crate::ErrorKind::Budget): the request is larger than a limit, or there is no room
    /// before the deadline; the text says when there would be. Where a pause after a refusal lasts
    /// beyond the deadline, the kind is [`RateLimit`](crate::ErrorKind::RateLimit), and
    /// [`Overloaded`](crate::ErrorKind::Overloaded) where that is the pause of an overloaded host.
    /// Without a deadline only a request that is larger than a limit fails.
    pub fn reserve(
        &self,
        class: &ModelClass,
        cost: Cost,
        deadline: Option<Duration>,
    ) -> Result<Reservation> {
        let ask = AdmissionRequest {
            class,
            cost,
            ticket: None,
            is_back: false,
            time_left: deadline,
            max_wait: None,
            is_stopped: &|| false,
        };
        let denied = |denied: AdmissionFailure| denied.into_error("reserving".into(), deadline);
        self.acquire(&ask).map_err(denied)
    }

    /// Asks whether a request may be sent now, without waiting.
    ///
    /// ```
    /// use anthropic_blocking::{Admission, Budget, Cost, Limits, ModelClass};
    ///
    /// let budget = Budget::new().default_limits(Limits::per_minute().requests(1));
    /// let class = ModelClass::of("claude-haiku-4-5");
    ///
    /// let first = budget.try_reserve(&class, Cost::request())?;
    /// assert!(matches!(first, Admission::Granted(_)));
    /// let second = budget.try_reserve(&class, Cost::request())?;
    /// assert!(matches!(second, Admission::NotBefore(wait) if wait.as_secs() > 50));
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Budget`](crate::ErrorKind::Budget): the request is larger than a limit.
    pub fn try_reserve(&self, class: &ModelClass, cost: Cost) -> Result<Admission> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let (queue, gate) = state.queue(class);
        let ticket = queue.ticket();
        if queue.is_next(ticket) {
            match queue.limiter.try_admit(now, &cost, gate) {
                Ok(key) => {
                    let reservation = Reservation::new(self.clone(), class, key, ticket);
                    return Ok(Admission::Granted(reservation));
                }
                Err(NotNow::NotBefore(time, _)) => {
                    return Ok(Admission::NotBefore(seconds(time - now)));
                }
                Err(NotNow::Never(excess)) => {
                    return Err(
                        AdmissionFailure::Exceeds(excess).into_error("reserving".into(), None)
                    );
                }
                Err(NotNow::OnEvent(_)) => {}
            }
        }
        let at_best = queue.at_best(now, ticket, &cost, gate);
        Ok(Admission::NotBefore(seconds(at_best - now).max(SOON)))
    }

    /// What each class has used, what it waits for, and what is known of the server's limits.
    ///
    /// ```
    /// # let budget = anthropic_blocking::Budget::new();
    /// for class in budget.snapshot() {
    ///     let (used, left) = (class.requests.used, class.requests.server_remaining);
    ///     println!("{}: {used} requests in the last minute, {left:?} left", class.class);
    /// }
    /// ```
    pub fn snapshot(&self) -> Vec<ClassSnapshot> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let State { queues, gate, .. } = &mut *state;
        queues
            .iter_mut()
            .map(|(class, queue)| ClassSnapshot::of(class, queue, gate, now))
            .collect()
    }

    /// Tells the limiter of a class what became of a request, and wakes whom that lets go.
    fn update<T>(
        &self,
        class: &ModelClass,
        change: impl FnOnce(&mut ClassLimiter, Time, &mut OverloadGate) -> T,
    ) -> Option<T> {
        let now = self.shared.now();
        let mut state = lock(&self.shared.state);
        let State { queues, gate, .. } = &mut *state;
        let result = change(&mut queues.get_mut(class)?.limiter, now, gate);
        state.wake_better(now);
        Some(result)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.snapshot()).finish()
    }
}

impl Shared {
    /// Seconds since the budget was made.
    fn now(&self) -> Time {
        self.clock
            .now()
            .saturating_duration_since(self.birth)
            .as_secs_f64()
    }
}

impl State {
    /// The queue of a class, and the gate before all queues.
    fn queue(&mut self, class: &ModelClass) -> (&mut ClassQueue, &mut OverloadGate) {
        let State {
            queues,
            gate,
            limits,
            default_limits,
            assumed,
            rng,
            ..
        } = self;
        let queue = queues.entry(class.clone()).or_insert_with(|| {
            let limits = limits_of(class, limits).unwrap_or(*default_limits);
            let mut limiter = ClassLimiter::new(limits, class.counts_cache_reads(), rng.fork());
            if let Some(assumed) = assumed.get(class) {
                limiter.assume_server(0.0, assumed);
            }
            ClassQueue::new(limiter)
        });
        (queue, gate)
    }

    /// Has all classes keep to the limits that are set now.
    fn set_limits(&mut self, now: Time) {
        for (class, queue) in &mut self.queues {
            let limits = limits_of(class, &self.limits).unwrap_or(self.default_limits);
            queue.limiter.set_limits(now, limits);
        }
    }

    fn wake_better(&mut self, now: Time) {
        for queue in self.queues.values_mut() {
            queue.wake_if_better(now, &mut self.gate);
        }
    }
}

/// What is set for a class, or, in fast mode, for the same models otherwise.
fn limits_of(class: &ModelClass, limits: &BTreeMap<ModelClass, Limits>) -> Option<Limits> {
    let set = |class: &ModelClass| limits.get(class).copied();
    set(class).or_else(|| set(&class.base()?))
}

fn seconds(time: Time) -> Duration {
    Duration::try_from_secs_f64(time.max(0.0)).unwrap_or(Duration::MAX)
}

/// When to ask again where nobody knows.
const SOON: Duration = Duration::from_millis(100);
