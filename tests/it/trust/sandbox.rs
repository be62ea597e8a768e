//! What commands of the agent can write to, through the real CLI.

use codex_api::pb::{chat_event::Event, item::Kind};
use serde_json::json;

use crate::support::{TestApp, ask, grpc::all};

/// Runs a command in a turn and tells what it printed.
async fn printed(app: &TestApp, command: &str) -> String {
    let call =
        json!({"calls": [{"name": "exec_command", "arguments": {"cmd": format!("{command}; sleep 0.1")}}]});
    let prompt = format!("@@ [{call}, {{\"text\":\"done\"}}] @@");
    let events = app.grpc().await.stream_chat(ask("gpt-5.5", &prompt)).await.unwrap().into_inner();
    let events = all(events).await.unwrap();
    let mut commands = events.iter().filter_map(|event| match event.event.as_ref()? {
        Event::Item(item) => match item.kind.as_ref()? {
            Kind::CommandExecution(command) => Some(command.aggregated_output.clone()),
            _ => None,
        },
        _ => None,
    });
    commands.next_back().expect("a command was run")
}

#[tokio::test]
async fn a_turn_that_may_write_has_a_temporary_folder_of_its_own() {
    // Over exec the turn's, over app-server the worker's.
    let app = TestApp::real(&[("CODEX_SANDBOX", "workspace-write")]).await;
    // Where all turns have their files.
    let shared = app.home.path().join("scratch").join("foreign");
    std::fs::write(&shared, "theirs").unwrap();
    let command = format!(
        "echo mine > note && echo in the workspace; echo x > $(mktemp) && echo in my own folder; \
         echo x > {} || echo not theirs; echo x > /tmp/codex-api-test-$$ || echo not in /tmp",
        shared.display()
    );
    let said = printed(&app, &command).await;
    for expected in ["in the workspace", "in my own folder", "not theirs", "not in /tmp"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(std::fs::read_to_string(&shared).unwrap(), "theirs");
    std::fs::remove_file(shared).unwrap();
    app.stop().await;
}

#[tokio::test]
async fn a_turns_files_are_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let app = TestApp::fake(&[("CODEX_ENGINE", "exec")]).await;
    let mut grpc = app.grpc().await;
    let turn = tokio::spawn(async move { grpc.chat(ask("fake:hang", "hi")).await });
    crate::eventually!("the turn has its folder", !app.scratch_files().is_empty());
    for folder in app.scratch_files() {
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
    }
    turn.abort();
    app.stop().await;
}
