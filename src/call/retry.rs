//! How often and for how long a call is retried: the policy, and pure decisions by it.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::call::classify::RetryAction;
use crate::error::display_duration;

/// How often and for how long a client retries.
///
/// Which failures are retried cannot be set; the [guide](crate::guide::retries) lists them.
///
/// ```
/// use anthropic_blocking::RetryPolicy;
/// use std::time::Duration;
///
/// const PATIENT: RetryPolicy =
///     RetryPolicy::new().max_attempts(10).max_wait(Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    max_attempts: u32,
    initial_backoff: Duration,
    max_backoff: Duration,
    max_wait: Duration,
    max_repeats: u32,
}

impl RetryPolicy {
    /// Returns the default policy: 5 attempts, a backoff of 1 s to 16 s, at most 10 minutes of waits
    /// for rate limits and overloads, and one repeat of a request whose outcome is unknown.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    /// use std::time::Duration;
    ///
    /// let ten_minutes = Duration::from_secs(600);
    /// assert_eq!(RetryPolicy::new(), RetryPolicy::new().max_attempts(5).max_wait(ten_minutes));
    /// ```
    pub const fn new() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 5,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(16),
            max_wait: Duration::from_secs(600),
            max_repeats: 1,
        }
    }

    /// Returns a policy of one attempt: every failure is returned at once. The request still waits in
    /// the queue of the budget for room.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Options, RetryPolicy};
    ///
    /// # fn impatient(client: &Client) -> Client {
    /// client.with(Options::new().retry(RetryPolicy::none()))
    /// # }
    /// ```
    pub const fn none() -> RetryPolicy {
        RetryPolicy::new()
            .max_attempts(1)
            .max_wait(Duration::ZERO)
            .max_repeats(0)
    }

    /// Sets how many attempts a call makes when servers or connections fail, the first included;
    /// at least 1, by default 5. Waiting for a rate limit or an overload uses no attempt.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    ///
    /// const PERSISTENT: RetryPolicy = RetryPolicy::new().max_attempts(10);
    /// ```
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> RetryPolicy {
        self.max_attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// Sets the shortest backoff, by default 1 s.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    /// use std::time::Duration;
    ///
    /// // Someone is looking at the screen.
    /// const QUICK: RetryPolicy = RetryPolicy::new().initial_backoff(Duration::from_millis(100));
    /// ```
    #[must_use]
    pub const fn initial_backoff(mut self, backoff: Duration) -> RetryPolicy {
        self.initial_backoff = backoff;
        self
    }

    /// Sets the longest backoff, by default 16 s. A `retry-after` may be longer.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    /// use anthropic_blocking::{Options, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// let policy = RetryPolicy::new().max_backoff(Duration::from_secs(2));
    /// server.push_all([500, 502, 503, 500].map(Reply::status));
    /// client.with(Options::new().retry(policy)).messages().create(&request)?;
    /// assert!(clock.elapsed() <= Duration::from_secs(4 * 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn max_backoff(mut self, backoff: Duration) -> RetryPolicy {
        self.max_backoff = backoff;
        self
    }

    /// Sets how long a call may wait in all for rate limits (429) and overloads (529), its own and
    /// those of other calls that pause its class, by default 10 minutes; [`Duration::MAX`] for no
    /// bound. Waiting in the queue for room under known limits does not count: a
    /// [deadline](crate::ClientBuilder::deadline) bounds that.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    /// use std::time::Duration;
    ///
    /// // For a program that runs overnight.
    /// const PATIENT: RetryPolicy = RetryPolicy::new().max_wait(Duration::MAX);
    /// ```
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> RetryPolicy {
        self.max_wait = wait;
        self
    }

    /// Sets how often a request with an unknown outcome is repeated, because the connection broke or
    /// fell silent after the request was sent: by default once. A repeated request may be carried out
    /// and billed twice. 0 forbids repeats, also of a request whose response broke off.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    ///
    /// // Prefers an error to a second bill.
    /// const THRIFTY: RetryPolicy = RetryPolicy::new().max_repeats(0);
    /// ```
    #[must_use]
    pub const fn max_repeats(mut self, repeats: u32) -> RetryPolicy {
        self.max_repeats = repeats;
        self
    }
}

