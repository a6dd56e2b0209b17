//! The settings of the limit mode.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The rate limits that a [`TestServer`](crate::testing::TestServer) enforces, and the sizes and
/// times of its responses.
///
/// Every class of models has three token buckets (requests, input tokens, output tokens), full at
/// first and filled continuously at the rate of the limit. A request for which one of them holds
/// too little gets a 429 with the headers and texts of the API, and costs nothing. Periods of 529s
/// and use by another tenant can be added.
///
/// # Sizes
///
/// The input of a request is a quarter of the bytes of its `messages`, the output a quarter of the
/// bytes of the canned text, both rounded up, unless [`output`](ServerLimits::output) sets a random
/// size. A request can state its own sizes, in `metadata.user_id` or else in the last text of the
/// user, in the form `[cost input=3080 output=375 cache_read=1000 latency_ms=6300]`, each part
/// optional. Input read from the cache is reported and does not count. Outputs end at `max_tokens`,
/// and have at least one token.
///
/// # Time
///
/// A response is complete after its [`latency`](ServerLimits::latency), by default at once. One
/// tenth of the latency passes before the first token; over the rest the output is produced evenly,
/// and a stream is sent as its output is produced, in at most 16 deltas. An admitted request is
/// carried out to its end and counts as open until then, even if the client has gone away.
///
/// All times count from the first request, in the server's time, which
/// [`scale`](ServerLimits::scale) makes faster than real time. The headers show the buckets at the
/// arrival of the request, as the headers of the API seem to do.
///
/// ```
/// use std::time::Duration;
/// use anthropic_blocking::testing::{Charging, ServerLimits, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let limits = ServerLimits::per_minute(1_000, 450_000, 90_000)
///     .class("claude-haiku-4-5", 50, 30_000, 8_000)
///     .charging(Charging::AsProduced)
///     .latency(Duration::from_secs(6), 0.6)
///     .output(250, 0.9)
///     .overload(Duration::from_secs(120), Duration::from_secs(180), 0.9);
/// let server = TestServer::start()?;
/// server.limit(limits);
/// // Run the program against `server.base_url()`, then read the ledger.
/// assert_eq!(server.ledger().admitted(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerLimits {
    pub(super) per_minute: EachLimit<u64>,
    pub(super) classes: Vec<ClassLimits>,
    pub(super) grouping: ModelGrouping,
    pub(super) depths: EachLimit<Duration>,
    pub(super) charging: Charging,
    pub(super) tenant: OtherTenant,
    pub(super) overloads: Vec<OverloadPeriod>,
    pub(super) headers: HeaderMode,
    pub(super) latency: LogNormal,
    pub(super) refusal_latency: Duration,
    pub(super) output: Option<LogNormal>,
    pub(super) scale: f64,
    pub(super) seed: u64,
}

impl ServerLimits {
    /// Sets the limits of every class of models: requests, input tokens and output tokens per
    /// minute.
    pub fn per_minute(requests: u64, input_tokens: u64, output_tokens: u64) -> Self {
        ServerLimits {
            per_minute: [requests, input_tokens, output_tokens],
            classes: Vec::new(),
            grouping: ModelGrouping(Arc::new(|model| without_date(model).to_owned())),
            depths: [MINUTE; 3],
            charging: Charging::AsProduced,
            tenant: OtherTenant::default(),
            overloads: Vec::new(),
            headers: HeaderMode::All,
            latency: LogNormal::default(),
            refusal_latency: Duration::ZERO,
            output: None,
            scale: 1.0,
            seed: 0,
        }
    }

    /// Sets other limits for the class to which this model belongs.
    pub fn class(
        mut self,
        model: impl Into<String>,
        requests: u64,
        input_tokens: u64,
        output_tokens: u64,
    ) -> Self {
        let per_minute = [requests, input_tokens, output_tokens];
        self.classes.push(ClassLimits {
            model: model.into(),
            per_minute,
        });
        self
    }

