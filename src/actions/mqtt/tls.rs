//! TLS for `mqtts://`: rustls on ring, trusting the system's authorities or those of a file.

use std::path::Path;
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The transport that trusts the authorities in the PEM file `ca`, or the system's if there is none. Read anew for each
/// connection, so that a replaced file is seen.
///
/// # Errors
/// A sentence that names the file, or the package that is missing.
pub(super) fn transport(ca: Option<&Path>) -> Result<Transport, String> {
    let roots = match ca {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    // The provider is passed, not installed: a library has no business deciding it for the process.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, String> {
    let failed = |reason: String| format!("the authorities in {} (ca = …) cannot be read: {reason}", path.display());
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(failed("there is no certificate in it; a PEM file is wanted".into())),
        false => Ok(roots),
    }
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("the system has no authorities to trust; install ca-certificates, or name a file (ca = …)".into()),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty, torn) =
            (folder.path().join("missing.pem"), folder.path().join("empty.pem"), folder.path().join("torn.pem"));
        std::fs::write(&empty, "no certificate\n").unwrap();
        std::fs::write(&torn, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for path in [missing, empty, torn] {
            let message = transport(Some(&path)).err().unwrap();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    }
}
