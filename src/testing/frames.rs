//! The bytes of a scripted stream, frame by frame.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stream::{PING, StreamEnding, StreamScript, StreamStep, quoted};

impl StreamScript {
    /// Returns the bytes of the body, for tests of a parser without a socket.
    ///
    /// Pauses are left out; the bytes end at a stall or a reset. `message_start` names
    /// `claude-sonnet-5`, and 10 input tokens if the script does not set them.
    ///
    /// ```
    /// use anthropic_blocking::testing::StreamScript;
    ///
    /// let bytes = StreamScript::new().ping().to_bytes();
    /// assert_eq!(String::from_utf8_lossy(&bytes), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut frames = Frames::new(Arc::new(self.clone()), MessageStartValues::default());
        let mut bytes = Vec::new();
        while !matches!(frames.next(&mut bytes), Frame::End) {}
        bytes
    }
}

/// What `message_start` takes from the request.
#[derive(Debug)]
pub(super) struct MessageStartValues {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) input_tokens: u64,
}

impl Default for MessageStartValues {
    fn default() -> Self {
        MessageStartValues {
            id: "msg_test_000001".to_owned(),
            model: DEFAULT_MODEL.to_owned(),
            input_tokens: 10,
        }
    }
}

/// What [`Frames::next`] found.
pub(super) enum Frame {
    /// One frame was appended.
    Bytes,
    /// Nothing is to be sent for this long.
    Pause(Duration),
    /// The stream has ended; [`Frames::ending`] names the fault.
    End,
}

/// Makes the frames of a script one by one, so that a long script costs no memory.
#[derive(Debug)]
pub(super) struct Frames {
    script: Arc<StreamScript>,
    start: MessageStartValues,
    /// The index of the next step.
    step: usize,
    /// How many deltas of the current step were made.
    deltas: usize,
    /// How many events were made.
    events: usize,
    is_finished: bool,
    rng: fastrand::Rng,
    /// The generated text, of which each delta is a part.
    words: Vec<u8>,
    /// A buffer that all generated deltas use.
    data: String,
}

impl Frames {
    pub(super) fn new(script: Arc<StreamScript>, start: MessageStartValues) -> Self {
        Frames {
            rng: fastrand::Rng::with_seed(SEED),
            script,
            start,
            step: 0,
            deltas: 0,
            events: 0,
            is_finished: false,
            words: Vec::new(),
            data: String::new(),
        }
    }

    pub(super) fn script(&self) -> &StreamScript {
        &self.script
    }

    /// Returns the fault at which the stream ends, if the script has one.
    pub(super) fn ending(&self) -> Option<&StreamEnding> {
        self.script.early_end.as_ref().map(|end| &end.ending)
    }

