//! The books of the limit mode: what was admitted, refused and charged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::settings::{EachLimit, INPUT, OUTPUT, REQUESTS};

/// What a [`TestServer`](crate::testing::TestServer) in limit mode has admitted, refused and charged so far.
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
/// println!("{} taken, {} refused with a 429", ledger.admitted(), ledger.limited());
/// for class in &ledger.classes {
///     println!("{}: {} output tokens", class.class, class.charged.output_tokens);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ledger {
    /// One entry for each class of models that was asked for, in the order of their names.
    pub classes: Vec<ClassLedger>,
    /// The most requests that were open at one time, over all classes, refused ones not counted.
    pub most_open: usize,
    /// When the last request arrived.
    pub last_arrival: Duration,
    /// When the last of the answers is complete, which may be yet to come.
    pub last_end: Duration,
}

impl Ledger {
    /// How many requests were admitted, over all classes.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        let admitted = self.classes.iter().map(|entry| entry.charged.requests);
        admitted.sum()
    }

    /// How many requests were refused with a 429, over all classes.
    #[must_use]
    pub fn limited(&self) -> u64 {
        let limited = self.classes.iter().map(|entry| entry.refused.limited());
        limited.sum()
    }

    /// How many requests were refused with a 529, over all classes.
    #[must_use]
    pub fn overloaded(&self) -> u64 {
        let overloaded = self.classes.iter().map(|entry| entry.refused.overloaded);
        overloaded.sum()
    }
}

/// The books of one class of models.
///
/// ```
/// use anthropic_blocking::testing::Ledger;
///
/// # fn check(ledger: &Ledger) {
/// if let Some(class) = ledger.class("claude-haiku-4-5") {
///     assert!(class.worst_minute.requests <= 50);
///     println!("the last one came after {:?}", class.admissions.last());
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClassLedger {
    /// The name of the class.
    pub class: String,
    /// What was charged, `requests` being those admitted.
    ///
    /// Requests and input count from the arrival. Output counts as it is produced, also where
    /// `max_tokens` are reserved for it, or on arrival with
    /// [`Charging::OnArrival`](super::Charging::OnArrival).
    pub charged: Amounts,
    /// The largest sums charged in any 60 s, each on its own.
    ///
    /// Exact: of all spans of 60 s, wherever they begin. Output between two tokens counts by parts,
    /// and the sum is rounded up.
    pub worst_minute: Amounts,
    /// The refusals by cause.
    pub refused: Refusals,
    /// When each of the admitted requests arrived, in order.
    pub admissions: Vec<Duration>,
}

/// Requests and tokens.
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
    /// Requests.
    pub requests: u64,
    /// Input tokens that count: without those read from the cache.
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
/// assert_eq!(class.refused.limited(), 0, "{:?}", class.refused);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Too many requests.
    pub requests: u64,
    /// Too little left of the input tokens.
    pub input_tokens: u64,
    /// Too little left of the output tokens.
    pub output_tokens: u64,
    /// More than a full bucket holds: such a request can never pass.
    pub too_large: u64,
    /// The storms' 529s.
    pub overloaded: u64,
}

impl Refusals {
    /// All 429s.
    ///
    /// ```
    /// use anthropic_blocking::testing::Refusals;
    ///
    /// let mut refused = Refusals::default();
    /// refused.requests = 3;
    /// refused.output_tokens = 1;
    /// refused.overloaded = 5;
    /// assert_eq!(refused.limited(), 4);
    /// ```
    #[must_use]
    pub fn limited(&self) -> u64 {
        self.requests + self.input_tokens + self.output_tokens + self.too_large
    }

    /// The count of the refusals for this bucket.
    pub(super) fn of(&mut self, dimension: usize) -> &mut u64 {
        match dimension {
            REQUESTS => &mut self.requests,
            INPUT => &mut self.input_tokens,
            _ => &mut self.output_tokens,
        }
    }
}

/// The entries from which [`Ledger`] are made: about 40 bytes for each admitted request.
#[derive(Clone, Debug, Default)]
pub(super) struct LedgerEntries {
    pages: BTreeMap<String, ClassEntries>,
    pub(super) most_open: usize,
    pub(super) last_arrival: f64,
    pub(super) last_end: f64,
}

#[derive(Clone, Debug, Default)]
struct ClassEntries {
    entries: Vec<AdmittedRequest>,
    refused: Refusals,
}

/// What one admitted request is charged; the times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmittedRequest {
    pub(super) at: f64,
    pub(super) input: u64,
    pub(super) output: u64,
    /// When the output is charged: evenly from here to there.
    pub(super) from: f64,
    pub(super) to: f64,
}

impl LedgerEntries {
    pub(super) fn add_admitted(&mut self, class: &str, entry: AdmittedRequest) {
        self.page(class).entries.push(entry);
    }

    pub(super) fn refused(&mut self, class: &str) -> &mut Refusals {
        &mut self.page(class).refused
    }

    /// What has been charged until `now`.
    pub(super) fn ledger(&self, now: f64) -> Ledger {
        let page = |(class, page): (&String, &ClassEntries)| page.ledger(class, now);
        Ledger {
            classes: self.pages.iter().map(page).collect(),
            most_open: self.most_open,
            last_arrival: Duration::from_secs_f64(self.last_arrival),
            last_end: Duration::from_secs_f64(self.last_end),
        }
    }

    fn page(&mut self, class: &str) -> &mut ClassEntries {
        self.pages.entry(class.to_owned()).or_default()
    }
}

