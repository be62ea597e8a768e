//! Responses over both doors: the same items from HTTP, SSE, gRPC unary and gRPC stream, and the life of each item in a
//! stream.

use codex_api::pb::{
    self, input_item::Item as Input, output_item::Item, response_event::Event,
    responses_service_client::ResponsesServiceClient,
};
use reqwest::Response;
use serde_json::{Value, json};
use tonic::{Code, Status, transport::Channel};

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TestApp,
        grpc::{code_and_reason, violated_field},
        with_app,
    },
};

/// Three messages of the agent, the last one marked as the answer.
const MESSAGES: &str = r#"@@{"messages": [{"text": "I look.", "phase": "commentary"}, {"text": "Still."},
    {"text": "The end.", "phase": "final_answer"}]}@@"#;

fn request(model: &str, text: &str) -> Value {
    json!({"model": model, "input": [{"role": "user", "content": text}]})
}

fn grpc_request(model: &str, text: &str) -> pb::CreateResponseRequest {
    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text.to_owned())) };
    let message = pb::InputMessage { role: pb::Role::User.into(), parts: vec![part] };
    pb::CreateResponseRequest {
        settings: Some(pb::ResponseSettings { model: model.to_owned(), ..Default::default() }),
        input: vec![pb::InputItem { item: Some(Input::Message(message)) }],
        ..Default::default()
    }
}

async fn post(app: &TestApp, body: &Value) -> Response {
    reqwest::Client::new().post(app.url("/v1/responses")).json(body).send().await.unwrap()
}

/// Returns the whole response.
async fn respond(app: &TestApp, body: &Value) -> Value {
    let response = post(app, body).await;
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    body
}

/// Returns the frames of a stream, and whether `[DONE]` follows.
async fn frames(app: &TestApp, body: &Value) -> (Vec<Value>, bool) {
    let mut body = body.clone();
    body["stream"] = true.into();
    let response = post(app, &body).await;
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let mut frames: Vec<&str> = text.split("\n\n").filter(|frame| frame.contains("data: ")).collect();
    let done = frames.pop_if(|last| *last == "data: [DONE]").is_some();
    let parse = |frame: &str| -> Value {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
        data
    };
    (frames.into_iter().map(parse).collect(), done)
}

async fn client(app: &TestApp) -> ResponsesServiceClient<Channel> {
    ResponsesServiceClient::new(app.channel().await)
}

