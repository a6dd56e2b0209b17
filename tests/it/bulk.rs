//! Bulk runs: each request once, fatal failures, lazy input, prefix leaders, money, progress.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ManualClock, Reply, ServerLimits};
use anthropic_blocking::{
    BulkRun, CacheControl, Client, ContentBlock, Delivery, ErrorKind, Limits, MessageRequest,
    ModelClass, Price, Prices, Progress, Result,
};

use crate::support::gate::{gate, hold_replies, wait_until};
use crate::support::jobs::{ask, bulk_at_once, jobs, number, texts};
use crate::support::*;

#[test]
fn each_key_yields_its_own_message_once() {
    let lab = Lab::new();
    let run = bulk_at_once(&lab.client, 16).run(jobs(300)).expect("a run");
    let results = texts(run);
    assert_eq!(results.len(), 300);
    for (key, text) in results {
        let number = key.strip_prefix("key-").expect("a key");
        assert_eq!(text, Ok(format!("You said: question {number}")));
    }
    assert_eq!(lab.server.request_count(), 300);
    let totals = lab.client.totals().all;
    assert_eq!((totals.calls, totals.failed), (300, 0));
}

#[test]
fn concurrency_reaches_but_never_exceeds_its_limit() {
    const MOST: usize = 6;
    let lab = lab_without_limits();
    let (open, most, full) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)), gate());
    let (seen, may_go) = (Arc::clone(&most), Arc::clone(&full));
    lab.server.respond_with(move |_| {
        let now = open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(now, Ordering::SeqCst);
        if now == MOST {
            may_go.open();
        }
        may_go.pass();
        open.fetch_sub(1, Ordering::SeqCst);
        Reply::message("yes")
    });
    let run = bulk_at_once(&lab.client, MOST)
        .run(jobs(120))
        .expect("a run");
    assert_eq!(run.filter(|(_, result)| result.is_ok()).count(), 120);
    assert_eq!(most.load(Ordering::SeqCst), MOST);
}

#[test]
fn map_keeps_order_and_reports_a_panic_as_error() {
    let lab = Lab::new();
    let results = bulk_at_once(&lab.client, 8).map(0..100, |client, number| {
        assert!(number != 17, "seventeen is too many");
        if number == 18 {
            std::panic::panic_any(18);
        }
        Ok(client.messages().create(&ask(number))?.text())
    });
    assert_eq!(results.len(), 100);
    for (number, result) in results.into_iter().enumerate() {
        match (number, result) {
            (17 | 18, Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Panicked);
                let said = error.to_string().contains("seventeen is too many");
                assert_eq!(said, number == 17, "{error}");
                assert!(!error.is_retryable());
            }
            (_, result) => assert_eq!(
                result.expect("a response"),
                format!("You said: question {number}")
            ),
        }
    }
}

#[test]
fn one_failure_leaves_the_rest_running() {
    let lab = Lab::new();
    lab.server
        .respond_with(|request| match number(request) % 10 {
            7 => Reply::error(400, "invalid_request_error", "odd"),
            8 => Reply::error(404, "not_found_error", "no such model"),
            _ => Reply::canned(),
        });
    let run = bulk_at_once(&lab.client, 8).run(jobs(100)).expect("a run");
    for (key, text) in texts(run) {
        let expected = match key.as_bytes().last() {
            Some(b'7') => Err(ErrorKind::InvalidRequest),
            Some(b'8') => Err(ErrorKind::NotFound),
            _ => Ok(()),
        };
        assert_eq!(text.map(|_| ()), expected, "{key}");
    }
}

#[test]
fn fatal_failure_stops_the_run_at_once() {
    let spend = Reply::error_code(
        429,
        "rate_limit_error",
        "enforced_spend_limit_reached",
        "no",
    );
    let on_hold = Reply::error_code(400, "invalid_request_error", "organization_on_hold", "no");
    for (reply, kind) in [
        (
            Reply::error(401, "authentication_error", "no"),
            Some(ErrorKind::Auth),
        ),
        (spend.header("retry-after", "20"), Some(ErrorKind::Billing)),
        (on_hold, None),
    ] {
        let lab = lab_without_limits();
        let count = AtomicUsize::new(0);
        lab.server
            .respond_with(move |_| match count.fetch_add(1, Ordering::SeqCst) {
                0..10 => Reply::canned(),
                _ => reply.clone(),
            });
        let mut run = bulk_at_once(&lab.client, 4).run(jobs(400)).expect("a run");
        let results = texts(&mut run);
        assert_eq!(results.len(), 400);
        let count = |kind| results.values().filter(|text| **text == Err(kind)).count();
        let ok = results.values().filter(|text| text.is_ok()).count();
        let not_run = count(ErrorKind::NotRun);
        assert_eq!(ok, 10);
        // At least one fatal failure is delivered, and so are those in flight with it.
        assert!((400 - ok - 4..400 - ok).contains(&not_run), "{not_run}");
        if let Some(kind) = kind {
            assert_eq!(count(kind), 400 - ok - not_run);
        }
        assert!(lab.server.request_count() <= 1 + 10 + 4);
        assert!(run.stop_cause().expect("a reason").contains("no"));
        let progress = run.progress();
        assert_eq!((progress.done, progress.failed), (10, 390));
    }
}

