//! How the client handles limits: which calls wait, which do not, and what is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ManualClock, Reply, StreamScript, TestServer};
use anthropic_blocking::{
    Budget, Client, Cost, Dimension, ErrorKind, InputEstimate, Limits, Message, MessageRequest,
    Model, ModelClass, Options, Prices, RateLimits, RetryPolicy, WaitCause,
};

use crate::matrix::limited;
use crate::support::*;

/// Sends the usual prompt to the given model.
fn ask(client: &Client, model: &str) -> Message {
    let request = MessageRequest::new(model, 256).user(PROMPT);
    client.messages().create(&request).expect("a response")
}

fn with_short_max_wait(client: &Client) -> Client {
    client.with(Options::new().retry(RetryPolicy::none()))
}

#[test]
fn rate_limit_pauses_only_its_class() {
    let lab = Lab::new();
    lab.server.push(Reply::rate_limited(20));
    let refused = with_short_max_wait(&lab.client)
        .messages()
        .create(&request());
    assert_eq!(refused.expect_err("a 429").kind(), ErrorKind::RateLimit);
    assert!(ask(&lab.client, "claude-sonnet-4-6").waited().is_empty());
    let same = ask(&lab.client, "claude-haiku-4-5-20251001").waited();
    assert!(same.of(WaitCause::Pause) >= seconds(20), "{same:?}");
    assert!(same.total() < seconds(21), "{same:?}");
}

#[test]
fn final_429_pauses_nobody() {
    for reply in [
        Reply::rate_limited(20).header("x-should-retry", "false"),
        Reply::error_code(429, "rate_limit_error", "enforced_spend_limit_reached", "m")
            .header("retry-after", "20"),
    ] {
        let lab = Lab::new();
        lab.server.push(reply);
        assert!(!lab.create_error().is_retryable());
        assert!(lab.create().expect("a response").waited().is_empty());
    }
}

#[test]
fn overload_pauses_all_classes_of_the_host() {
    let lab = Lab::new();
    lab.server.push(Reply::overloaded());
    let refused = with_short_max_wait(&lab.client)
        .messages()
        .create(&request());
    assert_eq!(refused.expect_err("a 529").kind(), ErrorKind::Overloaded);
    let other = ask(&lab.client, "claude-sonnet-4-6").waited();
    assert!(other.of(WaitCause::Overload) >= millis(250), "{other:?}");
}

#[test]
fn deadline_before_the_pause_ends_fails_at_once() {
    let lab = Lab::new();
    lab.server
        .push_all([Reply::rate_limited(20), Reply::overloaded()]);
    let client = with_short_max_wait(&lab.client);
    let hurried = lab.client.with(Options::new().deadline(seconds(5)));
    let ask = |client: &Client, model: &str| {
        let request = MessageRequest::new(model, 256).user(PROMPT);
        client.messages().create(&request).expect_err("in haste")
    };
    ask(&client, "claude-haiku-4-5");
    let error = ask(&hurried, "claude-haiku-4-5");
    assert_eq!(error.kind(), ErrorKind::RateLimit, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("no admission within 5.0 s, but after 20"),
        "{text}"
    );
    assert!(text.contains("the server asked to wait"), "{text}");
    assert!(error.is_retryable() && error.attempts().is_empty());

    ask(&client, "claude-sonnet-4-6");
    let hurried = lab.client.with(Options::new().deadline(millis(100)));
    let error = ask(&hurried, "claude-opus-5");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert_eq!(lab.server.request_count(), 2);
    assert_eq!(lab.clock.sleeps(), []);
}

#[test]
fn own_limits_are_kept_and_waits_are_reported() {
    let limits = Limits::per_minute().requests(2);
    let lab = Lab::with(|builder| builder.limits(limits));
    for _ in 0..2 {
        assert!(lab.create().expect("a response").waited().is_empty());
    }
    let third = lab.create().expect("a response").waited();
    let limit = third.of(WaitCause::Limit(Dimension::Requests));
    assert!(limit > seconds(59) && limit < seconds(61), "{third:?}");
    let totals = lab.client.totals();
    assert_eq!(totals.all.waited, third);
    assert_eq!((totals.all.calls, totals.all.attempts), (3, 3));
}

