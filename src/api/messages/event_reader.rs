//! Reads the response to a streaming request for a message: events, which are applied to the message
//! one by one, or a whole message.

use crate::call::Call;
use crate::call::response::{Failure, parse_json, read_json, read_rest};
use crate::call::usage::AttemptUsage;
use crate::error::{BoxError, Cause, Phase, json_error};
use crate::http::{Fault, Response, ResponseBody};
use crate::stream::accumulate::Accumulator;
use crate::stream::sse::{Decoder, SseEvent};
use crate::types::{DecodedEvent, EventError, Message, StreamEvent};

/// Reads a streamed response to its end, and blocks until then. Counts the usage that the events
/// report in `attempt_usage`. Calls `on_start` once the server has begun the message: after the first
/// event, or after a whole message, which some gateways send instead of a stream.
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
    let mut apply_next_event = || {
        reader.next_event(
            &mut accumulator,
            Some(&mut *attempt_usage),
            Accumulator::apply_owned,
        )
    };
    apply_next_event()?;
    on_start();
    while apply_next_event()?.is_some() {
        if call.settings.cancel.is_aborted() {
            return Err(Failure::from(Cause::Shutdown));
        }
    }
    // The connection can only be used again after the rest of the body.
    call.core.drain_policy.drain(reader.body);
    accumulator
        .into_message()
        .ok_or_else(|| Failure::from(Cause::Truncated))
}

/// The response of the server, or of a gateway, to a request for a stream.
pub(super) enum MessageResponse {
    Events(Box<EventReader>),
    Whole(Box<Message>),
}

impl MessageResponse {
    /// Tells events from a whole message by the content type, or by the first bytes if the content
    /// type is neither that of events nor that of JSON. Reads a whole message to its end, but no event.
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
        // JSON and HTML begin with `{`, `[` or `<`; no event does. An empty body is not a stream.
        let first = read_first_byte(&mut body, &mut bytes)?;
        if !matches!(first, None | Some(b'{' | b'[' | b'<')) {
            let reader = EventReader::with_first_bytes(&bytes, body);
            return Ok(MessageResponse::Events(reader));
        }
        let is_whole = read_rest(&mut body, &mut bytes)?;
        let message = parse_json(&bytes, is_whole, response, EXPECTED_MESSAGE)?;
        Ok(MessageResponse::Whole(Box::new(message)))
    }
}

/// Reads the start of a body into `bytes`, and returns the first byte that is neither white space nor
/// part of a byte order mark. Returns `None` if the body ends before, or after [`FIRST_READ`] bytes.
fn read_first_byte(body: &mut ResponseBody, bytes: &mut Vec<u8>) -> Result<Option<u8>, Fault> {
    loop {
        let start = bytes.len();
        bytes.resize(start + FIRST_READ, 0);
        let count = body.read(&mut bytes[start..])?;
        bytes.truncate(start + count);
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match text.trim_ascii_start().first() {
            None if count > 0 && bytes.len() < FIRST_READ => {}
            first => return Ok(first.copied()),
        }
    }
}

/// Reads events from the body of a response.
pub(super) struct EventReader {
    /// The unread rest of the body, which is drained after the last event.
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

    /// Creates a reader of a body whose first bytes were read already. [`FIRST_READ`] keeps these
    /// bytes fewer than the space of a new decoder.
    fn with_first_bytes(bytes: &[u8], body: ResponseBody) -> Box<EventReader> {
        let mut reader = EventReader::new(body);
        let space = reader.decoder.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        reader.decoder.mark_filled(count);
        reader
    }

