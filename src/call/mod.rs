//! One API call: attempts until a response is read, or a failure is final.
//!
//! [`Call::run`] loops in `attempts`: wait for admission by the budget, send, read the response
//! (`response`), and after a failure classify it (`classify`), decide by the policy (`retry`), and wait or
//! give up. `usage` follows an attempt until its end is known, for the budget and for the totals of the
//! client (`totals`).

// What is known of a failure, and what follows from it.
pub(crate) mod classify;

pub(crate) mod response;
pub(crate) mod retry;

// What a client has done, and what an attempt uses.
pub(crate) mod totals;
pub(crate) mod usage;

// The state of a client, a call, and its attempts.
mod core;

mod call;

mod attempts;

/// What a client shares with its clones.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) base: BaseUrl,
    pub(crate) transport: Transport,
    pub(crate) sleeper: Sleeper,
    pub(crate) rng: Mutex<Rng>,
    pub(crate) retries: Mutex<RetryBudget>,
    pub(crate) budget: Budget,
    /// The ids of batches of which it is certain whose they are: nobody else's lost one.
    pub(crate) batches: Mutex<HashSet<String>>,
    pub(crate) endings: DrainPolicy,
}

/// What may differ between the clones of a client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) headers: Headers,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// For an answer in one piece; `None` is the default of ten minutes.
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) stream_underneath: bool,
    pub(crate) input_estimate: InputEstimate,
    pub(crate) totals: Arc<SharedTotals>,
    /// Ends the calls of this copy of the client, and no others.
    pub(crate) cancel: CancelToken,
}

/// One call of an endpoint.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Core,
    pub(crate) settings: &'a Settings,
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    /// Whether the request may be sent again whatever became of it: it reads, or costs nothing.
    pub(crate) repeatable: bool,
    /// How long to wait for an answer that comes in one piece after long work.
    pub(crate) answer_timeout: Option<Duration>,
    /// What the budget must have room for, and of which class; `None` for endpoints without limits.
    pub(crate) cost: Option<(ModelClass, Cost)>,
    /// The model that is asked.
    pub(crate) model: Option<&'a Model>,
    /// When its deadline began to run.
    pub(crate) start: Instant,
}

/// A call that succeeded. Its attempt_usage is still to be settled.
pub(crate) struct CompletedCall<T> {
    pub(crate) value: T,
    pub(crate) meta: ResponseMeta,
    pub(crate) attempt_usage: AttemptUsage,
}

/// An attempt whose answer has begun, with a status of success.
struct StartedResponse {
    head: ResponseHead,
    answer: Response,
    attempt_usage: AttemptUsage,
    sent: Instant,
}

/// What the head of an answer said.
#[derive(Debug, Default)]
struct ResponseHead {
    status: Option<u16>,
    request_id: Option<RequestId>,
    rate_limits: RateLimits,
    should_retry: Option<bool>,
}

impl Call<'_> {
    /// Sends the request until `read` made something of an answer, or there is no more use in it.
    ///
    /// `read` is given answers with a status of success only. Blocks as long as the settings
    /// permit.
    pub(crate) fn run<T>(
        &self,
        read: impl FnMut(&mut Response, &mut AttemptUsage) -> Result<T, Failure>,
    ) -> Result<CompletedCall<T>> {
        self.try_until_done(read)
            .inspect_err(|_| self.settings.totals.call(self.model, true))
    }

    /// Runs a call that costs no tokens.
    pub(crate) fn ask<T>(
        &self,
        mut read: impl FnMut(&mut Response) -> Result<T, Failure>,
    ) -> Result<(T, ResponseMeta)> {
        let done = self.run(|answer, _| read(answer))?;
        done.attempt_usage.settle(&Usage::default());
        Ok((done.value, done.meta))
    }

    fn try_until_done<T>(
        &self,
        mut read: impl FnMut(&mut Response, &mut AttemptUsage) -> Result<T, Failure>,
    ) -> Result<CompletedCall<T>> {
        let mut progress = CallState::new(self);
        loop {
            let mut begun = progress.begin()?;
            match read(&mut begun.answer, &mut begun.attempt_usage) {
                Ok(value) => {
                    let (meta, attempt_usage) = progress.succeeded(begun);
                    return Ok(CompletedCall {
                        value,
                        meta,
                        attempt_usage,
                    });
                }
                Err(failure) => progress.broken(begun, failure)?,
            }
        }
    }

    fn outgoing(&self, left: Option<Duration>) -> OutgoingRequest<'_> {
        OutgoingRequest {
            method: self.method,
            url: self.core.base.join(self.path),
            headers: &self.settings.headers,
            body: self.body,
            timeouts: Timeouts {
                connect: self.settings.connect_timeout,
                idle: self.settings.idle_timeout,
                answer: self.answer_timeout,
                deadline: left,
            },
        }
    }

    fn read_head(&self, answer: &Response) -> ResponseHead {
        let wall = self.core.sleeper.clock().wall();
        ResponseHead {
            status: Some(answer.status),
            request_id: answer.shown_header("request-id").and_then(RequestId::new),
            rate_limits: rate_limits::read(answer.headers(), wall),
            should_retry: match answer.header("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
        }
    }

    /// Whether nothing more may be sent.
    fn is_ending(&self) -> bool {
        self.core.sleeper.is_stopped() || self.settings.cancel.is_stopped()
    }

    /// What the call does, and to whom and by which way where that one was not reached.
    fn doing(&self, cause: &Cause) -> String {
        let action = self.action();
        if !cause.is_out_of_reach() {
            return action;
        }
        let host = self.core.base.host();
        match self.core.transport.proxy() {
            Some(proxy) => format!("{action} to {host} through the proxy {proxy}"),
            None => format!("{action} to {host}"),
        }
    }

    pub(crate) fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or("");
        format!("{} {path}", self.method)
    }
}

