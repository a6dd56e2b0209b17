//! Runs eight threads under tight limits, and prints once a second what is used, what is left, how
//! many requests wait and for what.
//!
//! ```text
//! cargo run --example limits
//! ```
//!
//! Without a key a test server limits the rate as the API does; the run takes about twenty seconds.
//! With a key the example sends thirty small requests to the real API.

mod support;

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ServerLimits, TestServer};
use anthropic_blocking::{Budget, DimensionSnapshot, MessageRequest, Result};

const REQUESTS: usize = 30;

fn main() -> Result<()> {
    let (client, _server) = support::client_or(|| {
        let server = TestServer::start()?;
        // 300 requests, 12,000 input and 4,500 output tokens a minute; a bucket stores ten seconds.
        let limits = ServerLimits::per_minute(300, 12_000, 4_500)
            .depth(Duration::from_secs(10))
            .latency(Duration::from_millis(800), 0.3)
            .seed(1);
        server.limit(limits);
        Ok(server)
    })?;

    let request = |number: usize| {
        let prompt = format!("Name a river and a town on it. [cost input=150 output=50] {number}");
        MessageRequest::new("claude-haiku-4-5", 200).user(prompt)
    };
    let (next, (done, table)) = (AtomicUsize::new(0), channel::<()>());
    thread::scope(|scope| {
        for _ in 0..8 {
            let (client, next, done) = (&client, &next, done.clone());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        break;
                    }
                    if let Err(error) = client.messages().create(&request(number)) {
                        eprintln!("{number}: {error}");
                    }
                }
                drop(done);
            });
        }
        drop(done);
        // Once a second, until the last thread has dropped its end of the channel.
        while table.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            show(client.budget());
        }
    });

    let totals = client.totals().all;
    println!(
        "{} messages, {} refused by limits, {} tokens in, {} out",
        totals.calls - totals.failed,
        totals.rate_limited,
        totals.tokens.input,
        totals.tokens.output,
    );
    println!("All threads together waited:");
    for (cause, wait) in &totals.waited {
        println!("{:>8.1} s  {cause}", wait.as_secs_f64());
    }
    Ok(())
}

/// Prints one line for each class; on a terminal over the previous lines.
fn show(budget: &Budget) {
    let classes = budget.snapshot();
    for class in &classes {
        let cause = class.cause.map(|cause| cause.to_string());
        eprintln!(
            "{} | {} | {} | {} | {} in flight, {} waiting{}",
            class.class,
            shown("requests", &class.requests),
            shown("in", &class.input_tokens),
            shown("out", &class.output_tokens),
            class.in_flight,
            class.waiting,
            cause.map(|cause| format!(": {cause}")).unwrap_or_default(),
        );
    }
    if stderr().is_terminal() {
        eprint!("\x1b[{}A\x1b[J", classes.len());
    }
}

/// Formats the use in the last minute, and the estimate of what is left at the server.
fn shown(name: &str, dimension: &DimensionSnapshot) -> String {
    let left = match (dimension.server_remaining, dimension.server_limit) {
        (Some(left), Some(limit)) => format!("{left} left of {limit}"),
        _ => "limit unknown".into(),
    };
    format!("{name} {} used, {left}", dimension.used)
}
