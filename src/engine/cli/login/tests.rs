use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{file::Irreplaceable, *};
use crate::config::Sources;

/// The tokens of an account that expire at this second.
pub(super) fn chatgpt(account: &str, expires: u64, refresh_token: &str) -> Value {
    let claims = json!({"chatgpt_account_id": account, "chatgpt_user_id": "u", "chatgpt_plan_type": "plus"});
    let payload = json!({"sub": "u", "exp": expires, "https://api.openai.com/auth": claims});
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()));
    json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-01-01T00:00:00Z",
        "tokens": {"id_token": token, "access_token": token, "refresh_token": refresh_token, "account_id": account},
    })
}

/// A home of the CLI with its environment.
pub(super) struct Home {
    pub(super) dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Home {
    pub(super) fn new(config: &str, login: Option<&Value>) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() };
        fs::write(home.dir.path().join("config.toml"), config).unwrap();
        if let Some(login) = login {
            home.log_in(login);
        }
        home
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    /// Replaces `auth.json` by a rename.
    pub(super) fn log_in(&self, login: &Value) {
        let new = self.dir.path().join("new");
        fs::write(&new, login.to_string()).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    pub(super) fn codex(&self) -> Codex {
        let home = [("CODEX_HOME".to_owned(), self.dir.path().to_str().unwrap().to_owned())];
        let env = home.iter().chain(&self.env).map(|(name, value)| (name.into(), value.into())).collect();
        let sources = Sources { env, current_dir: "/work".into(), ..Sources::default() };
        crate::config::Config::load(sources).unwrap().codex
    }

    fn problem(&self) -> Option<LoginError> {
        Login::read(&self.codex()).problem(SystemTime::now())
    }
}

const FAR: u64 = 4_000_000_000;

fn key(key: &str) -> Value {
    json!({"auth_mode": "apikey", "OPENAI_API_KEY": key})
}

#[test]
fn kind_of_each_content_follows_its_mode() {
    let both = {
        let mut both = chatgpt("acc", FAR, "r");
        both["OPENAI_API_KEY"] = "sk-1".into();
        both.as_object_mut().unwrap().remove("auth_mode");
        both
    };
    let name = |content: &str| match kind_of(content.as_bytes()) {
        LoginKind::Key(_) => "key",
        LoginKind::ChatGpt(_) => "chatgpt",
        LoginKind::Missing => "missing",
        LoginKind::Unreadable(_) => "unreadable",
        LoginKind::Other { .. } => "other",
        LoginKind::EnvironmentKey(_) | LoginKind::EnvironmentToken(_) | LoginKind::Keyring => "impossible",
    };
    let rows = [
        (key("sk-1").to_string(), "key"),
        (json!({"OPENAI_API_KEY": "sk-1"}).to_string(), "key"),
        (both.to_string(), "key"),
        (chatgpt("acc", FAR, "r").to_string(), "chatgpt"),
        (json!({"auth_mode": "agentIdentity", "agent_identity": "x"}).to_string(), "other"),
        (key("").to_string(), "missing"),
        (json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-1"}).to_string(), "missing"),
        ("{}".to_owned(), "missing"),
        (String::new(), "unreadable"),
        (r#"{"auth_mode": "chatgpt", "tok"#.to_owned(), "unreadable"),
        (r#"{"OPENAI_API_KEY": 1}"#.to_owned(), "unreadable"),
        ("not JSON".to_owned(), "unreadable"),
    ];
    for (content, expected) in rows {
        assert_eq!(name(&content), expected, "{content}");
    }
}

#[test]
fn unreadable_login_quotes_no_secret() {
    for content in [r#"{"tokens": "sk-secret"}"#, r#"{"OPENAI_API_KEY": ["sk-secret"]}"#, "sk-secret"] {
        let LoginKind::Unreadable(cause) = kind_of(content.as_bytes()) else { panic!("{content}") };
        assert!(!cause.contains("secret"), "{cause}");
    }
    let login = Login::read(&Home::new("", Some(&key("sk-secret"))).codex());
    assert!(!format!("{login:?}").contains("secret"), "{login:?}");
    let login = Login::read(&Home::new("", Some(&chatgpt("acc", FAR, "secret"))).codex());
    assert!(!format!("{login:?}").contains("secret"), "{login:?}");
}

#[test]
fn identity_depends_on_account_and_key_only() {
    let identity = |login: &Value| Login::read(&Home::new("", Some(login)).codex()).identity().unwrap();
    let account = identity(&chatgpt("acc", FAR, "r1"));
    assert_eq!(account, identity(&chatgpt("acc", FAR + 1, "r2")), "refreshed tokens");
    assert_ne!(account, identity(&chatgpt("other", FAR, "r1")));
    assert_ne!(account, identity(&key("acc")));
    assert_ne!(identity(&key("sk-1")), identity(&key("sk-2")));
    assert_eq!(identity(&key("sk-1")), identity(&json!({"OPENAI_API_KEY": "sk-1"})));
    let env = |login: Option<&Value>| {
        Login::read(&Home::new("", login).env("CODEX_API_KEY", " sk-1\n").codex()).identity()
    };
    assert_eq!(env(None), Some(identity(&key("sk-1"))));
    assert_eq!(env(Some(&key("sk-2"))), env(None), "the variable has precedence");
}

/// Configuration, login, environment, and a part of the problem. Empty if there is none.
type Row<'a> = (&'a str, Option<Value>, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn problem_of_each_login_names_the_cause() {
    let own = "model_provider = \"p\"\n[model_providers.p]\nname = \"p\"\n";
    let own_with_login = &format!("{own}requires_openai_auth = true\n");
    let own_with_key = &format!("{own_with_login}experimental_bearer_token = \"t\"\n");
    let account = || Some(chatgpt("acc", FAR, "r"));
    let sk = || Some(key("sk-1"));
    let none: &[(&str, &str)] = &[];
    let env_key: &[(&str, &str)] = &[("CODEX_API_KEY", "sk-env")];
    let bus: &[(&str, &str)] = &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x")];
    let forced_chatgpt = "forced_login_method = \"chatgpt\"";
    let forced_api = "forced_login_method = \"api\"";
    let forced_id = "forced_chatgpt_workspace_id = \"acc\"";
    let forced_ids = "forced_chatgpt_workspace_id = [\"x\", \"acc\"]";
    let other_id = "forced_chatgpt_workspace_id = \"other\"";
    let keyring = "cli_auth_credentials_store = \"keyring\"";
    let auto = "cli_auth_credentials_store = \"auto\"";
    let rows: &[Row<'_>] = &[
        ("", sk(), none, ""),
        ("", account(), none, ""),
        ("", None, env_key, ""),
        ("", None, &[("CODEX_ACCESS_TOKEN", "t")], ""),
        ("", None, none, "not logged in"),
        ("", None, &[("CODEX_API_KEY", " ")], "not logged in"),
        ("", None, &[("OPENAI_API_KEY", "sk-1")], "not logged in"),
        ("", Some(chatgpt("acc", 1, "r")), none, ""),
        ("", Some(chatgpt("acc", 1, "")), none, "expired"),
        ("", Some(json!({"tokens": 1})), none, "cannot be read"),
        ("model_provider = \"openai\"", None, none, "not logged in"),
        ("model_provider = \"ollama\"", None, none, ""),
        ("profile = \"p\"", None, none, ""),
        (own, None, none, ""),
        (own_with_login, None, none, "not logged in"),
        (own_with_login, sk(), none, ""),
        (own_with_key, None, none, ""),
        (forced_chatgpt, account(), none, ""),
        (forced_chatgpt, sk(), none, "forced_login_method"),
        (forced_chatgpt, account(), env_key, "forced_login_method"),
        (forced_chatgpt, None, env_key, "forced_login_method"),
        (&format!("{forced_chatgpt}\n{own}"), sk(), none, "forced_login_method"),
        (forced_api, account(), none, "forced_login_method"),
        (forced_api, account(), env_key, ""),
        (forced_id, account(), none, ""),
        (forced_ids, account(), none, ""),
        (other_id, account(), none, "the login has another workspace"),
        (other_id, sk(), none, ""),
        (keyring, None, none, "keyring"),
        (keyring, sk(), none, "keyring"),
        (keyring, None, env_key, ""),
        (keyring, None, &[("CODEX_ENGINE", "exec")], ""),
        (keyring, None, &[("CODEX_ENGINE", "exec"), ("CODEX_CLI_HOME", "/nowhere")], "not logged in"),
        (auto, sk(), bus, ""),
        (auto, None, bus, "auto"),
        (auto, None, &[bus[0], ("CODEX_ENGINE", "exec")], ""),
        ("cli_auth_credentials_store = \"ephemeral\"", None, none, "ephemeral"),
    ];
    for (config, login, env, expected) in rows {
        let home =
            env.iter().fold(Home::new(config, login.as_ref()), |home, (name, value)| home.env(name, value));
        let found = home.problem().map(|error| error.with_remedy()).unwrap_or_default();
        let matches = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
        assert!(matches, "{config} {env:?} expects {expected:?}: {found:?}");
    }
}

#[test]
fn check_of_an_expired_login_that_cannot_be_saved_fails() {
    let check_login = |expires: u64, is_linked: bool| {
        let home = Home::new("", Some(&chatgpt("acc", expires, "r")));
        if is_linked {
            fs::hard_link(home.file(), home.dir.path().join("hard")).unwrap();
        }
        check(&home.codex())
    };
    assert_eq!(check_login(1, true), Err(LoginError::CannotSave));
    assert_eq!(check_login(1, false), Ok(()), "the CLI refreshes the login");
    assert_eq!(check_login(FAR, true), Ok(()), "the doctor warns");
    assert!(LoginError::CannotSave.endangers_login());
}

#[test]
fn irreplaceable_file_is_found_behind_links() {
    let home = Home::new("", Some(&chatgpt("acc", FAR, "r")));
    let folder = home.dir.path().canonicalize().unwrap();
    let (file, link) = (folder.join("auth.json"), folder.join("link"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(file::irreplaceable(&link, ""), None);
    let mounts = format!("1 2 8:1 /x {} rw - ext4 /dev/x rw\n", file.display());
    assert_eq!(file::irreplaceable(&link, &mounts), Some(Irreplaceable::MountPoint(file.clone())));
    fs::hard_link(&file, folder.join("hard")).unwrap();
    let expected = Irreplaceable::HardLinks { file: file.clone(), count: 2 };
    assert_eq!(file::irreplaceable(&link, ""), Some(expected));
    fs::remove_file(folder.join("hard")).unwrap();
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&file, permissions).unwrap();
    assert_eq!(file::irreplaceable(&link, ""), Some(Irreplaceable::ReadOnly(file)));
}
