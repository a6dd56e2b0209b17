//! Real material that nobody on this project wrote: exchanges, headers, streams, and what the
//! official clients make of them. It is not part of the crate; where it lies is said by
//! `ANTHROPIC_RECORDINGS`:
//!
//! ```sh
//! ANTHROPIC_RECORDINGS=/its/folder cargo test -- --ignored record
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anthropic_blocking::testing::{ManualClock, Reply, StreamScript, TestServer};
use anthropic_blocking::{
    Client, Delivery, Error, ErrorKind, Message, MessageRequest, Options, RateLimit, RateLimits,
    RetryPolicy,
};
use serde_json::{Value, json};

// Exchanges.

/// The recorded failures: what each is, and what the error says a person can do.
const FAILURES: [(&str, ErrorKind, &str); 18] = [
    (
        "01_429_x_should_retry_false_prompt_over_tpm",
        ErrorKind::RateLimit,
        "larger than the whole limit",
    ),
    (
        "02_400_prompt_too_long_workspace_hdr",
        ErrorKind::InvalidRequest,
        "shorten the prompt",
    ),
    ("03_401_invalid_key_2026", ErrorKind::Auth, "check the key"),
    (
        "04_401_invalid_key_2025_no_request_id",
        ErrorKind::Auth,
        "check the key",
    ),
    (
        "05_401_request_id_null_no_header",
        ErrorKind::Auth,
        "check the key",
    ),
    ("06_401_stream_request", ErrorKind::Auth, "check the key"),
    (
        "07_401_brotli",
        ErrorKind::Auth,
        "bytes compressed with br; check the key",
    ),
    ("08_400_missing_field", ErrorKind::InvalidRequest, ""),
    (
        "09_400_prefill_rejected",
        ErrorKind::InvalidRequest,
        "end the conversation with a user turn",
    ),
    ("10_400_empty_content", ErrorKind::InvalidRequest, ""),
    (
        "11_400_max_tokens_vs_budget",
        ErrorKind::InvalidRequest,
        "",
    ),
    ("12_400_old_2024", ErrorKind::InvalidRequest, ""),
    ("13_400_temperature_range", ErrorKind::InvalidRequest, ""),
    (
        "14_400_file_not_downloadable",
        ErrorKind::InvalidRequest,
        "",
    ),
    (
        "15_404_model",
        ErrorKind::NotFound,
        "check the model's id",
    ),
    (
        "16_404_stream_request",
        ErrorKind::NotFound,
        "check the model's id",
    ),
    (
        "17_404_batch_results_not_ready",
        ErrorKind::NotFound,
        "",
    ),
    (
        "18_404_count_tokens_model",
        ErrorKind::NotFound,
        "check the model's id",
    ),
];

/// The recorded request that no [`MessageRequest`] can be: a string in place of a message.
const NO_REQUESTS: [&str; 1] = ["12_400_old_2024"];

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn exchanges_come_back_as_the_right_value_or_error() {
    let (mut values, mut failures, mut odd_requests) = (0, Vec::new(), BTreeSet::new());
    for (name, recorded) in exchanges() {
        for way in recorded.ways() {
            let at = format!("{name}, {way:?}");
            let stage = Stage::new(ManualClock::new());
            stage.server.push(recorded.reply());
            let client = stage.client(PATIENT);
            let outcome = recorded.ask(&client, *way);
            let sent = stage.server.take_requests();
            assert_eq!(sent.len(), 1, "{at}: one attempt");
            assert_eq!(stage.clock.sleeps(), [], "{at}: no wait");
            assert_eq!(sent[0].method, recorded.method, "{at}");
            if !recorded.is_sent_as_recorded(&sent[0].json()) {
                odd_requests.insert(name.clone());
            }
            match outcome {
                Ok(answer) => {
                    assert_eq!(recorded.status, 200, "{at}");
                    recorded.check_answer(&answer, &at);
                }
                Err(error) => {
                    let expected = FAILURES.iter().find(|row| row.0 == name);
                    let (_, kind, advice) =
                        expected.unwrap_or_else(|| panic!("{at}: unexpected {error:?}"));
                    recorded.check_error(&error, *kind, &at);
                    assert!(error.to_string().contains(advice), "{at}: {error}");
                    assert!(!error.is_retryable(), "{at}");
                }
            }
        }
        match FAILURES.iter().find(|row| row.0 == name) {
            Some(row) => failures.push(row.0),
            None => values += 1,
        }
    }
    assert_eq!((values, failures.len()), (15, FAILURES.len()));
    assert_eq!(odd_requests, NO_REQUESTS.map(str::to_owned).into());
}

