//! A model of the server: token buckets, and the ways in which servers differ.

use fastrand::Rng;

use crate::budget::cost::{INPUT, OUTPUT, PerDimension, REQUESTS};
use crate::types::{RateLimit, RateLimits};

use super::scenario::{Job, Scenario, Storm, Tenant};

/// Why the server refused a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ServerRefusal {
    /// A bucket is empty: its dimension, and the seconds until it has room.
    Limit(usize, f64),
    Growth,
    Overloaded,
}

pub(super) struct Server {
    scenario: Scenario,
    depth: PerDimension<f64>,
    level: PerDimension<f64>,
    /// The level that the requests header shows where the real, shallow bucket is hidden.
    shown_requests: f64,
    at: f64,
    /// Output tokens per second of all responses in progress.
    producing: f64,
    /// Responses in progress.
    open: usize,
    growth: Growth,
    rng: Rng,
    /// All charges with their times.
    pub(super) charges: Vec<(f64, PerDimension<f64>)>,
}

/// The requests per second as the limit of growth sees them.
#[derive(Default)]
struct Growth {
    /// The time of the last accepted request.
    at: f64,
    /// The average over 5 s, and over 20 s.
    fast: f64,
    slow: f64,
}

impl Server {
    pub(super) fn new(scenario: &Scenario, rng: Rng) -> Server {
        let depth = [0, 1, 2].map(|d| scenario.rate(d) * scenario.depth[d]);
        let depth = depth.map(|depth| depth.max(1.0));
        Server {
            scenario: scenario.clone(),
            depth,
            level: depth,
            shown_requests: scenario.limits[REQUESTS],
            at: 0.0,
            producing: 0.0,
            open: 0,
            growth: Growth::default(),
            rng,
            charges: Vec::new(),
        }
    }

    /// Moves on to `now`, in steps over which the tenant does not change.
    pub(super) fn advance(&mut self, now: f64) {
        while self.at < now {
            let step = match self.scenario.tenant {
                Tenant::Switching(_) => ((self.at / 30.0).floor() + 1.0) * 30.0,
                _ => now,
            };
            let step = step.min(now);
            let passed = step - self.at;
            let share = self.scenario.tenant.share(self.at + passed / 2.0);
            for d in 0..3 {
                let gain = self.scenario.rate(d) * (1.0 - share) * passed;
                self.level[d] = (self.level[d] + gain).min(self.depth[d]);
            }
            let rate = self.scenario.rate(REQUESTS);
            let most = self.scenario.limits[REQUESTS];
            self.shown_requests = (self.shown_requests + rate * passed).min(most);
            if self.producing > 0.0 {
                let made = self.producing * passed;
                if !self.scenario.reserves_most {
                    self.level[OUTPUT] -= made;
                }
                self.charges.push((step, [0.0, 0.0, made]));
            }
            self.at = step;
        }
    }

    /// Charges a request of another client.
    pub(super) fn foreign(&mut self, now: f64, job: &Job) {
        self.advance(now);
        let cost = [1.0, job.input as f64, job.output as f64];
        for (d, cost) in cost.into_iter().enumerate() {
            self.level[d] = (self.level[d] - cost).max(-self.depth[d]);
        }
    }

    pub(super) fn arrive(&mut self, now: f64, job: &Job) -> Result<(), ServerRefusal> {
        self.advance(now);
        if let Some(Storm { from, to, odds }) = self.scenario.storm
            && (from..to).contains(&now)
            && self.rng.f64() < odds
        {
            return Err(ServerRefusal::Overloaded);
        }
        let output = match self.scenario.reserves_most {
            true => job.max_tokens as f64,
            false => 1.0,
        };
        let need = [1.0, job.input as f64, output];
        for (d, need) in need.into_iter().enumerate() {
            let short = need - self.level[d];
            if short > 0.0 {
                let left = 1.0 - self.scenario.tenant.share(now);
                return Err(ServerRefusal::Limit(
                    d,
                    short / (self.scenario.rate(d) * left),
                ));
            }
        }
        if self.scenario.growth_baseline > 0.0 && self.grows_too_fast(now) {
            return Err(ServerRefusal::Growth);
        }
        self.level[REQUESTS] -= 1.0;
        self.shown_requests -= 1.0;
        self.level[INPUT] -= job.input as f64;
        if self.scenario.reserves_most {
            self.level[OUTPUT] -= output;
        }
        self.charges.push((now, [1.0, job.input as f64, 0.0]));
        Ok(())
    }

    /// Returns whether the requests per second averaged over 5 s exceed 2.5 times those averaged over
    /// 20 s, and half of the rate from which growth is limited.
    fn grows_too_fast(&mut self, now: f64) -> bool {
        let Growth { at, fast, slow } = &self.growth;
        let fast = fast * ((at - now) / 5.0).exp() + 1.0 / 5.0;
        let slow = slow * ((at - now) / 20.0).exp() + 1.0 / 20.0;
        let too_fast = fast > (2.5 * slow).max(0.5 * self.scenario.growth_baseline);
        if !too_fast {
            self.growth = Growth {
                at: now,
                fast,
                slow,
            };
        }
        too_fast
    }

    pub(super) fn start_output(&mut self, now: f64, rate: f64) {
        self.advance(now);
        self.open += 1;
        self.producing += rate;
    }

    pub(super) fn end_output(&mut self, now: f64, rate: f64, job: &Job) {
        self.advance(now);
        self.open -= 1;
        self.producing -= rate;
        if self.open == 0 {
            self.producing = 0.0;
        }
        if self.scenario.reserves_most {
            let refund = job.max_tokens.saturating_sub(job.output) as f64;
            self.level[OUTPUT] = (self.level[OUTPUT] + refund).min(self.depth[OUTPUT]);
        }
    }

    /// Returns the headers of a response; as in real ones, tokens are rounded to thousands.
    pub(super) fn headers(&mut self, now: f64, wait: Option<f64>) -> RateLimits {
        self.advance(now);
        let mut limits = RateLimits {
            retry_after: wait
                .map(|wait| std::time::Duration::from_secs(wait.ceil().max(1.0) as u64)),
            ..RateLimits::default()
        };
        if !self.scenario.sends_headers {
            return limits;
        }
        let group = |d: usize, level: f64| {
            let level = level.max(0.0);
            let remaining = match d {
                REQUESTS => level.floor(),
                _ => (level / 1_000.0).round() * 1_000.0,
            };
            Some(RateLimit {
                limit: Some(self.scenario.limits[d] as u64),
                remaining: Some(remaining as u64),
                ..RateLimit::default()
            })
        };
        let requests = match self.scenario.hides_depth {
            true => self.shown_requests,
            false => self.level[REQUESTS],
        };
        limits.requests = group(REQUESTS, requests);
        limits.input_tokens = group(INPUT, self.level[INPUT]);
        limits.output_tokens = group(OUTPUT, self.level[OUTPUT]);
        limits
    }
}

impl Tenant {
    pub(super) fn share(self, now: f64) -> f64 {
        match self {
            Tenant::Steady(share) => share,
            Tenant::Switching(share) if ((now / 30.0) as u64).is_multiple_of(2) => share,
            _ => 0.0,
        }
    }

    /// Returns the mean share.
    pub(super) fn mean(self) -> f64 {
        match self {
            Tenant::Nobody => 0.0,
            Tenant::Steady(share) | Tenant::Random(share) => share,
            Tenant::Switching(share) => share / 2.0,
        }
    }
}
