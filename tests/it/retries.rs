//! How long a call goes on: policies, deadlines, the retry budget, shutdown, copies.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ManualClock, Reply, StreamScript};
use anthropic_blocking::{
    Client, ClientBuilder, Delivery, Error, ErrorKind, MessageRequest, Options, RetryPolicy,
};

use crate::support::{
    HANG, Lab, PROMPT, builder, builder_without_key, closed_port, ends, failures, is_stretched,
    millis, request, seconds, server,
};

fn broken() -> Reply {
    Reply::error(500, "api_error", "Internal server error")
}

#[test]
fn shutdown_wakes_a_long_sleep() {
    let system: fn(ClientBuilder, &ManualClock) -> ClientBuilder = |builder, _| builder;
    for with_clock in [system, |builder, clock| builder.clock(clock)] {
        let (server, clock) = (server(), ManualClock::held());
        server.push(Reply::rate_limited(3_600));
        let policy = RetryPolicy::new().max_wait(seconds(7_200));
        let builder = with_clock(builder(&server), &clock).retry(policy);
        let client = builder.build().expect("valid settings");
        let copy = client.with(Options::new().idle_timeout(seconds(5)));
        let waiting = thread::spawn(move || copy.messages().create(&request()));
        assert!(server.wait_for_requests(1, HANG));
        client.shutdown();
        let error = ends(move || waiting.join().expect("no panic")).expect_err("a shutdown");
        is_shut_down(&error, 1);
        for client in [client.clone(), client.with(Options::new()), client] {
            is_shut_down(
                &client
                    .messages()
                    .create(&request())
                    .expect_err("a shutdown"),
                0,
            );
            is_shut_down(&client.raw().get("/v1/models").expect_err("a shutdown"), 0);
        }
        assert_eq!(server.request_count(), 1);
    }
}

#[test]
fn shutdown_cuts_a_stalled_socket() {
    let stream = || StreamScript::text("One two three");
    let replies = [
        Reply::message("x").stall_before_headers(),
        Reply::json(200, r#"{"content":[]}"#).stall(5),
        Reply::stream(stream().stall_after(0)),
        Reply::stream(stream().stall_after(6)),
        Reply::error(500, "api_error", "m").stall(5),
    ];
    for (reply, streams) in replies
        .into_iter()
        .flat_map(|reply| [(reply.clone(), true), (reply, false)])
    {
        let server = server();
        server.push(reply.clone());
        let client = builder(&server)
            .stream_underneath(streams)
            .build()
            .expect("valid settings");
        let caller = client.clone();
        let waiting = thread::spawn(move || caller.messages().create(&request()));
        assert!(server.wait_for_requests(1, HANG));
        client.shutdown();
        let error = ends(move || waiting.join().expect("no panic")).expect_err("a shutdown");
        is_shut_down(&error, 1);
        let attempt = &error.attempts()[0];
        assert_eq!(attempt.failure, Some(ErrorKind::Shutdown), "{reply:?}");
        assert_ne!(attempt.delivery, Delivery::NotSent, "{reply:?}");
        assert_eq!(server.request_count(), 1, "{reply:?}");
        drop(client);
        assert!(server.wait_for_open_connections(0, HANG), "{reply:?}");
    }
}

#[test]
fn shutdown_ends_an_open_stream() {
    let server = server();
    server.push(Reply::stream(
        StreamScript::text("One two three").stall_after(5),
    ));
    let client = builder(&server).build().expect("valid settings");
    let mut stream = client.messages().stream(&request()).expect("a stream");
    let reading = thread::spawn(move || {
        let error = stream.find_map(Result::err).expect("an error at the end");
        assert!(stream.next().is_none(), "an item after the error");
        error
    });
    client.shutdown();
    let error = ends(move || reading.join().expect("no panic"));
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error:?}");
    assert_eq!(failures(error.attempts()), [Some(ErrorKind::Shutdown)]);
    assert!(
        error
            .partial()
            .is_some_and(|message| message.text().starts_with("One"))
    );
}

