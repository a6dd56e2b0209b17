//! A request as it is sent.

use std::io::{self, Read};

use ureq::http::{HeaderMap, HeaderValue, Method};

use super::headers::Headers;
use super::timeouts::Timeouts;

/// A request as it is sent in one attempt.
#[derive(Debug)]
pub(crate) struct OutgoingRequest<'a> {
    /// `GET`, `POST` or `DELETE`.
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: &'a Headers,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) timeouts: Timeouts,
}

impl OutgoingRequest<'_> {
    pub(super) fn http_method(&self) -> Method {
        match self.method {
            "GET" => Method::GET,
            "DELETE" => Method::DELETE,
            _ => Method::POST,
        }
    }

    /// Returns the headers, with those that describe the body.
    pub(super) fn http_headers(&self) -> HeaderMap {
        let mut headers = self.headers.map.clone();
        match self.body {
            Some(body) => headers.insert("content-length", HeaderValue::from(body.len())),
            None => headers.remove("content-type"),
        };
        headers
    }
}

/// A request body that knows whether it was read to its end: a server that did not receive all of a
/// request cannot have acted on it.
pub(super) struct TrackedBody<'a> {
    remaining: &'a [u8],
    is_read_to_end: bool,
}

impl<'a> TrackedBody<'a> {
    /// An empty body counts as read, because nothing reads it.
    pub(super) fn new(bytes: &'a [u8]) -> TrackedBody<'a> {
        TrackedBody {
            remaining: bytes,
            is_read_to_end: bytes.is_empty(),
        }
    }

    pub(super) fn is_read_to_end(&self) -> bool {
        self.is_read_to_end
    }
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.remaining.read(buffer)?;
        self.is_read_to_end = self.remaining.is_empty();
        Ok(n)
    }
}
