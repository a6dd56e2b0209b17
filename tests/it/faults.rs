//! The fault matrix for status, body and headers: the kind of each error, its attempts, and its
//! waits on the manual clock.

use std::time::Duration;

use anthropic_blocking::ErrorKind;
use anthropic_blocking::testing::{Reply, StreamScript};
use serde_json::json;

use crate::matrix::*;
use crate::support::{millis, seconds};

#[test]
fn status_and_body_determine_kind_and_attempts() {
    use ErrorKind::*;
    let rows = [
        (400, "invalid_request_error", InvalidRequest, false),
        (401, "authentication_error", Auth, false),
        (402, "billing_error", Billing, false),
        (403, "permission_error", Auth, false),
        (404, "not_found_error", NotFound, false),
        (408, "timeout_error", Server, true),
        (409, "conflict_error", InvalidRequest, true),
        (412, "invalid_request_error", InvalidRequest, false),
        (413, "request_too_large", InvalidRequest, false),
        (418, "new_error", InvalidRequest, false),
        (422, "invalid_request_error", InvalidRequest, false),
        (429, "rate_limit_error", RateLimit, true),
        (431, "invalid_request_error", InvalidRequest, false),
        (499, "api_error", InvalidRequest, false),
        (500, "api_error", Server, true),
        (501, "api_error", Server, false),
        (502, "api_error", Server, true),
        (503, "api_error", Server, true),
        (504, "timeout_error", Server, true),
        (520, "api_error", Server, true),
        (521, "api_error", Server, true),
        (522, "api_error", Server, true),
        (523, "api_error", Server, true),
        (524, "api_error", Server, true),
        (529, "overloaded_error", Overloaded, true),
    ];
    let mut cases = Vec::new();
    for (status, kind, failure, is_retried) in rows {
        for body in bodies_of(status, kind) {
            let wait = match failure {
                Overloaded => Wait::Gate,
                _ => Wait::Backoff,
            };
            let step = Step {
                id: body.id,
                ..answered(status, body.reply, failure, wait)
            };
            // Each row uses another kind of call: they differ in how they read a success.
            let ways = &ALL[cases.len() % ALL.len()..][..1];
            let count = if is_retried { 2 } else { 1 };
            let mut row = case(format!("{status}, {}", body.name), step.times(count))
                .tune(match ways[0].waits_in_queue() {
                    true => |builder| builder.retry(TWO_ATTEMPTS.max_wait(millis(300))),
                    false => |builder| builder.retry(TWO_ATTEMPTS),
                })
                .ways(ways)
                .says([status.to_string(), body.says.to_owned()]);
            row.end.has_api_error = body.is_error_object;
            row.end.is_retryable = is_retried;
            cases.push(row);
        }
    }
    check(cases);
}

/// A body, and what the client must read from it whatever the status.
struct BodyForm {
    name: &'static str,
    reply: Reply,
    id: Id,
    is_error_object: bool,
    says: &'static str,
}

fn bodies_of(status: u16, kind: &str) -> Vec<BodyForm> {
    let form = |name, reply, says| BodyForm {
        name,
        reply,
        id: Id::Served,
        is_error_object: false,
        says,
    };
    let json = || Reply::error(status, kind, "Not now, please.");
    let bare = json!({"type": kind, "message": "Not now, please."});
    let large =
        json!({"type": "error", "error": {"type": kind, "message": "Large ".repeat(20_000)}});
    let error_object = |form| BodyForm {
        is_error_object: true,
        ..form
    };
    let anonymous = |form| BodyForm {
        id: Id::Missing,
        ..form
    };
    vec![
        error_object(form("JSON", json(), ": Not now, please")),
        error_object(form(
            "JSON in chunks",
            json().chunked(),
            ": Not now, please",
        )),
        error_object(form(
            "bare error object",
            Reply::json(status, bare),
            ": Not now, please",
        )),
        anonymous(form(
            "HTML",
            Reply::html(status, "A page &amp; no more"),
            ": A page &amp; no more",
        )),
        anonymous(form("empty", Reply::status(status), "without a body")),
        form(
            "truncated JSON",
            json().truncate(25),
            r#": {"type":"error","error":{"#,
        ),
        form(
            "JSON reset in the middle",
            json().reset_in_body(25),
            r#": {"type":"error","error":{"#,
        ),
        form(
            "more than 64 KiB of JSON",
            Reply::json(status, large),
            "Large Large",
        ),
        form(
            "not UTF-8",
            Reply::json(status, "").body([0xfe, 0xff, b'?', 0, 27, b'[']),
            "\u{fffd}\u{fffd}? [",
        ),
        form(
            "JSON of another kind",
            Reply::json(status, "[1,2]"),
            ": [1,2]",
        ),
    ]
}