#[test]
fn request_over_own_limits_is_refused_unsent() {
    let limits = Limits::per_minute().input_tokens(100);
    let lab = Lab::with(|builder| builder.limits(limits));
    let exact = Options::new().input_estimate(InputEstimate::Exact(101));
    let large = lab.client.with(exact).messages().create(&request());
    let error = large.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Budget);
    let text = error.to_string();
    assert!(
        text.contains("a request of 101 input tokens can never fit the limit of 100 per minute"),
        "{text}"
    );
    assert!(!error.is_retryable());
    assert_eq!(lab.server.request_count(), 0);
    lab.create().expect("a small one");
}

#[test]
fn request_over_server_limits_fails_after_one_429() {
    let lab = Lab::with(|builder| builder.input_estimate(InputEstimate::Exact(60_000)));
    lab.server.push(Reply::rate_limited(20));
    let error = lab.create_error();
    assert_eq!(error.kind(), ErrorKind::RateLimit);
    let text = error.to_string();
    assert!(
        text.contains("60000 input tokens can never fit the limit of 50000"),
        "{text}"
    );
    assert!(!error.is_retryable());
    assert_eq!((error.attempts().len(), lab.server.request_count()), (1, 1));
}

#[test]
fn request_over_a_full_bucket_is_not_resent() {
    let lab = Lab::new();
    let refused = limited("This would exceed the rate limit of 1,000 input tokens per minute")
        .header("anthropic-ratelimit-input-tokens-limit", "1000")
        .header("anthropic-ratelimit-input-tokens-remaining", "1000")
        .header("retry-after", "10");
    lab.server.push(refused);
    let large = request().user("word ".repeat(2_000));
    let error = lab.client.messages().create(&large).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::RateLimit, "{error}");
    assert!(
        error
            .to_string()
            .contains("can never fit the limit of 1000"),
        "{error}"
    );
    assert!(!error.is_retryable());
    assert_eq!(lab.server.request_count(), 1);
}

#[test]
fn input_is_counted_if_requested() {
    let lab = Lab::with(|builder| builder.input_estimate(InputEstimate::Counted));
    lab.server.push_all([
        Reply::json(200, r#"{"input_tokens":777}"#),
        Reply::message("Seven."),
        // If counting fails, the input is estimated.
        Reply::error(404, "not_found_error", "no such endpoint"),
        Reply::message("Eight."),
    ]);
    assert_eq!(lab.create().expect("a response").text(), "Seven.");
    assert_eq!(lab.create().expect("a response").text(), "Eight.");
    let requests = lab.server.requests();
    let paths: Vec<_> = requests
        .iter()
        .map(|request| request.path.as_str())
        .collect();
    let (count, create) = ("/v1/messages/count_tokens", "/v1/messages");
    assert_eq!(paths, [count, create, count, create]);
}

#[test]
fn plan_estimates_time_and_cost() {
    let limits = Limits::per_minute().requests(10);
    let lab = Lab::with(|builder| {
        let builder = builder.limits(limits);
        builder.input_estimate(InputEstimate::Exact(1_000_000))
    });
    let requests = vec![request(); 30];
    let plan = lab.client.messages().plan(&requests).expect("a plan");
    assert_eq!((plan.requests, plan.impossible), (30, 0));
    assert!(
        plan.duration > seconds(110) && plan.duration < seconds(300),
        "{plan:?}"
    );
    assert_eq!(plan.input_tokens, 30_000_000);
    let cost = plan.cost(&Prices::published()).expect("a price");
    let output = plan.output_tokens as f64 * 5.0 / 1e6;
    assert!((cost - 30.0 - output).abs() < 1e-6, "{cost}, {plan:?}");
    assert_eq!(plan.cost(&Prices::none()), None);
    assert_eq!(
        (lab.server.request_count(), lab.clock.sleeps()),
        (0, vec![])
    );
}

#[test]
fn two_clients_share_a_budget() {
    let clock = ManualClock::new();
    let first = Lab::on(clock.clone(), |builder| {
        builder.limits(Limits::per_minute().requests(1))
    });
    let second = Lab::on(clock.clone(), |builder| {
        builder.budget(first.client.budget())
    });
    let other = Lab::on(clock, |builder| builder);
    first.create().expect("a response");
    assert!(other.create().expect("a response").waited().is_empty());
    let waited = second.create().expect("a response").waited();
    assert!(waited.total() > seconds(59), "{waited:?}");

    let both = Client::builder().api_key(KEY).limits(Limits::per_minute());
    let error = both.budget(&Budget::new()).build().expect_err("both");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn shutdown_wakes_the_queue() {
    let clock = ManualClock::held();
    let lab = Lab::on(clock.clone(), |builder| {
        builder.limits(Limits::per_minute().requests(1))
    });
    lab.create().expect("a response");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = lab.client.clone();
            thread::spawn(move || client.messages().create(&request()))
        })
        .collect();
    while lab.client.budget().snapshot()[0].waiting < 4 {
        thread::yield_now();
    }
    lab.client.shutdown();
    for thread in waiting {
        let error = thread.join().expect("no panic").expect_err("shut down");
        assert_eq!(error.kind(), ErrorKind::Shutdown);
    }
    assert_eq!(lab.client.budget().snapshot()[0].waiting, 0);
    assert_eq!(lab.server.request_count(), 1);
}