#[test]
fn invalid_setting_of_one_item_fails_only_that_item() {
    let lab = Lab::new();
    let results = bulk_at_once(&lab.client, 2).map(0..20, |client, number| {
        if number == 3 {
            Client::builder()
                .api_key("key")
                .base_url("no address")
                .build()?;
        }
        client.messages().create(&ask(number))
    });
    for (number, result) in results.into_iter().enumerate() {
        let kind = result.map(drop).map_err(|error| error.kind());
        let expected = if number == 3 {
            Err(ErrorKind::Config)
        } else {
            Ok(())
        };
        assert_eq!(kind, expected, "{number}");
    }
}

#[test]
fn unsent_items_name_the_reason() {
    let lab = lab_without_limits();
    lab.server.push(Reply::error(
        401,
        "authentication_error",
        "invalid x-api-key",
    ));
    let run = bulk_at_once(&lab.client, 1).run(jobs(3)).expect("a run");
    let errors: Vec<_> = run
        .map(|(_, result)| result.expect_err("a fatal failure"))
        .collect();
    assert_eq!(errors[0].kind(), ErrorKind::Auth);
    assert_eq!(errors[2].kind(), ErrorKind::NotRun);
    let text = errors[2].to_string();
    assert!(
        text.starts_with("an item of a bulk run: not sent, because the run was stopped: "),
        "{text}"
    );
    assert!(text.contains("invalid x-api-key"), "{text}");
    assert!(errors[2].is_retryable() && errors[2].attempts().is_empty());
}

#[test]
fn stop_before_a_retry_keeps_the_failure() {
    for (reply, kind, delivery) in [
        (
            Reply::overloaded(),
            ErrorKind::Overloaded,
            Delivery::Responded,
        ),
        (
            Reply::canned().reset_before_headers(),
            ErrorKind::Connection,
            Delivery::Unknown,
        ),
    ] {
        let clock = ManualClock::held();
        let lab = Lab::on(clock.clone(), |builder| builder);
        lab.create().expect("a response");
        let failing = reply.clone();
        lab.server.respond_with(move |_| failing.clone());
        let mut run = bulk_at_once(&lab.client, 1).run(jobs(2)).expect("a run");
        assert!(lab.server.wait_for_requests(2, HANG));
        assert!(clock.wait_for_sleeps(1, HANG));
        run.stop();
        let (_, first) = run.next().expect("a result");
        let error = first.expect_err("it failed");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("the run was stopped"), "{error}");
        let deliveries: Vec<Delivery> = error.attempts().iter().map(|a| a.delivery).collect();
        assert_eq!(deliveries, [delivery]);
        let (_, second) = run.next().expect("a result");
        assert_eq!(second.expect_err("not sent").kind(), ErrorKind::NotRun);
    }
}

#[test]
fn nested_run_stops_with_the_outer_run() {
    let lab = lab_without_limits();
    let (hold, arrived) = (gate(), Arc::new(AtomicBool::new(false)));
    let (may_go, has_arrived) = (Arc::clone(&hold), Arc::clone(&arrived));
    lab.server.respond_with(move |request| {
        if number(request) == 0 {
            wait_until(|| has_arrived.load(Ordering::SeqCst));
            return Reply::error(401, "authentication_error", "no");
        }
        has_arrived.store(true, Ordering::SeqCst);
        may_go.pass();
        Reply::canned()
    });
    let bulk = bulk_at_once(&lab.client, 2).on_progress(move |progress| {
        if progress.failed > 0 {
            hold.open();
        }
    });
    let results = bulk.map([0, 10], |client, first| {
        if first == 0 {
            client.messages().create(&ask(0))?;
            return Ok(Vec::new());
        }
        let inner = bulk_at_once(client, 1).map(first..first + 3, |client, number| {
            client.messages().create(&ask(number)).map(drop)
        });
        Ok(inner.into_iter().map(Result::err).collect())
    });
    let outer = results[0].as_ref().expect_err("a wrong key");
    assert_eq!(outer.kind(), ErrorKind::Auth);
    let inner = results[1].as_ref().expect("it ended");
    assert!(inner[0].is_none(), "what was under way is finished");
    for error in &inner[1..] {
        let error = error.as_ref().expect("not sent");
        assert_eq!(error.kind(), ErrorKind::NotRun);
        assert!(error.to_string().ends_with("the enclosing run was stopped"));
    }
    assert_eq!(lab.server.request_count(), 3);
}

