//! The scripted upstream behind TLS, with a certificate authority of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use codex_api::demo::Upstream;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring},
};

/// Maximum number of open connections.
const MAX_CONNECTIONS: usize = 64;

/// The upstream. Dropping it closes the port and all connections.
pub struct TlsUpstream {
    upstream: Upstream,
    address: SocketAddr,
    /// The certificate of the authority, as PEM.
    pub authority: String,
    handshakes: Arc<AtomicUsize>,
    /// Owns the accept loop, which owns the connections.
    _tasks: JoinSet<()>,
}

impl TlsUpstream {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::with_certificates(certificates()).await
    }

    /// Listens with the certificate of the authority itself, as `openssl req -x509` makes it.
    pub async fn start_self_signed() -> Self {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::with_certificates((certificate.pem(), server_config(&certificate, key))).await
    }

    async fn with_certificates((authority, config): (String, ServerConfig)) -> Self {
        let upstream = Upstream::start().await.unwrap();
        let target = upstream.base_url();
        let target: SocketAddr =
            target.trim_start_matches("http://").trim_end_matches("/v1").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let (acceptor, counter) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&handshakes));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                        let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
                        let (stream, _) = accepted.unwrap();
                        connections.spawn(async move {
                            // A client that does not trust the certificate ends the handshake.
                            let Ok(mut tls) = acceptor.accept(stream).await else { return };
                            counter.fetch_add(1, Ordering::Relaxed);
                            let mut plain = TcpStream::connect(target).await.unwrap();
                            drop(copy_bidirectional(&mut tls, &mut plain).await);
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { upstream, address, authority, handshakes, _tasks: tasks }
    }

    /// Returns the base URL with the protocol `https`.
    pub fn base_url(&self) -> String {
        format!("https://{}/v1", self.address)
    }

    /// Returns the scripted upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Returns the number of clients that have accepted the certificate.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// Returns the certificate of a new authority as PEM, and the configuration of a server with a certificate for 127.0.0.1 that
/// the authority has signed.
fn certificates() -> (String, ServerConfig) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of the tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "upstream of the tests");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (authority, server_config(&certificate, key))
}

fn server_config(certificate: &Certificate, key: KeyPair) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into());
    config.unwrap()
}
