//! The pace: how fast what is free is spent, and how a run begins.

use crate::types::Dimension;

use super::math::{exp2, ln_1p};
use crate::budget::cost::{Each, REQUESTS, Time, greater, lesser};

/// Spreads requests out. Debt-style: a large request goes at once, and those behind it wait until
/// its time has passed. A late wake-up loses nothing, for the next charge time follows from the last
/// one, up to a second back.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    /// When what was admitted so far will have been charge.
    due: Each<Time>,
    /// Since when the speed doubles every ten seconds, and from what.
    ramp_from: Time,
    ramp_start: f64,
    /// At what the next ramp begins.
    next_ramp_start: f64,
    /// As it was when the pace was asked for last.
    speed: f64,
    last_sent: Time,
    /// The fastest that requests go, in multiples of the limit.
    max_requests_speed: f64,
    /// Refusals showed that the server counts requests over less than a minute, and when the last
    /// one did.
    is_spacing_requests: bool,
    last_spaced: Time,
}

/// How fast each dimension may be spent now, per second; unlimited where nothing is known.
pub(crate) type PaceRates = Each<f64>;

impl Pacer {
    pub(crate) fn new() -> Pacer {
        Pacer {
            due: [f64::NEG_INFINITY; 3],
            ramp_from: 0.0,
            ramp_start: RAMP_START,
            next_ramp_start: RAMP_START,
            speed: RAMP_START,
            last_sent: f64::NEG_INFINITY,
            max_requests_speed: MAX_REQUESTS_SPEED,
            is_spacing_requests: false,
            last_spaced: f64::NEG_INFINITY,
        }
    }

    /// The pace at `now` under what the server refills and what the window permits, per second
    /// each. The stored minute of a bucket is spent at up to twice its rate; a window has none.
    pub(crate) fn pace(&mut self, now: Time, server: &Each<f64>, window: &Each<f64>) -> PaceRates {
        if now - self.last_sent > RAMP_REST {
            (self.ramp_from, self.ramp_start) = (now, self.next_ramp_start);
        }
        if self.is_spacing_requests && now - self.last_spaced > SPACING_MEMORY {
            (self.is_spacing_requests, self.max_requests_speed) = (false, MAX_REQUESTS_SPEED);
        }
        let speed = self.speed(now);
        self.speed = speed;
        let mut pace = [0.0; 3];
        for d in 0..3 {
            let (server_top, window_top) = match d {
                REQUESTS => (self.max_requests_speed, self.max_requests_speed),
                _ => (MAX_SERVER_SPEED, MAX_WINDOW_SPEED),
            };
            let server = server[d] * lesser(speed, server_top);
            pace[d] = lesser(server, window[d] * lesser(speed, window_top));
        }
        pace
    }

    /// When the next request is charge, and by which dimension; `None` for now.
    pub(crate) fn earliest(&self, now: Time, pace: &PaceRates) -> Option<(Time, Dimension)> {
        let mut earliest = None;
        let mut latest = now;
        for dimension in Dimension::ALL {
            let d = dimension.at();
            let tolerance = self.tolerance(d, pace);
            if self.due[d] - tolerance > latest {
                latest = self.due[d] - tolerance;
                earliest = Some((latest, dimension));
            }
        }
        earliest
    }

    /// Nothing is owed any more; what comes next gets no burst for that.
    pub(crate) fn clear_debt(&mut self, now: Time, pace: &PaceRates) {
        for d in 0..3 {
            self.due[d] = lesser(self.due[d], now + self.tolerance(d, pace));
        }
    }

    /// A request of that expected cost is sent.
    pub(crate) fn add_debt(&mut self, now: Time, cost: &Each<f64>, pace: &PaceRates) {
        self.last_sent = now;
        // What is owed is paid at the speed to come, up to that of the limit.
        let growth = greater(lesser(self.max_requests_speed, 1.0) / self.speed, 1.0);
        for d in (0..3).filter(|d| cost[*d] > 0.0) {
            self.due[d] = greater(self.due[d], now) + debt_duration(cost[d] / pace[d], growth);
        }
    }

    /// The speed of the ramp, in multiples of the limit.
    fn speed(&self, now: Time) -> f64 {
        let doublings = ((now - self.ramp_from) / RAMP_DOUBLING).clamp(0.0, MAX_DOUBLINGS);
        self.ramp_start * exp2(doublings)
    }

    /// The server counts requests over less than a minute: space them evenly, and slower each
    /// time it says so. An hour after it said so last, that is tried anew.
    pub(crate) fn space_requests(&mut self, now: Time) {
        (self.is_spacing_requests, self.last_spaced) = (true, now);
        self.max_requests_speed =
            (self.max_requests_speed.min(1.0) * SPACING_STEP).max(MIN_SPACED_SPEED);
    }

    /// Use grew too fast for the server: at `from`, go on at half the speed and grow again.
    pub(crate) fn slow_down(&mut self, now: Time, from: Time) {
        let speed = self.ramp_start * exp2((now - self.ramp_from) / RAMP_DOUBLING);
        self.next_ramp_start = (speed.min(1.0) * RESTART_SHARE).max(MIN_RAMP_START);
        self.ramp_start = self.next_ramp_start;
        self.ramp_from = from;
        self.last_sent = self.last_sent.max(now);
    }

    /// A success: the next run may begin a little faster again.
    pub(crate) fn recover_ramp_start(&mut self) {
        if self.next_ramp_start < RAMP_START {
            self.next_ramp_start = (self.next_ramp_start * RAMP_START_RECOVERY).min(RAMP_START);
        }
    }

