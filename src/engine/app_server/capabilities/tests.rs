use std::time::Instant;

use tokio_util::task::TaskTracker;

use super::{probe_turns::ProbeResult, *};
use crate::{
    config::{Config, Profile, Sources},
    engine::{
        Severity,
        app_server::{
            launch::{
                cli_config, model_catalog,
                seed::{Seed, SeedMeta},
                worker_home::WorkerHome,
            },
            rpc::{
                protocol::{
                    ClientCapabilities, ClientInfo, ContentPart, ForkThread, INITIALIZED, Initialize,
                    InjectItems, RawItem, StartTurn,
                },
                thread_queue,
            },
        },
        cli::probe::{self, major_minor},
        process::{Input, Launcher, SpawnSpec, Started},
    },
};

/// The capabilities of 0.169.
fn all() -> Capabilities {
    Capabilities {
        version: "0.169.0".into(),
        inject_items: true,
        unsubscribe: true,
        ephemeral: true,
        no_environment: true,
        empty_input: true,
        raw_completed: true,
        typed_errors: true,
        dynamic_tools: true,
        output_schema: true,
        models: true,
        forks: ForkSupport::Supported,
    }
}

#[test]
fn required_or_error_with_all_capabilities_has_no_limits() {
    assert_eq!(
        all().required_or_error().unwrap(),
        WorkerFeatures { forks: true, ..WorkerFeatures::default() }
    );
    assert!(all().checks().iter().all(|check| check.severity == Severity::Passed));
}

#[test]
fn required_or_error_of_0_140_names_its_limits() {
    let found =
        Capabilities { version: "0.140.0".into(), raw_completed: false, typed_errors: false, ..all() };
    let features = found.required_or_error().unwrap();
    assert!(features.no_tools.unwrap().contains("0.140.0 does not report the end of a response"));
    assert!(features.no_typed_errors.is_some());
    assert!(features.no_output_schema.is_none() && features.no_models.is_none());
    let checks = Capabilities { raw_completed: false, typed_errors: false, ..all() }.checks();
    assert_eq!(checks.iter().filter(|check| check.severity == Severity::Warning).count(), 2);
    assert!(checks.iter().all(|check| check.severity != Severity::Failed));
}

#[test]
fn required_or_error_without_a_required_capability_fails() {
    let error = Capabilities { no_environment: false, ..all() }.required_or_error().unwrap_err().to_string();
    assert!(error.contains("runs commands in a thread without environment"), "{error}");
    let checks = Capabilities { no_environment: false, ..all() }.checks();
    assert_eq!(checks.iter().filter(|check| check.severity == Severity::Failed).count(), 1);
    for found in [
        Capabilities { inject_items: false, ..all() },
        Capabilities { unsubscribe: false, ..all() },
        Capabilities { ephemeral: false, ..all() },
        Capabilities { empty_input: false, ..all() },
    ] {
        assert!(found.required_or_error().is_err(), "{found:?}");
    }
}

#[test]
fn tool_names_of_tools_and_input_items_returns_all_names() {
    let plain = json!({"tools": [{"type": "function", "name": "a"}, {"type": "web_search"}], "input": []});
    assert_eq!(tool_names(&plain), BTreeSet::from(["a", "web_search"]));
    let item = json!({"type": "additional_tools", "tools": [
        {"type": "namespace", "name": "functions", "tools": [{"type": "function", "name": "b"}]}]});
    assert_eq!(tool_names(&json!({"input": [item]})), BTreeSet::from(["functions", "b"]));
}

#[test]
fn ran_nothing_with_printed_or_missing_outputs_returns_false() {
    let output = |text: &str| json!({"type": "function_call_output", "call_id": "c", "output": text});
    let request =
        |outputs: [Value; 3]| json!({"input": [{"type": "message"}, outputs[0], outputs[1], outputs[2]]});
    let refused = output("unsupported call: echo codex-api-$((20000+2026))");
    assert!(probe_turns::ran_nothing(&request([refused.clone(), refused.clone(), refused.clone()])));
    let ran = json!({"type": "function_call_output", "call_id": "c",
        "output": [{"type": "input_text", "text": "Output:\ncodex-api-22026\n"}]});
    assert!(!probe_turns::ran_nothing(&request([refused.clone(), ran, refused.clone()])));
    // A call without an output may have run.
    assert!(!probe_turns::ran_nothing(&json!({"input": [refused]})));
    assert!(!probe_turns::ran_nothing(&json!({"input": []})));
}

#[test]
fn refuse_directive_has_the_refusal_status_and_not_401() {
    assert!(probe_turns::REFUSE.contains(&format!("\"status\": {}", probe_turns::REFUSAL_STATUS)));
    assert_ne!(probe_turns::REFUSAL_STATUS, 401);
}