#[test]
fn results_in_flight_are_delivered_after_a_stop() {
    let lab = lab_without_limits();
    let (hold, holding) = (gate(), Arc::new(AtomicUsize::new(0)));
    let (may_go, held) = (Arc::clone(&hold), Arc::clone(&holding));
    lab.server.respond_with(move |request| {
        if number(request) == 0 {
            wait_until(|| held.load(Ordering::SeqCst) == 3);
            return Reply::error(401, "authentication_error", "no");
        }
        held.fetch_add(1, Ordering::SeqCst);
        may_go.pass();
        match number(request) {
            1 => Reply::error(400, "invalid_request_error", "odd"),
            2 => Reply::overloaded(),
            _ => Reply::canned(),
        }
    });
    let mut run = bulk_at_once(&lab.client, 4).run(jobs(50)).expect("a run");
    let (key, first) = run.next().expect("the first result");
    assert_eq!(
        (&*key, first.expect_err("a fatal failure").kind()),
        ("key-0", ErrorKind::Auth)
    );
    hold.open();
    let results = texts(run);
    assert_eq!(results["key-1"], Err(ErrorKind::InvalidRequest));
    assert_eq!(results["key-2"], Err(ErrorKind::Overloaded));
    assert!(results["key-3"].is_ok());
    assert_eq!(results.len(), 49);
    assert_eq!(lab.server.request_count(), 1 + 4);
}

#[test]
fn stop_finishes_requests_in_flight() {
    let lab = lab_without_limits();
    let hold = hold_replies(&lab.server);
    let run = bulk_at_once(&lab.client, 4).run(jobs(50)).expect("a run");
    assert!(lab.server.wait_for_requests(1 + 4, HANG));
    let stop = run.stopper();
    thread::spawn(stop).join().expect("no panic");
    assert_eq!(run.stop_cause().as_deref(), Some("stop() was called"));
    hold.open();
    let results = texts(run);
    let ok = results.values().filter(|text| text.is_ok()).count();
    assert_eq!((results.len(), ok), (50, 4));
    assert_eq!(lab.server.request_count(), 1 + 4);
}

// Lazy input.

#[test]
fn input_is_pulled_only_as_results_are_taken() {
    const THREADS: usize = 4;
    let lab = lab_without_limits();
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let alive = Arc::new(());
    let token = Arc::clone(&alive);
    let endless = (0..).map(move |number| {
        let _ = &token;
        counter.fetch_add(1, Ordering::SeqCst);
        (number, ask(number))
    });
    let mut run = bulk_at_once(&lab.client, THREADS)
        .run(endless)
        .expect("a run");
    for taken in 1..=50 {
        assert!(run.next().expect("a result").1.is_ok());
        let pulled = pulled.load(Ordering::SeqCst);
        assert!(pulled <= taken + 2 * THREADS + 1, "{pulled} for {taken}");
    }
    assert_eq!(run.progress().total, None);
    drop(run);
    // The input iterator is dropped with the last thread.
    wait_until(|| Arc::strong_count(&alive) == 1);
    let (requests, pulled) = (lab.server.request_count(), pulled.load(Ordering::SeqCst));
    assert!(
        requests <= 1 + pulled && pulled <= 50 + 2 * THREADS + 1,
        "{requests}, {pulled}"
    );
}

#[test]
fn million_items_are_never_all_in_memory() {
    let lab = lab_without_limits();
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let million = (0..1_000_000).map(move |number| {
        counter.fetch_add(1, Ordering::SeqCst);
        (number, ask(number))
    });
    let mut run = bulk_at_once(&lab.client, 3).run(million).expect("a run");
    assert_eq!(run.progress().total, Some(1_000_000));
    // Wait until all threads are blocked on the results being taken.
    wait_until(|| lab.server.request_count() > 6);
    run.next().expect("a result").1.expect("a success");
    run.stop();
    assert!(pulled.load(Ordering::SeqCst) <= 1 + 2 * 3 + 1);
}

#[test]
fn dropped_run_cuts_its_streams() {
    let lab = lab_without_limits();
    lab.server.respond_with(|_| {
        // Some seconds of text in a stream.
        Reply::message("word ".repeat(2_000)).dribble(64, millis(10))
    });
    for warm_first in [true, false] {
        let before = lab.server.request_count();
        let run = bulk_at_once(&lab.client, 2)
            .warm_first(warm_first)
            .run((0..9).map(|number| (number, prefixed(number, "a long prefix"))))
            .expect("a run");
        assert!(lab.server.wait_for_requests(before + 1, HANG));
        wait_until(|| lab.client.budget().snapshot()[0].in_flight > 0);
        drop(run);
        wait_until(|| lab.client.budget().snapshot()[0].in_flight == 0);
        assert!(lab.server.wait_for_open_connections(0, HANG));
    }
}

