//! Any endpoint by its path, for those that have no method of their own.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::endpoint::check_path;
use crate::api::pages::Pages;
use crate::call::encode;
use crate::call::response::{Failure, cut, is_cut, read_bytes};
use crate::client::{Client, Options};
use crate::error::{Cause, Error, Result, json_error};
use crate::types::{Attempt, ErrorKind, RateLimits, RequestId, ResponseMeta, Waits};

impl Client {
    /// Any endpoint by its path, for those that this crate has no method for yet.
    ///
    /// The calls have the client's headers and retries, like all others. The
    /// [budget](Client::budget) does not know them: a rate limit or an overload is waited out by the
    /// call that met it. Only what is below `/v1/messages/batches` waits in the line of the batches,
    /// as their own calls do. An answer is read at once, and may have 128 MiB.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    ///
    /// let client = Client::from_env()?;
    /// let files: serde_json::Value = client.raw().get("/v1/files?limit=5")?.json()?;
    /// println!("{files:#}");
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn raw(&self) -> Raw<'_> {
        Raw { client: self }
    }
}

/// Any endpoint by its path; see [`Client::raw`].
///
/// ```
/// use anthropic_blocking::{Client, Result};
/// use serde_json::json;
///
/// # fn count(client: &Client) -> Result<()> {
/// let body = json!({
///     "model": "claude-haiku-4-5",
///     "messages": [{"role": "user", "content": "Name one prime."}],
/// });
/// let count = client.raw().post("/v1/messages/count_tokens", &body)?;
/// println!("{}", count.json::<serde_json::Value>()?["input_tokens"]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    client: &'a Client,
}

impl<'a> Raw<'a> {
    /// Reads from a path, which may have a query, such as `/v1/files?limit=5`.
    ///
    /// Blocks until the answer is there, as the other calls do; a large one may take as long as it
    /// takes, while it comes.
    ///
    /// ```
    /// # fn show(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// let file = client.raw().get("/v1/files/file_01Example/content")?;
    /// println!("{} bytes", file.body.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`] but `Stream`; `InvalidRequest` for what is no path: it must begin
    /// with `/`, and what no path may contain must be percent-encoded.
    pub fn get(&self, path: &str) -> Result<RawResponse> {
        self.run("GET", path, None, true)
    }

    /// Sends JSON to a path. A request whose outcome is unknown is repeated as often as
    /// [`RetryPolicy::max_repeats`](crate::RetryPolicy::max_repeats) says.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    /// use serde_json::json;
    ///
    /// # fn count(client: &Client) -> Result<()> {
    /// let messages = json!([{"role": "user", "content": "Name one prime."}]);
    /// let body = json!({"model": "claude-haiku-4-5", "messages": messages});
    /// println!("{}", client.raw().post("/v1/messages/count_tokens", &body)?.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`get`](Raw::get).
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<RawResponse> {
        self.run("POST", path, Some(&encode(body)?), false)
    }

    /// Sends bytes of any kind to a path, such as a file to be uploaded. They are repeated as those
    /// of [`post`](Raw::post).
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    ///
    /// /// Uploads a text, whatever is in it, and gives what the server says about it.
    /// fn upload(client: &Client, name: &str, text: &str) -> Result<serde_json::Value> {
    ///     let boundary = "5d4b8f0e-c3a7-4f7e-9a61-2f0e1b7c8d90";
    ///     let head = format!(
    ///         "--{boundary}\r\n\
    ///          content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
    ///          content-type: text/plain\r\n\r\n"
    ///     );
    ///     let body = format!("{head}{text}\r\n--{boundary}--\r\n");
    ///     let content_type = format!("multipart/form-data; boundary={boundary}");
    ///     client.raw().post_bytes("/v1/files", &content_type, body.as_bytes())?.json()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`get`](Raw::get); `Config` for a content type that cannot be sent.
    pub fn post_bytes(&self, path: &str, content_type: &str, bytes: &[u8]) -> Result<RawResponse> {
        let options = Options::new().header("content-type", content_type)?;
        let client = self.client.with(options);
        client.raw().run("POST", path, Some(bytes), false)
    }

    /// Deletes what is at a path.
    ///
    /// ```
    /// # fn remove(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// client.raw().delete("/v1/files/file_01Example")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`get`](Raw::get).
    pub fn delete(&self, path: &str) -> Result<RawResponse> {
        self.run("DELETE", path, None, false)
    }

    fn run(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&[u8]>,
        repeatable: bool,
    ) -> Result<RawResponse> {
        check_path(method, path)?;
        let settings = self.client.settings();
        let mut call = self.client.call(method, path, body);
        call.repeatable = repeatable;
        if body.is_none() {
            // A file may take its time, as long as it comes.
            call.answer_timeout = settings.timeout;
        }
        let ((status, headers, body), meta) = call.ask(|answer| {
            let (body, whole) = read_bytes(answer)?;
            if is_cut(answer, &body) {
                return Err(cut());
            }
            if whole {
                return Ok((answer.status, owned(answer.headers()), body));
            }
            let cause = Cause::unreadable("of a size to be read at once", None);
            Err(Failure::answered(cause))
        })?;
        Ok(RawResponse {
            body,
            status,
            headers,
            meta,
        })
    }