#[test]
fn reservation_is_settled_however_a_call_ends() {
    let lab = Lab::new();
    let used = || {
        let snapshot = lab.client.budget().snapshot();
        let class = snapshot.first().expect("a class").clone();
        assert_eq!(class.in_flight, 0);
        (class.input_tokens.used, class.output_tokens.used)
    };
    let message = lab.create().expect("a response");
    let (input, output) = (message.usage.input_tokens, message.usage.output_tokens);
    assert_eq!(used(), (input, output));
    let stream = lab.client.messages().stream(&request()).expect("a stream");
    assert_eq!(lab.client.budget().snapshot()[0].in_flight, 1);
    stream.final_message().expect("a response");
    assert_eq!(used(), (2 * input, 2 * output));
    // A call abandoned in the middle stays charged with its whole reservation.
    drop(lab.client.messages().stream(&request()).expect("a stream"));
    let (input, output) = used();
    assert!(input > 0 && output > 100, "{input}, {output}");
    let totals = lab.client.totals();
    assert_eq!((totals.all.calls, totals.all.failed), (3, 0));
    let haiku = &totals.by_model[&Model::new("claude-haiku-4-5")];
    assert_eq!(haiku.tokens.input, 3 * message.usage.input_tokens);
    assert_eq!(haiku, &totals.all);
}

#[test]
fn totals_count_broken_responses() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().max_attempts(2)));
    lab.server.push_all([
        Reply::rate_limited(1),
        Reply::overloaded(),
        Reply::message("Seven."),
        Reply::error(400, "invalid_request_error", "m"),
    ]);
    lab.create().expect("a response");
    lab.create_error();
    lab.server.push(Reply::json(200, "{}"));
    lab.client.raw().get("/v1/x").expect("a response");
    let totals = lab.client.totals();
    let all = &totals.all;
    assert_eq!((all.calls, all.failed, all.attempts), (3, 1, 5));
    assert_eq!((all.rate_limited, all.overloaded), (1, 1));
    assert!(all.waited.total() >= seconds(1));
    assert!(all.waited.of(WaitCause::Overload) >= millis(250));
    let haiku = &totals.by_model[&Model::new("claude-haiku-4-5")];
    assert_eq!((haiku.calls, haiku.attempts), (2, 4));
    let before = haiku.tokens.output;

    lab.server
        .push(Reply::message("word ".repeat(400)).truncate(4_000));
    let once = lab.client.with(Options::new().retry(RetryPolicy::none()));
    once.messages()
        .create(&request())
        .expect_err("a broken stream");
    let haiku = lab.client.totals().by_model[&Model::new("claude-haiku-4-5")].clone();
    assert!(haiku.tokens.output > before + 20, "{haiku:?}");
}

#[test]
fn totals_count_errors_inside_streams() {
    let lab = Lab::new();
    for kind in ["rate_limit_error", "overloaded_error", "api_error"] {
        let script = StreamScript::text("one two three").error_after(5, kind, "m");
        lab.server.push(Reply::stream(script));
        let stream = lab.client.messages().stream(&request()).expect("a stream");
        let error = stream.final_message().expect_err("it breaks");
        assert_eq!(error.attempts().len(), 1);
    }
    let totals = lab.client.totals();
    let all = &totals.all;
    assert_eq!((all.calls, all.failed, all.attempts), (3, 3, 3));
    assert_eq!((all.rate_limited, all.overloaded), (1, 1));
}

#[test]
fn fast_mode_and_models_have_separate_limits() {
    let lab = Lab::with(|builder| builder.limits(Limits::per_minute().requests(1)));
    let mut fast = request();
    fast.speed = Some("fast".into());
    lab.create().expect("a response");
    let message = lab.client.messages().create(&fast).expect("a response");
    assert!(message.waited().is_empty());
    lab.client
        .messages()
        .count_tokens(&request())
        .expect("a count");
    let classes: Vec<_> = lab.client.budget().snapshot();
    let names: Vec<_> = classes.iter().map(|class| class.class.as_str()).collect();
    assert_eq!(
        names,
        ["claude-haiku-4-5", "claude-haiku-4-5 fast", "count_tokens"]
    );
}

