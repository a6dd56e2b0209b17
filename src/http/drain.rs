//! Bodies that nobody waits for long: what follows the last event of a stream, read so that the
//! connection can be used again; and what a refusal says beside its status.
//!
//! A read cannot be cut short before its time limit passes, so a thread of its own makes it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::response::ResponseBody;
use crate::clock::Clock;
use crate::error::Cause;

/// What a client knows of the bodies of its streams: whether they end when their stream does.
///
/// They should, and most often the end is there already. But where it does not come nobody wants to
/// wait for it: the answer is complete. So the body of a host of which nothing is known is read by a
/// thread, for which the call waits a moment. One whose bodies did end is spared the thread; should
/// it change its mind, calls of that moment wait for their idle timeout, once.
#[derive(Debug, Default)]
pub(crate) struct DrainPolicy(AtomicU32);

impl DrainPolicy {
    /// Reads the rest of a body. Where that does not come, the connection is dropped.
    pub(crate) fn drain(&self, body: ResponseBody) {
        let known = self.0.load(Ordering::Relaxed);
        let end = match known {
            ALWAYS_DRAIN => read_to_end(body),
            0 => read_to_end_in_thread(body),
            _ => {
                // Two that count at once count once: it is about that many.
                self.0.store(known - 1, Ordering::Relaxed);
                return;
            }
        };
        let known = match end {
            BodyEnd::Reached => ALWAYS_DRAIN,
            // Once is no habit.
            BodyEnd::Late if known == ALWAYS_DRAIN => 0,
            BodyEnd::Late => STREAMS_NOT_DRAINED,
            BodyEnd::Failed => return,
        };
        self.0.store(known, Ordering::Relaxed);
    }
}

/// Reads a body up to a limit, or as much of it as comes in this time. Blocks no longer than that,
/// by the machine's clock: sockets know no other.
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

/// What became of the end of a body.
enum BodyEnd {
    Reached,
    Late,
    Failed,
}

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

/// The same, given up soon. The thread ends with the read, at the latest when its time limit passes.
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

/// Known of a client: its bodies end. Less than that is for how many streams to do without the end.
const ALWAYS_DRAIN: u32 = u32::MAX;

/// After a body that did not end with its stream, so many streams are not waited for, and pay with a
/// connection each.
const STREAMS_NOT_DRAINED: u32 = 200;

/// The reads that may bring something before the end, such as a marker, and the end itself.
const MAX_READS: usize = 2;

/// How long a complete answer is held back for its connection's sake.
const MAX_DRAIN_TIME: Duration = Duration::from_millis(500);
