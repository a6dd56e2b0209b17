//! The usual alternatives: the retries of the official SDKs, and the budget of a common tutorial.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::budget::cost::{INPUT, PerDimension};

#[derive(Debug, Clone)]
pub(super) enum Rival {
    /// Sends at once and retries so many times, as the official SDKs do.
    Sdk(usize),
    /// Checks a window of input tokens every two seconds before it sends, records the input after
    /// the response, and retries four times with exponential backoff. The window has the time and
    /// the input of each request.
    Tutorial(VecDeque<(f64, f64)>),
}

impl Rival {
    pub(super) fn tutorial() -> Rival {
        Rival::Tutorial(VecDeque::new())
    }

    /// Returns how long a request with this estimated input must wait; `None` to send now.
    pub(super) fn wait_before_sending(
        &mut self,
        now: f64,
        input: f64,
        limits: &PerDimension<f64>,
    ) -> Option<f64> {
        let Rival::Tutorial(log) = self else {
            return None;
        };
        while log.front().is_some_and(|(time, _)| *time <= now - 60.0) {
            log.pop_front();
        }
        let used: f64 = log.iter().map(|(_, input)| input).sum();
        let fits = used == 0.0 || used + input <= limits[INPUT];
        (!fits).then_some(2.0)
    }

    pub(super) fn finished(&mut self, now: f64, input: u64) {
        if let Rival::Tutorial(log) = self {
            log.push_back((now, input as f64));
        }
    }

    /// Returns how long to wait after that many attempts were refused; `None` to give up.
    pub(super) fn backoff(
        &self,
        attempts: usize,
        retry_after: Option<f64>,
        rng: &mut Rng,
    ) -> Option<f64> {
        let max_retries = match self {
            Rival::Sdk(max_retries) => *max_retries,
            Rival::Tutorial(_) => 4,
        };
        if attempts >= max_retries {
            return None;
        }
        let power = 2_f64.powi(attempts as i32);
        Some(match self {
            Rival::Sdk(_) => match retry_after.filter(|wait| *wait <= 60.0) {
                Some(wait) => wait,
                None => (0.5 * power).min(8.0) * (0.75 + 0.25 * rng.f64()),
            },
            Rival::Tutorial(_) => power + rng.f64(),
        })
    }
}
