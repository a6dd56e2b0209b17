//! Recorded requests and responses of models and batches; `recordings` says where they are.

use std::path::PathBuf;

use anthropic_blocking::testing::Reply;
use anthropic_blocking::{
    BatchEntry, MessageBatch, MessageRequest, ModelInfo, ProcessingStatus, Result,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::support::{Lab, seconds};

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn models_come_back_typed() {
    let (list, one) = (Recorded::read("25_"), Recorded::read("26_"));
    let lab = Lab::new();
    lab.server.push_all([list.reply(), one.reply()]);
    let models: Vec<ModelInfo> = lab
        .client
        .models()
        .list()
        .collect::<Result<_>>()
        .expect("models");
    assert_eq!(written(&models), list.json()["data"]);
    assert!(models.len() > 5);
    assert!(models.iter().all(|model| model.capabilities.is_some()));
    let model = lab.client.models().get(one.id()).expect("a model");
    assert_eq!(written(&model), one.json());
    assert_eq!(model.display_name, "Claude 3.5 Sonnet (New)");
    one.check_sent(&lab);
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn batches_come_back_typed() {
    let create = Recorded::read("27_");
    let lab = Lab::new();
    lab.server.push(create.reply());
    let asked = serde_json::from_str::<Value>(create.request["body"].as_str().expect("text"));
    let entries: Vec<(String, MessageRequest)> = asked.expect("JSON")["requests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            let id = entry["custom_id"].as_str().expect("text").to_owned();
            (
                id,
                serde_json::from_value(entry["params"].clone()).expect("a request"),
            )
        })
        .collect();
    let batch = lab.client.batches().create(entries).expect("a batch");
    assert_eq!(written(&batch), create.json());
    assert_eq!(batch.request_counts.total(), 2);
    create.check_sent(&lab);

    let poll = Recorded::read("28_");
    lab.server.push(poll.reply());
    let batch = lab.client.batches().get(poll.id()).expect("a batch");
    assert_eq!(written(&batch), poll.json());
    assert_eq!(batch.rate_limits().retry_after, Some(seconds(10)));
    poll.check_sent(&lab);

    let cancel = Recorded::read("29_");
    lab.server.push(cancel.reply());
    let id = cancel
        .path()
        .trim_end_matches("/cancel")
        .rsplit('/')
        .next()
        .expect("an id");
    let batch = lab.client.batches().cancel(id).expect("a batch");
    assert_eq!(written(&batch), cancel.json());
    assert_eq!(batch.processing_status, ProcessingStatus::Canceling);
    cancel.check_sent(&lab);

    let list = Recorded::read("30_");
    lab.server.push(list.reply());
    let count = list.json()["data"].as_array().expect("a list").len();
    let batches: Vec<MessageBatch> = lab
        .client
        .batches()
        .list()
        .take(count)
        .collect::<Result<_>>()
        .expect("batches");
    assert_eq!(written(&batches), list.json()["data"]);
    assert!(batches.iter().any(MessageBatch::is_ended));
    list.check_sent(&lab);
}

#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn results_come_back_typed_under_any_custom_id() {
    for (file, content_type) in [("32_", "application/x-jsonl"), ("33_", "text/html")] {
        let results = Recorded::read(file);
        assert_eq!(results.header("content-type"), Some(content_type));
        let lab = Lab::new();
        let url = results.request["uri"].as_str().expect("text");
        let id = results
            .path()
            .trim_end_matches("/results")
            .rsplit('/')
            .next()
            .expect("an id");
        let ended = json!({"id": id, "type": "message_batch", "processing_status": "ended",
            "request_counts": {"succeeded": 2}, "results_url": url});
        lab.server
            .push_all([Reply::json(200, ended), results.reply()]);
        let entries = lab.client.batches().results(id).expect("results");
        let entries: Vec<BatchEntry> = entries.collect::<Result<_>>().expect("both");
        let lines: Vec<Value> = results
            .body()
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(written(&entries), Value::from(lines));
        assert!(entries.iter().all(|entry| entry.result.message().is_some()));
        assert_eq!(entries.len(), 2);
        results.check_sent(&lab);
    }
}

/// A recorded request and its response.
struct Recorded {
    request: Value,
    response: Value,
}

impl Recorded {
    /// Returns the recording whose file name begins with `start`.
    #[track_caller]
    fn read(start: &str) -> Recorded {
        let folder = std::env::var_os("ANTHROPIC_RECORDINGS").expect("ANTHROPIC_RECORDINGS is set");
        let folder = PathBuf::from(folder).join("exchanges");
        let mut files = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|file| file.expect("a file"));
        let file = files.find(|file| file.file_name().to_string_lossy().starts_with(start));
        let text = std::fs::read_to_string(file.expect("a recording").path()).expect("text");
        let mut exchange: Value = serde_json::from_str(&text).expect("JSON");
        Recorded {
            request: exchange["request"].take(),
            response: exchange["response"].take(),
        }
    }

    fn path(&self) -> &str {
        let uri = self.request["uri"].as_str().expect("text");
        uri.strip_prefix("https://api.anthropic.com")
            .expect("the API's address")
    }

    fn id(&self) -> &str {
        self.path().rsplit('/').next().expect("an id")
    }

    fn body(&self) -> &str {
        self.response["body"].as_str().expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).expect("JSON")
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.response["headers"].as_array().expect("a list").iter();
        headers.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Returns the recorded response: its headers except those of the framing, and its body.
    fn reply(&self) -> Reply {
        let left_out = [
            "content-length",
            "transfer-encoding",
            "connection",
            "content-encoding",
        ];
        self.headers()
            .filter(|(name, _)| !left_out.contains(&&*name.to_ascii_lowercase()))
            .fold(
                Reply::status(200).body(self.body()),
                |reply, (name, value)| reply.header(name, value),
            )
    }

    /// Checks that the last request equals the recorded one, except for fields without effect.
    #[track_caller]
    fn check_sent(&self, lab: &Lab) {
        let sent = lab.server.take_requests().pop().expect("a request");
        assert_eq!(
            (&*sent.path, &*sent.method),
            (self.path(), self.request["method"].as_str().expect("text"))
        );
        let recorded = self.request["body"].as_str().expect("text");
        let Ok(mut recorded) = serde_json::from_str::<Value>(recorded) else {
            return assert!(sent.body.is_empty());
        };
        let entries = recorded.get_mut("requests").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            let params = entry["params"].as_object_mut();
            params.expect("an object").remove("stream");
        }
        assert_eq!(sent.json(), recorded);
    }
}

fn written(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("JSON")
}
