//! The TLS settings of a connection.

use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};

use super::settings::{ConnectionSettings, Roots};
use crate::error::{Error, Result};

pub(super) fn tls_config(settings: &ConnectionSettings) -> Result<TlsConfig> {
    let roots = match &settings.roots {
        Roots::Usual if settings.native_tls => RootCerts::PlatformVerifier,
        Roots::Usual => RootCerts::WebPki,
        Roots::Platform => RootCerts::PlatformVerifier,
        Roots::Pem(pem) => {
            let mut certificates = Vec::new();
            for item in ureq::tls::parse_pem(pem) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                    Ok(_) => {}
                    Err(error) => {
                        return Err(Error::config_from(
                            "the root certificates are no valid PEM",
                            error.into(),
                        ));
                    }
                }
            }
            if certificates.is_empty() {
                return Err(Error::config(
                    "there is no PEM certificate in the root certificates",
                ));
            }
            RootCerts::from(certificates)
        }
    };
    let provider = if settings.native_tls {
        TlsProvider::NativeTls
    } else {
        TlsProvider::Rustls
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .provider(provider)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_systems_tls_trusts_what_the_operating_system_does() {
        let roots = |native_tls, roots| {
            let settings = ConnectionSettings {
                native_tls,
                roots,
                ..ConnectionSettings::default()
            };
            tls_config(&settings).expect("roots").root_certs().clone()
        };
        let pem = || {
            let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            Roots::Pem(pem.into())
        };
        assert!(matches!(roots(false, Roots::Usual), RootCerts::WebPki));
        let own = roots(true, Roots::Usual);
        assert!(matches!(own, RootCerts::PlatformVerifier));
        for native_tls in [false, true] {
            assert!(matches!(roots(native_tls, pem()), RootCerts::Specific(_)));
        }
    }
}
