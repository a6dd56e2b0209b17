//! The queue in the orders that its threads can run in; see `src/clock/sync/model.rs`.
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

fn ask(class: &ModelClass) -> AdmissionRequest<'_> {
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

/// What a refusal says that asks for a pause.
fn pause(seconds: u64) -> RateLimits {
    RateLimits {
        retry_after: Some(Duration::from_secs(seconds)),
        ..RateLimits::default()
    }
}

fn reserve(budget: &Budget) -> Reservation {
    budget.acquire(&ask(&class())).expect("it can fit")
}

/// A budget that knows that the server tells no limits.
fn open() -> Budget {
    let budget = budget();
    for class in [class(), other_class()] {
        let first = budget.acquire(&ask(&class)).expect("room");
        first.settle(&Usage::default(), None);
    }
    budget
}

/// A budget with room for one request at a time: who waits waits for an event, or half a minute.
fn narrow() -> Budget {
    let budget = budget();
    let error = br#"{"type": "rate_limit_error",
        "message": "Number of concurrent connections has exceeded your rate limit"}"#;
    let (error, _) = ApiError::from_body(error).expect("an error");
    reserve(&budget).refuse(Some(&error), &RateLimits::default());
    // Until the pause is over, and the pace as it was.
    pass(LONG);
    budget
}

const LONG: Duration = Duration::from_secs(30);

/// Whether the refusal of a [`narrow`] budget still counts: a minute after it others may go as well.
fn is_narrow() -> bool {
    passed() < Duration::from_secs(60)
}

/// A budget with room for a small request, and for a large one in a minute.
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
        ..ask(class)
    }
}

/// That no time passed but what had to.
#[track_caller]
fn assert_timely(expected: Duration) {
    let late = passed().saturating_sub(expected);
    assert!(
        !is_timely() || late < Duration::from_millis(1),
        "{late:?} too late"
    );
}

/// The grants of a model: how many are held now, and their tickets in order.
#[derive(Clone, Default)]
struct GrantLog(Arc<Mutex<Grants>>);

#[derive(Default)]
struct Grants {
    held: usize,
    tickets: Vec<u64>,
}

impl GrantLog {
    /// Notes a grant; in a narrow model no other reservation may be held.
    fn alone(&self, reservation: &Reservation) {
        let mut log = self.0.lock().expect("no panic");
        log.held += 1;
        assert!(log.held == 1 || !is_narrow(), "two at a time");
        log.tickets.push(reservation.ticket());
    }

    fn over(&self) {
        self.0.lock().expect("no panic").held -= 1;
    }

    /// The tickets in the order in which they were granted.
    fn tickets(&self) -> Vec<u64> {
        self.0.lock().expect("no panic").tickets.clone()
    }
}

/// Starts a thread that works with a budget of its own.
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

/// Nobody waits, nothing is in flight, and the sums are those of the settled requests.
#[track_caller]
fn assert_at_rest(budget: &Budget) {
    let now = budget.shared.now();
    let mut state = lock(&budget.shared.state);
    for queue in state.queues.values_mut() {
        assert_eq!(queue.waiting(), 0);
        assert!(queue.limiter.is_at_rest(now));
    }
}

