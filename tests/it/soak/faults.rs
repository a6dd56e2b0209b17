//! The server's side: the faults, which request meets which, and the record of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anthropic_blocking::testing::{RecordedRequest, Reply, StreamScript, TestServer};
use anthropic_blocking::{Delivery, ErrorKind};
use fastrand::Rng;
use serde_json::json;

use super::calls::{Call, Flag, Way};
use super::table::table;
use super::{THREADS, lock};

/// A fault that the server makes, and the results that a client may report for it.
pub struct Fault {
    pub name: String,
    pub weight: u32,
    pub shapes: &'static [Shape],
    /// Whether the charge is certain after this fault, and no wait is asked for.
    pub is_clear: bool,
    pub effect: Effect,
    pub reply: Box<dyn Fn(&ReplyContext) -> Reply + Send + Sync>,
}

/// Makes a reply from the scene alone.
pub type Make = fn(&ReplyContext) -> Reply;

impl Fault {
    pub fn new(
        name: &str,
        weight: u32,
        shapes: &'static [Shape],
        effect: Effect,
        reply: impl Fn(&ReplyContext) -> Reply + Send + Sync + 'static,
    ) -> Fault {
        use ErrorKind::{Overloaded, RateLimit};
        let is_clear = match effect {
            Effect::Limited => true,
            Effect::Failed(Delivery::Responded, _, kinds) => {
                let is_wait = kinds.contains(&RateLimit) || kinds.contains(&Overloaded);
                let is_late = shapes == [Shape::Stream];
                !is_wait && !is_late && !name.contains("retry-after")
            }
            _ => false,
        };
        Fault {
            name: name.to_owned(),
            weight,
            shapes,
            is_clear,
            effect,
            reply: Box::new(reply),
        }
    }
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// The complete response.
    Served,
    /// A failure of one of these kinds.
    Failed(Delivery, Option<u16>, &'static [ErrorKind]),
    /// The response of the limit mode, or its refusal.
    Limited,
    /// The server stalls.
    Stalled,
}

/// The kind of response that a request expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Message,
    Stream,
    Count,
    Raw,
}

/// The data that a reply is made from.
pub struct ReplyContext {
    pub call: Call,
    pub shape: Shape,
    pub text: String,
    pub rng: RefCell<Rng>,
}

impl ReplyContext {
    pub fn below(&self, end: usize) -> usize {
        self.rng.borrow_mut().usize(0..end)
    }

    pub fn good(&self) -> Reply {
        match self.shape {
            Shape::Message | Shape::Stream => Reply::message(&*self.text),
            Shape::Count => Reply::json(200, json!({"input_tokens": self.call.number + 7})),
            Shape::Raw => Reply::json(200, self.call.json()),
        }
    }

    /// Returns the JSON of the message, as the server would write it.
    pub fn json(&self) -> String {
        let text = &self.text;
        json!({
            "id": "msg_soak", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": text.len().div_ceil(4)},
        })
        .to_string()
    }

    pub fn script(&self) -> StreamScript {
        StreamScript::text(&self.text)
    }

    /// Returns a random position in the body of the response, before its end.
    pub fn place(&self) -> usize {
        match self.shape {
            Shape::Count => self.below(12),
            Shape::Raw => self.below(self.text.len()),
            Shape::Message | Shape::Stream => self.below(self.text.len() + 150),
        }
    }

    /// Returns how many events of the stream precede a fault: at least the last is missing.
    pub fn events(&self) -> usize {
        let words = self.text.split(' ').count();
        self.below(words + 6)
    }
}

/// The server's plan and record: the faults, and which request met which.
pub struct FaultPlan {
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub faults_met: Vec<Mutex<HashMap<u64, Vec<usize>>>>,
    /// How often each batch was created.
    created: Mutex<HashMap<u64, u64>>,
    /// Number of requests about batches so far.
    turns: AtomicU64,
}

impl FaultPlan {
    pub fn new(seed: u64) -> FaultPlan {
        let faults_met = (0..THREADS).map(|_| Mutex::default()).collect();
        FaultPlan {
            seed,
            faults: table(),
            faults_met,
            created: Mutex::default(),
            turns: AtomicU64::new(0),
        }
    }

    /// Returns how often the batch with this number was created.
    pub fn created(&self, number: u64) -> u64 {
        lock(&self.created).remove(&number).unwrap_or(0)
    }

