//! The calls that the bench compares, and a mode that runs only one of them, for instruction counters.
//!
//! Instructions of the kernel are not counted. Both sides have the same of them, so the ratios are larger
//! than those of the CPU time. Instruction counts distinguish two builds where times cannot.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;

use anthropic_blocking::testing::{Reply, StreamScript, TestServer};
use anthropic_blocking::{Client, MessageRequest};

use crate::floor;
use crate::measure::{Goal, Options, Row};

/// One kind of call, as this client makes it and as bare ureq does.
pub struct Case {
    /// The name for `--only`.
    pub name: &'static str,
    pub title: &'static str,
    /// Bytes of the prompt.
    size: usize,
    ours: Ours,
    /// Calls of a round.
    pub round: usize,
    /// The goal: the highest ratio to the floor.
    pub goal: f64,
}

#[derive(Clone, Copy)]
enum Ours {
    Plain,
    Streamed,
    /// A stream with this number of deltas, to its final message.
    Deltas(usize),
}

pub const CASES: [Case; 5] = [
    Case {
        name: "create-1k",
        title: "create, plain, prompt of 1 kB",
        size: 1_000,
        ours: Ours::Plain,
        round: 100,
        goal: 1.10,
    },
    Case {
        name: "streamed-1k",
        title: "create, streamed underneath, prompt of 1 kB",
        size: 1_000,
        ours: Ours::Streamed,
        round: 100,
        goal: 1.40,
    },
    Case {
        name: "create-1m",
        title: "create, plain, prompt of 1 MB",
        size: 1_000_000,
        ours: Ours::Plain,
        round: 8,
        goal: 1.10,
    },
    Case {
        name: "streamed-1m",
        title: "create, streamed underneath, prompt of 1 MB",
        size: 1_000_000,
        ours: Ours::Streamed,
        round: 8,
        goal: 1.40,
    },
    Case {
        name: "deltas-10k",
        title: "stream of 10,000 deltas to a final message",
        size: 10,
        ours: Ours::Deltas(10_000),
        round: 1,
        goal: 0.85,
    },
];

impl Case {
    pub fn is_create(&self) -> bool {
        !matches!(self.ours, Ours::Deltas(_))
    }

    /// Starts a server for such calls.
    pub fn server(&self) -> TestServer {
        let server = TestServer::start().expect("a port");
        server.keep_requests(false);
        let reply = match self.ours {
            Ours::Deltas(count) => Reply::stream(
                StreamScript::new()
                    .message_start(10)
                    .deltas(count, 40)
                    .finish(),
            ),
            _ => Reply::message("A short answer of some ten words or so."),
        };
        server.respond_with(move |_| reply.clone());
        server
    }

    /// Returns this client's call.
    pub fn ours(&self, url: &str) -> Box<dyn Fn() + Sync> {
        let request = MessageRequest::new("claude-haiku-4-5", 1024).user(self.prompt());
        let is_plain = matches!(self.ours, Ours::Plain);
        let client = client(url, !is_plain);
        match self.ours {
            Ours::Deltas(_) => Box::new(move || {
                let stream = client.messages().stream(&request).expect("a stream");
                black_box(stream.final_message().expect("whole"));
            }),
            _ => Box::new(move || {
                black_box(client.messages().create(&request).expect("an answer"));
            }),
        }
    }

    /// Returns the call with bare ureq; the floor of a streamed `create` is the plain call.
    pub fn floor(&self, url: &str) -> Box<dyn Fn() + Sync> {
        let (prompt, url, agent) = (self.prompt(), url.to_owned(), floor::agent());
        match self.ours {
            Ours::Deltas(_) => Box::new(move || {
                let mut text = String::new();
                floor::stream(&agent, &url, &prompt, |more| text.push_str(more));
                black_box(text);
            }),
            _ => Box::new(move || {
                black_box(floor::create(&agent, &url, &prompt));
            }),
        }
    }

    fn prompt(&self) -> String {
        "word ".repeat(self.size / 5)
    }
}

pub fn client(url: &str, streamed: bool) -> Client {
    let builder = Client::builder().api_key("test").base_url(url);
    let builder = builder.stream_underneath(streamed);
    builder.build().expect("valid settings")
}

/// Measures instructions per call with valgrind: the same in every run, also on a loaded machine.
pub fn run(options: &Options) {
    for case in &CASES {
        let name = format!("instructions: {}", case.title);
        // Valgrind is fifty times as slow.
        let is_long = !case.is_create() || case.size > 1_000;
        if !options.wants(&name) || (options.quick && is_long) {
            continue;
        }
        let few = case.round.div_ceil(4);
        let per_call = |side| {
            let more = instructions(case, side, 3 * few)? - instructions(case, side, few)?;
            Some(more / (2 * few) as f64 / 1e3)
        };
        let (ours, floor) = thread::scope(|scope| {
            let floor = scope.spawn(|| per_call("floor"));
            (per_call("ours"), floor.join().expect("no panic"))
        });
        let (Some(ours), Some(floor)) = (ours, floor) else {
            options.left_out(&name, "valgrind is not on this machine");
            continue;
        };
        Row {
            name: &name,
            unit: "k/call",
            rounds: vec![(ours, floor)],
            goal: Goal::None,
        }
        .print(options);
    }
}

/// Returns the instructions of a process that makes `calls` calls, start included.
fn instructions(case: &Case, side: &str, calls: usize) -> Option<f64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["--only", case.name, "--side", side])
        .args(["--calls", &calls.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&run.stderr);
    let (_, count) = text.split_once("Collected : ")?;
    count.split_whitespace().next()?.parse().ok()
}

/// Makes calls of one side only, against a server in another process.
pub fn only(arguments: &[String]) {
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let case = find(value("--only").unwrap_or_default());
    let calls = value("--calls").and_then(|calls| calls.parse().ok());
    let calls: usize = calls.expect("--calls needs a number");
    let server = Served::start(case);
    let call = match value("--side").unwrap_or("ours") {
        "ours" => case.ours(&server.url),
        "floor" => case.floor(&server.url),
        other => panic!("--side is ours or floor, not {other}"),
    };
    for _ in 0..calls {
        call();
    }
}

fn find(name: &str) -> &'static Case {
    let found = CASES.iter().find(|case| case.name == name);
    found.unwrap_or_else(|| {
        let names = CASES.map(|case| case.name).join(", ");
        panic!("--only is one of {names}, not {name:?}")
    })
}

/// A server in a child process, which ends with this process.
struct Served {
    process: Child,
    url: String,
}

impl Served {
    fn start(case: &Case) -> Served {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--child-serve", case.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        let read = BufReader::new(output).read_line(&mut url);
        read.expect("the address of the server");
        url.truncate(url.trim_end().len());
        Served { process, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The child process of [`Served`]: serves until its input is closed.
pub fn serve(name: &str) {
    let server = find(name).server();
    println!("{}", server.base_url());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
