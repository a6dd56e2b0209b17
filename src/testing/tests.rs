//! The test server through a bare socket.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Reply, ServerLimits, StreamScript, TestServer};

mod support;

mod limit_mode;

use support::{PLAIN, RawClient, STREAMED, TEST_TIMEOUT, post, request, started};

#[test]
fn one_connection_serves_request_after_request() {
    let server = started();
    server.push_all([Reply::message("one"), Reply::overloaded()]);
    let mut client = RawClient::to(&server);
    let first = client.send_and_read(&post(PLAIN));
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["content"][0]["text"], "one");
    assert_eq!(first.header("request-id"), "req_test_000001");
    let second = client.send_and_read(&post(PLAIN));
    assert_eq!(second.status, 529);
    assert_eq!(second.header("x-should-retry"), "true");
    assert!(second.json().get("request_id").is_none());
    assert_eq!(server.connection_count(), 1);
    assert_eq!(server.request_count(), 2);
    let requests = server.take_requests();
    assert_eq!(requests[1].json()["model"], "claude-opus-5");
    assert_eq!(requests[1].header("X-Api-Key"), Some("k"));
    assert_eq!((requests[0].connection, requests[1].connection), (0, 0));
    assert!(requests[0].since_start <= requests[1].since_start);
    assert!(server.requests().is_empty());
}

#[test]
fn chunked_bodies_are_joined() {
    let server = started();
    let mut client = RawClient::to(&server);
    let (head, tail) = PLAIN.split_at(20);
    let body = format!(
        "{:X};x=y\r\n{head}\r\n{:x}\r\n{tail}\r\n0\r\nt: 1\r\n\r\n",
        head.len(),
        tail.len()
    );
    let head = "POST /v1/messages HTTP/1.1\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\ntransfer-encoding: chunked\r\n\r\n";
    let response = client.send_and_read(format!("{head}{body}").as_bytes());
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(server.requests()[0].text(), PLAIN);
    assert_eq!(client.send_and_read(&post(PLAIN)).status, 200);
}

#[test]
fn large_bodies_arrive_whole() {
    let server = started();
    server.push_all([
        Reply::status(204),
        Reply::json(200, "{}").body("x".repeat(3_000_000)),
    ]);
    let mut client = RawClient::to(&server);
    let body = "y".repeat(2_000_000);
    assert_eq!(client.send_and_read(&post(&body)).status, 204);
    assert_eq!(client.send_and_read(&post(&body)).body.len(), 3_000_000);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.body == body.as_bytes())
    );
}

