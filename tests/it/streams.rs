//! Streams: what arrives, what breaks, what is retried.

use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{Reply, StreamScript, TestServer};
use anthropic_blocking::{
    Client, ContentBlock, Delivery, Error, ErrorKind, MessageRequest, MessageStream, Options,
    RetryPolicy, StopReason, StreamEvent, ThinkingBlock, ToolUseBlock,
};
use serde_json::json;

use crate::support::{Lab, ends};

fn request() -> MessageRequest {
    MessageRequest::new("claude-haiku-4-5", 1024).user("hi")
}

/// Returns all that a stream yields: the kinds of its events, and its error.
fn drain(stream: &mut MessageStream) -> (Vec<String>, Option<Error>) {
    let mut kinds = Vec::new();
    for event in stream.by_ref() {
        match event {
            Ok(event) => kinds.push(event.kind().to_owned()),
            Err(error) => {
                assert!(stream.next().is_none(), "fused after an error");
                return (kinds, Some(error));
            }
        }
    }
    assert!(stream.next().is_none(), "fused after the end");
    (kinds, None)
}

#[test]
fn events_arrive_typed_and_fold_into_the_message() {
    let Lab { server, client, .. } = Lab::new();
    let script = StreamScript::new()
        .message_start(25)
        .ping()
        .thinking("hm", "sig")
        .text_block(["Let ", "me ", "see."])
        .tool_use("toolu_1", "look", ["{\"a\":", "1}"])
        .unknown_event()
        .message_delta("tool_use", 9)
        .message_stop();
    server.push(Reply::stream(script).header("request-id", "req_9"));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    assert_eq!(stream.request_id().expect("an id").as_str(), "req_9");
    assert_eq!(stream.attempts().len(), 1);
    let (kinds, error) = drain(&mut stream);
    assert!(error.is_none());
    assert_eq!(kinds.first().map(String::as_str), Some("message_start"));
    assert_eq!(kinds.last().map(String::as_str), Some("message_stop"));
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "content_block_delta")
            .count(),
        7
    );
    assert_eq!(stream.partial().text(), "Let me see.");
    let message = stream.final_message().expect("a whole message");
    assert_eq!(message.text(), "Let me see.");
    assert_eq!(message.stop_reason, Some(StopReason::ToolUse));
    assert_eq!(message.usage.output_tokens, 9);
    let call = message.tool_uses().next().expect("a call");
    assert_eq!(
        (call.name.as_str(), &call.input),
        ("look", &serde_json::json!({"a": 1}))
    );
    assert!(
        matches!(&message.content[0], ContentBlock::Thinking(block) if block.signature == "sig")
    );
    assert_eq!(message.request_id().expect("an id").as_str(), "req_9");
}

#[test]
fn stream_and_create_both_request_streaming() {
    let Lab { server, client, .. } = Lab::new();
    client
        .messages()
        .stream(&request())
        .expect("a stream")
        .final_message()
        .expect("whole");
    client.messages().create(&request()).expect("whole");
    for received in server.requests() {
        assert_eq!(received.json()["stream"], true);
    }
    let Lab { server, client, .. } = Lab::with(|builder| builder.stream_underneath(false));
    client.messages().create(&request()).expect("whole");
    assert!(server.requests()[0].json().get("stream").is_none());
}

#[test]
fn streamed_and_plain_calls_yield_equal_messages() {
    let Lab { server, client, .. } = Lab::new();
    server.respond_with(|_| Reply::message("the same words"));
    let streamed = client.messages().create(&request()).expect("whole");
    let finished = client
        .messages()
        .stream(&request())
        .expect("a stream")
        .final_message()
        .expect("whole");
    let Lab { server, client, .. } = Lab::with(|builder| builder.stream_underneath(false));
    server.respond_with(|_| Reply::message("the same words"));
    let plain = client.messages().create(&request()).expect("whole");
    for message in [streamed, finished] {
        assert_eq!(message.content, plain.content);
        assert_eq!(message.stop_reason, plain.stop_reason);
        assert_eq!(message.usage.output_tokens, plain.usage.output_tokens);
        assert_eq!(message.role, plain.role);
    }
}

