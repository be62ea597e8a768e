//! Results of earlier calls: after a restart, from a conversation of another service, large results, images.

use serde_json::{Value, json};

use super::{
    MODEL, PROFILES, followed_by, function, real_workers, request,
    routes::{ROUTES, Route, tool_result},
    script,
    upstream_request::{assistant, call, output, reasoning, user},
};
use crate::support::with_app;

const PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg==";

fn two_calls() -> String {
    script(&json!([
        {"reasoning": "secret", "text": "Let me look.", "calls": [
            {"name": "f", "arguments": "{\"a\": \"1\"}"}, {"name": "f", "arguments": {"a": "2"}}]},
        {"text": "done"},
    ]))
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_after_a_restart_are_accepted_without_reasoning() {
    let prompt = two_calls();
    for (profile, model) in PROFILES {
        let body = request(model, &prompt, &[function("f", "a")]);
        let continuations = with_app(real_workers().profile(profile), async |before| {
            let mut continuations = Vec::new();
            for route in ROUTES {
                let first = before.turn(route, &body).await;
                let results: Vec<Value> = first.calls.iter().map(|call| tool_result(call, "r")).collect();
                let ids = [first.calls[0].id.clone(), first.calls[1].id.clone()];
                continuations.push((
                    route,
                    ids,
                    followed_by(&followed_by(&body, &[first.message()]), &results),
                ));
            }
            continuations
        })
        .await;

        with_app(real_workers().profile(profile), async |after| {
            for (route, [a, b], body) in continuations {
                let outcome = after.turn(route, &body).await;
                assert_eq!(
                    (outcome.text.as_str(), outcome.finish_reason.as_str()),
                    ("done", "stop"),
                    "{route:?}"
                );
                after.last_upstream_request().assert_ends_with_items(&[
                    user(&prompt),
                    assistant("Let me look."),
                    call("f", r#"{"a": "1"}"#, &a),
                    call("f", r#"{"a":"2"}"#, &b),
                    output(&a, "r"),
                    output(&b, "r"),
                ]);
            }
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn reasoning_in_another_conversation_is_left_out() {
    with_app(real_workers(), async |app| {
        let prompt = two_calls();
        let mut body = request(MODEL, &prompt, &[function("f", "a")]);
        let system = json!({"role": "system", "content": "Be kind."});
        body["messages"].as_array_mut().unwrap().insert(0, system);
        for route in ROUTES {
            let first = app.turn(route, &body).await;
            let number = app.last_request_number();
            let [a, b] = &first.calls[..] else { panic!("{first:?}") };
            let same = followed_by(&body, &[first.message(), tool_result(a, "r"), tool_result(b, "r")]);
            let (mut another_model, mut another_profile, mut another_system) =
                (same.clone(), same.clone(), same.clone());
            another_model["model"] = "gpt-5.4".into();
            another_profile["model"] = format!("{MODEL}:chat").into();
            another_system["messages"][0]["content"] = "Be rude.".into();
            let conversation = [
                assistant("Let me look."),
                call("f", r#"{"a": "1"}"#, &a.id),
                call("f", r#"{"a":"2"}"#, &b.id),
                output(&a.id, "r"),
                output(&b.id, "r"),
            ];
            for body in [another_model, another_profile, another_system] {
                assert_eq!(app.turn(route, &body).await.text, "done", "{route:?}");
                app.last_upstream_request()
                    .assert_ends_with_items(&[&[user(&prompt)], &conversation[..]].concat());
            }
            assert_eq!(app.turn(route, &same).await.text, "done", "{route:?}");
            app.last_upstream_request().assert_ends_with_items(
                &[&[user(&prompt), reasoning("secret", number)], &conversation[..]].concat(),
            );
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn history_of_another_service_is_accepted() {
    with_app(real_workers(), async |app| {
    let prompt = script(&json!({"text": "I see."}));
    let long = format!("toolu_{}", "x".repeat(100));
    let tool_call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let result = |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    // Its tools are no longer offered, and the upstream would refuse some of its names.
    let body = json!({"model": MODEL, "messages": [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": null, "tool_calls": [tool_call("0", "other.tool", ""), tool_call(&long, "f", "{\"a\":1}")]},
        result(&long, "second"),
        result("0", ""),
        {"role": "assistant", "content": "Once more.", "tool_calls": [tool_call("0", "shell", "{}")]},
        result("0", "third"),
    ]});
    for model in [MODEL, "gpt-5.5:chat"] {
        let mut body = body.clone();
        body["model"] = model.into();
        for route in ROUTES {
            assert_eq!(app.turn(route, &body).await.text, "I see.", "{route:?}");
            let sent = app.last_upstream_request();
            let short = sent.items[sent.items.len() - 6]["call_id"].as_str().unwrap();
            assert!(short.len() <= 64 && short.starts_with("call_"), "{short}");
            sent.assert_ends_with_items(&[
                user(&prompt),
                call("client_other_tool", "{}", "0"),
                call("f", r#"{"a":1}"#, short),
                output(short, "second"),
                output("0", ""),
                assistant("Once more."),
                call("client_shell", "{}", "0"),
                output("0", "third"),
            ]);
        }
    }
    }).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn reasoning_with_edited_calls_is_left_out() {
    let prompt = script(&json!([
        {"reasoning": "secret", "calls": [{"name": "f", "arguments": {"a": "1"}}]},
        {"text": "done"},
    ]));
    with_app(real_workers().profile("chat"), async |app| {
        let body = request(MODEL, &prompt, &[function("f", "a")]);
        let first = app.turn(Route::Http, &body).await;
        let number = app.last_request_number();
        let id = first.calls[0].id.as_str();
        let answered = tool_result(&first.calls[0], "r");

        // The JSON library of the client has reformatted the arguments. The result is sent twice.
        let mut message = first.message();
        message["tool_calls"][0]["function"]["arguments"] = "{ \"a\" : \"1\" }".into();
        for route in [Route::Sse, Route::Unary] {
            app.turn(route, &followed_by(&body, &[message.clone(), answered.clone()])).await;
            let kept = call("f", r#"{"a":"1"}"#, id);
            app.last_upstream_request().assert_ends_with_items(&[
                user(&prompt),
                reasoning("secret", number),
                kept,
                output(id, "r"),
            ]);
        }

        // Changed arguments are sent as the client wrote them, without the reasoning.
        message["tool_calls"][0]["function"]["arguments"] = r#"{"a":"9"}"#.into();
        app.turn(Route::Http, &followed_by(&body, &[message, answered.clone()])).await;
        app.last_upstream_request().assert_ends_with_items(&[
            user(&prompt),
            call("f", r#"{"a":"9"}"#, id),
            output(id, "r"),
        ]);

        // A call in another conversation has the same id and arguments.
        let other = script(&json!([{"text": "unused"}, {"text": "other"}]));
        let other_body = request(MODEL, &other, &[function("f", "a")]);
        assert_eq!(
            app.turn(Route::Http, &followed_by(&other_body, &[first.message(), answered])).await.text,
            "other"
        );
        app.last_upstream_request().assert_ends_with_items(&[
            user(&other),
            call("f", r#"{"a":"1"}"#, id),
            output(id, "r"),
        ]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn results_with_images_reach_the_model() {
    let prompt = two_calls();
    with_app(real_workers(), async |app| {
        for model in [MODEL, "gpt-5.5:chat"] {
            let body = request(model, &prompt, &[function("f", "a")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                let number = app.last_request_number();
                let [a, b] = &first.calls[..] else { panic!("{first:?}") };
                let picture = json!({"type": "image_url", "image_url": {"url": PNG}});
                let content = json!([{"type": "text", "text": "here:"}, picture]);
                let results = [first.message(), tool_result(a, content), tool_result(b, json!([picture]))];
                assert_eq!(app.turn(route, &followed_by(&body, &results)).await.text, "done", "{route:?}");
                let picture = json!({"type": "input_image", "image_url": PNG});
                app.last_upstream_request().assert_ends_with_items(&[
                    user(&prompt),
                    reasoning("secret", number),
                    assistant("Let me look."),
                    call("f", r#"{"a": "1"}"#, &a.id),
                    call("f", r#"{"a":"2"}"#, &b.id),
                    output(&a.id, json!([{"type": "input_text", "text": "here:"}, picture])),
                    output(&b.id, json!([picture])),
                ]);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn large_result_reaches_the_model_whole() {
    let large: String = (0..12_500).map(|line| format!("{line:07}\n")).collect();
    assert_eq!(large.len(), 100_000);
    let prompt = two_calls();
    for (profile, model) in PROFILES {
        with_app(real_workers().profile(profile).max_prompt_chars(300_000), async |app| {
            let body = request(model, &prompt, &[function("f", "a")]);
            for route in ROUTES {
                let first = app.turn(route, &body).await;
                let [a, b] = &first.calls[..] else { panic!("{first:?}") };
                let parts = json!([{"type": "text", "text": large}, {"type": "text", "text": "end"}]);
                let mut body =
                    followed_by(&body, &[first.message(), tool_result(b, parts), tool_result(a, "short")]);
                // The result is not cut without tools either.
                body.as_object_mut().unwrap().remove("tools");
                assert_eq!(app.turn(route, &body).await.text, "done", "{route:?}");
                let sent = app.last_upstream_request();
                let at = sent.items.len() - 2;
                assert!(
                    sent.items[at]["output"][0]["text"] == large.as_str(),
                    "{route:?}: {:.300}",
                    sent.items[at]
                );
                assert_eq!(sent.items[at]["output"][1]["text"], "end");
            }
            let text = app.turn(Route::Http, &body).await;
            let [a, b] = &text.calls[..] else { panic!("{text:?}") };
            let results = [text.message(), tool_result(a, large.as_str()), tool_result(b, large.as_str())];
            app.turn(Route::Stream, &followed_by(&body, &results)).await;
            let sent = app.last_upstream_request();
            let whole = |item: &Value| item["output"] == large.as_str();
            assert!(
                sent.items.iter().rev().take(2).all(whole),
                "a result that is a plain text is not cut either"
            );
        })
        .await;
    }
}
