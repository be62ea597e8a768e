//! The report of `doctor` and its remedies.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    both_engines,
    support::{
        Codex, Engine, TIMEOUT,
        program::{ExitedProgram, Program},
    },
};

const CHECKS: [&str; 7] = ["configuration", "port", "workspace", "home", "codex", "login", "sandbox"];

/// Checks of the capability probe.
const CHECKS_OF_THE_GATE: [&str; 10] = [
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

/// Returns whether the report is ok, and check, outcome, finding and remedy of each row.
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
        Engine::AppServer => [&CHECKS[..], &CHECKS_OF_THE_GATE].concat(),
    };
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), checks);
    assert!(finding(&rows, "codex").1.starts_with("0.169.0 at "), "{rows:?}");
    for (name, outcome, _, remedy) in &rows {
        // The fake has no sandbox, which is worth knowing and no failure.
        let expected = if name == "sandbox" { "warning" } else { "ok" };
        assert_eq!(outcome, expected, "{name}");
        assert_eq!(remedy.is_empty(), outcome == "ok", "{name}: {remedy}");
    }
    let text = program.run(&["doctor"]).await;
    assert_eq!(text.code, Some(0));
    for check in checks {
        assert!(text.stdout.lines().any(|line| line.contains(check)), "{check}: {}", text.stdout);
    }
    assert!(!text.stdout.contains('\x1b'), "colours are for terminals");
}

