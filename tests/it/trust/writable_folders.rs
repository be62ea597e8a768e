//! Writable folders of the agent that hold what the server runs or reads: the start is refused, and a program that appears in
//! such a place is never started.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use serde_json::Value;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TIMEOUT, TestApp, chat_request, executable,
        program::{ExitedProgram, Program},
        with_app,
    },
};

/// Returns the row of the doctor.
fn writable_folders(ended: &ExitedProgram) -> (String, String, String) {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == "writable folders");
    let row = row.unwrap_or_else(|| panic!("{rows:?}"));
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    (text("outcome"), text("says"), text("remedy"))
}

/// Asserts that neither the server nor the doctor starts the CLI, and that both say why.
async fn assert_refused(program: &Program, what: &str) {
    let starts = program.work_dir().join("../starts");
    let codex = program.work_dir().join("../recorded-codex");
    let ended = program.run(&["serve"]).await;
    assert_eq!(ended.code, Some(64), "{what}: {ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("codex-api: commands of the agent can write to "), "{what}: {last}");
    assert!(last.contains(what) && last.contains("CODEX_SANDBOX=read-only"), "{what}: {last}");
    let ended = program.run(&["doctor", "--json"]).await;
    assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
    let (outcome, says, remedy) = writable_folders(&ended);
    assert_eq!(outcome, "failed");
    assert!(says.contains(what) && remedy.contains("CODEX_WORKSPACE"), "{what}: {says} {remedy}");
    assert!(!starts.exists(), "{} was started", codex.display());
}

/// Creates a program whose codex records that it was started.
fn recorded(engine: Engine) -> Program {
    let program = Program::new(Codex::Fake, engine);
    let root = program.work_dir().parent().unwrap().to_owned();
    write_recorded(&root.join("recorded-codex"), &root.join("starts"), Codex::Fake);
    program
        .env("CODEX_BIN", root.join("recorded-codex").display().to_string())
        .env("CODEX_SANDBOX", "workspace-write")
}

/// Writes a codex that first adds a line to `starts`.
fn write_recorded(path: &Path, starts: &Path, codex: Codex) {
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\nexec '{}' \"$@\"\n",
        starts.display(),
        executable(codex).display()
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

both_engines!(start_with_something_used_in_a_writable_folder_is_refused);
async fn start_with_something_used_in_a_writable_folder_is_refused(engine: Engine) {
    // The default workspace is the current folder, whose `.env` the next start reads, even if a command creates it.
    assert_refused(&recorded(engine), ".env").await;
    assert_refused(&recorded(engine).write_dotenv("CODEX_SANDBOX=workspace-write\n"), ".env").await;
    let plain = || recorded(engine).env("CODEX_NO_DOTENV", "1");
    let within = |program: &Program, name: &str| program.work_dir().join(name).display().to_string();
    // This executable, in a folder above it.
    let target = Path::new(env!("CARGO_BIN_EXE_codex-api")).parent().unwrap().parent().unwrap();
    assert_refused(&plain().env("CODEX_ADD_DIRS", target.display().to_string()), "the codex-api executable")
        .await;
    // The CLI in the workspace, by CODEX_BIN, on PATH, and behind a link in the workspace.
    let program = plain();
    let (codex, starts) = (program.work_dir().join("codex"), program.work_dir().join("../starts"));
    write_recorded(&codex, &starts, Codex::Fake);
    let program = program.env("CODEX_BIN", codex.display().to_string());
    assert_refused(&program, "the Codex CLI").await;
    let path = format!("{}:/usr/bin:/bin", program.work_dir().display());
    let program = program.remove_env("CODEX_BIN").env("PATH", path);
    assert_refused(&program, "the Codex CLI").await;
    let program = plain();
    let link = program.work_dir().join("link");
    symlink(program.work_dir().join("../recorded-codex"), &link).unwrap();
    assert_refused(&program.env("CODEX_BIN", link.display().to_string()), "the Codex CLI").await;
    // The home of the CLI, the temporary folder, and a folder of PATH before the CLI.
    let program = plain();
    let home = within(&program, "home");
    fs::create_dir(&home).unwrap();
    assert_refused(&program.env("CODEX_HOME", home), "the home of the Codex CLI").await;
    let program = plain();
    let folder = within(&program, "tmp");
    fs::create_dir(&folder).unwrap();
    assert_refused(&program.env("TMPDIR", folder), "TMPDIR").await;
    assert_refused(&plain().env("PATH", "node_modules/.bin:/usr/bin:/bin"), "a folder of PATH").await;
    // A writable folder that the user's config.toml adds.
    let program = plain();
    let roots = format!(
        "[sandbox_workspace_write]\nwritable_roots = [\"{}\"]\n",
        program.codex_home().join("skills").display()
    );
    fs::write(program.codex_home().join("config.toml"), roots).unwrap();
    assert_refused(&program, "the home of the Codex CLI").await;
    assert_refused(&plain().env("CODEX_WORKSPACE", "/"), "the codex-api executable").await;
}

both_engines!(start_with_a_workspace_of_its_own_or_without_writing_succeeds);
async fn start_with_a_workspace_of_its_own_or_without_writing_succeeds(engine: Engine) {
    let writing = Program::new(Codex::Fake, engine).env("CODEX_SANDBOX", "workspace-write");
    let own = writing.work_dir().join("../own");
    fs::create_dir(&own).unwrap();
    let writing = writing.env("CODEX_WORKSPACE", own.display().to_string());
    let ended = writing.run(&["doctor", "--json"]).await;
    assert_eq!((ended.code, writable_folders(&ended).0.as_str()), (Some(0), "ok"), "{ended:?}");
    // The defaults: reading in the current folder, with `.env` in it. The start warns.
    let reading = Program::new(Codex::Fake, engine).write_dotenv("CODEX_GATEWAY_TOKEN=secret-token\n");
    let ended = reading.run(&["doctor", "--json"]).await;
    let (outcome, says, remedy) = writable_folders(&ended);
    assert_eq!((ended.code, outcome.as_str()), (Some(0), "warning"), "{ended:?}");
    assert!(says.contains(".env") && remedy.contains("CODEX_WORKSPACE"), "{says} {remedy}");
    for program in
        [writing, reading, Program::new(Codex::Fake, engine).env("CODEX_SANDBOX", "danger-full-access")]
    {
        let mut server = program.serve(&["serve"]).await;
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(server.exit_code(TIMEOUT).await, Some(0), "{:?}", server.log());
    }
}

#[tokio::test]
async fn risky_workspace_is_a_warning_of_doctor_and_log() {
    let open = Program::new(Codex::Fake, Engine::AppServer);
    fs::set_permissions(open.work_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let root = Program::new(Codex::Fake, Engine::AppServer).env("CODEX_WORKSPACE", "/");
    let home = Program::new(Codex::Fake, Engine::AppServer).env("CODEX_WORKSPACE", "..");
    let all = Program::new(Codex::Fake, Engine::AppServer).env("CODEX_SANDBOX", "danger-full-access");
    let rows = [
        (open, "every user of this machine"),
        (root, "the workspace is /"),
        (home, "the user's home"),
        (all, "can write to everything"),
    ];
    for (program, text) in rows {
        let ended = program.run(&["doctor", "--json"]).await;
        let (outcome, says, remedy) = writable_folders(&ended);
        assert_eq!((ended.code, outcome.as_str()), (Some(0), "warning"), "{text}: {ended:?}");
        assert!(says.contains(text) && !remedy.is_empty(), "{text}: {says} {remedy}");
        let mut server = program.serve(&["serve"]).await;
        let line = server.log_line("workspace or sandbox is risky").unwrap();
        assert!(line["finding"].as_str().unwrap().contains(text), "{line}");
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    }
}

both_engines!(program_that_appears_in_a_writable_folder_is_not_started);
async fn program_that_appears_in_a_writable_folder_is_not_started(engine: Engine) {
    planted_program_is_not_started(AppConfig::fake(engine)).await;
    planted_program_is_not_started(AppConfig::fake(engine).automatic_engine()).await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    program_that_appears_in_a_writable_folder_is_not_started_over_the_real_cli
);
async fn program_that_appears_in_a_writable_folder_is_not_started_over_the_real_cli(engine: Engine) {
    planted_program_is_not_started(AppConfig::real(engine)).await;
}

/// Makes the link to the CLI point to a program in the workspace while the server runs. A command of the agent could change
/// that program.
async fn planted_program_is_not_started(config: AppConfig) {
    let folder = tempfile::tempdir().unwrap();
    let (bin, starts) = (folder.path().join("codex"), folder.path().join("starts"));
    symlink(executable(config.codex), &bin).unwrap();
    let codex = config.codex;
    with_app(config.codex_bin(&bin).sandbox("workspace-write").workers(1), async |app| {
        assert!(app.status().await.ready);
        let planted = app.home.path().join("work/codex");
        write_recorded(&planted, &starts, codex);
        let link = |target: &Path| {
            symlink(target, folder.path().join("new")).unwrap();
            fs::rename(folder.path().join("new"), &bin).unwrap();
        };
        link(&planted);
        // Running workers are of the former program.
        for worker in app.workers() {
            let pid = rustix::process::Pid::from_raw(worker.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        eventually!("the server is not ready", !app.status().await.ready);
        let reason = app.status().await.reason;
        assert!(reason.contains("commands of the agent can write"), "{reason}");
        assert_fixed_text(app, &reason);
        let refused = app.grpc_error(chat_request("fake:echo", "hi")).await;
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        assert!(!starts.exists(), "the planted program was started: {:?}", fs::read_to_string(&starts));

        link(&executable(codex));
        eventually!("the CLI is used again", app.status().await.ready);
        assert!(!starts.exists());
    })
    .await;
}

/// Asserts that a text for callers has no path of this server.
fn assert_fixed_text(app: &TestApp, text: &str) {
    let home = app.home.path().display().to_string();
    assert!(!text.contains(&home) && !text.contains("/codex"), "{text}");
}

/// Runs `scripts/serve.sh` with programs in place of cargo and of the server. Returns the server's arguments and workspace.
async fn serve_script(dotenv: &str, env: &[(&str, &str)], arguments: &[&str]) -> (String, String) {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for folder in ["bin", "target/debug", "project", "home"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    fs::write(path("project/.env"), dotenv).unwrap();
    for (program, text) in [
        ("bin/cargo", "#!/bin/sh\n"),
        ("bin/codex", "#!/bin/sh\n"),
        ("target/debug/codex-api", "#!/bin/sh\necho \"$*|$CODEX_WORKSPACE\"\n"),
    ] {
        fs::write(path(program), text).unwrap();
        fs::set_permissions(path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/serve.sh");
    let output = tokio::process::Command::new("bash")
        .arg(script)
        .arg("--dev")
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", path("bin").display()))
        .env("HOME", path("home"))
        .env("CARGO_TARGET_DIR", path("target"))
        .envs(env.iter().copied())
        .current_dir(path("project"))
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let (arguments, workspace) =
        printed.trim().split_once('|').unwrap_or_else(|| panic!("{:?}", output.stderr));
    let below = workspace.strip_prefix(&path("home").display().to_string()).unwrap_or(workspace);
    if below != workspace {
        assert_eq!(fs::metadata(workspace).unwrap().permissions().mode() & 0o777, 0o700);
    }
    (arguments.to_owned(), below.to_owned())
}

#[tokio::test]
async fn serve_script_gives_a_writing_agent_a_workspace_of_its_own() {
    let own = "/.local/share/codex-api/workspace";
    let writes = ("CODEX_SANDBOX", "workspace-write");
    for (dotenv, env, arguments, workspace) in [
        ("", &[][..], &[][..], ""),
        ("", &[writes], &[], own),
        ("CODEX_SANDBOX = \"workspace-write\" # mine\n", &[], &[], own),
        ("", &[], &["--", "--sandbox", "workspace-write"], own),
        ("", &[], &["--", "--sandbox=workspace-write"], own),
        // Whoever configured a workspace keeps it.
        ("", &[writes, ("CODEX_WORKSPACE", "/mine")], &[], "/mine"),
        ("CODEX_WORKSPACE=/mine\n", &[writes], &[], ""),
        ("", &[writes], &["--", "--workspace", "/mine"], ""),
        // A flag has precedence, then the environment.
        ("", &[writes], &["--", "--sandbox", "read-only"], ""),
        ("CODEX_SANDBOX=workspace-write\n", &[("CODEX_SANDBOX", "read-only")], &[], ""),
    ] {
        let (passed, found) = serve_script(dotenv, env, arguments).await;
        assert_eq!(found, workspace, "{dotenv:?} {env:?} {arguments:?}");
        assert!(passed.starts_with("serve"), "{passed}");
    }
}