    /// Returns the response to a request about batches: good, broken, or a failure.
    fn batch(&self, request: &RecordedRequest) -> Reply {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let good = Reply::canned();
        let reply = match Rng::with_seed(self.seed << 48 ^ turn).u32(0..30) {
            0 => return Reply::overloaded(),
            1 => return Reply::error(500, "api_error", "m"),
            2 => return Reply::status(503),
            3 => return Reply::error(429, "rate_limit_error", "m").header("retry-after", "2"),
            4 => good.reset_before_headers(),
            5 => good.reset_in_headers(),
            6 => good.truncate(20),
            7 => good.chunked(),
            8 => good.close(),
            _ => good,
        };
        let body = String::from_utf8_lossy(&request.body);
        let number = body
            .split_once("batch-")
            .and_then(|(_, rest)| rest.split('-').next());
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            *lock(&self.created).entry(number).or_default() += 1;
        }
        reply
    }

    fn reply_to(&self, request: &RecordedRequest) -> Reply {
        if request.path.starts_with("/v1/messages/batches") {
            return self.batch(request);
        }
        let Some((call, shape)) = asked(request) else {
            return Reply::error(400, "invalid_request_error", "not of the soak");
        };
        let mut faults_met = lock(&self.faults_met[call.number as usize % THREADS]);
        let met = faults_met.entry(call.number).or_default();
        let turn = met.len() as u64;
        let seed = (self.seed << 48) ^ (call.number << 8) ^ turn;
        let mut rng = Rng::with_seed(seed);
        let fault = self.choose(call, shape, turn, &mut rng);
        met.push(fault);
        drop(faults_met);
        let scene = ReplyContext {
            call,
            shape,
            text: call.text(),
            rng: rng.into(),
        };
        let reply = (self.faults[fault].reply)(&scene);
        reply.header("request-id", request_id(call, turn))
    }

    fn choose(&self, call: Call, shape: Shape, turn: u64, rng: &mut Rng) -> usize {
        let is_faulty = match call.flag {
            Flag::Stall => turn == 0,
            Flag::Ledger => !call.is_warm() && turn < 3 && rng.f64() < 0.5,
            _ => rng.f64() < 0.45,
        };
        if !is_faulty {
            return usize::from(call.flag == Flag::Ledger);
        }
        let fits = |fault: &Fault| {
            let is_fit = match call.flag {
                Flag::Stall => fault.effect == Effect::Stalled,
                Flag::Ledger => fault.is_clear,
                Flag::Nothing | Flag::Impatient => fault.effect != Effect::Stalled,
                // The caller of such a call cannot tell what the limit mode charged.
                _ => !matches!(fault.effect, Effect::Stalled | Effect::Limited),
            };
            is_fit && fault.shapes.contains(&shape)
        };
        let fitting = || {
            self.faults
                .iter()
                .enumerate()
                .filter(|(_, fault)| fits(fault))
        };
        let whole: u32 = fitting().map(|(_, fault)| fault.weight).sum();
        let mut left = rng.u32(0..whole.max(1));
        for (index, fault) in fitting() {
            if left < fault.weight {
                return index;
            }
            left -= fault.weight;
        }
        0
    }
}

pub fn server(plan: &Arc<FaultPlan>) -> TestServer {
    let server = TestServer::start().expect("a server on loopback");
    server.keep_requests(false);
    let plan = Arc::clone(plan);
    server.respond_with(move |request| plan.reply_to(request));
    server
}

/// Returns the call that a request belongs to, and the kind of response that it expects.
pub fn asked(request: &RecordedRequest) -> Option<(Call, Shape)> {
    let body = String::from_utf8_lossy(&request.body);
    let large = request.header("x-soak");
    let (words, shape) = match request.path.strip_prefix("/v1/soak/").or(large) {
        Some(path) => (path, Shape::Raw),
        None => {
            let shape = match request.path.ends_with("/count_tokens") {
                true => Shape::Count,
                false if body.contains(r#""stream":true"#) => Shape::Stream,
                false => Shape::Message,
            };
            (body.split_once("soak ")?.1, shape)
        }
    };
    let mut words = words.split([' ', '/']);
    let number = words.next()?.parse().ok()?;
    let word = words.next()?;
    let (flag, _) = *Flag::ALL.iter().find(|(_, known)| *known == word)?;
    // Only the caller knows the method; the server does not need it.
    Some((
        Call {
            number,
            way: Way::Plain,
            flag,
        },
        shape,
    ))
}

pub fn request_id(call: Call, turn: u64) -> String {
    format!("req_soak_{}_{turn}", call.number)
}
