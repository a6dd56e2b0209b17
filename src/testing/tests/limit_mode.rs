//! The limit mode through a bare socket. No test depends on the speed of the machine.

use std::thread;
use std::time::{Duration, Instant};

use super::super::{Charging, Reply, ServerLimits, TestServer};
use super::support::{RawClient, post, request, started};

#[test]
fn empty_bucket_refuses_until_retry_after() {
    let server = limited(ServerLimits::per_minute(100, 6_000, 500).scale(200.0));
    let mut client = RawClient::to(&server);
    // The bucket fills by 20 tokens in a millisecond meanwhile: it takes a few requests to empty
    // it.
    let mut responses = (0..10_000).map(|_| client.send_and_read(&sized("input=5000 output=1", 9)));
    let refused = responses
        .find(|response| response.status != 200)
        .expect("a refusal");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-should-retry"), "true");
    assert_eq!(
        refused.header("anthropic-ratelimit-input-tokens-limit"),
        "6000"
    );
    let remaining = refused.header("anthropic-ratelimit-input-tokens-remaining");
    let remaining: u64 = remaining.parse().expect("a number");
    assert!(
        remaining.is_multiple_of(1_000) && remaining <= 5_000,
        "{remaining}"
    );
    assert_eq!(
        refused.header("anthropic-ratelimit-output-tokens-limit"),
        "500"
    );
    assert_eq!(refused.header("anthropic-ratelimit-tokens-limit"), "6500");
    assert!(
        refused
            .header("anthropic-ratelimit-input-tokens-reset")
            .ends_with('Z')
    );
    assert!(refused.header("date").ends_with(" GMT"));
    let body = refused.json();
    assert_eq!(body["error"]["type"], "rate_limit_error");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with(
            "This request would exceed your organization's rate limit of 6,000 input tokens per \
             minute (org: 00000000-0000-4000-8000-000000000001, model: claude-opus-5-20260101). \
             For details, refer to: https://"
        ),
        "{message}"
    );
    let seconds: u64 = refused
        .header("retry-after")
        .parse()
        .expect("whole seconds");
    assert!((1..=50).contains(&seconds), "{seconds}");
    thread::sleep(Duration::from_secs(seconds) / 200);
    let response = client.send_and_read(&sized("input=5000 output=1", 9));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("retry-after"), "");

    let ledger = server.ledger();
    let class = &ledger.classes[0];
    assert_eq!(class.class, "claude-opus-5");
    let charged = class.charged;
    assert_eq!(class.refused.input_tokens, 1);
    assert_eq!(ledger.rate_limited(), 1);
    assert_eq!(charged.requests, server.request_count() as u64 - 1);
    assert_eq!(charged.input_tokens, charged.requests * 5_000);
    assert_eq!(charged.output_tokens, charged.requests);
    assert!(class.worst_minute.input_tokens <= 12_000);
    assert_eq!(class.admissions.len() as u64, charged.requests);
}

#[test]
fn request_larger_than_a_bucket_is_not_retried() {
    let server = limited(ServerLimits::per_minute(100, 6_000, 500));
    let response = RawClient::to(&server).send_and_read(&sized("input=6001", 9));
    assert_eq!(
        (response.status, response.header("x-should-retry")),
        (429, "false")
    );
    assert_eq!(response.header("retry-after"), "");
    assert_eq!(
        response.header("anthropic-ratelimit-input-tokens-remaining"),
        "6000"
    );
    assert_eq!(
        response.header("anthropic-ratelimit-requests-remaining"),
        "100"
    );
    assert_eq!(
        response.header("anthropic-ratelimit-output-tokens-limit"),
        ""
    );
    assert_eq!(response.header("anthropic-ratelimit-tokens-limit"), "");
}

#[test]
fn overloads_are_529_as_recorded() {
    let day = Duration::from_secs(86_400);
    let server = limited(ServerLimits::per_minute(1, 1, 1).overload(Duration::ZERO, day, 1.0));
    let mut client = RawClient::to(&server);
    for _ in 0..3 {
        let response = client.send_and_read(&sized("", 9));
        assert_eq!(
            (response.status, response.header("x-should-retry")),
            (529, "true")
        );
        assert_eq!(response.header("retry-after"), "");
        assert!(
            !response.head.contains("anthropic-ratelimit"),
            "{}",
            response.head
        );
        assert!(response.json().get("request_id").is_none());
    }
    assert_eq!(
        (server.ledger().overloaded(), server.ledger().admitted()),
        (3, 0)
    );
}

#[test]
fn tenant_that_takes_all_leaves_nothing() {
    let limits = ServerLimits::per_minute(2, 100_000, 100_000);
    let server = limited(
        limits
            .scale(1e6)
            .tenant_bursts(1.0, Duration::MAX, Duration::ZERO),
    );
    let mut client = RawClient::to(&server);
    let statuses = [(); 4].map(|()| client.send_and_read(&sized("", 9)).status);
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(server.ledger().classes[0].refused.requests, 2);
}

