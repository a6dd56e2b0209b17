//! The limit mode on the wire: requests read, verdicts written as answers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::admission::{Ask, Machine, Verdict};
use super::buckets::{Cause, Plan, Standing};
use super::headers::groups;
use super::ledger::Ledger;
use super::settings::{REQUESTS, ServerLimits};
use crate::testing::canned::{self, Said, Wish, message_json};
use crate::testing::dates::http_date;
use crate::testing::recorded::RecordedRequest;
use crate::testing::reply::{ORGANIZATION, Reply};
use crate::testing::stream::{StreamScript, quoted};
use crate::testing::sync::lock;

/// The limits of one server with their clock.
pub(crate) struct Limited(Mutex<Desk>);

struct Desk {
    machine: Machine,
    time: ServerTime,
}

impl Limited {
    pub(crate) fn new(limits: ServerLimits) -> Limited {
        Limited(Mutex::new(Desk {
            time: ServerTime::new(limits.scale),
            machine: Machine::new(limits),
        }))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let (ledger, now) = {
            let desk = lock(&self.0);
            (desk.machine.entries().clone(), desk.time.seen())
        };
        ledger.ledger(now)
    }

    /// What becomes of a request that `reply` would answer with a canned message.
    pub(crate) fn answer(&self, reply: Reply, request: &RecordedRequest, serial: u64) -> Reply {
        let Some(body) = canned::message_request(request) else {
            return reply;
        };
        let limits = Arc::clone(lock(&self.0).machine.limits());
        let asked = Asked::read(&body, &request.body, &limits);
        let class = limits.grouping.class_of(&asked.wish.model);
        let (verdict, arrived, time) = {
            let mut desk = lock(&self.0);
            let now = desk.time.now();
            let verdict = desk.machine.at(now, asked.ask(&class));
            (verdict, now, desk.time.clone())
        };
        let scene = Scene {
            limits: &limits,
            asked: &asked,
            time: &time,
            arrived,
            serial,
        };
        let made = match verdict {
            Verdict::Admitted(plan, standing) => scene.message(&plan, &standing),
            Verdict::Limited(cause, standing) => scene.refusal(cause, &standing),
            Verdict::Overloaded => scene.refused(Reply::overloaded()),
        };
        Reply {
            content: made.content,
            defaults: made.defaults,
            delay: reply.delay.saturating_add(made.delay),
            ..reply
        }
    }
}

/// The server's time, in seconds since the first request, on the real clock.
#[derive(Clone, Debug)]
struct ServerTime {
    /// When which time was, once it runs.
    known: Option<(Instant, f64)>,
    scale: f64,
    /// The time of day at the first request, in seconds since 1970.
    wall: f64,
}

impl ServerTime {
    fn new(scale: f64) -> ServerTime {
        ServerTime {
            known: None,
            scale,
            wall: 0.0,
        }
    }

    /// The time; the first call starts it.
    fn now(&mut self) -> f64 {
        if self.known.is_none() {
            self.known = Some((Instant::now(), 0.0));
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            self.wall = wall.unwrap_or_default().as_secs_f64();
            return 0.0;
        }
        self.seen()
    }

    /// The time, zero as long as it has not been started.
    fn seen(&self) -> f64 {
        let passed =
            |(known, time): (Instant, f64)| time + known.elapsed().as_secs_f64() * self.scale;
        self.known.map_or(0.0, passed)
    }

    /// When it will be this time.
    fn instant(&self, time: f64) -> Instant {
        let (known, since) = self.known.unwrap_or_else(|| (Instant::now(), 0.0));
        known + Duration::from_secs_f64(((time - since) / self.scale).max(0.0))
    }

    /// How much of the real time is left until this time.
    fn left(&self, time: f64) -> Duration {
        self.instant(time).saturating_duration_since(Instant::now())
    }

    /// The time of day, in seconds since 1970.
    fn day(&self, time: f64) -> f64 {
        self.wall + time
    }
}

/// What a request asks for.
struct Asked {
    wish: Wish,
    max_tokens: u64,
    output: Option<u64>,
    cache_read: u64,
    latency: Option<f64>,
    /// The text of the answer, where it is not made to measure.
    text: Option<String>,
}

