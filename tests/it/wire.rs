//! The fault matrix for connections that fail, break or fall silent, in each phase of an attempt.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use anthropic_blocking::testing::{ManualClock, Reply, StreamScript, TestServer};
use anthropic_blocking::{Client, ClientBuilder, Delivery, Error, ErrorKind, Options, RetryPolicy};

use crate::matrix::*;
use crate::support::{
    HANG, KEY, builder, closed_port, ends, listener, millis, request, seconds, server,
};

#[test]
fn connection_broken_after_sending_is_repeated_once() {
    use Delivery::Unknown;
    use ErrorKind::Connection;
    let lost = |reply: Reply| silent(reply, Connection, Unknown, Wait::Backoff);
    let message = || Reply::message("Seven.");
    let json = || Reply::json(200, MESSAGE);
    let cuts = [
        (
            "reset before the small body is read",
            lost(message().reset_before_body_read()),
        ),
        (
            "reset before the headers",
            lost(message().reset_before_headers()),
        ),
        ("reset in the headers", lost(message().reset_in_headers())),
        ("closed before the headers", lost(Reply::raw(""))),
        (
            "closed in the headers",
            lost(Reply::raw("HTTP/1.1 200 OK\r\ncontent-le")),
        ),
        (
            "reset in the body",
            broken(json().reset_in_body(10), Connection, Wait::Backoff),
        ),
        (
            "reset at the end of the headers",
            broken(json().reset_in_body(0), Connection, Wait::Backoff),
        ),
        (
            "truncated by its length",
            broken(json().truncate(10), Connection, Wait::Backoff),
        ),
        (
            "truncated chunk",
            broken(json().chunked().truncate(10), Connection, Wait::Backoff),
        ),
        (
            "no last chunk",
            broken(
                json().chunked().truncate(usize::MAX),
                Connection,
                Wait::Backoff,
            ),
        ),
        (
            "reset in a chunk",
            broken(
                json().chunked().reset_in_body(10),
                Connection,
                Wait::Backoff,
            ),
        ),
    ];
    let once = |builder: ClientBuilder| builder.retry(RetryPolicy::new().max_repeats(0));
    let thrice = |builder: ClientBuilder| builder.retry(RetryPolicy::new().max_repeats(3));
    const POSTS: &[Way] = &[Plain, Streamed, Events, Post];
    let again = "not repeated again: the server may have carried it out and billed it";
    let never = "not repeated: the server may have carried it out and billed it";
    check(cuts.into_iter().flat_map(|(name, step)| {
        let row = |what: &str, count| {
            case(format!("{name}, {what}"), step.clone().times(count)).ways(POSTS)
        };
        [
            row("once", 1).then_succeeds(),
            row("twice", 2).retryable().says([again, "2 attempts"]),
            row("forbidden", 1).tune(once).retryable().says([never]),
            row("three times, permitted", 3)
                .ways(&[Streamed])
                .tune(thrice)
                .then_succeeds(),
            row("four times, permitted three", 4)
                .ways(&[Plain])
                .tune(thrice)
                .retryable()
                .says([again]),
            row("five times, but free", 5)
                .ways(&[Count, Get])
                .retryable(),
            row("free, though forbidden", 4)
                .ways(&[Count, Get])
                .tune(once)
                .then_succeeds(),
        ]
    }));
    check([case("two kinds of it share the one repeat", {
        [
            lost(message().reset_in_headers()),
            broken(json().truncate(10), Connection, Wait::Over),
        ]
    })
    .retryable()
    .says(["not repeated again"])]);
}

