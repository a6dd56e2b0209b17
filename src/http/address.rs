//! The base URL of the API, and the paths that are appended to it.

use ureq::http::Uri;
use ureq::http::uri::{Authority, PathAndQuery};

use crate::error::{Error, Result, sanitize};

/// The URL to which the paths of the API are appended.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl {
    /// The URL as given, without slashes at its end.
    url: String,
    /// The host, with the port if there is one.
    host: String,
    is_https: bool,
    has_loopback_host: bool,
}

impl BaseUrl {
    /// Parses a URL such as `https://host` or `https://host:8443/a/prefix/`.
    ///
    /// # Errors
    ///
    /// Kind `Config` if the URL is invalid or has a user name, a password, a query or a fragment.
    pub(crate) fn parse(text: &str) -> Result<BaseUrl> {
        // Anything before an @ or in a query may be a secret.
        let shown = match text.split('?').next() {
            Some(plain) if !text.contains('@') => format!(" {:?}", sanitize(plain, 100)),
            _ => String::new(),
        };
        let reject = |what: &str| Err(Error::config(format!("the base URL{shown} {what}")));
        let Ok(uri) = text.parse::<Uri>() else {
            return reject("is not a valid URL");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return reject("must begin with https://");
        };
        if authority.as_str().contains('@') {
            return Err(Error::config(
                "the base URL must not contain a user name or password",
            ));
        }
        if uri.query().is_some() {
            return reject("must not have a query");
        }
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return reject("must begin with https://"),
        };
        if authority.host().is_empty() || text.contains('#') {
            return reject("is not a valid URL");
        }
        if !has_usable_port(authority) {
            return reject("has no valid port");
        }
        let has_loopback_host = is_loopback(authority.host());
        let host = authority.to_string();
        let url = text.trim_end_matches('/').to_owned();
        Ok(BaseUrl {
            url,
            host,
            is_https,
            has_loopback_host,
        })
    }

    /// Whether requests travel unencrypted to another machine.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.is_https && !self.has_loopback_host
    }

    /// Whether the host is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.has_loopback_host
    }

    /// Whether the URL ends with `/v1`, which the paths of the API would repeat.
    pub(crate) fn ends_with_version(&self) -> bool {
        self.url.ends_with("/v1")
    }

    /// Returns the URL of a path.
    pub(crate) fn join(&self, path: &str) -> String {
        [self.url.as_str(), path].concat()
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.is_https
    }

    /// Returns the host, with the port if there is one.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.url
    }
}

/// Whether a host is this machine: `localhost` or a loopback address.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether a path can be part of the URL of a request: it begins with `/`, and all characters that
/// need it are percent-encoded.
pub(crate) fn is_valid_path(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && path.parse::<PathAndQuery>().is_ok()
}

/// Whether an authority has no port, or one from 1 to 65535.
pub(super) fn has_usable_port(authority: &Authority) -> bool {
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = address.strip_prefix(authority.host()).unwrap_or("");
    port.is_empty() || matches!(authority.port_u16(), Some(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_keeps_its_prefix_and_loses_its_last_slash() {
        let url = BaseUrl::parse("https://gw.example:8443/claude/").expect("a URL");
        assert_eq!(
            url.join("/v1/messages"),
            "https://gw.example:8443/claude/v1/messages"
        );
    }

    #[test]
    fn only_loopback_goes_without_tls() {
        for (url, exposed) in [
            ("https://api.example", false),
            ("http://127.0.0.1:8080", false),
            ("http://127.9.9.9", false),
            ("http://[::1]:80", false),
            ("http://LocalHost", false),
            ("http://localhost.evil.example", true),
            ("http://10.0.0.1", true),
            ("http://127.0.0.1.nip.example", true),
        ] {
            assert_eq!(
                BaseUrl::parse(url).expect("a URL").is_exposed(),
                exposed,
                "{url}"
            );
        }
    }

    #[test]
    fn unusable_base_urls_are_refused() {
        for url in [
            "",
            "api.anthropic.com",
            "ftp://x",
            "https://",
            "https://a b",
            "https://u:p@x",
            "https://x?y=1",
            "https://x/#f",
            "/v1",
            "https:///v1",
            "http://127.0.0.1:99999",
            "https://x:",
            "https://x:0",
            "https://[::1]:abc",
        ] {
            assert!(BaseUrl::parse(url).is_err(), "{url}");
        }
    }
}
