//! What everybody may read about a server that cannot run turns: a fixed sentence with a remedy. The log and the doctor have the
//! details, without values of the CLI's configuration.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    both_engines,
    support::{
        Codex, Engine, TIMEOUT,
        program::{Program, RunningProgram},
    },
};

/// A value in the broken configuration.
const SECRET: &str = "hush-secret-0123456789abcdef";

/// Returns what a server without a token tells about its state over HTTP.
async fn told(server: &RunningProgram) -> (String, String) {
    let health: Value = reqwest::get(server.url("/healthz")).await.unwrap().json().await.unwrap();
    let reason = health["reason"].as_str().unwrap_or_default().to_owned();
    let body = serde_json::json!({"model": "fake:echo", "messages": [{"role": "user", "content": "x"}]});
    let answer = reqwest::Client::new().post(server.url("/v1/chat/completions")).json(&body).send();
    let mut all = health.to_string() + &answer.await.unwrap().text().await.unwrap();
    let status = reqwest::get(server.url("/v1/codex/status")).await.unwrap().text().await.unwrap();
    all.push_str(&status);
    (reason, all)
}

/// Asserts that a server with a fault tells a fixed sentence, and that log and doctor have the detail.
async fn assert_fixed_reason(program: impl Fn() -> Program, (reason, detail): (&str, &str)) {
    let ended = program().run(&["doctor", "--json"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains(detail) && !ended.stdout.contains(SECRET), "{detail}: {}", ended.stdout);
    let program = program();
    let work = program.work_dir();
    let home = work.parent().unwrap().display().to_string();
    let mut server = program.serve(&["serve"]).await;
    let (told_reason, all) = told(&server).await;
    assert!(told_reason.starts_with(reason), "{reason}: {told_reason}");
    for hidden in [SECRET, &home, "/tmp", "hush"] {
        assert!(!all.contains(hidden), "{hidden} in {all}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    let log = server.log().join("\n");
    assert!(log.contains(detail) && !log.contains(SECRET), "{detail}: {log}");
}

/// The configurations, and what log and doctor tell.
const CONFIGS: [(&str, &str); 3] = [
    ("model = \"m\"\napi_key = @\n", "line 2"),
    ("[model_providers.p\nenv_key = \"@\"\n", "line 1"),
    ("sandbox_mode = \"@\"\n", "expected one of `read-only`"),
];

fn broken(codex: Codex, engine: Engine, config: &str) -> Program {
    let program = Program::new(codex, engine).env("CODEX_ENGINE", "auto").env("CODEX_API_KEY", "sk-x");
    fs::write(program.codex_home().join("config.toml"), config.replace('@', SECRET)).unwrap();
    match engine {
        Engine::Exec => program.env("CODEX_ENGINE", "exec"),
        Engine::AppServer => program,
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    broken_configuration_is_a_fixed_reason_over_the_real_cli
);
async fn broken_configuration_is_a_fixed_reason_over_the_real_cli(engine: Engine) {
    for (config, detail) in CONFIGS {
        let program = || broken(Codex::Real, engine, config);
        assert_fixed_reason(program, ("the Codex CLI rejects its configuration", detail)).await;
    }
}

both_engines!(broken_configuration_is_a_fixed_reason);
async fn broken_configuration_is_a_fixed_reason(engine: Engine) {
    // The fake codex prints what the CLI prints.
    let output = format!(
        "Error: failed to load bootstrap configuration\n\nCaused by:\n    0: $CODEX_HOME/config.toml:2:10: string \
         \\\"{SECRET}\\\", expected a boolean\n    1: TOML parse error at line 2, column 10\n         |\n       2 | \
         secret = {SECRET}\n         |          ^^^^^^^^^\n"
    );
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo codex-cli 0.169.0\nprintf '%s' \"{output}\" >&2\nexit 1\n"
    );
    let program = || with_codex(engine, &script);
    assert_fixed_reason(program, ("the Codex CLI rejects its configuration", "expected a boolean")).await;
}

/// Returns a program whose codex is a script.
fn with_codex(engine: Engine, script: &str) -> Program {
    use std::os::unix::fs::PermissionsExt;
    let program = Program::new(Codex::Fake, engine);
    let codex = program.work_dir().join("../codex");
    fs::write(&codex, script).unwrap();
    fs::set_permissions(&codex, fs::Permissions::from_mode(0o755)).unwrap();
    let codex = codex.canonicalize().unwrap().display().to_string();
    let engine = if engine == Engine::Exec { "exec" } else { "auto" };
    program.env("CODEX_BIN", codex).env("CODEX_ENGINE", engine)
}

both_engines!(missing_things_are_a_fixed_reason);
async fn missing_things_are_a_fixed_reason(engine: Engine) {
    let auto = || {
        let program = Program::new(Codex::Fake, engine);
        if engine == Engine::Exec { program } else { program.env("CODEX_ENGINE", "auto") }
    };
    for (name, value, reason, detail) in [
        ("CODEX_BIN", "/tmp/hush/codex", "CODEX_BIN names no executable file", "/tmp/hush/codex"),
        ("CODEX_BIN", "hush-codex", "CODEX_BIN names a program that is not on PATH", "hush-codex"),
        ("CODEX_HOME", "/tmp/hush/home", "CODEX_HOME names a folder that does not exist", "/tmp/hush/home"),
        ("CODEX_WORKSPACE", "hush", "CODEX_WORKSPACE names no folder", "hush"),
    ] {
        assert_fixed_reason(|| auto().env(name, value), (reason, detail)).await;
    }
    let script = format!("#!/bin/sh\necho '{SECRET}'\n");
    assert_fixed_reason(
        || with_codex(engine, &script),
        ("the configured program does not print a version", "does not print a version"),
    )
    .await;
}
