//! Journals of bulk runs: no request is sent twice, whenever and however a run ended.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anthropic_blocking::testing::{Reply, StreamScript};
use anthropic_blocking::{ErrorKind, MessageRequest};
use fastrand::Rng;
use serde_json::Value;

use crate::support::child::{TemporaryFile, as_child, child, cut_last_line};
use crate::support::gate::{gate, hold_replies};
use crate::support::jobs::{ask, bulk_at_once, jobs, number, texts};
use crate::support::*;

#[test]
fn second_run_completes_the_first() {
    for is_dropped in [true, false] {
        let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-half"));
        let bulk = bulk_at_once(&lab.client, 4).journal(&file.path);
        let mut first = bulk.run(jobs(100)).expect("a run");
        for _ in 0..50 {
            first.next().expect("a result").1.expect("a success");
        }
        if is_dropped {
            drop(first);
        } else {
            first.stop();
            let rest = texts(&mut first);
            assert_eq!(rest.len(), 50);
            let ends = [Ok(()), Err(ErrorKind::NotRun)];
            assert!(
                rest.values()
                    .all(|text| ends.contains(&text.clone().map(|_| ())))
            );
            // The run has ended: its journal is free, whether the run is dropped or not.
        }
        let before = keys(&file.path);
        assert!((50..=58).contains(&before.len()), "{}", before.len());
        let new_only = bulk.replay(false);
        let second = new_only.run(jobs(100)).expect("a run");
        let results = texts(second);
        assert!(results.keys().all(|key| !before.contains_key(key)));
        assert_eq!(results.len() + before.len(), 100);
        assert_each_once(&file.path, 100);
        assert_eq!(new_only.run(jobs(100)).expect("a run").count(), 0);
    }
}

#[test]
fn recorded_but_untaken_results_come_next_run() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-taken"));
    let bulk = bulk_at_once(&lab.client, 4).journal(&file.path);
    let mut first = bulk.run(jobs(100)).expect("a run");
    for _ in 0..10 {
        first.next().expect("a result").1.expect("a success");
    }
    drop(first);
    let kept = keys(&file.path).len() as u64;
    let mut second = bulk.run(jobs(100)).expect("a run");
    let results = texts(&mut second);
    assert_eq!(results.len(), 100);
    assert!(results.values().all(|text| text.is_ok()));
    let progress = second.progress();
    assert_eq!((progress.skipped, progress.done), (kept, 100 - kept));
    assert_eq!(progress.totals.all.calls, 100 - kept);
}

#[test]
fn replay_yields_equal_messages() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-replay"));
    let bulk = bulk_at_once(&lab.client, 4).journal(&file.path);
    let json = |message| serde_json::to_value(message).expect("JSON");
    let once: BTreeMap<String, Value> = bulk
        .run(jobs(20))
        .expect("a run")
        .map(|(key, result)| (key, json(result.expect("a success"))))
        .collect();
    let requests = lab.server.request_count();
    let mut run = bulk.run(jobs(21)).expect("a run");
    let again: BTreeMap<String, Value> = run
        .by_ref()
        .map(|(key, result)| (key, json(result.expect("a success"))))
        .collect();
    assert_eq!(again.len(), 21);
    assert!(once.iter().all(|(key, result)| again[key] == *result));
    let progress = run.progress();
    assert_eq!((progress.done, progress.skipped), (1, 20));
    assert_eq!(lab.server.request_count(), requests + 1);

    // Also the keys that a stopped run does not reach.
    let run = bulk.run(jobs(30)).expect("a run");
    run.stop();
    let results = texts(run);
    assert_eq!(results.len(), 30);
    assert!((0..21).all(|number| results[&format!("key-{number}")].is_ok()));
}

