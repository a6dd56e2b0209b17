//! Reads bodies for which a caller cannot wait long: the end of a stream's body, without which the
//! connection cannot be used again, and the body of an error, which says more than the status.
//!
//! A blocked read cannot be interrupted before its timeout passes. A thread of its own makes the read,
//! and the caller stops waiting for the thread.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::response::ResponseBody;
use crate::clock::Clock;
use crate::error::Cause;

/// What a client has learned about the bodies of its streams: whether the body ends with the last
/// event.
///
/// The body should end there, and its end has usually arrived by then. If the end does not come, no
/// call should wait for it, since the message is complete. At first, a thread reads each body, and the
/// call waits for the thread for at most [`MAX_DRAIN_TIME`]. Once a body has ended, the calls read
/// without a thread; if a later body does not end, the calls of that moment wait for their idle
/// timeout once.
#[derive(Debug, Default)]
pub(crate) struct DrainPolicy {
    /// [`UNKNOWN`], [`BODIES_END`], or the number of streams whose bodies are dropped unread.
    state: AtomicU32,
}

impl DrainPolicy {
    /// Reads the rest of a body, so that its connection can be used again, or drops the connection.
    /// Blocks for at most [`MAX_DRAIN_TIME`], or the idle timeout if earlier bodies have ended.
    pub(crate) fn drain(&self, body: ResponseBody) {
        let state = self.state.load(Ordering::Relaxed);
        let end = match state {
            BODIES_END => read_to_end(body),
            UNKNOWN => read_to_end_in_thread(body),
            _ => {
                // Two threads that count at the same time count once: the number need not be exact.
                self.state.store(state - 1, Ordering::Relaxed);
                return;
            }
        };
        let state = match end {
            BodyEnd::Reached => BODIES_END,
            // A single late end may be an exception.
            BodyEnd::Late if state == BODIES_END => UNKNOWN,
            BodyEnd::Late => STREAMS_NOT_DRAINED,
            BodyEnd::Failed => return,
        };
        self.state.store(state, Ordering::Relaxed);
    }
}

/// The state before the first stream.
const UNKNOWN: u32 = 0;

/// The state after a body that ended with its stream.
const BODIES_END: u32 = u32::MAX;

/// After a body that did not end with its stream, the bodies of this many streams are dropped unread,
/// at the cost of a new connection for each.
const STREAMS_NOT_DRAINED: u32 = 200;

/// Reads a body for at most this time and up to `limit` bytes. The time is the machine's, even if the
/// client has a manual clock, since sockets know no other.
pub(crate) fn read_for(mut body: ResponseBody, time: Duration, limit: usize) -> Vec<u8> {
    let clock = Clock::System;
    let (sender, receiver) = mpsc::sync_channel(1);
    let read = move || {
        let mut piece = vec![0; 4096];
        while let Ok(n @ 1..) = body.read(&mut piece) {
            if sender.send(piece[..n].to_vec()).is_err() {
                break;
            }
        }
    };
    let (start, mut bytes) = (clock.now(), Vec::new());
    if thread::Builder::new().spawn(read).is_ok() {
        while bytes.len() < limit {
            let passed = clock.now().saturating_duration_since(start);
            match receiver.recv_timeout(time.saturating_sub(passed)) {
                Ok(piece) => bytes.extend(piece),
                Err(_) => break,
            }
        }
        bytes.truncate(limit);
    }
    bytes
}

/// The result of reading a body to its end.
enum BodyEnd {
    Reached,
    /// The end did not arrive in time.
    Late,
    /// The connection broke, or no thread could be started.
    Failed,
}

/// Blocks for as long as the timeouts of the exchange allow.
fn read_to_end(mut body: ResponseBody) -> BodyEnd {
    let mut buffer = [0; 512];
    for _ in 0..MAX_READS {
        match body.read(&mut buffer) {
            Ok(0) => return BodyEnd::Reached,
            Ok(_) => {}
            Err(fault) if matches!(fault.cause, Cause::TimeLimit { .. }) => break,
            Err(_) => return BodyEnd::Failed,
        }
    }
    BodyEnd::Late
}

/// Blocks for at most [`MAX_DRAIN_TIME`]. The thread ends with its read, at the latest when the
/// timeouts of the exchange pass.
fn read_to_end_in_thread(body: ResponseBody) -> BodyEnd {
    let (sender, receiver) = mpsc::sync_channel(1);
    let read = move || {
        let _ = sender.send(read_to_end(body));
    };
    match thread::Builder::new().spawn(read) {
        Ok(_) => receiver
            .recv_timeout(MAX_DRAIN_TIME)
            .unwrap_or(BodyEnd::Late),
        Err(_) => BodyEnd::Failed,
    }
}

/// The number of reads: one may bring bytes after the last event, such as a marker of a gateway, and
/// one the end.
const MAX_READS: usize = 2;

/// How long a complete message is held back so that its connection can be used again.
const MAX_DRAIN_TIME: Duration = Duration::from_millis(500);