#[test]
fn redirects_are_not_followed() {
    check([301, 302, 303, 307, 308].map(|status| {
        let reply = Reply::status(status).header("location", "/v1/elsewhere");
        case(
            format!("{status}"),
            [answered(status, reply, ErrorKind::Config, Wait::Over).anonymous()],
        )
        .ways(ALL)
        .says([
            "redirect to /v1/elsewhere",
            "redirects are not followed",
            "base URL",
        ])
    }));
}

#[test]
fn limits_that_never_reset_are_final() {
    let asking = |reply: Reply| {
        reply
            .header("retry-after", "5")
            .header("x-should-retry", "true")
    };
    let once = |status, reply| [answered(status, reply, ErrorKind::Billing, Wait::Over)];
    let spent = "You have reached your API usage limits: access returns on 2026-12-01";
    let own = "You have reached your specified API usage limits. You will regain access on";
    let long = "Extra usage is required for long context requests.";
    let rows = [
        (
            "tier's spend limit",
            429,
            coded(429, "rate_limit_error", "enforced_spend_limit_reached"),
            "raise the spend limit",
        ),
        (
            "tier's spend limit by its text",
            429,
            limited(spent),
            "raise the spend limit",
        ),
        (
            "contract's spend limit",
            429,
            coded(429, "rate_limit_error", "contract_spend_limit_reached"),
            "raise the spend limit",
        ),
        (
            "spend limit of tomorrow",
            429,
            coded(429, "rate_limit_error", "team_spend_limit_reached"),
            "raise the spend limit",
        ),
        (
            "own spend limit",
            400,
            Reply::error(400, "invalid_request_error", own),
            "raise the spend limit",
        ),
        ("long context", 429, limited(long), "shorten the prompt"),
        (
            "out of extra usage",
            429,
            limited("You're out of extra usage"),
            "add extra usage",
        ),
        (
            "credit, as 400",
            400,
            Reply::error(
                400,
                "invalid_request_error",
                "Your credit balance is too low",
            ),
            "add credit",
        ),
        (
            "credit, as 402",
            402,
            Reply::error(402, "billing_error", "Your credit balance is too low"),
            "add credit",
        ),
        (
            "linked organization's limit",
            402,
            coded(
                402,
                "billing_error",
                "linked_organization_spend_limit_reached",
            ),
            "raise the spend limit",
        ),
        (
            "linked organization",
            402,
            coded(
                402,
                "billing_error",
                "linked_organization_billing_unavailable",
            ),
            "402",
        ),
        (
            "unbillable profile",
            403,
            coded(403, "permission_error", "user_profile_not_billable"),
            "403",
        ),
    ];
    check(rows.iter().flat_map(|(name, status, reply, advice)| {
        let row = |reply| {
            case(*name, once(*status, reply))
                .has_api_error()
                .says([*advice])
        };
        [
            row(reply.clone()),
            row(asking(reply.clone())).retry_after(seconds(5)),
        ]
    }));
}

