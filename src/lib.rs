//! placeholder
#![allow(dead_code)]
mod clock;
mod diagnose;
mod error;
mod rate_limits;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod types;
pub use error::{Error, Result};
pub use retry::RetryPolicy;
pub use types::*;
