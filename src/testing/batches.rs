//! Message batches of the test server: kept in memory, ended by polls.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::canned::{
    self, DEFAULT_PAGE_SIZE, echo, invalid_request, not_found, permanent_error, query_value,
};
use super::dates::{http_date, rfc3339};
use super::recorded::RecordedRequest;
use super::reply::{Reply, ReplyContent};
use super::sync::lock;

/// The outcome of a request in a batch of the test server; see
/// [`TestServer::batch_outcomes`](super::TestServer::batch_outcomes).
///
/// ```
/// use anthropic_blocking::testing::{BatchOutcome, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// server.batch_outcomes(|id| match id {
///     "late" => BatchOutcome::Expired,
///     "odd" => BatchOutcome::Error("api_error".into()),
///     _ => BatchOutcome::Canned,
/// });
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchOutcome {
    /// The canned outcome: a message that echoes the last text of the user, or the error of a
    /// faulty request.
    Canned,
    /// A message with this text.
    Message(String),
    /// An error of this type, such as `api_error`.
    Error(String),
    /// The request expires: it was not carried out in time.
    Expired,
}

/// The batches of one server.
pub(super) struct BatchStore {
    polls: usize,
    outcome: Option<Arc<OutcomeFunction>>,
    count: usize,
    /// Oldest first.
    all: Vec<StoredBatch>,
    /// In microseconds since 1970; kept so that no two batches have the same time.
    last_created: u64,
}

type OutcomeFunction = dyn Fn(&str) -> BatchOutcome + Send + Sync;

struct StoredBatch {
    id: String,
    /// From 1.
    number: usize,
    created: u64,
    entries: Vec<StoredEntry>,
    polls_left: usize,
    polls: usize,
    is_canceled: bool,
    /// How many requests were carried out, once the batch has ended: fewer than all if it was
    /// canceled.
    carried_out: Option<usize>,
}

/// One request, reduced to its result.
#[derive(Deserialize)]
#[serde(from = "SentEntry")]
struct StoredEntry {
    custom_id: String,
    result: StoredResult,
}

/// One request as the client sends it.
#[derive(Deserialize)]
struct SentEntry {
    custom_id: String,
    params: Value,
}

enum StoredResult {
    Message { model: String, text: String },
    Error { kind: String, message: String },
    Expired,
}

impl Default for BatchStore {
    fn default() -> Self {
        BatchStore {
            polls: 1,
            outcome: None,
            count: 0,
            all: Vec::new(),
            last_created: 0,
        }
    }
}

