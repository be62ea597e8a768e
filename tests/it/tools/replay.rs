//! Late results: after a restart, from a conversation of another service, large results, images.

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
        let goes_on = with_app(real_workers().profile(profile), async |before| {
            let mut goes_on = Vec::new();
            for way in ROUTES {
                let first = before.turn(way, &body).await;
                let results: Vec<Value> = first.calls.iter().map(|call| tool_result(call, "r")).collect();
                let ids = [first.calls[0].id.clone(), first.calls[1].id.clone()];
                goes_on.push((way, ids, followed_by(&followed_by(&body, &[first.message()]), &results)));
            }
            goes_on
        })
        .await;

        with_app(real_workers().profile(profile), async |after| {
            for (way, [a, b], body) in goes_on {
                let outcome = after.turn(way, &body).await;
                assert_eq!(
                    (outcome.text.as_str(), outcome.finish_reason.as_str()),
                    ("done", "stop"),
                    "{way:?}"
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
        for way in ROUTES {
            let first = app.turn(way, &body).await;
            let number = app.upstream_request_count();
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
                assert_eq!(app.turn(way, &body).await.text, "done", "{way:?}");
                app.last_upstream_request()
                    .assert_ends_with_items(&[&[user(&prompt)], &conversation[..]].concat());
            }
            assert_eq!(app.turn(way, &same).await.text, "done", "{way:?}");
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
    let made = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let answered = |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    // Its tools are not offered any more; some of its names no upstream of ours takes.
    let body = json!({"model": MODEL, "messages": [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": null, "tool_calls": [made("0", "other.tool", ""), made(&long, "f", "{\"a\":1}")]},
        answered(&long, "second"),
        answered("0", ""),
        {"role": "assistant", "content": "Once more.", "tool_calls": [made("0", "shell", "{}")]},
        answered("0", "third"),
    ]});
    for model in [MODEL, "gpt-5.5:chat"] {
        let mut body = body.clone();
        body["model"] = model.into();
        for way in ROUTES {
            assert_eq!(app.turn(way, &body).await.text, "I see.", "{way:?}");
            let seen = app.last_upstream_request();
            let short = seen.items[seen.items.len() - 6]["call_id"].as_str().unwrap();
            assert!(short.len() <= 64 && short.starts_with("call_"), "{short}");
            seen.assert_ends_with_items(&[
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
        let number = app.upstream_request_count();
        let id = first.calls[0].id.as_str();
        let answered = tool_result(&first.calls[0], "r");

        // Written anew by the client's JSON library, and sent twice.
        let mut message = first.message();
        message["tool_calls"][0]["function"]["arguments"] = "{ \"a\" : \"1\" }".into();
        for way in [Route::Sse, Route::Unary] {
            app.turn(way, &followed_by(&body, &[message.clone(), answered.clone()])).await;
            let kept = call("f", r#"{"a":"1"}"#, id);
            app.last_upstream_request().assert_ends_with_items(&[
                user(&prompt),
                reasoning("secret", number),
                kept,
                output(id, "r"),
            ]);
        }

        // What the client changed is the client's.
        message["tool_calls"][0]["function"]["arguments"] = r#"{"a":"9"}"#.into();
        app.turn(Route::Http, &followed_by(&body, &[message, answered.clone()])).await;
        app.last_upstream_request().assert_ends_with_items(&[
            user(&prompt),
            call("f", r#"{"a":"9"}"#, id),
            output(id, "r"),
        ]);

        // Somebody else's conversation in which a call has the same id and says the same.
        let other = script(&json!([{"text": "unused"}, {"text": "other"}]));
        let theirs = request(MODEL, &other, &[function("f", "a")]);
        assert_eq!(
            app.turn(Route::Http, &followed_by(&theirs, &[first.message(), answered])).await.text,
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
            for way in ROUTES {
                let first = app.turn(way, &body).await;
                let number = app.upstream_request_count();
                let [a, b] = &first.calls[..] else { panic!("{first:?}") };
                let picture = json!({"type": "image_url", "image_url": {"url": PNG}});
                let shown = json!([{"type": "text", "text": "here:"}, picture]);
                let results = [first.message(), tool_result(a, shown), tool_result(b, json!([picture]))];
                assert_eq!(app.turn(way, &followed_by(&body, &results)).await.text, "done", "{way:?}");
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
            for way in ROUTES {
                let first = app.turn(way, &body).await;
                let [a, b] = &first.calls[..] else { panic!("{first:?}") };
                let parts = json!([{"type": "text", "text": large}, {"type": "text", "text": "end"}]);
                let mut body =
                    followed_by(&body, &[first.message(), tool_result(b, parts), tool_result(a, "short")]);
                // Nor where no tool is offered any more.
                body.as_object_mut().unwrap().remove("tools");
                assert_eq!(app.turn(way, &body).await.text, "done", "{way:?}");
                let seen = app.last_upstream_request();
                let at = seen.items.len() - 2;
                assert!(
                    seen.items[at]["output"][0]["text"] == large.as_str(),
                    "{way:?}: {:.300}",
                    seen.items[at]
                );
                assert_eq!(seen.items[at]["output"][1]["text"], "end");
            }
            let text = app.turn(Route::Http, &body).await;
            let [a, b] = &text.calls[..] else { panic!("{text:?}") };
            let results = [text.message(), tool_result(a, large.as_str()), tool_result(b, large.as_str())];
            app.turn(Route::Stream, &followed_by(&body, &results)).await;
            let seen = app.last_upstream_request();
            let whole = |item: &Value| item["output"] == large.as_str();
            assert!(seen.items.iter().rev().take(2).all(whole), "a text alone is not cut either");
        })
        .await;
    }
}
