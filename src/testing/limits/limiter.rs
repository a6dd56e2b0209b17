//! The limit mode on the wire: decisions about requests, written as replies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::admission::{AdmissionControl, AdmissionDecision, ArrivedRequest};
use super::buckets::{BucketLevels, RefusalCause, ResponsePlan};
use super::headers::rate_limit_headers;
use super::ledger::Ledger;
use super::settings::{REQUESTS, ServerLimits};
use crate::testing::canned::{self, MessageParts, RequestSummary, message_json};
use crate::testing::dates::http_date;
use crate::testing::recorded::RecordedRequest;
use crate::testing::reply::{ORGANIZATION, Reply};
use crate::testing::stream::{StreamScript, quoted};
use crate::testing::sync::lock;

/// The limits of one server, with their clock.
pub(crate) struct ServerLimiter {
    state: Mutex<LimiterState>,
}

struct LimiterState {
    control: AdmissionControl,
    clock: ScaledClock,
}

impl ServerLimiter {
    pub(crate) fn new(limits: ServerLimits) -> ServerLimiter {
        ServerLimiter {
            state: Mutex::new(LimiterState {
                clock: ScaledClock::new(limits.scale),
                control: AdmissionControl::new(limits),
            }),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let (entries, now) = {
            let state = lock(&self.state);
            (state.control.entries().clone(), state.clock.now())
        };
        entries.ledger(now)
    }

    /// Decides about a request for a message that `reply`, a canned one, would answer; returns
    /// `reply` with the content, headers and delay that follow. Other requests keep `reply`.
    pub(crate) fn reply_to(&self, reply: Reply, request: &RecordedRequest, serial: u64) -> Reply {
        let Some(body) = canned::message_request(request) else {
            return reply;
        };
        let limits = Arc::clone(lock(&self.state).control.limits());
        let spec = MessageSpec::read(&body, &request.body, &limits);
        // The function of the caller that names the class may panic or be slow: not under the lock.
        let class = limits.grouping.class_of(&spec.summary.model);
        let (decision, arrived, clock) = {
            let mut state = lock(&self.state);
            let now = state.clock.start_or_now();
            let decision = state.control.decide(now, spec.arrived_request(&class));
            (decision, now, state.clock.clone())
        };
        let builder = ResponseBuilder {
            limits: &limits,
            spec: &spec,
            clock: &clock,
            arrived,
            serial,
        };
        let made = match decision {
            AdmissionDecision::Admitted(plan, levels) => builder.message(&plan, &levels),
            AdmissionDecision::RateLimited(cause, levels) => builder.rate_limited(cause, &levels),
            AdmissionDecision::Overloaded => builder.send_as_refusal(Reply::overloaded()),
        };
        Reply {
            content: made.content,
            defaults: made.defaults,
            delay: reply.delay.saturating_add(made.delay),
            ..reply
        }
    }
}

/// The server's time in seconds since the first request: the real time, times `scale`.
#[derive(Clone, Debug)]
struct ScaledClock {
    /// When the first request arrived.
    started: Option<Instant>,
    scale: f64,
    /// The time of day at the first request, in seconds since 1970.
    started_unix: f64,
}

impl ScaledClock {
    fn new(scale: f64) -> ScaledClock {
        ScaledClock {
            started: None,
            scale,
            started_unix: 0.0,
        }
    }

    /// Starts the clock if it does not run yet, and returns the time.
    fn start_or_now(&mut self) -> f64 {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            self.started_unix = wall.unwrap_or_default().as_secs_f64();
            return 0.0;
        }
        self.now()
    }

    /// Returns the time: zero before the first request.
    fn now(&self) -> f64 {
        let scaled = |started: Instant| started.elapsed().as_secs_f64() * self.scale;
        self.started.map_or(0.0, scaled)
    }

    /// Returns the real instant of a time of this clock.
    fn instant(&self, time: f64) -> Instant {
        let started = self.started.unwrap_or_else(Instant::now);
        started + Duration::from_secs_f64((time / self.scale).max(0.0))
    }

    /// Returns how long it takes in real time until this time of the clock.
    fn real_time_until(&self, time: f64) -> Duration {
        self.instant(time).saturating_duration_since(Instant::now())
    }

    /// Returns the time of day in seconds since 1970.
    fn unix_time(&self, time: f64) -> f64 {
        self.started_unix + time
    }
}