/// Returns whether a request is for an endpoint of batches.
pub(super) fn is_batch_request(request: &RecordedRequest) -> bool {
    let rest = request.path.strip_prefix(PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Carries out a batch request that `reply`, a canned one, would answer; returns `reply` with the
/// content that follows.
///
/// The faults of `reply` stay: a batch can be created although the client gets no response.
pub(super) fn reply_to(
    batches: &Mutex<BatchStore>,
    reply: Reply,
    request: &RecordedRequest,
) -> Reply {
    let made = canned::missing_header(request).unwrap_or_else(|| respond(batches, request));
    Reply {
        content: made.content,
        defaults: made.defaults,
        ..reply
    }
}

fn respond(batches: &Mutex<BatchStore>, request: &RecordedRequest) -> Reply {
    let rest = canned::path(request).strip_prefix(PATH).unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    let base = format!("http://{}", request.header("host").unwrap_or_default());
    match (request.method.as_str(), &parts[..]) {
        ("POST", []) => create(batches, request, &base),
        ("GET", []) => {
            let query = request.query.as_deref().unwrap_or_default();
            lock(batches).page(query, &base)
        }
        (method, [id, rest @ ..]) => {
            let mut batches = lock(batches);
            let Some(at) = batches.all.iter().position(|batch| batch.id == *id) else {
                let message = format!("Message Batch {id} not found.");
                return permanent_error(404, "not_found_error", &message);
            };
            match (method, rest) {
                ("GET", []) => batches.all[at].poll(&base),
                ("POST", ["cancel"]) => batches.all[at].cancel(&base),
                ("GET", ["results"]) => batches.all[at].results(),
                ("DELETE", []) if batches.all[at].carried_out.is_some() => {
                    batches.all.remove(at);
                    Reply::json(200, json!({"id": id, "type": "message_batch_deleted"}))
                }
                ("DELETE", []) => invalid_request(&format!("Message Batch {id} is in progress.")),
                _ => not_found(),
            }
        }
        _ => not_found(),
    }
}

/// Creates a batch: checks what the API checks at once, and leaves other errors to the results.
fn create(batches: &Mutex<BatchStore>, request: &RecordedRequest, base: &str) -> Reply {
    let outcome = lock(batches).outcome.clone();
    let entries = match read_entries(&request.body, outcome.as_deref()) {
        Ok(entries) => entries,
        Err(error) => return invalid_request(&error),
    };
    let mut batches = lock(batches);
    batches.count += 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_micros() as u64;
    let created = now.max(batches.last_created + 1);
    batches.last_created = created;
    let batch = StoredBatch {
        id: format!("msgbatch_test_{:06}", batches.count),
        number: batches.count,
        created,
        entries,
        polls_left: batches.polls,
        polls: batches.polls,
        is_canceled: false,
        carried_out: None,
    };
    let reply = Reply::json(200, batch.json(base));
    batches.all.push(batch);
    reply
}

/// Reads the body entry by entry, so that a large body is not held as JSON values.
fn read_entries(
    body: &[u8],
    outcome: Option<&OutcomeFunction>,
) -> Result<Vec<StoredEntry>, String> {
    #[derive(Deserialize)]
    struct BatchCreateBody {
        requests: Vec<StoredEntry>,
    }
    let body: BatchCreateBody =
        serde_json::from_slice(body).map_err(|error| match error.to_string() {
            text if text.starts_with("missing field `requests`") => {
                "requests: Field required".into()
            }
            text => format!("The request body is not valid JSON: {text}"),
        })?;
    let mut entries = body.requests;
    if !(1..=MAX_ENTRIES).contains(&entries.len()) {
        return Err("requests: List should have between 1 and 100000 items".to_owned());
    }
    let mut ids = HashSet::new();
    for (index, entry) in entries.iter_mut().enumerate() {
        let id = &entry.custom_id;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=MAX_ID_LENGTH).contains(&id.len()) || !id.bytes().all(is_word) {
            return Err(format!(
                "requests.{index}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
            ));
        }
        if !ids.insert(id.clone()) {
            return Err(format!(
                "requests.{index}.custom_id: custom_id must be unique"
            ));
        }
        if let Some(outcome) = outcome {
            entry.set_outcome(outcome(&entry.custom_id));
        }
    }
    Ok(entries)
}

impl From<SentEntry> for StoredEntry {
    fn from(SentEntry { custom_id, params }: SentEntry) -> StoredEntry {
        let forbidden = ["stream", "speed"]
            .iter()
            .find(|name| !matches!(&params[**name], Value::Null | Value::Bool(false)));
        let error = match forbidden {
            Some(name) => Some(format!("{name}: Extra inputs are not permitted")),
            None if params["max_tokens"] == 0 => {
                Some("max_tokens: Input should be greater than or equal to 1".to_owned())
            }
            None => canned::parameter_error(&params, &canned::REQUIRED_FOR_MESSAGE),
        };
        let result = match error {
            Some(message) => StoredResult::Error {
                kind: "invalid_request_error".to_owned(),
                message,
            },
            None => StoredResult::Message {
                model: params["model"].as_str().unwrap_or_default().to_owned(),
                text: echo(&params["messages"]),
            },
        };
        StoredEntry { custom_id, result }
    }
}

impl StoredEntry {
    fn set_outcome(&mut self, outcome: BatchOutcome) {
        match (outcome, &mut self.result) {
            (BatchOutcome::Canned, _) => {}
            (BatchOutcome::Message(own), StoredResult::Message { text, .. }) => *text = own,
            (BatchOutcome::Message(text), result) => {
                let model = super::frames::DEFAULT_MODEL.to_owned();
                *result = StoredResult::Message { model, text };
            }
            (BatchOutcome::Error(kind), result) => {
                let message = "This request failed.".to_owned();
                *result = StoredResult::Error { kind, message };
            }
            (BatchOutcome::Expired, result) => *result = StoredResult::Expired,
        }
    }

    /// Returns the JSON of `result`.
    fn result_json(&self, number: usize, is_canceled: bool) -> Value {
        match &self.result {
            _ if is_canceled => json!({"type": "canceled"}),
            StoredResult::Expired => json!({"type": "expired"}),
            StoredResult::Error { kind, message } => {
                json!({"type": "errored", "error": {"type": "error",
                "error": {"type": kind, "message": message, "details": null}, "request_id": null}})
            }
            StoredResult::Message { model, text } => {
                json!({"type": "succeeded", "message": {"id": format!("msg_test_{number:06}"),
                "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                "stop_sequence": null, "usage": {"input_tokens": 8,
                "output_tokens": text.len().div_ceil(4), "service_tier": "batch"}}})
            }
        }
    }
}

impl StoredBatch {
    fn poll(&mut self, base: &str) -> Reply {
        if self.carried_out.is_none() && (self.is_canceled || self.polls_left == 0) {
            let done = match self.polls {
                _ if !self.is_canceled => self.entries.len(),
                0 | usize::MAX => 0,
                polls => self.entries.len() * (polls - self.polls_left) / polls,
            };
            self.carried_out = Some(done);
        }
        let reply = Reply::json(200, self.json(base));
        match self.carried_out {
            Some(_) => reply,
            None => {
                self.polls_left -= 1;
                reply.by_default("retry-after", POLL_INTERVAL_SECONDS)
            }
        }
    }

    fn cancel(&mut self, base: &str) -> Reply {
        self.is_canceled |= self.carried_out.is_none();
        Reply::json(200, self.json(base))
    }