#[track_caller]
fn is_shut_down(error: &Error, attempts: usize) {
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error:?}");
    assert_eq!(error.attempts().len(), attempts, "{error:?}");
    assert!(
        error.to_string().contains(": the client was shut down"),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn deadline_covers_attempts_and_sleeps() {
    let lab = Lab::with(|builder| {
        let policy = RetryPolicy::new()
            .initial_backoff(seconds(40))
            .max_backoff(seconds(40));
        builder.deadline(seconds(100)).retry(policy)
    });
    lab.server
        .push_all([broken(), broken(), broken(), broken()]);
    let error = lab.create_error();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert_eq!(error.status(), Some(500));
    assert!(error.is_retryable());
    assert_eq!(lab.clock.sleeps(), [seconds(40), seconds(40)]);
    assert_eq!((error.attempts().len(), lab.server.request_count()), (3, 3));
    assert_eq!(
        error.to_string(),
        "POST /v1/messages: 500 api_error: Internal server error; the next attempt, in 40 s, would be \
         after the deadline (req_test_000003, 3 attempts)"
    );
}

#[test]
fn wait_just_within_the_deadline_is_taken() {
    let with = |deadline| {
        let lab = Lab::with(|builder| builder.deadline(deadline));
        lab.server.push(broken().header("retry-after", "30"));
        (lab.create().is_ok(), lab.clock.sleeps().len())
    };
    assert_eq!(with(seconds(34)), (true, 1));
    assert_eq!(with(seconds(30)), (false, 0));
}

#[test]
fn expired_deadline_sends_nothing() {
    let lab = Lab::new();
    let late = lab.client.with(Options::new().deadline(Duration::ZERO));
    let error = late
        .messages()
        .create(&request())
        .expect_err("no time at all");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "POST /v1/messages: the deadline passed");
    assert!(error.attempts().is_empty());
    assert_eq!(
        (lab.server.connection_count(), lab.clock.sleeps().len()),
        (0, 0)
    );
}

#[test]
fn refusal_with_a_stalled_body_is_known_by_status() {
    let server = server();
    server.respond_with(|_| Reply::error(400, "invalid_request_error", "a long story").stall(10));
    let ask = |streams| {
        let client = builder(&server).stream_underneath(streams).build();
        let client = client.expect("valid settings");
        thread::spawn(move || client.messages().create(&request()))
    };
    let calls = [ask(true), ask(false)];
    for error in ends(move || calls.map(|call| call.join().expect("no panic"))) {
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(error.status(), Some(400));
    }
}