impl ClassEntries {
    fn ledger(&self, class: &str, now: f64) -> ClassLedger {
        let entries = self.entries.iter();
        let flows: EachLimit<Vec<ChargedAmount>> = [
            entries
                .clone()
                .map(|e| ChargedAmount::jump(e.at, 1.0))
                .collect(),
            entries
                .clone()
                .map(|e| ChargedAmount::jump(e.at, e.input as f64))
                .collect(),
            entries.clone().map(|entry| entry.output(now)).collect(),
        ];
        let charged = flows
            .each_ref()
            .map(|flows| flows.iter().map(|flow| flow.amount).sum());
        ClassLedger {
            class: class.to_owned(),
            charged: Amounts::of(charged),
            worst_minute: Amounts::of(flows.map(|flows| worst(&flows, MINUTE))),
            refused: self.refused,
            admissions: entries.map(|e| Duration::from_secs_f64(e.at)).collect(),
        }
    }
}

impl AdmittedRequest {
    /// The output as far as it is charged until `now`.
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
            return ChargedAmount::jump(self.from, 0.0);
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
        // What is left of the rounding of sums must not make one more token.
        let amounts = amounts.map(|amount| (amount - 1e-4).ceil() as u64);
        Amounts {
            requests: amounts[REQUESTS],
            input_tokens: amounts[INPUT],
            output_tokens: amounts[OUTPUT],
        }
    }
}

/// An amount charged evenly over a time, or at once.
#[derive(Clone, Copy, Debug)]
struct ChargedAmount {
    from: f64,
    to: f64,
    amount: f64,
}

impl ChargedAmount {
    fn jump(at: f64, amount: f64) -> ChargedAmount {
        ChargedAmount {
            from: at,
            to: at,
            amount,
        }
    }
}

/// The largest sum in any span of this length: `(t, t + span]`, for all t.
///
/// The sum over the span that ends now is followed through time. It jumps and bends only where a
/// flow begins or ends, and where that leaves the span; so its largest value is at one of these
/// times, before or after the jump.
fn worst(flows: &[ChargedAmount], span: f64) -> f64 {
    // Time, change of the sum, change of its slope.
    let mut events: Vec<(f64, f64, f64)> = Vec::with_capacity(flows.len() * 4);
    for flow in flows {
        let length = flow.to - flow.from;
        if length > 0.0 {
            let slope = flow.amount / length;
            events.extend([
                (flow.from, 0.0, slope),
                (flow.to, 0.0, -slope),
                (flow.from + span, 0.0, -slope),
                (flow.to + span, 0.0, slope),
            ]);
        } else {
            events.push((flow.from, flow.amount, 0.0));
            events.push((flow.from + span, -flow.amount, 0.0));
        }
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut time, mut sum, mut slope) = (0.0, 0.0, 0.0);
    let mut worst: f64 = 0.0;
    for together in events.chunk_by(|a, b| a.0 == b.0) {
        sum += slope * (together[0].0 - time);
        time = together[0].0;
        worst = worst.max(sum);
        for (_, jump, bend) in together {
            sum += jump;
            slope += bend;
        }
        worst = worst.max(sum);
    }
    worst
}

const MINUTE: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, span by span on a grid, before and after the jumps of each time.
    fn slow(flows: &[ChargedAmount], span: f64) -> f64 {
        let charged = |until: f64, with_jumps: bool| -> f64 {
            let part = |flow: &ChargedAmount| match until {
                _ if until > flow.to || (until == flow.to && with_jumps) => flow.amount,
                _ if until <= flow.from => 0.0,
                _ => flow.amount * (until - flow.from) / (flow.to - flow.from),
            };
            flows.iter().map(part).sum()
        };
        let ends = (0..4_000).map(|step| f64::from(step) / 8.0);
        let sums = ends.flat_map(|end| {
            [true, false].map(|with| charged(end, with) - charged(end - span, with))
        });
        sums.fold(0.0, f64::max)
    }

    #[test]
    fn the_worst_minute_is_exact() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20 {
            // Times on the grid of `slow`, where the extremes then are.
            let mut flow = || {
                let from = f64::from(rng.u32(..1_600)) / 8.0;
                let length = f64::from(rng.u32(..400)) / 8.0 * f64::from(rng.u32(..2));
                ChargedAmount {
                    from,
                    to: from + length,
                    amount: f64::from(rng.u32(1..1_000)),
                }
            };
            let flows: Vec<ChargedAmount> = (0..40).map(|_| flow()).collect();
            let (fast, slow) = (worst(&flows, 60.0), slow(&flows, 60.0));
            assert!((fast - slow).abs() < 1e-6, "{fast} {slow}");
        }
    }

    #[test]
    fn a_minute_is_open_at_one_end() {
        let jumps = |times: &[f64]| -> Vec<ChargedAmount> {
            times
                .iter()
                .map(|at| ChargedAmount::jump(*at, 1.0))
                .collect()
        };
        assert_eq!(worst(&jumps(&[0.0, 60.0]), 60.0), 1.0);
        assert_eq!(worst(&jumps(&[0.0, 59.9, 60.0]), 60.0), 2.0);
        assert_eq!(worst(&jumps(&[5.0, 5.0, 70.0]), 60.0), 2.0);
        assert_eq!(worst(&[], 60.0), 0.0);
        let ramp = ChargedAmount {
            from: 10.0,
            to: 130.0,
            amount: 120.0,
        };
        assert_eq!(worst(&[ramp], 60.0), 60.0);
        assert_eq!(worst(&[ramp, ChargedAmount::jump(40.0, 7.0)], 60.0), 67.0);
    }

    #[test]
    fn output_is_charged_as_far_as_it_is_produced() {
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
            (ledger.admitted(), ledger.limited(), ledger.overloaded()),
            (1, 1, 1)
        );
        assert_eq!(ledger.classes[0].admissions, [Duration::from_secs(1)]);
        assert_eq!(ledger.classes[0].worst_minute, charged);
    }
}
