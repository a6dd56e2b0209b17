//! The error object of the API, and how it is read from error bodies.

use serde_json::{Map, Value};

use super::json::{self, ParsedJson, ParsedObject};
use super::request_id::RequestId;
use super::wire::{open_enum, read_defaulted, read_optional, wire_struct};

open_enum! {
    /// The `type` of an [`ApiError`].
    ///
    /// ```
    /// use anthropic_blocking::ApiErrorType;
    ///
    /// assert_eq!(ApiErrorType::from("overloaded_error"), ApiErrorType::Overloaded);
    /// // An unknown type is kept.
    /// assert_eq!(ApiErrorType::from("novel_error").as_str(), "novel_error");
    /// ```
    pub enum ApiErrorType {
        /// The request is invalid (400, and any 4xx status without a type of its own).
        InvalidRequest = "invalid_request_error",
        /// The credentials are missing, wrong or revoked (401).
        Authentication = "authentication_error",
        /// A problem with payment or credit (402).
        Billing = "billing_error",
        /// The credentials are not permitted to use this resource (403).
        Permission = "permission_error",
        /// The resource does not exist; also an unknown or retired model (404).
        NotFound = "not_found_error",
        /// The request conflicts with another change (409).
        Conflict = "conflict_error",
        /// The body is larger than the endpoint accepts (413).
        RequestTooLarge = "request_too_large",
        /// A rate, acceleration, concurrency, spend or entitlement limit was reached (429).
        RateLimit = "rate_limit_error",
        /// The server failed (500).
        Api = "api_error",
        /// The server took too long to process the request (504).
        Timeout = "timeout_error",
        /// The API is overloaded for all users, regardless of your limits (529).
        Overloaded = "overloaded_error",
    }
}

wire_struct! {
    /// The error object in the server's response.
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
        /// The error's type.
        req kind = "type": ApiErrorType,
        /// A description for people. Do not match on it: the server may reword it at any time.
        def message: String,
        /// Details of the cause, such as `{"error_code": "ramp_limit_exceeded"}`.
        opt details: Map<String, Value>,
    }
}

impl ApiError {
    /// Returns the stable name of the cause, such as `ramp_limit_exceeded`, if the server gives
    /// one. Match on it rather than on the message.
    pub fn error_code(&self) -> Option<&str> {
        self.details.as_ref()?.get("error_code")?.as_str()
    }

    /// Returns whether the error is about billing (a spend limit, missing credit), whatever its
    /// status. The error code decides; without one, the type and the message.
    pub(crate) fn is_billing(&self) -> bool {
        match self.error_code() {
            Some(code) => code.ends_with(SPEND_LIMIT_SUFFIX) || BILLING_CODES.contains(&code),
            None => {
                let is_billing_text = |text: &&str| self.message.contains(*text);
                self.kind == ApiErrorType::Billing || BILLING_MESSAGES.iter().any(is_billing_text)
            }
        }
    }

    /// Returns whether a retry cannot succeed, although the status suggests that it may.
    pub(crate) fn is_permanent(&self) -> bool {
        self.error_code()
            .is_some_and(|code| PERMANENT_CODES.contains(&code))
    }

    /// Reads an error body, and the request id in it. The body is the documented envelope (an
    /// object with the error object in `error`), the error object alone, as proxies in front of the
    /// API send it, or an object of a gateway with a text in `error` or `detail`. Returns `None`
    /// for other bodies.
    pub(crate) fn from_body(body: &[u8]) -> Option<(ApiError, Option<RequestId>)> {
        let json: ParsedJson<'_> = json::parse(body).ok()?;
        ApiError::from_object(json.as_object()?)
    }

    /// Like [`from_body`](ApiError::from_body), but only for objects of the `type` `error`. For
    /// the bodies of successful responses, which are errors only if they say so.
    pub(crate) fn from_envelope(body: &[u8]) -> Option<(ApiError, Option<RequestId>)> {
        let json: ParsedJson<'_> = json::parse(body).ok()?;
        let object = json.as_object()?;
        (object.tag()? == "error").then(|| ApiError::from_object(object))?
    }

