//! Model names, and the information that the server gives about models.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::{JsonView, ParsedJson};
use super::wire::{Mismatch, WireDefault, WireValue, open_enum, wire_struct};

/// A model's id or alias, such as `claude-haiku-4-5`.
///
/// Every string is accepted, so that new models need no new version of this crate.
///
/// ```
/// use anthropic_blocking::{MessageRequest, Model};
///
/// let model = Model::new("claude-haiku-4-5");
/// let request = MessageRequest::new(&model, 64).user("Hello?");
/// assert_eq!(request.model.as_str(), "claude-haiku-4-5");
///
/// // For command-line parsers; parsing never fails.
/// let parsed: Model = "claude-haiku-4-5".parse()?;
/// assert_eq!(parsed, model);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Model(String);

impl Model {
    /// Creates a model name from any string.
    pub fn new(id: impl Into<String>) -> Model {
        Model(id.into())
    }

    /// Returns the id as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id without the suffix of a snapshot: `-20251001`, `@20251001` or `-latest`.
    pub(crate) fn undated_id(&self) -> &str {
        match self.0.rsplit_once(['-', '@']) {
            Some((line, "latest")) => line,
            Some((line, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => {
                line
            }
            _ => &self.0,
        }
    }
}

impl WireValue for Model {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        WireValue::read(json).map(Model)
    }

    fn write(&self) -> JsonView<'_> {
        JsonView::Text(&self.0)
    }
}

impl WireDefault for Model {
    fn wire_default() -> Model {
        Model(String::new())
    }
}

impl From<&str> for Model {
    fn from(id: &str) -> Model {
        Model(id.to_owned())
    }
}

impl From<String> for Model {
    fn from(id: String) -> Model {
        Model(id)
    }
}

impl From<&String> for Model {
    fn from(id: &String) -> Model {
        Model(id.clone())
    }
}

impl FromStr for Model {
    type Err = Infallible;

    fn from_str(id: &str) -> Result<Model, Infallible> {
        Ok(Model::from(id))
    }
}

impl From<&Model> for Model {
    fn from(model: &Model) -> Model {
        model.clone()
    }
}

impl AsRef<str> for Model {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

open_enum! {
    /// Whether a model is available, and for how much longer.
    ///
    /// ```
    /// use anthropic_blocking::{Lifecycle, ModelInfo};
    ///
    /// # fn warn(info: &ModelInfo) {
    /// if info.lifecycle == Some(Lifecycle::Deprecated) {
    ///     eprintln!("{} will be retired at {:?}", info.id, info.retires_at);
    /// }
    /// # }
    /// ```
    pub enum Lifecycle {
        /// The model is available.
        Active = "active",
        /// The model is still available but will be retired.
        Deprecated = "deprecated",
        /// The model is no longer available.
        Retired = "retired",
    }
}

wire_struct! {
    /// Information about a model, as the models endpoint returns it.
    ///
    /// ```
    /// use anthropic_blocking::{MessageRequest, ModelInfo};
    ///
    /// # fn longest(info: &ModelInfo) -> MessageRequest {
    /// // Permits the longest output that the model can generate.
    /// MessageRequest::new(info, info.max_tokens.unwrap_or(4096))
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ModelInfo {
        /// The model's id, as requests name it.
        req id: Model,
        /// Always `model`.
        def kind = "type": String,
        /// The model's name for people.
        def display_name: String,
        /// The release time, such as `2026-06-30T00:00:00Z`; may be in 1970 if it is unknown.
        opt created_at: String,
        /// The most input tokens of a request.
        opt max_input_tokens: u64,
        /// The most output tokens: the largest `max_tokens` that a request can have.
        opt max_tokens: u64,
        /// The model line, such as `haiku`, `sonnet` or `opus`.
        opt line: String,
        /// Whether the model is available.
        opt lifecycle: Lifecycle,
        /// When the model was deprecated.
        opt deprecated_at: String,
        /// The planned retirement time. May lie in the past for a model that is still available.
        opt retires_at: String,
        /// The capabilities, such as `batch`, `image_input` and `thinking`, each an object with a
        /// boolean `supported`.
        opt capabilities: Map<String, Value>,
    }
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Model {
        info.id
    }
}

impl From<&ModelInfo> for Model {
    fn from(info: &ModelInfo) -> Model {
        info.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn model_is_created_from_any_string_type() {
        let id = String::from("m");
        let models = [Model::from(&id), Model::from("m"), "m".parse().unwrap()];
        assert!(models.iter().all(|model| *model == Model::new(&id)));
    }

    #[test]
    fn model_info_round_trips() {
        for json in [
            json!({"type":"model","id":"m","display_name":"M","created_at":"1970-01-01T00:00:00Z",
                "max_tokens":64_000,"line":null,"lifecycle":"resting","capabilities":{"batch":
                {"supported":true}},"new":[1]}),
            json!({"id":"m"}),
            json!({"id":"m","capabilities":null,"max_input_tokens":"many"}),
        ] {
            let info: ModelInfo = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&info).unwrap(), json);
            assert_eq!(Model::from(&info).as_str(), "m");
        }
    }
}