    /// Appends the next frame to `out`.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Frame {
        let script = Arc::clone(&self.script);
        if self.is_finished {
            return Frame::End;
        }
        let frame = if self.is_at_ending() {
            self.last_frame(&script, out)
        } else {
            self.next_step(&script, out)
        };
        let is_stripped = !script.final_blank_line && self.is_exhausted();
        if is_stripped && matches!(frame, Frame::Bytes) {
            let blank = script.line_end.as_bytes();
            if out.ends_with(&[blank, blank].concat()) {
                out.truncate(out.len() - blank.len());
            }
        }
        frame
    }

    /// Returns the bytes of one ping, with the line ends and names of the script.
    pub(super) fn ping(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let script = Arc::clone(&self.script);
        self.write_event(&script, "ping", PING, &mut out);
        out
    }

    fn is_at_ending(&self) -> bool {
        let is_past_last_step = self.step >= self.script.steps.len();
        match &self.script.early_end {
            Some(end) => is_past_last_step || self.events >= end.events,
            None => is_past_last_step,
        }
    }

    /// Returns whether nothing more will be sent.
    fn is_exhausted(&self) -> bool {
        let has_more = match self.ending() {
            Some(StreamEnding::Error(_)) => true,
            Some(_) => false,
            None => self.script.done_marker,
        };
        self.is_finished || (self.is_at_ending() && !has_more)
    }

    fn last_frame(&mut self, script: &StreamScript, out: &mut Vec<u8>) -> Frame {
        self.is_finished = true;
        match script.early_end.as_ref().map(|end| &end.ending) {
            Some(StreamEnding::Error(data)) => self.write_event(script, "error", data, out),
            None if script.done_marker => {
                let end = script.line_end;
                out.extend_from_slice(format!("data: [DONE]{end}{end}").as_bytes());
            }
            _ => return Frame::End,
        }
        Frame::Bytes
    }

    fn next_step(&mut self, script: &StreamScript, out: &mut Vec<u8>) -> Frame {
        let Some(step) = script.steps.get(self.step) else {
            return Frame::End;
        };
        if let StreamStep::Deltas {
            index,
            count,
            bytes_each,
        } = step
        {
            if self.deltas < *count {
                self.write_generated(script, *index, *bytes_each, out);
            }
            self.deltas += 1;
            if self.deltas >= *count {
                self.step += 1;
                self.deltas = 0;
            }
            return Frame::Bytes;
        }
        self.step += 1;
        match step {
            StreamStep::Pause(duration) => return Frame::Pause(*duration),
            StreamStep::Until(time) => {
                return Frame::Pause(time.saturating_duration_since(Instant::now()));
            }
            StreamStep::Raw(bytes) => out.extend_from_slice(bytes),
            StreamStep::Comment(text) => {
                let end = script.line_end;
                out.extend_from_slice(format!(": {text}{end}{end}").as_bytes());
            }
            StreamStep::Error(data) => {
                self.write_event(script, "error", data, out);
                self.is_finished = true;
            }
            StreamStep::Start { input_tokens } => {
                let data = self.message_start(*input_tokens);
                self.write_event(script, "message_start", &data, out);
            }
            StreamStep::Event { name, data } => self.write_event(script, name, data, out),
            StreamStep::Deltas { .. } => {}
        }
        Frame::Bytes
    }

    fn message_start(&self, input_tokens: Option<u64>) -> String {
        format!(
            r#"{{"type":"message_start","message":{{"id":{},"type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{},"output_tokens":1}}}}}}"#,
            quoted(&self.start.id),
            quoted(&self.start.model),
            input_tokens.unwrap_or(self.start.input_tokens)
        )
    }

    fn write_generated(
        &mut self,
        script: &StreamScript,
        index: usize,
        bytes: usize,
        out: &mut Vec<u8>,
    ) {
        if self.words.is_empty() {
            self.words = words(&mut self.rng);
        }
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        // Writing to a `String` cannot fail.
        let _ = write!(
            data,
            r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"text_delta","text":""#
        );
        let first = self.rng.usize(..self.words.len());
        let text = self.words.iter().cycle().skip(first).take(bytes);
        data.extend(text.map(|byte| char::from(*byte)));
        data.push_str("\"}}");
        self.write_event(script, "content_block_delta", &data, out);
        self.data = data;
    }

    fn write_event(&mut self, script: &StreamScript, name: &str, data: &str, out: &mut Vec<u8>) {
        self.events += 1;
        let end = script.line_end.as_bytes();
        if script.named {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(end);
        }
        let (body, brace) = match data.strip_suffix('}') {
            Some(body) if script.padded => (body, "}"),
            _ => (data, ""),
        };
        for (number, line) in body.split('\n').enumerate() {
            if number > 0 {
                out.extend_from_slice(end);
            }
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line.as_bytes());
        }
        if script.padded {
            out.resize(out.len() + self.rng.usize(..16), b' ');
        }
        out.extend_from_slice(brace.as_bytes());
        out.extend_from_slice(end);
        out.extend_from_slice(end);
    }
}

fn words(rng: &mut fastrand::Rng) -> Vec<u8> {
    let letter = |rng: &mut fastrand::Rng| match rng.usize(..6) {
        0 => b' ',
        _ => rng.u8(b'a'..=b'z'),
    };
    (0..4096).map(|_| letter(rng)).collect()
}

/// Seed of the padding and the generated text: any fixed number, so that every run sends the same.
const SEED: u64 = 0;

