//! The client, how it is built, and what it takes from the environment.

// Where the environment says that requests go.
mod proxy;

mod credentials;

mod options;

mod client;

mod builder;

pub use self::builder::ClientBuilder;
pub use self::client::Client;
pub use self::options::Options;