#[test]
fn chosen_class_applies_in_fast_mode_too() {
    let lab = Lab::with(|builder| builder.limits(Limits::per_minute().requests(10)));
    let all = ModelClass::named("all");
    let budget = lab.client.budget().clone();
    drop(budget.classify(|_| ModelClass::named("all")));
    let fast = || request().speed("fast");
    lab.client.messages().create(&fast()).expect("a response");
    lab.client
        .messages()
        .create(&request())
        .expect("a response");
    let plan = lab.client.messages().plan([&fast()]).expect("a plan");
    assert_eq!(plan.requests, 1);
    let classes = lab.client.budget().snapshot();
    assert_eq!(classes.len(), 1, "{classes:?}");
    assert_eq!((&classes[0].class, classes[0].requests.used), (&all, 2));
}

#[test]
fn retried_request_keeps_its_place_in_the_queue() {
    // The first request is refused; seven others wait behind it, and there is room
    // for one.
    let clock = ManualClock::held();
    let lab = Lab::on(clock.clone(), |builder| {
        builder.limits(Limits::per_minute().requests(2))
    });
    lab.server.push(Reply::rate_limited(20));
    let ask = |prompt: &'static str| {
        let client = lab.client.clone();
        thread::spawn(move || client.messages().create(&request().user(prompt)))
    };
    let waits = |count| {
        while lab.client.budget().snapshot()[0].waiting < count {
            thread::yield_now();
        }
    };
    let first = ask("first");
    while lab.client.totals().all.rate_limited < 1 {
        thread::yield_now();
    }
    waits(1);
    let others: Vec<_> = (0..7).map(|_| ask("later")).collect();
    waits(8);
    clock.advance(millis(20_200));
    first.join().expect("no panic").expect("a response");
    let requests = lab.server.requests();
    assert_eq!(requests.len(), 2);
    assert!(String::from_utf8_lossy(&requests[1].body).contains("first"));
    lab.client.shutdown();
    for other in others {
        let error = other.join().expect("no panic").expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::Shutdown);
    }
}

#[test]
fn refusal_comes_within_max_wait() {
    let lab = Lab::new();
    lab.server.push_all([
        limited("m").header("retry-after", "1e16"),
        Reply::html(503, "Maintenance").header("retry-after", "86400"),
    ]);
    assert_eq!(lab.create_error().kind(), ErrorKind::RateLimit);
    let second = lab.create_error();
    assert_eq!(second.kind(), ErrorKind::RateLimit, "{second}");
    assert!(
        second
            .to_string()
            .contains("for longer than max_wait permits")
    );
    assert!(second.is_retryable() && second.attempts().is_empty());
    let sonnet = MessageRequest::new("claude-sonnet-4-6", 256).user(PROMPT);
    let other = |client: &Client| client.messages().create(&sonnet).expect_err("a 503").kind();
    assert_eq!(
        other(&with_short_max_wait(&lab.client)),
        ErrorKind::Overloaded
    );
    assert_eq!(other(&lab.client), ErrorKind::Overloaded);
    assert_eq!(
        (lab.server.request_count(), lab.clock.sleeps()),
        (2, vec![])
    );
}

#[test]
fn pause_beyond_max_wait_ends_all_queued_waits() {
    let limits = Limits::per_minute().requests(1);
    let lab = Lab::on(ManualClock::held(), |builder| builder.limits(limits));
    let (budget, class) = (lab.client.budget(), ModelClass::of("claude-haiku-4-5"));
    let cost = Cost::request().max_tokens(10);
    let refused = budget.reserve(&class, cost, None).expect("room");
    let patient = RetryPolicy::new().max_wait(Duration::MAX);
    let waits = [
        Options::new().retry(patient),
        Options::new(),
        Options::new().retry(patient).deadline(seconds(3_000)),
    ]
    .map(|options| {
        let client = lab.client.with(options);
        let before = budget.snapshot()[0].waiting;
        let thread = thread::spawn(move || client.messages().create(&request()));
        while budget.snapshot()[0].waiting == before {
            thread::yield_now();
        }
        thread
    });
    refused.refuse(None, &RateLimits::from_headers([("retry-after", "3600")]));
    let [patient, with_short_max_wait, hurried] = waits;
    let mut texts = Vec::new();
    for thread in [with_short_max_wait, hurried] {
        let error = ends(move || thread.join()).expect("no panic");
        let error = error.expect_err("a pause of an hour");
        assert_eq!(error.kind(), ErrorKind::RateLimit, "{error}");
        texts.push(error.to_string());
    }
    assert!(
        texts[0].contains("for longer than max_wait permits"),
        "{texts:?}"
    );
    assert!(texts[1].contains("no admission within 50 min"), "{texts:?}");
    assert_eq!(budget.snapshot()[0].waiting, 1);
    lab.client.shutdown();
    let error = patient.join().expect("no panic").expect_err("shut down");
    assert_eq!(error.kind(), ErrorKind::Shutdown);
}

