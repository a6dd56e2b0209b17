//! Sends many prompts from a file or a pipe, and prints the messages as lines of JSON. It may be
//! stopped at any time.
//!
//! ```text
//! cargo run --release --example bulk -- --help
//! cargo run --release --example bulk -- --journal done.jsonl prompts.txt > answers.jsonl
//! ```
//!
//! Without a key and without prompts it sends two dozen built-in prompts to a test server that limits
//! the rate as the API does; this takes some seconds.

mod support;

use std::io::{self, BufRead, BufReader, IsTerminal, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ServerLimits, TestServer};
use anthropic_blocking::{
    CacheControl, Client, ContentBlock, Error, ErrorKind, Message, MessageRequest, Progress, Result,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

const HELP: &str = "\
Sends many prompts to Claude, as fast as the rate limits allow, and writes a line of JSON for each:
{\"key\":…,\"message\":{…}} or {\"key\":…,\"error\":…}.

usage: bulk [options] [FILE]

FILE has one prompt a line. Standard input replaces it where that is a pipe, or FILE is -:
  {\"key\":\"a\",\"prompt\":\"Why?\"}       a prompt under a key
  {\"key\":\"b\",\"request\":{…}}         the body of a request, as the API takes it
  Why is the sky blue?               plain text

Without a key, the number of the line is the key.

  --journal PATH     keep the messages in this file, and request only those that it does not have
  --only-new         print no lines for messages that the journal has already
  --concurrency N    most requests at once; 1 or more (64)
  --model NAME       for prompts (claude-haiku-4-5)
  --max-tokens N     for prompts (1024)
  --system TEXT      for prompts; cached where it is long enough
  --spend-limit N    stop before the run could cost more than N dollars
  --help

Ctrl-C stops the run, and the journal stays whole; a second Ctrl-C stops it at once.
";

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("bulk: {problem}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bulk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::result::Result<ExitCode, Box<dyn std::error::Error>> {
    let (client, server) = support::client_or(test_server)?;
    let has_bad_lines = Arc::new(AtomicBool::new(false));
    let items = options.items(server.is_some(), &has_bad_lines)?;
    let bar = bar(items.size_hint())?;
    let on_bar = bar.clone();
    let mut bulk = client
        .bulk()
        .concurrency(options.concurrency)
        .replay(!options.only_new)
        .on_progress(move |progress| draw(&on_bar, progress));
    if let Some(path) = &options.journal {
        bulk = bulk.journal(path);
    }
    if let Some(dollars) = options.spend_limit {
        bulk = bulk.spend_limit(dollars);
    }
    let mut run = bulk.run(items)?;
    let interrupted = stop_on_ctrl_c(&client, run.stopper())?;
    let is_interrupted = || interrupted.load(Ordering::SeqCst);

    for (key, answer) in run.by_ref() {
        let is_not_run = |error: &Error| error.kind() == ErrorKind::NotRun;
        if is_interrupted() && answer.as_ref().is_err_and(is_not_run) {
            // Print no line for the remaining prompts; the program ends before all of them are read.
            continue;
        }
        if let Err(error) = bar.suspend(|| write(&mut stdout(), &key, answer)) {
            bar.finish_and_clear();
            // The reader closed the pipe, as `head` does.
            let is_enough = error.kind() == io::ErrorKind::BrokenPipe;
            return is_enough.then_some(ExitCode::SUCCESS).ok_or(error.into());
        }
    }
    let (progress, reason) = (run.progress(), run.stop_cause());
    drop(run);
    bar.finish_and_clear();
    sum_up(&progress);
    if let Some(reason) = reason.filter(|_| !is_interrupted()) {
        eprintln!("The run was stopped: {reason}.");
    }
    let is_failed = progress.failed > 0 || has_bad_lines.load(Ordering::SeqCst);
    Ok(match (is_interrupted(), is_failed) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Starts a server with 300 requests, 12,000 input and 1,500 output tokens a minute, whose buckets
/// store ten seconds.
fn test_server() -> io::Result<TestServer> {
    let server = TestServer::start()?;
    let limits = ServerLimits::per_minute(300, 12_000, 1_500)
        .depth(Duration::from_secs(10))
        .latency(Duration::from_millis(600), 0.3)
        .seed(1);
    server.limit(limits);
    Ok(server)
}

/// Stops the run at the first Ctrl-C, with half a second for the requests in flight. The second
/// Ctrl-C ends the program, as does a further half second.
fn stop_on_ctrl_c(
    client: &Client,
    stop: impl Fn() + Send + 'static,
) -> std::result::Result<Arc<AtomicBool>, ctrlc::Error> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, client) = (Arc::clone(&interrupted), client.clone());
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        stop();
        let client = client.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            client.shutdown();
            // A thread may still wait for input, or for a reader of its output. The journal is whole
            // at any time.
            thread::sleep(Duration::from_millis(400));
            std::process::exit(130);
        });
    })?;
    Ok(interrupted)
}

