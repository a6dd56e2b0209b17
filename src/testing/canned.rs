//! What the test server answers by itself: a small imitation of the API.

use serde_json::Value;

use super::frames::DEFAULT_MODEL;
use super::recorded::RecordedRequest;
use super::reply::Reply;
use super::stream::quoted;

/// The answer of the imitation, never [`Reply::canned`] itself.
pub(super) fn answer(request: &RecordedRequest) -> Reply {
    if let Some(refusal) = without_header(request) {
        return refusal;
    }
    match (request.method.as_str(), path(request)) {
        ("POST", "/v1/messages") => message(request),
        ("POST", "/v1/messages/count_tokens") => token_count(request),
        ("GET", "/v1/models") => model_page(request.query.as_deref().unwrap_or_default()),
        ("GET", path) => match path.strip_prefix("/v1/models/") {
            Some(id) => one_model(id),
            None => not_found(),
        },
        _ => not_found(),
    }
}

/// The body of a request for a message, where the imitation would answer it with one.
pub(super) fn message_request(request: &RecordedRequest) -> Option<Value> {
    let is_message = (request.method.as_str(), path(request)) == ("POST", "/v1/messages");
    if !is_message || without_header(request).is_some() {
        return None;
    }
    checked(request, &FOR_MESSAGE).ok()
}

/// What a request body says about the answer that it wants.
#[derive(Debug, PartialEq)]
pub(super) struct RequestSummary {
    pub(super) model: String,
    pub(super) is_stream: bool,
    pub(super) input_tokens: u64,
}

impl RequestSummary {
    /// Reads the top level of the body only, so that long prompts cost little.
    pub(super) fn read(body: &[u8]) -> RequestSummary {
        let [model, stream, messages] = members(body, ["model", "stream", "messages"]);
        let model = model.and_then(|model| serde_json::from_slice(model).ok());
        let input_bytes = messages.map_or(0, |messages| messages.len() as u64);
        RequestSummary {
            model: model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            is_stream: stream == Some(b"true"),
            input_tokens: input_bytes.div_ceil(4),
        }
    }
}

/// What a message says, and how.
pub(super) struct MessageParts<'a> {
    /// The blocks as JSON.
    pub(super) content: &'a str,
    pub(super) stop_reason: &'a str,
    pub(super) output_tokens: u64,
    pub(super) cache_read_tokens: u64,
}

/// The JSON of a whole message.
pub(super) fn message_json(id: &str, wish: &RequestSummary, said: &MessageParts<'_>) -> String {
    format!(
        concat!(
            r#"{{"id":{},"type":"message","role":"assistant","model":{},"#,
            r#""content":{},"#,
            r#""stop_reason":{},"stop_sequence":null,"#,
            r#""usage":{{"input_tokens":{},"output_tokens":{},"#,
            r#""cache_creation_input_tokens":0,"cache_read_input_tokens":{},"#,
            r#""cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}},"#,
            r#""service_tier":"standard"}}}}"#
        ),
        quoted(id),
        quoted(&wish.model),
        said.content,
        quoted(said.stop_reason),
        wish.input_tokens,
        said.output_tokens,
        said.cache_read_tokens
    )
}

/// The refusal of a request without a header that every request needs.
pub(super) fn without_header(request: &RecordedRequest) -> Option<Reply> {
    if request.header("x-api-key").is_none() && request.header("authorization").is_none() {
        let message = "x-api-key header is required";
        return Some(refusal(401, "authentication_error", message));
    }
    if request.header("anthropic-version").is_none() {
        return Some(invalid("anthropic-version: header is required"));
    }
    None
}

pub(super) fn path(request: &RecordedRequest) -> &str {
    request.path.strip_suffix('/').unwrap_or(&request.path)
}

fn message(request: &RecordedRequest) -> Reply {
    match checked(request, &FOR_MESSAGE) {
        Ok(body) => Reply::message(echo(&body["messages"])),
        Err(complaint) => invalid(&complaint),
    }
}