#[test]
fn input_iterator_panic_reaches_the_consumer() {
    let lab = Lab::new();
    let requests = jobs(50).inspect(|(key, _)| assert!(key != "key-20", "no twenty"));
    let mut run = bulk_at_once(&lab.client, 4).run(requests).expect("a run");
    let mut taken = BTreeSet::new();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for (key, _) in &mut run {
            assert!(taken.insert(key));
        }
    }));
    let said = panic.expect_err("it panics");
    assert_eq!(said.downcast_ref::<&str>(), Some(&"no twenty"));
    assert_eq!(taken.len(), 20);
    assert!(run.next().is_none());
    assert!(run.stop_cause().expect("a reason").contains("panicked"));
}

#[test]
fn client_shutdown_ends_a_run() {
    let lab = lab_without_limits();
    lab.server.respond_with(|request| match number(request) {
        0..5 => Reply::canned(),
        _ => Reply::canned().stall_before_headers(),
    });
    let run = bulk_at_once(&lab.client, 4).run(jobs(40)).expect("a run");
    // One thread waits for the five results to be taken.
    assert!(lab.server.wait_for_requests(1 + 5 + 3, HANG));
    lab.client.shutdown();
    let results = ends(move || texts(run));
    assert_eq!(results.len(), 40);
    for (key, text) in results {
        let ended = [ErrorKind::Shutdown, ErrorKind::NotRun];
        assert!(
            text.as_ref().is_ok_and(|_| key.len() == 5)
                || text.as_ref().is_err_and(|kind| ended.contains(kind)),
            "{key}: {text:?}"
        );
    }
    let mapped =
        bulk_at_once(&lab.client, 4).map(0..9, |client, _| client.messages().create(&request()));
    for result in mapped {
        assert_eq!(result.expect_err("over").kind(), ErrorKind::NotRun);
    }
}

#[test]
fn run_works_with_one_thread_and_with_no_items() {
    let lab = Lab::new();
    let run = lab
        .client
        .bulk()
        .concurrency(0)
        .run(jobs(9))
        .expect("a run");
    let keys: Vec<_> = run.map(|(key, _)| key).collect();
    assert_eq!(keys, jobs(9).map(|(key, _)| key).collect::<Vec<_>>());
    let mut none = lab.client.bulk().run(jobs(0)).expect("a run");
    assert!(none.next().is_none() && none.next().is_none());
    let nothing = lab.client.bulk().map([(); 0], |_, ()| Ok(()));
    assert!(nothing.is_empty());
    let many = bulk_at_once(&lab.client, usize::MAX).run(jobs(3));
    assert_eq!(texts(many.expect("a run")).len(), 3);
}

#[test]
fn run_begins_with_four_threads_and_adds_more() {
    let clock = ManualClock::held();
    let lab = Lab::on(clock.clone(), |builder| builder);
    lab.create().expect("a response");
    let hold = hold_replies(&lab.server);
    let bulk = lab.client.bulk().concurrency(8).ramp_up(seconds(60));
    let run = bulk.run(jobs(30)).expect("a run");
    assert!(lab.server.wait_for_requests(1 + 4, HANG));
    // Threads two to four sleep for zero seconds; then the fifth sleeps.
    assert!(clock.wait_for_sleeps(4, HANG));
    // Doubling four threads takes ten seconds, in four steps.
    let sleep = clock.sleeps()[3];
    assert!(sleep > seconds(2) && sleep < seconds(3), "{sleep:?}");
    clock.advance(seconds(3));
    assert!(lab.server.wait_for_requests(1 + 5, HANG));
    assert!(clock.wait_for_sleeps(5, HANG));
    assert_eq!(lab.server.request_count(), 1 + 5);
    clock.advance(seconds(7));
    assert!(lab.server.wait_for_requests(1 + 8, HANG));
    hold.open();
    assert_eq!(texts(run).len(), 30);
}

#[test]
fn waiting_model_class_blocks_no_other_class() {
    for is_map in [false, true] {
        let lab = Lab::on(ManualClock::held(), |builder| builder);
        let busy = |_| MessageRequest::new("claude-opus-5", 64).user("Hello?");
        let (class, one) = (
            ModelClass::of("claude-opus-5"),
            Limits::per_minute().requests(1),
        );
        drop(lab.client.budget().clone().limits(class, one));
        lab.create().expect("a response");
        let others = bulk_at_once(&lab.client, 1).run([(0, busy(0))]);
        assert_eq!(others.expect("a run").count(), 1);
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let client = lab.client.clone();
                thread::spawn(move || client.messages().create(&busy(number)).map(drop))
            })
            .collect();
        let queued = || -> usize {
            lab.client
                .budget()
                .snapshot()
                .iter()
                .map(|c| c.waiting)
                .sum()
        };
        wait_until(|| queued() == 3);

        let hold = gate();
        let may_go = Arc::clone(&hold);
        lab.server.respond_with(move |request| {
            // A map does not know its model class before its first response.
            if number(request) > 0 {
                may_go.pass();
            }
            Reply::canned()
        });
        thread::scope(|scope| {
            let bulk = bulk_at_once(&lab.client, 4);
            let results = scope.spawn(move || match is_map {
                true => {
                    let ask = |client: &Client, number| client.messages().create(&ask(number));
                    bulk.map(0..9, ask).len()
                }
                false => bulk.run(jobs(9)).expect("a run").count(),
            });
            assert!(lab.server.wait_for_requests(2 + 1 + 4, HANG));
            assert_eq!(queued(), 3);
            hold.open();
            assert_eq!(results.join().expect("no panic"), 9);
        });
        lab.client.shutdown();
        for thread in waiting {
            let ended = thread.join().expect("no panic").expect_err("over");
            assert_eq!(ended.kind(), ErrorKind::Shutdown);
        }
    }
}

