//! Certificates of the upstream: an authority of its own, and the store of the system that trusts it.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
};

use crate::BenchResult;

/// The file in the working folder of the upstream that has the certificate of its authority.
pub(crate) const AUTHORITY: &str = "authority.pem";

/// Returns an acceptor with a certificate for 127.0.0.1, and writes that of its authority to the working folder.
pub(crate) fn acceptor() -> BenchResult<TlsAcceptor> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of the benchmarks");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(AUTHORITY, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "upstream of the benchmarks");
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Adds an authority to a bundle. The bundle is a copy that only the programs of the bench use.
pub(crate) fn trust(bundle: &Path, authority: &str) -> BenchResult<()> {
    let certificates = fs::read_to_string(bundle)?;
    Ok(fs::write(bundle, format!("{certificates}\n{authority}"))?)
}
