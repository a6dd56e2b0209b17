#![no_main]
//! A client asks a server that answers with the input, whatever that is: the call ends, and no error
//! shows the key. The first byte says what is asked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::ManualClock;
use anthropic_blocking::{Client, Error, MessageRequest, RetryPolicy};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "sk-ant-nobody-may-read-this";

/// Where the server is, and how it is told what to answer.
static SERVER: LazyLock<(u16, Mutex<Sender<Vec<u8>>>)> = LazyLock::new(|| {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let (answer, answers) = channel();
    thread::spawn(move || serve(&listener, &answers));
    (port, Mutex::new(answer))
});

/// Answers one connection after the other, each request with the same bytes.
fn serve(listener: &TcpListener, answers: &Receiver<Vec<u8>>) {
    let mut answer = Vec::new();
    for mut socket in listener.incoming().flatten() {
        answer = answers.try_iter().last().unwrap_or(answer);
        // Requests here are small: the first piece is all of one, or the rest does not matter.
        let _ = socket.read(&mut [0; 64 << 10]);
        let _ = socket.write_all(&answer);
        let _ = socket.shutdown(Shutdown::Write);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((what, answer)) = input.split_first() else {
        return;
    };
    let (port, answers) = &*SERVER;
    answers
        .lock()
        .expect("one thread")
        .send(answer.to_vec())
        .expect("it runs");
    let client = Client::builder()
        .api_key(KEY)
        .base_url(format!("http://127.0.0.1:{port}"))
        .retry(
            RetryPolicy::new()
                .max_attempts(2)
                .max_wait(Duration::from_secs(100)),
        )
        .clock(&ManualClock::new())
        .seed(7)
        .build()
        .expect("valid settings");
    let request = MessageRequest::new("claude-haiku-4-5", 256).user("Hi");
    let fine = match what % 8 {
        0 => client.messages().create(&request).map(drop),
        1 => client
            .messages()
            .stream(&request)
            .and_then(|stream| stream.final_message())
            .map(drop),
        2 => client.messages().stream(&request).map(|stream| {
            let mut stream = stream.without_content();
            stream
                .text_deltas()
                .for_each(|text| drop(text.map_err(look_at)));
        }),
        3 => client.messages().count_tokens(&request).map(drop),
        4 => client.batches().results("msgbatch_1").map(|results| {
            results
                .take(100)
                .for_each(|entry| drop(entry.map_err(look_at)));
        }),
        5 => client.batches().get("msgbatch_1").map(drop),
        6 => {
            let models = client.models().list().take(100);
            models.for_each(|model| drop(model.map_err(look_at)));
            Ok(())
        }
        _ => client.raw().get("/v1/files").map(drop),
    };
    let _ = fine.map_err(look_at);
    // What the answer said about limits must let the next call through as well, or refuse it.
    let _ = client.messages().create(&request).map_err(look_at);
    let _ = (client.totals(), client.budget().snapshot());
});

fn look_at(error: Error) {
    let texts = [error.to_string(), format!("{error:?}")];
    for text in texts {
        assert!(!text.contains(KEY), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.len() < 8000, "{} bytes of error", text.len());
    }
}
