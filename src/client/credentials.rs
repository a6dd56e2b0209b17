//! The headers that prove who is calling.

use crate::error::{Error, Result};
use crate::http::Headers;

/// The names of the headers that prove who is calling. A request has exactly one of them.
pub(super) const CREDENTIAL_HEADERS: [&str; 2] = [API_KEY_HEADER, AUTH_TOKEN_HEADER];

const API_KEY_HEADER: &str = "x-api-key";
const AUTH_TOKEN_HEADER: &str = "authorization";

/// An API key or a token.
pub(super) struct Credential<'a> {
    /// The words for it in error texts, such as the name of a variable.
    pub(super) label: &'static str,
    pub(super) secret: &'a str,
}

impl Credential<'_> {
    /// Sets the header of an API key.
    pub(super) fn set_as_api_key(&self, headers: &mut Headers) -> Result<()> {
        self.set(headers, API_KEY_HEADER, self.secret)
    }

    /// Sets the header of a token.
    pub(super) fn set_as_auth_token(&self, headers: &mut Headers) -> Result<()> {
        let value = format!("Bearer {}", self.secret);
        self.set(headers, AUTH_TOKEN_HEADER, &value)
    }

    fn set(&self, headers: &mut Headers, name: &str, value: &str) -> Result<()> {
        let Credential { label, secret } = self;
        if secret.is_empty() {
            return Err(Error::config(format!("{label} is empty")));
        }
        let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'');
        if secret.contains(is_odd) {
            return Err(Error::config(format!(
                "{label} contains a line break, a blank, a quotation mark or another character that no \
                 key has"
            )));
        }
        if headers.contains(name) {
            return Err(Error::config(format!(
                "there is {label}, and a header {name} as well"
            )));
        }
        headers.set(name, value)
    }
}

/// Whether a header proves who is calling.
pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIAL_HEADERS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether one of the headers proves who is calling.
pub(super) fn has_credential(headers: &Headers) -> bool {
    CREDENTIAL_HEADERS.iter().any(|name| headers.contains(name))
}

/// Returns an error unless exactly one header proves who is calling, with a value.
pub(super) fn check_credentials(headers: &Headers) -> Result<()> {
    let mut names = CREDENTIAL_HEADERS.iter();
    if names.any(|name| headers.is_empty_text(name)) {
        return Err(empty_credential());
    }
    let count = CREDENTIAL_HEADERS
        .iter()
        .filter(|name| headers.contains(name))
        .count();
    match count {
        0 => Err(Error::config(
            "there is no API key; set ANTHROPIC_API_KEY, or give one",
        )),
        1 => Ok(()),
        _ => Err(Error::config(
            "there are two credentials, x-api-key and authorization",
        )),
    }
}

/// Returns the error for a header that should prove who is calling, and has no value.
pub(super) fn empty_credential() -> Error {
    Error::config("a header that should prove who is calling is empty")
}
