//! Converts ureq's errors: what failed, and whether the request may have reached the server.

use std::io;

use ureq::Timeout;

use crate::error::{BoxError, Cause, Phase, TimeLimit};
use crate::types::Delivery;

/// An exchange that brought no whole response.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
}

impl Fault {
    /// Converts an error of ureq's that came in this phase. `delivery` is what is known from the
    /// request body: a request without one counts as sent, unless the error can only come before
    /// anything is sent.
    pub(super) fn from_error(error: ureq::Error, delivery: Delivery, phase: Phase) -> Fault {
        use ureq::Error as E;
        if phase == Phase::Head && is_certificate_refused(&error) {
            let source = into_source(error);
            return Fault::not_sent(Cause::Certificate { source });
        }
        match error {
            E::Timeout(timeout) => Fault::from_timeout(timeout, delivery),
            E::ConnectProxyFailed(ref response) if is_refusal(response) => {
                Fault::unusable(PROXY_REFUSAL, error)
            }
            E::Http(_) | E::BadUri(_) => Fault::unusable("the request is not valid HTTP", error),
            E::Protocol(_) | E::LargeResponseHeader(..) => Fault {
                cause: Cause::unreadable("HTTP", Some(into_source(error))),
                delivery,
            },
            // Errors of the connection have other kinds.
            #[cfg(feature = "gzip")]
            E::Decompress(_, ref io) if io.kind() == io::ErrorKind::InvalidInput => Fault {
                cause: Cause::unreadable("gzip, as it says", Some(into_source(error))),
                delivery,
            },
            error => Fault::from_connection_error(error, delivery, phase),
        }
    }

    /// Converts an error of an exchange through a SOCKS proxy. ureq reports what such a proxy says
    /// as an error of the connection, which only its text tells apart.
    pub(super) fn from_socks_error(error: ureq::Error, delivery: Delivery) -> Fault {
        let message = match &error {
            // The operating system's own errors have a number.
            ureq::Error::Io(io) if io.raw_os_error().is_none() => io.to_string(),
            _ => return Fault::from_error(error, delivery, Phase::Head),
        };
        let contains_any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        if contains_any(&SOCKS_REFUSALS) {
            Fault::unusable(PROXY_REFUSAL, error)
        } else if contains_any(&SOCKS_FAILURES) {
            Fault::not_sent(Cause::Transport {
                phase: Phase::Connect,
                source: into_source(error),
            })
        } else {
            Fault::from_error(error, delivery, Phase::Head)
        }
    }

    fn from_timeout(timeout: Timeout, delivery: Delivery) -> Fault {
        let (limit, delivery) = match timeout {
            Timeout::Resolve | Timeout::Connect => (TimeLimit::Connect, Delivery::NotSent),
            Timeout::PerRead | Timeout::PerWrite => (TimeLimit::Idle, delivery),
            Timeout::RecvResponse | Timeout::RecvBody => (TimeLimit::Response, delivery),
            _ => (TimeLimit::Deadline, delivery),
        };
        Fault {
            cause: Cause::TimeLimit { limit },
            delivery,
        }
    }

    fn from_connection_error(error: ureq::Error, delivery: Delivery, phase: Phase) -> Fault {
        let is_sending = phase == Phase::Head;
        let (phase, delivery) = match phase_before_sending(&error) {
            Some(phase) if is_sending => (phase, Delivery::NotSent),
            // ureq reports invalid HTTP as an error of the protocol: this is the TLS handshake.
            None if is_sending && is_invalid_data(&error) => (Phase::Tls, delivery),
            None if is_sending && delivery == Delivery::NotSent => (Phase::Send, delivery),
            _ => (phase, delivery),
        };
        let source = into_source(error);
        Fault {
            cause: Cause::Transport { phase, source },
            delivery,
        }
    }

    /// The request or a setting is wrong: a retry does not help.
    fn unusable(what: &'static str, error: ureq::Error) -> Fault {
        Fault::not_sent(Cause::Unusable {
            what: what.into(),
            source: into_source(error),
        })
    }

    fn not_sent(cause: Cause) -> Fault {
        Fault {
            cause,
            delivery: Delivery::NotSent,
        }
    }
}

/// Whether the client refused the server's certificate. A TLS alert is the opposite: the server
/// refused a certificate of the client, or misses one.
fn is_certificate_refused(error: &ureq::Error) -> bool {
    let text = error.to_string();
    text.contains("certificate") && !text.contains("alert")
}

/// The error text for a proxy that refuses the client.
const PROXY_REFUSAL: &str = "the proxy refuses to connect (check its URL, user name and password)";

/// Parts of ureq's texts for a SOCKS proxy that refuses the client: a retry does not help.
const SOCKS_REFUSALS: [&str; 6] = [
    "auth method",
    "authentication failed",
    "invalid username",
    "invalid password",
    "not allowed by ruleset",
    "user-ids",
];

/// Parts of ureq's texts for a SOCKS proxy that cannot connect, or for a server that does not speak
/// SOCKS.
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

/// Returns the phase of an error that can only come before anything is sent.
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
            // The standard library has no kind for a host name that does not resolve.
            _ if io.to_string().contains("failed to lookup address") => Some(Phase::Resolve),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a proxy's response to `CONNECT` has a 4xx status other than 408 and 429: the proxy rejects
/// the client, and a retry does not help.
fn is_refusal(response: &str) -> bool {
    response
        .split(|c: char| !c.is_ascii_digit())
        .any(|word| word.len() == 3 && word.starts_with('4') && !matches!(word, "408" | "429"))
}

fn is_invalid_data(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(io) if io.kind() == io::ErrorKind::InvalidData)
}

/// Unwraps an error of the operating system.
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
    fn invalid_request_counts_as_not_sent() {
        let invalid = "http://a<b".parse::<Uri>().expect_err("no URI");
        let invalid = ureq::Error::Http(ureq::http::Error::from(invalid));
        for error in [invalid, ureq::Error::BadUri("no scheme".to_owned())] {
            let fault = Fault::from_error(error, Delivery::Unknown, Phase::Head);
            assert_eq!(fault.delivery, Delivery::NotSent);
            assert!(matches!(fault.cause, Cause::Unusable { .. }), "{fault:?}");
        }
    }

    #[test]
    fn missing_client_certificate_is_no_refused_server() {
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