/// A call on its way: its time, its attempts, what is left to try.
struct CallState<'a> {
    call: &'a Call<'a>,
    retry_state: RetryState,
    attempts: Vec<Attempt>,
    /// For the attempt that comes next.
    waited: Waits,
    /// The place in the order of the budget that the first attempt was given.
    ticket: Option<u64>,
    /// The failure of the last attempt, and whether it sent the call back to that place.
    last: Option<FailedAttempt>,
    is_back: bool,
}

/// An attempt that failed, and was diagnosed.
struct FailedAttempt {
    head: ResponseHead,
    failure: Failure,
    classification: Classification,
}

impl<'a> CallState<'a> {
    fn new(call: &'a Call<'a>) -> CallState<'a> {
        let rng = lock(&call.core.rng).fork();
        CallState {
            call,
            retry_state: RetryState::new(call.settings.retry, rng),
            attempts: Vec::new(),
            waited: Waits::default(),
            ticket: None,
            last: None,
            is_back: false,
        }
    }

    /// Sends the request until an answer begins with a status of success.
    fn begin(&mut self) -> Result<StartedResponse> {
        let (call, core) = (self.call, self.call.core);
        let clock = core.sleeper.clock();
        loop {
            let attempt_usage = self.admitted()?;
            if let Some(error) = self.ended() {
                attempt_usage.unsent();
                return Err(error);
            }
            let sent = clock.now();
            let (head, failure) = match core.transport.send(&call.outgoing(self.left())) {
                Ok(mut answer) => {
                    let head = call.read_head(&answer);
                    if matches!(answer.status, 200..=299) {
                        attempt_usage.learn(&head.rate_limits);
                        return Ok(StartedResponse {
                            head,
                            answer,
                            attempt_usage,
                            sent,
                        });
                    }
                    (head, read_error(&mut answer))
                }
                Err(fault) => (ResponseHead::default(), fault.into()),
            };
            self.failed(head, failure, attempt_usage, self.since(sent))?;
        }
    }

    fn since(&self, sent: Instant) -> Duration {
        let now = self.call.core.sleeper.clock().now();
        now.saturating_duration_since(sent)
    }

    /// Waits until the budget has room for an attempt.
    fn admitted(&mut self) -> Result<AttemptUsage> {
        let (call, core) = (self.call, self.call.core);
        let Some((class, cost)) = &call.cost else {
            return Ok(AttemptUsage::new(&call.settings.totals, call.model, None));
        };
        let (last, is_back) = (self.last.take(), std::mem::take(&mut self.is_back));
        let time_left = self.left();
        let asked = core.budget.acquire(&AdmissionRequest {
            class,
            cost: *cost,
            ticket: self.ticket,
            is_back,
            time_left,
            max_wait: self.retry_state.max_wait_left(),
            is_stopped: &|| call.is_ending(),
        });
        let denied = match asked {
            Ok(reservation) => {
                self.retry_state
                    .has_waited(flow_control(reservation.waited(), is_back));
                self.ticket = Some(reservation.ticket());
                self.waited.add_all(reservation.waited());
                self.last = last;
                return Ok(AttemptUsage::new(
                    &call.settings.totals,
                    call.model,
                    Some(reservation),
                ));
            }
            Err(denied) => denied,
        };
        let reason = match denied {
            AdmissionFailure::Stopped => return Err(self.stopped(last)),
            AdmissionFailure::Exceeds(excess) => excess.to_string(),
            AdmissionFailure::Late { cause, .. } => {
                format!("the next try would be after the deadline: {cause}")
            }
            AdmissionFailure::Refused(_) => self.retry_state.used_up(),
        };
        let Some(mut last) = last else {
            return Err(denied.into_error(call.action(), time_left));
        };
        if matches!(denied, AdmissionFailure::Exceeds(_)) {
            last.classification.action = RetryAction::Never;
        }
        Err(self.error(last, Some(reason)))
    }

    /// Why a next try is out of the question that would come so late, or after so long a pause.
    fn too_late(&self, wait: Duration, pause: Duration) -> Option<String> {
        let shown = display_duration(wait);
        if self.left().is_some_and(|left| wait >= left) {
            return Some(format!(
                "the next try, in {shown}, would be after the deadline"
            ));
        }
        if self
            .retry_state
            .max_wait_left()
            .is_some_and(|left| pause > left)
        {
            let used_up = self.retry_state.used_up();
            return Some(format!("the next try would be in {shown}: {used_up}"));
        }
        None
    }

    /// What is left until the deadline.
    fn left(&self) -> Option<Duration> {
        let deadline = self.call.settings.deadline?;
        let now = self.call.core.sleeper.clock().now();
        let passed = now.saturating_duration_since(self.call.start);
        Some(deadline.saturating_sub(passed))
    }

    /// The error of a call that may not go on.
    fn ended(&mut self) -> Option<Error> {
        if self.call.is_ending() {
            let last = self.last.take();
            return Some(self.stopped(last));
        }
        if self.left() != Some(Duration::ZERO) {
            return None;
        }
        if let Some(last) = self.last.take() {
            return Some(self.error(last, Some(TOO_LATE.to_owned())));
        }
        let cause = Cause::TimeLimit {
            limit: TimeLimit::Deadline,
        };
        let attempts = std::mem::take(&mut self.attempts);
        let error = Error::new(ErrorKind::Timeout, self.call.action(), cause);
        Some(
            error
                .with_classification(true, None, None)
                .with_attempts(attempts),
        )
    }

    fn succeeded(mut self, begun: StartedResponse) -> (ResponseMeta, AttemptUsage) {
        let (head, took) = (begun.head, self.since(begun.sent));
        drop(begun.answer);
        lock(&self.call.core.retries).deposit();
        let attempt = self.attempt(&head, Delivery::Responded, None, took);
        debug!(
            target: LOG,
            "{}: {} in {}{}",
            self.call.action(),
            head.status.unwrap_or(200),
            display_duration(took),
            shown(attempt.request_id.as_ref()),
        );
        self.attempts.push(attempt);
        let meta = ResponseMeta {
            request_id: head.request_id,
            rate_limits: head.rate_limits,
            attempts: self.attempts,
        };
        (meta, begun.attempt_usage)
    }

    /// An answer failed that had begun well.
    fn broken(&mut self, begun: StartedResponse, failure: Failure) -> Result<()> {
        let took = self.since(begun.sent);
        drop(begun.answer);
        self.failed(begun.head, failure, begun.attempt_usage, took)
    }

    /// Takes note of a failure, and returns when it is time to try again, as far as that is not
    /// for the budget to say.
    fn failed(
        &mut self,
        mut head: ResponseHead,
        mut failure: Failure,
        attempt_usage: AttemptUsage,
        took: Duration,
    ) -> Result<()> {
        let (call, core) = (self.call, self.call.core);
        head.request_id = head.request_id.or(failure.request_id.take());
        let is_said = matches!(failure.cause, Cause::Api { .. }) && !failure.streamed;
        if matches!(head.status, Some(200..=299)) && !is_said {
            // They speak of the status, and the one stands on ordinary successes.
            head.rate_limits.retry_after = None;
            head.should_retry = None;
        }
        let is_cut = core.sleeper.is_stopped() || call.settings.cancel.is_aborted();
        let retry_after = head.rate_limits.retry_after;
        let mut classification = classify(&FailureDetails {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: call.repeatable,
            retry_after,
            should_retry: head.should_retry,
        });
        let is_vague = matches!(classification.advice, None | Some(NOT_THE_API));
        if head.status == Some(404) && is_vague && core.base.ends_with_version() {
            classification.advice = Some(VERSION_IN_BASE_URL);
        }
        let in_line = attempt_usage.ticket();
        let excess = attempt_usage.lose(&classification, &failure, &head.rate_limits);
        if excess.is_some() {
            classification.action = RetryAction::Never;
        }
        if is_cut {
            classification.kind = ErrorKind::Shutdown;
        }
        let id = shown(head.request_id.as_ref());
        let what = format!(
            "{}: {}{id}",
            call.doing(&failure.cause),
            failure.cause.brief()
        );
        debug!(target: LOG, "{what}, {} after {}", failure.delivery, display_duration(took));
        let attempt = self.attempt(&head, failure.delivery, Some(classification.kind), took);
        self.attempts.push(attempt);
        if is_cut {
            return Err(self.shut_down());
        }
        let has_content = failure
            .partial
            .as_ref()
            .is_some_and(|part| !part.content.is_empty());
        if has_content
            && classification.action != RetryAction::Never
            && !call.settings.retry.may_repeat()
        {
            classification.action = RetryAction::IfRepeatable;
        }
        let in_line = in_line.filter(|_| {
            matches!(
                classification.action,
                RetryAction::AfterPause | RetryAction::AfterOverload
            )
        });
        let mut decision = if call.is_ending() {
            let reason =
                (classification.action != RetryAction::Never).then(|| NOTHING_MORE.to_owned());
            Decision::GiveUp(reason)
        } else {
            self.retry_state.decide(
                classification.action,
                retry_after,
                in_line.is_some(),
                || lock(&core.retries).withdraw(core.sleeper.clock().now()),
            )
        };
        if has_content && decision == Decision::Queue && !self.retry_state.count() {
            // Each time there is more to pay for.
            decision = Decision::GiveUp(None);
        }
        let back = FailedAttempt {
            head,
            failure,
            classification,
        };
        let next = self.attempts.len() + 1;
        match (decision, &call.cost, in_line) {
            (Decision::GiveUp(reason), ..) => {
                let reason = reason.or_else(|| excess.map(|excess| excess.to_string()));
                Err(self.error(back, reason))
            }
            (Decision::Queue, Some((class, cost)), Some(ticket)) => {
                let (at_least, pause) = core.budget.at_least(class, ticket, cost);
                if let Some(reason) = self.too_late(at_least, pause) {
                    return Err(self.error(back, Some(reason)));
                }
                info!(target: LOG, "{what}: waiting {} before attempt {next}", display_duration(at_least));
                self.is_back = true;
                self.last = Some(back);
                Ok(())
            }
            (Decision::Queue, ..) => Ok(()),
            (Decision::Again(mut wait), ..) => {
                if let (Some(asked), Some(left)) = (retry_after, self.left()) {
                    if asked < left {
                        // What is random must not miss the deadline, nor use up the time for the
                        // answer.
                        wait = wait.min(asked + (left - asked) / 2);
                    }
                }
                if self.left().is_some_and(|left| wait >= left) {
                    let reason = self.too_late(wait, Duration::ZERO);
                    return Err(self.error(back, reason));
                }
                info!(target: LOG, "{what}: waiting {} before attempt {next}", display_duration(wait));
                self.waited.add(WaitCause::Backoff, wait);
                self.last = Some(back);
                core.sleeper
                    .sleep_unless(wait, || call.settings.cancel.is_stopped())
                    .map_err(|_| {
                        let last = self.last.take();
                        self.stopped(last)
                    })
            }
        }
    }

    /// The error of a call that was stopped while it waited: where it had failed before, that failure.
    fn stopped(&mut self, last: Option<FailedAttempt>) -> Error {
        match last.filter(|_| !self.call.core.sleeper.is_stopped()) {
            Some(last) => self.error(last, Some(NOTHING_MORE.to_owned())),
            None => self.shut_down(),
        }
    }

    fn shut_down(&mut self) -> Error {
        let attempts = std::mem::take(&mut self.attempts);
        Error::new(ErrorKind::Shutdown, self.call.action(), Cause::Shutdown).with_attempts(attempts)
    }

    fn attempt(
        &mut self,
        head: &ResponseHead,
        delivery: Delivery,
        failure: Option<ErrorKind>,
        took: Duration,
    ) -> Attempt {
        let attempt = Attempt {
            delivery,
            status: head.status,
            failure,
            request_id: head.request_id.clone(),
            waited: std::mem::take(&mut self.waited),
            took,
        };
        self.call.settings.totals.attempt(self.call.model, &attempt);
        attempt
    }

    fn error(&mut self, back: FailedAttempt, reason: Option<String>) -> Error {
        let FailedAttempt {
            head,
            failure,
            classification,
        } = back;
        Error::new(
            classification.kind,
            self.call.doing(&failure.cause),
            failure.cause,
        )
        .with_classification(classification.is_retryable(), classification.advice, reason)
        .with_response(head.request_id, head.rate_limits)
        .with_attempts(std::mem::take(&mut self.attempts))
        .with_partial(failure.partial)
    }
}

