//! Request headers.

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Result, sanitize};

/// Request headers, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(pub(super) HeaderMap);

impl Headers {
    /// Sets a header in place of others of its name. A value is never printed.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = parse_header(name, value)?;
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
    pub(super) fn credentials(&self) -> Credentials {
        Credentials(["x-api-key", "authorization"].map(|name| self.0.get(name).cloned()))
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

/// What a request proves with who is calling: to be taken out of an answer that repeats it, as those
/// of some gateways do, before that is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials([Option<HeaderValue>; 2]);

impl Credentials {
    /// Writes over them, wherever they stand.
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

    /// Whether one of them stands there.
    pub(super) fn appear_in(&self, text: &str) -> bool {
        let is_in = |secret: &[u8]| text.as_bytes().windows(secret.len()).any(|w| w == secret);
        self.secrets().any(is_in)
    }

    /// Without their schemes. What is too short may be a word.
    fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let values = self.0.iter().flatten().map(HeaderValue::as_bytes);
        let bare = values.filter_map(|value| value.rsplit(|byte| *byte == b' ').next());
        bare.filter(|secret| secret.len() >= MIN_SECRET_LENGTH)
    }
}

/// No key has fewer bytes.
const MIN_SECRET_LENGTH: usize = 12;

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let shown = sanitize(name, 60);
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