#[test]
fn causes_with_their_own_code_are_distinguished() {
    let once = |status, reply, kind| [answered(status, reply, kind, Wait::Over)];
    let invalid = |message| Reply::error(400, "invalid_request_error", message);
    let on_hold = coded(400, "invalid_request_error", "organization_on_hold");
    let undecryptable = coded(409, "conflict_error", "skill_read_blocked_undecryptable");
    let unreachable = coded(503, "api_error", "cmek_key_unreachable");
    let compaction = coded(529, "overloaded_error", "compaction_unavailable");
    check([
        case("organization on hold", {
            once(
                400,
                on_hold.header("x-should-retry", "true"),
                ErrorKind::InvalidRequest,
            )
        })
        .has_api_error()
        .says(["support can help"]),
        case(
            "undecryptable skill",
            once(409, undecryptable, ErrorKind::InvalidRequest),
        )
        .has_api_error(),
        case(
            "key service",
            [answered(503, unreachable, ErrorKind::Server, Wait::Backoff)],
        )
        .then_succeeds(),
        case("compaction", {
            answered(529, compaction, ErrorKind::Server, Wait::Backoff).times(5)
        })
        .retryable()
        .has_api_error(),
        case("large images", {
            let large = coded(400, "invalid_request_error", "image_dimensions_too_large");
            once(400, large, ErrorKind::InvalidRequest)
        })
        .has_api_error()
        .says(["(image_dimensions_too_large)", "scale the images down"]),
        case("long prompt", {
            once(
                400,
                invalid("prompt is too long: 9 > 8"),
                ErrorKind::InvalidRequest,
            )
        })
        .has_api_error()
        .says(["shorten the prompt or split"]),
        case("retired model", {
            let retired = Reply::error(404, "not_found_error", "model: claude-1");
            once(404, retired, ErrorKind::NotFound)
        })
        .has_api_error()
        .says(["check the model's id"]),
        case("wrong key", {
            let wrong = Reply::error(401, "authentication_error", "invalid x-api-key");
            once(
                401,
                wrong.header("x-should-retry", "false"),
                ErrorKind::Auth,
            )
        })
        .has_api_error()
        .says(["check the key"]),
        case("too large, from the edge", {
            let page = Reply::html(413, "413 Request Entity Too Large");
            [answered(413, page, ErrorKind::InvalidRequest, Wait::Over).anonymous()]
        })
        .says(["413 Request Entity Too Large", "32 MB"]),
    ]);
}

