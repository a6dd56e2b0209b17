//! Leads a conversation on the terminal, prints messages as they arrive, and lets the model roll dice.
//!
//! ```text
//! cargo run --example chat
//! printf 'hello\nroll two dice\n/quit\n' | cargo run --example chat
//! ```

mod support;

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anthropic_blocking::testing::{RecordedRequest, Reply, StreamScript, TestServer};
use anthropic_blocking::{
    Client, ContentBlock, MessageParam, MessageRequest, Result, StopReason, Tool, ToolUseBlock,
};
use serde_json::json;

const HELP: &str = "usage: chat [MODEL]

Talks to the model (claude-haiku-4-5 if none is named), which can roll dice.
/quit or the end of the input ends the conversation.";

fn main() -> Result<()> {
    let model = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "claude-haiku-4-5".into());
    if model.starts_with('-') {
        println!("{HELP}");
        return Ok(());
    }
    support::log_to_stderr();
    let (client, _server) = support::client_or(scripted_server)?;
    let dice = Tool::new(
        "roll_dice",
        json!({
            "type": "object",
            "properties": {
                "count": {"type": "integer", "description": "how many dice, 1 to 100"},
                "sides": {"type": "integer", "description": "how many sides each has, 2 to 1000"},
            },
            "required": ["count", "sides"],
        }),
    )
    .description("Rolls dice and gives the number that each shows");
    let mut request = MessageRequest::new(model, 4096).tool(dice);

    let is_terminal = io::stdin().is_terminal();
    prompt();
    for line in io::stdin().lock().split(b'\n') {
        let Ok(line) = line.inspect_err(|error| eprintln!("standard input: {error}")) else {
            break;
        };
        let line = String::from_utf8_lossy(&line);
        if !is_terminal {
            println!("{}", line.trim_end());
        }
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            text => take_turn(&client, &mut request, text),
        }
        prompt();
    }
    println!();
    Ok(())
}

/// Sends `text` and prints the message. A failed turn is removed from the history.
fn take_turn(client: &Client, request: &mut MessageRequest, text: &str) {
    let turns_before = request.messages.len();
    request.push(MessageParam::user(text));
    let problem = match answer(client, request) {
        Ok(Some(StopReason::Refusal)) => "the model declined to answer".to_owned(),
        Ok(Some(StopReason::MaxTokens)) => return eprintln!("[cut off here: max_tokens]"),
        Ok(_) => return,
        Err(error) => error.to_string(),
    };
    request.messages.truncate(turns_before);
    eprintln!(
        "\n{problem}\n[this turn is removed from the history: try again, or say something else]"
    );
}

/// Prints messages and runs the tools that they call, until a message calls none; returns the stop
/// reason of the last message.
fn answer(client: &Client, request: &mut MessageRequest) -> Result<Option<StopReason>> {
    loop {
        let mut stream = client.messages().stream(request)?;
        for text in stream.text_deltas() {
            print!("{}", text?);
            let _ = io::stdout().flush();
        }
        let message = stream.final_message()?;
        if !message.text().is_empty() {
            println!();
        }
        // Append the message, so that the model sees its own text and calls.
        request.push(&message);
        // Each call must have a result in the next turn.
        let results: Vec<ContentBlock> = message.tool_uses().map(run_tool).collect();
        if results.is_empty() {
            return Ok(message.stop_reason);
        }
        request.push(MessageParam::user(results));
    }
}

/// Runs one tool call. An error goes back to the model, which usually calls again.
fn run_tool(call: &ToolUseBlock) -> ContentBlock {
    let count = call.input["count"].as_u64();
    let sides = call.input["sides"].as_u64();
    match (&*call.name, count, sides) {
        ("roll_dice", Some(count @ 1..=100), Some(sides @ 2..=1000)) => {
            let rolls: Vec<String> = (0..count)
                .map(|_| fastrand::u64(1..=sides).to_string())
                .collect();
            let rolls = rolls.join(" ");
            println!("[rolled {count}d{sides}: {rolls}]");
            call.result(rolls)
        }
        ("roll_dice", ..) => call.error("1 to 100 dice of 2 to 1000 sides"),
        _ => call.error("there is no such tool"),
    }
}

fn prompt() {
    print!("> ");
    let _ = io::stdout().flush();
}

/// Starts a test server that repeats what it is told, and is overloaded at the second request.
fn scripted_server() -> io::Result<TestServer> {
    let server = TestServer::start()?;
    let requests = AtomicUsize::new(0);
    server.respond_with(
        move |request| match requests.fetch_add(1, Ordering::Relaxed) {
            1 => Reply::overloaded(),
            n => Reply::stream(scripted_answer(request, n)).dribble(40, Duration::from_millis(4)),
        },
    );
    Ok(server)
}

fn scripted_answer(request: &RecordedRequest, n: usize) -> StreamScript {
    let mut request = request.json();
    let turns = request["messages"].as_array_mut();
    let last = turns.and_then(Vec::pop).unwrap_or_default();
    match last["content"].as_str() {
        Some(text) if text.contains("dice") => StreamScript::new()
            .message_start(100)
            .text_block(["Let ", "me ", "roll ", "two."])
            .tool_use(
                &format!("toolu_{n}"),
                "roll_dice",
                [r#"{"count":2,"#, r#""sides":6}"#],
            )
            .finish(),
        Some(text) => StreamScript::text(&format!(
            "You said {text:?}. I only repeat things, but ask me for dice and I roll them."
        )),
        None => {
            let rolled = last["content"][0]["content"].as_str().unwrap_or("nothing");
            StreamScript::text(&format!("The dice show {rolled}."))
        }
    }
}
