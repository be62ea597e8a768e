//! Random conversations through the real CLI: the upstream gets the same items and settings from a continued thread as from a
//! fresh one.

use std::{cell::Cell, collections::BTreeMap};

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use super::{
    client::Client,
    player::{FUNCTIONS, Played, World, play},
    steps::{Script, conversation},
};
use crate::{
    support::{AppConfig, Engine, TestApp, cases, with_app},
    tools::upstream_request::{UpstreamRequest, texts},
};

/// Number of conversations, unless `CODEX_TEST_CASES` has another one.
const CASES: u32 = 20;

fn config() -> AppConfig {
    // A failure of the upstream is not repeated, so that a conversation costs no time.
    AppConfig::real(Engine::AppServer).env("CODEX_MAX_IMAGES", "1000").upstream_retries(0).workers(1)
}

// Proptest runs blocking closures, which need a multi-threaded runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn random_conversations_reach_the_upstream_as_without_kept_threads() {
    with_app(config(), async |kept| {
        with_app(config().env("CODEX_KEPT_THREADS", "0"), async |fresh| {
            let clients = (Client::new(kept).await, Client::new(fresh).await);
            tokio::task::block_in_place(|| run_cases((kept, &clients.0), (fresh, &clients.1)));
        })
        .await;
    })
    .await;
}

fn run_cases(kept: (&TestApp, &Client), fresh: (&TestApp, &Client)) {
    let runtime = tokio::runtime::Handle::current();
    // Each shrink iteration runs turns, so their number is limited.
    let config =
        Config { cases: cases(CASES), max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let counts = Cell::new([0; 3]);
    TestRunner::new(config)
        .run(&(conversation(), proptest::bool::ANY), |(steps, offers_tools)| {
            let kept = runtime.block_on(play(&world(kept), &steps, offers_tools));
            let fresh = runtime.block_on(play(&world(fresh), &steps, offers_tools));
            let [requests, continuable, continued] = counts.get();
            counts.set([
                requests + kept.sent.len(),
                continuable + kept.continuable,
                continued + kept.continued,
            ]);
            compare(&kept, &fresh).map_err(TestCaseError::fail)
        })
        .unwrap();
    let counts = counts.get();
    eprintln!("requests, with an answer, continued: {counts:?}");
    let [_, continuable, continued] = counts;
    assert!(continued * 3 > continuable, "{counts:?}");
}

fn world<'a>((app, client): (&'a TestApp, &'a Client)) -> World<'a> {
    World {
        client,
        models: ["gpt-5.5", "gpt-5.4", "gpt-5.5:chat"],
        directives,
        endless: r#"@@{"tokens": 100000, "delay_ms": 20}@@"#,
        recorded: Some(app),
    }
}

/// Compares answers and upstream requests.
fn compare(kept: &Played, fresh: &Played) -> Result<(), String> {
    if kept.seen != fresh.seen {
        return Err(format!("{:#?}\nfresh: {:#?}", kept.seen, fresh.seen));
    }
    if kept.sent.len() != fresh.sent.len() {
        return Err(format!("{} upstream requests, fresh {}", kept.sent.len(), fresh.sent.len()));
    }
    for ((model, kept), (_, fresh)) in kept.sent.iter().zip(&fresh.sent) {
        let is_chat = model.ends_with(":chat");
        let (kept_items, fresh_items) = (items(kept, is_chat), items(fresh, is_chat));
        if kept_items != fresh_items {
            return Err(format!("{:#}\nfresh: {:#}", json!(kept_items), json!(fresh_items)));
        }
        let (kept, fresh) = (settings(kept), settings(fresh));
        if kept != fresh {
            return Err(format!("{kept:#}\nfresh: {fresh:#}"));
        }
    }
    Ok(())
}

/// Returns the members of a request that must not depend on the thread.
fn settings(request: &UpstreamRequest) -> Value {
    let mut body = request.body.clone();
    for member in ["input", "prompt_cache_key", "client_metadata"] {
        body.as_object_mut().unwrap().remove(member);
    }
    body
}

/// Returns the items of a request without reasoning, and in the agent profile without messages of Codex. Calls have
/// numbers instead of ids. The forms in which a client may send an answer back are the same: consecutive messages are
/// joined, white space at the end of messages and in arguments does not count, outputs are in the order of the calls.
fn items(request: &UpstreamRequest, is_chat: bool) -> Vec<Value> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let (mut items, mut outputs): (Vec<Value>, Vec<(usize, Value)>) = (Vec::new(), Vec::new());
    for item in &request.items {
        let mut item = item.clone();
        if item["type"] == "function_call_output" {
            let number = numbers[item["call_id"].as_str().unwrap()];
            item["call_id"] = number.into();
            outputs.push((number, item));
            continue;
        }
        items.extend(in_order(&mut outputs));
        match item["type"].as_str().unwrap() {
            "reasoning" => {}
            "message" if item["role"] == "assistant" => {
                let text: String = texts(&item).collect();
                match items.last_mut().filter(|last| last["role"] == "assistant") {
                    Some(last) => {
                        let joined = format!("{}{text}", last["text"].as_str().unwrap());
                        last["text"] = joined.trim_end().into();
                    }
                    None => items.push(json!({"role": "assistant", "text": text.trim_end()})),
                }
            }
            "message" if item["role"] == "user" || item["role"] == "developer" => {
                let content = item["content"].as_array_mut().unwrap();
                // Those of Codex name the home of the worker.
                content.retain(|part| {
                    is_chat || !part["text"].as_str().is_some_and(|text| text.starts_with('<'))
                });
                if content.is_empty() {
                    continue;
                }
                if let Some(text) =
                    item["content"].as_array_mut().unwrap().last_mut().filter(|last| !last["text"].is_null())
                {
                    text["text"] = text["text"].as_str().unwrap().trim_end().into();
                }
                items.push(item);
            }
            "function_call" => {
                let next = numbers.len();
                let number = *numbers.entry(item["call_id"].as_str().unwrap().to_owned()).or_insert(next);
                item["call_id"] = number.into();
                item["arguments"] = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
                items.push(item);
            }
            _ => items.push(item),
        }
    }
    items.extend(in_order(&mut outputs));
    items
}

