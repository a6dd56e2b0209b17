//! Bulk: many requests over worker threads, as fast as the limits allow, without losing a result.
//!
//! `Bulk` holds the settings and starts a `BulkRun`, or runs a closure over items (`map`). Its
//! workers begin one after the other (`ramp_up`), take items from the input, count them, guard the
//! spend limit and report progress (`workers`). The cache warmer sends the first request of each
//! cached prefix alone. Messages go to the journal first (`run_journal`), then to the caller.

// Plain values.
mod panic;
mod progress;
mod settings;

// What the workers share.
mod cache_warmer;
mod ramp_up;
mod run_journal;
mod workers;

// The iterator of results.
mod run;

// The public builder.
mod bulk;

#[cfg(test)]
mod model;

pub use self::bulk::Bulk;
pub use self::progress::Progress;
pub use self::run::BulkRun;
