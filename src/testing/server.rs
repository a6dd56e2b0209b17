//! The test server: its settings, its record of requests and its connections.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::batches::{self, BatchOutcome, BatchStore};
use super::canned;
use super::limits::{Ledger, ServerLimiter, ServerLimits};
use super::queues::ReplyQueues;
use super::recorded::RecordedRequest;
use super::reply::{Reply, ReplyContent};
use super::sync::{StopSignal, lock};
use super::wire::{AfterReply, ReadFailure, RequestContext, RequestHead, RequestReader, deliver};

/// A loopback HTTP/1.1 server that stands in for the API in tests.
///
/// It listens on a free port of `127.0.0.1`, serves scripted [`Reply`] values with all the faults
/// of a real network, and records the requests. A request for which no reply is scripted gets a
/// canned response like the API's: messages echo the last text of the user, as JSON or as a stream;
/// batches end after some polls ([`batch_polls`](TestServer::batch_polls)), with such a message for
/// each of their requests; faulty requests get the API's errors.
///
/// A request takes its reply from the first of these that has one: the queue for its method and
/// path ([`on`](TestServer::on)), the general queue ([`push`](TestServer::push)), the function
/// ([`respond_with`](TestServer::respond_with)), the canned responses. With
/// [`limit`](TestServer::limit), the canned messages are subject to rate limits.
///
/// If a function given to the server panics, for example in an assertion, the request gets a 500
/// that quotes the panic and is not retried.
///
/// All methods take `&self` and can be called from any thread. Dropping the server stops it.
///
/// ```
/// use anthropic_blocking::testing::{Reply, TestServer};
/// use anthropic_blocking::{Client, MessageRequest};
///
/// let server = TestServer::start()?;
/// server.push(Reply::message("Seven."));
/// let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
///
/// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Three and four?");
/// assert_eq!(client.messages().create(&request)?.text(), "Seven.");
/// assert_eq!(server.requests()[0].json()["max_tokens"], 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TestServer {
    shared: Arc<ServerShared>,
    address: SocketAddr,
    base_url: String,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl TestServer {
    /// Starts a server on a free port.
    ///
    /// # Errors
    ///
    /// Fails if the operating system refuses a loopback socket or a thread.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(ServerShared::new());
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("test-server".to_owned())
            .spawn(move || accept(&listener, &for_thread))?;
        Ok(TestServer {
            shared,
            address,
            base_url: format!("http://{address}"),
            acceptor: Mutex::new(Some(acceptor)),
        })
    }

    /// Returns the URL of the server, such as `http://127.0.0.1:34567`, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns the address and port on which the server listens, for tests with bare sockets.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a reply to the general queue. It is used for one request, whatever the request is.
    pub fn push(&self, reply: Reply) {
        self.shared.records().queues.push(reply);
    }

    /// Adds several replies to the general queue, in order.
    pub fn push_all(&self, replies: impl IntoIterator<Item = Reply>) {
        // The iterator is the caller's code, which must not run under the lock.
        let replies: Vec<Reply> = replies.into_iter().collect();
        let mut records = self.shared.records();
        for reply in replies {
            records.queues.push(reply);
        }
    }

    /// Adds a reply to the queue for this method and path (without query).
    ///
    /// It is used for one request, and goes before the general queue.
    ///
    /// # Panics
    ///
    /// Panics if no request can have the path: it does not begin with a slash, or has a query.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::start()?;
    /// let gone = Reply::error(404, "not_found_error", "no such model");
    /// server.on("GET", "/v1/models/claude-1", gone);
    /// assert_eq!(server.unused_replies(), 1);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn on(&self, method: &str, path: &str, reply: Reply) {
        let is_path = path.starts_with('/') && !path.contains('?');
        assert!(is_path, "no request has the path {path:?}");
        self.shared.records().queues.push_for(method, path, reply);
    }

    /// Sets the function that makes the reply when no queue has one, instead of an earlier
    /// function.
    ///
    /// The thread of the connection calls the function, so several calls can run at once, and
    /// stopping the server waits until they return.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let server = TestServer::start()?;
    /// server.respond_with(|request| match request.path.as_str() {
    ///     "/v1/messages" => Reply::message(format!("{} bytes", request.body.len())),
    ///     _ => Reply::canned(),
    /// });
    /// let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// assert!(client.messages().create(&request)?.text().ends_with(" bytes"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_with(&self, reply: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        self.shared.records().reply_function = Some(Arc::new(reply));
    }

    /// Subjects the canned responses of `POST /v1/messages` to these limits, from now on.
    ///
    /// The buckets begin full and the [`ledger`](TestServer::ledger) empty, even if there were
    /// limits before. Scripted replies and those of [`respond_with`](TestServer::respond_with) are
    /// not limited and cost nothing, except [`Reply::canned`]. Requests that get an error of the
    /// canned server cost nothing either.
    ///
    /// Do not combine limits with a client whose [`ManualClock`](super::ManualClock) jumps over
    /// sleeps: the buckets fill in real time, so the client sends again at once, until its
    /// `max_wait` is used up and the call fails.
    pub fn limit(&self, limits: ServerLimits) {
        *lock(&self.shared.limiter) = Some(Arc::new(ServerLimiter::new(limits)));
    }

    /// Returns what was admitted, refused and charged under the limits: nothing without limits.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let limiter = lock(&self.shared.limiter).clone();
        limiter.map(|limiter| limiter.ledger()).unwrap_or_default()
    }

    /// Sets how many polls find a batch in progress, for batches created from now on.
    ///
    /// So many `GET`s of the batch return it in progress, and the next one returns it as ended.
    /// Default: 1. With 0 a batch ends at the first poll, with [`usize::MAX`] never.
    ///
    /// Time plays no part here. But like the API, the server suggests to poll again in 10 s: give a
    /// client that waits a [`ManualClock`](super::ManualClock), or set 0. A batch that is canceled
    /// ends at the next poll; after one poll of two, half of its requests have been carried out.
    pub fn batch_polls(&self, polls: usize) {
        lock(&self.shared.batches).set_polls(polls);
    }

    /// Sets the outcome of requests in batches created from now on, by their `custom_id`.
    ///
    /// Default: [`BatchOutcome::Canned`] for all.
    pub fn batch_outcomes(&self, outcome: impl Fn(&str) -> BatchOutcome + Send + Sync + 'static) {
        lock(&self.shared.batches).set_outcome(outcome);
    }

    /// Returns how many batches were created, deleted ones included.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        lock(&self.shared.batches).count()
    }

    /// Returns how many scripted replies, over all queues, no request has taken yet.
    #[must_use]
    pub fn unused_replies(&self) -> usize {
        self.shared.records().queues.len()
    }

    /// Sets whether requests are kept for [`requests`](TestServer::requests). Default: `true`.
    ///
    /// Set `false` for runs of many or large requests; they are still counted.
    pub fn keep_requests(&self, keep: bool) {
        self.shared.records().keeps_requests = keep;
    }

    /// Returns copies of all requests so far, in order of arrival, except those already
    /// [taken](TestServer::take_requests).
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        let kept = self.shared.records().requests.clone();
        kept.iter().map(|request| (**request).clone()).collect()
    }

    /// Returns all requests since the last call, in order of arrival, and drops them from the
    /// record.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        let kept = std::mem::take(&mut self.shared.records().requests);
        kept.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Returns how many requests have arrived since the start, taken ones included.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.records().request_count
    }

    /// Returns how many TCP connections have been accepted since the start.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        lock(&self.shared.connections).accepted
    }

    /// Returns how many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.connections).open.len()
    }

    /// Blocks until `count` requests have arrived since the start, at most for `timeout`; returns
    /// whether they have.
    #[must_use]
    pub fn wait_for_requests(&self, count: usize, timeout: Duration) -> bool {
        let records = self.shared.records();
        let waited = self
            .shared
            .arrival
            .wait_timeout_while(records, timeout, |records| records.request_count < count);
        let (records, _) = waited.unwrap_or_else(PoisonError::into_inner);
        records.request_count >= count
    }

    /// Blocks until at most `count` connections are open, at most for `timeout`; returns whether
    /// that is the case.
    ///
    /// The server notices that a client has gone when it waits for a request, stalls or writes.
    #[must_use]
    pub fn wait_for_open_connections(&self, count: usize, timeout: Duration) -> bool {
        let connections = lock(&self.shared.connections);
        let waited = self
            .shared
            .closing
            .wait_timeout_while(connections, timeout, |connections| {
                connections.open.len() > count
            });
        let (connections, _) = waited.unwrap_or_else(PoisonError::into_inner);
        connections.open.len() <= count
    }

    /// Stops the server: it accepts no more connections, cuts the open ones, and ends delays and
    /// stalls.
    ///
    /// Blocks until its threads have ended, which is at once unless a function given to
    /// [`respond_with`](TestServer::respond_with) is running. The recorded requests can still be
    /// read. A second call does nothing.
    pub fn stop(&self) {
        let Some(acceptor) = lock(&self.acceptor).take() else {
            return;
        };
        let sockets: Vec<_> = {
            let mut connections = lock(&self.shared.connections);
            connections.is_stopping = true;
            let open = connections.open.values();
            open.filter_map(Weak::upgrade).collect()
        };
        self.shared.stop_signal.stop();
        for socket in sockets {
            // Fails if the client was faster, which is just as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
        // A connection wakes the accepting thread.
        if TcpStream::connect(self.address).is_ok() {
            // The thread has no panic to report: it only accepts and spawns.
            let _ = acceptor.join();
        }
        let mut connections = lock(&self.shared.connections);
        while !connections.open.is_empty() {
            let waited = self.shared.closing.wait(connections);
            connections = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestServer")
            .field("base_url", &self.base_url)
            .field("request_count", &self.request_count())
            .finish_non_exhaustive()
    }
}

/// What the threads of one server share.
struct ServerShared {
    started: Instant,
    records: Mutex<ServerRecords>,
    limiter: Mutex<Option<Arc<ServerLimiter>>>,
    batches: Mutex<BatchStore>,
    /// Notified when a request has arrived.
    arrival: Condvar,
    connections: Mutex<Connections>,
    /// Notified when a connection has closed.
    closing: Condvar,
    stop_signal: StopSignal,
}

impl ServerShared {
    fn new() -> Self {
        ServerShared {
            started: Instant::now(),
            records: Mutex::new(ServerRecords {
                queues: ReplyQueues::default(),
                reply_function: None,
                requests: Vec::new(),
                keeps_requests: true,
                request_count: 0,
            }),
            limiter: Mutex::default(),
            batches: Mutex::default(),
            arrival: Condvar::new(),
            connections: Mutex::new(Connections::default()),
            closing: Condvar::new(),
            stop_signal: StopSignal::default(),
        }
    }

    fn records(&self) -> MutexGuard<'_, ServerRecords> {
        lock(&self.records)
    }

    /// Records a request that has arrived completely, and chooses its reply.
    fn record_and_reply(&self, mut request: RecordedRequest) -> RepliedRequest {
        let mut records = self.records();
        request.arrived = Instant::now();
        request.since_start = request.arrived.duration_since(self.started);
        let request = Arc::new(request);
        records.request_count += 1;
        let serial = records.request_count as u64;
        if records.keeps_requests {
            records.requests.push(Arc::clone(&request));
        }
        let scripted = records.queues.take(&request.method, &request.path);
        let reply_function = records.reply_function.clone();
        drop(records);
        self.arrival.notify_all();
        // The functions that the caller gave may panic.
        let reply = catch_unwind(AssertUnwindSafe(|| {
            let reply = scripted.or_else(|| reply_function.map(|reply| reply(&request)));
            self.fill_in(reply.unwrap_or_else(Reply::canned), &request, serial)
        }));
        let reply = reply.unwrap_or_else(|panic| reply_for_panic(&*panic));
        RepliedRequest {
            request,
            serial,
            reply,
        }
    }

    /// Returns a canned reply with the content that batches or limits decide; others are unchanged.
    fn fill_in(&self, reply: Reply, request: &RecordedRequest, serial: u64) -> Reply {
        if !matches!(reply.content, ReplyContent::Canned) {
            return reply;
        }
        if batches::is_batch_request(request) {
            return batches::reply_to(&self.batches, reply, request);
        }
        let limiter = lock(&self.limiter).clone();
        match limiter {
            Some(limiter) => limiter.reply_to(reply, request, serial),
            None => reply,
        }
    }
}

