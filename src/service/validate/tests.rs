use super::*;
use crate::{
    config::{Config, Sources},
    engine::Part,
};

const CAPACITY: usize = 34;

fn rules(env: &[(&str, &str)]) -> RequestPolicy {
    let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let config = Config::load(Sources { env, ..Sources::default() }).unwrap();
    RequestPolicy {
        models: config.models,
        limits: config.limits,
        sandbox: config.codex.sandbox,
        search: config.codex.search,
        profile: config.codex.profile,
    }
}

fn message(role: pb::Role, text: &str) -> pb::Message {
    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text.into())) };
    pb::Message { role: role.into(), parts: vec![part], ..Default::default() }
}

fn request() -> pb::ChatRequest {
    pb::ChatRequest { messages: vec![message(pb::Role::User, "hi")], ..Default::default() }
}

/// The field that a changed request is refused for.
fn refused(change: impl FnOnce(&mut pb::ChatRequest)) -> String {
    let mut request = request();
    change(&mut request);
    let error = rules(&[]).parse(request, CAPACITY).unwrap_err();
    if let Error::InvalidArgument { field, .. } = error { field } else { error.reason().to_owned() }
}

#[test]
fn empty_fields_mean_the_servers_defaults() {
    let parsed = rules(&[("CODEX_MODEL", "m")]).parse(request(), CAPACITY).unwrap();
    assert_eq!((parsed.turn.model.as_str(), parsed.model_asked.as_str(), parsed.n), ("m", "m", 1));
    assert_eq!((&*parsed.turn.reasoning_effort, &*parsed.turn.reasoning_summary), ("high", "auto"));
    assert_eq!(parsed.turn.sandbox, Sandbox::ReadOnly);
    assert_eq!(parsed.turn.format, Format::Text);
}

#[test]
fn an_alias_is_resolved_and_remembered() {
    let rules = rules(&[("CODEX_MODEL_ALIASES", r#"{"gpt-4o":"gpt-5.5"}"#)]);
    let parsed = rules.parse(pb::ChatRequest { model: "gpt-4o".into(), ..request() }, CAPACITY).unwrap();
    assert_eq!((parsed.turn.model.as_str(), parsed.model_asked.as_str()), ("gpt-5.5", "gpt-4o"));
}

#[test]
fn a_suffix_asks_for_a_profile_and_cannot_widen() {
    let parse = |env: &[(&str, &str)], model: &str| {
        rules(env).parse(pb::ChatRequest { model: model.into(), ..request() }, CAPACITY)
    };
    let turn = parse(&[], "gpt-5.5:chat").unwrap().turn;
    assert_eq!((turn.model.as_str(), turn.profile), ("gpt-5.5", Profile::Chat));
    let turn = parse(&[("CODEX_MODEL", "m")], ":chat").unwrap().turn;
    assert_eq!((turn.model.as_str(), turn.profile), ("m", Profile::Chat));
    assert_eq!(parse(&[], "gpt-5.5").unwrap().turn.profile, Profile::Agent);
    let error = parse(&[("CODEX_PROFILE", "chat")], "gpt-5.5:agent").unwrap_err();
    assert_eq!(error.reason(), "POLICY_WIDENED");
}

#[test]
fn each_wrong_field_is_named() {
    let image = |data: &'static [u8]| pb::ContentPart {
        part: Some(pb::content_part::Part::Image(pb::Image { data: data.into(), detail: String::new() })),
    };
    let schema = |name: &str, schema: &str| pb::ResponseFormat {
        format: Some(pb::response_format::Format::JsonSchema(pb::JsonSchemaFormat {
            name: name.into(),
            description: String::new(),
            schema: schema.into(),
        })),
    };
    let call = pb::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    assert_eq!(refused(|r| r.messages.clear()), "messages");
    assert_eq!(refused(|r| r.messages[0].role = 0), "messages[0].role");
    assert_eq!(refused(|r| r.messages[0].role = 99), "messages[0].role");
    assert_eq!(refused(|r| r.messages[0].parts.clear()), "messages[0].parts");
    assert_eq!(refused(|r| r.messages[0].parts.push(pb::ContentPart::default())), "messages[0].parts[1]");
    assert_eq!(refused(|r| r.messages[0].parts.push(image(b"no image"))), "messages[0].parts[1].image");
    assert_eq!(
        refused(|r| {
            r.messages[0].role = pb::Role::System.into();
            r.messages[0].parts.push(image(b"\x89PNG\r\n\x1a\n"));
        }),
        "messages[0].parts[1].image"
    );
    assert_eq!(refused(|r| r.messages[0].name = "a\nb".into()), "messages[0].name");
    assert_eq!(refused(|r| r.messages[0].tool_call_id = "c".into()), "messages[0].tool_call_id");
    assert_eq!(refused(|r| r.messages.push(message(pb::Role::Tool, "x"))), "messages[1].tool_call_id");
    assert_eq!(refused(|r| r.messages[0].tool_calls.push(call)), "messages[0].tool_calls");
    assert_eq!(refused(|r| r.model = "m".repeat(257)), "model");
    assert_eq!(refused(|r| r.reasoning_effort = "very high".into()), "reasoning_effort");
    assert_eq!(refused(|r| r.reasoning_summary = "long".into()), "reasoning_summary");
    assert_eq!(refused(|r| r.verbosity = "huge".into()), "verbosity");
    assert_eq!(refused(|r| r.stop = vec![String::new()]), "stop[0]");
    assert_eq!(refused(|r| r.stop = vec!["x".into(); 5]), "stop");
    assert_eq!(refused(|r| r.n = Some(0)), "n");
    assert_eq!(refused(|r| r.n = Some(5)), "n");
    assert_eq!(refused(|r| r.max_output_tokens = Some(0)), "max_output_tokens");
    assert_eq!(refused(|r| r.timeout = Some(prost_types::Duration { seconds: 0, nanos: 0 })), "timeout");
    assert_eq!(refused(|r| r.timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 })), "timeout");
    assert_eq!(refused(|r| r.response_format = Some(schema("", "{}"))), "response_format.json_schema.name");
    assert_eq!(
        refused(|r| r.response_format = Some(schema("n", "[]"))),
        "response_format.json_schema.schema"
    );
    assert_eq!(refused(|r| r.response_format = Some(schema("n", "{"))), "response_format.json_schema.schema");
    assert_eq!(
        refused(|r| r.tools.push(pb::Tool { name: "a b".into(), ..Default::default() })),
        "tools[0].name"
    );
    assert_eq!(
        refused(|r| {
            r.tool_choice =
                Some(pb::ToolChoice { mode: pb::tool_choice::Mode::Required.into(), ..Default::default() });
        }),
        "tool_choice"
    );
    let too_many = |r: &mut pb::ChatRequest| {
        r.metadata = (0..17).map(|i| (i.to_string(), String::new())).collect();
    };
    assert_eq!(refused(too_many), "metadata");
}

