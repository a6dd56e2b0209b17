//! One HTTP exchange over ureq: the only folder that names it.

mod address;

mod headers;

mod timeouts;

mod settings;

mod tls;

mod proxy;

mod fault;

mod request;

mod response;

mod transport;

pub(crate) mod drain;

mod dates;

pub(crate) mod rate_limits;

pub(crate) use self::address::{BaseUrl, is_path};
pub(crate) use self::fault::Fault;
pub(crate) use self::headers::Headers;
pub(crate) use self::request::OutgoingRequest;
pub(crate) use self::response::{Response, ResponseBody};
pub(crate) use self::settings::{ConnectionSettings, Roots, Secret};
pub(crate) use self::timeouts::Timeouts;
pub(crate) use self::transport::Transport;