    /// Whether refusals showed that the pace matters to the server.
    pub(crate) fn is_careful(&self) -> bool {
        self.is_spacing_requests || self.next_ramp_start < RAMP_START
    }

    /// Nothing is sent before `until`; those that wait for it go at the pace then, not all at once.
    pub(crate) fn delay_until(&mut self, until: Time, pace: &PaceRates) {
        for d in 0..3 {
            // A hair earlier: the first one waits for the pause and not for the pace.
            let due = until + self.tolerance(d, pace) - PAUSE_LEAD;
            self.due[d] = self.due[d].max(due);
        }
    }

    /// How early a request may go.
    fn tolerance(&self, d: usize, pace: &PaceRates) -> f64 {
        match d {
            REQUESTS if self.is_spacing_requests => 0.0,
            // The first of a burst of one second's requests is not late.
            REQUESTS => greater(BURST - 1.0 / pace[d], 0.0),
            _ => BURST,
        }
    }

    /// A limit changed from `old` to `new`: what is still owed is paid at the new rate.
    pub(crate) fn rescale_debt(&mut self, now: Time, d: usize, old: f64, new: f64) {
        if self.due[d] > now && old > 0.0 && new > 0.0 {
            self.due[d] = now + (self.due[d] - now) * old / new;
        }
    }
}

/// How long it takes to pay what would take `seconds` at the present speed, which doubles until it
/// has grown by so much.
fn debt_duration(seconds: f64, growth: f64) -> f64 {
    const UNIT: f64 = RAMP_DOUBLING / std::f64::consts::LN_2;
    let growing = lesser(seconds, UNIT * (growth - 1.0));
    if growing <= 0.0 || seconds < SHORT_DEBT {
        return seconds;
    }
    UNIT * ln_1p(growing / UNIT) + (seconds - growing) / growth
}

const SPACING_STEP: f64 = 0.975;
const MIN_SPACED_SPEED: f64 = 0.5;
const RESTART_SHARE: f64 = 0.5;
const MAX_DOUBLINGS: f64 = 60.0;
const PAUSE_LEAD: f64 = 1e-6;

/// In so few seconds the speed does not grow to speak of.
const SHORT_DEBT: f64 = 0.05;

/// The share of the limit at which a run begins: the whole of it after 20 s.
const RAMP_START: f64 = 0.25;

/// However often the server says that use grew too fast.
const MIN_RAMP_START: f64 = 1.0 / 32.0;

/// By how much each success lifts the start of the next run: 210 of them from the slowest.
const RAMP_START_RECOVERY: f64 = 1.01;

/// For so many seconds it is remembered that requests must be spaced.
const SPACING_MEMORY: f64 = 3_600.0;

/// Seconds in which the speed doubles.
const RAMP_DOUBLING: f64 = 10.0;

/// After so many seconds without a request the ramp begins anew.
const RAMP_REST: f64 = 60.0;

/// How many seconds' worth may go at once.
const BURST: f64 = 1.0;

/// Spends the stored minute over about a minute.
const MAX_SERVER_SPEED: f64 = 2.0;

/// A window has nothing stored; this lets it recover what waiting lost.
const MAX_WINDOW_SPEED: f64 = 1.5;

/// Requests may be counted over a second.
const MAX_REQUESTS_SPEED: f64 = 1.25;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Each<f64> = [f64::INFINITY; 3];

    /// How many requests go from `start` to `end`, with wake-ups that are late by `late`.
    fn run(pacer: &mut Pacer, next_ramp_start: Time, end: Time, rate: f64, late: f64) -> usize {
        let mut server = ANY;
        server[REQUESTS] = rate;
        let (mut now, mut count) = (next_ramp_start, 0);
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
        let (time, dimension) = pacer.earliest(0.0, &pace).expect("it is owed");
        assert_eq!(dimension, Dimension::InputTokens);
        // 2,500 in the first ten seconds, and more as the speed grows to 1,000 a second.
        assert!((18.0..18.3).contains(&time), "{time}");
    }

    #[test]
    fn debt_of_the_ramp_counts_the_growing_speed() {
        let mut pacer = Pacer::new();
        let mut server = ANY;
        server[1] = 500.0;
        let pace = pacer.pace(0.0, &server, &ANY);
        pacer.add_debt(0.0, &[1.0, 25_000.0, 0.0], &pace);
        // 5,410 in the 20 s until the speed is that of the limit, the rest at 500 a second.
        let (time, _) = pacer.earliest(0.0, &pace).expect("it is owed");
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
        let first_second = |pacer: &mut Pacer, next_ramp_start| {
            run(pacer, next_ramp_start, next_ramp_start + 1.0, 100.0, 0.0)
        };
        let usual = first_second(&mut Pacer::new(), 0.0);
        let mut pacer = Pacer::new();
        for _ in 0..10 {
            pacer.slow_down(0.0, 0.0);
        }
        let slow = first_second(&mut pacer, 0.0);
        assert!(slow * 4 < usual && pacer.is_careful(), "{slow} of {usual}");
        (0..210).for_each(|_| pacer.recover_ramp_start());
        assert!(!pacer.is_careful());
        // The run that is under way goes on as it was.
        assert_eq!(pacer.speed(0.0), MIN_RAMP_START);
        assert_eq!(first_second(&mut pacer, 100.0), usual);
    }
}
