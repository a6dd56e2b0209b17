//! A request on its way out.

use std::io::{self, Read};

use super::headers::Headers;
use super::timeouts::Timeouts;

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: &'a Headers,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) timeouts: Timeouts,
}

/// A body that knows whether it was read to its end: before that, no server can have acted on it.
/// One without bytes is not read at all.
pub(super) struct TrackedBody<'a> {
    pub(super) remaining: &'a [u8],
    pub(super) is_read_to_end: bool,
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.remaining.read(buffer)?;
        self.is_read_to_end = self.remaining.is_empty();
        Ok(n)
    }
}
