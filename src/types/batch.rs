//! Message batches: their state, and the result of each request.

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::api_error::{ApiError, ApiErrorType};
use super::attempt::Attempt;
use super::json::{JsonView, ParsedJson};
use super::message::Message;
use super::meta::ResponseMeta;
use super::rate_limits::RateLimits;
use super::request_id::RequestId;
use super::wire::{self, Mismatch, WireDefault, WireValue, open_enum, read_variant, wire_struct};

open_enum! {
    /// The processing state of a batch.
    ///
    /// ```
    /// use anthropic_blocking::ProcessingStatus;
    ///
    /// assert_eq!(ProcessingStatus::from("ended"), ProcessingStatus::Ended);
    /// assert_eq!(ProcessingStatus::InProgress.to_string(), "in_progress");
    /// ```
    pub enum ProcessingStatus {
        /// The batch is being processed or is queued.
        InProgress = "in_progress",
        /// The batch is being canceled; some of its requests may still be carried out.
        Canceling = "canceling",
        /// Processing has ended: the results can be read.
        Ended = "ended",
    }
}

impl WireDefault for ProcessingStatus {
    /// The state of a received batch without the field.
    fn wire_default() -> ProcessingStatus {
        ProcessingStatus::InProgress
    }
}

wire_struct! {
    /// A batch of message requests, which the server processes within 24 hours.
    ///
    /// Two batches are equal if the server sent the same content; their
    /// [`attempts`](MessageBatch::attempts), rate limits and request ids are not compared.
    ///
    /// ```
    /// use anthropic_blocking::MessageBatch;
    /// use serde_json::json;
    ///
    /// let batch: MessageBatch = serde_json::from_value(json!({
    ///     "id": "msgbatch_01Example",
    ///     "processing_status": "ended",
    ///     "request_counts": {"succeeded": 2, "errored": 1},
    /// }))?;
    /// assert!(batch.is_ended());
    /// assert_eq!(batch.request_counts.total(), 3);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct MessageBatch {
        /// The batch's id (`msgbatch_…`), with which it can be retrieved later.
        req id: String,
        /// Always `message_batch`.
        def kind = "type": String,
        /// The processing state.
        def processing_status: ProcessingStatus,
        /// The number of requests by outcome. All count as processing until the whole batch has
        /// ended.
        def request_counts: RequestCounts,
        /// When the batch was created, such as `2026-11-23T10:00:00Z`.
        opt created_at: String,
        /// When requests that were not processed by then expire: 24 hours after creation.
        opt expires_at: String,
        /// When processing ended.
        opt ended_at: String,
        /// When cancellation was requested.
        opt cancel_initiated_at: String,
        /// When the results were deleted: 29 days after creation.
        opt archived_at: String,
        /// The URL of the results, once processing has ended.
        opt results_url: String,
    }
    skip {
        /// How the batch was obtained.
        meta: ResponseMeta,
    }
}

wire_struct! {
    /// The number of requests of a batch by outcome.
    ///
    /// ```
    /// use anthropic_blocking::RequestCounts;
    ///
    /// let mut counts = RequestCounts::default();
    /// counts.succeeded = 9;
    /// counts.errored = 1;
    /// assert_eq!(counts.total(), 10);
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct RequestCounts {
        /// Requests that have not ended yet.
        def processing: u64,
        /// Requests with a message as their result.
        def succeeded: u64,
        /// Requests that the server rejected or that failed.
        def errored: u64,
        /// Requests canceled before they were carried out.
        def canceled: u64,
        /// Requests not carried out within 24 hours.
        def expired: u64,
    }
}

impl RequestCounts {
    /// Returns the number of all requests of the batch.
    pub fn total(&self) -> u64 {
        [self.succeeded, self.errored, self.canceled, self.expired]
            .into_iter()
            .fold(self.processing, u64::saturating_add)
    }
}

impl MessageBatch {
    /// Whether processing has ended, so that the results can be read.
    pub fn is_ended(&self) -> bool {
        self.processing_status == ProcessingStatus::Ended || self.ended_at.is_some()
    }

    /// Returns the id under which the server logged the request; `None` for a batch from a list.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// Returns the rate limits that the response headers reported. For a batch in progress,
    /// `retry_after` is how long the server suggests to wait before the next request for its state.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Returns every attempt that was made to obtain this batch, the successful one last; empty for
    /// a batch from a list.
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }
}

wire_struct! {
    /// The result of one request of a batch: one line of the batch's results.
    ///
    /// ```
    /// use anthropic_blocking::BatchEntry;
    ///
    /// let line = r#"{"custom_id":"lima","result":{"type":"expired"}}"#;
    /// let entry: BatchEntry = serde_json::from_str(line)?;
    /// assert_eq!(entry.custom_id, "lima");
    /// assert!(entry.result.is_retryable());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct BatchEntry {
        /// The id that you gave the request.
        req custom_id: String,
        /// The result.
        req result: BatchResult,
    }
}

