//! One HTTP exchange over ureq: the only folder that names it.

mod address;
pub(crate) mod drain;
mod fault;
mod headers;
pub(crate) mod rate_limits;

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue, Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, BodyReader, Proxy, SendBody};

use self::address::{has_usable_port, is_loopback};
use self::headers::Credentials;
use crate::error::{Error, Phase, Result};
use crate::types::Delivery;

pub(crate) use self::address::{BaseUrl, is_path};
pub(crate) use self::fault::Fault;
pub(crate) use self::headers::Headers;

/// The connections of a client and its clones.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    agent: Agent,
    timeouts: Timeouts,
    /// Host and port of the proxy, for texts.
    proxy: Option<String>,
    is_socks: bool,
}

/// What the connections are made with.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionSettings {
    pub(crate) user_agent: String,
    /// May contain a password.
    pub(crate) proxy: Option<Secret>,
    /// Where it was found, if code does not set it.
    pub(crate) proxy_variable: Option<String>,
    pub(crate) roots: Roots,
    pub(crate) native_tls: bool,
}

#[derive(Clone, Default)]
pub(crate) enum Roots {
    /// Mozilla's; with the operating system's TLS what that trusts.
    #[default]
    Usual,
    Pem(Vec<u8>),
    #[cfg_attr(
        not(feature = "platform-verifier"),
        expect(dead_code, reason = "set by a feature")
    )]
    Platform,
}

impl fmt::Debug for Roots {
    /// Without the file, which is long, and may have a private key in it as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Roots::Usual => "Usual",
            Roots::Pem(_) => "Pem",
            Roots::Platform => "Platform",
        })
    }
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How long one exchange may take over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// Between any two bytes.
    pub(crate) idle: Duration,
    /// Until an answer that comes in one piece begins, and again until it is there; replaces the
    /// idle timeout, because nothing is heard before.
    pub(crate) answer: Option<Duration>,
    /// For all of it.
    pub(crate) deadline: Option<Duration>,
}

impl Timeouts {
    /// The time limit of each read.
    fn between_reads(&self) -> Option<Duration> {
        match self.answer {
            Some(_) => None,
            None => bounded(self.idle),
        }
    }
}

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: &'a Headers,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) timeouts: Timeouts,
}

