//! One call of an endpoint: what is sent, and what a response says in its headers.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::core::{Core, Settings};
use super::usage::AttemptUsage;
use crate::budget::{Cost, ModelClass};
use crate::error::{Cause, Error, Result, json_error};
use crate::http::{OutgoingRequest, Response, Timeouts, rate_limits};
use crate::types::{ErrorKind, Model, RateLimits, RequestId, ResponseMeta};

/// One call of an endpoint.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Core,
    pub(crate) settings: &'a Settings,
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    /// Whether the request may be repeated although its outcome is unknown: it only reads, or costs
    /// nothing.
    pub(crate) repeatable: bool,
    /// The timeout of a response that comes in one piece; `None` for streams, which have the idle
    /// timeout.
    pub(crate) response_timeout: Option<Duration>,
    /// The class and the cost for which the budget must have room; `None` for endpoints without
    /// limits.
    pub(crate) cost: Option<(ModelClass, Cost)>,
    /// The model of the request, for the totals.
    pub(crate) model: Option<&'a Model>,
    /// The start of the deadline.
    pub(crate) start: Instant,
}

/// A call that succeeded. The caller settles its usage.
pub(crate) struct CompletedCall<T> {
    pub(crate) value: T,
    pub(crate) meta: ResponseMeta,
    pub(crate) attempt_usage: AttemptUsage,
}

/// The status of a response, and what its headers say.
#[derive(Debug, Default)]
pub(super) struct ResponseHead {
    pub(super) status: Option<u16>,
    pub(super) request_id: Option<RequestId>,
    pub(super) rate_limits: RateLimits,
    /// The header `x-should-retry`.
    pub(super) should_retry: Option<bool>,
}

impl Call<'_> {
    /// Returns what the call does, for texts: the method, and the path without its query.
    pub(crate) fn action(&self) -> String {
        let path = self.path.split('?').next().unwrap_or("");
        format!("{} {path}", self.method)
    }

    /// Returns what the call does, for the text of a failure; with the host, and the proxy before it,
    /// where the host was not reached.
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

    /// Returns the request of an attempt that may take `time_left`.
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

    pub(super) fn read_head(&self, response: &Response) -> ResponseHead {
        let wall = self.core.sleeper.clock().wall();
        ResponseHead {
            status: Some(response.status),
            request_id: response.shown_header("request-id").and_then(RequestId::new),
            rate_limits: rate_limits::read(response.headers(), wall),
            should_retry: match response.header("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
        }
    }

    /// Whether nothing more may be sent.
    pub(super) fn is_cancelled(&self) -> bool {
        self.core.sleeper.is_stopped() || self.settings.cancel.is_stopped()
    }

    /// Whether requests in flight are aborted, too.
    pub(super) fn is_aborted(&self) -> bool {
        self.core.sleeper.is_stopped() || self.settings.cancel.is_aborted()
    }

    /// Returns the time until the deadline.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let deadline = self.settings.deadline?;
        Some(deadline.saturating_sub(self.time_since(self.start)))
    }

    pub(super) fn time_since(&self, start: Instant) -> Duration {
        let now = self.core.sleeper.clock().now();
        now.saturating_duration_since(start)
    }
}

/// Writes the body of a request as JSON.
///
/// # Errors
///
/// Kind `InvalidRequest` if a value of the caller cannot be written.
pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(TYPICAL_BODY);
    serde_json::to_writer(&mut bytes, body).map_err(|error| {
        let cause = Cause::Unusable {
            what: "it cannot be written as JSON".into(),
            source: json_error(&error),
        };
        Error::new(ErrorKind::InvalidRequest, "encoding the request", cause)
    })?;
    Ok(bytes)
}

/// Bytes for which a body has room at first: most requests are longer than the 128 bytes with which
/// `to_vec` begins.
const TYPICAL_BODY: usize = 4096;
