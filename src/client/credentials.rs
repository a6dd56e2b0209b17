//! The headers that prove who is calling.

/// The headers that prove who is calling; exactly one of them is sent.
pub(super) const CREDENTIALS: [&str; 2] = ["x-api-key", "authorization"];

pub(super) const EMPTY_CREDENTIAL: &str = "a header that should prove who is calling is empty";

pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIALS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}
