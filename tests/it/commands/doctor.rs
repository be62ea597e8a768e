//! The report of `doctor` and its remedies.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    both_engines,
    support::{
        Codex, Engine, TIMEOUT,
        login::{self, chatgpt, key},
        program::{ExitedProgram, Program},
    },
};

const CHECKS: [&str; 11] = [
    "configuration",
    "port",
    "open files",
    "workspace",
    "home",
    "codex",
    "login",
    "upstream",
    "certificates",
    "sandbox",
    "model",
];

/// The additional checks of the capability probe.
const CAPABILITY_CHECKS: [&str; 10] = [
    "engine: histories",
    "engine: threads end",
    "engine: nothing is stored",
    "engine: no environment",
    "engine: turns without input",
    "engine: client tools",
    "engine: ends of responses",
    "engine: output schemas",
    "engine: list of models",
    "engine: typed errors",
];

/// Parses the report. Returns `ok`, and check, outcome, finding and remedy of each row.
fn findings(ended: &ExitedProgram) -> (bool, Vec<(String, String, String, String)>) {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let rows = report["checks"].as_array().unwrap().iter().map(|row| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("check"), text("outcome"), text("says"), text("remedy"))
    });
    (report["ok"].as_bool().unwrap(), rows.collect())
}

fn finding(rows: &[(String, String, String, String)], check: &str) -> (String, String, String) {
    let row = rows.iter().find(|row| row.0 == check).unwrap_or_else(|| panic!("{check} in {rows:?}"));
    (row.1.clone(), row.2.clone(), row.3.clone())
}

both_engines!(doctor_with_a_good_installation_reports_ok);
async fn doctor_with_a_good_installation_reports_ok(engine: Engine) {
    let program = Program::new(Codex::Fake, engine);
    let ended = program.run(&["doctor", "--json"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let (ok, rows) = findings(&ended);
    assert!(ok);
    let checks = match engine {
        Engine::Exec => CHECKS.to_vec(),
        Engine::AppServer => [&CHECKS[..], &CAPABILITY_CHECKS].concat(),
    };
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), checks);
    assert!(finding(&rows, "codex").1.starts_with("0.169.0 at "), "{rows:?}");
    for (name, outcome, _, remedy) in &rows {
        // The fake codex has no sandbox, which is a warning and not a failure.
        let expected = if name == "sandbox" { "warning" } else { "ok" };
        assert_eq!(outcome, expected, "{name}");
        assert_eq!(remedy.is_empty(), outcome == "ok", "{name}: {remedy}");
    }
    let text = program.run(&["doctor"]).await;
    assert_eq!(text.code, Some(0));
    for check in checks {
        assert!(text.stdout.lines().any(|line| line.contains(check)), "{check}: {}", text.stdout);
    }
    assert!(!text.stdout.contains('\x1b'), "without a terminal, the output has no colours");
}

