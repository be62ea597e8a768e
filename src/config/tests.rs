use super::*;

fn load(env: &[(&str, &str)], dotenv: &str, flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(Sources {
        flags: flags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        env: env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        dotenv: (!dotenv.is_empty()).then(|| dotenv.to_owned()),
        dotenv_file: None,
        current_dir: "/here".into(),
    })
}

#[test]
fn load_without_sources_returns_the_defaults() {
    let config = load(&[], "", &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.models.default, "gpt-5-codex");
    assert!(config.models.advertised.is_empty());
    assert_eq!(config.models.reasoning_effort, "high");
    assert_eq!(config.codex.sandbox, Sandbox::ReadOnly);
    assert_eq!(config.codex.approval_policy, "never");
    assert_eq!(config.codex.workspace, PathBuf::from("/here"));
    assert!(config.codex.skip_git_repo_check);
    assert!(!config.codex.search);
    assert_eq!(config.codex.line_limit, 8_388_608);
    assert_eq!(config.limits.timeout, Duration::from_secs(600));
    assert_eq!(config.limits.max_concurrency, None);
    assert_eq!(config.limits.max_prompt_chars, 200_000);
    assert_eq!(config.log.max_chars, 4000);
    assert!(config.server.token.is_none());
    assert_eq!(config.codex.profile, Profile::Agent);
    assert!((2..=8).contains(&config.codex.workers.count));
}

#[test]
fn load_with_all_sources_prefers_flags_then_environment() {
    let env = [("CODEX_MODEL", "env"), ("CODEX_GATEWAY_PORT", "1")];
    let file = "CODEX_MODEL=file\nCODEX_GATEWAY_PORT=2\nCODEX_MAX_QUEUE=7\n";
    let config = load(&env, file, &[("CODEX_MODEL", "flag")]).unwrap();
    assert_eq!(config.models.default, "flag");
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.limits.max_queue, 7);
}

#[test]
fn load_with_several_errors_reports_all() {
    let env = [
        ("CODEX_GATEWAY_PORT", "eighty"),
        ("CODEX_SANDBOX", "none"),
        ("CODEX_MODEL_ALIASES", "[1]"),
        ("CODEX_ENABLE_SEARCH", "maybe"),
        ("CODEX_PROFILE", "robot"),
        ("CODEX_GATEWAY_HOST", "0.0.0.0"),
    ];
    let ConfigError(errors) = load(&env, "", &[]).unwrap_err();
    for name in [
        "CODEX_GATEWAY_PORT",
        "CODEX_SANDBOX",
        "CODEX_MODEL_ALIASES",
        "CODEX_ENABLE_SEARCH",
        "CODEX_PROFILE",
        "CODEX_GATEWAY_TOKEN",
    ] {
        assert!(errors.iter().any(|m| m.starts_with(name)), "{name} in {errors:?}");
    }
    assert_eq!(errors.len(), 6);
}

#[test]
fn load_with_contradicting_settings_fails() {
    let chat = ("CODEX_PROFILE", "chat");
    let ConfigError(errors) = load(&[chat, ("CODEX_ENGINE", "exec")], "", &[]).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("CODEX_PROFILE: ") && errors[0].contains("CODEX_ENGINE=exec"));
    for engine in ["auto", "app-server"] {
        assert_eq!(load(&[chat, ("CODEX_ENGINE", engine)], "", &[]).unwrap().codex.profile, Profile::Chat);
    }
}

#[test]
fn load_with_log_filters_checks_their_levels() {
    for fine in ["info", "WARN", "off", "debug,hyper=warn", "codex_api=trace, error", "[span]=info", ""] {
        assert!(load(&[("CODEX_LOG", fine)], "", &[]).is_ok(), "{fine}");
    }
    assert_eq!(load(&[("CODEX_LOG", "h2=debug")], "", &[]).unwrap().log.filter, "info,h2=debug");
    for bad in ["zork", "info,zork", "codex_api", "verbose", "codex-api=debug", "info,codex-api::http=trace"]
    {
        let ConfigError(errors) = load(&[("CODEX_LOG", bad)], "", &[]).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with("CODEX_LOG: "), "{errors:?}");
    }
}

