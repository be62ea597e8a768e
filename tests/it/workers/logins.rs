//! A login that changes while the server runs. Running turns finish with the former login, the next turn has the new one,
//! and no turn fails.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use codex_api::demo::Upstream;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{health, open_stream, within, workers};
use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TIMEOUT, TestApp, chat_request,
        http::body,
        login::{self, chatgpt, key},
        program::Program,
        with_app,
    },
};

fn codex_home(app: &TestApp) -> PathBuf {
    app.home.path().join("codex-home")
}

/// Returns the login with which a turn runs.
async fn login_of_a_turn(app: &TestApp) -> String {
    app.complete(&body("fake:login", "hi")).await["choices"][0]["message"]["content"].as_str().unwrap().into()
}

fn two_workers(engine: Engine) -> AppConfig {
    AppConfig::fake(engine).workers(2).max_concurrency(10).max_queue(20)
}

/// One change of the login: the new login, what a turn reports afterwards, and whether the file is renamed.
struct Change(Value, &'static str, bool);

both_engines!(changed_login_is_used_by_the_next_turn_and_no_turn_fails);
async fn changed_login_is_used_by_the_next_turn_and_no_turn_fails(engine: Engine) {
    let changes = [
        Change(key("sk-second"), "sk-second", false),
        Change(key("sk-third!"), "sk-third!", true),
        Change(chatgpt("acc-1", 1), "acc-1", true),
        Change(chatgpt("acc-2", 1), "acc-2", false),
        Change(key("sk-fourth"), "sk-fourth", false),
    ];
    with_app(two_workers(engine), async |app| {
        let home = codex_home(app);
        let running = open_stream(app, 1, slow_turn(engine)).await;
        let (stop, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
        let clients = join_all((0..8).map(async |_| {
            while !stop.load(Ordering::Relaxed) {
                let answer = login_of_a_turn(app).await;
                assert!(answer.starts_with("sk-") || answer.starts_with("acc-"), "{answer}");
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let change = async {
            for Change(new, expected, renamed) in changes {
                if renamed {
                    login::replace(&home, &new);
                } else {
                    login::write(&home, &new);
                }
                // The turn starts after the write, so it must not have the former login.
                assert_eq!(login_of_a_turn(app).await, expected);
                let before = turns.load(Ordering::Relaxed);
                eventually!("the clients run turns", turns.load(Ordering::Relaxed) > before + 16);
            }
            stop.store(true, Ordering::Relaxed);
        };
        within(TIMEOUT, "turns during the changes", async { tokio::join!(clients, change) }).await;
        assert_eq!(health(app).await.0, 200);
        drop(running);
        if engine == Engine::AppServer {
            eventually!("the workers with former logins have exited", workers(app).len() == 2);
        }
    })
    .await;
}

/// Returns a turn that outlives the changes.
fn slow_turn(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Exec => ("fake:slow:2000", "hi"),
        Engine::AppServer => ("fake:stream:100000:20", "hi"),
    }
}

#[tokio::test]
async fn running_turn_finishes_on_the_worker_with_the_former_login() {
    with_app(two_workers(Engine::AppServer).workers(1), async |app| {
        let old = workers(app);
        let mut grpc = app.grpc().await;
        let long = tokio::spawn(async move { grpc.chat(chat_request("fake:stream:100:20", "hi")).await });
        eventually!("the turn runs", app.status().await.running_turns == 1);
        login::replace(&codex_home(app), &key("sk-new"));
        assert_eq!(login_of_a_turn(app).await, "sk-new");
        assert!(workers(app).contains(&old[0]), "the former worker finishes its turn");
        let answer = long.await.unwrap().unwrap().into_inner();
        assert_eq!(answer.choices[0].text.matches("t=").count(), 100);
        eventually!("the former worker has exited", !workers(app).contains(&old[0]));
    })
    .await;
}

#[tokio::test]
async fn refreshed_tokens_of_the_same_account_replace_no_worker() {
    with_app(two_workers(Engine::AppServer), async |app| {
        let home = codex_home(app);
        let first = workers(app);
        login::replace(&home, &chatgpt("acc-1", 1));
        assert_eq!(login_of_a_turn(app).await, "acc-1");
        eventually!("both workers have the account", {
            let pids = workers(app);
            pids.len() == 2 && pids.iter().all(|pid| !first.contains(pid))
        });
        let before = workers(app);
        for version in 2..8 {
            if version % 2 == 0 {
                login::replace(&home, &chatgpt("acc-1", version));
            } else {
                login::write(&home, &chatgpt("acc-1", version));
            }
            assert_eq!(login_of_a_turn(app).await, "acc-1");
        }
        assert_eq!(workers(app), before);
        login::replace(&home, &key("sk-last"));
        assert_eq!(login_of_a_turn(app).await, "sk-last");
    })
    .await;
}

both_engines!(half_written_login_delays_turns_and_fails_none);
async fn half_written_login_delays_turns_and_fails_none(engine: Engine) {
    with_app(two_workers(engine), async |app| {
        let file = codex_home(app).join("auth.json");
        let new = key("sk-whole").to_string();
        let before = workers(app);
        fs::write(&file, &new[..new.len() / 2]).unwrap();
        assert_eq!(health(app).await.0, 200, "the write is in progress");
        let turn = login_of_a_turn(app);
        let finish = async {
            eventually!("the turn waits for the login", app.status().await.running_turns == 1);
            fs::write(&file, &new).unwrap();
        };
        let (login, ()) = tokio::join!(turn, finish);
        assert_eq!(login, "sk-whole");
        if engine == Engine::AppServer {
            eventually!("the workers are replaced", workers(app).iter().all(|pid| !before.contains(pid)));
        }
    })
    .await;
}

both_engines!(lost_login_is_reported_until_it_is_back);
async fn lost_login_is_reported_until_it_is_back(engine: Engine) {
    let lost = [
        ("not logged in", None),
        ("its JSON is not complete", Some(r#"{"auth_mode": "chatgpt", "tok"#)),
        ("its JSON is not complete", Some("")),
    ];
    with_app(two_workers(engine).workers(1), async |app| {
        let file = codex_home(app).join("auth.json");
        let before = workers(app);
        for (finding, content) in lost {
            match content {
                Some(content) => fs::write(&file, content).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            eventually!("health reports the login", health(app).await.0 == 503);
            let (_, report) = health(app).await;
            let reason = report["reason"].as_str().unwrap();
            assert!(reason.contains(finding) && reason.contains("codex login"), "{reason}");
            let (status, error) = app.http_error(&body("fake:login", "hi")).await;
            assert_eq!((status, &error["code"]), (503, &json!("engine_unavailable")), "{error}");
            login::write(&codex_home(app), &key("sk-fake"));
            assert_eq!(health(app).await.0, 200);
            assert_eq!(login_of_a_turn(app).await, "sk-fake");
        }
        assert_eq!(workers(app), before, "the same login needs no other worker");
    })
    .await;
}

#[tokio::test]
async fn login_that_appears_after_the_start_is_used_by_the_next_turn() {
    for engine in ["auto", "exec", "app-server"] {
        // The configuration names an empty home, in which the test logs in later.
        let home = tempfile::tempdir().unwrap();
        let config = two_workers(Engine::AppServer).env("CODEX_ENGINE", engine);
        with_app(config.env("CODEX_HOME", home.path()), async |app| {
            let (status, report) = health(app).await;
            assert_eq!(status, 503, "{report}");
            assert!(report["reason"].as_str().unwrap().contains("not logged in"), "{report}");
            assert!(workers(app).is_empty());
            login::write(home.path(), &key("sk-later"));
            assert_eq!(login_of_a_turn(app).await, "sk-later");
            assert_eq!(health(app).await.0, 200);
        })
        .await;
    }
}

both_engines!(login_that_the_configuration_forbids_starts_no_process);
async fn login_that_the_configuration_forbids_starts_no_process(engine: Engine) {
    let chatgpt_only = "forced_login_method = \"chatgpt\"";
    let rows = [
        (chatgpt_only, key("sk-1"), "", "forced_login_method"),
        ("forced_login_method = \"api\"", chatgpt("acc-1", 1), "", "forced_login_method"),
        ("forced_chatgpt_workspace_id = \"acc-other\"", chatgpt("acc-1", 1), "", "another workspace"),
        (chatgpt_only, chatgpt("acc-1", 1), "sk-env", "CODEX_API_KEY"),
    ];
    for (config, login, env_key, finding) in rows {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.toml"), config).unwrap();
        login::write(home.path(), &login);
        let pids = home.path().join("pids");
        let settings = AppConfig::fake(engine)
            .env("CODEX_HOME", home.path())
            .env("CODEX_API_KEY", env_key)
            .env("FAKE_CODEX_PID_FILE", &pids);
        with_app(settings, async |app| {
            let (status, report) = health(app).await;
            assert_eq!(status, 503, "{report}");
            let reason = report["reason"].as_str().unwrap();
            assert!(reason.contains(finding) && reason.contains("config.toml"), "{reason}");
            assert_eq!(app.http_error(&body("fake:login", "hi")).await.0, 503);
            assert!(!pids.exists(), "no process of the CLI has started");
            // The configuration is mended.
            fs::write(home.path().join("config.toml"), "").unwrap();
            let expected = match (env_key, login["OPENAI_API_KEY"].as_str()) {
                ("", key) => key.unwrap_or("acc-1"),
                (key, _) => key,
            };
            assert_eq!(login_of_a_turn(app).await, expected);
        })
        .await;
        let left: Value =
            serde_json::from_str(&fs::read_to_string(home.path().join("auth.json")).unwrap()).unwrap();
        assert_eq!(left, login, "the login is untouched");
    }
}

#[tokio::test]
async fn login_in_the_keyring_is_refused_with_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.toml"), "cli_auth_credentials_store = \"keyring\"").unwrap();
    let config = |key: &str| {
        AppConfig::fake(Engine::AppServer).env("CODEX_HOME", home.path()).env("CODEX_API_KEY", key)
    };
    with_app(config(""), async |app| {
        let (status, report) = health(app).await;
        let reason = report["reason"].as_str().unwrap();
        assert_eq!(status, 503, "{report}");
        assert!(reason.contains("cli_auth_credentials_store = \"file\""), "{reason}");
        assert!(reason.contains("CODEX_API_KEY"), "{reason}");
    })
    .await;
    with_app(config("sk-env"), async |app| {
        assert_eq!(login_of_a_turn(app).await, "sk-env");
        let arguments = app.processes().join("\n");
        assert!(arguments.contains("cli_auth_credentials_store=\"file\""), "{arguments}");
    })
    .await;
}

both_engines!(refused_tokens_are_reported_until_the_login_changes);
async fn refused_tokens_are_reported_until_the_login_changes(engine: Engine) {
    with_app(two_workers(engine), async |app| {
        let home = codex_home(app);
        login::replace(&home, &chatgpt("acc-1", 1));
        assert_eq!(login_of_a_turn(app).await, "acc-1");
        assert_eq!(app.http_error(&body("fake:failed:401", "hi")).await.0, 503);
        let (status, report) = health(app).await;
        assert_eq!(status, 503, "{report}");
        assert!(report["reason"].as_str().unwrap().contains("codex login"), "{report}");
        login::replace(&home, &chatgpt("acc-1", 2));
        assert_eq!(health(app).await.0, 200);
        assert_eq!(login_of_a_turn(app).await, "acc-1");
    })
    .await;
    // The key of another kind of login may be refused for one model only.
    with_app(two_workers(engine), async |app| {
        assert_eq!(app.http_error(&body("fake:failed:401", "hi")).await.0, 503);
        assert_eq!(health(app).await.0, 200);
    })
    .await;
}

/// The tokens that the upstream of the fake refuses.
struct Refused(tempfile::TempDir);

impl Refused {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Refuses a token. At the first refusal, `next` becomes the login, as if another process had written it.
    fn add(&self, token: &str, next: Option<&Value>) {
        if let Some(next) = next {
            fs::write(self.path().join(format!("{token}.next")), next.to_string()).unwrap();
        }
        fs::write(self.path().join(token), "").unwrap();
    }

    /// Returns the number of refusals so far.
    fn count(&self) -> usize {
        fs::read_to_string(self.path().join("refusals")).map_or(0, |log| log.lines().count())
    }
}

fn with_refused(engine: Engine, refused: &Refused) -> AppConfig {
    two_workers(engine).env("FAKE_CODEX_REFUSED", refused.path())
}

both_engines!(turns_with_tokens_that_a_refresh_ended_run_again);
async fn turns_with_tokens_that_a_refresh_ended_run_again(engine: Engine) {
    let refused = Refused::new();
    with_app(with_refused(engine, &refused), async |app| {
        let home = codex_home(app);
        login::replace(&home, &chatgpt("acc-1", 1));
        assert_eq!(login_of_a_turn(app).await, "acc-1");
        for version in 1..4 {
            let next = chatgpt("acc-1", version + 1);
            let before = refused.count();
            refused.add(&format!("refresh-{version}"), Some(&next));
            let turns = join_all((0..8).map(|_| login_of_a_turn(app)));
            assert_eq!(within(TIMEOUT, "eight turns", turns).await, ["acc-1"; 8]);
            assert!(refused.count() > before, "no turn was refused");
            let file: Value =
                serde_json::from_str(&fs::read_to_string(home.join("auth.json")).unwrap()).unwrap();
            assert_eq!(file, next);
        }
        assert_eq!(health(app).await.0, 200);
        eventually!("all slots are free", app.status().await.running_turns == 0);
    })
    .await;
}

both_engines!(turn_of_a_refused_login_runs_again_with_another_one);
async fn turn_of_a_refused_login_runs_again_with_another_one(engine: Engine) {
    let rows = [
        (key("sk-1"), "sk-1", key("sk-2"), "sk-2"),
        (key("sk-3"), "sk-3", chatgpt("acc-4", 4), "acc-4"),
        (chatgpt("acc-5", 5), "refresh-5", chatgpt("acc-6", 6), "acc-6"),
        (chatgpt("acc-7", 7), "refresh-7", key("sk-8"), "sk-8"),
    ];
    let refused = Refused::new();
    with_app(with_refused(engine, &refused), async |app| {
        for (number, (old, token, new, expected)) in rows.iter().enumerate() {
            login::replace(&codex_home(app), old);
            login_of_a_turn(app).await;
            refused.add(token, Some(new));
            assert_eq!(login_of_a_turn(app).await, *expected);
            assert_eq!(refused.count(), number + 1);
        }
        eventually!("all slots are free", app.status().await.running_turns == 0);
    })
    .await;
}

both_engines!(refused_login_that_does_not_change_fails_the_turn_at_once);
async fn refused_login_that_does_not_change_fails_the_turn_at_once(engine: Engine) {
    let rows = [(key("sk-over"), "sk-over"), (chatgpt("acc-1", 1), "refresh-1")];
    for (login, token) in rows {
        let refused = Refused::new();
        with_app(with_refused(engine, &refused), async |app| {
            login::replace(&codex_home(app), &login);
            login_of_a_turn(app).await;
            refused.add(token, None);
            let (status, error) = app.http_error(&body("fake:login", "hi")).await;
            assert_eq!((status, &error["code"]), (503, &json!("engine_unavailable")), "{error}");
            assert_eq!(refused.count(), 1);
        })
        .await;
    }
}

both_engines!(attempts_of_a_refused_turn_are_limited);
async fn attempts_of_a_refused_turn_are_limited(engine: Engine) {
    let refused = Refused::new();
    let refuse = |version: u32| {
        refused.add(&format!("refresh-{version}"), Some(&chatgpt("acc-1", version + 1)));
    };
    with_app(with_refused(engine, &refused), async |app| {
        login::replace(&codex_home(app), &chatgpt("acc-1", 1));
        login_of_a_turn(app).await;
        (1..=4).for_each(refuse);
        assert_eq!(app.http_error(&body("fake:login", "hi")).await.0, 503);
        assert_eq!(refused.count(), 3);
        // Until the upstream accepts a turn, each turn has one attempt.
        assert_eq!(app.http_error(&body("fake:login", "hi")).await.0, 503);
        assert_eq!(refused.count(), 4);
        assert_eq!(login_of_a_turn(app).await, "acc-1");
        refuse(5);
        assert_eq!(login_of_a_turn(app).await, "acc-1");
        assert_eq!(refused.count(), 5);
        // A text that the client has would come twice.
        refuse(6);
        assert_eq!(app.http_error(&body("fake:login-after-text", "hi")).await.0, 503);
        assert_eq!(refused.count(), 6);
        eventually!("all slots are free", app.status().await.running_turns == 0);
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    turn_refused_while_the_key_is_replaced_runs_again_with_the_same_items
);
async fn turn_refused_while_the_key_is_replaced_runs_again_with_the_same_items(engine: Engine) {
    let upstream = Upstream::start().await.unwrap();
    let program =
        Program::new(Codex::Real, engine).env("CODEX_WORKERS", "2").env("CODEX_UPSTREAM_RETRIES", "0");
    let home = program.codex_home();
    fs::write(home.join("config.toml"), own_provider(&upstream)).unwrap();
    login::write(&home, &key("sk-first"));
    let mut server = program.serve(&[]).await;
    let client = reqwest::Client::new();
    upstream.clear();
    let prompt = r#"@@{"status":401,"hang_before_ms":1000,"times":1,"then":{"text":"01234"}}@@"#;
    let turn = client.post(server.url("/v1/chat/completions")).json(&body("gpt-5.5", prompt)).send();
    let replace = async {
        eventually!("the upstream has the request", !upstream.requests().is_empty());
        login::replace(&home, &key("sk-second"));
    };
    let (response, ()) = tokio::join!(turn, replace);
    let response = response.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "01234");
    let requests = upstream.requests();
    let keys: Vec<_> = requests.iter().map(|request| request.headers["authorization"].as_str()).collect();
    assert_eq!(keys, ["Bearer sk-first", "Bearer sk-second"]);
    let items = |number: usize| requests[number].body["input"].as_array().unwrap().len();
    assert_eq!(items(0), items(1));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
}

/// Returns a configuration with a provider that uses the login.
fn own_provider(upstream: &Upstream) -> String {
    let url = upstream.base_url();
    format!(
        "model_provider = \"own\"\nchatgpt_base_url = \"{url}/\"\n[analytics]\nenabled = false\n\
         [model_providers.own]\nname = \"own\"\nbase_url = \"{url}\"\nwire_api = \"responses\"\n\
         requires_openai_auth = true\n"
    )
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    key_replaced_while_running_reaches_the_upstream_with_the_next_turn
);
async fn key_replaced_while_running_reaches_the_upstream_with_the_next_turn(engine: Engine) {
    let upstream = Upstream::start().await.unwrap();
    let program = Program::new(Codex::Real, engine).env("CODEX_WORKERS", "2");
    let home = program.codex_home();
    fs::write(home.join("config.toml"), own_provider(&upstream)).unwrap();
    login::write(&home, &key("sk-first"));
    let mut server = program.serve(&[]).await;
    let client = reqwest::Client::new();
    let turn = async || {
        upstream.clear();
        let request = body("gpt-5.5", r#"@@{"text":"01234"}@@"#);
        let response = client.post(server.url("/v1/chat/completions")).json(&request).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let requests = upstream.requests();
        requests.last().unwrap().headers["authorization"].clone()
    };
    assert_eq!(turn().await, "Bearer sk-first");
    login::replace(&home, &key("sk-second"));
    assert_eq!(turn().await, "Bearer sk-second");
    login::write(&home, &key("sk-third!"));
    assert_eq!(turn().await, "Bearer sk-third!");

    // A login that the configuration forbids is not used, and the CLI does not delete it.
    let allowed = fs::read_to_string(home.join("config.toml")).unwrap();
    fs::write(home.join("config.toml"), format!("forced_login_method = \"chatgpt\"\n{allowed}")).unwrap();
    let health = async || {
        let response = reqwest::get(server.url("/healthz")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, report) = health().await;
    assert!(status == 503 && report.contains("forced_login_method"), "{status} {report}");
    let request = body("gpt-5.5", "hi");
    let response = client.post(server.url("/v1/chat/completions")).json(&request).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(fs::read_to_string(home.join("auth.json")).unwrap().contains("sk-third!"));
    fs::write(home.join("config.toml"), allowed).unwrap();
    assert_eq!(health().await.0, 200);
    assert_eq!(turn().await, "Bearer sk-third!");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(TIMEOUT).await, Some(0));
}