impl Asked {
    fn read(body: &Value, bytes: &[u8], limits: &ServerLimits) -> Asked {
        let mut wish = Wish::read(bytes);
        let stated = |name: &str| {
            let in_metadata = body["metadata"]["user_id"].as_str();
            let found = in_metadata.and_then(|text| stated(text, name));
            found.or_else(|| stated(&canned::last_said(&body["messages"]), name))
        };
        wish.input_tokens = stated("input").unwrap_or(wish.input_tokens);
        let mut output = stated("output");
        let is_canned = output.is_none() && limits.output.is_none();
        let text = is_canned.then(|| canned::echo(&body["messages"]));
        if let Some(text) = &text {
            output = Some(text.len().div_ceil(BYTES) as u64);
        }
        Asked {
            wish,
            max_tokens: body["max_tokens"].as_u64().unwrap_or_default(),
            output,
            cache_read: stated("cache_read").unwrap_or_default(),
            latency: stated("latency_ms").map(|millis| millis as f64 / 1e3),
            text,
        }
    }

    fn ask<'a>(&self, class: &'a str) -> Ask<'a> {
        Ask {
            class,
            input: self.wish.input_tokens,
            max_tokens: self.max_tokens,
            output: self.output,
            latency: self.latency,
        }
    }

    /// What the answer says: the canned text, or filler, of the planned length.
    fn text(&self, plan: &Plan) -> String {
        let bytes = plan.output as usize * BYTES;
        match &self.text {
            Some(text) if !plan.is_cut => text.clone(),
            Some(text) => {
                let ends = text.char_indices().map(|(at, _)| at);
                let end = ends.take_while(|at| *at <= bytes).last();
                text[..end.unwrap_or_default()].to_owned()
            }
            None => FILLER.repeat(plan.output as usize),
        }
    }
}

/// The number of this name in a `[cost name=number …]` within the text.
fn stated(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once("[cost ")?;
    let (parts, _) = rest.split_once(']')?;
    let parts = parts.split_whitespace();
    let mut value = parts.filter_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.next_back()?.parse().ok()
}

/// All that an answer is made from, but for the verdict.
struct Scene<'a> {
    limits: &'a ServerLimits,
    asked: &'a Asked,
    time: &'a ServerTime,
    arrived: f64,
    serial: u64,
}

