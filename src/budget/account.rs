//! The account of one model class: window, mirror, pacer and estimates as one machine.

use std::collections::VecDeque;
use std::fmt;

use fastrand::Rng;

use crate::types::{Delivery, Usage};

use super::cost::{Cost, Dimension, Each, INPUT, OUTPUT, Time, whole};
use super::entries::{Entries, Key};
use super::estimate::{Estimate, Estimates};
use super::gate::{Gate, Pass};
use super::limits::Limits;
use super::mirror::{Hold, Mirror, Room, ServerView};
use super::pacer::{Pace, Pacer};
use super::reading::{Reading, Refusal};
use super::window::{Stamp, Window};

/// Decides when the requests of one model class may be sent, and learns from what becomes of them.
///
/// The life of a request: [`try_admit`](Account::try_admit) until it is granted; then, as they
/// come, [`learn`](Account::learn) with the headers, [`begun`](Account::begun) with the usage that
/// `message_start` brings, [`output_seen`](Account::output_seen); and exactly one end:
/// [`settle`](Account::settle), [`refused`](Account::refused),
/// [`overloaded`](Account::overloaded) or [`failed`](Account::failed). What comes after the end is
/// ignored.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    window: Window,
    mirror: Mirror,
    pacer: Pacer,
    estimates: Estimates,
    entries: Entries<Entry>,
    /// Sent, and not yet taken to have arrived; oldest first.
    travelling: VecDeque<(Time, Key)>,
    /// Nothing is sent before.
    pause: Time,
    /// Pauses in a row for which the server did not say how long.
    untold: i32,
    /// The most requests at once, after the server said that there were too many.
    most_open: Option<f64>,
    /// An answer came without any header: there is nothing to wait for.
    is_mute: bool,
    counts_cache_reads: bool,
    dice: Rng,
}

/// A request in flight.
#[derive(Debug, Clone)]
struct Entry {
    cost: Cost,
    hold: Hold,
    stamp: Stamp,
    pass: Pass,
    sent: Time,
    /// What the server said its input came to.
    input: Option<u64>,
    output: u64,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ruling {
    /// It may, and is accounted for under the key.
    Granted(Key),
    /// Not before that time, unless something gets better earlier; then ask again.
    NotBefore(Time, Why),
    /// Not before something in flight moves or ends.
    OnEvent(Why),
    /// It can never fit.
    Never(Excess),
}

/// A request that is larger than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) dimension: Dimension,
    pub(crate) estimate: u64,
    pub(crate) limit: u64,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The server asked to wait.
    Pause,
    /// The host is overloaded.
    Overload,
    /// The caller's own limit.
    Limit(Dimension),
    /// The server's limit.
    Server(Dimension),
    /// The pace, which grows at the start of a run.
    Pace(Dimension),
    /// The first answer, which shows the server's limits.
    FirstAnswer,
    /// An end of another request, for there are too many at once.
    Concurrency,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Pause => f.write_str("the server asked to wait"),
            Why::Overload => f.write_str("the server is overloaded"),
            Why::Limit(dimension) => write!(f, "own limit of {dimension} per minute"),
            Why::Server(dimension) => write!(f, "the server's limit of {dimension} per minute"),
            Why::Pace(dimension) => write!(f, "pace of {dimension}"),
            Why::FirstAnswer => f.write_str("the first answer will show the limits"),
            Why::Concurrency => f.write_str("the server allows no more requests at once"),
        }
    }
}

/// What an account looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) limits: Limits,
    /// What counts against them in the last 60 s.
    pub(crate) used: Each<u64>,
    pub(crate) in_flight: usize,
    pub(crate) server: Each<Option<ServerView>>,
    pub(crate) pause_until: Time,
}

impl Account {
    /// An account under `limits`, of which nothing is known yet.
    pub(crate) fn new(limits: Limits, counts_cache_reads: bool, dice: Rng) -> Account {
        Account {
            window: Window::new(limits),
            mirror: Mirror::new(),
            pacer: Pacer::new(),
            estimates: Estimates::new(),
            entries: Entries::new(),
            travelling: VecDeque::new(),
            pause: 0.0,
            untold: 0,
            most_open: None,
            is_mute: false,
            counts_cache_reads,
            dice,
        }
    }