#[test]
fn own_limits_do_not_consume_max_wait() {
    let policy = RetryPolicy::new().max_wait(seconds(30));
    let limits = Limits::per_minute().requests(1);
    let lab = Lab::with(|builder| builder.limits(limits).retry(policy));
    lab.server.push(Reply::rate_limited(1));
    let waited = lab.create().expect("a response").waited();
    let own = waited.of(WaitCause::Limit(Dimension::Requests));
    assert!(own > seconds(55), "{waited:?}");
}

#[test]
fn absurd_usage_blocks_nobody() {
    for output in [u64::from(u32::MAX), u64::MAX] {
        let limits = Limits::per_minute().requests(1_000).output_tokens(8_000);
        let lab = Lab::with(|builder| builder.limits(limits).stream_underneath(false));
        let usage = serde_json::json!({"input_tokens": output, "output_tokens": output,
            "cache_creation_input_tokens": output});
        let message = serde_json::json!({"id": "m", "type": "message", "role": "assistant",
            "model": "m", "content": [], "stop_reason": "end_turn", "usage": usage});
        lab.server.push(Reply::json(200, message));
        lab.create().expect("a response");
        let waited = lab.create().expect("a response").waited();
        assert!(waited.total() <= seconds(121), "{waited:?}");
    }
}

#[test]
fn retry_after_on_a_success_is_no_pause() {
    let lab = Lab::new();
    let late = StreamScript::text("One two three").error_after(5, "overloaded_error", "m");
    lab.server
        .push(Reply::stream(late).header("retry-after", "900"));
    let stream = lab.client.messages().stream(&request()).expect("a stream");
    let error = stream.final_message().expect_err("an overload");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    let waited = ask(&lab.client, "claude-sonnet-4-6").waited();
    assert!(waited.total() < seconds(1), "{waited:?}");

    let plain = Lab::with(|builder| builder.stream_underneath(false));
    let cut = Reply::message("Seven.").header("retry-after", "300");
    plain.server.push(cut.reset_in_body(40));
    let waited = plain.create().expect("a response").waited();
    assert!(waited.total() <= seconds(16), "{waited:?}");
}

#[test]
fn dropped_responses_are_not_repeated_endlessly() {
    let lab = Lab::new();
    let late = || StreamScript::text("One two three").error_after(5, "overloaded_error", "m");
    lab.server.respond_with(move |_| Reply::stream(late()));
    let error = lab.create_error();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Overloaded, 5)
    );
}

#[test]
fn wait_that_grows_long_is_announced() {
    let clock = ManualClock::held();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let lab = Lab::on(clock, |builder| builder);
    drop(lab.client.budget().clone().on_wait(move |wait| {
        assert_eq!(wait.cause, WaitCause::Pause);
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    // The second call first waits for the first response, and then for the pause.
    lab.server.push(Reply::rate_limited(20).delay(millis(50)));
    let both: Vec<_> = (0..2)
        .map(|_| {
            let client = lab.client.clone();
            thread::spawn(move || client.messages().create(&request()))
        })
        .collect();
    while calls.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }
    lab.client.shutdown();
    for thread in both {
        thread.join().expect("no panic").expect_err("shut down");
    }
}

#[test]
fn gateway_without_headers_gets_full_speed() {
    let server: TestServer = server();
    let client = builder(&server).build().expect("valid settings");
    for _ in 0..100 {
        let message = client.messages().create(&request()).expect("a response");
        assert!(message.waited().is_empty());
    }
    let class = &client.budget().snapshot()[0];
    assert_eq!(class.class, ModelClass::of("claude-haiku-4-5"));
    assert_eq!(class.requests.server_limit, None);
}