/// How a message can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As `create` does by default: streamed underneath.
    Create,
    /// With `stream_underneath(false)`.
    InOnePiece,
    /// As a stream, read to its end.
    Stream,
    /// Any other call, which has but one way.
    Call,
}

/// A recorded exchange.
struct Recorded {
    method: String,
    /// Path and query.
    target: String,
    request: Value,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a call came back with.
struct Answer {
    body: Vec<u8>,
    request_id: Option<String>,
    /// Unknown for a token count.
    limits: Option<RateLimits>,
}

impl Recorded {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn is_stream(&self) -> bool {
        let content_type = self.header("content-type").unwrap_or_default();
        content_type.starts_with("text/event-stream")
    }

    fn ways(&self) -> &'static [Way] {
        match (self.method.as_str(), self.path()) {
            ("POST", "/v1/messages") if self.is_stream() => &[Way::Create, Way::Stream],
            ("POST", "/v1/messages") => &[Way::Create, Way::InOnePiece, Way::Stream],
            _ => &[Way::Call],
        }
    }

    /// The status, the headers and the body as they were recorded.
    fn reply(&self) -> Reply {
        let reply = Reply::status(self.status).body(self.body.clone());
        self.headers
            .iter()
            .fold(reply, |reply, (name, value)| reply.header(name, value))
    }

    /// The recorded request, or another where it is none that could be made.
    fn message_request(&self) -> MessageRequest {
        let mut request = self.request.clone();
        if request["max_tokens"].is_null() {
            request["max_tokens"] = json!(1);
        }
        serde_json::from_value(request)
            .unwrap_or_else(|_| MessageRequest::new("claude-haiku-4-5", 256).user("Hello"))
    }

    /// Whether what was sent is what was recorded, but for who decides about streaming.
    fn is_sent_as_recorded(&self, sent: &Value) -> bool {
        let plain = |request: &Value| {
            let mut request = request.clone();
            if let Value::Object(fields) = &mut request {
                fields.remove("stream");
            }
            request
        };
        plain(sent) == plain(&self.request)
    }

    fn ask(&self, client: &Client, way: Way) -> Result<Answer, Error> {
        let messages = client.messages();
        let one_way = matches!(way, Way::InOnePiece);
        let message = match (way, self.method.as_str(), self.path()) {
            (Way::Create, ..) => messages.create(&self.message_request())?,
            (Way::Stream, ..) => {
                let stream = messages.stream(&self.message_request())?;
                let (id, limits) = (stream.request_id().cloned(), stream.rate_limits().clone());
                let message = stream.final_message()?;
                assert_eq!(message.request_id(), id.as_ref());
                assert_eq!(message.rate_limits(), &limits);
                message
            }
            (Way::InOnePiece, ..) => {
                assert!(one_way);
                messages.create(&self.message_request())?
            }
            (Way::Call, "POST", "/v1/messages/count_tokens") => {
                let count = messages.count_tokens(&self.message_request())?;
                return Ok(Answer {
                    body: json!({"input_tokens": count}).to_string().into_bytes(),
                    request_id: None,
                    limits: None,
                });
            }
            (Way::Call, method, _) => {
                let answer = match method {
                    "POST" => client.raw().post(&self.target, &self.request)?,
                    "DELETE" => client.raw().delete(&self.target)?,
                    _ => client.raw().get(&self.target)?,
                };
                return Ok(Answer {
                    request_id: answer.request_id().map(ToString::to_string),
                    limits: Some(answer.rate_limits().clone()),
                    body: answer.body,
                });
            }
        };
        Ok(Answer {
            body: serde_json::to_vec(&message).expect("a message is JSON"),
            request_id: message.request_id().map(ToString::to_string),
            limits: Some(message.rate_limits().clone()),
        })
    }
}
