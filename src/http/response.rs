//! The head of an answer, and its body.

use std::io::{self, Read};

use ureq::BodyReader;
use ureq::http::HeaderMap;

use super::fault::Fault;
use super::headers::Credentials;
use crate::error::Phase;
use crate::types::Delivery;

/// The head of an answer, and its body yet to be read.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(super) headers: HeaderMap,
    pub(crate) body: ResponseBody,
    pub(super) credentials: Credentials,
}

impl Response {
    /// Every header that is text, names in lower case.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Whether the head says where the body ends; otherwise a connection that broke looks like one
    /// that was closed in order.
    pub(crate) fn is_framed(&self) -> bool {
        self.headers.contains_key("content-length")
            || self.headers.contains_key("transfer-encoding")
    }

    /// Takes the body out, to be read after the answer is gone.
    pub(crate) fn take_body(&mut self) -> ResponseBody {
        std::mem::take(&mut self.body)
    }

    /// A header by its lower-case name; one that is no text counts as missing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The same for one that will be shown; one that repeats the request's credentials is missing.
    pub(crate) fn shown_header(&self, name: &str) -> Option<&str> {
        self.header(name)
            .filter(|value| !self.credentials.appear_in(value))
    }

    /// Takes the request's credentials out of a text that will be shown.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }
}

/// The body of an answer; empty once it was taken.
#[derive(Default)]
pub(crate) struct ResponseBody {
    pub(super) reader: Option<BodyReader<'static>>,
    pub(super) credentials: Credentials,
}

impl ResponseBody {
    /// Takes the request's credentials out of a text that will be shown.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }

    /// Reads some bytes, 0 at the end. Blocks for as long as the exchange's timeouts lasts.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        loop {
            match reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Fault::from_error(
                        ureq::Error::from(error),
                        Delivery::Unknown,
                        Phase::Body,
                    ));
                }
            }
        }
    }

    /// Reads what is left onto `bytes`, but not beyond `limit` bytes in outcome; says whether that was
    /// outcome.
    pub(crate) fn read_up_to(&mut self, limit: usize, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut filled = bytes.len();
        let outcome = loop {
            if filled == bytes.len() {
                let room = (limit - filled).saturating_add(1);
                bytes.resize(filled + room.min(filled.clamp(4096, 64 << 10)), 0);
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
