#![no_main]
//! The test server gets a connection's bytes, and serves the next one as before.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;

use anthropic_blocking::testing::TestServer;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| {
    let server = TestServer::start().expect("a server on loopback");
    server.keep_requests(false);
    server
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    ask(input);
    let answer =
        ask(b"GET /v1/models HTTP/1.1\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
});

/// Sends all of it, and gives what the server answers until it closes.
fn ask(bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(SERVER.address()).expect("the server listens");
    let mut answer = Vec::new();
    // It may close before it has read all of it.
    let sent = socket
        .write_all(bytes)
        .and_then(|()| socket.shutdown(Shutdown::Write));
    let _ = sent.and_then(|()| socket.read_to_end(&mut answer));
    answer
}
