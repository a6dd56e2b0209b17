//! The attempts of a call: wait for admission, send, read, and after a failure retry or give up.

use std::time::{Duration, Instant};

use log::{debug, info};

use super::call::{Call, CompletedCall, ResponseHead};
use super::classify::{
    Classification, FailureDetails, NOT_THE_API, RetryAction, VERSION_IN_BASE_URL, classify,
};
use super::core::LOG;
use super::response::{Failure, read_error};
use super::retry::{Decision, RetryState};
use super::usage::AttemptUsage;
use crate::budget::{AdmissionFailure, AdmissionRequest};
use crate::clock::lock;
use crate::error::{Cause, Error, Result, TimeLimit, display_duration};
use crate::http::Response;
use crate::types::{
    Attempt, Delivery, ErrorKind, RequestId, ResponseMeta, Usage, WaitCause, Waits,
};

impl Call<'_> {
    /// Makes attempts until `read` returns a value for a response, or a retry makes no sense.
    ///
    /// `read` gets responses with a status of success only, and reads their bodies. Blocks for as
    /// long as the settings permit.
    pub(crate) fn run<T>(
        &self,
        read: impl FnMut(&mut Response, &mut AttemptUsage) -> Result<T, Failure>,
    ) -> Result<CompletedCall<T>> {
        self.attempt_until_done(read)
            .inspect_err(|_| self.settings.totals.add_failed_call(self.model))
    }

    /// Runs a call that uses no tokens.
    pub(crate) fn run_without_tokens<T>(
        &self,
        mut read: impl FnMut(&mut Response) -> Result<T, Failure>,
    ) -> Result<(T, ResponseMeta)> {
        let done = self.run(|response, _| read(response))?;
        done.attempt_usage.settle(&Usage::default());
        Ok((done.value, done.meta))
    }

    fn attempt_until_done<T>(
        &self,
        mut read: impl FnMut(&mut Response, &mut AttemptUsage) -> Result<T, Failure>,
    ) -> Result<CompletedCall<T>> {
        let mut attempts = Attempts::new(self);
        loop {
            let mut started = attempts.send_until_success_status()?;
            match read(&mut started.response, &mut started.usage) {
                Ok(value) => return Ok(attempts.complete(started, value)),
                Err(failure) => {
                    let took = self.time_since(started.sent);
                    // Closes the connection of a response that was not read to its end.
                    drop(started.response);
                    attempts.retry_or_fail(started.head, failure, started.usage, took)?;
                }
            }
        }
    }
}

/// The attempts of a call so far, and what decides about the next one.
struct Attempts<'a> {
    call: &'a Call<'a>,
    retry_state: RetryState,
    finished: Vec<Attempt>,
    /// The waits for the next attempt.
    waited: Waits,
    /// The ticket of the first attempt: a retry has its place in the queue of the budget.
    ticket: Option<u64>,
    /// The failure of the last attempt: the error of the call if no other attempt is made.
    last_failure: Option<FailedAttempt>,
    /// Whether that failure was a refusal after which the call waits in the queue again.
    was_refused: bool,
}

/// An attempt whose response has begun with a status of success.
struct StartedAttempt {
    head: ResponseHead,
    response: Response,
    usage: AttemptUsage,
    sent: Instant,
}

/// A failed attempt, and its classification.
struct FailedAttempt {
    head: ResponseHead,
    failure: Failure,
    classification: Classification,
}

impl FailedAttempt {
    /// Whether a part of the message has arrived, which is billed.
    fn has_content(&self) -> bool {
        let partial = self.failure.partial.as_ref();
        partial.is_some_and(|partial| !partial.content.is_empty())
    }
}

