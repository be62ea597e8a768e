use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    config::{Config, ScriptedUpstream, Sources},
    engine::{Image, ImageKind, Message, Part, ResponseSchema, Role},
};

fn codex(env: &[(&str, &str)]) -> Codex {
    // The other tests have no file that depends on the certificates of the machine.
    let default = [("CODEX_FAST_TLS_ROOTS", "0")];
    let env = default.iter().chain(env).map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let sources = Sources { env, current_dir: "/work".into(), ..Sources::default() };
    Config::load(sources).unwrap().codex
}

fn turn() -> Turn {
    let message = Message {
        role: Role::User,
        name: None,
        parts: vec![Part::Text("-hi".into())],
        tool_calls: vec![],
        tool_call_id: None,
    };
    Turn {
        model: "-m".into(),
        messages: vec![message],
        reasoning_effort: "high".into(),
        reasoning_summary: "concise".into(),
        ..Turn::default()
    }
}

fn installed() -> CliInfo {
    CliInfo {
        program: "/bin/codex".into(),
        version: "0.169.0".into(),
        features: [("plugins".to_owned(), true), ("shell_snapshot".to_owned(), true)].into(),
        ..CliInfo::default()
    }
}

/// Returns all arguments except for the path of the last message, which differs in each run.
fn arguments(spec: &SpawnSpec) -> Vec<String> {
    let all = spec.arguments.iter().map(|a| a.to_string_lossy().into_owned());
    all.filter(|a| !a.starts_with("--output-last-message=")).collect()
}

#[test]
fn build_with_defaults_returns_the_minimal_command() {
    let spec = build(&turn(), &codex(&[]), &installed(), &TurnOptions::default()).unwrap().spec;
    let expected = [
        "-a",
        "never",
        "exec",
        "--json",
        "--ephemeral",
        "--skip-git-repo-check",
        "--sandbox",
        "read-only",
        "--model=-m",
        "--cd=/work",
        "-c",
        "model_reasoning_effort=\"high\"",
        "-c",
        "model_reasoning_summary=\"concise\"",
        "-c",
        "web_search=\"disabled\"",
        "-c",
        "shell_environment_policy.inherit=\"core\"",
        "-c",
        "features.shell_snapshot=false",
        "-c",
        "features.plugins=false",
        "-c",
        "analytics.enabled=false",
        "-c",
        "model_providers.codex-api-openai.name=\"OpenAI\"",
        "-c",
        "model_providers.codex-api-openai.wire_api=\"responses\"",
        "-c",
        "model_providers.codex-api-openai.requires_openai_auth=true",
        "-c",
        "model_providers.codex-api-openai.http_headers={ version = \"0.169.0\" }",
        "-c",
        "model_providers.codex-api-openai.env_http_headers={ OpenAI-Organization = \"OPENAI_ORGANIZATION\", OpenAI-Project = \"OPENAI_PROJECT\" }",
        "-c",
        "model_providers.codex-api-openai.request_max_retries=0",
        "-c",
        "model_providers.codex-api-openai.stream_max_retries=2",
        "-c",
        "model_provider=\"codex-api-openai\"",
        "-",
    ];
    assert_eq!(arguments(&spec), expected);
    assert!(matches!(&spec.stdin, Input::Text(text) if text == b"USER: -hi"));
    let last = spec.arguments.iter().any(|a| a.to_string_lossy().starts_with("--output-last-message="));
    assert!(last && spec.output_file.is_some());
}

#[test]
fn build_with_settings_adds_their_arguments() {
    let codex = codex(&[
        ("CODEX_ADD_DIRS", "/a, b"),
        ("CODEX_SKIP_GIT_REPO_CHECK", "0"),
        ("CODEX_CLI_HOME", "/home/minimal"),
        ("CODEX_HOME", "/elsewhere"),
        ("CODEX_GATEWAY_TOKEN", "secret"),
    ]);
    let turn =
        Turn { sandbox: Sandbox::WorkspaceWrite, web_search: true, verbosity: Some("low".into()), ..turn() };
    let spec = build(&turn, &codex, &installed(), &TurnOptions::default()).unwrap().spec;
    let arguments = arguments(&spec);
    for wanted in ["--add-dir=/a", "--add-dir=/work/b", "web_search=\"live\"", "model_verbosity=\"low\""] {
        assert!(arguments.iter().any(|a| a == wanted), "{wanted}");
    }
    assert!(!arguments.iter().any(|a| a == "--skip-git-repo-check"));
    let env: BTreeMap<_, _> =
        spec.env.iter().map(|(k, v)| (k.to_string_lossy(), v.to_string_lossy())).collect();
    let tmpdir = spec.temp_dirs[1].path().to_string_lossy().into_owned();
    assert_eq!(
        env,
        BTreeMap::from([("HOME".into(), "/home/minimal".into()), ("TMPDIR".into(), tmpdir.into())])
    );
}

