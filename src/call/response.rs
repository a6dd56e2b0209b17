//! Answers read: JSON in one piece, bodies of errors, and why neither came.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::{Cause, Phase, json_error, sanitize};
use crate::http::drain::read_for;
use crate::http::{Fault, Response, ResponseBody};
use crate::types::{ApiError, Delivery, ErrorEvent, Message, RequestId, parse_response};

/// Why an attempt failed, as far as its reader knows.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
    /// Whether the answer was a stream that had begun; its headers speak of a success.
    pub(crate) streamed: bool,
    /// Said inside the answer.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) partial: Option<Box<Message>>,
}

impl Failure {
    /// The server has answered, and this is what was wrong with it.
    pub(crate) fn answered(cause: Cause) -> Failure {
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
    /// The worst case: sent, outcome unknown.
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
            ..Failure::answered(cause)
        }
    }
}

/// Reads an answer in one piece; whether that was all of it is the second value.
pub(crate) fn read_bytes(answer: &mut Response) -> Result<(Vec<u8>, bool), Failure> {
    let mut body = Vec::new();
    let whole = read_rest(&mut answer.body, &mut body)?;
    Ok((body, whole))
}

/// Whether a body is the beginning of JSON, of an answer that does not say where it ends.
pub(crate) fn is_cut(answer: &Response, body: &[u8]) -> bool {
    !answer.is_framed()
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof())
}

/// The connection was closed in the middle of an answer.
pub(crate) fn cut() -> Failure {
    let source = "the connection was closed in the middle of it".into();
    Failure::from(Cause::Transport {
        phase: Phase::Body,
        source,
    })
}

/// Reads the rest of an answer in one piece; says whether that was all of it.
pub(crate) fn read_rest(body: &mut ResponseBody, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
    body.read_up_to(LARGEST_ANSWER, bytes)
}

/// Reads an answer in one piece as JSON.
pub(crate) fn read_json<T: DeserializeOwned>(
    answer: &mut Response,
    expected: &'static str,
) -> Result<T, Failure> {
    let (body, whole) = read_bytes(answer)?;
    parse_json(&body, whole, answer, expected)
}

/// Reads JSON that came with a status of success.
pub(crate) fn parse_json<T: DeserializeOwned>(
    body: &[u8],
    whole: bool,
    answer: &Response,
    expected: &'static str,
) -> Result<T, Failure> {
    if is_cut(answer, body) {
        return Err(cut());
    }
    let parsed = match whole {
        true => parse_response(body).map_err(Some),
        false => Err(None),
    };
    parsed.map_err(|error| {
        let mut body = body.to_vec();
        answer.hide_credentials(&mut body);
        match ApiError::from_envelope(&body) {
            Some((error, request_id)) => Failure::from(ErrorEvent { error, request_id }),
            None => {
                let source = error.as_ref().map(json_error);
                let excerpt = excerpt_of_success(&body, answer.header("content-encoding"));
                let cause = Cause::Decode {
                    expected,
                    excerpt,
                    source,
                };
                Failure::answered(cause)
            }
        }
    })
}

/// Reads the body of an answer whose status is no success. A body that breaks off is read as far
/// as it came: the status says enough.
pub(crate) fn read_error(answer: &mut Response) -> Failure {
    let mut body = read_for(answer.take_body(), LONGEST_ERROR, LARGEST_ERROR);
    answer.hide_credentials(&mut body);
    let mut request_id = None;
    let cause = match ApiError::from_body(&body) {
        Some((error, id)) => {
            request_id = id;
            Cause::Api {
                status: Some(answer.status),
                error: Box::new(error),
            }
        }
        None => {
            let redirect = (300..400).contains(&answer.status);
            let excerpt = match answer.shown_header("location").filter(|_| redirect) {
                Some(location) => format!("redirect to {}", sanitize(location, 200)),
                None => excerpt(&body, answer.header("content-encoding")),
            };
            Cause::Status {
                status: answer.status,
                excerpt,
            }
        }
    };
    Failure {
        request_id,
        ..Failure::answered(cause)
    }
}

/// A few words of a body that is not what it should be: the title of a page, or its beginning.
fn excerpt(body: &[u8], encoding: Option<&str>) -> String {
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
        return format!(
            "{} bytes compressed with {}",
            body.len(),
            sanitize(encoding, 20)
        );
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(LARGEST_ERROR)]);
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let start = start + "<title>".len();
        let length = lower[start..].find("</title>")?;
        text.get(start..start + length)
    });
    sanitize(title.unwrap_or(&text), 200)
}

/// The same for a body that came with a status of success: unless it is a page, it may be an answer
/// and is not shown.
fn excerpt_of_success(body: &[u8], encoding: Option<&str>) -> String {
    match body.trim_ascii_start().first() {
        None => "it is empty".to_owned(),
        Some(b'<') => excerpt(body, encoding),
        Some(_) if encoding.is_some_and(|encoding| encoding != "identity") => {
            excerpt(body, encoding)
        }
        Some(_) => String::new(),
    }
}

/// The most bytes of an answer in one piece; the longest answers have some hundred kilobytes.
const LARGEST_ANSWER: usize = 128 << 20;

/// How long an error body is waited for that stalls, or comes in drops: the status says enough.
const LONGEST_ERROR: Duration = Duration::from_secs(5);

/// The most bytes of an error body.
const LARGEST_ERROR: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_by_their_title() {
        let page = b"<html>\n<head><TITLE>502 Bad\n Gateway</TITLE></head><body>x</body></html>";
        assert_eq!(excerpt(page, None), "502 Bad Gateway");
        assert_eq!(excerpt(b"<title>never closed", None), "<title>never closed");
        assert_eq!(
            excerpt("<title>\u{130}</title>".as_bytes(), None),
            "\u{130}"
        );
    }

    #[test]
    fn other_bodies_are_cut_and_compressed_ones_named() {
        assert_eq!(excerpt(&[0xff; 10_000], None).chars().count(), 201);
        assert_eq!(excerpt(b"", None), "");
        assert_eq!(
            excerpt(&[31, 139, 8], Some("gzip")),
            "3 bytes compressed with gzip"
        );
        assert_eq!(excerpt(b"plain", Some("identity")), "plain");
    }
}
