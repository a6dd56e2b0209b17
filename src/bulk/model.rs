//! Tests of the workers under every schedule of their threads; see `src/clock/sync/model.rs`.
#![cfg(model_check)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::thread::{self, JoinHandle};

use super::workers::Workers;
use crate::client::Client;
use crate::clock::sync::{check, is_timely, passed};
use crate::error::Error;
use crate::prices::{Price, Prices};
use crate::types::{ErrorKind, MessageRequest};

/// Returns workers whose spend limit has room for one request at a time.
fn workers() -> Arc<Workers> {
    let client = Client::builder().api_key("key").build();
    let client = client.expect("valid settings");
    let prices = Prices::none().set("claude-haiku-4-5", Price::new(0.0, 1e6));
    let bulk = client.bulk().concurrency(8).prices(prices);
    let bulk = bulk.ramp_up(Duration::from_secs(3_600)).spend_limit(150.0);
    Arc::new(bulk.workers(None))
}

fn request() -> MessageRequest {
    MessageRequest::new("claude-haiku-4-5", 100).user("a question")
}

fn start<T: Send + 'static>(
    workers: &Arc<Workers>,
    work: impl FnOnce(&Workers) -> T + Send + 'static,
) -> JoinHandle<T> {
    let workers = Arc::clone(workers);
    thread::spawn(move || work(&workers))
}

#[track_caller]
fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

#[track_caller]
fn assert_timely() {
    assert!(!is_timely() || passed().is_zero(), "{:?}", passed());
}

/// Sends a request that fails; `in_flight` counts the requests in flight.
fn send(workers: &Workers, in_flight: &AtomicUsize) -> Result<(), ErrorKind> {
    let reserved_dollars = workers.begin_request(&request()).map_err(kind)?;
    assert_eq!(
        in_flight.fetch_add(1, Ordering::SeqCst),
        0,
        "the spend limit has room for one request"
    );
    thread::yield_now();
    in_flight.fetch_sub(1, Ordering::SeqCst);
    let failed = Err::<(), _>(Error::rejected("sending", "a failure".to_owned()));
    let ended = workers.end_request(failed, reserved_dollars, &request());
    ended.expect_err("a failure");
    Ok(())
}

fn kind(error: Error) -> ErrorKind {
    error.kind()
}

#[test]
fn unspent_reserved_dollars_admit_the_next_request() {
    check("spend limit", || {
        let workers = workers();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let threads = [0, 1].map(|_| {
            let in_flight = Arc::clone(&in_flight);
            start(&workers, move |workers| send(workers, &in_flight))
        });
        assert_eq!(threads.map(join), [Ok(()); 2]);
        assert_timely();
        let now = workers.current_progress();
        assert_eq!((now.in_flight, now.failed), (0, 2));
    });
}

#[test]
fn stop_ends_the_wait_for_the_spend_limit() {
    check("stop at the spend limit", || {
        let workers = workers();
        let reserved_dollars = workers.begin_request(&request()).expect("room");
        let waiting =
            [0, 1].map(|_| start(&workers, |workers| send(workers, &AtomicUsize::new(0))));
        workers.stop("enough");
        assert_eq!(waiting.map(join), [Err(ErrorKind::NotRun); 2]);
        assert_timely();
        let ended = workers.end_request(Ok(()), reserved_dollars, &request());
        ended.expect("success");
        assert_eq!(workers.current_progress().in_flight, 0);
    });
}

#[test]
fn unneeded_workers_end_before_their_turn() {
    for is_stopped in [false, true] {
        check("unneeded workers", move || {
            let workers = workers();
            let sleeping =
                [6, 7].map(|number| start(&workers, move |workers| workers.wait_to_begin(number)));
            match is_stopped {
                true => workers.stop("enough"),
                false => workers.finish(),
            }
            let began = sleeping.map(join);
            assert!(!is_timely() || began == [false; 2]);
            assert_timely();
        });
    }
}
