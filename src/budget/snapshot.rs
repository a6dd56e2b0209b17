//! Snapshots of a budget, for the caller.

use std::time::Duration;

use super::class::ModelClass;
use super::cost::{Time, to_duration};
use super::limiter::overload_gate::OverloadGate;
use super::queue::ClassQueue;
use crate::types::{Dimension, WaitCause};

/// What one class of models has used and waits for; from
/// [`Budget::snapshot`](crate::Budget::snapshot).
///
/// ```
/// # let budget = anthropic_blocking::Budget::new();
/// for class in budget.snapshot().iter().filter(|class| class.waiting > 0) {
///     let (waiting, cause) = (class.waiting, class.cause);
///     println!("{}: {waiting} wait for {cause:?}, {:?} more", class.class, class.expected_wait);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClassSnapshot {
    /// The class of models.
    pub class: ModelClass,
    /// Requests.
    pub requests: DimensionSnapshot,
    /// Input tokens.
    pub input_tokens: DimensionSnapshot,
    /// Output tokens.
    pub output_tokens: DimensionSnapshot,
    /// Requests sent and not yet settled.
    pub in_flight: usize,
    /// Requests that wait for room.
    pub waiting: usize,
    /// What the head of the queue waits for.
    pub cause: Option<WaitCause>,
    /// The remaining wait of the head of the queue, if it is known.
    pub expected_wait: Option<Duration>,
}

/// The use and the limits of a class in one [`Dimension`].
///
/// ```
/// use anthropic_blocking::{Budget, Limits, ModelClass};
///
/// let class = ModelClass::of("claude-haiku-4-5");
/// let budget = Budget::new().assume_server(class.clone(), Limits::per_minute().requests(50));
/// let _ = budget.try_reserve(&class, anthropic_blocking::Cost::request())?;
///
/// let requests = budget.snapshot()[0].requests;
/// assert_eq!((requests.used, requests.server_limit), (1, Some(50)));
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionSnapshot {
    /// The caller's own limit per minute, where one is set.
    pub limit: Option<u64>,
    /// The use in the last 60 seconds that counts against `limit`.
    pub used: u64,
    /// The server's limit per minute, where it is known.
    pub server_limit: Option<u64>,
    /// The estimated rest of the server's limit now, less what is reserved for requests in flight.
    pub server_remaining: Option<u64>,
    /// The estimated use of the server's limit by other clients, per minute.
    pub foreign: Option<u64>,
}

impl ClassSnapshot {
    pub(super) fn of(
        class: &ModelClass,
        queue: &mut ClassQueue,
        gate: &mut OverloadGate,
        now: Time,
    ) -> ClassSnapshot {
        let view = queue.limiter.view(now);
        let dimension = |dimension: Dimension| {
            let server = view.server[dimension.index()];
            DimensionSnapshot {
                limit: view.limits.of(dimension),
                used: view.used[dimension.index()],
                server_limit: server.map(|server| server.limit.max(0.0) as u64),
                server_remaining: server.map(|server| server.available.max(0.0) as u64),
                foreign: server.map(|server| server.foreign_per_minute.max(0.0) as u64),
            }
        };
        let head = queue.head_wait(now, gate);
        ClassSnapshot {
            class: class.clone(),
            requests: dimension(Dimension::Requests),
            input_tokens: dimension(Dimension::InputTokens),
            output_tokens: dimension(Dimension::OutputTokens),
            in_flight: view.in_flight,
            waiting: queue.waiting(),
            cause: head.map(|wait| wait.cause),
            expected_wait: head
                .and_then(|wait| wait.until)
                .map(|until| to_duration(until - now)),
        }
    }
}
