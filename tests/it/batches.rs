//! The endpoints of Message Batches: creation without duplicates, waiting, reading results.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anthropic_blocking::testing::{BatchOutcome, ManualClock, RecordedRequest, Reply};
use anthropic_blocking::{
    BatchEntry, BatchResult, Client, Delivery, ErrorKind, MessageBatch, MessageRequest,
    ProcessingStatus, Result, RetryPolicy,
};
use serde_json::{Value, json};

use crate::support::jobs::entries;
use crate::support::{HANG, Lab, PROMPT, is_stretched, request, seconds};

const PATH: &str = "/v1/messages/batches";

#[test]
fn batch_is_created_awaited_and_read() {
    let lab = Lab::new();
    let batches = lab.client.batches();
    let batch = batches.create(entries(3)).expect("a batch");
    assert_eq!(batch.processing_status, ProcessingStatus::InProgress);
    assert_eq!(batch.request_counts.processing, 3);
    assert!(batch.request_id().is_some());
    assert_eq!(batch.attempts().len(), 1);
    let sent = lab.server.take_requests().pop().expect("a request");
    assert_eq!((&*sent.method, &*sent.path), ("POST", PATH));
    let asked = json!({"model": "claude-haiku-4-5", "max_tokens": 256,
        "messages": [{"role": "user", "content": "question 1"}]});
    assert_eq!(
        sent.json()["requests"][1],
        json!({"custom_id": "key-1", "params": asked})
    );

    let ended = batches.wait(&batch.id).expect("its end");
    assert!(ended.is_ended());
    assert_eq!(ended.request_counts.succeeded, 3);
    let results = batches.results(&batch.id).expect("results");
    let texts: BTreeMap<String, String> = results
        .map(|entry| entry.expect("a result"))
        .map(|entry| {
            (
                entry.custom_id.clone(),
                entry.into_message().expect("a response").text(),
            )
        })
        .collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts["key-2"], "You said: question 2");
    let asked = lab.server.take_requests().pop().expect("a request");
    assert_eq!(asked.path, format!("{PATH}/{}/results", batch.id));
    assert_eq!(asked.header("accept"), Some("application/binary"));
}

#[test]
fn result_order_is_the_same_in_every_run() {
    let order = || {
        let lab = Lab::new();
        let batches = lab.client.batches();
        let id = batches.create(entries(9)).expect("a batch").id;
        batches.wait(&id).expect("its end");
        let results = batches.results(&id).expect("results");
        let keys = results.map(|entry| entry.expect("a result").custom_id);
        keys.collect::<Vec<_>>()
    };
    assert_eq!(order(), order());
    assert!(!order().is_sorted(), "that would be a promise");
}

#[test]
fn invalid_batch_is_refused_unsent() {
    let lab = Lab::new();
    let refused = |entries: Vec<(&str, MessageRequest)>, words: &str| {
        let error = lab.client.batches().create(entries).expect_err(words);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{words}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains(PROMPT), "{error:?}");
    };
    refused(vec![], "at least one request");
    refused(
        vec![("a", request()), ("b", request()), ("a", request())],
        "two requests have the custom_id a",
    );
    refused(vec![("", request())], "must be 1 to 64 characters");
    refused(vec![("a b", request())], "custom_id \"a b\" must be");
    refused(vec![(&"x".repeat(65), request())], "1 to 64");
    refused(
        vec![("a", request().field("stream", true))],
        "cannot be streamed",
    );
    let many = (0..=100_000).map(|i| (format!("k{i}"), request()));
    let error = lab.client.batches().create(many).expect_err("too many");
    assert!(
        error
            .to_string()
            .contains("at most 100,000 requests; split it"),
        "{error}"
    );
    assert_eq!(lab.server.request_count(), 0);
}

