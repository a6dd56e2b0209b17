//! The token buckets of the limit mode, one class of models at a time.

use std::collections::VecDeque;

use super::settings::{Charging, Each, INPUT, OUTPUT, REQUESTS, ServerLimits, Tenant};

/// One class of models: its buckets and what is being produced.
#[derive(Debug)]
pub(super) struct Class {
    buckets: Each<Bucket>,
    at: f64,
    flows: Vec<Flow>,
    /// When requests were admitted, back to 70 s ago.
    admitted: VecDeque<f64>,
}

impl Class {
    pub(super) fn new(now: f64, buckets: Each<Bucket>) -> Class {
        Class {
            buckets,
            at: now,
            flows: Vec::new(),
            admitted: VecDeque::new(),
        }
    }

    /// Moves on to `now`, in steps over which no rate changes.
    pub(super) fn advance(&mut self, now: f64, tenant: Tenant) {
        while self.at < now {
            let (share, switch) = tenant.at(self.at);
            let mut end = switch.max(self.at + SHORTEST).min(now);
            let mut drain = 0.0;
            for flow in &self.flows {
                if flow.from > self.at {
                    end = end.min(flow.from);
                } else {
                    drain += flow.drain;
                    end = end.min(flow.to);
                }
            }
            let passed = end - self.at;
            for (dimension, bucket) in self.buckets.iter_mut().enumerate() {
                let drain = if dimension == OUTPUT { drain } else { 0.0 };
                bucket.add((bucket.rate * (1.0 - share) - drain) * passed);
            }
            self.at = end;
            let output = &mut self.buckets[OUTPUT];
            self.flows.retain(|flow| {
                if flow.to <= end {
                    output.add(flow.refund);
                }
                flow.to > end
            });
        }
    }

    /// Goes on with these buckets: levels stay, as far as they can.
    pub(super) fn change(&mut self, full: Each<Bucket>) {
        for (bucket, full) in self.buckets.iter_mut().zip(full) {
            *bucket = Bucket {
                level: bucket.level.min(full.level),
                shown: bucket.shown.min(full.shown),
                ..full
            };
        }
    }

    /// The bucket with too little, if any: of several the one that takes longest.
    pub(super) fn shortage(&self, need: Each<u64>) -> Option<Cause> {
        let too_large = (0..3).find(|d| need[*d] as f64 > self.buckets[*d].most);
        if let Some(dimension) = too_large {
            return Some(Cause::TooLarge(dimension));
        }
        let waits = (0..3).filter_map(|dimension| {
            let bucket = &self.buckets[dimension];
            let short = need[dimension] as f64 - bucket.level;
            (short > ROUNDING).then_some((dimension, short / bucket.rate))
        });
        let longest = waits.max_by(|a, b| a.1.total_cmp(&b.1));
        longest.map(|(dimension, wait)| Cause::Limit(dimension, wait))
    }

    /// After what time one more request does not make use grow too fast, where it does now.
    pub(super) fn growth(&mut self, now: f64, rule: Option<(f64, u64)>) -> Option<f64> {
        let (factor, floor) = rule?;
        while self.admitted.front().is_some_and(|at| *at <= now - 70.0) {
            self.admitted.pop_front();
        }
        let before = self.admitted.partition_point(|at| *at <= now - 10.0);
        let recent = self.admitted.len() - before + 1;
        let most = floor as f64 + factor * before as f64 / 6.0;
        let over = recent as f64 - most;
        if over <= 0.0 {
            return None;
        }
        // So many must be older than ten seconds first.
        let last = self.admitted.get(before + over.ceil() as usize - 1);
        Some(last.map_or(10.0, |at| at + 10.0 - now))
    }

    pub(super) fn charge(&mut self, now: f64, need: Each<u64>, plan: &Plan, charging: Charging) {
        self.admitted.push_back(now);
        self.buckets[REQUESTS].add(-1.0);
        self.buckets[INPUT].add(-(need[INPUT] as f64));
        let output = plan.output as f64;
        let is_instant = plan.to <= now;
        let mut flow = Flow {
            from: plan.from,
            to: plan.to,
            drain: 0.0,
            refund: 0.0,
        };
        match charging {
            Charging::OnArrival => self.buckets[OUTPUT].add(-output),
            _ if is_instant => self.buckets[OUTPUT].add(-output),
            Charging::AsProduced => flow.drain = output / (plan.to - plan.from),
            Charging::Reserved => {
                self.buckets[OUTPUT].add(-(need[OUTPUT] as f64));
                flow.refund = need[OUTPUT] as f64 - output;
            }
        }
        if !is_instant {
            self.flows.push(flow);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.buckets.each_ref().map(|bucket| Group {
            limit: bucket.limit,
            left: bucket.shown.max(0.0),
            full_in: (bucket.shown_most - bucket.shown) / bucket.rate.max(f64::MIN_POSITIVE),
        })
    }
}

/// One token bucket, and the one that the headers show.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: u64,
    /// Per second.
    rate: f64,
    most: f64,
    level: f64,
    shown_most: f64,
    shown: f64,
}

impl Bucket {
    fn add(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.most);
        self.shown = (self.shown + amount).min(self.shown_most);
    }
}

/// Output under way: what it takes from the bucket per second, and what it gives back at the end.
#[derive(Debug)]
struct Flow {
    from: f64,
    to: f64,
    drain: f64,
    refund: f64,
}

/// Why a request meets a 429, and after how many seconds it may not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    Limit(usize, f64),
    /// It is larger than the bucket.
    TooLarge(usize),
    Acceleration(f64),
    Concurrency,
}

/// How an admitted request is answered: so many tokens, produced from one time to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) output: u64,
    /// Whether `max_tokens` cut the output.
    pub(super) is_cut: bool,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// What the headers say of the buckets.
pub(super) type Standing = Each<Group>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) limit: u64,
    pub(super) left: f64,
    /// After how many seconds the bucket is full.
    pub(super) full_in: f64,
}

/// Full buckets.
pub(super) fn buckets(rates: Each<u64>, limits: &ServerLimits) -> Each<Bucket> {
    [REQUESTS, INPUT, OUTPUT].map(|dimension| {
        let limit = rates[dimension];
        let rate = limit as f64 / 60.0;
        let depth = rate * limits.depths[dimension].as_secs_f64();
        let most = match dimension {
            REQUESTS if limit > 0 => depth.max(1.0),
            _ => depth,
        };
        let shown = if limits.is_depth_hidden {
            limit as f64
        } else {
            most
        };
        Bucket {
            limit,
            rate,
            most,
            level: most,
            shown_most: shown,
            shown,
        }
    })
}

/// The shortest step, in seconds, so that time moves on in spite of rounding.
const SHORTEST: f64 = 1e-6;
/// Sums may be wrong by so many tokens.
const ROUNDING: f64 = 1e-6;
