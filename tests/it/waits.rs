//! The fault matrix for limits, overloads and failures: how long each wait lasts.

use std::time::Duration;

use anthropic_blocking::testing::Reply;
use anthropic_blocking::{ErrorKind, RetryPolicy};

use crate::matrix::*;
use crate::support::{millis, seconds};

#[test]
fn rate_limits_are_awaited() {
    let asked = |seconds_| Wait::Asked(seconds(seconds_));
    let concurrent = "Number of concurrent connections has exceeded your rate limit";
    check([
        case("per minute", [limit(Reply::rate_limited(20), asked(20))])
            .then_succeeds()
            .ways(ALL),
        case("twelve times in one call, which uses no attempt", {
            limit(Reply::rate_limited(20), asked(20)).times(12)
        })
        .then_succeeds(),
        case("with the policy of a single attempt", {
            limit(Reply::rate_limited(3), asked(3)).times(4)
        })
        .then_succeeds()
        .tune(|builder| builder.retry(RetryPolicy::new().max_attempts(1))),
        case("ramp", {
            let ramp = coded(429, "rate_limit_error", "ramp_limit_exceeded");
            [limit(ramp.header("retry-after", "30"), asked(30))]
        })
        .then_succeeds(),
        case("ramp, by an old text without retry-after", {
            let old = limited("This request would exceed your organization's acceleration limit");
            [limit(old, Wait::Backoff)]
        })
        .then_succeeds(),
        case(
            "concurrent connections",
            [limit(limited(concurrent), Wait::Backoff)],
        )
        .then_succeeds(),
        case("fast mode", {
            let fast = Reply::rate_limited(5).header("anthropic-fast-input-tokens-remaining", "0");
            [limit(fast, asked(5))]
        })
        .then_succeeds(),
        case("HTML with retry-after", {
            let page = Reply::html(429, "Too Many Requests").header("retry-after", "9");
            [limit(page, asked(9)).anonymous()]
        })
        .then_succeeds(),
        case("empty with retry-after", {
            let empty = Reply::status(429).header("retry-after", "9");
            [limit(empty, asked(9)).anonymous()]
        })
        .then_succeeds(),
        case(
            "truncated with retry-after",
            [limit(Reply::rate_limited(9).truncate(9), asked(9))],
        )
        .then_succeeds(),
        case("reset in the body with retry-after", {
            [limit(Reply::rate_limited(9).reset_in_body(9), asked(9))]
        })
        .then_succeeds(),
        case(
            "without retry-after, five times",
            limit(limited("Slow down."), Wait::Backoff).times(5),
        )
        .retryable()
        .has_api_error()
        .says(["429 rate_limit_error: Slow down (req_test_000005, 5 attempts)"]),
    ]);
}

#[test]
fn retry_after_is_parsed_in_all_forms() {
    // The clock shows 2026-01-01 00:00:00 UTC, a Thursday.
    let waits = |value: &str, wait| {
        let reply = limited("m").header("retry-after", value);
        case(format!("retry-after: {value}"), [limit(reply, wait)]).then_succeeds()
    };
    let asked = |millis_| Wait::Asked(millis(millis_));
    let pair = |ms: &str, seconds: &str, wait| {
        let reply = limited("m")
            .header("retry-after-ms", ms)
            .header("retry-after", seconds);
        case(
            format!("retry-after-ms: {ms}, retry-after: {seconds}"),
            [limit(reply, wait)],
        )
        .then_succeeds()
    };
    let dated = |then: &str, now: &str, wait| {
        let reply = limited("m").header("retry-after", then).header("date", now);
        case(format!("{then} at {now}"), [limit(reply, wait)]).then_succeeds()
    };
    let twenty = "Thu, 01 Jan 2026 00:00:20 GMT";
    check([
        waits("7", asked(7_000)),
        waits(" 7 ", asked(7_000)),
        waits("0.25", asked(250)),
        waits("7.5", asked(7_500)),
        waits("1e1", asked(10_000)),
        waits("600", asked(600_000)),
        waits(twenty, asked(20_000)),
        waits("Thursday, 01-Jan-26 00:00:20 GMT", asked(20_000)),
        waits("Thu Jan  1 00:00:20 2026", asked(20_000)),
        waits("2026-01-01T00:00:20Z", asked(20_000)),
        dated(twenty, "Thu, 01 Jan 2026 00:00:13 GMT", asked(7_000)),
        dated(twenty, "Wed, 31 Dec 2025 23:59:59 GMT", asked(21_000)),
        dated(twenty, twenty, Wait::Backoff),
        dated(twenty, "today", asked(20_000)),
        pair("1500", "20", asked(1_500)),
        pair("0.5", "20", Wait::Asked(Duration::from_micros(500))),
        pair("soon", "20", asked(20_000)),
        pair("-1", "20", asked(20_000)),
        pair("0", "0", Wait::Backoff),
        waits("0", Wait::Backoff),
        waits("-5", Wait::Backoff),
        waits("soon", Wait::Backoff),
        waits("", Wait::Backoff),
        waits("nan", Wait::Backoff),
        waits("inf", Wait::Backoff),
        waits("5 seconds", Wait::Backoff),
        waits("Wed, 31 Dec 2025 23:59:59 GMT", Wait::Backoff),
        waits("Thu, 01 Jan 1970 00:00:00 GMT", Wait::Backoff),
        waits("Fri, 41 Jan 2026 00:00:20 GMT", Wait::Backoff),
        waits("\u{663}", Wait::Backoff),
    ]);
}