/// A recorded request with the reply that it gets.
struct RepliedRequest {
    request: Arc<RecordedRequest>,
    /// 1 for the first request of the server.
    serial: u64,
    reply: Reply,
}

/// The scripted replies and the recorded requests.
struct ServerRecords {
    queues: ReplyQueues,
    reply_function: Option<Arc<ReplyFunction>>,
    requests: Vec<Arc<RecordedRequest>>,
    keeps_requests: bool,
    request_count: usize,
}

type ReplyFunction = dyn Fn(&RecordedRequest) -> Reply + Send + Sync;

/// The connections of a server.
#[derive(Default)]
struct Connections {
    is_stopping: bool,
    accepted: usize,
    open: HashMap<usize, Weak<TcpStream>>,
}

/// One open connection. Dropping it closes the socket and notifies `closing`.
struct OpenConnection {
    shared: Arc<ServerShared>,
    number: usize,
    /// `None` only while it is dropped: the socket closes before the connection is unregistered.
    socket: Option<Arc<TcpStream>>,
}

impl OpenConnection {
    /// Registers an accepted connection; returns `None` if the server stops.
    fn register(shared: &Arc<ServerShared>, socket: TcpStream) -> Option<OpenConnection> {
        let socket = Arc::new(socket);
        let mut connections = lock(&shared.connections);
        if connections.is_stopping {
            return None;
        }
        let number = connections.accepted;
        connections.accepted += 1;
        connections.open.insert(number, Arc::downgrade(&socket));
        Some(OpenConnection {
            shared: Arc::clone(shared),
            number,
            socket: Some(socket),
        })
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.socket = None;
        lock(&self.shared.connections).open.remove(&self.number);
        self.shared.closing.notify_all();
    }
}

