//! Messages, parts, tools and choices in the forms of other APIs.

use codex_api::pb;
use serde_json::{Value, json};

use super::{reporting, seen_by_codex, text_message};
use crate::{
    both_engines,
    support::{
        AppConfig, Engine,
        http::{answer_of_completion, body},
        with_app,
    },
};

/// Messages of an assistant that have no text.
fn empty_answers() -> Vec<Value> {
    vec![
        json!({"role": "assistant"}),
        json!({"role": "assistant", "content": null}),
        json!({"role": "assistant", "content": []}),
        json!({"role": "assistant", "content": ""}),
        json!({"role": "assistant", "content": null, "tool_calls": []}),
        json!({"role": "assistant", "reasoning_content": "a thought"}),
        json!({"role": "assistant", "content": null, "reasoning_details": [{"text": "a thought"}]}),
        json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "a thought"}]}),
        json!({"role": "assistant", "content": [{"type": "redacted_thinking", "data": "a thought"}]}),
    ]
}

both_engines!(assistant_messages_without_content_keep_the_conversation_going);
async fn assistant_messages_without_content_keep_the_conversation_going(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for empty in empty_answers() {
            let messages = json!([{"role": "user", "content": "first"}, empty,
                {"role": "user", "content": "second"}]);
            let seen = seen_by_codex(app, engine, messages).await;
            assert!(seen.contains("first") && seen.contains("second"), "{empty}: {seen}");
            assert!(!seen.contains("a thought"), "{empty}: {seen}");
        }
        let messages = vec![
            text_message(pb::Role::User, "first"),
            pb::Message { role: pb::Role::Assistant.into(), ..Default::default() },
            text_message(pb::Role::User, "second"),
        ];
        let request = pb::ChatRequest { model: reporting(engine).into(), messages, ..Default::default() };
        let seen = app.chat(request).await;
        assert!(seen.contains("first") && seen.contains("second"), "gRPC: {seen}");
    })
    .await;
}

both_engines!(thoughts_are_left_out_and_the_text_reaches_the_model);
async fn thoughts_are_left_out_and_the_text_reaches_the_model(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for thought in [
            json!({"type": "thinking", "thinking": "a thought", "signature": "s"}),
            json!({"type": "reasoning", "text": "a thought"}),
            json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a thought"}]}),
            json!({"type": "redacted_thinking", "data": "a thought"}),
        ] {
            let content = json!([thought, {"type": "text", "text": "the answer"}]);
            let messages = json!([{"role": "user", "content": "first"},
                {"role": "assistant", "content": content}, {"role": "user", "content": "second"}]);
            let seen = seen_by_codex(app, engine, messages).await;
            assert!(seen.contains("the answer") && !seen.contains("a thought"), "{thought}: {seen}");
        }
    })
    .await;
}

both_engines!(parts_of_the_responses_api_are_seen_as_those_of_chat);
async fn parts_of_the_responses_api_are_seen_as_those_of_chat(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let messages = |input: &str, output: &str| {
            json!([{"role": "user", "content": [{"type": input, "text": "hello"}]},
                {"role": "assistant", "content": [{"type": output, "text": "hi"}]},
                {"role": "user", "content": [{"type": input, "text": "go on"}]}])
        };
        let chat = seen_by_codex(app, engine, messages("text", "text")).await;
        assert!(chat.contains("hello") && chat.contains("go on"), "{chat}");
        assert_eq!(seen_by_codex(app, engine, messages("input_text", "output_text")).await, chat);
    })
    .await;
}

both_engines!(several_system_messages_nulls_and_unknown_members_pass);
async fn several_system_messages_nulls_and_unknown_members_pass(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let messages = json!([
            {"role": "system", "content": "rule one", "name": null, "x": {"y": [1]}},
            {"role": "user", "content": "first", "tool_calls": null, "cache_control": {"type": "ephemeral"}},
            {"role": "system", "content": "rule two"},
            {"role": "assistant", "content": "hi", "refusal": null, "annotations": [], "audio": null},
            {"role": "user", "content": [{"type": "text", "text": "second", "cache_control": {}}]},
            {"role": "developer", "content": "rule three"},
        ]);
        let request = json!({"model": reporting(engine), "messages": messages, "stream": null, "n": null,
            "tools": null, "x_client": {"a": [null]}, "temperature": null});
        let seen = answer_of_completion(&app.complete(&request).await).text;
        for text in ["rule one", "first", "rule two", "hi", "second", "rule three"] {
            assert!(seen.contains(text), "{text}: {seen}");
        }
    })
    .await;
}

#[tokio::test]
async fn flat_tools_and_choices_of_other_apis_lead_to_calls() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let flat =
            json!({"type": "function", "name": "weather", "description": "d", "parameters": parameters});
        let nested = json!({"type": "function", "function": {"name": "weather", "parameters": parameters}});
        for tool in [flat, nested] {
            for choice in [
                json!("auto"),
                json!("any"),
                json!({"type": "auto"}),
                json!({"type": "any"}),
                json!({"type": "required"}),
                json!({"type": "tool", "name": "weather"}),
                json!({"type": "function", "name": "weather"}),
            ] {
                let mut request = body("fake:tools", "hi");
                request["tools"] = json!([tool]);
                request["tool_choice"] = choice.clone();
                let answer = app.complete(&request).await;
                let call = &answer["choices"][0]["message"]["tool_calls"][0];
                assert_eq!(call["function"]["name"], "weather", "{tool} {choice}: {answer}");
            }
            let mut request = body("fake:echo", "hi");
            request["tools"] = json!([tool]);
            request["tool_choice"] = json!({"type": "none"});
            assert_eq!(answer_of_completion(&app.complete(&request).await).text, "hi", "{tool}");
        }
        // A wrong value is named as the client wrote it.
        let mut request = body("fake:tools", "hi");
        request["tools"] = json!([{"type": "function", "name": "a b"}]);
        assert_eq!(app.http_error(&request).await.1["param"], "tools[0].name");
    })
    .await;
}

#[tokio::test]
async fn empty_arguments_of_an_earlier_call_pass() {
    with_app(AppConfig::fake(Engine::AppServer), async |app| {
        for arguments in [json!(""), json!(null), json!("{}")] {
            let call = json!({"id": "c1", "type": "function",
                "function": {"name": "now", "arguments": arguments}});
            let messages = json!([{"role": "user", "content": "time?"},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "12:00"}]);
            let seen = seen_by_codex(app, Engine::AppServer, messages).await;
            assert!(seen.contains("12:00") && seen.contains(r#""arguments":"{}""#), "{seen}");
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    empty_answers_thoughts_and_files_of_a_history_reach_the_upstream
);
async fn empty_answers_thoughts_and_files_of_a_history_reach_the_upstream(engine: Engine) {
    with_app(AppConfig::real(engine), async |app| {
        for empty in empty_answers() {
            let file = json!({"filename": "notes.md", "file_data": "data:text/markdown,%23%20Notes"});
            let messages = json!([
                {"role": "user", "content": [{"type": "input_text", "text": "first"},
                    {"type": "file", "file": file}]},
                empty,
                {"role": "user", "content": "@@{\"text\":\"ok\"}@@"},
            ]);
            let request = json!({"model": "gpt-5.5", "messages": messages});
            assert_eq!(answer_of_completion(&app.complete(&request).await).text, "ok", "{empty}");
            let sent = app.upstream().requests().last().unwrap().body.to_string();
            for text in ["first", "notes.md", "# Notes"] {
                assert!(sent.contains(text), "{text}: {sent}");
            }
            assert!(!sent.contains("a thought"), "{empty}");
        }
    })
    .await;
}
