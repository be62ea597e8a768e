//! The same behaviour over a WebSocket and over HTTP.

use codex_api::demo::Transport;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{both_transports, logged_in, with_login};
use crate::{
    both_engines, eventually,
    support::{
        Engine, TIMEOUT, TestApp,
        http::{Answer, answer_of_chunks, answer_of_completion, body, streamed},
        with_app,
    },
    tools::routes::{ROUTES, tool_result},
};

const MODEL: &str = "gpt-5.5";

fn directive(steps: &Value) -> String {
    format!("Please. @@{steps}@@")
}

/// Returns the round of each model call, without warm-ups.
fn rounds(app: &TestApp) -> Vec<usize> {
    let requests = app.upstream().requests();
    requests.iter().filter(|request| !request.is_warm_up()).map(|request| request.round).collect()
}

both_transports!(answer_is_equal_as_stream_and_whole);
async fn answer_is_equal_as_stream_and_whole(engine: Engine, transport: Transport) {
    // The exec engine has no `chat` profile.
    let profile = if engine == Engine::AppServer { "chat" } else { "agent" };
    with_login(logged_in(engine, transport).profile(profile), transport, async |app| {
        let step = json!({"text": "wörld 🌍 and more", "usage": {"input": 30, "cached": 20, "output": 7, "reasoning": 0}});
        let request = body(MODEL, &directive(&step));
        let expected = Answer {
            text: "wörld 🌍 and more".into(),
            finish_reason: "stop".into(),
            usage: [30, 20, 7, 0],
        };
        assert_eq!(answer_of_completion(&app.complete(&request).await), expected);
        assert_eq!(answer_of_chunks(&app.stream(&request).await), expected);
        assert_eq!(rounds(app), [0, 0]);
    })
    .await;
}

both_transports!(command_of_the_agent_runs_once_and_the_answer_follows);
async fn command_of_the_agent_runs_once_and_the_answer_follows(engine: Engine, transport: Transport) {
    let config = logged_in(engine, transport).sandbox("danger-full-access");
    with_login(config, transport, async |app| {
        let arguments = json!({"cmd": "echo line >> ran; echo from codex", "login": false});
        let command = json!({"name": "exec_command", "arguments": arguments});
        let prompt = directive(&json!([{"calls": [command], "arguments_delay_ms": 1}, {"text": "It ran."}]));
        let answer = answer_of_chunks(&app.stream(&body(MODEL, &prompt)).await);
        assert_eq!((answer.text.as_str(), answer.finish_reason.as_str()), ("It ran.", "stop"));
        assert_eq!(std::fs::read_to_string(app.home.path().join("work/ran")).unwrap(), "line\n");
        assert_eq!(rounds(app), [0, 1]);
        // The second request has the call and its output, also if it continues the first response.
        let last = app.upstream().requests().pop().unwrap();
        let items = last.body["input"].as_array().unwrap();
        let of_kind = |kind: &str| items.iter().filter(|item| item["type"] == kind).collect::<Vec<_>>();
        assert_eq!(of_kind("function_call").len(), 1, "{items:?}");
        let [output] = of_kind("function_call_output")[..] else { panic!("{items:?}") };
        assert!(output["output"].to_string().contains("from codex"), "{output}");
    })
    .await;
}

both_transports!(call_of_a_client_tool_and_its_result_lead_to_the_answer, [app_server = AppServer]);
async fn call_of_a_client_tool_and_its_result_lead_to_the_answer(engine: Engine, transport: Transport) {
    with_login(logged_in(engine, transport), transport, async |app| {
        let arguments = r#"{ "city" : "Zürich"}"#;
        let call = json!({"name": "get_weather", "arguments": arguments});
        let prompt = directive(&json!([{"text": "Let me look.", "calls": [call]}, {"text": "It is warm."}]));
        let parameters =
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let mut request = body(MODEL, &prompt);
        request["tools"] =
            json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
        for route in ROUTES {
            let first = app.turn(route, &request).await;
            assert_eq!(first.text, "Let me look.", "{route:?}");
            assert_eq!(first.called(), [("get_weather", arguments)], "{route:?}");
            assert_eq!(first.finish_reason, "tool_calls", "{route:?}");
            let mut second = request.clone();
            let messages = second["messages"].as_array_mut().unwrap();
            messages.extend([first.message(), tool_result(&first.calls[0], "25 C")]);
            let second = app.turn(route, &second).await;
            assert_eq!((second.text.as_str(), second.finish_reason.as_str()), ("It is warm.", "stop"));
        }
        assert_eq!(rounds(app), [0, 1].repeat(ROUTES.len()));
    })
    .await;
}