impl Transport {
    /// Prepares connections; `timeouts` is what most exchanges will be given.
    pub(crate) fn new(settings: &ConnectionSettings, timeouts: Timeouts) -> Result<Transport> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(&settings.user_agent)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .max_response_header_size(LONGEST_HEAD)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .tls_config(tls(settings)?)
            .timeout_connect(bounded(timeouts.connect))
            .timeout_per_read(timeouts.between_reads())
            .timeout_per_write(bounded(timeouts.idle))
            .timeout_recv_response(timeouts.answer.and_then(bounded))
            .timeout_recv_body(timeouts.answer.and_then(bounded))
            .proxy(None);
        let proxy = proxy(settings)?;
        let shown = |proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port());
        let through = proxy.as_ref().map(shown);
        let is_socks = proxy.as_ref().is_some_and(fault::is_socks);
        if proxy.is_some() {
            config = config.proxy(proxy);
        }
        Ok(Transport {
            agent: config.build().into(),
            timeouts,
            proxy: through,
            is_socks,
        })
    }

    /// The proxy that connections go through.
    pub(crate) fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Whether connections leave this machine whatever their host, because a proxy is elsewhere.
    pub(crate) fn leads_away(&self) -> bool {
        let host = |proxy: &str| proxy.rsplit_once(':').map(|(host, _)| is_loopback(host));
        self.proxy().and_then(host) == Some(false)
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) fn send(&self, request: &OutgoingRequest<'_>) -> Result<Response, Fault> {
        let rest = request.body.unwrap_or_default();
        let mut handed = TrackedBody {
            rest,
            empty: rest.is_empty(),
        };
        let result = match request.body {
            Some(_) => self.exchange(request, SendBody::from_reader(&mut handed)),
            None => self.exchange(request, SendBody::none()),
        };
        let delivery = match handed.empty {
            true => Delivery::Unknown,
            false => Delivery::NotSent,
        };
        match result {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let body = body.into_with_config().limit(u64::MAX).reader();
                let credentials = request.headers.credentials();
                let body = ResponseBody {
                    reader: Some(body),
                    credentials: credentials.clone(),
                };
                Ok(Response {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    body,
                    credentials,
                })
            }
            Err(error) if self.is_socks => Err(Fault::of_socks(error, delivery)),
            Err(error) => Err(Fault::of(error, delivery, Phase::Head)),
        }
    }

    fn exchange(
        &self,
        outgoing: &OutgoingRequest<'_>,
        body: SendBody<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let length = outgoing.body.map(<[u8]>::len);
        let mut request = Request::new(body);
        *request.method_mut() = match outgoing.method {
            "GET" => Method::GET,
            "DELETE" => Method::DELETE,
            _ => Method::POST,
        };
        *request.uri_mut() = outgoing.url.parse().map_err(ureq::http::Error::from)?;
        let mut headers = outgoing.headers.0.clone();
        match length {
            Some(length) => headers.insert("content-length", HeaderValue::from(length)),
            None => headers.remove("content-type"),
        };
        *request.headers_mut() = headers;
        let timeouts = outgoing.timeouts;
        if timeouts == self.timeouts {
            return self.agent.run(request);
        }
        // A deadline is ureq's global timeout, which costs a thread for the name resolution; the
        // other limits hold for their phase and cost nothing.
        let request = self
            .agent
            .configure_request(request)
            .timeout_connect(bounded(timeouts.connect))
            .timeout_per_read(timeouts.between_reads())
            .timeout_per_write(bounded(timeouts.idle))
            .timeout_recv_response(timeouts.answer.and_then(bounded))
            .timeout_recv_body(timeouts.answer.and_then(bounded))
            .timeout_global(timeouts.deadline.and_then(bounded))
            .build();
        self.agent.run(request)
    }

    /// Cuts every connection; requests in other threads fail at once, and so do later ones.
    pub(crate) fn shutdown(&self) {
        self.agent.clone().shutdown();
    }
}

/// A time limit as ureq can add it to the time; one of over a year is none.
fn bounded(limit: Duration) -> Option<Duration> {
    (limit < Duration::from_secs(365 * 86_400)).then_some(limit)
}

/// Idle connections kept: as many as threads are likely to share a client. Fewer would mean a TLS
/// handshake for most requests of the threads beyond.
const IDLE_CONNECTIONS: usize = 256;

/// The buffers of a connection, one for each direction: half of what ureq takes, since there can be
/// hundreds of connections.
const BUFFER: usize = 64 << 10;

/// The most bytes of an answer's head, which has some two thousand. Too long is what does not fit into
/// the buffer either way: this is less, so that it is known for that.
const LONGEST_HEAD: usize = BUFFER / 2;

/// How long an idle connection is kept. It is probed before it is used again.
const IDLE_AGE: Duration = Duration::from_secs(30);

fn proxy(settings: &ConnectionSettings) -> Result<Option<Proxy>> {
    let Some(Secret(url)) = &settings.proxy else {
        return Ok(None);
    };
    let what = match &settings.proxy_variable {
        Some(name) => format!("the proxy's URL in {name} is invalid"),
        None => "the proxy's URL is invalid".to_owned(),
    };
    let proxy = match Proxy::new(url) {
        Ok(proxy) => proxy,
        Err(error) => return Err(Error::config_from(what, error.into())),
    };
    let uri = proxy.uri();
    let ends = matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
    if !ends || !uri.authority().is_some_and(has_usable_port) {
        // Otherwise what stands before that character of a password would be the host.
        return Err(Error::config(format!(
            "{what}: nothing may follow its host and port; in a user name or a password # / ? and \
             the like must be percent-encoded"
        )));
    }
    Ok(Some(proxy))
}

