//! One HTTP exchange over ureq: the only folder that names ureq.
//!
//! A client builds one [`Transport`] from its [`ConnectionSettings`]. For each attempt, the call loop
//! passes an [`OutgoingRequest`] (method, URL, [`Headers`], body, [`Timeouts`]) to
//! [`Transport::send`], which returns a [`Response`] with the body still to be read, or a [`Fault`]:
//! what failed, and whether the request may have reached the server. [`rate_limits`] reads the
//! response headers, and [`drain`] reads bodies for which a caller cannot wait long.

// The request: where it goes, what it carries, how long it may take.
mod address;

mod headers;

mod timeouts;

mod request;

// The connection.
mod settings;

mod tls;

mod proxy;

// The response, or what prevented it.
mod fault;

mod response;

mod transport;

pub(crate) mod drain;

pub(crate) mod dates;

pub(crate) mod rate_limits;

pub(crate) use self::address::{BaseUrl, is_valid_path};
pub(crate) use self::fault::Fault;
pub(crate) use self::headers::Headers;
pub(crate) use self::request::OutgoingRequest;
pub(crate) use self::response::{Response, ResponseBody};
pub(crate) use self::settings::{ConnectionSettings, Roots, Secret};
pub(crate) use self::timeouts::Timeouts;
pub(crate) use self::transport::Transport;
