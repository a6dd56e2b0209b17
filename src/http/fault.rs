//! What an error of ureq's means for a request: why it failed, and how far it got.

use std::io;

use ureq::Timeout;

use crate::error::{BoxError, Cause, Phase, TimeLimit};
use crate::types::Delivery;

/// An exchange that brought no whole answer.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
}

impl Fault {
    /// Says what ureq's error means for the request. `delivery` is what is known from the body:
    /// without one, only errors that come before anything is sent are certain.
    pub(super) fn from_error(error: ureq::Error, delivery: Delivery, phase: Phase) -> Fault {
        use ureq::Error as E;
        let sending = phase == Phase::Head;
        let text = error.to_string();
        // An alert is what the other side says, of a certificate of ours.
        if sending && text.contains("certificate") && !text.contains("alert") {
            let cause = Cause::Certificate {
                source: into_source(error),
            };
            return Fault {
                cause,
                delivery: Delivery::NotSent,
            };
        }
        let limit = |limit| Cause::TimeLimit { limit };
        let (cause, delivery) = match error {
            E::Timeout(Timeout::Resolve | Timeout::Connect) => {
                (limit(TimeLimit::Connect), Delivery::NotSent)
            }
            E::Timeout(Timeout::PerRead | Timeout::PerWrite) => (limit(TimeLimit::Idle), delivery),
            E::Timeout(Timeout::RecvResponse | Timeout::RecvBody) => {
                (limit(TimeLimit::Answer), delivery)
            }
            E::Timeout(_) => (limit(TimeLimit::Deadline), delivery),
            E::ConnectProxyFailed(ref answer) if is_refusal(answer) => {
                let what = PROXY_REFUSAL.into();
                let source = into_source(error);
                (Cause::Unusable { what, source }, Delivery::NotSent)
            }
            E::Http(_) | E::BadUri(_) => {
                let what = "it is no valid HTTP request".into();
                let source = into_source(error);
                (Cause::Unusable { what, source }, Delivery::NotSent)
            }
            E::Protocol(_) | E::LargeResponseHeader(..) => (
                Cause::unreadable("HTTP", Some(into_source(error))),
                delivery,
            ),
            // What is wrong with the connection has other kinds.
            #[cfg(feature = "gzip")]
            E::Decompress(_, ref io) if io.kind() == io::ErrorKind::InvalidInput => (
                Cause::unreadable("gzip, as it says", Some(into_source(error))),
                delivery,
            ),
            error => {
                let (phase, delivery) = match phase_before_sending(&error) {
                    Some(phase) if sending => (phase, Delivery::NotSent),
                    // Bytes that make no sense, and are not HTTP's, are the handshake's.
                    None if sending && is_invalid_data(&error) => (Phase::Tls, delivery),
                    None if sending && delivery == Delivery::NotSent => (Phase::Send, delivery),
                    _ => (phase, delivery),
                };
                (
                    Cause::Transport {
                        phase,
                        source: into_source(error),
                    },
                    delivery,
                )
            }
        };
        Fault { cause, delivery }
    }

    /// The same for an exchange through a SOCKS proxy, whose refusals come as errors of the connection.
    pub(super) fn from_socks_error(error: ureq::Error, delivery: Delivery) -> Fault {
        let message = match &error {
            // Those of the system have a number.
            ureq::Error::Io(io) if io.raw_os_error().is_none() => io.to_string(),
            _ => return Fault::from_error(error, delivery, Phase::Head),
        };
        let contains_any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        let cause = if contains_any(&SOCKS_REFUSALS) {
            Cause::Unusable {
                what: PROXY_REFUSAL.into(),
                source: into_source(error),
            }
        } else if contains_any(&SOCKS_FAILURES) {
            Cause::Transport {
                phase: Phase::Connect,
                source: into_source(error),
            }
        } else {
            return Fault::from_error(error, delivery, Phase::Head);
        };
        Fault {
            cause,
            delivery: Delivery::NotSent,
        }
    }
}

/// What ureq says when a SOCKS proxy refuses whoever asks; no other try helps.
const SOCKS_REFUSALS: [&str; 6] = [
    "auth method",
    "authentication failed",
    "invalid username",
    "invalid password",
    "not allowed by ruleset",
    "user-ids",
];

/// What it says when such a proxy cannot connect, or is none.
const SOCKS_FAILURES: [&str; 13] = [
    "general SOCKS server failure",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "TTL expired",
    "command not supported",
    "address kind not supported",
    "address type",
    "request rejected or failed",
    "identd",
    "invalid response",
    "invalid reserved byte",
    "failed to fill whole buffer",
];

const PROXY_REFUSAL: &str = "the proxy refuses to connect; check its URL, user name and password";

/// The phase of an error that can only come before anything is sent.
fn phase_before_sending(error: &ureq::Error) -> Option<Phase> {
    use ureq::Error as E;
    match error {
        E::HostNotFound => Some(Phase::Resolve),
        E::ConnectionFailed | E::ConnectProxyFailed(_) => Some(Phase::Connect),
        E::Tls(_) | E::TlsRequired | E::Rustls(_) => Some(Phase::Tls),
        #[cfg(feature = "native-tls")]
        E::NativeTls(_) | E::Der(_) => Some(Phase::Tls),
        E::Io(io) => match io.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Some(Phase::Connect),
            // The standard library has no kind for this.
            _ if io.to_string().contains("failed to lookup address") => Some(Phase::Resolve),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a proxy's answer blames the request rather than the proxy or the moment: a 4xx status.
fn is_refusal(answer: &str) -> bool {
    answer
        .split(|c: char| !c.is_ascii_digit())
        .any(|word| word.len() == 3 && word.starts_with('4') && !matches!(word, "408" | "429"))
}

fn is_invalid_data(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(io) if io.kind() == io::ErrorKind::InvalidData)
}

fn into_source(error: ureq::Error) -> BoxError {
    match error {
        ureq::Error::Io(io) => Box::new(io),
        other => Box::new(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::Uri;

    #[test]
    fn a_request_that_cannot_be_written_was_not_sent_and_is_not_tried_again() {
        let invalid = "http://a<b".parse::<Uri>().expect_err("no URI");
        let invalid = ureq::Error::Http(ureq::http::Error::from(invalid));
        for error in [invalid, ureq::Error::BadUri("no scheme".to_owned())] {
            let fault = Fault::from_error(error, Delivery::Unknown, Phase::Head);
            assert_eq!(fault.delivery, Delivery::NotSent);
            assert!(matches!(fault.cause, Cause::Unusable { .. }), "{fault:?}");
        }
    }

    #[test]
    fn a_certificate_that_the_server_misses_is_not_the_servers() {
        let cause_of = |text: &str| {
            let error = ureq::Error::from(io::Error::other(text));
            Fault::from_error(error, Delivery::Unknown, Phase::Head).cause
        };
        let refused = cause_of("invalid peer certificate: UnknownIssuer");
        assert!(matches!(refused, Cause::Certificate { .. }));
        let missing = cause_of("tlsv13 alert certificate required");
        assert!(!matches!(missing, Cause::Certificate { .. }));
    }
}
