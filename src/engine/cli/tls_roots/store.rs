//! The trusted certificates on disk.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::pem::{self, PemError};

/// Folders that the CLI searches for the bundle and for the folder `certs`, in its order: that of openssl-probe 0.1, which the
/// CLI contains (seen with strace, 0.169). The crate is not a dependency, because version 0.2 has another order, and the server
/// must find the bundle that the CLI would find.
const SEARCHED: &[&str] = &[
    "/var/ssl",
    "/usr/share/ssl",
    OPENSSL_DEFAULT,
    "/usr/local/openssl",
    "/usr/local/etc/openssl",
    "/usr/local/share",
    "/usr/lib/ssl",
    "/usr/ssl",
    "/etc/openssl",
    "/etc/pki/ca-trust/extracted/pem",
    "/etc/pki/tls",
    "/etc/ssl",
    "/etc/certs",
    "/opt/etc/ssl",
];

/// Names of the bundle in these folders.
const BUNDLES: &[&str] = &[
    "cert.pem",
    "certs.pem",
    "ca-bundle.pem",
    "cacert.pem",
    "ca-certificates.crt",
    "certs/ca-certificates.crt",
    "certs/ca-root-nss.crt",
    "certs/ca-bundle.crt",
    "CARootCertificates.pem",
    "tls-ca-bundle.pem",
];

/// The folder of the OpenSSL in the CLI, whose `cert.pem` and `certs` it trusts besides the bundle.
const OPENSSL_DEFAULT: &str = "/usr/local/ssl";

/// Maximum size of a file. The bundle of Debian has 220 kB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Maximum number of entries of a folder. That of Debian has 292.
const MAX_ENTRIES: usize = 20_000;

/// The last system store that was read, because exec needs it for each turn.
static CACHE: Mutex<Option<Cached>> = Mutex::new(None);

struct Cached {
    places: Places,
    versions: Vec<FileVersion>,
    store: Store,
}

/// Identifies the content of a file or folder: inode, modification time and size.
type FileVersion = Option<(u64, i64, i64, u64)>;

/// The certificates of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Store {
    /// The bundle.
    pub(super) bundle: PathBuf,
    /// The number of its certificates.
    pub(super) count: usize,
    /// Its first certificate, as PEM.
    pub(super) first: String,
    /// Certificates beside the bundle that the CLI trusts by default.
    pub(super) unbundled: Option<StoreError>,
}

/// The reason why the fast way cannot use the certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// No candidate exists.
    #[error("no bundle of the system was found")]
    NotFound,
    /// A file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// A bundle has no certificate.
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    /// A file has a certificate that cannot be decoded.
    #[error("{} has a malformed certificate", .0.display())]
    Malformed(PathBuf),
    /// A file has a certificate in a form that only OpenSSL reads.
    #[error("{} has a certificate in a form of OpenSSL", .0.display())]
    OpenSslOnly(PathBuf),
    /// rustls trusts such a certificate for other servers than OpenSSL does: not for its own one, or also for those that it has
    /// signed.
    #[error("{} has a certificate that is not an authority's or names a host", .0.display())]
    NotAuthority(PathBuf),
    /// The CLI would lose these certificates.
    #[error(
        "{} has {count} certificate(s) that {bundle} lacks; SSL_CERT_FILE={bundle} would leave them out",
        place.display(),
        bundle = bundle.display()
    )]
    Unbundled {
        /// The folder or file.
        place: PathBuf,
        /// The number of certificates.
        count: usize,
        /// The bundle.
        bundle: PathBuf,
    },
}

impl Store {
    /// Reads a bundle alone.
    pub(super) fn of_file(bundle: &Path) -> Result<Self, StoreError> {
        Ok(Bundle::read(bundle)?.store(None))
    }

    /// Finds and reads the certificates that the CLI trusts by default.
    pub(super) fn of_system() -> Result<Self, StoreError> {
        let root = Path::new("/");
        let places = Places::find(root).ok_or(StoreError::NotFound)?;
        // Read before the content, so that a file that changes meanwhile counts as changed.
        let versions = places.versions();
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.as_ref().filter(|it| it.places == places && it.versions == versions) {
            return Ok(cached.store.clone());
        }
        let store = places.read()?;
        *cache = Some(Cached { places, versions, store: store.clone() });
        Ok(store)
    }
}

