//! The model catalog and `model/list`.

use serde_json::{Value, json};

use super::check::Refusal;

/// Loads the catalog of the command line or the built-in one. The error is the text for stderr.
pub(crate) fn load(configured: Option<&str>) -> Result<Vec<Value>, String> {
    let Some(path) = configured else {
        return parse(crate::MODELS).map_err(|e| format!("Error: {e}\n"));
    };
    let text = std::fs::read_to_string(path).map_err(|e| format!("Error: {e}\n"))?;
    let models = parse(&text)
        .map_err(|e| format!("Error: failed to parse model_catalog_json path `{path}` as JSON: {e}\n"))?;
    if models.is_empty() {
        return Err(format!("Error: model_catalog_json path `{path}` must contain at least one model\n"));
    }
    Ok(models)
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let catalog: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let models = catalog["models"].as_array().ok_or("missing field `models`")?;
    let needed =
        ["slug", "display_name", "supported_reasoning_levels", "shell_type", "visibility", "priority"];
    for model in models {
        if let Some(name) = needed.iter().find(|name| model.get(**name).is_none()) {
            return Err(format!("missing field `{name}`"));
        }
    }
    Ok(models.clone())
}

/// Returns the result of `model/list`.
pub(crate) fn list(catalog: &[Value], params: &Value) -> Result<Value, Refusal> {
    let hidden = params["includeHidden"] == json!(true);
    let mut models: Vec<&Value> = catalog.iter().filter(|m| hidden || m["visibility"] == "list").collect();
    models.sort_by_key(|model| model["priority"].as_i64());
    let from = match params["cursor"].as_str() {
        None => 0,
        Some(cursor) => cursor
            .parse::<usize>()
            .ok()
            .filter(|at| *at <= models.len())
            .ok_or_else(|| Refusal::invalid(format!("invalid cursor: {cursor}")))?,
    };
    let limit = params["limit"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let page: Vec<Value> = models
        .iter()
        .enumerate()
        .skip(from)
        .take(limit)
        .map(|(at, model)| model_entry(model, at == 0))
        .collect();
    let next = from + page.len();
    let cursor = if next < models.len() { json!(next.to_string()) } else { Value::Null };
    Ok(json!({"data": page, "nextCursor": cursor}))
}

fn model_entry(model: &Value, is_default: bool) -> Value {
    let levels = model["supported_reasoning_levels"].as_array().into_iter().flatten();
    let efforts: Vec<Value> = levels
        .map(|level| json!({"reasoningEffort": level["effort"], "description": level["description"]}))
        .collect();
    json!({
        "id": model["slug"], "model": model["slug"], "upgrade": null, "upgradeInfo": null, "availabilityNux": null,
        "displayName": model["display_name"], "description": model["description"], "modelSpecialty": null,
        "hidden": model["visibility"] != "list", "supportedReasoningEfforts": efforts,
        "defaultReasoningEffort": model["default_reasoning_level"], "inputModalities": model["input_modalities"],
        "supportsPersonality": false, "multiAgentVersion": model["multi_agent_version"],
        "additionalSpeedTiers": model["additional_speed_tiers"], "serviceTiers": model["service_tiers"],
        "defaultServiceTier": model["default_service_tier"], "availableAccessPrograms": null,
        "isDefault": is_default,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{list, load};

    #[test]
    fn model_list_has_pages() {
        let catalog = load(None).expect("the built-in catalog");
        let all = list(&catalog, &json!({"includeHidden": true})).expect("a list");
        assert_eq!(all["data"].as_array().map(Vec::len), Some(3));
        assert!(all["nextCursor"].is_null());
        let first = list(&catalog, &json!({"limit": 1})).expect("a list");
        assert_eq!((&first["data"][0]["isDefault"], &first["nextCursor"]), (&json!(true), &json!("1")));
        assert_eq!(first["data"][0]["supportedReasoningEfforts"][0]["reasoningEffort"], "low");
        let second = list(&catalog, &json!({"limit": 1, "cursor": "1"})).expect("a list");
        assert_eq!((&second["data"][0]["model"], &second["nextCursor"]), (&json!("gpt-5.5"), &json!(null)));
        assert_eq!(
            list(&catalog, &json!({"cursor": "zz"})).expect_err("a refusal").message,
            "invalid cursor: zz"
        );
    }

    #[test]
    fn built_in_catalog_has_the_required_members() {
        let catalog = load(None).expect("the built-in catalog");
        for name in ["tool_mode", "multi_agent_version"] {
            assert!(catalog[0].get(name).is_some(), "{name}");
        }
        let always = "apply_patch_tool_type experimental_supported_tools supports_search_tool use_responses_lite \
                      base_instructions model_messages context_window max_context_window";
        for model in &catalog {
            for name in always.split_whitespace() {
                assert!(model.get(name).is_some(), "{name}");
            }
        }
        assert!(load(Some("/nowhere/catalog.json")).is_err());
    }
}