    /// Changes what the caller permits itself; it holds for the past minute at once.
    pub(crate) fn set_limits(&mut self, now: Time, limits: Limits) {
        self.advance(now);
        for dimension in Dimension::ALL {
            let old = self.window.limits().of(dimension);
            if let (Some(old), Some(new)) = (old, limits.of(dimension)) {
                self.pacer
                    .rescale(now, dimension.at(), old as f64, new as f64);
            }
        }
        self.window.set_limits(limits);
    }

    /// Sets what the server is known to allow, where no header says so yet.
    pub(crate) fn assume_server(&mut self, now: Time, limits: &Limits) {
        self.advance(now);
        let limits = Dimension::ALL.map(|d| limits.of(d).map(|limit| limit as f64));
        self.mirror.assume(&limits);
    }

    /// Admits a request if it may be sent now.
    pub(crate) fn try_admit(&mut self, now: Time, cost: &Cost, gate: &mut Gate) -> Ruling {
        self.advance(now);
        let estimate = self.estimate(cost);
        if let Some(excess) = self.excess(&estimate) {
            return Ruling::Never(excess);
        }
        let in_flight = self.mirror.in_flight();
        if self
            .most_open
            .is_some_and(|most| in_flight as f64 + 1.0 > most.max(1.0))
        {
            return Ruling::OnEvent(Why::Concurrency);
        }
        if in_flight > 0 && self.is_probing() {
            return Ruling::OnEvent(Why::FirstAnswer);
        }
        let pace = self.pace(now);
        let (server_cost, variance) = self.mirror.cost(&estimate, cost.max_tokens);
        let room = self.mirror.room(&server_cost, &variance);
        if let Room::Later(dimension) = room {
            let why = Why::Server(dimension);
            return match self.travelling.front() {
                Some((sent, _)) => Ruling::NotBefore(sent + ARRIVED, why),
                None => Ruling::OnEvent(why),
            };
        }
        let mut latest = None;
        let mut wait = |time: Time, why: Why| {
            if time > now && latest.is_none_or(|(latest, _)| time > latest) {
                latest = Some((time, why));
            }
        };
        wait(self.pause, Why::Pause);
        if let Some(time) = gate.earliest(now) {
            wait(time, Why::Overload);
        }
        if let Some((time, dimension)) = self.window.earliest(&estimate) {
            wait(time, Why::Limit(dimension));
        }
        if let Room::At(time, dimension) = room {
            wait(time, Why::Server(dimension));
        }
        if let Some((time, dimension)) = self.pacer.earliest(now, &pace) {
            wait(time, Why::Pace(dimension));
        }
        if let Some((time, why)) = latest {
            return Ruling::NotBefore(time, why);
        }
        self.pacer.admit(now, &estimate.mean, &pace);
        let entry = Entry {
            cost: *cost,
            hold: self.mirror.admit(&server_cost, &variance),
            stamp: self.window.admit(&estimate),
            pass: gate.pass(now),
            sent: now,
            input: None,
            output: 0,
        };
        let key = self.entries.insert(entry);
        self.travelling.push_back((now, key));
        Ruling::Granted(key)
    }

    /// The headers of an answer arrived, whatever its status.
    pub(crate) fn learn(&mut self, now: Time, key: Key, reading: &Reading) {
        self.advance(now);
        let Some(entry) = self.entries.find(key) else {
            return;
        };
        let changes = self.mirror.learn(&entry.hold, reading);
        for (d, change) in changes.iter().enumerate() {
            if let Some((old, new)) = change {
                self.pacer.rescale(now, d, *old, *new);
            }
        }
    }

    /// The answer began: the host took the request, and `usage` says what its input came to.
    pub(crate) fn begun(&mut self, now: Time, key: Key, usage: &Usage, gate: &mut Gate) {
        self.advance(now);
        let input = self.counted_input(usage);
        let Some(entry) = self.entries.find(key) else {
            return;
        };
        gate.accepted(entry.pass);
        if entry.input.replace(input).is_none() {
            self.estimates.learn_input(&entry.cost, input);
        }
        self.mirror.input_is(&mut entry.hold, input as f64);
        let mut counts = entry.stamp.counted();
        counts[INPUT] = input;
        self.window.correct(&mut entry.stamp, counts);
    }

