//! TLS with a certificate and a key from two PEM files, which are reloaded when they change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

/// Interval between two checks of the files.
const INTERVAL: Duration = Duration::from_secs(5);

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not a PEM file of that kind.
    #[error("the TLS {what} {} cannot be read: {source}", path.display())]
    File {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("the TLS certificate {} holds no certificate: a PEM file with `BEGIN CERTIFICATE` is needed", .0.display())]
    Empty(PathBuf),
    /// The key does not fit the certificate, or its kind is not supported.
    #[error("the TLS certificate {} cannot be used with the key {}: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The current certificate and key. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    /// The files at the last attempt to read them, whether it succeeded or not.
    read: Mutex<[Stamp; 2]>,
}

/// Modification time and length, which show that a file has changed.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl Tls {
    /// Loads the certificate chain (the server's certificate first) and the key from two PEM files.
    ///
    /// # Errors
    /// If a file cannot be read, or the key does not fit the certificate.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = [stamp(cert), stamp(key)];
        Ok(Self(Arc::new(Inner {
            current: RwLock::new(Arc::new(config(cert, key)?)),
            cert: cert.to_owned(),
            key: key.to_owned(),
            read: Mutex::new(read),
        })))
    }

    /// Reads the files again. Open connections keep their certificate.
    ///
    /// # Errors
    /// Those of [`open`](Self::open). The previous certificate then stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let inner = &self.0;
        // The stamps are taken before reading, so that a write in between is noticed at the next
        // check.
        let stamps = [stamp(&inner.cert), stamp(&inner.key)];
        let read = config(&inner.cert, &inner.key);
        *inner.read.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        *inner.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read?);
        Ok(())
    }

    fn has_changed(&self) -> bool {
        let inner = &self.0;
        let read = inner.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read != [stamp(&inner.cert), stamp(&inner.key)]
    }

    /// Reloads the files whenever they change. Never returns.
    pub(super) async fn follow(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.has_changed() {
                match self.reload() {
                    Ok(()) => {
                        tracing::info!(cert = %self.0.cert.display(), "the TLS certificate was reloaded")
                    }
                    Err(error) => tracing::error!("{error}; the previous certificate stays in use"),
                }
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

fn config(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let unread = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { what, path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(unread("certificate", cert))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(cert.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unread("key", key))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map(|mut config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            config
        })
        .map_err(|source| TlsError::Pair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            source,
        })
}
