//! The handle through which every call is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::options::Options;
use crate::budget::{Budget, Cost, ModelClass};
use crate::call::totals::{SharedTotals, Totals};
use crate::call::{Call, Core, Settings};

/// A handle to the Claude API, for any number of threads.
///
/// Cheap to clone. Clones, and copies made by [`with`](Client::with), share the connections, the
/// budget, the totals and the shutdown. The client sends nothing before the first call.
///
/// ```no_run
/// use anthropic_blocking::{Client, MessageRequest};
/// use std::thread;
///
/// let client = Client::from_env()?;
/// thread::scope(|scope| {
///     for town in ["Lima", "Oslo", "Pune"] {
///         let client = &client;
///         scope.spawn(move || {
///             let request = MessageRequest::new("claude-haiku-4-5", 256)
///                 .user(format!("One sentence about {town}."));
///             match client.messages().create(&request) {
///                 Ok(message) => println!("{}", message.text()),
///                 Err(error) => eprintln!("{town}: {error}"),
///             }
///         });
///     }
/// });
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    settings: Arc<Settings>,
}

impl Client {
    /// The default base URL.
    pub const DEFAULT_BASE_URL: &'static str = "https://api.anthropic.com";

    /// The default value of the `anthropic-version` header.
    pub const DEFAULT_VERSION: &'static str = "2023-06-01";

    /// The default timeout of a response that comes in one piece: 10 minutes.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

    pub(super) fn from_parts(core: Core, settings: Settings) -> Client {
        Client {
            core: Arc::new(core),
            settings: Arc::new(settings),
        }
    }

    /// Returns a cheap copy with other settings, for one call or many: [`Options`] has timeouts,
    /// the deadline, the retry policy, headers, betas, streaming underneath and the estimate of
    /// input tokens.
    ///
    /// The copy keeps the base URL, the proxy, TLS and the budget with its limits. To change one of
    /// these, build another client, which may share the [budget](crate::ClientBuilder::budget). The
    /// header `x-api-key` sets another key for a copy, whose requests count in the same budget. The
    /// [table of settings](crate::ClientBuilder#settings-and-defaults) lists what a copy can
    /// change.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest, Options};
    /// use std::time::Duration;
    ///
    /// let client = Client::from_env()?;
    /// let hurried = client.with(Options::new().deadline(Duration::from_secs(20)));
    /// let request = MessageRequest::new("claude-haiku-4-5", 256).user("Quick: 17 × 23?");
    /// println!("{}", hurried.messages().create(&request)?.text());
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[must_use]
    pub fn with(&self, options: Options) -> Client {
        let mut settings = Settings::clone(&self.settings);
        options.apply(&mut settings);
        Client {
            core: Arc::clone(&self.core),
            settings: Arc::new(settings),
        }
    }

    /// Ends all calls of this client and of every copy: wakes waiting threads and closes
    /// connections. Each call returns an error of kind [`Shutdown`](crate::ErrorKind::Shutdown), as
    /// does every later call. Does not block. Does not interrupt the lookup of a host's name, nor a
    /// TCP connection that is being set up.
    ///
    /// ```
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest};
    ///
    /// let client = Client::new("sk-ant-api03-example")?;
    /// client.shutdown();
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// let error = client.messages().create(&request).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Shutdown);
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn shutdown(&self) {
        self.core.sleeper.stop();
        self.core.budget.wake_all();
        self.core.transport.shutdown();
    }

    /// Returns the budget, which decides when this client and its copies may send: limits, usage,
    /// and which requests wait for what. Pass it to [`ClientBuilder::budget`](crate::ClientBuilder::budget)
    /// to share the limits with another client, such as one with another key of the same
    /// organization.
    pub fn budget(&self) -> &Budget {
        &self.core.budget
    }

    /// Returns what this client and its copies have done so far: calls, attempts, tokens, waits.
    pub fn totals(&self) -> Totals {
        self.settings.totals.totals()
    }

    /// Returns a copy for a run of many requests. Its calls can be cancelled without those of the
    /// client, and end with those of the client. It has totals of its own, which count in the
    /// client's totals as well, and no limit to waits for rate limits and overloads.
    pub(crate) fn for_run(&self) -> Client {
        let mut settings = Settings::clone(&self.settings);
        settings.totals = SharedTotals::child(&settings.totals);
        settings.cancel = self.settings.cancel.child();
        settings.retry = settings.retry.max_wait(Duration::MAX);
        Client {
            core: Arc::clone(&self.core),
            settings: Arc::new(settings),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Returns a call with this client's settings, not yet sent.
    pub(crate) fn call<'a>(
        &'a self,
        method: &'static str,
        path: &'a str,
        body: Option<&'a [u8]>,
    ) -> Call<'a> {
        Call {
            core: &self.core,
            settings: &self.settings,
            method,
            path,
            body,
            repeatable: false,
            response_timeout: Some(self.settings.timeout.unwrap_or(Client::DEFAULT_TIMEOUT)),
            // The server counts requests to all endpoints of batches against one limit.
            cost: path
                .starts_with(BATCHES_PATH)
                .then(|| (ModelClass::named("batches"), Cost::request())),
            model: None,
            start: self.core.sleeper.clock().now(),
        }
    }

    /// Returns a call whose response is streamed: the idle timeout limits it, and no other timeout.
    pub(crate) fn streaming_call<'a>(
        &'a self,
        method: &'static str,
        path: &'a str,
        body: Option<&'a [u8]>,
    ) -> Call<'a> {
        Call {
            response_timeout: None,
            ..self.call(method, path, body)
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.core.base_url.as_str())
            .field("timeout", &self.settings.timeout)
            .field("idle_timeout", &self.settings.idle_timeout)
            .field("deadline", &self.settings.deadline)
            .field("retry", &self.settings.retry)
            .finish_non_exhaustive()
    }
}

/// How the paths of the endpoints of batches begin.
const BATCHES_PATH: &str = "/v1/messages/batches";