#[test]
fn batch_runs_until_canceled_and_is_then_deleted() {
    let lab = Lab::new();
    lab.server.batch_polls(usize::MAX);
    let batches = lab.client.batches();
    let id = batches.create(entries(2)).expect("a batch").id;
    let again = batches.get(&id).expect("the batch");
    assert_eq!(again.rate_limits().retry_after, Some(seconds(10)));
    let error = batches.results(&id).expect_err("no results yet");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error
            .to_string()
            .ends_with("has not ended, and has no results yet; wait for it first")
    );
    let error = batches.delete(&id).expect_err("it goes on");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let canceled = batches.cancel(&id).expect("a cancellation");
    assert_eq!(canceled.processing_status, ProcessingStatus::Canceling);
    let ended = batches.wait(&id).expect("its end");
    assert_eq!(ended.request_counts.canceled, 2);
    for entry in batches.results(&id).expect("results") {
        let entry = entry.expect("a result");
        assert!(matches!(entry.result, BatchResult::Canceled(_)));
        assert!(!entry.result.is_retryable());
        let error = entry.into_message().expect_err("no message");
        assert_eq!(error.kind(), ErrorKind::NotRun);
    }
    batches.delete(&id).expect("a deletion");
    assert_eq!(
        batches.get(&id).expect_err("it is gone").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(batches.list().count(), 0);
}

#[test]
fn delete_succeeds_if_its_response_is_lost() {
    let lab = Lab::new();
    let batches = lab.client.batches();
    let id = batches.create(entries(1)).expect("a batch").id;
    batches.wait(&id).expect("its end");
    let path = format!("{PATH}/{id}");
    lab.server
        .on("DELETE", &path, Reply::canned().reset_before_headers());
    batches.delete(&id).expect("a deletion");
    assert_eq!(
        batches.delete(&id).expect_err("it is gone").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn list_yields_newest_batches_first() {
    let lab = Lab::new();
    let batches = lab.client.batches();
    let mut made: Vec<String> = (1..=5)
        .map(|count| batches.create(entries(count)).expect("a batch").id)
        .collect();
    made.reverse();
    let ids = |list: Vec<Result<MessageBatch>>| -> Vec<String> {
        list.into_iter()
            .map(|batch| batch.expect("a batch").id)
            .collect()
    };
    assert_eq!(ids(batches.list().limit(2).collect()), made);
    assert_eq!(
        ids(batches.list().limit(2).before(&made[4]).collect()).len(),
        4
    );
    assert_eq!(ids(batches.list().after(&made[3]).collect()), made[4..]);
}

#[test]
fn outcomes_of_requests_are_distinguished() {
    let lab = Lab::new();
    lab.server.batch_outcomes(|id| match id {
        "key-0" => BatchOutcome::Message("said".into()),
        "key-1" => BatchOutcome::Error("api_error".into()),
        "key-2" => BatchOutcome::Expired,
        _ => BatchOutcome::Canned,
    });
    let mut entries = entries(4);
    entries[3].1.messages.clear();
    let results: Vec<_> = lab
        .client
        .batches()
        .run(entries)
        .expect("results")
        .collect();
    let kinds: Vec<_> = results
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("a result");
            let kind = entry.result.as_str().to_owned();
            let retryable = entry.result.is_retryable();
            let error = entry.into_message().err();
            assert_eq!(error.as_ref().is_some_and(|e| e.is_retryable()), retryable);
            (kind, error.map(|error| (error.kind(), error.to_string())))
        })
        .collect();
    let reported = |index: usize| kinds[index].1.clone().expect("an error");
    assert_eq!(kinds[0], ("succeeded".into(), None));
    assert_eq!(
        (&*kinds[1].0, reported(1).0),
        ("errored", ErrorKind::Server)
    );
    assert_eq!(
        (&*kinds[2].0, reported(2).0),
        ("expired", ErrorKind::NotRun)
    );
    assert_eq!(
        (&*kinds[3].0, reported(3).0),
        ("errored", ErrorKind::InvalidRequest)
    );
    assert!(
        reported(3).1.starts_with("the request key-3: "),
        "{}",
        reported(3).1
    );
    assert!(
        reported(3).1.contains("at least one message is required"),
        "{}",
        reported(3).1
    );
}

