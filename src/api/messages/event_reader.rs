//! The body of a response to a request for a message, as events.

use crate::call::Call;
use crate::call::response::{Failure, parse_json, read_json, read_rest};
use crate::call::usage::AttemptUsage;
use crate::error::{BoxError, Cause, Phase, json_error};
use crate::http::{Fault, Response, ResponseBody};
use crate::stream::accumulate::Accumulator;
use crate::stream::sse::{Decoder, Event};
use crate::types::{EventError, Message, RawEvent, StreamEvent};

/// Reads a streamed answer to its end, and tells when it has begun; a whole message in its place, as
/// some gateways send it, is fine.
pub(super) fn read_message(
    answer: &mut Response,
    attempt_usage: &mut AttemptUsage,
    call: &Call<'_>,
    begun: &dyn Fn(),
) -> Result<Message, Failure> {
    let mut feed = match Arrival::of(answer)? {
        Arrival::Whole(message) => {
            begun();
            return Ok(*message);
        }
        Arrival::Stream(feed) => feed,
    };
    let mut accumulator = Accumulator::new();
    feed.pump(&mut accumulator, Some(attempt_usage), Accumulator::absorb)?;
    begun();
    while feed
        .pump(&mut accumulator, Some(attempt_usage), Accumulator::absorb)?
        .is_some()
    {
        if call.settings.cancel.is_aborted() {
            return Err(Failure::from(Cause::Shutdown));
        }
    }
    call.core.endings.drain(feed.body);
    accumulator
        .into_message()
        .ok_or_else(|| Failure::from(Cause::Truncated))
}

/// What an answer to a request for a stream turned out to be.
pub(super) enum Arrival {
    Stream(Box<Feed>),
    Whole(Box<Message>),
}

impl Arrival {
    /// Goes by the content type, or by the first bytes where that says neither.
    pub(super) fn of(answer: &mut Response) -> Result<Arrival, Failure> {
        let content_type = answer
            .header("content-type")
            .unwrap_or("")
            .to_ascii_lowercase();
        if content_type.contains("event-stream") {
            return Ok(Arrival::Stream(Feed::new(answer.take_body())));
        }
        if content_type.contains("json") {
            return Ok(Arrival::Whole(Box::new(read_json(answer, MESSAGE)?)));
        }
        let mut body = answer.take_body();
        let mut bytes = Vec::new();
        let first = loop {
            let start = bytes.len();
            bytes.resize(start + FIRST_READ, 0);
            let n = body.read(&mut bytes[start..])?;
            bytes.truncate(start + n);
            let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            match text.trim_ascii_start().first() {
                None if n > 0 && bytes.len() < FIRST_READ => {}
                first => break first.copied(),
            }
        };
        if !matches!(first, None | Some(b'{' | b'[' | b'<')) {
            return Ok(Arrival::Stream(Feed::after(&bytes, body)));
        }
        let whole = read_rest(&mut body, &mut bytes)?;
        let message = parse_json(&bytes, whole, answer, MESSAGE)?;
        Ok(Arrival::Whole(Box::new(message)))
    }
}

/// A stream on the wire.
pub(super) struct Feed {
    pub(super) body: ResponseBody,
    decoder: Decoder,
}

impl Feed {
    fn new(body: ResponseBody) -> Box<Feed> {
        Box::new(Feed {
            body,
            decoder: Decoder::new(),
        })
    }

    /// A stream of which these bytes were read already, fewer than the decoder has room for.
    fn after(bytes: &[u8], body: ResponseBody) -> Box<Feed> {
        let mut feed = Feed::new(body);
        let space = feed.decoder.space();
        let n = bytes.len().min(space.len());
        space[..n].copy_from_slice(&bytes[..n]);
        feed.decoder.filled(n);
        feed
    }