#[test]
fn expect_header_gets_100_continue() {
    let server = started();
    let mut client = RawClient::to(&server);
    client.send(b"POST /x HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.send_and_read(b"{}").status, 401);
}

#[test]
fn unscripted_requests_get_responses_of_the_api() {
    let server = started();
    let mut client = RawClient::to(&server);
    let response = client.send_and_read(&post(PLAIN));
    let message = response.json();
    assert_eq!(message["content"][0]["text"], "You said: Hi \"you\"");
    assert_eq!(message["model"], "claude-opus-5");
    assert_eq!(message["usage"]["input_tokens"], 10);
    assert_eq!(message["usage"]["output_tokens"], 5);
    assert_eq!(response.header("content-type"), "application/json");
    assert!(!response.header("anthropic-organization-id").is_empty());

    let count = client.send_and_read(&request("POST", "/v1/messages/count_tokens", PLAIN));
    assert_eq!(count.json()["input_tokens"], 10);
    let page = client
        .send_and_read(&request("GET", "/v1/models?limit=2", ""))
        .json();
    assert_eq!(
        (page["data"].as_array().map(Vec::len), &page["has_more"]),
        (Some(2), &true.into())
    );
    let next = format!(
        "/v1/models?limit=1000&after_id={}",
        page["last_id"].as_str().unwrap_or("?")
    );
    let page = client.send_and_read(&request("GET", &next, "")).json();
    assert_eq!(
        (page["data"].as_array().map(Vec::len), &page["has_more"]),
        (Some(3), &false.into())
    );
    let model = client
        .send_and_read(&request("GET", "/v1/models/claude-haiku-4-5", ""))
        .json();
    assert_eq!(model["id"], "claude-haiku-4-5-20251001");
}

#[test]
fn faulty_requests_get_the_errors_of_the_api() {
    let server = started();
    let mut client = RawClient::to(&server);
    let mut refused = |request: &[u8]| {
        let response = client.send_and_read(request);
        let body = response.json();
        assert_eq!(body["request_id"], response.header("request-id"));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (
            response.status,
            text(&body["error"]["type"]),
            text(&body["error"]["message"]),
        )
    };
    let invalid = "invalid_request_error";
    let (status, kind, _) = refused(b"GET /v1/models HTTP/1.1\r\n\r\n");
    assert_eq!((status, &*kind), (401, "authentication_error"));
    let (status, kind, _) = refused(b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer k\r\n\r\n");
    assert_eq!((status, &*kind), (400, invalid));
    let (status, kind, _) = refused(&request("GET", "/v2", ""));
    assert_eq!((status, &*kind), (404, "not_found_error"));
    assert_eq!(
        refused(&request("GET", "/v1/models/claude-9", "")).2,
        "model: claude-9"
    );
    for (body, message) in [
        (
            "{",
            "The request body is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("[]", "Input should be a valid dictionary"),
        (r#"{"max_tokens":1,"messages":[]}"#, "model: Field required"),
        (
            r#"{"model":"m","messages":[]}"#,
            "max_tokens: Field required",
        ),
        (
            r#"{"model":"m","max_tokens":1}"#,
            "messages: Field required",
        ),
        (
            r#"{"model":"m","max_tokens":1,"messages":[]}"#,
            "messages: at least one message is required",
        ),
    ] {
        assert_eq!(
            refused(&post(body)),
            (400, invalid.to_owned(), message.to_owned())
        );
    }
}

#[test]
fn streams_end_with_message_stop() {
    let server = started();
    let mut client = RawClient::to(&server);
    for _ in 0..2 {
        let response = client.send_and_read(&post(STREAMED));
        assert!(
            response
                .header("content-type")
                .starts_with("text/event-stream")
        );
        let text = response.text();
        assert!(text.contains(r#""model":"claude-opus-5""#), "{text}");
        assert!(text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        assert_eq!(response.chunks, text.matches("event: ").count());
    }
    server.push(Reply::stream(StreamScript::text("Hello").one_chunk()));
    assert_eq!(client.send_and_read(&post(PLAIN)).chunks, 1);
    server.push(Reply::message("Hello").close_delimited());
    let response = client.send_and_read(&post(STREAMED));
    assert_eq!(
        (response.chunks, response.header("connection")),
        (0, "close")
    );
    assert!(response.text().ends_with("message_stop\"}\n\n"));
    assert_eq!(server.connection_count(), 1);
}

#[test]
fn routes_go_before_queue_and_queue_before_function() {
    let server = started();
    server.respond_with(|request| match &*request.path {
        "/panic" => panic!("on purpose"),
        _ => Reply::json(200, request.query.as_deref().unwrap_or("null")),
    });
    server.push(Reply::html(502, "502 Bad Gateway"));
    server.on(
        "GET",
        "/a",
        Reply::error_code(429, "rate_limit_error", "ramp_limit_exceeded", "slow"),
    );
    assert_eq!(server.unused_replies(), 2);
    let mut client = RawClient::to(&server);
    let response = client.send_and_read(&request("GET", "/a", ""));
    assert_eq!(
        response.json()["error"]["details"]["error_code"],
        "ramp_limit_exceeded"
    );
    let response = client.send_and_read(&request("GET", "/a", ""));
    assert_eq!((response.status, response.header("request-id")), (502, ""));
    assert!(response.header("content-type").starts_with("text/html"));
    assert_eq!(
        client.send_and_read(&request("GET", "/a?7", "")).text(),
        "7"
    );
    assert_eq!(
        client.send_and_read(&request("GET", "/panic", "")).status,
        500
    );
    assert_eq!(
        client.send_and_read(&request("GET", "/a?8", "")).text(),
        "8"
    );
}

#[test]
#[should_panic(expected = "no request has the path \"v1/messages\"")]
fn reply_for_an_impossible_path_panics() {
    started().on("POST", "v1/messages", Reply::overloaded());
}

#[test]
fn panic_of_a_function_is_quoted_and_not_retried() {
    let quoted_panic = |server: &TestServer, request: &[u8]| {
        let response = RawClient::to(server).send_and_read(request);
        let status = (response.status, response.header("x-should-retry"));
        assert_eq!(status, (500, "false"));
        let message = response.json()["error"]["message"].clone();
        let prefix = "a function given to the test server panicked: ";
        let quoted = message.as_str().and_then(|text| text.strip_prefix(prefix));
        quoted.unwrap_or_else(|| panic!("{message}")).to_owned()
    };
    let server = started();
    server.respond_with(|request| panic!("requested {}", request.path));
    assert_eq!(
        quoted_panic(&server, &post(PLAIN)),
        "requested /v1/messages"
    );
    let server = started();
    server.limit(ServerLimits::per_minute(9, 9_000, 900).class_by(|_| panic!("no class")));
    assert_eq!(quoted_panic(&server, &post(PLAIN)), "no class");
    let server = started();
    server.batch_outcomes(|id| panic!("no outcome of {id}"));
    let batch = format!(r#"{{"requests":[{{"custom_id":"a","params":{PLAIN}}}]}}"#);
    let batch = request("POST", "/v1/messages/batches", &batch);
    assert_eq!(quoted_panic(&server, &batch), "no outcome of a");
}

#[test]
fn headers_of_the_server_are_replaced_and_removed() {
    let server = started();
    let limited = Reply::rate_limited(4);
    let unusual = limited
        .clone()
        .header("Retry-After", "7")
        .header("request-id", "req_x");
    server.push_all([
        limited,
        unusual
            .without_header("anthropic-ratelimit-tokens-limit")
            .header("a", "1")
            .header("a", "2"),
        Reply::canned().header("retry-after", "3"),
        Reply::json(200, "{}").without_header("content-length"),
    ]);
    let mut client = RawClient::to(&server);
    let response = client.send_and_read(&post(PLAIN));
    assert_eq!(
        (response.status, response.header("retry-after")),
        (429, "4")
    );
    assert_eq!(
        response.header("anthropic-ratelimit-input-tokens-remaining"),
        "0"
    );
    assert!(
        response
            .header("anthropic-ratelimit-input-tokens-reset")
            .ends_with('Z')
    );
    let response = client.send_and_read(&post(PLAIN));
    assert_eq!(response.headers("retry-after"), ["7"]);
    assert_eq!(response.json()["request_id"], "req_x");
    assert_eq!(response.header("anthropic-ratelimit-tokens-limit"), "");
    assert_eq!(response.headers("a"), ["1", "2"]);
    let response = client.send_and_read(&post(PLAIN));
    assert_eq!(
        (response.status, response.header("retry-after")),
        (200, "3")
    );
    assert_eq!(client.send_and_read(&post(PLAIN)).text(), "{}");
    assert!(client.is_at_end());
}

#[test]
fn reset_faults_reset_the_connection() {
    for (reply, seen) in [
        (Reply::message("Hi").reset_before_headers(), 0..=0),
        (Reply::message("Hi").reset_before_body_read(), 0..=0),
        (Reply::message("Hi").reset_in_headers(), 20..=200),
        (Reply::message("Hi").reset_in_body(5), 150..=1_000),
        (
            Reply::message("Hi").chunked().reset_in_body(usize::MAX),
            300..=1_000,
        ),
        (
            Reply::stream(StreamScript::text("Hi").reset_after(2)),
            300..=2_000,
        ),
        (
            Reply::raw("HTTP/1.1 200 OK\r\n\r\nabc").reset_in_body(17),
            17..=17,
        ),
    ] {
        let server = started();
        server.push(reply.clone());
        let mut client = RawClient::to(&server);
        client.send(&post(PLAIN));
        let (bytes, error) = client.rest();
        assert!(
            seen.contains(&bytes.len()),
            "{} bytes of {reply:?}",
            bytes.len()
        );
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{reply:?}");
        assert_eq!(
            RawClient::to(&server).send_and_read(&post(PLAIN)).status,
            200
        );
    }
}

#[test]
fn connection_resets_before_the_body_is_sent() {
    let server = started();
    server.push(Reply::status(200).reset_before_body_read());
    let mut client = RawClient::to(&server);
    client.send(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 1000\r\n\r\n");
    assert_eq!(
        client.rest(),
        (Vec::new(), Some(ErrorKind::ConnectionReset))
    );
    assert!(server.requests()[0].body.is_empty());
}

#[test]
fn cut_responses_close_without_a_reset() {
    for (reply, tail) in [
        (Reply::json(200, "0123456789").truncate(4), "\r\n\r\n0123"),
        (
            Reply::json(200, "0123456789").chunked().truncate(4),
            "\r\n\r\na\r\n0123",
        ),
        (Reply::json(200, "0123456789").truncate(0), "\r\n\r\n"),
        (Reply::json(200, "0123456789").close(), "\r\n\r\n0123456789"),
        (Reply::raw("anything"), "anything"),
        (Reply::raw("anything").truncate(3), "any"),
    ] {
        let server = started();
        server.push(reply.clone());
        let mut client = RawClient::to(&server);
        client.send(&post(PLAIN));
        let (bytes, error) = client.rest();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.ends_with(tail), "{text} of {reply:?}");
        assert_eq!(error, None, "{reply:?}");
    }
    let server = started();
    server.push(Reply::stream(StreamScript::text("Hi").cut_after(3)));
    let mut client = RawClient::to(&server);
    assert!(
        client
            .send_and_read(&post(PLAIN))
            .text()
            .ends_with("\"text\":\"\"}}\n\n")
    );
    assert_eq!(client.send_and_read(&post(PLAIN)).status, 200);
}

#[test]
fn stop_ends_stalls_and_delays_at_once() {
    let hour = Duration::from_secs(3_600);
    for (reply, seen) in [
        (Reply::message("Hi").stall_before_headers(), 0),
        (Reply::message("Hi").delay(hour), 0),
        (Reply::message("Hi").dribble(7, hour), 7),
        (Reply::raw("0123456789").stall(4), 4),
        (Reply::raw("0123456789").stall(99), 10),
        (Reply::stream(StreamScript::text("Hi").stall_after(0)), 1),
        (Reply::stream(StreamScript::new().pause(hour)), 1),
    ] {
        let server = started();
        server.push(reply);
        let mut client = RawClient::to(&server);
        client.send(&post(PLAIN));
        let mut first = vec![0; seen];
        client
            .socket
            .read_exact(&mut first)
            .expect("what comes before the silence");
        assert!(server.wait_for_requests(1, TEST_TIMEOUT));
        let stopped = Instant::now();
        server.stop();
        server.stop();
        assert!(stopped.elapsed() < Duration::from_millis(500));
        assert!(TcpStream::connect(server.address()).is_err());
        assert_eq!(server.open_connections(), 0);
    }
}

#[test]
fn stalled_streams_ping_until_the_client_goes_away() {
    let server = started();
    let script = StreamScript::text("Hi")
        .stall_after(1)
        .pings_while_stalled(Duration::from_millis(1));
    server.push(Reply::stream(script));
    let mut client = RawClient::to(&server);
    client.send(&post(PLAIN));
    let mut text = String::new();
    while text.matches("event: ping").count() < 3 {
        let mut bytes = [0; 256];
        let count = client.socket.read(&mut bytes).expect("pings");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop(client);
    assert!(server.wait_for_open_connections(0, TEST_TIMEOUT));

    server.push(Reply::message("Hi").stall_before_headers());
    let mut client = RawClient::to(&server);
    client.send(&post(PLAIN));
    assert!(server.wait_for_requests(2, TEST_TIMEOUT));
    drop(client);
    assert!(server.wait_for_open_connections(0, TEST_TIMEOUT));
}

#[test]
fn dribbled_responses_are_complete() {
    let server = started();
    server.push(Reply::stream(StreamScript::text("Hi")).dribble(1, Duration::ZERO));
    server.push(Reply::message("Hi").dribble(100, Duration::from_micros(1)));
    let mut client = RawClient::to(&server);
    assert!(
        client
            .send_and_read(&post(PLAIN))
            .text()
            .ends_with("message_stop\"}\n\n")
    );
    assert_eq!(
        client.send_and_read(&post(PLAIN)).json()["role"],
        "assistant"
    );
}

#[test]
fn garbage_is_refused_and_not_recorded() {
    let server = started();
    for (garbage, status) in [
        (&b"hello\r\n\r\n"[..], "HTTP/1.1 400"),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n",
            "HTTP/1.1 413",
        ),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 400",
        ),
        (&[b'a'; 70_000], "HTTP/1.1 431"),
    ] {
        let mut client = RawClient::to(&server);
        client.send(garbage);
        client
            .socket
            .shutdown(Shutdown::Write)
            .expect("still connected");
        let (bytes, error) = client.rest();
        assert!(bytes.starts_with(status.as_bytes()), "{status}");
        assert_eq!(error, None);
    }
    drop(RawClient::to(&server));
    assert_eq!(server.request_count(), 0);
    assert!(!server.wait_for_requests(1, Duration::from_millis(1)));
}

#[test]
fn many_threads_are_served_at_once() {
    let server = Arc::new(started());
    server.keep_requests(false);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = RawClient::to(&server);
                for _ in 0..50 {
                    assert_eq!(client.send_and_read(&post(PLAIN)).status, 200);
                }
            });
        }
    });
    assert_eq!(
        (server.request_count(), server.connection_count()),
        (800, 16)
    );
    assert!(server.requests().is_empty());
}
