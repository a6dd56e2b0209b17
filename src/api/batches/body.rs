//! The body of a batch while it is built: checked entry by entry, and held once.

use std::borrow::Cow;

use crate::error::{Cause, Error, ErrorKind, Result, json_error, sanitize};
use crate::types::{CreateBody, MessageRequest};

use super::PATH;

/// The requests of a batch as JSON, each written once.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// All but the end, which [`Body::finish`] adds.
    bytes: Vec<u8>,
    /// Where each entry ends.
    ends: Vec<usize>,
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a request, unless the body would become larger than a batch may be; whether it was
    /// added. The id was checked before.
    pub(crate) fn push(&mut self, custom_id: &str, request: &MessageRequest) -> Result<bool> {
        if let Some(problem) = never_in_a_batch(request) {
            let shown = sanitize(custom_id, 80);
            return Err(refused(format!("the request {shown}: {problem}")));
        }
        let before = self.bytes.len();
        self.begin();
        self.bytes.extend_from_slice(br#"{"custom_id":""#);
        self.bytes.extend_from_slice(custom_id.as_bytes());
        self.bytes.extend_from_slice(br#"","params":"#);
        let request = CreateBody {
            request,
            stream: false,
        };
        serde_json::to_writer(&mut self.bytes, &request).map_err(|error| {
            let cause = Cause::Unusable {
                what: "it cannot be written as JSON".into(),
                source: json_error(&error),
            };
            Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
        })?;
        self.bytes.push(b'}');
        Ok(self.keep(before))
    }

    /// The same with an entry of another body.
    pub(crate) fn push_entry(&mut self, entry: &[u8]) -> bool {
        let before = self.bytes.len();
        self.begin();
        self.bytes.extend_from_slice(entry);
        self.keep(before)
    }

    /// An entry as it was written.
    pub(crate) fn entry(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => START.len(),
            _ => self.ends[index - 1] + 1,
        };
        &self.bytes[start..self.ends[index]]
    }

    /// The whole body. It is complete only then, and takes no more entries.
    pub(crate) fn finish(&mut self) -> &[u8] {
        if !self.bytes.ends_with(END) {
            self.bytes.extend_from_slice(END);
        }
        &self.bytes
    }

    fn begin(&mut self) {
        self.bytes.extend_from_slice(match self.ends.len() {
            0 => START,
            _ => b",",
        });
    }

    fn keep(&mut self, before: usize) -> bool {
        let fits = self.bytes.len() + END.len() <= MOST_BYTES;
        match fits {
            true => self.ends.push(self.bytes.len()),
            false => self.bytes.truncate(before),
        }
        fits
    }
}

/// What a batch does not take, of what a message can have. The server would say so only when the
/// whole batch has ended.
fn never_in_a_batch(request: &MessageRequest) -> Option<Cow<'static, str>> {
    const OTHERS: [&str; 5] = [
        "store",
        "previous_thread_event_id",
        "cache_hint",
        "context_hint",
        "research_preview_2026_02",
    ];
    if request
        .extra
        .get("stream")
        .is_some_and(|stream| *stream == true)
    {
        return Some("an answer in a batch cannot be streamed".into());
    }
    if request.max_tokens == 0 {
        return Some("max_tokens must be at least 1 in a batch".into());
    }
    let speed = request.speed.as_ref().map(|_| "speed");
    let is_there = |name: &&str| request.extra.contains_key(*name);
    let found = speed.or_else(|| OTHERS.into_iter().find(is_there));
    found.map(|name| format!("a batch does not take {name}").into())
}

/// Checks the form of an id; that no two are equal is for the caller to check.
pub(crate) fn check_id(custom_id: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&custom_id.len()) && custom_id.bytes().all(is_word) {
        return Ok(());
    }
    let shown = sanitize(custom_id, 80);
    Err(refused(format!(
        "the custom_id {shown:?} must be 1 to 64 characters: letters, digits, _ and -"
    )))
}

pub(crate) fn twice(custom_id: &str) -> Error {
    let shown = sanitize(custom_id, 80);
    refused(format!("the custom_id {shown} is there twice"))
}

/// The error for a request that does not fit into any batch.
pub(crate) fn too_large(custom_id: &str) -> Error {
    let shown = sanitize(custom_id, 80);
    refused(format!(
        "the request {shown} alone is larger than a batch may be, 256 MB"
    ))
}

pub(crate) fn refused(what: impl Into<Cow<'static, str>>) -> Error {
    Error::rejected(format!("POST {PATH}"), what)
}

const START: &[u8] = br#"{"requests":["#;
const END: &[u8] = b"]}";

/// The most requests in a batch.
pub(crate) const MOST_REQUESTS: usize = 100_000;

/// The largest body: 256 MB. Where that means 256 MiB, this is a little less.
pub(crate) const MOST_BYTES: usize = 256_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn entries_are_written_once_and_found_again() {
        let mut body = Body::default();
        let request = |text: &str| {
            MessageRequest::new("m", 5)
                .user(text)
                .field("stream", false)
        };
        assert!(body.push("a", &request("1")).unwrap());
        assert!(body.push("b", &request("2")).unwrap());
        let second = body.entry(1).to_vec();
        assert!(body.push_entry(&second));
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
    fn ids_have_the_documented_form() {
        for id in ["a", "A-b_9", &"x".repeat(64)] {
            check_id(id).unwrap();
        }
        for id in ["", "a b", "a.b", "ä", "a\"", "a\n", &"x".repeat(65)] {
            let error = check_id(id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{id:?}");
        }
    }

    #[test]
    fn what_no_batch_takes_is_refused_by_name() {
        let request = || MessageRequest::new("m", 5).user("x");
        for (request, word) in [
            (request().field("stream", true), "streamed"),
            (request().speed("fast"), "speed"),
            (request().field("cache_hint", json!({})), "cache_hint"),
            (MessageRequest::new("m", 0), "max_tokens"),
        ] {
            let error = Body::default().push("a", &request).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
