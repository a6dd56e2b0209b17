//! The proxy that environment variables name.

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
    // In a CGI program, `HTTP_PROXY` is the value of a header `Proxy`, which the visitor controls.
    let is_from_visitor = |name: &str| name == "HTTP_PROXY" && value_of("REQUEST_METHOD").is_some();
    // Returns a variable in upper case, else in lower case, and its value.
    let find = |name: &str| {
        let names = [name.to_ascii_uppercase(), name.to_owned()].into_iter();
        let mut trusted = names.filter(|name| !is_from_visitor(name));
        trusted.find_map(|name| value_of(&name).map(|value| (name, value)))
    };
    let target = Target::of(base);
    let is_excepted = find("no_proxy").is_some_and(|(_, list)| {
        list.split(|c: char| c == ',' || c.is_whitespace())
            .any(|entry| target.matches(entry))
    });
    if is_excepted {
        return None;
    }
    let of_scheme = if base.is_secure() {
        find("https_proxy")
    } else {
        find("http_proxy")
    };
    let (variable, url) = of_scheme.or_else(|| find("all_proxy"))?;
    Some(EnvironmentProxy {
        url: Secret(url),
        variable,
    })
}

/// The host and port of a base URL, to be compared with the entries of `NO_PROXY`.
struct Target {
    /// In lower case; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl Target {
    fn of(base: &BaseUrl) -> Target {
        let default_port = if base.is_secure() { 443 } else { 80 };
        let (host, port) = split_port(base.host());
        Target {
            host: normalized(host),
            port: port.unwrap_or(default_port),
        }
    }

    /// Whether an entry of `NO_PROXY` names this target. An entry is `host`, `.domain`, `*.domain` or an
    /// address, each with or without a port; a block of addresses such as `10.0.0.0/8`; or `*`.
    fn matches(&self, entry: &str) -> bool {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return self.is_within(network, bits).unwrap_or(false);
        }
        let (name, port) = split_port(entry);
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let name = normalized(name);
        let rest = self.host.strip_suffix(&name);
        let is_subdomain = rest.is_some_and(|rest| rest.ends_with('.')) && !self.is_address();
        let is_named = name == self.host || is_subdomain;
        !name.is_empty() && is_named && port.is_none_or(|port| port == self.port)
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// Whether the host is an address whose first `bits` bits equal those of a network; `None` if the
    /// host is a name, or the network is invalid.
    fn is_within(&self, network: &str, bits: &str) -> Option<bool> {
        let bits: u32 = bits.parse().ok()?;
        let difference = match (self.host.parse().ok()?, normalized(network).parse().ok()?) {
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
        // Every address is in a network of 0 bits, for which the shift has no result.
        Some(difference.unwrap_or(0) == 0)
    }
}

/// Splits a host from its port, if it has one.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let is_host = |host: &str| !host.contains(':') || host.ends_with(']');
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) => (host, port.parse().ok()),
        _ => (text, None),
    }
}

/// Returns a name in lower case without a dot at its end; an address in its canonical form, without
/// brackets.
fn normalized(host: &str) -> String {
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
    fn environment_names_proxy_unless_no_proxy_names_host() {
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
    fn visitor_of_cgi_program_cannot_set_proxy() {
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