impl<'a> Attempts<'a> {
    fn new(call: &'a Call<'a>) -> Attempts<'a> {
        let rng = lock(&call.core.rng).fork();
        Attempts {
            call,
            retry_state: RetryState::new(call.settings.retry, rng),
            finished: Vec::new(),
            waited: Waits::default(),
            ticket: None,
            last_failure: None,
            was_refused: false,
        }
    }

    /// Makes attempts until a response begins with a status of success.
    fn send_until_success_status(&mut self) -> Result<StartedAttempt> {
        let call = self.call;
        loop {
            let usage = self.wait_for_admission()?;
            if let Some(error) = self.take_end() {
                usage.cancel();
                return Err(error);
            }
            let sent = call.core.sleeper.clock().now();
            let request = call.outgoing_request(call.time_left());
            let (head, failure) = match call.core.transport.send(&request) {
                Ok(mut response) => {
                    let head = call.read_head(&response);
                    if matches!(response.status, 200..=299) {
                        usage.learn(&head.rate_limits);
                        return Ok(StartedAttempt {
                            head,
                            response,
                            usage,
                            sent,
                        });
                    }
                    (head, read_error(&mut response))
                }
                Err(fault) => (ResponseHead::default(), fault.into()),
            };
            self.retry_or_fail(head, failure, usage, call.time_since(sent))?;
        }
    }

    /// Blocks until the budget has room for an attempt.
    fn wait_for_admission(&mut self) -> Result<AttemptUsage> {
        let call = self.call;
        let new_usage =
            |reservation| AttemptUsage::new(&call.settings.totals, call.model, reservation);
        let Some((class, cost)) = &call.cost else {
            return Ok(new_usage(None));
        };
        let last_failure = self.last_failure.take();
        let was_refused = std::mem::take(&mut self.was_refused);
        let time_left = call.time_left();
        let admission = call.core.budget.acquire(&AdmissionRequest {
            class,
            cost: *cost,
            ticket: self.ticket,
            was_refused,
            time_left,
            max_wait: self.retry_state.max_wait_left(),
            is_stopped: &|| call.is_cancelled(),
        });
        match admission {
            Ok(reservation) => {
                let waited = suspended_time(reservation.waited(), was_refused);
                self.retry_state.add_wait(waited);
                self.ticket = Some(reservation.ticket());
                self.waited.add_all(reservation.waited());
                self.last_failure = last_failure;
                Ok(new_usage(Some(reservation)))
            }
            Err(denied) => Err(self.admission_error(denied, last_failure, time_left)),
        }
    }

    /// Returns the error of a call that was not admitted: the failure of its last attempt, with the
    /// reason why there is no other, or that of the admission.
    fn admission_error(
        &mut self,
        denied: AdmissionFailure,
        last_failure: Option<FailedAttempt>,
        time_left: Option<Duration>,
    ) -> Error {
        let reason = match denied {
            AdmissionFailure::Stopped => return self.cancel_error(last_failure),
            AdmissionFailure::Exceeds(excess) => excess.to_string(),
            AdmissionFailure::Late { cause, .. } => format!("{AFTER_DEADLINE}: {cause}"),
            AdmissionFailure::MaxWaitExceeded(_) => self.retry_state.max_wait_reason(),
        };
        let Some(mut last_failure) = last_failure else {
            return denied.into_error(self.call.action(), time_left);
        };
        if matches!(denied, AdmissionFailure::Exceeds(_)) {
            last_failure.classification.action = RetryAction::Never;
        }
        self.error(last_failure, Some(reason))
    }

    /// Returns the error of a call that may not go on, because it was cancelled or its deadline has
    /// passed.
    fn take_end(&mut self) -> Option<Error> {
        if self.call.is_cancelled() {
            let last_failure = self.last_failure.take();
            return Some(self.cancel_error(last_failure));
        }
        if self.call.time_left() != Some(Duration::ZERO) {
            return None;
        }
        if let Some(last_failure) = self.last_failure.take() {
            return Some(self.error(last_failure, Some(AFTER_DEADLINE.to_owned())));
        }
        let cause = Cause::TimeLimit {
            limit: TimeLimit::Deadline,
        };
        let error = Error::new(ErrorKind::Timeout, self.call.action(), cause)
            .with_classification(true, None, None)
            .with_attempts(std::mem::take(&mut self.finished));
        Some(error)
    }

    /// Records the successful attempt and returns the result of the call.
    fn complete<T>(mut self, started: StartedAttempt, value: T) -> CompletedCall<T> {
        let call = self.call;
        let (head, took) = (started.head, call.time_since(started.sent));
        drop(started.response);
        lock(&call.core.retry_budget).record_success();
        self.record(&head, Delivery::Responded, None, took);
        debug!(
            target: LOG,
            "{}: {} in {}{}",
            call.action(),
            head.status.unwrap_or(200),
            display_duration(took),
            in_parentheses(head.request_id.as_ref()),
        );
        CompletedCall {
            value,
            meta: ResponseMeta {
                request_id: head.request_id,
                rate_limits: head.rate_limits,
                attempts: self.finished,
            },
            attempt_usage: started.usage,
        }
    }

    /// Handles a failed attempt: classifies and records it, and decides. Returns when the next attempt
    /// may be made, after a backoff that this function sleeps through; the wait for limits and
    /// overloads is left to the next admission. Fails if there is no next attempt.
    fn retry_or_fail(
        &mut self,
        mut head: ResponseHead,
        mut failure: Failure,
        usage: AttemptUsage,
        took: Duration,
    ) -> Result<()> {
        let call = self.call;
        head.request_id = head.request_id.or(failure.request_id.take());
        let has_error_status = matches!(failure.cause, Cause::Api { .. }) && !failure.streamed;
        if matches!(head.status, Some(200..=299)) && !has_error_status {
            // The headers belong to a success, where `retry-after` is no reason to wait.
            head.rate_limits.retry_after = None;
            head.should_retry = None;
        }
        let is_aborted = call.is_aborted();
        let mut classification = self.classify(&head, &failure);
        let ticket = usage.ticket();
        let excess = usage.fail_attempt(&classification, &failure, &head.rate_limits);
        if excess.is_some() {
            classification.action = RetryAction::Never;
        }
        if is_aborted {
            classification.kind = ErrorKind::Shutdown;
        }
        let text = format!(
            "{}: {}{}",
            call.action_for(&failure.cause),
            failure.cause.brief(),
            in_parentheses(head.request_id.as_ref()),
        );
        debug!(target: LOG, "{text}, {} after {}", failure.delivery, display_duration(took));
        self.record(&head, failure.delivery, Some(classification.kind), took);
        if is_aborted {
            return Err(self.shutdown_error());
        }
        let mut failed = FailedAttempt {
            head,
            failure,
            classification,
        };
        let may_repeat = call.settings.retry.may_repeat();
        if failed.has_content() && classification.action != RetryAction::Never && !may_repeat {
            failed.classification.action = RetryAction::IfRepeatable;
        }
        let waits_in_queue = matches!(
            failed.classification.action,
            RetryAction::AfterPause | RetryAction::AfterOverload
        );
        let ticket = ticket.filter(|_| waits_in_queue);
        match self.decide(&failed, ticket) {
            Decision::GiveUp(reason) => {
                let reason = reason.or_else(|| excess.map(|excess| excess.to_string()));
                Err(self.error(failed, reason))
            }
            Decision::Requeue => self.return_to_queue(failed, ticket, &text),
            Decision::RetryAfter(backoff) => self.back_off(failed, backoff, &text),
        }
    }

    fn classify(&self, head: &ResponseHead, failure: &Failure) -> Classification {
        let mut classification = classify(&FailureDetails {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: self.call.repeatable,
            retry_after: head.rate_limits.retry_after,
            should_retry: head.should_retry,
        });
        let is_vague = matches!(classification.advice, None | Some(NOT_THE_API));
        if head.status == Some(404) && is_vague && self.call.core.base_url.ends_with_version() {
            classification.advice = Some(VERSION_IN_BASE_URL);
        }
        classification
    }

    /// Decides about the next attempt; `ticket` is the place in the queue to which a refused request
    /// returns.
    fn decide(&mut self, failed: &FailedAttempt, ticket: Option<u64>) -> Decision {
        let call = self.call;
        let action = failed.classification.action;
        if call.is_cancelled() {
            let reason = (action != RetryAction::Never).then(|| CANCELLED.to_owned());
            return Decision::GiveUp(reason);
        }
        let retry_after = failed.head.rate_limits.retry_after;
        let decision = self
            .retry_state
            .decide(action, retry_after, ticket.is_some(), || {
                lock(&call.core.retry_budget).take_retry(call.core.sleeper.clock().now())
            });
        // Each attempt that produced content costs money, so that it counts.
        if decision == Decision::Requeue
            && failed.has_content()
            && !self.retry_state.count_attempt()
        {
            return Decision::GiveUp(None);
        }
        decision
    }

    /// Leaves the wait for the next attempt to the queue of the budget, unless it is known to end too
    /// late.
    fn return_to_queue(
        &mut self,
        failed: FailedAttempt,
        ticket: Option<u64>,
        text: &str,
    ) -> Result<()> {
        let (Some((class, cost)), Some(ticket)) = (&self.call.cost, ticket) else {
            return Ok(());
        };
        let wait = self.call.core.budget.minimum_wait(class, ticket, cost);
        if let Some(reason) = self.reason_against_wait(wait.total, wait.suspended) {
            return Err(self.error(failed, Some(reason)));
        }
        info!(
            target: LOG,
            "{text}: waiting {} before attempt {}",
            display_duration(wait.total),
            self.finished.len() + 1,
        );
        self.was_refused = true;
        self.last_failure = Some(failed);
        Ok(())
    }

    /// Sleeps before the next attempt, unless the sleep would end after the deadline.
    fn back_off(&mut self, failed: FailedAttempt, mut backoff: Duration, text: &str) -> Result<()> {
        let call = self.call;
        let retry_after = failed.head.rate_limits.retry_after;
        if let (Some(asked), Some(left)) = (retry_after, call.time_left())
            && asked < left
        {
            // The jitter must neither miss the deadline nor use up the time for the response.
            backoff = backoff.min(asked + (left - asked) / 2);
        }
        if call.time_left().is_some_and(|left| backoff >= left) {
            let reason = self.reason_against_wait(backoff, Duration::ZERO);
            return Err(self.error(failed, reason));
        }
        info!(
            target: LOG,
            "{text}: waiting {} before attempt {}",
            display_duration(backoff),
            self.finished.len() + 1,
        );
        self.waited.add(WaitCause::Backoff, backoff);
        self.last_failure = Some(failed);
        call.core
            .sleeper
            .sleep_unless(backoff, || call.settings.cancel.is_stopped())
            .map_err(|_| {
                let last_failure = self.last_failure.take();
                self.cancel_error(last_failure)
            })
    }

    /// Returns why a wait makes no sense: it would end after the deadline, or the part of it for a
    /// pause or an overload exceeds `max_wait`.
    fn reason_against_wait(&self, wait: Duration, suspended: Duration) -> Option<String> {
        let shown = display_duration(wait);
        if self.call.time_left().is_some_and(|left| wait >= left) {
            return Some(format!(
                "the next attempt, in {shown}, would be after the deadline"
            ));
        }
        let max_wait_left = self.retry_state.max_wait_left();
        if max_wait_left.is_some_and(|left| suspended > left) {
            let reason = self.retry_state.max_wait_reason();
            return Some(format!("the next attempt would be in {shown}: {reason}"));
        }
        None
    }

    /// Adds a finished attempt to those of the call and to the totals.
    fn record(
        &mut self,
        head: &ResponseHead,
        delivery: Delivery,
        failure: Option<ErrorKind>,
        took: Duration,
    ) {
        let attempt = Attempt {
            delivery,
            status: head.status,
            failure,
            request_id: head.request_id.clone(),
            waited: std::mem::take(&mut self.waited),
            took,
        };
        let call = self.call;
        call.settings.totals.add_attempt(call.model, &attempt);
        self.finished.push(attempt);
    }

    /// Returns the error of a call that was cancelled between two attempts: the failure of the last
    /// one, unless the client was shut down.
    fn cancel_error(&mut self, last_failure: Option<FailedAttempt>) -> Error {
        match last_failure.filter(|_| !self.call.core.sleeper.is_stopped()) {
            Some(last_failure) => self.error(last_failure, Some(CANCELLED.to_owned())),
            None => self.shutdown_error(),
        }
    }

    fn shutdown_error(&mut self) -> Error {
        Error::new(ErrorKind::Shutdown, self.call.action(), Cause::Shutdown)
            .with_attempts(std::mem::take(&mut self.finished))
    }

    /// Returns the error of a failed attempt after which there is no other, with the reason.
    fn error(&mut self, failed: FailedAttempt, reason: Option<String>) -> Error {
        let FailedAttempt {
            head,
            failure,
            classification,
        } = failed;
        let action = self.call.action_for(&failure.cause);
        Error::new(classification.kind, action, failure.cause)
            .with_classification(classification.is_retryable(), classification.advice, reason)
            .with_response(head.request_id, head.rate_limits)
            .with_attempts(std::mem::take(&mut self.finished))
            .with_partial(failure.partial)
    }
}

