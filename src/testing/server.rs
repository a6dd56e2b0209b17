//! The test server: its queues, its record of requests and its connections.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
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
use super::recorded::RecordedRequest;
use super::reply::{InjectedFault, Reply, ReplyContent};
use super::sync::{StopSignal, lock};
use super::wire::{AfterReply, ReadFailure, RequestContext, RequestHead, RequestReader, deliver};

/// A loopback HTTP/1.1 server that stands in for the API in tests.
///
/// It listens on a free port of `127.0.0.1`, serves scripted [`Reply`] values with all the faults of
/// a real network, and records what it was asked. What is not scripted it answers like the API:
/// messages echo the last text of the user, as JSON or as a stream, batches do so for each of their
/// requests once they were polled ([`batch_polls`](TestServer::batch_polls)), and faulty requests get
/// the API's errors.
///
/// A request takes its reply from the first of these that has one: the queue for its method and path
/// ([`on`](TestServer::on)), the general queue ([`push`](TestServer::push)), the function
/// ([`answer_with`](TestServer::answer_with)), the canned answers. With
/// [`limit`](TestServer::limit) the canned messages are subject to rate limits.
///
/// Where a function panics that it was given, such as by an assertion, the request is answered with
/// a 500 that says so in the words of the panic and is not tried again.
///
/// All methods take `&self` and can be called from any thread. Dropping the server stops it.
///
/// ```
/// use anthropic_blocking::testing::{Reply, TestServer};
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// server.push(Reply::overloaded());
/// server.push(Reply::message("Seven."));
/// // Point a client at `server.base_url()`; its first attempt meets the 529, its second the message.
/// assert_eq!(server.request_count(), 0);
/// # Ok(()) }
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
    /// Fails where the system refuses a loopback socket or a thread.
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

    /// Where the server is, such as `http://127.0.0.1:34567`; no slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The address and port on which the server listens, for tests with bare sockets.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a reply to the general queue; it answers one request, whatever that asks.
    pub fn push(&self, reply: Reply) {
        self.shared.state().queue.push_back(reply);
    }

    /// Adds several replies to the general queue, in order.
    pub fn push_all(&self, replies: impl IntoIterator<Item = Reply>) {
        let replies: Vec<Reply> = replies.into_iter().collect();
        self.shared.state().queue.extend(replies);
    }

    /// Adds a reply to the queue for this method and path (without query).
    ///
    /// It answers one request, and goes before the general queue.
    ///
    /// # Panics
    ///
    /// Panics where no request could have the path: it begins with no slash, or has a query.
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
        let mut state = self.shared.state();
        match state.routes.iter_mut().find(|route| route.is(method, path)) {
            Some(route) => route.queue.push_back(reply),
            None => state.routes.push(Route {
                method: method.to_owned(),
                path: path.to_owned(),
                queue: VecDeque::from([reply]),
            }),
        }
    }

    /// Sets the function that answers when no queue has a reply; it replaces an earlier one.
    ///
    /// It is called on the thread of the connection, so several calls can run at once, and stopping
    /// the server waits for it to return.
    ///
    /// ```
    /// use anthropic_blocking::testing::{Reply, TestServer};
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let server = TestServer::start()?;
    /// server.answer_with(|request| match request.path.as_str() {
    ///     "/v1/messages" => Reply::message(format!("{} bytes", request.body.len())),
    ///     _ => Reply::canned(),
    /// });
    /// let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 64).user("Hello?");
    /// assert!(client.messages().create(&request)?.text().ends_with(" bytes"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer_with(&self, answer: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        self.shared.state().answer = Some(Arc::new(answer));
    }

    /// Subjects the canned answers of `POST /v1/messages` to these limits, from now on.
    ///
    /// Buckets begin full and the books empty, also where there were limits before. Scripted
    /// replies and [`answer_with`](TestServer::answer_with) go first, and cost nothing, except
    /// where they are [`Reply::canned`]. Requests that the canned server would refuse cost nothing
    /// either.
    ///
    /// Not for a client whose [`ManualClock`](super::ManualClock) jumps: what it waits for takes the
    /// server real time, so that it comes back at once until its `max_wait` is used up, and fails.
    pub fn limit(&self, limits: ServerLimits) {
        *lock(&self.shared.limiter) = Some(Arc::new(ServerLimiter::new(limits)));
    }

    /// What was admitted, refused and charged under the limits; empty without.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let limiter = lock(&self.shared.limiter).clone();
        limiter.map(|limiter| limiter.ledger()).unwrap_or_default()
    }

    /// Sets how many polls find a batch in progress that is created from now on: that many times
    /// `GET` of the batch says so, and the next time that it has ended. By default 1; with 0 it ends
    /// at once, with [`usize::MAX`] never.
    ///
    /// Time plays no part here. But as the API does, the server suggests to poll again in 10 s: give
    /// a client that waits a [`ManualClock`](super::ManualClock), or set 0. A batch that is canceled
    /// ends with the next poll; after one poll of two, half of its requests have been carried out.
    pub fn batch_polls(&self, polls: usize) {
        lock(&self.shared.batches).set_polls(polls);
    }

    /// Sets what becomes of requests in batches that are created from now on, by their `custom_id`.
    /// By default all are [`BatchOutcome::Canned`].
    pub fn batch_outcomes(&self, outcome: impl Fn(&str) -> BatchOutcome + Send + Sync + 'static) {
        lock(&self.shared.batches).set_outcome(outcome);
    }

    /// How many batches were created, deleted ones included.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        lock(&self.shared.batches).count()
    }

    /// How many scripted replies, in all queues, no request has taken yet.
    #[must_use]
    pub fn unused_replies(&self) -> usize {
        let state = self.shared.state();
        let routes = state.routes.iter().map(|route| route.queue.len());
        state.queue.len() + routes.sum::<usize>()
    }

    /// Sets whether requests are kept for [`requests`](TestServer::requests). Default: they are.
    ///
    /// For runs of many or large requests; they are counted all the same.
    pub fn keep_requests(&self, keep: bool) {
        self.shared.state().is_keeping = keep;
    }

    /// Copies of all requests so far, in order of arrival, except those already taken.
    ///
    /// ```
    /// use anthropic_blocking::testing::TestServer;
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let server = TestServer::start()?;
    /// let client = Client::builder().api_key("test").base_url(server.base_url()).build()?;
    /// client.messages().create(&MessageRequest::new("claude-haiku-4-5", 64).user("Hello?"))?;
    /// assert_eq!(server.requests()[0].json()["messages"][0]["content"], "Hello?");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        let kept = self.shared.state().requests.clone();
        kept.iter().map(|request| (**request).clone()).collect()
    }

    /// All requests since the last call, in order of arrival; the server forgets them.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        let kept = std::mem::take(&mut self.shared.state().requests);
        kept.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// How many requests have arrived since the start, taken ones included.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.state().count
    }

    /// How many TCP connections have been accepted since the start.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared.links).accepted
    }

    /// How many of the connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.links).open.len()
    }

    /// Blocks until `count` requests have arrived since the start, at most for `timeout`; whether
    /// they have.
    #[must_use]
    pub fn wait_for_requests(&self, count: usize, timeout: Duration) -> bool {
        let state = self.shared.state();
        let waited = self
            .shared
            .arrival
            .wait_timeout_while(state, timeout, |state| state.count < count);
        waited.unwrap_or_else(PoisonError::into_inner).0.count >= count
    }

    /// Blocks until at most `count` connections are open, at most for `timeout`; whether it is so.
    ///
    /// The server notices that a client has gone when it waits for a request, stalls or writes.
    #[must_use]
    pub fn wait_for_open_connections(&self, count: usize, timeout: Duration) -> bool {
        let links = lock(&self.shared.links);
        let waited = self
            .shared
            .closing
            .wait_timeout_while(links, timeout, |links| links.open.len() > count);
        waited.unwrap_or_else(PoisonError::into_inner).0.open.len() <= count
    }

    /// Stops the server: no more connections, all open ones cut, delays and stalls ended.
    ///
    /// Blocks until its threads are done, which is at once unless a function given to
    /// [`answer_with`](TestServer::answer_with) is running. What was recorded can still be read. A
    /// second call does nothing.
    pub fn stop(&self) {
        let Some(acceptor) = lock(&self.acceptor).take() else {
            return;
        };
        let sockets: Vec<_> = {
            let mut links = lock(&self.shared.links);
            links.is_stopping = true;
            links.open.values().filter_map(Weak::upgrade).collect()
        };
        self.shared.stopper.stop();
        for socket in sockets {
            // Fails where the client was faster, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
        // A connection wakes the thread that accepts.
        if TcpStream::connect(self.address).is_ok() {
            // It has no panic to report: it only accepts and spawns.
            let _ = acceptor.join();
        }
        let mut links = lock(&self.shared.links);
        while !links.open.is_empty() {
            links = self
                .shared
                .closing
                .wait(links)
                .unwrap_or_else(PoisonError::into_inner);
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
    state: Mutex<ServerRecords>,
    limiter: Mutex<Option<Arc<ServerLimiter>>>,
    batches: Mutex<BatchStore>,
    arrival: Condvar,
    links: Mutex<Connections>,
    closing: Condvar,
    stopper: StopSignal,
}

impl ServerShared {
    fn new() -> Self {
        ServerShared {
            started: Instant::now(),
            state: Mutex::new(ServerRecords {
                queue: VecDeque::new(),
                routes: Vec::new(),
                answer: None,
                requests: Vec::new(),
                is_keeping: true,
                count: 0,
            }),
            limiter: Mutex::default(),
            batches: Mutex::default(),
            arrival: Condvar::new(),
            links: Mutex::new(Connections::default()),
            closing: Condvar::new(),
            stopper: StopSignal::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ServerRecords> {
        lock(&self.state)
    }

    /// Records a request and finds its reply.
    fn arrived(&self, mut request: RecordedRequest) -> (Arc<RecordedRequest>, u64, Reply) {
        let mut state = self.state();
        request.arrived = Instant::now();
        request.since_start = request.arrived.duration_since(self.started);
        let request = Arc::new(request);
        state.count += 1;
        let serial = state.count as u64;
        if state.is_keeping {
            state.requests.push(Arc::clone(&request));
        }
        let scripted = state.take_reply(&request.method, &request.path);
        let answer = state.answer.clone();
        drop(state);
        self.arrival.notify_all();
        // The functions that the caller gave may panic.
        let reply = catch_unwind(AssertUnwindSafe(|| {
            let reply = scripted.or_else(|| answer.map(|answer| answer(&request)));
            self.made(reply.unwrap_or_else(Reply::canned), &request, serial)
        }));
        let reply = reply.unwrap_or_else(|panic| panicked(&*panic));
        (request, serial, reply)
    }

    /// A reply with the content that the server makes by itself, where it is to.
    fn made(&self, reply: Reply, request: &RecordedRequest, serial: u64) -> Reply {
        if !matches!(reply.content, ReplyContent::Canned) {
            return reply;
        }
        if batches::is_about(request) {
            return batches::answer(&self.batches, reply, request);
        }
        let limiter = lock(&self.limiter).clone();
        match limiter {
            Some(limiter) => limiter.reply_to(reply, request, serial),
            None => reply,
        }
    }
}

/// What is scripted and what was recorded.
struct ServerRecords {
    queue: VecDeque<Reply>,
    routes: Vec<Route>,
    answer: Option<Arc<ReplyFunction>>,
    requests: Vec<Arc<RecordedRequest>>,
    is_keeping: bool,
    count: usize,
}

impl ServerRecords {
    fn take_reply(&mut self, method: &str, path: &str) -> Option<Reply> {
        let mut routes = self.routes.iter_mut();
        routes
            .find(|route| route.is(method, path))
            .and_then(|route| route.queue.pop_front())
            .or_else(|| self.queue.pop_front())
    }

    /// Whether the next reply for this request wants its body left unread.
    fn leaves_body(&self, method: &str, path: &str) -> bool {
        let mut routes = self.routes.iter();
        routes
            .find(|route| route.is(method, path))
            .and_then(|route| route.queue.front())
            .or_else(|| self.queue.front())
            .is_some_and(|reply| reply.fault == Some(InjectedFault::ResetBeforeBodyRead))
    }
}

/// The queue for one method and path.
struct Route {
    method: String,
    path: String,
    queue: VecDeque<Reply>,
}

impl Route {
    fn is(&self, method: &str, path: &str) -> bool {
        self.method.eq_ignore_ascii_case(method) && self.path == path
    }
}

type ReplyFunction = dyn Fn(&RecordedRequest) -> Reply + Send + Sync;

/// The connections.
#[derive(Default)]
struct Connections {
    is_stopping: bool,
    accepted: usize,
    open: HashMap<usize, Weak<TcpStream>>,
}

/// One open connection; dropping it closes the socket and tells who waits for that.
struct OpenConnection {
    shared: Arc<ServerShared>,
    number: usize,
    socket: Option<Arc<TcpStream>>,
}

impl OpenConnection {
    /// Registers an accepted connection; `None` when the server stops.
    fn open(shared: &Arc<ServerShared>, socket: TcpStream) -> Option<OpenConnection> {
        let socket = Arc::new(socket);
        let mut links = lock(&shared.links);
        if links.is_stopping {
            return None;
        }
        let number = links.accepted;
        links.accepted += 1;
        links.open.insert(number, Arc::downgrade(&socket));
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
        lock(&self.shared.links).open.remove(&self.number);
        self.shared.closing.notify_all();
    }
}

/// Accepts connections until the server stops.
fn accept(listener: &TcpListener, shared: &Arc<ServerShared>) {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                let Some(link) = OpenConnection::open(shared, socket) else {
                    return;
                };
                // Where no thread can be had, dropping the link closes the connection.
                let _ = thread::Builder::new()
                    .name("test-server-link".to_owned())
                    .spawn(move || serve(&link));
            }
            // Out of file handles, or a client that went away early: go on after a moment.
            Err(_) => {
                if !shared.stopper.pause(Duration::from_millis(5)) {
                    return;
                }
            }
        }
    }
}

/// Serves the requests of one connection.
fn serve(link: &OpenConnection) {
    let Some(socket) = link.socket.as_deref() else {
        return;
    };
    // Without it the answers come later, but they come.
    let _ = socket.set_nodelay(true);
    let mut inbox = RequestReader::new(socket);
    loop {
        match exchange(link, socket, &mut inbox) {
            Ok(AfterReply::KeepAlive) => {}
            Ok(AfterReply::Close) => {
                // Fails when the client has gone, and then there is nothing to end.
                let _ = inbox.release();
                return;
            }
            Ok(AfterReply::Reset) | Err(ReadFailure::Gone) => return,
            Err(ReadFailure::Refused(status, reason)) => return refuse(socket, status, reason),
        }
    }
}

/// Reads one request and answers it.
fn exchange(
    link: &OpenConnection,
    socket: &TcpStream,
    inbox: &mut RequestReader<'_>,
) -> Result<AfterReply, ReadFailure> {
    let shared = &*link.shared;
    let head = inbox.head()?;
    let (is_last, is_http_1_0) = (head.is_last(), head.is_http_1_0);
    let mut body = Vec::new();
    if !shared.state().leaves_body(&head.method, &head.path) {
        if head.is_waiting() {
            let mut socket = socket;
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        body = inbox.body(&head)?;
    }
    let (request, serial, reply) = shared.arrived(record(head, body, link.number));
    let exchange = RequestContext {
        request: &request,
        serial,
        is_last,
        is_http_1_0,
    };
    Ok(deliver(&reply, &exchange, socket, inbox, &shared.stopper))
}

/// The record of a request, with times that [`ServerShared::arrived`] sets.
fn record(head: RequestHead, body: Vec<u8>, connection: usize) -> RecordedRequest {
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

/// The reply where a function of the caller's panicked. It would again, so that there is no use in
/// trying.
fn panicked(panic: &(dyn Any + Send)) -> Reply {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why");
    let message = format!("a function given to the test server panicked: {said}");
    canned::refusal(500, "api_error", &message)
}

/// Answers what is no request, and reads on until the client has seen it.
fn refuse(mut socket: &TcpStream, status: u16, reason: &str) {
    let answer =
        format!("HTTP/1.1 {status} {reason}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // Errors mean that the client has gone.
    let _ = socket.write_all(answer.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
    let mut scratch = [0; 4096];
    while socket.read(&mut scratch).is_ok_and(|count| count > 0) {}
}
