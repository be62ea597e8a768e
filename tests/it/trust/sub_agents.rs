//! Sub-agents and goals could outlive their turn. They are not offered to the model, and their calls do nothing.

use serde_json::{Value, json};

use crate::{
    both_engines,
    support::{AppConfig, Engine, http::body, with_app},
};

/// Models whose sub-agents come from a feature only, or from one of two versions of a catalog entry.
const MODELS: [&str; 4] = ["gpt-5.5", "gpt-5.6-luna", "gpt-6-luna", "an-unknown-model"];

/// Returns calls of sub-agents and goals in the namespaces of the CLI.
fn sub_agent_calls() -> [Value; 3] {
    let task = r#"@@ {"text": "still running", "hang_after_ms": 60000} @@"#;
    [
        json!({"name": "spawn_agent", "namespace": "multi_agent_v1", "arguments": {"message": task}}),
        json!({"name": "spawn_agent", "namespace": "collaboration",
            "arguments": {"task_name": "sub", "message": task, "fork_turns": "none"}}),
        json!({"name": "create_goal", "arguments": {"objective": "go on"}}),
    ]
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    sub_agents_and_goals_are_not_offered_and_do_not_run
);
async fn sub_agents_and_goals_are_not_offered_and_do_not_run(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let upstream = app.upstream();
        for model in MODELS {
            for call in sub_agent_calls() {
                let before = upstream.requests().last().map_or(0, |request| request.number);
                let steps = json!([{"calls": [call]}, {"text": "done"}]);
                let answer = app.complete(&body(model, &format!("@@ {steps} @@"))).await;
                assert_eq!(answer["choices"][0]["message"]["content"], "done", "{model} {call}");
                crate::eventually!("no response of the upstream is open", upstream.open_responses() == 0);
                // With exec, the catalog entry of the model overrides the feature switch.
                if engine == Engine::Exec && model.ends_with("-luna") {
                    continue;
                }
                let requests = upstream.requests();
                let sent: Vec<_> = requests
                    .iter()
                    .filter(|request| request.number > before && !request.is_warm_up())
                    .collect();
                assert_eq!(sent.len(), 2, "{model} {call}: a sub-agent would send more requests");
                let result = sent[1].body["input"].as_array().unwrap().last().unwrap();
                let output = result["output"].as_str().unwrap_or_default();
                assert!(output.starts_with("unsupported call"), "{model} {call}: {result}");
                let first = sent[0].body.to_string();
                for text in ["spawn_agent", "multi_agent", "create_goal"] {
                    // The prompt itself contains the call.
                    let in_prompt = steps.to_string().matches(text).count();
                    assert_eq!(first.matches(text).count(), in_prompt, "{model} is offered {text}: {first}");
                }
            }
        }
    })
    .await;
}
