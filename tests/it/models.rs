//! The names of models: the default that the CLI does not know, the catch-all alias, and the list.

use codex_api::pb;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TIMEOUT, TestApp, chat_request, http::body, login, program::Program,
        with_app,
    },
};

async fn listed(app: &TestApp, id: &str) -> Value {
    let list: Value = reqwest::get(app.url("/v1/models")).await.unwrap().json().await.unwrap();
    let found = list["data"].as_array().unwrap().iter().find(|model| model["id"] == id);
    found.unwrap_or_else(|| panic!("{id} in {list}")).clone()
}

/// Returns a home of the CLI with this `config.toml`.
fn home(config: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), config).unwrap();
    login::write(home.path(), &login::key("sk-fake"));
    home
}

both_engines!(default_model_unknown_to_the_cli_stands_for_the_default_of_the_cli);
async fn default_model_unknown_to_the_cli_stands_for_the_default_of_the_cli(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for model in ["", "gpt-5-codex"] {
            let response = app.grpc().await.chat(chat_request(model, "hi")).await.unwrap().into_inner();
            assert_eq!((response.model.as_str(), response.notices.len()), ("gpt-5-codex", 0));
        }
        let models =
            app.grpc().await.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models;
        assert_eq!((models[0].id.as_str(), models[0].target.as_str()), ("gpt-5-codex", "gpt-6-sol"));
        assert!(models[0].is_default);
        assert_eq!(listed(app, "gpt-5-codex").await["codex"]["target"], "gpt-6-sol");
    })
    .await;
}

both_engines!(default_model_of_the_cli_is_that_of_its_configuration);
async fn default_model_of_the_cli_is_that_of_its_configuration(engine: Engine) {
    let home = home("model = \"fake:report\"\n");
    with_app(AppConfig::fake(engine).env("CODEX_HOME", home.path()), async |app| {
        let answer = app.complete(&body("gpt-5-codex", "hi")).await;
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(text.starts_with('{') && text.contains("argv"), "the report of the fake: {text}");
        assert_eq!(answer["model"], "gpt-5-codex");
    })
    .await;
    // With the built-in name in the configuration, somebody chose it.
    let home = self::home("model = \"gpt-5-codex\"\n");
    with_app(AppConfig::fake(engine).env("CODEX_HOME", home.path()), async |app| {
        assert!(listed(app, "gpt-5-codex").await.get("codex").is_none());
    })
    .await;
    with_app(AppConfig::fake(engine).env("CODEX_MODEL", "gpt-5-codex"), async |app| {
        assert!(listed(app, "gpt-5-codex").await.get("codex").is_none());
    })
    .await;
}

both_engines!(catch_all_alias_replaces_unknown_names);
async fn catch_all_alias_replaces_unknown_names(engine: Engine) {
    let config = AppConfig::fake(engine).env("CODEX_MODEL_ALIASES", r#"{"*":"fake:report"}"#);
    with_app(config, async |app| {
        let reports = async |model: &str| {
            let answer = app.complete(&body(model, "hi")).await;
            assert_eq!(answer["model"], model, "the client's own name is repeated");
            answer["choices"][0]["message"]["content"].as_str().unwrap().contains("argv")
        };
        assert!(reports("gpt-5-nano").await && reports("gpt-4o-mini").await);
        assert!(!reports("gpt-5.5").await, "the CLI knows it");
        listed(app, "fake:report").await;
        let list = reqwest::get(app.url("/v1/models")).await.unwrap().text().await.unwrap();
        assert!(!list.contains("\"*\""), "{list}");
    })
    .await;
}

both_engines!(alias_of_the_default_model_is_logged_once);
async fn alias_of_the_default_model_is_logged_once(engine: Engine) {
    let mut server = Program::new(Codex::Fake, engine).serve(&[]).await;
    for _ in 0..3 {
        let request = reqwest::Client::new().post(server.url("/v1/chat/completions"));
        let answer = request.json(&body("gpt-5-codex", "hi")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
    let lines = server.log();
    let about = lines.iter().filter(|line| line.contains("Codex lacks the default model"));
    let about: Vec<_> = about.collect();
    assert!(about.len() == 1 && about[0].contains("gpt-6-sol"), "{about:?}");
}

both_engines!(unknown_model_of_the_upstream_names_the_settings);
async fn unknown_model_of_the_upstream_names_the_settings(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let (status, error) = app.http_error(&body("fake:failed:400-unsupported-model", "hi")).await;
        assert_eq!(
            (status, &error["code"], &error["param"]),
            (404, &"model_not_found".into(), &"model".into())
        );
        let message = error["message"].as_str().unwrap();
        for part in ["The 'gpt-5-codex' model is not supported", "CODEX_MODEL", "/v1/models"] {
            assert!(message.contains(part), "{message}");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    default_model_of_the_real_cli_reaches_the_upstream
);
async fn default_model_of_the_real_cli_reaches_the_upstream(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let response = app.grpc().await.chat(chat_request("", "hello")).await.unwrap().into_inner();
        assert_eq!(response.notices, [], "no notice of an unknown model");
        let target = listed(app, "gpt-5-codex").await["codex"]["target"].as_str().unwrap().to_owned();
        let requests = app.upstream().requests();
        let model = requests.last().unwrap().body["model"].as_str().unwrap();
        assert_eq!(model, target);
        assert_ne!(model, "gpt-5-codex");
    })
    .await;
}

/// A process without a catalog asks the upstream for its models before it starts the turn.
#[tokio::test]
async fn turns_over_exec_get_the_catalog_that_the_cli_printed() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let has_catalog = async || {
            let report: Value =
                serde_json::from_str(&app.chat(chat_request("fake:report", "x")).await).unwrap();
            let arguments = report["argv"].as_array().unwrap();
            arguments.iter().any(|argument| argument.as_str().unwrap().starts_with("model_catalog_json="))
        };
        assert!(!has_catalog().await, "the first turn does not wait for the catalog");
        eventually!("turns get the catalog", has_catalog().await);
    })
    .await;
}