#[test]
fn a_request_cannot_widen_the_policy_but_narrow_it() {
    let sandbox = pb::agent_options::Sandbox::WorkspaceWrite.into();
    assert_eq!(refused(|r| r.agent = Some(pb::AgentOptions { sandbox, web_search: None })), "POLICY_WIDENED");
    assert_eq!(
        refused(|r| r.agent = Some(pb::AgentOptions { sandbox: 0, web_search: Some(true) })),
        "POLICY_WIDENED"
    );

    let rules = rules(&[("CODEX_SANDBOX", "danger-full-access"), ("CODEX_ENABLE_SEARCH", "1")]);
    let agent = Some(pb::AgentOptions { sandbox, web_search: Some(false) });
    let turn = rules.parse(pb::ChatRequest { agent, ..request() }, CAPACITY).unwrap().turn;
    assert_eq!((turn.sandbox, turn.web_search), (Sandbox::WorkspaceWrite, false));
}

#[test]
fn the_prompt_is_measured_in_characters() {
    let rules = rules(&[("CODEX_MAX_PROMPT_CHARS", "4")]);
    let request =
        |text: &str| pb::ChatRequest { messages: vec![message(pb::Role::User, text)], ..Default::default() };
    assert!(rules.parse(request("äöü€"), CAPACITY).is_ok());
    assert_eq!(rules.parse(request("äöü€."), CAPACITY).unwrap_err().reason(), "PROMPT_TOO_LARGE");
}

#[test]
fn a_tool_may_have_nothing_to_say() {
    let call = pb::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    let mut request = request();
    let calling =
        pb::Message { role: pb::Role::Assistant.into(), tool_calls: vec![call], ..Default::default() };
    let result = pb::Message { role: pb::Role::Tool.into(), tool_call_id: "c".into(), ..Default::default() };
    request.messages.extend([calling, result]);
    let turn = rules(&[]).parse(request, CAPACITY).unwrap().turn;
    let [Part::Text(said)] = &turn.messages[2].parts[..] else { panic!("{:?}", turn.messages[2]) };
    assert_eq!(said, "");
    assert!(turn.messages[1].parts.is_empty(), "an assistant's calls need no text");
}