#[test]
fn wait_over_max_wait_fails_at_once() {
    const LONGEST: Duration = Duration::from_secs(4_294_967);
    let asks = |value: &str| limit(limited("m").header("retry-after", value), Wait::Over);
    let year = "Thu, 31 Dec 2026 00:00:00 GMT";
    check(
        [
            case("a second more than max_wait", [asks("601")])
                .retry_after(seconds(601))
                .says([
                    "the server asks to wait 10 min 1 s",
                    "max_wait (10 min 0 s)",
                ]),
            case("more than is left of max_wait", {
                let pause = limit(Reply::rate_limited(400), Wait::Asked(seconds(400)));
                [pause, asks("300")]
            })
            .retry_after(seconds(300))
            .says(["which is more than is left of max_wait", "2 attempts"]),
            case("half a billion years", [asks("1e16")]).retry_after(LONGEST),
            case("a number without end", [asks(&"9".repeat(300))]).retry_after(LONGEST),
            case("a date in a year", [asks(year)]).retry_after(LONGEST),
            case("longer than the deadline", [asks("60")])
                .tune(|builder| builder.deadline(seconds(30)))
                .retry_after(seconds(60))
                .says([
                    "429 rate_limit_error: m; the next attempt, in ",
                    "after the deadline",
                ]),
            case("longer than the deadline, an overload", {
                let reply = Reply::overloaded().header("retry-after", "60");
                [answered(529, reply, ErrorKind::Overloaded, Wait::Over)]
            })
            .tune(|builder| builder.deadline(seconds(30)))
            .retry_after(seconds(60))
            .says(["after the deadline"]),
            case("longer than max_wait, an overload", {
                let reply = Reply::overloaded().header("retry-after", "601");
                [answered(529, reply, ErrorKind::Overloaded, Wait::Over)]
            })
            .retry_after(seconds(601))
            .says(["the server asks to wait 10 min 1 s"]),
            case("longer than max_wait, a failure", {
                let reply = Reply::error(500, "api_error", "m").header("retry-after", "601");
                [answered(500, reply, ErrorKind::Server, Wait::Over)]
            })
            .retry_after(seconds(601))
            .says(["the server asks to wait 10 min 1 s, which is more than is left of max_wait"]),
        ]
        .map(|row| row.retryable().has_api_error()),
    );
    check([case("weeks, for one who has them", {
        let reply = limited("m").header("retry-after", "1e16");
        [limit(reply, Wait::Asked(LONGEST))]
    })
    .tune(|builder| builder.retry(RetryPolicy::new().max_wait(Duration::MAX)))
    .then_succeeds()]);
}

