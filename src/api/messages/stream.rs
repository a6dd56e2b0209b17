//! Streamed answers: read event by event, or folded into a message at once.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use log::debug;

use super::event_reader::{Arrival, Feed, MESSAGE, hand_out, unreadable};
use crate::call::classify::{FailureDetails, classify};
use crate::call::response::Failure;
use crate::call::usage::AttemptUsage;
use crate::call::{Call, Core, LOG};
use crate::error::{Cause, Error, Result, display_duration};
use crate::http::Response;
use crate::stream::accumulate::Accumulator;
use crate::types::{
    ApiError, Attempt, ErrorKind, Message, RateLimits, RawEvent, RequestId, ResponseMeta,
    StreamEvent, Waits,
};

/// A streamed answer: an iterator over its events, from
/// [`Messages::stream`](crate::Messages::stream).
///
/// Each `next` blocks until an event arrives, at most for the idle timeout. The first error is the
/// last item. It carries what had arrived ([`Error::partial`]); nothing that was handed out is ever
/// sent again, so that a stream that broke is not continued by itself.
///
/// Dropping the stream before its end cuts the connection. A stream may move to another thread.
/// Until it has ended or was dropped it counts as under way: a thread that holds one and begins
/// another may wait for itself, where limits are tight.
///
/// ```no_run
/// use anthropic_blocking::{Client, MessageRequest};
/// use std::io::Write;
///
/// let client = Client::from_env()?;
/// let request = MessageRequest::new("claude-haiku-4-5", 1024).user("Tell me a story.");
/// let mut stream = client.messages().stream(&request)?;
/// for text in stream.text_deltas() {
///     print!("{}", text?);
///     let _ = std::io::stdout().flush();
/// }
/// let message = stream.final_message()?;
/// println!("\n{} tokens", message.usage.output_tokens);
/// # Ok::<(), anthropic_blocking::Error>(())
/// ```
#[must_use = "dropping a stream cuts its connection"]
pub struct MessageStream {
    /// What was read before the stream was handed out.
    ready: VecDeque<StreamEvent>,
    /// `None` once the stream has ended, well or not.
    feed: Option<Box<Feed>>,
    accumulator: Accumulator,
    /// What `partial` shows before the message has begun.
    nothing: Message,
    meta: ResponseMeta,
    action: String,
    core: Arc<Core>,
    /// `None` once it is settled.
    attempt_usage: Option<AttemptUsage>,
    opened: Instant,
    failed: Option<StreamFailure>,
}

/// How a stream failed, for those who ask again.
struct StreamFailure {
    kind: ErrorKind,
    text: String,
    api_error: Option<Box<ApiError>>,
    retryable: bool,
}

impl MessageStream {
    /// Sends the call, and waits for the first content.
    pub(crate) fn open(call: &Call<'_>, core: &Arc<Core>) -> Result<MessageStream> {
        let done = call.run(Opening::read)?;
        let opening = done.value;
        let mut stream = MessageStream {
            ready: opening.ready,
            feed: opening.feed,
            accumulator: opening.accumulator,
            nothing: Message::nothing(),
            meta: done.meta,
            action: call.action(),
            core: Arc::clone(core),
            attempt_usage: Some(done.attempt_usage),
            opened: core.sleeper.clock().now(),
            failed: None,
        };
        if stream.feed.is_none() {
            stream.finish();
        }
        Ok(stream)
    }

