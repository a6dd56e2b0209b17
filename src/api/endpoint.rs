//! Quick calls with a JSON answer: what models, batches and lists have in common.

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::call::response::read_json;
use crate::client::Client;
use crate::error::{Error, Result, sanitize};
use crate::http::is_path;
use crate::types::ResponseMeta;

impl Client {
    /// Asks an endpoint that answers at once, and may be asked again whatever became of it.
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
            answer_timeout: Some(settings.timeout.unwrap_or(settings.idle_timeout)),
            ..self.call(method, path, body)
        };
        call.ask(|answer| read_json(answer, expected))
    }
}

/// The path of one thing: its id below the path of its kind.
///
/// An id is escaped, so that it cannot name another path; one that does even then is refused.
pub(crate) fn path_with_id(method: &'static str, kind: &str, id: &str) -> Result<String> {
    if matches!(id, "" | "." | "..") {
        let shown = sanitize(id, 100);
        return Err(Error::rejected(
            format!("{method} {kind}"),
            format!("{shown:?} is no id"),
        ));
    }
    Ok(format!("{kind}/{}", percent_encode(id)))
}

/// Refuses what is no path: appended to the base URL it might name another host, and the key would
/// go there.
pub(crate) fn check_path(method: &'static str, path: &str) -> Result<()> {
    if is_path(path) {
        return Ok(());
    }
    let shown = sanitize(path, 100);
    Err(Error::rejected(
        method,
        format!("{shown:?} is no path: it must begin with / and be percent-encoded"),
    ))
}

/// Text as a part of a path or a query.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => {
                escaped.push('%');
                for half in [byte >> 4, byte & 15] {
                    escaped.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
                }
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_within_its_part_of_the_path() {
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
