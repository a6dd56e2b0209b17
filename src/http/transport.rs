//! Sends requests over the connections of a client.

use std::time::Duration;

use ureq::http::{HeaderValue, Method, Request};
use ureq::{Agent, Proxy, SendBody};

use super::address::is_loopback;
use super::fault::Fault;
use super::proxy::{is_socks, parse_proxy};
use super::request::{OutgoingRequest, TrackedBody};
use super::response::{Response, ResponseBody};
use super::settings::ConnectionSettings;
use super::timeouts::{Timeouts, ureq_timeout};
use super::tls::tls_config;
use crate::error::{Phase, Result};
use crate::types::Delivery;

/// The connections of a client and its clones.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    agent: Agent,
    timeouts: Timeouts,
    /// Host and port of the proxy, for texts.
    proxy: Option<String>,
    is_socks_proxy: bool,
}

impl Transport {
    /// Prepares connections; `timeouts` is what most exchanges will be given.
    pub(crate) fn new(settings: &ConnectionSettings, timeouts: Timeouts) -> Result<Transport> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(&settings.user_agent)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .max_idle_age(MAX_IDLE_AGE)
            .max_response_header_size(MAX_RESPONSE_HEADER)
            .input_buffer_size(BUFFER_SIZE)
            .output_buffer_size(BUFFER_SIZE)
            .tls_config(tls_config(settings)?)
            .timeout_connect(ureq_timeout(timeouts.connect))
            .timeout_per_read(timeouts.per_read())
            .timeout_per_write(ureq_timeout(timeouts.idle))
            .timeout_recv_response(timeouts.answer.and_then(ureq_timeout))
            .timeout_recv_body(timeouts.answer.and_then(ureq_timeout))
            .proxy(None);
        let proxy = parse_proxy(settings)?;
        let shown = |proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port());
        let proxy_address = proxy.as_ref().map(shown);
        let is_socks_proxy = proxy.as_ref().is_some_and(is_socks);
        if proxy.is_some() {
            config = config.proxy(proxy);
        }
        Ok(Transport {
            agent: config.build().into(),
            timeouts,
            proxy: proxy_address,
            is_socks_proxy,
        })
    }

    /// The proxy that connections go proxy_address.
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
        let remaining = request.body.unwrap_or_default();
        let mut tracked = TrackedBody {
            remaining,
            is_read_to_end: remaining.is_empty(),
        };
        let result = match request.body {
            Some(_) => self.run(request, SendBody::from_reader(&mut tracked)),
            None => self.run(request, SendBody::none()),
        };
        let delivery = match tracked.is_read_to_end {
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
            Err(error) if self.is_socks_proxy => Err(Fault::from_socks_error(error, delivery)),
            Err(error) => Err(Fault::from_error(error, delivery, Phase::Head)),
        }
    }

    fn run(
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
            .timeout_connect(ureq_timeout(timeouts.connect))
            .timeout_per_read(timeouts.per_read())
            .timeout_per_write(ureq_timeout(timeouts.idle))
            .timeout_recv_response(timeouts.answer.and_then(ureq_timeout))
            .timeout_recv_body(timeouts.answer.and_then(ureq_timeout))
            .timeout_global(timeouts.deadline.and_then(ureq_timeout))
            .build();
        self.agent.run(request)
    }

    /// Cuts every connection; requests in other threads fail at once, and so do later ones.
    pub(crate) fn shutdown(&self) {
        self.agent.clone().shutdown();
    }
}

/// Idle connections kept: as many as threads are likely to share a client. Fewer would mean a TLS
/// handshake for most requests of the threads beyond.
const MAX_IDLE_CONNECTIONS: usize = 256;

/// The buffers of a connection, one for each direction: half of what ureq takes, since there can be
/// hundreds of connections.
const BUFFER_SIZE: usize = 64 << 10;

/// The most bytes of an answer's head, which has some two thousand. Too long is what does not fit into
/// the buffer either way: this is less, so that it is known for that.
const MAX_RESPONSE_HEADER: usize = BUFFER_SIZE / 2;

/// How long an idle connection is kept. It is probed before it is used again.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
