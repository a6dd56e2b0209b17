//! Batches of the largest permitted size: the memory they take, and what is refused beyond it.

use std::fs;
use std::time::Instant;

use anthropic_blocking::testing::Reply;
use anthropic_blocking::{Client, ErrorKind, MessageRequest};
use serde_json::json;

use crate::support::child::command;
use crate::support::{Lab, server};

/// Bytes of a body with two requests, apart from their prompts.
const FRAME: usize = {
    let entry = r#"{"custom_id":"a","params":{"model":"m","max_tokens":1,"messages":[{"role":"user","content":""}]}}"#;
    r#"{"requests":[,]}"#.len() + 2 * entry.len()
};

const MOST_BYTES: usize = 256_000_000;

#[test]
#[ignore = "builds 256 MB twice: large"]
fn a_batch_of_256_mb_is_the_largest_sent() {
    let lab = Lab::new();
    lab.server.keep_requests(false);
    let batch = json!({"id": "b", "processing_status": "in_progress"});
    lab.server.respond_with(move |request| {
        assert_eq!(request.body.len(), MOST_BYTES);
        Reply::json(200, &batch)
    });
    let half = MOST_BYTES / 2 - FRAME / 2;
    let request = |bytes| MessageRequest::new("m", 1).user("x".repeat(bytes));
    let (first, second) = (request(half), request(MOST_BYTES - FRAME - half));
    lab.client
        .batches()
        .create([("a", &first), ("b", &second)])
        .expect("it fits");
    assert_eq!(lab.server.request_count(), 1);
    drop(second);
    let second = request(MOST_BYTES - FRAME - half + 1);
    let error = lab
        .client
        .batches()
        .create([("a", &first), ("b", &second)])
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let words = "a batch has at most 256 MB, which 1 requests fill; split it, or let `run` do so";
    assert!(error.to_string().ends_with(words), "{error}");
    drop((first, second));
    let alone = request(MOST_BYTES);
    let error = lab
        .client
        .batches()
        .create([("alone", alone)])
        .expect_err("too large");
    assert!(
        error
            .to_string()
            .contains("the request alone alone is larger"),
        "{error}"
    );
    assert_eq!(
        lab.server.request_count(),
        1,
        "nothing of the others was sent"
    );
}

#[test]
#[ignore = "sends 100,000 requests and prints the memory that takes: large"]
fn a_batch_of_100_000_takes_the_memory_of_its_body() {
    let server = server();
    server.keep_requests(false);
    server.batch_polls(0);
    let output = command("batch_sizes::child_that_measures_its_memory")
        .arg("--nocapture")
        .env("BATCH_SIZES_URL", server.base_url())
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(server.batch_count(), 2);
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_that_measures_its_memory() {
    const COUNT: usize = 100_000;
    let Ok(url) = std::env::var("BATCH_SIZES_URL") else {
        return;
    };
    let client = Client::builder()
        .base_url(url)
        .api_key("test")
        .build()
        .expect("valid settings");
    let prompt = "word ".repeat(200);
    let body: usize = (0..COUNT)
        .map(|i| {
            r#"{"custom_id":"k","params":{"model":"claude-haiku-4-5","max_tokens":64,"messages":[{"role":"user","content":""}]}},"#
                .len()
                + i.to_string().len()
                + prompt.len()
        })
        .sum();
    let entries = || {
        (0..COUNT).map(|index| {
            let request = MessageRequest::new("claude-haiku-4-5", 64).user(prompt.as_str());
            (format!("k{index}"), request)
        })
    };
    let batches = client.batches();
    assert_eq!(client.models().list().count(), 5);

    let idle = reset_peak();
    let batch = batches.create(entries()).expect("a batch");
    let creating = peak() - idle;
    batches.wait(&batch.id).expect("its end");
    let idle = reset_peak();
    let start = Instant::now();
    let mut results = batches.results(&batch.id).expect("results");
    let (mut count, mut bytes) = (0, 0);
    for entry in results.by_ref() {
        let entry = entry.expect("a result");
        count += 1;
        bytes += serde_json::to_vec(&entry).expect("JSON").len();
    }
    let reading = peak() - idle;
    let took = start.elapsed();
    assert_eq!(count, COUNT);

    let idle = reset_peak();
    let run = client.batches().run(entries()).expect("a run");
    let running = peak() - idle;
    let idle_run = reset_peak();
    let last = run
        .map(|entry| entry.expect("a result"))
        .enumerate()
        .last()
        .expect("results");
    let matching = peak() - idle_run;
    assert_eq!((last.0 + 1, &*last.1.custom_id), (COUNT, "k99999"));

    let mega = |bytes: usize| bytes as f64 / 1e6;
    println!(
        "\nbody {:.1} MB, results {:.1} MB; peak above idle: creating {creating:.1} MB, reading \
         {reading:.1} MB in {took:.1?}; run: creating {running:.1} MB, matching {matching:.1} MB",
        mega(body),
        mega(bytes),
    );
    assert!(creating < mega(body) + 24.0, "{creating}");
    assert!(reading < 4.0, "{reading}");
    assert!(running < mega(body) + 48.0, "{running}");
    assert!(matching < mega(bytes) + 48.0, "{matching}");
}

/// Returns the memory of this process in MB, and resets its peak.
fn reset_peak() -> f64 {
    fs::write("/proc/self/clear_refs", "5").expect("Linux");
    memory("VmRSS:")
}

fn peak() -> f64 {
    memory("VmHWM:")
}

fn memory(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("a line");
    let kilobytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes / 1e3
}