#[test]
fn stream_broken_before_content_is_repeated_once() {
    let text = || StreamScript::text("One two three");
    let step = |script| Step {
        ..broken(Reply::stream(script), ErrorKind::Stream, Wait::Backoff)
    };
    let early = [
        ("cut before the start", step(text().cut_after(0))),
        ("cut after the start", step(text().cut_after(1))),
        ("reset before the start", step(text().reset_after(0))),
        ("reset after the ping", step(text().reset_after(2))),
        (
            "chunk truncated in the start",
            Step {
                reply: Some(Reply::stream(text()).truncate(40)),
                ..step(text())
            },
        ),
        (
            "ends in the start",
            step(StreamScript::new().raw("event: message_start\ndata: {\"type\":\"mess")),
        ),
    ];
    let late = [
        ("cut in the content", step(text().cut_after(5))),
        ("cut before the end", step(text().cut_after(7))),
        ("reset in the content", step(text().reset_after(5))),
    ];
    let rows = |ways: &'static [Way]| {
        move |(name, step): (&str, Step)| {
            let row = |what: &str, count| {
                case(format!("{name}, {what}"), step.clone().times(count)).ways(ways)
            };
            [
                row("once", 1).then_succeeds(),
                row("twice", 2).retryable().says(["not repeated again"]),
                row("forbidden", 1)
                    .tune(|builder| builder.retry(RetryPolicy::new().max_repeats(0)))
                    .retryable()
                    .says(["not repeated: "]),
            ]
        }
    };
    check(early.into_iter().flat_map(rows(&[Streamed, Events])));
    check(late.clone().into_iter().flat_map(rows(&[Streamed])));
    let handed_out = |(name, step): (&str, Step)| {
        case(format!("{name}, handed out"), [step])
            .ways(&[Events])
            .retryable()
            .says(["not restarted, because a part of it was handed out"])
    };
    check(late.into_iter().map(handed_out));
}

#[test]
fn open_connection_delays_at_most_one_call() {
    let server = TestServer::start().expect("a server on loopback");
    server.respond_with(|_| Reply::stream(StreamScript::text("Seven.").stall_after(usize::MAX)));
    let client = builder(&server).idle_timeout(seconds(1));
    let client = client.build().expect("valid settings");
    Streamed.run(&client).expect("a response");
    let patient = client.with(Options::new().idle_timeout(HANG * 2));
    let (attempts, _) = ends(move || Streamed.run(&patient)).expect("a response");
    assert_eq!(attempts.len(), 1);
}