fn write(out: &mut impl Write, key: &str, answer: Result<Message>) -> io::Result<()> {
    let line = match answer {
        Ok(message) => json!({"key": key, "message": message}),
        Err(error) => json!({"key": key, "error": {
            "kind": error.kind().to_string(),
            "text": error.to_string(),
            "is_retryable": error.is_retryable(),
        }}),
    };
    writeln!(out, "{line}")?;
    out.flush()
}

/// Returns a progress bar on standard error, visible only on a terminal.
fn bar(
    (least, most): (usize, Option<usize>),
) -> std::result::Result<ProgressBar, Box<dyn std::error::Error>> {
    let (bar, template) = match most {
        Some(most) if most == least => (
            ProgressBar::new(most as u64),
            "{bar:30} {pos}/{len} in {elapsed} | {msg}",
        ),
        _ => (
            ProgressBar::no_length(),
            "{spinner} {pos} in {elapsed} | {msg}",
        ),
    };
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    let mut message = format!("{} in flight", progress.in_flight);
    if progress.failed > 0 {
        message += &format!(", {} failed", progress.failed);
    }
    if let Some(dollars) = progress.cost {
        message += &format!(" | ${dollars:.4}");
    }
    if let Some(remaining) = progress.remaining {
        message += &format!(" | {} left", format_time(remaining));
    }
    if let Some(cause) = progress.cause {
        message += &format!(" | {} waiting: {cause}", progress.waiting);
    }
    bar.set_message(message);
    bar.set_position(progress.finished());
}

fn sum_up(progress: &Progress) {
    let tokens = &progress.totals.all.tokens;
    let minutes = progress.elapsed.as_secs_f64() / 60.0;
    eprintln!(
        "{} answers, {} errors, {} from the journal in {}",
        progress.done,
        progress.failed,
        progress.skipped,
        format_time(progress.elapsed),
    );
    if minutes > 0.0 {
        eprintln!(
            "{:.0} messages, {:.0} tokens in and {:.0} out a minute",
            progress.done as f64 / minutes,
            tokens.total_input() as f64 / minutes,
            tokens.output as f64 / minutes,
        );
    }
    let cost = progress
        .cost
        .map(|dollars| format!(", about ${dollars:.4}"));
    eprintln!(
        "{} tokens in ({} of them from the cache), {} out{}; {} refused by limits, {} by overloads",
        tokens.total_input(),
        tokens.cache_read,
        tokens.output,
        cost.unwrap_or_default(),
        progress.totals.all.rate_limited,
        progress.totals.all.overloaded,
    );
    if !progress.totals.all.waited.is_empty() {
        eprintln!("All threads together waited:");
        for (cause, wait) in &progress.totals.all.waited {
            eprintln!("{:>9}  {cause}", format_time(wait));
        }
    }
}

fn format_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

type Items = Box<dyn Iterator<Item = (String, MessageRequest)> + Send>;

#[derive(Clone)]
struct Options {
    file: Option<String>,
    journal: Option<String>,
    only_new: bool,
    concurrency: usize,
    model: String,
    max_tokens: u64,
    system: Option<String>,
    spend_limit: Option<f64>,
}

