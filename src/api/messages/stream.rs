//! A message as a stream of events.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use log::debug;

use super::event_reader::{
    EXPECTED_MESSAGE, EventReader, MessageResponse, apply_and_return, unreadable,
};
use crate::call::classify::{FailureDetails, classify};
use crate::call::response::Failure;
use crate::call::usage::AttemptUsage;
use crate::call::{Call, Core, LOG};
use crate::error::{Cause, Error, Result, display_duration};
use crate::http::Response;
use crate::stream::accumulate::Accumulator;
use crate::types::{
    ApiError, Attempt, DecodedEvent, ErrorKind, Message, RateLimits, RequestId, ResponseMeta,
    StreamEvent, Waits,
};

/// A message that is being streamed: an iterator over its events, from
/// [`Messages::stream`](crate::Messages::stream).
///
/// Each `next` blocks until an event arrives, at most for the client's idle timeout. The first
/// error is the last item, and carries the content that had arrived ([`Error::partial`]). A stream
/// that broke is not sent again, because its content was handed out.
///
/// Dropping the stream before its end closes the connection. A stream may move to another thread.
/// Until it has ended or was dropped, it counts as a request in flight: a thread that holds one
/// stream and opens another may wait for itself under tight limits.
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
#[must_use = "dropping a stream closes its connection"]
pub struct MessageStream {
    /// The events that were read before the stream was handed out.
    queued: VecDeque<StreamEvent>,
    /// `None` once the stream has ended or failed.
    reader: Option<Box<EventReader>>,
    accumulator: Accumulator,
    /// What `partial` returns before the first event of the message.
    empty: Message,
    meta: ResponseMeta,
    action: String,
    core: Arc<Core>,
    /// `None` once the usage is accounted for.
    attempt_usage: Option<AttemptUsage>,
    opened: Instant,
    failed: Option<StreamFailure>,
}

/// The failure of a stream, kept for `final_message`.
struct StreamFailure {
    kind: ErrorKind,
    text: String,
    api_error: Option<Box<ApiError>>,
    retryable: bool,
}

impl MessageStream {
    /// Sends the call, and blocks until the first content arrives.
    pub(super) fn open(call: &Call<'_>, core: &Arc<Core>) -> Result<MessageStream> {
        let done = call.run(StreamStart::read)?;
        let start = done.value;
        let mut stream = MessageStream {
            queued: start.queued,
            reader: start.reader,
            accumulator: start.accumulator,
            empty: Message::empty(),
            meta: done.meta,
            action: call.action(),
            core: Arc::clone(core),
            attempt_usage: Some(done.attempt_usage),
            opened: core.sleeper.clock().now(),
            failed: None,
        };
        if stream.reader.is_none() {
            stream.end();
        }
        Ok(stream)
    }

    /// Returns an iterator over the text as it arrives, without the other events. It ends with the
    /// stream, and blocks as the stream does.
    pub fn text_deltas(&mut self) -> TextDeltas<'_> {
        TextDeltas { stream: self }
    }

    /// Keeps no content, so that a message of any length takes constant memory:
    /// [`partial`](Self::partial), [`final_message`](Self::final_message) and errors then have
    /// everything but the content.
    ///
    /// ```
    /// use anthropic_blocking::{MessageStream, Result};
    ///
    /// fn forward(stream: MessageStream, mut write: impl FnMut(&str)) -> Result<u64> {
    ///     let mut stream = stream.without_content();
    ///     for text in stream.text_deltas() {
    ///         write(&text?);
    ///     }
    ///     Ok(stream.final_message()?.usage.output_tokens)
    /// }
    /// ```
    pub fn without_content(mut self) -> MessageStream {
        self.accumulator.discard_content();
        self
    }

    /// Returns the message as far as it has arrived: up to the event handed out last, or a few
    /// events beyond. The input of a tool call that is still incomplete is raw text.
    ///
    /// ```
    /// use anthropic_blocking::{MessageStream, Result};
    ///
    /// /// Reads until there is a whole sentence, then closes the connection.
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
        self.accumulator.message().unwrap_or(&self.empty)
    }

    /// Reads the stream to its end and returns the whole message. Blocks until the end, at most for
    /// the idle timeout between two events.
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
    /// Those of the stream. After an item that was an error, fails with an error of its kind.
    pub fn final_message(mut self) -> Result<Message> {
        self.queued.clear();
        while let Some(reader) = &mut self.reader {
            match reader.next_event(
                &mut self.accumulator,
                self.attempt_usage.as_mut(),
                Accumulator::apply_owned,
            ) {
                Ok(Some(())) => {}
                Ok(None) => self.end(),
                Err(failure) => return Err(self.end_with_error(failure)),
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
                .with_response(self.meta.request_id, self.meta.rate_limits)
                .with_attempts(self.meta.attempts)
                .with_partial(partial.map(Box::new)));
        }
        match partial {
            Some(mut message) => {
                message.meta = mem::take(&mut self.meta);
                Ok(message)
            }
            None => Err(self.end_with_error(Failure::from(Cause::Truncated))),
        }
    }

    /// Returns the id under which the server logged the request, if it sent one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// Returns the rate limits from the response headers, as they were when the stream began.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Returns how long the attempts waited before they were sent, and for what.
    ///
    /// ```
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// let client = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = client.clock(&clock).build()?;
    /// server.push(Reply::rate_limited(30));
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// let stream = client.messages().stream(&request)?;
    /// // The limits were tight; the model was not slow.
    /// assert!(stream.waited().total().as_secs() >= 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }

    /// Returns every HTTP attempt that it took to open this stream; the successful one is the last.
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// Ends a stream that is complete: accounts for the usage, and drains the rest of the body so
    /// that the connection can be used again.
    fn end(&mut self) {
        self.settle_usage();
        if let Some(reader) = self.reader.take() {
            self.core.drain_policy.drain(reader.body);
        }
    }

    fn settle_usage(&mut self) {
        if let Some(attempt_usage) = self.attempt_usage.take() {
            attempt_usage.settle(&self.partial().usage);
        }
    }

    /// Ends a stream that failed: accounts for the usage, and returns the error.
    fn end_with_error(&mut self, failure: Failure) -> Error {
        self.reader = None;
        // The header also comes with ordinary successes, and means nothing there.
        self.meta.rate_limits.retry_after = None;
        let mut classification = classify(&FailureDetails {
            cause: &failure.cause,
            delivery: failure.delivery,
            repeatable: false,
            retry_after: None,
            should_retry: None,
        });
        let sleeper = &self.core.sleeper;
        let is_stopped = sleeper.is_stopped();
        if let Some(attempt_usage) = self.attempt_usage.take() {
            attempt_usage.fail_call(&classification, &failure, &self.meta.rate_limits);
        }
        if is_stopped {
            classification.kind = ErrorKind::Shutdown;
        }
        let kind = classification.kind;
        let took = sleeper.clock().now().saturating_duration_since(self.opened);
        let meta = &mut self.meta;
        meta.request_id = meta.request_id.take().or(failure.request_id);
        if let Some(attempt) = meta.attempts.last_mut() {
            attempt.failure = Some(kind);
            attempt.delivery = failure.delivery;
            attempt.took = attempt.took.saturating_add(took);
        }
        let cause = match is_stopped {
            true => Cause::Shutdown,
            false => failure.cause,
        };
        debug!(target: LOG, "{}: {} after {}", self.action, cause.brief(), display_duration(took));
        let retryable = classification.is_retryable() && !is_stopped;
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
        let reason = "the stream is not restarted, because a part of it was handed out";
        let reason = retryable.then(|| reason.to_owned());
        Error::new(kind, self.action.clone(), cause)
            .with_classification(retryable, classification.advice, reason)
            .with_response(meta.request_id, meta.rate_limits)
            .with_attempts(meta.attempts)
            .with_partial(failure.partial)
    }
}

