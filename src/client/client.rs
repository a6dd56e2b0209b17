//! The client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::options::Options;
use crate::budget::{Budget, Cost, ModelClass};
use crate::call::totals::{SharedTotals, Totals};
use crate::call::{Call, Core, Settings};

/// A handle to the Claude API, for any number of threads.
///
/// Cheap to clone: clones, and copies made by [`with`](Client::with), share the connections, the
/// budget, the totals and the shutdown. Nothing is sent before the first call.
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
    /// Where calls go by default.
    pub const DEFAULT_BASE_URL: &'static str = "https://api.anthropic.com";

    /// The `anthropic-version` by default.
    pub const DEFAULT_VERSION: &'static str = "2023-06-01";

    /// How long to wait by default for an answer that comes in one piece: 10 minutes.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

    pub(super) fn from_parts(core: Core, settings: Settings) -> Client {
        Client {
            core: Arc::new(core),
            settings: Arc::new(settings),
        }
    }

    /// A cheap copy with other settings, for one call or many: what [`Options`] has, which is timeouts,
    /// the deadline, the retry policy, headers, betas, and how answers and estimates come.
    ///
    /// The base URL, the proxy, TLS and the budget with its limits are those of the client, and stay:
    /// another value of these takes another client, which may have the same
    /// [budget](crate::ClientBuilder::budget). Another key can be given as the header `x-api-key`; its
    /// requests count in the same budget. The [table of settings](crate::ClientBuilder#settings-and-defaults)
    /// says this of each.
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

    /// Ends all calls of this client and of every copy: waiting threads wake up, sockets are cut,
    /// and each call returns an error of kind [`Shutdown`](crate::ErrorKind::Shutdown), as every
    /// later one does. Does not block. Name resolution and a TCP connection being set up are not
    /// interrupted.
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

    /// What this client and its copies may send when: limits, use, who waits for what. Pass it to
    /// the builder of another client ([`ClientBuilder::budget`](crate::ClientBuilder::budget)) to share the limits with it.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    ///
    /// let one = Client::new("sk-ant-api03-example")?;
    /// // Another key of the same organization has the same limits.
    /// let other = Client::builder().api_key("sk-ant-api03-other").budget(one.budget()).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn budget(&self) -> &Budget {
        &self.core.budget
    }

    /// What this client and its copies have done so far: calls, attempts, tokens, waits.
    ///
    /// ```no_run
    /// # let client = anthropic_blocking::Client::from_env()?;
    /// let totals = client.totals();
    /// eprintln!(
    ///     "{} calls, {} refused by limits, {:?} of waiting",
    ///     totals.all.calls, totals.all.rate_limited, totals.all.waited.total(),
    /// );
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn totals(&self) -> Totals {
        self.settings.totals.totals()
    }

    /// A copy whose calls can be ended by themselves, and end with this client's. It has totals of its
    /// own, which are part of this client's as well, and waits for limits and overloads as long as it
    /// takes.
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

    /// A call with this client's settings.
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
            answer_timeout: Some(self.settings.timeout.unwrap_or(Client::DEFAULT_TIMEOUT)),
            // All endpoints of batches share one limit of requests.
            cost: path
                .starts_with("/v1/messages/batches")
                .then(|| (ModelClass::named("batches"), Cost::request())),
            model: None,
            start: self.core.sleeper.clock().now(),
        }
    }

    /// A call whose answer comes as a stream, which is never silent for long.
    pub(crate) fn streaming_call<'a>(
        &'a self,
        method: &'static str,
        path: &'a str,
        body: Option<&'a [u8]>,
    ) -> Call<'a> {
        Call {
            answer_timeout: None,
            ..self.call(method, path, body)
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.core.base.as_str())
            .field("timeout", &self.settings.timeout)
            .field("idle_timeout", &self.settings.idle_timeout)
            .field("deadline", &self.settings.deadline)
            .field("retry", &self.settings.retry)
            .finish_non_exhaustive()
    }
}
