//! Abandoned turns, drained servers and killed servers leave no process, no file and no memory behind.

use std::{path::PathBuf, time::Duration};

use codex_api::demo::Upstream;
use futures_util::{StreamExt, future::join_all};
use rustix::process::{Pid, Signal};

use super::{
    assert_twenty_turns_succeed, endless_turn, one_worker, open_stream, resident_kb, worker_home, workers,
};
use crate::{
    eventually,
    support::{
        Codex, Engine, TIMEOUT, TestApp, UpstreamAs, chat_request,
        http::body,
        program::{Program, RunningProgram},
        with_app,
    },
};

/// Starts a turn and abandons it over one of three routes after a delay.
async fn abandon_turn(app: &TestApp, number: usize, (model, text): (&str, &str)) {
    let delay = Duration::from_millis((number as u64).wrapping_mul(0x9E37_79B9) % 150);
    let mut request = body(model, text);
    request["stream"] = number.is_multiple_of(4).into();
    let call = async {
        if number.is_multiple_of(2) {
            let response = app.post(&request).await;
            response.bytes_stream().for_each(|_| async {}).await;
        } else if let Ok(stream) = app.grpc().await.stream_chat(chat_request(model, text)).await {
            stream.into_inner().for_each(|_| async {}).await;
        }
    };
    drop(tokio::time::timeout(delay, call).await);
}

async fn abandon_turns(app: &TestApp, turns: usize, turn: (&str, &str)) {
    for batch in 0..turns / 20 {
        join_all((0..20).map(|number| abandon_turn(app, batch * 20 + number, turn))).await;
    }
    eventually!("every slot is free", app.status().await.running_turns == 0);
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn abandoned_turns_of_the_real_cli_free_upstream_and_memory() {
    with_app(one_worker(Codex::Real), async |app| {
        let worker = workers(app);
        let upstream = app.upstream();
        // A disconnect ends the upstream request.
        let one = open_stream(app, 0, endless_turn(Codex::Real)).await;
        assert_eq!(upstream.open_responses(), 1);
        drop(one);
        eventually!("no response of the upstream is open", upstream.open_responses() == 0);

        let pid = worker[0].as_raw_nonzero().get().unsigned_abs();
        // Memory is not freed immediately. Two hundred leaked threads would show in every round.
        let mut rounds = vec![resident_kb(pid)];
        loop {
            abandon_turns(app, 200, endless_turn(Codex::Real)).await;
            eventually!("no response of the upstream is open", upstream.open_responses() == 0);
            let (before, now) = (rounds[rounds.len() - 1], resident_kb(pid));
            rounds.push(now);
            if now <= before + before / 10 {
                break;
            }
            assert!(rounds.len() < 8, "memory grows in every round: {rounds:?} kB");
        }
        assert_eq!(workers(app), worker, "the worker was not replaced");
        assert_twenty_turns_succeed(app, Codex::Real).await;
    })
    .await;
}

/// Returns the number of loaded threads of the fake app-server.
async fn threads(app: &TestApp) -> u64 {
    let report: serde_json::Value =
        serde_json::from_str(&app.chat(chat_request("fake:report", "hi")).await).unwrap();
    report["threads"].as_u64().unwrap()
}

#[tokio::test]
async fn abandoned_turns_of_the_fake_leave_no_thread() {
    with_app(one_worker(Codex::Fake), async |app| {
        let worker = workers(app);
        abandon_turns(app, 100, ("fake:hang-after-text", "hi")).await;
        abandon_turns(app, 100, ("fake:stream:1000:1", "hi")).await;
        eventually!("only the thread of this request is loaded", threads(app).await == 1);
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_eq!(workers(app), worker, "the worker was not replaced");
    })
    .await;
}

#[tokio::test]
async fn drain_finishes_short_turns_and_cancels_long_ones() {
    with_app(one_worker(Codex::Fake).drain_seconds(2.0), async |app| {
        let homes: Vec<PathBuf> = workers(app).into_iter().map(worker_home).collect();
        let mut grpc = app.grpc().await;
        let mut short = grpc.stream_chat(chat_request("fake:stream:50:10", "hi")).await.unwrap().into_inner();
        short.next().await.unwrap().unwrap();
        let hanging = open_stream(app, 0, ("fake:stream:100000:20", "hi")).await;
        let muted = {
            let mut grpc = app.grpc().await;
            tokio::spawn(async move { grpc.chat(chat_request("fake:mute-inject", "hi")).await })
        };
        eventually!("all three run", app.status().await.running_turns == 3);
        app.begin_drain();
        while let Some(event) = short.next().await {
            event.expect("a turn within the drain grace succeeds");
        }
        assert_eq!(hanging.error_reason().await, "SHUTTING_DOWN");
        assert_eq!(muted.await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        app.wait_until_stopped().await;
        assert!(homes.iter().all(|home| !home.exists()), "{homes:?}");
    })
    .await;
}

/// Starts the program with two workers and the login of an upstream that runs no turn; returns the private folders of
/// both.
async fn serve_with_two_workers(codex: Codex, upstream: &Upstream) -> (RunningProgram, Vec<PathBuf>) {
    let program = Program::new(codex, Engine::AppServer).env("CODEX_WORKERS", "2");
    // The workspace is the current folder, so `.env` in it must not be read.
    let program = program.env("CODEX_SANDBOX", "workspace-write").env("CODEX_NO_DOTENV", "1");
    // Workers start only with a login.
    UpstreamAs::OpenAiLogin.write_home(&program.codex_home(), &upstream.base_url());
    let server = program.serve(&["serve"]).await;
    let workers = || -> Vec<Pid> {
        let lines = server.processes();
        let lines = lines.iter().filter(|line| line.contains(" app-server") && !line.contains(" supervise "));
        lines.filter_map(|line| Pid::from_raw(line.split_once(':')?.0.parse().ok()?)).collect()
    };
    eventually!("both workers run", workers().len() == 2);
    let mut folders: Vec<PathBuf> = workers().into_iter().map(worker_home).collect();
    let lines = server.processes();
    let catalog = lines.iter().find_map(|line| line.split("model_catalog_json=").nth(1)).unwrap();
    let catalog = PathBuf::from(catalog.split_whitespace().next().unwrap().trim_matches('"'));
    folders.push(catalog.parent().unwrap().to_owned());
    // The folders for the files of commands.
    let scratch = server.scratch_files();
    assert!(scratch.len() >= 2, "{scratch:?}");
    folders.extend(scratch);
    assert!(folders.iter().all(|folder| folder.is_dir()), "{folders:?}");
    (server, folders)
}

#[tokio::test]
async fn stopped_server_with_the_fake_leaves_no_private_folder() {
    stopped_server_leaves_no_private_folder(Codex::Fake).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn stopped_server_with_the_real_cli_leaves_no_private_folder() {
    stopped_server_leaves_no_private_folder(Codex::Real).await;
}

async fn stopped_server_leaves_no_private_folder(codex: Codex) {
    let upstream = Upstream::start().await.unwrap();
    let (mut server, folders) = serve_with_two_workers(codex, &upstream).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0), "{:?}", server.log());
    assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?}");
    server.assert_nothing_is_left().await;
}

