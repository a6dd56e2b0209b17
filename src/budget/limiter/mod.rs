//! The pure machines of the budget: what is known of a class of models, and what may be sent when.

mod bucket;
pub(crate) mod class_limiter;
pub(crate) mod decision;
mod estimate;
pub(crate) mod headers;
mod history;
mod math;
pub(crate) mod overload_gate;
mod pacer;
mod server;
#[cfg(test)]
mod simulation;
pub(crate) mod slab;
mod window;
