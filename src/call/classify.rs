//! Classification of a failed attempt: its kind, the retry action, advice for a person. Pure.

use std::time::Duration;

use crate::error::{Cause, Phase, TimeLimit};
use crate::types::{ApiError, ApiErrorType, Delivery, ErrorKind};

/// What is known of a failed attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailureDetails<'a> {
    pub(crate) cause: &'a Cause,
    pub(crate) delivery: Delivery,
    /// Whether the request may be repeated although its outcome is unknown: it only reads, or costs
    /// nothing.
    pub(crate) repeatable: bool,
    pub(crate) retry_after: Option<Duration>,
    /// The header `x-should-retry`.
    pub(crate) should_retry: Option<bool>,
}

/// The kind of a failure, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classification {
    pub(crate) kind: ErrorKind,
    pub(crate) action: RetryAction,
    /// What a person can do.
    pub(crate) advice: Option<&'static str>,
}

impl Classification {
    /// Whether the same request may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        self.action != RetryAction::Never || self.kind == ErrorKind::Timeout
    }
}

/// Whether an attempt is retried, and after what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryAction {
    /// After a rate limit: retry after the wait that the server asks for. Does not count as an attempt.
    AfterPause,
    /// After an overload: retry when the overload gate lets the request through. Does not count as an
    /// attempt.
    AfterOverload,
    /// After another failure: retry after a backoff. Counts as an attempt.
    AfterBackoff,
    /// The request may have been carried out: repeat it as often as the policy permits.
    IfRepeatable,
    /// The same request would fail again.
    Never,
}

/// Classifies a failed attempt.
pub(crate) fn classify(failure: &FailureDetails<'_>) -> Classification {
    let (status, error) = match failure.cause {
        Cause::Api { status, error } => (status.unwrap_or(status_of(&error.kind)), Some(&**error)),
        Cause::Status { status, .. } => (*status, None),
        cause => return classify_transport(cause, failure),
    };
    let kind = kind_of(status, error, failure);
    let advice = advice(status, error, failure);
    let classification = |action| Classification {
        kind,
        action,
        advice,
    };
    if kind == ErrorKind::Billing || error.is_some_and(ApiError::is_permanent) {
        return classification(RetryAction::Never);
    }
    let action = match (kind, failure.retry_after) {
        (ErrorKind::RateLimit, Some(_)) => RetryAction::AfterPause,
        (ErrorKind::Overloaded, _) => RetryAction::AfterOverload,
        _ => RetryAction::AfterBackoff,
    };
    let retried = failure.should_retry.unwrap_or(match status {
        408 | 409 | 429 => true,
        501 | 505 => false,
        _ => status >= 500,
    });
    classification(if retried { action } else { RetryAction::Never })
}

fn classify_transport(cause: &Cause, failure: &FailureDetails<'_>) -> Classification {
    let unsent_or_free = failure.delivery == Delivery::NotSent || failure.repeatable;
    let again = if unsent_or_free {
        RetryAction::AfterBackoff
    } else {
        RetryAction::IfRepeatable
    };
    let (kind, action) = match cause {
        Cause::Transport {
            phase: Phase::Stream,
            ..
        }
        | Cause::Truncated => (ErrorKind::Stream, again),
        Cause::Transport { .. } => (ErrorKind::Connection, again),
        Cause::Certificate { .. } => (ErrorKind::Connection, RetryAction::Never),
        Cause::TimeLimit {
            limit: TimeLimit::Deadline,
        } => (ErrorKind::Timeout, RetryAction::Never),
        Cause::TimeLimit { .. } => (ErrorKind::Timeout, again),
        Cause::Shutdown => (ErrorKind::Shutdown, RetryAction::Never),
        Cause::Rejected(_) | Cause::Unusable { .. } => (ErrorKind::Config, RetryAction::Never),
        Cause::Decode { .. } | Cause::Api { .. } | Cause::Status { .. } => {
            (ErrorKind::Decode, RetryAction::Never)
        }
    };
    let advice = matches!(cause, Cause::Certificate { .. }).then_some(CERTIFICATE);
    Classification {
        kind,
        action,
        advice,
    }
}