#[test]
fn deadline_cuts_a_stalled_attempt() {
    let stream = || StreamScript::text("One two three");
    for (reply, streams) in [
        (Reply::message("x").stall_before_headers(), true),
        (Reply::message("x").stall_before_headers(), false),
        (Reply::json(200, r#"{"content":[]}"#).stall(5), false),
        (Reply::stream(stream().stall_after(0)), true),
        (Reply::stream(stream().stall_after(6)), true),
        (
            Reply::stream(stream().stall_after(6).pings_while_stalled(millis(1))),
            true,
        ),
        (
            Reply::json(200, "x".repeat(100_000)).dribble(1, millis(1)),
            false,
        ),
    ] {
        let lab = Lab::with(|builder| builder.deadline(millis(60)).stream_underneath(streams));
        lab.server.push(reply.clone());
        let error = lab.create_error();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?} of {reply:?}");
        assert!(
            error.to_string().contains(": the deadline passed"),
            "{error}"
        );
        assert_eq!(
            (error.attempts().len(), lab.clock.sleeps().len()),
            (1, 0),
            "{reply:?}"
        );
    }
}

#[test]
fn failure_storm_gets_ten_quick_retries_then_slow() {
    let quick = RetryPolicy::new()
        .initial_backoff(millis(1))
        .max_backoff(seconds(1));
    let quick = quick.max_attempts(3);
    let lab = Lab::with(|builder| builder.retry(quick));
    lab.server.respond_with(|_| broken());
    for _ in 0..10 {
        assert_eq!(lab.create_error().attempts().len(), 3);
    }
    let is_slow = |wait: &Duration| *wait >= millis(500) && *wait <= seconds(1);
    let sleeps = lab.clock.sleeps();
    assert_eq!(sleeps.len(), 20);
    assert!(
        sleeps[..10].iter().all(|wait| *wait <= millis(9)),
        "{sleeps:?}"
    );
    assert!(sleeps[10..].iter().all(is_slow), "{sleeps:?}");
    // Copies share the retry budget; limits and overloads do not use it; time and success refill
    // it.
    let next_is_slow = |client: &Client| {
        let before = lab.clock.sleeps().len();
        client.messages().create(&request()).expect_err("a failure");
        is_slow(&lab.clock.sleeps()[before])
    };
    let copy = lab.client.with(Options::new().deadline(seconds(60)));
    assert!(next_is_slow(&lab.client.clone()) && next_is_slow(&copy));
    lab.clock.advance(seconds(10));
    assert!(!next_is_slow(&copy) && next_is_slow(&lab.client));
    lab.server
        .push_all([Reply::rate_limited(1), Reply::overloaded()]);
    lab.server.respond_with(|_| Reply::message("Seven."));
    for _ in 0..10 {
        lab.create().expect("a response");
    }
    lab.server.respond_with(|_| broken());
    assert!(!next_is_slow(&lab.client));
}

#[test]
fn many_threads_survive_one_failure_each() {
    let lab = Lab::with(|builder| builder);
    let met = Mutex::new(HashSet::new());
    lab.server.respond_with(move |request| {
        match met.lock().expect("no panic").insert(request.text()) {
            true => Reply::html(502, "Bad Gateway"),
            false => Reply::message("Seven."),
        }
    });
    let client = &lab.client;
    thread::scope(|scope| {
        for number in 0..64 {
            scope.spawn(move || {
                let request = MessageRequest::new("claude-haiku-4-5", 64).user(number.to_string());
                client.messages().create(&request).expect("a response");
            });
        }
    });
    assert_eq!(lab.server.request_count(), 128);
}

#[test]
fn tiny_retry_after_makes_no_hot_loop() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().max_wait(seconds(30))));
    lab.server.respond_with(|_| {
        Reply::error(429, "rate_limit_error", "slow down").header("retry-after-ms", "1")
    });
    let error = lab.create_error();
    assert_eq!(error.kind(), ErrorKind::RateLimit);
    assert!(
        error.attempts().len() < 50,
        "{} attempts",
        error.attempts().len()
    );
}

#[test]
fn retry_after_on_a_broken_stream_is_ignored() {
    let lab = Lab::with(|builder| builder);
    let broken = StreamScript::text("a b").cut_after(5);
    lab.server
        .push(Reply::stream(broken).header("retry-after", "900"));
    let message = lab.create().expect("a response");
    assert_eq!(message.attempts().len(), 2);
    assert!(
        lab.clock.sleeps()[0] <= seconds(3),
        "{:?}",
        lab.clock.sleeps()
    );
}

#[test]
fn max_repeats_zero_forbids_repeating_broken_bodies() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().max_repeats(0)));
    let script = StreamScript::text("a b c").error_after(5, "overloaded_error", "Overloaded");
    lab.server.push(Reply::stream(script));
    let error = lab.create_error();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Overloaded, 1)
    );
    assert!(error.to_string().contains("billed"), "{error}");
}

#[test]
fn jitter_never_makes_a_wait_miss_the_deadline() {
    for seed in 0..20 {
        let lab = Lab::with(|builder| builder.seed(seed).deadline(seconds(20)));
        lab.server.push(Reply::rate_limited(19));
        lab.create().expect("a response in time");
    }
}

#[test]
fn endless_settings_are_accepted() {
    let lab = Lab::with(|builder| {
        builder
            .timeout(Duration::MAX)
            .idle_timeout(Duration::MAX)
            .connect_timeout(Duration::MAX)
            .deadline(Duration::MAX)
    });
    lab.create().expect("a response");
    let plain = lab.client.with(Options::new().stream_underneath(false));
    plain.messages().create(&request()).expect("a response");
}

#[test]
fn waits_for_limits_and_overloads_end_at_max_wait() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().max_wait(seconds(60))));
    lab.server.push_all([
        Reply::rate_limited(20),
        Reply::overloaded(),
        Reply::rate_limited(20),
    ]);
    lab.server
        .push_all(std::iter::repeat_n(Reply::overloaded(), 100));
    let error = lab.create_error();
    let sleeps = lab.clock.sleeps();
    let (waited, limited): (Duration, Duration) = (sleeps.iter().sum(), sleeps[0] + sleeps[2]);
    assert!(is_stretched(limited, seconds(40)), "{sleeps:?}");
    assert!(
        waited <= seconds(60) && waited > seconds(60 - 16),
        "{sleeps:?}"
    );
    assert_eq!(error.attempts().len(), sleeps.len() + 1);
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Overloaded, Some(529))
    );
    assert!(
        error.to_string().contains("max_wait (60 s) is used up"),
        "{error}"
    );
    assert!(error.is_retryable());
}

