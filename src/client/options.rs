//! Settings in which one copy of a client differs from the others.

use std::time::Duration;

use super::builder::CREDENTIALS;
#[cfg(doc)]
use super::{Client, ClientBuilder};
use crate::budget::InputEstimate;
use crate::call::Settings;
use crate::error::Result;
use crate::retry::RetryPolicy;
use crate::transport::{Headers, Secret};

/// Settings in which a copy of a client differs; see [`Client::with`]. What is not set stays.
///
/// ```
/// use anthropic_blocking::{Client, Options, RetryPolicy};
/// use std::time::Duration;
///
/// # fn hurried(client: &Client) -> anthropic_blocking::Result<Client> {
/// let options = Options::new()
///     .deadline(Duration::from_secs(20))
///     .retry(RetryPolicy::new().max_attempts(2))
///     .header("x-team", "search")?;
/// Ok(client.with(options))
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Options {
    connect_timeout: Option<Duration>,
    stream_underneath: Option<bool>,
    idle_timeout: Option<Duration>,
    timeout: Option<Duration>,
    deadline: Option<Duration>,
    retry: Option<RetryPolicy>,
    input_estimate: Option<InputEstimate>,
    headers: Vec<(String, Secret)>,
    betas: Vec<String>,
}

impl Options {
    /// No difference yet.
    pub fn new() -> Options {
        Options::default()
    }

    /// Sets how long a connection may take to be set up; see [`ClientBuilder::connect_timeout`].
    /// Zero counts as a millisecond.
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets whether `create` streams underneath; see [`ClientBuilder::stream_underneath`].
    pub fn stream_underneath(mut self, stream: bool) -> Options {
        self.stream_underneath = Some(stream);
        self
    }

    /// Sets how long the server may be silent; see [`ClientBuilder::idle_timeout`]. Zero counts as
    /// a millisecond.
    pub fn idle_timeout(mut self, timeout: Duration) -> Options {
        self.idle_timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets how long one attempt may wait for an answer that comes in one piece; see
    /// [`ClientBuilder::timeout`]. Zero counts as a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Options {
        self.timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets how long a call may take in all; see [`ClientBuilder::deadline`]. [`Duration::MAX`]
    /// lifts it.
    pub fn deadline(mut self, deadline: Duration) -> Options {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how often and how long calls are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Options {
        self.retry = Some(policy);
        self
    }

    /// Sets how the input of a request is estimated before it is sent.
    pub fn input_estimate(mut self, estimate: InputEstimate) -> Options {
        self.input_estimate = Some(estimate);
        self
    }

    /// Sets a header in place of the client's.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) when the name or the value cannot be sent.
    pub fn header(mut self, name: &str, value: &str) -> Result<Options> {
        Headers::default().set(name, value)?;
        self.headers
            .push((name.to_owned(), Secret(value.to_owned())));
        Ok(self)
    }

    /// Adds a value to the `anthropic-beta` header.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) when the value cannot be sent.
    pub fn beta(mut self, beta: &str) -> Result<Options> {
        Headers::default().set("anthropic-beta", beta)?;
        self.betas.push(beta.to_owned());
        Ok(self)
    }

    pub(super) fn apply(self, settings: &mut Settings) {
        settings.connect_timeout = self.connect_timeout.unwrap_or(settings.connect_timeout);
        settings.stream_underneath = self.stream_underneath.unwrap_or(settings.stream_underneath);
        settings.idle_timeout = self.idle_timeout.unwrap_or(settings.idle_timeout);
        settings.timeout = self.timeout.or(settings.timeout);
        settings.deadline = self.deadline.or(settings.deadline);
        settings.retry = self.retry.unwrap_or(settings.retry);
        settings.input_estimate = self.input_estimate.unwrap_or(settings.input_estimate);
        for (name, value) in &self.headers {
            if is_credential(name) {
                CREDENTIALS
                    .iter()
                    .for_each(|name| settings.headers.remove(name));
            }
            // Both were checked by the setters.
            let _ = settings.headers.set(name, &value.0);
        }
        for beta in &self.betas {
            let _ = settings.headers.append("anthropic-beta", beta);
        }
    }
}

fn is_credential(name: &str) -> bool {
    CREDENTIALS
        .iter()
        .any(|credential| credential.eq_ignore_ascii_case(name.trim()))
}

const SHORTEST: Duration = Duration::from_millis(1);
