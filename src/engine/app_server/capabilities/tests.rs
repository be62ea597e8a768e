use std::time::Instant;

use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    config::{Config, Profile, Sources},
    engine::{
        Outcome, TurnGuard,
        app_server::{
            launch::{cli_config, model_catalog, worker_home::WorkerHome},
            rpc::protocol::{ClientCapabilities, ClientInfo, INITIALIZED, Initialize},
        },
        cli::{probe, probe::numbers},
        process::{Input, Launcher, SpawnSpec, Started},
    },
};

/// What 0.169 shows.
fn all() -> Capabilities {
    Capabilities {
        version: "0.169.0".into(),
        inject_items: true,
        unsubscribe: true,
        ephemeral: true,
        no_environment: true,
        empty_input: true,
        raw_completed: true,
        typed_401: true,
        dynamic_tools: true,
        output_schema: true,
        models: true,
    }
}

#[test]
fn everything_is_nothing_to_mention() {
    assert_eq!(all().verdict(), Ok(WorkerFeatures::default()));
    assert!(all().checks().iter().all(|check| check.outcome == Outcome::Good));
}

#[test]
fn the_limits_of_0_140_are_named() {
    let found = Capabilities { version: "0.140.0".into(), raw_completed: false, typed_401: false, ..all() };
    let features = found.verdict().unwrap();
    assert!(features.no_tools.unwrap().contains("0.140.0 does not tell when all calls"));
    assert!(features.no_typed_401.is_some());
    assert!(features.no_output_schema.is_none() && features.no_models.is_none());
    let checks = Capabilities { raw_completed: false, typed_401: false, ..all() }.checks();
    assert_eq!(checks.iter().filter(|check| check.outcome == Outcome::Odd).count(), 2);
    assert!(checks.iter().all(|check| check.outcome != Outcome::Bad));
}

#[test]
fn an_app_server_that_runs_commands_unasked_is_never_used() {
    let trouble = Capabilities { no_environment: false, ..all() }.verdict().unwrap_err();
    assert!(trouble.contains("runs commands where it is asked for no environment"), "{trouble}");
    let checks = Capabilities { no_environment: false, ..all() }.checks();
    assert_eq!(checks.iter().filter(|check| check.outcome == Outcome::Bad).count(), 1);
    for found in [
        Capabilities { inject_items: false, ..all() },
        Capabilities { unsubscribe: false, ..all() },
        Capabilities { ephemeral: false, ..all() },
        Capabilities { empty_input: false, ..all() },
    ] {
        assert!(found.verdict().is_err(), "{found:?}");
    }
}

#[test]
fn tools_are_found_wherever_they_are_told_of() {
    let plain = json!({"tools": [{"type": "function", "name": "a"}, {"type": "web_search"}], "input": []});
    assert_eq!(tools(&plain), BTreeSet::from(["a", "web_search"]));
    let item = json!({"type": "additional_tools", "tools": [
        {"type": "namespace", "name": "functions", "tools": [{"type": "function", "name": "b"}]}]});
    assert_eq!(tools(&json!({"input": [item]})), BTreeSet::from(["functions", "b"]));
}

#[test]
fn a_command_that_ran_is_known_by_what_it_printed() {
    let output = |text: &str| json!({"type": "function_call_output", "call_id": "c", "output": text});
    let told =
        |outputs: [Value; 3]| json!({"input": [{"type": "message"}, outputs[0], outputs[1], outputs[2]]});
    let refused = output("unsupported call: echo codex-api-$((20000+2026))");
    assert!(mock_upstream::ran_nothing(&told([refused.clone(), refused.clone(), refused.clone()])));
    let ran = json!({"type": "function_call_output", "call_id": "c",
        "output": [{"type": "input_text", "text": "Output:\ncodex-api-22026\n"}]});
    assert!(!mock_upstream::ran_nothing(&told([refused.clone(), ran, refused.clone()])));
    // What was not told of may have run.
    assert!(!mock_upstream::ran_nothing(&json!({"input": [refused]})));
    assert!(!mock_upstream::ran_nothing(&json!({"input": []})));
}

