//! Runs the checks with generated inputs, and with recorded ones.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use serde_json::json;

use super::*;

/// Runs `case` with an rng of each seed, and prints the seed with which it fails.
#[track_caller]
fn each_seed(seeds: u64, mut case: impl FnMut(&mut Rng)) {
    for seed in 0..seeds {
        let mut rng = Rng::with_seed(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut rng))) {
            eprintln!("failed with the seed {seed}");
            resume_unwind(panic);
        }
    }
}

/// Returns a sample of each type that the server sends or receives.
fn samples() -> Vec<Value> {
    let usage = json!({"input_tokens":25,"output_tokens":1,"cache_creation_input_tokens":0,
        "cache_read_input_tokens":null,"cache_creation":{"ephemeral_5m_input_tokens":0},
        "output_tokens_details":{"thinking_tokens":3},"server_tool_use":{"web_search_requests":1},
        "service_tier":"standard","new":[1]});
    let blocks = json!([
        {"type":"text","text":"a","citations":[{"type":"char_location","cited_text":"b",
            "document_index":0,"start_char_index":1}],"cache_control":{"type":"ephemeral","ttl":"1h"}},
        {"type":"thinking","thinking":"","signature":"s"},
        {"type":"redacted_thinking","data":"x"},
        {"type":"tool_use","id":"t","name":"n","input":{"a":[{}]},"caller":{"type":"direct"}},
        {"type":"server_tool_use","id":"t","name":"web_search","input":{}},
        {"type":"web_search_tool_result","tool_use_id":"t","content":[{"type":"web_search_result"}]},
        {"type":"tool_result","tool_use_id":"t","is_error":true,"content":[{"type":"text","text":""}]},
        {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},
        {"type":"document","source":{"type":"url","url":"u"},"title":"t","citations":{"enabled":true}},
        {"type":"search_result","source":"s","title":"t","content":[{"type":"text","text":"x"}]},
        {"type":"container_upload","file_id":"f"},
        {"type":"future","text":0.5},
    ]);
    let message = json!({"id":"msg_1","type":"message","role":"assistant","model":"m",
        "content":blocks,"stop_reason":"refusal","stop_sequence":null,"stop_details":
        {"type":"refusal","category":"c"},"container":{"id":"c"},"usage":usage});
    let error = json!({"type":"error","error":{"type":"overloaded_error","message":"Overloaded",
        "details":{"error_code":"c"}},"request_id":"req_1"});
    let mut samples = vec![
        json!({"model":"m","max_tokens":5,"system":"s","messages":[{"role":"user","content":"a"},
            {"role":"assistant","content":blocks}],"temperature":1,"top_p":0.5,"stop_sequences":["x"],
            "thinking":{"type":"enabled","budget_tokens":1024},"metadata":{"user_id":"u"},
            "tools":[{"name":"n","input_schema":{"type":"object"},"strict":true},
            {"type":"web_search_20260318","name":"web_search"}],"tool_choice":{"type":"auto"},
            "output_config":{"effort":"low","format":{}},"stream":true}),
        json!({"id":"msgbatch_1","type":"message_batch","processing_status":"ended",
            "request_counts":{"processing":0,"succeeded":2,"errored":0},"results_url":"u",
            "created_at":"2026-08-19T14:44:51Z","ended_at":null}),
        json!({"type":"model","id":"m","display_name":"M","max_tokens":64_000,"lifecycle":"active",
            "capabilities":{"batch":{"supported":true}}}),
        json!({"custom_id":"a","result":{"type":"succeeded","message":message}}),
        json!({"custom_id":"a","result":{"type":"errored","error":error}}),
        json!({"custom_id":"a","result":{"type":"expired"}}),
        json!({"type":"canceled"}),
        error["error"].clone(),
        error,
        blocks.clone(),
        usage,
        message,
    ];
    samples.extend(blocks.as_array().expect("a list").iter().cloned());
    samples.extend(events());
    samples
}

