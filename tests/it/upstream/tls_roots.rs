//! The trusted certificates of the real CLI: the same with `CODEX_FAST_TLS_ROOTS` and without.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    both_engines,
    support::{
        AppConfig, Codex, Engine, TIMEOUT, UpstreamAs,
        http::body,
        processes,
        program::{Program, RunningProgram},
        tls::TlsUpstream,
        with_app,
    },
};

/// Returns a server whose CLI has a login for the upstream.
fn program(engine: Engine, is_fast: bool, upstream: &TlsUpstream) -> Program {
    let program = Program::new(Codex::Real, engine)
        .env("CODEX_FAST_TLS_ROOTS", if is_fast { "1" } else { "0" })
        .env("CODEX_UPSTREAM_RETRIES", "0")
        .env("CODEX_WORKERS", "1");
    UpstreamAs::OpenAiLogin.write_home(&program.codex_home(), &upstream.base_url());
    program
}

/// Returns the finding of the doctor.
async fn certificates_finding(program: &Program) -> String {
    let ended = program.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == "certificates");
    row.unwrap_or_else(|| panic!("{ended:?}"))["says"].as_str().unwrap().to_owned()
}

/// Runs a turn. Returns the status and the body.
async fn turn(server: &RunningProgram) -> (u16, Value) {
    let request = body("gpt-5.5", r#"@@{"text":"the answer"}@@"#);
    let request = reqwest::Client::new().post(server.url("/v1/chat/completions")).json(&request);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Asserts that a turn has this outcome, and stops the server.
async fn assert_turn(program: Program, upstream: &TlsUpstream, is_trusted: bool) {
    let before = upstream.handshakes();
    let mut server = program.serve(&[]).await;
    let (status, answer) = turn(&server).await;
    if is_trusted {
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["choices"][0]["message"]["content"], "the answer");
        assert!(upstream.handshakes() > before);
    } else {
        assert_eq!((status, &answer["error"]["code"]), (503, &"upstream_unavailable".into()), "{answer}");
        assert!(!answer.to_string().contains("127.0.0.1"), "{answer}");
        assert_eq!(upstream.handshakes(), before);
        assert!(upstream.upstream().requests().is_empty());
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    server.assert_nothing_is_left().await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    upstream_of_the_operators_file_is_trusted
);
async fn upstream_of_the_operators_file_is_trusted(engine: Engine) {
    let (upstream, other) = (TlsUpstream::start().await, TlsUpstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    // Codex parses the first certificate. Only rustls reads the second one.
    let file = folder.path().join("own.pem");
    fs::write(&file, format!("{}{}", other.authority, upstream.authority)).unwrap();
    for is_fast in [true, false] {
        let program = || program(engine, is_fast, &upstream).env("SSL_CERT_FILE", file.to_str().unwrap());
        let finding = certificates_finding(&program()).await;
        let expected = if is_fast { "1 of the 2 certificates" } else { "CODEX_FAST_TLS_ROOTS is 0" };
        assert!(finding.contains(expected), "{finding}");
        assert_turn(program(), &upstream, true).await;
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    upstream_of_an_unknown_authority_is_refused
);
async fn upstream_of_an_unknown_authority_is_refused(engine: Engine) {
    let (upstream, other) = (TlsUpstream::start().await, TlsUpstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.pem");
    fs::write(&file, &other.authority).unwrap();
    for is_fast in [true, false] {
        let by_default = program(engine, is_fast, &upstream);
        assert_turn(by_default, &upstream, false).await;
        let own_file = program(engine, is_fast, &upstream).env("SSL_CERT_FILE", file.to_str().unwrap());
        assert_turn(own_file, &upstream, false).await;
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    upstream_of_the_systems_store_is_trusted
);
async fn upstream_of_the_systems_store_is_trusted(engine: Engine) {
    let Some(system) = system_bundle() else { return };
    let upstream = TlsUpstream::start().await;
    let folder = bundle_with(&system, &upstream.authority);
    for is_fast in [true, false] {
        let program =
            || program(engine, is_fast, &upstream).mounting(folder.path(), system.parent().unwrap());
        let finding = certificates_finding(&program()).await;
        assert_eq!(finding.starts_with("fast"), is_fast, "{finding}");
        assert_turn(program(), &upstream, true).await;
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    self_signed_upstream_of_the_systems_store_is_trusted
);
async fn self_signed_upstream_of_the_systems_store_is_trusted(engine: Engine) {
    let Some(system) = system_bundle() else { return };
    let upstream = TlsUpstream::start_self_signed().await;
    let folder = bundle_with(&system, &upstream.authority);
    let program = || program(engine, true, &upstream).mounting(folder.path(), system.parent().unwrap());
    let finding = certificates_finding(&program()).await;
    assert!(finding.contains("or names a host"), "{finding}");
    assert_turn(program(), &upstream, true).await;
}

/// Returns a folder with the bundle of the system and one more certificate.
fn bundle_with(system: &Path, certificate: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let certificates = fs::read_to_string(system).unwrap();
    let bundle = folder.path().join(system.file_name().unwrap());
    fs::write(bundle, format!("{certificates}\n{certificate}")).unwrap();
    folder
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    upstream_of_the_systems_folder_alone_is_trusted
);
async fn upstream_of_the_systems_folder_alone_is_trusted(engine: Engine) {
    let Some(system) = system_bundle().filter(|system| system.parent() == Some(Path::new("/etc/ssl/certs")))
    else {
        eprintln!("skipped: the test needs the folders of Debian");
        return;
    };
    let upstream = TlsUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::copy(&system, folder.path().join(system.file_name().unwrap())).unwrap();
    let authority = folder.path().join("authority.pem");
    fs::write(&authority, &upstream.authority).unwrap();
    let mut openssl = std::process::Command::new("openssl");
    let hash = openssl
        .args(["x509", "-hash", "-noout", "-in"])
        .arg(&authority)
        .output()
        .expect("the test needs openssl")
        .stdout;
    let hash = String::from_utf8(hash).unwrap();
    fs::rename(&authority, folder.path().join(format!("{}.0", hash.trim()))).unwrap();
    let program = || program(engine, true, &upstream).mounting(folder.path(), Path::new("/etc/ssl/certs"));
    let finding = certificates_finding(&program()).await;
    assert!(finding.contains("has 1 certificate(s) that"), "{finding}");
    assert_turn(program(), &upstream, true).await;
}

/// Returns the bundle of the system, if the test can mount another folder over its folder. Otherwise prints the reason.
fn system_bundle() -> Option<PathBuf> {
    let candidates = ["/usr/lib/ssl/cert.pem", "/etc/pki/tls/cert.pem", "/etc/ssl/cert.pem"];
    let found = candidates.iter().find_map(|path| fs::canonicalize(Path::new(path)).ok());
    let can_mount = std::process::Command::new("unshare").args(["-m", "true"]).output();
    if found.is_none() || !can_mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: the test needs a bundle of the system and the right to mount (root)");
        return None;
    }
    found
}

both_engines!(cli_environment_has_one_certificate_beside_the_operators_file);
async fn cli_environment_has_one_certificate_beside_the_operators_file(engine: Engine) {
    let (first, second) = (TlsUpstream::start().await.authority, TlsUpstream::start().await.authority);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.pem").display().to_string();
    fs::write(&file, format!("the first\n{first}{second}")).unwrap();
    for (setting, is_fast) in
        [(("A", "b"), true), (("CODEX_FAST_TLS_ROOTS", "0"), false), (("SSL_CERT_DIR", "/d"), false)]
    {
        let config = AppConfig::fake(engine).env("SSL_CERT_FILE", &file).envs(&[setting]);
        with_app(config, async |app| {
            let answer = app.complete(&body("fake:report", "x")).await;
            let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
            let report: Value = serde_json::from_str(report).unwrap();
            let env = match engine {
                Engine::Exec => report["env"].as_object().unwrap().clone(),
                Engine::AppServer => processes::environment(app.workers()[0]).unwrap(),
            };
            assert_eq!(env["SSL_CERT_FILE"], file.as_str());
            let own = env.get("CODEX_CA_CERTIFICATE").map(|own| PathBuf::from(own.as_str().unwrap()));
            assert_eq!(own.is_some(), is_fast, "{setting:?}: {env:?}");
            // The file of exec has ended with its turn.
            if let (Some(own), Engine::AppServer) = (own, engine) {
                assert_eq!(fs::read_to_string(&own).unwrap().trim(), first.replace('\r', "").trim());
                assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
            }
        })
        .await;
    }
}
