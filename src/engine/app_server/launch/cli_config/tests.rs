use serde_json::json;

use super::*;
use crate::config::{Config, Sources};

fn codex(env: &[(&str, &str)]) -> Codex {
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let sources = Sources { env, current_dir: "/work".into(), ..Sources::default() };
    Config::load(sources).unwrap().codex
}

fn installed() -> CliInfo {
    let features =
        [("plugins", true), ("shell_tool", true), ("hooks", false), ("multi_agent", true), ("steer", true)];
    let features = features.map(|(name, on)| (name.to_owned(), on)).into();
    CliInfo { program: "/bin/codex".into(), version: "0.169.0".into(), features, binary: None }
}

fn catalogs() -> Catalogs {
    Catalogs::for_test("/p/agent.json", "/p/chat.json")
}

fn values(codex: &Codex) -> Vec<String> {
    let arguments = arguments(codex, &installed(), &catalogs());
    assert_eq!(arguments[0], "app-server");
    let pairs = arguments[1..].chunks(2);
    pairs.map(|pair| (pair[0] == "-c").then(|| pair[1].to_string_lossy().into_owned()).unwrap()).collect()
}

#[test]
fn arguments_for_agent_keep_the_tools() {
    let expected = [
        "thread_unload_delay_secs=0",
        "approval_policy=\"never\"",
        "sandbox_mode=\"read-only\"",
        "web_search=\"disabled\"",
        "shell_environment_policy.inherit=\"core\"",
        "sandbox_workspace_write.exclude_slash_tmp=true",
        "sandbox_workspace_write.exclude_tmpdir_env_var=true",
        "features.plugins=false",
        "features.multi_agent=false",
        "analytics.enabled=false",
        "model_catalog_json=\"/p/agent.json\"",
        "model_providers.codex-api-openai.name=\"OpenAI\"",
        "model_providers.codex-api-openai.wire_api=\"responses\"",
        "model_providers.codex-api-openai.requires_openai_auth=true",
        "model_providers.codex-api-openai.http_headers={ version = \"0.169.0\" }",
        "model_providers.codex-api-openai.env_http_headers={ OpenAI-Organization = \"OPENAI_ORGANIZATION\", OpenAI-Project = \"OPENAI_PROJECT\" }",
        "model_providers.codex-api-openai.request_max_retries=0",
        "model_providers.codex-api-openai.stream_max_retries=2",
        "model_provider=\"codex-api-openai\"",
    ];
    assert_eq!(values(&codex(&[])), expected);
}

#[test]
fn arguments_for_chat_disable_only_features_of_the_cli() {
    let found = values(&codex(&[("CODEX_PROFILE", "chat")]));
    for expected in [
        "features.shell_tool=false",
        "features.hooks=false",
        "project_doc_max_bytes=0",
        "tool_output_token_limit=10000000",
        "model_catalog_json=\"/p/chat.json\"",
    ] {
        assert!(found.iter().any(|value| value == expected), "{expected} in {found:?}");
    }
    assert!(!found.iter().any(|value| value.contains("features.apps")), "{found:?}");
    assert!(!found.iter().any(|value| value.contains("features.steer")), "{found:?}");
}

#[test]
fn arguments_with_agent_settings_pass_them() {
    let env = [
        ("CODEX_SANDBOX", "workspace-write"),
        ("CODEX_ADD_DIRS", "/a b,/c"),
        ("CODEX_ENABLE_SEARCH", "1"),
        ("CODEX_APPROVAL_POLICY", "untrusted"),
    ];
    let found = values(&codex(&env));
    for expected in [
        "sandbox_mode=\"workspace-write\"",
        "sandbox_workspace_write.writable_roots=[\"/a b\", \"/c\"]",
        "web_search=\"live\"",
        "approval_policy=\"untrusted\"",
    ] {
        assert!(found.iter().any(|value| value == expected), "{expected} in {found:?}");
    }
}

#[test]
fn thread_config_of_the_other_profile_overrides_the_worker() {
    let home = tempfile::tempdir().unwrap();
    let config = "include_environment_context = false\n[mcp_servers.files]\ncommand = \"x\"\n\
                  [mcp_servers.notes]\nenabled = false\n[skills.bundled]\nenabled = false\n";
    std::fs::write(home.path().join("config.toml"), config).unwrap();
    let home = home.path().to_str().unwrap();

    let agent = codex(&[("CODEX_HOME", home)]);
    assert!(thread_config(&agent, &installed(), &catalogs(), Profile::Agent).is_empty());
    let chat = Value::from(thread_config(&agent, &installed(), &catalogs(), Profile::Chat));
    assert_eq!(chat["features.shell_tool"], false);
    assert_eq!(chat["mcp_servers.files.enabled"], false);
    assert_eq!(chat["mcp_servers.notes.enabled"], false);
    assert_eq!(chat["model_catalog_json"], "/p/chat.json");

    // An `agent` thread of a `chat` worker restores the user's configuration, not the defaults of Codex.
    let chat = codex(&[("CODEX_HOME", home), ("CODEX_PROFILE", "chat")]);
    let agent = Value::from(thread_config(&chat, &installed(), &catalogs(), Profile::Agent));
    let expected = json!({
        "features.shell_tool": true, "features.hooks": false,
        "skills.include_instructions": true, "skills.bundled.enabled": false,
        "tools.experimental_request_user_input.enabled": true, "include_environment_context": false,
        "include_permissions_instructions": true, "include_collaboration_mode_instructions": true,
        "include_apps_instructions": true, "project_doc_max_bytes": 32768,
        "mcp_servers.files.enabled": true, "mcp_servers.notes.enabled": false,
        "model_catalog_json": "/p/agent.json"
    });
    assert_eq!(agent, expected);
}

#[test]
fn apps_without_the_setting_are_disabled_in_every_profile() {
    let mut installed = installed();
    installed.features.insert("apps".into(), true);
    for profile in ["agent", "chat"] {
        let codex = codex(&[("CODEX_PROFILE", profile)]);
        let arguments = arguments(&codex, &installed, &catalogs());
        assert_eq!(arguments.iter().filter(|argument| *argument == "features.apps=false").count(), 1);
        for other in [Profile::Agent, Profile::Chat] {
            let config = thread_config(&codex, &installed, &catalogs(), other);
            assert!(!config.contains_key("features.apps"), "{config:?}");
        }
    }

    let enabled = |profile| codex(&[("CODEX_PROFILE", profile), ("CODEX_ENABLE_APPS", "1")]);
    let agent = enabled("agent");
    let arguments = arguments(&agent, &installed, &catalogs());
    assert!(!arguments.iter().any(|argument| argument.to_string_lossy().contains("features.apps")));
    assert_eq!(thread_config(&agent, &installed, &catalogs(), Profile::Chat)["features.apps"], false);
    assert_eq!(
        thread_config(&enabled("chat"), &installed, &catalogs(), Profile::Agent)["features.apps"],
        true
    );
}
