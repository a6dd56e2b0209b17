//! The table of faults: what the server does to requests, and the results that each may have.

use std::time::Duration;

use anthropic_blocking::testing::{Reply, StreamScript};
use anthropic_blocking::{Delivery, ErrorKind};
use serde_json::json;

use super::faults::{Effect, Fault, Make, ReplyContext, Shape};

/// Returns all faults; the first is no fault, the second no fault in the limit mode.
pub fn table() -> Vec<Fault> {
    let mut faults = vec![
        Fault::new("none", 0, ALL, Effect::Served, ReplyContext::good),
        Fault::new("limit mode", 120, TEXTS, Effect::Limited, |_| {
            Reply::canned()
        }),
    ];
    odd_and_good(&mut faults);
    statuses(&mut faults);
    no_answers(&mut faults);
    breaks(&mut faults);
    faults
}

fn odd_and_good(faults: &mut Vec<Fault>) {
    let in_limit_mode: [(_, _, Make); 3] = [
        ("limit mode, chunked", 5, |_| Reply::canned().chunked()),
        ("limit mode, without a length", 5, |_| {
            Reply::canned().close_delimited()
        }),
        ("limit mode, dribbled", 5, |scene| {
            Reply::canned().dribble(1 + scene.below(60), Duration::ZERO)
        }),
    ];
    add(faults, TEXTS, Effect::Limited, in_limit_mode);
    let everywhere: [(_, _, Make); 7] = [
        (CLOSED_SILENTLY, 3, |scene| {
            scene.good().close().without_header("connection")
        }),
        ("chunked", 10, |scene| scene.good().chunked()),
        ("without a length", 10, |scene| {
            scene.good().close_delimited()
        }),
        ("the last of its connection", 10, |scene| {
            scene.good().close()
        }),
        ("dribbled", 10, |scene| {
            scene.good().dribble(1 + scene.below(60), Duration::ZERO)
        }),
        ("slow head", 5, |scene| {
            scene.good().delay(Duration::from_millis(1))
        }),
        ("retry-after on a success", 5, |scene| {
            scene.good().header("retry-after", "3600")
        }),
    ];
    add(faults, ALL, Effect::Served, everywhere);
    let texts: [(_, _, Make); 2] = [
        ("raw, HTTP/1.0", 5, |scene| {
            Reply::raw(format!("HTTP/1.0 200 OK\r\n\r\n{}", scene.json())).close()
        }),
        ("raw, interim response", 5, |scene| {
            let (interim, body) = ("HTTP/1.1 103 Early Hints\r\nlink: </x>", scene.json());
            let length = format!("content-length: {}\r\nconnection: close", body.len());
            Reply::raw(format!(
                "{interim}\r\n\r\nHTTP/1.1 200 OK\r\n{length}\r\n\r\n{body}"
            ))
        }),
    ];
    add(faults, TEXTS, Effect::Served, texts);
    let of_another_type: [(_, _, Make); 1] = [("wrong content type", 5, |scene| {
        scene.good().header("content-type", "text/plain")
    })];
    add(faults, PIECES, Effect::Served, of_another_type);
    let streams: [(_, _, Make); 3] = [
        ("JSON instead of a stream", 5, |scene| {
            Reply::json(200, scene.json())
        }),
        // The stream is complete, but its last event lacks the final blank line.
        ("stream without its last line", 5, |scene| {
            Reply::stream(scene.script().without_final_blank_line())
        }),
        ("odd stream", 20, |scene| Reply::stream(odd_stream(scene))),
    ];
    add(faults, STREAMS, Effect::Served, streams);
}

fn odd_stream(scene: &ReplyContext) -> StreamScript {
    let words = scene.text.split_inclusive(' ');
    let mut script = StreamScript::new()
        .comment("hello")
        .message_start(3)
        .unknown_event()
        .ping()
        .text_block(words)
        .comment("")
        .unknown_event()
        .finish();
    for _ in 0..2 {
        script = match scene.below(7) {
            0 => script.crlf(),
            1 => script.cr(),
            2 => script.padded(),
            3 => script.one_chunk(),
            4 => script.unnamed(),
            5 => script.done_marker(),
            _ => script,
        };
    }
    script
}