/// Accepts connections until the server stops.
fn accept(listener: &TcpListener, shared: &Arc<ServerShared>) {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                let Some(connection) = OpenConnection::register(shared, socket) else {
                    return;
                };
                // If no thread can be spawned, dropping the connection closes it.
                let _ = thread::Builder::new()
                    .name("test-server-connection".to_owned())
                    .spawn(move || serve(&connection));
            }
            // Out of file handles, or a client that went away early.
            Err(_) => {
                if !shared.stop_signal.pause(ACCEPT_RETRY_INTERVAL) {
                    return;
                }
            }
        }
    }
}

/// Serves the requests of one connection, one after another.
fn serve(connection: &OpenConnection) {
    let Some(socket) = connection.socket.as_deref() else {
        return;
    };
    // If this fails, responses are only slower.
    let _ = socket.set_nodelay(true);
    let mut reader = RequestReader::new(socket);
    loop {
        match serve_request(connection, socket, &mut reader) {
            Ok(AfterReply::KeepAlive) => {}
            Ok(AfterReply::Close) => {
                // Fails if the client has gone, and then there is nothing to close.
                let _ = reader.consume_held();
                return;
            }
            Ok(AfterReply::Reset) | Err(ReadFailure::Gone) => return,
            Err(ReadFailure::Refused { status, reason }) => {
                return refuse(socket, status, reason);
            }
        }
    }
}

