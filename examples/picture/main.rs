//! Draws the picture in the README from a real run: the same prompts under the same rate limit, with
//! the retries of the official clients and with this client.
//!
//! ```text
//! cargo run --release --example picture -- examples/picture/limits.svg
//! ```
//!
//! Nothing leaves the machine: each side has its own test server, which limits the rate as the API
//! does. The run takes about four minutes in real time.

mod draw;
mod run;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use draw::Picture;
use run::{By, Outcome};

const HELP: &str = "\
Sends the same prompts with the retries of the official clients and with this client, each to its own
test server, which limits the rate as the API does, and draws what the servers granted and refused. A
table goes to standard error.

usage: picture [options] [FILE]

The picture goes to FILE as SVG, and as a link definition for the documentation to the same path with
the ending .md; without FILE, to standard output.

  --prompts N     number of prompts (800); the run takes about a quarter of a second for each
  --help
";

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("picture: {problem}; see --help");
            return ExitCode::from(2);
        }
    };
    let prompts = run::prompts(options.prompts);
    let contenders = [By::Retries(2), By::Retries(10), By::Client];
    let [naive, patient, client] = thread::scope(|scope| {
        let runs = contenders.map(|by| {
            let prompts = &prompts;
            scope.spawn(move || run::run_prompts(by, prompts))
        });
        runs.map(|run| run.join().expect("a run without a panic"))
    });

    eprintln!("{:<22} answered   lost   tokens lost   429s      time", "");
    for (by, outcome) in contenders.iter().zip([&naive, &patient, &client]) {
        let Outcome {
            answered,
            lost,
            refused,
            ..
        } = outcome;
        let (share, took) = (outcome.lost_tokens * 100.0, outcome.took.as_secs_f64());
        eprintln!("{by:<22} {answered:>8} {lost:>6} {share:>11.1} % {refused:>6} {took:>7.1} s");
    }

    let picture = Picture {
        naive: &naive,
        patient: &patient,
        client: &client,
        date: date(SystemTime::now()),
    };
    let svg = picture.svg();
    let Some(file) = options.file else {
        return match io::stdout().write_all(svg.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("picture: standard output: {error}");
                ExitCode::FAILURE
            }
        };
    };
    let beside = file.with_extension("md");
    let written = fs::write(&file, &svg).and_then(|()| fs::write(beside, definition(&svg)));
    if let Err(error) = written {
        eprintln!("picture: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Options {
    prompts: usize,
    file: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments; `None` for `--help`.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            prompts: 800,
            file: None,
        };
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--help" | "-h" => return Ok(None),
                "--prompts" => {
                    let value = arguments.next().and_then(|value| value.parse().ok());
                    let most = 10_000;
                    let value = value.filter(|value| (1..=most).contains(value));
                    options.prompts = value.ok_or("--prompts needs a number from 1 to 10000")?;
                }
                _ if argument.starts_with('-') => {
                    return Err(format!("there is no option {argument}"));
                }
                _ if options.file.is_some() => return Err("more than one file".into()),
                _ => options.file = Some(argument.into()),
            }
        }
        Ok(Some(options))
    }
}

/// Returns the picture as the target of `[limits]` in Markdown: a page of the documentation has no
/// files beside it.
fn definition(svg: &str) -> String {
    let codes = [
        ("%", "%25"),
        ("&", "%26"),
        ("#", "%23"),
        ("<", "%3C"),
        (">", "%3E"),
        ("\n", "%0A"),
    ];
    let svg = codes.iter().fold(svg.to_owned(), |svg, (plain, code)| {
        svg.replace(plain, code)
    });
    format!("[limits]: <data:image/svg+xml,{svg}>\n")
}

/// Returns the date in UTC, such as `2026-08-31`.
fn date(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let mut day = since.as_secs() / 86_400;
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}
