//! Token counts by price category.

use super::usage::Usage;

/// Token counts, one for each category that has its own price.
///
/// ```
/// use anthropic_blocking::{Price, Tokens};
///
/// let mut tokens = Tokens::new(2_000, 500);
/// tokens.cache_read = 8_000;
/// assert_eq!(tokens.total_input(), 10_000);
/// let dollars = Price::new(1.0, 5.0).cost(&tokens);
/// assert!((dollars - 0.0053).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Tokens {
    /// Input tokens that were neither written to the cache nor read from it.
    pub input: u64,
    /// Input tokens written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input tokens written to the cache for one hour.
    pub cache_write_1h: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Output tokens, thinking included.
    pub output: u64,
}

impl Tokens {
    /// Returns the sum of all input tokens: uncached, written to the cache and read from it.
    pub fn total_input(&self) -> u64 {
        [
            self.input,
            self.cache_write_5m,
            self.cache_write_1h,
            self.cache_read,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Creates counts of uncached input and output.
    pub const fn new(input: u64, output: u64) -> Tokens {
        Tokens {
            input,
            cache_write_5m: 0,
            cache_write_1h: 0,
            cache_read: 0,
            output,
        }
    }

    pub(crate) fn of(usage: &Usage) -> Tokens {
        let written = usage.cache_creation_input_tokens.unwrap_or(0);
        let for_an_hour = usage
            .cache_creation
            .as_ref()
            .map_or(0, |creation| creation.ephemeral_1h_input_tokens);
        Tokens {
            input: usage.input_tokens,
            cache_write_5m: written.saturating_sub(for_an_hour),
            cache_write_1h: for_an_hour,
            cache_read: usage.cache_read_input_tokens.unwrap_or(0),
            output: usage.output_tokens,
        }
    }

    pub(crate) fn add(&mut self, other: &Tokens) {
        for (sum, tokens) in [
            (&mut self.input, other.input),
            (&mut self.cache_write_5m, other.cache_write_5m),
            (&mut self.cache_write_1h, other.cache_write_1h),
            (&mut self.cache_read, other.cache_read),
            (&mut self.output, other.output),
        ] {
            *sum = sum.saturating_add(tokens);
        }
    }
}