    /// Sets which models share their buckets: the function names the class of a model.
    ///
    /// Default: each model is a class, named by its id without the date.
    pub fn class_by(
        mut self,
        class_of: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> ServerLimits {
        self.grouping = ModelGrouping(Arc::new(class_of));
        self
    }

    /// Sets how much the buckets hold, as the time in which an empty bucket fills. Default: 60 s.
    ///
    /// A bucket of requests holds at least one request.
    pub fn depth(mut self, depth: Duration) -> Self {
        self.depths = [depth; 3];
        self
    }

    /// Enforces the limit of requests over one second: a depth of 1 s instead of 60 s.
    pub fn requests_per_second(mut self) -> Self {
        self.depths[REQUESTS] = Duration::from_secs(1);
        self
    }

    /// Sets when output tokens are taken from their bucket. Default: [`Charging::AsProduced`].
    pub fn charging(mut self, charging: Charging) -> Self {
        self.charging = charging;
        self
    }

    /// Lets another tenant take a share (0 to 1) of all that flows into the buckets: for the time
    /// `on` the share, then for the time `off` nothing, and so on. With `off` zero the share is
    /// permanent.
    ///
    /// `retry-after` and `reset` do not include the other tenant: a server cannot foresee its use.
    ///
    /// ```
    /// use anthropic_blocking::testing::ServerLimits;
    /// use std::time::Duration;
    ///
    /// // Every ten minutes, a job of another team takes nine tenths for two minutes.
    /// let [on, off] = [2, 8].map(|minutes| Duration::from_secs(60 * minutes));
    /// let limits = ServerLimits::per_minute(1_000, 450_000, 90_000).tenant_bursts(0.9, on, off);
    /// ```
    pub fn tenant_bursts(mut self, share: f64, on: Duration, off: Duration) -> Self {
        self.tenant = OtherTenant {
            share: bounded(share, 0.0, 1.0),
            on: on.as_secs_f64(),
            off: off.as_secs_f64(),
        };
        self
    }

    /// Adds an overload: from one time to another, each request gets a 529 with this probability.
    pub fn overload(mut self, from: Duration, to: Duration, probability: f64) -> Self {
        self.overloads.push(OverloadPeriod {
            from: from.as_secs_f64(),
            to: to.as_secs_f64(),
            probability: bounded(probability, 0.0, 1.0),
        });
        self
    }

    /// Sets which rate limit headers are sent. Default: [`HeaderMode::All`].
    pub fn headers(mut self, mode: HeaderMode) -> Self {
        self.headers = mode;
        self
    }

    /// Sets the time from the arrival of a request to the end of its response, with a lognormal
    /// distribution; `sigma` 0 makes the time constant.
    ///
    /// Default: zero. At most one hour.
    pub fn latency(mut self, median: Duration, sigma: f64) -> Self {
        self.latency = LogNormal::new(median.as_secs_f64(), sigma);
        self
    }

    /// Sets the time from the arrival of a request to its 429 or 529. Default: zero. At most one
    /// hour.
    pub fn refusal_latency(mut self, latency: Duration) -> Self {
        self.refusal_latency = latency.min(Duration::from_secs(3_600));
        self
    }

    /// Sets the number of output tokens, with a lognormal distribution; `sigma` 0 makes the number
    /// constant. The messages consist of filler text.
    ///
    /// The n-th admitted request gets the n-th of the sizes (and of the latencies) that follow from
    /// the seed, whatever the request is. Default: the size of the canned text.
    pub fn output(mut self, median_tokens: u64, sigma: f64) -> Self {
        self.output = Some(LogNormal::new(median_tokens as f64, sigma));
        self
    }

    /// Lets the server's time pass so many times faster than real time: 0.001 to 1,000,000.
    /// Default: 1.
    ///
    /// All times of the server are scaled, latencies and dates included. So is `retry-after`: at
    /// 20, a client should wait a twentieth of it.
    pub fn scale(mut self, factor: f64) -> Self {
        self.scale = bounded(factor, 1e-3, 1e6);
        self
    }

    /// Sets the seed of all random values: sizes, latencies, and which requests get a 529. Default:
    /// 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// When the output tokens of a request are taken from their bucket.
///
/// Input tokens are always taken on arrival.
///
/// ```
/// use anthropic_blocking::testing::{Charging, ServerLimits};
///
/// // A server that reserves `max_tokens`, as the API did until 2025.
/// let limits = ServerLimits::per_minute(50, 30_000, 8_000).charging(Charging::Reserved);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Charging {
    /// As the output is produced, like the API since 2026. A request is admitted while the bucket
    /// holds at least one token; the level may become negative.
    AsProduced,
    /// `max_tokens` when the request arrives, of which the unused part is refunded at the end: like
    /// the API before 2026, and other services.
    Reserved,
}

/// Which `anthropic-ratelimit-…` headers the server sends.
///
/// ```
/// use anthropic_blocking::testing::{HeaderMode, ServerLimits};
///
/// // A gateway that says nothing about its limits.
/// let limits = ServerLimits::per_minute(50, 30_000, 8_000)
///     .headers(HeaderMode::None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderMode {
    /// `requests`, `input-tokens`, `output-tokens` and `tokens`.
    All,
    /// None, like some gateways.
    None,
}

/// The limits of a class of models that has its own.
#[derive(Clone, Debug)]
pub(super) struct ClassLimits {
    /// Any model of the class.
    pub(super) model: String,
    pub(super) per_minute: EachLimit<u64>,
}

/// The function that names the class of a model.
#[derive(Clone)]
pub(super) struct ModelGrouping(Arc<dyn Fn(&str) -> String + Send + Sync>);

impl ModelGrouping {
    pub(super) fn class_of(&self, model: &str) -> String {
        (self.0)(model)
    }
}

impl fmt::Debug for ModelGrouping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Grouping")
    }
}

/// One value for each limit: [`REQUESTS`], [`INPUT`] and [`OUTPUT`] are the indices.
pub(super) type EachLimit<T> = [T; 3];

