//! Tests of the queue under every schedule of its threads; see `src/clock/sync/model.rs`.
#![cfg(model_check)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use shuttle::rand::{RngCore, thread_rng};
use shuttle::thread::{self, JoinHandle};

use super::{
    Admission, AdmissionFailure, AdmissionRequest, Budget, Cost, Limits, ModelClass, Reservation,
};
use crate::clock::sync::{check, is_timely, pass, passed, sleep};
use crate::clock::{Clock, lock};
use crate::types::{ApiError, Delivery, RateLimits, Usage, WaitCause};

const SMALL: Cost = Cost::request().input_tokens(10).max_tokens(10);

fn class() -> ModelClass {
    ModelClass::of("claude-haiku-4-5")
}

fn other_class() -> ModelClass {
    ModelClass::of("claude-opus-5")
}

fn budget() -> Budget {
    Budget::with_clock(Clock::System, Rng::with_seed(1))
}

fn request(class: &ModelClass) -> AdmissionRequest<'_> {
    AdmissionRequest {
        class,
        cost: SMALL,
        ticket: None,
        was_refused: false,
        time_left: None,
        max_wait: None,
        is_stopped: &|| false,
    }
}

/// Returns the headers of a refusal with this `retry-after`.
fn pause(seconds: u64) -> RateLimits {
    RateLimits {
        retry_after: Some(Duration::from_secs(seconds)),
        ..RateLimits::default()
    }
}

fn reserve(budget: &Budget) -> Reservation {
    budget
        .acquire(&request(&class()))
        .expect("room for a small request")
}

/// Returns a budget that has learned that the server reports no limits.
fn unlimited() -> Budget {
    let budget = budget();
    for class in [class(), other_class()] {
        let first = budget.acquire(&request(&class)).expect("room");
        first.settle(&Usage::default(), None);
    }
    budget
}

/// Returns a budget with room for one request at a time: a waiter waits for an event, or for
/// [`LONG`].
fn narrow() -> Budget {
    let budget = budget();
    let error = br#"{"type": "rate_limit_error",
        "message": "Number of concurrent connections has exceeded your rate limit"}"#;
    let (error, _) = ApiError::from_body(error).expect("an error");
    reserve(&budget).refuse(Some(&error), &RateLimits::default());
    // After that time the pause is over, and the pace is no longer reduced.
    pass(LONG);
    budget
}

/// The time after which a waiter of a [`narrow`] budget is admitted without an event.
const LONG: Duration = Duration::from_secs(30);

/// Whether the refusal of a [`narrow`] budget still counts; after a minute, several requests may
/// be in flight.
fn is_narrow() -> bool {
    passed() < Duration::from_secs(60)
}

/// Returns a budget with room for a small request now, and for a large request in a minute.
fn crowded() -> Budget {
    let limits = Limits::per_minute().input_tokens(1_000);
    let budget = budget().limits(class(), limits);
    let usage = Usage {
        input_tokens: 900,
        ..Usage::default()
    };
    reserve(&budget).settle(&usage, None);
    budget
}

const LARGE: Cost = Cost::request().input_tokens(500).max_tokens(10);

fn large(class: &ModelClass) -> AdmissionRequest<'_> {
    AdmissionRequest {
        cost: LARGE,
        ..request(class)
    }
}

/// Asserts that no more time has passed than expected, in schedules in which time stands still
/// while a thread can run.
#[track_caller]
fn assert_timely(expected: Duration) {
    let late = passed().saturating_sub(expected);
    assert!(
        !is_timely() || late < Duration::from_millis(1),
        "admitted {late:?} too late"
    );
}

/// The granted reservations of a model: how many are held now, and their tickets in order.
#[derive(Clone, Default)]
struct GrantLog(Arc<Mutex<Grants>>);

#[derive(Default)]
struct Grants {
    held: usize,
    tickets: Vec<u64>,
}

impl GrantLog {
    /// Records a grant, and asserts that a narrow budget has granted no other reservation that is
    /// still held.
    fn record_only(&self, reservation: &Reservation) {
        let mut log = self.0.lock().expect("no panic");
        log.held += 1;
        assert!(log.held == 1 || !is_narrow(), "two reservations at once");
        log.tickets.push(reservation.ticket());
    }