#[test]
fn connection_is_reused_after_a_stream() {
    let Lab { server, client, .. } = Lab::new();
    for _ in 0..10 {
        client.messages().create(&request()).expect("whole");
        let stream = client.messages().stream(&request()).expect("a stream");
        stream.final_message().expect("whole");
        let mut stream = client.messages().stream(&request()).expect("a stream");
        assert!(drain(&mut stream).1.is_none());
    }
    assert_eq!(server.connection_count(), 1);
}

/// A complete message in a body that never ends.
fn endless(with_pings: bool) -> Reply {
    let script = StreamScript::text("all of it").stall_after(100);
    Reply::stream(match with_pings {
        true => script.pings_while_stalled(Duration::from_millis(5)),
        false => script,
    })
}

#[test]
fn complete_message_does_not_await_body_end() {
    let none = Options::new();
    // The deadline equals the idle timeout, and is longer than what counts as a hang.
    for options in [none.clone(), none.deadline(Duration::from_secs(150))] {
        for with_pings in [false, true] {
            let Lab { server, client, .. } = Lab::new();
            let client = client.with(options.clone());
            server.respond_with(move |_| endless(with_pings));
            let texts = ends(move || {
                let mut texts = Vec::new();
                for _ in 0..3 {
                    let message = client.messages().create(&request()).expect("whole");
                    texts.push(message.text());
                    let stream = client.messages().stream(&request()).expect("a stream");
                    texts.push(stream.final_message().expect("whole").text());
                }
                texts
            });
            assert_eq!(texts, ["all of it"; 6]);
            // Their connections are lost.
            assert_eq!(server.connection_count(), 6);
        }
    }
}

#[test]
fn unfinished_body_delays_one_call_within_deadline() {
    let Lab { server, client, .. } = Lab::new();
    client.messages().create(&request()).expect("whole");
    server.push_all([endless(false), endless(false)]);
    ends(move || {
        let hurried = client.with(Options::new().deadline(Duration::from_secs(1)));
        let message = hurried.messages().create(&request()).expect("whole");
        assert_eq!(message.text(), "all of it");
        let message = client.messages().create(&request()).expect("whole");
        assert_eq!(message.text(), "all of it");
    });
}

#[test]
fn connection_is_reused_after_chunked_bodies() {
    let Lab { server, client, .. } = Lab::new();
    for _ in 0..10 {
        let script = StreamScript::text("a b c");
        server.push(Reply::stream(script.clone().done_marker()));
        client.messages().create(&request()).expect("whole");
        server.push(Reply::stream(script).dribble(1, Duration::ZERO));
        client.messages().create(&request()).expect("whole");
    }
    assert_eq!(server.connection_count(), 1);
}

#[test]
fn stream_overload_is_retried_before_content() {
    let overloaded =
        |k| StreamScript::text("some words").error_after(k, "overloaded_error", "Overloaded");
    // As the first event, and before the first content: the caller does not notice.
    for k in [0, 1, 2] {
        let Lab {
            server,
            clock,
            client,
        } = Lab::new();
        server.push(Reply::stream(overloaded(k)));
        let stream = client.messages().stream(&request()).expect("a stream");
        assert_eq!(stream.attempts().len(), 2, "{k}");
        assert_eq!(stream.attempts()[0].failure, Some(ErrorKind::Overloaded));
        stream.final_message().expect("whole");
        assert_eq!(
            (server.request_count(), clock.sleeps().len()),
            (2, 1),
            "{k}"
        );
    }
    // In the middle: the error is returned, with what had arrived.
    let Lab {
        server,
        clock,
        client,
    } = Lab::new();
    server.push(Reply::stream(overloaded(5)));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let (kinds, error) = drain(&mut stream);
    let error = error.expect("an error");
    assert_eq!(kinds.len(), 5);
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Overloaded, None)
    );
    assert!(error.is_retryable() && error.api_error().is_some());
    assert_eq!(error.partial().expect("a part").text(), "some words");
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(error.attempts()[0].failure, Some(ErrorKind::Overloaded));
    assert_eq!((server.request_count(), clock.sleeps().len()), (1, 0));
    assert!(stream.request_id().is_some() && stream.attempts().len() == 1);
    let again = stream.final_message().expect_err("it had failed");
    assert_eq!(again.partial().expect("a part").text(), "some words");
    assert_eq!(again.kind(), error.kind());
    assert_eq!(again.api_error(), error.api_error());
    assert_eq!(again.request_id(), error.request_id());
}