/// What a request says about the response that it wants, with the sizes that it states.
struct MessageSpec {
    summary: RequestSummary,
    max_tokens: u64,
    output: Option<u64>,
    cache_read: u64,
    /// In seconds.
    latency: Option<f64>,
    /// The canned text; `None` for filler text of the planned length.
    text: Option<String>,
}

impl MessageSpec {
    fn read(body: &Value, bytes: &[u8], limits: &ServerLimits) -> MessageSpec {
        let mut summary = RequestSummary::read(bytes);
        let stated = |name: &str| {
            let in_metadata = body["metadata"]["user_id"].as_str();
            let found = in_metadata.and_then(|text| stated(text, name));
            found.or_else(|| stated(&canned::last_user_text(&body["messages"]), name))
        };
        summary.input_tokens = stated("input").unwrap_or(summary.input_tokens);
        let mut output = stated("output");
        let is_canned = output.is_none() && limits.output.is_none();
        let text = is_canned.then(|| canned::echo(&body["messages"]));
        if let Some(text) = &text {
            output = Some(text.len().div_ceil(BYTES_PER_TOKEN) as u64);
        }
        MessageSpec {
            summary,
            max_tokens: body["max_tokens"].as_u64().unwrap_or_default(),
            output,
            cache_read: stated("cache_read").unwrap_or_default(),
            latency: stated("latency_ms").map(|millis| millis as f64 / 1e3),
            text,
        }
    }

    fn arrived_request<'a>(&self, class: &'a str) -> ArrivedRequest<'a> {
        ArrivedRequest {
            class,
            input: self.summary.input_tokens,
            max_tokens: self.max_tokens,
            output: self.output,
            latency: self.latency,
        }
    }

    /// Returns the text of the message: the canned text or filler, of the planned length.
    fn text(&self, plan: &ResponsePlan) -> String {
        let bytes = plan.output as usize * BYTES_PER_TOKEN;
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

/// Returns the number of this name in a `[cost name=number …]` within the text.
fn stated(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once("[cost ")?;
    let (parts, _) = rest.split_once(']')?;
    let parts = parts.split_whitespace();
    let mut value = parts.filter_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.next_back()?.parse().ok()
}

/// Writes the decision about one request as a reply.
struct ResponseBuilder<'a> {
    limits: &'a ServerLimits,
    spec: &'a MessageSpec,
    clock: &'a ScaledClock,
    arrived: f64,
    serial: u64,
}

