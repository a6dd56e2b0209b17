//! The official Python and TypeScript clients call the test server: `tests/interop/` holds the
//! programs, this file the server's responses and the requests that must have arrived.
//!
//! ```sh
//! python3 -m venv /tmp/clients && /tmp/clients/bin/pip install "anthropic>=2,<3"
//! npm install --prefix /tmp/clients @anthropic-ai/sdk@1
//! ANTHROPIC_INTEROP_PYTHON=/tmp/clients/bin/python ANTHROPIC_INTEROP_NPM=/tmp/clients \
//!     cargo test --test it -- --ignored interop
//! ```
//!
//! `ANTHROPIC_INTEROP_PYTHON` and `ANTHROPIC_INTEROP_NODE` name the interpreters (`python3` and
//! `node`), `ANTHROPIC_INTEROP_NPM` the folder that holds `node_modules` (this crate's).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anthropic_blocking::testing::{BatchOutcome, RecordedRequest, Reply, StreamScript, TestServer};

#[test]
#[ignore = "needs Python with the package anthropic"]
fn official_python_client_passes() {
    let mut python = interpreter("PYTHON", "python3");
    python.arg(program("client.py"));
    run_client(python, "Anthropic/Python");
}

#[test]
#[ignore = "needs Node.js with the package @anthropic-ai/sdk"]
fn official_typescript_client_passes() {
    let modules = std::env::var_os("ANTHROPIC_INTEROP_NPM");
    let modules = modules.map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let mut node = interpreter("NODE", "node");
    // A module from standard input finds packages from the working directory.
    node.args(["--input-type=module", "-"]).current_dir(modules);
    node.stdin(File::open(program("client.mjs")).expect("the program"));
    run_client(node, "Anthropic/JS");
}

/// What each check must have sent: name, method, path, and number of requests.
const CHECKS: [(&str, &str, &str, usize); 15] = [
    ("create", "POST", MESSAGES, 1),
    ("stream_text", "POST", MESSAGES, 1),
    ("stream_blocks", "POST", MESSAGES, 1),
    ("stream_framing", "POST", MESSAGES, 1),
    ("stream_overloaded", "POST", MESSAGES, 1),
    ("count_tokens", "POST", "/v1/messages/count_tokens", 1),
    ("models", "GET", "/v1/models", 4),
    ("batches", "POST", "/v1/messages/batches", 15),
    ("overloaded", "POST", MESSAGES, 3),
    ("rate_limited", "POST", MESSAGES, 2),
    ("disconnected", "POST", MESSAGES, 2),
    ("given_up", "POST", MESSAGES, 2),
    ("bad_request", "POST", MESSAGES, 1),
    ("bad_key", "POST", MESSAGES, 1),
    ("not_found", "GET", "/v1/models/no-such-model", 1),
];

/// Returns the server's response to a request; all other requests get a canned response.
fn reply_to(request: &RecordedRequest) -> Reply {
    match (request.header("x-check"), retry_count(request)) {
        (Some("stream_blocks"), _) => Reply::stream(
            StreamScript::new()
                .message_start(12)
                .thinking("A town is meant.", "c2lnbmVk")
                .text_block(["Let ", "me ", "look."])
                .tool_use(
                    "toolu_1",
                    "weather",
                    ["{\"town\": \"Pa", "ris\", \"days\": [1, 2]}"],
                )
                .tool_use("toolu_2", "clock", [""])
                .finish(),
        ),
        (Some("stream_framing"), _) => Reply::stream(
            StreamScript::new()
                .comment("keep-alive")
                .message_start(9)
                .ping()
                .text_block(["one ", "two ", "three"])
                .unknown_event()
                .message_delta("max_tokens", 256)
                .message_stop()
                .crlf()
                .padded(),
        )
        .dribble(7, Duration::ZERO),
        (Some("stream_overloaded"), _) => {
            let script = StreamScript::text("three words come");
            Reply::stream(script.error_after(4, "overloaded_error", "Overloaded"))
        }
        (Some("overloaded"), 0 | 1) | (Some("given_up"), _) => Reply::overloaded(),
        (Some("rate_limited"), 0) => Reply::rate_limited(1),
        (Some("disconnected"), 0) => Reply::canned().reset_before_headers(),
        (Some("overloaded" | "rate_limited" | "disconnected"), _) => Reply::message("at last"),
        (Some("bad_key"), _) => Reply::error(401, "authentication_error", "invalid x-api-key"),
        _ => Reply::canned(),
    }
}

