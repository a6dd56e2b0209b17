//! Estimates of what requests will cost, learned from what earlier requests cost.

use crate::budget::cost::{Cost, InputSize, PerDimension, at_most, lesser, whole};

/// The expected cost of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// The expected cost.
    pub(crate) mean: PerDimension<f64>,
    /// The variance of the cost of one request.
    pub(crate) variance: PerDimension<f64>,
    /// The variance of the mean itself, relative to its square: an error that all requests in
    /// flight share.
    pub(crate) mean_error: PerDimension<f64>,
    /// What the window counts at admission, in whole tokens.
    pub(crate) promise: PerDimension<u64>,
    /// Whether enough is known to reject a request for its size.
    pub(crate) is_reliable: PerDimension<bool>,
}

/// What the window counts for a request until its cost is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromiseBasis {
    /// The expected cost.
    Expected,
    /// The highest possible cost, for strict limits.
    Maximum,
}

impl Estimate {
    /// Returns what the request costs at least, as far as that is known.
    pub(crate) fn lower_bound(&self, d: usize) -> f64 {
        match self.is_reliable[d] {
            true => self.mean[d] - BOUND_DEVIATIONS * self.variance[d].sqrt(),
            false => 0.0,
        }
    }
}

/// What has been learned about the costs of one model class.
#[derive(Debug, Clone)]
pub(crate) struct Estimates {
    /// Actual input over guessed input; by whether the prompt is cached, and whether its size is
    /// given in tokens.
    input_ratios: [[RunningMean; 2]; 2],
    /// Output tokens; by whether the prompt is cached, and by the logarithm of `max_tokens`.
    outputs: [[OutputLengths; BANDS]; 2],
}

/// The lengths of outputs of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct OutputLengths {
    /// Those of finished responses.
    finished: RunningMean,
    /// The sum of the output seen so far of unfinished responses. Long ones finish last.
    unfinished: u64,
}

impl Estimates {
    pub(crate) fn new() -> Estimates {
        Estimates {
            input_ratios: [[RunningMean::default(); 2]; 2],
            outputs: [[OutputLengths::default(); BANDS]; 2],
        }
    }

    /// Learns the actual input tokens of a request.
    pub(crate) fn learn_input(&mut self, cost: &Cost, tokens: u64) {
        let (InputSize::Bytes(size) | InputSize::Tokens(size)) = cost.input;
        let per_token = match cost.input {
            InputSize::Bytes(_) => BYTES_PER_TOKEN,
            InputSize::Tokens(_) => 1.0,
        };
        if size > 0 {
            // Tokens that cannot come from the bytes, such as those of a document given by its id
            // or of search results, say nothing about other requests.
            let ratio = (tokens as f64 * per_token / size as f64).min(MAX_INPUT_RATIO);
            self.input_ratios[usize::from(cost.cached)][is_in_tokens(cost)].learn(ratio);
        }
    }

    /// Learns the output tokens of a finished response.
    pub(crate) fn learn_output(&mut self, cost: &Cost, tokens: u64) {
        self.lengths_mut(cost).finished.learn(tokens as f64);
    }

    /// Changes the output seen so far of one unfinished response; `to` is 0 when it ended.
    pub(crate) fn update_unfinished(&mut self, cost: &Cost, from: u64, to: u64) {
        let lengths = self.lengths_mut(cost);
        lengths.unfinished = lengths.unfinished.saturating_sub(from).saturating_add(to);
    }

    /// Estimates the cost of a request.
    pub(crate) fn estimate(&self, cost: &Cost, basis: PromiseBasis) -> Estimate {
        let size = guessed_input(cost);
        let ratio = self.input_ratio(cost);
        let input = size * ratio.mean;
        let input_variance = size * size * ratio.variance;
        let lengths = &self.outputs[usize::from(cost.cached)][band(cost.max_tokens)];
        let most = cost.max_tokens as f64;
        let prior = lesser(most * PRIOR_OUTPUT_SHARE, MAX_PRIOR_OUTPUT);
        let length =
            lengths
                .finished
                .or_prior(MIN_OUTPUT_SAMPLES, prior, PRIOR_OUTPUT_DEVIATION * prior);
        let output = lesser(length.mean, most);
        let promise = match (basis, cost.input) {
            (PromiseBasis::Maximum, InputSize::Tokens(tokens)) => [1, tokens, cost.max_tokens],
            (PromiseBasis::Maximum, InputSize::Bytes(_)) => {
                let input = whole(input + BOUND_DEVIATIONS * input_variance.sqrt());
                [1, input, cost.max_tokens]
            }
            (PromiseBasis::Expected, _) => {
                [1, whole(input), lengths.promise(output, cost.max_tokens)]
            }
        };
        let mean_error = match basis {
            PromiseBasis::Expected => [0.0, ratio.relative_error(), length.relative_error()],
            PromiseBasis::Maximum => [0.0; 3],
        };
        Estimate {
            mean: [1.0, input, output],
            variance: [0.0, input_variance, length.variance],
            mean_error,
            promise,
            is_reliable: [
                true,
                ratio.count >= MIN_RELIABLE_SAMPLES,
                length.count >= MIN_RELIABLE_SAMPLES,
            ],
        }
    }

