//! The endpoints of the Models API: list the models, and get one model's capabilities.

use crate::api::endpoint::path_with_id;
use crate::api::pages::Pages;
use crate::client::Client;
use crate::error::Result;
use crate::types::{Model, ModelInfo};

impl Client {
    /// Returns the methods of the Models API.
    pub fn models(&self) -> Models<'_> {
        Models { client: self }
    }
}

/// The Models API; see [`Client::models`].
///
/// Each attempt of a call may take as long as the client's
/// [`timeout`](crate::ClientBuilder::timeout); if none is set, as long as the client's
/// [`idle_timeout`](crate::ClientBuilder::idle_timeout), by default 180 s. Failures are retried by
/// the client's retry policy, at most until the client's deadline.
///
/// ```
/// use anthropic_blocking::{Models, Result};
///
/// fn names(models: Models<'_>) -> Result<Vec<String>> {
///     models.list().map(|model| Ok(model?.display_name)).collect()
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    client: &'a Client,
}

impl<'a> Models<'a> {
    /// Lists the models that the API key may use, the newest first, without the retired ones:
    /// `GET /v1/models`. The iterator requests each page when it needs the page's first item.
    ///
    /// ```no_run
    /// use anthropic_blocking::{Client, ModelInfo, Result};
    ///
    /// let client = Client::from_env()?;
    /// let models: Vec<ModelInfo> = client.models().list().collect::<Result<_>>()?;
    /// println!("{} models", models.len());
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    pub fn list(&self) -> Pages<'a, ModelInfo> {
        Pages::by_id(self.client, PATH)
    }

    /// Fetches one model by its id or an alias: `GET /v1/models/{id}`. Blocks until the response.
    ///
    /// ```
    /// # fn show(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// let info = client.models().get("claude-haiku-4-5")?;
    /// println!("{}: messages of up to {:?} tokens", info.display_name, info.max_tokens);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`NotFound`](crate::ErrorKind::NotFound) if there is no such model, or the API key may
    /// not use the model; `InvalidRequest` for an empty id, before anything is sent. Otherwise the
    /// errors of any call.
    pub fn get(&self, id: impl Into<Model>) -> Result<ModelInfo> {
        let path = path_with_id("GET", PATH, id.into().as_str())?;
        let (info, _) = self.client.request_json("GET", &path, "a model")?;
        Ok(info)
    }
}

const PATH: &str = "/v1/models";