/// Returns the status that stands for an error inside of a response with a status of success.
fn status_of(kind: &ApiErrorType) -> u16 {
    match kind {
        ApiErrorType::InvalidRequest => 400,
        ApiErrorType::Authentication => 401,
        ApiErrorType::Billing => 402,
        ApiErrorType::Permission => 403,
        ApiErrorType::NotFound => 404,
        ApiErrorType::Conflict => 409,
        ApiErrorType::RequestTooLarge => 413,
        ApiErrorType::RateLimit => 429,
        ApiErrorType::Timeout => 504,
        ApiErrorType::Overloaded => 529,
        ApiErrorType::Api | ApiErrorType::Other(_) => 500,
    }
}

fn kind_of(status: u16, error: Option<&ApiError>, failure: &FailureDetails<'_>) -> ErrorKind {
    if status == 402 || error.is_some_and(ApiError::is_billing) {
        return ErrorKind::Billing;
    }
    let overloaded = error.is_some_and(|error| error.kind == ApiErrorType::Overloaded);
    let not_load = error.and_then(ApiError::error_code) == Some("compaction_unavailable");
    match status {
        300..=399 => ErrorKind::Config,
        401 | 403 => ErrorKind::Auth,
        404 => ErrorKind::NotFound,
        429 => ErrorKind::RateLimit,
        529 if !not_load => ErrorKind::Overloaded,
        503 if overloaded || failure.retry_after.is_some() => ErrorKind::Overloaded,
        408 => ErrorKind::Server,
        400..=499 => ErrorKind::InvalidRequest,
        _ if overloaded && !not_load => ErrorKind::Overloaded,
        _ => ErrorKind::Server,
    }
}

/// Whether an error is not one of the API, all of which have a type.
fn is_foreign(error: &ApiError) -> bool {
    error.kind.as_str().is_empty()
}

fn advice(
    status: u16,
    error: Option<&ApiError>,
    failure: &FailureDetails<'_>,
) -> Option<&'static str> {
    let says = |text: &str| error.is_some_and(|error| error.message.contains(text));
    match error.and_then(ApiError::error_code) {
        Some(code) if code.ends_with("_spend_limit_reached") => return Some(SPEND_LIMIT),
        Some("organization_on_hold") => {
            return Some("the organization is disabled; only Anthropic's support can help");
        }
        Some("image_dimensions_too_large") => return Some("scale the images down"),
        _ => {}
    }
    let by_text = [
        ("You have reached your", SPEND_LIMIT),
        ("credit balance is too low", "add credit in the Console"),
        (
            "Extra usage is required",
            "shorten the prompt, or leave out the long-context beta",
        ),
        (
            "out of extra usage",
            "add extra usage, or wait until the subscription renews it",
        ),
        ("prompt is too long", "shorten the prompt or split the work"),
        (
            "exceed context limit",
            "lower max_tokens or shorten the prompt",
        ),
        (
            "does not support assistant message prefill",
            "end the conversation with a user turn",
        ),
        (
            "CORS requests are not allowed",
            "this key may not be used from browsers",
        ),
        (
            "for the `anthropic-beta` header",
            "leave out that beta value",
        ),
    ];
    if let Some((_, advice)) = by_text.iter().find(|(text, _)| says(text)) {
        return Some(advice);
    }
    match status {
        300..=399 => Some(REDIRECT),
        404 if says("model") => Some("check the model's id; the model may be retired"),
        404 | 405 | 501 if error.is_none_or(is_foreign) => Some(NOT_THE_API),
        403 if error.is_none_or(is_foreign) => Some(BLOCKED),
        401 => Some("check the key: it may be mistyped, revoked, or meant for another address"),
        413 => Some("a request may have 32 MB, a batch 256 MB: send less at once"),
        429 if failure.should_retry == Some(false) => Some(
            "the server rules out a retry: a single request may be larger than the whole limit \
             per minute",
        ),
        _ => None,
    }
}

const SPEND_LIMIT: &str = "waiting minutes does not help: raise the spend limit in the Console, or \
                           wait for the date in the message";