    /// Returns the factor between the guessed and the actual input.
    fn input_ratio(&self, cost: &Cost) -> RunningMean {
        if let (InputSize::Tokens(_), false) = (cost.input, cost.cached) {
            return RunningMean::EXACTLY_ONE;
        }
        self.input_ratios[usize::from(cost.cached)][is_in_tokens(cost)].or_prior(
            MIN_RELIABLE_SAMPLES,
            1.0,
            PRIOR_RATIO_DEVIATION,
        )
    }

    fn lengths_mut(&mut self, cost: &Cost) -> &mut OutputLengths {
        &mut self.outputs[usize::from(cost.cached)][band(cost.max_tokens)]
    }
}

impl OutputLengths {
    /// Returns the output that the window counts at admission.
    ///
    /// The first responses to finish are the short ones, so few of them say little: the promise
    /// begins high, and then includes the unfinished responses.
    fn promise(&self, mean: f64, max_tokens: u64) -> u64 {
        let count = self.finished.count;
        let mean = whole(mean);
        let promise = if count < FEW_OUTPUTS {
            mean.max(max_tokens.min(PROMISE_OF_FEW))
        } else if count < MANY_OUTPUTS {
            mean + self.unfinished / u64::from(count)
        } else {
            mean
        };
        at_most(promise, max_tokens)
    }
}

/// The mean and the variance of the last [`MAX_SAMPLES`] samples or so.
#[derive(Debug, Clone, Copy, Default)]
struct RunningMean {
    mean: f64,
    variance: f64,
    count: u32,
}

impl RunningMean {
    const EXACTLY_ONE: RunningMean = RunningMean {
        mean: 1.0,
        variance: 0.0,
        count: MAX_SAMPLES,
    };

    /// Adds a sample: exact over the first [`MAX_SAMPLES`], exponentially weighted from then on.
    fn learn(&mut self, sample: f64) {
        self.count = (self.count + 1).min(MAX_SAMPLES);
        let gain = 1.0 / f64::from(self.count);
        let surprise = sample - self.mean;
        self.mean += gain * surprise;
        self.variance = (1.0 - gain) * (self.variance + gain * surprise * surprise);
    }

    /// Replaces mean and variance by a prior if there are fewer than `least` samples.
    fn or_prior(self, least: u32, mean: f64, deviation: f64) -> RunningMean {
        if self.count >= least {
            return self;
        }
        RunningMean {
            mean,
            variance: deviation * deviation,
            count: self.count,
        }
    }

    /// Returns the variance of the mean, relative to its square.
    fn relative_error(&self) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        self.variance / (self.mean * self.mean * f64::from(self.count.max(1)))
    }
}

/// Returns the input tokens before anything is learned.
fn guessed_input(cost: &Cost) -> f64 {
    match cost.input {
        InputSize::Tokens(tokens) => tokens as f64,
        InputSize::Bytes(bytes) => bytes as f64 / BYTES_PER_TOKEN,
    }
}

fn is_in_tokens(cost: &Cost) -> usize {
    usize::from(matches!(cost.input, InputSize::Tokens(_)))
}

/// Returns the index of the outputs with about this `max_tokens`.
fn band(max_tokens: u64) -> usize {
    (max_tokens.max(1).ilog2() as usize).min(BANDS - 1)
}

/// Bytes of a prompt per input token before anything is learned: English prose and code have 3 to 4.
///
/// Moves (3 seeds), halved: `storm 1.0, promised` tenth success 8.7 → 7.1 s. Doubled: `storm
/// 0.9, promised` 529s 22 → 19, tenth success 7.6 → 5.5 s; `storm 1.0, promised` 529s 21 → 18.
const BYTES_PER_TOKEN: f64 = 3.5;

/// Upper bound of a learned factor of the input: a token of text is hardly shorter than a byte.
///
/// Moves no row: a bound; the guesses of the scenarios are nearer to the truth.
const MAX_INPUT_RATIO: f64 = 4.0;

/// Deviation of the factor of the input before anything is learned.
///
/// Moves no row, nor does 0: it counts for the first five responses only. The best case by which
/// deadlines are judged needs it.
const PRIOR_RATIO_DEVIATION: f64 = 0.25;

/// Outputs that must have finished before their mean replaces the prior.
///
/// Moves (3 seeds), halved: `max_tokens reserved, promised` 429s 0.7 → 0.0; `output 500` ratio
/// 0.889 → 0.879. Doubled: `output 500` ratio 0.889 → 0.907; `max_tokens reserved, promised`
/// 429s 0.7 → 0.0; 1 more.
const MIN_OUTPUT_SAMPLES: u32 = 3;

/// Prior of the output as a share of `max_tokens`.
///
/// Moves no row: `MAX_PRIOR_OUTPUT` is lower for the `max_tokens` of all scenarios. With
/// `max_tokens` 1,024 in all of them (5 seeds), at 1: `max_tokens reserved, slow headers, 500` ratio
/// 0.948 → 0.961.
const PRIOR_OUTPUT_SHARE: f64 = 0.5;

