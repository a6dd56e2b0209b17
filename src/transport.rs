//! One HTTP exchange over ureq: the only file that names it.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ureq::http::uri::{Authority, PathAndQuery};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, BodyReader, Proxy, SendBody, Timeout};

use crate::error::{BoxError, Cause, Error, Phase, Result, TimeLimit, clean};
use crate::types::Delivery;

/// The connections of a client and its clones.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    agent: Agent,
    patience: Patience,
    /// Host and port of the proxy, for texts.
    proxy: Option<String>,
    is_socks: bool,
}

/// What the connections are made with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wiring {
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
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    /// Between any two bytes.
    pub(crate) idle: Duration,
    /// Until an answer that comes in one piece begins, and again until it is there; replaces the
    /// idle timeout, because nothing is heard before.
    pub(crate) answer: Option<Duration>,
    /// For all of it.
    pub(crate) deadline: Option<Duration>,
}

impl Patience {
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
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: &'a Headers,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) patience: Patience,
}

/// An exchange that brought no whole answer.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) delivery: Delivery,
}

impl Transport {
    /// Prepares connections; `patience` is what most exchanges will be given.
    pub(crate) fn new(wiring: &Wiring, patience: Patience) -> Result<Transport> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(&wiring.user_agent)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .max_response_header_size(LONGEST_HEAD)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .tls_config(tls(wiring)?)
            .timeout_connect(bounded(patience.connect))
            .timeout_per_read(patience.between_reads())
            .timeout_per_write(bounded(patience.idle))
            .timeout_recv_response(patience.answer.and_then(bounded))
            .timeout_recv_body(patience.answer.and_then(bounded))
            .proxy(None);
        let proxy = proxy(wiring)?;
        let shown = |proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port());
        let through = proxy.as_ref().map(shown);
        let is_socks = proxy.as_ref().is_some_and(is_socks);
        if proxy.is_some() {
            config = config.proxy(proxy);
        }
        Ok(Transport {
            agent: config.build().into(),
            patience,
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
    pub(crate) fn send(&self, outgoing: &Outgoing<'_>) -> Result<Answer, Fault> {
        let rest = outgoing.body.unwrap_or_default();
        let mut handed = Handed {
            rest,
            empty: rest.is_empty(),
        };
        let result = match outgoing.body {
            Some(_) => self.exchange(outgoing, SendBody::from_reader(&mut handed)),
            None => self.exchange(outgoing, SendBody::none()),
        };
        let delivery = match handed.empty {
            true => Delivery::Unknown,
            false => Delivery::NotSent,
        };
        match result {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let body = body.into_with_config().limit(u64::MAX).reader();
                let body = AnswerBody { reader: Some(body) };
                Ok(Answer {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    body,
                })
            }
            Err(error) if self.is_socks => Err(fault_of_socks(error, delivery)),
            Err(error) => Err(fault(error, delivery, Phase::Head)),
        }
    }

    fn exchange(
        &self,
        outgoing: &Outgoing<'_>,
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
        let patience = outgoing.patience;
        if patience == self.patience {
            return self.agent.run(request);
        }
        // A deadline is ureq's global timeout, which costs a thread for the name resolution; the
        // other limits hold for their phase and cost nothing.
        let request = self
            .agent
            .configure_request(request)
            .timeout_connect(bounded(patience.connect))
            .timeout_per_read(patience.between_reads())
            .timeout_per_write(bounded(patience.idle))
            .timeout_recv_response(patience.answer.and_then(bounded))
            .timeout_recv_body(patience.answer.and_then(bounded))
            .timeout_global(patience.deadline.and_then(bounded))
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

fn proxy(wiring: &Wiring) -> Result<Option<Proxy>> {
    let Some(Secret(url)) = &wiring.proxy else {
        return Ok(None);
    };
    let what = match &wiring.proxy_variable {
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

/// Whether an address has a port that there is, or none.
fn has_usable_port(authority: &Authority) -> bool {
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = address.strip_prefix(authority.host()).unwrap_or("");
    port.is_empty() || matches!(authority.port_u16(), Some(1..))
}

fn tls(wiring: &Wiring) -> Result<TlsConfig> {
    let roots = match &wiring.roots {
        Roots::Usual if wiring.native_tls => RootCerts::PlatformVerifier,
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
    let provider = if wiring.native_tls {
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
struct Handed<'a> {
    rest: &'a [u8],
    empty: bool,
}

impl Read for Handed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.rest.read(buffer)?;
        self.empty = self.rest.is_empty();
        Ok(n)
    }
}

/// The head of an answer, and its body yet to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

impl Answer {
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
    pub(crate) fn take_body(&mut self) -> AnswerBody {
        std::mem::take(&mut self.body)
    }

    /// A header by its lower-case name; one that is no text counts as missing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The body of an answer; empty once it was taken.
#[derive(Default)]
pub(crate) struct AnswerBody {
    reader: Option<BodyReader<'static>>,
}

impl AnswerBody {
    /// Reads some bytes, 0 at the end. Blocks for as long as the exchange's patience lasts.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        loop {
            match reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(fault(
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

/// Says what ureq's error means for the request. `delivery` is what is known from the body:
/// without one, only errors that come before anything is sent are certain.
fn fault(error: ureq::Error, delivery: Delivery, phase: Phase) -> Fault {
    use ureq::Error as E;
    let sending = phase == Phase::Head;
    let text = error.to_string();
    // An alert is what the other side says, of a certificate of ours.
    if sending && text.contains("certificate") && !text.contains("alert") {
        let cause = Cause::Certificate {
            source: inner(error),
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
            let what = REFUSAL.into();
            let source = inner(error);
            (Cause::Unusable { what, source }, Delivery::NotSent)
        }
        E::Http(_) | E::BadUri(_) => {
            let what = "it is no valid HTTP request".into();
            let source = inner(error);
            (Cause::Unusable { what, source }, Delivery::NotSent)
        }
        E::Protocol(_) | E::LargeResponseHeader(..) => {
            (Cause::unreadable("HTTP", Some(inner(error))), delivery)
        }
        // What is wrong with the connection has other kinds.
        #[cfg(feature = "gzip")]
        E::Decompress(_, ref io) if io.kind() == io::ErrorKind::InvalidInput => (
            Cause::unreadable("gzip, as it says", Some(inner(error))),
            delivery,
        ),
        error => {
            let (phase, delivery) = match reached(&error) {
                Some(phase) if sending => (phase, Delivery::NotSent),
                // Bytes that make no sense, and are not HTTP's, are the handshake's.
                None if sending && is_garbage(&error) => (Phase::Tls, delivery),
                None if sending && delivery == Delivery::NotSent => (Phase::Send, delivery),
                _ => (phase, delivery),
            };
            (
                Cause::Transport {
                    phase,
                    source: inner(error),
                },
                delivery,
            )
        }
    };
    Fault { cause, delivery }
}

/// The same for an exchange through a SOCKS proxy, whose refusals come as errors of the connection.
fn fault_of_socks(error: ureq::Error, delivery: Delivery) -> Fault {
    let said = match &error {
        // Those of the system have a number.
        ureq::Error::Io(io) if io.raw_os_error().is_none() => io.to_string(),
        _ => return fault(error, delivery, Phase::Head),
    };
    let is = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let cause = if is(&SOCKS_REFUSES) {
        Cause::Unusable {
            what: REFUSAL.into(),
            source: inner(error),
        }
    } else if is(&SOCKS_FAILS) {
        Cause::Transport {
            phase: Phase::Connect,
            source: inner(error),
        }
    } else {
        return fault(error, delivery, Phase::Head);
    };
    Fault {
        cause,
        delivery: Delivery::NotSent,
    }
}

fn is_socks(proxy: &Proxy) -> bool {
    use ureq::ProxyProtocol as P;
    !matches!(proxy.protocol(), P::Http | P::Https)
}

/// What ureq says when a SOCKS proxy refuses whoever asks; no other try helps.
const SOCKS_REFUSES: [&str; 6] = [
    "auth method",
    "authentication failed",
    "invalid username",
    "invalid password",
    "not allowed by ruleset",
    "user-ids",
];

/// What it says when such a proxy cannot connect, or is none.
const SOCKS_FAILS: [&str; 13] = [
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

const REFUSAL: &str = "the proxy refuses to connect; check its URL, user name and password";

/// The phase of an error that can only come before anything is sent.
fn reached(error: &ureq::Error) -> Option<Phase> {
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

fn is_garbage(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(io) if io.kind() == io::ErrorKind::InvalidData)
}

fn inner(error: ureq::Error) -> BoxError {
    match error {
        ureq::Error::Io(io) => Box::new(io),
        other => Box::new(other),
    }
}

/// Whether a path can stand in the address of a request.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && path.parse::<PathAndQuery>().is_ok()
}

/// Request headers, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(HeaderMap);

impl Headers {
    /// Sets a header in place of others of its name. A value is never printed.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = header(name, value)?;
        self.0.insert(name, value);
        Ok(())
    }

    /// Adds a value to a header that is a list, separated by a comma.
    pub(crate) fn append(&mut self, name: &str, value: &str) -> Result<()> {
        let joined = match self.0.get(name).and_then(|values| values.to_str().ok()) {
            Some(values) => format!("{values},{value}"),
            None => value.to_owned(),
        };
        self.set(name, &joined)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn is_empty_text(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|value| value.as_bytes().trim_ascii().is_empty())
    }

    /// What proves who is calling.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &str> {
        let values = ["x-api-key", "authorization"].into_iter();
        let values = values.filter_map(|name| self.0.get(name)?.to_str().ok());
        // Without the scheme.
        values.filter_map(|value| value.rsplit(' ').next())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Names and values, for tests.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.0
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let shown = clean(name, 60);
    let Ok(parsed) = HeaderName::try_from(name) else {
        return Err(Error::config(format!("{shown:?} is no valid header name")));
    };
    if RESERVED.contains(&parsed.as_str()) {
        return Err(Error::config(format!(
            "the header {shown} is the client's own"
        )));
    }
    let Ok(mut value) = HeaderValue::try_from(value) else {
        return Err(Error::config(format!(
            "the value of the header {shown} contains a line break or another control character"
        )));
    };
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Headers that frame the exchange, and would break it.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "transfer-encoding",
];

/// The address that paths are appended to.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl {
    text: String,
    host: String,
    secure: bool,
    loopback: bool,
}

impl BaseUrl {
    /// Parses `https://host`, `https://host:8443/a/prefix/` and the like.
    pub(crate) fn parse(text: &str) -> Result<BaseUrl> {
        // What stands before an @ or in a query may be a secret.
        let shown = match text.split('?').next() {
            Some(plain) if !text.contains('@') => format!(" {:?}", clean(plain, 100)),
            _ => String::new(),
        };
        let wrong = |what: &str| Err(Error::config(format!("the base URL{shown} {what}")));
        let Ok(uri) = text.parse::<Uri>() else {
            return wrong("is no valid URL");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("must begin with https://");
        };
        if authority.as_str().contains('@') {
            return Err(Error::config(
                "the base URL must not contain a user name or password",
            ));
        }
        if uri.query().is_some() {
            return wrong("must not have a query");
        }
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return wrong("must begin with https://"),
        };
        if authority.host().is_empty() || text.contains('#') {
            return wrong("is no valid URL");
        }
        if !has_usable_port(authority) {
            return wrong("has no valid port");
        }
        let loopback = is_loopback(authority.host());
        let host = authority.to_string();
        let text = text.trim_end_matches('/').to_owned();
        Ok(BaseUrl {
            text,
            host,
            secure,
            loopback,
        })
    }

    /// Whether what is sent there can be read on the way.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.secure && !self.loopback
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether the paths of the API, which begin with this, make it double.
    pub(crate) fn ends_with_version(&self) -> bool {
        self.text.ends_with("/v1")
    }

    pub(crate) fn join(&self, path: &str) -> String {
        [self.text.as_str(), path].concat()
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, and the port where there is one.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_keeps_its_prefix_and_loses_its_last_slash() {
        let url = BaseUrl::parse("https://gw.example:8443/claude/").expect("a URL");
        assert_eq!(
            url.join("/v1/messages"),
            "https://gw.example:8443/claude/v1/messages"
        );
    }

    #[test]
    fn only_loopback_goes_without_tls() {
        for (url, exposed) in [
            ("https://api.example", false),
            ("http://127.0.0.1:8080", false),
            ("http://127.9.9.9", false),
            ("http://[::1]:80", false),
            ("http://LocalHost", false),
            ("http://localhost.evil.example", true),
            ("http://10.0.0.1", true),
            ("http://127.0.0.1.nip.example", true),
        ] {
            assert_eq!(
                BaseUrl::parse(url).expect("a URL").is_exposed(),
                exposed,
                "{url}"
            );
        }
    }

    #[test]
    fn unusable_base_urls_are_refused() {
        for url in [
            "",
            "api.anthropic.com",
            "ftp://x",
            "https://",
            "https://a b",
            "https://u:p@x",
            "https://x?y=1",
            "https://x/#f",
            "/v1",
            "https:///v1",
            "http://127.0.0.1:99999",
            "https://x:",
            "https://x:0",
            "https://[::1]:abc",
        ] {
            assert!(BaseUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_written_was_not_sent_and_is_not_tried_again() {
        let invalid = "http://a<b".parse::<Uri>().expect_err("no URI");
        let invalid = ureq::Error::Http(ureq::http::Error::from(invalid));
        for error in [invalid, ureq::Error::BadUri("no scheme".to_owned())] {
            let fault = fault(error, Delivery::Unknown, Phase::Head);
            assert_eq!(fault.delivery, Delivery::NotSent);
            assert!(matches!(fault.cause, Cause::Unusable { .. }), "{fault:?}");
        }
    }

    #[test]
    fn a_certificate_that_the_server_misses_is_not_the_servers() {
        let said = |text: &str| {
            let error = ureq::Error::from(io::Error::other(text));
            fault(error, Delivery::Unknown, Phase::Head).cause
        };
        let refused = said("invalid peer certificate: UnknownIssuer");
        assert!(matches!(refused, Cause::Certificate { .. }));
        let missing = said("tlsv13 alert certificate required");
        assert!(!matches!(missing, Cause::Certificate { .. }));
    }

    #[test]
    fn the_operating_systems_tls_trusts_what_the_operating_system_does() {
        let roots = |native_tls, roots| {
            let wiring = Wiring {
                native_tls,
                roots,
                ..Wiring::default()
            };
            tls(&wiring).expect("roots").root_certs().clone()
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

    #[test]
    fn header_values_are_checked_and_never_shown() {
        let mut headers = Headers::default();
        headers.set("X-Api-Key", "sk-secret").expect("valid");
        headers.append("anthropic-beta", "a").expect("valid");
        headers.append("anthropic-beta", "b").expect("valid");
        assert_eq!(headers.0["anthropic-beta"], "a,b");
        assert!(!format!("{headers:?}").contains("sk-secret"));
        for (name, value) in [
            ("a b", "v"),
            ("", "v"),
            ("a", "v\n"),
            ("Host", "v"),
            ("a", "\0"),
        ] {
            assert!(headers.set(name, value).is_err(), "{name:?}: {value:?}");
        }
    }
}