#[test]
fn policy_none_tries_once_and_never_waits() {
    for (reply, kind) in [
        (Reply::rate_limited(1), ErrorKind::RateLimit),
        (
            Reply::error(429, "rate_limit_error", "m"),
            ErrorKind::RateLimit,
        ),
        (Reply::overloaded(), ErrorKind::Overloaded),
        (broken(), ErrorKind::Server),
        (broken().header("retry-after", "1"), ErrorKind::Server),
        (
            Reply::status(400).header("x-should-retry", "true"),
            ErrorKind::InvalidRequest,
        ),
        (
            Reply::message("x").reset_before_headers(),
            ErrorKind::Connection,
        ),
        (
            Reply::stream(StreamScript::text("x").cut_after(1)),
            ErrorKind::Stream,
        ),
    ] {
        let lab = Lab::with(|builder| builder.retry(RetryPolicy::none()));
        lab.server.push(reply.clone());
        let error = lab.create_error();
        assert_eq!(error.kind(), kind, "{reply:?}");
        assert!(error.is_retryable(), "{reply:?}");
        assert_eq!(
            (error.attempts().len(), lab.server.request_count()),
            (1, 1),
            "{reply:?}"
        );
        assert!(lab.clock.sleeps().is_empty(), "{reply:?}");
    }
    let url = format!("http://127.0.0.1:{}", closed_port());
    let client = builder_without_key(&server())
        .api_key("k")
        .base_url(url)
        .retry(RetryPolicy::none());
    let error = client
        .build()
        .expect("valid settings")
        .raw()
        .get("/")
        .expect_err("nobody listens");
    assert_eq!(error.attempts().len(), 1);
}

#[test]
fn meta_lists_each_attempt_and_its_wait() {
    let lab = Lab::new();
    lab.server.push_all([
        Reply::overloaded(),
        Reply::rate_limited(20),
        Reply::html(502, "502 Bad Gateway"),
        Reply::message("x").reset_before_headers(),
    ]);
    let message = lab.create().expect("a response");
    let attempts = message.attempts();
    use ErrorKind::*;
    let kinds = [
        Some(Overloaded),
        Some(RateLimit),
        Some(Server),
        Some(Connection),
        None,
    ];
    assert_eq!(failures(attempts), kinds);
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(529), Some(429), Some(502), None, Some(200)]);
    let deliveries: Vec<_> = attempts.iter().map(|attempt| attempt.delivery).collect();
    let answered = Delivery::Responded;
    assert_eq!(
        deliveries,
        [answered, answered, answered, Delivery::Unknown, answered]
    );
    let ids: Vec<_> = attempts
        .iter()
        .map(|a| a.request_id.as_ref().map(|id| id.as_str()))
        .collect();
    let id = |id| Some(id);
    assert_eq!(
        ids,
        [
            id("req_test_000001"),
            id("req_test_000002"),
            None,
            None,
            id("req_test_000005")
        ]
    );
    assert!(attempts[0].waited.is_empty());
    let waited: Duration = attempts.iter().map(|attempt| attempt.waited.total()).sum();
    let slept: Duration = lab.clock.sleeps().iter().sum();
    assert!(waited.abs_diff(slept) < millis(1), "{waited:?}, {slept:?}");
    assert_eq!(message.waited().total(), waited);
    assert_eq!(
        message.request_id().map(|id| id.as_str()),
        Some("req_test_000005")
    );
}

#[test]
fn attempt_reports_its_duration() {
    let server = server();
    server.push(Reply::message("x").delay(millis(30)));
    let client = builder(&server).build().expect("valid settings");
    let message = client.messages().create(&request()).expect("a response");
    assert!(message.attempts()[0].took >= millis(30));
}

