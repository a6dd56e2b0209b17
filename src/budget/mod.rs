//! The budget: what may be sent when, shared by all threads.
//!
//! A request is admitted when two rate limiters of its class have room for it: the sliding window
//! of the caller's own limits, and a model of the server's token buckets, which avoids refusals.
//! Until then the request waits in the queue of its class (`admission`, `queue`). The
//! [`Reservation`] that it is granted reports the outcome, which corrects the limiters and wakes
//! the heads of the queues. `limiter/` and `queue` are pure state under the single lock in
//! `shared`; every change goes through `SharedBudget::transact`, which reads the clock once and
//! takes the lock once.

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
