//! placeholder of stage 1: the machines, without the shared state around them.
#![allow(dead_code)] // until queue.rs and the call use the machines

mod account;
mod class;
mod cost;
mod entries;
mod estimate;
mod gate;
mod limits;
mod mirror;
mod pacer;
mod reading;
#[cfg(test)]
mod simulation;
mod trace;
mod window;

pub use self::class::ModelClass;
pub use self::cost::{Cost, Dimension};
pub use self::limits::Limits;