both_engines!(doctor_with_a_fault_reports_the_remedy);
async fn doctor_with_a_fault_reports_the_remedy(engine: Engine) {
    let nowhere = "/nowhere/codex";
    let program =
        Program::new(Codex::Fake, engine).env("CODEX_BIN", nowhere).env("CODEX_WORKSPACE", "missing");
    let ended = program.run(&["doctor", "--json"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (ok, rows) = findings(&ended);
    assert!(!ok);
    let (outcome, text, remedy) = finding(&rows, "codex");
    assert_eq!(outcome, "failed");
    assert!(text.contains("CODEX_BIN") && text.contains(nowhere) && !remedy.is_empty(), "{text} {remedy}");
    let (outcome, text, remedy) = finding(&rows, "workspace");
    assert_eq!(outcome, "failed");
    assert!(text.contains("missing") && remedy.contains("CODEX_WORKSPACE"), "{text} {remedy}");
    let text = program.run(&["doctor"]).await;
    assert_eq!(text.code, Some(1));
    assert!(text.stdout.contains("FAIL  codex") && text.stdout.contains("→ "), "{}", text.stdout);

    // Without a CLI on `PATH`, the finding has the command to install one.
    let program = Program::new(Codex::Fake, engine).remove_env("CODEX_BIN").env("PATH", "/nowhere");
    let (_, rows) = findings(&program.run(&["doctor", "--json"]).await);
    assert!(finding(&rows, "codex").1.contains("npm install -g @openai/codex"), "{rows:?}");

    let program = Program::new(Codex::Fake, engine);
    std::fs::remove_file(program.codex_home().join("auth.json")).unwrap();
    let (ok, rows) = findings(&program.run(&["doctor", "--json"]).await);
    let (outcome, text, remedy) = finding(&rows, "login");
    assert_eq!((ok, outcome.as_str(), text.as_str()), (false, "failed", "the Codex CLI is not logged in"));
    assert!(remedy.contains("codex login"), "{remedy}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = Program::new(Codex::Fake, engine).run(&["doctor", "--json", "--port", &port]).await;
    let (outcome, text, remedy) = finding(&findings(&ended).1, "port");
    assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"));
    assert!(text.contains(&port) && remedy.contains("CODEX_GATEWAY_PORT"), "{text} {remedy}");

    let program = Program::new(Codex::Fake, engine).env("CODEX_MAX_QEUE", "1");
    let ended = program.run(&["doctor", "--json"]).await;
    let (outcome, text, _) = finding(&findings(&ended).1, "configuration");
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "warning"));
    assert!(text.contains("CODEX_MAX_QUEUE"), "{text}");
}

both_engines!(doctor_compares_the_models_with_the_catalog);
async fn doctor_compares_the_models_with_the_catalog(engine: Engine) {
    for (settings, outcome, texts) in [
        (&[][..], "ok", &["gpt-5-codex is unknown to Codex 0.169.0", "stands for gpt-6-sol"][..]),
        (&[("CODEX_MODEL", "gpt-5.5")], "ok", &["gpt-5.5"]),
        (&[("CODEX_MODEL", "gpt-5-codex")], "warning", &["lacks the configured gpt-5-codex"]),
        (
            &[("CODEX_MODEL", "gpt-5.5"), ("CODEX_MODEL_ALIASES", r#"{"*":"gone","a":"gpt-6-sol"}"#)],
            "warning",
            &["lacks the configured gone"],
        ),
        (&[("FAKE_CODEX_VERSION", "0.110.0")], "ok", &["Codex 0.110.0 prints no list"]),
    ] {
        let program = settings
            .iter()
            .fold(Program::new(Codex::Fake, engine), |program, (name, value)| program.env(name, *value));
        let (_, rows) = findings(&program.run(&["doctor", "--json"]).await);
        let (found, text, remedy) = finding(&rows, "model");
        assert_eq!(found, outcome, "{settings:?}: {text}");
        assert!(texts.iter().all(|part| text.contains(part)), "{settings:?}: {text}");
        assert_eq!(remedy.contains("CODEX_MODEL"), outcome == "warning", "{remedy}");
    }
    // The model of the CLI's own configuration is a configured one too.
    let provider = "model_provider = \"mine\"\n[model_providers.mine]\nname = \"mine\"\n";
    for (config, outcome, part) in
        [("", "warning", "lacks the configured gone"), (provider, "ok", "gone, of the provider mine")]
    {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.toml"), format!("model = \"gone\"\n{config}")).unwrap();
        let program = Program::new(Codex::Fake, engine).env("CODEX_HOME", home.path().display().to_string());
        let (_, rows) = findings(&program.run(&["doctor", "--json"]).await);
        let (found, text, _) = finding(&rows, "model");
        assert!(found == outcome && text.contains(part), "{found} {text}");
    }
}

#[tokio::test]
async fn doctor_with_an_unusable_home_names_the_setting_over_the_fake() {
    unusable_home_is_reported(Codex::Fake).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn doctor_with_an_unusable_home_names_the_setting_over_the_real_cli() {
    unusable_home_is_reported(Codex::Real).await;
}

async fn unusable_home_is_reported(codex: Codex) {
    // The first folder accepts no file; the second one does not exist.
    for (folder, expected) in [("/proc", "cannot write"), ("/nowhere/home", "does not exist")] {
        let program =
            Program::new(codex, Engine::AppServer).env("CODEX_HOME", folder).env("CODEX_ENGINE", "auto");
        let (ok, rows) = findings(&program.run(&["doctor", "--json"]).await);
        let (outcome, text, remedy) = finding(&rows, "home");
        assert_eq!((ok, outcome.as_str()), (false, "failed"), "{rows:?}");
        assert!(text.contains(folder) && text.contains(expected), "{text}");
        assert!(remedy.contains("CODEX_HOME"), "{remedy}");
        let (_, text, remedy) = finding(&rows, "codex");
        assert!(!text.contains("backtrace") && !remedy.contains("npm"), "{text} {remedy}");
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn provider_without_its_key_fails_doctor_and_health() {
    let provider = "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"\nenv_key = \"REC_KEY\"\n\
                    base_url = \"http://127.0.0.1:9/v1\"\nwire_api = \"responses\"\n";
    for engine in ["auto", "exec"] {
        let program = || {
            let program = Program::new(Codex::Real, Engine::AppServer).env("CODEX_ENGINE", engine);
            std::fs::write(program.work_dir().join("../codex-home/config.toml"), provider).unwrap();
            program
        };
        let (ok, rows) = findings(&program().run(&["doctor", "--json"]).await);
        let (outcome, text, remedy) = finding(&rows, "login");
        assert_eq!((ok, outcome.as_str()), (false, "failed"), "{rows:?}");
        assert!(text.contains("REC_KEY") && remedy.contains("environment"), "{text} {remedy}");
        let (_, rows) = findings(&program().env("REC_KEY", "k").run(&["doctor", "--json"]).await);
        assert_eq!(finding(&rows, "login").0, "ok", "{rows:?}");

        let mut server = program().serve(&[]).await;
        let health = reqwest::get(server.url("/healthz")).await.unwrap();
        assert_eq!(health.status(), 503);
        let health: Value = health.json().await.unwrap();
        assert!(health["reason"].as_str().unwrap().contains("REC_KEY"), "{health}");
        server.signal(Signal::TERM);
        assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    }
}

#[tokio::test]
async fn doctor_with_an_older_cli_reports_missing_capabilities() {
    let doctor = async |version: &str, engine: &str| {
        let program = Program::new(Codex::Fake, Engine::AppServer)
            .env("FAKE_CODEX_VERSION", version)
            .env("CODEX_ENGINE", engine);
        let ended = program.run(&["doctor", "--json"]).await;
        (ended.code, findings(&ended).1)
    };
    let (code, rows) = doctor("0.140.0", "app-server").await;
    assert_eq!(code, Some(0), "{rows:?}");
    let warnings: Vec<&str> =
        rows.iter().filter(|row| row.1 == "warning").map(|row| row.0.as_str()).collect();
    assert_eq!(warnings, ["sandbox", "engine: ends of responses", "engine: typed errors"]);
    let (code, rows) = doctor("0.110.0", "auto").await;
    let (outcome, text, remedy) = finding(&rows, "engine: app-server");
    assert_eq!((code, outcome.as_str()), (Some(0), "warning"), "with `auto`, exec replaces it");
    assert!(text.contains("0.110.0") && remedy.contains("codex exec"), "{text} {remedy}");
    let (code, rows) = doctor("0.110.0", "app-server").await;
    assert_eq!(
        (code, finding(&rows, "engine: app-server").0.as_str()),
        (Some(1), "failed"),
        "without `auto`, no engine replaces it"
    );
}

#[tokio::test]
async fn cli_running_commands_without_an_environment_is_refused() {
    // The probe tests the behaviour, so neither the version nor the profile matters.
    for version in ["0.140.0", "0.169.0"] {
        for profile in ["agent", "chat"] {
            let program = Program::new(Codex::Fake, Engine::AppServer)
                .env("FAKE_CODEX_VERSION", version)
                .env("FAKE_CODEX_APP_SERVER", "careless")
                .env("CODEX_PROFILE", profile)
                .env("CODEX_ENGINE", "app-server");
            let ended = program.run(&["doctor", "--json"]).await;
            let (outcome, text, _) = finding(&findings(&ended).1, "engine: no environment");
            assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"), "{version} {profile}");
            assert!(text.contains("runs commands"), "{text}");
            let ended = program.run(&[]).await;
            assert_eq!(ended.code, Some(64), "the server does not start either: {ended:?}");
            assert!(ended.stderr.contains("runs commands in a thread without environment"), "{ended:?}");
        }
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    doctor_with_the_real_cli_reports_the_missing_login
);
async fn doctor_with_the_real_cli_reports_the_missing_login(engine: Engine) {
    let program = Program::new(Codex::Real, engine);
    let ended = program.run(&["doctor", "--json"]).await;
    let (_, rows) = findings(&ended);
    assert_eq!(ended.code, Some(1), "the CLI has no login: {rows:?}");
    assert_eq!(finding(&rows, "codex").0, "ok", "{rows:?}");
    assert_eq!(finding(&rows, "login").0, "failed", "{rows:?}");
    let ended = program.env("CODEX_API_KEY", "sk-x").run(&["doctor", "--json"]).await;
    assert_eq!(finding(&findings(&ended).1, "login").0, "ok", "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

both_engines!(doctor_of_each_login_reports_it_offline);
async fn doctor_of_each_login_reports_it_offline(engine: Engine) {
    let mut lost = chatgpt("acc-1", 1);
    lost["tokens"]["refresh_token"] = "".into();
    // The payload is `{"exp":1}`.
    lost["tokens"]["access_token"] = "e30.eyJleHAiOjF9.c2ln".into();
    let mut expired = lost.clone();
    expired["tokens"]["refresh_token"] = "r".into();
    let forced = "forced_login_method = \"chatgpt\"\n";
    let own = "model_provider = \"p\"\n[model_providers.p]\nname = \"p\"\nrequires_openai_auth = true\n";
    // Only processes with the user's own home find a login in the keyring.
    let keyring = match engine {
        Engine::Exec => ("ok", "in the keyring"),
        Engine::AppServer => ("failed", "homes of their own"),
    };
    let rows = [
        ("", Some(chatgpt("acc-1", 1)), &[][..], "ok", "acc-1, plan plus"),
        ("", Some(expired), &[], "ok", "the CLI refreshes it"),
        ("", Some(lost), &[], "failed", "has expired"),
        ("", None, &[("OPENAI_API_KEY", "k")], "failed", "OPENAI_API_KEY"),
        ("", None, &[("CODEX_API_KEY", "")], "failed", "not logged in"),
        (own, None, &[], "failed", "not logged in"),
        (own, Some(key("k")), &[], "ok", "API key"),
        (forced, Some(key("k")), &[], "failed", "forced_login_method"),
        ("cli_auth_credentials_store = \"keyring\"", None, &[], keyring.0, keyring.1),
    ];
    for (config, login, env, expected, text) in rows {
        let program = env
            .iter()
            .fold(Program::new(Codex::Fake, engine), |program, (name, value)| program.env(name, *value));
        std::fs::remove_file(program.codex_home().join("auth.json")).unwrap();
        std::fs::write(program.codex_home().join("config.toml"), config).unwrap();
        if let Some(login) = &login {
            login::write(&program.codex_home(), login);
        }
        let ended = program.run(&["doctor", "--json"]).await;
        let (ok, rows) = findings(&ended);
        let (outcome, finding, remedy) = finding(&rows, "login");
        assert_eq!((ok, outcome.as_str()), (expected == "ok", expected), "{rows:?}");
        assert!(finding.contains(text), "{text}: {finding}");
        assert_eq!(remedy.is_empty(), expected == "ok", "{remedy}");
        assert!(!rows.iter().any(|row| row.3.contains("newer")), "{rows:?}");
    }
}

#[tokio::test]
async fn login_file_that_cannot_be_replaced_is_a_warning_of_doctor_and_log() {
    let program = || {
        let program = Program::new(Codex::Fake, Engine::AppServer);
        login::write(&program.codex_home(), &chatgpt("acc-1", 1));
        std::fs::hard_link(program.codex_home().join("auth.json"), program.work_dir().join("link")).unwrap();
        program
    };
    let ended = program().run(&["doctor", "--json"]).await;
    let (outcome, text, remedy) = finding(&findings(&ended).1, "login: file");
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "warning"), "{ended:?}");
    assert!(text.contains("2 hard links") && remedy.contains("mount the folder"), "{text} {remedy}");
    let mut server = program().serve(&[]).await;
    let line = server.log_line("login has a limitation").unwrap();
    assert!(line["remedy"].as_str().unwrap().contains("mount the folder"), "{line}");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
}

both_engines!(doctor_with_turn_runs_one_turn);
async fn doctor_with_turn_runs_one_turn(engine: Engine) {
    let program = Program::new(Codex::Fake, engine).env("CODEX_MODEL", "fake:echo");
    let ended = program.run(&["doctor", "--json", "--turn"]).await;
    let (outcome, text, _) = finding(&findings(&ended).1, "turn");
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "ok"), "{ended:?}");
    assert!(text.contains(&format!("answered {:?}", engine.echo("Answer with the word OK."))), "{text}");

    for (kind, expected_text, expected_remedy) in [
        ("401", "401", "codex login"),
        ("502", "502", "network"),
        ("429-usage-limit", "usage limit", "reset"),
        ("404-model", "does not exist", "CODEX_MODEL"),
    ] {
        let program = Program::new(Codex::Fake, engine).env("CODEX_MODEL", format!("fake:failed:{kind}"));
        let ended = program.run(&["doctor", "--json", "--turn"]).await;
        let (outcome, text, remedy) = finding(&findings(&ended).1, "turn");
        assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"), "{ended:?}");
        assert!(text.contains(expected_text) && remedy.contains(expected_remedy), "{kind}: {text} {remedy}");
    }
}
