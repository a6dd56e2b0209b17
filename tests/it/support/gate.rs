//! Waiting for a condition, and replies that wait for a test.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use anthropic_blocking::testing::{Reply, TestServer};

use super::HANG;

/// Waits until a condition holds, and panics after [`HANG`].
#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < HANG, "it never comes");
        thread::yield_now();
    }
}

/// Blocks each thread that passes until the gate is opened.
#[derive(Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

pub fn gate() -> Arc<Gate> {
    Arc::default()
}

/// Holds every reply of the server until the gate is opened.
pub fn hold_replies(server: &TestServer) -> Arc<Gate> {
    let gate = gate();
    let held = Arc::clone(&gate);
    server.respond_with(move |_| {
        held.pass();
        Reply::canned()
    });
    gate
}

impl Gate {
    pub fn open(&self) {
        *self.is_open.lock().expect("no panic") = true;
        self.opened.notify_all();
    }

    pub fn pass(&self) {
        let is_open = self.is_open.lock().expect("no panic");
        let _open = self
            .opened
            .wait_timeout_while(is_open, HANG, |is_open| !*is_open)
            .expect("no panic");
    }
}
