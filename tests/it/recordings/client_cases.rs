//! The official clients' own test cases.

use super::retry_after::{Wait, fits};
use super::*;

/// Where a case ends differently from an official client: the client, the difference, the reason.
/// Each difference must occur in the test.
const OTHER_ENDS: [(&str, &str, &str); 7] = {
    const TELEMETRY: &str = "counting retries in a header is the official clients' telemetry";
    [
        ("typescript", COUNT, TELEMETRY),
        ("java", COUNT, TELEMETRY),
        (
            "java",
            "backoff",
            "decorrelated, from 1 s to 16 s: it serves most clients, at the lowest peaks",
        ),
        ("go", COUNT, TELEMETRY),
        (
            "go",
            "attempts",
            "a wait that the server asks for is flow control: it uses no attempt, and is bounded \
             by max_wait and the deadline",
        ),
        (
            "ruby",
            "first delay",
            "their first retry comes at once; ours after 1 s at least",
        ),
        (
            "ruby",
            "attempts by default",
            "five, not three: an overload outlasts a second",
        ),
    ]
};

/// The differences from one client that occurred.
struct Differences {
    client: &'static str,
    seen: BTreeSet<&'static str>,
}

impl Differences {
    fn of(client: &'static str) -> Differences {
        let seen = BTreeSet::new();
        Differences { client, seen }
    }

    #[track_caller]
    fn show(&mut self, what: &'static str, is_same: bool) {
        assert!(!is_same, "{what} is no difference any more");
        self.seen.insert(what);
    }

    #[track_caller]
    fn all(self) {
        let rows = OTHER_ENDS.iter().filter(|row| row.0 == self.client);
        assert_eq!(self.seen, rows.map(|row| row.1).collect());
    }
}

