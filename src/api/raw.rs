//! Any endpoint by its path, for endpoints that have no method of their own.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::endpoint::check_path;
use crate::api::pages::Pages;
use crate::call::encode;
use crate::call::response::{Failure, cut, is_cut, read_bytes};
use crate::client::{Client, Options};
use crate::error::{Cause, Error, Result, json_error};
use crate::http::Response;
use crate::types::{Attempt, ErrorKind, RateLimits, RequestId, ResponseMeta, Waits};

impl Client {
    /// Returns methods for any endpoint by its path, for endpoints that this crate has no method
    /// for.
    ///
    /// The calls have the client's headers and retries, like all others. The
    /// [budget](Client::budget) does not limit them: a rate limit or an overload delays only the
    /// call that met it. The exception is everything below `/v1/messages/batches`, which waits in
    /// the queue of the batches. A response is read as a whole, up to 128 MiB.
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
    /// Sends `GET` to a path, which may have a query, such as `/v1/files?limit=5`.
    ///
    /// Blocks until the response was read, like other calls. Reading a large response may take any
    /// time, as long as data keeps arriving within the idle timeout.
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`] but `Stream`; `InvalidRequest`, before anything is sent, if `path` is no
    /// path: it must begin with `/`, and other characters than those of a URL must be
    /// percent-encoded.
    pub fn get(&self, path: &str) -> Result<RawResponse> {
        self.send("GET", path, None)
    }

    /// Sends `POST` with JSON to a path. If the outcome of an attempt is unknown, the request is
    /// repeated as often as [`RetryPolicy::max_repeats`](crate::RetryPolicy::max_repeats) says.
    ///
    /// Blocks until the response was read; it must begin within the client's
    /// [`timeout`](crate::ClientBuilder::timeout).
    ///
    /// # Errors
    ///
    /// Those of [`get`](Raw::get).
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<RawResponse> {
        self.send("POST", path, Some(&encode(body)?))
    }

    /// Sends `POST` with bytes of any content type to a path, such as a file to be uploaded. Blocks
    /// and repeats the request as [`post`](Raw::post) does.
    ///
    /// ```
    /// use anthropic_blocking::{Client, Result};
    ///
    /// /// Uploads a text, and returns what the server says about the file.
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
    /// Those of [`get`](Raw::get); `Config` for a content type that cannot be a header.
    pub fn post_bytes(&self, path: &str, content_type: &str, bytes: &[u8]) -> Result<RawResponse> {
        let options = Options::new().header("content-type", content_type)?;
        let client = self.client.with(options);
        client.raw().send("POST", path, Some(bytes))
    }

    /// Sends `DELETE` to a path. Blocks as [`get`](Raw::get) does; repeats the request as
    /// [`post`](Raw::post) does.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Raw::get).
    pub fn delete(&self, path: &str) -> Result<RawResponse> {
        self.send("DELETE", path, None)
    }

    /// Returns a list of any endpoint, whether it is paged by tokens (`next_page`), such as the
    /// list of files, or by ids (`has_more`, `last_id`). Its items are of the type `T`, which may
    /// be [`serde_json::Value`]. The path may have a query, `/v1/models?lifecycle[]=retired`, also
    /// one that says where to begin. Sends nothing before the first `next`.
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

    fn send(&self, method: &'static str, path: &str, body: Option<&[u8]>) -> Result<RawResponse> {
        check_path(method, path)?;
        let mut call = self.client.call(method, path, body);
        call.repeatable = method == "GET";
        if body.is_none() {
            // The default of ten minutes would be too short for a large file.
            call.response_timeout = self.client.settings().timeout;
        }
        let (mut raw, meta) = call.run_without_tokens(read_raw)?;
        raw.meta = meta;
        Ok(raw)
    }
}

/// Reads a whole response, without its `meta`.
fn read_raw(response: &mut Response) -> Result<RawResponse, Failure> {
    let (body, is_whole) = read_bytes(response)?;
    if is_cut(response, &body) {
        return Err(cut());
    }
    if !is_whole {
        let cause = Cause::unreadable("at most 128 MiB long", None);
        return Err(Failure::responded(cause));
    }
    let headers = response.headers();
    Ok(RawResponse {
        body,
        status: response.status,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        meta: ResponseMeta::default(),
    })
}

/// A response as the server sent it, from [`Client::raw`].
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
/// let response = client.raw().get("/v1/files/file_01Example")?;
/// println!("{} ({:?})", response.json::<File>()?.filename, response.request_id());
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

impl RawResponse {
    /// Returns the status, always one of success: any other status is an error of the call.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header of this name, in upper or lower case. A header whose value is no
    /// text counts as missing.
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

    /// Parses the body as JSON of the type `T`, which may be [`serde_json::Value`].
    ///
    /// # Errors
    ///
    /// Kind [`Decode`](ErrorKind::Decode) if the body is no JSON of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let cause = Cause::unreadable("JSON of the expected shape", Some(json_error(&error)));
            Error::new(ErrorKind::Decode, "reading the response", cause)
                .with_response(self.meta.request_id.clone(), self.meta.rate_limits.clone())
                .with_attempts(self.meta.attempts.clone())
        })
    }

    /// Returns the body as text; bytes that are not UTF-8 become `U+FFFD`.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the id under which the server logged the request, if it sent one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.meta.request_id.as_ref()
    }

    /// Returns the rate limits from the response headers.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.meta.rate_limits
    }

    /// Returns every HTTP attempt of the call; the successful one is the last.
    ///
    /// ```
    /// use anthropic_blocking::Client;
    /// use anthropic_blocking::testing::{ManualClock, Reply, TestServer};
    ///
    /// let (server, clock) = (TestServer::start()?, ManualClock::new());
    /// let builder = Client::builder().api_key("test").base_url(server.base_url());
    /// let client = builder.clock(&clock).build()?;
    /// server.push(Reply::html(502, "502 Bad Gateway"));
    /// let response = client.raw().get("/v1/models")?;
    /// let statuses: Vec<_> = response.attempts().iter().map(|attempt| attempt.status).collect();
    /// assert_eq!(statuses, [Some(502), Some(200)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempts(&self) -> &[Attempt] {
        &self.meta.attempts
    }

    /// Returns how long the attempts waited before they were sent, and for what.
    pub fn waited(&self) -> Waits {
        self.meta.waited()
    }
}
