//! A clock for tests in which waiting takes no time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client::ClientBuilder;
use crate::clock::{Clock, ManualTime};

/// A clock for tests: sleeps take no time, and are recorded.
///
/// Give it to a client with [`ClientBuilder::clock`](crate::ClientBuilder::clock). Whenever the
/// client would sleep, the clock jumps to the end of the sleep instead, and records its length
/// ([`sleeps`](ManualClock::sleeps)). A [`held`](ManualClock::held) clock does not jump: sleeping
/// threads wait until the test moves it. Clones share the time.
///
/// The budget that a client makes for itself uses the clock of the client; a budget from
/// [`Budget::new`](crate::Budget::new) uses the real clock.
///
/// All threads share one time: when the clock jumps for the sleep of one thread, time also passes
/// for the other threads and for responses that are on their way.
///
/// Connect and idle timeouts of sockets pass in real time, not on this clock. So do the
/// [limits](super::TestServer::limit) of a [`TestServer`](super::TestServer).
///
/// ```
/// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
/// use anthropic_blocking::{Client, MessageRequest};
/// use std::time::Duration;
///
/// let server = TestServer::start()?;
/// server.push_all([Reply::rate_limited(30), Reply::message("at last")]);
/// let clock = ManualClock::new();
/// let client =
///     Client::builder().api_key("test").base_url(server.base_url()).clock(&clock).build()?;
///
/// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
/// client.messages().create(&request)?;
/// assert!(clock.elapsed() >= Duration::from_secs(30));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<ManualTime>);

impl ManualClock {
    /// Creates a clock that jumps over every sleep. It begins at 2026-01-01 00:00 UTC.
    #[expect(
        clippy::new_without_default,
        reason = "of three constructors, none is the default"
    )]
    pub fn new() -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(new_year(), false)))
    }

    /// Creates a clock that stands still until [`advance`](ManualClock::advance) is called.
    ///
    /// It begins at 2026-01-01 00:00 UTC. Threads that sleep on it block meanwhile.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest};
    /// use std::{thread, time::Duration};
    ///
    /// let server = TestServer::start()?;
    /// server.push(Reply::rate_limited(30));
    /// let clock = ManualClock::held();
    /// let client =
    ///     Client::builder().api_key("test").base_url(server.base_url()).clock(&clock).build()?;
    ///
    /// let waiting = thread::spawn({
    ///     let client = client.clone();
    ///     let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    ///     move || client.messages().create(&request)
    /// });
    /// // The call waits for the rate limit; a shutdown ends the wait.
    /// assert!(clock.wait_for_sleeps(1, Duration::from_secs(10)));
    /// client.shutdown();
    /// let error = waiting.join().expect("no panic").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Shutdown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn held() -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(new_year(), true)))
    }

    /// Creates a clock that jumps over every sleep and begins at this time.
    pub fn showing(wall: SystemTime) -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(wall, false)))
    }

    /// Moves the time on, and wakes the threads whose sleep is over.
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }

    /// Returns how much time has passed on this clock.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Returns the length of each sleep, in the order in which they began, except those already
    /// [taken](ManualClock::take_sleeps).
    pub fn sleeps(&self) -> Vec<Duration> {
        self.0.sleeps()
    }

    /// Returns the length of each sleep that began since the last call, in order, and drops the
    /// record.
    ///
    /// For long runs, whose sleeps would fill the memory.
    pub fn take_sleeps(&self) -> Vec<Duration> {
        self.0.take_sleeps()
    }

    /// Blocks, in real time, until `count` sleeps have begun since the clock was made, at most for
    /// `timeout`; returns whether they have.
    #[must_use]
    pub fn wait_for_sleeps(&self, count: usize, timeout: Duration) -> bool {
        self.0.wait_for_sleeps(count, timeout)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::Manual(Arc::clone(&self.0))
    }
}

/// 2026-01-01 00:00 UTC.
fn new_year() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

impl ClientBuilder {
    /// Uses a manual clock instead of the real one.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::ManualClock;
    ///
    /// let clock = ManualClock::new();
    /// let client = Client::builder().api_key("test").clock(&clock).build()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    #[cfg(feature = "testing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub fn clock(mut self, clock: &ManualClock) -> ClientBuilder {
        self.clock = clock.clock();
        self
    }
}
