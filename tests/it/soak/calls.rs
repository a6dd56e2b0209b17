//! The calls of the soak: what each sends, and which results are right.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{Reply, TestServer};
use anthropic_blocking::{
    Attempt, Client, Delivery, Error, ErrorKind, Message, MessageRequest, Options, RawResponse,
    Result, StreamEvent,
};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{BULK_THREADS, HANG, MODELS, PATIENT, THREADS, lock};

/// One call, which client and server know by its number.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u64,
    pub way: Way,
    pub flag: Flag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `create`, with a response in one piece.
    Plain,
    /// `create`, streamed underneath.
    Streamed,
    /// `stream`, event by event.
    Events,
    /// `stream`, folded into its message.
    Folded,
    /// `stream`, dropped in its middle.
    Half,
    Count,
    Get,
    Post,
    Delete,
    /// `post`, with a body so large that the first attempt is reset before it was sent.
    Large,
    /// An item of `bulk().run`.
    Run,
    /// An item of `bulk().map`.
    Map,
}

/// What is special about a call; the request carries it beside the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Nothing,
    /// The server stalls, and the client has short timeouts.
    Stall,
    /// The call has a deadline, which the jumping clock may pass at any time.
    Deadline,
    /// The call has a short `max_wait`.
    Impatient,
    /// The stream is dropped half-way.
    Half,
    /// The call is part of a run that is dropped.
    Dropped,
    /// The call meets only faults after which the charge is certain.
    Ledger,
}

impl Flag {
    pub const ALL: [(Flag, &str); 7] = [
        (Flag::Nothing, "."),
        (Flag::Stall, "stall"),
        (Flag::Deadline, "deadline"),
        (Flag::Impatient, "impatient"),
        (Flag::Half, "half"),
        (Flag::Dropped, "dropped"),
        (Flag::Ledger, "ledger"),
    ];

    pub fn word(self) -> &'static str {
        Flag::ALL
            .iter()
            .find(|(flag, _)| *flag == self)
            .map_or(".", |(_, word)| word)
    }

    /// Whether a timeout may pass before the server has read the request, or the client the
    /// response.
    pub fn is_hasty(self) -> bool {
        matches!(self, Flag::Stall | Flag::Deadline)
    }
}

/// The work of one thread at a time.
pub enum Task {
    One(Call),
    Run(Vec<Call>),
    Map(Vec<Call>),
    /// A run that is dropped after this many results.
    Dropped(Vec<Call>, usize),
}

/// Draws tasks, one after the other.
pub struct Tasks {
    rng: Rng,
    next: u64,
    /// How many more rounds have a large request: the memory that the allocator keeps of those
    /// would hide growth.
    large: usize,
}

impl Tasks {
    pub fn new(seed: u64) -> Tasks {
        Tasks {
            rng: Rng::with_seed(seed),
            next: 0,
            large: 10,
        }
    }

    /// Returns tasks with this many calls in all, the first with a large request.
    pub fn take(&mut self, calls: usize) -> Vec<Task> {
        let end = self.next + calls as u64;
        let mut tasks = Vec::new();
        if self.large > 0 {
            self.large -= 1;
            tasks.push(Task::One(self.calls(1, Way::Large, Flag::Nothing)[0]));
        }
        while self.next < end {
            tasks.push(self.draw());
        }
        tasks
    }

    fn draw(&mut self) -> Task {
        let size = self.rng.usize(5..60);
        match self.rng.u32(0..1_000) {
            0..4 => Task::Run(self.calls(size, Way::Run, Flag::Nothing)),
            4..7 => Task::Map(self.calls(size, Way::Map, Flag::Nothing)),
            7..9 => {
                let taken = self.rng.usize(0..size);
                Task::Dropped(self.calls(size, Way::Run, Flag::Dropped), taken)
            }
            _ => {
                let way = self.rng.choice(WAYS).unwrap_or(Way::Plain);
                let flag = match (way, self.rng.u32(0..1_000)) {
                    (Way::Half, _) => Flag::Half,
                    (_, 0..3) => Flag::Stall,
                    (_, 3..40) => Flag::Deadline,
                    (_, 40..80) => Flag::Impatient,
                    _ => Flag::Nothing,
                };
                Task::One(self.calls(1, way, flag)[0])
            }
        }
    }

    fn calls(&mut self, count: usize, way: Way, flag: Flag) -> Vec<Call> {
        let first = self.next;
        self.next += count as u64;
        (first..self.next)
            .map(|number| Call { number, way, flag })
            .collect()
    }
}

