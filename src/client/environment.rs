//! The settings that a client takes from environment variables.

use std::env::{self, VarError};

use crate::error::{Error, Result};
use crate::http::Secret;

/// The values of `ANTHROPIC_API_KEY` and the like, for settings that are not set in code. By default
/// none is set.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    pub(super) api_key: Option<Secret>,
    pub(super) auth_token: Option<Secret>,
    pub(super) base_url: Option<Secret>,
    custom_headers: Option<Secret>,
    /// The first variable whose value cannot be read, as an error text.
    pub(super) problem: Option<String>,
}

impl Environment {
    /// Reads the variables of this process.
    pub(super) fn read() -> Environment {
        Environment::from_lookup(|name| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(format!("{name} is not valid Unicode")),
        })
    }

    /// Reads the variables by a function that returns the value of a variable, or an error text.
    pub(super) fn from_lookup(
        lookup: impl Fn(&str) -> std::result::Result<Option<String>, String>,
    ) -> Environment {
        let mut problem = None;
        let mut get = |name: &str| match lookup(name) {
            Ok(value) => value.and_then(trimmed).map(Secret),
            Err(text) => {
                problem.get_or_insert(text);
                None
            }
        };
        Environment {
            api_key: get(API_KEY),
            auth_token: get(AUTH_TOKEN),
            base_url: get(BASE_URL),
            custom_headers: get(CUSTOM_HEADERS),
            problem,
        }
    }

    /// Returns the name and the value of each custom header, or an error for a line without a colon.
    pub(super) fn custom_headers(&self) -> impl Iterator<Item = Result<(&str, &str)>> {
        let lines = self.custom_headers.iter().flat_map(|all| all.0.lines());
        let lines = lines.filter(|line| !line.trim().is_empty());
        lines.map(|line| match line.split_once(':') {
            Some((name, value)) => Ok((name.trim(), value.trim())),
            None => Err(Error::config(format!(
                "a line of {CUSTOM_HEADERS} has no colon"
            ))),
        })
    }
}

/// Returns the value of a variable of this process; `None` if it is unset, blank or not Unicode.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().and_then(trimmed)
}

/// Returns a function that adds to an error that its cause is the value of this variable.
pub(super) fn name_variable(variable: &str) -> impl Fn(Error) -> Error {
    move |error| error.with_reason(format!("the value comes from {variable}"))
}

fn trimmed(value: String) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

pub(super) const API_KEY: &str = "ANTHROPIC_API_KEY";
pub(super) const AUTH_TOKEN: &str = "ANTHROPIC_AUTH_TOKEN";
pub(super) const BASE_URL: &str = "ANTHROPIC_BASE_URL";
pub(super) const CUSTOM_HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";
