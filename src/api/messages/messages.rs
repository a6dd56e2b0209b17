//! The Messages endpoints: create a message, stream it, count the tokens of a request.

use std::time::Duration;

use log::debug;
use serde::Deserialize;

use super::event_reader::{EXPECTED_MESSAGE, read_streamed_message};
use super::stream::MessageStream;
use crate::budget::{Cost, InputEstimate, ModelClass, Plan};
use crate::call::response::read_json;
use crate::call::retry::RetryPolicy;
use crate::call::{Call, LOG, encode};
use crate::client::{Client, Options};
use crate::error::{Error, Result};
use crate::types::{CountBody, CreateBody, Message, MessageRequest};

impl Client {
    /// Returns the methods of the Messages API.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # fn ask(client: &Client) -> anthropic_blocking::Result<()> {
    /// let request = MessageRequest::new("claude-haiku-4-5", 256).user("Name one prime.");
    /// println!("{}", client.messages().create(&request)?.text());
    /// # Ok(()) }
    /// ```
    pub fn messages(&self) -> Messages<'_> {
        Messages { client: self }
    }
}

/// The Messages API; see [`Client::messages`].
///
/// ```
/// use anthropic_blocking::{MessageRequest, Messages, Result};
///
/// fn ask(messages: Messages<'_>, question: &str) -> Result<String> {
///     let request = MessageRequest::new("claude-haiku-4-5", 256).user(question);
///     Ok(messages.create(&request)?.text())
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    client: &'a Client,
}

