//! The canned responses: what the test server sends when nothing is scripted, like the API.

use serde_json::Value;

use super::frames::DEFAULT_MODEL;
use super::recorded::RecordedRequest;
use super::reply::Reply;
use super::stream::quoted;

/// Returns the canned response to a request, never [`Reply::canned`] itself.
pub(super) fn reply_to(request: &RecordedRequest) -> Reply {
    if let Some(error) = missing_header(request) {
        return error;
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

/// Returns the body of a request if its canned response is a message.
pub(super) fn message_request(request: &RecordedRequest) -> Option<Value> {
    let is_message = (request.method.as_str(), path(request)) == ("POST", "/v1/messages");
    if !is_message || missing_header(request).is_some() {
        return None;
    }
    parse_and_check(request, &REQUIRED_FOR_MESSAGE).ok()
}

/// What a request body says about the response that it wants.
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
            input_tokens: input_bytes.div_ceil(BYTES_PER_TOKEN),
        }
    }
}

/// The parts of a message that do not depend on the request.
pub(super) struct MessageParts<'a> {
    /// The content blocks as JSON.
    pub(super) content: &'a str,
    pub(super) stop_reason: &'a str,
    pub(super) output_tokens: u64,
    pub(super) cache_read_tokens: u64,
}

/// Returns the JSON of a whole message.
pub(super) fn message_json(id: &str, request: &RequestSummary, parts: &MessageParts<'_>) -> String {
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
        quoted(&request.model),
        parts.content,
        quoted(parts.stop_reason),
        request.input_tokens,
        parts.output_tokens,
        parts.cache_read_tokens
    )
}

/// Returns the error for a request that lacks the key or the version header.
pub(super) fn missing_header(request: &RecordedRequest) -> Option<Reply> {
    if request.header("x-api-key").is_none() && request.header("authorization").is_none() {
        let message = "x-api-key header is required";
        return Some(permanent_error(401, "authentication_error", message));
    }
    if request.header("anthropic-version").is_none() {
        return Some(invalid_request("anthropic-version: header is required"));
    }
    None
}

pub(super) fn path(request: &RecordedRequest) -> &str {
    request.path.strip_suffix('/').unwrap_or(&request.path)
}

fn message(request: &RecordedRequest) -> Reply {
    match parse_and_check(request, &REQUIRED_FOR_MESSAGE) {
        Ok(body) => Reply::message(echo(&body["messages"])),
        Err(error) => invalid_request(&error),
    }
}

fn token_count(request: &RecordedRequest) -> Reply {
    match parse_and_check(request, &["model", "messages"]) {
        Ok(_) => {
            let input_tokens = RequestSummary::read(&request.body).input_tokens;
            Reply::json(200, format!(r#"{{"input_tokens":{input_tokens}}}"#))
        }
        Err(error) => invalid_request(&error),
    }
}

/// Returns the body as JSON, or the API's error text.
fn parse_and_check(request: &RecordedRequest, required: &[&str]) -> Result<Value, String> {
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| format!("The request body is not valid JSON: {error}"))?;
    match parameter_error(&body, required) {
        Some(error) => Err(error),
        None => Ok(body),
    }
}

/// Returns the API's error text about the parameters of a message, if they are invalid.
pub(super) fn parameter_error(body: &Value, required: &[&str]) -> Option<String> {
    if !body.is_object() {
        return Some("Input should be a valid dictionary".to_owned());
    }
    if let Some(name) = required.iter().find(|name| body.get(name).is_none()) {
        return Some(format!("{name}: Field required"));
    }
    let error = if !body["model"].is_string() {
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
    Some(error.to_owned())
}

/// Returns `You said: …` with at most [`ECHOED`] characters of the last text of the user.
pub(super) fn echo(messages: &Value) -> String {
    let text = last_user_text(messages);
    match text.char_indices().nth(ECHOED) {
        Some((cut, _)) => format!("You said: {}…", &text[..cut]),
        None => format!("You said: {text}"),
    }
}

/// Returns the text of the last message of the user, its blocks joined by spaces.
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
        None => DEFAULT_PAGE_SIZE,
        Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
        Some(_) => return invalid_request("limit: Input should be between 1 and 1000"),
    };
    let first = value("after_id")
        .and_then(|id| MODELS.iter().position(|model| model.id == id))
        .map_or(0, |position| position + 1);
    let rest = &MODELS[first..];
    let page = &rest[..limit.min(rest.len())];
    let data: Vec<String> = page.iter().map(model_json).collect();
    let id =
        |model: Option<&CannedModel>| model.map_or("null".to_owned(), |model| quoted(model.id));
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

/// Returns the value of this name in a query string.
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
        .find(|model| model.id == id || is_alias_of(model.id));
    match found {
        Some(model) => Reply::json(200, model_json(model)),
        None => permanent_error(404, "not_found_error", &format!("model: {id}")),
    }
}