    /// Records that a reservation is no longer held.
    fn release(&self) {
        self.0.lock().expect("no panic").held -= 1;
    }

    /// Returns the tickets in the order of their grants.
    fn tickets(&self) -> Vec<u64> {
        self.0.lock().expect("no panic").tickets.clone()
    }
}

/// Starts a thread with a clone of the budget.
fn start<T: Send + 'static>(
    budget: &Budget,
    work: impl FnOnce(&Budget) -> T + Send + 'static,
) -> JoinHandle<T> {
    let budget = budget.clone();
    thread::spawn(move || work(&budget))
}

fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let joined = threads.into_iter().map(JoinHandle::join);
    joined.map(|joined| joined.expect("no panic")).collect()
}

/// Asserts that no request waits or is in flight, and that the sums are those of the settled
/// requests.
#[track_caller]
fn assert_at_rest(budget: &Budget) {
    let now = budget.shared.now();
    let mut state = lock(&budget.shared.state);
    for queue in state.queues.values_mut() {
        assert_eq!(queue.waiting(), 0);
        assert!(queue.limiter.is_at_rest(now));
    }
}

/// Returns how many requests were sent in the last minute.
fn requests_used(budget: &Budget) -> u64 {
    budget.snapshot()[0].requests.used
}

/// Returns until when the overload gate is closed.
fn closed_until(budget: &Budget) -> Duration {
    let until = lock(&budget.shared.state).gate.closed_until();
    Duration::from_secs_f64(until.expect("closed"))
}

fn ascends(tickets: &[u64]) -> bool {
    tickets.is_sorted_by(|one, next| one < next)
}

#[test]
fn waiters_for_an_event_are_admitted_in_order() {
    check("waiters for an event", || {
        let (budget, log) = (narrow(), GrantLog::default());
        let threads = [0, 1, 2].map(|number| {
            let log = log.clone();
            start(&budget, move |budget| {
                let reservation = reserve(budget);
                log.record_only(&reservation);
                log.release();
                match number {
                    0 => reservation.fail(Delivery::NotSent),
                    1 => reservation.fail(Delivery::Responded),
                    _ => drop(reservation),
                }
            })
        });
        join(threads);
        let tickets = log.tickets();
        assert!(tickets.len() == 3, "{tickets:?}");
        assert!(ascends(&tickets) || !is_narrow(), "{tickets:?}");
        assert_timely(LONG);
        assert_at_rest(&budget);
    });
}

#[test]
fn limit_bounds_the_requests_admitted_at_once() {
    check("limit", || {
        let budget = budget().limits(class(), Limits::per_minute().requests(1));
        let threads = [0, 1].map(|_| {
            start(&budget, |budget| {
                let reservation = reserve(budget);
                assert_eq!(requests_used(budget), 1);
                reservation.settle(&Usage::default(), None);
            })
        });
        join(threads);
        // The first request is admitted at once, the second after a minute and the rest of its
        // slot.
        assert_timely(Duration::from_millis(60_250));
        assert!(passed() >= Duration::from_secs(60));
        assert_at_rest(&budget);
    });
}

#[test]
fn lifted_limits_admit_all_waiters() {
    check("lifted limits", || {
        let budget = budget().limits(class(), Limits::per_minute().requests(1));
        reserve(&budget).settle(&Usage::default(), None);
        let threads = [0, 1].map(|_| start(&budget, |budget| drop(reserve(budget))));
        drop(budget.clone().limits(class(), Limits::per_minute()));
        join(threads);
        assert_timely(Duration::ZERO);
        assert_at_rest(&budget);
    });
}

