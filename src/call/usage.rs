//! What an attempt owes until its end is known: to the budget, and to the client's totals.

use std::sync::Arc;

use crate::budget::{OverLimit, Reservation};
use crate::call::classify::{Classification, RetryAction};
use crate::call::response::Failure;
use crate::call::totals::SharedTotals;
use crate::error::Cause;
use crate::stream::merge::overwrite_usage;
use crate::types::{Delivery, ErrorKind, Model, RateLimits, RawEvent, StreamEvent, Usage};

/// An attempt on the totals. Dropped without an end it counts as sent, outcome unknown.
#[derive(Debug)]
pub(crate) struct AttemptUsage {
    totals: Arc<SharedTotals>,
    model: Option<Model>,
    reservation: Option<Reservation>,
    /// As far as it is known.
    usage: Usage,
    /// Of pieces of text, all that came and all that the budget was told of.
    bytes: usize,
    told: usize,
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
            bytes: 0,
            told: 0,
            is_open: true,
        }
    }

    /// The place in the order of its class.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.reservation.as_ref().map(Reservation::ticket)
    }

    /// The head of an answer arrived.
    pub(crate) fn learn(&self, limits: &RateLimits) {
        if let Some(reservation) = &self.reservation {
            reservation.learn(limits);
        }
    }

    /// An event of the answer arrived.
    pub(crate) fn see(&mut self, event: &RawEvent<'_>) {
        match event {
            RawEvent::Delta { delta, .. } => self.count(delta.text.len()),
            RawEvent::Event(StreamEvent::ContentBlockDelta(event)) => {
                self.count(event.delta.as_written().len());
            }
            RawEvent::Event(StreamEvent::MessageStart(start)) => {
                self.usage = start.message.usage.clone();
                if let Some(reservation) = &self.reservation {
                    reservation.begin(&self.usage);
                }
            }
            RawEvent::Event(StreamEvent::MessageDelta(delta)) => {
                if let Some(said) = &delta.usage {
                    let output = self.usage.output_tokens;
                    overwrite_usage(&mut self.usage, said);
                    self.usage.output_tokens = self.usage.output_tokens.max(output);
                }
            }
            RawEvent::Event(_) => {}
        }
    }

    /// The call succeeded, and used this much.
    pub(crate) fn settle(mut self, usage: &Usage) {
        self.is_open = false;
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(usage, None);
        }
        self.totals.settled(self.model.as_ref(), usage);
    }

    /// The attempt failed, and was diagnosed. `limits` is of a refusal's head. Returns why it can
    /// never succeed, where a refusal shows that the request is larger than a limit.
    pub(crate) fn lose(
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
                // A request that no pause helps is no reason for others to pause.
                (ErrorKind::RateLimit, RetryAction::Never) => reservation.fail(failure.delivery),
                // The head was of a success, and is known.
                (ErrorKind::RateLimit, _) if failure.streamed => {
                    reservation.refuse(error, &RateLimits::default());
                }
                (ErrorKind::RateLimit, _) => excess = reservation.refused(error, limits),
                (ErrorKind::Overloaded, _) => reservation.overloaded(limits.retry_after),
                _ => reservation.fail(failure.delivery),
            }
        }
        let partial = failure.partial.as_ref();
        self.count_broken(partial.map(|partial| &partial.usage));
        excess
    }

    /// The attempt was given up before it was sent.
    pub(crate) fn unsent(mut self) {
        self.is_open = false;
        if let Some(reservation) = self.reservation.take() {
            reservation.fail(Delivery::NotSent);
        }
    }

    /// The call is over, and failed, in the middle of an answer that was being handed out.
    pub(crate) fn fail(
        self,
        classification: &Classification,
        failure: &Failure,
        limits: &RateLimits,
    ) {
        let (totals, model) = (Arc::clone(&self.totals), self.model.clone());
        self.lose(classification, failure, limits);
        totals.broke(model.as_ref(), classification.kind);
        totals.call(model.as_ref(), true);
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes - self.told >= STEP {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.told = self.bytes;
        self.usage.output_tokens = self.usage.output_tokens.max(tokens(self.bytes));
        if let Some(reservation) = &self.reservation {
            reservation.progress(self.usage.output_tokens);
        }
    }

    /// Takes note of what an answer used that did not come to its end.
    fn count_broken(&mut self, usage: Option<&Usage>) {
        let said = usage.map_or(0, |usage| usage.output_tokens);
        self.usage.output_tokens = self.usage.output_tokens.max(said).max(tokens(self.bytes));
        self.totals.usage(self.model.as_ref(), &self.usage);
    }
}

impl Drop for AttemptUsage {
    fn drop(&mut self) {
        if self.is_open {
            self.count_broken(None);
            self.totals.call(self.model.as_ref(), false);
        }
    }
}

/// A token has rarely more bytes than this on average.
fn tokens(bytes: usize) -> u64 {
    (bytes / 4) as u64
}

/// The budget is told of an answer's growth once a kibibyte.
const STEP: usize = 1024;