fn token_count(request: &RecordedRequest) -> Reply {
    match checked(request, &["model", "messages"]) {
        Ok(_) => {
            let input_tokens = RequestSummary::read(&request.body).input_tokens;
            Reply::json(200, format!(r#"{{"input_tokens":{input_tokens}}}"#))
        }
        Err(complaint) => invalid(&complaint),
    }
}

/// The body as JSON, or the API's complaint about it.
fn checked(request: &RecordedRequest, required: &[&str]) -> Result<Value, String> {
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| format!("The request body is not valid JSON: {error}"))?;
    match complaint(&body, required) {
        Some(complaint) => Err(complaint),
        None => Ok(body),
    }
}

/// The API's complaint about the parameters of a message, if it has one.
pub(super) fn complaint(body: &Value, required: &[&str]) -> Option<String> {
    if !body.is_object() {
        return Some("Input should be a valid dictionary".to_owned());
    }
    if let Some(name) = required.iter().find(|name| body.get(name).is_none()) {
        return Some(format!("{name}: Field required"));
    }
    let complaint = if !body["model"].is_string() {
        "model: Input should be a valid string"
    } else if required.contains(&"max_tokens") && !body["max_tokens"].is_u64() {
        "max_tokens: Input should be a valid integer"
    } else {
        match body["messages"].as_array() {
            None => "messages: Input should be a valid list",
            Some(messages) if messages.is_empty() => "messages: at least one message is required",
            Some(_) => return None,
        }
    };
    Some(complaint.to_owned())
}

/// `You said: …` with at most 200 characters of the last thing a user said.
pub(super) fn echo(messages: &Value) -> String {
    let said = last_user_text(messages);
    match said.char_indices().nth(200) {
        Some((cut, _)) => format!("You said: {}…", &said[..cut]),
        None => format!("You said: {said}"),
    }
}

/// The last thing a user said.
pub(super) fn last_user_text(messages: &Value) -> String {
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    let last = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    match last.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => {
            let texts = blocks.iter().filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

fn model_page(query: &str) -> Reply {
    let value = |name: &str| query_value(query, name);
    let limit = match value("limit").map(str::parse::<usize>) {
        None => 20,
        Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
        Some(_) => return invalid("limit: Input should be between 1 and 1000"),
    };
    let first = value("after_id")
        .and_then(|id| MODELS.iter().position(|model| model.0 == id))
        .map_or(0, |position| position + 1);
    let rest = &MODELS[first..];
    let page = &rest[..limit.min(rest.len())];
    let data: Vec<String> = page.iter().map(model_json).collect();
    let id = |model: Option<&CannedModel>| model.map_or("null".to_owned(), |model| quoted(model.0));
    Reply::json(
        200,
        format!(
            r#"{{"data":[{}],"first_id":{},"last_id":{},"has_more":{}}}"#,
            data.join(","),
            id(page.first()),
            id(page.last()),
            rest.len() > page.len()
        ),
    )
}

/// A value in a query.
pub(super) fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn one_model(id: &str) -> Reply {
    let is_alias_of = |model: &str| model.strip_prefix(id).is_some_and(is_date);
    let found = MODELS
        .iter()
        .find(|model| model.0 == id || is_alias_of(model.0));
    match found {
        Some(model) => Reply::json(200, model_json(model)),
        None => refusal(404, "not_found_error", &format!("model: {id}")),
    }
}

/// Whether `rest` is what an alias leaves out, such as `-20251001`.
fn is_date(rest: &str) -> bool {
    rest.len() == 9 && rest[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn model_json(model: &CannedModel) -> String {
    let CannedModel(id, display_name, line, created_at, window, output) = model;
    format!(
        concat!(
            r#"{{"type":"model","id":"{}","display_name":"{}","created_at":"{}T00:00:00Z","#,
            r#""max_input_tokens":{},"max_tokens":{},"line":"{}","lifecycle":"active","#,
            r#""deprecated_at":null,"retires_at":null,"#,
            r#""capabilities":{{"batch":{{"supported":true}}}}}}"#
        ),
        id, display_name, created_at, window, output, line
    )
}

pub(super) fn not_found() -> Reply {
    refusal(404, "not_found_error", "Not found")
}

pub(super) fn invalid(message: &str) -> Reply {
    refusal(400, "invalid_request_error", message)
}

pub(super) fn refusal(status: u16, error_type: &str, message: &str) -> Reply {
    Reply::error(status, error_type, message).by_default("x-should-retry", "false")
}

/// The bytes of these members of the object in `body`, found without building values.
fn members<'a, const N: usize>(body: &'a [u8], names: [&str; N]) -> [Option<&'a [u8]>; N] {
    let mut found = [None; N];
    let mut at = skip(body, 0, b" \t\r\n");
    if body.get(at) != Some(&b'{') {
        return found;
    }
    at += 1;
    loop {
        at = skip(body, at, b" \t\r\n,");
        if body.get(at) != Some(&b'"') {
            return found;
        }
        let value = skip(body, string_end(body, at), b" \t\r\n:");
        let key = &body[at..value];
        let end = value_end(body, value);
        for (name, slot) in names.iter().zip(&mut found) {
            let rest = key[1..].strip_prefix(name.as_bytes());
            if rest.is_some_and(|rest| rest.starts_with(b"\"")) {
                *slot = Some(&body[value..end]);
            }
        }
        at = end;
    }
}

fn skip(body: &[u8], from: usize, skipped: &[u8]) -> usize {
    let rest = &body[from..];
    let count = rest.iter().position(|byte| !skipped.contains(byte));
    from + count.unwrap_or(rest.len())
}

/// Where the string ends that begins at `from`.
fn string_end(body: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

/// Where the value ends that begins at `from`.
fn value_end(body: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at = string_end(body, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    body.len()
}

/// The members that a request for a message needs.
pub(super) const FOR_MESSAGE: [&str; 3] = ["model", "max_tokens", "messages"];

/// Id, display name, line, day of creation, window, largest output.
struct CannedModel(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u64,
    u64,
);

#[rustfmt::skip]
const MODELS: [CannedModel; 5] = [
    CannedModel("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "2026-10-01", 1_000_000, 128_000),
    CannedModel("claude-opus-5-5", "Claude Opus 5.5", "opus", "2026-09-15", 1_000_000, 128_000),
    CannedModel("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "2026-09-01", 1_000_000, 128_000),
    CannedModel("claude-sonnet-5", "Claude Sonnet 5", "sonnet", "2026-06-30", 1_000_000, 128_000),
    CannedModel("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "haiku", "2025-10-01", 200_000, 64_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_at_the_top_level_only() {
        let body = br#" { "a": {"stream":true}, "s\"x":[1,"]"], "messages" : [ {"content":"\"stream\":true"} ] ,"stream":false , "model":"m"}"#;
        let [messages, stream, model] = members(body, ["messages", "stream", "model"]);
        assert_eq!(messages, Some(&br#"[ {"content":"\"stream\":true"} ]"#[..]));
        assert_eq!(stream, Some(&b"false"[..]));
        assert_eq!(model, Some(&b"\"m\""[..]));
    }

    #[test]
    fn broken_bodies_do_not_panic() {
        let body = br#"{"model":"m\u00e9","stream":true,"messages":[{"a":[1,2,{"b":"c"}]}]}"#;
        for cut in 0..body.len() {
            RequestSummary::read(&body[..cut]);
        }
        for byte in 0..=255_u8 {
            RequestSummary::read(&[b'{', b'"', byte, b'"', byte, byte]);
            RequestSummary::read(&[byte, byte, byte]);
        }
        assert!(RequestSummary::read(body).is_stream);
    }
}
