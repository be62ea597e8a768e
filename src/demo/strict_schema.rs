//! Refuses strict schemas that OpenAI refuses, with its codes and words. OpenAI's limits of sizes and depths are not
//! checked, nor are schemas without `strict: true`. Pure.

use serde_json::{Map, Value};

use super::answer::Refusal;

/// Keywords that strict schemas must not have.
const FORBIDDEN: &[&str] = &[
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
];
/// Keywords beside which a schema needs no `type`.
const UNTYPED: &[&str] = &["anyOf", "enum", "const"];

/// Checks the strict schemas of a request: those of its tools and of its answer.
pub(super) fn check(request: &Value) -> Result<(), Refusal> {
    check_tools(&request["tools"], "tools")?;
    let format = &request["text"]["format"];
    if format["type"] == "json_schema" && format["strict"] == true {
        check_root(&format["schema"]).map_err(|mistake| {
            let name = format["name"].as_str().unwrap_or_default();
            let message = format!("Invalid schema for response_format '{name}': {mistake}");
            Refusal::bad_request("invalid_json_schema", &message).param("text.format.schema")
        })?;
    }
    Ok(())
}

/// Checks a list of tools and of namespaces, which have lists of their own.
fn check_tools(tools: &Value, param: &str) -> Result<(), Refusal> {
    for (i, tool) in tools.as_array().into_iter().flatten().enumerate() {
        check_tools(&tool["tools"], &format!("{param}[{i}].tools"))?;
        if tool["type"] == "function" && tool["strict"] == true {
            check_root(&tool["parameters"]).map_err(|mistake| {
                let name = tool["name"].as_str().unwrap_or_default();
                let message = format!("Invalid schema for function '{name}': {mistake}");
                let param = format!("{param}[{i}].parameters");
                Refusal::bad_request("invalid_function_parameters", &message).param(&param)
            })?;
        }
    }
    Ok(())
}

fn check_root(schema: &Value) -> Result<(), String> {
    if schema["type"] != "object" {
        let kind = schema["type"].as_str().unwrap_or("None");
        return Err(format!("schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."));
    }
    check_schema(schema, &[])
}

/// Checks a schema at a path of keys and indexes.
fn check_schema(schema: &Value, path: &[&str]) -> Result<(), String> {
    let mistake = |text: &str| Err(format!("In context={}, {text}", tuple(path)));
    let Some(fields) = schema.as_object() else {
        return mistake("schema must have a 'type' key.");
    };
    if fields.contains_key("$ref") {
        let others: Vec<_> =
            fields.keys().filter(|key| *key != "$ref").map(|key| format!("'{key}'")).collect();
        if !others.is_empty() {
            return mistake(&format!("$ref cannot have keywords {{{}}}.", others.join(", ")));
        }
        return Ok(());
    }
    if let Some(keyword) = FORBIDDEN.iter().find(|keyword| fields.contains_key(**keyword)) {
        return mistake(&format!("'{keyword}' is not permitted."));
    }
    if !fields.contains_key("type") && !UNTYPED.iter().any(|key| fields.contains_key(*key)) {
        return mistake("schema must have a 'type' key.");
    }
    if has_type(fields, "object") {
        if fields.get("additionalProperties") != Some(&Value::Bool(false)) {
            return mistake("'additionalProperties' is required to be supplied and to be false.");
        }
        if let Some(text) = wrong_required(fields) {
            return mistake(&format!(
                "'required' is required to be supplied and to be an array including every key in properties. {text}"
            ));
        }
    }
    if has_type(fields, "array") && !fields.contains_key("items") {
        return mistake("array schema missing items.");
    }
    if let Some(items) = fields.get("items") {
        check_schema(items, &[path, &["items"]].concat())?;
    }
    for (i, variant) in fields.get("anyOf").and_then(Value::as_array).into_iter().flatten().enumerate() {
        check_schema(variant, &[path, &["anyOf", &i.to_string()]].concat())?;
    }
    for key in ["properties", "$defs", "definitions"] {
        for (name, schema) in fields.get(key).and_then(Value::as_object).into_iter().flatten() {
            check_schema(schema, &[path, &[key, name]].concat())?;
        }
    }
    Ok(())
}

/// Returns what is wrong with `required`, which must list exactly the properties.
fn wrong_required(fields: &Map<String, Value>) -> Option<String> {
    let properties = fields.get("properties").and_then(Value::as_object);
    let names = || properties.into_iter().flat_map(Map::keys).map(String::as_str);
    let required = fields.get("required").and_then(Value::as_array);
    let required = || required.into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = names().find(|name| !required().any(|given| given == *name)) {
        return Some(format!("Missing '{missing}'."));
    }
    let extra = required().find(|given| !names().any(|name| name == *given))?;
    Some(format!("Extra required key '{extra}' supplied."))
}

fn has_type(fields: &Map<String, Value>, wanted: &str) -> bool {
    match fields.get("type") {
        Some(Value::String(kind)) => kind == wanted,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
    }
}

