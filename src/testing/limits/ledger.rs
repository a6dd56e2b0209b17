//! The ledger of the limit mode: what was admitted, refused and charged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::settings::{EachLimit, INPUT, OUTPUT, REQUESTS};

/// What a [`TestServer`](crate::testing::TestServer) with limits has admitted, refused and charged.
///
/// All times are the server's (see [`ServerLimits`](super::ServerLimits)) and count from the first
/// request.
///
/// ```
/// use anthropic_blocking::testing::{ServerLimits, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// server.limit(ServerLimits::per_minute(50, 30_000, 8_000));
/// // … the program runs …
/// let ledger = server.ledger();
/// println!("{} admitted, {} refused with a 429", ledger.admitted(), ledger.rate_limited());
/// for class in &ledger.classes {
///     println!("{}: {} output tokens", class.class, class.charged.output_tokens);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ledger {
    /// One entry for each class of models that was requested, in the order of their names.
    pub classes: Vec<ClassLedger>,
    /// The most admitted requests that were open at one time, over all classes.
    pub most_open: usize,
    /// When the last request arrived.
    pub last_arrival: Duration,
    /// When the last response is complete, which may be in the future.
    pub last_end: Duration,
}

impl Ledger {
    /// Returns how many requests were admitted, over all classes.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        let admitted = self.classes.iter().map(|entry| entry.charged.requests);
        admitted.sum()
    }

    /// Returns how many requests were refused with a 429, over all classes.
    #[must_use]
    pub fn rate_limited(&self) -> u64 {
        let limited = self
            .classes
            .iter()
            .map(|entry| entry.refused.rate_limited());
        limited.sum()
    }

    /// Returns how many requests were refused with a 529, over all classes.
    #[must_use]
    pub fn overloaded(&self) -> u64 {
        let overloaded = self.classes.iter().map(|entry| entry.refused.overloaded);
        overloaded.sum()
    }
}

/// The ledger of one class of models.
///
/// ```
/// use anthropic_blocking::testing::Ledger;
///
/// # fn check(ledger: &Ledger) {
/// for class in &ledger.classes {
///     assert!(class.worst_minute.requests <= 50, "{}", class.class);
///     println!("the last admitted request arrived after {:?}", class.admissions.last());
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClassLedger {
    /// The name of the class.
    pub class: String,
    /// What was charged; `requests` counts the admitted ones.
    ///
    /// Requests and input count on arrival. Output counts as it is produced, even if `max_tokens`
    /// are reserved for it.
    pub charged: Amounts,
    /// The largest amounts charged in any 60 s, each in a span of its own.
    ///
    /// The sums are exact over all spans of 60 s, wherever they begin. Parts of tokens count, and
    /// the sum is rounded up.
    pub worst_minute: Amounts,
    /// The refusals by cause.
    pub refused: Refusals,
    /// When each of the admitted requests arrived, in order.
    pub admissions: Vec<Duration>,
}

/// Numbers of requests and tokens.
///
/// ```
/// use anthropic_blocking::testing::{Amounts, ClassLedger};
///
/// # fn show(class: &ClassLedger) {
/// let Amounts { requests, input_tokens, output_tokens, .. } = class.charged;
/// println!("{requests} requests: {input_tokens} tokens in, {output_tokens} out");
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amounts {
    /// Number of requests.
    pub requests: u64,
    /// Input tokens, without those read from the cache, which do not count.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

/// How many requests were refused, by cause; all but the last with a 429.
///
/// ```
/// use anthropic_blocking::testing::ClassLedger;
///
/// # fn check(class: &ClassLedger) {
/// assert_eq!(class.refused.rate_limited(), 0, "{:?}", class.refused);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Too many requests.
    pub requests: u64,
    /// Too few input tokens left.
    pub input_tokens: u64,
    /// Too few output tokens left.
    pub output_tokens: u64,
    /// More than a full bucket holds: such a request is never admitted.
    pub too_large: u64,
    /// 529s.
    pub overloaded: u64,
}

impl Refusals {
    /// Returns the number of all 429s.
    #[must_use]
    pub fn rate_limited(&self) -> u64 {
        self.requests + self.input_tokens + self.output_tokens + self.too_large
    }

    /// Returns the count of refusals for this limit.
    pub(super) fn of(&mut self, limit: usize) -> &mut u64 {
        match limit {
            REQUESTS => &mut self.requests,
            INPUT => &mut self.input_tokens,
            _ => &mut self.output_tokens,
        }
    }
}

/// The entries from which a [`Ledger`] is made: about 40 bytes for each admitted request.
#[derive(Clone, Debug, Default)]
pub(super) struct LedgerEntries {
    classes: BTreeMap<String, ClassEntries>,
    pub(super) most_open: usize,
    pub(super) last_arrival: f64,
    pub(super) last_end: f64,
}