#[test]
fn create_retries_an_overload_anywhere_in_a_stream() {
    for k in [0, 1, 2, 5, 7] {
        let Lab {
            server,
            clock,
            client,
        } = Lab::new();
        let script =
            StreamScript::text("lost words").error_after(k, "overloaded_error", "Overloaded");
        server.push_all([Reply::stream(script), Reply::message("kept")]);
        let message = client.messages().create(&request()).expect("whole");
        assert_eq!(message.text(), "kept");
        assert_eq!(message.attempts().len(), 2, "{k}");
        assert_eq!(message.attempts()[0].failure, Some(ErrorKind::Overloaded));
        assert_eq!(clock.sleeps().len(), 1);
    }
}

#[test]
fn stream_error_ignores_retry_headers_of_its_success() {
    let Lab { server, client, .. } = Lab::new();
    let script = StreamScript::new().message_start(3);
    let script = script.error("overloaded_error", "Overloaded");
    let reply = Reply::stream(script).header("x-should-retry", "false");
    server.push_all([reply, Reply::message("kept")]);
    let message = client.messages().create(&request()).expect("whole");
    assert_eq!(message.text(), "kept");
    let failed = message.attempts()[0].failure;
    assert_eq!(failed, Some(ErrorKind::Overloaded));
}

#[test]
fn stream_error_has_the_kind_of_its_status() {
    for (kind, expected, retried) in [
        ("invalid_request_error", ErrorKind::InvalidRequest, false),
        ("authentication_error", ErrorKind::Auth, false),
        ("permission_error", ErrorKind::Auth, false),
        ("not_found_error", ErrorKind::NotFound, false),
        ("billing_error", ErrorKind::Billing, false),
        ("rate_limit_error", ErrorKind::RateLimit, true),
        ("api_error", ErrorKind::Server, true),
        ("timeout_error", ErrorKind::Server, true),
        ("overloaded_error", ErrorKind::Overloaded, true),
        ("new_kind_of_error", ErrorKind::Server, true),
    ] {
        let Lab { server, client, .. } = Lab::with(|builder| builder.retry(RetryPolicy::none()));
        server.push(Reply::stream(
            StreamScript::new().message_start(3).error(kind, "why"),
        ));
        let error = client.messages().create(&request()).expect_err(kind);
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (expected, retried),
            "{kind}"
        );
        assert_eq!(error.api_error().expect("its account").kind.as_str(), kind);
        assert!(
            error.to_string().contains("after status 200: why"),
            "{error}"
        );
    }
}

#[test]
fn unterminated_error_event_keeps_its_kind() {
    let Lab {
        server,
        clock,
        client,
    } = Lab::new();
    let script = StreamScript::new()
        .message_start(3)
        .error("overloaded_error", "Overloaded")
        .without_final_blank_line();
    server.push_all([Reply::stream(script), Reply::message("kept")]);
    let message = client.messages().create(&request()).expect("whole");
    assert_eq!(message.text(), "kept");
    let failed = &message.attempts()[0];
    assert_eq!(failed.failure, Some(ErrorKind::Overloaded));
    assert_eq!(failed.delivery, Delivery::Responded);
    assert_eq!(clock.sleeps().len(), 1);
}