pub(super) const REQUESTS: usize = 0;
pub(super) const INPUT: usize = 1;
pub(super) const OUTPUT: usize = 2;

/// Another user of the same limits, who takes a share of what flows into the buckets; the times in
/// seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OtherTenant {
    share: f64,
    on: f64,
    off: f64,
}

/// A share that is constant until a time in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ForeignShare {
    pub(super) share: f64,
    pub(super) until: f64,
}

impl OtherTenant {
    /// Returns the share that is taken at this time.
    pub(super) fn share_at(self, time: f64) -> ForeignShare {
        if self.off == 0.0 {
            return ForeignShare {
                share: self.share,
                until: f64::INFINITY,
            };
        }
        let cycle = self.on + self.off;
        let phase = time.rem_euclid(cycle);
        // A phase ends a little early rather than never, whatever the rounding.
        if phase + PHASE_ROUNDING < self.on {
            ForeignShare {
                share: self.share,
                until: time + self.on - phase,
            }
        } else {
            ForeignShare {
                share: 0.0,
                until: time + cycle - phase,
            }
        }
    }
}

/// A time during which requests get 529s by chance; in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverloadPeriod {
    from: f64,
    to: f64,
    probability: f64,
}

impl OverloadPeriod {
    /// Returns the probability of a 529 at this time.
    pub(super) fn probability_at(&self, time: f64) -> f64 {
        let is_on = (self.from..self.to).contains(&time);
        if is_on { self.probability } else { 0.0 }
    }
}

/// A lognormal distribution.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogNormal {
    median: f64,
    sigma: f64,
}

impl LogNormal {
    fn new(median: f64, sigma: f64) -> LogNormal {
        LogNormal {
            median,
            sigma: bounded(sigma, 0.0, 10.0),
        }
    }

    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> f64 {
        // Box and Muller: two uniform numbers make a normal one.
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
        self.median * (self.sigma * normal).exp()
    }
}

/// Returns `value` within its bounds; NaN becomes the lower bound.
fn bounded(value: f64, least: f64, most: f64) -> f64 {
    value.max(least).min(most)
}

/// Returns the id without a date such as `-20251001`.
fn without_date(model: &str) -> &str {
    match model.rsplit_once('-') {
        Some((id, date)) if date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()) => id,
        _ => model,
    }
}

/// By how many seconds a sum of times may be wrong.
const PHASE_ROUNDING: f64 = 1e-9;

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_of_a_model_is_its_id_without_the_date() {
        let limits = ServerLimits::per_minute(1, 1, 1);
        let class = |model: &str| limits.grouping.class_of(model);
        assert_eq!(class("claude-haiku-4-5-20251001"), "claude-haiku-4-5");
        assert_eq!(class("claude-haiku-4-5"), "claude-haiku-4-5");
        assert_eq!(class("20251001"), "20251001");
        let limits = limits.class_by(|model| model[..1].to_owned());
        assert_eq!(limits.grouping.class_of("abc"), "a");
    }

    #[test]
    fn log_normal_has_the_stated_median_and_sigma() {
        let mut rng = fastrand::Rng::with_seed(3);
        let spread = LogNormal::new(250.0, 0.9);
        let mut draws: Vec<f64> = (0..10_001).map(|_| spread.draw(&mut rng)).collect();
        draws.sort_by(f64::total_cmp);
        assert!((240.0..260.0).contains(&draws[5_000]), "{}", draws[5_000]);
        let sigma = (draws[8_413] / draws[5_000]).ln();
        assert!((0.87..0.93).contains(&sigma), "{sigma}");
        assert_eq!(LogNormal::new(7.0, f64::NAN).draw(&mut rng), 7.0);
    }

    #[test]
    fn tenant_alternates_between_share_and_nothing() {
        let seconds = Duration::from_secs;
        let limits = |on, off| {
            ServerLimits::per_minute(1, 1, 1)
                .tenant_bursts(0.4, seconds(on), seconds(off))
                .tenant
        };
        let share_at = |tenant: OtherTenant, time| {
            let foreign = tenant.share_at(time);
            (foreign.share, foreign.until)
        };
        assert_eq!(share_at(limits(30, 10), 0.0), (0.4, 30.0));
        assert_eq!(share_at(limits(30, 10), 30.0), (0.0, 40.0));
        assert_eq!(share_at(limits(30, 10), 95.0), (0.4, 110.0));
        assert_eq!(share_at(limits(0, 10), 95.0).0, 0.0);
        let steady = ServerLimits::per_minute(1, 1, 1)
            .tenant_bursts(2.0, Duration::MAX, Duration::ZERO)
            .tenant;
        assert_eq!(share_at(steady, 1e9), (1.0, f64::INFINITY));
    }

    #[test]
    fn overload_period_excludes_its_end() {
        let period = OverloadPeriod {
            from: 1.0,
            to: 2.0,
            probability: 0.5,
        };
        assert_eq!(
            [0.9, 1.0, 1.9, 2.0].map(|t| period.probability_at(t)),
            [0.0, 0.5, 0.5, 0.0]
        );
    }
}
