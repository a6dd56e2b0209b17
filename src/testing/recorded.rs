//! Requests as the test server records them.

use std::fmt;
use std::time::{Duration, Instant};

/// One request as it arrived at a [`TestServer`](super::TestServer).
///
/// ```
/// use anthropic_blocking::testing::TestServer;
/// use anthropic_blocking::{Client, MessageRequest};
///
/// let server = TestServer::start()?;
/// let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
/// client.messages().create(&MessageRequest::new("claude-haiku-4-5", 64).user("Hello?"))?;
///
/// let requests = server.take_requests();
/// assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/v1/messages"));
/// assert_eq!(requests[0].header("x-api-key"), Some("test"));
/// assert_eq!(requests[0].json()["max_tokens"], 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The path without the query, such as `/v1/messages`.
    pub path: String,
    /// The query, without the `?`.
    pub query: Option<String>,
    /// All headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
    /// When the last byte of the request was read.
    pub arrived: Instant,
    /// The time from the start of the server to `arrived`.
    pub since_start: Duration,
    /// The number of the connection that the request came on: 0 for the first one accepted.
    pub connection: usize,
}

impl fmt::Debug for RecordedRequest {
    /// Leaves out the values of headers and the body: a failing test prints them, and the key may
    /// be a real one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("headers", &headers)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("since_start", &self.since_start)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl RecordedRequest {
    /// Returns the first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Returns the body as JSON; `Null` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the body as text; invalid UTF-8 is replaced by `U+FFFD`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Returns the first header of this name, in any case.
pub(super) fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}