impl Task {
    fn run(self, site: &Site<'_>) -> Vec<Outcome> {
        let client = site.client;
        match self {
            Task::One(call) => vec![call.run(site)],
            Task::Map(calls) => {
                let bulk = client
                    .bulk()
                    .concurrency(BULK_THREADS)
                    .ramp_up(Duration::ZERO);
                let results = bulk.map(calls.clone(), |client, call| {
                    client.messages().create(&call.request())
                });
                let pairs = calls.into_iter().zip(results);
                pairs.map(|(call, result)| call.message(result)).collect()
            }
            Task::Run(calls) => run_bulk(client, calls, usize::MAX),
            Task::Dropped(calls, taken) => run_bulk(client, calls, taken),
        }
    }
}

/// The key of an item; while the key lives, the item is in flight.
pub struct Key(
    usize,
    #[expect(dead_code, reason = "it is counted")] Arc<()>,
);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes this many results of a run, then drops the run.
pub fn run_bulk(client: &Client, calls: Vec<Call>, taken: usize) -> Vec<Outcome> {
    let alive = Arc::new(());
    let begun = Arc::new(AtomicUsize::new(0));
    let (for_keys, counter) = (Arc::clone(&alive), Arc::clone(&begun));
    let items = calls.clone();
    let requests = items.into_iter().enumerate().map(move |(index, call)| {
        counter.fetch_add(1, Ordering::SeqCst);
        (Key(index, Arc::clone(&for_keys)), call.request())
    });
    let bulk = client
        .bulk()
        .concurrency(BULK_THREADS)
        .ramp_up(Duration::ZERO);
    let mut outcomes: Vec<Option<Outcome>> = calls.iter().map(|_| None).collect();
    let mut run = bulk.run(requests).expect("a thread");
    for (Key(index, _), result) in run.by_ref().take(taken) {
        let outcome = calls[index].message(result);
        if outcomes[index].replace(outcome).is_some() {
            outcomes[index] = Some(calls[index].complaint("it received two results"));
        }
    }
    drop(run);
    // The threads of the dropped run end without being joined.
    let start = Instant::now();
    while Arc::strong_count(&alive) > 1 && start.elapsed() < HANG {
        thread::sleep(Duration::from_millis(1));
    }
    let begun = begun.load(Ordering::SeqCst);
    let finish = |(index, outcome): (usize, Option<Outcome>)| match outcome {
        Some(outcome) => Some(outcome),
        None if taken == usize::MAX => Some(calls[index].complaint("it received no result")),
        None if index < begun => Some(calls[index].outcome(Vec::new(), Got::Cut)),
        None => None,
    };
    let mut finished: Vec<Outcome> = outcomes
        .into_iter()
        .enumerate()
        .filter_map(finish)
        .collect();
    if Arc::strong_count(&alive) > 1 {
        finished.push(calls[0].complaint("its run goes on though it was dropped"));
    }
    finished
}

/// A batch, which client and server know by the number in its custom ids.
#[derive(Clone, Copy, Debug)]
pub struct BatchCall {
    pub number: u64,
    size: u64,
}

impl BatchCall {
    /// Gives four batches in a row different sizes: a lost batch is found by its size.
    pub fn new(number: u64) -> BatchCall {
        let size = 1 + number % 4 + 4 * Rng::with_seed(number).u64(0..10);
        BatchCall { number, size }
    }

    /// Runs the batch and deletes it; returns the kind of an error that a fault explains, or a
    /// complaint.
    pub fn run(&self, site: &Site<'_>) -> std::result::Result<Option<ErrorKind>, String> {
        let call = |index| Call {
            number: index,
            way: Way::Plain,
            flag: Flag::Nothing,
        };
        let key = |index| format!("batch-{}-{index}", self.number);
        let entries = (0..self.size).map(|index| (key(index), call(index).request()));
        let batches = site.client.batches();
        let run = match batches.run(entries) {
            Ok(run) => run,
            Err(error) => return explained(&error),
        };
        let ids = run.ids().to_vec();
        let mut index = 0;
        for entry in run {
            let (is, response) = match entry {
                Ok(entry) => entry.into_parts(),
                Err(error) => return explained(&error),
            };
            let text = response.map(|message| message.text());
            if is != key(index) || text.as_ref().ok() != Some(&call(index).canned_text()) {
                return Err(format!("{index} is {is}: {text:?}"));
            }
            index += 1;
        }
        if index != self.size {
            return Err(format!("{index} results"));
        }
        for id in ids {
            if let Err(error) = batches.delete(&id) {
                return explained(&error);
            }
        }
        Ok(None)
    }
}

