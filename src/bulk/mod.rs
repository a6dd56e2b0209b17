//! Bulk: many requests over worker threads, as fast as the limits allow, without losing a result.
//! `Bulk` holds the settings and starts a `BulkRun`, or runs a closure over items (`map`). Its
//! `Workers` begin one after the other, take items from the input, count them, guard the spend limit and
//! report progress; the cache warmer sends one request of each cached prefix first; results go to
//! the journal, then to the caller.

mod panic;
mod progress;

mod settings;

mod cache_warmer;
mod run_journal;
mod workers;

mod run;

mod bulk;

#[cfg(test)]
mod model;

pub use self::bulk::Bulk;
pub use self::progress::Progress;
pub use self::run::BulkRun;