    /// Blocks until the next event arrives, and calls `apply` to apply the event to the message.
    /// Returns the value of `apply`, or `None` after `message_stop`. An end of the body before
    /// `message_stop` is a failure.
    ///
    /// Counts the event in `attempt_usage`, which is `None` once the usage has been settled.
    pub(super) fn next_event<T>(
        &mut self,
        accumulator: &mut Accumulator,
        mut attempt_usage: Option<&mut AttemptUsage>,
        apply: impl Fn(&mut Accumulator, DecodedEvent<'_>) -> T,
    ) -> Result<Option<T>, Failure> {
        if accumulator.is_complete() {
            return Ok(None);
        }
        let failure = loop {
            match self.decoder.next_event() {
                Ok(Some(event)) => match DecodedEvent::decode(event.name, event.data) {
                    Ok(Some(event)) => {
                        if let Some(attempt_usage) = &mut attempt_usage {
                            attempt_usage.record_event(&event);
                        }
                        let applied = apply(accumulator, event);
                        if let Err(error) = accumulator.check_size() {
                            break unreadable(EXPECTED_EVENTS, error.into());
                        }
                        return Ok(Some(applied));
                    }
                    // Without data, or the end mark of a gateway.
                    Ok(None) => continue,
                    Err(error) => break event_failure(&event, error, &self.body),
                },
                Ok(None) => {}
                Err(error) => break unreadable(EXPECTED_EVENTS, error.into()),
            }
            match self.body.read(self.decoder.space()) {
                Ok(0) => match self.decode_unterminated_event() {
                    // A `message_stop`, which has no usage.
                    Ok(event) => return Ok(Some(apply(accumulator, event))),
                    Err(failure) => break failure,
                },
                Ok(count) => self.decoder.mark_filled(count),
                Err(fault) => break broken_stream(fault),
            }
        };
        Err(Failure {
            partial: accumulator.message().cloned().map(Box::new),
            streamed: true,
            ..failure
        })
    }

    /// Decodes the last event of a body that ended without the empty line after the event. Reads
    /// nothing.
    ///
    /// Returns the event if it is `message_stop`, and the server's failure if it is `error`. The
    /// standard for server-sent events discards such an event, but after these two nothing can be
    /// missing. Otherwise returns the failure of a truncated stream.
    fn decode_unterminated_event(&mut self) -> Result<DecodedEvent<'static>, Failure> {
        let empty_line = b"\n\n";
        if self.decoder.has_partial()
            && let Some(space) = self.decoder.space().get_mut(..empty_line.len())
        {
            space.copy_from_slice(empty_line);
            self.decoder.mark_filled(empty_line.len());
        }
        let Ok(Some(event)) = self.decoder.next_event() else {
            return Err(Failure::from(Cause::Truncated));
        };
        match DecodedEvent::decode(event.name, event.data) {
            Ok(Some(DecodedEvent::Event(event @ StreamEvent::MessageStop(_)))) => {
                Ok(DecodedEvent::Event(event))
            }
            Err(error @ EventError::Error(_)) => Err(event_failure(&event, error, &self.body)),
            _ => Err(Failure::from(Cause::Truncated)),
        }
    }
}

/// Applies an event to the message and returns the event.
pub(super) fn apply_and_return(
    accumulator: &mut Accumulator,
    event: DecodedEvent<'_>,
) -> StreamEvent {
    accumulator.apply(&event);
    event.into_event()
}

/// Creates the failure for an `error` event, or for an event that cannot be read.
///
/// The event may repeat the credentials of the request. So the failure is decoded again, from data in
/// which the credentials are hidden.
fn event_failure(event: &SseEvent<'_>, error: EventError, body: &ResponseBody) -> Failure {
    let mut data = event.data.to_vec();
    body.hide_credentials(&mut data);
    match DecodedEvent::decode(event.name, &data)
        .err()
        .unwrap_or(error)
    {
        EventError::Error(error) => Failure::from(*error),
        EventError::Unreadable(error) => unreadable(EXPECTED_EVENTS, json_error(&error)),
    }
}

/// Creates the failure for a response that is not what was expected.
pub(super) fn unreadable(expected: &'static str, source: BoxError) -> Failure {
    Failure::responded(Cause::unreadable(expected, Some(source)))
}

/// Creates the failure for a connection that broke within a stream. A fault in the transport or the
/// encoding of the body becomes a transport failure in the phase of the stream.
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

/// The expected responses, for error texts.
pub(super) const EXPECTED_MESSAGE: &str = "a message";
const EXPECTED_EVENTS: &str = "a stream of events";

/// The byte order mark that may begin UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The number of bytes after which no more is read to tell events from a message, and the maximum
/// size of each read. Together less than twice this number are read.
const FIRST_READ: usize = 1024;
