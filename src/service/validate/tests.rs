use super::*;
use crate::{
    config::{Config, Sources},
    engine::{Format, Parameters, Part, ToolChoice},
};

const CAPACITY: usize = 34;

fn policy(env: &[(&str, &str)]) -> RequestPolicy {
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

/// Returns the field of the error of a changed request, or the reason of another error.
fn refused(change: impl FnOnce(&mut pb::ChatRequest)) -> String {
    let mut request = request();
    change(&mut request);
    let error = policy(&[]).validate(request, CAPACITY, None).unwrap_err();
    if let Error::InvalidArgument { field, .. } = error { field } else { error.reason().to_owned() }
}

#[test]
fn validate_empty_fields_get_the_servers_defaults() {
    let parsed = policy(&[("CODEX_MODEL", "m")]).validate(request(), CAPACITY, None).unwrap();
    assert_eq!((parsed.turn.model.as_str(), parsed.requested_model.as_str(), parsed.n), ("m", "m", 1));
    assert_eq!((&*parsed.turn.reasoning_effort, &*parsed.turn.reasoning_summary), ("high", "auto"));
    assert_eq!(parsed.turn.sandbox, Sandbox::ReadOnly);
    assert_eq!(parsed.turn.format, Format::Text);
}

#[test]
fn validate_prompt_cache_key_is_kept_and_an_empty_one_is_none() {
    for (sent, expected) in [("", None), ("user-7", Some("user-7"))] {
        let request = pb::ChatRequest { prompt_cache_key: sent.into(), ..request() };
        let turn = policy(&[]).validate(request, CAPACITY, None).unwrap().turn;
        assert_eq!(turn.prompt_cache_key.as_deref(), expected);
    }
}

#[test]
fn validate_user_may_have_any_characters_within_the_limit() {
    for user in ["", "[\"a\",\"b\"]", "a\nb\u{7f}"] {
        let request = pb::ChatRequest { user: user.into(), ..request() };
        assert_eq!(policy(&[]).validate(request, CAPACITY, None).unwrap().turn.caller, user);
    }
    for (length, is_valid) in [(2048, true), (2049, false)] {
        let request = pb::ChatRequest { user: "x".repeat(length), ..request() };
        assert_eq!(policy(&[]).validate(request, CAPACITY, None).is_ok(), is_valid, "{length}");
    }
}

#[test]
fn validate_alias_is_resolved_and_kept() {
    let policy = policy(&[("CODEX_MODEL_ALIASES", r#"{"gpt-4o":"gpt-5.5"}"#)]);
    let parsed =
        policy.validate(pb::ChatRequest { model: "gpt-4o".into(), ..request() }, CAPACITY, None).unwrap();
    assert_eq!((parsed.turn.model.as_str(), parsed.requested_model.as_str()), ("gpt-5.5", "gpt-4o"));
}

#[test]
fn validate_unknown_default_becomes_the_default_of_the_cli() {
    let catalog = ModelCatalog {
        names: ["new".to_owned()].into(),
        default: Some("new".to_owned()),
        ..ModelCatalog::default()
    };
    for (env, model, expected) in [
        (&[][..], "", "new"),
        (&[], ":chat", "new"),
        (&[], "gpt-5-codex:chat", "new"),
        (&[("CODEX_MODEL", "gpt-5-codex")], "", "gpt-5-codex"),
        (&[("CODEX_MODEL_ALIASES", r#"{"*":"new"}"#)], "gpt-5-nano:chat", "new"),
    ] {
        let policy = policy(env);
        assert!(policy.models.depends_on_catalog(model) || policy.models.default_is_configured, "{model}");
        let request = pb::ChatRequest { model: model.into(), ..request() };
        let parsed = policy.validate(request, CAPACITY, Some(&catalog)).unwrap();
        assert_eq!(parsed.turn.model, expected, "{model}");
    }
    let models = policy(&[("CODEX_MODEL_ALIASES", r#"{"a":"gpt-5-codex"}"#)]).models;
    assert!(models.depends_on_catalog("a") && !models.depends_on_catalog("b:chat"));
}

#[test]
fn validate_profile_suffix_cannot_widen() {
    let validate = |env: &[(&str, &str)], model: &str| {
        policy(env).validate(pb::ChatRequest { model: model.into(), ..request() }, CAPACITY, None)
    };
    let turn = validate(&[], "gpt-5.5:chat").unwrap().turn;
    assert_eq!((turn.model.as_str(), turn.profile), ("gpt-5.5", Profile::Chat));
    let turn = validate(&[("CODEX_MODEL", "m")], ":chat").unwrap().turn;
    assert_eq!((turn.model.as_str(), turn.profile), ("m", Profile::Chat));
    assert_eq!(validate(&[], "gpt-5.5").unwrap().turn.profile, Profile::Agent);
    let error = validate(&[("CODEX_PROFILE", "chat")], "gpt-5.5:agent").unwrap_err();
    assert_eq!(error.reason(), "POLICY_WIDENED");
}

#[test]
fn validate_suffix_of_an_alias_target_selects_the_profile() {
    let aliases = r#"{"fast":"gpt-5.5:chat","own":":chat","slow":"gpt-5.5:agent","v":"m:1","*":"any:chat"}"#;
    let policy = policy(&[("CODEX_MODEL_ALIASES", aliases), ("CODEX_MODEL", "d")]);
    for (requested, model, profile) in [
        ("fast", "gpt-5.5", Profile::Chat),
        // The client's own suffix takes precedence.
        ("fast:agent", "gpt-5.5", Profile::Agent),
        ("fast:chat", "gpt-5.5", Profile::Chat),
        ("slow", "gpt-5.5", Profile::Agent),
        ("own", "d", Profile::Chat),
        ("v", "m:1", Profile::Agent),
        ("unknown", "any", Profile::Chat),
        ("unknown:agent", "any", Profile::Agent),
        ("gpt-5.5", "gpt-5.5", Profile::Agent),
        ("", "d", Profile::Agent),
    ] {
        let request = pb::ChatRequest { model: requested.into(), ..request() };
        let parsed = policy.validate(request, CAPACITY, None).unwrap();
        assert_eq!((parsed.turn.model.as_str(), parsed.turn.profile), (model, profile), "{requested}");
    }
}

#[test]
fn validate_wrong_fields_are_named() {
    let image = |data: &'static [u8]| pb::ContentPart {
        part: Some(pb::content_part::Part::Image(pb::Image { data: data.into(), detail: String::new() })),
    };
    let schema = |name: &str, schema: &str| pb::ResponseFormat {
        format: Some(pb::response_format::Format::JsonSchema(pb::JsonSchemaFormat {
            name: name.into(),
            description: String::new(),
            schema: schema.into(),
            strict: None,
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
    assert_eq!(refused(|r| r.prompt_cache_key = "k".repeat(513)), "prompt_cache_key");
    assert_eq!(refused(|r| r.service_tier = "bogus".into()), "service_tier");
    let detailed = |detail: &str| pb::ContentPart {
        part: Some(pb::content_part::Part::Image(pb::Image { data: b"x"[..].into(), detail: detail.into() })),
    };
    assert_eq!(refused(|r| r.messages[0].parts.push(detailed("huge"))), "messages[0].parts[1].image.detail");
    let file = pb::ContentPart { part: Some(pb::content_part::Part::File(pb::File::default())) };
    assert_eq!(
        refused(|r| {
            r.messages[0].role = pb::Role::Assistant.into();
            r.messages[0].parts.push(file);
        }),
        "messages[0].parts[1].file"
    );
    assert!(timeout(Some(prost_types::Duration { seconds: 0, nanos: 0 })).is_err());
    assert!(timeout(Some(prost_types::Duration { seconds: -1, nanos: 0 })).is_err());
    for nanos in [-5, 1_000_000_000, i32::MAX] {
        assert!(timeout(Some(prost_types::Duration { seconds: 5, nanos })).is_err(), "{nanos}");
    }
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
fn validate_request_can_narrow_the_policy_only() {
    let sandbox = pb::agent_options::Sandbox::WorkspaceWrite.into();
    assert_eq!(refused(|r| r.agent = Some(pb::AgentOptions { sandbox, web_search: None })), "POLICY_WIDENED");
    assert_eq!(
        refused(|r| r.agent = Some(pb::AgentOptions { sandbox: 0, web_search: Some(true) })),
        "POLICY_WIDENED"
    );

    let policy = policy(&[("CODEX_SANDBOX", "danger-full-access"), ("CODEX_ENABLE_SEARCH", "1")]);
    let agent = Some(pb::AgentOptions { sandbox, web_search: Some(false) });
    let turn = policy.validate(pb::ChatRequest { agent, ..request() }, CAPACITY, None).unwrap().turn;
    assert_eq!((turn.sandbox, turn.web_search), (Sandbox::WorkspaceWrite, false));
}

#[test]
fn validate_prompt_limit_counts_characters() {
    let policy = policy(&[("CODEX_MAX_PROMPT_CHARS", "4")]);
    let request =
        |text: &str| pb::ChatRequest { messages: vec![message(pb::Role::User, text)], ..Default::default() };
    assert!(policy.validate(request("äöü€"), CAPACITY, None).is_ok());
    assert_eq!(policy.validate(request("äöü€."), CAPACITY, None).unwrap_err().reason(), "PROMPT_TOO_LARGE");
}

#[test]
fn validate_long_prompt_names_the_window_of_a_known_model() {
    let policy = policy(&[("CODEX_MAX_PROMPT_CHARS", "4")]);
    let request = pb::ChatRequest { model: "known".into(), ..request() };
    let long = pb::ChatRequest { messages: vec![message(pb::Role::User, "12345")], ..request.clone() };
    assert!(policy.needs_catalog(&long) && !policy.needs_catalog(&request));
    let message = |catalog| policy.validate(long.clone(), CAPACITY, catalog).unwrap_err().to_string();
    let known = catalog();
    assert_eq!(
        message(Some(&known)),
        "This model's maximum context length is exceeded: the prompt has 5 characters; this server allows 4 \
         (CODEX_MAX_PROMPT_CHARS); the model's context window has 272000 tokens. Please reduce the length of the messages."
    );
    assert!(!message(None).contains("window"));
}

/// Returns a catalog with the model `known`.
fn catalog() -> ModelCatalog {
    let model = pb::Model {
        context_window: 272_000,
        reasoning_efforts: vec!["low".to_owned(), "ultra".to_owned()],
        service_tiers: vec!["priority".to_owned(), "warp".to_owned()],
        ..pb::Model::default()
    };
    ModelCatalog { models: [("known".to_owned(), model)].into(), ..ModelCatalog::default() }
}

#[test]
fn validate_words_of_a_known_model_are_those_of_its_catalog() {
    let catalog = catalog();
    let policy = policy(&[("CODEX_MODEL_ALIASES", r#"{"alias":"known"}"#)]);
    let validate = |model: &str, effort: &str, tier: &str| {
        let request = pb::ChatRequest {
            model: model.into(),
            reasoning_effort: effort.into(),
            service_tier: tier.into(),
            ..request()
        };
        assert!(policy.needs_catalog(&request));
        let turn = policy.validate(request, CAPACITY, Some(&catalog)).map(|parsed| parsed.turn);
        turn.map(|turn| (turn.reasoning_effort, turn.service_tier)).map_err(|error| error.to_string())
    };
    for (model, effort, tier, expected) in [
        ("known", "low", "priority", Some("priority")),
        ("known", "ultra", "warp", Some("warp")),
        ("known", "none", "flex", Some("flex")),
        ("known:chat", "minimal", "auto", None),
        ("alias", "low", "default", None),
        ("other", "bogus", "priority", Some("priority")),
    ] {
        let expected = Ok((effort.to_owned(), expected.map(str::to_owned)));
        assert_eq!(validate(model, effort, tier), expected, "{model}");
    }
    for model in ["known", "alias", "known:chat", "alias:chat"] {
        let error = validate(model, "bogus", "").unwrap_err();
        assert_eq!(error, "reasoning_effort: the model has low, ultra; bogus is not one of them", "{model}");
        let error = validate(model, "", "bogus").unwrap_err();
        assert_eq!(error, "service_tier: expected one of auto, default, flex, priority, warp", "{model}");
    }
    assert!(validate("other", "", "warp").is_err());
}

#[test]
fn validate_limit_of_zero_tokens_is_no_limit() {
    let limit = |limit| pb::ChatRequest { max_output_tokens: limit, ..request() };
    for (requested, expected) in [(Some(0), None), (None, None), (Some(1), Some(1))] {
        let parsed = policy(&[]).validate(limit(requested), CAPACITY, None).unwrap();
        assert_eq!(parsed.max_output_tokens, expected);
    }
}

#[test]
fn validate_prompt_limit_counts_calls_tools_and_schemas() {
    let policy = policy(&[("CODEX_MAX_PROMPT_CHARS", "100")]);
    let refused = |change: &dyn Fn(&mut pb::ChatRequest, &str)| {
        let validate = |text: &str| {
            let mut request = request();
            change(&mut request, text);
            policy.validate(request, CAPACITY, None)
        };
        validate(&"x".repeat(50)).unwrap();
        validate(&"x".repeat(100)).unwrap_err()
    };
    let described = refused(&|request, text| {
        request.tools = vec![pb::Tool { description: text.into(), ..tool("f", "") }];
    });
    let counts = "the prompt has 103 characters (messages 2, tools 101, schema of the answer 0); this server allows 100 \
                  (CODEX_MAX_PROMPT_CHARS)";
    assert!(described.to_string().contains(counts), "{described}");
    let parameters = refused(&|request, text| {
        request.tools = vec![tool("f", &format!(r#"{{"title":"{text}"}}"#))];
    });
    let answer = refused(&|request, text| {
        let schema = pb::JsonSchemaFormat {
            name: "n".into(),
            schema: format!(r#"{{"title":"{text}"}}"#),
            ..Default::default()
        };
        let format = Some(pb::response_format::Format::JsonSchema(schema));
        request.response_format = Some(pb::ResponseFormat { format });
    });
    let call = refused(&|request, text| {
        let call = pb::ToolCall { id: "c".into(), name: "f".into(), arguments: text.into() };
        request.messages.push(pb::Message {
            role: pb::Role::Assistant.into(),
            tool_calls: vec![call],
            ..Default::default()
        });
        let result = pb::Message { tool_call_id: "c".into(), ..message(pb::Role::Tool, "") };
        request.messages.push(result);
    });
    for error in [described, parameters, answer, call] {
        assert_eq!(error.reason(), "PROMPT_TOO_LARGE", "{error}");
    }
}

#[test]
fn validate_empty_answer_in_a_history_is_an_empty_text() {
    let mut request = request();
    request.messages.push(pb::Message { role: pb::Role::Assistant.into(), ..Default::default() });
    request.messages.push(message(pb::Role::User, "go on"));
    let turn = policy(&[]).validate(request, CAPACITY, None).unwrap().turn;
    let [Part::Text(text)] = &turn.messages[1].parts[..] else { panic!("{:?}", turn.messages[1]) };
    assert_eq!(text, "");
}

#[test]
fn validate_file_becomes_text_within_the_limit() {
    let file = pb::File { filename: "a.md".into(), media_type: String::new(), data: b"# hi"[..].into() };
    let part = pb::ContentPart { part: Some(pb::content_part::Part::File(file)) };
    let mut request = request();
    request.messages[0].parts.push(part);
    let turn = policy(&[]).validate(request.clone(), CAPACITY, None).unwrap().turn;
    let [_, Part::Text(text)] = &turn.messages[0].parts[..] else { panic!("{:?}", turn.messages[0]) };
    assert!(text.contains("name=\"a.md\">\n# hi\n</file-"), "{text}");
    let small = policy(&[("CODEX_MAX_PROMPT_CHARS", "5")]);
    assert_eq!(small.validate(request, CAPACITY, None).unwrap_err().reason(), "PROMPT_TOO_LARGE");
}

#[test]
fn validate_lists_have_limits() {
    let refused = |change: &dyn Fn(&mut pb::ChatRequest, usize)| {
        let validate = |count: usize| {
            let mut request = request();
            change(&mut request, count);
            policy(&[("CODEX_MAX_MESSAGES", "4"), ("CODEX_MAX_TOOLS", "4")]).validate(request, CAPACITY, None)
        };
        validate(4).unwrap();
        let error = validate(5).unwrap_err();
        let Error::InvalidArgument { field, message } = error else { panic!("{error:?}") };
        format!("{field}: {message}")
    };
    let call = |n: usize| pb::ToolCall { id: n.to_string(), name: "f".into(), arguments: "{}".into() };
    let calls = |message: &mut pb::Message, calls: std::ops::Range<usize>| {
        message.role = pb::Role::Assistant.into();
        message.tool_calls = calls.map(call).collect();
    };
    assert_eq!(
        refused(&|request, count| request.messages = vec![message(pb::Role::User, ""); count]),
        "messages: 5 messages are more than the 4 allowed (CODEX_MAX_MESSAGES)"
    );
    assert_eq!(
        refused(&|request, count| {
            let part = request.messages[0].parts[0].clone();
            request.messages[0].parts.resize(count - 1, part);
            request.messages.push(message(pb::Role::User, ""));
        }),
        "messages: 5 content parts are more than the 4 allowed (CODEX_MAX_MESSAGES)"
    );
    let mut many = request();
    calls(&mut many.messages[0], 0..5);
    let error = policy(&[("CODEX_MAX_MESSAGES", "4")]).validate(many, CAPACITY, None).unwrap_err();
    assert_eq!(error.to_string(), "5 tool calls are more than the 4 allowed (CODEX_MAX_MESSAGES)");
    assert_eq!(
        refused(&|request, count| request.tools = (0..count).map(|n| tool(&format!("f{n}"), "")).collect()),
        "tools: 5 tools are more than the 4 allowed (CODEX_MAX_TOOLS)"
    );
}

/// Returns a PNG file of this size, of which only the header is correct.
fn png(width: u32, height: u32) -> pb::ContentPart {
    let header = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes()];
    let data = [header.concat().as_slice(), b"IEND\xaeB`\x82"].concat();
    pb::ContentPart {
        part: Some(pb::content_part::Part::Image(pb::Image { data: data.into(), detail: String::new() })),
    }
}

#[test]
fn validate_images_have_a_limit_of_pixels_each_and_together() {
    let validate = |sizes: &[(u32, u32)]| {
        let mut request = request();
        request.messages[0].parts.extend(sizes.iter().map(|(width, height)| png(*width, *height)));
        policy(&[]).validate(request, CAPACITY, None)
    };
    // A photograph of 50 megapixels, a screenshot in 8K, and eight photographs of 12 megapixels.
    for sizes in [&[(8160, 6120)][..], &[(7680, 4320)], &[(4032, 3024); 8]] {
        validate(sizes).unwrap();
    }
    for (size, pixels) in [((30_000, 30_000), "900000000"), ((100_000, 100_000), "10000000000")] {
        let error = validate(&[(1, 1), size]).unwrap_err();
        let Error::InvalidArgument { field, message } = error else { panic!("{error:?}") };
        assert_eq!(field, "messages[0].parts[2].image");
        assert!(message.starts_with(pixels) && message.contains("CODEX_MAX_IMAGE_PIXELS"), "{message}");
    }
    let error = validate(&[(7000, 7000); 3]).unwrap_err();
    let Error::InvalidArgument { field, message } = error else { panic!("{error:?}") };
    assert_eq!(field, "messages[0].parts[3].image");
    assert!(message.contains("147000000 pixels, more than the 100000000"), "{message}");
}

#[test]
fn validate_empty_tool_result_is_an_empty_text() {
    let call = pb::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    let mut request = request();
    let calling =
        pb::Message { role: pb::Role::Assistant.into(), tool_calls: vec![call], ..Default::default() };
    let result = pb::Message { role: pb::Role::Tool.into(), tool_call_id: "c".into(), ..Default::default() };
    request.messages.extend([calling, result]);
    let turn = policy(&[]).validate(request, CAPACITY, None).unwrap().turn;
    let [Part::Text(text)] = &turn.messages[2].parts[..] else { panic!("{:?}", turn.messages[2]) };
    assert_eq!(text, "");
    assert!(turn.messages[1].parts.is_empty(), "an assistant's calls need no text");
}

fn tool(name: &str, parameters_json: &str) -> pb::Tool {
    pb::Tool { name: name.into(), parameters_json: parameters_json.into(), ..pb::Tool::default() }
}

/// Returns the parameters of the tools of a valid request.
fn tools(tools: Vec<pb::Tool>) -> Vec<Parameters> {
    let turn = policy(&[("CODEX_MAX_PROMPT_CHARS", "1048576")])
        .validate(pb::ChatRequest { tools, ..request() }, CAPACITY, None)
        .unwrap()
        .turn;
    turn.tools.iter().map(|tool| tool.parameters.clone()).collect()
}

#[test]
fn validate_parameters_json_takes_precedence_over_the_struct() {
    #[expect(deprecated, reason = "clients of the first contract")]
    let with_struct = |parameters_json: &str| pb::Tool {
        parameters: Some(prost_types::Struct::default()),
        ..tool("f", parameters_json)
    };
    let text = r#" {"z": 1, "a": 9007199254740993} "#;
    assert_eq!(tools(vec![with_struct(text)]), [Parameters::Json(text.into())]);
    assert_eq!(tools(vec![with_struct("")]), [Parameters::Struct(prost_types::Struct::default())]);
    assert_eq!(tools(vec![tool("f", "")]), [Parameters::None]);
}

#[test]
fn validate_parameters_that_are_no_small_json_object_are_refused() {
    let large = |bytes: usize| format!(r#"{{"description":"{}"}}"#, "x".repeat(bytes));
    for wrong in ["[]", "1", "null", "{", "{}{}", "{'a':1}", &large(1 << 20)] {
        assert_eq!(
            refused(|r| r.tools = vec![tool("f", "{}"), tool("g", wrong)]),
            "tools[1].parameters_json"
        );
    }
    let many =
        |count: usize| (0..count).map(|n| tool(&format!("f{n}"), &large(1_000_000))).collect::<Vec<_>>();
    assert_eq!(tools(many(1)).len(), 1);
    assert_eq!(refused(|r| r.tools = many(5)), "tools[4].parameters_json");
    assert_eq!(refused(|r| r.tools = vec![tool("f", ""), tool("g", ""), tool("f", "")]), "tools[2].name");
}

#[test]
fn validate_choice_none_leaves_no_tools() {
    let none = pb::ToolChoice { mode: pb::tool_choice::Mode::None.into(), name: String::new() };
    let with_none = pb::ChatRequest { tools: vec![tool("f", "")], tool_choice: Some(none), ..request() };
    let turn = policy(&[]).validate(with_none, CAPACITY, None).unwrap().turn;
    assert_eq!((turn.tools.len(), turn.tool_choice), (0, ToolChoice::Auto));
}

#[test]
fn validate_response_schema_is_parsed_and_keeps_its_text() {
    let text = r#"{ "z": 1, "a": 2 }"#;
    let schema = |schema: &str| pb::ResponseFormat {
        format: Some(pb::response_format::Format::JsonSchema(pb::JsonSchemaFormat {
            name: "n".into(),
            description: String::new(),
            schema: schema.into(),
            strict: None,
        })),
    };
    let with_schema = pb::ChatRequest { response_format: Some(schema(text)), ..request() };
    let turn = policy(&[]).validate(with_schema, CAPACITY, None).unwrap().turn;
    let Format::JsonSchema(kept) = turn.format else { panic!("{:?}", turn.format) };
    assert_eq!((kept.text.as_str(), kept.value.to_string()), (text, r#"{"z":1,"a":2}"#.to_owned()));
    let large = format!(r#"{{"description":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(refused(|r| r.response_format = Some(schema(&large))), "response_format.json_schema.schema");
}
