//! The response to a request for a message: events, read one by one and folded into the message.

use crate::call::Call;
use crate::call::response::{Failure, parse_json, read_json, read_rest};
use crate::call::usage::AttemptUsage;
use crate::error::{BoxError, Cause, Phase, json_error};
use crate::http::{Fault, Response, ResponseBody};
use crate::stream::accumulate::Accumulator;
use crate::stream::sse::{Decoder, Event};
use crate::types::{EventError, Message, RawEvent, StreamEvent};

/// Reads a streamed response to its end. Calls `on_start` after the first event, or after a whole
/// message, which some gateways send instead of a stream.
pub(super) fn read_streamed_message(
    response: &mut Response,
    attempt_usage: &mut AttemptUsage,
    call: &Call<'_>,
    on_start: &dyn Fn(),
) -> Result<Message, Failure> {
    let mut reader = match MessageResponse::read(response)? {
        MessageResponse::Whole(message) => {
            on_start();
            return Ok(*message);
        }
        MessageResponse::Events(reader) => reader,
    };
    let mut accumulator = Accumulator::new();
    reader.next_event(
        &mut accumulator,
        Some(attempt_usage),
        Accumulator::apply_owned,
    )?;
    on_start();
    while reader
        .next_event(
            &mut accumulator,
            Some(attempt_usage),
            Accumulator::apply_owned,
        )?
        .is_some()
    {
        if call.settings.cancel.is_aborted() {
            return Err(Failure::from(Cause::Shutdown));
        }
    }
    call.core.endings.drain(reader.body);
    accumulator
        .into_message()
        .ok_or_else(|| Failure::from(Cause::Truncated))
}

/// What the server, or a gateway before it, sent in response to a request for a stream.
pub(super) enum MessageResponse {
    Events(Box<EventReader>),
    Whole(Box<Message>),
}

impl MessageResponse {
    /// Tells events from a whole message by the content type, or by the first bytes if the content
    /// type is neither. Reads a whole message to its end.
    pub(super) fn read(response: &mut Response) -> Result<MessageResponse, Failure> {
        let content_type = response
            .header("content-type")
            .unwrap_or("")
            .to_ascii_lowercase();
        if content_type.contains("event-stream") {
            let reader = EventReader::new(response.take_body());
            return Ok(MessageResponse::Events(reader));
        }
        if content_type.contains("json") {
            let message = read_json(response, EXPECTED_MESSAGE)?;
            return Ok(MessageResponse::Whole(Box::new(message)));
        }
        let mut body = response.take_body();
        let mut bytes = Vec::new();
        let first = loop {
            let start = bytes.len();
            bytes.resize(start + FIRST_READ, 0);
            let n = body.read(&mut bytes[start..])?;
            bytes.truncate(start + n);
            let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
            match text.trim_ascii_start().first() {
                None if n > 0 && bytes.len() < FIRST_READ => {}
                first => break first.copied(),
            }
        };
        // These begin JSON or a page of HTML; no event begins with any of them.
        if !matches!(first, None | Some(b'{' | b'[' | b'<')) {
            let reader = EventReader::with_first_bytes(&bytes, body);
            return Ok(MessageResponse::Events(reader));
        }
        let whole = read_rest(&mut body, &mut bytes)?;
        let message = parse_json(&bytes, whole, response, EXPECTED_MESSAGE)?;
        Ok(MessageResponse::Whole(Box::new(message)))
    }
}

/// Reads events from the body of a response.
pub(super) struct EventReader {
    pub(super) body: ResponseBody,
    decoder: Decoder,
}

impl EventReader {
    fn new(body: ResponseBody) -> Box<EventReader> {
        Box::new(EventReader {
            body,
            decoder: Decoder::new(),
        })
    }

