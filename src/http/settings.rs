//! What the connections of a client are made with.

use std::fmt;

/// What the connections are made with.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionSettings {
    pub(crate) user_agent: String,
    /// May contain a password.
    pub(crate) proxy: Option<Secret>,
    /// Where it was found, if code does not set it.
    pub(crate) proxy_variable: Option<String>,
    pub(crate) roots: Roots,
    pub(crate) native_tls: bool,
}

#[derive(Clone, Default)]
pub(crate) enum Roots {
    /// Mozilla's; with the operating system's TLS what that trusts.
    #[default]
    Usual,
    Pem(Vec<u8>),
    #[cfg_attr(
        not(feature = "platform-verifier"),
        expect(dead_code, reason = "set by a feature")
    )]
    Platform,
}

impl fmt::Debug for Roots {
    /// Without the file, which is long, and may have a private key in it as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Roots::Usual => "Usual",
            Roots::Pem(_) => "Pem",
            Roots::Platform => "Platform",
        })
    }
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
