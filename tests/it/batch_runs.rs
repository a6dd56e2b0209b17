//! Runs of batches: results in input order, resubmission, resuming after a kill.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use anthropic_blocking::testing::{BatchOutcome, ManualClock, Reply};
use anthropic_blocking::{BatchRun, ErrorKind, Result};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::child::{TemporaryFile, as_child, child, cut_last_line};
use crate::support::jobs::entries;
use crate::support::{HANG, KEY, Lab, builder, seconds, server};

const PATH: &str = "/v1/messages/batches";

#[test]
fn results_keep_the_input_order() {
    let lab = Lab::new();
    let run = lab
        .client
        .batches()
        .batch_size(7)
        .run(entries(24))
        .expect("a run");
    assert_eq!(run.ids().len(), 4);
    assert_eq!(lab.server.batch_count(), 4);
    check(run, 24);
    let none: [(String, anthropic_blocking::MessageRequest); 0] = [];
    assert_eq!(lab.client.batches().run(none).expect("nothing").count(), 0);
    let error = lab
        .client
        .batches()
        .run([entries(2), entries(2)].concat())
        .expect_err("a double id");
    assert!(
        error
            .to_string()
            .contains("two requests have the custom_id key-0"),
        "{error}"
    );
}

#[test]
fn run_accepts_borrowed_entries() {
    let lab = Lab::new();
    let entries = entries(3);
    let borrowed = entries.iter().map(|(id, request)| (id.as_str(), request));
    check(lab.client.batches().run(borrowed).expect("a run"), 3);
}

#[test]
fn expired_and_failed_entries_are_resubmitted() {
    let lab = Lab::new();
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    lab.server.batch_outcomes(move |id| {
        let mut asked = asked.lock().expect("no panic");
        let times = asked.entry(id.to_owned()).or_default();
        *times += 1;
        match (id, *times) {
            ("key-1", 1) | ("key-9", _) => BatchOutcome::Expired,
            ("key-4", 1 | 2) => BatchOutcome::Error("overloaded_error".into()),
            ("key-5", _) => BatchOutcome::Error("invalid_request_error".into()),
            _ => BatchOutcome::Canned,
        }
    });
    let batches = lab.client.batches().batch_size(6).resubmit(2);
    let run = batches.run(entries(10)).expect("a run");
    assert_eq!(
        run.ids().len(),
        4,
        "two at first, then one with three and one with two"
    );
    let ends: Vec<String> = run
        .map(|entry| entry.expect("a result"))
        .map(|entry| format!("{} {}", entry.custom_id, entry.result.as_str()))
        .collect();
    let expected = |index| match index {
        5 => "errored",
        9 => "expired",
        _ => "succeeded",
    };
    let expected: Vec<_> = (0..10)
        .map(|i| format!("key-{i} {}", expected(i)))
        .collect();
    assert_eq!(ends, expected);
    let sizes: Vec<usize> = lab
        .server
        .take_requests()
        .iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.json()["requests"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes, [6, 4, 3, 2]);
}

#[test]
fn lost_create_response_adopts_the_created_batch() {
    let lab = Lab::new();
    lab.client
        .batches()
        .create(entries(3))
        .expect("another batch of the same size");
    lab.server
        .on("POST", PATH, Reply::canned().reset_before_headers());
    let run = lab.client.batches().run(entries(3)).expect("a run");
    assert_eq!(run.ids(), ["msgbatch_test_000002"]);
    check(run, 3);
    assert_eq!(lab.server.batch_count(), 2);
}

#[test]
fn batch_of_another_thread_is_not_adopted() {
    let lab = Lab::new();
    let batches = lab.client.batches();
    batches.create(entries(3)).expect("another batch");
    // As if the other batch had been created between listing the newest batch and creating ours.
    let empty = json!({"data": [], "has_more": false});
    lab.server.on("GET", PATH, Reply::json(200, empty));
    lab.server
        .on("POST", PATH, Reply::error(500, "api_error", "no"));
    let run = batches.run(entries(3)).expect("a run");
    assert_eq!(run.ids(), ["msgbatch_test_000002"]);
    check(run, 3);
}