impl Scene<'_> {
    fn message(&self, plan: &Plan, standing: &Standing) -> Reply {
        let text = self.asked.text(plan);
        let said = Said {
            content: &format!(r#"[{{"type":"text","text":{}}}]"#, quoted(&text)),
            stop_reason: if plan.is_cut {
                "max_tokens"
            } else {
                "end_turn"
            },
            output_tokens: plan.output,
            cache_read_tokens: self.asked.cache_read,
        };
        let id = format!("msg_test_{:06}", self.serial);
        let is_stream = self.asked.wish.is_stream;
        let (reply, sent) = if is_stream {
            let script = self.script(&id, &text, &said, plan);
            (Reply::stream(script), plan.from)
        } else {
            let body = message_json(&id, &self.asked.wish, &said);
            (Reply::json(200, body), plan.to)
        };
        let reply = self.dated(reply, sent);
        let reply = self.with_groups(reply, standing, |_| true);
        reply.delay(self.time.left(sent))
    }

    /// The stream of the message; each piece is sent when it has been produced.
    fn script(&self, id: &str, text: &str, said: &Said<'_>, plan: &Plan) -> StreamScript {
        let start = format!(
            r#"{{"type":"message_start","message":{{"id":{},"type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{},"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":{}}}}}}}"#,
            quoted(id),
            quoted(&self.asked.wish.model),
            self.asked.wish.input_tokens,
            said.cache_read_tokens
        );
        let script = StreamScript::new().event("message_start", start).ping();
        let (mut script, block) = script.block(r#"{"type":"text","text":""}"#);
        let pieces = pieces(text);
        let step = (plan.to - plan.from) / pieces.len() as f64;
        for (index, piece) in pieces.iter().enumerate() {
            if step > 0.0 {
                let time = plan.from + step * (index + 1) as f64;
                script = script.until(self.time.instant(time));
            }
            script = script.delta(block, "text_delta", "text", piece);
        }
        script
            .block_stop(block)
            .message_delta(said.stop_reason, said.output_tokens)
            .message_stop()
    }

    fn refusal(&self, cause: Cause, standing: &Standing) -> Reply {
        let message = match cause {
            Cause::Limit(dimension, _) | Cause::TooLarge(dimension) => {
                let limit = grouped(standing[dimension].limit);
                let model = &self.asked.wish.model;
                let unit = UNITS[dimension];
                format!(
                    "This request would exceed your organization's rate limit of {limit} {unit} \
                     per minute (org: {ORGANIZATION}, model: {model}). {DETAILS}"
                )
            }
        };
        let reply = Reply::error(429, "rate_limit_error", &message);
        let (wait, only) = match cause {
            Cause::TooLarge(dimension) => (None, Some(dimension)),
            Cause::Limit(_, wait) => (Some(wait), None),
        };
        let mut reply = reply.by_default("x-should-retry", wait.is_some());
        if let Some(wait) = wait {
            // What is left of rounding must not make one more second.
            let seconds = (wait - 1e-6).ceil().max(1.0) as u64;
            reply = reply.by_default("retry-after", seconds);
        }
        let is_shown = |group| match only {
            Some(dimension) => group == dimension || group == REQUESTS,
            None => true,
        };
        self.refused(self.with_groups(reply, standing, is_shown))
    }

    /// A refusal, sent when refusals are.
    fn refused(&self, reply: Reply) -> Reply {
        let latency = self.limits.refusal_latency.as_secs_f64();
        let sent = self.arrived + latency;
        self.dated(reply, sent).delay(self.time.left(sent))
    }

    fn dated(&self, reply: Reply, sent: f64) -> Reply {
        reply.by_default("date", http_date(self.time.day(sent) as u64))
    }

    /// Adds the rate limit headers that are sent, of the groups that are shown.
    fn with_groups(
        &self,
        mut reply: Reply,
        standing: &Standing,
        is_shown: impl Fn(usize) -> bool,
    ) -> Reply {
        let day = self.time.day(self.arrived);
        for (name, value) in groups(standing, self.limits.headers, day, is_shown) {
            reply = reply.by_default(name, value);
        }
        reply
    }
}

/// `text` in at most [`DELTAS`] pieces of about the same length.
fn pieces(text: &str) -> Vec<&str> {
    let size = text.len().div_ceil(DELTAS).max(BYTES);
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((cut, _)) = rest.char_indices().find(|(at, _)| *at >= size) {
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// A number with commas, such as `450,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const UNITS: [&str; 3] = ["requests", "input tokens", "output tokens"];

const DETAILS: &str = "For details, refer to: https://docs.claude.com/en/api/rate-limits. You can \
    see the response headers for current usage. Please reduce the prompt length or the maximum \
    tokens requested, or try again later.";

/// One token of made-up text, and its bytes.
const FILLER: &str = "and ";
const BYTES: usize = FILLER.len();

/// The most deltas of a stream.
const DELTAS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_can_state_their_sizes() {
        let text = "Hi [cost input=3080 output=375 x output=y cache_read=7] input=1";
        let found = ["input", "output", "cache_read", "latency_ms"].map(|name| stated(text, name));
        assert_eq!(found, [Some(3_080), None, Some(7), None]);
        assert_eq!(stated("[cost input=5", "input"), None);
        assert_eq!(stated("[cost input=5]", "output"), None);
    }

    #[test]
    fn numbers_are_written_with_commas() {
        assert_eq!(
            [5, 450, 8_000, 450_000, 1_234_567].map(grouped),
            ["5", "450", "8,000", "450,000", "1,234,567"]
        );
    }

    #[test]
    fn pieces_are_few_and_whole() {
        for text in ["", "a", "äöü€€€", &"and ".repeat(375), &"ä".repeat(1_001)] {
            let pieces = pieces(text);
            assert_eq!(pieces.concat(), text);
            assert!((1..=DELTAS).contains(&pieces.len()), "{}", pieces.len());
        }
        assert_eq!(pieces(&"and ".repeat(160)), vec!["and ".repeat(10); 16]);
    }

    #[test]
    fn time_begins_with_the_first_request() {
        let mut time = ServerTime::new(1e6);
        assert_eq!(time.seen(), 0.0);
        assert_eq!(time.now(), 0.0);
        std::thread::sleep(Duration::from_millis(1));
        assert!(time.seen() >= 1_000.0);
        let mut slow = ServerTime::new(1e-3);
        slow.now();
        let (known, then) = slow.known.expect("it runs");
        assert_eq!(slow.instant(then + 1.0) - known, Duration::from_secs(1_000));
        assert_eq!(slow.left(then - 1.0), Duration::ZERO);
    }
}
