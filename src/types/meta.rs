//! What came with a response beside its body.

use super::attempt::Attempt;
use super::rate_limits::RateLimits;
use super::request_id::RequestId;
use super::wait::Waits;

/// How an answer was obtained.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseMeta {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) rate_limits: RateLimits,
    pub(crate) attempts: Vec<Attempt>,
}

/// How it was obtained makes no difference between two answers.
impl PartialEq for ResponseMeta {
    fn eq(&self, _: &ResponseMeta) -> bool {
        true
    }
}

impl ResponseMeta {
    /// How long all attempts waited.
    pub(crate) fn waited(&self) -> Waits {
        let mut waits = Waits::default();
        for attempt in &self.attempts {
            waits.add_all(&attempt.waited);
        }
        waits
    }
}