async fn events(app: &TestApp, request: pb::CreateResponseRequest) -> Result<Vec<pb::ResponseEvent>, Status> {
    let mut stream = client(app).await.stream_response(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    Ok(events)
}

/// Asserts that a stream follows the life of each item, and returns the last response.
fn last_response(frames: &[Value]) -> Value {
    let numbers: Vec<u64> = frames.iter().map(|frame| frame["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..frames.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        (&frames[0]["type"], &frames[1]["type"]),
        (&json!("response.created"), &json!("response.in_progress"))
    );
    let id = &frames[0]["response"]["id"];
    let (mut open, mut text, mut items) = (None::<Value>, String::new(), Vec::new());
    for frame in &frames[2..frames.len() - 1] {
        let kind = frame["type"].as_str().unwrap();
        assert_eq!(frame["output_index"], items.len(), "{frame}");
        match kind {
            "response.output_item.added" => {
                assert!(open.is_none(), "{frame}");
                assert_eq!(frame["item"]["status"], "in_progress");
                open = Some(frame["item"].clone());
                text.clear();
            }
            "response.output_item.done" => {
                let (begun, item) = (open.take().unwrap(), &frame["item"]);
                assert_eq!((&begun["id"], &begun["type"]), (&item["id"], &item["type"]));
                let whole = ["/content/0/text", "/summary/0/text", "/arguments"]
                    .iter()
                    .find_map(|path| item.pointer(path).and_then(Value::as_str));
                assert_eq!(whole, Some(text.as_str()), "{frame}");
                items.push(item.clone());
            }
            _ => {
                assert_eq!(frame["item_id"], open.as_ref().unwrap()["id"], "{frame}");
                if let Some(delta) = frame["delta"].as_str() {
                    text.push_str(delta);
                }
                let done = ["/text", "/arguments", "/part/text"].iter().find_map(|path| frame.pointer(path));
                if kind.ends_with(".done") {
                    assert_eq!(done.and_then(Value::as_str), Some(text.as_str()), "{frame}");
                }
            }
        }
    }
    assert!(open.is_none());
    let last = frames.last().unwrap()["response"].clone();
    assert_eq!((&last["id"], &last["output"]), (id, &json!(items)));
    assert!(last["usage"]["total_tokens"].as_u64().is_some(), "{last}");
    last
}

/// Returns the kind, the phase and the text of each item.
fn outline(response: &Value) -> Vec<String> {
    let outline = |item: &Value| {
        let text = ["/content/0/text", "/summary/0/text", "/arguments"].iter();
        let text = text.filter_map(|path| item.pointer(path).and_then(Value::as_str)).next();
        let phase = item["phase"].as_str().unwrap_or_default();
        format!("{} {phase} {}", item["type"].as_str().unwrap(), text.unwrap())
    };
    response["output"].as_array().unwrap().iter().map(outline).collect()
}

fn outline_of_proto(response: &pb::Response) -> Vec<String> {
    let outline = |item: &pb::OutputItem| match item.item.as_ref().unwrap() {
        Item::Message(message) => {
            let phase = match message.phase() {
                pb::MessagePhase::Unspecified => "",
                pb::MessagePhase::Commentary => "commentary",
                pb::MessagePhase::FinalAnswer => "final_answer",
            };
            format!("message {phase} {}", message.text)
        }
        Item::FunctionCall(call) => format!("function_call  {}", call.arguments),
        Item::Reasoning(reasoning) => format!("reasoning  {}", reasoning.summary),
    };
    response.output.iter().map(outline).collect()
}

/// Sends a request over all four routes and returns the outline of the items, which must be equal.
async fn items_over_all_routes(app: &TestApp, model: &str, text: &str) -> Vec<String> {
    let whole = respond(app, &request(model, text)).await;
    assert!(whole["id"].as_str().unwrap().starts_with("resp_"), "{whole}");
    let (frames, done) = frames(app, &request(model, text)).await;
    assert!(done, "{frames:?}");
    let streamed = last_response(&frames);
    let unary = client(app).await.create_response(grpc_request(model, text)).await.unwrap().into_inner();
    let events = events(app, grpc_request(model, text)).await.unwrap();
    let is_numbered = |event: &&pb::ResponseEvent| {
        !matches!(event.event, Some(Event::Activity(_) | Event::Notice(_) | Event::Heartbeat(_)))
    };
    let numbered: Vec<u64> = events.iter().filter(is_numbered).map(|event| event.sequence_number).collect();
    assert_eq!(numbered, (0..numbered.len() as u64).collect::<Vec<_>>());
    // A text may arrive in other pieces.
    let is_delta = |event: &&pb::ResponseEvent| {
        matches!(event.event, Some(Event::OutputTextDelta(_) | Event::ReasoningSummaryTextDelta(_)))
    };
    let whole_frames = frames.iter().filter(|frame| !frame["type"].as_str().unwrap().ends_with("text.delta"));
    let whole_events = events.iter().filter(is_numbered).filter(|event| !is_delta(event));
    assert_eq!(whole_events.count(), whole_frames.count(), "both doors have the same events");
    let Some(Event::Completed(last) | Event::Incomplete(last)) = &events.last().unwrap().event else {
        panic!("{events:?}");
    };
    let found = outline(&whole);
    assert_eq!(outline(&streamed), found, "SSE");
    assert_eq!(outline_of_proto(&unary), found, "gRPC unary");
    assert_eq!(outline_of_proto(last), found, "gRPC stream");
    found
}

both_engines!(response_of_the_fake_is_equal_over_all_four_routes);
async fn response_of_the_fake_is_equal_over_all_four_routes(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let items = items_over_all_routes(app, "fake:echo", "wörld 🌍").await;
        assert_eq!(items, [format!("message  {}", engine.echo("wörld 🌍"))]);
        let items = items_over_all_routes(app, "fake:commentary", "x").await;
        let texts: Vec<&str> =
            items.iter().map(|item| item.rsplit_once("  ").map_or(item.as_str(), |(_, t)| t)).collect();
        assert_eq!(texts.len(), 3, "each message is an item: {texts:?}");
        let items = items_over_all_routes(app, "fake:reasoning", "x").await;
        assert!(
            items[0].starts_with("reasoning") && items.last().unwrap().ends_with("final answer"),
            "{items:?}"
        );
        // The agent's actions are activity, which only gRPC has.
        let response = client(app).await.create_response(grpc_request("fake:items", "x")).await.unwrap();
        assert!(response.get_ref().activity.len() >= 4, "{response:?}");
        items_over_all_routes(app, "fake:items", "x").await;
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    response_of_the_real_cli_is_equal_over_all_four_routes
);
async fn response_of_the_real_cli_is_equal_over_all_four_routes(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        let items = items_over_all_routes(app, "gpt-5.5", MESSAGES).await;
        let last =
            if engine == Engine::AppServer { "message final_answer The end." } else { "message  The end." };
        assert_eq!(items.last().unwrap(), last);
        assert_eq!(items.len(), 3, "{items:?}");
    })
    .await;
}

