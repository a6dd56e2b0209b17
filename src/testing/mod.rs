//! A test server and a manual clock, for our tests and for yours.

mod canned;
mod clock;
mod deliver;
mod frames;
mod receive;
mod render;
mod script;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use clock::ManualClock;
pub use receive::RecordedRequest;
pub use script::Reply;
pub use server::TestServer;
pub use stream::StreamScript;