    /// Returns the results, shuffled as by the API, but in the same order in every run.
    fn results(&self) -> Reply {
        let Some(done) = self.carried_out else {
            let message = format!("Message Batch {} has no available results.", self.id);
            return permanent_error(404, "not_found_error", &message);
        };
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        Rng::with_seed(self.number as u64).shuffle(&mut order);
        let mut lines = String::new();
        for index in order {
            let entry = &self.entries[index];
            let result = entry.result_json(index, index >= done);
            let line = json!({"custom_id": entry.custom_id, "result": result});
            lines += &line.to_string();
            lines.push('\n');
        }
        Reply {
            content: ReplyContent::Fixed {
                status: 200,
                content_type: "application/x-jsonl",
                body: lines.into_bytes().into(),
            },
            ..Reply::status(200)
        }
    }

    fn json(&self, base: &str) -> Value {
        let total = self.entries.len();
        // Like the API: until the batch has ended, all requests count as processing.
        let (processing, canceled) = match self.carried_out {
            None => (total, 0),
            Some(done) => (0, total - done),
        };
        let carried_out = &self.entries[..self.carried_out.unwrap_or_default()];
        let count = |is_counted: fn(&StoredResult) -> bool| {
            let results = carried_out.iter().map(|entry| &entry.result);
            results.filter(|result| is_counted(result)).count()
        };
        let counts = json!({
            "processing": processing,
            "succeeded": count(|result| matches!(result, StoredResult::Message { .. })),
            "errored": count(|result| matches!(result, StoredResult::Error { .. })),
            "canceled": canceled,
            "expired": count(|result| matches!(result, StoredResult::Expired)),
        });
        let status = match (self.carried_out, self.is_canceled) {
            (Some(_), _) => "ended",
            (None, true) => "canceling",
            (None, false) => "in_progress",
        };
        let at = |is_set: bool, seconds: u64| {
            is_set.then(|| with_micros(self.created + seconds * 1_000_000))
        };
        let is_ended = self.carried_out.is_some();
        json!({"id": self.id, "type": "message_batch", "processing_status": status,
            "request_counts": counts, "ended_at": at(is_ended, 1), "created_at": at(true, 0),
            "expires_at": at(true, 86_400), "archived_at": null,
            "cancel_initiated_at": at(self.is_canceled, 0),
            "results_url": is_ended.then(|| format!("{base}{PATH}/{}/results", self.id))})
    }
}

impl BatchStore {
    /// Sets how many polls find a batch in progress that is created from now on.
    pub(super) fn set_polls(&mut self, polls: usize) {
        self.polls = polls;
    }

    /// Sets the function that names the outcome of each request by its `custom_id`.
    pub(super) fn set_outcome(
        &mut self,
        outcome: impl Fn(&str) -> BatchOutcome + Send + Sync + 'static,
    ) {
        self.outcome = Some(Arc::new(outcome));
    }

    /// Returns how many batches were created, deleted ones included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns a page of the list, newest first.
    fn page(&self, query: &str, base: &str) -> Reply {
        let limit = match query_value(query, "limit").map(str::parse::<usize>) {
            None => DEFAULT_PAGE_SIZE,
            Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
            Some(_) => return invalid_request("limit: Input should be between 1 and 1000"),
        };
        let newest_first: Vec<&StoredBatch> = self.all.iter().rev().collect();
        let place = |name| {
            let id = query_value(query, name)?;
            newest_first.iter().position(|batch| batch.id == id)
        };
        let (page, has_more) = match (place("after_id"), place("before_id")) {
            (_, Some(end)) => {
                let start = end.saturating_sub(limit);
                (&newest_first[start..end], start > 0)
            }
            (after, None) => {
                let start = after.map_or(0, |after| after + 1);
                let end = newest_first.len().min(start + limit);
                (&newest_first[start..end], end < newest_first.len())
            }
        };
        let data: Vec<Value> = page.iter().map(|batch| batch.json(base)).collect();
        let id = |batch: Option<&&StoredBatch>| batch.map(|batch| batch.id.clone());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Reply::json(
            200,
            json!({"data": data, "first_id": id(page.first()), "last_id": id(page.last()),
                "has_more": has_more}),
        )
        .by_default("date", http_date(now.unwrap_or_default().as_secs()))
    }
}

/// Returns a time, given in microseconds since 1970, as the API writes it for batches.
fn with_micros(at: u64) -> String {
    let seconds = rfc3339(at / 1_000_000);
    format!(
        "{}.{:06}+00:00",
        seconds.trim_end_matches('Z'),
        at % 1_000_000
    )
}

const PATH: &str = "/v1/messages/batches";

/// The most requests in a batch, as in the API.
const MAX_ENTRIES: usize = 100_000;

/// The longest `custom_id` in bytes, as in the API.
const MAX_ID_LENGTH: usize = 64;

/// The `retry-after` of a batch in progress, as recorded from the API.
const POLL_INTERVAL_SECONDS: u64 = 10;
