//! The result of one request of a batch, as a message or an error.
//!
//! These methods of `BatchEntry` classify failures as a call does: beside their type they would
//! import from above.

use crate::call::classify::{FailureDetails, classify};
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::types::{BatchEntry, BatchResult, Delivery, Message, RateLimits, RequestId};

impl BatchEntry {
    /// Splits the entry into its custom id and its message, as [bulk runs](crate::Bulk::run) return
    /// them; see [`into_message`](BatchEntry::into_message) for the errors.
    pub fn into_parts(self) -> (String, Result<Message>) {
        (self.custom_id.clone(), self.into_message())
    }

    /// Returns the message, or an error for every other result; the server's own error where it
    /// sent one.
    ///
    /// ```
    /// use anthropic_blocking::{BatchEntry, ErrorKind};
    ///
    /// let entry: BatchEntry =
    ///     serde_json::from_str(r#"{"custom_id":"lima","result":{"type":"expired"}}"#)?;
    /// let error = entry.into_message().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotRun);
    /// assert!(error.is_retryable());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](ErrorKind::InvalidRequest), [`Server`](ErrorKind::Server) or another
    /// kind of the server's error for a request that failed, [`NotRun`](ErrorKind::NotRun) for a
    /// request that expired or was canceled, [`Decode`](ErrorKind::Decode) for an unknown kind of
    /// result.
    pub fn into_message(self) -> Result<Message> {
        let retryable = self.result.is_retryable();
        let action = format!("the request {}", sanitize(&self.custom_id, 80));
        let without_message = |kind, what: &'static str| {
            Error::new(kind, action.clone(), Cause::Rejected(what.into()))
                .with_classification(retryable, None, None)
        };
        Err(match self.result {
            BatchResult::Succeeded(success) => return Ok(success.message),
            BatchResult::Errored(failure) => {
                let id = failure.error.request_id.as_deref().and_then(RequestId::new);
                let cause = Cause::Api {
                    status: None,
                    error: Box::new(failure.error.error),
                };
                let classification = classify(&FailureDetails {
                    cause: &cause,
                    delivery: Delivery::Responded,
                    repeatable: true,
                    retry_after: None,
                    should_retry: None,
                });
                Error::new(classification.kind, action, cause)
                    .with_classification(retryable, classification.advice, None)
                    .with_response(id, RateLimits::default())
            }
            BatchResult::Canceled(_) => {
                without_message(ErrorKind::NotRun, "canceled with its batch")
            }
            BatchResult::Expired(_) => {
                without_message(ErrorKind::NotRun, "not carried out within 24 hours")
            }
            BatchResult::Other(_) => {
                without_message(ErrorKind::Decode, "the result is of an unknown kind")
            }
        })
    }
}
