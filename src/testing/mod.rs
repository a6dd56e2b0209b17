//! A test server and a manual clock, for our tests and for yours.

mod batches;
mod buckets;
mod canned;
mod clock;
mod deliver;
mod frames;
mod headers;
mod ledger;
mod limited;
mod limits;
mod machine;
mod receive;
mod render;
mod script;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use batches::BatchOutcome;
pub use clock::ManualClock;
pub use ledger::{Amounts, ClassLedger, Ledger, Refusals};
pub use limits::{Charging, HeaderMode, ServerLimits};
pub use receive::RecordedRequest;
pub use script::Reply;
pub use server::TestServer;
pub use stream::StreamScript;