#[test]
fn load_with_secrets_keeps_them_from_debug_output_and_child() {
    let env = [
        ("CODEX_GATEWAY_TOKEN", "swordfish"),
        ("CODEX_GATEWAY_TOKNE", "swordfish"),
        ("CODEX_MODEL", "m"),
        ("CODEX_HOME", "/c"),
        ("PATH", "/bin"),
    ];
    let config = load(&env, "OPENAI_API_KEY=k", &[]).unwrap();
    assert!(!format!("{config:?}").contains("swordfish"));
    let names: Vec<_> = config.codex.env.keys().map(|k| k.to_string_lossy()).collect();
    assert_eq!(names, ["CODEX_HOME", "OPENAI_API_KEY", "PATH"]);
    assert_eq!(config.warnings, ["CODEX_GATEWAY_TOKNE is not a setting; did you mean CODEX_GATEWAY_TOKEN?"]);
}

#[test]
fn load_alias_with_a_profile_that_the_server_lacks_is_refused() {
    let aliases = |target: &str| format!(r#"{{"fast":"{target}"}}"#);
    for (target, setting, allowed) in [
        ("m:chat", ("CODEX_ENGINE", "exec"), false),
        ("m:agent", ("CODEX_ENGINE", "exec"), true),
        ("m:agent", ("CODEX_PROFILE", "chat"), false),
        ("m:chat", ("CODEX_PROFILE", "chat"), true),
        ("m:chat", ("CODEX_ENGINE", "auto"), true),
    ] {
        let result = load(&[("CODEX_MODEL_ALIASES", &aliases(target)), setting], "", &[]);
        match result {
            Ok(config) => assert!(allowed && config.models.aliases["fast"] == "m", "{target} {setting:?}"),
            Err(error) => {
                assert!(!allowed, "{target} {setting:?}: {error}");
                assert!(error.to_string().starts_with("CODEX_MODEL_ALIASES: the suffix :"), "{error}");
            }
        }
    }
    let models = load(&[("CODEX_MODEL_ALIASES", &aliases("a:b:chat"))], "", &[]).unwrap().models;
    assert_eq!((&*models.aliases["fast"], models.alias_profiles["fast"]), ("a:b", Profile::Chat));
}

#[test]
fn load_with_variables_of_codex_passes_them_on_without_a_warning() {
    // The last names are not known here.
    let foreign = settings::CLI_VARIABLES.iter().copied().chain([
        "CODEX_CI",
        "CODEX_BAR",
        "CODEX_LGO",
        "CODEX_WORKER",
        "CODEX_NETWORK_PROXY_ACTIVE",
    ]);
    for name in foreign {
        let config = load(&[(name, " kept ")], "", &[]).unwrap();
        assert_eq!(config.codex.env.get(&OsString::from(name)), Some(&" kept ".into()), "{name}");
        if settings::CLI_VARIABLES.contains(&name) || name == "CODEX_CI" || name == "CODEX_BAR" {
            assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
        }
    }
}

#[test]
fn load_inside_the_sandbox_of_codex_ignores_its_mark() {
    let config =
        load(&[("CODEX_SANDBOX", "seatbelt"), ("CODEX_SANDBOX_NETWORK_DISABLED", "1")], "", &[]).unwrap();
    assert_eq!(config.codex.sandbox, Sandbox::ReadOnly);
    assert!(config.codex.env.contains_key(&OsString::from("CODEX_SANDBOX_NETWORK_DISABLED")));
    assert!(load(&[("CODEX_SANDBOX", "none")], "", &[]).is_err());
}

#[test]
fn load_with_a_misspelt_token_keeps_it_from_the_cli() {
    for name in ["CODEX_GATEWAY_TOKNE", "CODEX_GATEWY_TOKEN", "CODEX_GATEWAY_TOKENS", "CODEX_GATEWAY_SECRET"]
    {
        let config = load(&[(name, "secret")], "", &[]).unwrap();
        assert!(!config.codex.env.contains_key(&OsString::from(name)), "{name}");
    }
}
