//! The proxy that is used where none is set.

use std::net::IpAddr;

use super::environment::variable;
use crate::http::{BaseUrl, Secret};

/// A proxy that an environment variable names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EnvironmentProxy {
    pub(super) url: Secret,
    /// The name of the variable.
    pub(super) variable: String,
}

/// Returns the proxy that the variables of this process name for a base URL; none for a loopback
/// address.
pub(super) fn proxy_of_environment(base: &BaseUrl) -> Option<EnvironmentProxy> {
    if base.is_loopback() {
        return None;
    }
    proxy_for(base, variable)
}

/// Returns the proxy that the variables name for a base URL. `value_of` returns the value of a
/// variable.
fn proxy_for(
    base: &BaseUrl,
    value_of: impl Fn(&str) -> Option<String>,
) -> Option<EnvironmentProxy> {
    // What a visitor of a CGI program sends as the header `Proxy` is there as `HTTP_PROXY`.
    let is_foreign = |name: &str| name == "HTTP_PROXY" && value_of("REQUEST_METHOD").is_some();
    let any = |name: &str| {
        let names = [name.to_ascii_uppercase(), name.to_owned()].into_iter();
        let mut own = names.filter(|name| !is_foreign(name));
        own.find_map(|name| value_of(&name).map(|value| (name, value)))
    };
    let target = Target::of(base);
    let is_excepted = any("no_proxy").is_some_and(|(_, list)| {
        list.split(|c: char| c == ',' || c.is_whitespace())
            .any(|entry| target.is_meant_by(entry))
    });
    if is_excepted {
        return None;
    }
    let own = if base.is_secure() {
        any("https_proxy")
    } else {
        any("http_proxy")
    };
    let (variable, url) = own.or_else(|| any("all_proxy"))?;
    Some(EnvironmentProxy {
        url: Secret(url),
        variable,
    })
}

/// Where a client's requests go, as exceptions name it.
struct Target {
    /// In lower case; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl Target {
    fn of(base: &BaseUrl) -> Target {
        let usual = if base.is_secure() { 443 } else { 80 };
        let (host, port) = parts(base.host());
        Target {
            host: plain(host),
            port: port.unwrap_or(usual),
        }
    }

    /// Whether an entry of `NO_PROXY` names this: `host`, `.domain`, `*.domain`, an address, a block of
    /// addresses such as `10.0.0.0/8`, each with or without a port, or `*`.
    fn is_meant_by(&self, entry: &str) -> bool {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return self.is_within(network, bits).unwrap_or(false);
        }
        let (name, port) = parts(entry);
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let name = plain(name);
        let above = self.host.strip_suffix(&name);
        let is_below = above.is_some_and(|above| above.ends_with('.')) && !self.is_address();
        let is_meant = name == self.host || is_below;
        !name.is_empty() && is_meant && port.is_none_or(|port| port == self.port)
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// Whether it is an address whose first bits are those of a network.
    fn is_within(&self, network: &str, bits: &str) -> Option<bool> {
        let bits: u32 = bits.parse().ok()?;
        let other = match (self.host.parse().ok()?, plain(network).parse().ok()?) {
            (IpAddr::V4(host), IpAddr::V4(network)) => {
                let rest = 32_u32.checked_sub(bits)?;
                u128::from(host.to_bits() ^ network.to_bits()).checked_shr(rest)
            }
            (IpAddr::V6(host), IpAddr::V6(network)) => {
                let rest = 128_u32.checked_sub(bits)?;
                (host.to_bits() ^ network.to_bits()).checked_shr(rest)
            }
            _ => return None,
        };
        Some(other.unwrap_or(0) == 0)
    }
}

/// A host and its port, where it has one.
fn parts(text: &str) -> (&str, Option<u16>) {
    let is_host = |host: &str| !host.contains(':') || host.ends_with(']');
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) => (host, port.parse().ok()),
        _ => (text, None),
    }
}

/// A name in lower case; an IPv6 address without brackets, and in its one canonical form.
fn plain(host: &str) -> String {
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_with_variables(url: &str, variables: &[(&str, &str)]) -> Option<EnvironmentProxy> {
        let value_of = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        proxy_for(&BaseUrl::parse(url).expect("a URL"), value_of)
    }

    #[test]
    fn the_environment_names_the_proxy_unless_the_host_is_excepted() {
        let proxy = |url: &str, vars: &[(&str, &str)]| {
            proxy_with_variables(url, vars).map(|proxy| proxy.url.0)
        };
        let all = [
            ("HTTPS_PROXY", "s"),
            ("http_proxy", "p"),
            ("ALL_PROXY", "a"),
        ];
        assert_eq!(proxy("https://api.example", &all).as_deref(), Some("s"));
        assert_eq!(proxy("http://api.example", &all).as_deref(), Some("p"));
        assert_eq!(
            proxy("https://api.example", &all[2..]).as_deref(),
            Some("a")
        );
        assert_eq!(proxy("https://api.example", &all[1..2]), None);
        for (list, excepted) in [
            ("api.example", true),
            ("*", true),
            ("x, .example", true),
            ("*.example", true),
            ("pi.example", false),
            ("localhost 127.0.0.1\tapi.example", true),
            ("api.example:8443", true),
            (".example:8443", true),
            ("api.example:443", false),
            ("api.example.", true),
            ("10.0.0.0/8,.corp", false),
            (",", false),
            ("", false),
        ] {
            let vars = [("HTTPS_PROXY", "s"), ("NO_PROXY", list)];
            let found = proxy("https://API.example:8443", &vars);
            assert_eq!(found.is_none(), excepted, "{list}");
        }
        for url in ["https://[2001:db8::1]", "https://[2001:DB8::1]:8443"] {
            for (list, excepted) in [
                ("2001:db8::1", true),
                ("[2001:db8::1]", true),
                ("2001:DB8:0::1", true),
                ("2001:db8::/32", true),
                ("2001:db9::/32", false),
                ("::/0", true),
                ("2001:db8:", false),
            ] {
                let vars = [("HTTPS_PROXY", "s"), ("NO_PROXY", list)];
                assert_eq!(proxy(url, &vars).is_none(), excepted, "{url}, {list}");
            }
        }
        for (list, excepted) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("0.0.0.0/0", true),
            ("10.1.2.3", true),
            ("10.1.2.3:443", true),
            ("10.2.0.0/16", false),
            ("10.1.2.2/32", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0/", false),
            ("::/0", false),
            ("10.1.2.3:80", false),
            ("1.2.3", false),
        ] {
            let vars = [("HTTPS_PROXY", "s"), ("NO_PROXY", list)];
            let found = proxy("https://10.1.2.3", &vars);
            assert_eq!(found.is_none(), excepted, "{list}");
        }
    }

    #[test]
    fn the_visitor_of_a_cgi_program_names_no_proxy() {
        let vars = [
            ("REQUEST_METHOD", "GET"),
            ("HTTP_PROXY", "http://evil.example"),
            ("http_proxy", "http://proxy.example"),
        ];
        let proxy = proxy_with_variables("http://api.example", &vars).expect("the owner's");
        assert_eq!(proxy.variable, "http_proxy");
        assert_eq!(proxy_with_variables("http://api.example", &vars[..2]), None);
    }
}
