//! Lists the models that a key may use, with the largest input and output of each.
//!
//! ```text
//! cargo run --example models
//! ```

mod support;

use std::io::{Write, stdout};

use anthropic_blocking::Result;
use anthropic_blocking::testing::TestServer;

fn main() -> Result<()> {
    support::log_to_stderr();
    let (client, _server) = support::client_or(TestServer::start)?;
    for model in client.models().list() {
        let model = model?;
        let written = writeln!(
            stdout(),
            "{:<28} {:<20} {:>9} tokens in, {:>7} out{}",
            model.id.as_str(),
            model.display_name,
            shown(model.max_input_tokens),
            shown(model.max_tokens),
            model
                .lifecycle
                .map(|lifecycle| format!(", {lifecycle}"))
                .unwrap_or_default(),
        );
        // The reader closed the pipe, as `head` does.
        if written.is_err() {
            break;
        }
    }
    Ok(())
}

fn shown(tokens: Option<u64>) -> String {
    tokens.map_or("?".to_owned(), |tokens| tokens.to_string())
}
