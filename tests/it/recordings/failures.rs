//! Headers and bodies of real failures: how each is classified, and how long the client waits.

use super::*;

#[derive(Debug, Clone, Copy)]
enum After {
    /// The error comes back at once.
    Nothing,
    /// A retry follows after our own backoff.
    Backoff,
    /// A retry follows after the wait that the server asked for.
    Pause(f64),
}

/// The error kinds of the failures in `real_headers.json`, and what follows; one entry per body
/// where there are several bodies.
const REAL: [(&str, &[(ErrorKind, After)]); 14] = {
    use After::{Backoff, Nothing, Pause};
    use ErrorKind::{Auth, Billing, InvalidRequest, Overloaded, RateLimit, Server};
    [
        ("429-tpm-recorded-no-retry", &[(RateLimit, Nothing)]),
        ("429-itpm-2025-04", &[(RateLimit, Pause(4.0))]),
        ("429-itpm-2025-06", &[(RateLimit, Pause(16.0))]),
        ("429-rpm-2024-03-no-retry-after", &[(RateLimit, Backoff)]),
        ("429-headerless-gateway", &[(RateLimit, Backoff)]),
        ("429-edge-cloudflare", &[(RateLimit, Pause(6.0))]),
        ("413-edge", &[(InvalidRequest, Nothing)]),
        ("529-body", &[(Overloaded, Backoff)]),
        ("529-body-null-request-id", &[(Overloaded, Backoff)]),
        ("stream-error-overloaded", &[(Overloaded, Backoff)]),
        ("stream-error-rate-limit-on-200", &[(RateLimit, Backoff)]),
        ("stream-error-api-error", &[(Server, Backoff)]),
        (
            "429-messages-seen",
            &[
                (RateLimit, Backoff),
                (RateLimit, Backoff),
                // "Extra usage is required": no waiting helps.
                (Billing, Nothing),
                (RateLimit, Backoff),
                (RateLimit, Backoff),
            ],
        ),
        ("403-permission-details", &[(Auth, Nothing)]),
    ]
};

/// The responses in `real_headers.json` that are no failures.
const REAL_SUCCESSES: [(&str, f64); 2] = [
    ("200-retry-after-success", 31.0),
    ("200-batch-poll-retry-after", 10.0),
];

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn real_failures_are_classified_and_awaited() {
    let items = read_json("real_headers.json");
    let mut count = 0;
    for item in list(&items["items"]) {
        let id = text(&item["id"]);
        let Some((_, expected)) = REAL.iter().find(|row| row.0 == id) else {
            assert!(REAL_SUCCESSES.iter().any(|row| row.0 == id), "{id} is new");
            continue;
        };
        let bodies = match &item["bodies"] {
            Value::Array(bodies) => bodies.iter().map(text).collect(),
            _ => vec![
                item["body"]
                    .as_str()
                    .or(item["body_start"].as_str())
                    .unwrap_or_default(),
            ],
        };
        assert_eq!(bodies.len(), expected.len(), "{id}");
        for (body, (kind, after)) in bodies.iter().zip(*expected) {
            let recorded = Recorded::new(item, body);
            for way in [Way::Underneath, Way::Stream] {
                let at = format!("{id}, {way:?}: {body}");
                check_failure(&recorded, *kind, *after, way, &at);
                count += 1;
            }
        }
    }
    assert_eq!(count, 2 * (REAL.len() + 4));
}

#[track_caller]
fn check_failure(recorded: &Recorded, kind: ErrorKind, after: After, way: Way, at: &str) {
    let stage = Stage::new();
    let impatient = stage
        .client(way)
        .with(Options::new().retry(RetryPolicy::none()));
    stage.server.push(recorded.reply());
    let error = ask(&impatient, way).expect_err(at);
    recorded.check_error(&error, kind, at);
    assert_eq!(stage.clock.sleeps(), [], "{at}");
    let will_retry = !matches!(after, After::Nothing);
    assert_eq!(error.is_retryable(), will_retry, "{at}");

    // A new client: the first call of the old one would begin with the rest of the pause.
    let stage = Stage::new();
    let client = stage.client(way);
    stage
        .server
        .push_all([recorded.reply(), Reply::message("Seven.")]);
    let outcome = ask(&client, way);
    let sleeps = stage.clock.sleeps();
    match (after, outcome) {
        (After::Nothing, Err(error)) => {
            recorded.check_error(&error, kind, at);
            assert_eq!(sleeps, [], "{at}");
        }
        (After::Backoff, Ok(message)) => {
            check_recovery(&message, kind, at);
            let waited = message.attempts()[1].waited.total();
            let (least, most) = match kind {
                ErrorKind::Overloaded => (0.25, 0.51),
                _ => (1.0, 3.0),
            };
            assert!(is_between(waited, least, most), "{at}: {waited:?}");
        }
        (After::Pause(asked), Ok(message)) => {
            check_recovery(&message, kind, at);
            check_wait(&sleeps, asked, asked + 0.11, at);
        }
        (after, outcome) => panic!("{at}: {after:?} was expected, not {outcome:?}"),
    }
}

#[track_caller]
fn check_recovery(message: &Message, kind: ErrorKind, at: &str) {
    assert_eq!(message.text(), "Seven.", "{at}");
    let failures: Vec<_> = message.attempts().iter().map(|a| a.failure).collect();
    assert_eq!(failures, [Some(kind), None], "{at}");
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn retry_after_on_a_success_is_not_awaited() {
    let items = read_json("real_headers.json");
    for (id, asked) in REAL_SUCCESSES {
        let item = list(&items["items"]).iter().find(|item| item["id"] == id);
        let item = item.expect(id);
        let is_stream = id == "200-retry-after-success";
        let body = if is_stream {
            String::from_utf8(StreamScript::text("Seven.").to_bytes()).expect("text")
        } else {
            json!({"id": "msgbatch_1", "processing_status": "in_progress"}).to_string()
        };
        let recorded = Recorded::new(item, &body);
        let stage = Stage::new();
        let client = stage.client(Way::Underneath);
        stage.server.push(recorded.reply());
        let limits = if is_stream {
            let message = client.messages().create(&question()).expect(id);
            assert_eq!(message.text(), "Seven.");
            message.rate_limits().clone()
        } else {
            let returned = client.raw().get("/v1/messages/batches/msgbatch_1");
            let returned = returned.expect(id);
            assert_eq!(returned.text(), body);
            returned.rate_limits().clone()
        };
        assert_eq!(limits, recorded.rate_limits(), "{id}");
        assert_eq!(limits.retry_after, Some(Duration::from_secs_f64(asked)));
        assert_eq!(stage.clock.sleeps(), [], "{id}");
        assert_eq!(stage.server.request_count(), 1, "{id}");
    }
}