/// A message too deep to be read back from a journal is refused when the server sends it.
#[test]
fn deep_message_survives_replay_or_is_refused() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-levels"));
    // In addition to the levels of the message, its content and its block.
    let result = |levels: usize| {
        let input = "[".repeat(levels) + &"]".repeat(levels);
        format!(r#"{{"content":[{{"type":"tool_use","id":"t","name":"n","input":{input}}}]}}"#)
    };
    lab.server.push_all([
        Reply::json(200, result(97)),
        Reply::json(200, result(98)),
        Reply::stream(StreamScript::new().event(
            "message_start",
            format!(r#"{{"type":"message_start","message":{}}}"#, result(97)),
        )),
    ]);
    let bulk = bulk_at_once(&lab.client, 1).journal(&file.path);
    let mut results = bulk.run(jobs(3)).expect("a run");
    let whole = results.next().expect("the first").1.expect("not too deep");
    for (_, refused) in results {
        let error = refused.expect_err("too deep");
        assert!(format!("{error:?}").contains("100 levels"), "{error:?}");
    }
    let mut again = bulk.run(jobs(1)).expect("a run");
    assert_eq!(
        again.next().expect("the first").1.expect("a response"),
        whole
    );
    assert_eq!(lab.server.request_count(), 3);
}

#[test]
fn failures_are_retried_and_double_keys_are_errors() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-failures"));
    let bulk = bulk_at_once(&lab.client, 2).journal(&file.path);
    lab.server
        .push_all((0..3).map(|_| Reply::error(400, "invalid_request_error", "odd")));
    let count = |results: BTreeMap<_, Result<String, _>>| {
        let ok = results.values().filter(|text| text.is_ok()).count();
        (ok, results.len() - ok)
    };
    assert_eq!(count(texts(bulk.run(jobs(10)).expect("a run"))), (7, 3));
    assert_eq!(count(texts(bulk.run(jobs(10)).expect("a run"))), (10, 0));
    assert_eq!(lab.server.request_count(), 13);
    assert_each_once(&file.path, 10);

    let twins = [("a", ask(1)), ("b", ask(2)), ("a", ask(3))];
    let errors: Vec<_> = bulk
        .run(twins)
        .expect("a run")
        .filter_map(|(key, result)| Some((key, result.err()?)))
        .collect();
    let [(key, error)] = &errors[..] else {
        panic!("{errors:?}");
    };
    assert_eq!(*key, "a");
    assert!(
        error.to_string().contains("the key \"a\" occurs twice"),
        "{error}"
    );
    assert_each_once(&file.path, 12);
}

#[test]
fn requests_have_distinct_keys() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-fingerprints"));
    let bulk = bulk_at_once(&lab.client, 4).journal(&file.path);
    let items = |count| (0..count).map(|number| (ask(number).fingerprint(), ask(number)));
    assert_eq!(texts(bulk.run(items(20)).expect("a run")).len(), 20);
    assert_eq!(texts(bulk.run(items(25)).expect("a run")).len(), 25);
    assert_eq!(lab.server.request_count(), 25);
}

#[test]
fn torn_line_is_repaired_and_broken_one_reported() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-torn"));
    let bulk = bulk_at_once(&lab.client, 2).journal(&file.path);
    texts(bulk.run(jobs(5)).expect("a run"));
    append(&file.path, "{\"key\":\"key-5\",\"message\":{\"id\":\"msg");
    assert_eq!(texts(bulk.run(jobs(6)).expect("a run")).len(), 6);
    assert_eq!(lab.server.request_count(), 6);
    assert_each_once(&file.path, 6);
    append(&file.path, "{\"key\":\n");
    let error = bulk.run(jobs(6)).expect_err("a broken line");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("line 8 of the journal"),
        "{error}"
    );
}

#[test]
fn lines_of_other_writers_are_left_intact() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-others"));
    let hold = gate();
    let may_go = std::sync::Arc::clone(&hold);
    lab.server.respond_with(move |request| {
        if number(request) > 0 {
            may_go.pass();
        }
        Reply::canned()
    });
    let bulk = bulk_at_once(&lab.client, 1).journal(&file.path);
    let mut run = bulk.run(jobs(5)).expect("a run");
    run.next().expect("a result").1.expect("a success");
    // As a second run would on a system without locks, or in another container.
    let text = fs::read_to_string(&file.path).expect("a journal");
    let line = text.lines().last().expect("a response");
    append(&file.path, &line.replace("key-0", "key-7"));
    append(&file.path, "\n");
    hold.open();
    assert_eq!(run.count(), 4);
    assert!(keys(&file.path).contains_key("key-7"));
    assert_each_once(&file.path, 6);
}

/// A power cut leaves zeros where pages reached the disk out of order.
#[test]
fn lines_with_zeros_are_skipped_and_rerun() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-zeros"));
    let bulk = bulk_at_once(&lab.client, 1).journal(&file.path);
    texts(bulk.run(jobs(6)).expect("a run"));
    let mut bytes = fs::read(&file.path).expect("a journal");
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    // The end of the second record, and the beginning of the third.
    bytes[ends[2] - 20..ends[2] + 20].fill(0);
    fs::write(&file.path, &bytes).expect("room");
    for requests in [6 + 2, 6 + 2] {
        let results = texts(bulk.run(jobs(6)).expect("a run"));
        assert_eq!(results.len(), 6);
        assert!(results.values().all(|text| text.is_ok()));
        assert_eq!(lab.server.request_count(), requests);
    }
}

