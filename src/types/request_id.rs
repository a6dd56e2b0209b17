//! The id that the server gives each request.

use std::fmt;

/// The id under which the server logged a request (`req_…`). Quote it when you ask for support.
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
    /// Reads an id from a header or a body, up to the first byte that is not graphic ASCII and to
    /// at most [`MAX_BYTES`]: ids appear in error texts and must not disrupt them. `None` if
    /// nothing is left.
    pub(crate) fn new(id: &str) -> Option<RequestId> {
        let id = id.trim();
        let graphic = id.bytes().take_while(u8::is_ascii_graphic);
        let end = graphic.take(MAX_BYTES).count();
        (end > 0).then(|| RequestId(id[..end].to_owned()))
    }

    /// Returns the id as the server sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The most bytes of an id. Real ids have fewer than 40.
const MAX_BYTES: usize = 200;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_ends_at_the_first_invalid_byte() {
        let of = |id: &str| RequestId::new(id).map(|id| id.to_string());
        assert_eq!(of(" req_1 ").as_deref(), Some("req_1"));
        assert_eq!(of("req_1\tforged").as_deref(), Some("req_1"));
        assert_eq!(of("req_\u{202e}1").as_deref(), Some("req_"));
        assert_eq!(of(&"a".repeat(300)), Some("a".repeat(200)));
        for none in ["", " ", "\u{7}req_1", "ü"] {
            assert_eq!(of(none), None);
        }
    }
}
