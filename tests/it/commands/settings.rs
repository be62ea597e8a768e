//! Settings from arguments, environment and `.env`.

use codex_api::config::settings::SETTINGS;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    both_engines,
    support::{Codex, Engine, TIMEOUT, program::Program},
};

/// Removes line breaks, which depend on the width of the terminal.
fn without_line_breaks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn version_and_help_print_every_setting() {
    let program = Program::new(Codex::Fake, Engine::Exec);
    let version = program.run(&["--version"]).await;
    let expected = format!("codex-api {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.stdout, version.stderr), (Some(0), expected, String::new()));

    for arguments in [&["--help"][..], &["serve", "--help"], &["doctor", "--help"]] {
        let help = program.run(arguments).await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        let text = without_line_breaks(&help.stdout);
        for setting in SETTINGS {
            let flag = format!("--{}", setting.flag);
            let name = format!("[{}]", setting.env);
            assert!(text.contains(&flag) && text.contains(&name), "{flag} {name} in {arguments:?}");
            let default = format!("(default {}) {name}", setting.default);
            assert!(setting.default.is_empty() || text.contains(&default), "{default} in {arguments:?}");
        }
        assert!(!text.contains("supervise "), "the internal command `supervise` is hidden");
    }
    let help = program.run(&["--help"]).await.stdout;
    for text in ["serve", "doctor", "--demo", "CODEX_NO_DOTENV=1", "curl"] {
        assert!(help.contains(text), "{text}");
    }
}

#[tokio::test]
async fn invalid_command_line_exits_with_a_usage_error() {
    let program = Program::new(Codex::Fake, Engine::Exec);
    for (arguments, text) in [
        (&["--prot", "1"][..], "--prot"),
        (&["--prot", "1"], "--port"),
        (&["fly"], "fly"),
        (&["--port"], "--port"),
        (&["doctor", "--demo"], "--demo"),
    ] {
        let ended = program.run(arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(text), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn invalid_settings_are_all_reported_at_once() {
    let program = Program::new(Codex::Fake, Engine::Exec)
        .env("CODEX_GATEWAY_HOST", "0.0.0.0")
        .env("CODEX_SANDBOX", "none")
        .env("CODEX_MAX_QUEUE", "-1")
        .env("CODEX_MODEL_ALIASES", "{")
        .env("CODEX_ENABLE_SEARCH", "perhaps");
    for command in ["serve", "doctor"] {
        let ended = program.run(&[command, "--timeout-seconds", "soon"]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{ended:?}");
        let lines: Vec<&str> = ended.stderr.lines().collect();
        for name in [
            "CODEX_SANDBOX",
            "CODEX_MAX_QUEUE",
            "CODEX_MODEL_ALIASES",
            "CODEX_ENABLE_SEARCH",
            "CODEX_TIMEOUT_SECONDS",
            "CODEX_GATEWAY_TOKEN",
        ] {
            let count = lines.iter().filter(|line| line.starts_with(&format!("codex-api: {name}: "))).count();
            assert_eq!(count, 1, "{name}: {lines:?}");
        }
        assert_eq!(lines.len(), 6, "{lines:?}");
    }
    let program = Program::new(Codex::Fake, Engine::Exec).write_dotenv("CODEX_MODEL='open\n");
    let ended = program.run(&[]).await;
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains(".env, line 1"), "{ended:?}");
    for filter in ["a=b=c", "zork"] {
        let ended = Program::new(Codex::Fake, Engine::Exec).env("CODEX_LOG", filter).run(&[]).await;
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("CODEX_LOG"), "{ended:?}");
    }
}

both_engines!(removed_approval_policy_is_refused_with_the_fake);
async fn removed_approval_policy_is_refused_with_the_fake(engine: Engine) {
    removed_policy_is_refused(Codex::Fake, engine).await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    removed_approval_policy_is_refused_with_the_real_cli
);
async fn removed_approval_policy_is_refused_with_the_real_cli(engine: Engine) {
    removed_policy_is_refused(Codex::Real, engine).await;
}

async fn removed_policy_is_refused(codex: Codex, engine: Engine) {
    let ended = Program::new(codex, engine).env("CODEX_APPROVAL_POLICY", "untrusted").run(&["serve"]).await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("codex-api: ") && last.contains("CODEX_APPROVAL_POLICY=untrusted"), "{last}");
    assert!(last.contains("use never"), "the remedy: {last}");
}

/// Returns the default model of a server, which is the first in its list.
async fn default_model(program: Program, arguments: &[&str]) -> String {
    let mut server = program.serve(arguments).await;
    let list: Value = reqwest::get(server.url("/v1/models")).await.unwrap().json().await.unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    list["data"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn settings_of_flags_override_environment_and_file() {
    let program = || {
        Program::new(Codex::Fake, Engine::Exec).write_dotenv("# mine\nexport CODEX_MODEL=\"of the file\"\n")
    };
    assert_eq!(default_model(program(), &[]).await, "of the file");
    assert_eq!(default_model(program().env("CODEX_NO_DOTENV", "1"), &[]).await, "gpt-5-codex");
    assert_eq!(
        default_model(program().env("CODEX_MODEL", "of the environment"), &[]).await,
        "of the environment"
    );
    let both = program().env("CODEX_MODEL", "of the environment");
    assert_eq!(default_model(both, &["serve", "--model", "of the flag"]).await, "of the flag");
    // An empty value counts as unset.
    assert_eq!(default_model(program().env("CODEX_MODEL", ""), &["--log", "info"]).await, "of the file");
}

#[tokio::test]
async fn misspelt_setting_is_logged_with_a_suggestion() {
    let program = Program::new(Codex::Fake, Engine::Exec)
        .env("CODEX_MAX_CONCURENCY", "9")
        .write_dotenv("CODEX_GATEWAY_TOKNE=x\n");
    let mut server = program.serve(&[]).await;
    for (typed, meant) in
        [("CODEX_MAX_CONCURENCY", "CODEX_MAX_CONCURRENCY"), ("CODEX_GATEWAY_TOKNE", "CODEX_GATEWAY_TOKEN")]
    {
        let warning = server.log_line(typed).unwrap();
        assert_eq!(warning["level"], "WARN");
        assert!(
            warning["message"].as_str().unwrap().ends_with(&format!("did you mean {meant}?")),
            "{warning}"
        );
    }
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
}

#[tokio::test]
async fn occupied_port_fails_the_start_with_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ended =
        Program::new(Codex::Fake, Engine::Exec).run(&["serve", "--port", &address.port().to_string()]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(&format!("codex-api: cannot listen on {address}: Address already in use")),
        "{last}"
    );
    let program = Program::new(Codex::Fake, Engine::Exec).env("CODEX_GRPC_LISTEN", address.to_string());
    let ended = program.run(&[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&address.to_string()), "{ended:?}");
}