/// The model of a response to a request that names none.
pub(super) const DEFAULT_MODEL: &str = "claude-sonnet-5";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn text_of(script: &StreamScript) -> String {
        String::from_utf8(script.to_bytes()).expect("scripts of text are UTF-8")
    }

    #[test]
    fn text_is_a_complete_stream_like_that_of_the_api() {
        let expected = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_test_000001\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello \"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"\\\"you\\\"\"}}\n\n",
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        );
        assert_eq!(text_of(&StreamScript::text("Hello \"you\"")), expected);
    }

    #[test]
    fn every_event_is_json_that_names_its_type() {
        let script = StreamScript::new()
            .message_start(7)
            .thinking("Hm, let me see", "c2ln")
            .text_block(["a\n", "é😀"])
            .tool_use("toolu_1", "t\"x", ["{\"a\"", ":1}"])
            .deltas(3, 5)
            .unknown_event()
            .ping()
            .finish()
            .padded();
        for frame in text_of(&script).split_terminator("\n\n") {
            let (name, data) = frame.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name");
            let data = data.strip_prefix("data: ").expect("data");
            let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(value["type"], name);
        }
        let text = text_of(&script);
        assert!(text.contains(r#""stop_reason":"tool_use""#), "{text}");
        assert!(text.contains(r#""index":3,"delta""#), "{text}");
    }

    #[test]
    fn generated_deltas_have_the_stated_number_and_size() {
        let script = StreamScript::new().deltas(1_000, 40).unnamed();
        let text = text_of(&script);
        let sizes: Vec<usize> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok())
            .filter_map(|value| value["delta"]["text"].as_str().map(str::len))
            .collect();
        assert_eq!(sizes, vec![40; 1_000]);
        assert_eq!(text, text_of(&script));
        assert!(text_of(&StreamScript::new().deltas(0, 9)).contains("content_block_stop"));
    }

    #[test]
    fn endings_count_events_only() {
        let script = StreamScript::new()
            .comment("c")
            .ping()
            .ping()
            .raw("r")
            .ping();
        let count = |script: StreamScript| text_of(&script).matches("event: ping").count();
        assert_eq!(count(script.clone().cut_after(0)), 0);
        assert_eq!(count(script.clone().cut_after(2)), 2);
        assert_eq!(count(script.clone().stall_after(1)), 1);
        assert_eq!(count(script.clone().reset_after(99)), 3);
        let text = text_of(
            &script
                .clone()
                .error_after(1, "overloaded_error", "Overloaded"),
        );
        assert!(text.ends_with("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"), "{text}");
        assert_eq!(text.matches("event:").count(), 2);
        let text = text_of(&script.clone().error_after(99, "api_error", "x"));
        assert_eq!(text.matches("event:").count(), 4);
        let text = text_of(&script.error("api_error", "x").ping().done_marker());
        assert_eq!(text.matches("event:").count(), 4);
        assert!(!text.contains("DONE"));
    }

    #[test]
    fn line_ends_and_stream_ends_follow_the_script() {
        let ping = |script: StreamScript| text_of(&script.ping());
        let new = StreamScript::new;
        assert_eq!(
            ping(new().crlf()),
            "event: ping\r\ndata: {\"type\":\"ping\"}\r\n\r\n"
        );
        assert_eq!(
            ping(new().cr()),
            "event: ping\rdata: {\"type\":\"ping\"}\r\r"
        );
        assert_eq!(ping(new().unnamed()), "data: {\"type\":\"ping\"}\n\n");
        assert!(ping(new().done_marker()).ends_with("\n\ndata: [DONE]\n\n"));
        let script = new().without_final_blank_line();
        assert_eq!(
            ping(script.clone().ping().unnamed())
                .matches("\n\n")
                .count(),
            1
        );
        assert!(ping(script.clone().crlf()).ends_with("}\r\n"));
        assert!(ping(script.clone().cr()).ends_with("}\r"));
        assert!(!ping(script.clone().cr()).ends_with("\r\r"));
        let error = script.error_after(1, "api_error", "x");
        assert!(ping(error).ends_with("}}\n"));
        assert!(text_of(&new().event("x", "1\n2")).ends_with("data: 1\ndata: 2\n\n"));
    }
}