/// Returns the events of a stream, in their order.
fn events() -> Vec<Value> {
    let delta = |index: u64, delta: Value| json!({"type":"content_block_delta","index":index,"delta":delta});
    let mut events = vec![
        json!({"type":"message_start","message":{"id":"msg_1","type":"message",
        "role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,
        "usage":{"input_tokens":25,"output_tokens":1}}}),
    ];
    let blocks = [
        (
            json!({"type":"thinking","thinking":"","signature":""}),
            vec![
                json!({"type":"thinking_delta","thinking":"h"}),
                json!({"type":"signature_delta","signature":"s"}),
            ],
        ),
        (
            json!({"type":"text","text":"","citations":null}),
            vec![
                json!({"type":"text_delta","text":"a\u{1f600}"}),
                json!({"type":"citations_delta","citation":{"type":"c","cited_text":"x"}}),
                json!({"type":"text_delta","text":"b","new":1}),
            ],
        ),
        (
            json!({"type":"tool_use","id":"t","name":"n","input":{}}),
            vec![
                json!({"type":"input_json_delta","partial_json":"{\"a\":"}),
                json!({"type":"input_json_delta","partial_json":"[1]}"}),
            ],
        ),
        (
            json!({"type":"mcp_tool_use","id":"t"}),
            vec![json!({"type":"input_json_delta","partial_json":"{}"})],
        ),
        (
            json!({"type":"compaction","content":null}),
            vec![
                json!({"type":"compaction_delta","content":"c","encrypted_content":"e"}),
                json!({"type":"future_delta"}),
            ],
        ),
    ];
    for (index, (block, deltas)) in (0..).zip(blocks) {
        events.push(json!({"type":"content_block_start","index":index,"content_block":block}));
        events.extend(deltas.into_iter().map(|new| delta(index, new)));
        events.push(json!({"type":"content_block_stop","index":index}));
        events.push(json!({"type":"ping"}));
    }
    events.push(
        json!({"type":"message_delta","delta":{"stop_reason":"end_turn","new":1},
        "usage":{"output_tokens":9,"server_tool_use":{"web_search_requests":1}}}),
    );
    events.push(json!({"type":"message_stop"}));
    events
}

/// Deletes, renames, replaces or repeats a part of a value.
fn mutate(value: &mut Value, rng: &mut Rng) {
    const NAMES: [&str; 8] = [
        "type", "text", "content", "usage", "id", "input", "extra", "SECRET",
    ];
    let is_inner = match value {
        Value::Object(object) => !object.is_empty(),
        Value::Array(array) => !array.is_empty(),
        _ => false,
    };
    if !is_inner || rng.u8(..5) == 0 {
        *value = odd_value(rng);
        return;
    }
    match value {
        Value::Object(object) => {
            let keys: Vec<String> = object.keys().cloned().collect();
            let key = &keys[rng.usize(..keys.len())];
            match rng.u8(..8) {
                0 => drop(object.remove(key)),
                1 => {
                    let moved = object.remove(key).unwrap_or_default();
                    object.insert(NAMES[rng.usize(..NAMES.len())].to_owned(), moved);
                }
                2 => {
                    drop(object.insert(NAMES[rng.usize(..NAMES.len())].to_owned(), odd_value(rng)))
                }
                _ => mutate(&mut object[key], rng),
            }
        }
        Value::Array(array) => {
            let at = rng.usize(..array.len());
            match rng.u8(..6) {
                0 => drop(array.remove(at)),
                1 => array.insert(at, odd_value(rng)),
                2 => array.push(array[at].clone()),
                _ => mutate(&mut array[at], rng),
            }
        }
        _ => {}
    }
}

