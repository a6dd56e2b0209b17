//! The token buckets of the limit mode, one class of models at a time.

use super::settings::{Charging, Each, INPUT, OUTPUT, REQUESTS, ServerLimits, Tenant};

/// One class of models: its buckets and what is being produced.
#[derive(Debug)]
pub(super) struct Class {
    buckets: Each<Bucket>,
    at: f64,
    flows: Vec<Flow>,
}

impl Class {
    pub(super) fn new(now: f64, buckets: Each<Bucket>) -> Class {
        Class {
            buckets,
            at: now,
            flows: Vec::new(),
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

    pub(super) fn charge(&mut self, now: f64, need: Each<u64>, plan: &Plan, charging: Charging) {
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
            left: bucket.level.max(0.0),
            full_in: (bucket.most - bucket.level) / bucket.rate.max(f64::MIN_POSITIVE),
        })
    }
}

/// One token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: u64,
    /// Per second.
    rate: f64,
    most: f64,
    level: f64,
}

impl Bucket {
    fn add(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.most);
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
        Bucket {
            limit,
            rate,
            most,
            level: most,
        }
    })
}

/// The shortest step, in seconds, so that time moves on in spite of rounding.
const SHORTEST: f64 = 1e-6;
/// Sums may be wrong by so many tokens.
const ROUNDING: f64 = 1e-6;
