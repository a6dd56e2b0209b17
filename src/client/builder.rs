//! Builds a client: its settings, their checks and their defaults.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::client::Client;
use super::credentials::{
    check_credentials, has_credential, is_credential, set_api_key, set_auth_token,
};
use super::environment::{self, Environment, name_variable};
use super::proxy::proxy_of_environment;
use crate::budget::{Budget, InputEstimate, Limits};
use crate::call::retry::{RetryBudget, RetryPolicy};
use crate::call::{Core, Settings};
use crate::clock::sync::Mutex;
use crate::clock::{CancelToken, Clock, Sleeper};
use crate::error::{Error, Result};
use crate::http::drain::DrainPolicy;
use crate::http::{BaseUrl, ConnectionSettings, Headers, Roots, Secret, Timeouts, Transport};

/// Builds a [`Client`]; [`build`](ClientBuilder::build) checks every setting.
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
/// The last column says whether a copy of the client, made by [`Client::with`], can have another
/// value. "Yes" refers to the method of [`Options`](crate::Options) with the same name; a header is set
/// with [`Options::header`](crate::Options::header).
///
/// | setting | default | for a copy |
/// |---|---|---|
/// | [`api_key`], [`auth_token`] | none; one of them must be set, in code or by [`env`] | header `x-api-key` or `authorization` |
/// | [`base_url`] | that of [`env`], else [`Client::DEFAULT_BASE_URL`] | no |
/// | [`version`] | [`Client::DEFAULT_VERSION`] | header `anthropic-version` |
/// | [`beta`] | none | yes, adds to the client's |
/// | [`header`] | those of [`env`] | yes |
/// | [`user_agent`] | this crate's name and version | header `user-agent` |
/// | [`connect_timeout`] | 5 s | yes |
/// | [`idle_timeout`] | 180 s | yes |
/// | [`timeout`] | 10 minutes for messages in one piece, new batches and raw posts; none for other raw calls; else the idle timeout | yes |
/// | [`deadline`] | none | yes |
/// | [`retry`] | [`RetryPolicy::new`]: | yes, as a whole |
/// | – [`max_attempts`](RetryPolicy::max_attempts) | 5 | |
/// | – [`initial_backoff`](RetryPolicy::initial_backoff) | 1 s | |
/// | – [`max_backoff`](RetryPolicy::max_backoff) | 16 s | |
/// | – [`max_wait`](RetryPolicy::max_wait) | 10 minutes | |
/// | – [`max_repeats`](RetryPolicy::max_repeats) | 1 | |
/// | [`stream_underneath`] | yes | yes |
/// | [`input_estimate`] | [`InputEstimate::Learned`] | yes |
/// | [`limits`] | none; the client learns the server's | no |
/// | [`budget`] | a new one | no |
/// | [`proxy`], [`no_proxy`] | as the environment says, none for loopback addresses | no |
/// | [`root_certificates`] | Mozilla's, or with `native_tls` the operating system's | no |
/// | [`allow_http`] | no | no |
/// | [`seed`] | random | no |
///
/// The features `native-tls`, `platform-verifier` and `testing` add a setting each, which a copy cannot
/// change. [`Bulk`](crate::Bulk) and [`Batches`](crate::Batches) have settings for runs of many
/// requests. The model, the prompt and the like are set in the
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
    /// May contain a password; `build` then refuses the URL without printing it.
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

/// The proxy that requests go through.
#[derive(Debug, Default, Clone)]
enum ProxySetting {
    #[default]
    FromEnvironment,
    None,
    Url(Secret),
}

impl ClientBuilder {
    /// Sets the API key, sent as `x-api-key`. Exactly one of key and token must be set.
    pub fn api_key(mut self, key: impl Into<String>) -> ClientBuilder {
        self.api_key = Some(Secret(key.into()));
        self
    }

    /// Sets a token, sent as `Authorization: Bearer`. Besides the tokens of gateways, the API
    /// accepts its keys in this form.
    pub fn auth_token(mut self, token: impl Into<String>) -> ClientBuilder {
        self.auth_token = Some(Secret(token.into()));
        self
    }

    /// Reads the environment for settings that are not set in code: `ANTHROPIC_API_KEY`, or else
    /// `ANTHROPIC_AUTH_TOKEN`; `ANTHROPIC_BASE_URL`; and `ANTHROPIC_CUSTOM_HEADERS`, lines of
    /// `Name: value`. An empty variable counts as unset. If a key, a token or a header with either
    /// is set in code, before or after this call, those of the environment are ignored, also those
    /// among the custom headers.
    pub fn env(mut self) -> ClientBuilder {
        self.env = Environment::read();
        self
    }

    /// Sets the URL that the paths of all endpoints, which begin with `/v1`, are appended to; by
    /// default [`Client::DEFAULT_BASE_URL`].
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

    /// Sets the `anthropic-version` header, by default [`Client::DEFAULT_VERSION`].
    pub fn version(mut self, version: impl Into<String>) -> ClientBuilder {
        self.version = Some(version.into());
        self
    }

