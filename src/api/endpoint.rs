//! One short request with a JSON response: what models, batches and lists have in common.

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::call::response::read_json;
use crate::client::Client;
use crate::error::{Error, Result, sanitize};
use crate::http::is_valid_path;
use crate::types::ResponseMeta;

impl Client {
    /// Sends a request to an endpoint that responds at once, and returns the JSON of its response.
    /// A `POST` has the body `{}`.
    ///
    /// The request may be repeated whatever became of an attempt. Blocks like any call, and for
    /// each attempt at most for the client's timeout; if none is set, for the idle timeout.
    /// `expected` is what the response should be, for the text of an error.
    pub(crate) fn request_json<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        expected: &'static str,
    ) -> Result<(T, ResponseMeta)> {
        let settings = self.settings();
        let body = (method == "POST").then_some(&b"{}"[..]);
        let call = Call {
            repeatable: true,
            response_timeout: Some(settings.timeout.unwrap_or(settings.idle_timeout)),
            ..self.call(method, path, body)
        };
        call.run_without_tokens(|response| read_json(response, expected))
    }
}

/// Appends an id to the path of its collection. The id is percent-encoded, so that it stays one
/// segment of the path.
///
/// # Errors
///
/// Kind `InvalidRequest` for `""`, `.` and `..`, which would name another path.
pub(crate) fn path_with_id(method: &'static str, collection: &str, id: &str) -> Result<String> {
    if matches!(id, "" | "." | "..") {
        let shown = sanitize(id, 100);
        return Err(Error::rejected(
            format!("{method} {collection}"),
            format!("{shown:?} is no id"),
        ));
    }
    Ok(format!("{collection}/{}", percent_encode(id)))
}

/// Checks that `path` is a path: anything else, appended to the base URL, might name another host,
/// to which the key would go.
///
/// # Errors
///
/// Kind `InvalidRequest` if it is no path.
pub(crate) fn check_path(method: &'static str, path: &str) -> Result<()> {
    if is_valid_path(path) {
        return Ok(());
    }
    let shown = sanitize(path, 100);
    Err(Error::rejected(
        method,
        format!("{shown:?} is no path: it must begin with / and be percent-encoded"),
    ))
}

/// Encodes text as a segment of a path, or as a value in a query: all but the unreserved characters
/// of RFC 3986.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                encoded.push('%');
                for half in [byte >> 4, byte & 15] {
                    encoded.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_stays_one_segment_of_the_path() {
        let path = |id| path_with_id("GET", "/v1/models", id);
        assert_eq!(
            path("claude-haiku-4-5").unwrap(),
            "/v1/models/claude-haiku-4-5"
        );
        assert_eq!(
            path("a/../b?c=ü%").unwrap(),
            "/v1/models/a%2F..%2Fb%3Fc%3D%C3%BC%25"
        );
        for id in ["", ".", ".."] {
            let error = path(id).unwrap_err().to_string();
            assert_eq!(error, format!("GET /v1/models: {id:?} is no id"));
        }
    }
}
