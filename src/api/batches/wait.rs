//! Waiting for a batch to end: polls at growing intervals.

use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{Level, info, log};

use super::endpoints;
use crate::call::LOG;
use crate::client::{Client, Options};
use crate::clock::lock;
use crate::error::{Cause, Error, ErrorKind, Result, TimeLimit, display_duration, sanitize};
use crate::types::MessageBatch;

/// The state of a wait for a batch, for [`Batches::on_progress`](crate::Batches::on_progress).
///
/// ```
/// use anthropic_blocking::BatchProgress;
///
/// fn show(progress: &BatchProgress<'_>) {
///     println!("{} after {:?}", progress.batch.processing_status, progress.waited);
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchProgress<'a> {
    /// The batch as the last poll returned it. Until it has ended, the server counts all requests
    /// as processing: the counts show no progress.
    pub batch: &'a MessageBatch,
    /// The time since the wait began.
    pub waited: Duration,
    /// The time until the next poll; `None` once the batch has ended.
    pub next_poll: Option<Duration>,
}

/// The user's function that is called after each poll.
pub(super) type OnBatchProgress<'a> = dyn Fn(&BatchProgress<'_>) + 'a;

/// Polls batches until they have ended.
pub(super) struct BatchWaiter<'a> {
    pub(super) client: &'a Client,
    /// When the wait began.
    pub(super) start: Instant,
    /// How long the wait may last, from `start`.
    pub(super) deadline: Option<Duration>,
    pub(super) on_progress: Option<&'a OnBatchProgress<'a>>,
}

impl BatchWaiter<'_> {
    /// Blocks until a batch has ended, complete or canceled, or until the deadline.
    ///
    /// A failed poll was retried by its own call already. The wait goes on nevertheless, because a
    /// batch may last longer than an outage.
    pub(super) fn wait_until_ended(&self, id: &str) -> Result<MessageBatch> {
        let core = self.client.core();
        let clock = core.sleeper.clock();
        let waited = || clock.now().saturating_duration_since(self.start);
        let mut intervals = PollIntervals::new(lock(&core.rng).fork());
        let (mut failures, mut is_first) = (0, true);
        loop {
            let left = self.time_left(clock.now());
            let is_last = left.is_some_and(|left| left.is_zero());
            let wait = match self.poll(id, left) {
                Ok(batch) if batch.is_ended() => {
                    self.report(&batch, waited(), None);
                    return Ok(batch);
                }
                Ok(batch) => {
                    failures = 0;
                    let wait = intervals.next(batch.rate_limits().retry_after);
                    self.report(&batch, waited(), Some(wait));
                    let level = if is_first { Level::Info } else { Level::Debug };
                    is_first = false;
                    log!(
                        target: LOG,
                        level,
                        "{} has not ended: next poll in {}",
                        batch.id,
                        display_duration(wait)
                    );
                    wait
                }
                Err(error) if is_last || failures >= MAX_FAILED_POLLS || !is_transient(&error) => {
                    return Err(error);
                }
                Err(error) => {
                    failures += 1;
                    let wait = intervals.next(error.retry_after());
                    info!(target: LOG, "{error}: next poll in {}", display_duration(wait));
                    wait
                }
            };
            if is_last {
                return Err(deadline_error(id, waited()));
            }
            // The last poll is at the deadline itself.
            let left = self.time_left(clock.now());
            let wait = left.map_or(wait, |left| left.min(wait));
            if core.sleeper.sleep(wait).is_err() {
                let kind = ErrorKind::Shutdown;
                return Err(Error::new(kind, action(id), Cause::Shutdown));
            }
        }
    }

    /// Fetches the batch once. The request may take the time that is left, but at least
    /// [`MIN_POLL_TIME`].
    fn poll(&self, id: &str, left: Option<Duration>) -> Result<MessageBatch> {
        let own = self.client.settings().deadline;
        match left.map(|left| left.max(MIN_POLL_TIME)) {
            Some(left) if own.is_none_or(|own| left < own) => {
                let client = self.client.with(Options::new().deadline(left));
                endpoints::get(&client, id)
            }
            _ => endpoints::get(self.client, id),
        }
    }

    fn time_left(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.start);
        self.deadline
            .map(|deadline| deadline.saturating_sub(waited))
    }

    fn report(&self, batch: &MessageBatch, waited: Duration, next_poll: Option<Duration>) {
        if let Some(on_progress) = self.on_progress {
            on_progress(&BatchProgress {
                batch,
                waited,
                next_poll,
            });
        }
    }
}

fn deadline_error(id: &str, waited: Duration) -> Error {
    let cause = Cause::TimeLimit {
        limit: TimeLimit::Deadline,
    };
    let reason = format!("the batch has not ended after {}", display_duration(waited));
    let advice = "the batch is not lost: wait for it again";
    Error::new(ErrorKind::Timeout, action(id), cause).with_classification(
        true,
        Some(advice),
        Some(reason),
    )
}

/// What the wait does, for the text of an error.
fn action(id: &str) -> String {
    format!("waiting for {}", sanitize(id, 100))
}

/// Whether a later poll may succeed after this failure.
fn is_transient(error: &Error) -> bool {
    error.is_retryable() && error.kind() != ErrorKind::Shutdown
}

/// The intervals between polls: as the server suggests, otherwise growing by half each time.
#[derive(Debug)]
struct PollIntervals {
    next: Duration,
    rng: Rng,
}

impl PollIntervals {
    fn new(rng: Rng) -> PollIntervals {
        PollIntervals {
            next: MIN_INTERVAL,
            rng,
        }
    }

    /// Returns the next interval, with a jitter of up to 10 % so that many waiters do not poll at
    /// one instant.
    fn next(&mut self, suggested: Option<Duration>) -> Duration {
        let own = self.next;
        self.next = (own * 3 / 2).min(MAX_INTERVAL);
        let wait = suggested.map_or(own, |wait| wait.clamp(MIN_INTERVAL, MAX_SUGGESTED));
        wait + wait.mul_f64(0.1 * self.rng.f64())
    }
}

/// The first interval between polls, and the minimum of a suggested one: polls must not become a
/// busy loop.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// The maximum interval without a suggestion.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum interval that the server can suggest: beyond this the suggestion counts as a
/// mistake.
const MAX_SUGGESTED: Duration = Duration::from_secs(600);

/// How long a poll may take although the deadline is nearer.
const MIN_POLL_TIME: Duration = Duration::from_secs(1);

/// How many polls may fail in a row; each was retried as often as the policy permits.
const MAX_FAILED_POLLS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_intervals_grow_to_the_maximum() {
        let mut intervals = PollIntervals::new(Rng::with_seed(7));
        let mut least = MIN_INTERVAL;
        for _ in 0..20 {
            let wait = intervals.next(None);
            assert!(wait >= least && wait <= least.mul_f64(1.1), "{wait:?}");
            least = (least * 3 / 2).min(MAX_INTERVAL);
        }
        assert_eq!(least, MAX_INTERVAL);
    }

    #[test]
    fn suggested_interval_is_kept_within_bounds() {
        let mut intervals = PollIntervals::new(Rng::with_seed(7));
        let ten = Duration::from_secs(10);
        for _ in 0..20 {
            let wait = intervals.next(Some(ten));
            assert!(wait >= ten && wait <= ten.mul_f64(1.1), "{wait:?}");
        }
        assert!(
            intervals.next(Some(Duration::from_nanos(1))) >= MIN_INTERVAL,
            "polls must not become a busy loop"
        );
        assert!(intervals.next(Some(Duration::MAX)) <= MAX_SUGGESTED.mul_f64(1.1));
    }
}