#[test]
fn unusable_journal_is_a_clear_error() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-unusable"));
    let batches = lab.client.batches().journal(&file.path);
    batches.run([("a", ask(1))]).expect("a run").for_each(drop);
    let before = fs::read(&file.path).expect("a journal");
    let requests = lab.server.request_count();
    let folder = std::env::temp_dir();
    let missing = file.path.with_extension("missing").join("journal");
    let not_found = fs::read(&missing).expect_err("no such folder");
    for (path, words) in [
        (&file.path, "is not a journal of bulk"),
        (&folder, "cannot be opened: "),
        (&missing, &format!("cannot be opened: {not_found}")),
    ] {
        let error = lab
            .client
            .bulk()
            .journal(path)
            .run(jobs(3))
            .expect_err(words);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(fs::read(&file.path).expect("a journal"), before);
    assert_eq!(lab.server.request_count(), requests);
}

#[cfg(any(target_os = "linux", windows))]
#[test]
fn journal_is_locked_during_its_run() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-in-use"));
    let hold = hold_replies(&lab.server);
    let bulk = bulk_at_once(&lab.client, 4).journal(&file.path);
    let first = bulk.run(jobs(9)).expect("a run");
    let error = bulk.run(jobs(9)).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Config);
    // The next run need not wait for the threads of the dropped run.
    drop(first);
    let second = bulk.run(jobs(9)).expect("free again");
    hold.open();
    assert_eq!(texts(second).len(), 9);
    // Nor need it wait after a run that reached its end.
    for count in 10..60 {
        let run = bulk.run(jobs(count)).expect("free again");
        assert_eq!(texts(run).len(), count);
    }
    assert_each_once(&file.path, 59);
}

#[cfg(unix)]
#[test]
fn new_journal_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-owner"));
    let run = lab.client.bulk().journal(&file.path).run(jobs(1));
    assert_eq!(run.expect("a run").count(), 1);
    let mode = fs::metadata(&file.path)
        .expect("a journal")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn journal_holds_neither_key_nor_prompt() {
    let (lab, file) = (Lab::new(), TemporaryFile::new("bulk-secret"));
    lab.server.respond_with(|_| Reply::message("fine"));
    let bulk = lab.client.bulk().journal(&file.path);
    let items = [(
        "a",
        MessageRequest::new("claude-haiku-4-5", 64).user(PROMPT),
    )];
    bulk.run(items).expect("a run").for_each(drop);
    let text = fs::read_to_string(&file.path).expect("a journal");
    assert!(text.contains("fine"));
    assert!(!text.contains(KEY) && !text.contains(PROMPT), "{text}");
    assert!(!format!("{bulk:?}").contains(KEY));
}

const ITEMS: usize = 24;

#[test]
fn killed_run_ends_with_each_key_once() {
    let mut rng = Rng::with_seed(24);
    let (mut torn, mut done_before) = (0, 0);
    for seed in 0..50 {
        let file = TemporaryFile::new(&format!("bulk-kill-{seed}"));
        let server = server();
        let (signal, killing) = mpsc::channel();
        let (at, count) = (rng.usize(0..ITEMS), AtomicUsize::new(0));
        server.respond_with(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) < at {
                return Reply::canned();
            }
            let _ = signal.send(());
            Reply::canned().stall_before_headers()
        });
        let mut killed = child(CHILD, &server, &file.path);
        killing.recv_timeout(HANG).expect("a request to kill at");
        killed.kill().expect("a child to kill");
        killed.wait().expect("its end");
        if rng.bool() && keys(&file.path).len() > 1 {
            cut_last_line(&file.path, &mut rng);
            torn += 1;
        }
        server.respond_with(|request| Reply::message(format!("answer {}", number(request))));
        let client = builder(&server).build().expect("valid settings");
        let bulk = bulk_at_once(&client, 4).journal(&file.path);
        let mut run = bulk.run(jobs(ITEMS)).expect("a run");
        let results = texts(&mut run);
        assert_eq!(results.len(), ITEMS, "seed {seed}");
        assert!(results.values().all(|text| text.is_ok()), "seed {seed}");
        assert_each_once(&file.path, ITEMS);
        done_before += run.progress().skipped;
    }
    println!("{torn} of 50 torn, {done_before} answers were there before");
    assert!(torn > 10 && done_before > 100, "{torn}, {done_before}");
}

const CHILD: &str = "bulk_journal::child_to_kill";

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_to_kill() {
    let Some((client, journal)) = as_child() else {
        return;
    };
    let bulk = bulk_at_once(&client, 4).journal(journal);
    bulk.run(jobs(ITEMS)).expect("a run").for_each(drop);
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("it");
    file.write_all(text.as_bytes()).expect("room");
}

/// Counts how often each key is in a journal, apart from a torn last line.
fn keys(path: &Path) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut keys = BTreeMap::new();
    for line in whole.lines().skip(1) {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let key = line["key"].as_str().expect("a key").to_owned();
        *keys.entry(key).or_default() += 1;
    }
    keys
}

#[track_caller]
fn assert_each_once(path: &Path, count: usize) {
    let keys = keys(path);
    assert_eq!(keys.len(), count);
    assert!(keys.values().all(|times| *times == 1), "{keys:?}");
}