/// Returns the part of the waits that counts against `max_wait`: pauses and overloads, and, once the
/// server has refused the call, the waits for its limits.
fn suspended_time(waits: &Waits, was_refused: bool) -> Duration {
    let counts = |cause| match cause {
        WaitCause::Pause | WaitCause::Overload => true,
        WaitCause::Server(_) | WaitCause::Pace(_) | WaitCause::Concurrency => was_refused,
        _ => false,
    };
    waits
        .iter()
        .filter(|(cause, _)| counts(*cause))
        .fold(Duration::ZERO, |sum, (_, wait)| sum.saturating_add(wait))
}

fn in_parentheses(request_id: Option<&RequestId>) -> String {
    request_id.map(|id| format!(" ({id})")).unwrap_or_default()
}

/// Why a call has no next attempt whose deadline passed during the wait for it.
const AFTER_DEADLINE: &str = "the next attempt would be after the deadline";

/// Why a call has no next attempt that was cancelled.
const CANCELLED: &str = "not retried, because the run was stopped";

#[cfg(test)]
mod tests {
    use super::super::retry::RetryPolicy;
    use super::*;
    use crate::client::{Client, Options};
    use crate::clock::CancelToken;
    use crate::testing::ManualClock;

    /// Returns a client that retries without a pause, on this clock.
    fn client_without_backoff(clock: &ManualClock) -> Client {
        let at_once = RetryPolicy::new()
            .initial_backoff(Duration::ZERO)
            .max_backoff(Duration::ZERO);
        let builder = Client::builder().api_key("test").clock(clock);
        builder.retry(at_once).build().expect("valid settings")
    }