#[test]
fn unknown_double_and_missing_results_are_reported() {
    let lab = Lab::new();
    let line = |id: &str| {
        json!({"custom_id": id, "result": {"type": "succeeded", "message": {"content":
            [{"type": "text", "text": id}]}}})
        .to_string()
    };
    let lines = [
        line("key-3"),
        line("nobody"),
        "{".to_owned(),
        line("key-0"),
        line("key-3"),
        json!({"custom_id": "key-1", "result": {"type": "new"}}).to_string(),
        line("x"),
    ];
    lab.server.respond_with(|_| Reply::canned());
    let path = format!("{PATH}/msgbatch_test_000001/results");
    lab.server
        .on("GET", &path, Reply::json(200, lines.join("\n")));
    let run = lab.client.batches().run(entries(4)).expect("a run");
    let results: Vec<String> = run
        .map(|item| match item {
            Ok(entry) => format!("{} {}", entry.custom_id, entry.result.as_str()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Decode);
                let text = error.to_string();
                let text = text.split(" (req").next().unwrap_or_default();
                text.rsplit("results: ")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
        })
        .collect();
    assert_eq!(
        results,
        [
            "there is a result for nobody, which was never requested",
            "line 3 is no result of a batch: EOF while parsing an object at line 1 column 1",
            "key-0 succeeded",
            "key-3 has two results",
            "key-1 new",
            "there is a result for x, which was never requested",
            "the request key-2: msgbatch_test_000001 gave no result for it",
            "key-3 succeeded",
        ]
    );
}

#[test]
fn broken_download_delivers_its_earlier_results() {
    let lab = Lab::new();
    lab.server
        .respond_with(|request| match request.path.ends_with("000001/results") {
            true => Reply::json(
                200,
                "{\"custom_id\":\"key-1\",\"result\":{\"type\":\"expired\"}}\n{\"custom",
            )
            .truncate(58),
            false => Reply::canned(),
        });
    let run = lab
        .client
        .batches()
        .batch_size(2)
        .run(entries(3))
        .expect("a run");
    let results: Vec<_> = run
        .map(|item| {
            item.map(|entry| entry.custom_id)
                .map_err(|error| error.kind())
        })
        .collect();
    // The server still has the missing results.
    let (ok, gap) = (|id: &str| Ok(id.to_owned()), Err(ErrorKind::Connection));
    assert_eq!(
        results,
        [Err(ErrorKind::Connection), gap, ok("key-1"), ok("key-2")]
    );
}

#[test]
fn error_names_the_created_batches() {
    let lab = Lab::new();
    lab.server.on("POST", PATH, Reply::canned());
    let refusal = Reply::error_code(
        429,
        "rate_limit_error",
        "enforced_spend_limit_reached",
        "no",
    );
    lab.server.on("POST", PATH, refusal);
    let error = lab
        .client
        .batches()
        .batch_size(1)
        .run(entries(2))
        .expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::Billing);
    assert!(
        error
            .to_string()
            .contains("created so far: msgbatch_test_000001"),
        "{error}"
    );
}

// Journals.

#[test]
fn second_run_with_a_journal_creates_no_batch() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("same"));
    let run = |count| run_in_pairs(&lab, &file, count);
    check(run(5).expect("a run"), 5);
    lab.server.take_requests();
    check(run(5).expect("the same"), 5);
    assert_eq!(lab.server.batch_count(), 3);
    let posts = lab.server.take_requests();
    assert!(posts.iter().all(|request| request.method == "GET"));
    for other in [4, 6, 2] {
        let error = run(other).expect_err("other requests");
        assert_eq!(error.kind(), ErrorKind::Config, "{other}");
        assert!(
            error
                .to_string()
                .contains("is the journal of other requests"),
            "{error}"
        );
    }
    let mut changed = entries(5);
    changed[3].1 = changed[3].1.clone().system("Be brief.");
    let batches = lab.client.batches().batch_size(2).journal(&file.path);
    batches.run(changed).expect_err("other requests");
    assert_eq!(lab.server.batch_count(), 3);
}

