//! Secrets of the server: the CLI gets only its own keys, commands of the agent get none, and no secret is left on disk.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use codex_api::pb::{chat_event::Event, item::Kind};
use serde_json::Value;
use tonic::Request;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TestApp, UpstreamAs, chat_request, grpc::collect_events, http::body, processes,
        staged::Gate, tls::TlsUpstream, with_app,
    },
};

/// Secrets of an operator's environment, with the values that the tests search for.
const SECRETS: &[(&str, &str)] = &[
    ("CODEX_GATEWAY_TOKEN", "hush-gateway-token"),
    ("CODEX_GATEWAY_TOKNE", "hush-misspelt-token"),
    ("CODEX_API_KEY", "hush-codex-api-key"),
    ("CODEX_ACCESS_TOKEN", "hush-codex-access-token"),
    ("OPENAI_API_KEY", "hush-openai-api-key"),
    ("MOCK_SECRET", "hush-mock-secret"),
    ("DB_PASSWORD", "hush-db-password"),
];

/// The prefix of all secrets.
const HUSH: &str = "hush-";

const TOKEN: &str = SECRETS[0].1;

fn with_token(mut request: Request<codex_api::pb::ChatRequest>) -> Request<codex_api::pb::ChatRequest> {
    request.metadata_mut().insert("x-api-key", TOKEN.parse().unwrap());
    request
}

/// Returns the files below a folder that contain a text. Does not follow links, because the CLI creates links to itself.
fn files_containing(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Files that disappear in the meantime are ignored.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            found.extend(files_containing(&path, text));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len().max(1)).any(|window| window.starts_with(text.as_bytes())) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// Returns every folder that this server or the CLI writes to: the folder of the test and the homes of the processes,
/// which are in memory for workers.
fn writable_folders(app: &TestApp) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::from([app.home.path().to_owned()]);
    for line in app.processes() {
        let pid = line.split(':').next().unwrap().parse().unwrap();
        // A command of the turn may have exited.
        let Ok(env) = processes::environment(pid) else { continue };
        let named = ["CODEX_HOME", "CODEX_SQLITE_HOME", "TMPDIR"].iter().filter_map(|name| env.get(*name));
        found.extend(named.map(|path| PathBuf::from(path.as_str().unwrap())));
        let catalog = line.split("model_catalog_json=\"").nth(1).and_then(|rest| rest.split('"').next());
        found.extend(catalog.map(|path| Path::new(path).parent().unwrap().to_owned()));
    }
    found
}

/// Asserts that no secret is in any of these folders, but for the login of a worker in its home, if the CLI uses the key.
fn assert_no_secret_in(folders: &BTreeSet<PathBuf>, uses_key: bool) {
    for folder in folders {
        let mut found = files_containing(folder, HUSH);
        found.retain(|file| !uses_key || Path::new(file) != folder.join("auth.json"));
        assert_eq!(found, Vec::<String>::new());
    }
}