    /// Like [`from_body`](ApiError::from_body), from parsed JSON.
    pub(crate) fn from_object(
        envelope: &ParsedObject<'_>,
    ) -> Option<(ApiError, Option<RequestId>)> {
        let request_id = envelope.get("request_id").and_then(ParsedJson::as_str);
        let error = match (envelope.get("error"), envelope.get("detail")) {
            (Some(ParsedJson::Object(error)), _) => ApiError::from_error_object(error),
            (Some(ParsedJson::Text(message)), _) => ApiError::from_text(message),
            _ if envelope.get("message").is_some() => ApiError::from_error_object(envelope),
            (_, Some(ParsedJson::Text(message))) => ApiError::from_text(message),
            _ => return None,
        };
        Some((error, request_id.and_then(RequestId::new)))
    }

    /// Reads an error object; missing fields are empty.
    fn from_error_object(object: &ParsedObject<'_>) -> ApiError {
        let mut extra = Map::new();
        let [kind, message, details] = object.split(&["type", "message", "details"], &mut extra);
        let kind = kind.and_then(ParsedJson::as_str).unwrap_or_default();
        let message = read_defaulted(message, "message", &mut extra);
        let details = read_optional(details, "details", &mut extra);
        ApiError {
            kind: kind.into(),
            message,
            details,
            extra,
        }
    }

    /// Returns an error without a type, for a body that holds only a message.
    fn from_text(message: &str) -> ApiError {
        let kind = ApiErrorType::Other(String::new());
        ApiError {
            kind,
            message: message.to_owned(),
            details: None,
            extra: Map::new(),
        }
    }
}

/// The end that the error codes of all spend limits have, such as `enforced_spend_limit_reached`.
const SPEND_LIMIT_SUFFIX: &str = "_spend_limit_reached";

/// Error codes about billing other than spend limits.
const BILLING_CODES: [&str; 3] = [
    "linked_organization_billing_unavailable",
    "user_profile_billing_not_authorized",
    "user_profile_not_billable",
];

/// Parts of the messages of errors about billing that have no error code.
const BILLING_MESSAGES: [&str; 5] = [
    "You have reached your specified",
    "You have reached your API usage limits",
    "credit balance is too low",
    "Extra usage is required",
    "out of extra usage",
];

/// Error codes of failures that remain when the request is retried, although their status suggests
/// otherwise.
const PERMANENT_CODES: [&str; 2] = ["organization_on_hold", "skill_read_blocked_undecryptable"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(body: &str) -> (ApiError, Option<RequestId>) {
        ApiError::from_body(body.as_bytes()).expect("an error object")
    }

    #[test]
    fn error_envelope_holds_type_code_and_request_id() {
        let (error, id) = read(
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow",
               "details":{"error_code":"ramp_limit_exceeded"}},"request_id":"req_1"}"#,
        );
        assert_eq!(error.kind, ApiErrorType::RateLimit);
        assert_eq!(error.error_code(), Some("ramp_limit_exceeded"));
        assert_eq!(id.unwrap().as_str(), "req_1");
    }

    #[test]
    fn errors_without_an_envelope_are_read() {
        let (bare, id) = read(r#"{"type":"overloaded_error","message":"Overloaded"}"#);
        assert_eq!((bare.kind, id), (ApiErrorType::Overloaded, None));
        assert_eq!(read(r#"{"error":"bad gateway"}"#).0.message, "bad gateway");
        assert_eq!(read(r#"{"detail":"no route"}"#).0.message, "no route");
        let (odd, id) = read(r#"{"error":{"message":5,"details":null},"request_id":null}"#);
        assert_eq!((odd.message.as_str(), odd.details, id), ("", None, None));
    }

    #[test]
    fn other_json_is_not_an_error_object() {
        for body in ["", "[]", "null", "{}", "<html>", r#"{"id":"msg_1"}"#] {
            assert!(ApiError::from_body(body.as_bytes()).is_none(), "{body}");
        }
    }
}
