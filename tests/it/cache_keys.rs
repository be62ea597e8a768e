//! The prompt-cache keys of conversations, through the real CLI.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use codex_api::{
    demo::{Recorded, Transport},
    pb::{self, chat_event::Event},
};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    eventually,
    support::{
        AppConfig, Engine, TestApp,
        grpc::{code_and_reason, collect_events},
        with_app,
    },
};

/// A server whose turns have the profile `chat`.
fn chat() -> AppConfig {
    AppConfig::real(Engine::AppServer).profile("chat").workers(1).max_prompt_chars(1 << 20)
}

/// Builds a body whose messages are those of the user and of the assistant in turn.
fn conversation(texts: &[&str]) -> Value {
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages = roles.zip(texts).map(|(role, text)| json!({"role": role, "content": text}));
    json!({"model": "gpt-5.5", "messages": messages.collect::<Vec<_>>()})
}

/// Sends a request and returns the model call of its turn.
async fn upstream_request(app: &TestApp, body: &Value) -> Recorded {
    app.complete(body).await;
    let requests = app.upstream().requests();
    requests.into_iter().rfind(|request| !request.is_warm_up()).expect("the upstream has a request")
}

/// Returns the key of a request. The header of the session must have the same one.
fn key(request: &Recorded) -> String {
    let key = request.body["prompt_cache_key"].as_str().unwrap();
    assert_eq!(request.headers["session-id"], key);
    key.to_owned()
}

/// Returns `true` if the key is that of the thread, which only this request has.
fn has_own_key(request: &Recorded) -> bool {
    key(request) == request.headers["thread-id"]
}

/// Returns the homes of the running workers.
fn homes(app: &TestApp) -> Vec<PathBuf> {
    let homes = app.workers().into_iter().filter_map(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let home =
            environ.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"CODEX_HOME="))?;
        Some(PathBuf::from(String::from_utf8(home.to_owned()).unwrap()))
    });
    homes.collect()
}

/// Returns all files below a folder, without those behind links.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            _ => drop(found.insert(entry.path())),
        }
    }
    found
}

