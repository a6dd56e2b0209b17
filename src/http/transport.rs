//! Sends requests over the connections of a client.

use std::time::Duration;

use ureq::http::Request;
use ureq::{Agent, Body, Proxy, SendBody};

use super::address::is_loopback;
use super::fault::Fault;
use super::proxy::{is_socks, parse_proxy};
use super::request::{OutgoingRequest, TrackedBody};
use super::response::Response;
use super::settings::ConnectionSettings;
use super::timeouts::{Timeouts, ureq_timeout};
use super::tls::tls_config;
use crate::error::{Phase, Result};
use crate::types::Delivery;

/// The connections of a client, shared with its clones.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    agent: Agent,
    /// The timeouts that the agent has built in.
    timeouts: Timeouts,
    /// The host and port of the proxy.
    proxy: Option<String>,
    is_socks_proxy: bool,
}

impl Transport {
    /// Checks the settings and prepares connections, without connecting. A request whose timeouts
    /// equal `timeouts` is sent without a configuration of its own; most should be.
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
            .timeout_recv_response(timeouts.response.and_then(ureq_timeout))
            .timeout_recv_body(timeouts.response.and_then(ureq_timeout))
            .proxy(None);
        let proxy = parse_proxy(settings)?;
        let address = |proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port());
        let proxy_address = proxy.as_ref().map(address);
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

    /// Returns the host and port of the proxy that connections go through.
    pub(crate) fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Whether there is a proxy on another machine, so that even connections to this machine leave
    /// it.
    pub(crate) fn has_remote_proxy(&self) -> bool {
        let host = |proxy: &str| proxy.rsplit_once(':').map(|(host, _)| is_loopback(host));
        self.proxy().and_then(host) == Some(false)
    }

    /// Sends a request and waits for the status and headers of the response. Blocks for as long as
    /// the timeouts of the request allow.
    pub(crate) fn send(&self, request: &OutgoingRequest<'_>) -> Result<Response, Fault> {
        let mut body = TrackedBody::new(request.body.unwrap_or_default());
        let result = match request.body {
            Some(_) => self.send_body(request, SendBody::from_reader(&mut body)),
            None => self.send_body(request, SendBody::none()),
        };
        let delivery = match body.is_read_to_end() {
            true => Delivery::Unknown,
            false => Delivery::NotSent,
        };
        match result {
            Ok(response) => Ok(Response::new(response, request.headers.credentials())),
            Err(error) if self.is_socks_proxy => Err(Fault::from_socks_error(error, delivery)),
            Err(error) => Err(Fault::from_error(error, delivery, Phase::Head)),
        }
    }

    fn send_body(
        &self,
        outgoing: &OutgoingRequest<'_>,
        body: SendBody<'_>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.http_method();
        *request.uri_mut() = outgoing.url.parse().map_err(ureq::http::Error::from)?;
        *request.headers_mut() = outgoing.http_headers();
        let timeouts = outgoing.timeouts;
        if timeouts == self.timeouts {
            return self.agent.run(request);
        }
        // The deadline is ureq's global timeout, with which ureq resolves host names in a thread of
        // its own. The other timeouts are checked in the phase that they limit, and cost nothing.
        let request = self
            .agent
            .configure_request(request)
            .timeout_connect(ureq_timeout(timeouts.connect))
            .timeout_per_read(timeouts.per_read())
            .timeout_per_write(ureq_timeout(timeouts.idle))
            .timeout_recv_response(timeouts.response.and_then(ureq_timeout))
            .timeout_recv_body(timeouts.response.and_then(ureq_timeout))
            .timeout_global(timeouts.deadline.and_then(ureq_timeout))
            .build();
        self.agent.run(request)
    }

    /// Closes every connection: requests in other threads fail at once, and all later ones fail too.
    pub(crate) fn shutdown(&self) {
        self.agent.clone().shutdown();
    }
}

/// The number of idle connections kept: as many as threads are likely to share a client. With fewer,
/// most requests of the threads beyond the number would need a TLS handshake.
const MAX_IDLE_CONNECTIONS: usize = 256;

/// The size of each of the two buffers of a connection, in bytes: half of ureq's default, since a
/// client can have hundreds of connections.
const BUFFER_SIZE: usize = 64 << 10;

/// The most bytes of status line and headers in a response; the API's have about two thousand. Below
/// [`BUFFER_SIZE`], so that ureq reports a longer header as too long instead of running out of
/// buffer.
const MAX_RESPONSE_HEADER: usize = BUFFER_SIZE / 2;

/// How long an idle connection is kept. ureq probes a connection before using it again.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
