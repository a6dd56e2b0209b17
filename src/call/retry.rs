//! How often and how long a call retry_state again: the policy, and pure decisions by it.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::call::classify::RetryAction;
use crate::error::display_duration;

/// How persistent a client is.
///
/// Which failures are tried again is not a matter of taste and cannot be set; the
/// [guide](crate::guide::retries) lists them. This sets how often and how long.
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
    /// 5 attempts, backoff from 1 s to 16 s, 10 minutes of waiting for limits and overloads, and
    /// one repeat of a request whose outcome is unknown.
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

    /// One attempt: every failure comes back at once. The request still waits in line for room.
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
    /// those that other calls met, by default 10 minutes; [`Duration::MAX`] for as long as it takes.
    /// Waiting in line for room under limits that are kept does not count: a
    /// [deadline](crate::ClientBuilder::deadline) bounds that.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    /// use std::time::Duration;
    ///
    /// // For a program that runs over night.
    /// const PATIENT: RetryPolicy = RetryPolicy::new().max_wait(Duration::MAX);
    /// ```
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> RetryPolicy {
        self.max_wait = wait;
        self
    }

    /// Sets how often a request is repeated whose outcome is unknown, because the connection broke
    /// or fell silent after it was sent: by default once. Such a request may be carried out and
    /// billed twice; 0 forbids it, and then no answer that failed in its middle is asked for again
    /// either.
    ///
    /// ```
    /// use anthropic_blocking::RetryPolicy;
    ///
    /// // Rather an error than a second bill.
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

/// The delays of one call: decorrelated jitter, each drawn from between the shortest delay and
/// three times the one before, and cut at the longest. Of the known formulas it has the lowest
/// peak of simultaneous retries and serves the most clients ("Exponential Backoff And Jitter",
/// AWS Architecture Blog, 2015).
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

    /// Between half the longest delay and all of it, for when too much fails.
    fn longest(&mut self) -> Duration {
        scale(self.longest, 0.5 + 0.5 * self.rng.f64())
    }

    /// A server's wait, and up to a tenth more, so that threads do not come back in one instant.
    fn stretch(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(scale(wait, 0.1 * self.rng.f64()))
    }
}

pub(crate) fn scale(duration: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * by).unwrap_or(Duration::MAX)
}

/// A brake for retries that all threads of a client share, so that a failing server is not met
/// with several times its load: each retry of a failure takes one, each success gives a fifth
/// back, and time gives one every ten seconds. When none is left, retries wait the longest backoff;
/// they are not given up, because work that is handed over must not be lost to a blip.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    left: f64,
    at: Instant,
}

impl RetryBudget {
    const START: f64 = 10.0;
    const MOST: f64 = 100.0;
    const PER_SUCCESS: f64 = 0.2;
    const PER_SECOND: f64 = 0.1;

    pub(crate) fn new(now: Instant) -> RetryBudget {
        RetryBudget {
            left: RetryBudget::START,
            at: now,
        }
    }

    pub(crate) fn deposit(&mut self) {
        self.left = (self.left + RetryBudget::PER_SUCCESS).min(RetryBudget::MOST);
    }

    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if self.left < RetryBudget::START {
            self.left = (self.left + passed * RetryBudget::PER_SECOND).min(RetryBudget::START);
        }
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

/// What a call has been through so far.
#[derive(Debug)]
pub(crate) struct RetryState {
    policy: RetryPolicy,
    counted: u32,
    repeats: u32,
    waited: Duration,
    /// See `floor`; it grows to a second.
    shortest_wait: Duration,
    failures: Backoff,
    overloads: Backoff,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait so long, then try again.
    Again(Duration),
    /// Go back to the old place in the budget's line, and wait for as long as that takes.
    Queue,
    /// Give up; the reason is said where the error itself does not say it.
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
            shortest_wait: Duration::ZERO,
            failures,
            overloads,
        }
    }

    /// Decides; `in_line` says that the budget knows how long to wait for limits and overloads, and
    /// `withdraw` takes a retry from the client's brake, if there is one left.
    pub(crate) fn decide(
        &mut self,
        action: RetryAction,
        retry_after: Option<Duration>,
        in_line: bool,
        withdraw: impl FnOnce() -> bool,
    ) -> Decision {
        match action {
            RetryAction::Never => Decision::GiveUp(None),
            RetryAction::AfterPause | RetryAction::AfterOverload if in_line => {
                let asked = retry_after.unwrap_or(SHORT);
                match self.waited.saturating_add(asked) > self.policy.max_wait {
                    true => self.give_up(retry_after),
                    false => Decision::Queue,
                }
            }
            RetryAction::AfterPause => {
                let floor = self.floor();
                self.wait(floor, retry_after)
            }
            RetryAction::AfterOverload => {
                let backoff = self.overloads.next().max(self.floor());
                self.wait(backoff, retry_after)
            }
            RetryAction::AfterBackoff | RetryAction::IfRepeatable => {
                self.retry(action, retry_after, withdraw)
            }
        }
    }

    /// The least that the next wait lasts, whatever the server asks or the policy says: without
    /// it, tiny waits would make a hot loop that uses no attempt.
    fn floor(&mut self) -> Duration {
        let floor = self.shortest_wait;
        self.shortest_wait = (floor * 2).clamp(SHORT, Duration::from_secs(1));
        floor
    }

    /// How much longer the call may wait for limits and overloads; `None` for as long as it takes.
    /// A server's wait that is just permitted gets its jitter on top.
    pub(crate) fn max_wait_left(&self) -> Option<Duration> {
        let left = self.policy.max_wait.saturating_sub(self.waited);
        (self.policy.max_wait < Duration::MAX).then(|| left.saturating_add(SHORT * 2))
    }

    /// Counts an attempt that waiting alone would not count; `false` when none is left.
    pub(crate) fn count(&mut self) -> bool {
        let is_left = self.counted < self.policy.max_attempts;
        self.counted += u32::from(is_left);
        is_left
    }

    /// The call waited so long in the budget's line for limits and overloads.
    pub(crate) fn has_waited(&mut self, wait: Duration) {
        self.waited = self.waited.saturating_add(wait);
    }

    pub(crate) fn used_up(&self) -> String {
        format!(
            "max_wait ({}) is used up",
            display_duration(self.policy.max_wait)
        )
    }

    fn give_up(&self, retry_after: Option<Duration>) -> Decision {
        Decision::GiveUp(Some(match retry_after {
            Some(asked) => format!(
                "the server asks to wait {}, which is more than is left of max_wait ({})",
                display_duration(asked),
                display_duration(self.policy.max_wait)
            ),
            None => self.used_up(),
        }))
    }

    /// Waits for the server, as long as the policy permits.
    fn wait(&mut self, backoff: Duration, retry_after: Option<Duration>) -> Decision {
        let asked = retry_after.unwrap_or_default();
        if self.waited.saturating_add(asked.max(backoff)) > self.policy.max_wait {
            return self.give_up(retry_after);
        }
        let wait = backoff.max(self.overloads.stretch(asked));
        self.waited = self.waited.saturating_add(wait);
        Decision::Again(wait)
    }

    fn retry(
        &mut self,
        action: RetryAction,
        retry_after: Option<Duration>,
        withdraw: impl FnOnce() -> bool,
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
            return self.give_up(retry_after);
        }
        self.waited = self.waited.saturating_add(asked);
        self.counted += 1;
        let asked = self.failures.stretch(asked);
        let backoff = match withdraw() {
            true => self.failures.next(),
            false => self.failures.longest(),
        };
        Decision::Again(backoff.max(asked))
    }
}