#[test]
fn stream_that_ends_early_is_an_error() {
    let events = 9;
    for k in 0..events {
        let Lab { server, client, .. } = Lab::with(|builder| builder.retry(RetryPolicy::none()));
        let script = StreamScript::text("one two three").cut_after(k);
        server.push_all([Reply::stream(script.clone()), Reply::stream(script)]);
        let error = client.messages().create(&request()).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Stream, "{k}");
        assert_eq!(error.attempts()[0].delivery, Delivery::Unknown);
        let error = match client.messages().stream(&request()) {
            Ok(mut stream) => drain(&mut stream).1.expect("cut"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Stream, "{k}");
        assert_eq!(error.partial().is_some(), k > 0, "{k}");
    }
}

#[test]
fn broken_stream_carries_text_and_usage_so_far() {
    let Lab { server, client, .. } = Lab::new();
    let script = StreamScript::new()
        .message_start(77)
        .text_block(["so ", "far"])
        .tool_use("toolu_1", "look", ["{\"half\":"])
        .reset_after(8);
    server.push(Reply::stream(script));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let (_, error) = drain(&mut stream);
    let error = error.expect("broken");
    assert_eq!(error.kind(), ErrorKind::Stream);
    let partial = error.partial().expect("a part");
    assert_eq!(
        (partial.text().as_str(), partial.usage.input_tokens),
        ("so far", 77)
    );
    let call = partial.tool_uses().next().expect("a call");
    assert_eq!(call.raw_input(), Some("{\"half\":"));
}

#[test]
fn broken_stream_usage_is_counted_with_odd_events() {
    let Lab { server, client, .. } = Lab::new();
    let mut script = StreamScript::new().message_start(3).event(
        "content_block_start",
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
    );
    for _ in 0..100 {
        // With an unknown field.
        let delta = json!({"type": "text_delta", "text": "x".repeat(400), "tone": "plain"});
        let event = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        script = script.event("content_block_delta", event);
    }
    // A server tool has read more input since.
    let usage = json!({"input_tokens": 500, "output_tokens": 7});
    let end = json!({"type": "message_delta", "delta": {}, "usage": usage});
    let script = script.event("message_delta", end);
    server.push(Reply::stream(script.clone().cut_after(103)));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    assert!(drain(&mut stream).1.is_some());
    let tokens = client.totals().all.tokens;
    assert_eq!((tokens.input, tokens.output), (500, 10_000));
    // A stream that the caller drops used as many tokens.
    server.push(Reply::stream(script.stall_after(103)));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    while !matches!(stream.next(), Some(Ok(StreamEvent::MessageDelta(_)))) {}
    drop(stream);
    let tokens = client.totals().all.tokens;
    assert_eq!((tokens.input, tokens.output), (1_000, 20_000));
}

#[test]
fn cut_before_content_is_repeated_once_if_allowed() {
    let cut = || Reply::stream(StreamScript::text("words").cut_after(1));
    let Lab { server, client, .. } = Lab::new();
    server.push_all([cut(), cut(), cut()]);
    let error = client.messages().stream(&request()).expect_err("cut twice");
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Stream, 2)
    );
    let forbidden = RetryPolicy::new().max_repeats(0);
    let Lab { server, client, .. } = Lab::with(|builder| builder.retry(forbidden));
    server.push(cut());
    let error = client.messages().stream(&request()).expect_err("cut");
    assert_eq!(error.attempts().len(), 1);
    assert!(error.to_string().contains("billed"), "{error}");
}

#[test]
fn silent_stream_hits_the_idle_timeout() {
    let idle = Duration::from_millis(40);
    let Lab { server, client, .. } =
        Lab::with(|builder| builder.idle_timeout(idle).retry(RetryPolicy::none()));
    server.push(Reply::stream(
        StreamScript::text("one two three four").stall_after(5),
    ));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let (_, error) = drain(&mut stream);
    let error = error.expect("silence");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.partial().expect("a part").text(), "one two ");
    assert!(error.to_string().contains("idle timeout"), "{error}");
}

