//! One client, many threads.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anthropic_blocking::testing::{ManualClock, RecordedRequest, Reply};
use anthropic_blocking::{Client, MessageRequest};

use crate::support::{HANG, builder, millis, server};

const THREADS: usize = 64;
const REQUESTS: usize = 10_000;

#[test]
fn held_clock_records_each_sleep_once() {
    let server = server();
    let clock = ManualClock::held();
    // The second client sleeps as long as the first.
    let clients = [(); 2].map(|()| builder(&server).clock(&clock).build().expect("a client"));
    server.respond_with(|_| Reply::rate_limited(30));
    let mut calls = Vec::new();
    for model in ["claude-haiku-4-5", "claude-opus-5"] {
        for client in clients.clone() {
            let request = MessageRequest::new(model, 64).user("Hello?");
            calls.push(thread::spawn(move || client.messages().create(&request)));
        }
    }
    assert!(clock.wait_for_sleeps(4, HANG), "{:?}", clock.sleeps());
    // The waiting threads look at the clock again and again, without a new sleep.
    assert!(!clock.wait_for_sleeps(5, millis(100)));
    for client in &clients {
        client.shutdown();
    }
    for call in calls {
        let called = call.join().expect("no panic");
        called.expect_err("a shutdown");
    }
}

#[test]
fn ten_thousand_requests_get_their_own_messages() {
    let server = server();
    server.keep_requests(false);
    server.respond_with(|request| Reply::message(asked(request)));
    let client = builder(&server)
        .stream_underneath(false)
        .build()
        .expect("valid settings");
    let answered = ask_from_all_threads(&client, REQUESTS);
    assert_eq!(answered, [1; REQUESTS]);
    assert_eq!(server.request_count(), REQUESTS);
    let connections = server.connection_count();
    assert!(connections <= THREADS, "{connections} connections");
}

#[test]
fn failed_requests_are_neither_lost_nor_doubled() {
    const EACH: usize = 1_000;
    let server = server();
    server.keep_requests(false);
    let met: Mutex<HashMap<String, usize>> = Mutex::default();
    server.respond_with(move |request| {
        let question = asked(request);
        let mut met = met.lock().expect("no panic with the lock");
        let times = met.entry(question.clone()).or_default();
        *times += 1;
        let number: usize = question.parse().expect("a number");
        match (*times, number % 100) {
            (1, 7) => Reply::rate_limited(30),
            (1, 17) => Reply::overloaded(),
            (1, 27) => Reply::message(question).close(),
            // These failures take from the retry budget, which successes refill.
            (1, 47) if number >= EACH / 2 => Reply::html(502, "502 Bad Gateway"),
            (1, 57) if number >= EACH / 2 => Reply::message(question).reset_before_headers(),
            _ => Reply::message(question),
        }
    });
    let builder = builder(&server).clock(&ManualClock::new());
    let client = builder.build().expect("valid settings");
    assert_eq!(ask_from_all_threads(&client, EACH), [1; EACH]);
    let again = 2 * EACH / 100 + 2 * EACH / 200;
    assert_eq!(server.request_count(), EACH + again);
    let closed = EACH / 100 + EACH / 200;
    let connections = server.connection_count();
    assert!(connections <= THREADS + closed, "{connections} connections");
}

#[test]
fn clones_and_copies_share_connections() {
    let server = server();
    let client = builder(&server).build().expect("valid settings");
    let request = MessageRequest::new("claude-haiku-4-5", 256).user("1");
    for client in [client.clone(), client.with(Default::default()), client] {
        client.messages().create(&request).expect("a response");
    }
    assert_eq!(server.connection_count(), 1);
}

/// Returns the only prompt of a request, found without the cost of parsing JSON.
fn asked(request: &RecordedRequest) -> String {
    let body = request.text();
    let after = body.split_once(r#""content":""#).map(|(_, rest)| rest);
    let question = after
        .and_then(|rest| rest.split_once('"'))
        .map(|(question, _)| question);
    question.unwrap_or("nothing").to_owned()
}

/// Sends `0`, `1`, and so on, from all threads at once; counts how often each came back.
fn ask_from_all_threads(client: &Client, count: usize) -> Vec<usize> {
    let answered: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let worker = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(counter) = answered.get(number) else {
                        return;
                    };
                    let request =
                        MessageRequest::new("claude-haiku-4-5", 256).user(number.to_string());
                    let message = client.messages().create(&request).expect("a response");
                    assert_eq!(message.text(), number.to_string());
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            };
            let thread = thread::Builder::new().name("caller".to_owned());
            thread.spawn_scoped(scope, worker).expect("a thread");
        }
    });
    answered.into_iter().map(AtomicUsize::into_inner).collect()
}