both_transports!(schema_of_the_answer_reaches_the_model_and_no_strict_one_is_changed);
async fn schema_of_the_answer_reaches_the_model_and_no_strict_one_is_changed(
    engine: Engine,
    transport: Transport,
) {
    with_login(logged_in(engine, transport), transport, async |app| {
        let schema = json!({"type": "object", "properties": {"zone": {"type": "string"}, "day": {"type": "integer"}},
            "required": ["zone", "day"], "additionalProperties": false});
        let mut request = body(MODEL, "hi");
        request["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "entry", "strict": true, "schema": schema}});
        let answer = answer_of_chunks(&app.stream(&request).await);
        assert_eq!(answer.text, r#"{"zone":"demo","day":1}"#);
        assert_eq!(app.upstream().requests().last().unwrap().body["text"]["format"]["schema"], schema);

        request["response_format"]["json_schema"]["schema"] = json!({"type": "object"});
        let (status, error) = app.http_error(&request).await;
        assert_eq!((status, &error["code"]), (400, &json!("upstream_rejected")), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("'additionalProperties' is required to be supplied and to be false"), "{message}");
    })
    .await;
}

both_transports!(cancelled_turn_ends_the_response_of_the_upstream);
async fn cancelled_turn_ends_the_response_of_the_upstream(engine: Engine, transport: Transport) {
    with_login(logged_in(engine, transport), transport, async |app| {
        let upstream = app.upstream();
        for step in [r#"{"text":"a","hang_after_ms":600000}"#, r#"{"tokens":100000,"delay_ms":20}"#] {
            let request = streamed(body(MODEL, &format!("@@{step}@@")));
            let call = app.post_future(&request);
            let reading = async { call.await.bytes_stream().for_each(async |_| {}).await };
            let answers = || {
                let requests = upstream.requests();
                let of_step = |text: String| text.contains(&step.replace('"', "\\\""));
                upstream.open_responses() > 0
                    && requests.iter().any(|r| !r.is_warm_up() && of_step(r.body["input"].to_string()))
            };
            tokio::select! {
                () = reading => panic!("the turn ended before it was cancelled"),
                () = async { eventually!("the model answers", answers()) } => {}
            }
            eventually!("no response is open", upstream.open_responses() == 0);
            eventually!("the slot is free", app.status().await.running_turns == 0);
        }
        let next = app.complete(&body(MODEL, r#"@@{"text":"still there"}@@"#)).await;
        assert_eq!(next["choices"][0]["message"]["content"], "still there");
    })
    .await;
}

both_transports!(failure_of_the_upstream_is_the_same_error);
async fn failure_of_the_upstream_is_the_same_error(engine: Engine, transport: Transport) {
    with_login(logged_in(engine, transport), transport, async |app| {
        for (step, expected) in [
            (
                json!({"status": 429, "body": {"error": {"message": "slow", "code": "rate_limit_exceeded"}}}),
                (429, "rate_limit_exceeded"),
            ),
            (
                json!({"status": 429, "body": {"error": {"message": "x", "type": "insufficient_quota",
                    "code": "insufficient_quota"}}}),
                (429, "insufficient_quota"),
            ),
            (
                json!({"status": 400, "body": {"error": {"message": "bad", "code": "bad_param"}}}),
                (400, "upstream_rejected"),
            ),
            (json!({"status": 500}), (503, "upstream_unavailable")),
        ] {
            let (status, error) = app.http_error(&body(MODEL, &directive(&step))).await;
            assert_eq!((status, error["code"].as_str().unwrap()), expected, "{step}: {error}");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    error_event_without_a_status_ends_the_turn_over_http
);
async fn error_event_without_a_status_ends_the_turn_over_http(engine: Engine) {
    let message = "The server had an error.";
    with_app(logged_in(engine, Transport::Http), async |app| {
        for event in [
            json!({"type": "error", "error": {"type": "server_error", "code": "server_error", "message": message}}),
            json!({"type": "error", "code": "server_error", "message": message, "param": null}),
        ] {
            let step = json!({"status": 200, "headers": {"content-type": "text/event-stream"},
                "body": format!("event: error\ndata: {event}\n\n")});
            let request = body(MODEL, &directive(&step));
            let outcome = tokio::time::timeout(TIMEOUT, app.http_error(&request)).await;
            let (status, error) = outcome.expect("the turn does not wait for the idle timeout");
            assert_eq!((status, &error["code"]), (503, &json!("upstream_unavailable")), "{event}: {error}");
        }
    })
    .await;
}

both_transports!(response_that_breaks_off_is_asked_again, [exec = Exec]);
async fn response_that_breaks_off_is_asked_again(engine: Engine, transport: Transport) {
    with_login(logged_in(engine, transport), transport, async |app| {
        // Over HTTP `ws` has no effect, and the connection is cut.
        for (note, ws) in
            [("close", json!({"close": 1011})), ("reset", json!({"reset": true})), ("cut", json!(null))]
        {
            let step = json!({"text": "one two", "cut_after": 2, "ws": ws, "times": 1, "note": note,
                "then": {"text": "one two three four"}});
            let answer = answer_of_completion(&app.complete(&body(MODEL, &directive(&step))).await);
            assert_eq!(answer.text, "one two three four", "{note}");
        }
        assert_eq!(rounds(app).len(), 6, "two model calls each");
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    upgrade_refused_with_426_leads_to_http
);
async fn upgrade_refused_with_426_leads_to_http(engine: Engine) {
    let config = logged_in(engine, Transport::WebSocket);
    with_login(config, Transport::Http, async |app| {
        let answer = app.complete(&body(MODEL, r#"@@{"text":"over HTTP"}@@"#)).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "over HTTP");
        assert_eq!(app.upstream().upgrades(), 1);
    })
    .await;
}