    /// The text as it arrives, without the other events; ends with the stream.
    ///
    /// ```no_run
    /// # let client = anthropic_blocking::Client::from_env()?;
    /// # let request = anthropic_blocking::MessageRequest::new("claude-haiku-4-5", 1024);
    /// let mut stream = client.messages().stream(&request)?;
    /// let text: String = stream.text_deltas().collect::<Result<_, _>>()?;
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn text_deltas(&mut self) -> TextDeltas<'_> {
        TextDeltas { stream: self }
    }

    /// Keeps no content, for answers of any length in flat memory: [`partial`](Self::partial),
    /// [`final_message`](Self::final_message) and errors then have everything but what was said.
    ///
    /// ```
    /// use anthropic_blocking::{MessageStream, Result};
    ///
    /// /// Hands on an answer of any length in flat memory.
    /// fn hand_on(stream: MessageStream, mut to: impl FnMut(&str)) -> Result<u64> {
    ///     let mut stream = stream.without_content();
    ///     for text in stream.text_deltas() {
    ///         to(&text?);
    ///     }
    ///     Ok(stream.final_message()?.usage.output_tokens)
    /// }
    /// ```
    pub fn without_content(mut self) -> MessageStream {
        self.accumulator.discard_content();
        self
    }

    /// What has arrived so far, up to the event handed out last or a few beyond it. The input of a
    /// tool call that is still being written is raw text.
    ///
    /// ```
    /// use anthropic_blocking::{MessageStream, Result};
    ///
    /// /// Reads until there is a whole sentence, and cuts the connection then.
    /// fn first_sentence(mut stream: MessageStream) -> Result<String> {
    ///     while let Some(event) = stream.next() {
    ///         event?;
    ///         let text = stream.partial().text();
    ///         if let Some(end) = text.find(". ") {
    ///             return Ok(text[..=end].to_owned());
    ///         }
    ///     }
    ///     Ok(stream.partial().text())
    /// }
    /// ```
    pub fn partial(&self) -> &Message {
        self.accumulator.message().unwrap_or(&self.nothing)
    }

    /// Reads to the end and gives the whole message.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest, Result};
    ///
    /// # fn ask(client: &Client, request: &MessageRequest) -> Result<()> {
    /// let mut stream = client.messages().stream(request)?;
    /// if let Some(first) = stream.text_deltas().next() {
    ///     println!("it begins: {}", first?);
    /// }
    /// println!("and the whole: {}", stream.final_message()?.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the stream: after an item that was an error, this fails as well.
    pub fn final_message(mut self) -> Result<Message> {
        self.ready.clear();
        while let Some(feed) = &mut self.feed {
            match feed.pump(
                &mut self.accumulator,
                self.attempt_usage.as_mut(),
                Accumulator::absorb,
            ) {
                Ok(Some(())) => {}
                Ok(None) => self.finish(),
                Err(failure) => return Err(self.fail(failure)),
            }
        }
        let partial = mem::take(&mut self.accumulator).into_message();
        if let Some(failed) = self.failed {
            let cause = match failed.api_error {
                Some(error) => Cause::Api {
                    status: None,
                    error,
                },
                None => Cause::Rejected(failed.text.into()),
            };
            return Err(Error::new(failed.kind, self.action, cause)
                .with_classification(failed.retryable, None, None)
                .with_answer(self.meta.request_id, self.meta.rate_limits)
                .with_attempts(self.meta.attempts)
                .with_partial(partial.map(Box::new)));
        }
        match partial {
            Some(mut message) => {
                message.meta = mem::take(&mut self.meta);
                Ok(message)
            }
            None => Err(self.fail(Failure::from(Cause::Truncated))),
        }
    }

    /// The id under which the server logged the meta, where it sent one.
    ///
    /// ```
    /// # fn log(stream: &anthropic_blocking::MessageStream) {
    /// if let Some(id) = stream.request_id() {
    ///     eprintln!("reading the answer of {id}");
    /// }
    /// # }
    /// ```
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// What the response headers said about rate limits, when the stream began.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let server = TestServer::start()?;
    /// # let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// let (name, value) = ("anthropic-ratelimit-requests-remaining", "49");
    /// server.push(Reply::message("Hello!").header(name, value));
    /// let stream = client.messages().stream(&request)?;
    /// let requests = stream.rate_limits().requests.unwrap_or_default();
    /// assert_eq!(requests.remaining, Some(49));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// How long the attempts waited before they were sent, and for what.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// # let client = Client::builder().api_key("test").base_url(server.base_url());
    /// # let client = client.clock(&clock).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// server.push(Reply::rate_limited(30));
    /// let stream = client.messages().stream(&request)?;
    /// // Not the model was slow, the limits were tight.
    /// assert!(stream.waited().total().as_secs() >= 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }

    /// Every HTTP meta that it took to begin this stream, its own last.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, ErrorKind, MessageRequest};
    ///
    /// # let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// # let client = Client::builder().api_key("test").base_url(server.base_url());
    /// # let client = client.clock(&clock).build()?;
    /// # let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// server.push(Reply::overloaded());
    /// let stream = client.messages().stream(&request)?;
    /// let failures: Vec<_> = stream.attempts().iter().map(|attempt| attempt.failure).collect();
    /// assert_eq!(failures, [Some(ErrorKind::Overloaded), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    fn finish(&mut self) {
        self.settle();
        if let Some(feed) = self.feed.take() {
            self.core.endings.drain(feed.body);
        }
    }

    /// The message is complete, whatever becomes of its stream.
    fn settle(&mut self) {
        if let Some(attempt_usage) = self.attempt_usage.take() {
            attempt_usage.settle(&self.partial().usage);
        }
    }

    fn fail(&mut self, failure: Failure) -> Error {
        self.feed = None;
        // It stands on ordinary successes and means nothing there.
        self.meta.rate_limits.retry_after = None;
        let mut classification = classify(&FailureDetails {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: false,
            retry_after: None,
            should_retry: None,
        });
        let stopped = self.core.sleeper.is_stopped();
        if let Some(attempt_usage) = self.attempt_usage.take() {
            attempt_usage.fail(&classification, &failure, &self.meta.rate_limits);
        }
        if stopped {
            classification.kind = ErrorKind::Shutdown;
        }
        let kind = classification.kind;
        let meta = &mut self.meta;
        meta.request_id = meta.request_id.take().or(failure.request_id);
        let took = self
            .core
            .sleeper
            .clock()
            .now()
            .saturating_duration_since(self.opened);
        if let Some(attempt) = meta.attempts.last_mut() {
            attempt.failure = Some(kind);
            attempt.delivery = failure.delivery;
            attempt.took = attempt.took.saturating_add(took);
        }
        let cause = if stopped {
            Cause::Shutdown
        } else {
            failure.cause
        };
        debug!(target: LOG, "{}: {} after {}", self.action, cause.brief(), display_duration(took));
        let retryable = classification.is_retryable() && !stopped;
        self.failed = Some(StreamFailure {
            kind,
            text: cause.to_string(),
            api_error: match &cause {
                Cause::Api { error, .. } => Some(error.clone()),
                _ => None,
            },
            retryable,
        });
        let meta = self.meta.clone();
        let reason = "the stream is not begun again because part of it was handed out";
        let reason = retryable.then(|| reason.to_owned());
        Error::new(kind, self.action.clone(), cause)
            .with_classification(retryable, classification.advice, reason)
            .with_answer(meta.request_id, meta.rate_limits)
            .with_attempts(meta.attempts)
            .with_partial(failure.partial)
    }
}

