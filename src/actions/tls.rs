//! Whom TLS trusts, and what it says when it does not: the same for the broker and the webhook.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::runner::Health;

/// The authorities in the PEM file `ca`, or the system's if there is none. Read anew for each connection, so that a
/// replaced file is seen.
///
/// # Errors
/// A sentence that names the file, or the package that is missing.
pub(super) fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = ca else {
        let system = rustls_native_certs::load_native_certs().certs;
        return match system.is_empty() {
            true => {
                Err("the system has no authorities to trust; install ca-certificates, or name a file (ca = …)".into())
            }
            false => Ok(system),
        };
    };
    let failed = |reason: String| format!("the authorities in {} (ca = …) cannot be read: {reason}", path.display());
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| failed(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(failed("there is no certificate in it; a PEM file is wanted".into())),
        false => Ok(certificates),
    }
}

/// What is wrong, whether waiting helps, and what to try.
///
/// A board without a clock of its own starts in the past: until the network has told it the time, every certificate is
/// "not valid yet". That heals by itself, and is no refusal.
pub(super) fn explain(error: &rustls::Error) -> (Health, String) {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => (
            Health::Degraded,
            format!("TLS: {error}; is this board's clock right? It is tried again until the clock is set"),
        ),
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => (
            Health::Degraded,
            format!("TLS: {error}; is this board's clock right? If so, the certificate is to be renewed"),
        ),
        rustls::Error::InvalidCertificate(_) => {
            (Health::Rejected, format!("TLS: {error}; is the server's name right, and its authority known (ca = …)?"))
        }
        _ => (Health::Degraded, format!("TLS: {error}")),
    }
}

/// The error of rustls within one of a socket, if there is one.
pub(super) fn within(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
