//! The pure machines of the budget: what is known of a class of models, and what may be sent when.

pub(crate) mod account;
mod bucket;
pub(crate) mod entries;
mod estimate;
pub(crate) mod gate;
mod mirror;
mod pacer;
mod powers;
pub(crate) mod reading;
pub(crate) mod ruling;
#[cfg(test)]
mod simulation;
mod trace;
mod window;