/// Runs the program against a server, and checks its output and the requests.
#[track_caller]
fn run_client(mut command: Command, user_agent: &str) {
    let server = TestServer::start().expect("a test server");
    server.respond_with(reply_to);
    server.batch_outcomes(|id| match id {
        "late" => BatchOutcome::Expired,
        _ => BatchOutcome::Canned,
    });
    command
        .env("ANTHROPIC_BASE_URL", server.base_url())
        .env("ANTHROPIC_API_KEY", "test-key");

    let (succeeded, output) = run(command);
    assert!(succeeded, "the program failed:\n{output}");

    let requests = server.take_requests();
    for (name, method, path, count) in CHECKS {
        let sent: Vec<_> = requests
            .iter()
            .filter(|request| request.header("x-check") == Some(name))
            .collect();
        assert_eq!(sent.len(), count, "requests of {name}\n{output}");
        let ok = format!("ok {name}");
        assert!(
            output.lines().any(|line| line == ok),
            "no {ok} in\n{output}"
        );
        assert_eq!((&*sent[0].method, &*sent[0].path), (method, path));
        for request in sent {
            check_headers(request, user_agent);
            let streams = name.starts_with("stream") || matches!(name, "rate_limited" | "bad_key");
            assert_eq!(
                request.json()["stream"] == true,
                streams,
                "stream in {name}"
            );
        }
    }
    let total: usize = CHECKS.iter().map(|check| check.3).sum();
    assert_eq!(requests.len(), total, "requests beside the checks");
    check_retries(&requests);
}

/// Checks that the retry counts went up and that each wait was as long as the server asked.
#[track_caller]
fn check_retries(requests: &[RecordedRequest]) {
    let of = |name| {
        let requests = requests.iter();
        requests.filter(move |request| request.header("x-check") == Some(name))
    };
    let counts: Vec<_> = of("overloaded").map(retry_count).collect();
    assert_eq!(counts, [0, 1, 2]);
    let times: Vec<_> = of("rate_limited").map(|request| request.arrived).collect();
    assert!(
        times[1] - times[0] >= Duration::from_secs(1),
        "retry-after: 1"
    );
}

#[track_caller]
fn check_headers(request: &RecordedRequest, user_agent: &str) {
    // These clients send the key as a bearer token, and the newer version.
    assert_eq!(request.header("authorization"), Some("Bearer test-key"));
    assert_eq!(request.header("anthropic-version"), Some("2026-10-21"));
    let agent = request.header("user-agent").unwrap_or_default();
    assert!(agent.contains(user_agent), "user-agent: {agent}");
    // A cancellation has no body.
    if request.method == "POST" && request.header("x-check") != Some("batches") {
        assert_eq!(request.header("content-type"), Some("application/json"));
        let content = &request.json()["messages"][0]["content"];
        let is_empty = request.header("x-check") == Some("bad_request");
        assert_eq!(content.as_str(), (!is_empty).then_some("Grüße, 世界"));
    }
}

/// Returns how many attempts preceded this request, as its header says.
fn retry_count(request: &RecordedRequest) -> u32 {
    let count = request.header("x-stainless-retry-count");
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// An interpreter without this machine's settings and without access to the network.
fn interpreter(name: &str, default: &str) -> Command {
    let path = std::env::var_os(format!("ANTHROPIC_INTEROP_{name}"));
    let mut command = Command::new(path.unwrap_or_else(|| default.into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_lowercase();
        if text.starts_with("anthropic_") || text.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
        .env("HTTP_PROXY", NOBODY)
        .env("HTTPS_PROXY", NOBODY)
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONIOENCODING", "utf-8")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

/// Runs a program for at most [`LONGEST`]; returns whether it succeeded, and its output.
#[track_caller]
fn run(mut command: Command) -> (bool, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(stdout.expect("it is piped")),
        Box::new(stderr.expect("it is piped")),
    ];
    let (send, receive) = mpsc::channel();
    for mut pipe in pipes {
        let send = send.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                let _ = send.send(chunk[..n].to_vec());
            }
        });
    }
    drop(send);
    let end = Instant::now() + LONGEST;
    let mut output = Vec::new();
    // Ends when both pipes are closed, or when the time is up.
    while let Ok(chunk) = receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
        output.extend(chunk);
    }
    let mut output = String::from_utf8_lossy(&output).into_owned();
    if Instant::now() >= end {
        child.kill().expect("a child to kill");
        output.push_str("(stopped, because it took too long)\n");
    }
    let status = child.wait().expect("a child to wait for");
    (status.success(), output)
}

const MESSAGES: &str = "/v1/messages";

/// A port on which nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

const LONGEST: Duration = Duration::from_secs(120);
