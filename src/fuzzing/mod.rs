//! Functions that check what must hold for any bytes from outside, and panic if it does not hold.
//!
//! The fuzz targets in `tests/fuzz` call the functions with the inputs that the fuzzer finds, the tests
//! here call them with generated inputs. The module is compiled only for tests and fuzzing.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, str};

use fastrand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;
use crate::call::classify::{FailureDetails, classify};
use crate::error::{Cause, json_error};
use crate::http::{dates, rate_limits};
use crate::journal::Journal;
use crate::stream::accumulate::Accumulator;
use crate::stream::sse::{Decoder, MAX_EVENT};
use crate::types::{
    ApiError, BatchEntry, BatchResult, Content, ContentBlock, DecodedEvent, Delivery,
    ErrorResponse, EventError, Message, MessageBatch, MessageParam, MessageRequest, ModelInfo,
    StreamEvent, Tool, ToolChoice, Usage,
};

#[cfg(test)]
mod tests;

/// Checks that server-sent events are decoded as by a simple implementation of the standard, however
/// the bytes are divided. The first byte seeds the division, and says whether events must be short.
pub fn sse(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first() else {
        return;
    };
    let limit = if seed.is_multiple_of(4) {
        SHORT_LIMIT
    } else {
        MAX_EVENT
    };
    let whole = decode(limit, bytes, || usize::MAX);
    let mut rng = Rng::with_seed(seed.into());
    assert_eq!(decode(limit, bytes, || rng.usize(1..=24)), whole);
    assert_eq!(decode(limit, bytes, || 1), whole);
    let plain = decode_by_the_standard(bytes);
    match whole.is_refused {
        true => assert_eq!(whole.events, plain[..whole.events.len()]),
        false => assert_eq!(whole.events, plain),
    }
}

/// A limit that short inputs reach, in bytes.
const SHORT_LIMIT: usize = 64;

/// Everything that was decoded from a stream.
#[derive(Debug, Default, PartialEq)]
struct DecodedStream {
    /// The names and data of the events.
    events: Vec<(Vec<u8>, Vec<u8>)>,
    is_partial: bool,
    is_refused: bool,
}

fn decode(limit: usize, mut bytes: &[u8], mut cut: impl FnMut() -> usize) -> DecodedStream {
    let mut decoder = Decoder::with_limit(limit);
    let mut decoded = DecodedStream::default();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(cut().min(bytes.len()));
        bytes = rest;
        decoder.feed(piece);
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => {
                    let event = (event.name.to_owned(), event.data.to_owned());
                    decoded.events.push(event);
                }
                Ok(None) => break,
                Err(_) => {
                    decoded.is_refused = true;
                    return decoded;
                }
            }
        }
    }
    decoded.is_partial = decoder.has_partial();
    decoded
}

/// Decodes a stream line by line, as the standard describes it.
fn decode_by_the_standard(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rest = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut events = Vec::new();
    let (mut name, mut data): (Vec<u8>, Vec<u8>) = Default::default();
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let line = &rest[..end];
        let ending = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + ending..];
        if line.is_empty() {
            if data.pop().is_some() {
                events.push((name, data));
            }
            (name, data) = Default::default();
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_owned(),
            b"data" => data.extend(value.iter().chain(b"\n")),
            _ => {}
        }
    }
    events
}