impl RetryPolicy {
    pub(crate) fn may_repeat(&self) -> bool {
        self.max_repeats > 0
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy::new()
    }
}

/// The backoffs of one call, with decorrelated jitter: each is uniformly distributed between the
/// shortest backoff and three times the previous one, and at most the longest. Of the usual formulas
/// this one has the lowest peak of simultaneous retries ("Exponential Backoff And Jitter", AWS
/// Architecture Blog, 2015).
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    previous: Duration,
    rng: Rng,
}

impl Backoff {
    pub(crate) fn new(policy: &RetryPolicy, rng: Rng) -> Backoff {
        let shortest = policy.initial_backoff.min(policy.max_backoff);
        Backoff {
            shortest,
            longest: policy.max_backoff,
            previous: shortest,
            rng,
        }
    }

    fn next(&mut self) -> Duration {
        let span = self
            .previous
            .saturating_mul(3)
            .saturating_sub(self.shortest);
        let drawn = self.shortest.saturating_add(scale(span, self.rng.f64()));
        self.previous = drawn.min(self.longest);
        self.previous
    }

    /// Returns a backoff between half of the longest and the longest, for an exhausted retry budget.
    fn next_longest(&mut self) -> Duration {
        scale(self.longest, 0.5 + 0.5 * self.rng.f64())
    }

    /// Returns a wait that the server asked for, extended by up to a tenth, so that threads do not
    /// return in the same instant.
    fn add_jitter(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(scale(wait, MAX_JITTER * self.rng.f64()))
    }
}

/// Multiplies a duration; a product that is out of range becomes [`Duration::MAX`].
pub(crate) fn scale(duration: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * by).unwrap_or(Duration::MAX)
}

/// A budget of retries that all threads of a client share, so that a failing server does not receive
/// several times its load. Each retry of a failure takes one, each success returns a fifth, and time
/// returns one every ten seconds. While none is left, retries wait the longest backoff; they still
/// happen, because a short failure must not lose work.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    left: f64,
    updated: Instant,
}

impl RetryBudget {
    /// Retries at the start, and the most that time alone returns.
    const START: f64 = 10.0;
    /// The most that successes can save up.
    const MAX: f64 = 100.0;
    const PER_SUCCESS: f64 = 0.2;
    const PER_SECOND: f64 = 0.1;

    pub(crate) fn new(now: Instant) -> RetryBudget {
        RetryBudget {
            left: RetryBudget::START,
            updated: now,
        }
    }

    pub(crate) fn record_success(&mut self) {
        self.left = (self.left + RetryBudget::PER_SUCCESS).min(RetryBudget::MAX);
    }

