use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::{
    super::pem::tests::{authority, block},
    *,
};

/// A root folder with these files.
fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let file = root.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    root
}

fn read(root: &TempDir) -> Result<Store, StoreError> {
    Places::find(root.path()).ok_or(StoreError::NotFound)?.read()
}

#[test]
fn system_store_of_debian_is_found_and_complete() {
    let (one, two) = (authority(b"one"), authority(b"two"));
    let root = root(&[
        ("etc/ssl/certs/ca-certificates.crt", &format!("{one}{two}{one}")),
        ("etc/ssl/certs/0123abcd.0", &two),
        // OpenSSL finds no certificate by these names.
        ("etc/ssl/certs/other.pem", &block(b"other")),
        ("etc/ssl/certs/0123abc.0", &block(b"short")),
        ("etc/ssl/certs/0123abcd.r0", "a CRL"),
    ]);
    fs::create_dir_all(root.path().join("usr/lib/ssl")).unwrap();
    symlink("../../../etc/ssl/certs/ca-certificates.crt", root.path().join("usr/lib/ssl/cert.pem")).unwrap();
    symlink("../../../etc/ssl/certs", root.path().join("usr/lib/ssl/certs")).unwrap();
    symlink("missing", root.path().join("etc/ssl/certs/0123abcd.1")).unwrap();
    let bundle = root.path().join("usr/lib/ssl/cert.pem");
    assert_eq!(read(&root), Ok(Store { bundle, count: 2, first: one, unbundled: None }));
}

#[test]
fn certificates_beside_the_bundle_are_reported() {
    let (one, two) = (authority(b"one"), authority(b"two"));
    for place in ["etc/ssl/certs/0123abcd.0", "usr/local/ssl/certs/0123abcd.12"] {
        let root = root(&[("etc/pki/tls/cert.pem", &one), ("etc/ssl/certs/x", ""), (place, &two)]);
        let folder = root.path().join(place).parent().unwrap().to_owned();
        let bundle = root.path().join("etc/pki/tls/cert.pem");
        let unbundled = StoreError::Unbundled { place: folder, count: 1, bundle };
        assert_eq!(read(&root).unwrap().unbundled, Some(unbundled), "{place}");
    }
    // OpenSSL reads this file besides the one that the CLI finds first.
    let files = [("usr/share/ssl/cert.pem", &*one), ("usr/local/ssl/cert.pem", &two)];
    assert!(matches!(read(&root(&files)).unwrap().unbundled, Some(StoreError::Unbundled { count: 1, .. })));
}

#[test]
fn unusable_stores_are_reported() {
    let one = authority(b"one");
    assert_eq!(read(&root(&[])), Err(StoreError::NotFound));
    let bundle = "etc/ssl/cert.pem";
    for (text, expected) in [
        (String::new(), StoreError::Empty as fn(PathBuf) -> StoreError),
        (one.replace("MBJ", "*"), StoreError::Malformed),
        (block(b"one"), StoreError::NotAuthority),
        (one.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), StoreError::OpenSslOnly),
    ] {
        let root = root(&[(bundle, &text)]);
        assert_eq!(read(&root), Err(expected(root.path().join(bundle))), "{text}");
    }
    let root = root(&[(bundle, &one), ("etc/ssl/certs/0123abcd.0", "-----BEGIN CERTIFICATE-----")]);
    assert!(matches!(read(&root), Err(StoreError::Malformed(path)) if path.ends_with("0123abcd.0")));
    assert!(matches!(Store::of_file(Path::new("/dev/null")), Err(StoreError::Unreadable { .. })));
}

#[test]
fn versions_change_with_the_bundle_and_the_folder() {
    let root = root(&[("etc/ssl/cert.pem", &authority(b"one")), ("etc/ssl/certs/x", "")]);
    let places = Places::find(root.path()).unwrap();
    let mut before = places.versions();
    assert_eq!(before, places.versions());
    // A new file has a new inode, also within one tick of the clock.
    fs::write(root.path().join("new"), authority(b"one")).unwrap();
    fs::rename(root.path().join("new"), root.path().join("etc/ssl/cert.pem")).unwrap();
    let after = places.versions();
    assert_ne!(before[0], after[0]);
    assert_eq!(before.split_off(1), after[1..]);
}
