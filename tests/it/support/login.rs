//! Logins of the CLI in a test's home.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Returns the login of an API key.
pub fn key(key: &str) -> Value {
    json!({"auth_mode": "apikey", "OPENAI_API_KEY": key})
}

/// Returns the login of a ChatGPT account whose access token expires in an hour. `version` makes its tokens differ.
pub fn chatgpt(account: &str, version: u32) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    chatgpt_until(account, version, now + Duration::from_secs(3600))
}

/// Returns the login of a ChatGPT account whose access token expires at `expires` since the Unix epoch.
pub fn chatgpt_until(account: &str, version: u32, expires: Duration) -> Value {
    let claims =
        json!({"chatgpt_account_id": account, "chatgpt_user_id": "user-1", "chatgpt_plan_type": "plus"});
    let token = |expires: Duration| {
        let payload = json!({
            "sub": "user-1", "exp": expires.as_secs(), "version": version, "https://api.openai.com/auth": claims,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "none"})), part(&payload))
    };
    json!({
        "auth_mode": "chatgpt",
        "tokens": {
            "id_token": token(expires), "access_token": token(expires),
            "refresh_token": format!("refresh-{version}"), "account_id": account,
        },
        "last_refresh": "2026-01-01T00:00:00Z",
    })
}

/// Writes a login in place.
pub fn write(home: &Path, login: &Value) {
    fs::write(home.join("auth.json"), login.to_string()).unwrap();
}

/// Writes a login to a new file and renames it.
pub fn replace(home: &Path, login: &Value) {
    let new = home.join("auth.json.new");
    fs::write(&new, login.to_string()).unwrap();
    fs::rename(new, home.join("auth.json")).unwrap();
}
