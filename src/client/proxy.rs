//! The proxy that is used where none is set.

use crate::transport::BaseUrl;

/// The proxy that the environment names for a host.
pub(super) fn proxy_for(base: &BaseUrl, var: impl Fn(&str) -> Option<String>) -> Option<String> {
    let any = |name: &str| var(&name.to_ascii_uppercase()).or_else(|| var(name));
    let host = bare(base.host()).to_ascii_lowercase();
    let excepted = any("no_proxy").is_some_and(|list| {
        list.split(',')
            .map(|name| name.trim().trim_start_matches("*.").trim_start_matches('.'))
            .any(|name| {
                let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
                let below = host
                    .strip_suffix(&name)
                    .is_some_and(|rest| rest.ends_with('.'));
                name == "*" || (!name.is_empty() && (name == host || below))
            })
    });
    if excepted {
        return None;
    }
    let own = if base.is_secure() {
        any("https_proxy")
    } else {
        any("http_proxy")
    };
    own.or_else(|| any("all_proxy"))
}

/// A host without its port, and an IPv6 address without its brackets, as exceptions name it.
fn bare(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_proxy_unless_the_host_is_excepted() {
        let proxy = |url: &str, vars: &[(&str, &str)]| {
            let var = |name: &str| {
                let found = vars.iter().find(|(var, _)| *var == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            proxy_for(&BaseUrl::parse(url).expect("a URL"), var)
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
                ("2001:db8:", false),
            ] {
                let vars = [("HTTPS_PROXY", "s"), ("NO_PROXY", list)];
                assert_eq!(proxy(url, &vars).is_none(), excepted, "{url}, {list}");
            }
        }
    }
}