#[test]
fn non_http_response_fails_at_once() {
    let flood = "x".repeat(200_000);
    let many: String = (0..5_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let rows = [
        ("a word, and then the end", "no line".to_owned()),
        ("garbage", "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned()),
        (
            "another protocol's version",
            "HTTP/9.1 200 OK\r\n\r\n".to_owned(),
        ),
        (
            "a status that is none",
            "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        ),
        (
            "a header line that is none",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(),
        ),
        (
            "a flood in one header",
            format!("HTTP/1.1 200 OK\r\nx-flood: {flood}\r\n\r\n"),
        ),
        (
            "a flood of headers",
            format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        ),
        (
            "two content lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}".to_owned(),
        ),
    ];
    check(rows.into_iter().map(|(name, bytes)| {
        let step = silent(
            Reply::raw(bytes),
            ErrorKind::Decode,
            Delivery::Unknown,
            Wait::Over,
        );
        case(name, [step])
            .ways(ALL)
            .says(["the response is not HTTP"])
    }));
}

#[cfg(feature = "gzip")]
#[test]
fn falsely_compressed_response_fails_at_once() {
    let reply = Reply::json(200, MESSAGE).header("content-encoding", "gzip");
    let step = broken(reply, ErrorKind::Decode, Wait::Over);
    check([case("plain", [step])
        .ways(&[Plain, Streamed, Post])
        .says(["the response is not gzip, as it says"])]);
}

#[test]
fn silent_server_times_out_and_is_retried_once() {
    use ErrorKind::Timeout;
    // A server that stalls never sends anything.
    let short = |builder: ClientBuilder| builder.timeout(millis(100)).idle_timeout(millis(100));
    let mute = || {
        silent(
            Reply::message("x").stall_before_headers(),
            Timeout,
            Delivery::Unknown,
            Wait::Backoff,
        )
        .hasty()
    };
    let stalled = |after| {
        broken(
            Reply::json(200, MESSAGE).stall(after),
            Timeout,
            Wait::Backoff,
        )
        .hasty()
    };
    let chunks = || {
        broken(
            Reply::json(200, MESSAGE).chunked().stall(9),
            Timeout,
            Wait::Backoff,
        )
        .hasty()
    };
    let stream = |events| {
        broken(
            Reply::stream(StreamScript::text("a b").stall_after(events)),
            Timeout,
            Wait::Backoff,
        )
        .hasty()
    };
    check(
        [
            case("before the headers", mute().times(2))
                .ways(&[Plain, Post])
                .says(["no response within the timeout"]),
            case("before the headers", mute().times(2))
                .ways(&[Streamed, Events])
                .says(["no byte arrived within the idle timeout"]),
            case("in the body", stalled(10).times(2)).ways(&[Plain, Streamed, Post]),
            case("before the body", stalled(0).times(2)).ways(&[Plain, Streamed]),
            case("in a chunk", chunks().times(2)).ways(&[Plain, Streamed]),
            case("before a stream's start", stream(0).times(2)).ways(&[Streamed, Events]),
            case("after a stream's start", stream(1).times(2)).ways(&[Streamed, Events]),
            case("in a stream's content", stream(5).times(2)).ways(&[Streamed]),
        ]
        .map(|row| {
            row.tune(short)
                .retryable()
                .says(["not repeated again", "2 attempts"])
        }),
    );
    check([
        case("forbidden", [mute()])
            .tune(|builder| {
                builder
                    .timeout(millis(40))
                    .idle_timeout(millis(40))
                    .retry(RetryPolicy::none())
            })
            .retryable()
            .says(["not repeated: "]),
        case("free", mute().times(3))
            .ways(&[Count, Get])
            .retryable()
            .tune(|builder| {
                let policy = RetryPolicy::new().max_attempts(3).max_repeats(0);
                builder.idle_timeout(millis(40)).retry(policy)
            }),
    ]);
}

#[test]
fn slow_file_is_read_to_its_end() {
    // No single pause is long, but the whole takes longer than the idle timeout.
    let server = server();
    server.push(Reply::json(200, "x".repeat(200)).dribble(10, millis(50)));
    let builder = builder(&server).idle_timeout(millis(700));
    let builder = builder.retry(RetryPolicy::none());
    let client = builder.build().expect("valid settings");
    let file = client.raw().get("/v1/files/f/content").expect("a file");
    assert_eq!(file.body.len(), 200);
}

#[test]
fn error_with_a_stalled_body_keeps_its_status() {
    let reply = Reply::error(500, "api_error", "m").stall(10);
    let step = answered(500, reply, ErrorKind::Server, Wait::Over);
    // Time for the stall, and enough for what precedes it.
    check([case("500", [step])
        .ways(&[Plain])
        .tune(|builder| builder.timeout(seconds(1)).retry(RetryPolicy::none()))
        .retryable()
        .says(["status 500: "])]);
}

/// Calls a server that does not speak HTTP, and checks the attempts.
#[track_caller]
fn expect_unsent(
    base_url: &str,
    tune: fn(ClientBuilder) -> ClientBuilder,
    body: &str,
    kind: ErrorKind,
    count: usize,
) -> Error {
    let clock = ManualClock::new();
    let builder = Client::builder()
        .api_key(KEY)
        .base_url(base_url)
        .clock(&clock)
        .seed(7);
    let client = tune(builder).build().expect("valid settings");
    let error = client
        .raw()
        .post("/v1/x", &body)
        .expect_err("nobody answers");
    assert_eq!(error.kind(), kind, "{error:?}");
    let attempts = error.attempts();
    assert_eq!(attempts.len(), count, "{error:?}");
    assert_eq!(clock.sleeps().len(), count - 1);
    for attempt in attempts {
        assert_eq!(attempt.delivery, Delivery::NotSent, "{error:?}");
        assert_eq!((attempt.status, attempt.failure), (None, Some(kind)));
    }
    assert_eq!((error.status(), error.request_id()), (None, None));
    assert!(error.is_retryable());
    error
}

#[test]
fn refused_connection_is_retried() {
    let url = format!("http://127.0.0.1:{}", closed_port());
    let forbid = |builder: ClientBuilder| builder.retry(RetryPolicy::new().max_repeats(0));
    let error = expect_unsent(&url, forbid, "small", ErrorKind::Connection, 5);
    let host = url.trim_start_matches("http://");
    let system = TcpStream::connect(host).expect_err("a closed port");
    let text = format!("POST /v1/x to {host}: connecting failed: {system} (5 attempts)");
    assert_eq!(error.to_string(), text);
}

/// Starts a listener that sends these bytes to each connection, and returns its address.
fn start_fixed_responder(bytes: &'static [u8]) -> String {
    let (listener, address) = listener();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a client");
            socket.write_all(bytes).expect("a client that listens");
            thread::spawn(|| drain_socket(socket));
        }
    });
    address.to_string()
}