/// What has been sent in the last minute.
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
fn those_who_wait_for_an_event_are_let_in_one_by_one_and_in_order() {
    check("one by one", || {
        let (budget, log) = (narrow(), GrantLog::default());
        let threads = [0, 1, 2].map(|number| {
            let log = log.clone();
            start(&budget, move |budget| {
                let reservation = reserve(budget);
                log.alone(&reservation);
                log.over();
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
fn no_more_are_let_in_at_once_than_the_limit_permits() {
    check("at once", || {
        let budget = budget().limits(class(), Limits::per_minute().requests(1));
        let threads = [0, 1].map(|_| {
            start(&budget, |budget| {
                let reservation = reserve(budget);
                assert_eq!(requests_used(budget), 1);
                reservation.settle(&Usage::default(), None);
            })
        });
        join(threads);
        // The first at once, the second when a minute and the rest of its slot are over.
        assert_timely(Duration::from_millis(60_250));
        assert!(passed() >= Duration::from_secs(60));
        assert_at_rest(&budget);
    });
}

#[test]
fn limits_that_are_lifted_let_all_go_who_wait() {
    check("lifted", || {
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
fn limits_that_are_raised_let_the_first_one_go_earlier() {
    check("raised", || {
        let paced = || {
            let budget = budget().limits(class(), Limits::per_minute().requests(6));
            // With nothing in flight there is no pace.
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
fn who_is_told_to_stop_lets_the_next_one_go() {
    check("stop at the head", || {
        let budget = crowded();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let stopped = start(&budget, move |budget| {
            let class = class();
            let ask = AdmissionRequest {
                is_stopped: &|| stop.load(Ordering::SeqCst),
                ..large(&class)
            };
            budget.acquire(&ask).map(drop)
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
fn all_who_wait_hear_that_they_are_to_stop() {
    check("stop", || {
        let budget = narrow();
        let held = reserve(&budget);
        let is_stopped = Arc::new(AtomicBool::new(false));
        // Another caller of the budget, who may stand before them.
        let other = start(&budget, |budget| drop(reserve(budget)));
        let threads = [0, 1].map(|_| {
            let stop = Arc::clone(&is_stopped);
            start(&budget, move |budget| {
                let class = class();
                let ask = AdmissionRequest {
                    is_stopped: &|| stop.load(Ordering::SeqCst),
                    ..ask(&class)
                };
                budget.acquire(&ask).map(drop)
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
fn who_waited_long_enough_hands_the_turn_on() {
    check("deadline", || {
        let budget = budget();
        // Others wait for its headers, two seconds at most.
        let first = reserve(&budget);
        let impatient = start(&budget, |budget| {
            let class = class();
            let ask = AdmissionRequest {
                time_left: Some(Duration::from_secs(1)),
                ..ask(&class)
            };
            budget.acquire(&ask).map(drop)
        });
        let patient = start(&budget, |budget| drop(reserve(budget)));
        let given_up = join([impatient]);
        assert!(!is_timely() || matches!(given_up[..], [Err(AdmissionFailure::Late { .. })]));
        join([patient]);
        assert_timely(Duration::from_secs(2));
        drop(first);
        assert_at_rest(&budget);
    });
}

#[test]
fn who_waits_for_no_refusals_hands_the_turn_on_when_one_comes() {
    check("max_wait", || {
        let budget = budget();
        let first = reserve(&budget);
        let impatient = start(&budget, |budget| {
            let class = class();
            let ask = AdmissionRequest {
                max_wait: Some(Duration::from_secs(1)),
                ..ask(&class)
            };
            budget.acquire(&ask).map(drop)
        });
        let patient = start(&budget, |budget| drop(reserve(budget)));
        first.refuse(None, &pause(30));
        let given_up = join([impatient]);
        let pause = Err(AdmissionFailure::MaxWaitExceeded(WaitCause::Pause));
        assert!(!is_timely() || given_up == [pause]);
        join([patient]);
        assert_timely(Duration::from_millis(30_100));
        assert_at_rest(&budget);
    });
}

#[test]
fn who_would_wait_for_no_refusal_sleeps_while_it_waits_for_room() {
    check("no max_wait", || {
        let budget = budget();
        // Others wait for its headers, two seconds each at most.
        let first = reserve(&budget);
        let threads = [0, 1].map(|_| {
            start(&budget, |budget| {
                let class = class();
                let ask = AdmissionRequest {
                    max_wait: Some(Duration::ZERO),
                    ..ask(&class)
                };
                budget.acquire(&ask).expect("room").fail(Delivery::NotSent);
            })
        });
        join(threads);
        assert_timely(Duration::from_secs(4));
        drop(first);
        assert_at_rest(&budget);
    });
}

#[test]
fn a_request_that_can_never_fit_any_more_lets_the_next_one_go() {
    check("never", || {
        let budget = crowded();
        let large = start(&budget, |budget| budget.acquire(&large(&class())).map(drop));
        let small = start(&budget, |budget| drop(reserve(budget)));
        let lower = Limits::per_minute().input_tokens(499).requests(100);
        // Room for the small one comes with the change, whether or not for the large one.
        let spent = budget.clone().limits(class(), lower);
        drop(spent.limits(class(), Limits::per_minute().requests(100)));
        join([small]);
        assert_timely(Duration::ZERO);
        join([large]);
        assert_at_rest(&budget);
    });
}

#[test]
fn a_panic_of_who_holds_a_reservation_lets_the_next_one_go() {
    check("panic with a reservation", || {
        let (budget, log) = (narrow(), GrantLog::default());
        let (first, second) = (log.clone(), log.clone());
        let panics = start(&budget, move |budget| {
            let work = || {
                let reservation = reserve(budget);
                first.alone(&reservation);
                first.over();
                resume_unwind(Box::new("a panic"));
            };
            assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        });
        let other = start(&budget, move |budget| {
            let reservation = reserve(budget);
            second.alone(&reservation);
            second.over();
        });
        join([panics, other]);
        assert_timely(LONG);
        assert_at_rest(&budget);
    });
}

#[test]
fn a_panic_of_who_waits_lets_the_next_one_go() {
    check("panic in line", || {
        let budget = crowded().on_wait(|wait| {
            // The large one waits for room, the other one only for its turn.
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
fn a_closed_gate_lets_one_through_at_a_time() {
    check("gate", || {
        let (budget, log) = (open(), GrantLog::default());
        reserve(&budget).overloaded(None);
        let closed_until = closed_until(&budget);
        let threads = [class(), other_class(), class()].map(|class| {
            let log = log.clone();
            start(&budget, move |budget| {
                let reservation = budget.acquire(&ask(&class)).expect("room");
                // As time passes, a request that is not refused counts as taken.
                if is_timely() {
                    log.alone(&reservation);
                    thread::yield_now();
                    log.over();
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
fn a_gate_that_opens_lets_go_who_waits_in_each_class() {
    check("gate opens", || {
        let budget = open();
        reserve(&budget).overloaded(None);
        let closed_until = closed_until(&budget);
        let threads = [class(), other_class(), class()].map(|class| {
            start(&budget, move |budget| {
                let reservation = budget.acquire(&ask(&class)).expect("room");
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
fn a_request_that_comes_back_goes_before_those_that_came_later() {
    check("back", || {
        let (budget, log) = (open(), Arc::new(Mutex::new(Vec::new())));
        let refused = reserve(&budget);
        let granted = move |log: &Mutex<Vec<(Duration, u64)>>, reservation: &Reservation| {
            let mut log = log.lock().expect("no panic");
            log.push((passed(), reservation.ticket()));
        };
        let own = Arc::clone(&log);
        let back = start(&budget, move |budget| {
            let ticket = Some(refused.ticket());
            refused.refuse(None, &pause(30));
            let (class, was_refused) = (class(), true);
            let ask = AdmissionRequest {
                ticket,
                was_refused,
                ..ask(&class)
            };
            let reservation = budget.acquire(&ask).expect("room");
            granted(&own, &reservation);
        });
        let others = [0, 1].map(|_| {
            let own = Arc::clone(&log);
            start(&budget, move |budget| granted(&own, &reserve(budget)))
        });
        join(others);
        join([back]);
        let log = log.lock().expect("no panic").clone();
        let late = log.iter().filter(|(time, _)| *time > Duration::ZERO);
        let tickets: Vec<u64> = late.map(|(_, ticket)| *ticket).collect();
        assert!(!is_timely() || ascends(&tickets), "{log:?}");
        assert_at_rest(&budget);
    });
}

#[test]
fn whatever_becomes_of_requests_all_come_to_an_end_and_the_books_balance() {
    check("all kinds", || {
        let mut rng = Rng::with_seed(thread_rng().next_u64());
        let budget = match rng.u8(..3) {
            0 => narrow(),
            1 => open().limits(class(), Limits::per_minute().requests(3)),
            _ => budget(),
        };
        let is_stopped = Arc::new(AtomicBool::new(false));
        let threads = [0, 1, 2].map(|_| {
            let (rng, stop) = (rng.fork(), Arc::clone(&is_stopped));
            start(&budget, move |budget| live(budget, rng, &stop))
        });
        if rng.bool() {
            is_stopped.store(true, Ordering::SeqCst);
            budget.wake_all();
        }
        join(threads);
        assert_at_rest(&budget);
    });
}

/// Sends requests, of which each becomes something else.
fn live(budget: &Budget, mut rng: Rng, stop: &AtomicBool) {
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
        let asked = budget.acquire(&AdmissionRequest {
            class: &class,
            cost,
            ticket: ticket.take(),
            was_refused,
            time_left,
            max_wait,
            is_stopped: &|| stop.load(Ordering::SeqCst),
        });
        let Ok(reservation) = asked else {
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
