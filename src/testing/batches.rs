//! Message batches of the test server: kept in memory; a batch ends after some polls.

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
    /// How many polls find a new batch in progress.
    polls: usize,
    /// Names the outcome of a request by its `custom_id`; `None` for canned outcomes.
    outcome: Option<Arc<OutcomeFunction>>,
    /// How many batches were created, deleted ones included.
    created_count: usize,
    /// The batches that were not deleted, oldest first.
    batches: Vec<StoredBatch>,
    /// When the last batch was created, in microseconds since 1970; kept so that no two batches
    /// have the same time.
    last_created_at: u64,
}

type OutcomeFunction = dyn Fn(&str) -> BatchOutcome + Send + Sync;

struct StoredBatch {
    id: String,
    /// The place in the order of creation, from 1.
    number: usize,
    /// In microseconds since 1970.
    created_at: u64,
    entries: Vec<StoredEntry>,
    /// How many more polls find the batch in progress.
    polls_left: usize,
    /// How many polls find the batch in progress in all; `usize::MAX` for a batch that never ends.
    polls: usize,
    is_canceled: bool,
    /// How many requests were carried out, fewer than all if the batch was canceled; `None` until
    /// the batch has ended.
    carried_out_count: Option<usize>,
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
            created_count: 0,
            batches: Vec::new(),
            last_created_at: 0,
        }
    }
}

/// Returns whether a request is for an endpoint of batches.
pub(super) fn is_batch_request(request: &RecordedRequest) -> bool {
    let rest = request.path.strip_prefix(PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Carries out a batch request, and returns the canned reply `reply` with the resulting content in
/// place of its own.
///
/// The faults of `reply` (such as a reset connection) stay: a batch can be created although the
/// client gets no response.
pub(super) fn reply_to(
    batches: &Mutex<BatchStore>,
    reply: Reply,
    request: &RecordedRequest,
) -> Reply {
    let result = canned::missing_header(request).unwrap_or_else(|| respond(batches, request));
    Reply {
        content: result.content,
        defaults: result.defaults,
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
            let mut store = lock(batches);
            let Some(index) = store.batches.iter().position(|batch| batch.id == *id) else {
                let message = format!("Message Batch {id} not found.");
                return permanent_error(404, "not_found_error", &message);
            };
            match (method, rest) {
                ("GET", []) => store.batches[index].poll(&base),
                ("POST", ["cancel"]) => store.batches[index].cancel(&base),
                ("GET", ["results"]) => store.batches[index].results(),
                ("DELETE", []) if store.batches[index].carried_out_count.is_some() => {
                    store.batches.remove(index);
                    Reply::json(200, json!({"id": id, "type": "message_batch_deleted"}))
                }
                ("DELETE", []) => invalid_request(&format!("Message Batch {id} is in progress.")),
                _ => not_found(),
            }
        }
        _ => not_found(),
    }
}

/// Creates a batch. Refuses what the API refuses at the creation; other errors are in the results.
fn create(batches: &Mutex<BatchStore>, request: &RecordedRequest, base: &str) -> Reply {
    let outcome = lock(batches).outcome.clone();
    let entries = match read_entries(&request.body, outcome.as_deref()) {
        Ok(entries) => entries,
        Err(error) => return invalid_request(&error),
    };
    let mut store = lock(batches);
    store.created_count += 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_micros() as u64;
    let created_at = now.max(store.last_created_at + 1);
    store.last_created_at = created_at;
    let batch = StoredBatch {
        id: format!("msgbatch_test_{:06}", store.created_count),
        number: store.created_count,
        created_at,
        entries,
        polls_left: store.polls,
        polls: store.polls,
        is_canceled: false,
        carried_out_count: None,
    };
    let reply = Reply::json(200, batch.json(base));
    store.batches.push(batch);
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
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=MAX_ID_LENGTH).contains(&id.len()) || !id.bytes().all(is_allowed) {
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
            (BatchOutcome::Message(new), StoredResult::Message { text, .. }) => *text = new,
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

    /// Returns the JSON of the result of the entry at `index`.
    fn result_json(&self, index: usize, is_canceled: bool) -> Value {
        match &self.result {
            _ if is_canceled => json!({"type": "canceled"}),
            StoredResult::Expired => json!({"type": "expired"}),
            StoredResult::Error { kind, message } => {
                json!({"type": "errored", "error": {"type": "error",
                "error": {"type": kind, "message": message, "details": null}, "request_id": null}})
            }
            StoredResult::Message { model, text } => {
                json!({"type": "succeeded", "message": {"id": format!("msg_test_{index:06}"),
                "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                "stop_sequence": null, "usage": {"input_tokens": INPUT_TOKENS,
                "output_tokens": text.len().div_ceil(BYTES_PER_TOKEN), "service_tier": "batch"}}})
            }
        }
    }
}

