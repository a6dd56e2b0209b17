//! Rows for calls, streams and their memory.

use std::hint::black_box;
use std::process::Command;

use anthropic_blocking::MessageRequest;
use anthropic_blocking::testing::{Reply, StreamScript, TestServer};

use crate::calls::{CASES, client};
use crate::floor;
use crate::measure::{Goal, Options, Row, cost, cost_of_calls, in_turn, memory, print_costs};

pub fn run(options: &Options) {
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

fn deltas(count: usize, bytes: usize) -> Reply {
    let script = StreamScript::new().message_start(10);
    Reply::stream(script.deltas(count, bytes).finish())
}

/// Measures a prompt with a short reply.
fn create(options: &Options) {
    for case in &CASES {
        for (threads, how, rounds) in [(1, "", 101), (8, ", 8 threads", 41)] {
            let name = format!("{}{how}", case.title);
            if !case.is_create() || !options.wants(&name) {
                continue;
            }
            let server = case.server();
            let (ours, floor) = (case.ours(server.base_url()), case.floor(server.base_url()));
            let count = case.round * threads;
            let ours = || cost_of_calls(threads, count, &ours);
            let floor = || cost_of_calls(threads, count, &floor);
            ours();
            floor();
            let rounds = in_turn(options.rounds(rounds), ours, floor);
            print_costs(
                options,
                &name,
                "us/call",
                &rounds,
                [case.goal; 2].map(Goal::Ratio),
            );
        }
    }
}

/// Measures a long stream, one event per HTTP chunk, to its final message. The server bounds its wall
/// time.
fn stream(options: &Options) {
    let (events, shown) = match options.quick {
        true => (50_000, "50,000"),
        false => (200_000, "200,000"),
    };
    let whole = format!("stream of {shown} deltas to a final message");
    let each = format!("stream of {shown} deltas, every event handed out");
    if !options.wants(&whole) && !options.wants(&each) {
        return;
    }
    let server = server();
    let reply = deltas(events, 40);
    server.respond_with(move |_| reply.clone());
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user("hi");
    let client = client(server.base_url(), true);
    let agent = floor::agent();
    let open = || client.messages().stream(&request).expect("a stream");
    let accumulated = || {
        cost(events, || {
            let message = open().final_message().expect("whole");
            assert_eq!(message.text().len(), events * 40);
        })
    };
    let iterated = || {
        cost(events, || {
            let count = open().by_ref().filter(|event| event.is_ok()).count();
            assert_eq!(count, events + 5);
        })
    };
    let floor = || {
        cost(events, || {
            let mut text = String::new();
            floor::stream(&agent, server.base_url(), "hi", |more| text.push_str(more));
            assert_eq!(text.len(), events * 40);
        })
    };
    floor();
    let goals = [Goal::Ratio(0.85), Goal::None];
    if options.wants(&whole) {
        accumulated();
        let rounds = in_turn(options.rounds(15), accumulated, floor);
        print_costs(options, &whole, "us/event", &rounds, goals);
    }
    if options.wants(&each) {
        iterated();
        let rounds = in_turn(options.rounds(15), iterated, floor);
        print_costs(options, &each, "us/event", &rounds, goals);
    }
}

/// Checks that the cost of an event does not grow with their number: the floor is this client as well.
fn linear(options: &Options) {
    let name = "accumulation, 1,000,000 events (floor: 10,000)";
    if !options.wants(name) {
        return;
    }
    let server = server();
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user("hi");
    let client = client(server.base_url(), true);
    let agent = floor::agent();
    let accumulate = |times: usize, events: usize| {
        server.push_all((0..times).map(|_| deltas(events, 40)));
        cost(times * events, || {
            for _ in 0..times {
                black_box(client.messages().create(&request).expect("whole"));
            }
        })
    };
    let accumulate_bare = |times: usize, events: usize| {
        server.push_all((0..times).map(|_| deltas(events, 40)));
        cost(times * events, || {
            for _ in 0..times {
                let mut text = String::new();
                floor::stream(&agent, server.base_url(), "hi", |more| text.push_str(more));
                black_box(text);
            }
        })
    };
    accumulate(5, 10_000);
    let (long, short) = ((1, 1_000_000), (25, 10_000));
    let rounds = in_turn(
        options.rounds(11),
        || accumulate(long.0, long.1),
        || accumulate(short.0, short.1),
    );
    let goals = [Goal::Ratio(1.10), Goal::None];
    print_costs(options, name, "us/event", &rounds, goals);
    if !options.quick {
        let rounds = in_turn(
            options.rounds(5),
            || accumulate_bare(long.0, long.1),
            || accumulate_bare(short.0, short.1),
        );
        let name = "accumulation by bare ureq, 1,000,000 (floor: 10,000)";
        print_costs(options, name, "us/event", &rounds, [Goal::None; 2]);
    }
}

/// Measures memory while 100 MB pass, in child processes: the peak above that before the stream.
fn flat(options: &Options) {
    for (what, goal) in [("iterated", 4.0), ("accumulated", 108.0)] {
        let name = format!("peak memory, 100 MB of text {what}");
        if !options.wants(&name) {
            continue;
        }
        let server = server();
        let long = deltas(1_000, 100_000);
        server.respond_with(move |request| match request.text().contains("long") {
            true => long.clone(),
            false => Reply::message("short"),
        });
        let peak = |side: &str| {
            let program = std::env::current_exe().expect("this program");
            let child = Command::new(program)
                .args(["--child-memory", server.base_url(), side, what])
                .output()
                .expect("a child process");
            let text = String::from_utf8_lossy(&child.stdout);
            let peak = text.trim().parse::<f64>();
            peak.unwrap_or_else(|_| panic!("{text} {child:?}"))
        };
        let rounds = in_turn(options.rounds(5), || peak("ours"), || peak("floor"));
        Row {
            name: &name,
            unit: "MB",
            rounds,
            goal: Goal::AtMost(goal),
        }
        .print(options);
    }
}

/// The child process of [`flat`]: prints the peak above the memory after a short reply.
pub fn measure_memory(url: &str, side: &str, what: &str) {
    let read = |field| memory("self", field).unwrap_or(f64::NAN);
    let idle;
    let mut text = String::new();
    let mut length = 0;
    let is_kept = what == "accumulated";
    let take = |more: &str| {
        length += more.len();
        if is_kept {
            text.push_str(more);
        }
    };
    if side == "ours" {
        let client = client(url, true);
        let request = |prompt: &str| MessageRequest::new("claude-haiku-4-5", 1024).user(prompt);
        client.messages().create(&request("hi")).expect("an answer");
        idle = read("VmRSS:");
        let stream = client.messages().stream(&request("long"));
        let stream = stream.expect("a stream");
        if is_kept {
            let message = stream.final_message().expect("whole");
            length = message.content[0].as_text().map_or(0, str::len);
        } else {
            let mut stream = stream.without_content();
            let texts = stream.text_deltas();
            length = texts.map(|text| text.expect("text").len()).sum();
        }
    } else {
        let agent = floor::agent();
        floor::create(&agent, url, "hi");
        idle = read("VmRSS:");
        floor::stream(&agent, url, "long", take);
    }
    assert_eq!(length, 100_000_000);
    println!("{:.2}", read("VmHWM:") - idle);
    black_box(text);
}