/// Checks that the faults of batches explain an error, and returns its kind.
fn explained(error: &Error) -> std::result::Result<Option<ErrorKind>, String> {
    use ErrorKind::*;
    match error.kind() {
        kind @ (Server | Overloaded | RateLimit | Connection) => Ok(Some(kind)),
        _ => Err(format!("{error:?}")),
    }
}

/// The client that makes the calls, and its server.
pub struct Site<'a> {
    pub client: &'a Client,
    pub server: &'a TestServer,
}

impl Call {
    /// Whether the call goes first and alone, and meets no fault: one for each model.
    pub fn is_warm(self) -> bool {
        self.number < MODELS.len() as u64
    }

    pub fn run(self, site: &Site<'_>) -> Outcome {
        let client = &site.client.with(self.options());
        let path = format!("/v1/soak/{}/{}", self.number, self.flag.word());
        match self.way {
            Way::Plain | Way::Streamed | Way::Run | Way::Map => {
                self.message(client.messages().create(&self.request()))
            }
            Way::Events => self.events(client),
            Way::Folded => {
                let stream = client.messages().stream(&self.request());
                self.message(stream.and_then(|stream| stream.final_message()))
            }
            Way::Half => self.half(client),
            Way::Count => match client.messages().count_tokens(&self.request()) {
                Ok(count) if count == self.number + 7 => self.outcome(Vec::new(), Got::Counted),
                Ok(count) => self.complaint(&format!("{count} tokens were counted")),
                Err(error) => self.failed(&error, 0),
            },
            Way::Get => self.raw(client.raw().get(&path)),
            Way::Post => self.raw(client.raw().post(&path, &json!({"n": self.number}))),
            Way::Delete => self.raw(client.raw().delete(&path)),
            Way::Large => self.large(client, site.server),
        }
    }

    fn options(self) -> Options {
        let options = Options::new().stream_underneath(self.way != Way::Plain);
        match self.flag {
            Flag::Stall => options
                .idle_timeout(Duration::from_millis(20))
                .timeout(Duration::from_millis(50)),
            Flag::Deadline => options.deadline(Duration::from_secs(60)),
            Flag::Impatient => options.retry(PATIENT.max_wait(Duration::from_secs(2))),
            _ => options,
        }
    }

    fn request(self) -> MessageRequest {
        let model = MODELS[self.number as usize % MODELS.len()];
        let question = format!("soak {} {} ", self.number, self.flag.word());
        MessageRequest::new(model, 4_096).user(question)
    }

    /// The text of a good response: of many lengths, and never right for another call.
    pub fn text(self) -> String {
        let mut rng = Rng::with_seed(self.number);
        let words = match rng.u32(0..200) {
            0 => rng.usize(500..3_000),
            _ => rng.usize(0..40),
        };
        let mut text = format!("Of {}:", self.number);
        for _ in 0..words {
            let _ = write!(text, " {}", rng.u16(..));
        }
        let _ = write!(text, " – so far {}.", self.number);
        text
    }

    /// The text of a response in the limit mode.
    fn canned_text(self) -> String {
        format!("You said: soak {} {} ", self.number, self.flag.word())
    }

    fn message(self, result: Result<Message>) -> Outcome {
        let message = match result {
            Ok(message) => message,
            Err(error) => return self.failed(&error, 0),
        };
        let text = message.text();
        let is_canned = text == self.canned_text();
        if !is_canned && text != self.text() || message.stop_reason.is_none() {
            return self.complaint(&format!("it received {text:?}"));
        }
        let usage = [message.usage.input_tokens, message.usage.output_tokens];
        self.outcome(
            message.attempts().to_vec(),
            Got::Message { usage, is_canned },
        )
    }

    fn raw(self, result: Result<RawResponse>) -> Outcome {
        let response = match result {
            Ok(response) => response,
            Err(error) => return self.failed(&error, 0),
        };
        let value: Option<Value> = response.json().ok();
        if value != Some(self.json()) {
            return self.complaint(&format!("it received {}", response.text()));
        }
        self.outcome(response.attempts().to_vec(), Got::Raw)
    }

    fn large(self, client: &Client, server: &TestServer) -> Outcome {
        let mark = format!("{}/{}", self.number, self.flag.word());
        let options = Options::new().header("x-soak", &mark).expect("a header");
        server.on("POST", LARGE, Reply::status(200).reset_before_body_read());
        let outcome = self.raw(
            client
                .with(options)
                .raw()
                .post(LARGE, &"x".repeat(12 << 20)),
        );
        let mut attempts = outcome.attempts.iter();
        match attempts.next().map(|attempt| attempt.delivery) {
            Some(Delivery::NotSent) => outcome,
            _ => self.complaint("it cannot have been sent"),
        }
    }