impl Iterator for MessageStream {
    type Item = Result<StreamEvent>;

    fn next(&mut self) -> Option<Result<StreamEvent>> {
        if let Some(event) = self.queued.pop_front() {
            return Some(Ok(event));
        }
        match self.reader.as_mut()?.next_event(
            &mut self.accumulator,
            self.attempt_usage.as_mut(),
            apply_and_return,
        ) {
            Ok(Some(event)) => {
                // From here on the message is complete, even if the caller drops the stream.
                if self.accumulator.is_complete() {
                    self.settle_usage();
                }
                Some(Ok(event))
            }
            Ok(None) => {
                self.end();
                None
            }
            Err(failure) => Some(Err(self.end_with_error(failure))),
        }
    }
}

impl std::iter::FusedIterator for MessageStream {}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream")
            .field("request_id", &self.meta.request_id)
            .field("ended", &self.reader.is_none())
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
#[must_use = "the iterator reads the stream as it advances"]
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

/// A stream up to its first content. Until then nothing was handed out, and a failure can be
/// retried.
struct StreamStart {
    queued: VecDeque<StreamEvent>,
    /// `None` if the response was a whole message.
    reader: Option<Box<EventReader>>,
    accumulator: Accumulator,
}

impl StreamStart {
    /// Reads events until the first content, or until there are [`MAX_QUEUED`] of them.
    fn read(
        response: &mut Response,
        attempt_usage: &mut AttemptUsage,
    ) -> Result<StreamStart, Failure> {
        let mut start = StreamStart {
            queued: VecDeque::new(),
            reader: None,
            accumulator: Accumulator::new(),
        };
        let mut reader = match MessageResponse::read(response)? {
            MessageResponse::Events(reader) => reader,
            MessageResponse::Whole(message) => {
                start.queued = StreamEvent::of_message(*message);
                for event in &start.queued {
                    start.accumulator.apply(&DecodedEvent::Event(event.clone()));
                }
                start
                    .accumulator
                    .check_size()
                    .map_err(|error| unreadable(EXPECTED_MESSAGE, error.into()))?;
                return Ok(start);
            }
        };
        let accumulator = &mut start.accumulator;
        while let Some(event) =
            reader.next_event(accumulator, Some(attempt_usage), apply_and_return)?
        {
            let is_content = !matches!(
                event,
                StreamEvent::MessageStart(_) | StreamEvent::Ping(_) | StreamEvent::Other(_)
            );
            start.queued.push_back(event);
            if is_content || start.queued.len() >= MAX_QUEUED {
                break;
            }
        }
        start.reader = Some(reader);
        Ok(start)
    }
}

/// After how many events without content a stream is handed out: pings must not hold it back
/// without end, nor fill the memory.
const MAX_QUEUED: usize = 100;