#[tokio::test]
async fn killed_server_with_the_fake_leaves_no_private_folder() {
    killed_server_leaves_no_private_folder(Codex::Fake).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn killed_server_with_the_real_cli_leaves_no_private_folder() {
    killed_server_leaves_no_private_folder(Codex::Real).await;
}

async fn killed_server_leaves_no_private_folder(codex: Codex) {
    let upstream = Upstream::start().await.unwrap();
    let (mut server, folders) = serve_with_two_workers(codex, &upstream).await;
    server.signal(Signal::KILL);
    assert_eq!(server.exit_code(TIMEOUT).await, None);
    for folder in folders {
        eventually!("the folder is removed", !folder.exists());
    }
    server.assert_nothing_is_left().await;
}

/// Both engines have the same private folders. A server that is killed with its supervisors removes nothing.
#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn folders_of_a_killed_server_are_removed_at_the_next_start() {
    for engine in [Engine::Exec, Engine::AppServer] {
        let program = Program::new(Codex::Fake, engine);
        // The owner is a process that has never run.
        let namespace = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/pid").unwrap());
        let name = format!("codex-api-private-{namespace}-{}-1-test", u32::MAX);
        let folder = program.work_dir().join("../scratch").join(name);
        std::fs::create_dir_all(folder.join("locked")).unwrap();
        std::fs::write(folder.join("locked/image-1.png"), "x").unwrap();
        let locked: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o500);
        std::fs::set_permissions(folder.join("locked"), locked).unwrap();
        let mut server = program.serve(&["serve"]).await;
        assert!(!folder.exists(), "{engine:?}");
        assert!(server.log_line("removing the folder of a killed server").is_some());
        server.signal(Signal::TERM);
        assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
        server.assert_nothing_is_left().await;
    }
}