#[test]
fn raised_limits_admit_the_head_earlier() {
    check("raised limits", || {
        let paced = || {
            let budget = budget().limits(class(), Limits::per_minute().requests(6));
            // The pace applies only while a request is in flight.
            let open = reserve(&budget);
            (budget, open)
        };
        let raise = |budget: &Budget| {
            let limits = Limits::per_minute().requests(60);
            budget.clone().limits(class(), limits)
        };
        let (twin, _open) = paced();
        let expected = match raise(&twin).try_reserve(&class(), SMALL) {
            Ok(Admission::NotBefore(wait)) => wait,
            other => panic!("{other:?}"),
        };
        let (budget, open) = paced();
        let waiting = start(&budget, |budget| drop(reserve(budget)));
        drop(raise(&budget));
        join([waiting]);
        assert_timely(expected);
        drop(open);
        assert_at_rest(&budget);
    });
}

#[test]
fn stopped_head_lets_the_next_waiter_go() {
    check("stopped head", || {
        let budget = crowded();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let stopped = start(&budget, move |budget| {
            let class = class();
            let request = AdmissionRequest {
                is_stopped: &|| stop.load(Ordering::SeqCst),
                ..large(&class)
            };
            budget.acquire(&request).map(drop)
        });
        let small = start(&budget, |budget| drop(reserve(budget)));
        is_stopped.store(true, Ordering::SeqCst);
        budget.wake_all();
        join([small]);
        assert_timely(Duration::ZERO);
        let stopped = join([stopped]);
        assert!(!is_timely() || stopped == [Err(AdmissionFailure::Stopped)]);
        assert_at_rest(&budget);
    });
}

#[test]
fn stop_reaches_all_waiters() {
    check("stop", || {
        let budget = narrow();
        let held = reserve(&budget);
        let is_stopped = Arc::new(AtomicBool::new(false));
        // Another caller, whose request may be ahead in the queue.
        let other = start(&budget, |budget| drop(reserve(budget)));
        let threads = [0, 1].map(|_| {
            let stop = Arc::clone(&is_stopped);
            start(&budget, move |budget| {
                let class = class();
                let request = AdmissionRequest {
                    is_stopped: &|| stop.load(Ordering::SeqCst),
                    ..request(&class)
                };
                budget.acquire(&request).map(drop)
            })
        });
        is_stopped.store(true, Ordering::SeqCst);
        budget.wake_all();
        let ends = join(threads);
        assert!(
            ends == [Err(AdmissionFailure::Stopped); 2] || !is_narrow(),
            "{ends:?}"
        );
        drop(held);
        join([other]);
        assert_at_rest(&budget);
    });
}

#[test]
fn expired_deadline_lets_the_next_waiter_go() {
    check("deadline", || {
        let budget = budget();
        // Other requests wait for the headers of this request, for two seconds at most.
        let first = reserve(&budget);
        let limited = start(&budget, |budget| {
            let class = class();
            let request = AdmissionRequest {
                time_left: Some(Duration::from_secs(1)),
                ..request(&class)
            };
            budget.acquire(&request).map(drop)
        });
        let unlimited_waiter = start(&budget, |budget| drop(reserve(budget)));
        let limited_result = join([limited]);
        assert!(!is_timely() || matches!(limited_result[..], [Err(AdmissionFailure::Late { .. })]));
        join([unlimited_waiter]);
        assert_timely(Duration::from_secs(2));
        drop(first);
        assert_at_rest(&budget);
    });
}

#[test]
fn pause_beyond_max_wait_lets_the_next_waiter_go() {
    check("max_wait", || {
        let budget = budget();
        let first = reserve(&budget);
        let limited = start(&budget, |budget| {
            let class = class();
            let request = AdmissionRequest {
                max_wait: Some(Duration::from_secs(1)),
                ..request(&class)
            };
            budget.acquire(&request).map(drop)
        });
        let unlimited_waiter = start(&budget, |budget| drop(reserve(budget)));
        first.refuse(None, &pause(30));
        let limited_result = join([limited]);
        let pause = Err(AdmissionFailure::MaxWaitExceeded(WaitCause::Pause));
        assert!(!is_timely() || limited_result == [pause]);
        join([unlimited_waiter]);
        assert_timely(Duration::from_millis(30_100));
        assert_at_rest(&budget);
    });
}

