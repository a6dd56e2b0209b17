//! Decodes server-sent events: bytes in, events out.
//!
//! [`Decoder`] follows the [WHATWG rules][standard], however the bytes are divided among reads. It does
//! no I/O and owns the buffer that the consumer reads into:
//!
//! ```text
//! loop {
//!     if let Some(event) = decoder.next_event()? {
//!         return parse(event.data);
//!     }
//!     let n = reader.read(decoder.space())?;
//!     if n == 0 {
//!         return ended(decoder.has_partial());
//!     }
//!     decoder.mark_filled(n);
//! }
//! ```
//!
//! An event with one `data` line, such as every event of the Claude API, is borrowed from the buffer,
//! without a copy or an allocation. In this loop, the decoder searches each byte for a line end once,
//! and moves it at most once, or twice on average if its event makes the buffer grow.
//!
//! [standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

#[cfg(test)]
use std::borrow::Cow;
use std::ops::Range;
use std::{fmt, mem};

use super::line_end::find_line_end;

/// Turns the bytes of one event stream into events. The [module](self) shows the loop around it.
pub(crate) struct Decoder {
    /// The bytes read: decoded before `event_start`, yet to be decoded from `event_start` to `end`, free from `end`.
    buffer: Vec<u8>,
    /// Where the event in progress begins, or the current line if no event is in progress.
    event_start: usize,
    /// Where the current line begins.
    line_start: usize,
    /// Up to where the current line is known to have no end.
    searched: usize,
    /// Where the bytes read end.
    end: usize,
    /// What precedes the current line.
    preceding: Preceding,
    /// The name of the event in progress, relative to `event_start`; empty if it has no name.
    name: ByteRange,
    /// The data of the event in progress.
    data: EventData,
    /// The data of the event in progress, if the data has several lines.
    joined: Vec<u8>,
    /// The value of the last `id` field. Only tests use this and `retry`, because the Claude API cannot
    /// resume a stream.
    #[cfg(test)]
    last_event_id: Vec<u8>,
    /// The value of the last valid `retry` field, in milliseconds.
    #[cfg(test)]
    retry: Option<u64>,
    /// The length of the longest event accepted, in bytes.
    limit: usize,
    /// The number of bytes searched and moved so far.
    #[cfg(test)]
    work: usize,
}

