//! Reads requests from a connection.

use std::io::{self, Read};
use std::net::TcpStream;

use crate::testing::recorded::find_header;

/// A request without its body.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) is_http_1_0: bool,
}

impl RequestHead {
    /// Parses a head without its final empty line.
    fn parse(bytes: &[u8]) -> Result<RequestHead, ReadFailure> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(ReadFailure::refused(400, "malformed request line"));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(ReadFailure::refused(505, "not HTTP/1.1"));
        }
        let mut headers = Vec::with_capacity(16);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                return Err(ReadFailure::refused(400, "malformed header line"));
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = match origin_form(target).split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (origin_form(target), None),
        };
        Ok(RequestHead {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers,
            is_http_1_0: version == "HTTP/1.0",
        })
    }

    /// Returns whether the client wants the connection closed after the response.
    pub(crate) fn is_last(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default();
        connection.eq_ignore_ascii_case("close")
            || (self.is_http_1_0 && !connection.eq_ignore_ascii_case("keep-alive"))
    }

    /// Returns whether the client waits for a `100 Continue` before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
    }
}

/// Why no request could be read from a connection.
#[derive(Debug, PartialEq)]
pub(crate) enum ReadFailure {
    /// The client has gone, or the server stops.
    Gone,
    /// The bytes are no request that can be served.
    Refused { status: u16, reason: &'static str },
}

impl ReadFailure {
    const fn refused(status: u16, reason: &'static str) -> ReadFailure {
        ReadFailure::Refused { status, reason }
    }
}

impl From<io::Error> for ReadFailure {
    fn from(_: io::Error) -> Self {
        ReadFailure::Gone
    }
}

/// Buffered reading that leaves the last bytes of a request in the kernel.
///
/// The reader peeks at bytes, and consumes them only before it peeks at more. When a request is
/// complete, its end is still unread in the kernel, and closing the socket then makes the kernel
/// send a reset instead of a regular end. There is no other way to a real reset without
/// `SO_LINGER`, which std lacks.
pub(crate) struct RequestReader<'a> {
    socket: &'a TcpStream,
    buffer: Vec<u8>,
    /// The index in `buffer` of the first byte that no request has used.
    start: usize,
    /// How many bytes at the end of `buffer` are still unread in the kernel too.
    held: usize,
}

impl<'a> RequestReader<'a> {
    pub(crate) fn new(socket: &'a TcpStream) -> Self {
        RequestReader {
            socket,
            buffer: Vec::new(),
            start: 0,
            held: 0,
        }
    }

    /// Blocks until the head of the next request has arrived.
    pub(crate) fn read_head(&mut self) -> Result<RequestHead, ReadFailure> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..];
            if searched == 0 && unread.starts_with(b"\r\n") {
                self.start += 2;
                continue;
            }
            let from = unread.len().min(searched);
            if let Some(end) = find(&unread[from..], b"\r\n\r\n") {
                let head = RequestHead::parse(&unread[..from + end]);
                self.start += from + end + 4;
                return head;
            }
            if unread.len() > MAX_HEAD {
                return Err(ReadFailure::refused(431, "request head too large"));
            }
            searched = unread.len().saturating_sub(3);
            self.fill()?;
        }
    }

    /// Blocks until the whole body of the request has arrived.
    pub(crate) fn read_body(&mut self, head: &RequestHead) -> Result<Vec<u8>, ReadFailure> {
        if head.is_chunked() {
            return self.read_chunked_body();
        }
        let Some(length) = head.header("content-length") else {
            return Ok(Vec::new());
        };
        let Ok(length) = length.parse::<usize>() else {
            return Err(ReadFailure::refused(400, "malformed content-length"));
        };
        if length > MAX_BODY {
            return Err(TOO_LARGE);
        }
        let mut body = Vec::with_capacity(length.min(MAX_RESERVED));
        self.read_into(&mut body, length)?;
        Ok(body)
    }

    /// Consumes the bytes that are still in the kernel, so that closing the socket is no reset.
    pub(crate) fn consume_held(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let from = self.buffer.len() - held;
        let mut socket = self.socket;
        socket.read_exact(&mut self.buffer[from..])
    }

    /// Blocks until more bytes are in the buffer.
    fn fill(&mut self) -> Result<(), ReadFailure> {
        self.consume_held()?;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start >= READ_SIZE {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let end = self.buffer.len();
        self.buffer.resize(end + READ_SIZE, 0);
        let count = loop {
            match self.socket.peek(&mut self.buffer[end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.unwrap_or(0),
            }
        };
        self.buffer.truncate(end + count);
        self.held = count;
        if count == 0 {
            return Err(ReadFailure::Gone);
        }
        Ok(())
    }

    fn read_into(&mut self, body: &mut Vec<u8>, count: usize) -> Result<(), ReadFailure> {
        let mut left = count;
        while left > 0 {
            if self.start == self.buffer.len() {
                if left > READ_SIZE {
                    // All but the last byte directly into the body; the last byte stays unread.
                    self.consume_held()?;
                    let wanted = left - 1;
                    body.reserve(wanted.min(MAX_RESERVED));
                    let got = self.socket.take(wanted as u64).read_to_end(body)?;
                    if got < wanted {
                        return Err(ReadFailure::Gone);
                    }
                    left = 1;
                }
                self.fill()?;
            }
            let unread = &self.buffer[self.start..];
            let part = &unread[..unread.len().min(left)];
            body.extend_from_slice(part);
            left -= part.len();
            self.start += part.len();
        }
        Ok(())
    }

    fn read_chunked_body(&mut self) -> Result<Vec<u8>, ReadFailure> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(size, 16) else {
                return Err(ReadFailure::refused(400, "malformed chunk size"));
            };
            if size > MAX_BODY - body.len() {
                return Err(TOO_LARGE);
            }
            if size == 0 {
                while !self.read_line()?.is_empty() {}
                return Ok(body);
            }
            self.read_into(&mut body, size)?;
            if !self.read_line()?.is_empty() {
                return Err(ReadFailure::refused(400, "malformed chunk end"));
            }
        }
    }

    fn read_line(&mut self) -> Result<String, ReadFailure> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&unread[..end]).trim().to_owned();
                self.start += end + 1;
                return Ok(line);
            }
            if unread.len() > MAX_HEAD {
                return Err(ReadFailure::refused(400, "line too long"));
            }
            self.fill()?;
        }
    }
}

