//! Cancellation of calls: a flag that senders and sleepers check.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sync::AtomicU8;

/// Cancels calls in two levels: `stop` sends no new request, `abort` also cuts requests in flight.
#[derive(Debug, Clone, Default)]
pub(crate) struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    level: AtomicU8,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// Creates a token that is cancelled with this token, and can be cancelled alone.
    pub(crate) fn child(&self) -> CancelToken {
        CancelToken(Arc::new(CancelState {
            parent: Some(self.clone()),
            ..CancelState::default()
        }))
    }

    /// Lets no new request be sent; returns whether this call was the first. The caller must wake
    /// the waiters.
    pub(crate) fn stop(&self) -> bool {
        self.0.level.fetch_max(STOPPED, Ordering::SeqCst) == RUNNING
    }

    /// Also cuts the requests in flight.
    pub(crate) fn abort(&self) {
        self.0.level.store(ABORTED, Ordering::SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.level() >= STOPPED
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.level() >= ABORTED
    }

    fn level(&self) -> u8 {
        let parent = self.0.parent.as_ref().map_or(RUNNING, CancelToken::level);
        self.0.level.load(Ordering::SeqCst).max(parent)
    }
}

/// A sleep ended early because it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The levels of a token, in this order.
const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const ABORTED: u8 = 2;
