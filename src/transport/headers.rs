//! Request headers.

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Result, clean};

/// Request headers, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(pub(super) HeaderMap);

impl Headers {
    /// Sets a header in place of others of its name. A value is never printed.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = header(name, value)?;
        self.0.insert(name, value);
        Ok(())
    }

    /// Adds a value to a header that is a list, separated by a comma.
    pub(crate) fn append(&mut self, name: &str, value: &str) -> Result<()> {
        let joined = match self.0.get(name).and_then(|values| values.to_str().ok()) {
            Some(values) => format!("{values},{value}"),
            None => value.to_owned(),
        };
        self.set(name, &joined)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn is_empty_text(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|value| value.as_bytes().trim_ascii().is_empty())
    }

    /// What proves who is calling.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &str> {
        let values = ["x-api-key", "authorization"].into_iter();
        let values = values.filter_map(|name| self.0.get(name)?.to_str().ok());
        // Without the scheme.
        values.filter_map(|value| value.rsplit(' ').next())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Names and values, for tests.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.0
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let shown = clean(name, 60);
    let Ok(parsed) = HeaderName::try_from(name) else {
        return Err(Error::config(format!("{shown:?} is no valid header name")));
    };
    if RESERVED.contains(&parsed.as_str()) {
        return Err(Error::config(format!(
            "the header {shown} is the client's own"
        )));
    }
    let Ok(mut value) = HeaderValue::try_from(value) else {
        return Err(Error::config(format!(
            "the value of the header {shown} contains a line break or another control character"
        )));
    };
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Headers that frame the exchange, and would break it.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "transfer-encoding",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_checked_and_never_shown() {
        let mut headers = Headers::default();
        headers.set("X-Api-Key", "sk-secret").expect("valid");
        headers.append("anthropic-beta", "a").expect("valid");
        headers.append("anthropic-beta", "b").expect("valid");
        assert_eq!(headers.0["anthropic-beta"], "a,b");
        assert!(!format!("{headers:?}").contains("sk-secret"));
        for (name, value) in [
            ("a b", "v"),
            ("", "v"),
            ("a", "v\n"),
            ("Host", "v"),
            ("a", "\0"),
        ] {
            assert!(headers.set(name, value).is_err(), "{name:?}: {value:?}");
        }
    }
}