/// Adds every class of status, with all sorts of bodies, with and without retry headers.
fn statuses(faults: &mut Vec<Fault>) {
    use ErrorKind::*;
    for (status, kind, failure, weight) in [
        (400, "invalid_request_error", &[InvalidRequest], 4),
        (401, "authentication_error", &[Auth], 1),
        (402, "billing_error", &[Billing], 1),
        (403, "permission_error", &[Auth], 1),
        (404, "not_found_error", &[NotFound], 4),
        (408, "timeout_error", &[Server], 6),
        (409, "conflict_error", &[InvalidRequest], 6),
        (413, "request_too_large", &[InvalidRequest], 4),
        (418, "new_error", &[InvalidRequest], 4),
        (429, "rate_limit_error", &[RateLimit], 6),
        (500, "api_error", &[Server], 10),
        (501, "api_error", &[Server], 4),
        (502, "api_error", &[Server], 6),
        (503, "api_error", &[Server], 6),
        (504, "timeout_error", &[Server], 6),
        (520, "api_error", &[Server], 4),
        (524, "api_error", &[Server], 4),
        (529, "overloaded_error", &[Overloaded], 10),
    ] {
        let reply = move |scene: &ReplyContext| {
            let json = || Reply::error(status, kind, "m");
            let reply = match scene.below(8) {
                0 => Reply::html(status, "A page"),
                1 => Reply::status(status),
                2 => json().chunked(),
                3 => json().truncate(scene.below(30)),
                4 => json().reset_in_body(scene.below(30)),
                5 => Reply::json(status, "[1,2]"),
                _ => json(),
            };
            match scene.below(6) {
                0 => reply.header("x-should-retry", "true"),
                1 => reply.header("x-should-retry", "false"),
                _ => reply,
            }
        };
        let name = status.to_string();
        faults.push(Fault::new(
            &name,
            weight,
            ALL,
            answered(status, failure),
            reply,
        ));
    }
    for (status, failure) in [
        (429, &[RateLimit]),
        (529, &[Overloaded]),
        (503, &[Overloaded]),
        (500, &[Server]),
    ] {
        let reply = move |scene: &ReplyContext| {
            let seconds = 1 + scene.below(40);
            Reply::status(status).header("retry-after", seconds.to_string())
        };
        let name = format!("{status} with retry-after");
        faults.push(Fault::new(&name, 8, ALL, answered(status, failure), reply));
    }
    let with_limits = |scene: &ReplyContext| Reply::rate_limited(scene.below(30) as u64);
    let spent = |_: &ReplyContext| {
        let code = "enforced_spend_limit_reached";
        Reply::error_code(429, "rate_limit_error", code, "m")
    };
    let redirect = |_: &ReplyContext| Reply::status(307).header("location", "/v1/elsewhere");
    faults.extend([
        Fault::new(
            "429 with limits",
            2,
            ALL,
            answered(429, &[RateLimit]),
            with_limits,
        ),
        Fault::new(
            "429 for a spend limit",
            1,
            ALL,
            answered(429, &[Billing]),
            spent,
        ),
        Fault::new("redirect", 1, ALL, answered(307, &[Config]), redirect),
    ]);
}