    /// Adds a value to the `anthropic-beta` header.
    pub fn beta(mut self, beta: impl Into<String>) -> ClientBuilder {
        self.betas.push(beta.into());
        self
    }

    /// Sets a header of every request. It replaces a header of the same name that comes from the
    /// environment or from the client itself.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> ClientBuilder {
        self.headers.push((name.into(), Secret(value.into())));
        self
    }

    /// Sets how long connecting may take, TLS included, by default 5 s. Looking up the host's name
    /// comes before that; only a [`deadline`](ClientBuilder::deadline) limits it.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long the server may be silent, by default 180 s. The wait for a response that comes
    /// in one piece has a limit of its own, the [`timeout`](ClientBuilder::timeout).
    pub fn idle_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt may wait for a response that comes in one piece, and again how
    /// long it may take to read the response. By default [`Client::DEFAULT_TIMEOUT`] for messages,
    /// new batches and raw posts, and the idle timeout for token counts and other quick responses.
    ///
    /// Only the idle timeout and the deadline limit streamed responses, also those streamed
    /// underneath `create`, and the responses to a raw `get` or `delete`; for the latter this
    /// timeout applies once it is set.
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

    /// Sets how long a call may take in all: waiting, every attempt, and reading the response. By
    /// default there is no deadline. A call that would have to wait beyond its deadline fails at
    /// once.
    pub fn deadline(mut self, deadline: Duration) -> ClientBuilder {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how often and how long calls are retried, by default [`RetryPolicy::new`].
    pub fn retry(mut self, policy: RetryPolicy) -> ClientBuilder {
        self.retry = policy;
        self
    }

    /// Sets the `user-agent` header, by default this crate's name and version.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> ClientBuilder {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Sets a proxy, such as `http://user:password@proxy.example:8080` or
    /// `socks5h://127.0.0.1:9050`. Special characters in a user name or a password must be
    /// percent-encoded. With `socks4` and `socks5` this machine looks up the host's name, otherwise
    /// the proxy does.
    ///
    /// By default the environment names the proxy, except for loopback addresses: `HTTPS_PROXY`
    /// (for an `http` base URL `HTTP_PROXY`), else `ALL_PROXY`, unless `NO_PROXY` names the host.
    /// `NO_PROXY` is a list of hosts, domains (`.example.com`, with all hosts below), addresses and
    /// blocks of addresses (`10.0.0.0/8`), each with a port or for all ports; `*` is every host.
    /// Variables in lower case count as well.
    pub fn proxy(mut self, url: impl Into<String>) -> ClientBuilder {
        self.proxy = ProxySetting::Url(Secret(url.into()));
        self
    }

    /// Uses no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> ClientBuilder {
        self.proxy = ProxySetting::None;
        self
    }

    /// Trusts the servers that these root certificates vouch for, and no others: one or more
    /// certificates in PEM form. For proxies that inspect traffic. By default the client trusts
    /// Mozilla's root certificates, which are compiled in; with the feature and the setting
    /// `native_tls` those of the operating system.
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

    /// Trusts the certificates that the operating system trusts.
    #[cfg(feature = "platform-verifier")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform-verifier")))]
    pub fn platform_verifier(mut self) -> ClientBuilder {
        self.roots = Roots::Platform;
        self
    }

    /// Uses the operating system's TLS instead of rustls, and trusts the certificates that the
    /// operating system trusts, unless [`root_certificates`](ClientBuilder::root_certificates) are
    /// set.
    #[cfg(feature = "native-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "native-tls")))]
    pub fn native_tls(mut self) -> ClientBuilder {
        self.native_tls = true;
        self
    }

    /// Sets whether `http` is allowed to hosts and through proxies that are not loopback, by
    /// default no: everyone on the way could read the key and the prompts.
    pub fn allow_http(mut self, allow: bool) -> ClientBuilder {
        self.allow_http = allow;
        self
    }

    /// Sets whether [`create`](crate::Messages::create) streams the response underneath, by default
    /// yes. Otherwise the response comes in one piece and the connection is silent until then.
    /// Requests whose responses may take more than ten minutes are then refused, unless a
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

    /// Sets the most that may be spent in any 60 seconds, for each class of models. By default
    /// there is no such limit: the client uses what the server allows, which it learns from the
    /// responses.
    pub fn limits(mut self, limits: Limits) -> ClientBuilder {
        self.limits = Some(limits);
        self
    }

    /// Sets the budget, to share it with another client or to set limits for each class of models.
    /// By default each client has its own.
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

    /// Sets how the input tokens of a request are estimated before it is sent, by default
    /// [`InputEstimate::Learned`].
    pub fn input_estimate(mut self, estimate: InputEstimate) -> ClientBuilder {
        self.input_estimate = estimate;
        self
    }

    /// Seeds the jitter of waits, for tests that must repeat. By default the seed is random.
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.seed = Some(seed);
        self
    }

    /// Checks every setting and returns the client. Sends nothing.
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) if
    ///
    /// - there is no key, or more than one;
    /// - a key, a header or the user agent cannot be sent;
    /// - a variable that [`env`](ClientBuilder::env) reads is unusable;
    /// - the base URL is invalid, or is `http` to a host or through a proxy that is not loopback;
    /// - a timeout is zero;
    /// - the proxy or a root certificate is unusable;
    /// - there are limits beside a budget.
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
            (None, limits) => Budget::with_clock(self.clock.clone(), rng.fork())
                .default_limits(limits.unwrap_or_default()),
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "there are limits beside a budget; give them to the budget",
                ));
            }
        };
        let transport = Transport::new(&connection, default_timeouts(&settings))?;
        if !base.is_secure() && transport.has_remote_proxy() && !self.allow_http {
            return Err(Error::config(format!(
                "the base URL {} would send the key unencrypted to the proxy; use no_proxy, or \
                 allow_http",
                base.as_str()
            )));
        }
        let sleeper = Sleeper::new(self.clock);
        let core = Core {
            base_url: base,
            transport,
            budget,
            claimed_batches: Mutex::default(),
            rng: Mutex::new(rng),
            retry_budget: Mutex::new(RetryBudget::new(sleeper.clock().now())),
            drain_policy: DrainPolicy::default(),
            sleeper,
        };
        Ok(Client::from_parts(core, settings))
    }

    fn checked_base_url(&self) -> Result<BaseUrl> {
        let base = match (&self.base_url, &self.env.base_url) {
            (Some(url), _) => BaseUrl::parse(&url.0)?,
            (None, Some(url)) => {
                BaseUrl::parse(&url.0).map_err(name_variable(environment::BASE_URL))?
            }
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
            if !(self.has_credential_in_code() && is_credential(name)) {
                let set = headers.set(name, value);
                set.map_err(name_variable(environment::CUSTOM_HEADERS))?;
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
        if self.has_credential_in_code() || has_credential(headers) {
            if let Some(Secret(key)) = &self.api_key {
                set_api_key(headers, "the API key", key)?;
            }
            if let Some(Secret(token)) = &self.auth_token {
                set_auth_token(headers, "the auth token", token)?;
            }
            return Ok(());
        }
        match (&self.env.api_key, &self.env.auth_token) {
            (Some(Secret(key)), token) => {
                if token.is_some() {
                    log::warn!(
                        target: "anthropic_blocking",
                        "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set: the API key is used"
                    );
                }
                set_api_key(headers, environment::API_KEY, key)
            }
            (None, Some(Secret(token))) => set_auth_token(headers, environment::AUTH_TOKEN, token),
            (None, None) => Ok(()),
        }
    }

    /// Whether a key, a token, or a header with either is set in code.
    fn has_credential_in_code(&self) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| name);
        self.api_key.is_some() || self.auth_token.is_some() || names.any(|name| is_credential(name))
    }
}

