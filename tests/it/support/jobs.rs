//! Requests with keys, for bulk runs and for batches.

use std::collections::BTreeMap;
use std::time::Duration;

use anthropic_blocking::testing::RecordedRequest;
use anthropic_blocking::{Client, ErrorKind, Message, MessageRequest, Result};

/// A bulk run whose threads all start at once.
pub fn bulk_at_once(client: &Client, threads: usize) -> anthropic_blocking::Bulk<'_> {
    client.bulk().concurrency(threads).ramp_up(Duration::ZERO)
}

pub fn ask(number: impl std::fmt::Display) -> MessageRequest {
    MessageRequest::new("claude-haiku-4-5", 64).user(format!("question {number}"))
}

pub fn jobs(count: usize) -> impl ExactSizeIterator<Item = (String, MessageRequest)> + Send {
    (0..count).map(|number| (format!("key-{number}"), ask(number)))
}

/// Returns the number in the prompt of a request.
pub fn number(request: &RecordedRequest) -> usize {
    let text = request.text();
    let rest = text.split("question ").nth(1).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let number = &rest[..end.unwrap_or(rest.len())];
    number.parse().unwrap_or(usize::MAX)
}

/// Returns the reply text or the error kind of each key, and checks that no key comes twice.
#[track_caller]
pub fn texts(
    run: impl IntoIterator<Item = (String, Result<Message>)>,
) -> BTreeMap<String, Result<String, ErrorKind>> {
    let mut texts = BTreeMap::new();
    for (key, result) in run {
        let text = result
            .map(|message| message.text())
            .map_err(|error| error.kind());
        let previous = texts.insert(key.clone(), text);
        assert!(previous.is_none(), "{key} comes twice");
    }
    texts
}

pub fn entries(count: usize) -> Vec<(String, MessageRequest)> {
    let entry = |index| {
        let request = MessageRequest::new("claude-haiku-4-5", 256);
        (
            format!("key-{index}"),
            request.user(format!("question {index}")),
        )
    };
    (0..count).map(entry).collect()
}
