use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{Config, Sources};

fn codex(env: &[(&str, &str)]) -> Codex {
    // The other tests have no file that depends on the certificates of the machine.
    let default = [("CODEX_FAST_TLS_ROOTS", "0")];
    let env = default.iter().chain(env).map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let sources = Sources { env, current_dir: "/work".into(), ..Sources::default() };
    Config::load(sources).unwrap().codex
}

fn installed(version: &str) -> CliInfo {
    CliInfo { version: version.into(), ..CliInfo::default() }
}

#[test]
fn create_with_user_files_links_all_but_per_process_files() {
    let root = tempfile::tempdir().unwrap();
    let users = root.path().join("user");
    fs::create_dir_all(users.join("skills")).unwrap();
    for folder in PER_PROCESS_FILES {
        fs::create_dir(users.join(folder)).unwrap();
    }
    for file in ["AGENTS.md", "state_5.sqlite", "state_5.sqlite-wal", "config.toml"] {
        fs::write(users.join(file), file).unwrap();
    }
    let codex = codex(&[("CODEX_HOME", users.to_str().unwrap())]);
    let home =
        WorkerHome::create_in(PrivateDir::create_in(root.path()).unwrap(), &codex, &installed("0.169.0"))
            .unwrap();

    let mut names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        ".credentials.json",
        "AGENTS.md",
        "auth.json",
        "config.toml",
        LOG_DATABASE,
        "own-seeds",
        "own-tmp",
        "skills",
    ];
    assert_eq!(names, expected);
    assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_link(home.path().join("skills")).unwrap(), users.join("skills"));
    assert_eq!(home.env().get(OsStr::new("CODEX_HOME")), Some(&home.path().into()));

    // The CLI's later login changes the user's file. A changed configuration does not.
    fs::write(home.path().join("auth.json"), "{}").unwrap();
    fs::write(home.path().join("config.toml"), "changed").unwrap();
    assert_eq!(fs::read_to_string(users.join("auth.json")).unwrap(), "{}");
    assert_eq!(fs::read_to_string(users.join("config.toml")).unwrap(), "config.toml");

    let path = home.path().to_owned();
    drop(home);
    assert!(!path.exists());
    assert!(users.join("skills").exists());
}

#[test]
fn create_with_an_older_cli_and_a_key_keeps_the_log_and_writes_a_login() {
    let root = tempfile::tempdir().unwrap();
    let users = root.path().join("user");
    fs::create_dir_all(&users).unwrap();
    fs::write(users.join("auth.json"), "the user's").unwrap();
    let codex = codex(&[("CODEX_HOME", users.to_str().unwrap()), ("CODEX_API_KEY", "sk-1")]);
    let home =
        WorkerHome::create_in(PrivateDir::create_in(root.path()).unwrap(), &codex, &installed("0.140.0"))
            .unwrap();
    assert!(!home.path().join(LOG_DATABASE).exists());
    assert!(!home.env().contains_key(OsStr::new("CODEX_API_KEY")));
    let login = home.path().join("auth.json");
    assert!(fs::read_to_string(&login).unwrap().contains("sk-1"));
    assert_eq!(fs::metadata(&login).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(users.join("auth.json")).unwrap(), "the user's");
}

#[test]
fn create_with_proxy_and_sqlite_home_excludes_loopback_and_strips_the_key() {
    let root = tempfile::tempdir().unwrap();
    let users = root.path().join("user");
    fs::create_dir_all(&users).unwrap();
    fs::write(users.join("config.toml"), "model = \"m\"\nsqlite_home = \"/elsewhere\"\n").unwrap();
    let env = [("CODEX_HOME", users.to_str().unwrap()), ("HTTP_PROXY", "http://p"), ("no_proxy", "corp")];
    let home = WorkerHome::create_in(
        PrivateDir::create_in(root.path()).unwrap(),
        &codex(&env),
        &installed("0.169.0"),
    )
    .unwrap();
    assert_eq!(home.env().get(OsStr::new("NO_PROXY")), Some(&"corp,127.0.0.1,localhost".into()));
    assert_eq!(home.env().get(OsStr::new("CODEX_SQLITE_HOME")), Some(&home.path().into()));
    let config = fs::read_to_string(home.path().join("config.toml")).unwrap();
    assert_eq!(config, "model = \"m\"\n");
}

#[test]
fn create_without_a_user_home_links_future_logins() {
    let root = tempfile::tempdir().unwrap();
    let codex = codex(&[("HOME", root.path().to_str().unwrap())]);
    let home =
        WorkerHome::create_in(PrivateDir::create_in(root.path()).unwrap(), &codex, &installed("0.169.0"))
            .unwrap();
    let login = fs::read_link(home.path().join("auth.json")).unwrap();
    assert_eq!(login, root.path().join(".codex/auth.json"));
}

#[test]
fn create_with_trusted_certificates_of_the_operator_has_one_beside_them() {
    let root = tempfile::tempdir().unwrap();
    let bundle = root.path().join("own.pem");
    let first = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    fs::write(&bundle, format!("{first}{}", first.replace("MAA=", "MAEA"))).unwrap();
    let env = [("CODEX_FAST_TLS_ROOTS", "1"), ("SSL_CERT_FILE", bundle.to_str().unwrap())];
    let dir = PrivateDir::create_in(root.path()).unwrap();
    let home = WorkerHome::create_in(dir, &codex(&env), &installed("0.169.0")).unwrap();
    let env = home.env();
    assert_eq!(env.get(OsStr::new("SSL_CERT_FILE")), Some(&bundle.into()));
    let own = Path::new(&env[OsStr::new("CODEX_CA_CERTIFICATE")]);
    assert_eq!(own.parent(), Some(home.path()));
    assert_eq!(fs::read_to_string(own).unwrap(), first);
}