impl Decoder {
    /// Makes a decoder for one stream that accepts events of up to [`MAX_EVENT`] bytes.
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; INITIAL_BUFFER],
            event_start: 0,
            line_start: 0,
            searched: 0,
            end: 0,
            preceding: Preceding::Nothing,
            name: 0..0,
            data: EventData::None,
            joined: Vec::new(),
            #[cfg(test)]
            last_event_id: Vec::new(),
            #[cfg(test)]
            retry: None,
            limit: MAX_EVENT,
            #[cfg(test)]
            work: 0,
        }
    }

    /// Makes a decoder that accepts events of up to `limit` bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            ..Self::new()
        }
    }

    /// Returns the next event, or `None` if the bytes read so far complete none.
    ///
    /// An event is complete with the byte that ends it, even if that byte is a lone CR. A block without
    /// a `data` line is not an event and is skipped.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if an event, from its first `event` or `data` field to its empty line, or any other
    /// line is longer than the limit. The events before it are returned first. After this error, every
    /// call returns the same error.
    #[inline]
    pub(crate) fn next_event(&mut self) -> Result<Option<SseEvent<'_>>, TooLong> {
        let Some(ranges) = self.advance()? else {
            return Ok(None);
        };
        Ok(Some(SseEvent {
            name: &self.buffer[ranges.name],
            data: match ranges.data {
                Some(data) => &self.buffer[data],
                None => &self.joined,
            },
        }))
    }

    /// Returns space to read into, at least [`MIN_SPACE`] bytes.
    ///
    /// Call it after [`next_event`](Self::next_event) has returned `None`, when at most one incomplete
    /// event occupies the buffer.
    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.event_start > 0 {
            self.compact();
        }
        if self.buffer.len() - self.end < MIN_SPACE {
            self.grow();
        }
        &mut self.buffer[self.end..]
    }

    /// Marks the first `n` bytes of the space from [`space`](Self::space) as filled.
    #[inline]
    pub(crate) fn mark_filled(&mut self, n: usize) {
        self.end += n.min(self.buffer.len() - self.end);
    }

    /// Appends a copy of `bytes`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.mark_filled(n);
            bytes = &bytes[n..];
        }
    }

    /// Whether bytes are lost if the stream ends here: a line without a line end, or fields of an event
    /// without the empty line after them.
    ///
    /// Call it after [`next_event`](Self::next_event) has returned `None`.
    #[inline]
    pub(crate) fn has_partial(&self) -> bool {
        self.event_start < self.end
    }

    /// Returns the last event id as of the event returned last, or an empty one.
    #[cfg(test)]
    pub(crate) fn last_event_id(&self) -> &[u8] {
        &self.last_event_id
    }

    /// Returns the reconnection time that the stream requested last, in milliseconds.
    #[cfg(test)]
    pub(crate) fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Decodes lines up to the end of an event, and returns where the event is.
    fn advance(&mut self) -> Result<Option<EventRanges>, TooLong> {
        loop {
            if self.preceding != Preceding::LineEnd && !self.skip_to_line()? {
                return Ok(None);
            }
            let unsearched = &self.buffer[self.searched..self.end];
            let found = find_line_end(unsearched);
            let line_end = self.searched + found.unwrap_or(unsearched.len());
            #[cfg(test)]
            {
                self.work += line_end - self.searched;
            }
            if line_end - self.event_start > self.limit {
                return Err(self.fail());
            }
            if found.is_none() {
                self.searched = line_end;
                return Ok(None);
            }
            if self.buffer[line_end] == b'\r' {
                self.preceding = Preceding::Cr;
            }
            let line = self.line_start;
            self.line_start = line_end + 1;
            self.searched = self.line_start;
            if line < line_end {
                self.field(line, line_end);
                continue;
            }
            let event_start = mem::replace(&mut self.event_start, self.line_start);
            let name = shifted(mem::take(&mut self.name), event_start);
            match mem::replace(&mut self.data, EventData::None) {
                EventData::None => {}
                EventData::Line(data) => {
                    let data = Some(shifted(data, event_start));
                    return Ok(Some(EventRanges { name, data }));
                }
                EventData::Joined => return Ok(Some(EventRanges { name, data: None })),
            }
        }
    }

    /// Decodes the line from `start` to `end`.
    #[inline]
    fn field(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = end - without_space(value).len();
            self.data_line(value, end);
        } else if let Some(value) = line.strip_prefix(b"event:") {
            let value = end - without_space(value).len();
            self.name = value - self.event_start..end - self.event_start;
        } else {
            self.rare_field(start, end);
        }
        if matches!(self.data, EventData::None) && self.name.is_empty() {
            self.event_start = self.line_start;
        }
    }

    /// Decodes the line from `start` to `end` by the full rules of the standard.
    #[cold]
    fn rare_field(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = without_space(value.strip_prefix(b":").unwrap_or(value));
        match field {
            b"data" => self.data_line(end - value.len(), end),
            b"event" => self.name = 0..0,
            #[cfg(test)]
            b"id" if !value.contains(&0) => {
                self.last_event_id.clear();
                self.last_event_id.extend_from_slice(value);
            }
            #[cfg(test)]
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.retry = Some(digits.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }

    /// Adds a line of data, whose value is from `start` to `end`.
    #[inline]
    fn data_line(&mut self, start: usize, end: usize) {
        if matches!(self.data, EventData::None) {
            self.data = EventData::Line(start - self.event_start..end - self.event_start);
        } else {
            self.join(start, end);
        }
    }

    /// Adds a further line of data to the lines before it.
    #[cold]
    fn join(&mut self, start: usize, end: usize) {
        if let EventData::Line(first) = mem::replace(&mut self.data, EventData::Joined) {
            let first = shifted(first, self.event_start);
            self.joined.clear();
            self.joined.extend_from_slice(&self.buffer[first]);
        }
        self.joined.push(b'\n');
        self.joined.extend_from_slice(&self.buffer[start..end]);
    }

    /// Skips the byte order mark of the stream or the LF of a CRLF before the current line. Returns
    /// `false` if more bytes are needed to know whether one is there.
    #[cold]
    fn skip_to_line(&mut self) -> Result<bool, TooLong> {
        let bytes = &self.buffer[self.line_start..self.end];
        let dropped = match self.preceding {
            Preceding::LineEnd => 0,
            Preceding::Cr if bytes.is_empty() => return Ok(false),
            Preceding::Cr => usize::from(bytes.starts_with(b"\n")),
            Preceding::Nothing if bytes.len() < BOM.len() && BOM.starts_with(bytes) => {
                return Ok(false);
            }
            Preceding::Nothing if bytes.starts_with(BOM) => BOM.len(),
            Preceding::Nothing => 0,
            Preceding::Failure => return Err(self.fail()),
        };
        self.preceding = Preceding::LineEnd;
        if self.event_start == self.line_start {
            self.event_start += dropped;
        }
        self.line_start += dropped;
        self.searched = self.line_start;
        Ok(true)
    }

    /// Drops the bytes of the stream, and makes all later calls fail.
    #[cold]
    fn fail(&mut self) -> TooLong {
        self.preceding = Preceding::Failure;
        (self.event_start, self.line_start, self.searched, self.end) = (0, 0, 0, 0);
        self.buffer = Vec::new();
        self.joined = Vec::new();
        TooLong { limit: self.limit }
    }

    /// Moves the bytes that are not decoded yet to the front of the buffer. They belong to at most one
    /// event, and the next move comes after its end: no byte is moved here twice.
    #[inline]
    fn compact(&mut self) {
        if self.event_start < self.end {
            self.buffer.copy_within(self.event_start..self.end, 0);
            #[cfg(test)]
            {
                self.work += self.end - self.event_start;
            }
        }
        self.line_start -= self.event_start;
        self.searched -= self.event_start;
        self.end -= self.event_start;
        self.event_start = 0;
    }

    /// Doubles the buffer, so that the cost is amortised, up to the length that the limit can require.
    #[cold]
    fn grow(&mut self) {
        #[cfg(test)]
        {
            self.work += self.end;
        }
        let enough = self.limit.saturating_add(INITIAL_BUFFER);
        let len = (self.buffer.len() * 2).min(enough);
        self.buffer.resize(len.max(self.end + INITIAL_BUFFER), 0);
    }
}

/// One event of a stream, borrowed from its [`Decoder`].
#[derive(Clone, Copy)]
pub(crate) struct SseEvent<'a> {
    /// The value of the `event` field; empty if there is none.
    pub(crate) name: &'a [u8],
    /// The values of the `data` fields, joined by LF.
    pub(crate) data: &'a [u8],
}

