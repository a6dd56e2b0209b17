//! The pure machines of the budget: what is known of a class of models, and what may be sent when.

mod math;

mod token_bucket;

mod level_history;

mod estimate;
pub(crate) mod headers;

mod server_buckets;
mod server_refusals;

mod window;

mod pacer;

pub(crate) mod overload_gate;

pub(crate) mod decision;
pub(crate) mod slab;

pub(crate) mod class_limiter;

#[cfg(test)]
mod simulation;
