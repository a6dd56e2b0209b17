//! Sends one prompt, prints the message, and shows what the client waits for on the way.
//!
//! With a key in `ANTHROPIC_API_KEY` it calls the real API. Without a key it starts a test server
//! that is overloaded once and limits the rate once:
//!
//! ```text
//! cargo run --example hello
//! cargo run --example hello -- "Why is the sky blue?"
//! ```

mod support;

use anthropic_blocking::testing::{Reply, TestServer};
use anthropic_blocking::{MessageRequest, Result};

fn main() -> Result<()> {
    support::log_to_stderr();
    let mut arguments = support::arguments("[PROMPT]").into_iter();
    let prompt = arguments
        .next()
        .unwrap_or_else(|| "Say hello in one sentence.".into());
    let request = MessageRequest::new("claude-haiku-4-5", 256).user(prompt);

    let (client, _server) = support::client_or(|| {
        let server = TestServer::start()?;
        server.push(Reply::overloaded());
        server.push(Reply::rate_limited(2));
        server.push(Reply::message(
            "Hello! This reply comes from the test server.",
        ));
        Ok(server)
    })?;

    let message = client.messages().create(&request)?;
    println!("{}", message.text());
    eprintln!(
        "{} attempts; {} tokens in, {} out",
        message.attempts().len(),
        message.usage.total_input_tokens(),
        message.usage.output_tokens,
    );
    Ok(())
}