impl Messages<'_> {
    /// Creates a message, `POST /v1/messages`, and waits until it is complete.
    ///
    /// By default the response is streamed internally: it may take any time, the idle timeout
    /// detects a dead connection, and only a complete message is returned. A stream that breaks is
    /// retried like any other failure, because nothing was handed out yet. See
    /// [`stream_underneath`](crate::ClientBuilder::stream_underneath) for responses in one piece.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// let client = Client::from_env()?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 256).user("Name one prime.");
    /// let message = client.messages().create(&request)?;
    /// println!("{}", message.text());
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # How long it blocks
    ///
    /// Until the message is complete, or an error. By default nothing bounds the whole call: set a
    /// [`deadline`](crate::ClientBuilder::deadline), which bounds all of these waits together.
    ///
    /// | wait | default | bounded by |
    /// |---|---|---|
    /// | for room under the known limits, in a queue with other calls | as long as it takes | the deadline |
    /// | after rate limits and overloads of the server (429, 529) | 10 minutes in all | [`RetryPolicy::max_wait`](crate::RetryPolicy::max_wait) |
    /// | for the host's address | as long as the system takes | the deadline |
    /// | for a connection | 5 s for each attempt | [`connect_timeout`](crate::ClientBuilder::connect_timeout) |
    /// | for the next bytes from the server | 180 s at a time | [`idle_timeout`](crate::ClientBuilder::idle_timeout) |
    /// | for the end of a response whose events keep coming | as long as it takes | `max_tokens`, the deadline |
    /// | pauses after failures | 1 to 16 s before each of four more attempts, or as long as the server demands | [`RetryPolicy`](crate::RetryPolicy) |
    ///
    /// With `stream_underneath(false)` the [`timeout`](crate::ClientBuilder::timeout) replaces the
    /// idle timeout: 10 minutes until the response begins, and again for reading it. With
    /// [`InputEstimate::Counted`] the tokens are counted before, which takes at most 10 s.
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`](crate::ErrorKind). With
    /// [`stream_underneath(false)`](crate::ClientBuilder::stream_underneath) also
    /// `InvalidRequest`, before anything is sent, if `max_tokens` is so large that the response may
    /// take more than ten minutes.
    pub fn create(&self, request: &MessageRequest) -> Result<Message> {
        self.create_with_callback(request, &|| ())
    }

    /// Like [`create`](Messages::create), and calls `on_start` whenever a response has begun: once
    /// for each attempt that gets so far.
    pub(crate) fn create_with_callback(
        &self,
        request: &MessageRequest,
        on_start: &dyn Fn(),
    ) -> Result<Message> {
        let settings = self.client.settings();
        let mode = match settings.stream_underneath {
            true => ResponseMode::Streamed,
            false => ResponseMode::Whole,
        };
        let is_too_long = request.max_tokens >= MIN_TOO_LONG;
        if mode == ResponseMode::Whole && settings.timeout.is_none() && is_too_long {
            return Err(too_long(request.max_tokens));
        }
        let body = encode_request(request, mode)?;
        let call = self.prepare_call(request, &body, mode);
        let done = match mode {
            ResponseMode::Streamed => call.run(|response, attempt_usage| {
                read_streamed_message(response, attempt_usage, &call, on_start)
            })?,
            ResponseMode::Whole => {
                let done =
                    call.run(|response, _| read_json::<Message>(response, EXPECTED_MESSAGE))?;
                on_start();
                done
            }
        };
        let mut message = done.value;
        done.attempt_usage.settle(&message.usage);
        message.meta = done.meta;
        Ok(message)
    }

    /// Creates a message, `POST /v1/messages`, and returns its events as they arrive.
    ///
    /// Blocks until the first content arrives, for as long as [`create`](Messages::create) does.
    /// Until then rate limits, overloads and broken connections are retried, because nothing was
    /// handed out; a later failure is the stream's last item. After that, each `next` blocks for at
    /// most the idle timeout. A deadline bounds the whole, with the time that the caller spends
    /// between two items.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # fn ask(client: &Client) -> anthropic_blocking::Result<()> {
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024).user("Tell me a story.");
    /// for text in client.messages().stream(&request)?.text_deltas() {
    ///     print!("{}", text?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`create`](Messages::create), up to the first content.
    pub fn stream(&self, request: &MessageRequest) -> Result<MessageStream> {
        let body = encode_request(request, ResponseMode::Streamed)?;
        let call = self.prepare_call(request, &body, ResponseMode::Streamed);
        MessageStream::open(&call, self.client.core())
    }

    /// Counts the input tokens of a request, `POST /v1/messages/count_tokens`: free of charge,
    /// under a rate limit of its own.
    ///
    /// The count is the server's estimate of the whole input, cached or not. Blocks like
    /// [`create`](Messages::create); the response itself takes milliseconds.
    ///
    /// ```
    /// use anthropic_blocking::{Client, MessageRequest};
    ///
    /// # fn ask(client: &Client) -> anthropic_blocking::Result<()> {
    /// let request = MessageRequest::new("claude-haiku-4-5", 256).user("Name one prime.");
    /// println!("{} tokens", client.messages().count_tokens(&request)?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`create`](Messages::create).
    pub fn count_tokens(&self, request: &MessageRequest) -> Result<u64> {
        #[derive(Deserialize)]
        struct TokenCount {
            input_tokens: u64,
        }
        let settings = self.client.settings();
        let body = encode(&CountBody(request))?;
        let path = "/v1/messages/count_tokens";
        let call = Call {
            repeatable: true,
            response_timeout: Some(settings.timeout.unwrap_or(settings.idle_timeout)),
            cost: Some((ModelClass::named("count_tokens"), Cost::request())),
            ..self.client.call("POST", path, Some(&body))
        };
        let (count, _) =
            call.run_without_tokens(|response| read_json::<TokenCount>(response, "a token count"))?;
        Ok(count.input_tokens)
    }

    /// Estimates how long these requests would take and which limit would bind. Sends nothing and
    /// does not wait; see [`Budget::plan`](crate::Budget::plan).
    ///
    /// ```no_run
    /// # let client = anthropic_blocking::Client::from_env()?;
    /// # let requests: Vec<anthropic_blocking::MessageRequest> = Vec::new();
    /// let plan = client.messages().plan(&requests)?;
    /// println!("{} requests in about {:?}", plan.requests, plan.duration);
    /// if let Some(dollars) = plan.cost(&anthropic_blocking::Prices::published()) {
    ///     println!("about ${dollars:.2}");
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if a request cannot be written as
    /// JSON.
    pub fn plan<'r>(&self, requests: impl IntoIterator<Item = &'r MessageRequest>) -> Result<Plan> {
        let settings = self.client.settings();
        let cost = |request: &'r MessageRequest| {
            let body = encode(&CreateBody {
                request,
                stream: settings.stream_underneath,
            })?;
            let (class, cost) = self.estimate_cost(request, body.len());
            let cost = match settings.input_estimate {
                InputEstimate::Exact(tokens) => cost.input_tokens(tokens),
                _ => cost,
            };
            Ok((class, cost, Some(&request.model)))
        };
        let costs: Result<Vec<_>> = requests.into_iter().map(cost).collect();
        Ok(self.client.budget().plan_for(costs?))
    }

    /// Like [`plan`](Messages::plan), for `count` requests that are all like this one. Takes the
    /// time of one.
    pub(crate) fn plan_repeated(&self, request: &MessageRequest, count: usize) -> Result<Plan> {
        let body = encode(request)?;
        let cost = self.estimate_cost(request, body.len());
        Ok(self.client.budget().plan(std::iter::repeat_n(cost, count)))
    }

    /// Builds the call for a message. Where the settings demand that the input be counted, this
    /// counts it, which sends a request and is part of the call's time.
    fn prepare_call<'b>(
        &'b self,
        request: &'b MessageRequest,
        body: &'b [u8],
        mode: ResponseMode,
    ) -> Call<'b> {
        let mut call = match mode {
            ResponseMode::Streamed => self.client.streaming_call("POST", PATH, Some(body)),
            ResponseMode::Whole => self.client.call("POST", PATH, Some(body)),
        };
        call.model = Some(&request.model);
        call.cost = Some(self.count_or_estimate_cost(request, body.len()));
        call
    }

    /// Returns what the budget must have room for. Sends a request where the settings demand that
    /// the input be counted.
    fn count_or_estimate_cost(&self, request: &MessageRequest, body: usize) -> (ModelClass, Cost) {
        let (class, cost) = self.estimate_cost(request, body);
        let tokens = match self.client.settings().input_estimate {
            InputEstimate::Learned => None,
            InputEstimate::Exact(tokens) => Some(tokens),
            InputEstimate::Counted => self
                .count_tokens_briefly(request)
                .inspect_err(|error| {
                    debug!(target: LOG, "the input is estimated, because counting failed: {error}");
                })
                .ok(),
        };
        let cost = tokens.map_or(cost, |tokens| cost.input_tokens(tokens));
        (class, cost)
    }

    /// Counts the tokens without retries, for at most a quarter of the call's deadline and
    /// [`MAX_COUNT_TIME`].
    fn count_tokens_briefly(&self, request: &MessageRequest) -> Result<u64> {
        let deadline = self.client.settings().deadline;
        let share = deadline.map_or(MAX_COUNT_TIME, |deadline| deadline / 4);
        let options = Options::new()
            .deadline(share.min(MAX_COUNT_TIME))
            .retry(RetryPolicy::none());
        let client = self.client.with(options);
        client.messages().count_tokens(request)
    }

    /// Estimates the cost from the request and the size of its body in bytes. Sends nothing.
    fn estimate_cost(&self, request: &MessageRequest, body: usize) -> (ModelClass, Cost) {
        let size = request.estimate_size(body);
        let cost = Cost::request()
            .input_bytes(size.bytes)
            .cached(size.has_cache_marks)
            .max_tokens(request.max_tokens);
        let is_fast = request.speed.as_deref() == Some("fast");
        let class = self.client.budget().class_for(&request.model, is_fast);
        (class, cost)
    }
}

/// How the server sends its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseMode {
    Streamed,
    Whole,
}

fn encode_request(request: &MessageRequest, mode: ResponseMode) -> Result<Vec<u8>> {
    encode(&CreateBody {
        request,
        stream: mode == ResponseMode::Streamed,
    })
}

fn too_long(max_tokens: u64) -> Error {
    let what = format!("a response of {max_tokens} tokens in one piece may take over ten minutes");
    Error::rejected(format!("POST {PATH}"), what)
        .with_advice("let the client stream underneath, set a timeout, or lower max_tokens")
}

/// The smallest `max_tokens` that takes more than ten minutes at 128,000 tokens an hour, which is
/// the speed that the official clients assume: 600 s × 128,000 / 3600 s = 21,333.3.
const MIN_TOO_LONG: u64 = 21_334;

/// How long counting the input of a request may take before the input is estimated.
const MAX_COUNT_TIME: Duration = Duration::from_secs(10);

const PATH: &str = "/v1/messages";
