//! The client's settings, from code and from the environment, and how they are checked.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::client::Client;
use super::credentials::{Credential, check_credentials, has_credential, is_credential};
use super::environment::{self, Environment, blame};
use super::proxy::proxy_of_environment;
use crate::budget::{Budget, InputEstimate, Limits};
use crate::call::retry::{RetryBudget, RetryPolicy};
use crate::call::{Core, Settings};
use crate::clock::sync::Mutex;
use crate::clock::{CancelToken, Clock, Sleeper};
use crate::error::{Error, Result};
use crate::http::drain::DrainPolicy;
use crate::http::{BaseUrl, ConnectionSettings, Headers, Roots, Secret, Timeouts, Transport};

/// Builds a [`Client`]; every check is made by [`build`](ClientBuilder::build).
///
/// ```
/// use anthropic_blocking::{Client, Limits, RetryPolicy};
/// use std::time::Duration;
///
/// let client = Client::builder()
///     .api_key("sk-ant-api03-example")
///     .deadline(Duration::from_secs(300))
///     .idle_timeout(Duration::from_secs(60))
///     .retry(RetryPolicy::new().max_attempts(8))
///     .limits(Limits::per_minute().requests(25))
///     .build()?;
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
///
/// # Settings and defaults
///
/// The last column says whether a copy of the client, made by [`Client::with`], can have another value
/// for one call or many. "Yes" means the method of the same name of [`Options`](crate::Options), and a
/// header its method [`header`](crate::Options::header).
///
/// | setting | default | for a copy |
/// |---|---|---|
/// | [`api_key`], [`auth_token`] | none, and one of them must be set; [`env`] looks into the environment | header `x-api-key` or `authorization` |
/// | [`base_url`] | [`Client::DEFAULT_BASE_URL`]; [`env`] looks into the environment | no |
/// | [`version`] | [`Client::DEFAULT_VERSION`] | header `anthropic-version` |
/// | [`beta`] | none | yes, adds to the client's |
/// | [`header`] | none; [`env`] looks into the environment | yes |
/// | [`user_agent`] | this crate's name and version | header `user-agent` |
/// | [`connect_timeout`] | 5 s | yes |
/// | [`idle_timeout`] | 180 s | yes |
/// | [`timeout`] | 10 minutes for messages in one piece, new batches and raw posts, none for other raw calls, else the idle timeout | yes |
/// | [`deadline`] | none | yes |
/// | [`retry`] | [`RetryPolicy::new`]: | yes, as a whole |
/// | – [`max_attempts`](RetryPolicy::max_attempts) | 5 | |
/// | – [`initial_backoff`](RetryPolicy::initial_backoff) | 1 s | |
/// | – [`max_backoff`](RetryPolicy::max_backoff) | 16 s | |
/// | – [`max_wait`](RetryPolicy::max_wait) | 10 minutes | |
/// | – [`max_repeats`](RetryPolicy::max_repeats) | 1 | |
/// | [`stream_underneath`] | yes | yes |
/// | [`input_estimate`] | [`InputEstimate::Learned`] | yes |
/// | [`limits`] | none but the server's | no |
/// | [`budget`] | one of its own | no |
/// | [`proxy`], [`no_proxy`] | as the environment says, none for loopback addresses | no |
/// | [`root_certificates`] | Mozilla's, or with `native_tls` the operating system's | no |
/// | [`allow_http`] | no | no |
/// | [`seed`] | random | no |
///
/// The features `native-tls`, `platform-verifier` and `testing` add a setting each, none of them for
/// a copy. Runs have settings of their own, with the defaults in their docs: see
/// [`Bulk`](crate::Bulk) and [`Batches`](crate::Batches). What a request asks for is set in the
/// [`MessageRequest`](crate::MessageRequest).
///
/// [`api_key`]: ClientBuilder::api_key
/// [`auth_token`]: ClientBuilder::auth_token
/// [`env`]: ClientBuilder::env
/// [`base_url`]: ClientBuilder::base_url
/// [`version`]: ClientBuilder::version
/// [`beta`]: ClientBuilder::beta
/// [`header`]: ClientBuilder::header
/// [`user_agent`]: ClientBuilder::user_agent
/// [`connect_timeout`]: ClientBuilder::connect_timeout
/// [`idle_timeout`]: ClientBuilder::idle_timeout
/// [`timeout`]: ClientBuilder::timeout
/// [`deadline`]: ClientBuilder::deadline
/// [`retry`]: ClientBuilder::retry
/// [`stream_underneath`]: ClientBuilder::stream_underneath
/// [`input_estimate`]: ClientBuilder::input_estimate
/// [`limits`]: ClientBuilder::limits
/// [`budget`]: ClientBuilder::budget
/// [`proxy`]: ClientBuilder::proxy
/// [`no_proxy`]: ClientBuilder::no_proxy
/// [`root_certificates`]: ClientBuilder::root_certificates
/// [`allow_http`]: ClientBuilder::allow_http
/// [`seed`]: ClientBuilder::seed
#[derive(Debug, Default, Clone)]
#[must_use]
pub struct ClientBuilder {
    api_key: Option<Secret>,
    auth_token: Option<Secret>,
    /// May contain a password, in one that `build` refuses.
    base_url: Option<Secret>,
    version: Option<String>,
    betas: Vec<String>,
    env: Environment,
    headers: Vec<(String, Secret)>,
    connect_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    timeout: Option<Duration>,
    deadline: Option<Duration>,
    retry: RetryPolicy,
    user_agent: Option<String>,
    proxy: ProxySetting,
    roots: Roots,
    native_tls: bool,
    allow_http: bool,
    stream_underneath: Option<bool>,
    budget: Option<Budget>,
    limits: Option<Limits>,
    input_estimate: InputEstimate,
    seed: Option<u64>,
    pub(crate) clock: Clock,
}