// One request goes first.

#[test]
fn one_request_per_prefix_goes_first() {
    let lab = lab_without_limits();
    let hold = gate();
    let (may_go, began) = (Arc::clone(&hold), AtomicBool::new(false));
    lab.server.respond_with(move |_| {
        if began.swap(true, Ordering::SeqCst) {
            return Reply::canned();
        }
        may_go.pass();
        // The response has begun, and stalls.
        Reply::message("word ".repeat(500)).stall(2_000)
    });
    let items = (0..8).map(|number| (number, prefixed(number, "a long prefix")));
    let mut run = bulk_at_once(&lab.client, 4).run(items).expect("a run");
    assert!(lab.server.wait_for_requests(1 + 1, HANG));
    wait_until(|| run.progress().in_flight == 4);
    assert_eq!(lab.server.request_count(), 1 + 1);
    hold.open();
    for _ in 0..7 {
        run.next().expect("a result").1.expect("a success");
    }
    assert_eq!(run.progress().in_flight, 1);
    lab.client.shutdown();
    let (_, leader) = run.next().expect("the one that went ahead");
    assert_eq!(leader.expect_err("cut").kind(), ErrorKind::Shutdown);
}

#[test]
fn cache_mark_in_the_question_is_no_new_prefix() {
    let lab = lab_without_limits();
    let hold = hold_replies(&lab.server);
    let marked = |text: String| ContentBlock::text(text).cached(CacheControl::ephemeral());
    let items = (0..4).map(move |number| {
        let request =
            MessageRequest::new("claude-haiku-4-5", 64).system(vec![marked("long".into())]);
        (
            number,
            request.user(vec![marked(format!("question {number}"))]),
        )
    });
    let run = bulk_at_once(&lab.client, 4).run(items).expect("a run");
    assert!(lab.server.wait_for_requests(1 + 1, HANG));
    wait_until(|| run.progress().in_flight == 4);
    assert_eq!(lab.server.request_count(), 1 + 1);
    hold.open();
    assert_eq!(run.filter(|(_, result)| result.is_ok()).count(), 4);
}

#[test]
fn prefixes_do_not_wait_for_each_other() {
    for (is_warm, expected) in [(true, 3), (false, 6)] {
        let lab = lab_without_limits();
        let hold = hold_replies(&lab.server);
        // Two requests of each of two prefixes, one without a prefix, one of a third.
        let prefixes = ["a", "b", "a", "b", "", ""];
        let items = prefixes.iter().enumerate().map(|(number, prefix)| {
            let request = match (*prefix, is_warm) {
                ("", true) => prefixed(number, "a"),
                ("", false) => ask(number),
                (prefix, _) => prefixed(number, prefix),
            };
            (number, request)
        });
        let items: Vec<_> = match is_warm {
            true => items.chain([(6, ask(6))]).collect(),
            false => items.collect(),
        };
        let (count, bulk) = (items.len(), bulk_at_once(&lab.client, 7));
        let run = bulk.warm_first(is_warm).run(items).expect("a run");
        assert!(lab.server.wait_for_requests(1 + expected, HANG));
        wait_until(|| run.progress().in_flight == count as u64);
        assert_eq!(lab.server.request_count(), 1 + expected);
        hold.open();
        assert!(run.map(|(_, result)| result).all(|result| result.is_ok()));
    }
}

#[test]
fn failed_prefix_leader_is_replaced() {
    let lab = lab_without_limits();
    lab.server
        .push_all([Reply::error(400, "invalid_request_error", "odd")]);
    let hold = hold_replies(&lab.server);
    let items = (0..6).map(|number| (number, prefixed(number, "a long prefix")));
    let mut run = bulk_at_once(&lab.client, 3).run(items).expect("a run");
    let first = run.next().expect("the first").1;
    assert_eq!(first.expect_err("odd").kind(), ErrorKind::InvalidRequest);
    assert!(lab.server.wait_for_requests(1 + 2, HANG));
    wait_until(|| run.progress().in_flight == 3);
    assert_eq!(lab.server.request_count(), 1 + 2);
    hold.open();
    assert!(run.map(|(_, result)| result).all(|result| result.is_ok()));
}