/// Adds responses with a success status and an unusable body.
fn no_answers(faults: &mut Vec<Fault>) {
    use ErrorKind::*;
    for (kind, failure) in [
        ("overloaded_error", &[Overloaded]),
        ("api_error", &[Server]),
        ("rate_limit_error", &[RateLimit]),
        ("timeout_error", &[Server]),
        ("new_error", &[Server]),
    ] {
        let error = json!({"type": "error", "error": {"type": kind, "message": "m"}});
        let whole = move |_: &ReplyContext| Reply::json(200, &error);
        let late = move |scene: &ReplyContext| {
            Reply::stream(scene.script().error_after(scene.events(), kind, "m"))
        };
        let effect = answered(200, failure);
        faults.extend([
            Fault::new(&format!("{kind} as a response"), 3, TEXTS, effect, whole),
            Fault::new(&format!("{kind} in a stream"), 6, STREAMS, effect, late),
        ]);
    }
    let typed: [(_, _, Make); 7] = [
        ("JSON of another shape", 3, |_| {
            Reply::json(200, r#"{"status":"ok"}"#)
        }),
        ("JSON that is no object", 3, |_| Reply::json(200, "[]")),
        ("an empty body", 3, |_| Reply::json(200, "")),
        ("half a body that says it is whole", 3, |scene| {
            let body = scene.json().into_bytes();
            Reply::json(200, "").body(&body[..scene.below(body.len())])
        }),
        ("HTML as a response", 3, |_| Reply::html(200, "Log in")),
        ("not UTF-8", 3, |_| Reply::json(200, "").body([0xff, 0xfe])),
        ("compressed unasked", 3, |_| {
            let reply = Reply::json(200, "").body([31, 139, 8, 0]);
            reply.header("content-encoding", "br")
        }),
    ];
    add(faults, TYPED, answered(200, &[Decode]), typed);
    let nothing: [(_, _, Make); 1] = [("no content", 3, |_| Reply::status(204))];
    add(faults, TYPED, answered(204, &[Decode]), nothing);
    let garbage: [(_, _, Make); 1] = [("garbage in a stream", 6, |scene| {
        let start = StreamScript::new().message_start(3);
        let script = start.text_block(scene.text.split_inclusive(' '));
        Reply::stream(
            script
                .raw("event: message_delta\ndata: {\"type\":\"mess\n\n")
                .finish(),
        )
    })];
    add(faults, STREAMS, answered(200, &[Decode]), garbage);
}

/// Adds connections that break or stall.
fn breaks(faults: &mut Vec<Fault>) {
    let lost = Effect::Failed(Delivery::Unknown, None, &[ErrorKind::Connection]);
    let before_the_head: [(_, _, Make); 4] = [
        ("reset before the head", 12, |scene| {
            scene.good().reset_before_headers()
        }),
        ("reset in the head", 12, |scene| {
            scene.good().reset_in_headers()
        }),
        ("raw, closed before the head", 5, |_| Reply::raw("").close()),
        ("raw, half a head", 5, |_| {
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-le").close()
        }),
    ];
    add(faults, ALL, lost, before_the_head);
    let broken = Effect::Failed(Delivery::Unknown, Some(200), &[ErrorKind::Connection]);
    let in_the_body: [(_, _, Make); 5] = [
        ("truncated", 12, |scene| {
            scene.good().truncate(scene.place())
        }),
        ("truncated in a chunk", 6, |scene| {
            scene.good().chunked().truncate(scene.place())
        }),
        ("without its last chunk", 6, |scene| {
            scene.good().chunked().truncate(usize::MAX)
        }),
        ("reset in the body", 12, |scene| {
            scene.good().reset_in_body(scene.place())
        }),
        // Only the content of the body shows that the end is missing.
        ("cut without a length", 6, |scene| {
            scene.good().close_delimited().truncate(1 + scene.place())
        }),
    ];
    add(faults, PIECES, broken, in_the_body);
    let broken = Effect::Failed(Delivery::Unknown, Some(200), &[ErrorKind::Stream]);
    let in_the_stream: [(_, _, Make); 4] = [
        ("stream truncated", 12, |scene| {
            scene.good().truncate(scene.place())
        }),
        ("stream cut", 12, |scene| {
            Reply::stream(scene.script().cut_after(scene.events()))
        }),
        ("stream cut without a length", 12, |scene| {
            Reply::stream(scene.script().cut_after(scene.events())).close_delimited()
        }),
        ("stream reset", 12, |scene| {
            Reply::stream(scene.script().reset_after(scene.events()))
        }),
    ];
    add(faults, STREAMS, broken, in_the_stream);
    let silence: [(_, _, Make); 1] = [("silence before the head", 1, |scene| {
        scene.good().stall_before_headers()
    })];
    add(faults, ALL, Effect::Stalled, silence);
    let silence: [(_, _, Make); 1] = [("silence in the body", 1, |scene| {
        scene.good().stall(scene.place())
    })];
    add(faults, PIECES, Effect::Stalled, silence);
    let silence: [(_, _, Make); 1] = [("silence in a stream", 1, |scene| {
        Reply::stream(scene.script().stall_after(scene.events()))
    })];
    add(faults, STREAMS, Effect::Stalled, silence);
}

/// Adds faults: name, weight, reply.
fn add<const N: usize>(
    faults: &mut Vec<Fault>,
    shapes: &'static [Shape],
    effect: Effect,
    rows: [(&str, u32, Make); N],
) {
    let rows = rows.into_iter();
    faults.extend(rows.map(|(name, weight, make)| Fault::new(name, weight, shapes, effect, make)));
}

fn answered(status: u16, kinds: &'static [ErrorKind]) -> Effect {
    Effect::Failed(Delivery::Responded, Some(status), kinds)
}

/// The server closes the connection after its response without announcing it: a request that the
/// client sends on this connection before it notices the close is lost.
pub const CLOSED_SILENTLY: &str = "closed without a word";

const ALL: &[Shape] = &[Shape::Message, Shape::Stream, Shape::Count, Shape::Raw];
/// Responses that contain a text.
const TEXTS: &[Shape] = &[Shape::Message, Shape::Stream];
/// Responses that are parsed into a type.
const TYPED: &[Shape] = &[Shape::Message, Shape::Stream, Shape::Count];
/// Responses in one piece.
const PIECES: &[Shape] = &[Shape::Message, Shape::Count, Shape::Raw];
const STREAMS: &[Shape] = &[Shape::Stream];
