//! One API call: attempts until a response is read, or a failure is final.
//!
//! [`Call::run`] loops in `attempts`: wait for admission by the budget, send, read the response
//! (`response`), and after a failure classify it (`classify`), decide by the policy (`retry`), and wait or
//! give up. `usage` follows an attempt until its end is known, for the budget and for the totals of the
//! client (`totals`).

// What is known of a failure, and what follows from it.
pub(crate) mod classify;

pub(crate) mod response;
pub(crate) mod retry;

// What a client has done, and what an attempt uses.
pub(crate) mod totals;
pub(crate) mod usage;

// The state of a client, a call, and its attempts.
mod core;

mod call;

mod attempts;

pub(crate) use self::call::{Call, encode};
pub(crate) use self::core::{Core, LOG, Settings};