/// Returns the target without the scheme and host that clients behind a proxy send.
fn origin_form(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// The longest head, and the longest line of chunk framing, in bytes: far more than clients send.
const MAX_HEAD: usize = 64 * 1024;

/// The longest body in bytes: more than the API takes, 256 MB for a batch.
const MAX_BODY: usize = 300 * 1024 * 1024;

/// How many bytes one read asks for.
const READ_SIZE: usize = 16 * 1024;

/// The most bytes that a stated length reserves before they have arrived.
const MAX_RESERVED: usize = 32 * 1024 * 1024;

const TOO_LARGE: ReadFailure = ReadFailure::refused(413, "request body too large");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_parsed_into_its_parts() {
        let head = RequestHead::parse(
            b"POST http://host:1/a/b?x=1?y HTTP/1.1\r\nX-Api-Key:  k \r\nExpect: 100-Continue",
        )
        .expect("a good head");
        assert_eq!((&*head.method, &*head.path), ("POST", "/a/b"));
        assert_eq!(head.query.as_deref(), Some("x=1?y"));
        assert_eq!(head.header("X-API-KEY"), Some("k"));
        assert!(head.expects_continue());
        assert!(!head.is_last());
    }

    #[test]
    fn version_decides_whether_connection_ends() {
        let is_last = |head: &[u8]| RequestHead::parse(head).expect("a good head").is_last();
        assert!(is_last(b"GET / HTTP/1.0"));
        assert!(!is_last(b"GET / HTTP/1.0\r\nConnection: Keep-Alive"));
        assert!(is_last(b"GET / HTTP/1.1\r\nconnection: Close"));
    }

    #[test]
    fn malformed_head_is_refused() {
        for head in [
            "",
            "GET /",
            "GET / x HTTP/1.1",
            "GET / HTTP/1.1\r\nno colon",
        ] {
            let refused = RequestHead::parse(head.as_bytes()).expect_err(head);
            assert!(
                matches!(refused, ReadFailure::Refused { status: 400, .. }),
                "{head}"
            );
        }
        let refused = RequestHead::parse(b"GET / HTTP/2").expect_err("another version");
        assert!(matches!(refused, ReadFailure::Refused { status: 505, .. }));
    }

    #[test]
    fn target_loses_scheme_and_host() {
        assert_eq!(origin_form("/v1?u=http://x/y"), "/v1?u=http://x/y");
        assert_eq!(origin_form("http://host"), "/");
        assert_eq!(origin_form("https://host:9/v1"), "/v1");
    }
}
