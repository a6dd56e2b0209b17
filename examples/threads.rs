//! Shares one client, without cloning it, among eight threads that print one line each.
//!
//! ```text
//! cargo run --example threads
//! ```

mod support;

use std::thread;

use anthropic_blocking::testing::{Reply, TestServer};
use anthropic_blocking::{MessageRequest, Result};

fn main() -> Result<()> {
    support::log_to_stderr();
    let (client, _server) = support::client_or(|| {
        let server = TestServer::start()?;
        server.push(Reply::rate_limited(1));
        Ok(server)
    })?;

    let towns = [
        "Bergen", "Cusco", "Dakar", "Graz", "Hanoi", "Izmir", "Kyoto", "Lagos",
    ];
    thread::scope(|scope| {
        for town in towns {
            let client = &client;
            scope.spawn(move || {
                let prompt = format!("In five words: what is {town} known for?");
                let request = MessageRequest::new("claude-haiku-4-5", 64).user(prompt);
                match client.messages().create(&request) {
                    Ok(message) => println!("{town}: {}", message.text()),
                    Err(error) => eprintln!("{town}: {error}"),
                }
            });
        }
    });
    let totals = client.totals().all;
    eprintln!(
        "{} calls, {} attempts; all threads together waited {:.1} s",
        totals.calls,
        totals.attempts,
        totals.waited.total().as_secs_f64(),
    );
    Ok(())
}
