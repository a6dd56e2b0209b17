//! [`Options`]: the settings that a copy of a client has in place of the client's own.

use std::time::Duration;

use super::credentials::{CREDENTIAL_HEADERS, empty_credential, is_credential};
use crate::budget::InputEstimate;
use crate::call::Settings;
use crate::call::retry::RetryPolicy;
use crate::error::Result;
use crate::http::{Headers, Secret};

/// Settings for a copy of a client; see [`Client::with`](crate::Client::with). The copy keeps the
/// client's value of each setting that is not set here.
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
    /// [`ClientBuilder::connect_timeout`](crate::ClientBuilder::connect_timeout). The minimum
    /// is 1 ms.
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = Some(timeout.max(MIN_TIMEOUT));
        self
    }

    /// Sets whether `create` receives the response as a stream before returning it whole; see
    /// [`ClientBuilder::stream_underneath`](crate::ClientBuilder::stream_underneath).
    pub fn stream_underneath(mut self, stream: bool) -> Options {
        self.stream_underneath = Some(stream);
        self
    }

    /// Sets how long the server may be silent; see
    /// [`ClientBuilder::idle_timeout`](crate::ClientBuilder::idle_timeout). The minimum is 1 ms.
    pub fn idle_timeout(mut self, timeout: Duration) -> Options {
        self.idle_timeout = Some(timeout.max(MIN_TIMEOUT));
        self
    }

    /// Sets how long one attempt may wait for a response that comes in one piece; see
    /// [`ClientBuilder::timeout`](crate::ClientBuilder::timeout). The minimum is 1 ms.
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
    /// [`ClientBuilder::retry`](crate::ClientBuilder::retry). `policy` replaces the client's whole
    /// policy.
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
    /// // The size of a picture says little about its tokens: use a count by the server.
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

    /// Sets a header. It replaces the client's header of the same name. `x-api-key` and
    /// `authorization` each replace the client's credential, be it a key or a token.
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

    /// Adds a value to the client's `anthropic-beta` header.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) if the value cannot be sent.
    pub fn beta(mut self, beta: &str) -> Result<Options> {
        Headers::default().set("anthropic-beta", beta)?;
        self.betas.push(beta.to_owned());
        Ok(self)
    }

    /// Writes the settings that were set here over those of the copy.
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
                    .for_each(|credential| settings.headers.remove(credential));
            }
            // Cannot fail: `Options::header` has checked the name and the value.
            let _ = settings.headers.set(name, &value.0);
        }
        for beta in &self.betas {
            // Cannot fail: `Options::beta` has checked the value.
            let _ = settings.headers.append("anthropic-beta", beta);
        }
    }
}

/// Minimum of all timeouts. It replaces a timeout of zero, which the setters cannot reject since
/// they do not return a `Result`.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