impl Options {
    /// Reads the arguments; `None` for `--help`.
    fn read(
        arguments: impl Iterator<Item = String>,
    ) -> std::result::Result<Option<Options>, String> {
        let mut options = Options {
            file: None,
            journal: None,
            only_new: false,
            concurrency: 64,
            model: "claude-haiku-4-5".into(),
            max_tokens: 1024,
            system: None,
            spend_limit: None,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, given) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (&*argument, None),
            };
            let mut value = || {
                let value = given.clone().or_else(|| arguments.next());
                value.ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--help" | "-h" => return Ok(None),
                "--only-new" => options.only_new = true,
                "--journal" => options.journal = Some(value()?),
                "--concurrency" => match parse(name, &value()?)? {
                    0 => return Err("--concurrency must be at least 1".into()),
                    requests => options.concurrency = requests,
                },
                "--model" => options.model = value()?,
                "--max-tokens" => options.max_tokens = parse(name, &value()?)?,
                "--system" => options.system = Some(value()?),
                "--spend-limit" => options.spend_limit = Some(parse(name, &value()?)?),
                _ if argument.starts_with('-') && argument != "-" => {
                    return Err(format!("there is no option {name}"));
                }
                _ if options.file.is_some() => return Err("more than one file".into()),
                _ => options.file = Some(argument),
            }
        }
        Ok(Some(options))
    }

    /// Returns the requests. A file is read whole before anything is sent, and every line must be
    /// valid. A pipe is read as its lines are needed, and invalid lines are reported and skipped.
    fn items(&self, is_offline: bool, has_bad_lines: &Arc<AtomicBool>) -> io::Result<Items> {
        if let Some(path) = self.file.as_deref().filter(|path| *path != "-") {
            let explain = |error| invalid(format!("{path}: {error}"));
            let text = std::fs::read_to_string(path).map_err(explain)?;
            let items: std::result::Result<Vec<_>, String> = text
                .lines()
                .map(bare)
                .zip(1..)
                .filter(|(line, _)| !line.is_empty())
                .map(|(line, number)| self.item(number, line))
                .collect();
            return Ok(Box::new(
                items
                    .map_err(|problem| invalid(format!("{path}: {problem}")))?
                    .into_iter(),
            ));
        }
        if self.file.is_none() && stdin().is_terminal() && !is_offline {
            return Err(invalid(
                "no FILE, and nothing on standard input; see --help".into(),
            ));
        }
        let mut input = BufReader::new(stdin());
        if self.file.is_none()
            && is_offline
            && (stdin().is_terminal() || input.fill_buf()?.is_empty())
        {
            let options = self.clone();
            return Ok(Box::new(TOWNS.into_iter().map(move |town| {
                let prompt = format!("In one sentence: what is {town} known for?");
                (town.to_owned(), options.request(&prompt))
            })));
        }
        let (options, has_bad) = (self.clone(), Arc::clone(has_bad_lines));
        let mut is_over = false;
        let lines = input.lines().zip(1..).take_while(move |(line, _)| {
            let was_over = is_over;
            // Lines follow a line that is not UTF-8; any other error of reading is reported once.
            is_over = line
                .as_ref()
                .is_err_and(|error| error.kind() != io::ErrorKind::InvalidData);
            !was_over
        });
        let items = lines.filter_map(move |(line, number)| {
            let item = match line.as_deref().map(bare) {
                Ok("") => return None,
                Ok(line) => options.item(number, line),
                Err(error) => Err(format!("line {number}: {error}")),
            };
            item.inspect_err(|problem| {
                eprintln!("{problem}");
                has_bad.store(true, Ordering::SeqCst);
            })
            .ok()
        });
        Ok(Box::new(items))
    }

    fn item(
        &self,
        number: u64,
        line: &str,
    ) -> std::result::Result<(String, MessageRequest), String> {
        self.read_item(number, line)
            .map_err(|problem| format!("line {number}: {problem}"))
    }

    fn read_item(
        &self,
        number: u64,
        line: &str,
    ) -> std::result::Result<(String, MessageRequest), String> {
        if !line.starts_with('{') {
            return Ok((number.to_string(), self.request(line)));
        }
        let mut value: Value =
            serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
        let key = match value.get("key") {
            None => number.to_string(),
            Some(Value::String(key)) => key.clone(),
            Some(Value::Number(key)) => key.to_string(),
            Some(_) => return Err("the key is not a string".into()),
        };
        match (value["request"].take(), value["prompt"].take()) {
            (Value::Null, Value::String(prompt)) => Ok((key, self.request(&prompt))),
            (request @ Value::Object(_), Value::Null) => serde_json::from_value(request)
                .map(|request| (key, request))
                .map_err(|error| format!("not a request: {error}")),
            (Value::Null, Value::Null) => Err("neither a prompt nor a request".into()),
            (Value::Null, _) => Err("the prompt is not a string".into()),
            (_, Value::Null) => Err("the request is not an object".into()),
            _ => Err("both a prompt and a request".into()),
        }
    }

    fn request(&self, prompt: &str) -> MessageRequest {
        let request = MessageRequest::new(self.model.as_str(), self.max_tokens).user(prompt);
        match &self.system {
            Some(system) => {
                let system = ContentBlock::text(system).cached(CacheControl::ephemeral());
                request.system(vec![system])
            }
            None => request,
        }
    }
}

/// Returns a line without surrounding white space and without a byte order mark.
fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

fn parse<T: std::str::FromStr>(name: &str, value: &str) -> std::result::Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} cannot be {value:?}"))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

const TOWNS: [&str; 24] = [
    "Bergen", "Cusco", "Dakar", "Graz", "Hanoi", "Izmir", "Jena", "Kyoto", "Lima", "Malmö",
    "Nantes", "Oslo", "Pune", "Quito", "Riga", "Siena", "Turku", "Utrecht", "Vigo", "Windhoek",
    "Xalapa", "York", "Zadar", "Aarhus",
];
