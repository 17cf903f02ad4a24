//! How does a check speak TLS: whom does it believe, and as whom does it address the service?
//!
//! rustls with ring. Believed is what the machine believes: its certificates are files, read aside
//! when the first check needs them (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where, as for Go and
//! OpenSSL). A check with `TLSSkipVerify` believes anyone, and still speaks only to whoever holds the
//! key of the certificate it was shown. Handshakes take about a millisecond of the executor; at most
//! `RUNS_IN_FLIGHT_MAX` checks run at once.

use std::{cell::RefCell, io, net::IpAddr, rc::Rc, sync::Arc};

use futures_rustls::{TlsConnector, client::TlsStream};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::aside::Aside;
use crate::server::Stream;

/// Whom checks believe.
pub(super) struct Trust {
    files: Rc<Aside>,
    provider: Arc<CryptoProvider>,
    /// Once a check has needed it.
    verifying: RefCell<Option<Arc<ClientConfig>>>,
    believing: RefCell<Option<Arc<ClientConfig>>>,
}

impl Trust {
    /// Reads files aside.
    pub(super) fn new(files: Rc<Aside>) -> Self {
        Self {
            files,
            provider: Arc::new(ring::default_provider()),
            verifying: RefCell::default(),
            believing: RefCell::default(),
        }
    }

    /// Speaks TLS on a connection to a service of this name; the error is said as Go does.
    pub(super) async fn connect(
        &self,
        stream: Stream,
        name: &str,
        skip_verify: bool,
    ) -> Result<TlsStream<Stream>, String> {
        let server = server_name(name)?;
        let config = match skip_verify {
            true => self.believing()?,
            false => self.verifying().await?,
        };
        let connected = TlsConnector::from(config).connect(server, stream).await;
        connected.map_err(|error| words(&error))
    }

    fn believing(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = &*self.believing.borrow() {
            return Ok(Arc::clone(config));
        }
        let verifier = Arc::new(Anyone(Arc::clone(&self.provider)));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("tls: {error}"))?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = http11(builder.with_no_client_auth());
        *self.believing.borrow_mut() = Some(Arc::clone(&config));
        Ok(config)
    }

    async fn verifying(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = &*self.verifying.borrow() {
            return Ok(Arc::clone(config));
        }
        let provider = Arc::clone(&self.provider);
        let made = self.files.run(move || machines(provider)).await;
        let config = made.map_err(|error| format!("tls: {error}")).flatten()?;
        *self.verifying.borrow_mut() = Some(Arc::clone(&config));
        Ok(config)
    }
}

/// Believes whom the machine believes. Blocks.
fn machines(provider: Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(format!(
            "tls: this machine has no certificates of authorities{}; install them (ca-certificates), \
             name them with SSL_CERT_FILE, or set TLSSkipVerify",
            why.unwrap_or_default()
        ));
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?;
    Ok(http11(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

fn http11(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A host as a certificate names it; an IPv6 address may be in brackets.
fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    let bare = name.trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(ip));
    }
    ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("tls: {name:?} is not a name that a certificate can have"))
}

fn words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::InvalidCertificate(why)) => {
            format!("tls: failed to verify certificate: {why}")
        }
        Some(Error::InvalidMessage(_)) => {
            format!("tls: first record does not look like a TLS handshake: {error}")
        }
        Some(other) => format!("tls: {other}"),
        None => format!("tls: {error}"),
    }
}

/// Takes any certificate, but not one whose key the service has not.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_addressed_by_name_or_number() {
        for name in ["web.example", "127.0.0.1", "::1", "[::1]"] {
            assert!(server_name(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "-"] {
            assert!(server_name(name).is_err(), "{name:?}");
        }
    }
}