fn odd_value(rng: &mut Rng) -> Value {
    let texts = [
        "",
        "SECRET",
        "text",
        "message_stop",
        "error",
        "2026-08-19T14:44:51Z",
        "é\u{0}\"\\",
    ];
    match rng.u8(..16) {
        0 => json!(null),
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(0.1),
        6 => json!(1e300),
        7 => json!([]),
        8 => json!({}),
        9 => json!([[null, {"SECRET": "SECRET"}]]),
        10 => json!({"type": texts[rng.usize(..texts.len())]}),
        11 => json!({"$serde_json::private::Number": "1"}),
        _ => json!(texts[rng.usize(..texts.len())]),
    }
}

/// Changes bytes at up to three positions.
fn damage_bytes(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, *rng.choice(b"\n\r:{}[]\",\0\xC3 ").expect("some")),
            2 => drop(bytes.drain(at..(at + rng.usize(..9)).min(bytes.len()))),
            3 => bytes
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte = rng.u8(..)),
            _ => bytes.extend_from_within(at..),
        }
    }
}

#[test]
fn damaged_bytes_decode_by_the_standard() {
    let text: String = (0..40).map(|n| format!("{n} ")).collect();
    let endings = ["\n", "\r\n", "\r"];
    each_seed(1_500, |rng| {
        let mut input = vec![rng.u8(..)];
        let ending = endings[rng.usize(..3)];
        for _ in 0..rng.usize(1..5) {
            let end = rng.usize(..text.len());
            let lines = [
                "event: a",
                &format!("data: {}", &text[..end]),
                ": b",
                "data",
                "",
            ];
            for line in lines.iter().filter(|_| rng.u8(..8) > 0) {
                input.extend_from_slice(format!("{line}{ending}").as_bytes());
            }
        }
        damage_bytes(&mut input, rng);
        sse(&input);
    });
}

#[test]
fn events_in_any_order_fold_to_equal_messages() {
    let events = events();
    each_seed(500, |rng| {
        let mut input = vec![rng.u8(..)];
        let mut order: Vec<&Value> = events.iter().collect();
        match rng.u8(..3) {
            0 => rng.shuffle(&mut order),
            1 => order.retain(|_| rng.u8(..6) > 0),
            _ => {}
        }
        for event in order {
            let mut event = event.clone();
            if rng.u8(..8) == 0 {
                mutate(&mut event, rng);
            }
            let name = event["type"].as_str().filter(|_| rng.bool()).unwrap_or("");
            let name = name.replace(['\n', '\r'], "");
            input.extend_from_slice(format!("event: {name}\ndata: {event}\n\n").as_bytes());
        }
        if rng.bool() {
            damage_bytes(&mut input, rng);
        }
        stream(&input);
    });
}

#[test]
fn mutated_json_is_written_as_it_was_read() {
    let samples = samples();
    for sample in &samples {
        wire(sample.to_string().as_bytes());
    }
    each_seed(1_000, |rng| {
        let mut value = samples[rng.usize(..samples.len())].clone();
        for _ in 0..rng.usize(1..4) {
            mutate(&mut value, rng);
        }
        let mut text = value.to_string().into_bytes();
        if rng.u8(..8) == 0 {
            damage_bytes(&mut text, rng);
        }
        wire(&text);
    });
}

#[test]
fn headers_of_any_content_are_read_within_bounds() {
    let names = [
        "retry-after",
        "retry-after-ms",
        "date",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-reset",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-fast-output-tokens-limit",
        "anthropic-",
    ];
    let values = [
        "20",
        "0",
        "-1",
        "0.5",
        "1e-300",
        "1e300",
        "nan",
        "18446744073709551615",
        "soon",
        "",
        "Fri, 29 Sep 2023 16:26:57 GMT",
        "Friday, 29-Sep-23 16:26:57 +2400",
        "2023-09-29T16:26:60.9Z",
        "9999-12-31T23:59:59-99:99",
        "31 Feb 1970 00:00:00",
        "+",
        "1970-01-01T00:00:00+00:01",
    ];
    each_seed(4_000, |rng| {
        let mut input = rng.u64(..).to_le_bytes().to_vec();
        for _ in 0..rng.usize(1..5) {
            let (name, value) = (
                names[rng.usize(..names.len())],
                values[rng.usize(..values.len())],
            );
            let mut value = value.as_bytes().to_vec();
            if rng.bool() {
                damage_bytes(&mut value, rng);
            }
            input.extend_from_slice(format!("{name}: ").as_bytes());
            input.extend_from_slice(&value);
            input.push(b'\n');
        }
        headers(&input);
    });
}

