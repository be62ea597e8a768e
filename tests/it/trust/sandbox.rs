//! Writable folders of the agent's commands, through the real CLI.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use codex_api::pb::{chat_event::Event, item::Kind};
use serde_json::json;

use crate::{
    both_engines, eventually,
    support::{AppConfig, Engine, TestApp, chat_request, grpc::collect_events, staged::Gate, with_app},
};

/// Runs a command in a turn and returns its output.
async fn command_output(app: &TestApp, command: &str) -> String {
    let call =
        json!({"calls": [{"name": "exec_command", "arguments": {"cmd": format!("{command}; sleep 0.1")}}]});
    let prompt = format!("@@ [{call}, {{\"text\":\"done\"}}] @@");
    let events = app.grpc().await.stream_chat(chat_request("gpt-5.5", &prompt)).await.unwrap().into_inner();
    let events = collect_events(events).await.unwrap();
    let mut commands = events.iter().filter_map(|event| match event.event.as_ref()? {
        Event::Item(item) => match item.kind.as_ref()? {
            Kind::CommandExecution(command) => Some(command.aggregated_output.clone()),
            _ => None,
        },
        _ => None,
    });
    commands.next_back().expect("a command was run")
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    writing_turn_has_a_private_temporary_folder
);
async fn writing_turn_has_a_private_temporary_folder(engine: Engine) {
    with_app(AppConfig::real(engine).sandbox("workspace-write"), async |app| {
        // A file in the folder that contains the files of all turns.
        let shared = app.home.path().join("scratch").join("foreign");
        std::fs::write(&shared, "theirs").unwrap();
        let command = format!(
            "echo mine > note && echo in the workspace; echo x > $(mktemp) && echo in my own folder; \
         echo x > {} || echo not theirs; echo x > /tmp/codex-api-test-$$ || echo not in /tmp",
            shared.display()
        );
        let output = command_output(app, &command).await;
        for expected in ["in the workspace", "in my own folder", "not theirs", "not in /tmp"] {
            assert!(output.contains(expected), "{expected}: {output}");
        }
        assert_eq!(std::fs::read_to_string(&shared).unwrap(), "theirs");
        std::fs::remove_file(shared).unwrap();
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    temporary_folder_is_private_and_removed_with_its_turn
);
async fn temporary_folder_is_private_and_removed_with_its_turn(engine: Engine) {
    with_app(AppConfig::real(engine).sandbox("workspace-write").workers(1), async |app| {
        let mut gate = Gate::in_folder(&app.home.path().join("work"));
        // The first turn waits while the second turn runs.
        let one = command_output(app, "touch $TMPDIR/mine && echo $TMPDIR > folder_path; read -r _ < gate");
        let folder_path = app.home.path().join("work/folder_path");
        let others = async {
            eventually!(
                "the command has a folder",
                std::fs::read_to_string(&folder_path).is_ok_and(|path| path.ends_with('\n'))
            );
            let folder = PathBuf::from(std::fs::read_to_string(&folder_path).unwrap().trim());
            assert!(folder.starts_with(app.home.path().join("scratch")), "the folder is on disk: {folder:?}");
            assert!(folder.join("mine").is_file());
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert!(
                [&*folder, folder.parent().unwrap()].map(mode).contains(&0o700),
                "the folder is private: {folder:?}"
            );
            let output =
                command_output(app, "echo x > $(cat folder_path)/theirs || echo not theirs; echo at $TMPDIR")
                    .await;
            assert!(output.contains("not theirs"), "{output}");
            let other = output.split("at ").nth(1).unwrap().trim();
            assert_ne!(Path::new(other), folder);
            eventually!("the folder is removed with its turn", !Path::new(other).exists());
            assert!(folder.join("mine").is_file(), "the folder of the other turn stays");
            gate.open();
            folder
        };
        let (_, folder) = tokio::join!(one, others);
        eventually!("the first folder is removed too", !folder.exists());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn command_without_a_sandbox_has_a_private_temporary_folder() {
    with_app(AppConfig::real(Engine::AppServer).sandbox("danger-full-access"), async |app| {
        let output = command_output(app, "echo x > $(mktemp) && echo at $TMPDIR").await;
        let folder = Path::new(output.split("at ").nth(1).unwrap().trim());
        assert!(folder.starts_with(app.home.path().join("scratch")), "{output}");
        eventually!("the folder is removed with its turn", !folder.exists());
    })
    .await;
}

#[tokio::test]
async fn files_of_a_turn_have_private_permissions() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let mut grpc = app.grpc().await;
        let turn = tokio::spawn(async move { grpc.chat(chat_request("fake:hang", "hi")).await });
        eventually!("the turn has its folder", !app.scratch_files().is_empty());
        for folder in app.scratch_files() {
            assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        }
        turn.abort();
    })
    .await;
}