#[test]
fn prefix_leader_is_retried_like_any_request() {
    let lab = lab_without_limits();
    lab.server.push_all([
        Reply::overloaded(),
        Reply::message("word ".repeat(500)).truncate(3_000),
        Reply::message("whole"),
    ]);
    let items = [(0, prefixed(0, "a long prefix"))];
    let mut run = lab.client.bulk().run(items).expect("a run");
    let message = run.next().expect("a result").1.expect("a success");
    assert_eq!(message.text(), "whole");
    assert_eq!(message.attempts().len(), 3);
    let calls = lab.client.totals().all.calls;
    assert_eq!(calls, 2, "the one before included");

    // Without streaming underneath, the leader is not streamed either.
    let plain = builder(&lab.server).stream_underneath(false);
    let plain = plain.build().expect("valid settings");
    lab.server.take_requests();
    let items = [(0, prefixed(0, "a long prefix"))];
    let mut run = plain.bulk().run(items).expect("a run");
    run.next().expect("a result").1.expect("a success");
    let body = lab.server.take_requests()[0].json();
    assert!(body.get("stream").is_none_or(|stream| stream == false));
}

// Spend limits.

#[test]
fn run_stops_before_exceeding_its_spend_limit() {
    for threads in [1, 4, 16] {
        let lab = lab_without_limits();
        // A dollar for a thousand tokens of either kind: some 0.1 at most for the input, 0.5 for
        // the output.
        let prices = Prices::none().set("claude-haiku-4-5", Price::new(1_000.0, 1_000.0));
        let limit = 5.0;
        let items = (0..500).map(|number| {
            let request = MessageRequest::new("claude-haiku-4-5", 500);
            (number, request.user(format!("question {number}")))
        });
        let bulk = bulk_at_once(&lab.client, threads).prices(prices.clone());
        let mut run = bulk.spend_limit(limit).run(items).expect("a run");
        let results: Vec<_> = run.by_ref().map(|(_, result)| result).collect();
        let ok = results.iter().filter(|result| result.is_ok()).count();
        let cost = run.progress().cost.expect("a price");
        assert!(cost <= limit, "{cost}");
        // The run goes as far as it can without risking to exceed the limit.
        assert!(cost > limit - 1.0, "{cost}");
        assert_eq!(results.len(), 500);
        assert!(ok > 100 && ok < 500, "{ok}");
        assert_eq!(lab.server.request_count(), 1 + ok);
        let reason = run.stop_cause().expect("a reason");
        assert!(
            reason.contains(" of the spend limit of $5.00 is spent, and the next request could"),
            "{reason}"
        );
    }
}

#[test]
fn worst_case_cost_counts_all_price_factors() {
    let plain = || MessageRequest::new("claude-opus-5", 100).user("Hello?");
    let with = |block| MessageRequest::new("claude-opus-5", 100).user(vec![block]);
    let pdf = with(ContentBlock::pdf(&[7; 30_000]));
    let image = with(ContentBlock::image("image/png", &[7; 30]));
    // A token of output costs a thousandth of a dollar, a token of input a millionth, or two where
    // it is written to the cache.
    let prices = Prices::none().set("claude-opus-5", Price::new(1.0, 1_000.0));
    for (request, limit, is_sent) in [
        (plain(), 0.105, true),
        (
            plain().speed("standard").inference_geo("global"),
            0.105,
            true,
        ),
        (plain().inference_geo("us"), 0.105, false),
        (plain().inference_geo("us"), 0.115, true),
        (plain().speed("fast"), 0.195, false),
        (plain().speed("fast"), 0.205, true),
        (plain().speed("fast").inference_geo("us"), 0.215, false),
        (pdf.clone(), 0.175, false),
        (pdf, 0.185, true),
        (image.clone(), 0.26, false),
        (image, 0.27, true),
    ] {
        let lab = lab_without_limits();
        let bulk = lab.client.bulk().prices(prices.clone()).spend_limit(limit);
        let mut run = bulk.run([(0, request.clone())]).expect("a run");
        let result = run.next().expect("a result").1;
        assert_eq!(
            result.is_ok(),
            is_sent,
            "{limit} for {request:?}: {result:?}"
        );
    }
}

#[test]
fn fast_mode_costs_count_twice() {
    let cost = |request: MessageRequest| {
        let lab = lab_without_limits();
        let mut run = lab.client.bulk().run([(0, request)]).expect("a run");
        run.next().expect("a result").1.expect("a success");
        run.progress().cost.expect("a price")
    };
    let request = || MessageRequest::new("claude-opus-5", 100).user("Hello?");
    assert_eq!(cost(request().speed("fast")), 2.0 * cost(request()));
}

