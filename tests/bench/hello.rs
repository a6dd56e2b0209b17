//! The smallest program that sends a prompt, beside the same program with bare ureq: build, size, start
//! and memory.
//!
//! Both programs are separate crates in the folder for temporary files of the target directory, with the
//! versions of this crate's lock file and the release profile, stripped.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anthropic_blocking::testing::{Reply, TestServer};

use crate::measure::{Figure, Goal, Options, Row, in_turn, memory};

const GOAL: Goal = Goal::Ratio(1.2);

const BUILD: &str = "hello: cold release build";
const SIZE: &str = "hello: size, stripped";
const START: &str = "hello: start to first reply";
const RSS: &str = "hello: RSS after one request";
const CRATES: &str = "crates in the normal build";

pub fn run(options: &Options) {
    crates(options);
    if ![BUILD, SIZE, START, RSS]
        .iter()
        .any(|name| options.wants(name))
    {
        return;
    }
    match build(options) {
        Ok(programs) => {
            size(options, &programs);
            start(options, &programs);
        }
        Err(why) => [SIZE, START, RSS]
            .iter()
            .filter(|name| options.wants(name))
            .for_each(|name| options.left_out(name, &why)),
    }
}

/// Counts crates as `.ci/run` does.
fn crates(options: &Options) {
    if !options.wants(CRATES) {
        return;
    }
    let tree = cargo()
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(root())
        .output();
    let Some(tree) = tree.ok().filter(|tree| tree.status.success()) else {
        return options.left_out(CRATES, "cargo tree failed");
    };
    let text = String::from_utf8_lossy(&tree.stdout);
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut names: Vec<String> = text.lines().map(name).collect();
    names.sort();
    names.dedup();
    Figure {
        name: CRATES,
        unit: "crates",
        rounds: vec![names.len() as f64],
        goal: Goal::AtMost(36.0),
    }
    .print(options);
}

/// The two programs.
struct Programs {
    ours: PathBuf,
    floor: PathBuf,
}

/// Builds both programs from nothing and measures it; a quick run reuses earlier builds.
fn build(options: &Options) -> Result<Programs, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello");
    let floor = root().join("tests/bench/floor.rs");
    let (root, floor) = (root().display(), floor.display());
    let ours = Crate {
        folder: folder.join("ours"),
        dependencies: format!("anthropic-blocking = {{ path = {:?} }}", root.to_string()),
        program: OURS.to_owned(),
    };
    let floor = Crate {
        folder: folder.join("floor"),
        dependencies: FLOOR_DEPENDENCIES.to_owned(),
        program: FLOOR.replace("PATH", &floor.to_string()),
    };
    if options.quick {
        leave_out_build(options);
        if ![&ours, &floor].iter().all(|one| one.is_current()) {
            return Err("no programs of this source yet; cargo bench -- hello".to_owned());
        }
        return Ok(Programs {
            ours: ours.program(),
            floor: floor.program(),
        });
    }
    ours.write()
        .and_then(|()| floor.write())
        .map_err(|error| error.to_string())?;
    if !options.wants(BUILD) {
        ours.build()?;
        floor.build()?;
    } else {
        let (ours, floor) = (ours.build_cold(), floor.build_cold());
        let (ours, floor) = match (ours, floor) {
            (Ok(ours), Ok(floor)) => (ours, floor),
            (Err(why), _) | (_, Err(why)) => {
                options.left_out(BUILD, &why);
                return Err(why);
            }
        };
        for (part, ours, floor) in [("CPU", ours.0, floor.0), ("wall", ours.1, floor.1)] {
            Row {
                name: &format!("{BUILD}: {part}"),
                unit: "s",
                rounds: vec![(ours.as_secs_f64(), floor.as_secs_f64())],
                goal: GOAL,
            }
            .print(options);
        }
    }
    Ok(Programs {
        ours: ours.program(),
        floor: floor.program(),
    })
}

fn leave_out_build(options: &Options) {
    if options.wants(BUILD) {
        options.left_out(BUILD, "it takes minutes; cargo bench -- hello");
    }
}

fn size(options: &Options, programs: &Programs) {
    if !options.wants(SIZE) {
        return;
    }
    let size = |program| fs::metadata(program).map_or(f64::NAN, |data| data.len() as f64 / 1e6);
    Row {
        name: SIZE,
        unit: "MB",
        rounds: vec![(size(&programs.ours), size(&programs.floor))],
        goal: GOAL,
    }
    .print(options);
}

/// Measures the time from the start of the process until its reply arrives here.
fn start(options: &Options, programs: &Programs) {
    if !options.wants(START) && !options.wants(RSS) {
        return;
    }
    let server = TestServer::start().expect("a port");
    server.keep_requests(false);
    server.respond_with(|_| Reply::message("A short answer of some ten words or so."));
    let ours = || ask(&programs.ours, server.base_url());
    let floor = || ask(&programs.floor, server.base_url());
    ours();
    floor();
    let rounds = in_turn(options.rounds(101), ours, floor);
    let print = |name: &str, unit, part: fn(&Hello) -> f64| {
        let both = |(ours, floor): &(Hello, Hello)| (part(ours), part(floor));
        Row {
            name,
            unit,
            rounds: rounds.iter().map(both).collect(),
            goal: GOAL,
        }
        .print(options);
    };
    print(&format!("{START}: CPU"), "ms", |hello| hello.cpu);
    print(&format!("{START}: wall"), "ms", |hello| hello.wall);
    print(RSS, "MB", |hello| hello.rss);
}