/// Checks that a stream folds into an equal message however it is divided, and whether deltas are applied
/// raw or as typed events. The message must be complete only after its own end, must not be much larger
/// than the stream, and must survive a round trip through JSON. The first byte seeds the division.
pub fn stream(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first() else {
        return;
    };
    let (whole, outcome) = fold(bytes, || usize::MAX);
    let mut rng = Rng::with_seed(seed.into());
    let (pieces, outcome_of_pieces) = fold(bytes, || rng.usize(1..=64));
    assert_eq!(outcome, outcome_of_pieces);
    assert_eq!(whole.message(), pieces.message());
    let Some(message) = whole.message() else {
        return;
    };
    let json = serde_json::to_string(message).expect("JSON");
    assert!(
        json.len() <= 8 * bytes.len() + 1000,
        "{} bytes from {}",
        json.len(),
        bytes.len()
    );
    let read: Message = serde_json::from_str(&json).expect("a message");
    assert_eq!(read, *message);
    call_accessors(message);
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
struct StreamOutcome {
    is_complete: bool,
    /// The text of the error that ended the stream, or empty.
    problem: String,
}

/// Folds a stream up to its end or its first error.
fn fold(mut bytes: &[u8], mut cut: impl FnMut() -> usize) -> (Accumulator, StreamOutcome) {
    let mut decoder = Decoder::new();
    let (mut fast, mut plain) = (Accumulator::new(), Accumulator::new());
    let (mut has_begun, mut has_ended, mut problem) = (false, false, String::new());
    while !bytes.is_empty() && problem.is_empty() {
        let (piece, rest) = bytes.split_at(cut().min(bytes.len()));
        bytes = rest;
        decoder.feed(piece);
        while problem.is_empty() && !fast.is_complete() {
            let event = match decoder.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    problem = error.to_string();
                    break;
                }
            };
            match DecodedEvent::decode(event.name, event.data) {
                Ok(Some(event)) => {
                    fast.apply(&event);
                    let event = event.into_event();
                    has_begun |= matches!(event, StreamEvent::MessageStart(_));
                    has_ended |= has_begun && matches!(event, StreamEvent::MessageStop(_));
                    assert_round_trip(&event);
                    plain.apply(&DecodedEvent::Event(event));
                }
                Ok(None) => {}
                Err(EventError::Error(error)) => problem = format!("{error:?}"),
                Err(EventError::Unreadable(error)) => {
                    problem = json_error(&error).to_string();
                    assert!(!problem.contains(MARK), "{problem}");
                }
            }
        }
    }
    assert_eq!(fast.is_complete(), has_ended);
    assert_eq!(plain.is_complete(), has_ended);
    assert_eq!(fast.message(), plain.message());
    let outcome = StreamOutcome {
        is_complete: has_ended,
        problem,
    };
    (fast, outcome)
}

fn assert_round_trip(event: &StreamEvent) {
    // An event without a type is known by the name of its server-sent event, which JSON does not hold.
    if !event.kind().is_empty() {
        let json = serde_json::to_string(event).expect("JSON");
        let read: StreamEvent = serde_json::from_str(&json).expect("an event");
        assert_eq!(read, *event);
    }
}

/// Checks every type that is read from the wire: it must read equally from JSON text, in any order of
/// fields, and from a [`Value`], and must be written as equal JSON. No error may quote the input.
pub fn wire(input: &[u8]) {
    let value: Option<Value> = serde_json::from_slice(input).ok();
    // Unlike the input, these texts have each key once: the last of a repeated key counts.
    let texts = value.as_ref().map(|value| {
        let mut type_first = String::new();
        write_type_first(value, &mut type_first);
        [value.to_string(), type_first]
    });
    let json = value.as_ref().zip(texts.as_ref());
    check_type::<MessageRequest>(input, json);
    check_type::<MessageParam>(input, json);
    check_type::<Content>(input, json);
    check_type::<ContentBlock>(input, json);
    check_type::<Tool>(input, json);
    check_type::<ToolChoice>(input, json);
    check_type::<Message>(input, json)
        .iter()
        .for_each(call_accessors);
    check_type::<Usage>(input, json);
    check_type::<StreamEvent>(input, json);
    check_type::<ApiError>(input, json);
    check_type::<ErrorResponse>(input, json);
    check_type::<BatchResult>(input, json);
    check_type::<MessageBatch>(input, json);
    check_type::<ModelInfo>(input, json);
    if let Some(entry) = check_type::<BatchEntry>(input, json) {
        let _ = (entry.result.as_str().len(), entry.result.is_retryable());
        let _ = entry.into_message().map_err(|error| assert_bounded(&error));
    }
}

fn check_type<T>(input: &[u8], json: Option<(&Value, &[String; 2])>) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let read = serde_json::from_slice::<T>(input).map_err(|error| json_error(&error).to_string());
    if let Err(problem) = &read {
        assert!(!problem.contains(MARK), "{problem}");
    }
    let Some((value, texts)) = json else {
        assert!(read.is_err(), "read from no JSON: {read:?}");
        return None;
    };
    let from_value = T::deserialize(value).ok();
    for text in texts {
        let from_text = serde_json::from_str::<T>(text).ok();
        assert_eq!(from_text, from_value, "{text}");
    }
    if let Some(read) = &from_value {
        let written = serde_json::to_value(read).expect("JSON");
        assert!(is_equal_json(&written, value), "{written} is not {value}");
    }
    from_value
}

/// Whether two values are equal JSON; `1` and `1.0` are equal.
fn is_equal_json(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_equal_json(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_equal = |(key, one)| {
                other
                    .get(key)
                    .is_some_and(|other| is_equal_json(one, other))
            };
            one.len() == other.len() && one.iter().all(is_equal)
        }
        (one, other) => one == other,
    }
}