#[test]
fn build_with_schema_and_image_writes_them_to_a_private_folder() {
    let mut turn = turn();
    turn.format = Format::JsonSchema(Arc::new(ResponseSchema {
        text: r#"{"type":"object"}"#.into(),
        value: serde_json::json!({"type": "object"}),
        strict: true,
    }));
    let image = Image { data: bytes::Bytes::from_static(b"bytes"), kind: ImageKind::Webp };
    turn.messages[0].parts.push(Part::Image(image));
    let spec = build(&turn, &codex(&[]), &installed(), &TurnOptions::default()).unwrap().spec;
    let folder = spec.output_file.as_ref().unwrap().parent().unwrap().to_owned();
    assert_eq!(folder.parent().unwrap(), spec.temp_dirs[0].path());
    let schema = format!("--output-schema={}/schema.json", folder.display());
    let image = format!("--image={}/image-1.webp", folder.display());
    let arguments = arguments(&spec);
    let at = arguments.iter().position(|a| *a == schema).unwrap();
    assert_eq!(arguments[at..at + 3], [schema, image, "-c".to_owned()]);
    assert_eq!(fs::read(folder.join("image-1.webp")).unwrap(), b"bytes");
    drop(spec);
    assert!(!folder.exists());
}

#[test]
fn build_with_a_custom_provider_limits_its_retries() {
    let home = tempfile::tempdir().unwrap();
    let config = "model_provider = \"mock\"\n[model_providers.mock]\nname = \"m\"\n";
    fs::write(home.path().join("config.toml"), config).unwrap();
    let mut codex = codex(&[("CODEX_HOME", home.path().to_str().unwrap()), ("CODEX_UPSTREAM_RETRIES", "4")]);
    let args = arguments(&build(&turn(), &codex, &installed(), &TurnOptions::default()).unwrap().spec);
    assert!(args.iter().any(|a| a == "model_providers.mock.request_max_retries=0"));
    assert!(args.iter().any(|a| a == "model_providers.mock.stream_max_retries=4"));

    fs::write(home.path().join("config.toml"), "model_provider = \"openai\"\n").unwrap();
    let args = arguments(&build(&turn(), &codex, &installed(), &TurnOptions::default()).unwrap().spec);
    assert!(args.iter().any(|a| a == "model_provider=\"codex-api-openai\""));
    assert!(!args.iter().any(|a| a.starts_with("model_providers.mock")));

    let upstream = ScriptedUpstream { base_url: "http://127.0.0.1:1/v1".into(), codex_home: "/demo".into() };
    codex.scripted_upstream = Some(upstream);
    let spec = build(&turn(), &codex, &installed(), &TurnOptions::default()).unwrap().spec;
    assert!(arguments(&spec).iter().any(|a| a == "model_provider=\"codex-api-scripted\""));
    assert_eq!(spec.env.get(&OsString::from("CODEX_HOME")), Some(&OsString::from("/demo")));

    let options = TurnOptions { websocket_provider: Some("websocket"), catalog: Some("{}".into()) };
    let spec = build(&turn(), &codex, &installed(), &options).unwrap().spec;
    let catalog =
        arguments(&spec).iter().find_map(|a| a.strip_prefix("model_catalog_json=\"").map(str::to_owned));
    assert_eq!(fs::read_to_string(catalog.unwrap().trim_end_matches('"')).unwrap(), "{}");
    let providers: Vec<_> =
        arguments(&spec).into_iter().filter(|argument| argument.starts_with("model_provider=")).collect();
    let last = providers.last().unwrap();
    assert_eq!(last, "model_provider=\"websocket\"", "the last value of a key is valid");
}

#[test]
fn prepare_home_twice_keeps_the_users_changes() {
    let root = tempfile::tempdir().unwrap();
    let user = root.path().join("user/.codex");
    fs::create_dir_all(&user).unwrap();
    fs::write(user.join("auth.json"), "{}").unwrap();
    let home = root.path().join("minimal");
    let codex = codex(&[
        ("HOME", root.path().join("user").to_str().unwrap()),
        ("CODEX_CLI_HOME", home.to_str().unwrap()),
    ]);
    environment::prepare(&codex).unwrap();
    assert_eq!(fs::read_link(home.join(".codex/auth.json")).unwrap(), user.join("auth.json"));
    fs::write(home.join(".codex/config.toml"), "model = \"mine\"\n").unwrap();
    environment::prepare(&codex).unwrap();
    assert_eq!(fs::read_to_string(home.join(".codex/config.toml")).unwrap(), "model = \"mine\"\n");
}

#[test]
fn build_without_the_apps_setting_disables_apps() {
    let installed = CliInfo { features: [("apps".to_owned(), true)].into(), ..installed() };
    let is_disabled = |env: &[(&str, &str)]| {
        let spec = build(&turn(), &codex(env), &installed, &TurnOptions::default()).unwrap().spec;
        arguments(&spec).iter().any(|argument| argument == "features.apps=false")
    };
    assert!(is_disabled(&[]));
    assert!(!is_disabled(&[("CODEX_ENABLE_APPS", "1")]));
}

#[test]
fn build_with_trusted_certificates_of_the_operator_has_one_beside_them() {
    let root = tempfile::tempdir().unwrap();
    let bundle = root.path().join("own.pem");
    let first = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    fs::write(&bundle, format!("{first}{}", first.replace("MAA=", "MAEA"))).unwrap();
    let codex = codex(&[("CODEX_FAST_TLS_ROOTS", "1"), ("SSL_CERT_FILE", bundle.to_str().unwrap())]);
    let command = build(&turn(), &codex, &installed(), &TurnOptions::default()).unwrap();
    let env = &command.spec.env;
    assert_eq!(env.get(&OsString::from("SSL_CERT_FILE")), Some(&bundle.into()));
    let own = PathBuf::from(&env[&OsString::from("CODEX_CA_CERTIFICATE")]);
    assert!(own.starts_with(command.spec.temp_dirs[0].path()));
    assert_eq!(fs::read_to_string(&own).unwrap(), first);
    assert!(!command.inputs.contains(&own), "the process reads the file for each model call");
}