impl ResponseBuilder<'_> {
    fn message(&self, plan: &ResponsePlan, levels: &BucketLevels) -> Reply {
        let text = self.spec.text(plan);
        let parts = MessageParts {
            content: &format!(r#"[{{"type":"text","text":{}}}]"#, quoted(&text)),
            stop_reason: if plan.is_cut {
                "max_tokens"
            } else {
                "end_turn"
            },
            output_tokens: plan.output,
            cache_read_tokens: self.spec.cache_read,
        };
        let id = format!("msg_test_{:06}", self.serial);
        let (reply, sent) = if self.spec.summary.is_stream {
            let script = self.script(&id, &text, &parts, plan);
            (Reply::stream(script), plan.from)
        } else {
            let body = message_json(&id, &self.spec.summary, &parts);
            (Reply::json(200, body), plan.to)
        };
        let reply = self.with_date(reply, sent);
        let reply = self.with_rate_limits(reply, levels, |_| true);
        reply.delay(self.clock.real_time_until(sent))
    }

    /// Returns the stream of the message; each piece of text is sent when it has been produced.
    fn script(
        &self,
        id: &str,
        text: &str,
        parts: &MessageParts<'_>,
        plan: &ResponsePlan,
    ) -> StreamScript {
        let start = format!(
            r#"{{"type":"message_start","message":{{"id":{},"type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{},"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":{}}}}}}}"#,
            quoted(id),
            quoted(&self.spec.summary.model),
            self.spec.summary.input_tokens,
            parts.cache_read_tokens
        );
        let script = StreamScript::new().event("message_start", start).ping();
        let (mut script, block) = script.block(r#"{"type":"text","text":""}"#);
        let pieces = pieces(text);
        let step = (plan.to - plan.from) / pieces.len() as f64;
        for (index, piece) in pieces.iter().enumerate() {
            if step > 0.0 {
                let time = plan.from + step * (index + 1) as f64;
                script = script.pause_until(self.clock.instant(time));
            }
            script = script.delta(block, "text_delta", "text", piece);
        }
        script
            .block_stop(block)
            .message_delta(parts.stop_reason, parts.output_tokens)
            .message_stop()
    }

    fn rate_limited(&self, cause: RefusalCause, levels: &BucketLevels) -> Reply {
        let (RefusalCause::Exceeded { limit, .. } | RefusalCause::TooLarge { limit }) = cause;
        let per_minute = with_commas(levels[limit].limit);
        let model = &self.spec.summary.model;
        let unit = UNITS[limit];
        let message = format!(
            "This request would exceed your organization's rate limit of {per_minute} {unit} \
             per minute (org: {ORGANIZATION}, model: {model}). {DETAILS}"
        );
        let reply = Reply::error(429, "rate_limit_error", &message);
        match cause {
            RefusalCause::Exceeded { wait, .. } => {
                // A sum that is wrong by a rounding error must not make one more second.
                let seconds = (wait - ROUNDING_ERROR).ceil().max(1.0) as u64;
                let reply = reply
                    .by_default("x-should-retry", true)
                    .by_default("retry-after", seconds);
                self.send_as_refusal(self.with_rate_limits(reply, levels, |_| true))
            }
            RefusalCause::TooLarge { .. } => {
                let reply = reply.by_default("x-should-retry", false);
                let is_shown = |group| group == limit || group == REQUESTS;
                self.send_as_refusal(self.with_rate_limits(reply, levels, is_shown))
            }
        }
    }

    /// Returns `reply` with the date and the delay of a refusal.
    fn send_as_refusal(&self, reply: Reply) -> Reply {
        let latency = self.limits.refusal_latency.as_secs_f64();
        let sent = self.arrived + latency;
        self.with_date(reply, sent)
            .delay(self.clock.real_time_until(sent))
    }

    fn with_date(&self, reply: Reply, sent: f64) -> Reply {
        reply.by_default("date", http_date(self.clock.unix_time(sent) as u64))
    }

    /// Returns `reply` with the rate limit headers of the groups that are shown.
    fn with_rate_limits(
        &self,
        mut reply: Reply,
        levels: &BucketLevels,
        is_shown: impl Fn(usize) -> bool,
    ) -> Reply {
        let now = self.clock.unix_time(self.arrived);
        for (name, value) in rate_limit_headers(levels, self.limits.headers, now, is_shown) {
            reply = reply.by_default(name, value);
        }
        reply
    }
}

/// Cuts `text` into at most [`DELTAS`] pieces of about equal length.
fn pieces(text: &str) -> Vec<&str> {
    let size = text.len().div_ceil(DELTAS).max(BYTES_PER_TOKEN);
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

/// Returns a number with commas, such as `450,000`.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The units of the three limits in texts of 429s.
const UNITS: [&str; 3] = ["requests", "input tokens", "output tokens"];

const DETAILS: &str = "For details, refer to: https://docs.claude.com/en/api/rate-limits. You can \
    see the response headers for current usage. Please reduce the prompt length or the maximum \
    tokens requested, or try again later.";

/// One token of filler text.
const FILLER: &str = "and ";

/// Bytes of text in a token; the canned texts count in the same way.
const BYTES_PER_TOKEN: usize = FILLER.len();

/// The most deltas of a stream, as documented at `ServerLimits`.
const DELTAS: usize = 16;

/// By how many seconds the wait for a bucket may be wrong.
const ROUNDING_ERROR: f64 = 1e-6;

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
            [5, 450, 8_000, 450_000, 1_234_567].map(with_commas),
            ["5", "450", "8,000", "450,000", "1,234,567"]
        );
    }

    #[test]
    fn pieces_are_few_and_keep_characters_whole() {
        for text in ["", "a", "äöü€€€", &"and ".repeat(375), &"ä".repeat(1_001)] {
            let pieces = pieces(text);
            assert_eq!(pieces.concat(), text);
            assert!((1..=DELTAS).contains(&pieces.len()), "{}", pieces.len());
        }
        assert_eq!(pieces(&"and ".repeat(160)), vec!["and ".repeat(10); 16]);
    }

    #[test]
    fn time_begins_with_the_first_request() {
        let mut clock = ScaledClock::new(1e6);
        assert_eq!(clock.now(), 0.0);
        assert_eq!(clock.start_or_now(), 0.0);
        std::thread::sleep(Duration::from_millis(1));
        assert!(clock.now() >= 1_000.0);
        let mut slow = ScaledClock::new(1e-3);
        slow.start_or_now();
        let started = slow.started.expect("it runs");
        assert_eq!(slow.instant(1.0) - started, Duration::from_secs(1_000));
        assert_eq!(slow.real_time_until(-1.0), Duration::ZERO);
    }
}
