//! Writable folders of the agent's commands, through the real CLI.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use codex_api::pb::{self, chat_event::Event, item::Kind};
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

/// Releases the thread of a turn, which has its temporary folder, at the end of the turn.
fn released_at_once(config: AppConfig) -> AppConfig {
    config.env("CODEX_KEPT_THREADS", "0")
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
    with_app(released_at_once(AppConfig::real(engine)).sandbox("workspace-write").workers(1), async |app| {
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
    with_app(
        released_at_once(AppConfig::real(Engine::AppServer)).sandbox("danger-full-access"),
        async |app| {
            let output = command_output(app, "echo x > $(mktemp) && echo at $TMPDIR").await;
            let folder = Path::new(output.split("at ").nth(1).unwrap().trim());
            assert!(folder.starts_with(app.home.path().join("scratch")), "{output}");
            eventually!("the folder is removed with its turn", !folder.exists());
        },
    )
    .await;
}

#[tokio::test]
async fn files_of_a_turn_have_private_permissions() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let mut grpc = app.grpc().await;
        let turn = tokio::spawn(async move { grpc.chat(chat_request("fake:hang", "hi")).await });
        eventually!("the turn has its folder", !app.scratch_files().is_empty());
        for folder in app.scratch_files() {
            // Only its owner can use the folder, and not even its owner can list it.
            assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o300, "{folder:?}");
        }
        turn.abort();
    })
    .await;
}

/// Returns a request with an image and a schema, whose files the exec engine writes.
fn request_with_files(model: &str, text: &str) -> pb::ChatRequest {
    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let image = pb::Image { data: BASE64.decode(png).unwrap().into(), ..Default::default() };
    let mut request = chat_request(model, text);
    request.messages[0].parts.push(pb::ContentPart { part: Some(pb::content_part::Part::Image(image)) });
    request
}

/// Returns the folder of the running turn of exec.
fn turn_folder(app: &TestApp) -> Option<PathBuf> {
    app.scratch_files()
        .into_iter()
        .find(|folder| folder.join("models.json").exists() || is_unlistable(folder))
}

fn is_unlistable(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o777 == 0o300)
}

#[tokio::test]
async fn files_of_the_client_are_removed_at_the_first_item() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        // The first item comes after half a second, and the last after 2.5 s.
        let mut grpc = app.grpc().await;
        let request = request_with_files("fake:slow:500", "hi");
        let turn = tokio::spawn(async move { grpc.chat(request).await });
        eventually!("the turn has its folder", turn_folder(app).is_some());
        let folder = turn_folder(app).unwrap();
        eventually!("the image is removed once it was read", !folder.join("image-1.png").exists());
        assert!(folder.exists() && !turn.is_finished(), "the turn still runs");
        turn.await.unwrap().unwrap();
        eventually!("the folder is removed", !folder.exists());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn command_cannot_read_files_of_another_turn_of_exec() {
    with_app(AppConfig::real(Engine::Exec), async |app| {
        let mut gate = Gate::in_folder(&app.home.path().join("work"));
        let call = json!({"calls": [{"name": "exec_command", "arguments": {"cmd": "read -r _ < gate"}}]});
        let request = request_with_files("gpt-5.5", &format!("@@ [{call}, {{\"text\":\"done\"}}] @@"));
        let mut grpc = app.grpc().await;
        let one = async {
            let events = grpc.stream_chat(request).await.unwrap().into_inner();
            collect_events(events).await.unwrap()
        };
        let other = async {
            eventually!("the turn has its folder", turn_folder(app).is_some());
            let folder = turn_folder(app).unwrap();
            eventually!("the image is removed once it was read", !folder.join("image-1.png").exists());
            // A file that is still there, in place of an image that was not read yet.
            std::fs::write(folder.join("image-9.png"), "hush").unwrap();
            let parent = folder.parent().unwrap().display();
            let (name, shown) = (folder.file_name().unwrap().display(), folder.display());
            let command =
                format!("ls {parent} | grep {name} || echo no folder; ls {shown}; cat {shown}/image-9.png");
            let output = command_output(app, &command).await;
            assert!(output.contains("no folder") && !output.contains("hush"), "{output}");
            gate.open();
            folder
        };
        let (_, folder) = tokio::join!(one, other);
        eventually!("the folder is removed", !folder.exists());
        // The model got the image.
        let requests = app.upstream().requests();
        assert!(format!("{requests:?}").contains("data:image/png;base64,iVBOR"));
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    read_only_subfolders_of_a_turn_are_removed
);
async fn read_only_subfolders_of_a_turn_are_removed(engine: Engine) {
    with_app(released_at_once(AppConfig::real(engine)).sandbox("workspace-write"), async |app| {
        let command = "mkdir -p $TMPDIR/a/b && touch $TMPDIR/a/b/c && chmod 0 $TMPDIR/a/b && chmod 500 $TMPDIR/a && echo \
                       at $TMPDIR";
        let output = command_output(app, command).await;
        let folder = PathBuf::from(output.split("at ").nth(1).unwrap().trim());
        assert!(folder.starts_with(app.home.path().join("scratch")), "{folder:?}");
        eventually!("the folder is removed with its turn", !folder.exists());
    })
    .await;
}