#[test]
fn refused_batch_can_be_corrected_and_rerun() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("refused"));
    let run = |count| run_in_pairs(&lab, &file, count);
    lab.server.on("POST", PATH, Reply::canned());
    lab.server.on(
        "POST",
        PATH,
        Reply::error(400, "invalid_request_error", "odd"),
    );
    run(4).expect_err("a refusal");
    lab.server.take_requests();
    check(run(3).expect("other requests from there on"), 3);
    let posts = lab.server.take_requests();
    assert_eq!(
        posts
            .iter()
            .filter(|request| request.method == "POST")
            .count(),
        1
    );
    assert_eq!(lab.server.batch_count(), 2);
}

#[test]
fn deadline_covers_all_batches_of_a_run() {
    let lab = Lab::new();
    lab.server.batch_polls(usize::MAX);
    let batches = lab.client.batches().batch_size(1).deadline(seconds(100));
    let error = batches.run(entries(3)).expect_err("a deadline");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error
            .to_string()
            .contains("created so far: msgbatch_test_000001, "),
        "{error}"
    );
    assert_eq!(lab.clock.elapsed(), seconds(100));
}

#[test]
fn journal_holds_no_key_and_no_request() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("secret"));
    let batches = lab.client.batches().journal(&file.path);
    drop(batches.run(entries(3)).expect("a run"));
    let text = fs::read_to_string(&file.path).expect("the journal");
    assert!(text.contains("msgbatch_test_000001"));
    for secret in [KEY, "question", "key-1", "haiku"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!format!("{batches:?}").contains(KEY));
}

#[cfg(any(target_os = "linux", windows))]
#[test]
fn journal_in_use_is_refused() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("in-use"));
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (lab, file) = (&lab, &file);
        scope.spawn(move || {
            let entries = entries(2).into_iter().inspect(|(id, _)| {
                if id == "key-1" {
                    begun.send(()).expect("someone waits");
                    may_go_on.recv().expect("someone says so");
                }
            });
            let run = lab.client.batches().journal(&file.path).run(entries);
            check(run.expect("a run"), 2);
        });
        has_begun.recv().expect("a run that has begun");
        let error = lab
            .client
            .batches()
            .journal(&file.path)
            .run(entries(2))
            .expect_err("in use");
        assert_eq!(error.kind(), ErrorKind::Config);
        go_on.send(()).expect("a run that waits");
    });
    check(
        lab.client
            .batches()
            .journal(&file.path)
            .run(entries(2))
            .expect("free again"),
        2,
    );
    assert_eq!(lab.server.batch_count(), 1);
}

#[test]
fn unusable_journal_is_a_clear_error() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("unusable"));
    fs::write(&file.path, "my only copy").expect("a file");
    let missing = file.path.with_extension("missing").join("journal");
    let not_found = fs::read(&missing).expect_err("no such folder");
    for (path, words) in [
        (&file.path, "is not a journal of batches"),
        (&missing, &format!("cannot be opened: {not_found}")),
    ] {
        let error = lab
            .client
            .batches()
            .journal(path)
            .run(entries(1))
            .expect_err(words);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(
        fs::read_to_string(&file.path).expect("the file"),
        "my only copy"
    );
    assert_eq!(lab.server.request_count(), 0);
}

#[test]
fn ambiguous_batches_after_a_kill_are_not_adopted() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("several"));
    let stall = Reply::canned().stall_before_headers();
    lab.server.on("POST", PATH, stall);
    shut_down_while_creating(&lab, &file);
    let again = builder(&lab.server)
        .clock(&lab.clock)
        .build()
        .expect("a client");
    let other = builder(&lab.server).build().expect("a client");
    other
        .batches()
        .create(entries(2))
        .expect("a batch of the same size");
    let error = again
        .batches()
        .journal(&file.path)
        .run(entries(2))
        .expect_err("two of them");
    let text = error.to_string();
    assert!(
        text.contains("2 batches of 2 requests were created since"),
        "{text}"
    );
    assert!(text.contains("msgbatch_test_000001") && text.contains("msgbatch_test_000002"));
    assert_eq!(lab.server.batch_count(), 2);
}