/// Runs a turn whose command prints its environment under a sandbox, and asserts that no secret is printed or stored.
async fn assert_command_output_has_no_secret(engine: Engine, sandbox: &str, command: &str) {
    let folder = tempfile::tempdir().unwrap();
    let certificates = folder.path().join("own.pem");
    fs::write(&certificates, TlsUpstream::start().await.authority).unwrap();
    let config = AppConfig::real(engine).envs(SECRETS).sandbox(sandbox).env("SSL_CERT_FILE", &certificates);
    // With a login, the CLI uses `CODEX_API_KEY`. The server hides it from the scripted provider.
    let uses_key = config.upstream_as == UpstreamAs::OpenAiLogin;
    with_app(config, async |app| {
        let mut gate = Gate::in_folder(&app.home.path().join("work"));
        let pipe = app.home.path().join("work/gate").display().to_string();
        let arguments = serde_json::json!({"cmd": format!("{command}; read -r _ < {pipe}")});
        let call = serde_json::json!({"calls": [{"name": "exec_command", "arguments": arguments}]});
        let prompt = format!("@@ [{call}, {{\"text\":\"done\"}}] @@");
        let request = with_token(Request::new(chat_request("gpt-5.5", &prompt)));
        let turn = async {
            collect_events(app.grpc().await.stream_chat(request).await.unwrap().into_inner()).await.unwrap()
        };
        // No file on disk or in memory has a secret while the command runs.
        let inspection = async {
            eventually!("the command runs", !processes::with_argument(&pipe).is_empty());
            let folders = writable_folders(app);
            if engine == Engine::AppServer {
                let env = environment(app.workers()[0]);
                assert!(env.contains_key("CODEX_CA_CERTIFICATE"), "{env:?}");
                let home = env["CODEX_HOME"].as_str().unwrap().to_owned();
                assert!(
                    folders.contains(Path::new(&home)) && files_containing(Path::new(&home), "").len() > 3,
                    "{folders:?}"
                );
                assert_eq!(fs::metadata(home).unwrap().permissions().mode() & 0o777, 0o700);
            }
            assert_no_secret_in(&folders, uses_key);
            gate.open();
            folders
        };
        let (events, folders) = tokio::join!(turn, inspection);
        let printed: Vec<String> = events
            .iter()
            .filter_map(|event| match event.event.as_ref()? {
                Event::Item(item) => match item.kind.as_ref()? {
                    Kind::CommandExecution(command) if command.exit_code.is_some() => {
                        Some(command.aggregated_output.clone())
                    }
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(printed.len(), 1, "one command ran: {events:?}");
        assert!(printed[0].contains("PATH="), "the command prints its environment: {}", printed[0]);
        assert!(!printed[0].contains(HUSH), "{}", printed[0]);
        // The CLI has both variables; the server has set the first one.
        for name in ["CODEX_CA_CERTIFICATE", "SSL_CERT_FILE"] {
            assert!(!printed[0].contains(name), "{}", printed[0]);
        }
        // After the turn, no file and no upstream request has a secret.
        assert_no_secret_in(&folders, uses_key);
        let files = fs::read_dir(app.home.path().join("codex-home")).unwrap().count();
        assert!(files > 0, "the inspected folder has the state of the CLI");
        for mut request in app.upstream().requests() {
            let authorization = request.headers.remove("authorization");
            let key = if uses_key { "Bearer hush-codex-api-key" } else { "Bearer scripted" };
            assert_eq!(authorization.as_deref(), Some(key));
            assert!(!format!("{request:?}").contains(HUSH));
        }
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    sandboxed_command_reads_no_secret
);
async fn sandboxed_command_reads_no_secret(engine: Engine) {
    // The command also tries to read the environments of the processes that are visible in the sandbox.
    let environments = r"cat /proc/[0-9]*/environ | tr '\0' '\n'";
    assert_command_output_has_no_secret(engine, "read-only", &format!("env; {environments}")).await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    command_without_a_sandbox_gets_no_secret
);
async fn command_without_a_sandbox_gets_no_secret(engine: Engine) {
    // Only its own environment is tested. Such a command may read everything that the user may, including server memory.
    assert_command_output_has_no_secret(engine, "danger-full-access", "env").await;
}

both_engines!(cli_environment_has_its_own_keys_only);
async fn cli_environment_has_its_own_keys_only(engine: Engine) {
    with_app(AppConfig::fake(engine).envs(SECRETS), async |app| {
        let request = reqwest::Client::new().post(app.url("/v1/chat/completions")).bearer_auth(TOKEN);
        let answer: Value =
            request.json(&body("fake:report", "x")).send().await.unwrap().json().await.unwrap();
        let report = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let report: Value = serde_json::from_str(report).unwrap();
        let env = match engine {
            Engine::Exec => report["env"].as_object().unwrap().clone(),
            Engine::AppServer => environment(app.workers()[0]),
        };
        let has_secret = |name: &str| {
            SECRETS.iter().any(|(n, value)| *n == name && env.get(name) == Some(&Value::from(*value)))
        };
        // The CLI needs the login and the key of the provider.
        for name in ["OPENAI_API_KEY", "MOCK_SECRET"] {
            assert!(has_secret(name), "{name} is missing: {env:?}");
        }
        match engine {
            Engine::Exec => {
                assert!(has_secret("CODEX_API_KEY") && has_secret("CODEX_ACCESS_TOKEN"), "{env:?}");
            }
            // The app-server ignores `CODEX_API_KEY`. The server writes a private login file for the worker instead.
            Engine::AppServer => {
                assert!(!env.contains_key("CODEX_API_KEY"), "{env:?}");
                // An app-server would use the token before the key.
                assert!(!env.contains_key("CODEX_ACCESS_TOKEN"), "{env:?}");
                let login = Path::new(env["CODEX_HOME"].as_str().unwrap()).join("auth.json");
                assert!(fs::read_to_string(&login).unwrap().contains("hush-codex-api-key"));
                assert_eq!(fs::metadata(&login).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let text = report.to_string() + &Value::from(env.clone()).to_string();
        assert!(!text.contains("hush-gateway-token") && !text.contains("hush-misspelt-token"), "{text}");
        assert!(env.keys().all(|name| !name.starts_with("CODEX_GATEWAY_")), "{env:?}");
        assert!(!report["argv"].to_string().contains(HUSH), "{report}");
    })
    .await;
}

/// Returns the environment of a process.
fn environment(pid: u32) -> serde_json::Map<String, Value> {
    processes::environment(pid).unwrap()
}