/// Writes a path as OpenAI does: a tuple of Python.
fn tuple(path: &[&str]) -> String {
    match path {
        [one] => format!("('{one}',)"),
        path => format!("({})", path.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(fields: &Value) -> Value {
        let mut schema =
            json!({"type": "object", "additionalProperties": false, "properties": {}, "required": []});
        for (key, value) in fields.as_object().expect("fields") {
            schema[key] = value.clone();
        }
        schema
    }

    fn function(schema: &Value, strict: &Value) -> Value {
        json!({"tools": [{"type": "web_search"},
            {"type": "function", "name": "f", "strict": strict, "parameters": schema}]})
    }

    fn format(schema: &Value, strict: &Value) -> Value {
        json!({"text": {"format": {"type": "json_schema", "name": "n", "strict": strict, "schema": schema}}})
    }

    /// Checks a schema as parameters and as the schema of the answer, and returns the mistake, which must be the same.
    #[track_caller]
    fn mistake(schema: &Value) -> String {
        let parameters = check(&function(schema, &json!(true))).expect_err("refused").error;
        assert_eq!(
            (&parameters["code"], &parameters["param"], &parameters["type"]),
            (
                &json!("invalid_function_parameters"),
                &json!("tools[1].parameters"),
                &json!("invalid_request_error")
            )
        );
        let answer = check(&format(schema, &json!(true))).expect_err("refused").error;
        assert_eq!(
            (&answer["code"], &answer["param"]),
            (&json!("invalid_json_schema"), &json!("text.format.schema"))
        );
        let text = |error: &Value, prefix: &str| {
            error["message"]
                .as_str()
                .and_then(|text| text.strip_prefix(prefix))
                .expect("the prefix")
                .to_owned()
        };
        let mistake = text(&parameters, "Invalid schema for function 'f': ");
        assert_eq!(text(&answer, "Invalid schema for response_format 'n': "), mistake);
        mistake
    }

    #[test]
    fn check_of_a_loose_strict_schema_names_the_mistake_in_the_words_of_openai() {
        let in_x = |schema: Value| object(&json!({"properties": {"x": schema}, "required": ["x"]}));
        let required =
            "'required' is required to be supplied and to be an array including every key in properties.";
        for (schema, expected) in [
            (
                json!({"type": "object", "properties": {}}),
                "In context=(), 'additionalProperties' is required to be supplied and to be false.".to_owned(),
            ),
            (
                object(&json!({"additionalProperties": true})),
                "In context=(), 'additionalProperties' is required to be supplied and to be false.".to_owned(),
            ),
            (
                object(&json!({"properties": {"x": {"type": "string"}}})),
                format!("In context=(), {required} Missing 'x'."),
            ),
            (object(&json!({"required": ["y"]})), format!("In context=(), {required} Extra required key 'y' supplied.")),
            (json!({"type": "array"}), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'.".to_owned()),
            (json!({}), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'.".to_owned()),
            (in_x(json!({})), "In context=('properties', 'x'), schema must have a 'type' key.".to_owned()),
            (in_x(json!(true)), "In context=('properties', 'x'), schema must have a 'type' key.".to_owned()),
            (in_x(json!({"type": "array"})), "In context=('properties', 'x'), array schema missing items.".to_owned()),
            (
                in_x(json!({"oneOf": [{"type": "string"}]})),
                "In context=('properties', 'x'), 'oneOf' is not permitted.".to_owned(),
            ),
            (
                in_x(json!({"type": ["object", "null"]})),
                "In context=('properties', 'x'), 'additionalProperties' is required to be supplied and to be false."
                    .to_owned(),
            ),
            (
                in_x(json!({"anyOf": [{"type": "null"}, {"type": "array", "items": {}}]})),
                "In context=('properties', 'x', 'anyOf', '1', 'items'), schema must have a 'type' key.".to_owned(),
            ),
            (
                in_x(json!({"$ref": "#/$defs/d", "description": "d"})),
                "In context=('properties', 'x'), $ref cannot have keywords {'description'}.".to_owned(),
            ),
            (
                object(&json!({"$defs": {"d": {"type": "object"}}})),
                "In context=('$defs', 'd'), 'additionalProperties' is required to be supplied and to be false.".to_owned(),
            ),
        ] {
            assert_eq!(mistake(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn check_of_a_strict_schema_without_mistakes_passes() {
        let node = object(&json!({
            "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "kind": {"enum": ["a"]},
                "list": {"type": "array", "items": {"type": ["string", "null"]}}},
            "required": ["kind", "next", "list"],
        }));
        for request in [function(&node, &json!(true)), format(&node, &json!(true)), json!({})] {
            assert_eq!(check(&request), Ok(()), "{request}");
        }
    }

    #[test]
    fn check_of_a_schema_that_is_not_strict_passes() {
        for strict in [json!(false), json!(null)] {
            for schema in [json!({"type": "object"}), json!({"oneOf": []}), json!(3)] {
                assert_eq!(check(&function(&schema, &strict)), Ok(()));
                assert_eq!(check(&format(&schema, &strict)), Ok(()));
            }
        }
    }

    #[test]
    fn check_of_a_namespace_checks_its_tools() {
        let tools = function(&json!({"type": "object"}), &json!(true));
        let request = json!({"tools": [{"type": "namespace", "name": "s", "tools": tools["tools"]}]});
        let error = check(&request).expect_err("refused").error;
        assert_eq!(error["param"], "tools[0].tools[1].parameters");
    }
}