#[derive(Clone, Debug, Default)]
struct ClassEntries {
    admitted: Vec<AdmittedRequest>,
    refused: Refusals,
}

/// One admitted request and what it is charged; the times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmittedRequest {
    pub(super) at: f64,
    pub(super) input: u64,
    pub(super) output: u64,
    /// When the first output token is produced.
    pub(super) from: f64,
    /// When the last output token is produced; the output is charged evenly from `from` on.
    pub(super) to: f64,
}

impl LedgerEntries {
    pub(super) fn add_admitted(&mut self, class: &str, request: AdmittedRequest) {
        self.class_entries(class).admitted.push(request);
    }

    pub(super) fn refused(&mut self, class: &str) -> &mut Refusals {
        &mut self.class_entries(class).refused
    }

    /// Returns the ledger at `now`: output counts as far as it has been produced.
    pub(super) fn ledger(&self, now: f64) -> Ledger {
        let of_class = |(class, entries): (&String, &ClassEntries)| entries.ledger(class, now);
        Ledger {
            classes: self.classes.iter().map(of_class).collect(),
            most_open: self.most_open,
            last_arrival: Duration::from_secs_f64(self.last_arrival),
            last_end: Duration::from_secs_f64(self.last_end),
        }
    }

    fn class_entries(&mut self, class: &str) -> &mut ClassEntries {
        self.classes.entry(class.to_owned()).or_default()
    }
}

impl ClassEntries {
    fn ledger(&self, class: &str, now: f64) -> ClassLedger {
        let entries = self.admitted.iter();
        let amounts: EachLimit<Vec<ChargedAmount>> = [
            entries
                .clone()
                .map(|e| ChargedAmount::at_once(e.at, 1.0))
                .collect(),
            entries
                .clone()
                .map(|e| ChargedAmount::at_once(e.at, e.input as f64))
                .collect(),
            entries.clone().map(|entry| entry.output(now)).collect(),
        ];
        let charged = amounts
            .each_ref()
            .map(|amounts| amounts.iter().map(|amount| amount.amount).sum());
        ClassLedger {
            class: class.to_owned(),
            charged: Amounts::of(charged),
            worst_minute: Amounts::of(amounts.map(|amounts| largest_sum(&amounts, MINUTE))),
            refused: self.refused,
            admissions: entries.map(|e| Duration::from_secs_f64(e.at)).collect(),
        }
    }
}

impl AdmittedRequest {
    /// Returns the output as far as it has been produced at `now`.
    fn output(&self, now: f64) -> ChargedAmount {
        let whole = ChargedAmount {
            from: self.from,
            to: self.to,
            amount: self.output as f64,
        };
        if now >= self.to {
            return whole;
        }
        if now <= self.from {
            return ChargedAmount::at_once(self.from, 0.0);
        }
        let share = (now - self.from) / (self.to - self.from);
        let amount = whole.amount * share;
        ChargedAmount {
            to: now,
            amount,
            ..whole
        }
    }
}

impl Amounts {
    fn of(amounts: EachLimit<f64>) -> Amounts {
        // A rounding error of a sum must not make one more token.
        let amounts = amounts.map(|amount| (amount - ROUNDING_ERROR).ceil() as u64);
        Amounts {
            requests: amounts[REQUESTS],
            input_tokens: amounts[INPUT],
            output_tokens: amounts[OUTPUT],
        }
    }
}

/// An amount charged evenly from one time to another, or at once.
#[derive(Clone, Copy, Debug)]
struct ChargedAmount {
    from: f64,
    to: f64,
    amount: f64,
}

impl ChargedAmount {
    fn at_once(at: f64, amount: f64) -> ChargedAmount {
        ChargedAmount {
            from: at,
            to: at,
            amount,
        }
    }
}

/// A time at which a sum of amounts jumps or its slope changes.
struct SumChange {
    time: f64,
    jump: f64,
    slope: f64,
}

