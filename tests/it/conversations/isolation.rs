//! A request with the history of another conversation, or in another setting, never runs on its thread and sees nothing of it.

use codex_api::pb::{self, ThreadOrigin, agent_options::Sandbox};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::client::Client;
use crate::{
    support::{AppConfig, Engine, TestApp, with_app},
    tools::{
        contract::contract,
        routes::{ROUTES, Route},
    },
};

const MODEL: &str = "fake:directives";

fn config() -> AppConfig {
    AppConfig::fake(Engine::AppServer).sandbox("danger-full-access").env("CODEX_ENABLE_SEARCH", "1")
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn function(name: &str, description: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": description,
        "parameters": {"type": "object", "properties": {}}}})
}

/// Runs a scenario with a server that keeps threads and one that does not.
async fn with_both(scenario: impl AsyncFnOnce(&TestApp, &Client, &Client)) {
    with_app(config(), async |kept| {
        with_app(config().env("CODEX_KEPT_THREADS", "0"), async |fresh| {
            scenario(kept, &Client::new(kept).await, &Client::new(fresh).await).await;
        })
        .await;
    })
    .await;
}

/// A change of a request's setting.
type Change = (&'static str, fn(&mut pb::ChatRequest));

fn agent(options: pb::AgentOptions) -> Option<pb::AgentOptions> {
    Some(options)
}

const CHANGES: &[Change] = &[
    ("model", |request| request.model = "b-fake:directives".into()),
    ("profile", |request| request.model = "fake:directives:chat".into()),
    ("sandbox", |request| {
        request.agent = agent(pb::AgentOptions { sandbox: Sandbox::ReadOnly.into(), ..Default::default() });
    }),
    ("sandbox for writing", |request| {
        request.agent =
            agent(pb::AgentOptions { sandbox: Sandbox::WorkspaceWrite.into(), ..Default::default() });
    }),
    ("search", |request| {
        request.agent = agent(pb::AgentOptions { web_search: Some(false), ..Default::default() });
    }),
    ("verbosity", |request| request.verbosity = "low".into()),
    ("service tier", |request| request.service_tier = "flex".into()),
    ("cache key", |request| request.prompt_cache_key = "another".into()),
    ("user", |request| request.user = "another".into()),
    ("instructions", |request| {
        request.messages[0].parts[0].part = Some(pb::content_part::Part::Text("Be rude.".into()));
    }),
    ("role of the instructions", |request| request.messages[0].role = pb::Role::Developer.into()),
    ("no instructions", |request| drop(request.messages.remove(0))),
    ("no tools", |request| request.tools.clear()),
    ("description of a tool", |request| request.tools[0].description = "Does something else.".into()),
    ("strictness of a tool", |request| {
        request.tools[0].strict = true;
        request.tools[0].parameters_json =
            json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false})
                .to_string();
    }),
    ("schema of a tool", |request| {
        request.tools[0].parameters_json =
            json!({"type": "object", "properties": {"a": {"type": "string"}}}).to_string();
    }),
    ("order of the tools", |request| request.tools.reverse()),
    ("tool choice", |request| {
        let mode = pb::tool_choice::Mode::None.into();
        request.tool_choice = Some(pb::ToolChoice { mode, name: String::new() });
    }),
    ("number of calls", |request| request.parallel_tool_calls = Some(false)),
];

