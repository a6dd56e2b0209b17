//! How a response was obtained.

use super::attempt::Attempt;
use super::rate_limits::RateLimits;
use super::request_id::RequestId;
use super::wait::Waits;

/// How a response was obtained: its request id, rate limits and attempts.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseMeta {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) rate_limits: RateLimits,
    pub(crate) attempts: Vec<Attempt>,
}

/// All values are equal, so that two responses are equal if the server sent the same content.
impl PartialEq for ResponseMeta {
    fn eq(&self, _: &ResponseMeta) -> bool {
        true
    }
}

impl ResponseMeta {
    /// Returns the waits of all attempts together.
    pub(crate) fn waited(&self) -> Waits {
        let mut waits = Waits::default();
        for attempt in &self.attempts {
            waits.add_all(&attempt.waited);
        }
        waits
    }
}
