//! What the connections of a client are made with.

use std::fmt;

/// The settings of the connections of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionSettings {
    pub(crate) user_agent: String,
    /// The URL of the proxy, which may contain a password.
    pub(crate) proxy: Option<Secret>,
    /// The environment variable that named the proxy, if one did.
    pub(crate) proxy_variable: Option<String>,
    pub(crate) roots: Roots,
    /// Whether the operating system's TLS is used instead of rustls.
    pub(crate) native_tls: bool,
}

/// The certificates that a client trusts.
#[derive(Clone, Default)]
pub(crate) enum Roots {
    /// Mozilla's certificates with rustls, the operating system's with the operating system's TLS.
    #[default]
    Default,
    /// The certificates in this PEM text.
    Pem(Vec<u8>),
    /// The operating system's certificates.
    #[cfg_attr(
        not(feature = "platform-verifier"),
        expect(dead_code, reason = "set by a feature")
    )]
    Platform,
}

impl fmt::Debug for Roots {
    /// Leaves out the PEM text, which is long and may contain a private key as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Roots::Default => "Default",
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
