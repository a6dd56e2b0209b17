//! Identifiers that the server gives.

use std::fmt;

/// The id under which the server logged an exchange (`req_…`): quote it when you ask for support.
///
/// ```
/// # fn show(error: &anthropic_blocking::Error) {
/// if let Some(id) = error.request_id() {
///     eprintln!("tell the support: {id}");
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Wraps an id; ids longer than 200 bytes are cut, because they end up in error texts.
    pub(crate) fn new(id: &str) -> Option<RequestId> {
        let id = id.trim();
        let end = (0..=id.len().min(200))
            .rev()
            .find(|&end| id.is_char_boundary(end))?;
        (end > 0).then(|| RequestId(id[..end].to_owned()))
    }

    /// The id as the server sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RequestId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