#[test]
fn zero_max_wait_still_waits_for_room() {
    check("zero max_wait", || {
        let budget = budget();
        // Other requests wait for the headers of this request, each for two seconds at most.
        let first = reserve(&budget);
        let threads = [0, 1].map(|_| {
            start(&budget, |budget| {
                let class = class();
                let request = AdmissionRequest {
                    max_wait: Some(Duration::ZERO),
                    ..request(&class)
                };
                budget
                    .acquire(&request)
                    .expect("room")
                    .fail(Delivery::NotSent);
            })
        });
        join(threads);
        assert_timely(Duration::from_secs(4));
        drop(first);
        assert_at_rest(&budget);
    });
}

#[test]
fn oversized_head_lets_the_next_waiter_go() {
    check("oversized head", || {
        let budget = crowded();
        let large = start(&budget, |budget| budget.acquire(&large(&class())).map(drop));
        let small = start(&budget, |budget| drop(reserve(budget)));
        let lower = Limits::per_minute().input_tokens(499).requests(100);
        // The change of limits makes room for the small request, and perhaps for the large request.
        let lowered = budget.clone().limits(class(), lower);
        drop(lowered.limits(class(), Limits::per_minute().requests(100)));
        join([small]);
        assert_timely(Duration::ZERO);
        join([large]);
        assert_at_rest(&budget);
    });
}

#[test]
fn panic_with_a_reservation_lets_the_next_waiter_go() {
    check("panic with a reservation", || {
        let (budget, log) = (narrow(), GrantLog::default());
        let (first, second) = (log.clone(), log.clone());
        let panics = start(&budget, move |budget| {
            let work = || {
                let reservation = reserve(budget);
                first.record_only(&reservation);
                first.release();
                resume_unwind(Box::new("a panic"));
            };
            assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        });
        let other = start(&budget, move |budget| {
            let reservation = reserve(budget);
            second.record_only(&reservation);
            second.release();
        });
        join([panics, other]);
        assert_timely(LONG);
        assert_at_rest(&budget);
    });
}

#[test]
fn panic_in_the_queue_lets_the_next_waiter_go() {
    check("panic in the queue", || {
        let budget = crowded().on_wait(|wait| {
            // The large request waits for room, the small request only for its turn.
            if wait.waiting == 1 || wait.expected > Duration::from_secs(50) {
                resume_unwind(Box::new("a panic"));
            }
        });
        let large = start(&budget, |budget| {
            let wait = || budget.acquire(&large(&class())).map(drop);
            catch_unwind(AssertUnwindSafe(wait)).is_err()
        });
        let small = start(&budget, |budget| {
            let wait = || drop(reserve(budget));
            catch_unwind(AssertUnwindSafe(wait)).is_err()
        });
        let [large, small] = [large, small].map(|thread| join([thread])[0]);
        assert!(large || small || !is_timely());
        if large && !small {
            assert_timely(Duration::ZERO);
        }
        assert_at_rest(&budget);
    });
}

#[test]
fn closed_gate_admits_one_request_at_a_time() {
    check("closed gate", || {
        let (budget, log) = (unlimited(), GrantLog::default());
        reserve(&budget).overloaded(None);
        let closed_until = closed_until(&budget);
        let threads = [class(), other_class(), class()].map(|class| {
            let log = log.clone();
            start(&budget, move |budget| {
                let reservation = budget.acquire(&request(&class)).expect("room");
                // Otherwise time passes, and a request that was not refused for a while counts as
                // accepted.
                if is_timely() {
                    log.record_only(&reservation);
                    thread::yield_now();
                    log.release();
                }
                reservation.fail(Delivery::NotSent);
            })
        });
        join(threads);
        assert!(passed() >= closed_until);
        assert_timely(closed_until);
        assert_at_rest(&budget);
    });
}

#[test]
fn opened_gate_admits_the_waiters_of_each_class() {
    check("opened gate", || {
        let budget = unlimited();
        reserve(&budget).overloaded(None);
        let closed_until = closed_until(&budget);
        let threads = [class(), other_class(), class()].map(|class| {
            start(&budget, move |budget| {
                let reservation = budget.acquire(&request(&class)).expect("room");
                reservation.begin(&Usage::default());
                reservation
            })
        });
        let all = join(threads);
        assert_timely(closed_until);
        drop(all);
        assert_at_rest(&budget);
    });
}

