//! The rows.

use std::hint::black_box;
use std::process::Command;

use anthropic_blocking::MessageRequest;
use anthropic_blocking::testing::{Reply, StreamScript, TestServer};

use crate::calls::{CASES, client};
use crate::floor;
use crate::measure::{Options, Row, cost, head, memory};

pub fn run(options: &Options) {
    head(options);
    create(options);
    stream(options);
    linear(options);
    flat(options);
}

fn server() -> TestServer {
    let server = TestServer::start().expect("a port");
    server.keep_requests(false);
    server
}

/// The client's own CPU for a prompt and a short answer.
fn create(options: &Options) {
    for case in CASES.iter().filter(|case| options.wants(case.title)) {
        let server = case.server();
        let (ours, floor) = (case.ours(server.base_url()), case.floor(server.base_url()));
        let count = case.round;
        let ours = || cost(count, || (0..count).for_each(|_| ours()));
        let floor = || cost(count, || (0..count).for_each(|_| floor()));
        ours();
        floor();
        Row {
            name: case.title,
            unit: "us/call",
            rounds: (0..options.rounds(31)).map(|_| (ours(), floor())).collect(),
            goal: case.goal,
        }
        .print(options);
    }
}

/// A long stream, one event per HTTP chunk, to a final message.
fn stream(options: &Options) {
    let name = "stream of 200,000 deltas to a final message";
    if !options.wants(name) {
        return;
    }
    let events = if options.quick { 50_000 } else { 200_000 };
    let server = server();
    server.answer_with(move |_| {
        Reply::stream(
            StreamScript::new()
                .message_start(10)
                .deltas(events, 40)
                .finish(),
        )
    });
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user("hi");
    let client = client(server.base_url(), true);
    let agent = ureq::Agent::new_with_defaults();
    let ours = || {
        cost(events, || {
            let stream = client.messages().stream(&request).expect("a stream");
            assert_eq!(
                stream.final_message().expect("whole").text().len(),
                events * 40
            );
        })
    };
    let floor = || {
        cost(events, || {
            assert_eq!(floor::stream(&agent, server.base_url()).len(), events * 40);
        })
    };
    ours();
    floor();
    let rounds = (0..options.rounds(9)).map(|_| (ours(), floor())).collect();
    Row {
        name,
        unit: "us/event",
        rounds,
        goal: 0.85,
    }
    .print(options);

    let iterated = || {
        cost(events, || {
            let mut stream = client.messages().stream(&request).expect("a stream");
            assert_eq!(
                stream.by_ref().filter(|event| event.is_ok()).count(),
                events + 5
            );
        })
    };
    let rounds = (0..options.rounds(9))
        .map(|_| (iterated(), floor()))
        .collect();
    Row {
        name: "the same, every event handed out",
        unit: "us/event",
        rounds,
        goal: 0.85,
    }
    .print(options);
}

/// What an event costs does not depend on how many there are.
fn linear(options: &Options) {
    let name = "1,000,000 events against 10,000";
    if !options.wants(name) {
        return;
    }
    let server = server();
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user("hi");
    let client = client(server.base_url(), true);
    let per_event = |events: usize| {
        server.push(Reply::stream(
            StreamScript::new()
                .message_start(10)
                .deltas(events, 40)
                .finish(),
        ));
        cost(events, || {
            black_box(client.messages().create(&request).expect("whole"));
        })
    };
    let short = || (0..20).map(|_| per_event(10_000)).sum::<f64>() / 20.0;
    short();
    let rounds = (0..options.rounds(5))
        .map(|_| (per_event(1_000_000), short()))
        .collect();
    Row {
        name,
        unit: "us/event",
        rounds,
        goal: 1.10,
    }
    .print(options);
}

/// Memory while 100 MB pass, in a process of its own: above what it had before the stream.
fn flat(options: &Options) {
    for (child, name, goal) in [
        (
            "--child-iterate",
            "peak memory, 100 MB of text iterated (floor: 1 MB)",
            4.0,
        ),
        (
            "--child-accumulate",
            "peak memory, 100 MB of text accumulated (floor: 1 MB)",
            108.0,
        ),
    ] {
        if !options.wants(name) {
            continue;
        }
        let server = server();
        let script = StreamScript::new()
            .message_start(10)
            .deltas(1_000, 100_000)
            .finish();
        server.answer_with(move |request| match request.text().contains("long") {
            true => Reply::stream(script.clone()),
            false => Reply::message("short"),
        });
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args([child, server.base_url()])
            .output()
            .expect("a child process");
        let text = String::from_utf8_lossy(&output.stdout);
        let above = text
            .trim()
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("{text} {output:?}"));
        Row {
            name,
            unit: "MB",
            rounds: vec![(above, 1.0)],
            goal,
        }
        .print(options);
    }
}

/// The other end of [`flat`]: prints the peak above the memory of an idle client.
pub fn child(what: &str, url: &str, _rest: &[String]) {
    let client = client(url, true);
    let request = |prompt: &str| MessageRequest::new("claude-haiku-4-5", 1024).user(prompt);
    client.messages().create(&request("hi")).expect("an answer");
    let (idle, _) = memory();
    let mut stream = client
        .messages()
        .stream(&request("long"))
        .expect("a stream");
    match what {
        "--child-iterate" => {
            stream = stream.without_content();
            let text: usize = stream
                .text_deltas()
                .map(|text| text.expect("text").len())
                .sum();
            assert_eq!(text, 100_000_000);
        }
        _ => {
            let message = stream.final_message().expect("whole");
            assert_eq!(
                message.content[0].as_text().map(str::len),
                Some(100_000_000)
            );
        }
    }
    let (_, peak) = memory();
    println!("{:.2}", peak - idle);
}
