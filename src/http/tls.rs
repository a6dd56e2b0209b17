//! The TLS settings of a connection: trusted certificates and TLS library.

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider};

use super::settings::{ConnectionSettings, Roots};
use crate::error::{BoxError, Error, Result};

/// Returns ureq's TLS settings.
///
/// # Errors
///
/// Kind `Config` if the PEM text is invalid or has no certificate.
pub(super) fn tls_config(settings: &ConnectionSettings) -> Result<TlsConfig> {
    let roots = match &settings.roots {
        Roots::Default if settings.native_tls => RootCerts::PlatformVerifier,
        Roots::Default => RootCerts::WebPki,
        Roots::Platform => RootCerts::PlatformVerifier,
        Roots::Pem(pem) => RootCerts::from(parse_certificates(pem)?),
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

/// Returns the certificates of a PEM text, and passes over anything else in it.
fn parse_certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => {
                return Err(Error::config_from(
                    "the root certificates are not valid PEM",
                    pem_error(error),
                ));
            }
        }
    }
    if certificates.is_empty() {
        return Err(Error::config(
            "there is no PEM certificate in the root certificates",
        ));
    }
    Ok(certificates)
}

/// Returns what ureq's parser says, without the bytes that the parser quotes.
fn pem_error(error: ureq::Error) -> BoxError {
    let text = match error {
        ureq::Error::Pem(error) => error.to_string(),
        other => other.to_string(),
    };
    let quoted = text.find(": [").unwrap_or(text.len());
    text[..quoted].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_error_names_the_cause_without_bytes() {
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let error = parse_certificates(cut.as_bytes()).expect_err("no end");
        assert_eq!(
            error.to_string(),
            "building the client: the root certificates are not valid PEM: missing section end marker"
        );
    }

    #[test]
    fn native_tls_trusts_the_operating_systems_roots() {
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
        assert!(matches!(roots(false, Roots::Default), RootCerts::WebPki));
        let own = roots(true, Roots::Default);
        assert!(matches!(own, RootCerts::PlatformVerifier));
        for native_tls in [false, true] {
            assert!(matches!(roots(native_tls, pem()), RootCerts::Specific(_)));
        }
    }
}