#[test]
fn failed_handshake_is_retried() {
    let url = format!(
        "https://{}",
        start_fixed_responder(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    );
    let forbid =
        |builder: ClientBuilder| builder.retry(RetryPolicy::new().max_repeats(0).max_attempts(2));
    let error = expect_unsent(&url, forbid, "small", ErrorKind::Connection, 2);
    assert!(
        error.to_string().contains("the TLS handshake failed"),
        "{error}"
    );
    let tunes: &[fn(ClientBuilder) -> ClientBuilder] = &[
        |builder| builder,
        #[cfg(feature = "native-tls")]
        |builder| builder.native_tls(),
    ];
    for tune in tunes {
        let builder = tune(Client::builder().api_key(KEY).base_url(&url));
        let builder = builder.retry(RetryPolicy::none());
        let client = builder.build().expect("valid settings");
        let ways = [client.raw().get("/v1/x"), client.raw().post("/v1/x", &1)];
        for error in ways.map(|way| way.expect_err("no TLS")) {
            let text = error.to_string();
            assert!(text.contains("the TLS handshake failed"), "{error:?}");
        }
    }
}

#[test]
fn stalled_handshake_hits_the_connect_timeout() {
    let url = format!("https://{}", start_fixed_responder(b""));
    let forbid = |builder: ClientBuilder| {
        let policy = RetryPolicy::new().max_repeats(0).max_attempts(2);
        builder.connect_timeout(millis(40)).retry(policy)
    };
    let error = expect_unsent(&url, forbid, "small", ErrorKind::Timeout, 2);
    assert!(
        error
            .to_string()
            .contains("no connection within the connect timeout"),
        "{error}"
    );
}

/// Starts a SOCKS proxy that sends one of these pieces for each piece it receives.
fn start_socks_proxy(pieces: &'static [&'static [u8]]) -> String {
    let (listener, address) = listener();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a client");
            for piece in pieces {
                let _ = socket.read(&mut [0; 1024]).expect("a client that speaks");
                socket.write_all(piece).expect("a client that listens");
            }
            // Closing a socket with unread bytes resets it at an uncertain moment.
            let _ = socket.read(&mut [0; 1024]);
        }
    });
    format!("socks5h://user:password@{address}")
}

