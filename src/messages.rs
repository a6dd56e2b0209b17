//! Messages: create one, count its tokens.

use serde::Deserialize;

use crate::call::{Call, encode, read_json};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::types::{CountBody, CreateBody, Message, MessageRequest};

impl Client {
    /// The Messages endpoints.
    pub fn messages(&self) -> Messages<'_> {
        Messages { client: self }
    }
}

/// The Messages endpoints; see [`Client::messages`].
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a> {
    client: &'a Client,
}

impl Messages<'_> {
    /// Asks the model and waits for the whole answer.
    ///
    /// Blocks until the answer is there, through rate limits and overloads, for as long as the
    /// client's [`RetryPolicy`](crate::RetryPolicy) and deadline permit.
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
    /// # Errors
    ///
    /// Any [`ErrorKind`](crate::ErrorKind) but `Stream`. In particular `InvalidRequest` before
    /// anything is sent when `max_tokens` is so large that the answer may take more than ten
    /// minutes, and no [`timeout`](crate::ClientBuilder::timeout) was set.
    pub fn create(&self, request: &MessageRequest) -> Result<Message> {
        let settings = self.client.settings();
        if settings.timeout.is_none() && request.max_tokens >= TOO_LONG {
            return Err(Error::refused(
                "POST /v1/messages",
                format!(
                    "an answer of {} tokens may take more than ten minutes",
                    request.max_tokens
                ),
            )
            .with_advice("set a timeout on the client, or lower max_tokens below 21334"));
        }
        let body = encode(&CreateBody {
            request,
            stream: false,
        })?;
        let call = Call {
            answer_timeout: Some(settings.timeout.unwrap_or(Client::DEFAULT_TIMEOUT)),
            ..self.client.call("POST", "/v1/messages", Some(&body))
        };
        let (mut message, exchange) =
            call.run(|answer| read_json::<Message>(answer, "a message"))?;
        message.exchange = exchange;
        Ok(message)
    }

    /// Counts the input tokens of a request without asking the model; free of charge, under a rate
    /// limit of its own.
    ///
    /// The count is the server's estimate of all input, cached or not. Blocks like
    /// [`create`](Messages::create), but for an answer of milliseconds.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Messages::create).
    pub fn count_tokens(&self, request: &MessageRequest) -> Result<u64> {
        #[derive(Deserialize)]
        struct Count {
            input_tokens: u64,
        }
        let body = encode(&CountBody(request))?;
        let call = Call {
            repeatable: true,
            ..self
                .client
                .call("POST", "/v1/messages/count_tokens", Some(&body))
        };
        let (count, _) = call.run(|answer| read_json::<Count>(answer, "a token count"))?;
        Ok(count.input_tokens)
    }
}

/// The least `max_tokens` that takes more than ten minutes at 128,000 tokens an hour, which is
/// what the official clients assume: 600 s × 128,000 / 3600 s = 21,333.3.
const TOO_LONG: u64 = 21_334;
