//! The pace: how fast the available amount is spent, and how a run ramps up.

use crate::types::Dimension;

use super::math::{exp2, ln_1p};
use crate::budget::cost::{PerDimension, REQUESTS, Time, greater, lesser};

/// Spreads requests over time by debt.
///
/// A large request goes at once, and those behind it wait until the time of its cost has passed. A
/// late wake-up loses nothing: the next due time follows from the last one, up to [`BURST`] back.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    /// The time at which the cost of all admitted requests is paid.
    due: PerDimension<Time>,
    /// The speed of the present ramp at its start, and when that was.
    ramp_start: f64,
    ramp_from: Time,
    /// The speed at which the next ramp starts.
    next_ramp_start: f64,
    /// The speed at the last call of [`Pacer::pace`].
    speed: f64,
    last_sent: Time,
    /// The highest speed of requests.
    max_requests_speed: f64,
    /// When a refusal last showed that the server counts requests over less than a minute.
    last_hidden_interval: Option<Time>,
}

/// How much of each dimension may be spent per second; infinite where no limit is known.
pub(crate) type PaceRates = PerDimension<f64>;

impl Pacer {
    pub(crate) fn new() -> Pacer {
        Pacer {
            due: [f64::NEG_INFINITY; 3],
            ramp_start: RAMP_START,
            ramp_from: 0.0,
            next_ramp_start: RAMP_START,
            speed: RAMP_START,
            last_sent: f64::NEG_INFINITY,
            max_requests_speed: MAX_REQUESTS_SPEED,
            last_hidden_interval: None,
        }
    }

    /// Moves the ramp on to `now` and returns the pace, from the refill rates of the server and the
    /// rates of the caller's own limits.
    pub(crate) fn pace(
        &mut self,
        now: Time,
        server: &PerDimension<f64>,
        window: &PerDimension<f64>,
    ) -> PaceRates {
        if now - self.last_sent > RAMP_REST {
            (self.ramp_from, self.ramp_start) = (now, self.next_ramp_start);
        }
        let last = self.last_hidden_interval;
        if last.is_some_and(|last| now - last > HIDDEN_INTERVAL_MEMORY) {
            (self.last_hidden_interval, self.max_requests_speed) = (None, MAX_REQUESTS_SPEED);
        }
        let speed = self.speed_at(now);
        self.speed = speed;
        let mut pace = [0.0; 3];
        for d in 0..3 {
            let (max_server, max_window) = match d {
                REQUESTS => (self.max_requests_speed, self.max_requests_speed),
                _ => (MAX_SERVER_SPEED, MAX_WINDOW_SPEED),
            };
            let server = server[d] * lesser(speed, max_server);
            pace[d] = lesser(server, window[d] * lesser(speed, max_window));
        }
        pace
    }

    /// Adds the expected cost of a request that is sent now to the debt.
    pub(crate) fn add_debt(&mut self, now: Time, cost: &PerDimension<f64>, pace: &PaceRates) {
        self.last_sent = now;
        // The debt is paid at the speeds to come, up to that of the limit.
        let growth = greater(lesser(self.max_requests_speed, 1.0) / self.speed, 1.0);
        for d in (0..3).filter(|d| cost[*d] > 0.0) {
            self.due[d] = greater(self.due[d], now) + debt_duration(cost[d] / pace[d], growth);
        }
    }

    /// Drops the debt; the next request gets no burst for that.
    pub(crate) fn clear_debt(&mut self, now: Time, pace: &PaceRates) {
        for d in 0..3 {
            self.due[d] = lesser(self.due[d], now + self.tolerance(d, pace));
        }
    }

    /// Converts the debt of a dimension whose limit changed to the new rate.
    pub(crate) fn rescale_debt(&mut self, now: Time, d: usize, old: f64, new: f64) {
        if self.due[d] > now && old > 0.0 && new > 0.0 {
            self.due[d] = now + (self.due[d] - now) * old / new;
        }
    }

    /// Delays all requests to `until`; from then on they go at the pace and not all at once.
    pub(crate) fn delay_until(&mut self, until: Time, pace: &PaceRates) {
        for d in 0..3 {
            // The first request waits for the pause and not for the pace.
            let due = until + self.tolerance(d, pace) - PAUSE_LEAD;
            self.due[d] = self.due[d].max(due);
        }
    }

    /// Spaces requests evenly, and slower at each call: the server counts requests over less than a
    /// minute. [`HIDDEN_INTERVAL_MEMORY`] after the last call the pacer tries bursts again.
    pub(crate) fn space_requests(&mut self, now: Time) {
        self.last_hidden_interval = Some(now);
        self.max_requests_speed =
            (self.max_requests_speed.min(1.0) * SPACING_STEP).max(MIN_SPACED_SPEED);
    }