/// Builds the result of a call.
fn output(call: &Value, text: &str) -> Value {
    json!({"type": "function_call_output", "call_id": call["call_id"], "output": text})
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}})
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn calls_are_items_and_their_outputs_go_on_in_the_thread() {
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        let script = r#"@@[{"text": "I ask.", "calls": [{"name": "f", "arguments": {"k": 1}}]}, {"text": "It is 42."}]@@"#;
        for is_streamed in [false, true] {
            let mut body = request("gpt-5.5:chat", &format!("{is_streamed} {script}"));
            body["tools"] = json!([tool("f"), tool("g")]);
            let send = async |body: &Value| match is_streamed {
                false => respond(app, body).await,
                true => last_response(&frames(app, body).await.0),
            };
            let first = send(&body).await;
            assert_eq!(outline(&first), ["message  I ask.", r#"function_call  {"k":1}"#]);
            assert_eq!(first["tools"].as_array().unwrap().len(), 2);
            let call = first["output"][1].clone();
            let mut input = body["input"].as_array().unwrap().clone();
            input.extend(first["output"].as_array().unwrap().clone());
            input.push(output(&call, "42"));
            body["input"] = input.into();
            body["stream"] = is_streamed.into();
            let response = post(app, &body).await;
            assert_eq!(response.headers()["x-codex-thread"], "continued");
            let text = response.text().await.unwrap();
            assert!(text.contains("It is 42."), "{text}");
        }
        let items = app.upstream().requests().last().unwrap().body["input"].clone();
        let kinds: Vec<&str> = items.as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "function_call_output").count(), 1, "{items}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn conversation_of_items_goes_on_in_its_thread() {
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        let mut body = request("gpt-5.5:chat", MESSAGES);
        body["instructions"] = "Be brief.".into();
        let first = respond(app, &body).await;
        let mut input = body["input"].as_array().unwrap().clone();
        input.extend(first["output"].as_array().unwrap().clone());
        input.push(json!({"role": "user", "content": r#"@@{"text": "More."}@@"#}));
        body["input"] = input.into();
        let response = post(app, &body).await;
        assert_eq!(response.headers()["x-codex-thread"], "continued");
        assert_eq!(outline(&response.json().await.unwrap()), ["message  More."]);
        // Other instructions are another conversation.
        body["instructions"] = "Be kind.".into();
        assert_ne!(post(app, &body).await.headers()["x-codex-thread"], "continued");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn only_allowed_tools_are_offered_to_the_model() {
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        let mut body = request("gpt-5.5:chat", r#"@@{"text": "ok"}@@"#);
        body["tools"] = json!([tool("f"), tool("g")]);
        body["tool_choice"] =
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]});
        let response = respond(app, &body).await;
        assert_eq!(response["tool_choice"], body["tool_choice"]);
        let offered = app.upstream().requests().last().unwrap().body["tools"].to_string();
        assert!(offered.contains(r#""name":"g""#) && !offered.contains(r#""name":"f""#), "{offered}");
    })
    .await;
}

#[tokio::test]
async fn exec_refuses_tools_by_name() {
    with_app(AppConfig::fake(Engine::Exec), async |app| {
        let mut body = request("fake:echo", "x");
        body["tools"] = json!([tool("f")]);
        let response = post(app, &body).await;
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(
            (&error["error"]["param"], &error["error"]["code"]),
            (&json!("tools"), &json!("unsupported_parameter"))
        );
        let mut request = grpc_request("fake:echo", "x");
        request.settings.as_mut().unwrap().tools = vec![pb::Tool { name: "f".into(), ..Default::default() }];
        let status = client(app).await.create_response(request).await.unwrap_err();
        assert_eq!(violated_field(&status), "settings.tools");
    })
    .await;
}

both_engines!(cut_response_is_incomplete);
async fn cut_response_is_incomplete(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let mut body = request("fake:text:2000", "x");
        body["max_output_tokens"] = 5.into();
        let (frames, done) = frames(app, &body).await;
        assert!(done && frames.last().unwrap()["type"] == "response.incomplete", "{frames:?}");
        for response in [last_response(&frames), respond(app, &body).await] {
            assert_eq!(
                (&response["status"], &response["max_output_tokens"]),
                (&json!("incomplete"), &json!(5))
            );
            assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
            assert_eq!(response["output"][0]["status"], "incomplete");
            assert_eq!(response["completed_at"], Value::Null);
        }
    })
    .await;
}

both_engines!(failure_is_a_status_before_the_first_item_and_an_event_behind_it);
async fn failure_is_a_status_before_the_first_item_and_an_event_behind_it(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for is_streamed in [false, true] {
            let mut body = request("fake:failed:400", "x");
            body["stream"] = is_streamed.into();
            let response = post(app, &body).await;
            assert_eq!(response.status(), 400);
            assert!(response.json::<Value>().await.unwrap()["error"]["message"].is_string());
        }
        let status = events(app, grpc_request("fake:failed:400", "x")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        // Something of the turn was sent: a text, or with exec, which has whole messages only, the begin of the stream.
        let model = match engine {
            Engine::AppServer => "fake:failed-after-text:500",
            Engine::Exec => "fake:acted:500",
        };
        let (frames, done) = frames(app, &request(model, "x")).await;
        let [.., error, failed] = &frames[..] else { panic!("{frames:?}") };
        assert!(!done);
        assert_eq!((&error["type"], &failed["type"]), (&json!("error"), &json!("response.failed")));
        assert_eq!(failed["response"]["status"], "failed");
        assert_eq!(failed["response"]["error"]["code"], "server_error");
        assert_eq!(
            error["sequence_number"].as_u64().unwrap() + 1,
            failed["sequence_number"].as_u64().unwrap()
        );
    })
    .await;
}