const REDIRECT: &str = "redirects are not followed because the key would travel along: if the new \
                        address is the right one, make it the base URL";
pub(crate) const NOT_THE_API: &str = "the response is not from the API: check the base URL";
const BLOCKED: &str = "the response is not from the API: something on the way, such as a firewall or a \
                       gateway, refuses the request";
pub(crate) const VERSION_IN_BASE_URL: &str = "the base URL ends with /v1, and every path begins with it: leave \
                                  it out of the base URL";
const CERTIFICATE: &str = "the server's certificate is not trusted: behind a proxy that inspects \
                           traffic, give its root certificate to the client builder";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An error as the server sends it: type, `error_code`, message.
    type Sent = (&'static str, &'static str, &'static str);

    const NONE: Sent = ("", "", "");
    const WAIT: Option<Duration> = Some(Duration::from_secs(5));

    #[track_caller]
    fn classification(
        status: u16,
        (kind, code, message): Sent,
        retry_after: Option<Duration>,
        should_retry: Option<bool>,
    ) -> Classification {
        let details = (!code.is_empty()).then(|| json!({"error_code": code}));
        let error = json!({"type": kind, "message": message, "details": details});
        let cause = if kind.is_empty() && message.is_empty() {
            Cause::Status {
                status,
                excerpt: String::new(),
            }
        } else {
            let error = Box::new(serde_json::from_value(error).expect("an error object"));
            Cause::Api {
                status: (status != 200).then_some(status),
                error,
            }
        };
        classify(&FailureDetails {
            cause: &cause,
            delivery: Delivery::Responded,
            repeatable: false,
            retry_after,
            should_retry,
        })
    }

    #[test]
    fn statuses_and_causes_have_kinds_and_actions() {
        use ErrorKind::*;
        use RetryAction::{AfterBackoff, AfterOverload, AfterPause, Never};
        const LIMIT: Sent = ("rate_limit_error", "", "This request would exceed");
        const CODED: fn(&'static str) -> Sent = |code| ("rate_limit_error", code, "m");
        const INVALID: fn(&'static str) -> Sent = |text| ("invalid_request_error", "", text);
        const LOAD: Sent = ("overloaded_error", "", "Overloaded");
        const API: Sent = ("api_error", "", "Internal server error");
        const SPENT: &str = "You have reached your specified API usage limits.";
        const LONG: &str = "Extra usage is required for long context requests.";
        for (row, (status, sent, wait, should_retry, kind, action)) in [
            // Flow control.
            (429, LIMIT, WAIT, None, RateLimit, AfterPause),
            (429, LIMIT, WAIT, Some(true), RateLimit, AfterPause),
            (429, NONE, WAIT, None, RateLimit, AfterPause),
            (
                429,
                CODED("ramp_limit_exceeded"),
                WAIT,
                None,
                RateLimit,
                AfterPause,
            ),
            (429, LIMIT, None, None, RateLimit, AfterBackoff),
            (429, LIMIT, None, Some(true), RateLimit, AfterBackoff),
            (429, LIMIT, None, Some(false), RateLimit, Never),
            (429, LIMIT, WAIT, Some(false), RateLimit, Never),
            // Money, whatever the headers say.
            (
                429,
                CODED("enforced_spend_limit_reached"),
                None,
                None,
                Billing,
                Never,
            ),
            (
                429,
                CODED("enforced_spend_limit_reached"),
                WAIT,
                Some(true),
                Billing,
                Never,
            ),
            (
                429,
                CODED("contract_spend_limit_reached"),
                WAIT,
                None,
                Billing,
                Never,
            ),
            (
                402,
                CODED("linked_organization_spend_limit_reached"),
                None,
                None,
                Billing,
                Never,
            ),
            (
                402,
                CODED("linked_organization_billing_unavailable"),
                None,
                None,
                Billing,
                Never,
            ),
            (
                403,
                CODED("user_profile_not_billable"),
                None,
                None,
                Billing,
                Never,
            ),
            (
                402,
                ("billing_error", "", "m"),
                None,
                Some(true),
                Billing,
                Never,
            ),
            (402, NONE, None, None, Billing, Never),
            (400, INVALID(SPENT), None, None, Billing, Never),
            (
                400,
                INVALID("Your credit balance is too low to"),
                None,
                None,
                Billing,
                Never,
            ),
            (
                429,
                ("rate_limit_error", "", LONG),
                WAIT,
                Some(true),
                Billing,
                Never,
            ),
            (
                429,
                ("rate_limit_error", "", "You're out of extra usage"),
                None,
                None,
                Billing,
                Never,
            ),
            // Overload.
            (529, LOAD, None, Some(true), Overloaded, AfterOverload),
            (529, NONE, None, None, Overloaded, AfterOverload),
            (529, LOAD, None, Some(false), Overloaded, Never),
            (
                529,
                ("overloaded_error", "compaction_unavailable", "m"),
                None,
                None,
                Server,
                AfterBackoff,
            ),
            (503, LOAD, None, None, Overloaded, AfterOverload),
            (503, NONE, WAIT, None, Overloaded, AfterOverload),
            (500, LOAD, None, None, Overloaded, AfterOverload),
            // Failures.
            (503, NONE, None, None, Server, AfterBackoff),
            (
                503,
                ("api_error", "cmek_key_unreachable", "m"),
                None,
                None,
                Server,
                AfterBackoff,
            ),
            (500, API, None, None, Server, AfterBackoff),
            (500, API, None, Some(false), Server, Never),
            (502, NONE, None, None, Server, AfterBackoff),
            (
                504,
                ("timeout_error", "", "m"),
                None,
                None,
                Server,
                AfterBackoff,
            ),
            (520, NONE, None, None, Server, AfterBackoff),
            (524, NONE, None, None, Server, AfterBackoff),
            (408, NONE, None, None, Server, AfterBackoff),
            (
                409,
                ("conflict_error", "", "m"),
                None,
                None,
                InvalidRequest,
                AfterBackoff,
            ),
            (
                409,
                ("conflict_error", "skill_read_blocked_undecryptable", "m"),
                None,
                None,
                InvalidRequest,
                Never,
            ),
            (501, NONE, None, None, Server, Never),
            // The caller's own.
            (307, NONE, None, None, Config, Never),
            (
                400,
                INVALID("max_tokens: required"),
                None,
                Some(false),
                InvalidRequest,
                Never,
            ),
            (
                400,
                INVALID("odd"),
                None,
                Some(true),
                InvalidRequest,
                AfterBackoff,
            ),
            (
                400,
                ("invalid_request_error", "organization_on_hold", "m"),
                None,
                Some(true),
                InvalidRequest,
                Never,
            ),
            (
                401,
                ("authentication_error", "", "invalid x-api-key"),
                None,
                Some(false),
                Auth,
                Never,
            ),
            (403, ("permission_error", "", "m"), None, None, Auth, Never),
            (
                404,
                ("not_found_error", "", "model: x"),
                None,
                None,
                NotFound,
                Never,
            ),
            (412, NONE, None, None, InvalidRequest, Never),
            (413, NONE, None, None, InvalidRequest, Never),
            (422, NONE, None, None, InvalidRequest, Never),
            (499, NONE, None, None, InvalidRequest, Never),
        ]
        .into_iter()
        .enumerate()
        {
            let classification = classification(status, sent, wait, should_retry);
            assert_eq!(
                (classification.kind, classification.action),
                (kind, action),
                "row {row}: {status} {sent:?}"
            );
        }
    }

    #[test]
    fn repeats_depend_on_what_the_connection_did() {
        use Delivery::{NotSent, Unknown};
        let case = |cause: Cause, delivery, repeatable| {
            let cause = &cause;
            let failure = FailureDetails {
                cause,
                delivery,
                repeatable,
                retry_after: None,
                should_retry: None,
            };
            let classification = classify(&failure);
            (classification.kind, classification.action)
        };
        let broken = |phase| Cause::Transport {
            phase,
            source: "broken".into(),
        };
        let late = |limit| Cause::TimeLimit { limit };
        let (head, stream) = (Phase::Head, Phase::Stream);
        for (cause, delivery, repeatable, expected) in [
            (
                broken(head),
                NotSent,
                false,
                (ErrorKind::Connection, RetryAction::AfterBackoff),
            ),
            (
                broken(head),
                Unknown,
                false,
                (ErrorKind::Connection, RetryAction::IfRepeatable),
            ),
            (
                broken(head),
                Unknown,
                true,
                (ErrorKind::Connection, RetryAction::AfterBackoff),
            ),
            (
                broken(stream),
                Unknown,
                false,
                (ErrorKind::Stream, RetryAction::IfRepeatable),
            ),
            (
                Cause::Truncated,
                Unknown,
                false,
                (ErrorKind::Stream, RetryAction::IfRepeatable),
            ),
            (
                late(TimeLimit::Idle),
                Unknown,
                false,
                (ErrorKind::Timeout, RetryAction::IfRepeatable),
            ),
            (
                late(TimeLimit::Connect),
                NotSent,
                false,
                (ErrorKind::Timeout, RetryAction::AfterBackoff),
            ),
            (
                late(TimeLimit::Deadline),
                Unknown,
                true,
                (ErrorKind::Timeout, RetryAction::Never),
            ),
            (
                Cause::Certificate {
                    source: "bad".into(),
                },
                NotSent,
                true,
                (ErrorKind::Connection, RetryAction::Never),
            ),
            (
                Cause::Decode {
                    expected: "JSON",
                    excerpt: String::new(),
                    source: None,
                },
                Unknown,
                true,
                (ErrorKind::Decode, RetryAction::Never),
            ),
        ] {
            let text = cause.to_string();
            assert_eq!(
                case(cause, delivery, repeatable),
                expected,
                "{text}, {delivery}"
            );
        }
    }

    #[test]
    fn error_after_status_200_is_classified_alike() {
        use ErrorKind::*;
        for (kind, expected) in [
            ("overloaded_error", (Overloaded, RetryAction::AfterOverload)),
            ("api_error", (Server, RetryAction::AfterBackoff)),
            ("timeout_error", (Server, RetryAction::AfterBackoff)),
            ("rate_limit_error", (RateLimit, RetryAction::AfterBackoff)),
            (
                "invalid_request_error",
                (InvalidRequest, RetryAction::Never),
            ),
            ("authentication_error", (Auth, RetryAction::Never)),
            ("new_error", (Server, RetryAction::AfterBackoff)),
        ] {
            let classification = classification(200, (kind, "", "m"), None, None);
            assert_eq!(
                (classification.kind, classification.action),
                expected,
                "{kind}"
            );
        }
    }

    #[test]
    fn advice_says_what_a_person_can_do() {
        for (status, sent, words) in [
            (
                429,
                ("rate_limit_error", "enforced_spend_limit_reached", "m"),
                "raise the spend limit",
            ),
            (
                400,
                (
                    "invalid_request_error",
                    "",
                    "Your credit balance is too low",
                ),
                "add credit",
            ),
            (
                400,
                ("invalid_request_error", "", "prompt is too long: 9 > 8"),
                "shorten the prompt",
            ),
            (
                429,
                ("rate_limit_error", "", "Extra usage is required for"),
                "long-context beta",
            ),
            (
                400,
                ("invalid_request_error", "organization_on_hold", "m"),
                "support",
            ),
            (401, ("authentication_error", "", "m"), "check the key"),
            (404, NONE, "check the base URL"),
            (404, ("", "", "Not Found"), "check the base URL"),
            (404, ("", "", "no such model"), "check the model's id"),
            (
                404,
                ("not_found_error", "", "model: claude-0"),
                "check the model's id",
            ),
            (403, NONE, "something on the way"),
            (413, NONE, "32 MB"),
            (308, NONE, "base URL"),
        ] {
            let advice = classification(status, sent, None, None)
                .advice
                .expect("some advice");
            assert!(advice.contains(words), "{status}: {advice}");
        }
        assert_eq!(classification(500, NONE, None, None).advice, None);
        let too_large = classification(429, ("rate_limit_error", "", "m"), None, Some(false));
        assert!(
            too_large
                .advice
                .expect("some advice")
                .contains("larger than the whole limit")
        );
    }
}
