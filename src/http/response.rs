//! A response: its status and headers, and a body that is read piece by piece.

use std::io::{self, Read};

use ureq::http::HeaderMap;
use ureq::{Body, BodyReader};

use super::fault::Fault;
use super::headers::Credentials;
use crate::error::Phase;
use crate::types::Delivery;

/// The status and headers of a response, and its body, which is yet to be read.
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: ResponseBody,
    credentials: Credentials,
}

impl Response {
    /// Wraps ureq's response to a request with these credentials.
    pub(super) fn new(response: ureq::http::Response<Body>, credentials: Credentials) -> Response {
        let (head, body) = response.into_parts();
        Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body: ResponseBody {
                reader: Some(body.into_with_config().limit(u64::MAX).reader()),
                credentials: credentials.clone(),
            },
            credentials,
        }
    }

    /// Returns every header that is text, with its name in lower case.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Whether the headers say where the body ends. Without them, a connection that broke cannot be
    /// told from one that the server closed at the end of the body.
    pub(crate) fn is_framed(&self) -> bool {
        self.headers.contains_key("content-length")
            || self.headers.contains_key("transfer-encoding")
    }

    /// Takes the body out, so that it can outlive the response; an empty one takes its place.
    pub(crate) fn take_body(&mut self) -> ResponseBody {
        std::mem::take(&mut self.body)
    }

    /// Returns a header by its lower-case name, or `None` if it is missing or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns a header that will be shown to people, or `None` also if it repeats the credentials of
    /// the request.
    pub(crate) fn shown_header(&self, name: &str) -> Option<&str> {
        self.header(name)
            .filter(|value| !self.credentials.appear_in(value))
    }

    /// Overwrites the credentials of the request in a text that will be shown to people.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }
}

/// The body of a response; the default is an empty one.
#[derive(Default)]
pub(crate) struct ResponseBody {
    reader: Option<BodyReader<'static>>,
    credentials: Credentials,
}

impl ResponseBody {
    /// Overwrites the credentials of the request in a text that will be shown to people.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }

    /// Reads some bytes and returns their number, 0 at the end. Blocks until bytes arrive or a
    /// timeout of the exchange passes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        loop {
            match reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = ureq::Error::from(error);
                    return Err(Fault::from_error(error, Delivery::Unknown, Phase::Body));
                }
            }
        }
    }

    /// Appends the rest of the body to `bytes`, up to a total of `limit` bytes. Returns whether the
    /// end of the body was reached.
    pub(crate) fn read_up_to(&mut self, limit: usize, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut filled = bytes.len();
        let outcome = loop {
            if filled == bytes.len() {
                // One byte of room beyond the limit shows whether the body ends there.
                let room = (limit - filled).saturating_add(1);
                bytes.resize(filled + room.min(filled.clamp(MIN_READ, MAX_READ)), 0);
            }
            match self.read(&mut bytes[filled..]) {
                Ok(0) => break Ok(true),
                Ok(read) => filled += read,
                Err(fault) => break Err(fault),
            }
            if filled > limit {
                filled = limit;
                break Ok(false);
            }
        };
        bytes.truncate(filled);
        outcome
    }
}

/// The room for the first read of a body, in bytes. It doubles with each read up to [`MAX_READ`].
const MIN_READ: usize = 4 << 10;

/// The most room for one read of a body, in bytes: as much as a connection buffers.
const MAX_READ: usize = 64 << 10;