/// The result of one request of a batch.
///
/// [`message`](BatchResult::message) returns the message of a successful request.
/// [`BatchEntry::into_message`] returns the message, or an error for any other result.
///
/// ```
/// use anthropic_blocking::BatchResult;
/// use serde_json::json;
///
/// let result: BatchResult = serde_json::from_value(json!({
///     "type": "errored",
///     "error": {"type": "error", "error": {"type": "api_error", "message": "It failed"}},
/// }))?;
/// match &result {
///     BatchResult::Succeeded(success) => println!("{}", success.message.text()),
///     BatchResult::Errored(failure) => println!("{}", failure.error.error.message),
///     other => println!("not carried out: {}", other.as_str()),
/// }
/// assert!(result.is_retryable());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BatchResult {
    /// The request succeeded. Only these requests are billed.
    Succeeded(Box<BatchSuccess>),
    /// The server rejected the request, or it failed.
    Errored(BatchFailure),
    /// The batch was canceled before the request was carried out.
    Canceled(NotRun),
    /// The request was not carried out within 24 hours.
    Expired(NotRun),
    /// A result of unknown type or shape, as its JSON object.
    Other(Map<String, Value>),
}

wire_struct! {
    /// The result of a request that succeeded.
    ///
    /// ```
    /// use anthropic_blocking::{BatchEntry, BatchResult};
    ///
    /// # fn keep(entry: BatchEntry) {
    /// if let BatchResult::Succeeded(success) = entry.result {
    ///     println!("{}: {} tokens", entry.custom_id, success.message.usage.output_tokens);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct BatchSuccess as "succeeded" {
        /// The message.
        req message: Message,
    }
}

wire_struct! {
    /// The result of a request that the server rejected or that failed.
    ///
    /// ```
    /// use anthropic_blocking::BatchResult;
    ///
    /// # fn tell(result: &BatchResult) {
    /// if let BatchResult::Errored(failure) = result {
    ///     println!("{}: {}", failure.error.error.kind, failure.error.error.message);
    /// }
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct BatchFailure as "errored" {
        /// The error.
        req error: ErrorResponse,
    }
}

wire_struct! {
    /// The body of an error response: an [`ApiError`] in an envelope.
    ///
    /// ```
    /// use anthropic_blocking::{ApiErrorType, ErrorResponse};
    ///
    /// let body = r#"{"type":"error","error":{"type":"not_found_error","message":"model: x"}}"#;
    /// let response: ErrorResponse = serde_json::from_str(body)?;
    /// assert_eq!(response.error.kind, ApiErrorType::NotFound);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ErrorResponse {
        /// Always `error`.
        def kind = "type": String,
        /// The error itself.
        req error: ApiError,
        /// The id under which the server logged the request.
        opt request_id: String,
    }
}

wire_struct! {
    /// The result of a request that was not carried out.
    ///
    /// ```
    /// use anthropic_blocking::{BatchResult, NotRun};
    ///
    /// let expired = BatchResult::Expired(NotRun::default());
    /// assert_eq!(serde_json::to_string(&expired)?, r#"{"type":"expired"}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct NotRun {}
}

impl BatchResult {
    /// Returns the message, if the request succeeded.
    pub fn message(&self) -> Option<&Message> {
        match self {
            BatchResult::Succeeded(success) => Some(&success.message),
            _ => None,
        }
    }

    /// Returns the server's error, if it rejected the request or the request failed.
    pub fn error(&self) -> Option<&ApiError> {
        match self {
            BatchResult::Errored(failure) => Some(&failure.error.error),
            _ => None,
        }
    }

    /// Whether the same request may succeed in another batch: the request expired, or the server
    /// failed. `false` for canceled requests, since someone decided to cancel them.
    pub fn is_retryable(&self) -> bool {
        match self {
            BatchResult::Expired(_) => true,
            BatchResult::Errored(failure) => {
                let error = &failure.error.error;
                let is_rejection = matches!(
                    error.kind,
                    ApiErrorType::InvalidRequest
                        | ApiErrorType::Authentication
                        | ApiErrorType::Billing
                        | ApiErrorType::Permission
                        | ApiErrorType::NotFound
                        | ApiErrorType::RequestTooLarge
                );
                !is_rejection && !error.is_billing() && !error.is_permanent()
            }
            _ => false,
        }
    }

    /// Returns the `type` on the wire, such as `succeeded`.
    pub fn as_str(&self) -> &str {
        match self {
            BatchResult::Succeeded(_) => "succeeded",
            BatchResult::Errored(_) => "errored",
            BatchResult::Canceled(_) => "canceled",
            BatchResult::Expired(_) => "expired",
            BatchResult::Other(object) => object
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        }
    }
}

