//! The machine's monotonic clock, or the time of a model check.

use std::time::Instant;

/// Returns the time of the machine's monotonic clock; in a model check, the time of the model.
pub(super) fn machine_now() -> Instant {
    #[cfg(all(test, model_check))]
    return super::sync::now();
    #[cfg(not(all(test, model_check)))]
    Instant::now()
}
