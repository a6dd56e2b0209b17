//! The JSON body of a batch, built request by request.

use std::borrow::Cow;

use super::endpoints::PATH;
use crate::error::{Cause, Error, ErrorKind, Result, json_error, sanitize};
use crate::types::{CreateBody, MessageRequest};

/// The requests of a batch as JSON; each is written once.
#[derive(Debug, Default)]
pub(super) struct BatchBody {
    /// The body but for its end, which [`BatchBody::finish`] adds.
    bytes: Vec<u8>,
    /// Where in `bytes` each request ends.
    ends: Vec<usize>,
}

/// Whether a body had room for one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Pushed {
    Added,
    /// The body is unchanged: with the request it would be larger than [`MAX_BODY_BYTES`].
    NoRoom,
}

impl BatchBody {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a request if there is room for it. The caller has checked `custom_id`.
    pub(super) fn push(&mut self, custom_id: &str, request: &MessageRequest) -> Result<Pushed> {
        if let Some(problem) = find_unsupported(request) {
            let shown = sanitize(custom_id, 80);
            return Err(invalid(format!("the request {shown}: {problem}")));
        }
        let before = self.bytes.len();
        self.write_separator();
        self.bytes.extend_from_slice(br#"{"custom_id":""#);
        self.bytes.extend_from_slice(custom_id.as_bytes());
        self.bytes.extend_from_slice(br#"","params":"#);
        let request = CreateBody {
            request,
            stream: false,
        };
        serde_json::to_writer(&mut self.bytes, &request).map_err(|error| {
            let cause = Cause::Unusable {
                what: "the request cannot be written as JSON".into(),
                source: json_error(&error),
            };
            Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
        })?;
        self.bytes.push(b'}');
        Ok(self.keep_if_it_fits(before))
    }

    /// Adds a request that [`entry`](BatchBody::entry) returned, if there is room for it.
    pub(super) fn push_entry(&mut self, entry: &[u8]) -> Pushed {
        let before = self.bytes.len();
        self.write_separator();
        self.bytes.extend_from_slice(entry);
        self.keep_if_it_fits(before)
    }

    /// Returns the JSON of a request, with its custom id.
    pub(super) fn entry(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => START.len(),
            _ => self.ends[index - 1] + b",".len(),
        };
        &self.bytes[start..self.ends[index]]
    }

    /// Completes the body, which takes no more requests then, and returns it.
    pub(super) fn finish(&mut self) -> &[u8] {
        if !self.bytes.ends_with(END) {
            self.bytes.extend_from_slice(END);
        }
        &self.bytes
    }

    fn write_separator(&mut self) {
        self.bytes.extend_from_slice(match self.ends.len() {
            0 => START,
            _ => b",",
        });
    }

    /// Keeps what was written since the body had `before` bytes, or removes it.
    fn keep_if_it_fits(&mut self, before: usize) -> Pushed {
        if self.bytes.len() + END.len() <= MAX_BODY_BYTES {
            self.ends.push(self.bytes.len());
            return Pushed::Added;
        }
        self.bytes.truncate(before);
        Pushed::NoRoom
    }
}

/// Looks for a parameter of messages that batches do not support. The server would report it only
/// after the whole batch has ended.
fn find_unsupported(request: &MessageRequest) -> Option<Cow<'static, str>> {
    const UNSUPPORTED_FIELDS: [&str; 5] = [
        "store",
        "previous_thread_event_id",
        "cache_hint",
        "context_hint",
        "research_preview_2026_02",
    ];
    let stream = request.extra.get("stream");
    if stream.is_some_and(|stream| *stream == true) {
        return Some("a response in a batch cannot be streamed".into());
    }
    if request.max_tokens == 0 {
        return Some("max_tokens must be at least 1 in a batch".into());
    }
    let speed = request.speed.as_ref().map(|_| "speed");
    let is_set = |name: &&str| request.extra.contains_key(*name);
    let found = speed.or_else(|| UNSUPPORTED_FIELDS.into_iter().find(is_set));
    found.map(|name| format!("a batch does not take {name}").into())
}

/// Checks the form of a custom id. The caller checks that no two are equal.
///
/// # Errors
///
/// Kind `InvalidRequest` unless the id has 1 to 64 letters, digits, `_` and `-`.
pub(super) fn check_custom_id(custom_id: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&custom_id.len()) && custom_id.bytes().all(is_word) {
        return Ok(());
    }
    let shown = sanitize(custom_id, 80);
    Err(invalid(format!(
        "the custom_id {shown:?} must be 1 to 64 characters: letters, digits, _ and -"
    )))
}

/// The error for a custom id that two requests have.
pub(super) fn duplicate_custom_id(custom_id: &str) -> Error {
    let shown = sanitize(custom_id, 80);
    invalid(format!("two requests have the custom_id {shown}"))
}

/// The error for a request that does not fit into any batch.
pub(super) fn too_large(custom_id: &str) -> Error {
    let shown = sanitize(custom_id, 80);
    invalid(format!(
        "the request {shown} alone is larger than a batch may be, 256 MB"
    ))
}

/// The error for a batch that is not sent because the server would reject it.
pub(super) fn invalid(what: impl Into<Cow<'static, str>>) -> Error {
    Error::rejected(format!("POST {PATH}"), what)
}

const START: &[u8] = br#"{"requests":["#;
const END: &[u8] = b"]}";

/// The maximum number of requests in a batch: a documented limit.
pub(super) const MAX_REQUESTS: usize = 100_000;

/// The maximum size of a body in bytes. The documented limit is 256 MB; should the server mean
/// 256 MiB, this is a little less.
const MAX_BODY_BYTES: usize = 256_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn body_holds_each_request_as_written() {
        let mut body = BatchBody::default();
        let request = |text: &str| {
            MessageRequest::new("m", 5)
                .user(text)
                .field("stream", false)
        };
        assert_eq!(body.push("a", &request("1")).unwrap(), Pushed::Added);
        assert_eq!(body.push("b", &request("2")).unwrap(), Pushed::Added);
        let second = body.entry(1).to_vec();
        assert_eq!(body.push_entry(&second), Pushed::Added);
        let entry = |id: &str, text: &str| {
            json!({"custom_id": id, "params": {"model": "m", "max_tokens": 5,
                "messages": [{"role": "user", "content": text}]}})
        };
        assert_eq!(
            serde_json::from_slice::<Value>(body.entry(0)).unwrap(),
            entry("a", "1")
        );
        let whole = json!({"requests": [entry("a", "1"), entry("b", "2"), entry("b", "2")]});
        assert_eq!(
            serde_json::from_slice::<Value>(body.finish()).unwrap(),
            whole
        );
        assert_eq!(
            serde_json::from_slice::<Value>(body.finish()).unwrap(),
            whole
        );
        assert_eq!(body.len(), 3);
    }

    #[test]
    fn custom_id_must_have_the_documented_form() {
        for id in ["a", "A-b_9", &"x".repeat(64)] {
            check_custom_id(id).unwrap();
        }
        for id in ["", "a b", "a.b", "ä", "a\"", "a\n", &"x".repeat(65)] {
            let error = check_custom_id(id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{id:?}");
        }
    }

    #[test]
    fn body_refuses_unsupported_fields_by_name() {
        let request = || MessageRequest::new("m", 5).user("x");
        for (request, word) in [
            (request().field("stream", true), "streamed"),
            (request().speed("fast"), "speed"),
            (request().field("cache_hint", json!({})), "cache_hint"),
            (MessageRequest::new("m", 0), "max_tokens"),
        ] {
            let error = BatchBody::default()
                .push("a", &request)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