impl Client {
    /// Returns a client with the settings of the environment; see [`ClientBuilder::env`].
    ///
    /// # Errors
    ///
    /// Kind [`Config`](crate::ErrorKind::Config) if no key is set, or a variable is unusable.
    pub fn from_env() -> Result<Client> {
        Client::builder().env().build()
    }

    /// Returns a client with this API key and every default. Of the environment, it uses only the
    /// proxy.
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
    /// Kind [`Config`](crate::ErrorKind::Config) if the key is empty, or contains white space or
    /// quotation marks.
    pub fn new(api_key: impl Into<String>) -> Result<Client> {
        Client::builder().api_key(api_key).build()
    }

    /// Returns a builder, which has every setting.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Returns the timeouts of a call with these settings, without a deadline.
fn default_timeouts(settings: &Settings) -> Timeouts {
    let timeout = settings.timeout.unwrap_or(Client::DEFAULT_TIMEOUT);
    Timeouts {
        connect: settings.connect_timeout,
        idle: settings.idle_timeout,
        response: (!settings.stream_underneath).then_some(timeout),
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
    fn key_precedes_token_and_code_precedes_environment() {
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
    fn code_precedes_environment_in_any_order() {
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
    fn defaults_are_those_in_the_docs() {
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
    fn variables_are_trimmed_and_blank_ones_ignored() {
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
    fn custom_headers_are_lines_and_code_precedes_them() {
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
    fn environment_sets_base_url_unless_code_does() {
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
            assert_eq!(client.core().base_url.as_str(), expected);
        }
    }

    #[test]
    fn error_names_unusable_variable() {
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
                "the base URL \"gw.example\" must begin with https://; the value comes from \
                 ANTHROPIC_BASE_URL",
            ),
            (
                vec![key, ("ANTHROPIC_CUSTOM_HEADERS", "host: gw.example")],
                "the header host is the client's own; the value comes from ANTHROPIC_CUSTOM_HEADERS",
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
    fn build_fails_on_unreadable_variable() {
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