/// What counts as waiting for limits and overloads: what the server asked for, and, once it refused
/// the call, its limits.
fn flow_control(waits: &Waits, is_back: bool) -> Duration {
    let counts = |cause| match cause {
        WaitCause::Pause | WaitCause::Overload => true,
        WaitCause::Server(_) | WaitCause::Pace(_) | WaitCause::Concurrency => is_back,
        _ => false,
    };
    waits
        .iter()
        .filter(|(cause, _)| counts(*cause))
        .fold(Duration::ZERO, |sum, (_, wait)| sum.saturating_add(wait))
}

/// Writes the body of a request.
pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>> {
    // Most requests are longer than what `to_vec` begins with.
    let mut bytes = Vec::with_capacity(4096);
    serde_json::to_writer(&mut bytes, body).map_err(|error| {
        let cause = Cause::Unusable {
            what: "it cannot be written as JSON".into(),
            source: json_error(&error),
        };
        Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
    })?;
    Ok(bytes)
}

fn shown(request_id: Option<&RequestId>) -> String {
    request_id.map(|id| format!(" ({id})")).unwrap_or_default()
}

/// Why a call is not tried again whose deadline passed while it waited for that.
const TOO_LATE: &str = "the next try would be after the deadline";

/// Why a call is not tried again that ended by itself after it was asked to.
const NOTHING_MORE: &str = "not tried again, because the run was stopped";

