//! Selects how the CLI reads the trusted certificates. Pure but for [`TlsRoots::find`] and [`TlsRoots::install`]; the files are
//! read in `store.rs`.
//!
//! Codex makes a new HTTP client for each model call. By default OpenSSL parses the system's certificates for it, which takes
//! 9 ms of processor time for 144 certificates. With `CODEX_CA_CERTIFICATE`, Codex uses rustls. It parses this file itself, at
//! 60 µs per certificate, and rustls reads `SSL_CERT_FILE` in about 1 ms (0.169). Both files are trusted. Therefore the first
//! variable names a file with one certificate of the bundle, and the second one the bundle.

mod pem;
mod store;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use self::store::{Store, StoreError};
use super::{
    environment,
    probe::{CliInfo, major_minor},
};
use crate::{config::Codex, engine::Check};

/// The certificates that Codex parses itself. It ignores an empty value.
const CA_CERTIFICATE: &str = "CODEX_CA_CERTIFICATE";

/// The bundle that rustls and OpenSSL read.
const CERT_FILE: &str = "SSL_CERT_FILE";

/// Folders that rustls and OpenSSL read besides the bundle.
const CERT_DIR: &str = "SSL_CERT_DIR";

/// The oldest CLI that is known to trust both files. An older one might trust the first file alone.
const MIN_VERSION: (u64, u64) = (0, 169);

/// Name of the file with the certificate that Codex parses.
const FILE_NAME: &str = "own-tls-root.pem";

/// How the CLI reads the trusted certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsRoots {
    /// Codex parses one certificate, and rustls reads the bundle.
    Fast(FastRoots),
    /// The server changes no variable.
    Unchanged(Reason),
}

/// The files for the fast way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FastRoots {
    /// The bundle.
    bundle: PathBuf,
    /// The number of its certificates.
    count: usize,
    /// Its first certificate, as PEM.
    first: String,
    /// The bundle is that of the system, so `SSL_CERT_FILE` must name it.
    is_system: bool,
}

/// The reason why the server changes no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    /// The setting.
    #[error("CODEX_FAST_TLS_ROOTS is 0")]
    SwitchedOff,
    /// The version of the CLI.
    #[error("Codex {0} is older than {major}.{minor}", major = MIN_VERSION.0, minor = MIN_VERSION.1)]
    OldCli(String),
    /// The CLI trusts the certificates of another store than a bundle, such as the keychain of macOS.
    #[error("the CLI reads a bundle of the system on Linux only")]
    OtherSystem,
    /// The operator selects the certificates with this variable.
    #[error("{0} is set")]
    Variable(&'static str),
    /// The CLI itself reads variables from this file.
    #[error(".env in the CLI's home names certificates")]
    HomeDotenv,
    /// The certificates cannot be read, or the fast way would trust other ones.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bundle whose certificates the CLI trusts.
#[derive(Debug, PartialEq, Eq)]
enum Bundle {
    /// The file of `SSL_CERT_FILE`.
    Operator(PathBuf),
    /// The bundle of the system.
    System,
}

/// Everything on which the selection of the bundle depends.
#[derive(Debug)]
struct Facts<'a> {
    is_enabled: bool,
    is_linux: bool,
    version: &'a str,
    /// The environment of the CLI.
    env: &'a BTreeMap<OsString, OsString>,
    /// The text of `.env` in the CLI's home. Empty if there is none.
    home_dotenv: &'a str,
}

impl Facts<'_> {
    /// Returns the bundle that the fast way can use. Pure.
    fn bundle(&self) -> Result<Bundle, Reason> {
        if !self.is_enabled {
            return Err(Reason::SwitchedOff);
        }
        if major_minor(self.version) < MIN_VERSION {
            return Err(Reason::OldCli(self.version.to_owned()));
        }
        let value = |name: &str| self.env.get(OsStr::new(name));
        let is_filled = |value: &&OsString| !value.is_empty();
        if value(CA_CERTIFICATE).filter(is_filled).is_some() {
            return Err(Reason::Variable(CA_CERTIFICATE));
        }
        // An empty list of folders is not the default list.
        if value(CERT_DIR).is_some() {
            return Err(Reason::Variable(CERT_DIR));
        }
        // The CLI sets these variables after the server. Its file may use any syntax of dotenv.
        if [CA_CERTIFICATE, CERT_FILE, CERT_DIR].iter().any(|name| self.home_dotenv.contains(name)) {
            return Err(Reason::HomeDotenv);
        }
        Ok(match value(CERT_FILE).filter(is_filled) {
            Some(file) => Bundle::Operator(file.into()),
            None if self.is_linux => Bundle::System,
            None => return Err(Reason::OtherSystem),
        })
    }
}

impl TlsRoots {
    /// Reads the certificates of the CLI's processes and selects the way. Caches the content of unchanged files.
    pub(crate) fn find(codex: &Codex, installed: &CliInfo) -> Self {
        let env = environment::environment(codex);
        // Lossy, because only the names of variables matter.
        let home_dotenv = environment::codex_home(&env).and_then(|home| fs::read(home.join(".env")).ok());
        let home_dotenv = home_dotenv.unwrap_or_default();
        let facts = Facts {
            is_enabled: codex.fast_tls_roots,
            is_linux: cfg!(target_os = "linux"),
            version: &installed.version,
            env: &env,
            home_dotenv: &String::from_utf8_lossy(&home_dotenv),
        };
        let store = match facts.bundle() {
            Err(reason) => return Self::Unchanged(reason),
            // The CLI runs in the workspace.
            Ok(Bundle::Operator(file)) => {
                Store::of_file(&codex.workspace.join(file)).map(|store| (store, false))
            }
            Ok(Bundle::System) => Store::of_system().map(|store| (store, true)),
        };
        match store {
            Ok((store, is_system)) => Self::new(store, is_system),
            Err(error) => Self::Unchanged(error.into()),
        }
    }

    /// Selects the way for these certificates. Pure.
    fn new(store: Store, is_system: bool) -> Self {
        let Store { bundle, count, first, unbundled } = store;
        match unbundled {
            Some(error) => Self::Unchanged(error.into()),
            None => Self::Fast(FastRoots { bundle, count, first, is_system }),
        }
    }

    /// Writes the certificate for Codex to `folder`, which must exist as long as the process, and sets the variables of the
    /// process.
    pub(crate) fn install(&self, folder: &Path, env: &mut BTreeMap<OsString, OsString>) -> io::Result<()> {
        let roots = match self {
            Self::Fast(roots) => roots,
            Self::Unchanged(_) => return Ok(()),
        };
        let file = folder.join(FILE_NAME);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&file)?.write_all(roots.first.as_bytes())?;
        env.insert(CA_CERTIFICATE.into(), file.into());
        if roots.is_system {
            env.insert(CERT_FILE.into(), roots.bundle.clone().into());
        }
        Ok(())
    }

    /// Returns the doctor's check.
    pub(crate) fn check(&self) -> Check {
        let finding = match self {
            Self::Fast(FastRoots { bundle, count, .. }) => {
                format!(
                    "fast: Codex parses 1 of the {count} certificates of {}, rustls reads all",
                    bundle.display()
                )
            }
            Self::Unchanged(reason) => format!("as the CLI reads them by default, because {reason}"),
        };
        Check::passed("certificates", finding)
    }
}

#[cfg(test)]
mod tests;
