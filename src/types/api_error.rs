//! The error object that the server sends.

use serde_json::{Map, Value};

use super::id::RequestId;
use super::wire::{open_enum, wire_struct};

open_enum! {
    /// The `type` of an [`ApiError`].
    ///
    /// ```
    /// use anthropic_blocking::ApiErrorType;
    ///
    /// assert_eq!(ApiErrorType::from("overloaded_error"), ApiErrorType::Overloaded);
    /// // What the server may add tomorrow is kept.
    /// assert_eq!(ApiErrorType::from("novel_error").as_str(), "novel_error");
    /// ```
    pub enum ApiErrorType {
        /// The request was malformed or refused (400, and 4xx that have no type of their own).
        InvalidRequest = "invalid_request_error",
        /// The credentials are missing, wrong or revoked (401).
        Authentication = "authentication_error",
        /// Payment or credit (402).
        Billing = "billing_error",
        /// The credentials may not use this resource (403).
        Permission = "permission_error",
        /// No such resource; also an unknown or retired model (404).
        NotFound = "not_found_error",
        /// Another change is in the way (409).
        Conflict = "conflict_error",
        /// The body is larger than the endpoint takes (413).
        RequestTooLarge = "request_too_large",
        /// A rate, acceleration, concurrency, spend or entitlement limit (429).
        RateLimit = "rate_limit_error",
        /// The server failed (500).
        Api = "api_error",
        /// The request took the server too long (504).
        Timeout = "timeout_error",
        /// The API is overloaded for everyone, whatever your own limits (529).
        Overloaded = "overloaded_error",
    }
}

wire_struct! {
    /// The server's own account of what went wrong.
    ///
    /// ```
    /// use anthropic_blocking::{ApiError, ApiErrorType};
    /// use serde_json::json;
    ///
    /// let error: ApiError = serde_json::from_value(json!({
    ///     "type": "rate_limit_error",
    ///     "message": "text for people",
    ///     "details": {"error_code": "ramp_limit_exceeded"},
    /// }))?;
    /// assert_eq!(error.kind, ApiErrorType::RateLimit);
    /// assert_eq!(error.error_code(), Some("ramp_limit_exceeded"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ApiError {
        /// What kind of error it is.
        req kind = "type": ApiErrorType,
        /// Prose for people; it may be reworded at any time.
        def message: String,
        /// More about the cause, such as `{"error_code": "ramp_limit_exceeded"}`.
        opt details: Map<String, Value>,
    }
}

impl ApiError {
    /// The stable name of the cause, where the server gives one: branch on it rather than on the
    /// text.
    ///
    /// ```
    /// # fn is_growth(error: &anthropic_blocking::Error) -> bool {
    /// let code = error.api_error().and_then(|error| error.error_code());
    /// code == Some("ramp_limit_exceeded")
    /// # }
    /// ```
    pub fn error_code(&self) -> Option<&str> {
        self.details.as_ref()?.get("error_code")?.as_str()
    }

    /// Reads an error body: the documented envelope, the bare error object that edges send, or the
    /// looser shapes of gateways.
    pub(crate) fn from_body(body: &[u8]) -> Option<(ApiError, Option<RequestId>)> {
        ApiError::from_value(serde_json::from_slice(body).ok()?)
    }

    /// Reads only what calls itself an error, for bodies that came with a status of success.
    pub(crate) fn from_envelope(body: &[u8]) -> Option<(ApiError, Option<RequestId>)> {
        let value: Value = serde_json::from_slice(body).ok()?;
        (value.get("type")? == "error").then(|| ApiError::from_value(value))?
    }

    /// The same from parsed JSON.
    pub(crate) fn from_value(value: Value) -> Option<(ApiError, Option<RequestId>)> {
        let Value::Object(mut envelope) = value else {
            return None;
        };
        let request_id = envelope
            .get("request_id")
            .and_then(Value::as_str)
            .and_then(RequestId::new);
        let error = match envelope.remove("error") {
            Some(Value::Object(error)) => ApiError::from_object(error),
            Some(Value::String(message)) => ApiError::from_text(message),
            _ if envelope.contains_key("message") => ApiError::from_object(envelope),
            _ => match envelope.remove("detail") {
                Some(Value::String(message)) => ApiError::from_text(message),
                _ => return None,
            },
        };
        Some((error, request_id))
    }

    fn from_object(mut object: Map<String, Value>) -> ApiError {
        let kind = match object.remove("type") {
            Some(Value::String(kind)) => ApiErrorType::from(kind),
            _ => ApiErrorType::Other(String::new()),
        };
        let message = match object.remove("message") {
            Some(Value::String(message)) => message,
            _ => String::new(),
        };
        let details = match object.remove("details") {
            Some(Value::Object(details)) => Some(details),
            Some(other) => {
                object.insert("details".to_owned(), other);
                None
            }
            None => None,
        };
        ApiError {
            kind,
            message,
            details,
            extra: object,
        }
    }

    fn from_text(message: String) -> ApiError {
        let kind = ApiErrorType::Other(String::new());
        ApiError {
            kind,
            message,
            details: None,
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(body: &str) -> (ApiError, Option<RequestId>) {
        ApiError::from_body(body.as_bytes()).expect("an error object")
    }

    #[test]
    fn envelope_gives_type_code_and_request_id() {
        let (error, id) = read(
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow",
               "details":{"error_code":"ramp_limit_exceeded"}},"request_id":"req_1"}"#,
        );
        assert_eq!(error.kind, ApiErrorType::RateLimit);
        assert_eq!(error.error_code(), Some("ramp_limit_exceeded"));
        assert_eq!(id.unwrap().as_str(), "req_1");
    }

    #[test]
    fn bare_objects_and_loose_shapes_are_read() {
        let (bare, id) = read(r#"{"type":"overloaded_error","message":"Overloaded"}"#);
        assert_eq!((bare.kind, id), (ApiErrorType::Overloaded, None));
        assert_eq!(read(r#"{"error":"bad gateway"}"#).0.message, "bad gateway");
        assert_eq!(read(r#"{"detail":"no route"}"#).0.message, "no route");
        let (odd, id) = read(r#"{"error":{"message":5,"details":null},"request_id":null}"#);
        assert_eq!((odd.message.as_str(), odd.details, id), ("", None, None));
    }

    #[test]
    fn other_json_is_no_error_object() {
        for body in ["", "[]", "null", "{}", "<html>", r#"{"id":"msg_1"}"#] {
            assert!(ApiError::from_body(body.as_bytes()).is_none(), "{body}");
        }
    }
}
