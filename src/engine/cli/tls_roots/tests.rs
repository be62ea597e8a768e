use super::{pem::tests::block, *};
use crate::config::{Config, Sources};

const VERSION: &str = "0.169.0";

fn variables(env: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn facts(env: &BTreeMap<OsString, OsString>) -> Facts<'_> {
    Facts { is_enabled: true, is_linux: true, version: VERSION, env, home_dotenv: "" }
}

fn codex(env: &[(&str, &str)]) -> Codex {
    let sources = Sources { env: variables(env), current_dir: "/".into(), ..Sources::default() };
    Config::load(sources).unwrap().codex
}

fn installed() -> CliInfo {
    CliInfo { version: VERSION.into(), ..CliInfo::default() }
}

#[test]
fn bundle_depends_on_the_variables_of_the_operator() {
    let set = |name| Err(Reason::Variable(name));
    for (env, expected) in [
        (&[][..], Ok(Bundle::System)),
        (&[(CERT_FILE, ""), (CA_CERTIFICATE, "")], Ok(Bundle::System)),
        (&[(CERT_FILE, "/own.pem")], Ok(Bundle::Operator("/own.pem".into()))),
        (&[(CERT_FILE, "/own.pem"), (CA_CERTIFICATE, "/ca.pem")], set(CA_CERTIFICATE)),
        (&[(CA_CERTIFICATE, "/ca.pem")], set(CA_CERTIFICATE)),
        (&[(CERT_DIR, "/certs")], set(CERT_DIR)),
        (&[(CERT_DIR, "")], set(CERT_DIR)),
        (&[(CERT_FILE, "/own.pem"), (CERT_DIR, "/certs")], set(CERT_DIR)),
    ] {
        assert_eq!(facts(&variables(env)).bundle(), expected, "{env:?}");
    }
}

#[test]
fn bundle_on_another_system_is_that_of_the_operator_only() {
    let (unset, own) = (BTreeMap::new(), variables(&[(CERT_FILE, "/own.pem")]));
    let on_macos = |env| Facts { is_linux: false, ..facts(env) }.bundle();
    assert_eq!(on_macos(&unset), Err(Reason::OtherSystem));
    assert_eq!(on_macos(&own), Ok(Bundle::Operator("/own.pem".into())));
}

#[test]
fn bundle_with_the_switch_an_old_cli_or_its_dotenv_is_none() {
    let env = BTreeMap::new();
    assert_eq!(Facts { is_enabled: false, ..facts(&env) }.bundle(), Err(Reason::SwitchedOff));
    for version in ["0.168.9", ""] {
        assert_eq!(Facts { version, ..facts(&env) }.bundle(), Err(Reason::OldCli(version.into())));
    }
    assert_eq!(Facts { version: "1.0.0", ..facts(&env) }.bundle(), Ok(Bundle::System));
    for name in [CA_CERTIFICATE, CERT_FILE, CERT_DIR] {
        let home_dotenv = format!("A=1\nexport {name} = '/x'\n");
        let facts = Facts { home_dotenv: &home_dotenv, ..facts(&env) };
        assert_eq!(facts.bundle(), Err(Reason::HomeDotenv), "{name}");
    }
    assert_eq!(Facts { home_dotenv: "SSL_VERSION=1", ..facts(&env) }.bundle(), Ok(Bundle::System));
}

#[test]
fn new_with_certificates_beside_the_bundle_changes_nothing() {
    let store = |unbundled| Store { bundle: "/b.pem".into(), count: 2, first: "PEM".into(), unbundled };
    let unbundled = StoreError::Unbundled { place: "/certs".into(), count: 1, bundle: "/b.pem".into() };
    let roots = TlsRoots::new(store(Some(unbundled.clone())), true);
    assert_eq!(roots, TlsRoots::Unchanged(Reason::Store(unbundled)));
    assert_eq!(
        roots.check().finding,
        "as the CLI reads them by default, because /certs has 1 certificate(s) that /b.pem lacks; \
         SSL_CERT_FILE=/b.pem would leave them out"
    );
    assert!(TlsRoots::new(store(None), true).check().finding.contains("1 of the 2 certificates of /b.pem"));
}

#[test]
fn install_of_the_fast_way_writes_a_private_file_and_sets_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let roots = |is_system| {
        TlsRoots::Fast(FastRoots { bundle: "/b.pem".into(), count: 2, first: "PEM".into(), is_system })
    };
    let file = folder.path().join(FILE_NAME);
    for (is_system, bundle) in [(true, "/b.pem"), (false, "/own.pem")] {
        let mut env = variables(&[(CERT_FILE, "/own.pem")]);
        roots(is_system).install(folder.path(), &mut env).unwrap();
        assert_eq!(env, variables(&[(CERT_FILE, bundle), (CA_CERTIFICATE, file.to_str().unwrap())]));
        assert_eq!(fs::read_to_string(&file).unwrap(), "PEM");
        fs::remove_file(&file).unwrap();
    }
    let mut env = variables(&[(CERT_FILE, "/own.pem")]);
    TlsRoots::Unchanged(Reason::SwitchedOff).install(folder.path(), &mut env).unwrap();
    assert_eq!(env, variables(&[(CERT_FILE, "/own.pem")]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn find_reads_the_file_of_the_operator_relative_to_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().to_str().unwrap();
    fs::write(folder.path().join("own.pem"), block(b"one") + &block(b"two")).unwrap();
    let env =
        |switch| [("CODEX_WORKSPACE", workspace), (CERT_FILE, "own.pem"), ("CODEX_FAST_TLS_ROOTS", switch)];
    let expected =
        FastRoots { bundle: folder.path().join("own.pem"), count: 2, first: block(b"one"), is_system: false };
    assert_eq!(TlsRoots::find(&codex(&env("1")), &installed()), TlsRoots::Fast(expected));
    let off = TlsRoots::find(&codex(&env("0")), &installed());
    assert_eq!(off, TlsRoots::Unchanged(Reason::SwitchedOff));
    // The CLI reports the missing file itself.
    fs::remove_file(folder.path().join("own.pem")).unwrap();
    let missing = TlsRoots::find(&codex(&env("1")), &installed());
    assert!(matches!(missing, TlsRoots::Unchanged(Reason::Store(StoreError::Unreadable { .. }))));
}

#[test]
fn find_with_a_dotenv_in_the_home_of_the_cli_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".env"), b"X=\xff\nSSL_CERT_FILE=/own.pem\n").unwrap();
    let roots = TlsRoots::find(&codex(&[("CODEX_HOME", home.path().to_str().unwrap())]), &installed());
    assert_eq!(roots, TlsRoots::Unchanged(Reason::HomeDotenv));
}
