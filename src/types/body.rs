//! The JSON bodies in which a [`MessageRequest`] is sent.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::Serializer;

use super::json::JsonView;
use super::message_param::MessageParam;
use super::request::MessageRequest;
use super::wire::{WireStruct, WireValue};

/// The body of a request that creates a message.
pub(crate) struct CreateBody<'a> {
    pub(crate) request: &'a MessageRequest,
    pub(crate) stream: bool,
}

impl Serialize for CreateBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let turns = accepted_turns(&self.request.messages);
        let mut entries = body_entries(self.request, turns.as_deref(), &["stream"]);
        if self.stream {
            entries.push(("stream", JsonView::Bool(true)));
        }
        JsonView::Object(entries).serialize(to)
    }
}

/// The body of a request that counts tokens; that endpoint accepts fewer fields.
pub(crate) struct CountBody<'a>(pub(crate) &'a MessageRequest);

impl Serialize for CountBody<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let turns = accepted_turns(&self.0.messages);
        let entries = body_entries(self.0, turns.as_deref(), NOT_COUNTED);
        JsonView::Object(entries).serialize(to)
    }
}

/// Returns the fields of a body: those of the request except `excluded`, with `turns` as the
/// messages if given.
fn body_entries<'a>(
    request: &'a MessageRequest,
    turns: Option<&'a [Cow<'a, MessageParam>]>,
    excluded: &[&str],
) -> Vec<(&'a str, JsonView<'a>)> {
    let mut entries = request.entries();
    entries.retain(|(name, _)| !excluded.contains(name));
    if let Some(turns) = turns {
        let messages = entries.iter_mut().find(|(name, _)| *name == "messages");
        if let Some((_, messages)) = messages {
            *messages = JsonView::Array(turns.iter().map(|turn| turn.write()).collect());
        }
    }
    entries
}

/// Returns the turns in the form that the server accepts; `None` if all are in that form already.
fn accepted_turns(turns: &[MessageParam]) -> Option<Vec<Cow<'_, MessageParam>>> {
    let is_unchanged = |turn: &MessageParam| matches!(turn.to_accepted(), Some(Cow::Borrowed(_)));
    let are_unchanged = turns.iter().all(is_unchanged);
    (!are_unchanged).then(|| turns.iter().filter_map(MessageParam::to_accepted).collect())
}

/// Fields of a request that the endpoint for counting tokens does not accept.
const NOT_COUNTED: &[&str] = &[
    "stream",
    "max_tokens",
    "stop_sequences",
    "metadata",
    "temperature",
    "top_p",
    "top_k",
    "service_tier",
    "container",
    "inference_geo",
    "diagnostics",
    // Fields of betas.
    "thread",
    "fallbacks",
    "fallback_credit_token",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stream_field_is_set_by_the_client_only() {
        let request = MessageRequest::new("m", 5).field("stream", false);
        let body = |stream| {
            serde_json::to_value(CreateBody {
                request: &request,
                stream,
            })
            .unwrap()
        };
        assert_eq!(body(true)["stream"], json!(true));
        assert!(body(false).get("stream").is_none());
    }

    #[test]
    fn count_body_omits_fields_not_accepted() {
        let counted = json!({"model":"m","messages":[{"role":"user","content":"a"}],"system":"s",
            "tools":[{"name":"t","input_schema":{}}],"tool_choice":{"type":"none"},
            "thinking":{"type":"adaptive"},"output_config":{"effort":"low"},
            "cache_control":{"type":"ephemeral"},"speed":"fast","context_management":{},
            "mcp_servers":[],"compaction":{"type":"summarize"},"billing_policy":{}});
        let others = json!({"stream":true,"max_tokens":5,"stop_sequences":["x"],
            "metadata":{"user_id":"u"},"temperature":1.0,"top_p":1.0,"top_k":1,
            "service_tier":"auto","container":"c","inference_geo":"us","diagnostics":{},
            "thread":{"type":"create"},"fallbacks":"default","fallback_credit_token":"f"});
        let mut all = counted.clone();
        let fields = all.as_object_mut().unwrap();
        fields.extend(others.as_object().unwrap().clone());
        let request: MessageRequest = serde_json::from_value(all).unwrap();
        assert_eq!(serde_json::to_value(CountBody(&request)).unwrap(), counted);
    }
}