impl WireValue for BatchResult {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        let object = wire::as_object(json)?;
        let result = match object.tag() {
            Some("succeeded") => {
                read_variant(object, |read| BatchResult::Succeeded(Box::new(read)))
            }
            Some("errored") => read_variant(object, BatchResult::Errored),
            Some("canceled") => {
                read_variant(object, |read| BatchResult::Canceled(without_type(read)))
            }
            Some("expired") => {
                read_variant(object, |read| BatchResult::Expired(without_type(read)))
            }
            _ => None,
        };
        Ok(result.unwrap_or_else(|| BatchResult::Other(object.to_map())))
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            BatchResult::Succeeded(success) => success.write(),
            BatchResult::Errored(failure) => failure.write(),
            BatchResult::Canceled(not_run) => with_type("canceled", not_run),
            BatchResult::Expired(not_run) => with_type("expired", not_run),
            BatchResult::Other(object) => object.write(),
        }
    }
}

impl<'de> Deserialize<'de> for BatchResult {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

impl Serialize for BatchResult {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}

/// Removes the `type`, which the variant of [`BatchResult`] represents.
fn without_type(mut not_run: NotRun) -> NotRun {
    not_run.extra.remove("type");
    not_run
}

fn with_type<'a>(tag: &'a str, not_run: &'a NotRun) -> JsonView<'a> {
    let mut entries = vec![("type", JsonView::Text(tag))];
    wire::write_extra(&not_run.extra, &mut entries);
    JsonView::Object(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn batch_results_round_trip() {
        for result in [
            json!({"type":"succeeded","message":{"id":"msg_1","type":"message","role":"assistant",
                "content":[{"type":"text","text":"4"}],"usage":{"input_tokens":1}},"new":1}),
            json!({"type":"errored","error":{"type":"error","error":{"type":"api_error",
                "message":"m","details":null},"request_id":null,"more":[]}}),
            json!({"type":"canceled"}),
            json!({"type":"expired","at":"noon"}),
            json!({"type":"postponed","until":5}),
            json!({"type":"succeeded","message":{"type":"message"}}),
            json!({"type":"errored","error":"odd"}),
            json!({"type":"errored","error":{"type":7,"error":{"type":"api_error"}}}),
            json!({"type":"errored","error":{"error":{"type":"api_error"}}}),
            json!({"type":7}),
            json!({}),
        ] {
            let line = json!({"custom_id":"a","result":result,"line":1});
            let entry: BatchEntry = serde_json::from_str(&line.to_string()).unwrap();
            assert_eq!(serde_json::to_value(&entry).unwrap(), line);
        }
    }

    #[test]
    fn expired_and_server_failures_are_retryable() {
        let of = |result: Value| serde_json::from_value::<BatchResult>(result).unwrap();
        let errored = |kind: &str| {
            of(json!({"type":"errored","error":{"type":"error",
                "error":{"type":kind,"message":"m"},"request_id":"req_1"}}))
        };
        assert!(of(json!({"type":"expired"})).is_retryable());
        assert!(errored("api_error").is_retryable());
        assert!(errored("overloaded_error").is_retryable());
        assert!(!errored("invalid_request_error").is_retryable());
        assert!(!of(json!({"type":"canceled"})).is_retryable());
        assert!(!of(json!({"type":"succeeded","message":{"content":[]}})).is_retryable());
        assert_eq!(errored("api_error").error().unwrap().message, "m");
        let limited = |code: &str| {
            of(
                json!({"type":"errored","error":{"type":"error","error":{"type":"rate_limit_error",
                "message":"m","details":{"error_code":code}}}}),
            )
        };
        assert!(limited("ramp_limit_exceeded").is_retryable());
        assert!(!limited("enforced_spend_limit_reached").is_retryable());
        let spent = of(
            json!({"type":"errored","error":{"error":{"type":"rate_limit_error",
            "message":"You have reached your API usage limits: wait until 2026-12-01"}}}),
        );
        assert!(!spent.is_retryable());
        assert_eq!(of(json!({"type":"postponed"})).as_str(), "postponed");
    }

    #[test]
    fn batches_round_trip() {
        let json = json!({"id":"msgbatch_1","type":"message_batch","processing_status":"pausing",
            "request_counts":{"processing":2,"succeeded":0,"errored":0,"canceled":0,"expired":0,
            "odd":1},"ended_at":null,"created_at":"2026-08-19T14:44:51.493319+00:00","new":{}});
        let batch: MessageBatch = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&batch).unwrap(), json);
        assert_eq!(batch.request_counts.total(), 2);
        assert!(!batch.is_ended());
    }
}