#[test]
fn dates_agree_with_the_calendar() {
    const DAY: u64 = 86_400;
    for leap in [1972, 2000, 2024, 2100, 2400, 9996] {
        let about = (leap - 1970) * 36_524 * DAY / 100;
        (0..400).for_each(|day| dates((about + day * DAY).min(END_OF_9999)));
    }
    (0..=1).for_each(|second| dates(END_OF_9999 * second));
    each_seed(2_000, |rng| dates(rng.u64(..=END_OF_9999)));
}

#[test]
fn error_texts_have_bounded_length() {
    let bodies = [
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow\n down",
            "details":{"error_code":"ramp_limit_exceeded"}},"request_id":"req_1"}"#,
        r#"{"type":"overloaded_error","message":"Overloaded"}"#,
        r#"{"error":"bad gateway"}"#,
        r#"{"detail":"no route","request_id":" "}"#,
    ];
    let long = "\u{202e}x\r".repeat(2_000);
    each_seed(400, |rng| {
        let mut value: Value = serde_json::from_str(bodies[rng.usize(..4)]).expect("JSON");
        if rng.u8(..4) == 0 {
            value["request_id"] = json!(long);
        }
        if rng.u8(..4) == 0 {
            value["error"] = json!({"type": long, "message": long});
        }
        mutate(&mut value, rng);
        let mut input = rng.u16(..).to_le_bytes().to_vec();
        input.extend_from_slice(value.to_string().as_bytes());
        if rng.u8(..4) == 0 {
            damage_bytes(&mut input, rng);
        }
        errors(&input);
    });
}

#[test]
fn damaged_journals_keep_exactly_whole_records() {
    let file = TemporaryJournal::new();
    each_seed(400, |rng| {
        let edits = rng.usize(..4);
        let mut input: Vec<u8> = (0..edits * 4).map(|_| rng.u8(..)).collect();
        match rng.u8(..4) {
            0 => input.extend_from_slice(b"{}\n"),
            1 => input.extend_from_slice(b"\0\0\n"),
            _ => {}
        }
        journal(&file.0, &input);
    });
}

struct TemporaryJournal(PathBuf);

impl TemporaryJournal {
    fn new() -> TemporaryJournal {
        let name = format!("anthropic-blocking-{}-checks", std::process::id());
        TemporaryJournal(std::env::temp_dir().join(name))
    }
}