#[tokio::test]
async fn request_in_another_setting_runs_on_a_fresh_thread() {
    with_both(async |_, kept, fresh| {
        let tools = json!([function("f", "Does f."), function("g", "Does g.")]);
        for (name, change) in CHANGES {
            let first = json!({"role": "user", "content": format!("{name}: @@think of it@@@@text Hello.@@")});
            let system = json!({"role": "system", "content": "Be brief."});
            let body = json!({"model": MODEL, "tools": tools, "messages": [system, first]});
            assert_eq!(kept.send(Route::Http, &body).await.answer().text, "Hello.", "{name}");
            let more = json!([system, first, assistant("Hello."), user("@@transcript@@")]);
            let body = json!({"model": MODEL, "tools": tools, "messages": more});
            let mut changed = contract(&body);
            change(&mut changed);
            let answer = kept.chat(&changed).await;
            assert_eq!(answer.thread(), ThreadOrigin::Fresh, "{name}");
            let expected = fresh.chat(&changed).await;
            assert_eq!(answer.choices[0].text, expected.choices[0].text, "{name}");
            // The thread is still there for its own conversation, unless the answer was the same.
            let own = kept.send(Route::Http, &body).await;
            assert!(own.is_continued(), "{name}");
            assert_eq!(own.answer().text, fresh.send(Route::Http, &body).await.answer().text, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn changed_history_runs_on_a_fresh_thread() {
    with_both(async |_, kept, fresh| {
        let hi = user("@@think of it@@@@text Hello.@@");
        let changes = [
            json!([hi, assistant("Hello!")]),
            json!([hi, assistant(" Hello.")]),
            json!([hi, assistant("")]),
            json!([hi, user("Hello.")]),
            json!([assistant("Hello.")]),
            json!([user("Hi"), assistant("Hello.")]),
            json!([hi, {"role": "assistant", "content": "Hello.", "name": "Ann"}]),
            json!([hi, {"role": "assistant", "content": "Hel", "name": "lo."}]),
            json!([{"role": "user", "name": "Ann", "content": hi["content"]}, assistant("Hello.")]),
            json!([hi, hi, assistant("Hello.")]),
            json!([{"role": "developer", "content": "x"}, hi, assistant("Hello.")]),
            json!([hi, {"role": "developer", "content": "x"}, assistant("Hello.")]),
        ];
        for messages in changes {
            let body = json!({"model": MODEL, "messages": [hi]});
            assert_eq!(kept.send(Route::Sse, &body).await.answer().text, "Hello.");
            for route in ROUTES {
                let mut body = json!({"model": MODEL, "messages": messages});
                body["messages"].as_array_mut().unwrap().push(user(&format!("{route:?} @@transcript@@")));
                let reply = kept.send(route, &body).await;
                assert_eq!(reply.thread, "fresh", "{route:?} {body}");
                assert_eq!(reply.answer().text, fresh.send(route, &body).await.answer().text, "{body}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn branches_at_once_have_one_owner_of_the_thread() {
    with_both(async |app, kept, fresh| {
        for round in 0..10 {
            let hi = user(&format!("{round}: @@text Hello.@@"));
            kept.send(Route::Http, &json!({"model": MODEL, "messages": [hi]})).await.answer();
            let branch = |number: usize| {
                let question = user(&format!("{number} @@wait 20@@@@transcript@@"));
                (ROUTES[number % 4], json!({"model": MODEL, "messages": [hi, assistant("Hello."), question]}))
            };
            let branches: Vec<_> = (0..6).map(branch).collect();
            let replies = join_all(branches.iter().map(|(route, body)| kept.send(*route, body))).await;
            let continued = replies.iter().filter(|reply| reply.is_continued()).count();
            assert_eq!(continued, 1, "{replies:?}");
            for (reply, (route, body)) in replies.iter().zip(&branches) {
                assert_eq!(reply.answer().text, fresh.send(*route, body).await.answer().text, "{body}");
            }
            // Each branch goes on in its own thread.
            let branches = branches.iter().zip(&replies).map(|((route, body), reply)| {
                let mut body = body.clone();
                let more = [assistant(&reply.answer().text), user("@@transcript@@")];
                body["messages"].as_array_mut().unwrap().extend(more);
                (*route, body)
            });
            let branches: Vec<_> = branches.collect();
            let replies = join_all(branches.iter().map(|(route, body)| kept.send(*route, body))).await;
            for (reply, (route, body)) in replies.iter().zip(&branches) {
                assert!(reply.is_continued(), "{reply:?}");
                assert_eq!(reply.answer().text, fresh.send(*route, body).await.answer().text, "{body}");
            }
        }
        assert_eq!(app.status().await.running_turns, 0);
    })
    .await;
}

#[tokio::test]
async fn clients_with_the_same_history_get_their_own_answers() {
    with_both(async |_, kept, fresh| {
        let hi = user("Hi @@text Hello.@@");
        let body = json!({"model": MODEL, "messages": [hi]});
        // Both have the same conversation; the later thread replaces the other.
        let replies = [kept.send(Route::Http, &body).await, kept.send(Route::Unary, &body).await];
        assert!(replies.iter().all(|reply| reply.thread == "fresh"));
        let next = |secret: &str| {
            let question = user(&format!("My secret is {secret}. @@transcript@@"));
            json!({"model": MODEL, "messages": [hi, assistant("Hello."), question]})
        };
        let (one, two) = (next("blue"), next("red"));
        let (first, second) = (kept.send(Route::Sse, &one).await, kept.send(Route::Stream, &two).await);
        assert_eq!((&*first.thread, &*second.thread), ("continued", "fresh"));
        for (reply, body, other) in [(first, one, "red"), (second, two, "blue")] {
            let text = &reply.answer().text;
            assert_eq!(*text, fresh.send(Route::Http, &body).await.answer().text);
            assert!(!text.contains(other), "{text}");
        }
    })
    .await;
}
