//! A clock for tests that wait without waiting.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client::ClientBuilder;
use crate::clock::{Clock, ManualTime};

/// A clock for tests: waits take no time, and can be counted.
///
/// Give it to a client with [`ClientBuilder::clock`](crate::ClientBuilder::clock). Whenever the
/// client would sleep, the clock jumps to the end of the sleep instead, and notes how long it was
/// ([`sleeps`](ManualClock::sleeps)). A [`held`](ManualClock::held) clock does not jump: its
/// sleepers wait until the test moves it. Clones share the time.
///
/// A client's own budget goes by the client's clock; one that you made with
/// [`Budget::new`](crate::Budget::new) goes by the machine's.
///
/// It is one time for all: where a thread sleeps and the clock jumps, time passes for the others as
/// well, and for answers that are on their way.
///
/// Sockets know nothing of this clock: connect and idle timeouts pass in real time. Nor does a
/// [`TestServer`](super::TestServer), whose [limits](super::TestServer::limit) fill up in a time of
/// their own.
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
    /// A clock that jumps over every sleep. It shows 2026-01-01 00:00 UTC.
    #[expect(
        clippy::new_without_default,
        reason = "two ways to make one, neither the default"
    )]
    pub fn new() -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(new_year(), false)))
    }

    /// A clock that stands still until [`advance`](ManualClock::advance) is called; sleepers wait.
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
    /// // It waits for the limit. What does a shutdown do to it?
    /// assert!(clock.wait_for_sleeps(1, Duration::from_secs(10)));
    /// client.shutdown();
    /// let error = waiting.join().expect("no panic").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Shutdown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn held() -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(new_year(), true)))
    }

    /// A clock that jumps over every sleep and shows this time of day at first.
    pub fn showing(wall: SystemTime) -> ManualClock {
        ManualClock(Arc::new(ManualTime::new(wall, false)))
    }

    /// Moves the time on and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }

    /// How much time has passed on this clock.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// How long each sleep was, in the order in which they began, except those already taken.
    pub fn sleeps(&self) -> Vec<Duration> {
        self.0.sleeps()
    }

    /// All sleeps that began since the last call, in order; the clock forgets them.
    ///
    /// For long runs, whose sleeps would fill the memory.
    pub fn take_sleeps(&self) -> Vec<Duration> {
        self.0.take_sleeps()
    }

    /// Blocks, in real time, until `count` sleeps have begun since the clock was made, at most for
    /// `timeout`; whether they have.
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
    /// Takes the time from a test's clock.
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