#[test]
fn should_retry_header_overrides_the_status() {
    let api = |status, kind| Reply::error(status, kind, "m");
    let yes = |reply: Reply| reply.header("x-should-retry", "true");
    let no = |reply: Reply| reply.header("x-should-retry", "false");
    let (bad, broken) = (api(400, "invalid_request_error"), api(500, "api_error"));
    use ErrorKind::*;
    check([
        case(
            "true on 400",
            [answered(
                400,
                yes(bad.clone()),
                InvalidRequest,
                Wait::Backoff,
            )],
        )
        .then_succeeds(),
        case(
            "true on 401",
            [answered(
                401,
                yes(api(401, "authentication_error")),
                Auth,
                Wait::Backoff,
            )],
        )
        .then_succeeds(),
        case(
            "true on 404",
            [answered(
                404,
                yes(api(404, "not_found_error")),
                NotFound,
                Wait::Backoff,
            )],
        )
        .then_succeeds(),
        case(
            "true on 501",
            [answered(501, yes(Reply::status(501)), Server, Wait::Backoff).anonymous()],
        )
        .then_succeeds(),
        case(
            "true on 400, five times",
            answered(400, yes(bad.clone()), InvalidRequest, Wait::Backoff).times(5),
        )
        .retryable()
        .has_api_error(),
        case(
            "true on 429 without retry-after",
            [limit(yes(limited("m")), Wait::Backoff)],
        )
        .then_succeeds(),
        case("nonsense on 400", {
            [answered(
                400,
                bad.header("x-should-retry", "maybe"),
                InvalidRequest,
                Wait::Over,
            )]
        })
        .has_api_error(),
        case("nonsense on 500", {
            [answered(
                500,
                broken.clone().header("x-should-retry", "1"),
                Server,
                Wait::Backoff,
            )]
        })
        .then_succeeds(),
        case(
            "false on 500",
            [answered(500, no(broken), Server, Wait::Over)],
        )
        .has_api_error(),
        case(
            "false on 502",
            [answered(502, no(Reply::html(502, "502")), Server, Wait::Over).anonymous()],
        ),
        case(
            "false on 529",
            [answered(
                529,
                no(Reply::overloaded()),
                Overloaded,
                Wait::Over,
            )],
        )
        .has_api_error(),
        case(
            "false on 408",
            [answered(408, no(Reply::status(408)), Server, Wait::Over).anonymous()],
        ),
        case(
            "false on 409",
            [answered(
                409,
                no(api(409, "conflict_error")),
                InvalidRequest,
                Wait::Over,
            )],
        )
        .has_api_error(),
        case(
            "false on 429",
            [limit(no(Reply::rate_limited(5)), Wait::Over)],
        )
        .has_api_error()
        .retry_after(seconds(5))
        .says(["larger than the whole limit"]),
        case("false on a gateway's 429", {
            let gateway = Reply::json(429, r#"{"error":"budget of team 7 used up"}"#);
            [limit(no(gateway), Wait::Over)]
        })
        .has_api_error()
        .says(["budget of team 7 used up"]),
        case("false on 200", [served(no(Reply::message("Seven.")))]),
    ]);
}

#[test]
fn success_ignores_retry_headers() {
    let odd = |name: &str, value: &str| Reply::message("Seven.").header(name, value);
    check([
        case("retry-after", [served(odd("retry-after", "3600"))]),
        case(
            "nothing left",
            [served(odd("anthropic-ratelimit-requests-remaining", "0"))],
        ),
        case("a location", [served(odd("location", "/v1/elsewhere"))]),
        case(
            "status 201",
            [Step {
                status: Some(201),
                ..served(Reply::raw(raw_answer("201 Created", MESSAGE))).anonymous()
            }],
        ),
        case(
            "no headers at all",
            [served(Reply::raw(format!("HTTP/1.1 200 OK\r\n\r\n{MESSAGE}"))).anonymous()],
        ),
        case(
            "HTTP/1.0",
            [served(Reply::raw(format!("HTTP/1.0 200 OK\r\n\r\n{MESSAGE}"))).anonymous()],
        ),
        case("an interim response before it", {
            let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
            let whole = format!("{interim}{}", raw_answer("200 OK", MESSAGE));
            [served(Reply::raw(whole)).anonymous()]
        }),
        case(
            "its own request id",
            [served(odd("request-id", "req_own")).named("req_own")],
        ),
        case(
            "no request id",
            [served(Reply::message("Seven.").without_header("request-id")).anonymous()],
        ),
        case("chunked", [served(Reply::message("Seven.").chunked())]),
        case(
            "until the connection ends",
            [served(Reply::message("Seven.").close_delimited())],
        ),
        case(
            "byte by byte",
            [served(Reply::message("Seven.").dribble(1, Duration::ZERO))],
        ),
        case("JSON where a stream was requested", {
            [served(Reply::json(200, MESSAGE))]
        })
        .ways(CREATE),
    ]);
}

#[test]
fn error_after_status_200_acts_like_its_own_status() {
    let envelope = |kind: &str| {
        Reply::json(
            200,
            json!({"type": "error", "error": {"type": kind, "message": "m"}}),
        )
    };
    let in_stream =
        |kind: &str| Reply::stream(StreamScript::new().message_start(1).error(kind, "m"));
    let first = |kind: &str| Reply::stream(StreamScript::new().error(kind, "m"));
    let late =
        |kind: &str| Reply::stream(StreamScript::text("One two three").error_after(5, kind, "m"));
    type Form = (&'static str, &'static [Way], fn(&str) -> Reply);
    let forms: [Form; 5] = [
        ("JSON", CREATE, envelope),
        ("first event", &[Streamed, Events], first),
        ("after the start", &[Streamed, Events], in_stream),
        ("after content", &[Streamed], late),
        ("JSON without a content type", CREATE, |kind| {
            let body = json!({"type": "error", "error": {"type": kind, "message": "m"}});
            Reply::json(200, body).without_header("content-type")
        }),
    ];
    use ErrorKind::*;
    check(forms.into_iter().flat_map(|(form, ways, reply)| {
        let name = |what: &str| format!("{what}, {form}");
        let step = move |kind: &str, failure, wait| answered(200, reply(kind), failure, wait);
        [
            case(
                name("overloaded"),
                // A stream dropped after content counts as an attempt.
                step("overloaded_error", Overloaded, Wait::Gate)
                    .times(if form == "after content" { 4 } else { 6 }),
            )
            .then_succeeds(),
            case(
                name("failure"),
                step("api_error", Server, Wait::Backoff).times(2),
            )
            .then_succeeds(),
            case(
                name("failures"),
                step("api_error", Server, Wait::Backoff).times(5),
            )
            .retryable()
            .has_api_error()
            .says(["api_error after status 200: m"]),
            case(
                name("timeout"),
                [step("timeout_error", Server, Wait::Backoff)],
            )
            .then_succeeds(),
            case(
                name("limit"),
                [step("rate_limit_error", RateLimit, Wait::Backoff)],
            )
            .then_succeeds(),
            case(
                name("tomorrow's"),
                [step("new_error", Server, Wait::Backoff)],
            )
            .then_succeeds(),
            case(
                name("invalid"),
                [step("invalid_request_error", InvalidRequest, Wait::Over)],
            )
            .has_api_error(),
            case(
                name("key"),
                [step("authentication_error", Auth, Wait::Over)],
            )
            .has_api_error(),
            case(name("money"), [step("billing_error", Billing, Wait::Over)]).has_api_error(),
        ]
        .map(|row| row.ways(ways))
    }));
    let id = r#"{"type":"error","error":{"type":"billing_error","message":"m"},"request_id":"req_body"}"#;
    check([
        case("with retry-after", {
            let reply = envelope("rate_limit_error").header("retry-after", "30");
            [answered(200, reply, RateLimit, Wait::Asked(seconds(30)))]
        })
        .ways(CREATE)
        .then_succeeds(),
        case("with its id in the body only", {
            let reply = Reply::json(200, id).without_header("request-id");
            [answered(200, reply, Billing, Wait::Over).named("req_body")]
        })
        .ways(&[Plain, Streamed, Events, Count])
        .has_api_error(),
        case("with its id in the event only", {
            let script = StreamScript::new().event("error", id);
            let reply = Reply::stream(script).without_header("request-id");
            [answered(200, reply, Billing, Wait::Over).named("req_body")]
        })
        .ways(&[Streamed, Events])
        .has_api_error(),
    ]);
}

#[test]
fn unusable_response_fails_at_once() {
    let once = |reply| [answered(200, reply, ErrorKind::Decode, Wait::Over)];
    let typed: &[Way] = &[Plain, Streamed, Events, Count];
    check([
        case(
            "JSON of another shape",
            once(Reply::json(200, r#"{"status":"ok"}"#)),
        )
        .ways(CREATE)
        .says(["POST /v1/messages: the response is not a message: missing field `content` (req_test_000001)"]),
        case("JSON of another endpoint", once(Reply::json(200, MESSAGE)))
            .ways(&[Count])
            .says(["the response is not a token count: missing field `input_tokens` at line 3 column 49 (req_test_000001)"]),
        case("JSON that is no object", once(Reply::json(200, "[]"))).ways(typed),
        case("an empty body", once(Reply::json(200, ""))).ways(typed),
        case(
            "HTML",
            [Step {
                id: Id::Missing,
                ..once(Reply::html(200, "Log in to Wi-Fi"))[0].clone()
            }],
        )
        .ways(typed)
        .says(["Log in to Wi-Fi"]),
        case(
            "not UTF-8",
            once(Reply::json(200, "").body([0xff, 0xfe, 0xfd])),
        )
        .ways(typed),
        case(
            "JSON nested without end",
            once(Reply::json(200, "[".repeat(300_000))),
        )
        .ways(typed),
        case("an array in a message nested without end", {
            let deep = format!(r#"{{"content":[],"x":{}"#, "[".repeat(300_000));
            once(Reply::json(200, deep))
        })
        .ways(typed),
        case("a compressed body that was not requested", {
            let reply = Reply::json(200, "")
                .body([31, 139, 8, 0])
                .header("content-encoding", "br");
            once(reply)
        })
        .ways(typed)
        .says(["4 bytes compressed with br"]),
        case("no content", {
            [Step {
                status: Some(204),
                ..answered(204, Reply::status(204), ErrorKind::Decode, Wait::Over).anonymous()
            }]
        })
        .ways(typed),
    ]);
}