#[test]
fn wait_polls_as_often_as_the_server_suggests() {
    let lab = Lab::new();
    lab.server.batch_polls(4);
    let seen = Mutex::new(Vec::new());
    let batches = lab.client.batches().on_progress(|progress| {
        seen.lock()
            .expect("no panic")
            .push((progress.waited, progress.next_poll));
    });
    let id = batches.create(entries(1)).expect("a batch").id;
    batches.wait(&id).expect("its end");
    let sleeps = lab.clock.sleeps();
    assert_eq!(sleeps.len(), 4);
    assert!(
        sleeps.iter().all(|sleep| is_stretched(*sleep, seconds(10))),
        "{sleeps:?}"
    );
    drop(batches);
    let seen = seen.into_inner().expect("no panic");
    let waits: Vec<_> = seen.iter().filter_map(|poll| poll.1).collect();
    assert_eq!(waits, sleeps);
    assert_eq!(seen.last().expect("a poll"), &(lab.clock.elapsed(), None));
}

#[test]
fn wait_polls_ever_less_often_by_default() {
    let lab = Lab::new();
    let running = |_: &RecordedRequest| Reply::json(200, batch("b", "in_progress"));
    lab.server.respond_with(running);
    let batches = lab.client.batches().deadline(seconds(3600));
    let error = batches.wait("b").expect_err("a deadline");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        "waiting for b: the deadline passed; the batch has not ended after 60 min 0 s; the batch is \
         not lost: wait for it again"
    );
    assert_eq!(
        lab.clock.elapsed(),
        seconds(3600),
        "the last poll is at the deadline"
    );
    let sleeps = lab.clock.sleeps();
    assert!(is_stretched(sleeps[0], seconds(2)));
    assert!(is_stretched(sleeps[20], seconds(60)));
    assert!((60..=75).contains(&sleeps.len()), "{}", sleeps.len());
}

#[test]
fn wait_survives_failed_polls() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::none()));
    let id = lab.client.batches().create(entries(1)).expect("a batch").id;
    lab.server.push_all([
        Reply::error(500, "api_error", "Internal server error"),
        Reply::canned().reset_before_headers(),
        Reply::overloaded(),
        Reply::rate_limited(33),
        Reply::html(502, "Bad gateway"),
    ]);
    let ended = lab.client.batches().wait(&id).expect("its end");
    assert!(ended.is_ended());
    assert!(is_stretched(lab.clock.sleeps()[3], seconds(33)));
    for fatal in [
        Reply::error(401, "authentication_error", "invalid x-api-key"),
        Reply::error(404, "not_found_error", "no such batch"),
    ] {
        lab.server.push(fatal);
        let before = lab.clock.sleeps().len();
        lab.client
            .batches()
            .wait(&id)
            .expect_err("no use in waiting");
        assert_eq!(lab.clock.sleeps().len(), before);
    }
    lab.server.respond_with(|_| Reply::status(500));
    let error = lab
        .client
        .batches()
        .wait(&id)
        .expect_err("too many failures");
    assert_eq!(error.kind(), ErrorKind::Server);
}

#[test]
fn shutdown_ends_a_wait() {
    let lab = Lab::on(ManualClock::held(), |builder| builder);
    lab.server.batch_polls(usize::MAX);
    let id = lab.client.batches().create(entries(1)).expect("a batch").id;
    let client = lab.client.clone();
    let waiting = std::thread::spawn(move || client.batches().wait(&id));
    assert!(lab.clock.wait_for_sleeps(1, HANG));
    lab.client.shutdown();
    let error = waiting.join().expect("no panic").expect_err("a shutdown");
    assert_eq!(error.kind(), ErrorKind::Shutdown);
}

// Creation without duplicates.

