//! Turns the result of one request of a batch into a message or an error.
//!
//! These methods of `BatchEntry` classify failures as a call does. They are not beside their type,
//! because `types` must not import from `call`.

use crate::call::classify::{FailureDetails, classify};
use crate::error::{Cause, Error, ErrorKind, Result, sanitize};
use crate::types::{
    BatchEntry, BatchResult, Delivery, ErrorResponse, Message, RateLimits, RequestId,
};

impl BatchEntry {
    /// Returns the custom id, and the message or error of
    /// [`into_message`](BatchEntry::into_message). A [bulk run](crate::Bulk::run) returns pairs of the
    /// same type.
    pub fn into_parts(self) -> (String, Result<Message>) {
        // The errors of `into_message` contain the id, too.
        (self.custom_id.clone(), self.into_message())
    }

    /// Returns the message, or an error for every other result. For a request that failed, this is
    /// the server's error.
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
    /// The kind of the server's error for a request that failed, such as
    /// [`InvalidRequest`](ErrorKind::InvalidRequest) or [`Server`](ErrorKind::Server);
    /// [`NotRun`](ErrorKind::NotRun) for a request that expired or was canceled;
    /// [`Decode`](ErrorKind::Decode) for an unknown kind of result.
    pub fn into_message(self) -> Result<Message> {
        let is_retryable = self.result.is_retryable();
        let action = format!("the request {}", sanitize(&self.custom_id, MAX_ID_CHARS));
        let (kind, what) = match self.result {
            BatchResult::Succeeded(success) => return Ok(success.message),
            BatchResult::Errored(failure) => {
                return Err(server_error(action, failure.error, is_retryable));
            }
            BatchResult::Canceled(_) => (ErrorKind::NotRun, "canceled with its batch"),
            BatchResult::Expired(_) => (ErrorKind::NotRun, "not carried out within 24 hours"),
            BatchResult::Other(_) => (ErrorKind::Decode, "the result is of an unknown kind"),
        };
        Err(
            Error::new(kind, action, Cause::Rejected(what.into())).with_classification(
                is_retryable,
                None,
                None,
            ),
        )
    }
}

/// Creates the error for a request that the server failed to carry out.
///
/// Its kind and advice are those of a call. `is_retryable` is not: it says whether the request may
/// succeed in another batch.
fn server_error(action: String, response: ErrorResponse, is_retryable: bool) -> Error {
    let request_id = response.request_id.as_deref().and_then(RequestId::new);
    let cause = Cause::Api {
        status: None,
        error: Box::new(response.error),
    };
    let classification = classify(&FailureDetails {
        cause: &cause,
        delivery: Delivery::Responded,
        repeatable: true,
        retry_after: None,
        should_retry: None,
    });
    Error::new(classification.kind, action, cause)
        .with_classification(is_retryable, classification.advice, None)
        .with_response(request_id, RateLimits::default())
}

/// The maximum number of characters of a custom id in an error.
const MAX_ID_CHARS: usize = 80;