    fn failure() -> Failure {
        Failure::from(Cause::Status {
            status: 500,
            excerpt: String::new(),
        })
    }

    /// The time between admission and sending is too short for a test through the public API.
    #[test]
    fn call_cancelled_after_admission_keeps_its_failure() {
        let client = client_without_backoff(&ManualClock::new());
        for path in ["/v1/x", "/v1/messages/batches"] {
            let mut settings = client.settings().clone();
            settings.cancel = CancelToken::default();
            let call = Call {
                settings: &settings,
                ..client.call("GET", path, None)
            };
            let mut attempts = Attempts::new(&call);
            let usage = attempts.wait_for_admission().expect("room");
            let failed =
                attempts.retry_or_fail(ResponseHead::default(), failure(), usage, Duration::ZERO);
            failed.expect("a retry");
            let usage = attempts.wait_for_admission().expect("room");
            settings.cancel.stop();
            let error = attempts.take_end().expect("an error");
            usage.cancel();
            assert_eq!(error.kind(), ErrorKind::Server, "{path}: {error}");
            assert_eq!(error.attempts().len(), 1);
        }
    }

    /// Like the test above, for a deadline that passes in this time.
    #[test]
    fn call_that_is_late_after_admission_keeps_its_failure() {
        let clock = ManualClock::new();
        let client =
            client_without_backoff(&clock).with(Options::new().deadline(Duration::from_secs(9)));
        let call = client.call("GET", "/v1/x", None);
        let mut attempts = Attempts::new(&call);
        let usage = attempts.wait_for_admission().expect("room");
        let head = ResponseHead {
            request_id: RequestId::new("req_1"),
            ..ResponseHead::default()
        };
        let failed = attempts.retry_or_fail(head, failure(), usage, Duration::ZERO);
        failed.expect("a retry");
        let usage = attempts.wait_for_admission().expect("room");
        clock.advance(Duration::from_secs(9));
        let error = attempts.take_end().expect("an error");
        usage.cancel();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        assert_eq!(error.request_id().map(RequestId::as_str), Some("req_1"));
        assert!(error.to_string().contains(AFTER_DEADLINE), "{error}");
    }
}