#[test]
fn lost_create_response_creates_no_second_batch() {
    let lab = Lab::new();
    lab.client
        .batches()
        .create(entries(3))
        .expect("another batch");
    lab.server
        .on("POST", PATH, Reply::canned().reset_before_headers());
    let error = lab
        .client
        .batches()
        .create(entries(2))
        .expect_err("unknown");
    assert_eq!(lab.server.batch_count(), 2);
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!(error.attempts()[0].delivery, Delivery::Unknown);
    let text = error.to_string();
    let expected = "POST /v1/messages/batches: waiting for the response failed: ";
    assert!(text.starts_with(expected), "{text}");
    let expected = "; not repeated: a batch of 2 requests was created since, likely this one: \
                msgbatch_test_000002 (created at 20";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn created_batch_is_found_after_failed_lists() {
    let policy = RetryPolicy::new().initial_backoff(seconds(5));
    let lab = Lab::with(|builder| builder.retry(policy));
    let mut created = batch("b", "in_progress");
    created["created_at"] = "2026-11-23T10:00:00.2Z".into();
    let listed = json!({"data": [created], "has_more": false});
    lab.server
        .on("POST", PATH, Reply::status(200).reset_before_headers());
    lab.server.on("GET", PATH, Reply::html(502, "Bad gateway"));
    let later = "Mon, 23 Nov 2026 10:00:05 GMT";
    let list = Reply::json(200, listed).header("date", later);
    lab.server.on("GET", PATH, list);
    let error = lab
        .client
        .batches()
        .create(entries(1))
        .expect_err("unknown");
    assert!(
        error.to_string().contains("likely this one: b (created"),
        "{error}"
    );
    assert_eq!(methods(&lab), ["POST", "GET", "GET"]);
}

#[test]
fn missing_batch_is_resent_after_a_list() {
    let lab = Lab::new();
    lab.client
        .batches()
        .create(entries(3))
        .expect("another batch");
    lab.server.take_requests();
    lab.server
        .on("POST", PATH, Reply::status(200).reset_before_headers());
    let batch = lab.client.batches().create(entries(2)).expect("a batch");
    assert_eq!(batch.attempts().len(), 2, "both attempts are reported");
    assert_eq!(lab.server.batch_count(), 2);
    assert_eq!(methods(&lab), ["POST", "GET", "GET", "GET", "GET", "POST"]);
}

#[test]
fn no_repeats_means_a_list_and_no_resend() {
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().max_repeats(0)));
    lab.server
        .on("POST", PATH, Reply::status(200).reset_before_headers());
    let error = lab
        .client
        .batches()
        .create(entries(2))
        .expect_err("unknown");
    assert!(
        error
            .to_string()
            .contains("no batch of 2 requests was created since"),
        "{error}"
    );
    assert_eq!(methods(&lab), ["POST", "GET", "GET", "GET", "GET"]);
}

#[test]
fn ambiguous_batches_are_named() {
    let lab = Lab::new();
    let listed = json!({"data": [batch("b2", "in_progress"), batch("b1", "in_progress")],
        "has_more": false});
    lab.server.on("GET", PATH, Reply::json(200, listed));
    lab.server
        .on("POST", PATH, Reply::status(200).reset_before_headers());
    let error = lab
        .client
        .batches()
        .create(entries(1))
        .expect_err("unknown");
    let text = error.to_string();
    assert!(
        text.contains("2 batches of 1 requests were created since"),
        "{text}"
    );
    assert!(
        text.contains("b2 (created at 2126-") && text.contains("b1 (created"),
        "{text}"
    );
}

#[test]
fn refusal_causes_no_list_and_limits_are_awaited() {
    let lab = Lab::new();
    lab.server.push_all([
        Reply::rate_limited(20),
        Reply::overloaded(),
        Reply::error(400, "invalid_request_error", "requests: odd"),
    ]);
    let error = lab
        .client
        .batches()
        .create(entries(1))
        .expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(methods(&lab), ["POST", "POST", "POST"]);
    assert!(is_stretched(lab.clock.sleeps()[0], seconds(20)));
}