#[test]
fn unpriced_model_stops_a_run_with_a_spend_limit() {
    let lab = lab_without_limits();
    let items = [(0, MessageRequest::new("gpt-5", 10).user("Hello?"))];
    let mut run = lab
        .client
        .bulk()
        .spend_limit(1.0)
        .run(items)
        .expect("a run");
    let error = run.next().expect("a result").1.expect_err("no price");
    assert_eq!(error.kind(), ErrorKind::NotRun);
    assert!(error.to_string().contains("gpt-5 has no price"), "{error}");
    assert_eq!(lab.server.request_count(), 1);
}

#[test]
fn map_starts_nothing_once_its_limit_is_spent() {
    let lab = lab_without_limits();
    let prices = Prices::none().set("claude-haiku-4-5", Price::new(1_000.0, 1_000.0));
    let bulk = bulk_at_once(&lab.client, 1).prices(prices).spend_limit(0.1);
    let results = bulk.map(0..100, |client, number| {
        client.messages().create(&ask(number))
    });
    let ok = results.iter().take_while(|result| result.is_ok()).count();
    assert!((2..20).contains(&ok), "{ok}");
    let error = results[99].as_ref().expect_err("spent");
    assert_eq!(error.kind(), ErrorKind::NotRun);
    assert!(
        error.to_string().contains("of the spend limit of $0.1000"),
        "{error}"
    );
}

#[test]
fn invalid_spend_limit_fails_before_sending() {
    let lab = lab_without_limits();
    for (limit, said) in [
        (f64::NAN, "NaN"),
        (-0.5, "-0.5"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        let text =
            format!("a bulk run: a spend limit of {said}: give an amount in dollars, of 0 or more");
        let bulk = bulk_at_once(&lab.client, 2).spend_limit(limit);
        let error = bulk.run(jobs(3)).expect_err("no amount");
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Config, text.clone())
        );
        let results = bulk.map(0..3, |client, number| {
            client.messages().create(&ask(number))
        });
        assert_eq!(results.len(), 3);
        for result in results {
            let error = result.expect_err("no amount");
            assert_eq!(
                (error.kind(), error.to_string()),
                (ErrorKind::Config, text.clone())
            );
        }
    }
    // A limit of zero, and no limit.
    let nothing = bulk_at_once(&lab.client, 2).spend_limit(0.0);
    let results = texts(nothing.run(jobs(3)).expect("a run"));
    assert!(results.values().all(|text| text.is_err()), "{results:?}");
    assert_eq!(lab.server.request_count(), 1);
    let all = bulk_at_once(&lab.client, 2).spend_limit(f64::INFINITY);
    let results = texts(all.run(jobs(3)).expect("a run"));
    assert!(results.values().all(|text| text.is_ok()), "{results:?}");
}

// Progress.

#[test]
fn progress_adds_up_and_is_reported_at_the_end() {
    let (lab, reported) = (
        lab_without_limits(),
        Arc::new(Mutex::new(Vec::<Progress>::new())),
    );
    lab.server
        .respond_with(|request| match number(request) % 10 {
            3 => Reply::error(400, "invalid_request_error", "odd"),
            _ => Reply::canned(),
        });
    let reports = Arc::clone(&reported);
    let bulk = bulk_at_once(&lab.client, 4).on_progress(move |progress| {
        reports.lock().expect("no panic").push(progress.clone());
    });
    // The clock stands still: one report at the start, and one at the end.
    assert_eq!(texts(bulk.run(jobs(60)).expect("a run")).len(), 60);
    let reports = std::mem::take(&mut *reported.lock().expect("no panic"));
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!(reports[0].finished(), 1);
    let last = &reports[1];
    assert_eq!((last.done, last.failed, last.skipped), (54, 6, 0));
    assert_eq!((last.total, last.in_flight), (Some(60), 0));
    assert_eq!((last.totals.all.calls, last.totals.all.failed), (60, 6));
    assert_eq!(last.remaining, Some(Duration::ZERO));
    assert!(last.cost.is_some_and(|cost| cost > 0.0));

    // Each request takes a tenth of a second: one report for each, in order.
    let clock = lab.clock.clone();
    let results = bulk.map(0..20, |client, number| {
        clock.advance(millis(100));
        client.messages().create(&ask(number * 10))
    });
    assert_eq!(results.len(), 20);
    let reports = reported.lock().expect("no panic");
    assert!((2..=21).contains(&reports.len()), "{}", reports.len());
    assert!(reports.is_sorted_by_key(|progress| progress.finished()));
    assert_eq!(reports[reports.len() - 1].done, 20);
}

#[test]
fn progress_panic_loses_no_message() {
    let lab = lab_without_limits();
    let bulk = bulk_at_once(&lab.client, 4).on_progress(|_| panic!("no bar to draw on"));
    assert_eq!(texts(bulk.run(jobs(30)).expect("a run")).len(), 30);
    assert_eq!(bulk.map(0..30, |_, number| Ok(number)).len(), 30);
}

