//! What calls wait for, and how long they did.

use std::fmt;
use std::iter::Copied;
use std::slice;
use std::time::Duration;

use super::dimension::Dimension;

/// What a request waits for.
///
/// ```
/// use anthropic_blocking::{Dimension, WaitCause};
///
/// let cause = WaitCause::Server(Dimension::OutputTokens);
/// assert_eq!(cause.to_string(), "the server's limit of output tokens per minute");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitCause {
    /// The server asked to wait.
    Pause,
    /// The host is overloaded.
    Overload,
    /// The caller's own limit.
    Limit(Dimension),
    /// The server's limit.
    Server(Dimension),
    /// The pace, which grows at the start of a run.
    Pace(Dimension),
    /// The first answer, which shows the server's limits.
    FirstResponse,
    /// An end of another request, for there are too many at once.
    Concurrency,
    /// Requests of its class that came before it.
    Turn,
    /// Time to pass after a failure.
    Backoff,
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitCause::Pause => f.write_str("the server asked to wait"),
            WaitCause::Overload => f.write_str("the server is overloaded"),
            WaitCause::Limit(dimension) => write!(f, "own limit of {dimension} per minute"),
            WaitCause::Server(dimension) => {
                write!(f, "the server's limit of {dimension} per minute")
            }
            WaitCause::Pace(dimension) => write!(f, "pace of {dimension}"),
            WaitCause::FirstResponse => f.write_str("the first answer will show the limits"),
            WaitCause::Concurrency => f.write_str("the server allows no more requests at once"),
            WaitCause::Turn => f.write_str("others came before"),
            WaitCause::Backoff => f.write_str("backoff after a failure"),
        }
    }
}

/// How long was waited, by cause.
///
/// ```
/// # fn show(message: &anthropic_blocking::Message) {
/// for (cause, wait) in &message.waited() {
///     println!("{wait:?}: {cause}");
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waits {
    by_cause: Vec<(WaitCause, Duration)>,
}

impl Waits {
    /// How long in all.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    /// use std::time::Duration;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// server.push(Reply::rate_limited(30));
    /// let message = client.messages().create(&request)?;
    /// assert!(message.waited().total() >= Duration::from_secs(30));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn total(&self) -> Duration {
        self.iter()
            .fold(Duration::ZERO, |sum, (_, wait)| sum.saturating_add(wait))
    }

    /// How long for this cause.
    ///
    /// ```
    /// use anthropic_blocking::WaitCause;
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// server.push(Reply::status(500));
    /// let waited = client.messages().create(&request)?.waited();
    /// assert_eq!(waited.of(WaitCause::Backoff), clock.elapsed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(&self, cause: WaitCause) -> Duration {
        let found = self.iter().find(|(other, _)| *other == cause);
        found.map_or(Duration::ZERO, |(_, wait)| wait)
    }

    /// Each cause that was waited for, and how long, in the order in which they came up.
    ///
    /// ```
    /// use anthropic_blocking::WaitCause;
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// server.push_all([Reply::status(500), Reply::overloaded()]);
    /// let waited = client.messages().create(&request)?.waited();
    /// let causes: Vec<WaitCause> = waited.iter().map(|(cause, _)| cause).collect();
    /// assert_eq!(causes, [WaitCause::Backoff, WaitCause::Overload]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (WaitCause, Duration)> + '_ {
        self.by_cause.iter().copied()
    }

    /// Whether nothing was waited for.
    ///
    /// ```
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 64);
    /// # let request = request.user("Hello?");
    /// let message = client.messages().create(&request)?;
    /// assert!(message.waited().is_empty(), "{:?}", message.waited());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.by_cause.is_empty()
    }

    pub(crate) fn add(&mut self, cause: WaitCause, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        match self.by_cause.iter_mut().find(|(other, _)| *other == cause) {
            Some((_, sum)) => *sum = sum.saturating_add(wait),
            None => self.by_cause.push((cause, wait)),
        }
    }

    /// What was added since there was no more than `before`.
    pub(crate) fn since(&self, before: &Waits) -> Waits {
        let mut waits = Waits::default();
        for (cause, wait) in self.iter() {
            waits.add(cause, wait.saturating_sub(before.of(cause)));
        }
        waits
    }

    pub(crate) fn add_all(&mut self, others: &Waits) {
        others
            .iter()
            .for_each(|(cause, wait)| self.add(cause, wait));
    }
}

impl<'a> IntoIterator for &'a Waits {
    type Item = (WaitCause, Duration);
    type IntoIter = Copied<slice::Iter<'a, (WaitCause, Duration)>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_cause.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_by_cause() {
        let mut waits = Waits::default();
        assert!(waits.is_empty() && waits.total().is_zero());
        waits.add(WaitCause::Pause, Duration::ZERO);
        assert!(waits.is_empty());
        waits.add(WaitCause::Pause, Duration::from_secs(2));
        waits.add(WaitCause::Backoff, Duration::from_secs(1));
        let copy = waits.clone();
        waits.add_all(&copy);
        assert_eq!(waits.of(WaitCause::Pause), Duration::from_secs(4));
        assert_eq!(waits.of(WaitCause::Turn), Duration::ZERO);
        assert_eq!(waits.total(), Duration::from_secs(6));
        let since = waits.since(&copy);
        assert_eq!(since, copy);
        assert!(waits.since(&waits).is_empty());
        waits.add(WaitCause::Backoff, Duration::MAX);
        assert_eq!(waits.total(), Duration::MAX);
    }
}
