//! Sends prompts about many towns as a batch, at half the price.
//!
//! With a key in `ANTHROPIC_API_KEY` it calls the real API, which takes from a minute to a day. Stop
//! the program and start it again at any time: it continues with the same batch. Without a key it
//! starts a test server, where batches take no time:
//!
//! ```text
//! cargo run --example batch
//! cargo run --example batch -- Lima Oslo Pune
//! ```

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use anthropic_blocking::testing::{BatchOutcome, TestServer};
use anthropic_blocking::{MessageRequest, Result};

fn main() -> Result<()> {
    support::log_to_stderr();
    let mut towns = support::arguments("[TOWN …]");
    if towns.is_empty() {
        towns = ["Bergen", "Cusco", "Dakar", "Graz", "Hanoi"]
            .map(String::from)
            .into();
    }

    let (client, server) = support::client_or(|| {
        let server = TestServer::start()?;
        // The first request expires, and is submitted again.
        let has_expired = AtomicBool::new(false);
        server.batch_outcomes(move |_| match has_expired.swap(true, Ordering::Relaxed) {
            false => BatchOutcome::Expired,
            true => BatchOutcome::Message("Fish, rain, hills and old wood.".into()),
        });
        server.batch_polls(0);
        Ok(server)
    })?;

    let entries = towns.iter().enumerate().map(|(index, town)| {
        let prompt = format!("In five words: what is {town} known for?");
        let request = MessageRequest::new("claude-haiku-4-5", 64).user(prompt);
        (format!("towns-{index}"), request)
    });
    let mut batches = client.batches().resubmit(1).on_progress(|progress| {
        let (batch, waited) = (progress.batch, progress.waited.as_secs());
        eprintln!("{}: {} after {waited} s", batch.id, batch.processing_status);
    });
    if server.is_none() {
        batches = batches.journal("towns.journal");
    }
    for (town, entry) in towns.iter().zip(batches.run(entries)?) {
        match entry?.into_message() {
            Ok(message) => println!("{town}: {}", message.text()),
            Err(error) => eprintln!("{town}: {error}"),
        }
    }
    Ok(())
}