both_engines!(wrong_requests_are_refused_with_the_field_at_both_doors);
async fn wrong_requests_are_refused_with_the_field_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (body, param, code) in [
            (json!({"model": "fake:echo"}), "input", "invalid_value"),
            (
                json!({"input": "x", "previous_response_id": "resp_1"}),
                "previous_response_id",
                "unsupported_parameter",
            ),
            (json!({"input": "x", "background": true}), "background", "unsupported_parameter"),
            (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), "input", "not_found"),
            (
                json!({"input": [{"role": "user", "content": "x"}, {"role": "user", "content": []}]}),
                "input[1].content",
                "invalid_value",
            ),
            (
                json!({"input": [{"type": "reasoning", "summary": []}, {"role": "user", "content": "x"},
                    {"type": "function_call_output", "call_id": "c", "output": "y"}]}),
                "input[2].call_id",
                "invalid_value",
            ),
            (json!({"input": "x", "text": {"verbosity": "loud"}}), "text.verbosity", "invalid_value"),
            (json!({"input": "x", "reasoning": {"summary": "long"}}), "reasoning.summary", "invalid_value"),
            (json!({"input": "x", "metadata": {"": "x"}}), "metadata", "invalid_value"),
        ] {
            let response = post(app, &body).await;
            let status = response.status().as_u16();
            let error = response.json::<Value>().await.unwrap()["error"].take();
            assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{body}: {error}");
            assert_eq!(status, if code == "not_found" { 404 } else { 400 });
        }
        let mut grpc = client(app).await;
        let status = grpc.create_response(pb::CreateResponseRequest::default()).await.unwrap_err();
        assert_eq!(violated_field(&status), "input");
        let mut request = grpc_request("fake:echo", "x");
        request.input.push(pb::InputItem::default());
        let status = grpc.create_response(request.clone()).await.unwrap_err();
        assert_eq!(violated_field(&status), "input[1]");
        request.input[1].item =
            Some(Input::Message(pb::InputMessage { role: pb::Role::User.into(), parts: Vec::new() }));
        let status = grpc.stream_response(request).await.unwrap_err();
        assert_eq!(violated_field(&status), "input[1].message.parts");
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "INVALID_VALUE".into()));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn conversation_that_is_too_long_names_the_input() {
    with_app(AppConfig::real(Engine::AppServer).env("CODEX_MAX_PROMPT_CHARS", "4000"), async |app| {
        let too_long = r#"@@{"failed": {"code": "context_length_exceeded", "message": "too long"}}@@"#;
        for text in [too_long.to_owned(), "x".repeat(5000)] {
            let body = request("gpt-5.5:chat", &text);
            let error = post(app, &body).await.json::<Value>().await.unwrap()["error"].take();
            assert_eq!(
                (&error["param"], &error["code"]),
                (&json!("input"), &json!("context_length_exceeded"))
            );
        }
        let status = client(app).await.create_response(grpc_request("gpt-5.5:chat", &"x".repeat(5000))).await;
        assert_eq!(violated_field(&status.unwrap_err()), "input");
    })
    .await;
}