#[test]
fn server_error_causes_a_list_and_a_retry() {
    let lab = Lab::new();
    lab.server.on(
        "POST",
        PATH,
        Reply::error(500, "api_error", "Internal server error"),
    );
    lab.client.batches().create(entries(1)).expect("a batch");
    assert_eq!(methods(&lab), ["POST", "GET", "GET", "POST"]);
}

#[test]
fn error_without_time_to_list_names_the_risk() {
    let server = crate::support::server();
    server.on("POST", PATH, Reply::canned().stall_before_headers());
    // In real time: the deadline ends the attempt itself.
    let client = crate::support::builder(&server)
        .deadline(crate::support::millis(300))
        .build()
        .expect("a client");
    let error = client.batches().create(entries(1)).expect_err("a deadline");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let is_told = ["may have been created", "likely this one"]
        .iter()
        .any(|words| error.to_string().contains(words));
    assert!(is_told, "{error}");
}

#[test]
fn list_after_a_gateway_timeout_is_delayed() {
    for status in [408, 502, 504, 522, 524] {
        let lab = Lab::new();
        lab.server
            .on("POST", PATH, Reply::html(status, "Gateway time-out"));
        let empty = json!({"data": [], "has_more": false});
        for _ in 0..3 {
            lab.server.on("GET", PATH, Reply::json(200, &empty));
        }
        let found = json!({"data": [batch("b", "in_progress")], "has_more": false});
        lab.server.on("GET", PATH, Reply::json(200, found));
        let error = lab
            .client
            .batches()
            .create(entries(1))
            .expect_err("it is there");
        assert!(error.to_string().contains("likely this one: b"), "{error}");
        assert_eq!(methods(&lab), ["POST", "GET", "GET", "GET", "GET"]);
        assert_eq!(lab.clock.elapsed(), seconds(30), "{status}");
    }
}

#[test]
fn deadline_ends_a_create() {
    let lab = Lab::with(|builder| builder.deadline(seconds(2)));
    lab.server.on(
        "POST",
        PATH,
        Reply::error(500, "api_error", "Internal server error"),
    );
    let error = lab
        .client
        .batches()
        .create(entries(1))
        .expect_err("no time is left");
    assert_eq!(error.kind(), ErrorKind::Server);
    assert_eq!(lab.clock.elapsed(), seconds(2));
    assert_eq!(lab.server.batch_count(), 0);
}

// Results.

const GOOD: &str = r#"{"custom_id":"ID","result":{"type":"succeeded","message":{"content":[{"type":"text","text":"said"}]}}}"#;

fn good(id: &str) -> String {
    GOOD.replace("ID", id)
}

/// Gives the server an ended batch of `total` requests, whose results download is `results`.
fn ended(lab: &Lab, total: u64, results: Reply) -> String {
    let mut batch = batch("b", "ended");
    batch["request_counts"] = json!({"succeeded": total});
    batch["results_url"] = format!("{}{PATH}/b/results", lab.server.base_url()).into();
    lab.server
        .respond_with(move |request| match request.path.ends_with("/results") {
            true => results.clone(),
            false => Reply::json(200, &batch),
        });
    "b".to_owned()
}