#[test]
fn pings_keep_a_stream_alive() {
    // Forty pauses, each a small part of the idle timeout, together far longer than it.
    let idle = Duration::from_millis(500);
    let Lab { server, client, .. } = Lab::with(|builder| builder.idle_timeout(idle));
    let mut script = StreamScript::new().message_start(5);
    for _ in 0..40 {
        script = script.pause(Duration::from_millis(20)).ping();
    }
    server.push(Reply::stream(script.text_block(["late"]).finish()));
    let message = client.messages().create(&request()).expect("alive");
    assert_eq!(
        (message.text().as_str(), message.attempts().len()),
        ("late", 1)
    );
}

#[test]
fn deadline_ends_an_endless_stream() {
    let Lab { server, client, .. } = Lab::new();
    let endless = StreamScript::new()
        .message_start(5)
        .text_block(["and so on"]);
    let endless = endless
        .stall_after(4)
        .pings_while_stalled(Duration::from_millis(5));
    server.push(Reply::stream(endless));
    let hurried = client.with(Options::new().deadline(Duration::from_millis(200)));
    let mut stream = hurried.messages().stream(&request()).expect("a stream");
    let (_, error) = drain(&mut stream);
    let error = error.expect("late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the deadline"), "{error}");
    assert_eq!(error.partial().expect("a part").text(), "and so on");
}

#[test]
fn dropped_stream_cuts_its_connection() {
    let Lab { server, client, .. } = Lab::new();
    server.push(Reply::stream(
        StreamScript::text("one two three").stall_after(4),
    ));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    assert!(stream.next().is_some());
    assert_eq!(server.open_connections(), 1);
    drop(stream);
    assert!(server.wait_for_open_connections(0, Duration::from_secs(5)));
}

#[test]
fn shutdown_ends_a_waiting_stream() {
    let Lab { server, client, .. } = Lab::new();
    server.push(Reply::stream(
        StreamScript::text("one two three").stall_after(5),
    ));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let reader = thread::spawn(move || drain(&mut stream).1);
    client.shutdown();
    let error = reader.join().expect("no panic").expect("shut down");
    assert_eq!(error.kind(), ErrorKind::Shutdown);
}

#[test]
fn stream_moves_to_another_thread() {
    let lab = Lab::new();
    let mut stream = lab.client.messages().stream(&request()).expect("a stream");
    let text: String = thread::spawn(move || stream.text_deltas().collect::<Result<_, _>>())
        .join()
        .expect("no panic")
        .expect("whole");
    assert_eq!(text, "You said: hi");
}

