use std::fs;

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::{
    super::tests::{Home, chatgpt},
    *,
};
use crate::engine::Severity::{self, Failed, Passed, Warning};

const FAR: u64 = 4_000_000_000;

/// Returns name, severity, and finding with remedy of each check.
fn checks(home: &Home) -> Vec<(&'static str, Severity, String)> {
    let checks = examine(&home.codex()).into_iter();
    checks
        .map(|check| (check.name, check.severity, format!("{} -> {}", check.finding, check.remedy)))
        .collect()
}

/// Configuration, login, environment, and the expected checks.
type Row<'a> = (&'a str, Option<Value>, &'a [(&'a str, &'a str)], &'a [(&'a str, Severity, &'a str)]);

#[test]
fn examine_of_each_login_reports_finding_and_remedy() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = || Some(json!({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-file"}));
    let account = |expires, refresh| Some(chatgpt("acc-1", expires, refresh));
    let own = "model_provider = \"p\"\n[model_providers.p]\nname = \"p\"\n";
    let rows: &[Row<'_>] = &[
        ("", key(), &[], &[("login", Passed, "--turn")]),
        ("", None, &[("CODEX_API_KEY", "k")], &[("login", Passed, "by CODEX_API_KEY")]),
        (
            "",
            account(now + 864_100, "r"),
            &[],
            &[("login", Passed, "acc-1, plan plus; the access token is valid for 10 days")],
        ),
        ("", account(now - 60, "r"), &[], &[("login", Passed, "the CLI refreshes it")]),
        ("", account(now + 9000, ""), &[], &[("login", Passed, "valid for 2 h and has no refresh token")]),
        ("", account(now - 60, ""), &[], &[("login", Failed, "codex login")]),
        ("", None, &[], &[("login", Failed, "run `codex login`")]),
        (
            "",
            None,
            &[("OPENAI_API_KEY", "k")],
            &[("login", Failed, "does not read OPENAI_API_KEY -> set CODEX_API_KEY")],
        ),
        (
            "",
            account(FAR, "r"),
            &[("OPENAI_API_KEY", "k")],
            &[("login", Passed, "acc-1"), ("login: OPENAI_API_KEY", Warning, "does not read it")],
        ),
        ("", key(), &[("OPENAI_API_KEY", "k")], &[("login", Passed, "API key")]),
        (
            "",
            None,
            &[("CODEX_API_KEY", "")],
            &[("login", Failed, "not logged in"), ("login: CODEX_API_KEY", Warning, "empty")],
        ),
        (own, None, &[], &[("login", Passed, "by the provider p")]),
        (&format!("{own}requires_openai_auth = true"), None, &[], &[("login", Failed, "not logged in")]),
        ("cli_auth_credentials_store = \"keyring\"", None, &[], &[("login", Failed, "= \"file\"")]),
        ("forced_login_method = \"chatgpt\"", key(), &[], &[("login", Failed, "forced_login_method")]),
        (
            "forced_login_method = \"chatgpt\"",
            None,
            &[("CODEX_API_KEY", "k")],
            &[("login", Failed, "unset CODEX_API_KEY")],
        ),
    ];
    for (config, login, env, expected) in rows {
        let home =
            env.iter().fold(Home::new(config, login.as_ref()), |home, (name, value)| home.env(name, value));
        let found = checks(&home);
        assert_eq!(found.len(), expected.len(), "{config} {env:?}: {found:?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert_eq!((found.0, found.1), (expected.0, expected.1), "{config} {env:?}: {found:?}");
            assert!(found.2.contains(expected.2), "{expected:?}: {found:?}");
        }
    }
}

#[test]
fn file_that_cannot_be_replaced_and_managed_plan_are_warnings() {
    let home = Home::new("", Some(&chatgpt("acc-1", FAR, "r")));
    fs::hard_link(home.file(), home.dir.path().join("hard")).unwrap();
    let found = checks(&home);
    assert_eq!((found.len(), found[1].0, found[1].1), (2, "login: file", Warning), "{found:?}");
    assert!(found[1].2.contains("2 hard links") && found[1].2.contains("mount the folder"), "{found:?}");

    let business = chatgpt("acc-1", FAR, "r").to_string();
    let claims = |plan: &str| {
        let mut login: Value = serde_json::from_str(&business).unwrap();
        let token = login["tokens"]["id_token"].as_str().unwrap().to_owned();
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let decode = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let payload = String::from_utf8(base64::Engine::decode(&decode, &parts[1]).unwrap()).unwrap();
        parts[1] = base64::Engine::encode(&decode, payload.replace("plus", plan));
        login["tokens"]["id_token"] = parts.join(".").into();
        login
    };
    for plan in MANAGED_PLANS {
        let home = Home::new("", Some(&claims(plan)));
        let found = checks(&home);
        assert_eq!((found.len(), found[1].0, found[1].1), (2, "login: plan", Warning), "{found:?}");
        assert!(found[1].2.contains("chatgpt.com"), "{found:?}");
        assert!(needs_bundle(&home.codex()));
        fs::write(home.dir.path().join(BUNDLE_CACHE), "{}").unwrap();
        assert_eq!(checks(&home).len(), 1);
        assert!(!needs_bundle(&home.codex()));
    }
}
