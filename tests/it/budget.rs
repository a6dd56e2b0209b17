//! The budget without a client: queue order on real threads, deadlines, limits, reports.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anthropic_blocking::{
    Admission, Budget, Cost, Delivery, Dimension, ErrorKind, Limits, Model, ModelClass, RateLimit,
    RateLimits, Reservation, Usage, WaitCause,
};

use crate::support::{ends, seconds};

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

fn tokens(input: u64) -> Cost {
    Cost::request().input_tokens(input).max_tokens(10)
}

#[track_caller]
fn granted(budget: &Budget) -> Reservation {
    granted_for(budget, &class(), small())
}

#[track_caller]
fn granted_for(budget: &Budget, class: &ModelClass, cost: Cost) -> Reservation {
    match budget.try_reserve(class, cost).expect("it can fit") {
        Admission::Granted(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

/// Returns the minimum wait of a request that cannot be admitted now.
#[track_caller]
fn refused_for(budget: &Budget, cost: Cost) -> Duration {
    match budget.try_reserve(&class(), cost).expect("it can fit") {
        Admission::NotBefore(wait) => wait,
        other => panic!("{other:?}"),
    }
}

/// A budget that spent these tokens in this minute, before it knew any limit: no pace is known,
/// so only the tokens spent count.
#[track_caller]
fn spent(input: u64) -> Budget {
    let budget = Budget::new();
    granted_for(&budget, &class(), tokens(input)).settle(&usage(input, 5), None);
    budget
}

fn group(limit: u64, remaining: u64) -> Option<RateLimit> {
    let mut group = RateLimit::default();
    (group.limit, group.remaining) = (Some(limit), Some(remaining));
    Some(group)
}

/// Rate-limit headers for requests only.
fn requests(limit: u64, remaining: u64) -> RateLimits {
    let mut headers = RateLimits::default();
    headers.requests = group(limit, remaining);
    headers
}

fn pause(seconds: u64) -> RateLimits {
    let mut headers = RateLimits::default();
    headers.retry_after = Some(Duration::from_secs(seconds));
    headers
}

#[test]
fn fresh_budget_sends_one_request_to_learn_limits() {
    let budget = Budget::new();
    let first = granted(&budget);
    let second = budget.try_reserve(&class(), small()).expect("it can fit");
    assert!(matches!(second, Admission::NotBefore(_)), "{second:?}");
    first.settle(&usage(10, 5), None);
    drop(granted(&budget));
}

#[test]
fn requests_over_the_limit_wait_and_report_it() {
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
        error.to_string().contains("no admission within 5.0 s"),
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
fn pause_beyond_the_deadline_fails_with_its_cause() {
    let soon = Some(Duration::from_secs(5));
    let kind = |budget: &Budget| {
        let error = budget.reserve(&class(), small(), soon).expect_err("late");
        assert!(error.is_retryable(), "{error}");
        error.kind()
    };
    let budget = Budget::new();
    let pause = RateLimits::from_headers([("retry-after", "30")]);
    granted(&budget).refuse(None, &pause);
    assert_eq!(kind(&budget), ErrorKind::RateLimit);
    let budget = Budget::new();
    granted(&budget).overloaded(Some(Duration::from_secs(30)));
    assert_eq!(kind(&budget), ErrorKind::Overloaded);
}

#[test]
fn request_over_the_limit_fails_at_once() {
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
fn fast_mode_inherits_the_limits_of_its_class() {
    let class = class();
    let requests = |requests| Limits::per_minute().requests(requests);
    let may = |budget: &Budget, class: &ModelClass| {
        let admission = budget.try_reserve(class, small());
        matches!(admission, Ok(Admission::Granted(_)))
    };
    let budget = Budget::new().limits(class.clone(), requests(1));
    // Each class has a limit of its own.
    for class in [&class, &class.fast()] {
        assert!(may(&budget, class) && !may(&budget, class), "{class}");
    }
    let budget = budget.default_limits(Limits::per_minute());
    assert!(!may(&budget, &class.fast()));
    let budget = budget.limits(class.clone(), requests(60_000));
    assert!(may(&budget, &class.fast()));
    let budget = budget.limits(class.fast(), requests(0));
    let budget = budget.limits(class.clone(), requests(60_000));
    assert!(may(&budget, &class) && !may(&budget, &class.fast()));
}

#[test]
fn unsent_is_refunded_and_dropped_stays_charged() {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(60_000));
    granted(&budget).fail(Delivery::NotSent);
    assert_eq!(budget.snapshot()[0].requests.used, 0);
    drop(granted(&budget));
    granted(&budget).settle(&usage(10, 5), None);
    let snapshot = &budget.snapshot()[0];
    assert_eq!((snapshot.requests.used, snapshot.in_flight), (2, 0));
    assert_eq!(snapshot.requests.limit, Some(60_000));
}

/// Starts a thread that reserves, records its number, and ends as if nothing had been sent;
/// returns once the thread waits in the queue.
fn queue(budget: &Budget, number: usize, order: &Arc<Mutex<Vec<usize>>>) -> JoinHandle<()> {
    queue_for(budget, small(), number, order)
}

fn queue_for(
    budget: &Budget,
    cost: Cost,
    number: usize,
    order: &Arc<Mutex<Vec<usize>>>,
) -> JoinHandle<()> {
    let (own, order) = (budget.clone(), Arc::clone(order));
    let thread = thread::spawn(move || {
        let reservation = own.reserve(&class(), cost, None).expect("room");
        order.lock().expect("no panic").push(number);
        reservation.fail(Delivery::NotSent);
    });
    while budget.snapshot()[0].waiting <= number {
        thread::yield_now();
    }
    thread
}

#[test]
fn threads_are_admitted_first_come_first_served() {
    let budget = Budget::new();
    // While the limits are unknown, one request is admitted at a time.
    let first = granted(&budget);
    let order = Arc::default();
    let threads: Vec<_> = (0..16)
        .map(|number| queue(&budget, number, &order))
        .collect();
    let waiting = budget.snapshot()[0].clone();
    assert_eq!(
        (waiting.waiting, waiting.cause),
        (16, Some(WaitCause::FirstResponse))
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
fn lifted_limits_admit_all_waiting_threads() {
    let budget = Budget::new().limits(class(), Limits::per_minute().requests(1));
    granted(&budget).settle(&usage(1, 1), None);
    let order = Arc::default();
    let threads: Vec<_> = (0..8)
        .map(|number| queue(&budget, number, &order))
        .collect();
    let head = budget.snapshot()[0].clone();
    let limit = |cause| matches!(cause, WaitCause::Limit(_) | WaitCause::Pace(_));
    assert!(head.cause.is_some_and(limit), "{head:?}");
    assert!(head.expected_wait.expect("a time") > Duration::from_secs(50));
    drop(budget.clone().limits(class(), Limits::per_minute()));
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(order.lock().expect("no panic").len(), 8);
}

#[test]
fn endless_deadline_equals_no_deadline() {
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
fn callback_panic_lets_the_next_waiter_proceed() {
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

#[test]
fn replaced_callbacks_may_hold_reservations() {
    let budget = spent(10);
    let own = budget.clone();
    ends(move || {
        let budget = own;
        let held = granted(&budget);
        let classify = move |_: &Model| held.class().clone();
        let budget = budget
            .classify(classify)
            .classify(|model| ModelClass::of(model));
        let held = granted(&budget);
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waits);
        let budget = budget.on_wait(move |wait| {
            assert_eq!(&wait.class, held.class());
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let budget = budget.limits(class(), Limits::per_minute().requests(3));
        let own = budget.clone();
        let waiting = thread::spawn(move || drop(own.reserve(&class(), small(), None)));
        // The thread holds the old closure, and sleeps.
        while waits.load(Ordering::SeqCst) == 0 || budget.snapshot()[0].waiting == 0 {
            thread::yield_now();
        }
        let budget = budget.on_wait(|_| {});
        drop(budget.limits(class(), Limits::per_minute()));
        waiting.join().expect("no panic");
    });
    let snapshot = &budget.snapshot()[0];
    assert_eq!((snapshot.requests.used, snapshot.in_flight), (4, 0));
}

#[test]
fn panicking_thread_releases_its_reservation() {
    let budget = Budget::new();
    // While the limits are unknown, one request is admitted at a time.
    let first = granted(&budget);
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let own = budget.clone();
            let thread = thread::spawn(move || {
                let reservation = own.reserve(&class(), small(), None).expect("room");
                match number % 4 {
                    0 => panic!("before it is sent"),
                    1 => {
                        reservation.learn(&RateLimits::default());
                        panic!("when the head of its response arrived");
                    }
                    2 => {
                        reservation.begin(&usage(10, 1));
                        reservation.progress(7);
                        panic!("within the body of its response");
                    }
                    _ => reservation.settle(&usage(10, 5), None),
                }
            });
            while budget.snapshot()[0].waiting <= number {
                thread::yield_now();
            }
            thread
        })
        .collect();
    first.fail(Delivery::NotSent);
    let join = || threads.into_iter().map(|thread| thread.join().is_err());
    let panicked: Vec<_> = ends(move || join().collect());
    assert_eq!(panicked, [true, true, true, false].repeat(2));
    let snapshot = &budget.snapshot()[0];
    assert_eq!((snapshot.waiting, snapshot.in_flight), (0, 0));
    // Reservations that were not settled count with their full estimate.
    let used = [
        &snapshot.requests,
        &snapshot.input_tokens,
        &snapshot.output_tokens,
    ];
    assert_eq!(
        used.map(|dimension| dimension.used),
        [8, 80, 6 * 10 + 2 * 5]
    );
}

#[test]
fn no_request_is_overtaken_whatever_its_size() {
    let budget = Budget::new();
    // While the limits are unknown, one request is admitted at a time.
    let first = granted(&budget);
    let order = Arc::default();
    let size = |number: usize| if number % 5 == 2 { 200_000 } else { 10 };
    let threads: Vec<_> = (0..20)
        .map(|number| queue_for(&budget, tokens(size(number)), number, &order))
        .collect();
    first.fail(Delivery::NotSent);
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(
        *order.lock().expect("no panic"),
        (0..20).collect::<Vec<_>>()
    );
}

#[test]
fn small_requests_do_not_overtake_a_large_one() {
    let limits = Limits::per_minute().input_tokens(60_000);
    let budget = spent(50_000).limits(class(), limits);
    granted(&budget).fail(Delivery::NotSent);
    let order = Arc::default();
    let large = queue_for(&budget, tokens(20_000), 0, &order);
    let mut threads = vec![large];
    threads.extend((1..9).map(|number| queue(&budget, number, &order)));
    let head = budget.snapshot()[0].clone();
    let limit = WaitCause::Limit(Dimension::InputTokens);
    assert_eq!((head.waiting, head.cause), (9, Some(limit)));
    assert!(refused_for(&budget, small()) > seconds(30));
    let late = budget.reserve(&class(), small(), Some(seconds(5)));
    assert_eq!(late.expect_err("no room").kind(), ErrorKind::Budget);
    assert_eq!(
        (budget.snapshot()[0].waiting, admitted_count(&order)),
        (9, 0)
    );
    drop(budget.limits(class(), Limits::per_minute()));
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(admitted_count(&order), 9);
}

fn admitted_count(order: &Mutex<Vec<usize>>) -> usize {
    order.lock().expect("no panic").len()
}

#[test]
fn large_request_waits_only_for_its_missing_tokens() {
    // The server reports 10,000 of 60,000 tokens left: 1,000 refill each second.
    let mut headers = requests(1_000, 999);
    headers.input_tokens = group(60_000, 10_000);
    let budget = Budget::new();
    granted(&budget).settle(&usage(10, 5), Some(&headers));
    let wait = refused_for(&budget, tokens(30_000));
    assert!(wait <= seconds(21), "{wait:?}");
    // All that was spent leaves the window within a minute, however long the queue is.
    let limits = Limits::per_minute().input_tokens(60_000);
    let (budget, order) = (spent(50_000).limits(class(), limits), Arc::default());
    let mut threads = vec![queue_for(&budget, tokens(20_000), 0, &order)];
    threads.extend((1..11).map(|number| queue_for(&budget, tokens(500), number, &order)));
    let wait = refused_for(&budget, tokens(30_000));
    assert!(wait <= seconds(61), "{wait:?}");
    drop(budget.limits(class(), Limits::per_minute()));
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn refusal_pauses_only_its_class() {
    let budget = Budget::new();
    let other = ModelClass::of("claude-opus-5");
    granted(&budget).settle(&usage(10, 5), None);
    granted_for(&budget, &other, small()).settle(&usage(10, 5), None);
    let (refused, open) = (granted(&budget), granted(&budget));
    let start = Instant::now();
    refused.refuse(None, &pause(3_600));
    let wait = refused_for(&budget, small());
    assert!(wait + start.elapsed() >= seconds(3_600), "{wait:?}");
    assert!(wait <= seconds(3_601), "{wait:?}");
    let soon = budget.reserve(&class(), small(), Some(seconds(60)));
    assert!(soon.expect_err("a pause").is_retryable());
    // Neither the success of a request in flight nor a shorter pause ends the pause.
    let second = granted_for(&budget, &other, small());
    open.settle(&usage(10, 5), None);
    let wait = refused_for(&budget, small());
    assert!(wait + start.elapsed() >= seconds(3_600), "{wait:?}");
    for _ in 0..10 {
        granted_for(&budget, &other, small()).settle(&usage(10, 5), None);
    }
    second.refuse(None, &pause(60));
    let wait = refused_for(&budget, small());
    assert!(wait + start.elapsed() >= seconds(3_600), "{wait:?}");
    drop(budget);
}

#[test]
fn longest_of_many_pauses_holds() {
    let budget = Budget::new();
    granted(&budget).settle(&usage(10, 5), None);
    let open: Vec<_> = (0..20).map(|_| granted(&budget)).collect();
    let start = Instant::now();
    for (number, reservation) in open.into_iter().enumerate() {
        let asked = [60, 3_600, 7][number % 3];
        reservation.refuse(None, &pause(asked));
    }
    let wait = refused_for(&budget, small());
    assert!(wait + start.elapsed() >= seconds(3_600), "{wait:?}");
    assert!(wait <= seconds(3_601), "{wait:?}");
    let snapshot = &budget.snapshot()[0];
    assert_eq!((snapshot.requests.used, snapshot.in_flight), (21, 0));
}

#[test]
fn responses_without_headers_cause_no_wait() {
    let budget = Budget::new();
    granted(&budget).settle(&usage(10, 5), Some(&RateLimits::default()));
    let open: Vec<_> = (0..100).map(|_| granted(&budget)).collect();
    for reservation in open {
        reservation.settle(&usage(10, 5), Some(&RateLimits::default()));
    }
    let snapshot = &budget.snapshot()[0];
    assert_eq!(snapshot.requests.server_limit, None);
    assert_eq!(snapshot.requests.used, 101);
}

#[test]
fn request_headers_pace_requests_only() {
    let budget = Budget::new();
    granted(&budget).settle(&usage(10, 5), Some(&requests(60, 59)));
    let snapshot = &budget.snapshot()[0];
    let servers = [
        snapshot.requests.server_limit,
        snapshot.input_tokens.server_limit,
        snapshot.output_tokens.server_limit,
    ];
    assert_eq!(servers, [Some(60), None, None]);
    // Five million tokens need no wait where no token limit is known; requests are paced,
    // except a request that is alone.
    let large = || granted_for(&budget, &class(), tokens(5_000_000));
    large().settle(&usage(5_000_000, 5), None);
    let open = large();
    let wait = refused_for(&budget, tokens(5_000_000));
    assert!(wait <= seconds(5), "{wait:?}");
    open.settle(&usage(5_000_000, 5), None);
    large().settle(&usage(5_000_000, 5), None);
}

#[test]
fn reset_times_change_nothing() {
    // Reset times of a wall clock that was set back or forth: the budget never uses wall time.
    let now = SystemTime::now();
    let hour = seconds(3_600);
    for reset in [
        None,
        Some(SystemTime::UNIX_EPOCH),
        Some(now - hour),
        Some(now + hour),
        Some(now + 10_000 * hour),
    ] {
        let budget = Budget::new();
        let mut headers = requests(60, 0);
        headers.input_tokens = group(60_000, 0);
        for group in [&mut headers.requests, &mut headers.input_tokens] {
            group.as_mut().expect("it is there").reset = reset;
        }
        let start = Instant::now();
        granted(&budget).settle(&usage(10, 5), Some(&headers));
        let wait = refused_for(&budget, tokens(2_400));
        // 2,400 tokens and a margin of 600 refill within three seconds.
        let expected = seconds(2)..=Duration::from_millis(3_001);
        assert!(
            expected.contains(&wait) || start.elapsed() > seconds(1),
            "{reset:?}: {wait:?}"
        );
    }
}

#[test]
fn limits_changed_during_a_run_apply_at_once() {
    let budget = Budget::new();
    granted(&budget).settle(&usage(10, 5), None);
    let responses = [
        (1_000, 1_000),
        (10, 10),
        // Values that no server sends are ignored.
        (0, 10),
        (1_000_000, 1_000_000),
        (1, 1),
        (u64::MAX, u64::MAX),
    ];
    let open: Vec<_> = responses.iter().map(|_| granted(&budget)).collect();
    for (reservation, (limit, shown)) in open.into_iter().zip(responses) {
        reservation.settle(
            &usage(10, 5),
            Some(&requests(limit, limit.saturating_sub(1))),
        );
        let seen = budget.snapshot()[0].requests.server_limit;
        assert_eq!(seen, Some(shown), "{limit}");
        let wait = soon_enough(&budget);
        assert!(limit < 1_000_000 || wait < seconds(1), "{limit}: {wait:?}");
    }
}

/// Returns the wait of the next request, which is minutes at most however odd the limits are.
#[track_caller]
fn soon_enough(budget: &Budget) -> Duration {
    match budget.try_reserve(&class(), small()).expect("it can fit") {
        Admission::Granted(reservation) => {
            reservation.fail(Delivery::NotSent);
            Duration::ZERO
        }
        Admission::NotBefore(wait) => {
            assert!(wait <= seconds(300), "{wait:?} {budget:?}");
            wait
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn odd_headers_neither_hang_nor_panic() {
    let odd = [0, 1, 59, 1 << 40, u64::MAX];
    let pairs = odd
        .into_iter()
        .flat_map(|one| odd.map(|other| (one, other)));
    for (one, other) in pairs {
        let mut headers = requests(one, other);
        headers.output_tokens = group(other, one);
        headers.tokens = group(one, one);
        let (budget, own) = (Budget::new(), headers.clone());
        granted(&budget).settle(&usage(10, 5), Some(&headers));
        soon_enough(&budget);
        let now = Some(Duration::ZERO);
        ends(move || {
            for _ in 0..100 {
                if let Ok(reservation) = budget.reserve(&class(), small(), now) {
                    reservation.settle(&usage(10, 5), Some(&own));
                }
            }
            soon_enough(&budget);
        });
    }
}
