//! The range that the server's levels took in the last ten minutes.

use std::collections::VecDeque;

use super::token_bucket::PerBucket;
use crate::budget::cost::{Time, greater, lesser};

/// Lowest and highest levels by half seconds, in terms that corrections do not change.
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

    /// Takes note of levels at `now`. Between two notes levels only rise, so the later one bounds
    /// what was in between.
    pub(crate) fn record(&mut self, now: Time, low: &PerBucket<f64>, high: &PerBucket<f64>) {
        let number = number_of(now);
        match self.spans.back_mut().filter(|span| span.number >= number) {
            Some(span) => {
                for d in 0..4 {
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

    /// Lowest and highest since `time`, or since the oldest note.
    pub(crate) fn since(&self, time: Time) -> PerBucket<(f64, f64)> {
        let number = number_of(time);
        let start = self.spans.partition_point(|span| span.number < number);
        // The level of before holds until the next note.
        let start = match self.spans.get(start) {
            Some(span) if span.number == number => start,
            _ => start.saturating_sub(1),
        };
        let mut ranges = [(f64::INFINITY, f64::NEG_INFINITY); 4];
        for span in self.spans.range(start..) {
            for (d, range) in ranges.iter_mut().enumerate() {
                range.0 = lesser(range.0, span.low[d]);
                range.1 = greater(range.1, span.high[d]);
            }
        }
        ranges
    }
}

/// The number of the half second.
fn number_of(time: Time) -> i64 {
    (time * SPANS_PER_SECOND) as i64
}

const SPANS_PER_SECOND: f64 = 2.0;

/// Ten minutes: as long as any answer takes.
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
        assert_eq!(history.since(0.2)[0], (1.0, 9.0));
        assert_eq!(history.since(1.2)[1], (4.0, 7.0));
        assert_eq!(history.since(2.0)[2], (4.0, 7.0));
        assert_eq!(history.since(3.4)[2], (5.0, 7.0));
    }

    #[test]
    fn history_keeps_ten_minutes() {
        let mut history = LevelHistory::new();
        for half in 0..10_000_u32 {
            let time = f64::from(half) / 2.0;
            history.record(time, &[time; 4], &[time; 4]);
        }
        assert!(history.spans.len() <= 1_201);
        assert_eq!(history.since(0.0)[0].0, 4_999.5 - 600.0);
    }
}
