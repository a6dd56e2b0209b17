//! Helpers: a server, a client with a clock that waits without waiting, requests, bounds.

pub mod child;
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

/// The key of every client here; nothing may ever show it.
pub const KEY: &str = "sk-ant-api-0nobody-may-read-this";

/// What every request asks; neither the client's logs nor its errors may show it.
pub const PROMPT: &str = "the prompt that stays between us";

/// How long something may take that takes no time: only a hang takes longer.
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

    /// The same, with more settings.
    #[track_caller]
    pub fn with(tune: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Lab {
        Lab::on(ManualClock::new(), tune)
    }

    /// The same, with a clock of its own.
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

    /// Asks the usual question.
    pub fn ask(&self) -> Result<Message> {
        self.client.messages().create(&request())
    }

    /// Asks the usual question, which must fail.
    #[track_caller]
    pub fn fail(&self) -> Error {
        match self.ask() {
            Ok(message) => panic!("answered: {:?}", message.text()),
            Err(error) => error,
        }
    }
}

#[track_caller]
pub fn server() -> TestServer {
    TestServer::start().expect("a server on loopback")
}

/// A client of this server, to be tuned and built.
pub fn builder(server: &TestServer) -> ClientBuilder {
    keyless(server).api_key(KEY)
}

/// The same without a credential.
pub fn keyless(server: &TestServer) -> ClientBuilder {
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

/// A port on which nobody listens any more.
#[track_caller]
pub fn closed_port() -> u16 {
    listener().1.port()
}

/// The kinds that the attempts failed with, `None` for success.
pub fn failures(attempts: &[Attempt]) -> Vec<Option<ErrorKind>> {
    attempts.iter().map(|attempt| attempt.failure).collect()
}

/// Runs this in a thread and panics when it does not end; a hang fails instead of hanging.
#[track_caller]
pub fn ends<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(what()));
    match receiver.recv_timeout(HANG) {
        Ok(value) => value,
        Err(error) => panic!("it hangs, or panicked: {error}"),
    }
}

/// Whether a wait that a server asked for was kept: never shorter, at most a tenth longer.
pub fn is_stretched(wait: Duration, asked: Duration) -> bool {
    wait >= asked && wait <= asked.mul_f64(1.1) + Duration::from_nanos(1)
}
