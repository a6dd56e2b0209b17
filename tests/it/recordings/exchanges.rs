//! Recorded requests and responses, sent and received again.

use super::streams::{Seen, events};
use super::*;

/// The recorded failures: the beginning of the file name, the error kind, and part of its text.
const FAILURES: [(&str, ErrorKind, &str); 18] = {
    use ErrorKind::{Auth, InvalidRequest, NotFound, RateLimit};
    const MODEL: &str = "check the model's id";
    const KEY: &str = "check the key";
    [
        ("01_429", RateLimit, "larger than the whole limit"),
        ("02_400", InvalidRequest, "shorten the prompt"),
        ("03_401", Auth, KEY),
        ("04_401", Auth, KEY),
        ("05_401", Auth, KEY),
        ("06_401", Auth, KEY),
        (
            "07_401",
            Auth,
            "132 bytes compressed with br; check the key",
        ),
        ("08_400", InvalidRequest, ""),
        ("09_400", InvalidRequest, "end the conversation with a user"),
        ("10_400", InvalidRequest, ""),
        ("11_400", InvalidRequest, ""),
        ("12_400", InvalidRequest, ""),
        ("13_400", InvalidRequest, ""),
        ("14_400", InvalidRequest, ""),
        ("15_404", NotFound, MODEL),
        ("16_404", NotFound, MODEL),
        ("17_404", NotFound, ""),
        ("18_404", NotFound, MODEL),
    ]
};