    /// The stream has shown so many output tokens in all.
    pub(crate) fn output_seen(&mut self, now: Time, key: Key, tokens: u64) {
        self.advance(now);
        let Some(entry) = self.entries.find(key).filter(|entry| entry.output < tokens) else {
            return;
        };
        self.estimates.grow(&entry.cost, entry.output, tokens);
        entry.output = tokens;
        self.mirror.output_seen(&mut entry.hold, tokens as f64);
        self.window.raise_output(&mut entry.stamp, tokens);
    }

    /// The request succeeded, and used what `usage` says.
    pub(crate) fn settle(&mut self, now: Time, key: Key, usage: &Usage, gate: &mut Gate) {
        self.begun(now, key, usage, gate);
        let Some(entry) = self.close(now, key, |entry, _| {
            let actual = [1, entry.input.unwrap_or(0), usage.output_tokens];
            (actual, actual)
        }) else {
            return;
        };
        self.estimates
            .learn_output(&entry.cost, usage.output_tokens);
        self.mirror.succeeded();
        self.untold = 0;
        self.is_mute |= !self.mirror.knows_any();
        if let Some(most) = &mut self.most_open {
            *most += 1.0 / most.max(1.0);
        }
    }

    /// The server refused the request with a 429 that a pause cures; `reading` is of its headers.
    /// Returns why it can never succeed, if the request alone is larger than the limit.
    pub(crate) fn refused(
        &mut self,
        now: Time,
        key: Key,
        refusal: Refusal,
        reading: &Reading,
        gate: &mut Gate,
    ) -> Option<Excess> {
        self.learn(now, key, reading);
        // A refusal costs nothing at the server, as far as is known, but a request here.
        let entry = self.close(now, key, |_, _| ([0, 0, 0], [1, 0, 0]))?;
        gate.forget(entry.pass);
        self.pause_for(now, reading.retry_after);
        let estimate = self.estimate(&entry.cost);
        let (cost, _) = self.mirror.cost(&estimate, entry.cost.max_tokens);
        match refusal {
            Refusal::Limit(dimension, limit) => {
                if let (Some(dimension), Some(limit)) = (dimension, limit) {
                    self.mirror.told_limit(dimension, limit);
                }
                let known = dimension.is_none_or(|d| self.mirror.knows(d.at()));
                if known && self.mirror.knows_any() {
                    self.mirror.refused(&cost, dimension, reading);
                    if dimension == Some(Dimension::Requests) && self.mirror.is_tight(reading) {
                        self.pacer.tighten();
                    }
                } else {
                    self.mirror.guess_limits(dimension, &self.window.sums());
                }
            }
            Refusal::Growth | Refusal::Unexplained => self.pacer.restart(now, self.pause),
            Refusal::Concurrency => {
                let open = self.mirror.in_flight() as f64 + 1.0;
                self.most_open = Some((0.75 * open).max(1.0));
                self.pacer.restart(now, self.pause);
            }
        }
        self.excess(&estimate)
    }

    /// The host refused the request as overloaded, at once or in the midst of its answer.
    pub(crate) fn overloaded(&mut self, now: Time, key: Key, wait: Option<f64>, gate: &mut Gate) {
        let entry = self.close(now, key, |entry, _| {
            let actual = [1, entry.input.unwrap_or(0), entry.output];
            (actual, actual)
        });
        if let Some(entry) = entry {
            gate.refused(now, entry.sent, entry.pass, wait);
        }
    }

    /// The request failed otherwise: never sent, answered with an error, or nobody knows.
    pub(crate) fn failed(&mut self, now: Time, key: Key, delivery: Delivery, gate: &mut Gate) {
        let entry = self.close(now, key, |entry, counted| match delivery {
            Delivery::NotSent => ([0; 3], [0; 3]),
            Delivery::Answered => {
                let actual = [1, entry.input.unwrap_or(0), entry.output];
                (
                    [1, entry.input.unwrap_or(counted[INPUT]), entry.output],
                    actual,
                )
            }
            Delivery::Unknown => {
                let output = counted[OUTPUT].max(entry.output);
                let actual = [1, counted[INPUT], output];
                (actual, actual)
            }
        });
        if let Some(entry) = entry {
            gate.forget(entry.pass);
        }
    }

    /// What a request is expected to cost, for those that wait behind it.
    pub(crate) fn expected(&self, cost: &Cost) -> Each<f64> {
        self.estimate(cost).mean
    }

