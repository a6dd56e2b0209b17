//! The floors: the same work with bare ureq and a minimal use of serde. Also part of a program, see
//! `hello.rs`.

use std::io::{BufRead, BufReader};

use serde::{Deserialize, Serialize};

/// Returns an agent that keeps as many connections as eight threads use.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().max_idle_connections_per_host(8);
    config.build().new_agent()
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u64,
    messages: [Turn<'a>; 1],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'a str,
    content: &'a str,
}

#[derive(Deserialize)]
struct Message {
    content: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    text: String,
}

/// Sends a prompt and returns the text of the message.
pub fn create(agent: &ureq::Agent, url: &str, prompt: &str) -> String {
    let mut body = send(agent, url, prompt, false);
    let bytes = body.read_to_vec().expect("a body");
    let message: Message = serde_json::from_slice(&bytes).expect("a message");
    message
        .content
        .into_iter()
        .map(|block| block.text)
        .collect()
}

/// The events that the floor reads, as a tagged enum of serde.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    ContentBlockDelta {
        delta: Delta,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Delta {
    TextDelta {
        text: String,
    },
    #[serde(other)]
    Other,
}

/// Sends a prompt and reads the stream line by line, parsing each `data`.
pub fn stream(agent: &ureq::Agent, url: &str, prompt: &str, mut take: impl FnMut(&str)) {
    let body = send(agent, url, prompt, true);
    for line in BufReader::new(body.into_reader()).lines() {
        let line = line.expect("a line");
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let event: Event = serde_json::from_str(data).expect("an event");
        if let Event::ContentBlockDelta {
            delta: Delta::TextDelta { text },
        } = event
        {
            take(&text);
        }
    }
}

fn send(agent: &ureq::Agent, url: &str, prompt: &str, stream: bool) -> ureq::Body {
    let messages = [Turn {
        role: "user",
        content: prompt,
    }];
    let request = Request {
        model: "claude-haiku-4-5",
        max_tokens: 1024,
        messages,
        stream,
    };
    let body = serde_json::to_vec(&request).expect("JSON");
    agent
        .post(format!("{url}/v1/messages"))
        .header("x-api-key", "test")
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .send(&body[..])
        .expect("an answer")
        .into_body()
}
