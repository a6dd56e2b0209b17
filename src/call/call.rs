//! One call of an endpoint: the request to send, and the values of the response's headers.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::core::{Core, Settings};
use super::usage::AttemptUsage;
use crate::budget::{Cost, ModelClass};
use crate::error::{Cause, Error, Result, json_error};
use crate::http::{OutgoingRequest, Response, Timeouts, rate_limits};
use crate::types::{ErrorKind, Model, RateLimits, RequestId, ResponseMeta};

/// One call of an endpoint: the request and its settings, the same for each attempt.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Core,
    pub(crate) settings: &'a Settings,
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    /// Whether the request may be sent again if it is unknown whether the server has run it: true
    /// for requests that only read or cost nothing.
    pub(crate) repeatable: bool,
    /// The timeout of a response that comes in one piece; `None` for streams, to which only the
    /// idle timeout applies.
    pub(crate) response_timeout: Option<Duration>,
    /// The model class and the estimated cost to reserve in the budget before an attempt; `None`
    /// for endpoints that have no rate limits.
    pub(crate) cost: Option<(ModelClass, Cost)>,
    /// The model to whose usage totals the attempts are added.
    pub(crate) model: Option<&'a Model>,
    /// When the call began: its deadline counts from here.
    pub(crate) start: Instant,
}

/// A call that succeeded.
pub(crate) struct CompletedCall<T> {
    pub(crate) value: T,
    pub(crate) meta: ResponseMeta,
    /// The usage of the successful attempt. It is still open: whoever receives it settles it with
    /// the usage that the response reports.
    pub(crate) attempt_usage: AttemptUsage,
}

/// The status of a response, and the header values that decide about retries and rate limits.
#[derive(Debug, Default)]
pub(super) struct ResponseHead {
    pub(super) status: Option<u16>,
    pub(super) request_id: Option<RequestId>,
    pub(super) rate_limits: RateLimits,
    /// The header `x-should-retry`; `None` unless it is `true` or `false`.
    pub(super) should_retry: Option<bool>,
}

impl Call<'_> {
    /// Returns a description of the call for logs and error texts: the method, and the path without
    /// its query.
    pub(crate) fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or("");
        format!("{} {path}", self.method)
    }

    /// Like [`action`](Call::action), for the text of a failure with this cause. If the request
    /// cannot have reached the server, the description names the host, and the proxy if there is
    /// one.
    pub(super) fn action_for(&self, cause: &Cause) -> String {
        let action = self.action();
        if !cause.is_out_of_reach() {
            return action;
        }
        let host = self.core.base_url.host();
        match self.core.transport.proxy() {
            Some(proxy) => format!("{action} to {host} through the proxy {proxy}"),
            None => format!("{action} to {host}"),
        }
    }

    /// Builds the HTTP request of one attempt. The attempt must end within `time_left`; `None` is
    /// no limit.
    pub(super) fn outgoing_request(&self, time_left: Option<Duration>) -> OutgoingRequest<'_> {
        OutgoingRequest {
            method: self.method,
            url: self.core.base_url.join(self.path),
            headers: &self.settings.headers,
            body: self.body,
            timeouts: Timeouts {
                connect: self.settings.connect_timeout,
                idle: self.settings.idle_timeout,
                response: self.response_timeout,
                deadline: time_left,
            },
        }
    }

    /// Reads the status and the headers of a response.
    pub(super) fn read_head(&self, response: &Response) -> ResponseHead {
        let wall_time = self.core.sleeper.clock().wall();
        ResponseHead {
            status: Some(response.status),
            request_id: response.shown_header("request-id").and_then(RequestId::new),
            rate_limits: rate_limits::read(response.headers(), wall_time),
            should_retry: match response.header("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
        }
    }

    /// Returns whether no further attempt may be sent. Requests in flight may end, unless
    /// [`is_aborted`](Call::is_aborted).
    pub(super) fn is_cancelled(&self) -> bool {
        self.core.sleeper.is_stopped() || self.settings.cancel.is_stopped()
    }

    /// Returns whether requests in flight must end as well.
    pub(super) fn is_aborted(&self) -> bool {
        self.core.sleeper.is_stopped() || self.settings.cancel.is_aborted()
    }

    /// Returns the time until the deadline; `None` if the call has no deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.settings.deadline?;
        Some(deadline.saturating_sub(self.time_since(self.start)))
    }

    /// Returns the time since `start` by the client's clock; zero if `start` is in the future.
    pub(super) fn time_since(&self, start: Instant) -> Duration {
        let now = self.core.sleeper.clock().now();
        now.saturating_duration_since(start)
    }
}

/// Writes the body of a request as JSON.
///
/// # Errors
///
/// Kind `InvalidRequest` if the body has a value that JSON cannot express.
pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(INITIAL_BODY_CAPACITY);
    serde_json::to_writer(&mut bytes, body).map_err(|error| {
        let cause = Cause::Unusable {
            what: "the request cannot be written as JSON".into(),
            source: json_error(&error),
        };
        Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
    })?;
    Ok(bytes)
}

/// Bytes to allocate for a body at first. Most requests are longer than the 128 bytes with which
/// `serde_json::to_vec` begins, and growing from there would copy them several times.
const INITIAL_BODY_CAPACITY: usize = 4096;
