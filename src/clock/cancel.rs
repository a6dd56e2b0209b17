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
    /// Creates a token that is also cancelled when this token is.
    pub(crate) fn child(&self) -> CancelToken {
        CancelToken(Arc::new(CancelState {
            parent: Some(self.clone()),
            ..CancelState::default()
        }))
    }

    /// Sends no new request from now on; returns whether this call was the first. The caller must
    /// wake the waiters.
    pub(crate) fn stop(&self) -> bool {
        self.0.level.fetch_max(1, Ordering::SeqCst) == 0
    }

    /// Cuts the requests in flight as well.
    pub(crate) fn abort(&self) {
        self.0.level.store(2, Ordering::SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.level() > 0
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.level() > 1
    }

    fn level(&self) -> u8 {
        let parent = self.0.parent.as_ref().map_or(0, CancelToken::level);
        self.0.level.load(Ordering::SeqCst).max(parent)
    }
}

/// A sleep ended early because it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;
