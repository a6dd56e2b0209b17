//! Recorded streams, compared with the messages that the official client makes of them.

use super::*;
use crate::support::compare::{compare, surplus};

/// The recorded stream that is not compared with the official client's message.
const NOT_COMPARED: (&str, &str) = (
    "f95fa102eb9124f97d6b2f8224329f0d94cd59f4e0652c716ab879bf41294f72",
    "a gateway sends `[DONE]` after message_stop, at which the official client fails",
);

/// How the bytes of a stream arrive.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// At once, with a length.
    Whole,
    /// Each byte in its own HTTP chunk.
    Bytes,
    /// In HTTP chunks of random length.
    Chunks,
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn streams_accumulate_like_the_official_client() {
    let streams = streams();
    let calls = AtomicUsize::new(0);
    in_parallel(&streams, |seed, recorded| {
        let stage = Stage::new();
        let client = stage.builder().retry(RetryPolicy::none()).build();
        let client = client.expect("a client");
        for arrival in [Arrival::Whole, Arrival::Bytes, Arrival::Chunks] {
            let at = format!("{}, {arrival:?}", recorded.name);
            let reply = recorded.reply(arrival, seed as u64);
            stage.server.push_all([reply.clone(), reply]);
            let message = client.messages().create(&question());
            let message = message.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            recorded.check(&message, &at);
            let stream = client.messages().stream(&question());
            let mut stream = stream.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            let events: Vec<_> = stream
                .by_ref()
                .map(|event| serde_json::to_value(event.expect(&at)).expect("JSON"))
                .collect();
            recorded.check_events(&events, &at);
            assert_eq!(stream.partial(), &message, "{at}");
            assert_eq!(stream.final_message().expect(&at), message, "{at}");
            calls.fetch_add(2, Ordering::Relaxed);
        }
        assert_eq!(stage.server.connection_count(), 1, "{}", recorded.name);
    });
    println!("{} streams, {} calls", streams.len(), calls.into_inner());
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn streams_arriving_byte_by_byte_accumulate_alike() {
    let streams = streams();
    let calls = AtomicUsize::new(0);
    in_parallel(&streams, |_, recorded| {
        // Each byte costs a system call, so only the shorter streams are used.
        if recorded.body.len() > 4000 {
            return;
        }
        let stage = Stage::new();
        let reply = recorded.reply(Arrival::Whole, 0).dribble(1, Duration::ZERO);
        stage.server.push(reply);
        let message = stage.client(Way::Underneath).messages().create(&question());
        let message = message.unwrap_or_else(|error| panic!("{}: {error:?}", recorded.name));
        recorded.check(&message, &recorded.name);
        calls.fetch_add(1, Ordering::Relaxed);
    });
    println!("{} streams", calls.into_inner());
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn cut_streams_are_errors_with_partial_content() {
    let streams = streams();
    let cuts = AtomicUsize::new(0);
    in_parallel(&streams, |seed, recorded| {
        let stage = Stage::new();
        stage.server.keep_requests(false);
        let client = stage.builder().retry(RetryPolicy::none()).build();
        let client = client.expect("a client");
        let events = events(&recorded.body);
        let mut rng = Rng::with_seed(seed as u64);
        for round in 0..CUTS {
            let length = rng.usize(..recorded.least_whole());
            let at = format!("{} cut at {length}, round {round}", recorded.name);
            stage.server.push(recorded.cut(length, round));
            let arrived = events
                .iter()
                .take_while(|event| event.end <= length)
                .count();
            let seen = Seen::of(&events[..arrived]);
            let error = if round % 2 == 0 {
                client.messages().create(&question()).expect_err(&at)
            } else {
                read_cut_stream(&client, arrived, &at)
            };
            assert_eq!(error.kind(), ErrorKind::Stream, "{at}: {error:?}");
            assert_eq!(error.status(), None, "{at}");
            assert_eq!(error.attempts().len(), 1, "{at}");
            assert_eq!(error.attempts()[0].delivery, Delivery::Unknown, "{at}");
            match error.partial() {
                Some(partial) => seen.check(partial, &at),
                None => assert!(!seen.begun, "{at}: no partial message"),
            }
            cuts.fetch_add(1, Ordering::Relaxed);
        }
    });
    let cuts = cuts.into_inner();
    assert_eq!(cuts, CUTS * streams.len());
    println!("{} streams, {cuts} cuts", streams.len());
}

/// Number of cuts of each stream.
const CUTS: usize = 200;

/// Reads a stream that was cut after this many events, and returns its error.
#[track_caller]
fn read_cut_stream(client: &Client, arrived: usize, at: &str) -> Error {
    let mut stream = match client.messages().stream(&question()) {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let mut count = 0;
    let error = loop {
        match stream.next() {
            Some(Ok(_)) => count += 1,
            Some(Err(error)) => break error,
            None => panic!("{at}: the stream ended well"),
        }
    };
    assert_eq!(count, arrived, "{at}");
    assert_eq!(error.partial(), Some(stream.partial()), "{at}");
    assert!(stream.next().is_none(), "{at}: not fused");
    assert!(stream.final_message().is_err(), "{at}: a whole message");
    error
}

/// A recorded stream.
struct RecordedStream {
    name: String,
    body: String,
    /// The messages that the plain and the beta types of the official client make; null where it
    /// fails.
    finals: [Value; 2],
}

/// An event of a recorded stream, and the position of its end.
pub struct RecordedEvent {
    end: usize,
    data: Value,
}

/// What the events say of a message, by the simplest possible reading.
#[derive(Default)]
pub struct Seen {
    begun: bool,
    blocks: usize,
    text: String,
    thinking: String,
    stop_reason: Option<String>,
    output_tokens: Option<u64>,
}

fn streams() -> Vec<RecordedStream> {
    let lines = read("streams.jsonl");
    let streams: Vec<_> = lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            RecordedStream {
                name: text(&line["sha256"]).to_owned(),
                body: text(&line["body"]).to_owned(),
                finals: [line["final"].clone(), line["final_beta"].clone()],
            }
        })
        .collect();
    assert_eq!(streams.len(), 382);
    streams
}

impl RecordedStream {
    fn reply(&self, arrival: Arrival, seed: u64) -> Reply {
        let bytes = self.body.as_bytes();
        let mut rng = Rng::with_seed(seed);
        let mut script = StreamScript::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = match arrival {
                Arrival::Whole => rest.len(),
                Arrival::Bytes => 1,
                Arrival::Chunks if rng.bool() => rng.usize(1..=20),
                Arrival::Chunks => rng.usize(1..=2000),
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            script = script.raw(piece);
            rest = after;
        }
        match arrival {
            Arrival::Whole => self.with_length(),
            Arrival::Bytes | Arrival::Chunks => Reply::stream(script),
        }
    }

    fn with_length(&self) -> Reply {
        Reply::status(200)
            .header("content-type", "text/event-stream; charset=utf-8")
            .body(self.body.as_bytes())
    }

    /// Returns the stream, cut after this many bytes. Most cuts are orderly ends, which leave the
    /// connection reusable: a new connection costs more than the stream.
    fn cut(&self, length: usize, round: usize) -> Reply {
        let begin = &self.body.as_bytes()[..length];
        match round {
            // A reset discards bytes that were not yet sent, which may be the rest of a longer
            // body.
            0..16 if length < 16 * 1024 => self.with_length().reset_in_body(length),
            0..32 => self.with_length().truncate(length),
            32..48 => self.with_length().body(begin).close_delimited(),
            _ => Reply::stream(StreamScript::new().raw(begin)),
        }
    }

    /// Returns the number of bytes after which nothing is missing: up to the last brace of
    /// `message_stop`, since the line end and the blank line after it carry no data.
    fn least_whole(&self) -> usize {
        let stop = self.body.find("\ndata: {\"type\":\"message_stop\"");
        let stop = stop.unwrap_or_else(|| panic!("{} has no end", self.name));
        let end = self.body[stop..].find('}').expect("a brace");
        stop + end + 1
    }

    #[track_caller]
    fn check(&self, message: &Message, at: &str) {
        let ours = serde_json::to_value(message).expect("JSON");
        if self.name == NOT_COMPARED.0 {
            assert!(self.finals.iter().all(Value::is_null), "{at}");
            return Seen::of(&events(&self.body)).check(message, at);
        }
        let mut faults = Vec::new();
        for theirs in &self.finals {
            assert!(theirs.is_object(), "{at}");
            compare(at, &ours, theirs, &mut faults);
        }
        surplus(at, &ours, &self.finals.each_ref(), &mut faults);
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// Checks that every event was handed out as it was recorded, up to `message_stop`.
    #[track_caller]
    fn check_events(&self, ours: &[Value], at: &str) {
        let recorded = events(&self.body);
        let mut theirs = recorded
            .iter()
            .map(|event| &event.data)
            .filter(|data| !data.is_null());
        assert!(theirs.by_ref().take(ours.len()).eq(ours), "{at}");
        assert!(theirs.next().is_none(), "{at}: there are more events");
        assert_eq!(
            ours.last().expect("an event")["type"],
            "message_stop",
            "{at}"
        );
    }
}

/// Returns the events of a recorded body; the data is null where it is no JSON. All recordings end
/// their lines in LF and have one data line per event.
pub fn events(body: &str) -> Vec<RecordedEvent> {
    let mut end = 0;
    let mut events = Vec::new();
    for frame in body.split_inclusive("\n\n") {
        end += frame.len();
        let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
        if let Some(data) = data {
            let data = serde_json::from_str(data).unwrap_or_default();
            events.push(RecordedEvent { end, data });
        }
    }
    events
}

impl Seen {
    pub fn of(events: &[RecordedEvent]) -> Seen {
        let mut seen = Seen::default();
        for event in events {
            let data = &event.data;
            let part = |name: &str, field: &str| data[name][field].as_str().unwrap_or_default();
            match data["type"].as_str().unwrap_or_default() {
                "message_start" => {
                    seen.begun = true;
                    seen.output_tokens = data["message"]["usage"]["output_tokens"].as_u64();
                }
                "content_block_start" => {
                    seen.blocks += 1;
                    seen.text += part("content_block", "text");
                    seen.thinking += part("content_block", "thinking");
                }
                "content_block_delta" => {
                    seen.text += part("delta", "text");
                    seen.thinking += part("delta", "thinking");
                }
                "message_delta" => {
                    let reason = data["delta"]["stop_reason"].as_str();
                    seen.stop_reason = reason.map(str::to_owned);
                    let tokens = data["usage"]["output_tokens"].as_u64();
                    seen.output_tokens = tokens.or(seen.output_tokens);
                }
                _ => {}
            }
        }
        seen
    }

    #[track_caller]
    pub fn check(&self, message: &Message, at: &str) {
        assert!(self.begun, "{at}");
        assert_eq!(message.content.len(), self.blocks, "{at}");
        assert_eq!(message.text(), self.text, "{at}");
        let thinking = message.content.iter().filter_map(|block| match block {
            ContentBlock::Thinking(block) => Some(block.thinking.as_str()),
            _ => None,
        });
        assert_eq!(thinking.collect::<String>(), self.thinking, "{at}");
        let reason = message.stop_reason.as_ref().map(StopReason::as_str);
        assert_eq!(reason, self.stop_reason.as_deref(), "{at}");
        let tokens = message.usage.output_tokens;
        assert_eq!(tokens, self.output_tokens.unwrap_or_default(), "{at}");
    }
}

/// Calls `work` with each item, on as many threads as there are cores.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    work(at, item);
                }
            });
        }
    });
}