#[test]
fn overloads_do_not_count_as_attempts() {
    let overloaded = || answered(529, Reply::overloaded(), ErrorKind::Overloaded, Wait::Gate);
    let failed = || {
        let reply = Reply::error(500, "api_error", "m");
        answered(500, reply, ErrorKind::Server, Wait::Backoff)
    };
    let load = "overloaded_error";
    check([
        case("once", [overloaded()]).then_succeeds().ways(ALL),
        case("nine times", overloaded().times(9)).then_succeeds(),
        case("with the policy of a single attempt", overloaded().times(3))
            .then_succeeds()
            .tune(|builder| builder.retry(RetryPolicy::new().max_attempts(1))),
        case("with retry-after", {
            let wait = Wait::GateOrAsked(seconds(40));
            let reply = Reply::overloaded().header("retry-after", "40");
            [
                answered(529, reply, ErrorKind::Overloaded, wait),
                overloaded(),
            ]
        })
        .then_succeeds(),
        case(
            "HTML",
            [answered(
                529,
                Reply::html(529, "Busy"),
                ErrorKind::Overloaded,
                Wait::Gate,
            )
            .anonymous()],
        )
        .then_succeeds(),
        case(
            "as a 503",
            [answered(
                503,
                Reply::error(503, load, "m"),
                ErrorKind::Overloaded,
                Wait::Gate,
            )],
        )
        .then_succeeds(),
        case(
            "as a 500",
            [answered(
                500,
                Reply::error(500, load, "m"),
                ErrorKind::Overloaded,
                Wait::Gate,
            )],
        )
        .then_succeeds(),
        case("a 503 that says when", {
            let reply = Reply::html(503, "Maintenance").header("retry-after", "20");
            let wait = Wait::GateOrAsked(seconds(20));
            [answered(503, reply, ErrorKind::Overloaded, wait).anonymous()]
        })
        .then_succeeds(),
        case("among failures, with backoffs of their own", {
            [
                failed(),
                overloaded(),
                failed(),
                overloaded(),
                failed(),
                failed(),
            ]
        })
        .then_succeeds(),
        case("among failures, until the attempts are used up", {
            [
                failed(),
                overloaded(),
                failed(),
                failed(),
                overloaded(),
                failed(),
                failed(),
            ]
        })
        .retryable()
        .has_api_error(),
    ]);
}

#[test]
fn failures_are_retried_until_attempts_run_out() {
    let failed = |status, reply| answered(status, reply, ErrorKind::Server, Wait::Backoff);
    let internal = || {
        failed(
            500,
            Reply::error(500, "api_error", "Internal server error."),
        )
    };
    check([
        case("five times", internal().times(5))
            .retryable()
            .has_api_error()
            .ways(ALL)
            .says(["500 api_error: Internal server error (req_test_000005, 5 attempts)"]),
        case("four times", internal().times(4)).then_succeeds().ways(ALL),
        case("each in its way", {
            [
                failed(502, Reply::html(502, "502 Bad Gateway")).anonymous(),
                failed(520, Reply::status(520)).anonymous(),
                failed(504, Reply::error(504, "timeout_error", "m")),
                failed(408, Reply::status(408)).anonymous(),
            ]
        })
        .then_succeeds(),
        case("with retry-after as the least wait", {
            let reply = Reply::error(500, "api_error", "m").header("retry-after", "40");
            let wait = Wait::BackoffOrAsked(seconds(40));
            [answered(500, reply, ErrorKind::Server, wait), internal()]
        })
        .then_succeeds(),
        case("with a short retry-after, which does not shorten the backoff", {
            let reply = Reply::error(500, "api_error", "m").header("retry-after", "0.001");
            [answered(500, reply, ErrorKind::Server, Wait::BackoffOrAsked(millis(1)))]
        })
        .then_succeeds(),
        case("three times, as set", internal().times(3))
            .tune(|builder| builder.retry(RetryPolicy::new().max_attempts(3)))
            .retryable()
            .has_api_error(),
        case("the id of the last exchange, from the body alone", {
            let reply = Reply::error(400, "invalid_request_error", "m").header("request-id", "req_b");
            let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"m"},"request_id":"req_body"}"#;
            let reply = reply.without_header("request-id").body(body);
            [internal(), answered(400, reply, ErrorKind::InvalidRequest, Wait::Over).named("req_body")]
        })
        .has_api_error()
        .says(["(req_body, 2 attempts)"]),
    ]);
}