    /// Reads the next event, and has `fold` fold it into the message; `None` after `message_stop`.
    /// An end before that is a failure.
    pub(super) fn pump<T>(
        &mut self,
        accumulator: &mut Accumulator,
        mut attempt_usage: Option<&mut AttemptUsage>,
        fold: impl Fn(&mut Accumulator, RawEvent<'_>) -> T,
    ) -> Result<Option<T>, Failure> {
        if accumulator.is_complete() {
            return Ok(None);
        }
        let failure = loop {
            match self.decoder.next_event() {
                Ok(Some(event)) => match RawEvent::decode(event.name, event.data) {
                    Ok(Some(event)) => {
                        if let Some(attempt_usage) = &mut attempt_usage {
                            attempt_usage.see(&event);
                        }
                        let folded = fold(accumulator, event);
                        if let Err(error) = accumulator.room() {
                            break unreadable("a stream of events", error.into());
                        }
                        return Ok(Some(folded));
                    }
                    Ok(None) => continue,
                    Err(no_event) => break no_event_of(&event, no_event, &self.body),
                },
                Ok(None) => {}
                Err(error) => break unreadable("a stream of events", error.into()),
            }
            match self.body.read(self.decoder.space()) {
                Ok(0) => match self.unended_event() {
                    Ok(event) => return Ok(Some(fold(accumulator, event))),
                    Err(failure) => break failure,
                },
                Ok(n) => self.decoder.filled(n),
                Err(fault) => break cut(fault),
            }
        };
        Err(Failure {
            partial: accumulator.message().cloned().map(Box::new),
            streamed: true,
            ..failure
        })
    }

    /// The last event of a stream that ended without the empty line behind it, if it is its
    /// `message_stop` or `error`. By the standard it is no event, but nothing can be missing any more.
    /// Anything else is the failure that the stream was cut.
    fn unended_event(&mut self) -> Result<RawEvent<'static>, Failure> {
        let end = b"\n\n";
        if self.decoder.has_partial() {
            if let Some(space) = self.decoder.space().get_mut(..end.len()) {
                space.copy_from_slice(end);
                self.decoder.filled(end.len());
            }
        }
        let Ok(Some(event)) = self.decoder.next_event() else {
            return Err(Failure::from(Cause::Truncated));
        };
        match RawEvent::decode(event.name, event.data) {
            Ok(Some(RawEvent::Event(event @ StreamEvent::MessageStop(_)))) => {
                Ok(RawEvent::Event(event))
            }
            Err(error @ EventError::Error(_)) => Err(no_event_of(&event, error, &self.body)),
            _ => Err(Failure::from(Cause::Truncated)),
        }
    }
}

/// Folds an event, and hands it out as well.
pub(super) fn hand_out(accumulator: &mut Accumulator, event: RawEvent<'_>) -> StreamEvent {
    accumulator.apply(&event);
    event.into_event()
}

/// The failure that an event is none, said without the credentials that it may repeat.
fn no_event_of(event: &Event<'_>, no_event: EventError, body: &ResponseBody) -> Failure {
    let mut data = event.data.to_vec();
    body.hide_credentials(&mut data);
    match RawEvent::decode(event.name, &data)
        .err()
        .unwrap_or(no_event)
    {
        EventError::Error(error) => Failure::from(*error),
        EventError::Unreadable(error) => unreadable("a stream of events", json_error(&error)),
    }
}

pub(super) fn unreadable(expected: &'static str, source: BoxError) -> Failure {
    Failure::answered(Cause::unreadable(expected, Some(source)))
}

/// A stream whose connection broke, whatever broke it, is a broken stream.
fn cut(fault: Fault) -> Failure {
    let cause = match fault.cause {
        Cause::Transport { source, .. }
        | Cause::Decode {
            source: Some(source),
            ..
        } => Cause::Transport {
            phase: Phase::Stream,
            source,
        },
        other => other,
    };
    Failure::from(Fault { cause, ..fault })
}

/// What an answer to a request for a message should be.
pub(super) const MESSAGE: &str = "a message";

/// How much is read of an answer that does not say what it is, to find out.
const FIRST_READ: usize = 1024;
