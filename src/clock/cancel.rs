//! How calls are ended: flags that are seen by those who send and those who sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sync::AtomicU8;

/// Ends some calls: first nothing more is sent, then what is under way is cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    level: AtomicU8,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// One that also ends when this one does.
    pub(crate) fn child(&self) -> CancelToken {
        CancelToken(Arc::new(CancelState {
            parent: Some(self.clone()),
            ..CancelState::default()
        }))
    }

    /// Has nothing more sent; returns whether that is new. Who waits must be woken.
    pub(crate) fn stop(&self) -> bool {
        self.0.level.fetch_max(1, Ordering::SeqCst) == 0
    }

    /// Has what is under way cut as well.
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

/// A sleep ended because of [`Sleeper::stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;
