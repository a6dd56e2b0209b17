//! Reading of response bodies: JSON in one piece, errors, and failures of both.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::{Cause, Phase, json_error, sanitize};
use crate::http::drain::read_for;
use crate::http::{Fault, Response, ResponseBody};
use crate::types::{ApiError, Delivery, ErrorEvent, Message, RequestId, parse_response};

/// Why an attempt failed, before its classification.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
    /// Whether the response was a stream that had begun: its headers are those of a success.
    pub(crate) streamed: bool,
    /// The request id stated in the body.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) partial: Option<Box<Message>>,
}

impl Failure {
    /// Returns the failure of an attempt to which the server has responded.
    pub(crate) fn responded(cause: Cause) -> Failure {
        Failure {
            delivery: Delivery::Responded,
            ..Failure::from(cause)
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure {
            delivery: fault.delivery,
            ..Failure::from(fault.cause)
        }
    }
}

impl From<Cause> for Failure {
    /// Assumes the worst case: sent, outcome unknown.
    fn from(cause: Cause) -> Failure {
        Failure {
            cause,
            delivery: Delivery::Unknown,
            streamed: false,
            request_id: None,
            partial: None,
        }
    }
}

impl From<ErrorEvent> for Failure {
    fn from(event: ErrorEvent) -> Failure {
        let cause = Cause::Api {
            status: None,
            error: Box::new(event.error),
        };
        Failure {
            request_id: event.request_id,
            ..Failure::responded(cause)
        }
    }
}

/// Reads a body; the second value says whether its end was reached.
pub(crate) fn read_bytes(response: &mut Response) -> Result<(Vec<u8>, bool), Failure> {
    let mut body = Vec::new();
    let whole = read_rest(&mut response.body, &mut body)?;
    Ok((body, whole))
}

/// Whether a body is incomplete JSON, in a response whose headers do not say where the body ends.
pub(crate) fn is_cut(response: &Response, body: &[u8]) -> bool {
    !response.is_framed()
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof())
}

/// Returns the failure of a response whose connection was closed before the end of the body.
pub(crate) fn cut() -> Failure {
    let source = "the connection was closed before the end of the body".into();
    Failure::from(Cause::Transport {
        phase: Phase::Body,
        source,
    })
}

/// Reads the rest of a body; returns whether its end was reached.
pub(crate) fn read_rest(body: &mut ResponseBody, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
    body.read_up_to(MAX_BODY, bytes)
}

/// Reads a body as JSON.
pub(crate) fn read_json<T: DeserializeOwned>(
    response: &mut Response,
    expected: &'static str,
) -> Result<T, Failure> {
    let (body, whole) = read_bytes(response)?;
    parse_json(&body, whole, response, expected)
}

/// Parses the body of a response with a status of success.
pub(crate) fn parse_json<T: DeserializeOwned>(
    body: &[u8],
    whole: bool,
    response: &Response,
    expected: &'static str,
) -> Result<T, Failure> {
    if is_cut(response, body) {
        return Err(cut());
    }
    let parsed = match whole {
        true => parse_response(body).map_err(Some),
        false => Err(None),
    };
    parsed.map_err(|error| {
        let mut body = body.to_vec();
        response.hide_credentials(&mut body);
        match ApiError::from_envelope(&body) {
            Some((error, request_id)) => Failure::from(ErrorEvent { error, request_id }),
            None => {
                let source = error.as_ref().map(json_error);
                let excerpt = excerpt_of_success(&body, response.header("content-encoding"));
                let cause = Cause::Decode {
                    expected,
                    excerpt,
                    source,
                };
                Failure::responded(cause)
            }
        }
    })
}

/// Reads the body of a response whose status is not a success. A body that breaks off is read as far as
/// it arrived, because the status is enough for a classification.
pub(crate) fn read_error(response: &mut Response) -> Failure {
    let mut body = read_for(response.take_body(), ERROR_READ_TIME, MAX_ERROR_BODY);
    response.hide_credentials(&mut body);
    let mut request_id = None;
    let cause = match ApiError::from_body(&body) {
        Some((error, id)) => {
            request_id = id;
            Cause::Api {
                status: Some(response.status),
                error: Box::new(error),
            }
        }
        None => {
            let redirect = (300..400).contains(&response.status);
            let excerpt = match response.shown_header("location").filter(|_| redirect) {
                Some(location) => format!("redirect to {}", sanitize(location, 200)),
                None => excerpt(&body, response.header("content-encoding")),
            };
            Cause::Status {
                status: response.status,
                excerpt,
            }
        }
    };
    Failure {
        request_id,
        ..Failure::responded(cause)
    }
}

/// Returns an excerpt of an unexpected body: the title of a page, or the beginning of a text.
fn excerpt(body: &[u8], encoding: Option<&str>) -> String {
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
        return format!(
            "{} bytes compressed with {}",
            body.len(),
            sanitize(encoding, 20)
        );
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_BODY)]);
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let start = start + "<title>".len();
        let length = lower[start..].find("</title>")?;
        text.get(start..start + length)
    });
    sanitize(title.unwrap_or(&text), 200)
}

/// Returns an excerpt of an unexpected body with a status of success. Only pages are shown: any other
/// body may be a message.
fn excerpt_of_success(body: &[u8], encoding: Option<&str>) -> String {
    match body.trim_ascii_start().first() {
        None => "the body is empty".to_owned(),
        Some(b'<') => excerpt(body, encoding),
        Some(_) if encoding.is_some_and(|encoding| encoding != "identity") => {
            excerpt(body, encoding)
        }
        Some(_) => String::new(),
    }
}

/// The most bytes of a body that is read in one piece; the longest messages have some hundred kilobytes.
const MAX_BODY: usize = 128 << 20;

/// The longest time for reading the body of an error, which may stall: the status is enough.
const ERROR_READ_TIME: Duration = Duration::from_secs(5);

/// The most bytes of the body of an error.
const MAX_ERROR_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_of_a_page_is_its_title() {
        let page = b"<html>\n<head><TITLE>502 Bad\n Gateway</TITLE></head><body>x</body></html>";
        assert_eq!(excerpt(page, None), "502 Bad Gateway");
        assert_eq!(excerpt(b"<title>never closed", None), "<title>never closed");
        assert_eq!(
            excerpt("<title>\u{130}</title>".as_bytes(), None),
            "\u{130}"
        );
    }

    #[test]
    fn excerpt_is_short_and_names_compression() {
        assert_eq!(excerpt(&[0xff; 10_000], None).chars().count(), 201);
        assert_eq!(excerpt(b"", None), "");
        assert_eq!(
            excerpt(&[31, 139, 8], Some("gzip")),
            "3 bytes compressed with gzip"
        );
        assert_eq!(excerpt(b"plain", Some("identity")), "plain");
    }
}