fn assert_no_seed_is_left(app: &TestApp) {
    for home in homes(app) {
        assert_eq!(files(&home.join("own-seeds")), BTreeSet::new());
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn conversation_has_one_key_on_every_server_and_after_a_lost_worker() {
    let talk = ["What is 1 + 1?", "2", "And 2 + 2?", "4", "And 3 + 3?"];
    let one = with_app(chat(), async |app| {
        // The first turn of a conversation keeps the key of its thread.
        let first = upstream_request(app, &conversation(&talk[..1])).await;
        assert!(has_own_key(&first));
        let second = key(&upstream_request(app, &conversation(&talk[..3])).await);
        let before = app.workers();
        let pid = Pid::from_raw(i32::try_from(before[0]).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        eventually!("another worker runs", app.workers().iter().any(|pid| !before.contains(pid)));
        let third = upstream_request(app, &conversation(&talk)).await;
        assert!(!has_own_key(&third));
        assert_eq!(key(&third), second);
        // A branch of the conversation, and white space at the end of a message.
        let branch = upstream_request(app, &conversation(&["What is 1 + 1?\n", "two", "And 5 + 5?"])).await;
        assert_eq!(key(&branch), second);
        assert_no_seed_is_left(app);
        second
    })
    .await;
    // Another server, which shares nothing with the first one, with the agent as its profile.
    let agent = AppConfig::real(Engine::AppServer);
    with_app(agent, async |app| {
        let mut body = conversation(&talk);
        body["model"] = "gpt-5.5:chat".into();
        assert_eq!(key(&upstream_request(app, &body).await), one);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn other_beginnings_keys_of_clients_and_callers_have_other_keys() {
    let with_key = |texts: &[&str], key: &str| {
        let mut body = conversation(texts);
        body["prompt_cache_key"] = key.into();
        body
    };
    let bodies = [
        conversation(&["a", "1", "b"]),
        conversation(&["A", "1", "b"]),
        with_key(&["a"], "user-1"),
        with_key(&["a"], "user-2"),
    ];
    let keys = with_app(chat(), async |app| {
        let mut keys = Vec::new();
        for body in &bodies {
            let request = upstream_request(app, body).await;
            assert!(!has_own_key(&request));
            keys.push(key(&request));
        }
        // The client's key counts from the first turn on, and whatever the messages are.
        assert_eq!(key(&upstream_request(app, &with_key(&["other", "1", "words"], "user-1")).await), keys[2]);
        keys
    })
    .await;
    // With a token, the caller is another one.
    let of_token = with_app(chat().token("t0ken"), async |app| {
        let mut keys = Vec::new();
        for body in &bodies {
            let request = reqwest::Client::new().post(app.url("/v1/chat/completions")).bearer_auth("t0ken");
            assert_eq!(request.json(body).send().await.unwrap().status(), 200);
            keys.push(key(app.upstream().requests().last().unwrap()));
        }
        keys
    })
    .await;
    let all: BTreeSet<_> = keys.iter().chain(&of_token).collect();
    assert_eq!(all.len(), 2 * bodies.len(), "{keys:?} {of_token:?}");
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn turns_without_use_for_a_stable_key_keep_the_key_of_their_thread() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let talk = conversation(&["a", "1", "b"]);
    let mut with_tools = talk.clone();
    with_tools["tools"] = tools;
    with_app(chat(), async |app| {
        assert!(has_own_key(&upstream_request(app, &with_tools).await));
        assert!(!has_own_key(&upstream_request(app, &talk).await));
    })
    .await;
    with_app(chat().env("CODEX_PROMPT_CACHE_KEYS", "off"), async |app| {
        assert!(has_own_key(&upstream_request(app, &talk).await));
    })
    .await;
    with_app(AppConfig::real(Engine::AppServer), async |app| {
        assert!(has_own_key(&upstream_request(app, &talk).await));
    })
    .await;
}

/// Removes what differs between any two threads.
fn without_ids(request: &Recorded) -> Value {
    let mut body = (*request.body).clone();
    let members = body.as_object_mut().unwrap();
    // `previous_response_id` belongs to the connection of a WebSocket.
    for name in ["prompt_cache_key", "client_metadata", "previous_response_id"] {
        members.remove(name);
    }
    for item in body["input"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("id");
        item.as_object_mut().unwrap().remove("internal_chat_message_metadata_passthrough");
    }
    let mut headers = request.headers.clone();
    headers.retain(|name, _| !["session-id", "thread-id", "x-codex-turn-metadata"].contains(&&**name));
    json!({"body": body, "headers": headers})
}

/// Bodies that differ in what Codex gets with `thread/start`, `thread/inject_items` and `turn/start`.
fn varied_bodies() -> Vec<Value> {
    let talk = || conversation(&["one", "1", "two"]);
    let with = |members: Value| {
        let mut body = talk();
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let image = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{png}")}});
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    vec![
        talk(),
        with(json!({"reasoning_effort": "low", "verbosity": "low", "service_tier": "priority"})),
        with(json!({"reasoning": {"summary": "none"}})),
        with(json!({"response_format": format, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In French."},
            {"role": "user", "content": "one"}, {"role": "assistant", "content": "1"},
            {"role": "system", "content": "Now in German."},
            {"role": "user", "content": "@@{\"pieces\":[\"{\\\"a\\\":\\\"x\\\"}\"]}@@"}]})),
        with(json!({"response_format": {"type": "json_object"}, "messages": [
            {"role": "user", "content": [{"type": "text", "text": "see"}, image]}, {"role": "assistant", "content": "1"},
            {"role": "user", "content": "@@{\"pieces\":[\"{}\"]}@@"}]})),
        // Results of tools that the request no longer offers.
        with(json!({"messages": [
            {"role": "user", "content": "one"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "x".repeat(60_000)},
            {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]})),
        with(json!({"messages": [{"role": "user", "content": "x".repeat(300_000)},
            {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]})),
    ]
}

async fn assert_forks_send_what_threads_send(config: AppConfig, model: &str) {
    let bodies = varied_bodies().into_iter().map(|mut body| {
        body["model"] = model.into();
        body
    });
    let bodies: Vec<Value> = bodies.collect();
    let requests = async |config: AppConfig, is_stable: bool| {
        with_app(config, async |app| {
            let mut requests = Vec::new();
            for body in &bodies {
                let request = upstream_request(app, body).await;
                assert_eq!(has_own_key(&request), !is_stable);
                requests.push(without_ids(&request));
            }
            requests
        })
        .await
    };
    let forked = requests(config.clone(), true).await;
    let started = requests(config.env("CODEX_PROMPT_CACHE_KEYS", "off"), false).await;
    for (forked, started) in forked.into_iter().zip(started) {
        for (member, value) in started["body"].as_object().unwrap() {
            assert_eq!(&forked["body"][member], value, "{member}");
        }
        assert_eq!(forked, started);
        assert_eq!(
            forked["body"].get("tools").unwrap_or(&json!([])),
            &json!([]),
            "chat has no tools of Codex"
        );
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn fork_sends_what_a_new_thread_sends() {
    assert_forks_send_what_threads_send(chat(), "gpt-5.5").await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn fork_on_a_worker_of_the_agent_sends_what_a_new_thread_sends() {
    let agent = AppConfig::real(Engine::AppServer).sandbox("danger-full-access").max_prompt_chars(1 << 20);
    assert_forks_send_what_threads_send(agent, "gpt-5.5:chat").await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn fork_over_a_websocket_sends_what_a_new_thread_sends() {
    let config = chat().upstream_as(crate::support::UpstreamAs::OpenAiLogin);
    assert_forks_send_what_threads_send(config.upstream_transport(Transport::WebSocket), "gpt-5.5").await;
}

/// Returns what a client sees of an answer, with joined deltas.
async fn seen(app: &TestApp, request: pb::ChatRequest) -> Value {
    let stream = match app.grpc().await.stream_chat(request).await {
        Ok(stream) => collect_events(stream.into_inner()).await,
        Err(status) => Err(status),
    };
    let events = match stream {
        Ok(events) => events,
        Err(status) => return json!({"error": code_and_reason(&status).1, "text": status.message()}),
    };
    let (mut text, mut reasoning, mut others) = (String::new(), String::new(), Vec::new());
    for event in events {
        match event.event.unwrap() {
            Event::TextDelta(delta) => text.push_str(&delta.text),
            Event::ReasoningDelta(delta) => reasoning.push_str(&delta.text),
            Event::Started(_) | Event::Heartbeat(_) | Event::MessageStarted(_) => {}
            // Ids of items are those of the scripted upstream's requests.
            Event::Item(item) => others.push(format!("{:?} {:?}", item.status(), item.kind)),
            // The thread differs by intent.
            Event::Completed(completed) => others.push(format!("{:?}", completed.usage)),
            other => others.push(format!("{other:?}")),
        }
    }
    json!({"text": text, "reasoning": reasoning, "others": others})
}

/// Scripts of the upstream for the last turn of a conversation.
fn scripts() -> Vec<Value> {
    let limits = json!({"primary": {"used_percent": 42, "window_minutes": 300, "reset_at": 1_900_000_000}});
    vec![
        json!({"text": "one two three", "reasoning": "hm hm", "usage": {"input": 9, "cached": 5, "output": 3, "reasoning": 2}}),
        json!({"text": "one", "raw_reasoning": "raw thoughts"}),
        json!({"messages": [{"text": "first", "phase": "commentary"}, {"text": "second", "phase": "final_answer"}]}),
        json!({"text": "one", "reasoning": "hm", "rate_limits": limits}),
        // The limits arrive before the text of the second response, when the thread has a usage.
        json!([{"calls": [{"name": "exec_command", "arguments": {"cmd": "id"}}], "text": "wait", "rate_limits": limits},
            {"text": "one two", "reasoning": "hm", "rate_limits": limits}]),
        json!({"text": "one two", "cut_after": 0, "times": 1, "then": {"text": "three four"}}),
        json!({"text": "one two", "reasoning": "hm", "cut_after_events": 4, "rate_limits": limits, "times": 1,
            "then": {"text": "one two", "reasoning": "hm", "rate_limits": limits}}),
        json!({"text": "one two three", "cut_after": 2}),
        json!({"text": "one two three", "eof": true}),
        json!({"text": "the beginning", "incomplete": "max_output_tokens"}),
        json!({"text": "the beginning", "incomplete": "content_filter"}),
        json!({"failed": {"code": "server_error", "message": "no"}, "times": 1, "then": {"text": "better"}}),
        json!({"failed": {"code": "context_length_exceeded", "message": "too long"}}),
        json!({"status": 500, "times": 1, "then": {"text": "better", "usage": {"input": 7}}}),
        json!({"status": 429, "headers": {"retry-after": "2"},
            "body": {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}}),
        json!({"status": 400}),
        json!({"pieces": []}),
        json!({"search": "news", "text": "found"}),
    ]
}

async fn assert_forks_answer_as_threads(config: AppConfig) {
    let answers = async |config: AppConfig| {
        with_app(config.env("CODEX_ENABLE_SEARCH", "1"), async |app| {
            let mut answers = Vec::new();
            for (index, mut script) in scripts().into_iter().enumerate() {
                if let Some(step) = script.as_object_mut() {
                    step.insert("note".to_owned(), index.to_string().into());
                }
                let text = |role: pb::Role, text: String| {
                    let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(text)) };
                    pb::Message { role: role.into(), parts: vec![part], ..Default::default() }
                };
                let messages = vec![
                    text(pb::Role::User, "one".to_owned()),
                    text(pb::Role::Assistant, "1".to_owned()),
                    text(pb::Role::User, format!("@@{script}@@")),
                ];
                let request = pb::ChatRequest { model: "gpt-5.5".into(), messages, ..Default::default() };
                let number = app.last_request_number();
                let answer = seen(app, request).await;
                // Codex repeats a filtered response, and the interrupt may come after this request.
                let is_counted = script["incomplete"] != "content_filter";
                let calls = is_counted.then(|| app.model_calls_since(number));
                answers.push((script, answer, calls));
            }
            let requests = app.upstream().requests();
            let own = requests.iter().filter(|request| has_own_key(request)).count();
            (answers, own, requests.len())
        })
        .await
    };
    let (forked, own, _) = answers(config.clone()).await;
    assert_eq!(own, 0);
    let (started, own, count) = answers(config.env("CODEX_PROMPT_CACHE_KEYS", "off")).await;
    assert_eq!(own, count);
    for (forked, started) in forked.iter().zip(&started) {
        assert_eq!(forked, started);
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn fork_answers_like_a_new_thread() {
    assert_forks_answer_as_threads(chat().upstream_retries(1)).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn eight_forks_at_once_have_one_key_and_leave_nothing() {
    with_app(chat(), async |app| {
        upstream_request(app, &conversation(&["a", "1", "b"])).await;
        let home = homes(app).remove(0);
        let before = files(&home);
        for round in 0..5 {
            let bodies = (0..8).map(|branch| {
                let last = format!("@@{{\"text\":\"answer {round} {branch}\"}}@@");
                conversation(&["a", "1", &last])
            });
            let bodies: Vec<Value> = bodies.collect();
            let answers = join_all(bodies.iter().map(|body| app.complete(body))).await;
            for (branch, answer) in answers.iter().enumerate() {
                assert_eq!(answer["choices"][0]["message"]["content"], format!("answer {round} {branch}"));
            }
        }
        let keys: BTreeSet<String> = app.upstream().requests().iter().map(key).collect();
        assert_eq!(keys.len(), 1);
        // Neither seeds nor stored conversations.
        assert_eq!(files(&home), before);
        assert!(!home.join("sessions").exists());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn abandoned_forks_leave_no_seed() {
    with_app(chat(), async |app| {
        let slow = conversation(&["a", "1", "@@{\"tokens\":2000,\"delay_ms\":20}@@"]);
        for _ in 0..3 {
            let requests = (0..8).map(|_| tokio::spawn(app.post_future(&slow)));
            let requests: Vec<_> = requests.collect();
            tokio::task::yield_now().await;
            requests.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let requests = (0..8).map(|_| tokio::spawn(app.post_future(&slow)));
        let requests: Vec<_> = requests.collect();
        eventually!("the upstream streams", app.upstream().open_responses() == 8);
        requests.iter().for_each(tokio::task::JoinHandle::abort);
        eventually!("the turns have ended", app.upstream().open_responses() == 0);
        assert_eq!(
            app.complete(&conversation(&["a", "1", "b"])).await["choices"][0]["finish_reason"],
            "stop"
        );
        assert_no_seed_is_left(app);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn seeds_that_cannot_be_written_cost_the_key_only() {
    with_app(chat(), async |app| {
        let talk = conversation(&["a", "1", "b"]);
        assert!(!has_own_key(&upstream_request(app, &talk).await));
        fs::remove_dir(homes(app)[0].join("own-seeds")).unwrap();
        assert!(has_own_key(&upstream_request(app, &talk).await));
    })
    .await;
}