/// The shortest wait for a limit or an overload after the first one.
const SHORT: Duration = Duration::from_millis(100);

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
            Decision::Again(wait) => wait,
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
    fn backoff_is_decorrelated_and_stays_within_its_bounds() {
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
    fn one_seed_gives_one_sequence() {
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
    fn a_pause_is_never_shortened_and_uses_no_attempt() {
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
    fn waiting_ends_at_max_wait() {
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
        while let Decision::Again(_) =
            retry_state.decide(RetryAction::AfterOverload, None, false, || true)
        {
            rounds += 1;
        }
        assert!(rounds < 10, "{rounds}");
    }

    #[test]
    fn a_backoff_of_zero_makes_no_hot_loop() {
        let policy = RetryPolicy::new().max_backoff(Duration::ZERO);
        let mut retry_state = retry_state(policy.max_wait(seconds(60)));
        let mut rounds = 0;
        while let Decision::Again(_) =
            retry_state.decide(RetryAction::AfterOverload, None, false, || true)
        {
            rounds += 1;
            assert!(rounds < 100, "a hot loop");
        }
    }

    #[test]
    fn in_line_the_budget_waits_and_the_policy_counts() {
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
            assert_eq!(queue(&mut retry_state, 20), Decision::Queue);
        }
        retry_state.has_waited(seconds(20));
        assert!(
            retry_state
                .max_wait_left()
                .is_some_and(|left| left < seconds(11))
        );
        let reason = reason_of(queue(&mut retry_state, 20));
        assert!(reason.contains("asks to wait 20 s"), "{reason}");
        assert_eq!(queue(&mut retry_state, 0), Decision::Queue);
        retry_state.has_waited(seconds(10));
        assert!(reason_of(queue(&mut retry_state, 0)).contains("is used up"));
    }

    #[test]
    fn a_wait_of_exactly_max_wait_is_allowed() {
        let mut retry_state = retry_state(RetryPolicy::new().max_wait(seconds(20)));
        wait_of(retry_state.decide(RetryAction::AfterPause, Some(seconds(20)), false, || true));
    }

    #[test]
    fn failures_use_attempts_and_take_retry_after_as_a_floor() {
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
    fn an_unknown_outcome_is_repeated_once_unless_forbidden() {
        let mut once = retry_state(RetryPolicy::new());
        wait_of(once.decide(RetryAction::IfRepeatable, None, false, || true));
        let reason = reason_of(once.decide(RetryAction::IfRepeatable, None, false, || true));
        assert!(reason.starts_with("not repeated again"), "{reason}");
        let mut never = retry_state(RetryPolicy::new().max_repeats(0));
        let reason = reason_of(never.decide(RetryAction::IfRepeatable, None, false, || true));
        assert!(reason.contains("billed"), "{reason}");
    }

    #[test]
    fn no_policy_waits_at_all() {
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
    fn an_empty_budget_slows_retries_and_success_and_time_refill_it() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        let taken = (0..100).filter(|_| budget.withdraw(start)).count();
        assert_eq!(taken, 10);
        let mut retry_state = retry_state(RetryPolicy::new());
        let wait = wait_of(
            retry_state.decide(RetryAction::AfterBackoff, None, false, || {
                budget.withdraw(start)
            }),
        );
        assert!(wait >= seconds(8) && wait <= seconds(16), "{wait:?}");
        for _ in 0..5 {
            budget.deposit();
        }
        assert!(budget.withdraw(start) && !budget.withdraw(start));
        assert!(budget.withdraw(start + seconds(11)));
        let hour = start + seconds(3600);
        assert_eq!((0..100).filter(|_| budget.withdraw(hour)).count(), 10);
    }
}
