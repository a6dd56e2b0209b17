//! Message batches: requests that can wait, at half the price.
//!
//! `batches` holds the public methods. A batch is written as JSON in `body` and created in `create`
//! exactly once: where the outcome of a creation is unknown, `lookup` searches the list of batches.
//! `wait` polls until a batch has ended. `results` downloads the results line by line, and `entry`
//! turns each into a message or an error. `runner` does all of this for many requests and notes
//! each step as a `record` in a journal; its product is a `run`, an iterator over the results in
//! the order of the requests, which `index` keeps.

// Single requests, and what goes in and comes out.
mod endpoints;

mod body;
mod entry;

// One batch: create, wait, read.
mod lookup;

mod create;
mod wait;

mod results;

// Many batches: which request is in which, the results in order, the journal, the work.
mod index;

mod run;

mod record;

mod runner;

// The public methods.
mod batches;

pub use self::batches::Batches;
pub use self::results::BatchResults;
pub use self::run::BatchRun;
pub use self::wait::BatchProgress;