/// The cost of a process until its first reply: milliseconds and MB.
struct Hello {
    cpu: f64,
    wall: f64,
    rss: f64,
}

fn ask(program: &Path, url: &str) -> Hello {
    let begun = Instant::now();
    let mut process = Command::new(program)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut reply = String::new();
    let output = process.stdout.take().expect("it is piped");
    let read = BufReader::new(output).read_line(&mut reply);
    let wall = begun.elapsed();
    assert!(read.is_ok() && reply.contains("ten words"), "{reply:?}");
    // The program waits for the end of its input.
    let id = process.id().to_string();
    let rss = memory(&id, "VmRSS:").unwrap_or(f64::NAN);
    let cpu = fs::read_to_string(format!("/proc/{id}/schedstat")).unwrap_or_default();
    let cpu = cpu
        .split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse::<f64>().ok());
    drop(process.stdin.take());
    process.wait().expect("it ends");
    Hello {
        cpu: cpu.unwrap_or(f64::NAN) / 1e6,
        wall: wall.as_secs_f64() * 1e3,
        rss,
    }
}

struct Crate {
    folder: PathBuf,
    dependencies: String,
    program: String,
}

impl Crate {
    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("src"))?;
        let Crate {
            dependencies,
            program,
            ..
        } = self;
        let manifest = format!("{MANIFEST}\n[dependencies]\n{dependencies}\n");
        write_new(&self.folder.join("Cargo.toml"), &manifest)?;
        write_new(&self.folder.join("src/main.rs"), program)?;
        fs::copy(root().join("Cargo.lock"), self.folder.join("Cargo.lock"))?;
        Ok(())
    }

    fn program(&self) -> PathBuf {
        let name = format!("hello{}", std::env::consts::EXE_SUFFIX);
        self.folder.join("target/release").join(name)
    }

    /// Whether the program exists and is newer than its sources.
    fn is_current(&self) -> bool {
        let sources = ["src", "Cargo.toml", "Cargo.lock", "tests/bench/floor.rs"];
        let newest = sources.map(|path| newest_below(&root().join(path)));
        let newest = newest.into_iter().flatten().max();
        let built = newest_below(&self.program());
        built.is_some() && built >= newest
    }

    /// Measures CPU time and wall time of a build from nothing.
    fn build_cold(&self) -> Result<(Duration, Duration), String> {
        let target = self.folder.join("target");
        if target.exists() {
            fs::remove_dir_all(target).map_err(|error| error.to_string())?;
        }
        let (cpu, wall) = (cpu_of_children(), Instant::now());
        self.build()?;
        Ok((cpu_of_children() - cpu, wall.elapsed()))
    }

    /// Builds offline, because a download is not part of a build.
    fn build(&self) -> Result<(), String> {
        let build = cargo()
            .args(["build", "--release", "--offline", "--target-dir", "target"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if build.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&build.stderr);
        let error = text.lines().find(|line| line.starts_with("error"));
        Err(error.unwrap_or("cargo build failed").to_owned())
    }
}

/// Writes a file unless it has this content already: cargo would build it again.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::File::create(path)?.write_all(text.as_bytes())
}

/// Returns when this file, or a file in this folder, was last changed.
fn newest_below(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        let entries = fs::read_dir(path).ok()?.flatten();
        return entries
            .filter_map(|entry| newest_below(&entry.path()))
            .max();
    }
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// Returns a cargo command without the variables that cargo set for this program: a build would take
/// them for a change.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        let name = name.to_string_lossy().into_owned();
        if set_by_cargo.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the CPU time of all child processes that this process has waited for, with their children.
fn cpu_of_children() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program may contain any character; the third field follows it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(13).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // Linux reports a hundred ticks a second to programs.
    Duration::from_millis(10 * ticks)
}

const MANIFEST: &str = r#"[package]
name = "hello"
version = "0.0.0"
edition = "2024"

[profile.release]
strip = true

[workspace]
"#;

const OURS: &str = r#"
use anthropic_blocking::{Client, MessageRequest};

fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let client = Client::builder().api_key("test").base_url(url).build().expect("settings");
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user("hi");
    println!("{}", client.messages().create(&request).expect("an answer").text());
    std::io::stdin().read_line(&mut String::new()).expect("an end");
}
"#;

/// The features of ureq are those that this crate uses.
const FLOOR_DEPENDENCIES: &str = r#"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
ureq = { version = "3.5.1", default-features = false, features = ["rustls", "socks-proxy"] }
"#;

const FLOOR: &str = r#"
#![allow(dead_code)]

#[path = "PATH"]
mod floor;

fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let agent = floor::agent();
    println!("{}", floor::create(&agent, &url, "hi"));
    std::io::stdin().read_line(&mut String::new()).expect("an end");
}
"#;
