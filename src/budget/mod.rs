//! The budget: what may be sent when, shared by all threads.
//!
//! Every request waits here, in order, until two accounts have room for it: the caller's own
//! sliding window, which keeps a promise, and a server of the server's token buckets, which keeps
//! the server from refusing. The machines are pure and in files of their own; `shared` holds the
//! lock and the clock, `budget` the public face.

// Plain values.
mod class;
mod cost;
mod limits;
mod wait;

// Pure machines: what a class of models may send now.
mod limiter;

// The requests that wait, and the state that all clones share.
mod queue;
mod shared;

// A granted reservation, and the wait for one.
mod reservation;

mod admission;

// Views on the state.
mod plan;
mod snapshot;

// The public type.
mod budget;

#[cfg(test)]
mod model;

pub use self::admission::Admission;
pub(crate) use self::admission::{AdmissionFailure, AdmissionRequest};
pub use self::budget::Budget;
pub use self::class::ModelClass;
pub use self::cost::{Cost, InputEstimate};
pub(crate) use self::limiter::decision::OverLimit;
pub use self::limits::Limits;
pub use self::plan::Plan;
pub use self::reservation::Reservation;
pub use self::snapshot::{ClassSnapshot, DimensionSnapshot};
pub use self::wait::Wait;
