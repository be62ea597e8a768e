use super::{names::MAX_NAME_BYTES, *};
use crate::{engine::Parameters, error::Error};

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn tool(name: &str, parameters: Value) -> Tool {
    let parameters = Parameters::Json(parameters.to_string());
    Tool { name: name.into(), description: format!("Does {name}."), parameters, strict: false }
}

fn strict(name: &str, parameters: Value) -> Tool {
    Tool { strict: true, ..tool(name, parameters) }
}

fn turn(tools: Vec<Tool>) -> Turn {
    Turn { tools: tools.into(), ..Turn::default() }
}

fn set(tools: Vec<Tool>, tool_choice: ToolChoice, parallel_tool_calls: bool) -> ToolSet {
    ToolSet::new(&Turn { tool_choice, parallel_tool_calls, ..turn(tools) }).unwrap()
}

#[test]
fn dynamic_tools_names_are_usable_by_codex() {
    let object = json!({"type": "object", "properties": {}});
    let tools = ["get", "exec_command", "client_exec_command", "mcp__a", "mcp", "mcp_a"];
    let set = set(tools.map(|name| tool(name, object.clone())).to_vec(), ToolChoice::Auto, true);
    let offered = set.dynamic_tools();
    let names: Vec<&str> = offered.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let expected =
        ["get", "client_exec_command_2", "client_exec_command", "client_mcp__a", "client_mcp", "mcp_a"];
    assert_eq!(names, expected);
    assert_eq!(
        offered[0],
        json!({"type": "function", "name": "get", "description": "Does get.", "inputSchema": object})
    );
    assert_eq!(
        offered[1]["description"],
        "Does exec_command.\n\nThis is the application's function `exec_command`."
    );
    for name in tools {
        assert_eq!(set.original(&set.alias(name)), name);
    }
    assert_eq!(set.instructions(), None);
}

#[test]
fn dynamic_tools_schema_keeps_order_and_integers() {
    let text = r#"{"type":"object","properties":{"z":{"enum":[9007199254740993],"type":"integer"},"a":{"type":"string"}}}"#;
    let tool = Tool { parameters: Parameters::Json(text.into()), ..tool("f", json!({})) };
    let set = set(vec![tool], ToolChoice::Auto, true);
    assert_eq!(set.dynamic_tools()[0]["inputSchema"].to_string(), text);
}

#[test]
fn alias_of_a_long_name_is_short_and_unique() {
    let (one, two) = (format!("mcp__{}1", "x".repeat(58)), format!("mcp__{}2", "x".repeat(58)));
    let set = set(vec![tool(&one, json!({})), tool(&two, json!({}))], ToolChoice::Auto, true);
    assert_ne!(set.alias(&one), set.alias(&two));
    for name in [&one, &two] {
        assert!(set.alias(name).len() <= MAX_NAME_BYTES);
        assert_eq!(set.original(&set.alias(name)), name.as_str());
    }
}

#[test]
fn dynamic_tools_lossy_schema_is_in_the_description() {
    let full = json!({"properties": {"day": {"format": "date", "maxLength": 10, "type": "string"}}, "type": "object"});
    let without = Tool { name: "ping".into(), ..Tool::default() };
    let set = set(vec![tool("book", full.clone()), without], ToolChoice::Auto, true);
    let offered = set.dynamic_tools();
    let expected = format!("Does book.\n\nThe arguments must match this JSON Schema: {full}");
    assert_eq!(offered[0]["description"], expected);
    // The number must not become 10.0, because some models would copy this form.
    assert!(expected.contains("\"maxLength\":10,"), "{expected}");
    assert_eq!(
        offered[0]["inputSchema"],
        json!({"type": "object", "properties": {"day": {"type": "string"}}})
    );
    assert_eq!(offered[1]["description"], "");
    assert_eq!(offered[1]["inputSchema"], json!({"type": "object", "properties": {}}));
}

#[test]
fn dynamic_tools_named_choice_offers_one() {
    let tools = vec![tool("get", json!({})), tool("shell", json!({}))];
    let set = set(tools, ToolChoice::Named("shell".into()), true);
    let names: Vec<Value> = set.dynamic_tools().into_iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["client_shell"]);
    assert!(set.instructions().unwrap().contains("must call the application's function `client_shell`"));
    assert!(set.too_few_calls(0).unwrap().contains("`shell`"));
    assert_eq!(set.too_few_calls(1), None);
}

#[test]
fn instructions_and_limits_follow_choice_and_parallel_calls() {
    let tools = || vec![tool("get", json!({})), tool("put", json!({}))];
    let required = set(tools(), ToolChoice::Required, true);
    assert!(
        required
            .instructions()
            .unwrap()
            .contains("at least one of the application's functions (`get`, `put`)")
    );
    assert!(required.too_few_calls(0).is_some());
    assert_eq!((required.too_few_calls(2), required.keep(3)), (None, 3));

    let single = set(tools(), ToolChoice::Auto, false);
    assert!(single.instructions().unwrap().contains("one at a time"));
    assert_eq!([0, 1, 3].map(|calls| single.keep(calls)), [0, 1, 1]);
    assert_eq!(single.too_few_calls(0), None);

    let many = (0..200).map(|number| tool(&format!("tool_{number}"), json!({}))).collect();
    let many = set(many, ToolChoice::Required, false).instructions().unwrap();
    assert!(many.len() < 300 && !many.contains("tool_7"), "{many}");

    assert_eq!(set(vec![], ToolChoice::Auto, false).instructions(), None);
}

#[test]
fn validate_strict_arguments_checks_the_whole_schema() {
    let schema = json!({
        "type": "object", "required": ["day"], "additionalProperties": false,
        "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[a-z]{2}$"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
        },
    });
    let set = set(vec![strict("shell", schema.clone()), tool("loose", schema)], ToolChoice::Auto, true);
    let check = |arguments: &str| set.validate("shell", arguments, None);
    assert_eq!(check(r#"{"day":"2026-02-28","code":"ab","count":9}"#), Ok(()));
    for (wrong, text) in [
        (r#"{"day":"tomorrow"}"#, "at /day"),
        (r#"{"day":"2026-02-28","code":"abc"}"#, "at /code"),
        (r#"{"day":"2026-02-28","count":10}"#, "at /count"),
        (r#"{"day":"2026-02-28","count":1.5}"#, "at /count"),
        (r#"{"day":"2026-02-28","x":1}"#, "'x'"),
        ("{}", "day"),
        ("[1]", "object"),
        ("{", "not JSON"),
        ("", "not JSON"),
    ] {
        let Err(ValidationError::Invalid(mistake)) = check(wrong) else { panic!("{wrong} is wrong") };
        assert!(mistake.contains(text) && mistake.contains("`shell`"), "{wrong}: {mistake}");
    }
    assert_eq!(set.validate("loose", "{}", None), Ok(()));
    assert_eq!(set.validate("unknown", "{", None), Ok(()));
}

#[test]
fn new_unusable_schema_is_refused_only_if_strict() {
    for schema in [
        json!({"type": "bogus"}),
        json!({"type": "object", "properties": {"x": {"pattern": "("}}}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"$ref": "#"}),
    ] {
        let tools = vec![tool("fine", json!({})), strict("wrong", schema.clone())];
        match ToolSet::new(&turn(tools)) {
            Err(Error::InvalidArgument { field, message }) => {
                assert_eq!(field, "tools[1].parameters_json");
                assert!(message.contains("`wrong`"), "{message}");
            }
            other => panic!("{schema}: {other:?}"),
        }
        assert!(ToolSet::new(&turn(vec![tool("loose", schema)])).is_ok());
    }
}
