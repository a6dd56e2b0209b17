//! The client, its builder and its settings.
//!
//! A [`ClientBuilder`] collects settings from code, and from variables of the environment (`environment`).
//! [`ClientBuilder::build`] checks the settings and makes two values, which a [`Client`] holds: the
//! `Core`, which all copies share (connections, budget, clock), and the `Settings`, in which copies may
//! differ. [`Client::with`] applies [`Options`] to the settings of a copy. The endpoints in `api` ask the
//! client for a `Call`, which the retry loop in `call` runs.

// What the environment says.
mod environment;

mod proxy;

// Headers that prove who is calling.
mod credentials;

mod options;

mod client;

mod builder;

pub use self::builder::ClientBuilder;
pub use self::client::Client;
pub use self::options::Options;