    /// Restarts the ramp at `from` with half the speed: use grew too fast for the server.
    pub(crate) fn slow_down(&mut self, now: Time, from: Time) {
        let speed = self.ramp_start * exp2((now - self.ramp_from) / RAMP_DOUBLING);
        self.next_ramp_start = (speed.min(1.0) * SLOW_DOWN).max(MIN_RAMP_START);
        self.ramp_start = self.next_ramp_start;
        self.ramp_from = from;
        self.last_sent = self.last_sent.max(now);
    }

    /// Lets the next ramp start a little faster again: a request succeeded.
    pub(crate) fn recover_ramp_start(&mut self) {
        if self.next_ramp_start < RAMP_START {
            self.next_ramp_start = (self.next_ramp_start * RAMP_START_RECOVERY).min(RAMP_START);
        }
    }

    /// Returns when the pace admits the next request, and which dimension decides; `None` for now.
    pub(crate) fn earliest(&self, now: Time, pace: &PaceRates) -> Option<(Time, Dimension)> {
        let mut earliest = None;
        let mut latest = now;
        for dimension in Dimension::ALL {
            let d = dimension.index();
            let tolerance = self.tolerance(d, pace);
            if self.due[d] - tolerance > latest {
                latest = self.due[d] - tolerance;
                earliest = Some((latest, dimension));
            }
        }
        earliest
    }

    /// Returns whether refusals showed that the pace matters to the server.
    pub(crate) fn is_careful(&self) -> bool {
        self.last_hidden_interval.is_some() || self.next_ramp_start < RAMP_START
    }

    /// Returns the speed of the ramp, in multiples of the limit.
    fn speed_at(&self, now: Time) -> f64 {
        let doublings = ((now - self.ramp_from) / RAMP_DOUBLING).clamp(0.0, MAX_DOUBLINGS);
        self.ramp_start * exp2(doublings)
    }

    /// Returns how many seconds before its due time a request may go.
    fn tolerance(&self, d: usize, pace: &PaceRates) -> f64 {
        match d {
            REQUESTS if self.last_hidden_interval.is_some() => 0.0,
            // The first request of a burst is not early.
            REQUESTS => greater(BURST - 1.0 / pace[d], 0.0),
            _ => BURST,
        }
    }
}

/// Returns the time to pay what takes `seconds` at the present speed, which doubles each
/// [`RAMP_DOUBLING`] until it has grown by the factor `growth`.
fn debt_duration(seconds: f64, growth: f64) -> f64 {
    const UNIT: f64 = RAMP_DOUBLING / std::f64::consts::LN_2;
    let growing = lesser(seconds, UNIT * (growth - 1.0));
    if growing <= 0.0 || seconds < SHORT_DEBT {
        return seconds;
    }
    UNIT * ln_1p(growing / UNIT) + (seconds - growing) / growth
}

/// Speed at the start of a ramp, as a share of the limit: the whole limit after 20 s.
///
/// Moves, halved: `output 500` ratio 0.91 → 0.95; `input 500` ratio 0.90 → 0.93; 4 more.
/// Doubled: `output 500` ratio 0.91 → 0.88; `input 500` ratio 0.90 → 0.87; 2 more.
const RAMP_START: f64 = 0.25;

/// Lower bound of the speed at the start of a ramp, however often the server refused growth.
///
/// Moves no row: a safety bound; no scenario slows down so often.
const MIN_RAMP_START: f64 = 1.0 / 32.0;

/// Factor by which each success raises the start of the next ramp: 210 successes from the lowest.
///
/// Moves no row: it matters to runs after a refusal of growth only.
const RAMP_START_RECOVERY: f64 = 1.01;

/// Seconds in which the speed doubles.
///
/// Moves, halved: `output 500` ratio 0.91 → 0.89; `requests 500` ratio 0.93 → 0.91; 3 more.
/// Doubled: `output 500` ratio 0.91 → 0.97; `input 500` ratio 0.90 → 0.95; 6 more.
const RAMP_DOUBLING: f64 = 10.0;

/// Seconds without a request after which the ramp restarts: a bucket of a minute is full by then.
///
/// Moves no row: no scenario rests for a minute.
const RAMP_REST: f64 = 60.0;

/// Upper bound of the doublings, so that the speed stays finite.
///
/// Moves no row: numeric; the highest speeds cap the ramp long before.
const MAX_DOUBLINGS: f64 = 60.0;

