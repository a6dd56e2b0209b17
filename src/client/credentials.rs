//! The headers that prove who is calling.

use crate::error::{Error, Result};
use crate::http::Headers;

/// Sets the header of an API key. Errors call the key `label`, such as the name of a variable.
pub(super) fn set_api_key(headers: &mut Headers, label: &str, key: &str) -> Result<()> {
    check_secret(headers, label, key, API_KEY_HEADER)?;
    headers.set(API_KEY_HEADER, key)
}

/// Sets the header of a token. Errors call the token `label`, such as the name of a variable.
pub(super) fn set_auth_token(headers: &mut Headers, label: &str, token: &str) -> Result<()> {
    check_secret(headers, label, token, AUTH_TOKEN_HEADER)?;
    headers.set(AUTH_TOKEN_HEADER, &format!("Bearer {token}"))
}

/// Returns an error for a secret that no server accepts, and if the header for the secret is set.
fn check_secret(headers: &Headers, label: &str, secret: &str, header: &str) -> Result<()> {
    if secret.is_empty() {
        return Err(Error::config(format!("{label} is empty")));
    }
    let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'');
    if secret.contains(is_odd) {
        return Err(Error::config(format!(
            "{label} contains a line break, a blank, a quotation mark or another character that no key \
             has"
        )));
    }
    if headers.contains(header) {
        return Err(Error::config(format!(
            "there is {label}, and a header {header} as well"
        )));
    }
    Ok(())
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
    if names.any(|name| headers.is_blank(name)) {
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

/// The names of the headers that prove who is calling. A request has exactly one of them.
pub(super) const CREDENTIAL_HEADERS: [&str; 2] = [API_KEY_HEADER, AUTH_TOKEN_HEADER];

const API_KEY_HEADER: &str = "x-api-key";
const AUTH_TOKEN_HEADER: &str = "authorization";
