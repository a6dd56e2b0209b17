//! The token buckets of the limit mode, for one class of models at a time.
//!
//! All times are seconds since the first request; amounts and levels are requests or tokens.

use super::settings::{Charging, EachLimit, INPUT, OUTPUT, OtherTenant, REQUESTS, ServerLimits};

/// The buckets of one class of models, and the output that is being produced.
#[derive(Debug)]
pub(super) struct ClassBuckets {
    buckets: EachLimit<ServerBucket>,
    /// The time up to which the buckets were filled and drained.
    updated_at: f64,
    outputs: Vec<OutputInProgress>,
}

impl ClassBuckets {
    pub(super) fn new(now: f64, buckets: EachLimit<ServerBucket>) -> ClassBuckets {
        ClassBuckets {
            buckets,
            updated_at: now,
            outputs: Vec::new(),
        }
    }

    /// Fills and drains the buckets up to `now`, in steps over which no rate changes.
    pub(super) fn advance(&mut self, now: f64, tenant: OtherTenant) {
        while self.updated_at < now {
            let foreign = tenant.share_at(self.updated_at);
            let mut step_end = foreign.until.max(self.updated_at + SHORTEST_STEP).min(now);
            let mut produced_per_second = 0.0;
            for output in &self.outputs {
                if output.from > self.updated_at {
                    step_end = step_end.min(output.from);
                } else {
                    produced_per_second += output.tokens_per_second;
                    step_end = step_end.min(output.to);
                }
            }
            let seconds = step_end - self.updated_at;
            for (limit, bucket) in self.buckets.iter_mut().enumerate() {
                let drained = if limit == OUTPUT {
                    produced_per_second
                } else {
                    0.0
                };
                bucket.add((bucket.fill_rate * (1.0 - foreign.share) - drained) * seconds);
            }
            self.updated_at = step_end;
            let output_bucket = &mut self.buckets[OUTPUT];
            self.outputs.retain(|output| {
                if output.to <= step_end {
                    output_bucket.add(output.refund);
                }
                output.to > step_end
            });
        }
    }

    /// Returns why `need` cannot be charged now: of several empty buckets, the one that takes
    /// longest to fill.
    pub(super) fn shortage(&self, need: EachLimit<u64>) -> Option<RefusalCause> {
        let too_large = (0..3).find(|limit| need[*limit] as f64 > self.buckets[*limit].capacity);
        if let Some(limit) = too_large {
            return Some(RefusalCause::TooLarge { limit });
        }
        let short = (0..3).filter_map(|limit| {
            let bucket = &self.buckets[limit];
            let missing = need[limit] as f64 - bucket.level;
            (missing > ROUNDING_ERROR).then_some((limit, missing / bucket.fill_rate))
        });
        let slowest = short.max_by(|a, b| a.1.total_cmp(&b.1));
        slowest.map(|(limit, wait)| RefusalCause::Exceeded { limit, wait })
    }

    /// Charges an admitted request that arrived at `now`.
    pub(super) fn charge(
        &mut self,
        now: f64,
        need: EachLimit<u64>,
        plan: &ResponsePlan,
        charging: Charging,
    ) {
        self.buckets[REQUESTS].add(-1.0);
        self.buckets[INPUT].add(-(need[INPUT] as f64));
        let tokens = plan.output as f64;
        if plan.to <= now {
            self.buckets[OUTPUT].add(-tokens);
            return;
        }
        let mut output = OutputInProgress {
            from: plan.from,
            to: plan.to,
            tokens_per_second: 0.0,
            refund: 0.0,
        };
        match charging {
            Charging::AsProduced => output.tokens_per_second = tokens / (plan.to - plan.from),
            Charging::Reserved => {
                self.buckets[OUTPUT].add(-(need[OUTPUT] as f64));
                output.refund = need[OUTPUT] as f64 - tokens;
            }
        }
        self.outputs.push(output);
    }

    /// Returns what the response headers say about the buckets.
    pub(super) fn levels(&self) -> BucketLevels {
        self.buckets.each_ref().map(|bucket| BucketLevel {
            limit: bucket.limit,
            remaining: bucket.level.max(0.0),
            full_in: (bucket.capacity - bucket.level) / bucket.fill_rate.max(f64::MIN_POSITIVE),
        })
    }
}

/// One token bucket.
#[derive(Debug)]
pub(super) struct ServerBucket {
    /// The limit per minute, as the headers name it.
    limit: u64,
    /// In requests or tokens per second.
    fill_rate: f64,
    capacity: f64,
    /// Negative after more output was produced than the bucket held.
    level: f64,
}

impl ServerBucket {
    fn add(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.capacity);
    }
}

/// The output of an admitted request that is not complete yet.
#[derive(Debug)]
struct OutputInProgress {
    from: f64,
    to: f64,
    /// What the production takes from the bucket.
    tokens_per_second: f64,
    /// What goes back into the bucket at the end.
    refund: f64,
}

/// Why a request gets a 429.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RefusalCause {
    /// The bucket of this limit holds too little, for so many seconds.
    Exceeded { limit: usize, wait: f64 },
    /// The request needs more than a full bucket holds.
    TooLarge { limit: usize },
}

/// The size and the times of the response to an admitted request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResponsePlan {
    /// Output tokens.
    pub(super) output: u64,
    /// Whether `max_tokens` cut the output.
    pub(super) is_cut: bool,
    /// When the first token is produced.
    pub(super) from: f64,
    /// When the last token is produced.
    pub(super) to: f64,
}

/// What the response headers say about the three buckets.
pub(super) type BucketLevels = EachLimit<BucketLevel>;

/// What the response headers say about one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BucketLevel {
    /// Per minute.
    pub(super) limit: u64,
    pub(super) remaining: f64,
    /// After how many seconds the bucket is full.
    pub(super) full_in: f64,
}

/// Returns full buckets for these limits per minute.
pub(super) fn full_buckets(
    per_minute: EachLimit<u64>,
    limits: &ServerLimits,
) -> EachLimit<ServerBucket> {
    [REQUESTS, INPUT, OUTPUT].map(|index| {
        let limit = per_minute[index];
        let fill_rate = limit as f64 / 60.0;
        let depth = fill_rate * limits.depths[index].as_secs_f64();
        let capacity = match index {
            // Otherwise a small limit with a short depth would refuse every request.
            REQUESTS if limit > 0 => depth.max(1.0),
            _ => depth,
        };
        ServerBucket {
            limit,
            fill_rate,
            capacity,
            level: capacity,
        }
    })
}

/// The shortest step in seconds: time must move on in spite of rounding.
const SHORTEST_STEP: f64 = 1e-6;

/// By how many tokens a sum of floating-point numbers may be wrong.
const ROUNDING_ERROR: f64 = 1e-6;
