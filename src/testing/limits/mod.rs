//! Rate limits of the test server: which requests it admits, refuses and delays.
//!
//! [`ServerLimits`] are the settings. `admission` decides about each request from the token buckets
//! of its class, without a clock, and records what it charged in the entries of the [`Ledger`].
//! `limiter` adds the clock and the lock, and writes the decision as a reply with the rate limit
//! headers.

mod settings;

mod buckets;
mod ledger;

mod admission;
mod headers;

mod limiter;

pub use ledger::{Amounts, ClassLedger, Ledger, Refusals};
pub use settings::{Charging, HeaderMode, ServerLimits};

pub(super) use limiter::ServerLimiter;