/// Seconds' worth of requests or tokens that may go at once; also what a late wake-up may catch up.
///
/// Moves, halved: `max_tokens reserved, promised` 429s 0.8 → 0.0. Doubled: `storm 0.9,
/// promised` tenth success 5.6 → 3.6 s; `input 500` ratio 0.898 → 0.886.
const BURST: f64 = 1.0;

/// Highest speed of tokens against the server, in multiples of the limit: spends the stored minute
/// in about a minute.
///
/// Moves, halved: `output 500` ratio 0.91 → 1.19; `input 500` ratio 0.90 → 1.18; 24 more.
/// Doubled: `unknown, no headers` 429s 68.6 → 85.7; `input 500` ratio 0.898 → 0.887.
const MAX_SERVER_SPEED: f64 = 2.0;

/// Highest speed of tokens against the caller's own limits: a window stores nothing, but recovers
/// what waiting lost. An earlier simulation took 1.104, 1.074, 1.065 and 1.058 times the optimum at
/// 1.0, 1.25, 1.5 and 2.0.
///
/// Moves, halved: `storm 1.0, promised` ratio 1.10 → 1.41, charged 1.00 → 0.95; `storm 0.9,
/// promised` ratio 1.10 → 1.41, charged 1.02 → 0.95; 7 more. Doubled: `input 5000, half` ratio
/// 1.10 → 1.08; `output 5000, half` ratio 1.129 → 1.116.
const MAX_WINDOW_SPEED: f64 = 1.5;

/// Highest speed of requests, in multiples of the limit: the API says that it may enforce a limit
/// per minute by the second.
///
/// Moves, halved: `requests 500` ratio 0.93 → 1.68; `requests 5000` ratio 0.99 → 1.61; 9 more.
/// Doubled: `mute, requests` 429s 79.7 → 110.7; `requests 500` ratio 0.93 → 0.88.
const MAX_REQUESTS_SPEED: f64 = 1.25;

/// Factor of the highest speed of requests for each refusal by a hidden interval.
///
/// Moves, at 0.9875: `per second, 50 a minute, 500` 429s 3.6 → 6.6; `per second` ratio 1.042 →
/// 1.029; 2 more. At 0.95: `per second, promised` ratio 1.04 → 1.07; `per second, hidden` ratio
/// 1.04 → 1.07; 2 more.
const SPACING_STEP: f64 = 0.975;

/// Lower bound of the highest speed of requests.
///
/// Moves, doubled: `per second, 50 a minute, 500` ratio 1.12 → 1.66, 429s 3.6 → 285.5; `per
/// second, hidden` ratio 1.04 → 1.02; 2 more.
const MIN_SPACED_SPEED: f64 = 0.5;

/// Seconds after which requests are no longer spaced because of a hidden interval: an hour.
///
/// Moves, halved: `per second, promised` 429s 1.0 → 2.1; `per second` 429s 1.0 → 2.0; 1 more.
const HIDDEN_INTERVAL_MEMORY: f64 = 3_600.0;

/// Factor of the speed after a refusal of growth.
///
/// Moves no row, nor does 1: `growth limited` ratio 0.998 → 0.995, 429s 1.2 → 1.3. It stays for
/// servers that limit growth more than the one of that row.
const SLOW_DOWN: f64 = 0.5;

/// Seconds by which the pace ends before a pause, so that the pause is the cause of the wait.
///
/// Moves no row: numeric; far below every time that matters.
const PAUSE_LEAD: f64 = 1e-6;