impl Drop for TemporaryJournal {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes inputs for each target from the recordings. Writes them to the folder in
/// `ANTHROPIC_FUZZ_CORPUS`, if the variable is set.
#[test]
#[ignore = "needs the recordings, their folder in ANTHROPIC_RECORDINGS"]
fn recorded_inputs_pass_every_check() {
    let journal_file = TemporaryJournal::new();
    let corpus = std::env::var_os("ANTHROPIC_FUZZ_CORPUS").map(PathBuf::from);
    let mut count = 0;
    for (target, input) in recorded() {
        match target {
            "sse" => sse(&input),
            "stream" => stream(&input),
            "wire" => wire(&input),
            "headers" => headers(&input),
            "errors" => errors(&input),
            "journal" => journal(&journal_file.0, &input),
            _ => {}
        }
        count += 1;
        if let Some(corpus) = &corpus {
            let folder = corpus.join(target);
            fs::create_dir_all(&folder).expect("a folder");
            let name = crate::types::digest::Digest::of(&input).to_hex();
            fs::write(folder.join(name), input).expect("space on the disk");
        }
    }
    assert!(count > 1_000, "{count} inputs");
}

fn recorded() -> Vec<(&'static str, Vec<u8>)> {
    let folder = std::env::var_os("ANTHROPIC_RECORDINGS");
    let folder = PathBuf::from(folder.expect("ANTHROPIC_RECORDINGS is set to their folder"));
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a recording");
    let mut inputs = Vec::new();
    let mut add =
        |target, start: &[u8], rest: &str| inputs.push((target, [start, rest.as_bytes()].concat()));
    for line in text("streams.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let body = line["body"].as_str().expect("a body");
        add("wire", b"", &line["final"].to_string());
        if body.len() < 16_000 {
            add("sse", &[1], body);
            add("stream", &[1], body);
            let head = "\x01HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            add("client", head.as_bytes(), body);
        }
        for data in body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .take(3)
        {
            add("wire", b"", data);
        }
    }
    let vectors: Value = serde_json::from_str(&text("sse_vectors.json")).expect("JSON");
    for case in vectors["cases"].as_array().expect("a list") {
        if let Some(text) = case["text"].as_str() {
            add("sse", &[0], text);
            add("sse", &[1], text);
        }
    }
    let mut lists = vec![text("real_headers.json"), text("retry_cases.json")];
    let exchanges = fs::read_dir(folder.join("exchanges")).expect("a folder");
    for entry in exchanges {
        let path = entry.expect("a file").path();
        lists.push(fs::read_to_string(path).expect("a recording"));
    }
    for list in lists {
        gather(&serde_json::from_str(&list).expect("JSON"), &mut add);
    }
    inputs
}

/// Collects inputs from everything in a recording that looks like a request or a response.
fn gather(value: &Value, add: &mut impl FnMut(&'static str, &[u8], &str)) {
    let children: Vec<&Value> = match value {
        Value::Object(object) => object.values().collect(),
        Value::Array(array) => array.iter().collect(),
        _ => Vec::new(),
    };
    children.into_iter().for_each(|child| gather(child, add));
    let mut headers = String::new();
    match value.get("headers") {
        Some(Value::Object(object)) => {
            for (name, value) in object {
                headers += &format!("{name}: {}\r\n", value.as_str().unwrap_or_default());
            }
        }
        Some(Value::Array(pairs)) => {
            for pair in pairs {
                let of = |at: usize| pair[at].as_str().unwrap_or_default();
                headers += &format!("{}: {}\r\n", of(0), of(1));
            }
        }
        _ => {}
    }
    if !headers.is_empty() {
        add("headers", &1_696_004_797_u64.to_le_bytes(), &headers);
    }
    let body = match &value["body"] {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    body.lines().for_each(|line| add("wire", b"", line));
    add("wire", b"", &body);
    let unframed: String = headers
        .split_inclusive("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("transfer-encoding"))
        .filter(|line| !line.to_ascii_lowercase().starts_with("content-"))
        .collect();
    if let Some(status) = value["status"].as_u64() {
        let status = status as u16;
        add("errors", &(status - 100).to_le_bytes(), &body);
        for what in 0..8 {
            let head = format!(
                "HTTP/1.1 {status} X\r\n{unframed}content-length: {}\r\n\r\n",
                body.len()
            );
            add("client", &[what], &format!("{head}{body}"));
        }
    }
    if let (Some(method), Some(uri)) = (value["method"].as_str(), value["uri"].as_str()) {
        let head = format!(
            "{method} {uri} HTTP/1.1\r\n{unframed}x-api-key: k\r\nanthropic-version: 2023-06-01\r\n"
        );
        add(
            "server",
            b"",
            &format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
        );
        add(
            "server",
            b"",
            &format!(
                "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        );
    }
}