fn tls(settings: &ConnectionSettings) -> Result<TlsConfig> {
    let roots = match &settings.roots {
        Roots::Usual if settings.native_tls => RootCerts::PlatformVerifier,
        Roots::Usual => RootCerts::WebPki,
        Roots::Platform => RootCerts::PlatformVerifier,
        Roots::Pem(pem) => {
            let mut certificates = Vec::new();
            for item in ureq::tls::parse_pem(pem) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(error) => {
                        return Err(Error::config_from(
                            "the root certificates are no valid PEM",
                            error.into(),
                        ));
                    }
                }
            }
            if certificates.is_empty() {
                return Err(Error::config(
                    "there is no PEM certificate in the root certificates",
                ));
            }
            RootCerts::from(certificates)
        }
    };
    let provider = if settings.native_tls {
        TlsProvider::NativeTls
    } else {
        TlsProvider::Rustls
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .provider(provider)
        .build())
}

/// A body that knows whether it was read to its end: before that, no server can have acted on it.
/// One without bytes is not read at all.
struct TrackedBody<'a> {
    rest: &'a [u8],
    empty: bool,
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.rest.read(buffer)?;
        self.empty = self.rest.is_empty();
        Ok(n)
    }
}

/// The head of an answer, and its body yet to be read.
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: ResponseBody,
    credentials: Credentials,
}

impl Response {
    /// Every header that is text, names in lower case.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Whether the head says where the body ends; otherwise a connection that broke looks like one
    /// that was closed in order.
    pub(crate) fn is_framed(&self) -> bool {
        self.headers.contains_key("content-length")
            || self.headers.contains_key("transfer-encoding")
    }

    /// Takes the body out, to be read after the answer is gone.
    pub(crate) fn take_body(&mut self) -> ResponseBody {
        std::mem::take(&mut self.body)
    }

    /// A header by its lower-case name; one that is no text counts as missing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The same for one that will be shown; one that repeats the request's credentials is missing.
    pub(crate) fn shown_header(&self, name: &str) -> Option<&str> {
        self.header(name)
            .filter(|value| !self.credentials.are_in(value))
    }

    /// Takes the request's credentials out of a text that will be shown.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }
}

/// The body of an answer; empty once it was taken.
#[derive(Default)]
pub(crate) struct ResponseBody {
    reader: Option<BodyReader<'static>>,
    credentials: Credentials,
}

impl ResponseBody {
    /// Takes the request's credentials out of a text that will be shown.
    pub(crate) fn hide_credentials(&self, text: &mut [u8]) {
        self.credentials.hide(text);
    }

    /// Reads some bytes, 0 at the end. Blocks for as long as the exchange's timeouts lasts.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        loop {
            match reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Fault::of(
                        ureq::Error::from(error),
                        Delivery::Unknown,
                        Phase::Body,
                    ));
                }
            }
        }
    }

    /// Reads what is left onto `bytes`, but not beyond `limit` bytes in all; says whether that was
    /// all.
    pub(crate) fn read_up_to(&mut self, limit: usize, bytes: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut filled = bytes.len();
        let all = loop {
            if filled == bytes.len() {
                let room = (limit - filled).saturating_add(1);
                bytes.resize(filled + room.min(filled.clamp(4096, 64 << 10)), 0);
            }
            match self.read(&mut bytes[filled..]) {
                Ok(0) => break Ok(true),
                Ok(read) => filled += read,
                Err(fault) => break Err(fault),
            }
            if filled > limit {
                filled = limit;
                break Ok(false);
            }
        };
        bytes.truncate(filled);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_systems_tls_trusts_what_the_operating_system_does() {
        let roots = |native_tls, roots| {
            let settings = ConnectionSettings {
                native_tls,
                roots,
                ..ConnectionSettings::default()
            };
            tls(&settings).expect("roots").root_certs().clone()
        };
        let pem = || {
            let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            Roots::Pem(pem.into())
        };
        assert!(matches!(roots(false, Roots::Usual), RootCerts::WebPki));
        let own = roots(true, Roots::Usual);
        assert!(matches!(own, RootCerts::PlatformVerifier));
        for native_tls in [false, true] {
            assert!(matches!(roots(native_tls, pem()), RootCerts::Specific(_)));
        }
    }
}