/// Debts shorter than this many seconds are paid at the present speed: the speed grows by less than
/// 0.4 % meanwhile.
///
/// Moves no row: numeric; below the error of the estimates.
const SHORT_DEBT: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: PerDimension<f64> = [f64::INFINITY; 3];

    /// Counts the requests from `start` to `end`, with wake-ups that are late by `late` seconds.
    fn run(pacer: &mut Pacer, start: Time, end: Time, rate: f64, late: f64) -> usize {
        let mut server = ANY;
        server[REQUESTS] = rate;
        let (mut now, mut count) = (start, 0);
        while now < end {
            let pace = pacer.pace(now, &server, &ANY);
            match pacer.earliest(now, &pace) {
                Some((time, _)) => now = time.max(now + 1e-9) + late,
                None => {
                    pacer.add_debt(now, &[1.0, 100.0, 100.0], &pace);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn ramp_starts_at_a_quarter_and_doubles() {
        let mut pacer = Pacer::new();
        let first = run(&mut pacer, 0.0, 10.0, 100.0, 0.0);
        assert!((300..450).contains(&first), "{first}");
        run(&mut pacer, 10.0, 40.0, 100.0, 0.0);
        let at_top_speed = run(&mut pacer, 40.0, 50.0, 100.0, 0.0);
        assert!((1_230..1_270).contains(&at_top_speed), "{at_top_speed}");
    }

    #[test]
    fn late_wake_ups_lose_no_pace() {
        let mut pacer = Pacer::new();
        run(&mut pacer, 0.0, 40.0, 100.0, 0.0);
        let count = run(&mut pacer, 40.0, 140.0, 100.0, 0.004);
        assert!((12_450..12_600).contains(&count), "{count}");
    }

    #[test]
    fn large_request_goes_at_once_and_the_next_waits() {
        let mut pacer = Pacer::new();
        let mut server = ANY;
        server[1] = 1_000.0;
        let pace = pacer.pace(0.0, &server, &ANY);
        assert_eq!(pacer.earliest(0.0, &pace), None);
        pacer.add_debt(0.0, &[1.0, 10_000.0, 0.0], &pace);
        let (time, dimension) = pacer.earliest(0.0, &pace).expect("a debt");
        assert_eq!(dimension, Dimension::InputTokens);
        // 2,500 tokens in the first ten seconds, and more as the speed grows to 1,000 a second.
        assert!((18.0..18.3).contains(&time), "{time}");
    }

    #[test]
    fn debt_of_the_ramp_counts_the_growing_speed() {
        let mut pacer = Pacer::new();
        let mut server = ANY;
        server[1] = 500.0;
        let pace = pacer.pace(0.0, &server, &ANY);
        pacer.add_debt(0.0, &[1.0, 25_000.0, 0.0], &pace);
        // 5,410 tokens in the 20 s until the speed is that of the limit, the rest at 500 a second.
        let (time, _) = pacer.earliest(0.0, &pace).expect("a debt");
        assert!((58.0..58.5).contains(&time), "{time}");
        assert_eq!(debt_duration(3.0, 1.0), 3.0);
        assert_eq!(debt_duration(0.0, 4.0), 0.0);
    }

    #[test]
    fn minute_without_requests_restarts_the_ramp() {
        let mut pacer = Pacer::new();
        run(&mut pacer, 0.0, 60.0, 100.0, 0.0);
        let count = run(&mut pacer, 200.0, 201.0, 100.0, 0.0);
        assert!(count < 60, "{count}");
    }

    #[test]
    fn hidden_interval_spaces_requests_for_an_hour() {
        let mut pacer = Pacer::new();
        run(&mut pacer, 0.0, 60.0, 2.0, 0.0);
        pacer.space_requests(60.0);
        let count = run(&mut pacer, 60.0, 160.0, 2.0, 0.0);
        assert!((190..=198).contains(&count), "{count}");
        let count = run(&mut pacer, 160.0, 3_660.0, 2.0, 0.0);
        assert!(pacer.is_careful() && count < 7_000, "{count}");
        let count = run(&mut pacer, 3_660.0, 3_760.0, 2.0, 0.0);
        assert!(!pacer.is_careful() && count > 240, "{count}");
    }

    #[test]
    fn refused_growth_halves_the_speed() {
        let mut pacer = Pacer::new();
        run(&mut pacer, 0.0, 15.0, 100.0, 0.0);
        pacer.slow_down(15.0, 20.0);
        let count = run(&mut pacer, 20.0, 21.0, 100.0, 0.0);
        assert!(count < 80, "{count}");
        for _ in 0..100 {
            pacer.slow_down(30.0, 30.0);
        }
        assert!(run(&mut pacer, 30.0, 40.0, 100.0, 0.0) > 10);
    }

    #[test]
    fn successes_restore_the_ramp_start() {
        let first_second = |pacer: &mut Pacer, start| run(pacer, start, start + 1.0, 100.0, 0.0);
        let usual = first_second(&mut Pacer::new(), 0.0);
        let mut pacer = Pacer::new();
        for _ in 0..10 {
            pacer.slow_down(0.0, 0.0);
        }
        let slow = first_second(&mut pacer, 0.0);
        assert!(slow * 4 < usual && pacer.is_careful(), "{slow} of {usual}");
        (0..210).for_each(|_| pacer.recover_ramp_start());
        assert!(!pacer.is_careful());
        // The ramp under way stays as it is.
        assert_eq!(pacer.speed_at(0.0), MIN_RAMP_START);
        assert_eq!(first_second(&mut pacer, 100.0), usual);
    }
}