/// The files and folders whose certificates the CLI trusts by default.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    bundle: PathBuf,
    /// A second bundle.
    file: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Places {
    /// Searches below a root folder. Returns `None` if there is no bundle.
    fn find(root: &Path) -> Option<Self> {
        let below_root = |path: &str| root.join(path.trim_start_matches('/'));
        let searched = || SEARCHED.iter().map(|folder| below_root(folder));
        let mut bundles = searched().flat_map(|folder| BUNDLES.iter().map(move |name| folder.join(name)));
        let bundle = bundles.find(|path| path.exists())?;
        let openssl = below_root(OPENSSL_DEFAULT);
        let file = Some(openssl.join("cert.pem")).filter(|path| *path != bundle && path.exists());
        let probed = searched().map(|folder| folder.join("certs")).find(|folder| folder.exists());
        let mut folders: Vec<PathBuf> = probed.into_iter().collect();
        let default = openssl.join("certs");
        if default.exists() && !folders.contains(&default) {
            folders.push(default);
        }
        Some(Self { bundle, file, folders })
    }

    fn versions(&self) -> Vec<FileVersion> {
        let paths = [&self.bundle].into_iter().chain(&self.file).chain(&self.folders);
        let version = |meta: fs::Metadata| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        paths.map(|path| fs::metadata(path).ok().map(version)).collect()
    }

    fn read(&self) -> Result<Store, StoreError> {
        let bundle = Bundle::read(&self.bundle)?;
        if !bundle.has_only_authorities {
            return Err(StoreError::NotAuthority(bundle.path));
        }
        let mut unbundled = None;
        if let Some(file) = &self.file {
            unbundled = bundle.missing(file, &Bundle::read(file)?.ders);
        }
        for folder in &self.folders {
            if unbundled.is_none() {
                unbundled = bundle.missing(folder, &hashed(folder)?);
            }
        }
        Ok(bundle.store(unbundled))
    }
}

/// A parsed bundle.
struct Bundle {
    path: PathBuf,
    ders: HashSet<Vec<u8>>,
    first: String,
    has_only_authorities: bool,
}

impl Bundle {
    fn read(path: &Path) -> Result<Self, StoreError> {
        let certificates = certificates(path)?;
        let first = certificates.first().ok_or_else(|| StoreError::Empty(path.to_owned()))?.pem.clone();
        let has_only_authorities = certificates.iter().all(pem::Certificate::is_authority);
        let ders = certificates.into_iter().map(|certificate| certificate.der).collect();
        Ok(Self { path: path.to_owned(), ders, first, has_only_authorities })
    }

    /// Returns an error if `place` has certificates that the bundle lacks.
    fn missing(&self, place: &Path, ders: &HashSet<Vec<u8>>) -> Option<StoreError> {
        let count = ders.difference(&self.ders).count();
        (count > 0).then(|| StoreError::Unbundled {
            place: place.to_owned(),
            count,
            bundle: self.path.clone(),
        })
    }

    fn store(self, unbundled: Option<StoreError>) -> Store {
        Store { count: self.ders.len(), bundle: self.path, first: self.first, unbundled }
    }
}

/// Returns the certificates of a folder that OpenSSL finds by the hash of their subjects.
fn hashed(folder: &Path) -> Result<HashSet<Vec<u8>>, StoreError> {
    let fail = |cause: io::Error| unreadable(folder, &cause);
    let mut ders = HashSet::new();
    for (index, entry) in fs::read_dir(folder).map_err(fail)?.enumerate() {
        let entry = entry.map_err(fail)?;
        if index >= MAX_ENTRIES {
            return Err(fail(io::Error::other("it has too many files")));
        }
        // A link whose target is missing has no certificate.
        if is_hash(&entry.file_name().to_string_lossy()) && entry.path().exists() {
            ders.extend(certificates(&entry.path())?.into_iter().map(|certificate| certificate.der));
        }
    }
    Ok(ders)
}

/// Returns `true` for a name such as `5443e9e3.0`.
fn is_hash(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn certificates(path: &Path) -> Result<Vec<pem::Certificate>, StoreError> {
    let read = || {
        let meta = fs::metadata(path)?;
        // A pipe would block.
        if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
            return Err(io::Error::other("it is not a file of at most 16 MiB"));
        }
        fs::read(path)
    };
    let text = read().map_err(|cause| unreadable(path, &cause))?;
    pem::certificates(&text).map_err(|error| match error {
        PemError::Malformed => StoreError::Malformed(path.to_owned()),
        PemError::OpenSslOnly => StoreError::OpenSslOnly(path.to_owned()),
    })
}

fn unreadable(path: &Path, cause: &io::Error) -> StoreError {
    StoreError::Unreadable { path: path.to_owned(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests;