    /// The earliest time at which a request can be sent, with `queued` ahead of it: what no luck
    /// can better (5.8).
    pub(crate) fn at_best(&mut self, now: Time, queued: &Each<f64>, cost: &Cost) -> Time {
        self.advance(now);
        let estimate = self.estimate(cost);
        let (server_cost, variance) = self.mirror.cost(&estimate, cost.max_tokens);
        self.pause
            .max(self.window.at_best(now, queued, &estimate))
            .max(self.mirror.at_best(queued, &server_cost, &variance))
    }

    /// What the account looks like.
    pub(crate) fn view(&mut self, now: Time) -> View {
        self.advance(now);
        View {
            limits: self.window.limits(),
            used: self.window.sums(),
            in_flight: self.mirror.in_flight(),
            server: [0, 1, 2].map(|d| self.mirror.view(d)),
            pause_until: self.pause,
        }
    }

    /// Whether nothing is in flight, and nothing kept for it.
    pub(crate) fn is_at_rest(&mut self, now: Time) -> bool {
        self.advance(now);
        self.mirror.is_at_rest() && self.window.is_at_rest()
    }

    /// Moves all machines on to `now`.
    fn advance(&mut self, now: Time) {
        self.window.advance(now);
        while let Some((sent, key)) = self.travelling.front().copied() {
            if sent + ARRIVED > now {
                break;
            }
            self.travelling.pop_front();
            if let Some(entry) = self.entries.find(key) {
                // In the order of time: refill must not see charges that were not made yet.
                self.mirror.refill(sent + ARRIVED);
                self.mirror.arrived(&mut entry.hold);
            }
        }
        self.mirror.refill(now);
    }

    /// Ends an entry with what it came to for the mirror and for the window.
    fn close(
        &mut self,
        now: Time,
        key: Key,
        actual: impl FnOnce(&Entry, Each<u64>) -> (Each<u64>, Each<u64>),
    ) -> Option<Entry> {
        self.advance(now);
        let mut entry = self.entries.take(key)?;
        let (for_mirror, for_window) = actual(&entry, entry.stamp.counted());
        self.mirror
            .complete(&entry.hold, &for_mirror.map(|tokens| tokens as f64));
        self.window.correct(&mut entry.stamp, for_window);
        self.window.close(&entry.stamp);
        self.estimates.grow(&entry.cost, entry.output, 0);
        Some(entry)
    }

    fn pause_for(&mut self, now: Time, asked: Option<f64>) {
        let wait = asked.unwrap_or_else(|| {
            self.untold = (self.untold + 1).min(6);
            f64::from(self.untold - 1).exp2()
        });
        // Processes that were told the same do not come back in one instant.
        self.pause = self.pause.max(now + wait + 0.1 * self.dice.f64());
    }

    fn estimate(&self, cost: &Cost) -> Estimate {
        let strict = self.window.limits().is_strict();
        self.estimates.estimate(cost, strict)
    }

    fn excess(&self, estimate: &Estimate) -> Option<Excess> {
        if let Some(dimension) = self.window.excess(estimate) {
            return Some(Excess {
                dimension,
                estimate: estimate.promise[dimension.at()],
                limit: self.window.limits().of(dimension).unwrap_or(0),
            });
        }
        let dimension = self.mirror.excess(estimate)?;
        let limit = self.mirror.view(dimension.at())?.limit;
        Some(Excess {
            dimension,
            estimate: whole(estimate.mean[dimension.at()]),
            limit: whole(limit),
        })
    }

    /// Whether one request goes ahead to learn the limits: not where the caller set limits, for
    /// then a slow start is probe enough (10.3).
    fn is_probing(&self) -> bool {
        !self.is_mute && !self.mirror.knows_any() && self.window.limits().is_unlimited()
    }

    fn pace(&mut self, now: Time) -> Pace {
        let window = Dimension::ALL.map(|dimension| match self.window.limits().of(dimension) {
            Some(limit) => limit as f64 / 60.0,
            None => f64::INFINITY,
        });
        self.pacer.pace(now, &self.mirror.rates(), &window)
    }

    fn counted_input(&self, usage: &Usage) -> u64 {
        let reads = match self.counts_cache_reads {
            true => usage.cache_read_input_tokens.unwrap_or(0),
            false => 0,
        };
        let written = usage.cache_creation_input_tokens.unwrap_or(0);
        usage
            .input_tokens
            .saturating_add(written)
            .saturating_add(reads)
    }
}

/// After so many seconds a request has surely arrived at the server (5.2).
const ARRIVED: f64 = 2.0;