#[test]
fn foreign_batch_adopted_after_a_kill_is_detected() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("foreign"));
    // The server never acts on the request.
    lab.server
        .on("POST", PATH, Reply::status(200).stall_before_headers());
    shut_down_while_creating(&lab, &file);
    let other = builder(&lab.server).build().expect("a client");
    let foreign = entries(3).into_iter().skip(1);
    other.batches().create(foreign).expect("a foreign batch");
    let again = builder(&lab.server)
        .clock(&lab.clock)
        .build()
        .expect("a client");
    let run = || again.batches().journal(&file.path).run(entries(2));
    let error = run().expect_err("a foreign batch");
    assert_eq!(error.kind(), ErrorKind::Config);
    let words = "msgbatch_test_000001 was taken for a batch that got lost, but is another one; run \
                 again with the same journal";
    assert!(error.to_string().contains(words), "{error}");
    for _ in 0..2 {
        let run = run().expect("a batch of its own");
        assert_eq!(run.ids(), ["msgbatch_test_000002"]);
        check(run, 2);
    }
    assert_eq!(lab.server.batch_count(), 2);
}

#[test]
fn foreign_batch_is_detected_without_a_journal() {
    let clock = ManualClock::held();
    let lab = Lab::on(clock.clone(), |builder| builder);
    // The server never acts on the request.
    lab.server
        .on("POST", PATH, Reply::status(200).reset_before_headers());
    let client = lab.client.clone();
    let run = std::thread::spawn(move || client.batches().run(entries(2)).map(drop));
    // The first list shows no new batch.
    assert!(clock.wait_for_sleeps(1, HANG));
    let other = builder(&lab.server).build().expect("a client");
    let foreign = entries(3).into_iter().skip(1);
    other.batches().create(foreign).expect("a foreign batch");
    while !run.is_finished() {
        clock.advance(seconds(60));
        std::thread::yield_now();
    }
    let error = run.join().expect("no panic").expect_err("a foreign batch");
    let words =
        "is another one; take the results of the others by their ids, and submit the rest again";
    assert!(error.to_string().contains(words), "{error}");
}

// Runs that are killed.

/// What happens at the request at which a run is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kill {
    /// The server never acts on the request.
    Before,
    /// The server acts on the request, and its response is lost.
    After,
    /// Like `Before`, and only a part of the last journal line reached the disk.
    Torn,
}

#[test]
fn killed_run_delivers_each_entry_once() {
    let whole = run_and_kill(None, 0);
    let requests = whole.requests;
    assert!((25..60).contains(&requests), "{requests} requests");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for at in 0..requests {
        for kind in [Kill::Before, Kill::After, Kill::Torn] {
            let run = run_and_kill(Some((at, kind)), at as u64);
            assert!(run.was_killed, "{kind:?} request {at}");
            assert_eq!(run.batches, 4, "{kind:?} request {at}");
            *kinds
                .entry(format!("{kind:?} {}", run.killed_at))
                .or_default() += 1;
        }
    }
    assert_eq!(kinds["After POST list"], 4);
    println!("{requests} requests without a kill; killed {kinds:#?}");
}

struct KilledRun {
    requests: usize,
    batches: usize,
    was_killed: bool,
    killed_at: String,
}