    /// Takes a retry; returns whether one was left.
    pub(crate) fn take_retry(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = self.updated.max(now);
        if self.left < RetryBudget::START {
            self.left = (self.left + passed * RetryBudget::PER_SECOND).min(RetryBudget::START);
        }
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

/// What a call has used of its policy so far.
#[derive(Debug)]
pub(crate) struct RetryState {
    policy: RetryPolicy,
    /// Attempts that count, the first one included.
    counted: u32,
    repeats: u32,
    /// Time waited for rate limits and overloads.
    waited: Duration,
    /// The floor of the next wait; see `next_floor`.
    floor: Duration,
    failures: Backoff,
    overloads: Backoff,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Sleep for this time, then make the next attempt.
    RetryAfter(Duration),
    /// Return to the place in the queue of the budget, and wait there.
    Requeue,
    /// Give up; with a reason where the failure itself does not state it.
    GiveUp(Option<String>),
}

impl RetryState {
    pub(crate) fn new(policy: RetryPolicy, mut rng: Rng) -> RetryState {
        let overloads = Backoff::new(&policy, rng.fork());
        let failures = Backoff::new(&policy, rng);
        RetryState {
            policy,
            counted: 1,
            repeats: 0,
            waited: Duration::ZERO,
            floor: Duration::ZERO,
            failures,
            overloads,
        }
    }

    /// Decides about the next attempt. `in_queue` says that the budget waits for limits and overloads;
    /// `take_retry` takes a retry from the client's budget and returns whether one was left.
    pub(crate) fn decide(
        &mut self,
        action: RetryAction,
        retry_after: Option<Duration>,
        in_queue: bool,
        take_retry: impl FnOnce() -> bool,
    ) -> Decision {
        match action {
            RetryAction::Never => Decision::GiveUp(None),
            RetryAction::AfterPause | RetryAction::AfterOverload if in_queue => {
                let asked = retry_after.unwrap_or(MIN_WAIT);
                match self.waited.saturating_add(asked) > self.policy.max_wait {
                    true => self.give_up_waiting(retry_after),
                    false => Decision::Requeue,
                }
            }
            RetryAction::AfterPause => {
                let floor = self.next_floor();
                self.wait_for_server(floor, retry_after)
            }
            RetryAction::AfterOverload => {
                let backoff = self.overloads.next().max(self.next_floor());
                self.wait_for_server(backoff, retry_after)
            }
            RetryAction::AfterBackoff | RetryAction::IfRepeatable => {
                self.retry_failure(action, retry_after, take_retry)
            }
        }
    }

    /// Returns the shortest time of the next wait, whatever the server asks or the policy says, and
    /// doubles it up to a second. Without this floor tiny waits would make a hot loop, because these
    /// waits do not count as attempts.
    fn next_floor(&mut self) -> Duration {
        let floor = self.floor;
        self.floor = (floor * 2).clamp(MIN_WAIT, Duration::from_secs(1));
        floor
    }

    /// Returns how much longer the call may wait for limits and overloads; `None` without a bound. The
    /// jitter of a wait that is just permitted does not count.
    pub(crate) fn max_wait_left(&self) -> Option<Duration> {
        let left = self.policy.max_wait.saturating_sub(self.waited);
        (self.policy.max_wait < Duration::MAX).then(|| left.saturating_add(MIN_WAIT * 2))
    }

    /// Counts an attempt after a wait that alone would not count; returns whether one was left.
    pub(crate) fn count_attempt(&mut self) -> bool {
        let is_left = self.counted < self.policy.max_attempts;
        self.counted += u32::from(is_left);
        is_left
    }

    /// Adds a wait in the queue of the budget for limits and overloads.
    pub(crate) fn add_wait(&mut self, wait: Duration) {
        self.waited = self.waited.saturating_add(wait);
    }

    /// Returns the reason of a call that may not wait any longer.
    pub(crate) fn max_wait_reason(&self) -> String {
        format!(
            "max_wait ({}) is used up",
            display_duration(self.policy.max_wait)
        )
    }

    fn give_up_waiting(&self, retry_after: Option<Duration>) -> Decision {
        Decision::GiveUp(Some(match retry_after {
            Some(asked) => format!(
                "the server asks to wait {}, which is more than is left of max_wait ({})",
                display_duration(asked),
                display_duration(self.policy.max_wait)
            ),
            None => self.max_wait_reason(),
        }))
    }

    /// Decides to wait for the server, as far as the policy permits.
    fn wait_for_server(&mut self, backoff: Duration, retry_after: Option<Duration>) -> Decision {
        let asked = retry_after.unwrap_or_default();
        if self.waited.saturating_add(asked.max(backoff)) > self.policy.max_wait {
            return self.give_up_waiting(retry_after);
        }
        let wait = backoff.max(self.overloads.add_jitter(asked));
        self.waited = self.waited.saturating_add(wait);
        Decision::RetryAfter(wait)
    }

    /// Decides about the retry of a failure.
    fn retry_failure(
        &mut self,
        action: RetryAction,
        retry_after: Option<Duration>,
        take_retry: impl FnOnce() -> bool,
    ) -> Decision {
        if action == RetryAction::IfRepeatable {
            if self.repeats >= self.policy.max_repeats {
                let again = if self.repeats == 0 {
                    "repeated"
                } else {
                    "repeated again"
                };
                let reason = "the server may have carried it out and billed it";
                return Decision::GiveUp(Some(format!("not {again}: {reason}")));
            }
            self.repeats += 1;
        }
        if self.counted >= self.policy.max_attempts {
            return Decision::GiveUp(None);
        }
        let asked = retry_after.unwrap_or_default();
        if self.waited.saturating_add(asked) > self.policy.max_wait && !asked.is_zero() {
            return self.give_up_waiting(retry_after);
        }
        self.waited = self.waited.saturating_add(asked);
        self.counted += 1;
        let asked = self.failures.add_jitter(asked);
        let backoff = match take_retry() {
            true => self.failures.next(),
            false => self.failures.next_longest(),
        };
        Decision::RetryAfter(backoff.max(asked))
    }
}

/// The largest share by which a wait that the server asked for is extended at random.
const MAX_JITTER: f64 = 0.1;

/// The shortest wait for a limit or an overload after the first one.
const MIN_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_state(policy: RetryPolicy) -> RetryState {
        RetryState::new(policy, Rng::with_seed(7))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn wait_of(decision: Decision) -> Duration {
        match decision {
            Decision::RetryAfter(wait) => wait,
            other => panic!("no wait: {other:?}"),
        }
    }

    #[track_caller]
    fn reason_of(decision: Decision) -> String {
        match decision {
            Decision::GiveUp(Some(reason)) => reason,
            other => panic!("no reason: {other:?}"),
        }
    }

    #[test]
    fn backoff_is_decorrelated_within_its_bounds() {
        let policy = RetryPolicy::new();
        for seed in 0..200 {
            let mut backoff = Backoff::new(&policy, Rng::with_seed(seed));
            let mut previous = seconds(1);
            for _ in 0..50 {
                let delay = backoff.next();
                assert!(delay >= seconds(1) && delay <= seconds(16));
                assert!(delay <= previous * 3, "{delay:?} after {previous:?}");
                previous = delay;
            }
        }
    }

    #[test]
    fn seed_determines_the_backoffs() {
        let draw = |seed| {
            let mut backoff = Backoff::new(&RetryPolicy::new(), Rng::with_seed(seed));
            [backoff.next(), backoff.next(), backoff.next()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn huge_settings_do_not_panic() {
        let policy = RetryPolicy::new()
            .initial_backoff(Duration::MAX)
            .max_backoff(Duration::MAX)
            .max_wait(Duration::MAX);
        let mut retry_state = retry_state(policy);
        for action in [
            RetryAction::AfterPause,
            RetryAction::AfterOverload,
            RetryAction::AfterBackoff,
            RetryAction::AfterOverload,
            RetryAction::AfterPause,
        ] {
            let _ = retry_state.decide(action, Some(Duration::MAX), false, || true);
        }
    }

    #[test]
    fn pause_is_never_shortened_nor_counted() {
        let mut retry_state = retry_state(RetryPolicy::new().max_attempts(1));
        for _ in 0..20 {
            let wait = wait_of(retry_state.decide(
                RetryAction::AfterPause,
                Some(seconds(20)),
                false,
                || false,
            ));
            assert!(wait >= seconds(20) && wait <= seconds(22), "{wait:?}");
        }
    }

    #[test]
    fn waits_end_at_max_wait() {
        let mut retry_state = retry_state(RetryPolicy::new().max_wait(seconds(30)));
        assert!(
            wait_of(retry_state.decide(RetryAction::AfterPause, Some(seconds(20)), false, || true))
                >= seconds(20)
        );
        let reason = reason_of(retry_state.decide(
            RetryAction::AfterPause,
            Some(seconds(20)),
            false,
            || true,
        ));
        assert!(reason.contains("asks to wait 20 s"), "{reason}");
        let mut rounds = 0;
        while let Decision::RetryAfter(_) =
            retry_state.decide(RetryAction::AfterOverload, None, false, || true)
        {
            rounds += 1;
        }
        assert!(rounds < 10, "{rounds}");
    }

    #[test]
    fn zero_backoff_makes_no_hot_loop() {
        let policy = RetryPolicy::new().max_backoff(Duration::ZERO);
        let mut retry_state = retry_state(policy.max_wait(seconds(60)));
        let mut rounds = 0;
        while let Decision::RetryAfter(_) =
            retry_state.decide(RetryAction::AfterOverload, None, false, || true)
        {
            rounds += 1;
            assert!(rounds < 100, "a hot loop");
        }
    }

    #[test]
    fn queue_waits_count_against_max_wait() {
        let mut retry_state = retry_state(RetryPolicy::new().max_wait(seconds(30)).max_attempts(1));
        let queue = |retry_state: &mut RetryState, asked| {
            let action = if asked == 0 {
                RetryAction::AfterOverload
            } else {
                RetryAction::AfterPause
            };
            retry_state.decide(action, (asked > 0).then(|| seconds(asked)), true, || false)
        };
        for _ in 0..3 {
            assert_eq!(queue(&mut retry_state, 20), Decision::Requeue);
        }
        retry_state.add_wait(seconds(20));
        assert!(
            retry_state
                .max_wait_left()
                .is_some_and(|left| left < seconds(11))
        );
        let reason = reason_of(queue(&mut retry_state, 20));
        assert!(reason.contains("asks to wait 20 s"), "{reason}");
        assert_eq!(queue(&mut retry_state, 0), Decision::Requeue);
        retry_state.add_wait(seconds(10));
        assert!(reason_of(queue(&mut retry_state, 0)).contains("is used up"));
    }

    #[test]
    fn wait_of_exactly_max_wait_is_allowed() {
        let mut retry_state = retry_state(RetryPolicy::new().max_wait(seconds(20)));
        wait_of(retry_state.decide(RetryAction::AfterPause, Some(seconds(20)), false, || true));
    }

    #[test]
    fn failures_count_and_respect_retry_after() {
        let mut retry_state = retry_state(RetryPolicy::new().max_attempts(3));
        wait_of(retry_state.decide(RetryAction::AfterBackoff, None, false, || true));
        assert!(
            wait_of(retry_state.decide(
                RetryAction::AfterBackoff,
                Some(seconds(40)),
                false,
                || true
            )) >= seconds(40)
        );
        assert_eq!(
            retry_state.decide(RetryAction::AfterBackoff, None, false, || true),
            Decision::GiveUp(None)
        );
    }

    #[test]
    fn unknown_outcome_is_repeated_once() {
        let mut once = retry_state(RetryPolicy::new());
        wait_of(once.decide(RetryAction::IfRepeatable, None, false, || true));
        let reason = reason_of(once.decide(RetryAction::IfRepeatable, None, false, || true));
        assert!(reason.starts_with("not repeated again"), "{reason}");
        let mut never = retry_state(RetryPolicy::new().max_repeats(0));
        let reason = reason_of(never.decide(RetryAction::IfRepeatable, None, false, || true));
        assert!(reason.contains("billed"), "{reason}");
    }

    #[test]
    fn policy_of_none_never_waits() {
        for action in [
            RetryAction::AfterPause,
            RetryAction::AfterOverload,
            RetryAction::AfterBackoff,
            RetryAction::IfRepeatable,
            RetryAction::Never,
        ] {
            let decision =
                retry_state(RetryPolicy::none()).decide(action, Some(seconds(1)), false, || true);
            assert!(matches!(decision, Decision::GiveUp(_)), "{action:?}");
        }
    }

    #[test]
    fn empty_retry_budget_slows_retries_and_refills() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        let taken = (0..100).filter(|_| budget.take_retry(start)).count();
        assert_eq!(taken, 10);
        let mut retry_state = retry_state(RetryPolicy::new());
        let wait = wait_of(
            retry_state.decide(RetryAction::AfterBackoff, None, false, || {
                budget.take_retry(start)
            }),
        );
        assert!(wait >= seconds(8) && wait <= seconds(16), "{wait:?}");
        for _ in 0..5 {
            budget.record_success();
        }
        assert!(budget.take_retry(start) && !budget.take_retry(start));
        assert!(budget.take_retry(start + seconds(11)));
        let hour = start + seconds(3600);
        assert_eq!((0..100).filter(|_| budget.take_retry(hour)).count(), 10);
    }
}