/// Upper bound in tokens of the prior of the output.
///
/// Moves (3 seeds), halved: `max_tokens reserved, promised` 429s 0.7 → 0.0; `output 500` ratio
/// 0.889 → 0.878. Doubled: `storm 1.0` tenth success 6.4 → 4.2 s; `storm 0.9` tenth success 6.0
/// → 4.2 s; 3 more.
const MAX_PRIOR_OUTPUT: f64 = 1_024.0;

/// Deviation of the prior of the output, as a share of it.
///
/// Moves no row, nor does 0: it counts for the first three responses only. The best case by which
/// deadlines are judged needs it.
const PRIOR_OUTPUT_DEVIATION: f64 = 0.5;

/// With fewer finished outputs than this the window counts up to [`PROMISE_OF_FEW`] tokens.
///
/// Moves (3 seeds), doubled: `max_tokens reserved, promised` ratio 1.132 → 1.148.
const FEW_OUTPUTS: u32 = 5;

/// Output tokens that the window counts while hardly any output has finished.
///
/// Moves (3 seeds), doubled: `long answers 500, promised` ratio 1.133 → 1.152.
const PROMISE_OF_FEW: u64 = 4_096;

/// From this many finished outputs on, the window counts their mean without the unfinished ones.
///
/// Moves (3 seeds), halved: `long answers 500, promised` charged 1.48 → 1.54. Doubled: `long
/// answers 500, promised` charged 1.48 → 1.42.
const MANY_OUTPUTS: u32 = 30;

/// Samples that are enough to reject a request for its size, and to use a learned factor of the
/// input.
///
/// Moves no row: flat from 1 to 10. One sample is no reason to reject a request for its size.
const MIN_RELIABLE_SAMPLES: u32 = 5;

/// Samples that a mean remembers.
///
/// Moves (3 seeds), halved: `storm 0.9, promised` tenth success 7.6 → 5.8 s; `long answers 500,
/// promised` ratio 1.13 → 1.15; 2 more. Doubled: `max_tokens reserved, promised` 429s 0.7 →
/// 0.0; `30% tenant at random` 429s 0.0 → 0.7; 2 more.
const MAX_SAMPLES: u32 = 100;

/// Standard deviations that a bound is away from its mean: about 2 % of normal values are beyond.
///
/// Moves, at 0: `small tier 500` loses a job, ratio 0.995 → 0.975, and upper bounds are refused.
/// Flat between the half and the double.
pub(super) const BOUND_DEVIATIONS: f64 = 2.0;

/// Bands of `max_tokens`, one for each power of two; the last one has all above.
const BANDS: usize = 20;

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
        let mean = estimates.estimate(&COST, PromiseBasis::Expected).mean[INPUT];
        assert!((1_000.0..1_500.0).contains(&mean), "{mean}");
    }

    #[test]
    fn new_estimates_are_the_prior() {
        let estimate = Estimates::new().estimate(&COST, PromiseBasis::Expected);
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
        let estimate = estimates.estimate(&COST, PromiseBasis::Expected);
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
        assert_eq!(
            estimates.estimate(&COST, PromiseBasis::Expected).mean[INPUT],
            1000.0
        );
        assert_eq!(
            estimates.estimate(&COST, PromiseBasis::Expected).mean[OUTPUT],
            1024.0
        );
        let cached = estimates.estimate(&COST.cached(true), PromiseBasis::Expected);
        assert!((cached.mean[INPUT] - 100.0).abs() < 1e-6);
    }

    #[test]
    fn counted_prompt_is_exact() {
        let estimate = Estimates::new().estimate(&COST.input_tokens(777), PromiseBasis::Expected);
        assert_eq!(estimate.promise[INPUT], 777);
        assert_eq!(estimate.variance[INPUT], 0.0);
    }

    #[test]
    fn strict_promise_is_the_maximum() {
        let mut estimates = Estimates::new();
        for _ in 0..40 {
            estimates.learn_output(&COST, 300);
        }
        let estimate = estimates.estimate(&COST.input_tokens(777), PromiseBasis::Maximum);
        assert_eq!(estimate.promise, [1, 777, 4096]);
        assert_eq!(estimate.mean_error, [0.0; 3]);
    }

    #[test]
    fn unfinished_outputs_raise_the_promise() {
        let mut estimates = Estimates::new();
        for _ in 0..10 {
            estimates.learn_output(&COST, 100);
        }
        let before = estimates.estimate(&COST, PromiseBasis::Expected).promise[OUTPUT];
        estimates.update_unfinished(&COST, 0, 2_000);
        assert_eq!(
            estimates.estimate(&COST, PromiseBasis::Expected).promise[OUTPUT],
            before + 200
        );
        estimates.update_unfinished(&COST, 2_000, 0);
        assert_eq!(
            estimates.estimate(&COST, PromiseBasis::Expected).promise[OUTPUT],
            before
        );
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
            for basis in [PromiseBasis::Expected, PromiseBasis::Maximum] {
                let estimate = estimates.estimate(&cost, basis);
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
