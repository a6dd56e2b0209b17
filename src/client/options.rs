//! The settings in which a copy of a client differs.

use std::time::Duration;

use super::credentials::{CREDENTIAL_HEADERS, empty_credential, is_credential};
use crate::budget::InputEstimate;
use crate::call::Settings;
use crate::call::retry::RetryPolicy;
use crate::error::Result;
use crate::http::{Headers, Secret};

/// Settings for a copy of a client; see [`Client::with`](crate::Client::with). A setting that is not
/// set here keeps the value that the client has.
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
    /// Returns options that change nothing yet.
    pub fn new() -> Options {
        Options::default()
    }

    /// Sets how long connecting may take; see
    /// [`ClientBuilder::connect_timeout`](crate::ClientBuilder::connect_timeout). Zero counts as a
    /// millisecond.
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = Some(timeout.max(MIN_TIMEOUT));
        self
    }

    /// Sets whether `create` streams underneath; see
    /// [`ClientBuilder::stream_underneath`](crate::ClientBuilder::stream_underneath).
    pub fn stream_underneath(mut self, stream: bool) -> Options {
        self.stream_underneath = Some(stream);
        self
    }

    /// Sets how long the server may be silent; see
    /// [`ClientBuilder::idle_timeout`](crate::ClientBuilder::idle_timeout). Zero counts as a
    /// millisecond.
    pub fn idle_timeout(mut self, timeout: Duration) -> Options {
        self.idle_timeout = Some(timeout.max(MIN_TIMEOUT));
        self
    }

    /// Sets how long one attempt may wait for a response that comes in one piece; see
    /// [`ClientBuilder::timeout`](crate::ClientBuilder::timeout). Zero counts as a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Options {
        self.timeout = Some(timeout.max(MIN_TIMEOUT));
        self
    }

    /// Sets how long a call may take in all; see
    /// [`ClientBuilder::deadline`](crate::ClientBuilder::deadline). [`Duration::MAX`] removes the
    /// deadline.
    pub fn deadline(mut self, deadline: Duration) -> Options {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how often and how long calls are retried; see
    /// [`ClientBuilder::retry`](crate::ClientBuilder::retry). Replaces the whole policy.
    pub fn retry(mut self, policy: RetryPolicy) -> Options {
        self.retry = Some(policy);
        self
    }

    /// Sets how the input tokens of a request are estimated before it is sent.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, InputEstimate, Limits, MessageRequest, Options};
    ///
    /// let limits = Limits::per_minute().input_tokens(1_000);
    /// let client = Client::builder().api_key("test").limits(limits).build()?;
    /// // A count by the server, since the size of a picture says little about its tokens.
    /// let counted = client.with(Options::new().input_estimate(InputEstimate::Exact(1_250)));
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("What is in the picture?");
    /// let error = counted.messages().create(&request).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Budget);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn input_estimate(mut self, estimate: InputEstimate) -> Options {
        self.input_estimate = Some(estimate);
        self
    }

    /// Sets a header, in place of one of the same name that the client has. `x-api-key` or
    /// `authorization` replaces the client's key or token, whichever the client has.
    ///
    /// ```
    /// use anthropic_blocking::testing::TestServer;
    /// use anthropic_blocking::{Client, Options};
    ///
    /// let server = TestServer::start()?;
    /// let client = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = client.header("x-team", "search").build()?;
    /// let for_ads = client.with(Options::new().header("x-team", "ads")?);
    /// for_ads.models().get("claude-haiku-4-5")?;
    /// assert_eq!(server.requests()[0].header("x-team"), Some("ads"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) if the name or the value cannot be sent, or a
    /// credential is empty.
    pub fn header(mut self, name: &str, value: &str) -> Result<Options> {
        Headers::default().set(name, value)?;
        if is_credential(name) && value.trim().is_empty() {
            return Err(empty_credential());
        }
        self.headers
            .push((name.to_owned(), Secret(value.to_owned())));
        Ok(self)
    }

    /// Adds a value to the `anthropic-beta` header.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) if the value cannot be sent.
    pub fn beta(mut self, beta: &str) -> Result<Options> {
        Headers::default().set("anthropic-beta", beta)?;
        self.betas.push(beta.to_owned());
        Ok(self)
    }

    /// Changes the settings of a copy.
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
                CREDENTIAL_HEADERS
                    .iter()
                    .for_each(|name| settings.headers.remove(name));
            }
            // Cannot fail: the setter has checked the header.
            let _ = settings.headers.set(name, &value.0);
        }
        for beta in &self.betas {
            let _ = settings.headers.append("anthropic-beta", beta);
        }
    }
}

/// The least timeout, for which a timeout of zero counts: a setter cannot return an error.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