/// The header in which the official clients count their retries.
const COUNT: &str = "x-stainless-retry-count";

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn typescript_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    assert_eq!(list(&tables["typescript"]["rules"]).len(), 6);
    let cases = list(&tables["typescript"]["tests"]);
    assert_eq!(cases.len(), 6);
    let mut differences = Differences::of("typescript");
    for case in &cases[..2] {
        let headers = case["headers"].as_object().expect("headers");
        let (name, value) = headers.iter().next().expect("a header");
        let number: f64 = text(value).parse().expect("a number");
        let unit = if name.ends_with("-Ms") { 1e-3 } else { 1.0 };
        let stage = Stage::new();
        let refusal = Reply::status(429).header(name, text(value));
        stage.server.push_all([refusal, Reply::message("Seven.")]);
        stage.ask_with(quick(2)).expect("a message");
        assert_eq!(case["requests"], stage.server.request_count());
        check_wait(
            &stage.clock.sleeps(),
            number * unit,
            number * unit + 0.11,
            name,
        );
    }

    assert_eq!(cases[2]["name"], "retry on timeout");
    let stage = Stage::new();
    let client = stage.builder().idle_timeout(Duration::from_millis(500));
    let client = client.retry(quick(2)).build().expect("a client");
    let silence = Reply::status(200).stall_before_headers();
    stage.server.push_all([silence, Reply::message("Seven.")]);
    let message = client.messages().create(&question()).expect("a message");
    assert_eq!(cases[2]["requests"], stage.server.request_count());
    assert_eq!(message.attempts()[0].failure, Some(ErrorKind::Timeout));
    assert_eq!(message.attempts()[0].delivery, Delivery::Unknown);

    assert_eq!(cases[3]["failures"], 2);
    let theirs = &cases[3]["x-stainless-retry-count of the last request"];
    let ours = counts_sent(Reply::status(429), None);
    differences.show(COUNT, theirs.as_str() == ours[2].as_deref());
    let given = text(&cases[4]["given"]);
    let sent = text(&cases[4]["sent"]).to_owned();
    let ours = counts_sent(Reply::status(429), Some(given));
    assert_eq!(ours, vec![Some(sent); 3]);
    // The official client omits the header on request; we always omit it.
    assert!(cases[5]["sent"].is_null());
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn java_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    let cases = list(&tables["java"]["cases"]);
    assert_eq!(cases.len(), 6);
    let mut differences = Differences::of("java");
    for case in &cases[..2] {
        // Five seconds before the date of the first case, 2015-10-21 07:28:00.
        let stage = Stage::at(1_445_412_480 - 5);
        for response in list(&case["responses"]) {
            stage.server.push(match asked_by(response) {
                Some((name, value)) => {
                    assert_eq!(response["status"], 503);
                    Reply::status(503).header(name, value)
                }
                None => Reply::message("Seven."),
            });
        }
        stage.ask_with(quick(9)).expect("a message");
        let (sleeps, expected) = (stage.clock.sleeps(), list(&case["sleeps_ms"]));
        assert_eq!(sleeps.len(), expected.len());
        for (sleep, expected) in sleeps.iter().zip(expected) {
            let asked = expected.as_f64().expect("a number") / 1000.0;
            assert!(fits(503, *sleep, Wait::Asked(asked)), "{sleep:?}, {case}");
        }
    }
    let counts = counts_sent(Reply::status(503).header("retry-after", "1.234"), None);
    differences.show(COUNT, cases[0][COUNT] == json!(counts));

    for (case, retries) in [(&cases[2], 3), (&cases[3], 6)] {
        assert_eq!(case["max_retries"], retries);
        let stage = Stage::new();
        stage.server.respond_with(|_| Reply::status(503));
        let policy = RetryPolicy::new().max_attempts(1 + retries);
        let error = stage.ask_with(policy).expect_err("a 503");
        assert_eq!(error.status(), Some(503));
        assert_eq!(case["requests"], stage.server.request_count());
        let sleeps = stage.clock.sleeps();
        check_backoff(&sleeps, 1.0, 16.0);
        let ranges = &case["sleeps_ms_between"];
        let theirs = ranges.as_array().into_iter().flatten().zip(&sleeps);
        for (range, ours) in theirs {
            let bound = |at: usize| range[at].as_f64().expect("a number") / 1000.0;
            differences.show("backoff", is_between(*ours, bound(0), bound(1)));
        }
    }
    assert_eq!(cases[2]["returned_status"], 503);
    // The official backoff lies between 6 s and 8 s; ours may differ, as listed above.
    assert_eq!(cases[3]["sleeps_5_and_6_ms_between"], json!([6000, 8000]));

    let given = text(&cases[4]["caller_header"][COUNT]);
    assert_eq!(cases[4]["sent"], format!("{given} every time"));
    let sent = counts_sent(Reply::status(503), Some(given));
    assert_eq!(sent, vec![Some(given.to_owned()); 3]);

    assert_eq!(cases[5]["error"], "connection error once");
    assert_eq!(cases[5]["then"], 200);
    let stage = Stage::new();
    let broken = Reply::status(200).reset_before_headers();
    stage.server.push_all([broken, Reply::message("Seven.")]);
    let message = stage.ask_with(RetryPolicy::new()).expect("a message");
    assert_eq!(message.attempts()[0].failure, Some(ErrorKind::Connection));
    check_backoff(&stage.clock.sleeps(), 1.0, 16.0);
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn go_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    assert_eq!(list(&tables["go"]["rules"]).len(), 4);
    let cases = list(&tables["go"]["cases"]);
    assert_eq!(cases.len(), 2);
    let mut differences = Differences::of("go");
    for case in cases {
        let (name, value) = asked_by(case).expect("a header");
        let refusal = Reply::status(429).header(name, value);
        let stage = Stage::new();
        stage.server.push_all(vec![refusal.clone(); 5]);
        stage.server.push(Reply::message("Seven."));
        let message = stage.ask_with(quick(3)).expect("a message");
        differences.show("attempts", case["attempts"] == message.attempts().len());
        // We first wait as the server asks; then our wait grows to a second, to avoid a hot loop.
        let sleeps = stage.clock.sleeps();
        assert!(is_between(sleeps[0], 0.1, 0.21), "{sleeps:?}");
        assert!(
            sleeps.iter().all(|sleep| is_between(*sleep, 0.1, 1.11)),
            "{sleeps:?}"
        );
        // With room for two waits we make as many attempts as the official client.
        stage.server.push_all(vec![refusal.clone(); 3]);
        let policy = quick(3).max_wait(Duration::from_millis(350));
        let error = stage.ask_with(policy).expect_err("a 429");
        assert_eq!(case["attempts"], error.attempts().len());
        if case[COUNT].is_array() {
            let ours = json!(counts_sent(refusal, None));
            differences.show(COUNT, case[COUNT] == ours);
        }
    }
    differences.all();
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn ruby_client_cases_end_alike() {
    let tables = read_json("retry_cases.json");
    let cases = list(&tables["ruby"]["cases"]);
    assert_eq!(cases.len(), 7);
    let mut differences = Differences::of("ruby");
    // Returns the requests, and the waits between them, when the server always fails with a 500.
    let run = |client: RetryPolicy, call: Option<RetryPolicy>, header: Option<(&str, &str)>| {
        let stage = Stage::new();
        let mut client = stage.builder().retry(client).build().expect("a client");
        if let Some(policy) = call {
            client = client.with(Options::new().retry(policy));
        }
        let reply = header
            .into_iter()
            .fold(Reply::status(500), |reply, header| {
                reply.header(header.0, header.1)
            });
        stage.server.respond_with(move |_| reply.clone());
        let error = client.messages().create(&question()).expect_err("a 500");
        assert_eq!(error.status(), Some(500));
        (stage.server.request_count(), stage.clock.sleeps())
    };
    assert_eq!(cases[0]["status"], 500);
    assert_eq!(cases[0]["default max_retries"], 2);
    assert_eq!(cases[0]["requests"], run(quick(3), None, None).0);
    let (requests, sleeps) = run(RetryPolicy::new(), None, None);
    differences.show("attempts by default", cases[0]["requests"] == requests);
    differences.show("first delay", sleeps[0].is_zero());
    assert_eq!(cases[1]["client max_retries"], 3);
    assert_eq!(cases[1]["requests"], run(quick(4), None, None).0);
    assert_eq!(cases[2]["request max_retries"], 3);
    assert_eq!(cases[2]["requests"], run(quick(3), Some(quick(4)), None).0);
    assert_eq!(cases[3]["client 3, request 4"], true);
    assert_eq!(cases[3]["requests"], run(quick(4), Some(quick(5)), None).0);
    for (case, name) in [(&cases[4], "retry-after"), (&cases[6], "retry-after-ms")] {
        assert_eq!(case["max_retries"], 1);
        assert_eq!(case["last_sleep_s"], 1.3);
        let (requests, sleeps) = run(quick(2), None, Some((name, text(&case[name]))));
        assert_eq!(requests, 2);
        check_wait(&sleeps, 1.3, 1.43, name);
    }
    assert_eq!(cases[5]["retry-after"], "now+10 as HTTP date");
    let date = ("retry-after", "Fri, 29 Sep 2023 16:26:47 GMT");
    let (_, sleeps) = run(quick(2), None, Some(date));
    check_wait(&sleeps, 10.0, 11.0, "a date");
    assert_eq!(tables["real_world"], "see real_headers.json");
    differences.all();
}

/// Returns the header of a case that asks for a wait.
fn asked_by(case: &Value) -> Option<(&'static str, &str)> {
    let mut names = ["retry-after", "retry-after-ms"].into_iter();
    names.find_map(|name| Some((name, case[name].as_str()?)))
}

/// Returns the retry counts in the headers of the three requests that two refusals cause.
fn counts_sent(refusal: Reply, given: Option<&str>) -> Vec<Option<String>> {
    let stage = Stage::new();
    let mut builder = stage.builder().retry(quick(3));
    if let Some(given) = given {
        builder = builder.header(COUNT, given);
    }
    let client = builder.build().expect("a client");
    stage.server.push_all([refusal.clone(), refusal]);
    stage.server.push(Reply::message("Seven."));
    client.messages().create(&question()).expect("a message");
    let requests = stage.server.take_requests();
    let counts = requests.iter().map(|request| request.header(COUNT));
    counts.map(|count| count.map(str::to_owned)).collect()
}