/// Probes the real CLIs of `CODEX_BINS` (a list like `PATH`), by default the CLI of `CODEX_BIN`. The capabilities depend on
/// the version.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn probe_all_of_real_versions_matches_their_capabilities() {
    let bins = std::env::var_os("CODEX_BINS").or_else(|| std::env::var_os("CODEX_BIN"));
    let bins = bins.expect("CODEX_BIN is the path of the real CLI");
    for bin in std::env::split_paths(&bins) {
        for profile in [Profile::Agent, Profile::Chat] {
            let started = Instant::now();
            let found = probe_installed(&bin, profile).await;
            eprintln!("{profile:?} in {:?}: {found:?}\n  {:?}", started.elapsed(), found.required_or_error());
            match major_minor(&found.version) {
                (0, 169..) => assert_eq!(found, Capabilities { version: found.version.clone(), ..all() }),
                (0, 140..) => {
                    let features = found.required_or_error().unwrap();
                    assert!(features.no_tools.is_some() && features.no_typed_errors.is_some());
                    assert!(features.no_output_schema.is_none() && features.no_models.is_none());
                }
                _ => {
                    assert!(!found.no_environment);
                    assert!(found.required_or_error().is_err());
                }
            }
        }
    }
}

async fn probe_installed(bin: &Path, profile: Profile) -> Capabilities {
    with_app_server(bin, profile, async |subject| {
        let found = probe_all(subject).await.unwrap();
        assert_eq!(std::fs::read_dir(subject.seeds_dir.unwrap()).unwrap().count(), 0);
        found
    })
    .await
}

/// A fork has an environment by default. In this sandbox the commands of the first turn would run otherwise.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn fork_runs_nothing_after_turn_start_has_closed_its_environment() {
    let bin = std::env::var_os("CODEX_BIN").expect("CODEX_BIN is the path of the real CLI");
    with_app_server(Path::new(&bin), Profile::Agent, async |subject| {
        let ProbeSubject { client, codex, installed, seeds_dir } = subject;
        let upstream = Upstream::start().await.unwrap();
        let turns = ProbeTurns { subject, upstream: &upstream };
        let mut params = turns.thread_params();
        params["sandbox"] = "danger-full-access".into();
        for (environments, runs_nothing) in [(Some([]), true), (None, false)] {
            let (key, cwd) = (uuid::Uuid::now_v7(), &*codex.workspace);
            let meta = SeedMeta { key, cwd, version: &installed.version };
            let seed = Seed::create(seeds_dir.unwrap(), &meta).unwrap();
            let fork = ForkThread { thread_id: seed.thread_id(), path: seed.path(), params: &params };
            let (sender, mut receiver) = thread_queue::pair();
            let id = client.fork_thread(&fork, CALL_TIMEOUT, sender).await.unwrap().thread.id;
            let text = ContentPart::InputText(probe_turns::CALL_COMMANDS.to_owned());
            let items = [RawItem::message("user", vec![text])];
            client.call(&InjectItems { thread_id: &id, items: &items }, CALL_TIMEOUT).await.unwrap();
            let start = StartTurn {
                thread_id: &id,
                input: [],
                environments,
                effort: None,
                summary: None,
                output_schema: None,
            };
            client.call(&start, CALL_TIMEOUT).await.unwrap();
            probe_turns::receive_until_end(&mut receiver, &mut ProbeResult::default()).await;
            let requests = turns.requests_of_thread(&id);
            assert_eq!(probe_turns::ran_nothing(&requests.last().unwrap().body), runs_nothing);
            release(client, &id).await.unwrap();
        }
    })
    .await;
}

/// Runs a scenario with an app-server of this CLI.
async fn with_app_server<T>(
    bin: &Path,
    profile: Profile,
    scenario: impl AsyncFnOnce(ProbeSubject<'_>) -> T,
) -> T {
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
    let supervisor = tests.ancestors().nth(2).unwrap().join("codex-api");
    let launcher = Launcher::new(supervisor, Duration::from_secs(1));
    let installed = probe::run(&codex, &launcher).await.unwrap();
    // 0.110 prints no catalog. The probe must refuse this version nevertheless.
    let printed = model_catalog::print(&codex, &launcher, &installed).await;
    let catalogs = printed.and_then(|printed| model_catalog::write_catalogs(&printed, root.path(), &[]));
    let arguments = match &catalogs {
        Ok(catalogs) => cli_config::arguments(&codex, &installed, catalogs),
        Err(_) => vec!["app-server".into()],
    };
    let home = WorkerHome::create(&codex, &installed).unwrap();
    let seeds_dir = home.seeds_dir().to_owned();
    let spec = SpawnSpec {
        program: installed.program.clone(),
        arguments,
        env: home.env(),
        working_dir: workspace,
        stdin: Input::Open,
        temp_dirs: vec![home.into_dir()],
        shared_dir: None,
        deadline: None,
        output_file: None,
    };
    let Started { stdin, stdout, process } = launcher.start(spec, ()).unwrap();
    let tasks = TaskTracker::new();
    let client =
        RpcClient::start(stdin.unwrap(), stdout, codex.line_limit, std::sync::Arc::default(), &tasks);
    let initialize = Initialize {
        client_info: ClientInfo { name: "t", title: "t", version: "1" },
        capabilities: ClientCapabilities { experimental_api: true, opt_out_notification_methods: &[] },
    };
    client.call(&initialize, CALL_TIMEOUT).await.unwrap();
    client.notify(INITIALIZED).await;
    let subject =
        ProbeSubject { client: &client, codex: &codex, installed: &installed, seeds_dir: Some(&seeds_dir) };
    let outcome = scenario(subject).await;
    client.close();
    drop(process);
    launcher.drain().await;
    tasks.close();
    tasks.wait().await;
    outcome
}
