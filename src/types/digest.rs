//! A digest of bytes that is equal in every version of this crate: 64-bit FNV-1a.

use serde::Serialize;

/// A 64-bit FNV-1a digest. Not cryptographic: it tells requests apart, and protects nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Creates the digest of no bytes.
    pub(crate) fn new() -> Digest {
        Digest(OFFSET_BASIS)
    }

    /// Creates the digest of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Digest {
        let mut digest = Digest::new();
        digest.add(bytes);
        digest
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// Adds a value's JSON text. A value that cannot be written adds nothing: it cannot be sent
    /// either.
    pub(crate) fn add_json(&mut self, value: &(impl Serialize + ?Sized)) {
        if let Ok(json) = serde_json::to_vec(value) {
            self.add(&json);
        }
    }

    /// Returns the digest as 16 hexadecimal digits.
    pub(crate) fn to_hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Offset basis of 64-bit FNV-1a.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Prime of 64-bit FNV-1a.
const PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_matches_the_published_vectors() {
        assert_eq!(Digest::of(b"").to_hex(), "cbf29ce484222325");
        assert_eq!(Digest::of(b"foobar").to_hex(), "85944171f73967e8");
        let mut digest = Digest::of(b"foo");
        digest.add(b"bar");
        assert_eq!(digest, Digest::of(b"foobar"));
    }
}