both_engines!(doctor_with_a_fault_reports_the_remedy);
async fn doctor_with_a_fault_reports_the_remedy(engine: Engine) {
    let nowhere = "/nowhere/codex";
    let program =
        Program::new(Codex::Fake, engine).set("CODEX_BIN", nowhere).set("CODEX_WORKSPACE", "missing");
    let ended = program.run(&["doctor", "--json"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (ok, rows) = findings(&ended);
    assert!(!ok);
    let (outcome, says, remedy) = finding(&rows, "codex");
    assert_eq!(outcome, "failed");
    assert!(says.contains("CODEX_BIN") && says.contains(nowhere) && !remedy.is_empty(), "{says} {remedy}");
    let (outcome, says, remedy) = finding(&rows, "workspace");
    assert_eq!(outcome, "failed");
    assert!(says.contains("missing") && remedy.contains("CODEX_WORKSPACE"), "{says} {remedy}");
    let text = program.run(&["doctor"]).await;
    assert_eq!(text.code, Some(1));
    assert!(text.stdout.contains("FAIL  codex") && text.stdout.contains("→ "), "{}", text.stdout);

    // Nothing on PATH: how to get it.
    let program = Program::new(Codex::Fake, engine).remove_env("CODEX_BIN").set("PATH", "/nowhere");
    let (_, rows) = findings(&program.run(&["doctor", "--json"]).await);
    assert!(finding(&rows, "codex").1.contains("npm install -g @openai/codex"), "{rows:?}");

    let program = Program::new(Codex::Fake, engine).set("FAKE_CODEX_LOGIN", "0");
    let (ok, rows) = findings(&program.run(&["doctor", "--json"]).await);
    let (outcome, says, remedy) = finding(&rows, "login");
    assert_eq!((ok, outcome.as_str(), says.as_str()), (false, "failed", "Not logged in"));
    assert!(remedy.contains("codex login"), "{remedy}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = Program::new(Codex::Fake, engine).run(&["doctor", "--json", "--port", &port]).await;
    let (outcome, says, remedy) = finding(&findings(&ended).1, "port");
    assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"));
    assert!(says.contains(&port) && remedy.contains("CODEX_GATEWAY_PORT"), "{says} {remedy}");

    let program = Program::new(Codex::Fake, engine).set("CODEX_MAX_QEUE", "1");
    let ended = program.run(&["doctor", "--json"]).await;
    let (outcome, says, _) = finding(&findings(&ended).1, "configuration");
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "warning"));
    assert!(says.contains("CODEX_MAX_QUEUE"), "{says}");
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
    for (folder, word) in [("/proc", "cannot write"), ("/nowhere/home", "does not exist")] {
        let program =
            Program::new(codex, Engine::AppServer).set("CODEX_HOME", folder).set("CODEX_ENGINE", "auto");
        let (ok, rows) = findings(&program.run(&["doctor", "--json"]).await);
        let (outcome, says, remedy) = finding(&rows, "home");
        assert_eq!((ok, outcome.as_str()), (false, "failed"), "{rows:?}");
        assert!(says.contains(folder) && says.contains(word), "{says}");
        assert!(remedy.contains("CODEX_HOME"), "{remedy}");
        let (_, says, remedy) = finding(&rows, "codex");
        assert!(!says.contains("backtrace") && !remedy.contains("npm"), "{says} {remedy}");
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn provider_without_its_key_fails_doctor_and_health() {
    let provider = "model_provider = \"rec\"\n[model_providers.rec]\nname = \"r\"\nenv_key = \"REC_KEY\"\n\
                    base_url = \"http://127.0.0.1:9/v1\"\nwire_api = \"responses\"\n";
    for chosen in ["auto", "exec"] {
        let program = || {
            let program = Program::new(Codex::Real, Engine::AppServer).set("CODEX_ENGINE", chosen);
            std::fs::write(program.folder().join("../codex-home/config.toml"), provider).unwrap();
            program
        };
        let (ok, rows) = findings(&program().run(&["doctor", "--json"]).await);
        let (outcome, says, remedy) = finding(&rows, "login");
        assert_eq!((ok, outcome.as_str()), (false, "failed"), "{rows:?}");
        assert!(says.contains("REC_KEY") && remedy.contains("environment"), "{says} {remedy}");
        let (_, rows) = findings(&program().set("REC_KEY", "k").run(&["doctor", "--json"]).await);
        assert_eq!(finding(&rows, "login").0, "ok", "{rows:?}");

        let mut server = program().serve(&[]).await;
        let health = reqwest::get(server.url("/healthz")).await.unwrap();
        assert_eq!(health.status(), 503);
        let told: Value = health.json().await.unwrap();
        assert!(told["reason"].as_str().unwrap().contains("REC_KEY"), "{told}");
        server.signal(Signal::TERM);
        assert_eq!(server.code(TIMEOUT).await, Some(0));
    }
}

#[tokio::test]
async fn doctor_with_an_older_cli_reports_missing_capabilities() {
    let doctor = async |version: &str, engine: &str| {
        let program = Program::new(Codex::Fake, Engine::AppServer)
            .set("FAKE_CODEX_VERSION", version)
            .set("CODEX_ENGINE", engine);
        let ended = program.run(&["doctor", "--json"]).await;
        (ended.code, findings(&ended).1)
    };
    let (code, rows) = doctor("0.140.0", "app-server").await;
    assert_eq!(code, Some(0), "{rows:?}");
    let odd: Vec<&str> = rows.iter().filter(|row| row.1 == "warning").map(|row| row.0.as_str()).collect();
    assert_eq!(odd, ["sandbox", "engine: ends of responses", "engine: typed errors"]);
    let (code, rows) = doctor("0.110.0", "auto").await;
    let (outcome, says, remedy) = finding(&rows, "engine: app-server");
    assert_eq!((code, outcome.as_str()), (Some(0), "warning"), "exec is as good as ever");
    assert!(says.contains("0.110.0") && remedy.contains("codex exec"), "{says} {remedy}");
    let (code, rows) = doctor("0.110.0", "app-server").await;
    assert_eq!(
        (code, finding(&rows, "engine: app-server").0.as_str()),
        (Some(1), "failed"),
        "nothing else may be"
    );
}

#[tokio::test]
async fn cli_running_commands_without_an_environment_is_refused() {
    // Whatever it says of environments, and whatever the profile switches off.
    for version in ["0.140.0", "0.169.0"] {
        for profile in ["agent", "chat"] {
            let program = Program::new(Codex::Fake, Engine::AppServer)
                .set("FAKE_CODEX_VERSION", version)
                .set("FAKE_CODEX_APP_SERVER", "careless")
                .set("CODEX_PROFILE", profile)
                .set("CODEX_ENGINE", "app-server");
            let ended = program.run(&["doctor", "--json"]).await;
            let (outcome, says, _) = finding(&findings(&ended).1, "engine: no environment");
            assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"), "{version} {profile}");
            assert!(says.contains("runs commands"), "{says}");
            let ended = program.run(&[]).await;
            assert_eq!(ended.code, Some(64), "nor is it started: {ended:?}");
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
    assert_eq!(ended.code, Some(1), "nobody is logged in: {rows:?}");
    assert_eq!(finding(&rows, "codex").0, "ok", "{rows:?}");
    assert_eq!(finding(&rows, "login").0, "failed", "{rows:?}");
    let ended = program.set("CODEX_API_KEY", "sk-x").run(&["doctor", "--json"]).await;
    assert_eq!(finding(&findings(&ended).1, "login").0, "ok", "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

both_engines!(doctor_with_turn_runs_one_turn);
async fn doctor_with_turn_runs_one_turn(engine: Engine) {
    let program = Program::new(Codex::Fake, engine).set("CODEX_MODEL", "fake:echo");
    let ended = program.run(&["doctor", "--json", "--turn"]).await;
    let (outcome, says, _) = finding(&findings(&ended).1, "turn");
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "ok"), "{ended:?}");
    assert!(says.contains(&format!("answered {:?}", engine.echo("Answer with the word OK."))), "{says}");

    let program = Program::new(Codex::Fake, engine).set("CODEX_MODEL", "fake:failed:401");
    let ended = program.run(&["doctor", "--json", "--turn"]).await;
    let (outcome, says, remedy) = finding(&findings(&ended).1, "turn");
    assert_eq!((ended.code, outcome.as_str()), (Some(1), "failed"), "{ended:?}");
    assert!(says.contains("401") && !remedy.is_empty(), "{says} {remedy}");
}