/// The target of all log lines.
pub(crate) const LOG: &str = "anthropic_blocking";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, Options};
    use crate::testing::ManualClock;

    /// A client whose next try comes at once, on this clock.
    fn hasty(clock: &ManualClock) -> Client {
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

    /// The moment is too short for a test through the public API.
    #[test]
    fn a_call_that_is_stopped_when_its_next_try_was_just_admitted_keeps_its_failure() {
        let client = hasty(&ManualClock::new());
        for path in ["/v1/x", "/v1/messages/batches"] {
            let mut settings = client.settings().clone();
            settings.cancel = CancelToken::default();
            let call = Call {
                settings: &settings,
                ..client.call("GET", path, None)
            };
            let mut progress = CallState::new(&call);
            let attempt_usage = progress.admitted().expect("room");
            let failed = progress.failed(
                ResponseHead::default(),
                failure(),
                attempt_usage,
                Duration::ZERO,
            );
            failed.expect("it is tried again");
            let attempt_usage = progress.admitted().expect("room");
            settings.cancel.stop();
            let error = progress.ended().expect("it is stopped");
            attempt_usage.unsent();
            assert_eq!(error.kind(), ErrorKind::Server, "{path}: {error}");
            assert_eq!(error.attempts().len(), 1);
        }
    }

    /// So is this one.
    #[test]
    fn a_call_whose_deadline_passes_when_its_next_try_was_just_admitted_keeps_its_failure() {
        let clock = ManualClock::new();
        let client = hasty(&clock).with(Options::new().deadline(Duration::from_secs(9)));
        let call = client.call("GET", "/v1/x", None);
        let mut progress = CallState::new(&call);
        let attempt_usage = progress.admitted().expect("room");
        let head = ResponseHead {
            request_id: RequestId::new("req_1"),
            ..ResponseHead::default()
        };
        let failed = progress.failed(head, failure(), attempt_usage, Duration::ZERO);
        failed.expect("it is tried again");
        let attempt_usage = progress.admitted().expect("room");
        clock.advance(Duration::from_secs(9));
        let error = progress.ended().expect("it is late");
        attempt_usage.unsent();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        assert_eq!(error.request_id().map(RequestId::as_str), Some("req_1"));
        assert!(error.to_string().contains(TOO_LATE), "{error}");
    }
}
