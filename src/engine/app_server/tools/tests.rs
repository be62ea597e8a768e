use prost_types::{ListValue, Struct, value::Kind};

use super::*;

fn to_struct(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(list) => {
            Kind::ListValue(ListValue { values: list.into_iter().map(to_struct).collect() })
        }
        Value::Object(object) => {
            let fields = object.into_iter().map(|(name, value)| (name, to_struct(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

fn tool(name: &str, parameters: Value) -> pb::Tool {
    let parameters = match to_struct(parameters).kind {
        Some(Kind::StructValue(object)) => Some(object),
        _ => None,
    };
    pb::Tool { name: name.into(), description: format!("Does {name}."), parameters, strict: false }
}

fn strict(name: &str, parameters: Value) -> pb::Tool {
    pb::Tool { strict: true, ..tool(name, parameters) }
}

fn set(tools: Vec<pb::Tool>, tool_choice: ToolChoice, parallel_tool_calls: bool) -> ToolSet {
    ToolSet::new(&Turn { tools, tool_choice, parallel_tool_calls, ..Turn::default() }).unwrap()
}

#[test]
fn reserved_names_can_be_searched() {
    assert!(RESERVED.is_sorted());
}

#[test]
fn tools_are_offered_under_names_that_codex_takes() {
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
fn a_long_name_is_cut_and_still_its_own() {
    let (one, two) = (format!("mcp__{}1", "x".repeat(58)), format!("mcp__{}2", "x".repeat(58)));
    let set = set(vec![tool(&one, json!({})), tool(&two, json!({}))], ToolChoice::Auto, true);
    assert_ne!(set.alias(&one), set.alias(&two));
    for name in [&one, &two] {
        assert!(set.alias(name).len() <= MAX_NAME_BYTES);
        assert_eq!(set.original(&set.alias(name)), name.as_str());
    }
}

#[test]
fn what_a_schema_loses_is_said_in_the_description() {
    let full = json!({"properties": {"day": {"format": "date", "maxLength": 10, "type": "string"}}, "type": "object"});
    let without = pb::Tool { name: "ping".into(), ..pb::Tool::default() };
    let set = set(vec![tool("book", full.clone()), without], ToolChoice::Auto, true);
    let offered = set.dynamic_tools();
    let said = format!("Does book.\n\nThe arguments must match this JSON Schema: {full}");
    assert_eq!(offered[0]["description"], said);
    // Not 10.0, which some models would copy.
    assert!(said.contains("\"maxLength\":10,"), "{said}");
    assert_eq!(
        offered[0]["inputSchema"],
        json!({"type": "object", "properties": {"day": {"type": "string"}}})
    );
    assert_eq!(offered[1]["description"], "");
    assert_eq!(offered[1]["inputSchema"], json!({"type": "object", "properties": {}}));
}

#[test]
fn only_the_named_tool_is_offered() {
    let tools = vec![tool("get", json!({})), tool("shell", json!({}))];
    let set = set(tools, ToolChoice::Named("shell".into()), true);
    let names: Vec<Value> = set.dynamic_tools().into_iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["client_shell"]);
    assert!(set.instructions().unwrap().contains("must call the application's function `client_shell`"));
    assert!(set.too_few_calls(0).unwrap().contains("`shell`"));
    assert_eq!(set.too_few_calls(1), None);
}

#[test]
fn choice_and_number_of_calls_are_asked_for_and_checked() {
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
fn strict_arguments_are_checked_against_the_whole_schema() {
    let schema = json!({
        "type": "object", "required": ["day"], "additionalProperties": false,
        "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[a-z]{2}$"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
        },
    });
    let set = set(vec![strict("shell", schema.clone()), tool("loose", schema)], ToolChoice::Auto, true);
    let check = |arguments: &str| set.check("shell", arguments);
    assert_eq!(check(r#"{"day":"2026-02-28","code":"ab","count":9}"#), Ok(()));
    for (wrong, says) in [
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
        let Err(ValidationError::Wrong(complaint)) = check(wrong) else { panic!("{wrong} is wrong") };
        assert!(complaint.contains(says) && complaint.contains("`shell`"), "{wrong}: {complaint}");
    }
    assert_eq!(set.check("loose", "{}"), Ok(()));
    assert_eq!(set.check("unknown", "{"), Ok(()));
}

#[test]
fn a_schema_that_cannot_be_checked_is_refused_only_where_it_must_be() {
    for schema in [
        json!({"type": "bogus"}),
        json!({"type": "object", "properties": {"x": {"pattern": "("}}}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"$ref": "#"}),
    ] {
        let tools = vec![tool("fine", json!({})), strict("wrong", schema.clone())];
        match ToolSet::new(&Turn { tools, ..Turn::default() }) {
            Err(Error::InvalidArgument { field, .. }) => assert_eq!(field, "tools[1].parameters"),
            other => panic!("{schema}: {other:?}"),
        }
        assert!(ToolSet::new(&Turn { tools: vec![tool("loose", schema)], ..Turn::default() }).is_ok());
    }
}

#[test]
fn a_hostile_schema_ends() {
    // A pattern that tries for ever.
    let schema = json!({"properties": {"x": {"pattern": "^(?=a)(a+)+$"}}});
    let set_of = |schema: Value| set(vec![strict("f", schema)], ToolChoice::Auto, true);
    let arguments = json!({"x": format!("{}b", "a".repeat(5_000))}).to_string();
    assert!(set_of(schema).check("f", &arguments).is_err());
}