    /// A list of any endpoint, whether its pages are turned by tokens (`next_page`), such as that of
    /// files, or by ids (`has_more`, `last_id`); its items as a type of yours, or as
    /// [`serde_json::Value`]. The path may have a query, `/v1/models?lifecycle[]=retired`, also one that
    /// says where to begin.
    ///
    /// ```no_run
    /// use anthropic_blocking::Client;
    /// use serde_json::Value;
    ///
    /// let client = Client::from_env()?;
    /// for file in client.raw().pages::<Value>("/v1/files").limit(1000) {
    ///     println!("{}", file?["filename"]);
    /// }
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn pages<T: DeserializeOwned>(&self, path: impl Into<String>) -> Pages<'a, T> {
        Pages::by_token(self.client, path)
    }
}

/// An answer as it came, from [`Client::raw`].
///
/// ```
/// use anthropic_blocking::{Client, Result};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct File {
///     filename: String,
/// }
///
/// # fn show(client: &Client) -> Result<()> {
/// let answer = client.raw().get("/v1/files/file_01Example")?;
/// println!("{} ({:?})", answer.json::<File>()?.filename, answer.request_id());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RawResponse {
    /// The bytes of the body.
    pub body: Vec<u8>,
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    meta: ResponseMeta,
}

fn owned<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl RawResponse {
    /// The status, one of success: every other is an error.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// server.push(Reply::json(202, r#"{"status": "queued"}"#));
    /// let answer = client.raw().get("/v1/jobs/job_01Example")?;
    /// assert_eq!(answer.status(), 202);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header, by its name in upper or lower case; the first, where there are several. One that is
    /// no text counts as missing.
    ///
    /// ```
    /// # fn show(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// let file = client.raw().get("/v1/files/file_01Example/content")?;
    /// println!("{} bytes of {:?}", file.body.len(), file.header("content-type"));
    /// # Ok(()) }
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Reads the body as JSON of a type of yours, or as a [`serde_json::Value`].
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    /// use serde_json::Value;
    ///
    /// # fn show(client: &Client) -> Result<()> {
    /// let file: Value = client.raw().get("/v1/files/file_01Example")?.json()?;
    /// println!("{}", file["filename"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Decode`](ErrorKind::Decode) when the body is no JSON, or not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let cause = Cause::unreadable("JSON of the expected shape", Some(json_error(&error)));
            Error::new(ErrorKind::Decode, "reading the answer", cause)
                .with_answer(self.meta.request_id.clone(), self.meta.rate_limits.clone())
                .with_attempts(self.meta.attempts.clone())
        })
    }

    /// The body as text; what is not UTF-8 is replaced.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// server.push(Reply::json(200, r#"{"deleted": true}"#));
    /// let answer = client.raw().delete("/v1/files/file_01Example")?;
    /// assert_eq!(answer.text(), r#"{"deleted": true}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The id under which the server logged the meta, where it sent one.
    ///
    /// ```
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// let answer = client.raw().get("/v1/models")?;
    /// let id = answer.request_id().map(ToString::to_string);
    /// assert_eq!(id.as_deref(), Some("req_test_000001"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// What the response headers said about rate limits.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    /// use std::time::Duration;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).build()?;
    /// server.push(Reply::json(200, r#"{"status": "running"}"#).header("retry-after", "5"));
    /// let answer = client.raw().get("/v1/jobs/job_01Example")?;
    /// assert_eq!(answer.rate_limits().retry_after, Some(Duration::from_secs(5)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Every HTTP meta that this answer took, the successful one last.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// server.push(Reply::html(502, "502 Bad Gateway"));
    /// let answer = client.raw().get("/v1/models")?;
    /// let statuses: Vec<Option<u16>> = answer.attempts().iter().map(|one| one.status).collect();
    /// assert_eq!(statuses, [Some(502), Some(200)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// How long the attempts waited before they were sent, and for what.
    ///
    /// ```
    /// use anthropic_blocking::testing::Reply;
    ///
    /// # let server = anthropic_blocking::testing::TestServer::start()?;
    /// # let clock = anthropic_blocking::testing::ManualClock::new();
    /// # let builder = anthropic_blocking::Client::builder().api_key("test");
    /// # let client = builder.base_url(server.base_url()).clock(&clock).build()?;
    /// server.push(Reply::status(503));
    /// let answer = client.raw().get("/v1/models")?;
    /// assert_eq!(answer.waited().total(), clock.elapsed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }
}