#[test]
fn bad_result_line_leaves_the_rest_intact() {
    let lab = Lab::new();
    let lines = [
        good("a"),
        "not json".into(),
        String::new(),
        r#"{"custom_id":"c","result":{"type":"postponed","until":5}}"#.into(),
        r#"{"result":{"type":"expired"}}"#.into(),
        "  ".into(),
        good("d"),
    ];
    let id = ended(
        &lab,
        5,
        Reply::json(200, lines.join("\n")).header("content-type", "text/html"),
    );
    let items: Vec<_> = lab
        .client
        .batches()
        .results(&id)
        .expect("results")
        .collect();
    let reported: Vec<String> = items
        .iter()
        .map(|item| match item {
            Ok(entry) => format!("{} {}", entry.custom_id, entry.result.as_str()),
            Err(error) => error
                .to_string()
                .split(" (")
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
        .collect();
    assert_eq!(
        reported,
        [
            "a succeeded",
            "GET /v1/messages/batches/b/results: line 2 is no result of a batch: expected ident at line 1 column 2",
            "c postponed",
            "GET /v1/messages/batches/b/results: line 4 is no result of a batch: missing field `custom_id`",
            "d succeeded",
        ]
    );
    let Ok(BatchEntry {
        result: BatchResult::Other(object),
        ..
    }) = &items[2]
    else {
        panic!("{:?}", items[2]);
    };
    assert_eq!(object["until"], 5);
}

#[test]
fn cut_download_resumes_where_it_stopped() {
    let body: String = (0..200)
        .map(|index| good(&format!("k{index}")) + "\n")
        .collect();
    for fault in 0..4 {
        let lab = Lab::new();
        let whole = Reply::json(200, &body);
        let cut = |after| match fault {
            0 => whole.clone().reset_in_body(after),
            1 => whole.clone().truncate(after),
            2 => whole.clone().chunked().truncate(after),
            _ => whole.clone().close_delimited().truncate(after),
        };
        let id = ended(&lab, 200, whole.clone());
        let path = format!("{PATH}/{id}/results");
        for after in [0, 10, 5_000, 11_119, 20_000] {
            lab.server.on("GET", &path, cut(after));
        }
        let results = lab.client.batches().results(&id).expect("results");
        let ids: Vec<String> = results
            .map(|entry| entry.expect("a result").custom_id)
            .collect();
        assert_eq!(ids.len(), 200, "fault {fault}");
        assert!(
            ids.iter()
                .enumerate()
                .all(|(index, id)| *id == format!("k{index}"))
        );
        assert_eq!(lab.server.unused_replies(), 0);
    }
}

#[test]
fn download_cut_at_any_byte_yields_results_once() {
    let body = good("a") + "\n\n" + &good("\u{20ac}") + "\r\n" + &good("c");
    let lab = Lab::with(|builder| builder.retry(RetryPolicy::new().initial_backoff(seconds(1))));
    let id = ended(&lab, 3, Reply::json(200, &body));
    let path = format!("{PATH}/{id}/results");
    for after in 0..=body.len() {
        for reply in [
            Reply::json(200, &body).truncate(after),
            Reply::json(200, &body).close_delimited().truncate(after),
        ] {
            lab.server.on("GET", &path, reply);
            let results = lab.client.batches().results(&id).expect("results");
            let ids: Vec<String> = results
                .map(|entry| entry.expect("a result").custom_id)
                .collect();
            assert_eq!(ids, ["a", "\u{20ac}", "c"], "cut after {after}");
        }
    }
}

#[test]
fn download_cut_for_good_is_an_error() {
    let body: String = (0..9)
        .map(|index| good(&format!("k{index}")) + "\n")
        .collect();
    for (results, kind, words) in [
        (
            Reply::json(200, &body).truncate(500),
            ErrorKind::Connection,
            "reading the response",
        ),
        (
            Reply::json(200, &body).close_delimited().truncate(500),
            ErrorKind::Connection,
            "reading the",
        ),
        (
            Reply::json(200, &body),
            ErrorKind::Decode,
            "the results end after 9 of 10",
        ),
        (
            Reply::json(200, ""),
            ErrorKind::Decode,
            "the results end after 0 of 10",
        ),
    ] {
        let lab = Lab::new();
        let id = ended(&lab, 10, results);
        let mut items: Vec<_> = lab
            .client
            .batches()
            .results(&id)
            .expect("results")
            .collect();
        let error = items.pop().expect("an item").expect_err("an error");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(items.iter().all(Result::is_ok));
        assert!(!format!("{error:?}").contains("said"), "{error:?}");
    }
}

#[test]
fn signature_of_the_results_url_is_not_shown() {
    let lab = Lab::new();
    let mut moved = batch("b", "ended");
    moved["results_url"] = format!("{}/moved/b?sign=hidden", lab.server.base_url()).into();
    lab.server
        .push_all([Reply::json(200, moved), Reply::json(200, "")]);
    let mut results = lab.client.batches().results("b").expect("results");
    assert!(!format!("{results:?}").contains("hidden"), "{results:?}");
    let error = results.next().expect("an item").expect_err("too few");
    let text = "GET /moved/b: the results end after 0 of 1";
    assert!(error.to_string().starts_with(text), "{error}");
}

#[test]
fn download_that_changed_after_a_cut_is_an_error() {
    let lab = Lab::new();
    let body = |ids: &[&str]| ids.iter().map(|id| good(id) + "\n").collect::<String>();
    let id = ended(&lab, 3, Reply::json(200, body(&["b", "a", "c"])));
    let path = format!("{PATH}/{id}/results");
    lab.server.on(
        "GET",
        &path,
        Reply::json(200, body(&["a", "b", "c"])).truncate(150),
    );
    let items: Vec<_> = lab
        .client
        .batches()
        .results(&id)
        .expect("results")
        .collect();
    assert_eq!(items.len(), 2, "{items:?}");
    let error = items[1].as_ref().expect_err("another download");
    assert!(
        error
            .to_string()
            .contains("what the same download gave before"),
        "{error}"
    );
}

#[test]
fn results_url_elsewhere_gets_no_key() {
    let other_server = crate::support::server();
    let lab = Lab::new();
    for url in [
        format!("{}{PATH}/b/results", other_server.base_url()),
        format!("{}@{}/x", lab.server.base_url(), other_server.address()),
        format!("{}.evil.example/x", lab.server.base_url()),
        "https://api.anthropic.com/v1/messages/batches/b/results".to_owned(),
        "//evil.example/x".to_owned(),
    ] {
        let mut batch = batch("b", "ended");
        batch["results_url"] = url.clone().into();
        lab.server
            .push_all([Reply::json(200, batch), Reply::json(200, good("a"))]);
        let results: Vec<_> = lab
            .client
            .batches()
            .results("b")
            .expect("results")
            .collect();
        assert_eq!(results.len(), 1, "{url}");
        let last = lab.server.take_requests().pop().expect("a request");
        assert_eq!(last.path, format!("{PATH}/b/results"), "{url}");
    }
    assert_eq!(other_server.connection_count(), 0);
    let mut moved = batch("b", "ended");
    moved["results_url"] = format!("{}/moved/b?x=1", lab.server.base_url()).into();
    lab.server
        .push_all([Reply::json(200, moved), Reply::json(200, good("a"))]);
    assert_eq!(
        lab.client.batches().results("b").expect("results").count(),
        1
    );
    let last = lab.server.take_requests().pop().expect("a request");
    assert_eq!(
        (&*last.path, last.query.as_deref()),
        ("/moved/b", Some("x=1"))
    );
}

#[test]
fn results_that_are_gone_are_a_clear_error() {
    let lab = Lab::new();
    lab.server.push(Reply::json(200, batch("b", "ended")));
    let error = lab.client.batches().results("b").expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().ends_with("b has no results any more"),
        "{error}"
    );
}

// Helpers.

/// A batch of one request, created a hundred years from now.
fn batch(id: &str, status: &str) -> Value {
    json!({"id": id, "type": "message_batch", "processing_status": status,
        "request_counts": {"processing": 1}, "created_at": "2126-01-01T00:00:00Z",
        "results_url": null})
}

fn methods(lab: &Lab) -> Vec<String> {
    lab.server
        .take_requests()
        .into_iter()
        .map(|request| request.method)
        .collect()
}

#[expect(dead_code, reason = "checked by the compiler")]
fn results_may_move_to_another_thread(client: Client) {
    fn moves<T: Send>(_: T) {}
    moves(client.batches().results("b"));
    moves(client.batches().run(entries(1)));
}
