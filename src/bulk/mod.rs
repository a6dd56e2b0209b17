//! Bulk: many requests over threads, as fast as the limits allow, nothing lost.

mod panic;
mod progress;

mod settings;

mod cache_warmer;
mod workers;

mod run;

mod bulk;

#[cfg(test)]
mod model;

pub use self::bulk::Bulk;
pub use self::progress::Progress;
pub use self::run::BulkRun;