#[test]
fn rate_limits_come_from_the_last_response() {
    let lab = Lab::new();
    let left =
        |left: &str| Reply::message("x").header("anthropic-ratelimit-requests-remaining", left);
    lab.server.push_all([
        Reply::rate_limited(7),
        left("48").header("retry-after", "9"),
    ]);
    let message = lab.create().expect("a response");
    let requests = message.rate_limits().requests.expect("the headers");
    assert_eq!((requests.remaining, requests.limit), (Some(48), None));
    assert_eq!(message.rate_limits().retry_after, Some(seconds(9)));
    let policy = Options::new().retry(RetryPolicy::none());
    lab.server.push(Reply::rate_limited(7));
    let error = lab
        .client
        .with(policy)
        .messages()
        .create(&request())
        .expect_err("a limit");
    let tokens = error.rate_limits().input_tokens.expect("the headers");
    assert_eq!((tokens.limit, tokens.remaining), (Some(50_000), Some(0)));
    assert!(tokens.reset.is_some());
    assert_eq!(error.retry_after(), Some(seconds(7)));
}

#[test]
fn copy_with_settings_leaves_the_original_alone() {
    let lab = Lab::with(|builder| builder.beta("a").header("x-team", "one"));
    let options = Options::new()
        .retry(RetryPolicy::none())
        .header("x-team", "two")
        .and_then(|options| options.beta("b"))
        .and_then(|options| options.header("authorization", "Bearer other"))
        .expect("valid headers");
    let copy = lab.client.with(options);
    lab.server.push(broken());
    copy.messages().create(&request()).expect_err("a failure");
    lab.server.push(broken());
    assert_eq!(lab.create().expect("a response").attempts().len(), 2);
    let requests = lab.server.take_requests();
    assert_eq!(requests.len(), 3);
    let header = |index: usize, name: &str| requests[index].header(name).map(str::to_owned);
    let value = |value: &str| Some(value.to_owned());
    assert_eq!(header(0, "x-team"), value("two"));
    assert_eq!(header(0, "anthropic-beta"), value("a,b"));
    assert_eq!(header(0, "authorization"), value("Bearer other"));
    assert_eq!(header(0, "x-api-key"), None);
    assert_eq!(header(1, "x-team"), value("one"));
    assert_eq!(header(1, "anthropic-beta"), value("a"));
    assert_eq!(header(1, "authorization"), None);
    assert!(header(1, "x-api-key").is_some());
}

#[test]
fn copy_has_its_own_timeouts() {
    let lab = Lab::new();
    let mute = || Reply::message("x").stall_before_headers();
    for options in [
        Options::new().idle_timeout(millis(40)),
        Options::new().deadline(millis(40)),
        Options::new().idle_timeout(Duration::ZERO),
    ] {
        lab.server.push_all([mute(), mute()]);
        let copy = lab.client.with(options);
        let error = copy.messages().create(&request()).expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        while lab.server.unused_replies() > 0 {
            let _ = copy.raw().get("/");
        }
    }
    lab.create()
        .expect("a response within the original's times");
}

#[test]
fn jitter_is_reproducible_from_its_seed() {
    let waits = |seed, calls: usize| {
        let lab = Lab::with(|builder| builder.seed(seed));
        for _ in 0..calls {
            lab.server.push_all([broken(), Reply::rate_limited(20)]);
            lab.create().expect("a response");
        }
        lab.clock.sleeps()
    };
    let first = waits(1, 3);
    assert_eq!(first, waits(1, 3));
    assert_ne!(first, waits(2, 3));
    let mut different = first.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 6, "{first:?}");
}

#[test]
fn each_attempt_sends_the_prompt_unchanged() {
    let lab = Lab::new();
    lab.server.push_all([
        Reply::overloaded(),
        Reply::rate_limited(1),
        Reply::message("x").reset_in_headers(),
        broken(),
    ]);
    let odd = format!("{PROMPT} \u{0} \u{1f980} \"\\\n");
    let request = MessageRequest::new("claude-haiku-4-5", 256).user(odd.as_str());
    let message = lab.client.messages().create(&request).expect("a response");
    assert_eq!(message.attempts().len(), 5);
    let requests = lab.server.take_requests();
    for sent in &requests {
        assert_eq!(sent.json()["messages"][0]["content"], odd.as_str());
        assert_eq!(
            (&sent.body, &sent.headers),
            (&requests[0].body, &requests[0].headers)
        );
    }
}