/// Writes JSON with the `type` of each object first, as the server does.
fn write_type_first(value: &Value, text: &mut String) {
    let separate = |text: &mut String, at| text.push_str(if at == 0 { "" } else { "," });
    match value {
        Value::Object(object) => {
            text.push('{');
            let (types, others): (Vec<_>, Vec<_>) =
                object.iter().partition(|(key, _)| *key == "type");
            for (at, (key, value)) in types.into_iter().chain(others).enumerate() {
                separate(text, at);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_type_first(value, text);
            }
            text.push('}');
        }
        Value::Array(array) => {
            text.push('[');
            for (at, value) in array.iter().enumerate() {
                separate(text, at);
                write_type_first(value, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// Calls the methods of a message that programs use.
fn call_accessors(message: &Message) {
    let _ = (message.text().len(), message.tool_uses().count());
    let _ = (
        message.usage.total_input_tokens(),
        message.json::<Value>().is_ok(),
    );
    for call in message.tool_uses() {
        let _ = call
            .input_as::<Value>()
            .map_err(|error| assert_bounded(&error));
    }
    let again = MessageRequest::new("m", 1).message(message);
    assert_eq!(
        again.messages[0].content,
        Content::Blocks(message.content.clone())
    );
}

/// Checks that headers are read in any order, that a wait is never zero nor longer than 49 days, and that
/// dates agree with a calendar. The first eight bytes are a date in Unix seconds; each line after them is
/// a header.
pub fn headers(input: &[u8]) {
    let Some((number, lines)) = input.split_first_chunk() else {
        return;
    };
    dates(u64::from_le_bytes(*number) % (END_OF_9999 + 1));
    let text = String::from_utf8_lossy(lines);
    let mut headers: Vec<(String, &str)> = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let name = name.trim().to_ascii_lowercase();
        if !headers.iter().any(|(known, _)| *known == name) {
            headers.push((name, value.trim()));
        }
    }
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_696_004_797);
    let read = |headers: &[(String, &str)]| {
        rate_limits::read(headers.iter().map(|(name, value)| (&**name, *value)), wall)
    };
    let limits = read(&headers);
    if let Some(wait) = limits.retry_after {
        assert!(
            !wait.is_zero() && wait <= Duration::from_secs(4_294_967),
            "{wait:?}"
        );
    }
    headers.reverse();
    assert_eq!(read(&headers), limits);
    for (_, value) in &headers {
        if let Some(date) = dates::parse_date(value) {
            let unix = date
                .duration_since(SystemTime::UNIX_EPOCH)
                .expect("after 1970");
            assert!(
                unix.as_secs() <= END_OF_9999 + 100 * 3600,
                "{value}: {unix:?}"
            );
        }
    }
}

/// 9999-12-31T23:59:59Z.
const END_OF_9999: u64 = 253_402_300_799;

/// Checks that a date is parsed in all its forms, against a calendar that counts day by day.
fn dates(unix: u64) {
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let (mut left, time) = (unix / 86_400, unix % 86_400);
    let weekday = DAYS[left as usize % 7];
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    loop {
        let length = MONTHS[month].1 + u64::from(month == 1 && is_leap(year));
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let (name, number, day) = (MONTHS[month].0, month + 1, left + 1);
    let short = &weekday[..3];
    let time = format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    let mut forms = vec![
        format!("{short}, {day:02} {name} {year} {time} GMT"),
        format!("{short} {name} {day:2} {time} {year}"),
        format!("{year}-{number:02}-{day:02}T{time}Z"),
        format!("{year}-{number:02}-{day:02}t{time}.000+00:00"),
        format!("{day} {name} {year} {time} -0000"),
    ];
    if (1976..2076).contains(&year) {
        forms.push(format!(
            "{weekday}, {day:02}-{name}-{:02} {time} GMT",
            year % 100
        ));
    }
    let expected = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(unix));
    for form in forms {
        assert_eq!(dates::parse_date(&form), expected, "{form}");
    }
}

/// Checks that any body of an error becomes an error text of one line and bounded length. The first two
/// bytes are the status.
pub fn errors(input: &[u8]) {
    let Some((status, body)) = input.split_first_chunk() else {
        return;
    };
    let status = 100 + u16::from_le_bytes(*status) % 900;
    let read = ApiError::from_body(body);
    let envelope = ApiError::from_envelope(body);
    assert!(envelope.is_none() || envelope == read);
    let Some((error, request_id)) = read else {
        return;
    };
    let json = serde_json::to_value(&error).expect("JSON");
    assert_eq!(
        serde_json::from_value::<ApiError>(json).expect("an error"),
        error
    );
    assert!(request_id.is_none_or(|id| (1..=200).contains(&id.as_str().len())));
    for status in [Some(status), None] {
        for (retry_after, should_retry) in [(None, None), (Some(Duration::MAX), Some(true))] {
            let error = Box::new(error.clone());
            let cause = Cause::Api { status, error };
            let classification = classify(&FailureDetails {
                cause: &cause,
                delivery: Delivery::Responded,
                repeatable: false,
                retry_after,
                should_retry,
            });
            assert_bounded(&Error::new(classification.kind, "POST /v1/messages", cause));
        }
    }
}

#[track_caller]
fn assert_bounded(error: &Error) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(text.len() < 4000, "{} bytes of error", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

/// Checks that a damaged journal either yields its intact records and can be continued, or is refused and
/// left as it is. The input says how a journal of a few records at `path` is [damaged](damage).
pub fn journal(path: &Path, input: &[u8]) {
    type Record = Map<String, Value>;
    let open = || Journal::<Record>::open(path, "checks");
    let _ = fs::remove_file(path);
    let (mut journal, before) = open().expect("a new journal");
    assert!(before.is_empty());
    let title = fs::read(path).expect("a journal").len();
    let mut written = Vec::new();
    for number in 0..4 {
        let record = serde_json::json!({"key": format!("{number}\n"), "message": [number, {}]});
        let Value::Object(record) = record else {
            unreachable!("an object")
        };
        journal.append_unsynced(&record).expect("space on the disk");
        written.push(record);
    }
    drop(journal);
    let whole = fs::read(path).expect("a journal");
    let damaged = damage(whole.clone(), input);
    fs::write(path, &damaged).expect("space on the disk");

    let untouched = whole
        .iter()
        .zip(&damaged)
        .take_while(|(a, b)| a == b)
        .count();
    let survivors = match whole.get(title..untouched) {
        Some(lines) => lines.iter().filter(|byte| **byte == b'\n').count(),
        None => 0,
    };
    let has_title = damaged.starts_with(&whole[..title]);
    let lines: Vec<&[u8]> = match has_title {
        true => damaged[title..]
            .split_inclusive(|byte| *byte == b'\n')
            .collect(),
        false => Vec::new(),
    };
    let is_torn = lines.last().is_some_and(|line| !line.ends_with(b"\n"));
    let whole_lines = &lines[..lines.len() - usize::from(is_torn)];
    let read: Vec<Option<Record>> = whole_lines
        .iter()
        .map(|line| serde_json::from_slice(line).ok())
        .collect();
    match open() {
        Ok((mut journal, records)) => {
            assert!(has_title || whole[..title].starts_with(&damaged));
            assert!(records.len() >= survivors);
            assert_eq!(records[..survivors], written[..survivors]);
            let mut expected = read.into_iter();
            for record in &records {
                assert_eq!(expected.next(), Some(Some(record.clone())));
            }
            // Only a last line with zeros may be missing.
            assert!(expected.len() <= 1);
            let rest = &whole_lines[records.len()..];
            assert!(rest.iter().all(|line| line.contains(&0)));
            journal.append(&written[0]).expect("space on the disk");
            drop(journal);
            let (_, again) = open().expect("a sound journal");
            assert_eq!(again[..records.len()], records);
            assert_eq!(again[records.len()..], written[..1]);
        }
        Err(error) => {
            assert_bounded(&error);
            assert_eq!(fs::read(path).expect("the journal"), damaged);
            assert!(!has_title || read.iter().any(Option::is_none), "{error}");
        }
    }
}

/// Changes a file as a crash, a full disk or an editor may. Each four bytes of `input` are an edit: its
/// kind, two bytes of position, and a value. The bytes that remain are appended.
fn damage(mut file: Vec<u8>, input: &[u8]) -> Vec<u8> {
    let mut edits = input.chunks_exact(4);
    for edit in edits.by_ref() {
        let &[edit, low, high, value] = edit else {
            continue;
        };
        let at = usize::from(u16::from_le_bytes([low, high])) % (file.len() + 1);
        let end = (at + usize::from(value)).min(file.len());
        match edit % 8 {
            0 => file.truncate(at),
            1 => file.insert(at, value),
            2 => drop(file.drain(at..end)),
            3 => file[at..end].fill(0),
            4 => file.extend_from_within(at..end),
            5 => file.resize(file.len() + usize::from(value), 0),
            6 => file.insert(at, b'\n'),
            _ => file.get_mut(at).into_iter().for_each(|byte| *byte ^= value),
        }
    }
    file.extend_from_slice(edits.remainder());
    file
}

/// Marks secrets in inputs: no error may quote it.
const MARK: &str = "SECRET";