#[test]
fn max_tokens_can_be_reserved() {
    // Because of the tenant, nothing flows into the bucket meanwhile.
    let limits = ServerLimits::per_minute(100, 100_000, 1_000).tenant_bursts(
        1.0,
        Duration::MAX,
        Duration::ZERO,
    );
    let server = limited(limits.charging(Charging::Reserved));
    let mut client = RawClient::to(&server);
    for _ in 0..3 {
        assert_eq!(client.send_and_read(&sized("output=10", 600)).status, 200);
    }
    let mut slow = RawClient::to(&server);
    slow.send(&sized("output=10 latency_ms=3600000", 600));
    while server.ledger().admitted() < 4 {
        thread::yield_now();
    }
    let response = client.send_and_read(&sized("output=10", 600));
    assert_eq!(response.status, 429);
    assert!(
        response.json()["error"]["message"]
            .to_string()
            .contains("1,000 output tokens")
    );
    assert_eq!(client.send_and_read(&sized("output=10", 300)).status, 200);
    assert_eq!(server.ledger().classes[0].refused.output_tokens, 1);
    let stopped = Instant::now();
    server.stop();
    assert!(stopped.elapsed() < Duration::from_secs(10));
}

#[test]
fn responses_have_the_stated_sizes_and_latency() {
    let limits = ServerLimits::per_minute(100, 100_000, 100_000).scale(20.0);
    let server = limited(limits.latency(Duration::from_secs(2), 0.0).output(40, 0.0));
    let mut client = RawClient::to(&server);
    let begun = Instant::now();
    let response = client.send_and_read(&sized("input=70 cache_read=9", 100));
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let message = response.json();
    assert_eq!(message["usage"]["input_tokens"], 70);
    assert_eq!(message["usage"]["cache_read_input_tokens"], 9);
    assert_eq!(message["usage"]["output_tokens"], 40);
    assert_eq!(message["stop_reason"], "end_turn");
    assert_eq!(
        message["content"][0]["text"].as_str().map(str::len),
        Some(160)
    );
    let message = client.send_and_read(&sized("output=40", 15)).json();
    assert_eq!(message["usage"]["output_tokens"], 15);
    assert_eq!(message["stop_reason"], "max_tokens");

    let begun = Instant::now();
    let body = body("cache_read=9", 100).replacen('{', r#"{"stream":true,"#, 1);
    let response = client.send_and_read(&post(&body));
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let text = response.text();
    assert_eq!(text.matches("event: content_block_delta").count(), 16);
    assert!(text.contains(r#""cache_read_input_tokens":9"#), "{text}");
    assert!(text.contains(r#""usage":{"output_tokens":40}"#), "{text}");
    assert!(text.ends_with("message_stop\"}\n\n"));
    assert_eq!(server.ledger().classes[0].charged.output_tokens, 95);
}

#[test]
fn only_valid_canned_messages_are_limited() {
    let server = limited(ServerLimits::per_minute(1, 100, 100));
    let mut client = RawClient::to(&server);
    for _ in 0..2 {
        let count = request("POST", "/v1/messages/count_tokens", &body("", 9));
        assert_eq!(client.send_and_read(&count).status, 200);
        assert_eq!(client.send_and_read(&post("{}")).status, 400);
        server.push(Reply::message("scripted"));
        assert_eq!(client.send_and_read(&sized("", 9)).status, 200);
    }
    assert_eq!(server.ledger().admitted(), 0);
    server.push(Reply::canned().header("x", "y"));
    let response = client.send_and_read(&sized("", 9));
    assert_eq!((response.header("x"), server.ledger().admitted()), ("y", 1));
    assert_eq!(
        response.header("anthropic-ratelimit-requests-remaining"),
        "0"
    );
    let text = response.json()["content"][0]["text"].to_string();
    assert!(text.contains("You said: "), "{text}");
}

#[test]
fn connections_share_the_ledger() {
    let limits = ServerLimits::per_minute(1_000_000, 100_000_000, 100_000_000);
    let server = limited(limits.latency(Duration::from_secs(5), 0.6).scale(1e3));
    server.keep_requests(false);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = RawClient::to(&server);
                for _ in 0..20 {
                    assert_eq!(
                        client.send_and_read(&sized("input=100 output=7", 9)).status,
                        200
                    );
                }
            });
        }
    });
    let ledger = server.ledger();
    let charged = ledger.classes[0].charged;
    let expected = (320, 32_000, 2_240);
    assert_eq!(
        (
            charged.requests,
            charged.input_tokens,
            charged.output_tokens
        ),
        expected
    );
    assert!((1..=16).contains(&ledger.most_open), "{}", ledger.most_open);
    assert!(ledger.last_end > ledger.last_arrival);
}

#[track_caller]
fn limited(limits: ServerLimits) -> TestServer {
    let server = started();
    server.limit(limits);
    server
}

/// A request that states its sizes.
fn sized(cost: &str, max_tokens: u64) -> Vec<u8> {
    post(&body(cost, max_tokens))
}

fn body(cost: &str, max_tokens: u64) -> String {
    format!(
        r#"{{"model":"claude-opus-5-20260101","max_tokens":{max_tokens},"messages":[{{"role":"user","content":"Hi [cost {cost}]"}}]}}"#
    )
}
