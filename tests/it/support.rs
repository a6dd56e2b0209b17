//! Helpers: a server, a client whose clock jumps over sleeps, requests, bounds.

pub mod child;
pub mod compare;
pub mod gate;
pub mod jobs;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anthropic_blocking::testing::{ManualClock, TestServer};
use anthropic_blocking::{
    Attempt, Client, ClientBuilder, Error, ErrorKind, Message, MessageRequest, Result,
};

/// The API key of every client here; no output may ever show it.
pub const KEY: &str = "sk-ant-api-0nobody-may-read-this";

/// The prompt of every request; neither the client's logs nor its errors may show it.
pub const PROMPT: &str = "the prompt that stays between us";

/// Time limit for what should end at once: only a hang takes longer.
pub const HANG: Duration = Duration::from_secs(60);

/// A server, a client of it, and the client's clock.
pub struct Lab {
    pub server: TestServer,
    pub clock: ManualClock,
    pub client: Client,
}

impl Lab {
    /// A client with every default, but for a clock that jumps over sleeps and a fixed seed.
    #[track_caller]
    pub fn new() -> Lab {
        Lab::with(|builder| builder)
    }

    /// Like [`Lab::new`], with more settings.
    #[track_caller]
    pub fn with(tune: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Lab {
        Lab::on(ManualClock::new(), tune)
    }

    /// Like [`Lab::with`], with the given clock.
    #[track_caller]
    pub fn on(clock: ManualClock, tune: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Lab {
        let server = server();
        let builder = builder(&server).clock(&clock);
        let client = tune(builder).build().expect("valid settings");
        Lab {
            server,
            clock,
            client,
        }
    }

    /// Sends the usual request.
    pub fn create(&self) -> Result<Message> {
        self.client.messages().create(&request())
    }

    /// Sends the usual request, which must fail.
    #[track_caller]
    pub fn create_error(&self) -> Error {
        match self.create() {
            Ok(message) => panic!("answered: {:?}", message.text()),
            Err(error) => error,
        }
    }
}

#[track_caller]
pub fn server() -> TestServer {
    TestServer::start().expect("a server on loopback")
}

/// A builder for a client of this server.
pub fn builder(server: &TestServer) -> ClientBuilder {
    builder_without_key(server).api_key(KEY)
}

/// Like [`builder`], without a credential.
pub fn builder_without_key(server: &TestServer) -> ClientBuilder {
    Client::builder().base_url(server.base_url()).seed(7)
}

pub fn request() -> MessageRequest {
    MessageRequest::new("claude-haiku-4-5", 256).user(PROMPT)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A listener on loopback, and its address.
#[track_caller]
pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Returns a port on which nobody listens any more.
#[track_caller]
pub fn closed_port() -> u16 {
    listener().1.port()
}

/// Returns the error kind of each attempt, `None` for a success.
pub fn failures(attempts: &[Attempt]) -> Vec<Option<ErrorKind>> {
    attempts.iter().map(|attempt| attempt.failure).collect()
}

/// Runs a closure in a thread and panics if it does not end, so that a hang fails the test.
#[track_caller]
pub fn ends<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(what()));
    match receiver.recv_timeout(HANG) {
        Ok(value) => value,
        Err(error) => panic!("it hangs, or panicked: {error}"),
    }
}

/// Whether a wait is as long as the server asked: never shorter, at most a tenth longer.
pub fn is_stretched(wait: Duration, asked: Duration) -> bool {
    wait >= asked && wait <= asked.mul_f64(1.1) + Duration::from_nanos(1)
}
