//! What requests will cost, learned from what they did cost: bytes to input tokens, and the length
//! of answers.

use crate::budget::cost::{Cost, Each, Input, at_most, lesser, whole};

/// What a request is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// The expected cost.
    pub(crate) mean: Each<f64>,
    /// How far one request strays from it, squared.
    pub(crate) variance: Each<f64>,
    /// How wrong the mean itself may be, relative and squared: an error that all requests in
    /// flight share.
    pub(crate) mean_error: Each<f64>,
    /// What the window promises: whole tokens.
    pub(crate) promise: Each<u64>,
    /// Whether so much is known that a request can be refused for its size.
    pub(crate) is_reliable: Each<bool>,
}

impl Estimate {
    /// What the request costs at least, as far as that is known.
    pub(crate) fn lower_bound(&self, d: usize) -> f64 {
        match self.is_reliable[d] {
            true => self.mean[d] - BOUND_DEVIATIONS * self.variance[d].sqrt(),
            false => 0.0,
        }
    }
}

/// What has been learned about the requests of one model class.
#[derive(Debug, Clone)]
pub(crate) struct Estimates {
    /// Actual over guessed input; by cached or not, in tokens or in bytes.
    ratios: [[RunningMean; 2]; 2],
    /// Output tokens; by cached or not, and by the logarithm of `max_tokens`.
    outputs: [[OutputLengths; BANDS]; 2],
}

/// Answers of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct OutputLengths {
    lengths: RunningMean,
    /// Output seen so far of those that have not ended: the long ones end last.
    open_tokens: u64,
}

impl Estimates {
    pub(crate) fn new() -> Estimates {
        Estimates {
            ratios: [[RunningMean::default(); 2]; 2],
            outputs: [[OutputLengths::default(); BANDS]; 2],
        }
    }

    /// What a request will cost; `strict` promises the most it can cost.
    pub(crate) fn estimate(&self, cost: &Cost, strict: bool) -> Estimate {
        let (size, ratio) = self.input(cost);
        let input = size * ratio.mean;
        let input_variance = size * size * ratio.variance;
        let lengths_of = &self.outputs[usize::from(cost.cached)][max_tokens_band(cost.max_tokens)];
        let most = cost.max_tokens as f64;
        let lengths = lengths_of.lengths.or_prior(MIN_OUTPUT_SAMPLES, || {
            let mean = lesser(most * PRIOR_OUTPUT_SHARE, MAX_PRIOR_OUTPUT);
            (
                mean,
                mean * mean * (PRIOR_OUTPUT_DEVIATION * PRIOR_OUTPUT_DEVIATION),
            )
        });
        let output = lesser(lengths.mean, most);
        let promise = match (strict, cost.input) {
            (true, Input::Tokens(tokens)) => [1, tokens, cost.max_tokens],
            (true, Input::Bytes(_)) => {
                let input = whole(input + BOUND_DEVIATIONS * input_variance.sqrt());
                [1, input, cost.max_tokens]
            }
            (false, _) => [1, whole(input), lengths_of.promise(output, cost.max_tokens)],
        };
        let wide = if strict { 0.0 } else { 1.0 };
        Estimate {
            mean: [1.0, input, output],
            variance: [0.0, input_variance, lengths.variance],
            mean_error: [
                0.0,
                ratio.relative_error() * wide,
                lengths.relative_error() * wide,
            ],
            promise,
            is_reliable: [
                true,
                ratio.count >= MIN_SURE_SAMPLES,
                lengths.count >= MIN_SURE_SAMPLES,
            ],
        }
    }

    /// Takes note of what a request's input came to.
    pub(crate) fn learn_input(&mut self, cost: &Cost, tokens: u64) {
        let (Input::Bytes(size) | Input::Tokens(size)) = cost.input;
        let per_token = match cost.input {
            Input::Bytes(_) => BYTES_PER_TOKEN,
            Input::Tokens(_) => 1.0,
        };
        if size > 0 {
            // What cannot come from the bytes, a document by its id or results of a search, says
            // nothing of those of others.
            let ratio = (tokens as f64 * per_token / size as f64).min(HIGHEST_RATIO);
            let exact = usize::from(matches!(cost.input, Input::Tokens(_)));
            self.ratios[usize::from(cost.cached)][exact].learn(ratio);
        }
    }

