//! The proxy that connections go through.

use ureq::Proxy;

use super::address::has_usable_port;
use super::settings::{ConnectionSettings, Secret};
use crate::error::{Error, Result};

/// Parses the URL of the proxy, if one is set. No error text contains the URL, which may contain a
/// password.
pub(super) fn parse_proxy(settings: &ConnectionSettings) -> Result<Option<Proxy>> {
    let Some(Secret(url)) = &settings.proxy else {
        return Ok(None);
    };
    let problem = match &settings.proxy_variable {
        Some(name) => format!("the proxy's URL in {name} is invalid"),
        None => "the proxy's URL is invalid".to_owned(),
    };
    // ureq's error says no more than that the URL is invalid.
    let Ok(proxy) = Proxy::new(url) else {
        return Err(Error::config(format!(
            "{problem}; give one such as http://proxy.example:8080"
        )));
    };
    let uri = proxy.uri();
    let ends_with_authority =
        matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
    if !ends_with_authority || !uri.authority().is_some_and(has_usable_port) {
        // A password with one of these characters would be cut there, and its beginning taken for
        // the host.
        return Err(Error::config(format!(
            "{problem}: nothing may follow its host and port; in a user name or a password # / ? and \
             the like must be percent-encoded"
        )));
    }
    Ok(Some(proxy))
}

/// Whether a proxy speaks SOCKS, so that ureq reports its refusals as errors of the connection.
pub(super) fn is_socks(proxy: &Proxy) -> bool {
    use ureq::ProxyProtocol as P;
    !matches!(proxy.protocol(), P::Http | P::Https)
}