#[test]
fn estimate_panic_loses_no_message_and_no_report() {
    let (lab, is_to_panic) = (lab_without_limits(), Arc::new(AtomicBool::new(false)));
    let panics = Arc::clone(&is_to_panic);
    drop(lab.client.budget().clone().classify(move |model| {
        assert!(!panics.swap(false, Ordering::SeqCst), "no class");
        ModelClass::of(model)
    }));
    let clock = lab.clock.clone();
    lab.server.respond_with(move |_| {
        // The progress report on this request is the next to use the class.
        is_to_panic.store(true, Ordering::SeqCst);
        clock.advance(millis(100));
        Reply::canned()
    });
    let reports = Arc::new(AtomicUsize::new(0));
    let reported = Arc::clone(&reports);
    let bulk = bulk_at_once(&lab.client, 1).on_progress(move |_| {
        reported.fetch_add(1, Ordering::SeqCst);
    });
    let results = texts(bulk.run(jobs(5)).expect("a run"));
    assert!(results.values().all(|text| text.is_ok()), "{results:?}");
    assert_eq!((results.len(), reports.load(Ordering::SeqCst)), (5, 5 + 1));
}

#[test]
fn wait_callback_panic_fails_only_its_item() {
    let lab = Lab::with(|builder| builder.limits(Limits::per_minute().requests(4)));
    let calls = AtomicUsize::new(0);
    drop(lab.client.budget().clone().on_wait(move |_| {
        assert!(calls.fetch_add(1, Ordering::SeqCst) >= 2, "nobody waits");
    }));
    // The limit allows a few requests at a time: each reserves some 0.17 and costs 0.03.
    let prices = Prices::none().set("claude-haiku-4-5", Price::new(1_000.0, 1_000.0));
    let bulk = bulk_at_once(&lab.client, 3).prices(prices).spend_limit(0.8);
    let run = bulk.run(jobs(12)).expect("a run");
    let (results, errors): (Vec<_>, Vec<_>) = ends(move || run.collect::<Vec<_>>())
        .into_iter()
        .partition(|(_, result)| result.is_ok());
    assert_eq!((results.len(), errors.len()), (10, 2));
    for (_, error) in errors {
        let error = error.expect_err("a panic");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(error.to_string().contains("nobody waits"), "{error}");
    }
    let class = &lab.client.budget().snapshot()[0];
    assert_eq!((class.waiting, class.in_flight), (0, 0));
}

#[test]
fn huge_inputs_and_times_do_not_panic() {
    let lab = Lab::new();
    let reported = Arc::new(AtomicUsize::new(0));
    let reports = Arc::clone(&reported);
    let clock = lab.clock.clone();
    let bulk = lab.client.bulk().ramp_up(Duration::MAX).concurrency(6);
    let bulk = bulk.on_progress(move |progress| {
        assert_eq!(progress.total, Some(u64::MAX));
        reports.fetch_add(1, Ordering::SeqCst);
    });
    let endless = (0..usize::MAX).map(move |number| {
        clock.advance(seconds(3_600));
        (number, ask(number as u64 % 100))
    });
    let run = bulk.run(endless).expect("a run");
    assert_eq!(
        run.take(20).filter(|(_, result)| result.is_ok()).count(),
        20
    );
    assert!(reported.load(Ordering::SeqCst) > 0);
}

// Limits.

#[test]
fn run_under_limits_loses_none_and_meets_no_429() {
    let server = server();
    // The bucket refills one request a millisecond, and stores half a second of them.
    server.limit(
        ServerLimits::per_minute(60_000, 30_000_000, 6_000_000)
            .depth(millis(500))
            .latency(millis(4), 0.5)
            .output(50, 0.5)
            .seed(6),
    );
    let limits = Limits::per_minute()
        .requests(60_000)
        .input_tokens(30_000_000)
        .output_tokens(6_000_000);
    let client = builder(&server).limits(limits).build().expect("a client");
    let results = texts(bulk_at_once(&client, 16).run(jobs(300)).expect("a run"));
    assert_eq!(results.len(), 300);
    assert!(results.values().all(|text| text.is_ok()));
    let ledger = server.ledger();
    assert_eq!((ledger.admitted(), ledger.rate_limited()), (300, 0));
    assert!(ledger.most_open <= 16, "{}", ledger.most_open);
}

// Helpers.

/// A lab whose client has had its first response, so that it knows that there are no limits.
#[track_caller]
fn lab_without_limits() -> Lab {
    let lab = Lab::new();
    lab.create().expect("a response");
    lab
}

/// Like `ask`, with a system prompt that is to be cached.
fn prefixed(number: usize, prefix: &str) -> MessageRequest {
    let system = ContentBlock::text(prefix).cached(CacheControl::ephemeral());
    ask(number).system(vec![system])
}

#[expect(dead_code, reason = "checked by the compiler")]
fn runs_go_to_other_threads(run: BulkRun<u8>) -> impl Send + 'static {
    run
}
