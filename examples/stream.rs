//! Prints a message as it arrives, and then its tokens.
//!
//! ```text
//! cargo run --example stream
//! cargo run --example stream -- "Tell me a story."
//! ```

mod support;

use std::io::{self, Write};
use std::time::Duration;

use anthropic_blocking::testing::{Reply, StreamScript, TestServer};
use anthropic_blocking::{MessageRequest, Result};

fn main() -> Result<()> {
    support::log_to_stderr();
    let mut arguments = support::arguments("[PROMPT]").into_iter();
    let prompt = arguments
        .next()
        .unwrap_or_else(|| "Tell me a very short story.".into());
    let request = MessageRequest::new("claude-haiku-4-5", 1024).user(prompt);

    let (client, _server) = support::client_or(|| {
        let server = TestServer::start()?;
        // The first stream breaks before its first words: the client retries it silently.
        server.push(Reply::stream(StreamScript::text("lost").cut_after(2)));
        let words = "Once there was a test server. It had little to say, and it said it slowly.";
        server.push(Reply::stream(StreamScript::text(words)).dribble(40, Duration::from_millis(8)));
        Ok(server)
    })?;

    let mut stream = client.messages().stream(&request)?;
    for text in stream.text_deltas() {
        print!("{}", text?);
        let _ = io::stdout().flush();
    }
    let message = stream.final_message()?;
    println!();
    eprintln!(
        "{} tokens in, {} out, stop reason: {}",
        message.usage.total_input_tokens(),
        message.usage.output_tokens,
        message
            .stop_reason
            .map_or("none".into(), |reason| reason.to_string()),
    );
    Ok(())
}