    pub fn json(self) -> Value {
        json!({"number": self.number, "text": self.text()})
    }

    /// Reads event by event, and checks that the deltas add up to the message's text.
    fn events(self, client: &Client) -> Outcome {
        let mut stream = match client.messages().stream(&self.request()) {
            Ok(stream) => stream,
            Err(error) => return self.failed(&error, 0),
        };
        let (mut said, mut is_stopped) = (String::new(), false);
        for event in stream.by_ref() {
            match event {
                Ok(event) => {
                    said.push_str(event.as_text().unwrap_or_default());
                    is_stopped |= matches!(event, StreamEvent::MessageStop(_));
                }
                Err(error) => {
                    let outcome = self.failed(&error, said.len());
                    let goes_on = stream.next().is_some();
                    return match goes_on || is_stopped || stream.final_message().is_ok() {
                        true => self.complaint("a stream went on after its end"),
                        false => outcome,
                    };
                }
            }
        }
        let outcome = self.message(stream.final_message());
        match &outcome.got {
            Got::Message { is_canned, .. } => {
                let text = if *is_canned {
                    self.canned_text()
                } else {
                    self.text()
                };
                // A response in one piece has no deltas.
                match is_stopped && (said == text || said.is_empty()) {
                    true => outcome,
                    false => self.complaint(&format!("its events said {said:?}")),
                }
            }
            _ => outcome,
        }
    }

    /// Reads some events, and drops the rest.
    fn half(self, client: &Client) -> Outcome {
        let mut stream = match client.messages().stream(&self.request()) {
            Ok(stream) => stream,
            Err(error) => return self.failed(&error, 0),
        };
        for event in stream
            .by_ref()
            .take(Rng::with_seed(self.number).usize(0..12))
        {
            if let Err(error) = event {
                return self.failed(&error, 0);
            }
        }
        self.outcome(stream.attempts().to_vec(), Got::Half)
    }

    /// Checks an error: its partial text must be a beginning of the right text, and no shorter than
    /// the text handed out.
    fn failed(self, error: &Error, handed_out: usize) -> Outcome {
        let partial = error.partial().map(Message::text).unwrap_or_default();
        let is_part = self.text().starts_with(&partial) || self.canned_text().starts_with(&partial);
        if !is_part || partial.len() < handed_out {
            return self.complaint(&format!("a part that is none: {partial:?}"));
        }
        self.outcome(
            error.attempts().to_vec(),
            Got::Error(error.kind(), format!("{error:?}")),
        )
    }

    fn complaint(self, complaint: &str) -> Outcome {
        self.outcome(Vec::new(), Got::Wrong(complaint.to_owned()))
    }

    fn outcome(self, attempts: Vec<Attempt>, got: Got) -> Outcome {
        Outcome {
            call: self,
            attempts,
            got,
        }
    }
}

/// The result of a call.
pub struct Outcome {
    pub call: Call,
    /// Empty for calls that do not return their attempts, such as `count_tokens`.
    pub attempts: Vec<Attempt>,
    pub got: Got,
}

pub enum Got {
    Message {
        usage: [u64; 2],
        is_canned: bool,
    },
    Counted,
    Raw,
    Half,
    Error(ErrorKind, String),
    /// The run was dropped: the request may have been sent or not.
    Cut,
    /// A result that must not occur.
    Wrong(String),
}

const LARGE: &str = "/v1/large";

/// Runs the tasks. If none ends for so long that they must hang, the client is shut down; no fault
/// explains the errors that the calls then return.
pub fn on_all_threads(tasks: Vec<Task>, site: &Site<'_>) -> Vec<Outcome> {
    let tasks = Mutex::new(tasks.into_iter());
    let outcomes = Mutex::new(Vec::new());
    let (ended, ends) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (tasks, outcomes, ended) = (&tasks, &outcomes, ended.clone());
            scope.spawn(move || {
                let mut own = Vec::new();
                loop {
                    let Some(task) = lock(tasks).next() else {
                        break;
                    };
                    own.extend(task.run(site));
                    // The receiver lives until the last thread is done.
                    let _ = ended.send(());
                }
                lock(outcomes).extend(own);
            });
        }
        drop(ended);
        loop {
            match ends.recv_timeout(HANG) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => site.client.shutdown(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// The methods that a single call can use.
const WAYS: [Way; 9] = [
    Way::Plain,
    Way::Streamed,
    Way::Events,
    Way::Folded,
    Way::Half,
    Way::Count,
    Way::Get,
    Way::Post,
    Way::Delete,
];
