//! Messages: create one, count its tokens.

use std::time::Duration;

use log::debug;
use serde::Deserialize;

use super::event_reader::{MESSAGE, read_message};
use super::stream::MessageStream;
use crate::budget::{Cost, InputEstimate, ModelClass, Plan};
use crate::call::response::read_json;
use crate::call::retry::RetryPolicy;
use crate::call::{Call, LOG, encode};
use crate::client::{Client, Options};
use crate::error::{Error, Result};
use crate::types::{CountBody, CreateBody, Message, MessageRequest};

impl Client {
    /// The Messages endpoints.
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

/// The Messages endpoints; see [`Client::messages`].
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
    /// Asks the model and waits for the whole answer.
    ///
    /// The answer is streamed underneath: there is no limit to how long it may take, a dead line
    /// is noticed by the idle timeout, and it counts only when it is complete. A failure inside
    /// the stream is tried again like any other, because nothing was handed out yet. See
    /// [`stream_underneath`](crate::ClientBuilder::stream_underneath) for the other way.
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
    /// Until the answer is there, or an error. By default nothing bounds the whole: set a
    /// [`deadline`](crate::ClientBuilder::deadline), which bounds all of this together.
    ///
    /// | it waits for | by default | bounded by |
    /// |---|---|---|
    /// | room under limits that are known, in line with other calls | as long as it takes | the deadline |
    /// | limits and overloads that the server answered with (429, 529) | 10 minutes in all | [`RetryPolicy::max_wait`](crate::RetryPolicy::max_wait) |
    /// | the host's address | as long as the system takes | the deadline |
    /// | a connection | 5 s for each attempt | [`connect_timeout`](crate::ClientBuilder::connect_timeout) |
    /// | a sign of life from the server | 180 s at a time | [`idle_timeout`](crate::ClientBuilder::idle_timeout) |
    /// | the end of an answer whose events keep coming | as long as it takes | `max_tokens`, the deadline |
    /// | pauses after failures | 1 to 16 s before each of four more attempts, or as long as the server asks | [`RetryPolicy`](crate::RetryPolicy) |
    ///
    /// With `stream_underneath(false)` the [`timeout`](crate::ClientBuilder::timeout) takes the place
    /// of the idle timeout: 10 minutes until the answer begins, and again for reading it. With
    /// [`InputEstimate::Counted`] counting comes before, for at most 10 s.
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`](crate::ErrorKind). With
    /// [`stream_underneath(false)`](crate::ClientBuilder::stream_underneath) also
    /// `InvalidRequest`, before anything is sent, when `max_tokens` is so large that the answer
    /// may take more than ten minutes.
    pub fn create(&self, request: &MessageRequest) -> Result<Message> {
        self.create_telling(request, &|| ())
    }

    /// The same. Calls `begun` when an answer has begun, once for each that does.
    pub(crate) fn create_telling(
        &self,
        request: &MessageRequest,
        begun: &dyn Fn(),
    ) -> Result<Message> {
        let settings = self.client.settings();
        let stream = settings.stream_underneath;
        if !stream && settings.timeout.is_none() && request.max_tokens >= TOO_LONG {
            return Err(too_long(request.max_tokens));
        }
        let body = encode(&CreateBody { request, stream })?;
        let call = self.call(request, &body, stream);
        let done = if stream {
            call.run(|answer, attempt_usage| read_message(answer, attempt_usage, &call, begun))?
        } else {
            let done = call.run(|answer, _| read_json::<Message>(answer, MESSAGE))?;
            begun();
            done
        };
        let mut message = done.value;
        done.attempt_usage.settle(&message.usage);
        message.meta = done.meta;
        Ok(message)
    }

    /// Asks the model and hands out the answer as it arrives.
    ///
    /// Blocks until the first content is there, through rate limits, overloads and broken
    /// connections, as [`create`](Messages::create) does: up to then nothing was handed out, so
    /// that the stream can be begun again. What fails later is the stream's last item. From then on
    /// each item is waited for as long as the idle timeout permits. A deadline bounds the whole, the
    /// reading included.
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
    /// Those of [`create`](Messages::create) up to the first content.
    pub fn stream(&self, request: &MessageRequest) -> Result<MessageStream> {
        let body = encode(&CreateBody {
            request,
            stream: true,
        })?;
        let call = self.call(request, &body, true);
        MessageStream::open(&call, self.client.core())
    }

    /// Counts the input tokens of a request without asking the model; free of attempt_usage, under a rate
    /// limit of its own.
    ///
    /// The count is the server's estimate of all input, cached or not. Blocks like
    /// [`create`](Messages::create), but for an answer of milliseconds.
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
        struct Count {
            input_tokens: u64,
        }
        let settings = self.client.settings();
        let body = encode(&CountBody(request))?;
        let call = Call {
            repeatable: true,
            answer_timeout: Some(settings.timeout.unwrap_or(settings.idle_timeout)),
            cost: Some((ModelClass::named("count_tokens"), Cost::request())),
            ..self
                .client
                .call("POST", "/v1/messages/count_tokens", Some(&body))
        };
        let (count, _) = call.ask(|answer| read_json::<Count>(answer, "a token count"))?;
        Ok(count.input_tokens)
    }

    /// Tells how long these requests would take and which limit would bind, without sending
    /// anything; see [`Budget::plan`](crate::Budget::plan).
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
    /// Kind [`InvalidRequest`](crate::ErrorKind::InvalidRequest) when a request cannot be written as JSON.
    pub fn plan<'r>(&self, requests: impl IntoIterator<Item = &'r MessageRequest>) -> Result<Plan> {
        let cost = |request: &'r MessageRequest| {
            let body = encode(&CreateBody {
                request,
                stream: self.client.settings().stream_underneath,
            })?;
            let (class, cost) = self.guess(request, body.len());
            let cost = match self.client.settings().input_estimate {
                InputEstimate::Exact(tokens) => cost.input_tokens(tokens),
                _ => cost,
            };
            Ok((class, cost, Some(&request.model)))
        };
        let costs: Result<Vec<_>> = requests.into_iter().map(cost).collect();
        Ok(self.client.budget().plan_for(costs?))
    }

    /// The same for so many requests that are all like this one, at the price of one.
    pub(crate) fn plan_alike(&self, request: &MessageRequest, count: usize) -> Result<Plan> {
        let body = encode(request)?;
        let cost = self.guess(request, body.len());
        Ok(self.client.budget().plan(std::iter::repeat_n(cost, count)))
    }

    /// A call for a message. Where the input is to be counted, this does that, which is part of the
    /// call's time.
    fn call<'b>(&'b self, request: &'b MessageRequest, body: &'b [u8], stream: bool) -> Call<'b> {
        let client = self.client;
        let mut call = if stream {
            client.streaming_call("POST", PATH, Some(body))
        } else {
            client.call("POST", PATH, Some(body))
        };
        call.model = Some(&request.model);
        call.cost = Some(self.cost(request, body.len()));
        call
    }

    /// What the budget must have room for.
    fn cost(&self, request: &MessageRequest, body: usize) -> (ModelClass, Cost) {
        let (class, cost) = self.guess(request, body);
        let counted = match self.client.settings().input_estimate {
            InputEstimate::Learned => None,
            InputEstimate::Exact(tokens) => Some(tokens),
            InputEstimate::Counted => match self.count_in_haste(request) {
                Ok(tokens) => Some(tokens),
                Err(error) => {
                    debug!(target: LOG, "the input is guessed, because counting failed: {error}");
                    None
                }
            },
        };
        (
            class,
            counted.map_or(cost, |tokens| cost.input_tokens(tokens)),
        )
    }

    /// Counts, if that does not take much of the time that the call itself has.
    fn count_in_haste(&self, request: &MessageRequest) -> Result<u64> {
        let deadline = self.client.settings().deadline;
        let share = deadline.map_or(LONGEST_COUNT, |deadline| (deadline / 4).min(LONGEST_COUNT));
        let options = Options::new().deadline(share).retry(RetryPolicy::none());
        let client = self.client.with(options);
        client.messages().count_tokens(request)
    }

    /// The same by the request's looks only.
    fn guess(&self, request: &MessageRequest, body: usize) -> (ModelClass, Cost) {
        let size = request.estimate_size(body);
        let cost = Cost::request()
            .input_bytes(size.bytes)
            .cached(size.is_cached)
            .max_tokens(request.max_tokens);
        let is_fast = request.speed.as_deref() == Some("fast");
        let class = self.client.budget().class_for(&request.model, is_fast);
        (class, cost)
    }
}

/// The least `max_tokens` that takes more than ten minutes at 128,000 tokens an hour, which is
/// what the official clients assume: 600 s × 128,000 / 3600 s = 21,333.3.
const TOO_LONG: u64 = 21_334;

/// What counting the input of a request may take, before it is guessed.
const LONGEST_COUNT: Duration = Duration::from_secs(10);

const PATH: &str = "/v1/messages";

fn too_long(max_tokens: u64) -> Error {
    let what = format!("an answer of {max_tokens} tokens in one piece may take over ten minutes");
    Error::rejected(format!("POST {PATH}"), what)
        .with_advice("let the client stream underneath, set a timeout, or lower max_tokens")
}