/// Through real CLIs, each in `CODEX_BINS` (a list like `PATH`); what they must show depends on their version.
#[tokio::test]
#[ignore = "needs CODEX_BINS and target/debug/codex-api"]
async fn real_ones_are_told_apart() {
    let bins = std::env::var_os("CODEX_BINS").unwrap();
    for bin in std::env::split_paths(&bins) {
        for profile in [Profile::Agent, Profile::Chat] {
            let begun = Instant::now();
            let found = examined(&bin, profile).await;
            eprintln!("{profile:?} in {:?}: {found:?}\n  {:?}", begun.elapsed(), found.verdict());
            match numbers(&found.version) {
                (0, 169..) => assert_eq!(found, Capabilities { version: found.version.clone(), ..all() }),
                (0, 140..) => {
                    let features = found.verdict().unwrap();
                    assert!(features.no_tools.is_some() && features.no_typed_401.is_some());
                    assert!(features.no_output_schema.is_none() && features.no_models.is_none());
                }
                _ => {
                    assert!(!found.no_environment);
                    assert!(found.verdict().is_err());
                }
            }
        }
    }
}

async fn examined(bin: &Path, profile: Profile) -> Capabilities {
    let root = tempfile::tempdir().unwrap();
    let (user, workspace) = (root.path().join("user"), root.path().join("workspace"));
    for folder in [&user, &workspace] {
        std::fs::create_dir(folder).unwrap();
    }
    let env = [
        ("CODEX_HOME", user.as_os_str()),
        ("CODEX_BIN", bin.as_os_str()),
        ("CODEX_WORKSPACE", workspace.as_os_str()),
        ("CODEX_PROFILE", profile.as_str().as_ref()),
        ("PATH", "/usr/bin:/bin".as_ref()),
    ];
    let env = env.map(|(name, value): (&str, &std::ffi::OsStr)| (name.into(), value.to_owned())).into();
    let codex = Config::load(Sources { env, ..Sources::default() }).unwrap().codex;
    let tests = std::env::current_exe().unwrap();
    let containment = tests.ancestors().nth(2).unwrap().join("codex-api");
    let launcher = Launcher::new(containment, Duration::from_secs(1));
    let installed = probe::look(&codex, &launcher).await.unwrap();
    // 0.110 prints no catalog; the gate must refuse it all the same.
    let catalogs = model_catalog::write(&codex, &launcher, &installed, root.path(), &[]).await;
    let arguments = match &catalogs {
        Ok(catalogs) => cli_config::arguments(&codex, &installed, catalogs),
        Err(_) => vec!["app-server".into()],
    };
    let home = WorkerHome::make(&codex, &installed).unwrap();
    let launch = SpawnSpec {
        program: installed.program.clone(),
        arguments,
        env: home.env(),
        folder: workspace,
        stdin: Input::Open,
        scratch: vec![home.into_folder()],
        shared: None,
        deadline: None,
        last_words: None,
    };
    let Started { stdin, stdout, process } = launcher.start(launch, TurnGuard::new(())).unwrap();
    let tasks = TaskTracker::new();
    let peer = RpcClient::start(stdin.unwrap(), stdout, codex.line_limit, &tasks);
    let hello = Initialize {
        client_info: ClientInfo { name: "t", title: "t", version: "1" },
        capabilities: ClientCapabilities { experimental_api: true, opt_out_notification_methods: &[] },
    };
    peer.call(&hello, CALL).await.unwrap();
    peer.notify(INITIALIZED).await;
    let found =
        detect(&peer, &codex, &installed).await.unwrap_or_else(|e| panic!("{e}: {}", process.stderr()));
    peer.close();
    drop(process);
    launcher.drain().await;
    tasks.close();
    tasks.wait().await;
    found
}