#[derive(Debug, Default, Clone)]
enum ProxySetting {
    #[default]
    FromEnvironment,
    None,
    Url(Secret),
}

impl ClientBuilder {
    /// Sets the API key, sent as `x-api-key`. Exactly one of key and token must be set.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind};
    ///
    /// let builder = Client::builder().api_key("sk-ant-api03-example");
    /// assert!(builder.clone().build().is_ok());
    /// // Two credentials: which of them would be meant?
    /// let both = builder.auth_token("example");
    /// assert_eq!(both.build().unwrap_err().kind(), ErrorKind::Config);
    /// ```
    pub fn api_key(mut self, key: impl Into<String>) -> ClientBuilder {
        self.api_key = Some(Secret(key.into()));
        self
    }

    /// Sets a token, sent as `Authorization: Bearer`. The current API takes API keys in this form
    /// as well.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// let client = Client::builder().auth_token("example").build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn auth_token(mut self, token: impl Into<String>) -> ClientBuilder {
        self.auth_token = Some(Secret(token.into()));
        self
    }

    /// Fills what was not set from the environment; see [`Client::from_env`]. A key is not looked
    /// for where a key, a token or a header with either was set, nor among the custom headers.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // What is set here wins, and then no key is looked for in the environment.
    /// let client = Client::builder().api_key("sk-ant-api03-example").env().build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn env(mut self) -> ClientBuilder {
        self.env = Environment::read();
        self
    }

    /// Sets where calls go, by default [`Client::DEFAULT_BASE_URL`]. A path is kept as a prefix of
    /// every endpoint's, which begins with `/v1`.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // Calls go to https://gateway.example/claude/v1/messages.
    /// let client = Client::builder()
    ///     .auth_token("example")
    ///     .base_url("https://gateway.example/claude")
    ///     .header("x-team", "search")
    ///     .build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn base_url(mut self, url: impl Into<String>) -> ClientBuilder {
        self.base_url = Some(Secret(url.into()));
        self
    }

    /// Sets the `anthropic-version`, by default [`Client::DEFAULT_VERSION`].
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // The version that the prompts were tested with, also when this crate sends a later one.
    /// let client = Client::builder().api_key("test").version("2023-06-01").build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> ClientBuilder {
        self.version = Some(version.into());
        self
    }

    /// Adds a value to the `anthropic-beta` header.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::TestServer;
    ///
    /// let server = TestServer::start()?;
    /// let client = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = client.beta("files-api-2025-04-14").beta("context-1m-2025-08-07").build()?;
    /// client.models().get("claude-haiku-4-5")?;
    /// let betas = "files-api-2025-04-14,context-1m-2025-08-07";
    /// assert_eq!(server.requests()[0].header("anthropic-beta"), Some(betas));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn beta(mut self, beta: impl Into<String>) -> ClientBuilder {
        self.betas.push(beta.into());
        self
    }

    /// Sets a header of every request, in place of one from the environment or of the client's
    /// own.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// let client = Client::builder().api_key("test").header("x-team", "search").build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> ClientBuilder {
        self.headers.push((name.into(), Secret(value.into())));
        self
    }

    /// Sets how long a connection may take to be set up, TLS included, by default 5 s. Looking up
    /// the host's name comes before that, and is bounded by a [`deadline`](ClientBuilder::deadline)
    /// only.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use std::time::Duration;
    ///
    /// // From a ship: TCP and TLS take several round trips over a satellite.
    /// let timeouts = Duration::from_secs(20);
    /// let client = Client::builder().api_key("test").connect_timeout(timeouts).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long the server may be silent, by default 180 s. It does not bound the wait for an
    /// answer that comes in one piece; [`timeout`](ClientBuilder::timeout) does.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use std::time::Duration;
    ///
    /// // Someone sits in front of the screen, and three minutes of silence are too many.
    /// let silence = Duration::from_secs(30);
    /// let client = Client::builder().api_key("test").idle_timeout(silence).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt may wait for an answer that comes in one piece, and again as long
    /// for reading it. By default [`Client::DEFAULT_TIMEOUT`] for messages, new batches and raw
    /// posts, and the idle timeout for token counts and other quick answers. An answer that is
    /// streamed, also underneath `create`, is bounded by the idle timeout and the deadline only; so is
    /// one to a raw `get` or `delete`, unless this is set.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use std::time::Duration;
    ///
    /// let client = Client::builder()
    ///     .api_key("test")
    ///     .stream_underneath(false)
    ///     .timeout(Duration::from_secs(1800))
    ///     .build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long a call may take in all: waiting, every attempt, and reading the answer. By
    /// default there is no such limit. A call that cannot go on before its deadline fails at once.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use std::time::Duration;
    ///
    /// // A build that hangs is worse than one without an answer.
    /// let client = Client::builder().api_key("test").deadline(Duration::from_secs(20)).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn deadline(mut self, deadline: Duration) -> ClientBuilder {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how often and how long calls are tried again, by default [`RetryPolicy::new`].
    ///
    /// ```
    /// use anthropic_blocking::{Client, RetryPolicy};
    ///
    /// let policy = RetryPolicy::new().max_attempts(10);
    /// let client = Client::builder().api_key("test").retry(policy).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> ClientBuilder {
        self.retry = policy;
        self
    }

    /// Sets the `user-agent`, by default this crate's name and version.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::TestServer;
    ///
    /// // The log of the gateway shows which program calls.
    /// let server = TestServer::start()?;
    /// let client = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = client.user_agent("release-notes/1.4").build()?;
    /// client.models().get("claude-haiku-4-5")?;
    /// assert_eq!(server.requests()[0].header("user-agent"), Some("release-notes/1.4"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> ClientBuilder {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Sets a proxy, such as `http://user:password@proxy.example:8080` or `socks5h://127.0.0.1:9050`.
    /// What is special in a user name or a password must be percent-encoded. With `socks4` and `socks5`
    /// the host's name is looked up here, otherwise by the proxy.
    ///
    /// By default the environment is followed, except to a loopback address: `HTTPS_PROXY` (for an
    /// `http` base URL `HTTP_PROXY`), else `ALL_PROXY`, unless `NO_PROXY` names the host. That is a list
    /// of hosts, domains (`.example.com`, with all below), addresses and blocks of them (`10.0.0.0/8`),
    /// with a port or for all; `*` is everything. Names in lower case count as well.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // The names of hosts are looked up at the other end, and nobody here learns them.
    /// let client = Client::builder().api_key("test").proxy("socks5h://127.0.0.1:9050").build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn proxy(mut self, url: impl Into<String>) -> ClientBuilder {
        self.proxy = ProxySetting::Url(Secret(url.into()));
        self
    }

    /// Uses no proxy, whatever the environment says.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // HTTPS_PROXY leads out of the house, and the gateway is inside.
    /// let client = Client::builder()
    ///     .auth_token("example")
    ///     .base_url("https://gateway.example")
    ///     .no_proxy()
    ///     .build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn no_proxy(mut self) -> ClientBuilder {
        self.proxy = ProxySetting::None;
        self
    }

    /// Trusts the servers that these root certificates vouch for, and no others: one or more
    /// certificates in PEM form. For proxies that inspect traffic. By default Mozilla's roots are
    /// trusted, as compiled in; with the feature and the setting `native_tls` the operating system's.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    ///
    /// let pem = std::fs::read("/etc/ssl/company.pem")?;
    /// let client = Client::builder().env().root_certificates(pem).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> ClientBuilder {
        self.roots = Roots::Pem(pem.into());
        self
    }

    /// Trusts what the operating system trusts.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // The company's own root certificate is installed on all of its machines.
    /// let client = Client::builder().api_key("test").platform_verifier().build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[cfg(feature = "platform-verifier")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform-verifier")))]
    pub fn platform_verifier(mut self) -> ClientBuilder {
        self.roots = Roots::Platform;
        self
    }

    /// Uses the operating system's TLS instead of rustls, and trusts what that trusts, unless
    /// [`root_certificates`](ClientBuilder::root_certificates) says otherwise.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// // Where the rules of the house admit the system's cryptography only.
    /// let client = Client::builder().api_key("test").native_tls().build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[cfg(feature = "native-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
    pub fn native_tls(mut self) -> ClientBuilder {
        self.native_tls = true;
        self
    }

    /// Permits `http` to hosts that are not loopback, and through proxies that are not, by default
    /// refused: the key and the prompts can be read by everyone on the way.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// let builder = Client::builder().auth_token("example").base_url("http://gateway:8080");
    /// assert!(builder.clone().build().is_err());
    /// // The gateway is a container beside this one, on a network of their own.
    /// let client = builder.allow_http(true).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn allow_http(mut self, allow: bool) -> ClientBuilder {
        self.allow_http = allow;
        self
    }

    /// Sets whether [`create`](crate::Messages::create) streams the answer underneath, by default
    /// yes. Without it the answer comes in one piece, nothing is heard until then, and requests
    /// for answers that may take more than ten minutes are refused, unless a
    /// [`timeout`](ClientBuilder::timeout) is set.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::builder().api_key("test").stream_underneath(false).build()?;
    /// let long = MessageRequest::new("claude-haiku-4-5", 64_000).user("Tell me a long story.");
    /// // In one piece that might take more than ten minutes: refused before anything is sent.
    /// assert!(client.messages().create(&long).is_err());
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn stream_underneath(mut self, stream: bool) -> ClientBuilder {
        self.stream_underneath = Some(stream);
        self
    }

    /// Sets the most that may be spent in any 60 seconds, for each class of models by itself. By
    /// default unlimited: the client uses what the server allows, which it learns from the answers.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Limits};
    ///
    /// let half = Limits::per_minute().requests(500).input_tokens(225_000);
    /// let client = Client::builder().api_key("test").limits(half).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn limits(mut self, limits: Limits) -> ClientBuilder {
        self.limits = Some(limits);
        self
    }

    /// Sets the budget, to share it with another client or to set limits class by class. By default
    /// each client has its own.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Client, Limits, ModelClass};
    ///
    /// let opus = Limits::per_minute().requests(10);
    /// let budget = Budget::new().limits(ModelClass::of("claude-opus-5"), opus);
    /// let client = Client::builder().api_key("test").budget(&budget).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn budget(mut self, budget: &Budget) -> ClientBuilder {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets how the input of a request is estimated before it is sent, by default
    /// [`InputEstimate::Learned`].
    ///
    /// ```
    /// use anthropic_blocking::{Client, InputEstimate};
    ///
    /// let client =
    ///     Client::builder().api_key("test").input_estimate(InputEstimate::Counted).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn input_estimate(mut self, estimate: InputEstimate) -> ClientBuilder {
        self.input_estimate = estimate;
        self
    }

    /// Seeds the jitter, for tests that repeat. By default it is random.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let server = TestServer::start()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// let sleeps_after_failures = |seed| -> anthropic_blocking::Result<_> {
    ///     server.push_all([Reply::status(500), Reply::status(500)]);
    ///     let clock = ManualClock::new();
    ///     let client = Client::builder().api_key("test").base_url(server.base_url());
    ///     client.clock(&clock).seed(seed).build()?.messages().create(&request)?;
    ///     Ok(clock.sleeps())
    /// };
    /// assert_eq!(sleeps_after_failures(7)?, sleeps_after_failures(7)?);
    /// # assert_eq!(sleeps_after_failures(7)?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.seed = Some(seed);
        self
    }

    /// Checks every setting and makes the client. Sends nothing.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind};
    ///
    /// let insecure = Client::builder().api_key("test").base_url("http://example.com");
    /// let error = insecure.build().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Config);
    /// assert!(error.to_string().contains("would send the key unencrypted"));
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config): no key, or more than one; a key, header or user
    /// agent that cannot be sent; a base URL that cannot be used, or is `http` to a host, or by way of a
    /// proxy, that is not loopback; a timeout of zero; an unusable proxy or root certificate; limits beside a
    /// budget.
    pub fn build(self) -> Result<Client> {
        if let Some(problem) = &self.env.problem {
            return Err(Error::config(problem.clone()));
        }
        let base = self.checked_base_url()?;
        let settings = self.settings()?;
        let connection = self.connection_settings(&base);
        let mut rng = self.seed.map_or_else(Rng::new, Rng::with_seed);
        let budget = match (self.budget, self.limits) {
            (Some(budget), None) => budget,
            (None, limits) => Budget::on(self.clock.clone(), rng.fork())
                .default_limits(limits.unwrap_or_default()),
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "there are limits beside a budget; give them to the budget",
                ));
            }
        };
        let transport = Transport::new(&connection, default_timeouts(&settings))?;
        if !base.is_secure() && transport.leads_away() && !self.allow_http {
            return Err(Error::config(format!(
                "the base URL {} would send the key unencrypted to the proxy; use no_proxy, or \
                 allow_http",
                base.as_str()
            )));
        }
        let sleeper = Sleeper::new(self.clock);
        let core = Core {
            base,
            transport,
            budget,
            batches: Mutex::default(),
            rng: Mutex::new(rng),
            retries: Mutex::new(RetryBudget::new(sleeper.clock().now())),
            endings: DrainPolicy::default(),
            sleeper,
        };
        Ok(Client::from_parts(core, settings))
    }

    fn checked_base_url(&self) -> Result<BaseUrl> {
        let base = match (&self.base_url, &self.env.base_url) {
            (Some(url), _) => BaseUrl::parse(&url.0)?,
            (None, Some(url)) => BaseUrl::parse(&url.0).map_err(blame(environment::BASE_URL))?,
            (None, None) => BaseUrl::parse(Client::DEFAULT_BASE_URL)?,
        };
        if base.is_exposed() && !self.allow_http {
            return Err(Error::config(format!(
                "the base URL {} would send the key unencrypted; use https, or allow_http",
                base.as_str()
            )));
        }
        Ok(base)
    }

    fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            headers: self.headers()?,
            connect_timeout: non_zero("connect_timeout", self.connect_timeout)?
                .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            idle_timeout: non_zero("idle_timeout", self.idle_timeout)?
                .unwrap_or(DEFAULT_IDLE_TIMEOUT),
            timeout: non_zero("timeout", self.timeout)?,
            deadline: non_zero("deadline", self.deadline)?,
            retry: self.retry,
            stream_underneath: self.stream_underneath.unwrap_or(true),
            input_estimate: self.input_estimate,
            totals: Arc::default(),
            cancel: CancelToken::default(),
        })
    }

    fn connection_settings(&self, base: &BaseUrl) -> ConnectionSettings {
        let (proxy, proxy_variable) = match &self.proxy {
            ProxySetting::Url(url) => (Some(url.clone()), None),
            ProxySetting::None => (None, None),
            ProxySetting::FromEnvironment => match proxy_of_environment(base) {
                Some(proxy) => (Some(proxy.url), Some(proxy.variable)),
                None => (None, None),
            },
        };
        ConnectionSettings {
            user_agent: self.user_agent_or_default().to_owned(),
            proxy,
            proxy_variable,
            roots: self.roots.clone(),
            native_tls: self.native_tls,
        }
    }

    fn user_agent_or_default(&self) -> &str {
        let own = self.user_agent.as_deref();
        own.filter(|text| !text.is_empty())
            .unwrap_or(DEFAULT_USER_AGENT)
    }

    /// Returns the headers of every request: first the client's own, then those of the environment,
    /// then those set in code, each replacing an earlier one of the same name; then the credential.
    fn headers(&self) -> Result<Headers> {
        let version = self.version.as_deref().unwrap_or(Client::DEFAULT_VERSION);
        let mut headers = Headers::default();
        headers.set("anthropic-version", version)?;
        headers.set("content-type", "application/json")?;
        headers.set("accept", "application/json")?;
        headers.set("user-agent", self.user_agent_or_default())?;
        for header in self.env.custom_headers() {
            let (name, value) = header?;
            if !(self.has_credential() && is_credential(name)) {
                let set = headers.set(name, value);
                set.map_err(blame(environment::CUSTOM_HEADERS))?;
            }
        }
        for (name, value) in &self.headers {
            headers.set(name, &value.0)?;
        }
        for beta in &self.betas {
            headers.append("anthropic-beta", beta)?;
        }
        self.add_credential(&mut headers)?;
        check_credentials(&headers)?;
        Ok(headers)
    }

    /// Adds the key or token set in code; without either, and without a header in their place, that
    /// of the environment.
    fn add_credential(&self, headers: &mut Headers) -> Result<()> {
        let is_set_in_code = self.api_key.is_some() || self.auth_token.is_some();
        let is_from_environment = !is_set_in_code && !has_credential(headers);
        let (api_key, auth_token) = if is_from_environment {
            (&self.env.api_key, &self.env.auth_token)
        } else {
            (&self.api_key, &self.auth_token)
        };
        let [key_label, token_label] = if is_from_environment {
            [environment::API_KEY, environment::AUTH_TOKEN]
        } else {
            ["the API key", "the auth token"]
        };
        let key = api_key.as_ref().map(|Secret(secret)| Credential {
            label: key_label,
            secret,
        });
        let token = auth_token.as_ref().map(|Secret(secret)| Credential {
            label: token_label,
            secret,
        });
        if let Some(key) = &key {
            key.set_as_api_key(headers)?;
        }
        match token {
            Some(_) if is_from_environment && key.is_some() => log::warn!(
                target: "anthropic_blocking",
                "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set: the API key is used"
            ),
            Some(token) => token.set_as_auth_token(headers)?,
            None => {}
        }
        Ok(())
    }

    /// Whether a key, a token, or a header with either is set in code.
    fn has_credential(&self) -> bool {
        let by_header = |(name, _): &(String, Secret)| is_credential(name);
        self.api_key.is_some() || self.auth_token.is_some() || self.headers.iter().any(by_header)
    }
}

