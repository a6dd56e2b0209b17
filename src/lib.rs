//! placeholder
#![cfg_attr(docsrs, feature(doc_cfg))]

mod types;

mod clock;
mod error;

mod accumulate;
mod diagnose;
mod rate_limits;
mod retry;
mod sse;

mod transport;

mod call;

mod client;
mod messages;
mod raw;
mod stream;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

pub use client::{Client, ClientBuilder, Options};
pub use error::{Error, ErrorKind, Result};
pub use messages::Messages;
pub use raw::{Raw, RawAnswer};
pub use retry::RetryPolicy;
pub use stream::{MessageStream, TextDeltas};
pub use types::*;