/// Runs a child until it is killed, then a second child to the end, and checks the second's output.
#[track_caller]
fn run_and_kill(at: Option<(usize, Kill)>, seed: u64) -> KilledRun {
    let server = server();
    let file = TemporaryFile::new(&format!("kill-{seed}-{}", at.is_some()));
    let expired = AtomicUsize::new(0);
    server.batch_outcomes(move |id| match id {
        "key-3" if expired.fetch_add(1, Ordering::SeqCst) == 0 => BatchOutcome::Expired,
        _ => BatchOutcome::Canned,
    });
    let (signal, killing) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    server.respond_with(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        match at.filter(|at| at.0 == number) {
            None => Reply::canned(),
            Some((_, kind)) => {
                let _ = signal.send(format!("{} {}", request.method, path_kind(&request.path)));
                match kind {
                    Kill::After => Reply::canned().stall_before_headers(),
                    Kill::Before | Kill::Torn => Reply::status(200).stall_before_headers(),
                }
            }
        }
    });
    let mut killed_at = None;
    if at.is_some() {
        let mut child = child(CHILD, &server, &file.path);
        killed_at = killing.recv_timeout(HANG).ok();
        child.kill().expect("a child to kill");
        child.wait().expect("its end");
        assert!(server.wait_for_open_connections(0, HANG));
        if at.is_some_and(|at| at.1 == Kill::Torn) {
            cut_last_line(&file.path, &mut Rng::with_seed(seed));
        }
    }
    let before = server.request_count();
    let mut last = child(CHILD, &server, &file.path);
    let said: Vec<String> = BufReader::new(last.stdout.take().expect("it is piped"))
        .lines()
        .map(|line| line.expect("text"))
        .filter_map(|line| line.split_once("RESULT ").map(|(_, said)| said.to_owned()))
        .collect();
    assert!(last.wait().expect("its end").success(), "seed {seed}");
    let expected: Vec<String> = (0..5)
        .map(|i| format!("key-{i} You said: question {i}"))
        .collect();
    assert_eq!(said, expected, "seed {seed}");
    KilledRun {
        requests: server.request_count() - before,
        batches: server.batch_count(),
        was_killed: killed_at.is_some(),
        killed_at: killed_at.unwrap_or_default(),
    }
}

/// Returns the kind of path: `list`, `batch`, or the last part of a path with an id.
fn path_kind(path: &str) -> String {
    let rest = path.strip_prefix(PATH).unwrap_or(path);
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    match parts[..] {
        [] => "list".to_owned(),
        [_] => "batch".to_owned(),
        [_, what, ..] => what.to_owned(),
    }
}

const CHILD: &str = "batch_runs::child_to_kill";

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_to_kill() {
    let Some((client, journal)) = as_child() else {
        return;
    };
    let batches = client.batches().batch_size(2).resubmit(1).journal(journal);
    for entry in batches
        .deadline(seconds(86_400))
        .run(entries(5))
        .expect("a run")
    {
        let entry = entry.expect("a result");
        let id = entry.custom_id.clone();
        println!(
            "\nRESULT {id} {}",
            entry.into_message().expect("a response").text()
        );
    }
}

// Helpers.

/// Runs so many entries, two in a batch, with this journal.
fn run_in_pairs(lab: &Lab, file: &TemporaryFile, count: usize) -> Result<BatchRun> {
    let batches = lab.client.batches().batch_size(2).journal(&file.path);
    batches.run(entries(count))
}

/// Starts a run of two entries and shuts its client down while the server stalls the creation, so
/// that the journal does not tell whether the batch exists.
#[track_caller]
fn shut_down_while_creating(lab: &Lab, file: &TemporaryFile) {
    let client = lab.client.clone();
    let path = file.path.clone();
    let killed =
        std::thread::spawn(move || client.batches().journal(path).run(entries(2)).is_err());
    assert!(lab.server.wait_for_requests(2, HANG));
    lab.client.shutdown();
    assert!(killed.join().expect("no panic"));
}

#[track_caller]
fn check(run: BatchRun, count: usize) {
    let said: Vec<(String, String)> = run
        .map(|entry| entry.expect("a result"))
        .map(|entry| {
            (
                entry.custom_id.clone(),
                entry.into_message().expect("a response").text(),
            )
        })
        .collect();
    let expected = |i| (format!("key-{i}"), format!("You said: question {i}"));
    assert_eq!(said, (0..count).map(expected).collect::<Vec<_>>());
}

#[expect(dead_code, reason = "checked by the compiler")]
fn items_are_results(run: BatchRun) -> Vec<Result<Value>> {
    run.map(|entry| entry.map(|entry| serde_json::to_value(entry).expect("JSON")))
        .collect()
}
