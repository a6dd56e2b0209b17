//! The requests to the Message Batches endpoints that take and return little.

use serde::de::IgnoredAny;

use crate::api::endpoint::path_with_id;
use crate::api::pages::Pages;
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::types::{Delivery, MessageBatch};

/// Fetches the state of a batch.
pub(super) fn get(client: &Client, id: &str) -> Result<MessageBatch> {
    request_batch(client, "GET", &path_with_id("GET", PATH, id)?)
}

/// The list of batches, the newest first. Sends nothing before the first `next`.
pub(super) fn list(client: &Client) -> Pages<'_, MessageBatch> {
    Pages::by_id(client, PATH)
}

/// Asks the server to cancel a batch.
pub(super) fn cancel(client: &Client, id: &str) -> Result<MessageBatch> {
    let path = path_with_id("POST", PATH, id)?;
    request_batch(client, "POST", &format!("{path}/cancel"))
}

/// Deletes a batch that has ended.
pub(super) fn delete(client: &Client, id: &str) -> Result<()> {
    let path = path_with_id("DELETE", PATH, id)?;
    match client.request_json::<IgnoredAny>("DELETE", &path, "JSON") {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // An attempt whose response was lost may have deleted the batch.
            let is_unknown = |delivery| delivery == Delivery::Unknown;
            let attempts = error.attempts();
            match attempts.iter().any(|it| is_unknown(it.delivery)) {
                true => Ok(()),
                false => Err(error),
            }
        }
        other => other.map(drop),
    }
}

fn request_batch(client: &Client, method: &'static str, path: &str) -> Result<MessageBatch> {
    let (mut batch, meta) = client.request_json::<MessageBatch>(method, path, EXPECTED)?;
    batch.meta = meta;
    Ok(batch)
}

pub(super) const PATH: &str = "/v1/messages/batches";

/// What a response should have been, for the text of an error.
pub(super) const EXPECTED: &str = "a batch";