#[cfg(test)]
impl<'a> SseEvent<'a> {
    /// Returns the data as text, with malformed sequences replaced by U+FFFD as the standard requires.
    pub(crate) fn data_str(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.data)
    }
}

/// A line or an event was longer than the decoder accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// The length of the longest event accepted, in bytes.
    pub(crate) limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event of the stream is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}

/// What precedes the current line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preceding {
    /// Nothing: the stream begins here, perhaps with a byte order mark.
    Nothing,
    /// A complete line end.
    LineEnd,
    /// A CR: if an LF follows, it belongs to the same line end.
    Cr,
    /// An event that was too long: no line follows.
    Failure,
}

/// A range of the buffer.
type ByteRange = Range<usize>;

/// Where a complete event is in the buffer.
struct EventRanges {
    name: ByteRange,
    /// `None` if the data is in `joined`.
    data: Option<ByteRange>,
}

/// The data of the event in progress.
enum EventData {
    /// No `data` line so far.
    None,
    /// One line, at this range of the buffer relative to `event_start`.
    Line(ByteRange),
    /// Several lines, in `joined`.
    Joined,
}

/// Converts a range relative to `event_start` into a range of the buffer.
#[inline]
fn shifted(range: ByteRange, event_start: usize) -> ByteRange {
    event_start + range.start..event_start + range.end
}

/// Removes one leading space.
#[inline]
fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

/// The length of the longest event accepted: 16 MiB.
pub(crate) const MAX_EVENT: usize = 16 << 20;

/// The length of the buffer in bytes until an event needs more: room for tens of typical events.
/// Clearing a larger buffer would take longer than decoding a short response.
const INITIAL_BUFFER: usize = 8 << 10;

/// The least room to offer for a read, in bytes.
const MIN_SPACE: usize = 4 << 10;