impl StoredBatch {
    /// Returns the batch; ends it if it is canceled or no polls are left, else counts the poll.
    fn poll(&mut self, base: &str) -> Reply {
        if self.carried_out_count.is_none() && (self.is_canceled || self.polls_left == 0) {
            // A canceled batch has carried out its requests evenly over its polls; none if it has
            // no polls, or would never end.
            let count = match self.polls {
                _ if !self.is_canceled => self.entries.len(),
                0 | usize::MAX => 0,
                polls => self.entries.len() * (polls - self.polls_left) / polls,
            };
            self.carried_out_count = Some(count);
        }
        let reply = Reply::json(200, self.json(base));
        match self.carried_out_count {
            Some(_) => reply,
            None => {
                self.polls_left -= 1;
                reply.by_default("retry-after", POLL_INTERVAL_SECONDS)
            }
        }
    }

    fn cancel(&mut self, base: &str) -> Reply {
        self.is_canceled |= self.carried_out_count.is_none();
        Reply::json(200, self.json(base))
    }

    /// Returns the results, shuffled as by the API, but in the same order in every run.
    fn results(&self) -> Reply {
        let Some(carried_out_count) = self.carried_out_count else {
            let message = format!("Message Batch {} has no available results.", self.id);
            return permanent_error(404, "not_found_error", &message);
        };
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        Rng::with_seed(self.number as u64).shuffle(&mut order);
        let mut lines = String::new();
        for index in order {
            let entry = &self.entries[index];
            let is_canceled = index >= carried_out_count;
            let result = entry.result_json(index, is_canceled);
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
        let (processing, canceled) = match self.carried_out_count {
            None => (total, 0),
            Some(carried_out) => (0, total - carried_out),
        };
        let carried_out = &self.entries[..self.carried_out_count.unwrap_or_default()];
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
        let status = match (self.carried_out_count, self.is_canceled) {
            (Some(_), _) => "ended",
            (None, true) => "canceling",
            (None, false) => "in_progress",
        };
        let seconds_later =
            |seconds: u64| format_micros(self.created_at + seconds * MICROS_PER_SECOND);
        let created_at = seconds_later(0);
        let is_ended = self.carried_out_count.is_some();
        json!({"id": self.id, "type": "message_batch", "processing_status": status,
            "request_counts": counts, "ended_at": is_ended.then(|| seconds_later(SECONDS_TO_END)),
            "created_at": created_at,
            "expires_at": seconds_later(SECONDS_TO_EXPIRY), "archived_at": null,
            "cancel_initiated_at": self.is_canceled.then_some(&created_at),
            "results_url": is_ended.then(|| format!("{base}{PATH}/{}/results", self.id))})
    }
}

impl BatchStore {
    /// Sets how many polls find a batch in progress, for batches created from now on.
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
        self.created_count
    }

    /// Returns a page of the list, newest first.
    fn page(&self, query: &str, base: &str) -> Reply {
        let limit = match query_value(query, "limit").map(str::parse::<usize>) {
            None => DEFAULT_PAGE_SIZE,
            Some(Ok(limit)) if (1..=MAX_PAGE_SIZE).contains(&limit) => limit,
            Some(_) => return invalid_request("limit: Input should be between 1 and 1000"),
        };
        let newest_first: Vec<&StoredBatch> = self.batches.iter().rev().collect();
        let position_of = |name| {
            let id = query_value(query, name)?;
            newest_first.iter().position(|batch| batch.id == id)
        };
        let (page, has_more) = match (position_of("after_id"), position_of("before_id")) {
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

/// Formats a time, given in microseconds since 1970, as the API does for batches.
fn format_micros(time: u64) -> String {
    let seconds = rfc3339(time / MICROS_PER_SECOND);
    format!(
        "{}.{:06}+00:00",
        seconds.trim_end_matches('Z'),
        time % MICROS_PER_SECOND
    )
}

const PATH: &str = "/v1/messages/batches";

const MICROS_PER_SECOND: u64 = 1_000_000;

/// The seconds from the creation of a batch to its `ended_at`, whenever it ends: any time will do.
const SECONDS_TO_END: u64 = 1;

/// The seconds from the creation of a batch to its `expires_at`: 24 hours, as in the API.
const SECONDS_TO_EXPIRY: u64 = 24 * 60 * 60;

/// The input tokens in the usage of each message: any number will do.
const INPUT_TOKENS: u64 = 8;

/// The bytes of text for each output token in the usage: a rough mean of English text.
const BYTES_PER_TOKEN: usize = 4;

/// The largest `limit` of a page, as in the API.
const MAX_PAGE_SIZE: usize = 1_000;

/// The most requests in a batch, as in the API.
const MAX_ENTRIES: usize = 100_000;

/// The longest `custom_id` in bytes, as in the API.
const MAX_ID_LENGTH: usize = 64;

/// The `retry-after` of a batch in progress, as recorded from the API.
const POLL_INTERVAL_SECONDS: u64 = 10;
