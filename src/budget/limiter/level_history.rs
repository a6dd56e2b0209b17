//! The band in which the server's levels were in the last ten minutes.

use std::collections::VecDeque;

use super::token_bucket::{LevelRange, PerBucket};
use crate::budget::cost::{Time, greater, lesser};

/// The lowest and highest levels by half seconds. Each level has the corrections up to its time
/// added, so that later corrections do not change the comparison.
#[derive(Debug, Clone)]
pub(crate) struct LevelHistory {
    spans: VecDeque<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    number: i64,
    low: PerBucket<f64>,
    high: PerBucket<f64>,
}

impl LevelHistory {
    pub(crate) fn new() -> LevelHistory {
        LevelHistory {
            spans: VecDeque::new(),
        }
    }

    /// Adds the levels at `now`. Between two calls levels only rise, so the later call bounds the
    /// time between them.
    pub(crate) fn record(&mut self, now: Time, low: &PerBucket<f64>, high: &PerBucket<f64>) {
        let number = span_number(now);
        match self.spans.back_mut().filter(|span| span.number >= number) {
            Some(span) => {
                for d in 0..low.len() {
                    span.low[d] = lesser(span.low[d], low[d]);
                    span.high[d] = greater(span.high[d], high[d]);
                }
            }
            None => {
                let (low, high) = (*low, *high);
                self.spans.push_back(Span { number, low, high });
                let oldest = number - KEPT_SPANS;
                while self.spans.front().is_some_and(|span| span.number < oldest) {
                    self.spans.pop_front();
                }
            }
        }
    }

    /// Returns the band of each bucket since `time`, or since the oldest span.
    pub(crate) fn since(&self, time: Time) -> PerBucket<LevelRange> {
        let number = span_number(time);
        let start = self.spans.partition_point(|span| span.number < number);
        // A level holds until the next call of `record`.
        let start = match self.spans.get(start) {
            Some(span) if span.number == number => start,
            _ => start.saturating_sub(1),
        };
        let mut ranges = [LevelRange {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
        }; 4];
        for span in self.spans.range(start..) {
            for (d, range) in ranges.iter_mut().enumerate() {
                range.low = lesser(range.low, span.low[d]);
                range.high = greater(range.high, span.high[d]);
            }
        }
        ranges
    }
}

fn span_number(time: Time) -> i64 {
    (time * SPANS_PER_SECOND) as i64
}

/// Spans per second: half a second is finer than the delay between request and header.
///
/// Moves (3 seeds), doubled: `30% tenant at random` ratio 0.98 → 1.00.
const SPANS_PER_SECOND: f64 = 2.0;

/// Spans that are kept: ten minutes, as long as any response takes to begin.
///
/// Moves no row: a bound; no response of the scenarios begins after minutes.
const KEPT_SPANS: i64 = 1_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_starts_at_the_given_time() {
        let mut history = LevelHistory::new();
        for (time, low, high) in [
            (0.0, 5.0, 9.0),
            (0.4, 1.0, 9.0),
            (1.0, 4.0, 6.0),
            (3.2, 5.0, 7.0),
        ] {
            history.record(time, &[low; 4], &[high; 4]);
        }
        let since = |time, d: usize| {
            let LevelRange { low, high } = history.since(time)[d];
            (low, high)
        };
        assert_eq!(since(0.2, 0), (1.0, 9.0));
        assert_eq!(since(1.2, 1), (4.0, 7.0));
        assert_eq!(since(2.0, 2), (4.0, 7.0));
        assert_eq!(since(3.4, 2), (5.0, 7.0));
    }

    #[test]
    fn history_keeps_ten_minutes() {
        let mut history = LevelHistory::new();
        for half in 0..10_000_u32 {
            let time = f64::from(half) / 2.0;
            history.record(time, &[time; 4], &[time; 4]);
        }
        assert!(history.spans.len() <= 1_201);
        assert_eq!(history.since(0.0)[0].low, 4_999.5 - 600.0);
    }
}