/// The byte order mark, in UTF-8.
const BOM: &[u8] = b"\xEF\xBB\xBF";

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that was decoded from a stream.
    #[derive(Debug, Default, PartialEq)]
    struct Decoded {
        /// Name, data and last event id of each event.
        events: Vec<(String, String, String)>,
        retry: Option<u64>,
        is_partial: bool,
        error: Option<TooLong>,
    }

    /// Moves the complete events out of the decoder.
    fn drain(decoder: &mut Decoder, decoded: &mut Decoded) {
        while decoded.error.is_none() {
            let (name, data) = match decoder.next_event() {
                Ok(Some(event)) => (text(event.name), event.data_str().into_owned()),
                Ok(None) => break,
                Err(error) => {
                    decoded.error = Some(error);
                    break;
                }
            };
            let id = text(decoder.last_event_id());
            decoded.events.push((name, data, id));
        }
        decoded.retry = decoder.retry();
        decoded.is_partial = decoded.error.is_none() && decoder.has_partial();
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Decodes `bytes` in pieces of the lengths that `cut` returns, as a consumer does.
    fn decode(mut decoder: Decoder, mut bytes: &[u8], mut cut: impl FnMut() -> usize) -> Decoded {
        let mut decoded = Decoded::default();
        drain(&mut decoder, &mut decoded);
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(cut().min(bytes.len()));
            decoder.feed(piece);
            drain(&mut decoder, &mut decoded);
            bytes = rest;
        }
        decoded
    }

    /// Decodes `bytes` whole, byte by byte, in pieces of seven and in random pieces, and checks that the
    /// results are equal.
    #[track_caller]
    fn decode_in_all_cuts(limit: usize, bytes: &[u8]) -> Decoded {
        let whole = decode(Decoder::with_limit(limit), bytes, || usize::MAX);
        for len in [1, 7] {
            let pieces = decode(Decoder::with_limit(limit), bytes, || len);
            assert_eq!(pieces, whole, "{:?} in pieces of {len}", text(bytes));
        }
        for seed in 0..8 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let pieces = decode(Decoder::with_limit(limit), bytes, || rng.usize(1..=12));
            assert_eq!(pieces, whole, "{:?} in pieces of seed {seed}", text(bytes));
        }
        whole
    }

    /// Decodes in all cuts, and returns names and data.
    #[track_caller]
    fn decoded(bytes: &[u8]) -> Vec<(String, String)> {
        let decoded = decode_in_all_cuts(MAX_EVENT, bytes);
        assert_eq!(decoded.error, None);
        decoded
            .events
            .into_iter()
            .map(|(name, data, _)| (name, data))
            .collect()
    }

    /// Follows the standard word by word: the stream is whole, and speed does not matter.
    fn decode_by_the_standard(bytes: &[u8]) -> Decoded {
        let mut out = Decoded::default();
        let stream = String::from_utf8_lossy(bytes);
        let stream = stream.strip_prefix('\u{FEFF}').unwrap_or(&stream);
        let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
        let (mut name, mut data, mut id) = (String::new(), String::new(), String::new());
        let (lines, rest) = stream
            .rsplit_once('\n')
            .map_or((None, &*stream), |(l, r)| (Some(l), r));
        for line in lines.iter().flat_map(|lines| lines.split('\n')) {
            if line.is_empty() {
                if let Some(data) = data.strip_suffix('\n') {
                    out.events.push((name.clone(), data.to_owned(), id.clone()));
                }
                name.clear();
                data.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "data" => data += &format!("{value}\n"),
                "id" if !value.contains('\0') => id = value.to_owned(),
                "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    out.retry = value.parse().ok().or(out.retry);
                }
                _ => {}
            }
        }
        out.is_partial = !rest.is_empty() || !name.is_empty() || !data.is_empty();
        out
    }

    #[test]
    fn lines_and_fields_decode_by_the_standard() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("\n\r\n\r\r\n", &[]),
            ("data: a\n\n", &[("", "a")]),
            ("event: ping\ndata: {}\n\n", &[("ping", "{}")]),
            ("data: {}\nevent: ping\n\n", &[("ping", "{}")]),
            ("event:ping\r\ndata:{}\r\n\r\n", &[("ping", "{}")]),
            (
                "event: ping\rdata: {}\r\rdata: b\r\r",
                &[("ping", "{}"), ("", "b")],
            ),
            ("data: a\r\n\rdata: b\n\r\n", &[("", "a"), ("", "b")]),
            ("data:  a \n\n", &[("", " a ")]),
            ("data: a: b\n\n", &[("", "a: b")]),
            ("data: a\ndata:\ndata: b\n\n", &[("", "a\n\nb")]),
            (
                "data: a\nevent: long name\ndata: b\n: no\ndata\n\n",
                &[("long name", "a\nb\n")],
            ),
            (
                "data: a\ndata: b\n\ndata: c\ndata: d\n\n",
                &[("", "a\nb"), ("", "c\nd")],
            ),
            ("data\n\n", &[("", "")]),
            ("data\ndata\n\n", &[("", "\n")]),
            ("event: a\ndata: 1\n\ndata: 2\n\n", &[("a", "1"), ("", "2")]),
            ("event: a\n\ndata: 1\n\n", &[("", "1")]),
            ("event: a\nevent: b\ndata: 1\n\n", &[("b", "1")]),
            ("event: a\nevent\ndata: 1\n\n", &[("", "1")]),
            ("event: a\nevent:\ndata: 1\n\n", &[("", "1")]),
            (": keep-alive\n\n:\n:data: a\n\n", &[]),
            ("event: a\n: keep-alive\ndata: 1\n\n", &[("a", "1")]),
            (
                "EventData: a\ndata : b\n data: c\ndatas: d\ndat: e\n\n",
                &[],
            ),
            ("\u{FEFF}data: a\n\n", &[("", "a")]),
            ("\u{FEFF}\n\u{FEFF}data: a\n\n", &[]),
            ("\u{FEFF}\u{FEFF}data: a\n\n", &[]),
            ("data: ‱ 💡\0\t\n\n", &[("", "‱ 💡\0\t")]),
            ("data: a\n\ndata: b\n", &[("", "a")]),
            ("data: a\n\ndata: b", &[("", "a")]),
        ];
        for (stream, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(n, d)| (n.to_string(), d.to_string()))
                .collect();
            assert_eq!(decoded(stream.as_bytes()), expected, "{stream:?}");
        }
    }

    #[test]
    fn random_streams_decode_by_the_standard() {
        const LONG: &[u8] = b"{\"type\":\"content_block_delta\",\"index\":0}";
        let parts: &[&[u8]] = &[
            b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"data", b"data:", b"data: ", b"event: ",
            b"event:", b"event", b"id: ", b"id", b"retry: ", b"retry:5", b":", b" ", b"a", b"17",
            b"\0", b"\xC3", b"\xA9", BOM, LONG,
        ];
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..3_000 {
            let mut stream = Vec::new();
            for _ in 0..rng.usize(0..24) {
                stream.extend_from_slice(rng.choice(parts).unwrap());
            }
            let expected = decode_by_the_standard(&stream);
            assert_eq!(
                decode_in_all_cuts(MAX_EVENT, &stream),
                expected,
                "{:?}",
                text(&stream)
            );
        }
    }

    #[test]
    fn event_is_complete_with_its_last_byte() {
        for stream in ["data: a\n\n", "data: a\r\r", "data: a\r\n\r", "data: a\n\r"] {
            let mut decoder = Decoder::new();
            let (all_but_one, last) = stream.split_at(stream.len() - 1);
            decoder.feed(all_but_one.as_bytes());
            assert!(decoder.next_event().unwrap().is_none(), "{stream:?}");
            decoder.feed(last.as_bytes());
            assert_eq!(
                decoder.next_event().unwrap().unwrap().data,
                b"a",
                "{stream:?}"
            );
            decoder.feed(b"\ndata: b\n\n");
            assert_eq!(
                decoder.next_event().unwrap().unwrap().data,
                b"b",
                "{stream:?}"
            );
        }
    }

    #[test]
    fn data_of_one_line_is_borrowed_from_the_buffer() {
        let mut decoder = Decoder::new();
        let buffer = decoder.buffer.as_ptr_range();
        decoder.feed(b"event: a\ndata: 1\n\n");
        assert!(buffer.contains(&decoder.next_event().unwrap().unwrap().data.as_ptr()));
        assert_eq!(decoder.joined.capacity(), 0);
    }

    #[test]
    fn partial_event_is_told_from_a_clean_end() {
        let cases = [
            ("", false),
            ("data: a\n\n", false),
            ("data: a\r\n\r\n", false),
            ("data: a\r\n\r", false),
            ("\u{FEFF}: keep-alive\nid: 1\nretry: 2\nunknown\n\n", false),
            ("data: a\n\n: keep-alive\n", false),
            ("data: a\n\ne", true),
            ("data: a\n\nevent: b\n", true),
            ("data\r\n", true),
        ];
        for (stream, is_partial) in cases {
            let decoded = decode_in_all_cuts(MAX_EVENT, stream.as_bytes());
            assert_eq!(decoded.is_partial, is_partial, "{stream:?}");
        }
    }

    #[test]
    fn ids_and_retry_are_kept_across_events() {
        let stream = b"id: 1\nretry: 70\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\nid: 3\0\nretry: 7s\n\nid\ndata: d\n\n";
        let decoded = decode_in_all_cuts(MAX_EVENT, stream);
        let ids: Vec<_> = decoded
            .events
            .iter()
            .map(|(_, _, id)| id.as_str())
            .collect();
        assert_eq!(ids, ["1", "1", "2", ""]);
        assert_eq!(decoded.retry, Some(70));
        let endless = decode_in_all_cuts(MAX_EVENT, b"retry: 99999999999999999999\n");
        assert_eq!(endless.retry, Some(u64::MAX));
    }

    #[test]
    fn event_one_byte_above_the_limit_is_refused() {
        let limit = 40;
        let fitting: &[&str] = &[
            "data: 123456789 123456789 123456789 123\n\n",
            "event: a\ndata: 123456789 123456789 1234\n\n",
            "data: 1\ndata: 2\ndata: 3\ndata: 4\ndata: 5\n\n",
            ": 123456789 123456789 123456789 12345678\n: 123456789 123456789\n: 123456789\n\n",
        ];
        for stream in fitting {
            assert_eq!(
                decode_in_all_cuts(limit, stream.as_bytes()).error,
                None,
                "{stream:?}"
            );
            let decoded = decode_in_all_cuts(
                limit - 1,
                format!("data: 1\n\n{stream}data: 2\n\n").as_bytes(),
            );
            assert_eq!(
                decoded.error,
                Some(TooLong { limit: limit - 1 }),
                "{stream:?}"
            );
            assert_eq!(decoded.events.len(), 1, "{stream:?}");
        }
    }

    #[test]
    fn endless_line_is_refused_in_bounded_memory() {
        let mut decoder = Decoder::with_limit(130_000);
        let (mut fed, mut held) = (0, 0);
        let error = loop {
            decoder.feed(&[b'x'; 1000]);
            fed += 1000;
            held = decoder.buffer.len().max(held);
            match decoder.next_event() {
                Ok(event) => assert!(event.is_none()),
                Err(error) => break error,
            }
        };
        assert_eq!((error.limit, fed), (130_000, 131_000));
        assert!(held <= 130_000 + INITIAL_BUFFER);
        assert!(decoder.buffer.is_empty());
    }

    #[test]
    fn refused_stream_stays_refused_and_holds_no_bytes() {
        let mut decoder = Decoder::with_limit(10);
        decoder.feed(b"data: 123456789\n\ndata: 1\n\n");
        for _ in 0..1000 {
            assert_eq!(decoder.next_event().err(), Some(TooLong { limit: 10 }));
            assert!(!decoder.has_partial());
            decoder.feed(&[b'\n'; 1000]);
        }
        assert!(decoder.buffer.len() <= INITIAL_BUFFER);
        assert!(!decoder.space().is_empty());
    }

    #[test]
    fn too_long_names_the_limit() {
        let error = TooLong { limit: 16 };
        assert_eq!(
            error.to_string(),
            "event of the stream is longer than 16 bytes"
        );
    }

    #[test]
    fn work_is_linear_in_the_bytes_for_all_cuts() {
        let huge = format!("data: {}\n\n", "x".repeat(300_000));
        let long = format!("event: a\ndata: {}\n\n", "x".repeat(50_000)).repeat(20);
        let short = "event: a\r\n: b\r\ndata: 1\r\ndata: 2\r\n\r\n".repeat(10_000);
        let comments = ": keep-alive\n".repeat(20_000);
        for stream in [huge, long, short, comments] {
            for len in [1, 10, 1000, 5000, 60_000, usize::MAX] {
                let mut decoder = Decoder::new();
                let mut rest = stream.as_bytes();
                while !rest.is_empty() {
                    let space = decoder.space();
                    let (piece, after) = rest.split_at(len.min(space.len()).min(rest.len()));
                    space[..piece.len()].copy_from_slice(piece);
                    decoder.mark_filled(piece.len());
                    while decoder.next_event().unwrap().is_some() {}
                    rest = after;
                }
                let per_byte = decoder.work as f64 / stream.len() as f64;
                assert!(
                    per_byte <= 3.0,
                    "{per_byte} for each byte of {} in {len}",
                    stream.len()
                );
            }
        }
    }

    #[test]
    fn buffer_grows_only_for_an_event_that_needs_it() {
        let mut decoder = Decoder::new();
        for _ in 0..1000 {
            decoder.feed(format!("event: a\ndata: {}\n\nda", "x".repeat(5000)).as_bytes());
            while decoder.next_event().unwrap().is_some() {}
            decoder.feed(b"ta: 1\n\n");
            while decoder.next_event().unwrap().is_some() {}
        }
        assert_eq!(decoder.buffer.len(), INITIAL_BUFFER);
        for _ in 0..10 {
            decoder.feed(format!("data: {}\n\n", "x".repeat(100_000)).as_bytes());
            assert_eq!(decoder.next_event().unwrap().unwrap().data.len(), 100_000);
            assert!(decoder.next_event().unwrap().is_none());
        }
        assert_eq!(decoder.buffer.len(), 128 << 10);
    }

    #[test]
    #[ignore = "reads recordings that are not part of the crate"]
    fn recorded_vectors_decode_by_the_standard() {
        let folder = std::env::var_os("ANTHROPIC_RECORDINGS")
            .expect("ANTHROPIC_RECORDINGS names the folder with sse_vectors.json");
        let file = std::path::Path::new(&folder).join("sse_vectors.json");
        let vectors =
            std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let vectors: serde_json::Value = serde_json::from_slice(&vectors).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 55);
        for case in cases {
            let id = case["id"].as_str().unwrap();
            let generated = &case["bytes_gen"];
            let (bytes, filling) = match case["bytes_b64"].as_str() {
                Some(base64) => (from_base64(base64), String::new()),
                None => {
                    let part = |name: &str| generated[name].as_str().unwrap();
                    let count = generated["count"].as_u64().unwrap() as usize;
                    let filling = part("repeat").repeat(count);
                    (
                        format!("{}{filling}{}", part("prefix"), part("suffix")).into_bytes(),
                        filling,
                    )
                }
            };
            let mut expected = Vec::new();
            for event in case["expected"].as_array().unwrap() {
                let of = |name: &str| event[name].as_str().map(str::to_owned);
                if let Some(len) = event["data_len_bytes"].as_u64() {
                    assert_eq!(filling.len() as u64, len, "{id}");
                }
                let data = of("data").unwrap_or_else(|| filling.clone());
                expected.push((
                    of("event").unwrap_or_default(),
                    data,
                    of("last_event_id").unwrap(),
                ));
            }
            let mut cuts = vec![vec![usize::MAX], vec![1], vec![7]];
            if let Some(sizes) = case["chunk_sizes"].as_array() {
                cuts.push(
                    sizes
                        .iter()
                        .map(|size| size.as_u64().unwrap() as usize)
                        .collect(),
                );
            }
            for cut in cuts {
                let mut sizes = cut.iter().cycle();
                let decoded = decode(Decoder::new(), &bytes, || *sizes.next().unwrap());
                assert!(decoded.events == expected, "{id} cut by {cut:?}");
                assert_eq!(
                    decoded.retry,
                    case["expected_retry_ms"].as_u64(),
                    "{id} cut by {cut:?}"
                );
                assert_eq!(decoded.error, None, "{id} cut by {cut:?}");
            }
        }
    }

    /// Decodes the base64 of the recordings.
    fn from_base64(text: &str) -> Vec<u8> {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
        for byte in text.bytes().filter(|&byte| byte != b'=') {
            bits = bits << 6 | alphabet.iter().position(|&digit| digit == byte).unwrap() as u32;
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
        bytes
    }
}
