//! Behaviour through the public API, against the test server: one binary, one module per subject.

mod batch_runs;
mod batch_sizes;
mod batches;
mod budget;
mod bulk;
mod bulk_journal;
mod client;
mod faults;
mod garbage;
mod interop;
mod limits;
mod matrix;
mod models;
mod recorded_lists;
mod recordings;
mod retries;
mod secrets;
mod soak;
mod streams;
mod support;
mod threads;
mod tidy;
mod types;
mod waits;
mod wire;
