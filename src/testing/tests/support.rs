//! A client that knows no more of HTTP than these tests need.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::testing::TestServer;

#[track_caller]
pub(super) fn started() -> TestServer {
    TestServer::start().expect("a free port")
}

pub(super) fn post(body: &str) -> Vec<u8> {
    request("POST", "/v1/messages", body)
}

pub(super) fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nX-Api-Key: k\r\nanthropic-version: 2023-06-01\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(super) struct RawClient {
    pub(super) socket: TcpStream,
}

#[derive(Debug)]
pub(super) struct SocketResponse {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) chunks: usize,
}

impl SocketResponse {
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl RawClient {
    #[track_caller]
    pub(super) fn to(server: &TestServer) -> RawClient {
        let socket = TcpStream::connect(server.address()).expect("the server listens");
        socket
            .set_read_timeout(Some(TEST_TIMEOUT))
            .expect("a good duration");
        RawClient { socket }
    }

    #[track_caller]
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    #[track_caller]
    pub(super) fn send_and_read(&mut self, request: &[u8]) -> SocketResponse {
        self.send(request);
        let head = self.read_head();
        let mut response = SocketResponse {
            status: head[9..12].parse().expect("a status"),
            head,
            body: Vec::new(),
            chunks: 0,
        };
        let length = response.header("content-length").parse::<usize>().ok();
        if response.header("transfer-encoding") == "chunked" {
            loop {
                let line = self.read_to("\r\n");
                let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
                let mut chunk = vec![0; size + 2];
                self.socket.read_exact(&mut chunk).expect("a chunk");
                if size == 0 {
                    break;
                }
                response.chunks += 1;
                response.body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = length {
            response.body.resize(length, 0);
            self.socket
                .read_exact(&mut response.body)
                .expect("the whole body");
        } else if response.header("connection") == "close" {
            response.body = self.rest().0;
        }
        response
    }

    #[track_caller]
    pub(super) fn read_head(&mut self) -> String {
        self.read_to("\r\n\r\n")
    }

    #[track_caller]
    pub(super) fn read_to(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).expect("more bytes");
            text.push(byte[0]);
        }
        String::from_utf8(text).expect("ASCII")
    }

    /// Reads until the connection ends; returns the bytes, and the error that ended it.
    pub(super) fn rest(&mut self) -> (Vec<u8>, Option<ErrorKind>) {
        let mut bytes = Vec::new();
        let ended: io::Result<usize> = self.socket.read_to_end(&mut bytes);
        (bytes, ended.err().map(|error| error.kind()))
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.rest() == (Vec::new(), None)
    }
}

pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const PLAIN: &str = r#"{"model":"claude-opus-5","max_tokens":9,"messages":[{"role":"user","content":"Hi \"you\""}]}"#;
pub(super) const STREAMED: &str = r#"{"model":"claude-opus-5","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"stream": true}"#;
