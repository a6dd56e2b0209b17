//! Damaged bytes on the wire, in both directions; `src/fuzzing` checks the layers below.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use anthropic_blocking::testing::{ManualClock, Reply};
use anthropic_blocking::{Client, Error, ErrorKind, RetryPolicy};
use fastrand::Rng;

use crate::support::{KEY, PROMPT, builder, ends, request, seconds, server};

#[test]
fn call_ends_on_any_response_and_shows_no_key() {
    ends(|| {
        let server = server();
        let response = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&response);
        server.respond_with(move |_| Reply::raw(sent.lock().expect("no panic").clone()));
        let responses = responses();
        let (mut fine, mut failed) = (0, 0);
        for seed in 0..150 {
            let mut rng = Rng::with_seed(seed);
            let mut bytes = responses[rng.usize(..responses.len())].clone().into_bytes();
            for _ in 0..rng.usize(..4) {
                damage(&mut bytes, &mut rng);
            }
            *response.lock().expect("no panic") = bytes;
            let client = builder(&server)
                .retry(RetryPolicy::new().max_attempts(2).max_wait(seconds(10)))
                .clock(&ManualClock::new())
                .build()
                .expect("valid settings");
            match ask(&client, seed) {
                Ok(()) => fine += 1,
                Err(error) => {
                    failed += 1;
                    check(&error, seed);
                }
            }
        }
        assert!(fine > 3 && failed > 30, "{fine} fine, {failed} failed");
    });
}

fn ask(client: &Client, seed: u64) -> Result<(), Error> {
    let messages = client.messages();
    match seed % 6 {
        0 => messages.create(&request()).map(drop),
        1 => messages.stream(&request())?.final_message().map(drop),
        2 => messages.count_tokens(&request()).map(drop),
        3 => client
            .models()
            .list()
            .take(50)
            .try_for_each(|model| model.map(drop)),
        4 => client.batches().get("msgbatch_1").map(drop),
        _ => {
            let entries = client.batches().results("msgbatch_1")?;
            entries.take(50).try_for_each(|entry| entry.map(drop))
        }
    }
}

#[track_caller]
fn check(error: &Error, seed: u64) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(
            !text.contains(KEY) && !text.contains(PROMPT),
            "seed {seed}: {text}"
        );
        assert!(!text.contains(char::is_control), "seed {seed}: {text:?}");
        assert!(text.len() < 4_000, "seed {seed}: {} bytes", text.len());
    }
    // The settings are not at fault, unless a redirect says so.
    let is_odd = error.kind() == ErrorKind::Config && error.status().is_none_or(|s| s < 300);
    assert!(!is_odd, "seed {seed}: {error}");
}

/// Complete responses of every kind.
fn responses() -> Vec<String> {
    let message = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let stream = format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\n\n\
         event: ping\ndata: {{\"type\":\"ping\"}}\n\n\
         data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"b\"}}}}\n\n\
         event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let bodies = [
        ("200 OK", "application/json", message.to_owned()),
        ("200 OK", "text/event-stream", stream.clone()),
        ("200 OK", "application/json", r#"{"input_tokens":18446744073709551615}"#.to_owned()),
        ("200 OK", "application/json", r#"{"data":[{"id":"m"},{}],"has_more":true,"last_id":"m"}"#.to_owned()),
        ("200 OK", "application/json", r#"{"id":"msgbatch_1","processing_status":"ended","request_counts":{"succeeded":1},"results_url":"/v1/messages/batches/msgbatch_1/results"}"#.to_owned()),
        ("200 OK", "application/x-jsonl", format!("{{\"custom_id\":\"a\",\"result\":{{\"type\":\"succeeded\",\"message\":{message}}}}}\n")),
        ("429 Too Many", "application/json", r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow\u001b[31m\u0000"}}"#.to_owned()),
        ("529 X", "text/html", "<html><title>Over\r\nloaded\x1b[31m</title>".to_owned()),
        ("308 Moved", "text/plain", String::new()),
    ];
    let limits = "retry-after: 3\r\nrequest-id: req_1\r\nlocation: /elsewhere\r\n\
        anthropic-ratelimit-requests-limit: 18446744073709551615\r\n\
        anthropic-ratelimit-requests-remaining: 0\r\n\
        anthropic-ratelimit-requests-reset: 9999-12-31T23:59:59Z\r\n";
    let mut responses = Vec::new();
    for (status, kind, body) in bodies {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{limits}");
        let length = body.len();
        responses.push(format!("{head}content-length: {length}\r\n\r\n{body}"));
        responses.push(format!(
            "{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ));
        responses.push(format!("{head}\r\n{body}"));
    }
    responses
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let end = (at + rng.usize(..20)).min(bytes.len());
    match rng.u8(..6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, *rng.choice(b"\r\n:{}[]\",0\0\xff ").expect("some")),
        2 => drop(bytes.drain(at..end)),
        3 => bytes.extend_from_within(at..end),
        4 => bytes
            .splice(at..end, rng.u64(..).to_string().into_bytes())
            .for_each(drop),
        _ => bytes
            .get_mut(at)
            .into_iter()
            .for_each(|byte| *byte ^= rng.u8(1..)),
    }
}

#[test]
fn test_server_survives_any_request() {
    ends(|| {
        let server = server();
        let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"a"}]}"#;
        let head =
            "POST /v1/messages HTTP/1.1\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
        let length = body.len();
        let requests = [
            format!("{head}content-length: {length}\r\n\r\n{body}"),
            format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
            format!("{head}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n{body}"),
        ];
        let send = |bytes: &[u8]| {
            let mut socket = TcpStream::connect(server.address()).expect("the server listens");
            socket
                .set_read_timeout(Some(seconds(30)))
                .expect("a timeout");
            // The server may close before it has read all of the request.
            let _ = socket.write_all(bytes);
            let _ = socket.shutdown(Shutdown::Write);
            let mut response = Vec::new();
            let _ = socket.read_to_end(&mut response);
            response
        };
        let mut refused = 0;
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let mut bytes = requests[rng.usize(..3)].clone().into_bytes();
            for _ in 0..rng.usize(1..4) {
                damage(&mut bytes, &mut rng);
            }
            let response = send(&bytes);
            refused += usize::from(!response.starts_with(b"HTTP/1.1 200"));
            let response = send(requests[0].as_bytes());
            let text = String::from_utf8_lossy(&response);
            assert!(
                text.starts_with("HTTP/1.1 200"),
                "after seed {seed}: {text}"
            );
        }
        assert!((20..100).contains(&refused), "{refused} refused");
    });
}