fn in_order(outputs: &mut Vec<(usize, Value)>) -> Vec<Value> {
    outputs.sort_by_key(|(number, _)| *number);
    outputs.drain(..).map(|(_, item)| item).collect()
}

/// Writes a script for the scripted upstream.
fn directives(script: &Script) -> String {
    let steps = match script {
        Script::Digest => json!({"text": "one two three"}),
        Script::Transcript => json!({"reasoning": "hm", "text": "items: user"}),
        Script::Text(text) => json!({"text": text}),
        Script::Calls(responses, has_text, thinks) => {
            let responses = responses.iter().enumerate().map(|(number, calls)| {
                let calls = calls.iter().enumerate().map(|(index, (function, text))| {
                    let arguments =
                        json!({"z": [number, index], "a": text}).to_string().replace(",\"", ",  \"");
                    json!({"name": FUNCTIONS[*function], "arguments": arguments})
                });
                let mut step = json!({"calls": calls.collect::<Vec<_>>()});
                if *has_text {
                    step["text"] = "Let me look.".into();
                }
                if *thinks {
                    step["reasoning"] = "secret thoughts".into();
                }
                step
            });
            responses.chain([json!({"text": "done"})]).collect()
        }
        Script::Fail("incomplete-length") => {
            json!({"text": "cut by the upstream", "incomplete": "max_output_tokens"})
        }
        Script::Fail("incomplete-filter") => {
            json!({"text": "cut by a filter", "incomplete": "content_filter"})
        }
        Script::Fail(_) => json!({"status": 400}),
        Script::Cut => json!({"text": "one two three four", "cut_after": 2}),
    };
    format!("@@{steps}@@")
}