    /// Takes note of how long an answer was.
    pub(crate) fn learn_output(&mut self, cost: &Cost, tokens: u64) {
        self.lengths_of(cost).lengths.learn(tokens as f64);
    }

    /// Takes note that an answer that has not ended grew, or that it ended (`to` is 0).
    pub(crate) fn update_open_output(&mut self, cost: &Cost, from: u64, to: u64) {
        let lengths_of = self.lengths_of(cost);
        lengths_of.open_tokens = lengths_of
            .open_tokens
            .saturating_sub(from)
            .saturating_add(to);
    }

    /// The guessed tokens, and by what to multiply them.
    fn input(&self, cost: &Cost) -> (f64, RunningMean) {
        match cost.input {
            Input::Tokens(tokens) if !cost.cached => (tokens as f64, RunningMean::ONE),
            Input::Tokens(tokens) => (tokens as f64, self.ratio(cost)),
            Input::Bytes(bytes) => (bytes as f64 / BYTES_PER_TOKEN, self.ratio(cost)),
        }
    }

    fn ratio(&self, cost: &Cost) -> RunningMean {
        let exact = usize::from(matches!(cost.input, Input::Tokens(_)));
        self.ratios[usize::from(cost.cached)][exact].or_prior(MIN_SURE_SAMPLES, || {
            (1.0, PRIOR_RATIO_DEVIATION * PRIOR_RATIO_DEVIATION)
        })
    }

    fn lengths_of(&mut self, cost: &Cost) -> &mut OutputLengths {
        &mut self.outputs[usize::from(cost.cached)][max_tokens_band(cost.max_tokens)]
    }
}

impl OutputLengths {
    /// What the window promises for an answer. The first answers to end are the short ones:
    /// few of them say little, so the promise begins high, and counts the open answers in.
    fn promise(&self, mean: f64, max_tokens: u64) -> u64 {
        let count = self.lengths.count;
        let mean = whole(mean);
        let promise = if count < FEW_OUTPUTS {
            mean.max(max_tokens.min(PROMISE_OF_FEW))
        } else if count < MANY_OUTPUTS {
            mean + self.open_tokens / u64::from(count)
        } else {
            mean
        };
        at_most(promise, max_tokens)
    }
}

/// Mean and variance of the last hundred or so samples.
#[derive(Debug, Clone, Copy, Default)]
struct RunningMean {
    mean: f64,
    variance: f64,
    count: u32,
}

impl RunningMean {
    const ONE: RunningMean = RunningMean {
        mean: 1.0,
        variance: 0.0,
        count: MAX_SAMPLES,
    };

    /// Exact over the first [`MAX_SAMPLES`] samples, exponentially weighted from then on.
    fn learn(&mut self, sample: f64) {
        self.count = (self.count + 1).min(MAX_SAMPLES);
        let gain = 1.0 / f64::from(self.count);
        let surprise = sample - self.mean;
        self.mean += gain * surprise;
        self.variance = (1.0 - gain) * (self.variance + gain * surprise * surprise);
    }

    fn or_prior(self, least: u32, prior: impl FnOnce() -> (f64, f64)) -> RunningMean {
        if self.count >= least {
            return self;
        }
        let (mean, variance) = prior();
        RunningMean {
            mean,
            variance,
            count: self.count,
        }
    }

    fn relative_error(&self) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        self.variance / (self.mean * self.mean * f64::from(self.count.max(1)))
    }
}

fn max_tokens_band(max_tokens: u64) -> usize {
    (max_tokens.max(1).ilog2() as usize).min(BANDS - 1)
}

/// How many math of two of `max_tokens` are told apart; the last takes all above.
const BANDS: usize = 20;

/// English prose and code have 3 to 4 bytes per token; the ratio is learned.
const BYTES_PER_TOKEN: f64 = 3.5;

/// No token is much shorter than a byte.
const HIGHEST_RATIO: f64 = 4.0;

/// So many samples make sure enough to refuse a request for its size.
const MIN_SURE_SAMPLES: u32 = 5;

pub(super) const BOUND_DEVIATIONS: f64 = 2.0;
const MIN_OUTPUT_SAMPLES: u32 = 3;
const PRIOR_OUTPUT_SHARE: f64 = 0.5;
const MAX_PRIOR_OUTPUT: f64 = 1_024.0;
const PRIOR_OUTPUT_DEVIATION: f64 = 0.5;
const PRIOR_RATIO_DEVIATION: f64 = 0.25;
const FEW_OUTPUTS: u32 = 5;
const PROMISE_OF_FEW: u64 = 4_096;
const MANY_OUTPUTS: u32 = 30;