#[test]
fn socks_refusal_differs_from_a_failed_connect() {
    let ask = |pieces, post: bool| {
        let builder = Client::builder().api_key(KEY).clock(&ManualClock::new());
        let builder = builder
            .base_url("https://api.example")
            .proxy(start_socks_proxy(pieces));
        let policy = RetryPolicy::new().max_repeats(0).max_attempts(2);
        let client = builder.retry(policy).build().expect("valid settings");
        let response = match post {
            true => client.raw().post("/v1/x", &1),
            false => client.raw().delete("/v1/x"),
        };
        let error = response.expect_err("no way through");
        let text = error.to_string();
        assert!(
            text.contains("to api.example through the proxy 127"),
            "{text}"
        );
        for attempt in error.attempts() {
            assert_eq!(attempt.delivery, Delivery::NotSent, "{error:?}");
        }
        (error.kind(), error.attempts().len(), text)
    };
    for post in [true, false] {
        for refusal in [
            &[b"\x05\xff" as &[u8]] as &[&[u8]],
            &[b"\x05\x02", b"\x01\x01"],
            &[b"\x05\x00", b"\x05\x02"],
        ] {
            let (kind, attempts, text) = ask(refusal, post);
            assert_eq!((kind, attempts), (ErrorKind::Config, 1), "{text}");
            assert!(text.contains("the proxy refuses to connect"), "{text}");
        }
        for failure in [
            &[b"\x05\x00" as &[u8], b"\x05\x04"] as &[&[u8]],
            &[b"\x05\x00", b"\x05\x05"],
            &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            &[],
        ] {
            let (kind, attempts, text) = ask(failure, post);
            assert_eq!((kind, attempts), (ErrorKind::Connection, 2), "{text}");
            assert!(text.contains("connecting failed"), "{text}");
        }
    }
}

/// More bytes than the socket buffers of both sides hold.
fn large() -> String {
    "x".repeat(12 << 20)
}

#[test]
fn reset_while_sending_counts_as_unsent() {
    let server = TestServer::start().expect("a server on loopback");
    server.keep_requests(false);
    server.push_all([
        Reply::status(200).reset_before_body_read(),
        Reply::status(200).reset_before_body_read(),
    ]);
    let forbid =
        |builder: ClientBuilder| builder.retry(RetryPolicy::new().max_repeats(0).max_attempts(2));
    let error = expect_unsent(
        server.base_url(),
        forbid,
        &large(),
        ErrorKind::Connection,
        2,
    );
    assert!(
        error.to_string().contains("sending the request failed"),
        "{error}"
    );
    let to = format!("POST /v1/x to {}: ", server.address());
    assert!(error.to_string().starts_with(&to), "{error}");
    assert_eq!(server.request_count(), 2);
}

#[test]
fn server_that_stops_reading_counts_as_unsent() {
    let (listener, address) = listener();
    let url = format!("http://{address}");
    let with_short_timeout = |builder: ClientBuilder| {
        let policy = RetryPolicy::new().max_repeats(0).max_attempts(2);
        builder.idle_timeout(millis(100)).retry(policy)
    };
    let error = expect_unsent(&url, with_short_timeout, &large(), ErrorKind::Timeout, 2);
    assert!(
        error
            .to_string()
            .contains("no byte arrived within the idle timeout"),
        "{error}"
    );
    drop(listener);
}

#[test]
fn request_with_an_empty_body_is_repeated_once() {
    let server = server();
    server.respond_with(|_| Reply::status(200).reset_before_headers());
    let builder = builder(&server).clock(&ManualClock::new());
    let client = builder.build().expect("valid settings");
    let raw = client.raw();
    let error = raw
        .post_bytes("/v1/x/start", "application/json", b"")
        .expect_err("a connection that breaks");
    let deliveries: Vec<Delivery> = error.attempts().iter().map(|one| one.delivery).collect();
    assert_eq!(deliveries, [Delivery::Unknown; 2], "{error:?}");
}

#[test]
fn dead_pooled_connection_is_not_used() {
    for last in [
        Reply::message("Seven.")
            .close()
            .without_header("connection"),
        Reply::message("Seven.").close(),
        Reply::message("Seven.").close_delimited(),
    ] {
        for way in [Plain, Streamed] {
            let server = TestServer::start().expect("a server on loopback");
            server.push_all([last.clone(), Reply::message("Seven.")]);
            let builder = builder(&server).retry(RetryPolicy::none());
            let client = builder
                .stream_underneath(way != Plain)
                .build()
                .expect("valid settings");
            way.run(&client).expect("a response");
            assert!(server.wait_for_open_connections(0, HANG));
            let (attempts, _) = way.run(&client).expect("a response over a new connection");
            assert_eq!(
                (attempts.len(), server.connection_count()),
                (1, 2),
                "{way:?}, {last:?}"
            );
        }
    }
}