impl Client {
    /// A client as the environment says: `ANTHROPIC_API_KEY`, or else `ANTHROPIC_AUTH_TOKEN`;
    /// `ANTHROPIC_BASE_URL`; and `ANTHROPIC_CUSTOM_HEADERS`, lines of `Name: value`. An empty
    /// variable counts as unset.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    ///
    /// let client = Client::from_env()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) when no key is set, or a variable cannot be used.
    pub fn from_env() -> Result<Client> {
        Client::builder().env().build()
    }

    /// A client with this API key and every default. The environment is not consulted, except for
    /// a proxy.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind};
    ///
    /// let client = Client::new("sk-ant-api03-example")?;
    /// // A line break at the end of a key that was read from a file is found here.
    /// assert_eq!(Client::new("sk-ant-api03-example\n").unwrap_err().kind(), ErrorKind::Config);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) when the key is empty, or contains white space or
    /// quotation marks.
    pub fn new(api_key: impl Into<String>) -> Result<Client> {
        Client::builder().api_key(api_key).build()
    }

    /// Every setting there is.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use std::time::Duration;
    ///
    /// let client = Client::builder()
    ///     .api_key("sk-ant-api03-example")
    ///     .deadline(Duration::from_secs(60))
    ///     .build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Returns the timeouts of a call with these settings, without a deadline.
fn default_timeouts(settings: &Settings) -> Timeouts {
    let answer = settings.timeout.unwrap_or(Client::DEFAULT_TIMEOUT);
    Timeouts {
        connect: settings.connect_timeout,
        idle: settings.idle_timeout,
        answer: (!settings.stream_underneath).then_some(answer),
        deadline: None,
    }
}

fn non_zero(name: &str, duration: Option<Duration>) -> Result<Option<Duration>> {
    match duration {
        Some(Duration::ZERO) => Err(Error::config(format!("{name} is zero"))),
        duration => Ok(duration),
    }
}

const DEFAULT_USER_AGENT: &str = concat!("anthropic-blocking/", env!("CARGO_PKG_VERSION"));

/// Far more than the three round trips of TCP and TLS.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    fn env_from(
        mut builder: ClientBuilder,
        lookup: impl Fn(&str) -> std::result::Result<Option<String>, String>,
    ) -> ClientBuilder {
        builder.env = Environment::from_lookup(lookup);
        builder
    }

    fn with_env(builder: ClientBuilder, vars: &[(&str, &str)]) -> Result<Headers> {
        let lookup = |name: &str| {
            Ok(vars
                .iter()
                .find(|(var, _)| *var == name)
                .map(|(_, value)| (*value).to_owned()))
        };
        env_from(builder, lookup).headers()
    }

    #[track_caller]
    fn sent(builder: ClientBuilder, vars: &[(&str, &str)]) -> Vec<(String, String)> {
        with_env(builder, vars).expect("valid settings").to_vec()
    }

    fn has(headers: &[(String, String)], name: &str, value: &str) -> bool {
        headers.iter().any(|(n, v)| n == name && v == value)
    }

    #[test]
    fn the_key_goes_before_the_token_and_code_before_the_environment() {
        let both = [
            ("ANTHROPIC_API_KEY", "key"),
            ("ANTHROPIC_AUTH_TOKEN", "token"),
        ];
        let headers = sent(Client::builder(), &both);
        assert!(has(&headers, "x-api-key", "key"));
        assert!(!headers.iter().any(|(name, _)| name == "authorization"));
        let headers = sent(Client::builder(), &both[1..]);
        assert!(has(&headers, "authorization", "Bearer token"));
        let headers = sent(Client::builder().auth_token("mine"), &both);
        assert!(has(&headers, "authorization", "Bearer mine"));
        assert!(!headers.iter().any(|(name, _)| name == "x-api-key"));
        let headers = sent(Client::builder().header("X-Api-Key", "mine"), &both);
        assert!(has(&headers, "x-api-key", "mine"));
    }

    #[test]
    fn settings_in_code_win_also_when_they_come_after_the_environment() {
        let both = [
            ("ANTHROPIC_API_KEY", "key"),
            ("ANTHROPIC_AUTH_TOKEN", "token"),
        ];
        let lookup = |name: &str| {
            let found = both.iter().find(|(var, _)| *var == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        let builder = env_from(Client::builder(), lookup).auth_token("mine");
        let headers = builder.headers().expect("valid settings").to_vec();
        assert!(has(&headers, "authorization", "Bearer mine"));
        let vars = [
            ("ANTHROPIC_API_KEY", "key"),
            ("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: other"),
        ];
        assert!(has(&sent(Client::builder(), &vars), "x-api-key", "other"));
        for builder in [
            Client::builder().api_key("mine"),
            Client::builder().header("X-Api-Key", "mine"),
        ] {
            for line in [
                "Authorization: Bearer theirs",
                "x-api-key: theirs",
                "x-api-key:",
            ] {
                let lines = format!("{line}\nx-team: a");
                let headers = sent(builder.clone(), &[("ANTHROPIC_CUSTOM_HEADERS", &lines)]);
                assert!(has(&headers, "x-api-key", "mine") && has(&headers, "x-team", "a"));
                assert!(!headers.iter().any(|(name, _)| name == "authorization"));
            }
        }
        let empty = Client::builder().header("x-api-key", " ").build();
        assert!(empty.is_err());
    }

    #[test]
    fn the_defaults_are_those_that_the_docs_list() {
        let client = Client::builder().api_key("key").build();
        let client = client.expect("valid settings");
        let settings = client.settings();
        assert_eq!(settings.connect_timeout, Duration::from_secs(5));
        assert_eq!(settings.idle_timeout, Duration::from_secs(180));
        assert_eq!((settings.timeout, settings.deadline), (None, None));
        let policy = RetryPolicy::new()
            .max_attempts(5)
            .initial_backoff(Duration::from_secs(1))
            .max_backoff(Duration::from_secs(16))
            .max_wait(Duration::from_secs(600))
            .max_repeats(1);
        assert_eq!(settings.retry, policy);
        assert!(settings.stream_underneath);
        assert_eq!(settings.input_estimate, InputEstimate::Learned);
    }

    #[test]
    fn variables_are_trimmed_and_empty_ones_are_unset() {
        let headers = sent(
            Client::builder(),
            &[
                ("ANTHROPIC_API_KEY", " \n"),
                ("ANTHROPIC_AUTH_TOKEN", "token\n"),
            ],
        );
        assert!(has(&headers, "authorization", "Bearer token"));
        assert!(with_env(Client::builder(), &[("ANTHROPIC_API_KEY", "")]).is_err());
    }

    #[test]
    fn custom_headers_are_lines_and_those_in_code_win() {
        let vars = [
            ("ANTHROPIC_API_KEY", "key"),
            ("ANTHROPIC_CUSTOM_HEADERS", "X-Team: a:b\n\n  X-Other :  c "),
        ];
        let headers = sent(Client::builder(), &vars);
        assert!(has(&headers, "x-team", "a:b") && has(&headers, "x-other", "c"));
        let headers = sent(Client::builder().header("x-team", "mine"), &vars);
        assert!(has(&headers, "x-team", "mine") && !has(&headers, "x-team", "a:b"));
        let vars = [
            ("ANTHROPIC_API_KEY", "key"),
            ("ANTHROPIC_CUSTOM_HEADERS", "no colon"),
        ];
        assert!(with_env(Client::builder(), &vars).is_err());
    }

    #[test]
    fn the_environment_sets_the_base_url_unless_code_did() {
        let lookup = |name: &str| {
            Ok((name == "ANTHROPIC_BASE_URL").then(|| "https://env.example".to_owned()))
        };
        for (builder, expected) in [
            (Client::builder(), "https://env.example"),
            (
                Client::builder().base_url("https://code.example"),
                "https://code.example",
            ),
        ] {
            let client = env_from(builder.api_key("key"), lookup).build();
            let client = client.expect("valid settings");
            assert_eq!(client.core().base.as_str(), expected);
        }
    }

    #[test]
    fn an_unusable_variable_is_named() {
        let key = ("ANTHROPIC_API_KEY", "key");
        for (vars, text) in [
            (
                vec![("ANTHROPIC_API_KEY", "\"key\"")],
                "ANTHROPIC_API_KEY contains a line break, a blank, a quotation mark or",
            ),
            (
                vec![("ANTHROPIC_AUTH_TOKEN", "Bearer token")],
                "ANTHROPIC_AUTH_TOKEN contains a line break, a blank,",
            ),
            (
                vec![key, ("ANTHROPIC_BASE_URL", "gw.example")],
                "the base URL \"gw.example\" must begin with https://; it is that of \
                 ANTHROPIC_BASE_URL",
            ),
            (
                vec![key, ("ANTHROPIC_CUSTOM_HEADERS", "host: gw.example")],
                "the header host is the client's own; it is that of ANTHROPIC_CUSTOM_HEADERS",
            ),
        ] {
            let lookup = |name: &str| {
                let found = vars.iter().find(|(var, _)| *var == name);
                Ok(found.map(|(_, value)| (*value).to_owned()))
            };
            let error = env_from(Client::builder(), lookup).build();
            let error = error.expect_err("an unusable variable").to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn an_unreadable_variable_is_an_error_of_build() {
        let builder = env_from(Client::builder().api_key("key"), |name| {
            Err(format!("{name} is odd"))
        });
        let error = builder.build().expect_err("unreadable");
        assert!(
            error.to_string().contains("ANTHROPIC_API_KEY is odd"),
            "{error}"
        );
    }
}