/// Recorded requests that we send with another body, and the reason.
const OTHER_REQUESTS: [(&str, &str); 2] = [
    (
        "07_401_brotli",
        "a temperature of 1 is written as 1.0, which is the same number",
    ),
    (
        "12_400_old_2024",
        "a string stands in place of a message, which is its fault",
    ),
];

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn responses_become_the_right_value_or_error() {
    let (mut count, mut failed, mut other_requests) = (0, BTreeSet::new(), BTreeSet::new());
    for exchange in exchanges() {
        let name = exchange.name.as_str();
        let failure = FAILURES.iter().find(|row| name.starts_with(row.0));
        for &way in exchange.ways() {
            let at = format!("{name}, {way:?}");
            let stage = Stage::new();
            stage.server.push(exchange.reply.reply());
            let outcome = exchange.ask(&stage.client(way), way);
            let sent = stage.server.take_requests();
            assert_eq!(sent.len(), 1, "{at}: one attempt");
            assert_eq!(stage.clock.sleeps(), [], "{at}: no wait");
            assert_eq!(sent[0].method, exchange.method, "{at}");
            assert_eq!(sent[0].path, exchange.path(), "{at}");
            if !exchange.is_request(&sent[0]) {
                other_requests.insert(name.to_owned());
            }
            match (outcome, failure) {
                (Ok(returned), None) => exchange.check(&returned, &at),
                (Err(error), Some((_, kind, advice))) => {
                    exchange.reply.check_error(&error, *kind, &at);
                    assert!(error.to_string().contains(advice), "{at}: {error}");
                    assert!(!error.is_retryable(), "{at}");
                    failed.insert(name.to_owned());
                }
                (Ok(_), Some(_)) => panic!("{at}: no error"),
                (Err(error), None) => panic!("{at}: {error:?}"),
            }
            count += 1;
        }
    }
    assert_eq!(failed.len(), FAILURES.len());
    assert_eq!(
        other_requests,
        OTHER_REQUESTS.map(|row| row.0.to_owned()).into()
    );
    println!("33 exchanges, {count} calls");
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn batch_result_messages_round_trip() {
    let mut count = 0;
    for exchange in exchanges() {
        if !exchange.name.contains("jsonl") {
            continue;
        }
        let lines = String::from_utf8(exchange.reply.body).expect("text");
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = &line["result"]["message"];
            let read: Message = serde_json::from_value(message.clone()).expect("a message");
            assert_eq!(&serde_json::to_value(read).expect("JSON"), message);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

/// A recorded request and its response.
struct Exchange {
    name: String,
    method: String,
    /// Path and query.
    target: String,
    request: Value,
    reply: Recorded,
}

/// The value that a call returned.
struct Returned {
    body: Vec<u8>,
    request_id: Option<String>,
    limits: RateLimits,
    attempts: usize,
}

/// Returns all recorded exchanges, in order.
fn exchanges() -> Vec<Exchange> {
    let folder = recordings().join("exchanges");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = files
        .map(|file| file.expect("a file").file_name().into_string())
        .map(|name| name.expect("a name in Unicode"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 33);
    names.iter().map(|name| Exchange::read(name)).collect()
}

impl Exchange {
    fn read(file: &str) -> Exchange {
        let exchange = read_json(&format!("exchanges/{file}"));
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let uri = text(&request["uri"]);
        let target = uri.strip_prefix("https://api.anthropic.com");
        Exchange {
            name: file.trim_end_matches(".json").to_owned(),
            method: text(&request["method"]).to_owned(),
            target: target.expect("the API's address").to_owned(),
            request: serde_json::from_str(text(&request["body"])).unwrap_or_default(),
            reply: Recorded::new(response, text(&response["body"])),
        }
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn ways(&self) -> &'static [Way] {
        match (self.method.as_str(), self.path()) {
            ("POST", "/v1/messages") if self.reply.is_stream() => &[Way::Underneath, Way::Stream],
            ("POST", "/v1/messages") => &[Way::Underneath, Way::InOnePiece, Way::Stream],
            _ => &[Way::Other],
        }
    }

    fn ask(&self, client: &Client, way: Way) -> Result<Returned, Error> {
        let message = match (way, self.method.as_str()) {
            (Way::Underneath | Way::InOnePiece, _) => client.messages().create(&self.request())?,
            (Way::Stream, _) => {
                let stream = client.messages().stream(&self.request())?;
                let (id, limits) = (stream.request_id().cloned(), stream.rate_limits().clone());
                let message = stream.final_message()?;
                assert_eq!(message.request_id(), id.as_ref());
                assert_eq!(message.rate_limits(), &limits);
                message
            }
            (Way::Other, "POST") if self.path() == "/v1/messages/count_tokens" => {
                let count = client.messages().count_tokens(&self.request())?;
                return Ok(Returned {
                    body: json!({"input_tokens": count}).to_string().into_bytes(),
                    // `count_tokens` returns a number, without attempts or headers.
                    request_id: self.reply.request_id(),
                    limits: self.reply.rate_limits(),
                    attempts: 1,
                });
            }
            (Way::Other, method) => {
                let raw = client.raw();
                let returned = match method {
                    "POST" => raw.post(&self.target, &self.request)?,
                    "GET" => raw.get(&self.target)?,
                    "DELETE" => raw.delete(&self.target)?,
                    other => panic!("{other} is no method of this API"),
                };
                return Ok(Returned {
                    request_id: returned.request_id().map(ToString::to_string),
                    limits: returned.rate_limits().clone(),
                    attempts: returned.attempts().len(),
                    body: returned.body,
                });
            }
        };
        Ok(Returned {
            body: serde_json::to_vec(&message).expect("JSON"),
            request_id: message.request_id().map(ToString::to_string),
            limits: message.rate_limits().clone(),
            attempts: message.attempts().len(),
        })
    }

    /// Returns the recorded request, or a substitute for a request that cannot be made.
    fn request(&self) -> MessageRequest {
        let mut request = self.request.clone();
        if request["max_tokens"].is_null() {
            request["max_tokens"] = json!(1);
        }
        serde_json::from_value(request).unwrap_or_else(|_| question())
    }

    /// Whether this request was sent, apart from the `stream` field, which the client sets.
    fn is_request(&self, sent: &RecordedRequest) -> bool {
        let plain = |mut request: Value| {
            if let Value::Object(fields) = &mut request {
                fields.remove("stream");
            }
            request
        };
        let is_read = self.method == "GET" && sent.body.is_empty();
        is_read || plain(sent.json()) == plain(self.request.clone())
    }

    #[track_caller]
    fn check(&self, returned: &Returned, at: &str) {
        let recorded = &self.reply;
        assert_eq!(recorded.status, 200, "{at}");
        assert_eq!(returned.request_id, recorded.request_id(), "{at}");
        assert_eq!(returned.limits, recorded.rate_limits(), "{at}");
        assert_eq!(returned.attempts, 1, "{at}");
        if recorded.is_stream() {
            let message: Message = serde_json::from_slice(&returned.body).expect("a message");
            let body = String::from_utf8_lossy(&recorded.body);
            Seen::of(&events(&body)).check(&message, at);
            assert!(message.stop_reason.is_some(), "{at}");
        } else if recorded.json().is_null() {
            assert_eq!(returned.body, recorded.body, "{at}");
        } else {
            let ours: Value = serde_json::from_slice(&returned.body).expect("JSON");
            assert_eq!(ours, recorded.json(), "{at}");
        }
    }
}
