//! Waiting for a batch to end: polls further and further apart.

use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{Level, info, log};

use super::Batches;
use crate::call::LOG;
use crate::client::Options;
use crate::clock::lock;
use crate::error::{Cause, Error, ErrorKind, Result, TimeLimit, display_duration, sanitize};
use crate::types::MessageBatch;

/// How a wait for a batch goes, for [`Batches::on_progress`](crate::Batches::on_progress).
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
    /// The batch as it was just now. Its counts show no progress before it has ended: the server
    /// counts everything as processing until then.
    pub batch: &'a MessageBatch,
    /// How long has been waited so far.
    pub waited: Duration,
    /// In how long it will be polled again; `None` once it has ended.
    pub next_poll: Option<Duration>,
}

impl Batches<'_> {
    /// Waits until a batch has ended, by itself or canceled; `start` is when the waiting began.
    pub(super) fn wait_since(&self, start: Instant, id: &str) -> Result<MessageBatch> {
        let core = self.client.core();
        let clock = core.sleeper.clock();
        let mut pace = Pace::new(lock(&core.rng).fork());
        let (mut failures, mut is_first) = (0, true);
        loop {
            let left = self.left(start, clock.now());
            let is_last = left.is_some_and(|left| left.is_zero());
            let wait = match self.poll(id, left) {
                Ok(batch) if batch.is_ended() => {
                    self.report(&batch, clock.now() - start, None);
                    return Ok(batch);
                }
                Ok(batch) => {
                    failures = 0;
                    let wait = pace.next(batch.rate_limits().retry_after);
                    self.report(&batch, clock.now() - start, Some(wait));
                    let level = match is_first {
                        true => Level::Info,
                        false => Level::Debug,
                    };
                    is_first = false;
                    log!(target: LOG, level, "{} goes on: looking again in {}", batch.id, display_duration(wait));
                    wait
                }
                Err(error) if is_last || failures >= MOST_FAILURES || !may_pass(&error) => {
                    return Err(error);
                }
                Err(error) => {
                    failures += 1;
                    let wait = pace.next(error.retry_after());
                    info!(target: LOG, "{error}: looking again in {}", display_duration(wait));
                    wait
                }
            };
            if is_last {
                return Err(too_late(id, clock.now() - start));
            }
            // The last poll is at the deadline itself.
            let wait = self
                .left(start, clock.now())
                .map_or(wait, |left| left.min(wait));
            if core.sleeper.sleep(wait).is_err() {
                return Err(Error::new(
                    ErrorKind::Shutdown,
                    waiting(id),
                    Cause::Shutdown,
                ));
            }
        }
    }

    /// Asks for the batch; with a deadline not for longer than that, but for a moment at least.
    fn poll(&self, id: &str, left: Option<Duration>) -> Result<MessageBatch> {
        let own = self.client.settings().deadline;
        match left.map(|left| left.max(LAST_POLL)) {
            Some(left) if own.is_none_or(|own| left < own) => {
                let hurried = self.client.with(Options::new().deadline(left));
                hurried.batches().get(id)
            }
            _ => self.get(id),
        }
    }

    fn left(&self, start: Instant, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(start);
        self.deadline
            .map(|deadline| deadline.saturating_sub(passed))
    }

    fn report(&self, batch: &MessageBatch, waited: Duration, next_poll: Option<Duration>) {
        if let Some(report) = &self.on_progress {
            report(&BatchProgress {
                batch,
                waited,
                next_poll,
            });
        }
    }
}

fn too_late(id: &str, waited: Duration) -> Error {
    let cause = Cause::TimeLimit {
        limit: TimeLimit::Deadline,
    };
    let reason = format!("the batch goes on after {}", display_duration(waited));
    let advice = "wait for it again, it is not lost";
    Error::new(ErrorKind::Timeout, waiting(id), cause).with_classification(
        true,
        Some(advice),
        Some(reason),
    )
}

fn waiting(id: &str) -> String {
    format!("waiting for {}", sanitize(id, 100))
}

/// Whether a failed poll says nothing about the next one.
fn may_pass(error: &Error) -> bool {
    error.is_retryable() && error.kind() != ErrorKind::Shutdown
}

/// How long to wait between polls: as the server suggests, else further and further apart.
#[derive(Debug)]
struct Pace {
    next: Duration,
    rng: Rng,
}

impl Pace {
    fn new(rng: Rng) -> Pace {
        Pace {
            next: SHORTEST,
            rng,
        }
    }

    /// The next wait, up to a tenth longer so that many waiters do not poll in one instant.
    fn next(&mut self, suggested: Option<Duration>) -> Duration {
        let own = self.next;
        self.next = (own * 3 / 2).min(LONGEST);
        let wait = suggested.map_or(own, |wait| wait.clamp(SHORTEST, LONGEST_SUGGESTED));
        wait + wait.mul_f64(0.1 * self.rng.f64())
    }
}

const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// A suggestion beyond this is taken for a mistake.
const LONGEST_SUGGESTED: Duration = Duration::from_secs(600);

/// How long a poll at the deadline may take.
const LAST_POLL: Duration = Duration::from_secs(1);

/// How many polls may fail in a row. Each was tried as often as the policy permits.
const MOST_FAILURES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_come_further_and_further_apart() {
        let mut pace = Pace::new(Rng::with_seed(7));
        let mut least = SHORTEST;
        for _ in 0..20 {
            let wait = pace.next(None);
            assert!(wait >= least && wait <= least.mul_f64(1.1), "{wait:?}");
            least = (least * 3 / 2).min(LONGEST);
        }
        assert_eq!(least, LONGEST);
    }

    #[test]
    fn a_suggestion_is_never_shortened_within_reason() {
        let mut pace = Pace::new(Rng::with_seed(7));
        let ten = Duration::from_secs(10);
        for _ in 0..20 {
            let wait = pace.next(Some(ten));
            assert!(wait >= ten && wait <= ten.mul_f64(1.1), "{wait:?}");
        }
        assert!(
            pace.next(Some(Duration::from_nanos(1))) >= SHORTEST,
            "no hot loop"
        );
        assert!(pace.next(Some(Duration::MAX)) <= LONGEST_SUGGESTED.mul_f64(1.1));
    }
}
