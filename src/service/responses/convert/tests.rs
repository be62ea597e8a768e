use super::*;

fn text(text: &str) -> pb::ContentPart {
    text_part(text.to_owned())
}

fn message(role: pb::Role, texts: &[&str]) -> pb::InputItem {
    let parts = texts.iter().map(|part| text(part)).collect();
    pb::InputItem { item: Some(Item::Message(pb::InputMessage { role: role.into(), parts })) }
}

fn call(call_id: &str) -> pb::InputItem {
    let call = pb::FunctionCall { call_id: call_id.into(), name: "f".into(), arguments: "{}".into() };
    pb::InputItem { item: Some(Item::FunctionCall(call)) }
}

fn output(call_id: &str) -> pb::InputItem {
    let output = pb::FunctionCallOutput { call_id: call_id.into(), parts: vec![text("42")] };
    pb::InputItem { item: Some(Item::FunctionCallOutput(output)) }
}

fn convert(settings: pb::ResponseSettings, input: Vec<pb::InputItem>) -> Result<ConvertedRequest, Error> {
    let settings = Some(settings);
    pb::CreateResponseRequest { settings, input, ..Default::default() }.try_into()
}

/// Returns role, texts, calls and answered call of each message.
fn outline(request: &pb::ChatRequest) -> Vec<String> {
    let texts = |message: &pb::Message| {
        let parts = message.parts.iter().map(|part| match &part.part {
            Some(Part::Text(text)) => text.clone(),
            _ => String::new(),
        });
        parts.collect::<Vec<_>>().join("+")
    };
    let outline = |message: &pb::Message| {
        let calls: Vec<&str> = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
        let (role, texts) = (message.role(), texts(message));
        format!("{role:?} {texts} [{}]{}", calls.join(","), message.tool_call_id)
    };
    request.messages.iter().map(outline).collect()
}

#[test]
fn calls_belong_to_the_message_before_their_outputs() {
    let settings = pb::ResponseSettings { instructions: "brief".into(), ..Default::default() };
    let input = vec![
        message(pb::Role::User, &["hi", "there"]),
        message(pb::Role::Assistant, &["look"]),
        call("1"),
        call("2"),
        message(pb::Role::Assistant, &["wait"]),
        output("2"),
        output("1"),
        call("3"),
        output("3"),
    ];
    let converted = convert(settings, input).unwrap();
    assert_eq!(
        outline(&converted.request),
        [
            "Developer brief []",
            "User hi+there []",
            "Assistant look+wait [1,2]",
            "Tool 42 []2",
            "Tool 42 []1",
            "Assistant  [3]",
            "Tool 42 []3",
        ]
    );
    for (field, place) in [
        ("messages", "input"),
        ("messages[0].parts[0].text", "settings.instructions"),
        ("messages[1].parts[1].image", "input[0].message.parts[1].image"),
        ("messages[1].role", "input[0].message.role"),
        ("messages[2].parts[0]", "input[1].message.parts[0]"),
        ("messages[2].parts[1].text", "input[4].message.parts[0].text"),
        ("messages[2].tool_calls[1].name", "input[3].function_call.name"),
        ("messages[2].tool_calls[0].id", "input[2].function_call.call_id"),
        ("messages[3].tool_call_id", "input[5].function_call_output.call_id"),
        ("messages[3].parts[0].file", "input[5].function_call_output.parts[0].file"),
        ("messages[5].tool_calls", "input[7]"),
        ("messages[9].parts", "input"),
        ("reasoning_effort", "settings.reasoning_effort"),
        ("tool_choice.name", "settings.tool_choice.name"),
        ("agent.sandbox", "agent.sandbox"),
        ("timeout", "timeout"),
    ] {
        assert_eq!(converted.places.field(field), place);
    }
}

#[test]
fn only_allowed_tools_reach_the_model() {
    let tool = |name: &str| pb::Tool { name: name.into(), ..pb::Tool::default() };
    let settings = |allowed: &[&str]| pb::ResponseSettings {
        tools: vec![tool("a"), tool("b"), tool("c")],
        allowed_tools: allowed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let names = |converted: &ConvertedRequest| {
        converted.request.tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>()
    };
    let input = || vec![message(pb::Role::User, &["hi"])];
    assert_eq!(names(&convert(settings(&[]), input()).unwrap()), ["a", "b", "c"]);
    let some = convert(settings(&["c", "a"]), input()).unwrap();
    assert_eq!(names(&some), ["a", "c"]);
    assert_eq!(some.places.field("tools[1].name"), "settings.tools[2].name");
    assert_eq!(some.settings.tools.len(), 3);
    let error = convert(settings(&["a", "d"]), input()).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "settings.allowed_tools[1]"));
}

#[test]
fn wrong_items_are_refused_by_place() {
    for (input, place) in [
        (vec![], "input"),
        (vec![message(pb::Role::User, &["a"]), pb::InputItem::default()], "input[1]"),
        (vec![message(pb::Role::Tool, &["a"])], "input[0].message.role"),
    ] {
        let error = convert(pb::ResponseSettings::default(), input).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == place), "{error:?}");
    }
}

#[test]
fn errors_of_the_core_get_the_place_in_field_and_text() {
    let places =
        convert(pb::ResponseSettings::default(), vec![message(pb::Role::User, &["a"])]).unwrap().places;
    let error = places.rename(Error::invalid("messages[0].parts[0].text", "messages[0].parts[0].text: bad"));
    assert_eq!(error.to_string(), "input[0].message.parts[0].text: bad");
    let error = places.rename(Error::unsupported("tools", "no tools here"));
    assert!(matches!(&error, Error::Unsupported { field, .. } if field == "settings.tools"), "{error:?}");
    assert!(matches!(places.rename(Error::Draining), Error::Draining));
    for (field, place) in [("messages", "input"), ("tools", "settings.tools")] {
        let error = places.rename(Error::PromptTooLarge { field, message: String::new() });
        assert!(matches!(&error, Error::PromptTooLarge { field, .. } if *field == place), "{error:?}");
    }
}