    /// A reader of a body whose first bytes were read already. There must be fewer of them than the
    /// decoder has space for.
    fn with_first_bytes(bytes: &[u8], body: ResponseBody) -> Box<EventReader> {
        let mut reader = EventReader::new(body);
        let space = reader.decoder.space();
        let n = bytes.len().min(space.len());
        space[..n].copy_from_slice(&bytes[..n]);
        reader.decoder.mark_filled(n);
        reader
    }

    /// Blocks until the next event arrives, and calls `fold` to fold the event into the message.
    /// Returns what `fold` returned, and `None` after `message_stop`. An end of the body before
    /// `message_stop` is a failure.
    pub(super) fn next_event<T>(
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
                            attempt_usage.record_event(&event);
                        }
                        let folded = fold(accumulator, event);
                        if let Err(error) = accumulator.check_size() {
                            break unreadable(EXPECTED_EVENTS, error.into());
                        }
                        return Ok(Some(folded));
                    }
                    Ok(None) => continue,
                    Err(error) => break event_failure(&event, error, &self.body),
                },
                Ok(None) => {}
                Err(error) => break unreadable(EXPECTED_EVENTS, error.into()),
            }
            match self.body.read(self.decoder.space()) {
                Ok(0) => match self.read_unterminated_event() {
                    Ok(event) => return Ok(Some(fold(accumulator, event))),
                    Err(failure) => break failure,
                },
                Ok(n) => self.decoder.mark_filled(n),
                Err(fault) => break broken_stream(fault),
            }
        };
        Err(Failure {
            partial: accumulator.message().cloned().map(Box::new),
            streamed: true,
            ..failure
        })
    }

    /// Reads the last event of a body that ended without the empty line after the event, if the
    /// event is `message_stop` or `error`. The standard discards such an event, but after these two
    /// nothing can be missing. Returns the failure that the stream was cut for anything else.
    fn read_unterminated_event(&mut self) -> Result<RawEvent<'static>, Failure> {
        let end = b"\n\n";
        if self.decoder.has_partial() {
            if let Some(space) = self.decoder.space().get_mut(..end.len()) {
                space.copy_from_slice(end);
                self.decoder.mark_filled(end.len());
            }
        }
        let Ok(Some(event)) = self.decoder.next_event() else {
            return Err(Failure::from(Cause::Truncated));
        };
        match RawEvent::decode(event.name, event.data) {
            Ok(Some(RawEvent::Event(event @ StreamEvent::MessageStop(_)))) => {
                Ok(RawEvent::Event(event))
            }
            Err(error @ EventError::Error(_)) => Err(event_failure(&event, error, &self.body)),
            _ => Err(Failure::from(Cause::Truncated)),
        }
    }
}

/// Folds an event into the message and returns the event.
pub(super) fn apply_and_return(accumulator: &mut Accumulator, event: RawEvent<'_>) -> StreamEvent {
    accumulator.apply(&event);
    event.into_event()
}

/// The failure for an `error` event, or for an event that cannot be read; without the credentials
/// that the event may repeat.
fn event_failure(event: &Event<'_>, error: EventError, body: &ResponseBody) -> Failure {
    let mut data = event.data.to_vec();
    body.hide_credentials(&mut data);
    match RawEvent::decode(event.name, &data).err().unwrap_or(error) {
        EventError::Error(error) => Failure::from(*error),
        EventError::Unreadable(error) => unreadable(EXPECTED_EVENTS, json_error(&error)),
    }
}

/// The failure for a response that is not what was expected.
pub(super) fn unreadable(expected: &'static str, source: BoxError) -> Failure {
    Failure::responded(Cause::unreadable(expected, Some(source)))
}

/// The failure for a connection that broke within a stream: of the stream's phase, whatever the
/// cause.
fn broken_stream(fault: Fault) -> Failure {
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

/// What a response should have been, for the text of an error.
pub(super) const EXPECTED_MESSAGE: &str = "a message";
const EXPECTED_EVENTS: &str = "a stream of events";

/// The mark that may begin UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How many bytes are read at most to tell events from a message without a content type.
const FIRST_READ: usize = 1024;
