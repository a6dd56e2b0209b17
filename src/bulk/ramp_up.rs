//! The ramp-up: when each worker begins.

use std::time::Duration;

use crate::call::retry::scale;

/// Returns when a worker may begin, from the start of the run: four workers at once, then their
/// number doubles. With the default ramp-up of a minute the workers double as fast as the pace of
/// the requests, or faster if there are more than 256 workers.
pub(super) fn begin_time(worker: usize, concurrency: usize, ramp_up: Duration) -> Duration {
    if worker < FIRST_WORKERS {
        return Duration::ZERO;
    }
    let share = doublings(worker + 1) / doublings(concurrency).max(MIN_DOUBLINGS);
    scale(ramp_up, share.min(1.0))
}

/// Returns how often the first workers double to reach `workers`, interpolated between doublings.
fn doublings(workers: usize) -> f64 {
    let whole = (workers / FIRST_WORKERS).max(1).ilog2();
    let rest = workers as f64 / (FIRST_WORKERS << whole) as f64 - 1.0;
    f64::from(whole) + rest.max(0.0)
}

/// The number of workers that begin at once.
const FIRST_WORKERS: usize = 4;

/// The minimum number of doublings during the ramp-up: with the default minute one every ten
/// seconds, like the pace of the requests.
const MIN_DOUBLINGS: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_double_every_sixth_of_the_ramp_up() {
        let minute = Duration::from_secs(60);
        for (worker, concurrency, seconds) in [
            (3, 64, 0),
            (7, 64, 10),
            (15, 64, 20),
            (63, 64, 40),
            (255, 256, 60),
            (1_023, 1_024, 60),
            (255, 1_024, 45),
        ] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(
                begin_time(worker, concurrency, minute),
                expected,
                "{worker}"
            );
        }
    }
}