/// Returns whether `rest` is a date that an alias leaves out, such as `-20251001`.
fn is_date(rest: &str) -> bool {
    rest.len() == 9 && rest[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn model_json(model: &CannedModel) -> String {
    format!(
        concat!(
            r#"{{"type":"model","id":"{}","display_name":"{}","created_at":"{}T00:00:00Z","#,
            r#""max_input_tokens":{},"max_tokens":{},"line":"{}","lifecycle":"active","#,
            r#""deprecated_at":null,"retires_at":null,"#,
            r#""capabilities":{{"batch":{{"supported":true}}}}}}"#
        ),
        model.id,
        model.display_name,
        model.created_on,
        model.max_input_tokens,
        model.max_output_tokens,
        model.line
    )
}

pub(super) fn not_found() -> Reply {
    permanent_error(404, "not_found_error", "Not found")
}

pub(super) fn invalid_request(message: &str) -> Reply {
    permanent_error(400, "invalid_request_error", message)
}

/// Returns an error that tells the client not to retry.
pub(super) fn permanent_error(status: u16, error_type: &str, message: &str) -> Reply {
    Reply::error(status, error_type, message).by_default("x-should-retry", "false")
}

/// Returns the bytes of these members of the object in `body`, without parsing other values.
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

/// Returns the end of the string that begins at `from`.
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

/// Returns the end of the value that begins at `from`.
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

/// The parameters that a request for a message must have.
pub(super) const REQUIRED_FOR_MESSAGE: [&str; 3] = ["model", "max_tokens", "messages"];

/// The most characters of the user's text that a canned message repeats.
const ECHOED: usize = 200;

/// The bytes of `messages` that count as one input token: a usual ratio for English text.
const BYTES_PER_TOKEN: u64 = 4;

/// Page size of lists for which the request sets no `limit`, as in the API.
pub(super) const DEFAULT_PAGE_SIZE: usize = 20;

struct CannedModel {
    id: &'static str,
    display_name: &'static str,
    line: &'static str,
    created_on: &'static str,
    /// The context window, in tokens.
    max_input_tokens: u64,
    max_output_tokens: u64,
}

impl CannedModel {
    const fn new(
        id: &'static str,
        display_name: &'static str,
        line: &'static str,
        created_on: &'static str,
        max_input_tokens: u64,
        max_output_tokens: u64,
    ) -> CannedModel {
        CannedModel {
            id,
            display_name,
            line,
            created_on,
            max_input_tokens,
            max_output_tokens,
        }
    }
}

#[rustfmt::skip]
const MODELS: [CannedModel; 5] = [
    CannedModel::new("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", "2026-10-01", 1_000_000, 128_000),
    CannedModel::new("claude-opus-5-5", "Claude Opus 5.5", "opus", "2026-09-15", 1_000_000, 128_000),
    CannedModel::new("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", "2026-09-01", 1_000_000, 128_000),
    CannedModel::new("claude-sonnet-5", "Claude Sonnet 5", "sonnet", "2026-06-30", 1_000_000, 128_000),
    CannedModel::new("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "haiku", "2025-10-01", 200_000, 64_000),
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