#[test]
fn plain_message_is_accepted_for_a_stream() {
    let body = serde_json::json!({"id":"msg_1","type":"message","role":"assistant","model":"m",
        "content":[{"type":"text","text":"whole"},{"type":"tool_use","id":"t","name":"n",
        "input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,
        "usage":{"input_tokens":3,"output_tokens":4}});
    for content_type in [Some("application/json"), Some("text/plain"), None] {
        let Lab { server, client, .. } = Lab::new();
        let mut reply = Reply::json(200, &body).without_header("content-type");
        if let Some(content_type) = content_type {
            reply = reply.header("content-type", content_type);
        }
        server.push_all([reply.clone(), reply.clone(), reply]);
        let message = client.messages().create(&request()).expect("whole");
        assert_eq!(serde_json::to_value(&message).expect("JSON"), body);
        let stream = client.messages().stream(&request()).expect("a stream");
        let message = stream.final_message().expect("whole");
        assert_eq!(message.content.len(), 2);
        assert_eq!(message.usage.output_tokens, 4);
        let mut stream = client.messages().stream(&request()).expect("a stream");
        let text: String = stream
            .text_deltas()
            .collect::<Result<_, _>>()
            .expect("whole");
        assert_eq!(text, "whole");
        server.push(Reply::json(200, &body));
        let stream = client.messages().stream(&request()).expect("a stream");
        let text: String = stream
            .map(|event| {
                event
                    .expect("whole")
                    .as_text()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        assert_eq!(text, "whole");
    }
}

#[test]
fn odd_framings_yield_the_same_message() {
    let scripts = || StreamScript::text("a b c");
    for (name, reply) in [
        ("CRLF", Reply::stream(scripts().crlf())),
        ("CR", Reply::stream(scripts().cr())),
        ("padded", Reply::stream(scripts().padded())),
        ("unnamed", Reply::stream(scripts().unnamed())),
        ("[DONE]", Reply::stream(scripts().done_marker())),
        ("one chunk", Reply::stream(scripts().one_chunk())),
        (
            "no final blank line",
            Reply::stream(scripts().without_final_blank_line()),
        ),
        ("unknown event", Reply::stream(scripts().unknown_event())),
        (
            "close delimited",
            Reply::stream(scripts()).close_delimited(),
        ),
        (
            "byte by byte",
            Reply::stream(scripts()).dribble(1, Duration::ZERO),
        ),
        (
            "no content type",
            Reply::stream(scripts()).without_header("content-type"),
        ),
    ] {
        let Lab { server, client, .. } = Lab::new();
        server.push(reply);
        let message = client
            .messages()
            .create(&request())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(message.text(), "a b c", "{name}");
        assert_eq!(message.attempts().len(), 1, "{name}");
    }
}

#[test]
fn non_stream_response_is_a_clear_error() {
    for (reply, kind, words) in [
        (
            Reply::html(200, "Sign in"),
            ErrorKind::Decode,
            "the response is not a message: Sign in",
        ),
        (
            Reply::status(200),
            ErrorKind::Decode,
            "the response is not a message: the body is empty",
        ),
        (
            Reply::stream(
                StreamScript::new().event("message_start", "{\"type\":\"message_start\"}"),
            ),
            ErrorKind::Decode,
            "the response is not a stream of events",
        ),
        (
            Reply::stream(StreamScript::new().raw("event: x\ndata: {not json}\n\n")),
            ErrorKind::Decode,
            "the response is not a stream of events",
        ),
        (
            Reply::stream(StreamScript::new()),
            ErrorKind::Stream,
            "ended before its last event",
        ),
    ] {
        let Lab { server, client, .. } = Lab::with(|builder| builder.retry(RetryPolicy::none()));
        server.push(reply);
        let error = client.messages().create(&request()).expect_err(words);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn endless_event_is_refused() {
    let Lab { server, client, .. } = Lab::with(|builder| builder.retry(RetryPolicy::none()));
    let huge = vec![b'x'; 17 << 20];
    let script = StreamScript::new().raw("data: ").raw(huge).raw("\n\n");
    server.push(Reply::stream(script));
    let error = client.messages().create(&request()).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(
        format!("{error:?}").contains("longer than 16777216 bytes"),
        "{error:?}"
    );
}

#[test]
fn partial_shows_what_has_arrived() {
    let Lab { server, client, .. } = Lab::new();
    server.push(Reply::stream(
        StreamScript::new()
            .message_start(8)
            .text_block(["a", "b"])
            .finish(),
    ));
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let mut seen = String::new();
    while let Some(event) = stream.next() {
        let event = event.expect("no error");
        if let Some(text) = event.as_text() {
            seen.push_str(text);
        }
        assert!(stream.partial().text().starts_with(&seen));
        if matches!(event, StreamEvent::MessageStart(_)) {
            assert_eq!(stream.partial().usage.input_tokens, 8);
        }
    }
    assert_eq!(seen, "ab");
}

#[test]
fn stream_without_content_keeps_everything_else() {
    let Lab { server, client, .. } = Lab::new();
    let script = || {
        StreamScript::new()
            .message_start(8)
            .text_block(["a", "b"])
            .finish()
    };
    server.push_all([
        Reply::stream(script()),
        Reply::stream(script().cut_after(4)),
    ]);
    let stream = client.messages().stream(&request()).expect("a stream");
    let mut stream = stream.without_content();
    let text: String = stream
        .text_deltas()
        .collect::<Result<_, _>>()
        .expect("whole");
    assert_eq!(text, "ab");
    let message = stream.final_message().expect("whole");
    assert!(message.content.is_empty());
    assert_eq!(message.usage.input_tokens, 8);
    assert_eq!(message.stop_reason, Some(StopReason::EndTurn));
    let stream = client.messages().stream(&request()).expect("a stream");
    let error = stream.without_content().final_message().expect_err("cut");
    assert_eq!(error.partial().expect("a part").usage.input_tokens, 8);
}

#[test]
fn endless_message_is_refused_before_memory_fills() {
    let Lab { server, client, .. } = Lab::with(|builder| builder.retry(RetryPolicy::none()));
    let endless = || {
        StreamScript::new()
            .message_start(5)
            .deltas(1_400, 100_000)
            .finish()
    };
    server.push_all([Reply::stream(endless()), Reply::stream(endless())]);
    let error = client.messages().create(&request()).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(
        format!("{error:?}").contains("longer than 134217728 bytes"),
        "{error:?}"
    );
    let stream = client.messages().stream(&request()).expect("a stream");
    let text: usize = stream
        .without_content()
        .text_deltas()
        .map(|text| text.expect("text").len())
        .sum();
    assert_eq!(text, 140_000_000);
}

#[test]
fn text_and_tool_inputs_parse_into_caller_types() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Town {
        name: String,
    }
    let Lab { server, client, .. } = Lab::new();
    let script = StreamScript::new()
        .message_start(5)
        .text_block(["{\"name\":", "\"Oslo\"}"])
        .tool_use("toolu_1", "look", ["{\"name\":\"Lima\"}"])
        .finish();
    server.push(Reply::stream(script));
    let message = client.messages().create(&request()).expect("a response");
    assert_eq!(message.json::<Town>().expect("a town").name, "Oslo");
    let call = message.tool_uses().next().expect("a call");
    assert_eq!(call.input_as::<Town>().expect("a town").name, "Lima");
    let error = message.json::<Vec<u8>>().expect_err("no list");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(!format!("{error:?}").contains("Oslo"), "{error:?}");
}

#[test]
fn blocks_are_equal_plain_and_streamed() {
    let server = TestServer::start().expect("a port");
    let call = ToolUseBlock::new("toolu_1", "temperature", json!({"town": "Lima"}));
    let search = json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search",
        "input": {"query": "Lima"}});
    let blocks = [
        ThinkingBlock::new("A town is meant.", "c2lnbmVk").into(),
        ContentBlock::text("Let me look."),
        serde_json::from_value(search).expect("a block"),
        ContentBlock::from(call),
    ];
    server.push_all([
        Reply::message(blocks.clone()),
        Reply::message(blocks.clone()),
    ]);
    let builder = Client::builder().api_key("k").base_url(server.base_url());
    let client = builder.stream_underneath(false).build().expect("settings");
    let request = MessageRequest::new("claude-opus-5", 64).user("Is it warm in Lima?");
    let whole = client.messages().create(&request).expect("a response");
    let stream = client.messages().stream(&request).expect("a stream");
    let streamed = stream.final_message().expect("a response");
    for message in [&whole, &streamed] {
        assert_eq!(message.content, blocks);
        assert_eq!(message.stop_reason, Some(StopReason::ToolUse));
        // 16 bytes of thinking, 12 of text, 15 of input.
        assert_eq!(message.usage.output_tokens, 11);
    }
}