#[test]
fn broken_pooled_connection_is_replaced() {
    let server = TestServer::start().expect("a server on loopback");
    server.push_all([
        Reply::message("Seven."),
        Reply::message("Seven.").reset_before_headers(),
        Reply::message("Seven."),
    ]);
    let client = builder(&server)
        .clock(&ManualClock::new())
        .build()
        .expect("valid settings");
    Streamed.run(&client).expect("a response");
    let (attempts, _) = Streamed.run(&client).expect("a response");
    assert_eq!(attempts.len(), 2);
    let requests = server.take_requests();
    assert_eq!(requests[0].connection, requests[1].connection);
    assert_ne!(requests[1].connection, requests[2].connection);
}

#[test]
fn fully_read_response_frees_its_connection() {
    let server = TestServer::start().expect("a server on loopback");
    let client = builder(&server)
        .clock(&ManualClock::new())
        .build()
        .expect("valid settings");
    let plain = builder(&server)
        .stream_underneath(false)
        .build()
        .expect("valid settings");
    for reply in [
        Reply::message("Seven."),
        Reply::message("Seven.").chunked(),
        Reply::error(400, "invalid_request_error", "m"),
        Reply::html(404, "Not here"),
        Reply::status(404),
        Reply::stream(StreamScript::text("Seven.").one_chunk()),
        Reply::message("Seven."),
    ] {
        server.push(reply);
        let _ = client.messages().create(&request());
    }
    assert_eq!(server.connection_count(), 1);
    for reply in [
        Reply::message("Seven."),
        Reply::json(200, "[]"),
        Reply::message("Seven."),
    ] {
        server.push(reply);
        let _ = plain.messages().create(&request());
    }
    assert_eq!(server.connection_count(), 2);
}

#[test]
fn early_response_is_read() {
    let (listener, address) = listener();
    let url = format!("http://{address}");
    let early_server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let body = r#"{"type":"error","error":{"type":"request_too_large","message":"m"}}"#;
        let response = raw_answer("413 Content Too Large", body);
        socket
            .write_all(response.as_bytes())
            .expect("a client that listens");
        drain_socket(socket);
    });
    let builder = Client::builder().api_key(KEY).base_url(url);
    let client = builder
        .retry(RetryPolicy::none())
        .build()
        .expect("valid settings");
    let error = client.raw().post("/v1/x", &large()).expect_err("too large");
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::InvalidRequest, Some(413)),
        "{error:?}"
    );
    drop(client);
    early_server.join().expect("no panic");
}

/// Reads and drops all bytes to the end.
fn drain_socket(mut socket: TcpStream) {
    let mut bytes = vec![0; 1 << 20];
    while socket.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

#[test]
fn truncated_response_is_retried_once() {
    let cut_off = format!("HTTP/1.1 200 OK\r\n\r\n{}", &MESSAGE[..60]);
    let step = || {
        broken(
            Reply::raw(cut_off.clone()),
            ErrorKind::Connection,
            Wait::Backoff,
        )
    };
    check([case("no length, no end", step().anonymous().times(2))
        .ways(&[Plain, Streamed, Events, Post])
        .retryable()
        .says(["reading the response failed", "2 attempts"])]);
}

#[test]
fn large_response_head_is_accepted_endless_refused() {
    ends(|| {
        for (length, fits) in [(30_000, true), (70_000, false), (1_000_000, false)] {
            let server = server();
            let large = "a".repeat(length);
            server.respond_with(move |_| Reply::json(200, MESSAGE).header("x-large", &large));
            let retry = RetryPolicy::new().max_attempts(1);
            let client = builder(&server)
                .retry(retry)
                .build()
                .expect("valid settings");
            let response = client.messages().create(&request());
            let kind = response.map(|_| ()).map_err(|error| error.kind());
            let expected = if fits { Ok(()) } else { Err(ErrorKind::Decode) };
            assert_eq!(kind, expected, "{length}");
        }
    });
}
