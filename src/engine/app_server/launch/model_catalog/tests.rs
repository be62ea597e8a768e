use super::*;

/// Entries as 0.169 prints them, shortened.
fn printed() -> String {
    json!({"models": [
        {"slug": "gpt-6-luna", "tool_mode": "code_mode_only", "multi_agent_version": "v2",
         "apply_patch_tool_type": "freeform", "supports_search_tool": true,
         "experimental_supported_tools": ["clock"], "base_instructions": "long", "model_messages": {"a": "b"},
         "use_responses_lite": true, "context_window": 272_000, "max_context_window": 872_000,
         "truncation_policy": {"mode": "tokens", "limit": 10_000}, "new_in_0.170": 1},
        {"slug": "gpt-5.5", "display_name": "GPT-5.5", "apply_patch_tool_type": "freeform",
         "base_instructions": "long", "use_responses_lite": false, "context_window": 272_000,
         "truncation_policy": {"mode": "bytes", "limit": 10_000}, "upgrade": {"model": "gpt-6"}},
    ]})
    .to_string()
}

fn built(profile: Profile, models: &[&str]) -> Vec<Value> {
    let models: Vec<String> = models.iter().map(|&m| m.to_owned()).collect();
    let catalog: Value = serde_json::from_str(&build(&printed(), profile, &models).unwrap()).unwrap();
    catalog["models"].as_array().unwrap().clone()
}

#[test]
fn build_for_chat_removes_instructions_tools_and_limits() {
    let models = built(Profile::Chat, &[]);
    let luna = json!({
        "slug": "gpt-6-luna", "tool_mode": null, "multi_agent_version": null, "apply_patch_tool_type": null,
        "supports_search_tool": false, "experimental_supported_tools": [], "base_instructions": "",
        "model_messages": null, "use_responses_lite": true, "context_window": 10_000_000,
        "max_context_window": 10_000_000, "auto_compact_token_limit": 10_000_000,
        "truncation_policy": {"mode": "tokens", "limit": 10_000_000}, "new_in_0.170": 1
    });
    assert_eq!(models[0], luna);
    assert_eq!(models.len(), 2);
    // `build` adds no keys that the version lacks.
    assert!(models[1].get("tool_mode").is_none());
}

#[test]
fn build_for_agent_disables_code_mode_and_sub_agents() {
    let shipped: Value = serde_json::from_str(&printed()).unwrap();
    let models = built(Profile::Agent, &["gpt-5-codex"]);
    assert_eq!(models.len(), 2);
    let mut luna = shipped["models"][0].clone();
    luna["tool_mode"] = Value::Null;
    luna["multi_agent_version"] = Value::Null;
    assert_eq!(models, [luna, shipped["models"][1].clone()]);
}

#[test]
fn build_for_chat_adds_unknown_models() {
    let models = built(Profile::Chat, &["gpt-5-codex", "gpt-6-luna"]);
    assert_eq!(models.len(), 3);
    assert_eq!(models[2]["slug"], "gpt-5-codex");
    assert_eq!(models[2]["upgrade"], Value::Null);
    assert_eq!(models[2]["use_responses_lite"], false);
}

#[test]
fn build_from_an_unknown_format_fails() {
    assert!(build("", Profile::Chat, &[]).is_err());
    assert!(build("{\"models\": {}}", Profile::Chat, &[]).unwrap_err().to_string().contains("no models"));
}
