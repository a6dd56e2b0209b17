//! Models by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::wire::{Absent, Field};

/// A model's id or alias, such as `claude-haiku-4-5`.
///
/// Any string goes: new models need no new version of this crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Model(String);

impl Model {
    /// Names a model.
    pub fn new(id: impl Into<String>) -> Model {
        Model(id.into())
    }

    /// The id as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for Model {}

impl Absent for Model {
    fn absent() -> Model {
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

impl From<&Model> for Model {
    fn from(model: &Model) -> Model {
        model.clone()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
