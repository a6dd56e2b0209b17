//! Models: which there are, and what each can do.

use crate::api::endpoint::path_with_id;
use crate::api::pages::Pages;
use crate::client::Client;
use crate::error::Result;
use crate::types::{Model, ModelInfo};

impl Client {
    /// The Models endpoints.
    ///
    /// ```
    /// # fn newest(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// if let Some(newest) = client.models().list().next() {
    ///     println!("{}", newest?.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn models(&self) -> Models<'_> {
        Models { client: self }
    }
}

/// The Models endpoints; see [`Client::models`].
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
    /// Every model that this key may use, the newest first; retired ones are left out. An iterator
    /// that asks for a page when it needs one.
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

    /// One model, by its id or an alias of it.
    ///
    /// ```
    /// # fn show(client: &anthropic_blocking::Client) -> anthropic_blocking::Result<()> {
    /// let info = client.models().get("claude-haiku-4-5")?;
    /// println!("{}: answers of up to {:?} tokens", info.display_name, info.max_tokens);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`NotFound`](crate::ErrorKind::NotFound) when there is none of that name, or the key
    /// may not use it; else those of any call. `InvalidRequest` for an empty id, before anything
    /// is sent.
    pub fn get(&self, id: impl Into<Model>) -> Result<ModelInfo> {
        let path = path_with_id("GET", PATH, id.into().as_str())?;
        let (info, _) = self.client.request_json("GET", &path, "a model")?;
        Ok(info)
    }
}

const PATH: &str = "/v1/models";
