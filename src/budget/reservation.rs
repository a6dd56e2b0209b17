//! A granted reservation, until its request ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::class::ModelClass;
use super::limiter::decision::OverLimit;
use super::limiter::headers::{LimitHeaders, Refusal};
use super::limiter::slab::SlabKey;
use super::shared::SharedBudget;
use crate::types::{ApiError, Delivery, RateLimits, Usage, Waits};

/// Room for one request, granted by [`Budget::reserve`](crate::Budget::reserve).
///
/// End it with the outcome of the request: [`settle`](Reservation::settle),
/// [`refuse`](Reservation::refuse), [`overloaded`](Reservation::overloaded) or
/// [`fail`](Reservation::fail). A dropped reservation counts as sent with unknown outcome: its
/// expected cost stays charged. No method blocks.
///
/// ```
/// use anthropic_blocking::{Budget, Cost, Delivery, ModelClass, RateLimits, Usage};
///
/// enum Outcome {
///     Success(Usage, RateLimits),
///     TooManyRequests(RateLimits),
///     ConnectionLost,
/// }
///
/// fn send(budget: &Budget, post: impl Fn() -> Outcome) -> anthropic_blocking::Result<()> {
///     let class = ModelClass::of("claude-haiku-4-5");
///     let cost = Cost::request().input_bytes(5_000).max_tokens(1_024);
///     let reservation = budget.reserve(&class, cost, None)?;
///     match post() {
///         Outcome::Success(usage, limits) => reservation.settle(&usage, Some(&limits)),
///         Outcome::TooManyRequests(limits) => reservation.refuse(None, &limits),
///         Outcome::ConnectionLost => reservation.fail(Delivery::Unknown),
///     }
///     Ok(())
/// }
/// # send(&Budget::new(), || Outcome::Success(Usage::new(1_400, 200), RateLimits::default()))?;
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[must_use = "dropping a reservation charges its expected cost"]
pub struct Reservation {
    shared: Arc<SharedBudget>,
    class: ModelClass,
    key: Option<SlabKey>,
    ticket: u64,
    waited: Waits,
}

impl Reservation {
    pub(super) fn new(
        shared: Arc<SharedBudget>,
        class: &ModelClass,
        key: SlabKey,
        ticket: u64,
    ) -> Reservation {
        let class = class.clone();
        Reservation {
            shared,
            class,
            key: Some(key),
            ticket,
            waited: Waits::default(),
        }
    }

    pub(super) fn with_waits(mut self, waited: Waits) -> Reservation {
        self.waited = waited;
        self
    }

    /// Returns the ticket, with which another attempt keeps its place in the queue.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Returns the class whose limits the request counts against.
    pub fn class(&self) -> &ModelClass {
        &self.class
    }

    /// Returns how long the request waited for admission, by cause.
    pub fn waited(&self) -> &Waits {
        &self.waited
    }

    /// Reports the rate-limit headers of the response, when its head arrives.
    pub fn learn(&self, limits: &RateLimits) {
        let Some(key) = self.key else { return };
        let headers = LimitHeaders::of_class(&self.class, limits);
        self.shared.update_limiter(&self.class, |limiter, now, _| {
            limiter.learn_from_headers(now, key, &headers)
        });
    }

    /// Reports the usage of `message_start`, which shows the size of the input.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, ModelClass, RateLimits, Usage};
    ///
    /// let budget = Budget::new();
    /// let cost = Cost::request().input_bytes(5_000).max_tokens(1_024);
    /// let reservation = budget.reserve(&ModelClass::of("claude-haiku-4-5"), cost, None)?;
    ///
    /// // A streamed response: its head, `message_start`, then more and more output.
    /// reservation.learn(&RateLimits::default());
    /// reservation.begin(&Usage::new(1_400, 1));
    /// reservation.progress(250);
    /// reservation.settle(&Usage::new(1_400, 310), None);
    /// assert_eq!(budget.snapshot()[0].output_tokens.used, 310);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn begin(&self, usage: &Usage) {
        let Some(key) = self.key else { return };
        self.shared
            .update_limiter(&self.class, |limiter, now, gate| {
                limiter.record_start(now, key, usage, gate)
            });
    }

    /// Reports roughly how many output tokens of a stream have arrived.
    pub fn progress(&self, output_tokens: u64) {
        let Some(key) = self.key else { return };
        self.shared.update_limiter(&self.class, |limiter, now, _| {
            limiter.record_output(now, key, output_tokens);
        });
    }

    /// Ends the reservation of a request that succeeded, with its usage. `limits` are the
    /// rate-limit headers, unless [`learn`](Reservation::learn) reported them before.
    pub fn settle(mut self, usage: &Usage, limits: Option<&RateLimits>) {
        let Some(key) = self.key.take() else { return };
        let headers = limits.map(|limits| LimitHeaders::of_class(&self.class, limits));
        self.shared
            .update_limiter(&self.class, |limiter, now, gate| {
                if let Some(headers) = &headers {
                    limiter.learn_from_headers(now, key, headers);
                }
                limiter.settle(now, key, usage, gate);
            });
    }

    /// Ends the reservation of a request that the server refused with a 429, and that can succeed
    /// later. The class pauses for the `retry_after` of `limits`.
    pub fn refuse(self, error: Option<&ApiError>, limits: &RateLimits) {
        self.refused(error, limits);
    }

    /// Like `refuse`, but returns `Some` if the request exceeds the limit itself.
    pub(crate) fn refused(
        mut self,
        error: Option<&ApiError>,
        limits: &RateLimits,
    ) -> Option<OverLimit> {
        let key = self.key.take()?;
        let refusal = error.map_or(Refusal::Unexplained, Refusal::of);
        let headers = LimitHeaders::of_class(&self.class, limits);
        let excess = self
            .shared
            .update_limiter(&self.class, |limiter, now, gate| {
                limiter.record_refusal(now, key, refusal, &headers, gate)
            });
        self.shared.wake_over_max_wait();
        excess.flatten()
    }

    /// Ends the reservation of a request that failed because the server is overloaded, at once or
    /// during the response. Requests of all classes are then sent one at a time until the server
    /// recovers.
    pub fn overloaded(mut self, retry_after: Option<Duration>) {
        let Some(key) = self.key.take() else { return };
        let wait = retry_after.map(|wait| wait.as_secs_f64());
        self.shared
            .update_limiter(&self.class, |limiter, now, gate| {
                limiter.record_overload(now, key, wait, gate);
            });
        self.shared.wake_over_max_wait();
    }

    /// Ends the reservation of a request that failed otherwise. A request that was not sent is
    /// refunded; a request with unknown outcome stays charged.
    pub fn fail(mut self, delivery: Delivery) {
        self.end(delivery);
    }

    fn end(&mut self, delivery: Delivery) {
        let Some(key) = self.key.take() else { return };
        self.shared
            .update_limiter(&self.class, |limiter, now, gate| {
                limiter.record_failure(now, key, delivery, gate);
            });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(Delivery::Unknown);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("class", &self.class)
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}
