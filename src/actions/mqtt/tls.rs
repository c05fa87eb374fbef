//! TLS for `mqtts://`: rustls on ring, trusting the system's authorities or those of a file.

use std::path::Path;
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore};

use crate::actions::tls;

/// The transport that trusts the authorities in the PEM file `ca`, or the system's if there is none. Read anew for each
/// connection, so that a replaced file is seen.
///
/// # Errors
/// A sentence that names the file, or the package that is missing.
pub(super) fn transport(ca: Option<&Path>) -> Result<Transport, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::authorities(ca)?);
    if let (Some(path), true) = (ca, roots.is_empty()) {
        return Err(format!("the authorities in {} (ca = …) cannot be read: none of them is valid", path.display()));
    }
    // The provider is passed, not installed: a library has no business deciding it for the process.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
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