/// How many samples are remembered.
const MAX_SAMPLES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::cost::{INPUT, OUTPUT};

    const COST: Cost = Cost::request().input_bytes(3_500).max_tokens(4_096);

    #[test]
    fn input_without_bytes_leaves_the_ratio_usable() {
        let mut estimates = Estimates::new();
        let tiny = Cost::request().input_bytes(100).max_tokens(100);
        for _ in 0..20 {
            (0..9).for_each(|_| estimates.learn_input(&COST, 1_000));
            estimates.learn_input(&tiny, 100_000);
        }
        let mean = estimates.estimate(&COST, false).mean[INPUT];
        assert!((1_000.0..1_500.0).contains(&mean), "{mean}");
    }

    #[test]
    fn new_estimates_are_the_prior() {
        let estimate = Estimates::new().estimate(&COST, false);
        assert_eq!(estimate.mean, [1.0, 1000.0, 1024.0]);
        assert_eq!(estimate.variance[INPUT], 62_500.0);
        assert_eq!(estimate.promise, [1, 1000, 4096]);
    }

    #[test]
    fn samples_replace_the_prior() {
        let mut estimates = Estimates::new();
        for _ in 0..40 {
            estimates.learn_input(&COST, 1200);
            estimates.learn_output(&COST, 300);
        }
        let estimate = estimates.estimate(&COST, false);
        assert!((estimate.mean[INPUT] - 1200.0).abs() < 1e-6);
        assert!((estimate.mean[OUTPUT] - 300.0).abs() < 1e-6);
        assert!(estimate.variance[OUTPUT] < 1e-6);
        assert!(estimate.promise[OUTPUT] <= 301, "{estimate:?}");
    }

    #[test]
    fn cached_and_max_tokens_are_learned_apart() {
        let mut estimates = Estimates::new();
        for _ in 0..10 {
            estimates.learn_input(&COST.cached(true), 100);
            estimates.learn_output(&COST.max_tokens(64), 10);
        }
        assert_eq!(estimates.estimate(&COST, false).mean[INPUT], 1000.0);
        assert_eq!(estimates.estimate(&COST, false).mean[OUTPUT], 1024.0);
        let cached = estimates.estimate(&COST.cached(true), false);
        assert!((cached.mean[INPUT] - 100.0).abs() < 1e-6);
    }

    #[test]
    fn counted_prompt_is_exact() {
        let estimate = Estimates::new().estimate(&COST.input_tokens(777), false);
        assert_eq!(estimate.promise[INPUT], 777);
        assert_eq!(estimate.variance[INPUT], 0.0);
    }

    #[test]
    fn strict_promise_is_the_maximum() {
        let mut estimates = Estimates::new();
        for _ in 0..40 {
            estimates.learn_output(&COST, 300);
        }
        let estimate = estimates.estimate(&COST.input_tokens(777), true);
        assert_eq!(estimate.promise, [1, 777, 4096]);
        assert_eq!(estimate.mean_error, [0.0; 3]);
    }

    #[test]
    fn unfinished_outputs_raise_the_promise() {
        let mut estimates = Estimates::new();
        for _ in 0..10 {
            estimates.learn_output(&COST, 100);
        }
        let before = estimates.estimate(&COST, false).promise[OUTPUT];
        estimates.update_open_output(&COST, 0, 2_000);
        assert_eq!(
            estimates.estimate(&COST, false).promise[OUTPUT],
            before + 200
        );
        estimates.update_open_output(&COST, 2_000, 0);
        assert_eq!(estimates.estimate(&COST, false).promise[OUTPUT], before);
    }

    #[test]
    fn huge_and_empty_requests_have_estimates() {
        let mut estimates = Estimates::new();
        for cost in [
            Cost::request(),
            Cost::request().input_bytes(u64::MAX).max_tokens(u64::MAX),
        ] {
            estimates.learn_input(&cost, 0);
            estimates.learn_output(&cost, u64::MAX);
            for strict in [false, true] {
                let estimate = estimates.estimate(&cost, strict);
                assert!(estimate.mean.iter().all(|mean| mean.is_finite()));
                assert!(
                    estimate
                        .mean_error
                        .iter()
                        .all(|mean_error| mean_error.is_finite())
                );
            }
        }
    }
}
