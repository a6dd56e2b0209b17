//! Request headers, and the credentials among them.

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Result, sanitize};

/// Request headers, each checked when it is set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    pub(super) map: HeaderMap,
}

impl Headers {
    /// Sets a header, replacing those with the same name. Its value is never printed.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = parse_header(name, value)?;
        self.map.insert(name, value);
        Ok(())
    }

    /// Appends a value to a header that is a list, after a comma.
    pub(crate) fn append(&mut self, name: &str, value: &str) -> Result<()> {
        let joined = match self.map.get(name).and_then(|values| values.to_str().ok()) {
            Some(values) => format!("{values},{value}"),
            None => value.to_owned(),
        };
        self.set(name, &joined)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Whether a header is there and holds nothing but white space.
    pub(crate) fn is_blank(&self, name: &str) -> bool {
        self.map
            .get(name)
            .is_some_and(|value| value.as_bytes().trim_ascii().is_empty())
    }

    /// Returns the API key and the token among the headers.
    pub(super) fn credentials(&self) -> Credentials {
        Credentials {
            values: ["x-api-key", "authorization"].map(|name| self.map.get(name).cloned()),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.map.remove(name);
    }

    /// Returns the names and values.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.map
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }
}

/// The headers by which a request proves who sends it. Some gateways repeat them in a response, from
/// which they must be removed before people see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    values: [Option<HeaderValue>; 2],
}

impl Credentials {
    /// Overwrites the secrets with asterisks wherever they appear in a text.
    pub(super) fn hide(&self, text: &mut [u8]) {
        for secret in self.secrets() {
            let mut start = 0;
            while let Some(piece) = text.get_mut(start..start + secret.len()) {
                if piece == secret {
                    piece.fill(b'*');
                }
                start += 1;
            }
        }
    }

    /// Whether one of the secrets appears in a text.
    pub(super) fn appear_in(&self, text: &str) -> bool {
        let is_in = |secret: &[u8]| text.as_bytes().windows(secret.len()).any(|w| w == secret);
        self.secrets().any(is_in)
    }

    /// Returns the values without schemes such as `Bearer`. Short values are left out: they may be
    /// ordinary words.
    fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let values = self.values.iter().flatten().map(HeaderValue::as_bytes);
        let bare = values.filter_map(|value| value.rsplit(|byte| *byte == b' ').next());
        bare.filter(|secret| secret.len() >= MIN_SECRET_LENGTH)
    }
}

/// The least length of a secret in bytes; every real key is longer.
const MIN_SECRET_LENGTH: usize = 12;

/// Checks a header; errors do not contain its value.
fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let shown = sanitize(name, 60);
    let Ok(parsed) = HeaderName::try_from(name) else {
        return Err(Error::config(format!(
            "{shown:?} is not a valid header name"
        )));
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

/// Headers that the transport sets: other values would break the framing of the request.
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
        assert_eq!(headers.map["anthropic-beta"], "a,b");
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
