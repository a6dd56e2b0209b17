//! The client, how it is built, and what it takes from the environment.

mod environment;

mod proxy;

mod credentials;

mod options;

mod client;

mod builder;

pub use self::builder::ClientBuilder;
pub use self::client::Client;
pub use self::options::Options;
