//! The budget by itself: waiting in order on real threads, deadlines, limits, what it says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anthropic_blocking::{
    Admission, Budget, Cost, Delivery, ErrorKind, Limits, ModelClass, Reservation, Usage, WaitCause,
};

fn class() -> ModelClass {
    ModelClass::of("claude-haiku-4-5")
}

fn small() -> Cost {
    Cost::request().input_tokens(10).max_tokens(10)
}

fn usage(input: u64, output: u64) -> Usage {
    serde_json::from_value(serde_json::json!({"input_tokens": input, "output_tokens": output}))
        .expect("usage")
}

#[track_caller]
fn granted(budget: &Budget) -> Reservation {
    match budget.try_reserve(&class(), small()).expect("it can fit") {
        Admission::Granted(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fresh_budget_lets_one_request_find_out_the_limits() {
    let budget = Budget::new();
    let first = granted(&budget);
    let second = budget.try_reserve(&class(), small()).expect("it can fit");
    assert!(matches!(second, Admission::NotBefore(_)), "{second:?}");
    first.settle(&usage(10, 5), None);
    drop(granted(&budget));
}

#[test]
fn requests_over_the_limit_wait_and_say_how_long() {
    let limits = Limits::per_minute().requests(1);
    let budget = Budget::new().limits(class(), limits);
    granted(&budget).settle(&usage(10, 5), None);
    let next = budget.try_reserve(&class(), small()).expect("it can fit");
    let Admission::NotBefore(wait) = next else {
        panic!("{next:?}")
    };
    assert!(wait > Duration::from_secs(55), "{wait:?}");
    let soon = Some(Duration::from_secs(5));
    let error = budget
        .reserve(&class(), small(), soon)
        .expect_err("no room in time");
    assert_eq!(error.kind(), ErrorKind::Budget);
    assert!(error.is_retryable());
    assert!(
        error.to_string().contains("there is no room within 5.0 s"),
        "{error}"
    );
    let other = ModelClass::of("claude-opus-5");
    drop(
        budget
            .reserve(&other, small(), soon)
            .expect("another class has its own limits"),
    );
}

#[test]
fn a_request_larger_than_the_limit_is_refused_at_once() {
    let budget = Budget::new().default_limits(Limits::per_minute().input_tokens(1_000));
    let large = Cost::request().input_tokens(5_000).max_tokens(10);
    let error = budget
        .reserve(&class(), large, None)
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Budget);
    assert!(!error.is_retryable());
    let text =
        "reserving: a request of 5000 input tokens can never fit the limit of 1000 per minute";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_was_never_sent_costs_nothing_and_what_is_dropped_stays_charged() {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(60_000));
    granted(&budget).fail(Delivery::NotSent);
    assert_eq!(budget.snapshot()[0].requests.used, 0);
    drop(granted(&budget));
    granted(&budget).settle(&usage(10, 5), None);
    let snapshot = &budget.snapshot()[0];
    assert_eq!((snapshot.requests.used, snapshot.in_flight), (2, 0));
    assert_eq!(snapshot.requests.limit, Some(60_000));
}

/// Starts a thread that reserves, tells its number, and ends as if nothing had been sent; returns
/// when it stands in the queue.
fn queue(budget: &Budget, number: usize, order: &Arc<Mutex<Vec<usize>>>) -> JoinHandle<()> {
    let (own, order) = (budget.clone(), Arc::clone(order));
    let thread = thread::spawn(move || {
        let reservation = own.reserve(&class(), small(), None).expect("room");
        order.lock().expect("no panic").push(number);
        reservation.fail(Delivery::NotSent);
    });
    while budget.snapshot()[0].waiting <= number {
        thread::yield_now();
    }
    thread
}

#[test]
fn threads_are_let_go_in_the_order_in_which_they_came() {
    let budget = Budget::new();
    // Nothing is known of the limits, so that one goes at a time.
    let first = granted(&budget);
    let order = Arc::default();
    let threads: Vec<_> = (0..16)
        .map(|number| queue(&budget, number, &order))
        .collect();
    let waiting = budget.snapshot()[0].clone();
    assert_eq!(
        (waiting.waiting, waiting.cause),
        (16, Some(WaitCause::FirstAnswer))
    );
    first.fail(Delivery::NotSent);
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(
        *order.lock().expect("no panic"),
        (0..16).collect::<Vec<_>>()
    );
}

#[test]
fn limits_that_are_lifted_let_all_waiting_threads_go() {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(1));
    granted(&budget).settle(&usage(1, 1), None);
    let order = Arc::default();
    let threads: Vec<_> = (0..8)
        .map(|number| queue(&budget, number, &order))
        .collect();
    let head = budget.snapshot()[0].clone();
    let limit = |cause| matches!(cause, WaitCause::Limit(_) | WaitCause::Pace(_));
    assert!(head.cause.is_some_and(limit), "{head:?}");
    assert!(head.for_another.expect("a time") > Duration::from_secs(50));
    drop(budget.clone().limits(class(), Limits::per_minute()));
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(order.lock().expect("no panic").len(), 8);
}

#[test]
fn an_endless_deadline_is_none() {
    let budget = Budget::new();
    let first = granted(&budget);
    let own = budget.clone();
    let waiting = thread::spawn(move || own.reserve(&class(), small(), Some(Duration::MAX)));
    while budget.snapshot()[0].waiting == 0 {
        thread::yield_now();
    }
    first.fail(Delivery::NotSent);
    drop(waiting.join().expect("no panic").expect("room"));
}

#[test]
fn a_panic_in_a_callback_passes_the_baton() {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(1));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let budget = budget.on_wait(move |wait| {
        assert_eq!(wait.class, class());
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("a callback that panics");
        }
    });
    granted(&budget).settle(&usage(1, 1), None);
    let wait = |budget: Budget| thread::spawn(move || budget.reserve(&class(), small(), None));
    assert!(wait(budget.clone()).join().is_err());
    assert_eq!(budget.snapshot()[0].waiting, 0);
    let second = wait(budget.clone());
    while calls.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }
    drop(budget.clone().limits(class(), Limits::per_minute()));
    drop(second.join().expect("no panic").expect("room"));
}
