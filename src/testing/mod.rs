//! A test server and a manual clock, for our tests and for yours.
//!
//! A [`TestServer`] listens on a loopback port and stands in for the API. A request passes through
//! the files from top to bottom and back: `server` accepts the connection and keeps the queues of
//! replies, `wire` reads the request, `batches`, `limits` or `canned` decide on the response where
//! no [`Reply`] is scripted, and `wire` writes the response with its delays and faults. A
//! [`ManualClock`] replaces the clock of a client.
//!
//! This module is unversioned: unlike the rest of the crate it may change in any release, without a
//! new major version. Pin the exact version of the crate if your tests must compile for years.

mod clock;

// What a test scripts, and what the server records.
mod stream;

mod frames;
mod recorded;
mod reply;

mod queues;

// The responses to requests that have no scripted reply.
mod dates;
mod sync;

mod canned;

mod batches;
mod limits;

// HTTP/1.1 over a socket.
mod wire;

// The server itself, on top of everything.
mod server;

#[cfg(test)]
mod tests;

pub use batches::BatchOutcome;
pub use clock::ManualClock;
pub use limits::{Amounts, Charging, ClassLedger, HeaderMode, Ledger, Refusals, ServerLimits};
pub use recorded::RecordedRequest;
pub use reply::Reply;
pub use server::TestServer;
pub use stream::StreamScript;