/// Reads one request and sends its reply.
fn serve_request(
    connection: &OpenConnection,
    socket: &TcpStream,
    reader: &mut RequestReader<'_>,
) -> Result<AfterReply, ReadFailure> {
    let shared = &*connection.shared;
    let head = reader.read_head()?;
    let (is_last, is_http_1_0) = (head.is_last(), head.is_http_1_0);
    let mut body = Vec::new();
    let records = shared.records();
    let is_unread = records.queues.leaves_body_unread(&head.method, &head.path);
    drop(records);
    if !is_unread {
        if head.expects_continue() {
            let mut socket = socket;
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        body = reader.read_body(&head)?;
    }
    let replied = shared.record_and_reply(recorded_request(head, body, connection.number));
    let context = RequestContext {
        request: &replied.request,
        serial: replied.serial,
        is_last,
        is_http_1_0,
    };
    let stop_signal = &shared.stop_signal;
    Ok(deliver(
        &replied.reply,
        &context,
        socket,
        reader,
        stop_signal,
    ))
}

/// Returns the record of a request, with times that [`ServerShared::record_and_reply`] sets.
fn recorded_request(head: RequestHead, body: Vec<u8>, connection: usize) -> RecordedRequest {
    RecordedRequest {
        method: head.method,
        path: head.path,
        query: head.query,
        headers: head.headers,
        body,
        arrived: Instant::now(),
        since_start: Duration::ZERO,
        connection,
    }
}

/// Returns the reply for a panic in a function of the caller: the function would panic again, so
/// the client must not retry.
fn reply_for_panic(panic: &(dyn Any + Send)) -> Reply {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why");
    let message = format!("a function given to the test server panicked: {text}");
    canned::permanent_error(500, "api_error", &message)
}

/// Sends an error for bytes that are no request, and reads on until the client has seen it.
fn refuse(mut socket: &TcpStream, status: u16, reason: &str) {
    let response =
        format!("HTTP/1.1 {status} {reason}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // Errors mean that the client has gone.
    let _ = socket.write_all(response.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_read_timeout(Some(REFUSAL_TIMEOUT));
    let mut scratch = [0; 4096];
    while socket.read(&mut scratch).is_ok_and(|count| count > 0) {}
}

/// How long the server waits after it could not accept a connection; short, so that tests go on.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// How long a client may take to read the error for bytes that are no request.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