both_engines!(client_that_leaves_cancels_the_turn);
async fn client_that_leaves_cancels_the_turn(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let mut body = request("fake:hang", "x");
        body["stream"] = true.into();
        let request = reqwest::Client::new().post(app.url("/v1/responses")).json(&body).send();
        let waiting = tokio::spawn(request);
        eventually!("the turn runs", app.status().await.running_turns == 1);
        waiting.abort();
        eventually!("the turn ends", app.status().await.running_turns == 0);
        let call = tokio::spawn({
            let mut grpc = client(app).await;
            async move { grpc.create_response(grpc_request("fake:hang", "x")).await.map(drop) }
        });
        eventually!("the turn runs", app.status().await.running_turns == 1);
        call.abort();
        eventually!("the turn ends", app.status().await.running_turns == 0);
    })
    .await;
}

#[tokio::test]
async fn lists_of_a_grpc_request_are_counted_before_they_are_decoded() {
    with_app(AppConfig::fake(Engine::AppServer).env("CODEX_MAX_MESSAGES", "3"), async |app| {
        let mut request = grpc_request("fake:echo", "x");
        request.input = vec![pb::InputItem::default(); 4];
        let status = client(app).await.create_response(request).await.unwrap_err();
        assert_eq!(violated_field(&status), "input");
        assert!(status.message().contains("CODEX_MAX_MESSAGES"), "{status:?}");
        let items: Vec<Value> = (0..4).map(|n| json!({"role": "user", "content": n.to_string()})).collect();
        let response = post(app, &json!({"input": items})).await;
        assert_eq!(response.status(), 400);
        assert!(response.text().await.unwrap().contains("CODEX_MAX_MESSAGES"));
    })
    .await;
}