/// Returns the largest sum of amounts in any span of this length: `(t, t + span]`, for all t.
///
/// The function follows the sum over the last `span` seconds through time. The sum jumps and its
/// slope changes only when an amount begins or ends, and when its beginning or end leaves the span.
/// So the largest value is at one of these times, before or after the jump.
fn largest_sum(amounts: &[ChargedAmount], span: f64) -> f64 {
    let mut changes: Vec<SumChange> = Vec::with_capacity(amounts.len() * 4);
    for amount in amounts {
        let seconds = amount.to - amount.from;
        if seconds > 0.0 {
            let slope = amount.amount / seconds;
            for (time, slope) in [
                (amount.from, slope),
                (amount.to, -slope),
                (amount.from + span, -slope),
                (amount.to + span, slope),
            ] {
                changes.push(SumChange {
                    time,
                    jump: 0.0,
                    slope,
                });
            }
        } else {
            for (time, jump) in [
                (amount.from, amount.amount),
                (amount.from + span, -amount.amount),
            ] {
                changes.push(SumChange {
                    time,
                    jump,
                    slope: 0.0,
                });
            }
        }
    }
    changes.sort_by(|a, b| a.time.total_cmp(&b.time));
    let (mut time, mut sum, mut slope) = (0.0, 0.0, 0.0);
    let mut largest: f64 = 0.0;
    for simultaneous in changes.chunk_by(|a, b| a.time == b.time) {
        sum += slope * (simultaneous[0].time - time);
        time = simultaneous[0].time;
        largest = largest.max(sum);
        for change in simultaneous {
            sum += change.jump;
            slope += change.slope;
        }
        largest = largest.max(sum);
    }
    largest
}

const MINUTE: f64 = 60.0;

/// By how much a sum of many amounts may be wrong.
const ROUNDING_ERROR: f64 = 1e-4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the largest sum span by span on a grid, before and after the jumps of each time.
    fn largest_sum_by_grid(amounts: &[ChargedAmount], span: f64) -> f64 {
        let charged = |until: f64, with_jumps: bool| -> f64 {
            let part = |amount: &ChargedAmount| match until {
                _ if until > amount.to || (until == amount.to && with_jumps) => amount.amount,
                _ if until <= amount.from => 0.0,
                _ => amount.amount * (until - amount.from) / (amount.to - amount.from),
            };
            amounts.iter().map(part).sum()
        };
        let ends = (0..4_000).map(|step| f64::from(step) / 8.0);
        let sums = ends.flat_map(|end| {
            [true, false].map(|with| charged(end, with) - charged(end - span, with))
        });
        sums.fold(0.0, f64::max)
    }

    #[test]
    fn worst_minute_is_exact() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20 {
            // Times on the grid of `largest_sum_by_grid`, where the extremes then are.
            let mut amount = || {
                let from = f64::from(rng.u32(..1_600)) / 8.0;
                let length = f64::from(rng.u32(..400)) / 8.0 * f64::from(rng.u32(..2));
                ChargedAmount {
                    from,
                    to: from + length,
                    amount: f64::from(rng.u32(1..1_000)),
                }
            };
            let amounts: Vec<ChargedAmount> = (0..40).map(|_| amount()).collect();
            let (fast, slow) = (
                largest_sum(&amounts, 60.0),
                largest_sum_by_grid(&amounts, 60.0),
            );
            assert!((fast - slow).abs() < 1e-6, "{fast} {slow}");
        }
    }

    #[test]
    fn minute_includes_one_of_its_ends() {
        let jumps = |times: &[f64]| -> Vec<ChargedAmount> {
            times
                .iter()
                .map(|at| ChargedAmount::at_once(*at, 1.0))
                .collect()
        };
        assert_eq!(largest_sum(&jumps(&[0.0, 60.0]), 60.0), 1.0);
        assert_eq!(largest_sum(&jumps(&[0.0, 59.9, 60.0]), 60.0), 2.0);
        assert_eq!(largest_sum(&jumps(&[5.0, 5.0, 70.0]), 60.0), 2.0);
        assert_eq!(largest_sum(&[], 60.0), 0.0);
        let ramp = ChargedAmount {
            from: 10.0,
            to: 130.0,
            amount: 120.0,
        };
        assert_eq!(largest_sum(&[ramp], 60.0), 60.0);
        assert_eq!(
            largest_sum(&[ramp, ChargedAmount::at_once(40.0, 7.0)], 60.0),
            67.0
        );
    }

    #[test]
    fn output_counts_as_far_as_it_is_produced() {
        let mut ledger = LedgerEntries::default();
        ledger.add_admitted(
            "a",
            AdmittedRequest {
                at: 1.0,
                input: 30,
                output: 10,
                from: 2.0,
                to: 4.0,
            },
        );
        ledger.refused("b").overloaded += 1;
        *ledger.refused("b").of(OUTPUT) += 1;
        let output = |now: f64| ledger.ledger(now).classes[0].charged.output_tokens;
        assert_eq!([1.0, 2.0, 3.0, 4.0, 9.0].map(output), [0, 0, 5, 10, 10]);
        let ledger = ledger.ledger(9.0);
        let charged = ledger.classes[0].charged;
        assert_eq!((charged.requests, charged.input_tokens), (1, 30));
        assert_eq!(
            (
                ledger.admitted(),
                ledger.rate_limited(),
                ledger.overloaded()
            ),
            (1, 1, 1)
        );
        assert_eq!(ledger.classes[0].admissions, [Duration::from_secs(1)]);
        assert_eq!(ledger.classes[0].worst_minute, charged);
    }
}