#[test]
fn refused_request_keeps_its_place_in_the_queue() {
    check("refused request", || {
        let (budget, log) = (unlimited(), Arc::new(Mutex::new(Vec::new())));
        let refused = reserve(&budget);
        let granted = move |log: &Mutex<Vec<(Duration, u64)>>, reservation: &Reservation| {
            let mut log = log.lock().expect("no panic");
            log.push((passed(), reservation.ticket()));
        };
        let own = Arc::clone(&log);
        let retried = start(&budget, move |budget| {
            let ticket = Some(refused.ticket());
            refused.refuse(None, &pause(30));
            let (class, was_refused) = (class(), true);
            let request = AdmissionRequest {
                ticket,
                was_refused,
                ..request(&class)
            };
            let reservation = budget.acquire(&request).expect("room");
            granted(&own, &reservation);
        });
        let others = [0, 1].map(|_| {
            let own = Arc::clone(&log);
            start(&budget, move |budget| granted(&own, &reserve(budget)))
        });
        join(others);
        join([retried]);
        let log = log.lock().expect("no panic").clone();
        let late = log.iter().filter(|(time, _)| *time > Duration::ZERO);
        let tickets: Vec<u64> = late.map(|(_, ticket)| *ticket).collect();
        assert!(!is_timely() || ascends(&tickets), "{log:?}");
        assert_at_rest(&budget);
    });
}

#[test]
fn every_outcome_leaves_no_waiter_and_no_reservation() {
    check("every outcome", || {
        let mut rng = Rng::with_seed(thread_rng().next_u64());
        let budget = match rng.u8(..3) {
            0 => narrow(),
            1 => unlimited().limits(class(), Limits::per_minute().requests(3)),
            _ => budget(),
        };
        let is_stopped = Arc::new(AtomicBool::new(false));
        let threads = [0, 1, 2].map(|_| {
            let (rng, stop) = (rng.fork(), Arc::clone(&is_stopped));
            start(&budget, move |budget| send_randomly(budget, rng, &stop))
        });
        if rng.bool() {
            is_stopped.store(true, Ordering::SeqCst);
            budget.wake_all();
        }
        join(threads);
        assert_at_rest(&budget);
    });
}

/// Sends requests that end in random ways.
fn send_randomly(budget: &Budget, mut rng: Rng, stop: &AtomicBool) {
    let class = if rng.u8(..4) == 0 {
        other_class()
    } else {
        class()
    };
    let mut ticket = None;
    for _ in 0..3 {
        let cost = if rng.bool() { SMALL } else { LARGE };
        let time_left = rng.bool().then(|| Duration::from_secs(rng.u64(..90)));
        let max_wait = rng.bool().then(|| Duration::from_secs(rng.u64(..5)));
        let was_refused = ticket.is_some();
        let result = budget.acquire(&AdmissionRequest {
            class: &class,
            cost,
            ticket: ticket.take(),
            was_refused,
            time_left,
            max_wait,
            is_stopped: &|| stop.load(Ordering::SeqCst),
        });
        let Ok(reservation) = result else {
            continue;
        };
        if rng.bool() {
            sleep(Duration::from_secs(rng.u64(..5)));
        }
        match rng.u8(..8) {
            0 => reservation.fail(Delivery::NotSent),
            1 => reservation.fail(Delivery::Responded),
            2 => reservation.overloaded(None),
            3 => {
                ticket = Some(reservation.ticket());
                reservation.refuse(None, &pause(rng.u64(..9)));
            }
            4 => {
                let panics = || {
                    let _held = reservation;
                    resume_unwind(Box::new("a panic"));
                };
                assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            }
            5 => drop(reservation),
            _ => {
                reservation.begin(&Usage::default());
                reservation.settle(&Usage::default(), None);
            }
        }
    }
}