impl Iterator for MessageStream {
    type Item = Result<StreamEvent>;

    fn next(&mut self) -> Option<Result<StreamEvent>> {
        if let Some(event) = self.ready.pop_front() {
            return Some(Ok(event));
        }
        match self
            .feed
            .as_mut()?
            .pump(&mut self.accumulator, self.attempt_usage.as_mut(), hand_out)
        {
            Ok(Some(event)) => {
                if self.accumulator.is_complete() {
                    self.settle();
                }
                Some(Ok(event))
            }
            Ok(None) => {
                self.finish();
                None
            }
            Err(failure) => Some(Err(self.fail(failure))),
        }
    }
}

impl std::iter::FusedIterator for MessageStream {}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream")
            .field("request_id", &self.meta.request_id)
            .field("ended", &self.feed.is_none())
            .finish_non_exhaustive()
    }
}

/// The text of a stream as it arrives; from [`MessageStream::text_deltas`].
///
/// ```
/// use anthropic_blocking::{Result, TextDeltas};
///
/// fn print(deltas: TextDeltas<'_>) -> Result<()> {
///     deltas.map(|text| text.map(|text| print!("{text}"))).collect()
/// }
/// ```
#[derive(Debug)]
#[must_use = "the stream is read as the iterator goes"]
pub struct TextDeltas<'a> {
    stream: &'a mut MessageStream,
}

impl Iterator for TextDeltas<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            match self.stream.next()? {
                Ok(event) => {
                    if let Some(text) = event.as_text().filter(|text| !text.is_empty()) {
                        return Some(Ok(text.to_owned()));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::iter::FusedIterator for TextDeltas<'_> {}

/// A stream up to its first content: until then, it can be begun again without anyone noticing.
struct Opening {
    ready: VecDeque<StreamEvent>,
    feed: Option<Box<Feed>>,
    accumulator: Accumulator,
}

impl Opening {
    fn read(answer: &mut Response, attempt_usage: &mut AttemptUsage) -> Result<Opening, Failure> {
        let mut opening = Opening {
            ready: VecDeque::new(),
            feed: None,
            accumulator: Accumulator::new(),
        };
        let mut feed = match Arrival::of(answer)? {
            Arrival::Stream(feed) => feed,
            Arrival::Whole(message) => {
                opening.ready = StreamEvent::of_message(*message);
                for event in &opening.ready {
                    opening.accumulator.apply(&RawEvent::Event(event.clone()));
                }
                let room = opening.accumulator.room();
                room.map_err(|error| unreadable(MESSAGE, error.into()))?;
                return Ok(opening);
            }
        };
        while let Some(event) =
            feed.pump(&mut opening.accumulator, Some(attempt_usage), hand_out)?
        {
            let is_content = !matches!(
                event,
                StreamEvent::MessageStart(_) | StreamEvent::Ping(_) | StreamEvent::Other(_)
            );
            opening.ready.push_back(event);
            if is_content || opening.ready.len() >= MOST_BEFORE_CONTENT {
                break;
            }
        }
        opening.feed = Some(feed);
        Ok(opening)
    }
}

/// A stream that says so much before its first content is handed out without it.
const MOST_BEFORE_CONTENT: usize = 100;
