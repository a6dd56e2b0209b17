//! Settings in which one copy of a client differs from the others.

use std::time::Duration;

use super::credentials::{CREDENTIAL_HEADERS, empty_credential, is_credential};
use crate::budget::InputEstimate;
use crate::call::Settings;
use crate::call::retry::RetryPolicy;
use crate::error::Result;
use crate::http::{Headers, Secret};

/// Settings in which a copy of a client differs; see [`Client::with`](crate::Client::with). What is not set stays.
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
    ///
    /// ```
    /// use anthropic_blocking::Options;
    /// use std::time::Duration;
    ///
    /// fn for_a_task(is_interactive: bool) -> Options {
    ///     match is_interactive {
    ///         true => Options::new().deadline(Duration::from_secs(20)),
    ///         false => Options::new(),
    ///     }
    /// }
    /// ```
    pub fn new() -> Options {
        Options::default()
    }

    /// Sets how long a connection may take to be set up; see [`ClientBuilder::connect_timeout`](crate::ClientBuilder::connect_timeout).
    /// Zero counts as a millisecond.
    ///
    /// ```
    /// use anthropic_blocking::{Options, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let client = anthropic_blocking::Client::builder();
    /// # let client = client.api_key("test").base_url(server.base_url()).build()?;
    /// // Whether the API can be reached from here, told within seconds.
    /// let options = Options::new().connect_timeout(Duration::from_secs(2));
    /// let hurried = client.with(options.retry(RetryPolicy::none()));
    /// assert!(hurried.models().get("claude-haiku-4-5").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets whether `create` streams underneath; see [`ClientBuilder::stream_underneath`](crate::ClientBuilder::stream_underneath).
    ///
    /// ```
    /// use anthropic_blocking::testing::TestServer;
    /// use anthropic_blocking::{Client, MessageRequest, Options};
    ///
    /// # let server = TestServer::start()?;
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// // The cache of this gateway knows answers in one piece only.
    /// let cached = client.with(Options::new().stream_underneath(false));
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("The capital of Peru?");
    /// cached.messages().create(&request)?;
    /// assert_ne!(server.requests()[0].json()["stream"], true);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream_underneath(mut self, stream: bool) -> Options {
        self.stream_underneath = Some(stream);
        self
    }

    /// Sets how long the server may be silent; see [`ClientBuilder::idle_timeout`](crate::ClientBuilder::idle_timeout). Zero counts as
    /// a millisecond.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest, Options, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// # let server = TestServer::start()?;
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// server.push(Reply::message("Seven.").stall_before_headers());
    /// let options = Options::new().idle_timeout(Duration::from_millis(5));
    /// let impatient = client.with(options.retry(RetryPolicy::none()));
    /// let error = impatient.messages().create(&request).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Options {
        self.idle_timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets how long one attempt may wait for an answer that comes in one piece; see
    /// [`ClientBuilder::timeout`](crate::ClientBuilder::timeout). Zero counts as a millisecond.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Options};
    /// use std::time::Duration;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = builder.stream_underneath(false).build()?;
    /// let long = MessageRequest::new("claude-haiku-4-5", 64_000).user("Tell me a long story.");
    /// // An answer in one piece that may take over ten minutes needs a timeout that says so.
    /// assert!(client.messages().create(&long).is_err());
    /// let patient = client.with(Options::new().timeout(Duration::from_secs(3600)));
    /// assert!(patient.messages().create(&long).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Options {
        self.timeout = Some(timeout.max(SHORTEST));
        self
    }

    /// Sets how long a call may take in all; see [`ClientBuilder::deadline`](crate::ClientBuilder::deadline). [`Duration::MAX`]
    /// lifts it.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest, Options};
    /// use std::time::Duration;
    ///
    /// # let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// # let builder = Client::builder().api_key("test").base_url(server.base_url()).clock(&clock);
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// let client = builder.deadline(Duration::from_secs(20)).build()?;
    /// server.push(Reply::rate_limited(30));
    /// assert!(client.messages().create(&request).is_err());
    /// // The nightly report has all the time in the world.
    /// let nightly = client.with(Options::new().deadline(Duration::MAX));
    /// assert!(nightly.messages().create(&request).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(mut self, deadline: Duration) -> Options {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how often and how long calls are tried again.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest, Options, RetryPolicy};
    ///
    /// # let server = TestServer::start()?;
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Complete: fn ma");
    /// // A completion that comes late is of no use to someone typing.
    /// let at_once = client.with(Options::new().retry(RetryPolicy::none()));
    /// server.push(Reply::overloaded());
    /// let error = at_once.messages().create(&request).unwrap_err();
    /// assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Overloaded, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> Options {
        self.retry = Some(policy);
        self
    }

    /// Sets how the input of a request is estimated before it is sent.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, InputEstimate, Limits, MessageRequest, Options};
    ///
    /// let limits = Limits::per_minute().input_tokens(1_000);
    /// let client = Client::builder().api_key("test").limits(limits).build()?;
    /// // This prompt was counted before, with the picture that its bytes do not tell.
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

    /// Sets a header in place of the client's. `x-api-key` or `authorization` takes the place of the
    /// client's key or token, whichever it has.
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
    /// Kind [`Config`](crate::ErrorKind::Config) when the name or the value cannot be sent, or a
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
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, Options};
    ///
    /// # let server = TestServer::start()?;
    /// # server.on("GET", "/v1/files", Reply::json(200, r#"{"data": []}"#));
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// // For the files only, and not for every call of the program.
    /// let files = client.with(Options::new().beta("files-api-2025-04-14")?);
    /// files.raw().get("/v1/files")?;
    /// client.models().get("claude-haiku-4-5")?;
    /// let is_beta = |n: usize| server.requests()[n].header("anthropic-beta").is_some();
    /// assert_eq!((is_beta(0), is_beta(1)), (true, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
                CREDENTIAL_HEADERS
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

const SHORTEST: Duration = Duration::from_millis(1);
