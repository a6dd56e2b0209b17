//! The usage of an attempt, reported to the budget and to the totals of the client.

use std::sync::Arc;

use crate::budget::{OverLimit, Reservation};
use crate::call::classify::{Classification, RetryAction};
use crate::call::response::Failure;
use crate::call::totals::SharedTotals;
use crate::error::Cause;
use crate::stream::merge::overwrite_usage;
use crate::types::{DecodedEvent, Delivery, ErrorKind, Model, RateLimits, StreamEvent, Usage};

/// Follows an attempt until its end is known. Dropped before, the attempt counts as sent with an
/// unknown outcome.
#[derive(Debug)]
pub(crate) struct AttemptUsage {
    totals: Arc<SharedTotals>,
    model: Option<Model>,
    reservation: Option<Reservation>,
    /// The usage known so far.
    usage: Usage,
    /// Bytes of generated text received.
    received: usize,
    /// Bytes of generated text that the budget knows of.
    reported: usize,
    /// Whether the end of the attempt is unknown.
    is_open: bool,
}

impl AttemptUsage {
    pub(crate) fn new(
        totals: &Arc<SharedTotals>,
        model: Option<&Model>,
        reservation: Option<Reservation>,
    ) -> AttemptUsage {
        AttemptUsage {
            totals: Arc::clone(totals),
            model: model.cloned(),
            reservation,
            usage: Usage::default(),
            received: 0,
            reported: 0,
            is_open: true,
        }
    }

    /// Returns the place of the attempt in the order of its class.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.reservation.as_ref().map(Reservation::ticket)
    }

    /// Reports the rate limits from the headers of a success.
    pub(crate) fn learn(&self, limits: &RateLimits) {
        if let Some(reservation) = &self.reservation {
            reservation.learn(limits);
        }
    }

    /// Records an event of the response.
    pub(crate) fn record_event(&mut self, event: &DecodedEvent<'_>) {
        match event {
            DecodedEvent::Delta { delta, .. } => self.record_text(delta.text.len()),
            DecodedEvent::Event(StreamEvent::ContentBlockDelta(event)) => {
                self.record_text(event.delta.generated_text().len());
            }
            DecodedEvent::Event(StreamEvent::MessageStart(start)) => {
                self.usage = start.message.usage.clone();
                if let Some(reservation) = &self.reservation {
                    reservation.begin(&self.usage);
                }
            }
            DecodedEvent::Event(StreamEvent::MessageDelta(delta)) => {
                if let Some(update) = &delta.usage {
                    let output = self.usage.output_tokens;
                    overwrite_usage(&mut self.usage, update);
                    self.usage.output_tokens = self.usage.output_tokens.max(output);
                }
            }
            DecodedEvent::Event(_) => {}
        }
    }

    /// Ends the attempt of a successful call with its usage.
    pub(crate) fn settle(mut self, usage: &Usage) {
        self.is_open = false;
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(usage, None);
        }
        self.totals.add_success(self.model.as_ref(), usage);
    }

    /// Ends a failed attempt. `limits` are from the headers of the failure. Returns the limit that the
    /// request exceeds, where a refusal shows that the request can never be admitted.
    pub(crate) fn fail_attempt(
        mut self,
        classification: &Classification,
        failure: &Failure,
        limits: &RateLimits,
    ) -> Option<OverLimit> {
        self.is_open = false;
        let mut excess = None;
        let error = match &failure.cause {
            Cause::Api { error, .. } => Some(&**error),
            _ => None,
        };
        if let Some(reservation) = self.reservation.take() {
            match (classification.kind, classification.action) {
                // A pause does not help this request, so other requests need none.
                (ErrorKind::RateLimit, RetryAction::Never) => reservation.fail(failure.delivery),
                // The headers are those of a success, and are reported already.
                (ErrorKind::RateLimit, _) if failure.streamed => {
                    reservation.refuse(error, &RateLimits::default());
                }
                (ErrorKind::RateLimit, _) => excess = reservation.refused(error, limits),
                (ErrorKind::Overloaded, _) => reservation.overloaded(limits.retry_after),
                _ => reservation.fail(failure.delivery),
            }
        }
        let partial = failure.partial.as_ref();
        self.add_partial_usage(partial.map(|partial| &partial.usage));
        excess
    }

    /// Ends an attempt that was cancelled before it was sent.
    pub(crate) fn cancel(mut self) {
        self.is_open = false;
        if let Some(reservation) = self.reservation.take() {
            reservation.fail(Delivery::NotSent);
        }
    }

    /// Ends an attempt and its call, after a failure of a stream that the caller was reading.
    pub(crate) fn fail_call(
        self,
        classification: &Classification,
        failure: &Failure,
        limits: &RateLimits,
    ) {
        let (totals, model) = (Arc::clone(&self.totals), self.model.clone());
        self.fail_attempt(classification, failure, limits);
        totals.add_refusal(model.as_ref(), classification.kind);
        totals.add_failed_call(model.as_ref());
    }

    fn record_text(&mut self, bytes: usize) {
        self.received += bytes;
        if self.received - self.reported >= REPORT_INTERVAL {
            self.report_progress();
        }
    }

    #[cold]
    fn report_progress(&mut self) {
        self.reported = self.received;
        self.usage.output_tokens = self.usage.output_tokens.max(min_tokens(self.received));
        if let Some(reservation) = &self.reservation {
            reservation.progress(self.usage.output_tokens);
        }
    }

    /// Adds the usage of a response that did not reach its end to the totals.
    fn add_partial_usage(&mut self, usage: Option<&Usage>) {
        let reported = usage.map_or(0, |usage| usage.output_tokens);
        let seen = self.usage.output_tokens.max(min_tokens(self.received));
        self.usage.output_tokens = seen.max(reported);
        self.totals.add_usage(self.model.as_ref(), &self.usage);
    }
}

impl Drop for AttemptUsage {
    fn drop(&mut self) {
        if self.is_open {
            self.add_partial_usage(None);
            self.totals.add_abandoned_call(self.model.as_ref());
        }
    }
}

/// Returns the fewest tokens that generated text of this length has, as an estimate.
fn min_tokens(bytes: usize) -> u64 {
    (bytes / MAX_BYTES_PER_TOKEN) as u64
}

/// The average bytes of a token of generated text are rarely more than this.
const MAX_BYTES_PER_TOKEN: usize = 4;

/// Bytes of generated text after which the budget is told of the progress of a response.
const REPORT_INTERVAL: usize = 1024;
