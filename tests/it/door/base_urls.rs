//! Base URLs that are nearly right get the same answers, and no other access.

use reqwest::{Client, redirect::Policy};
use serde_json::Value;

use crate::{
    both_engines,
    support::{AppConfig, Engine, http::body, with_app},
};

const TOKEN: &str = "correct-horse";

fn client() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

both_engines!(wrong_base_url_gets_the_same_answer);
async fn wrong_base_url_gets_the_same_answer(engine: Engine) {
    with_app(AppConfig::fake(engine).token(TOKEN), async |app| {
        let (client, request) = (client(), body("fake:echo", "the body arrives"));
        for path in [
            "/v1/chat/completions/",
            "//v1/chat/completions",
            "/v1/v1/chat/completions",
            "/chat/completions",
            "/v1//chat/completions",
            "/v1/chat/completions/chat/completions",
        ] {
            let post = client.post(app.url(path)).json(&request);
            let refused = post.try_clone().unwrap().send().await.unwrap();
            assert_eq!(refused.status(), 401, "{path}");
            let response = post.bearer_auth(TOKEN).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let answer: Value = response.json().await.unwrap();
            let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
            assert!(text.contains("the body arrives"), "{path}: {text}");
        }
        for path in ["/models", "/v1/models/", "/v1/v1/models", "//v1//models", "/codex/status"] {
            assert_eq!(client.get(app.url(path)).send().await.unwrap().status(), 401, "{path}");
            let response = client.get(app.url(path)).bearer_auth(TOKEN).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
        }
        for path in ["/health", "/healthz/", "/v1/healthz", "/v1/health"] {
            let health: Value = client.get(app.url(path)).send().await.unwrap().json().await.unwrap();
            assert_eq!(health["ok"], true, "{path}");
        }
        // A method that the route does not support is refused under each of its names.
        assert_eq!(client.get(app.url("/chat/completions/")).send().await.unwrap().status(), 405);
    })
    .await;
}

both_engines!(root_says_what_the_server_is_without_a_secret);
async fn root_says_what_the_server_is_without_a_secret(engine: Engine) {
    with_app(AppConfig::fake(engine).token(TOKEN), async |app| {
        for path in ["/", "/v1", "/v1/"] {
            let response = client().get(app.url(path)).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let text = response.text().await.unwrap();
            let index: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&index["name"], &index["version"]),
                (&"codex-api".into(), &env!("CARGO_PKG_VERSION").into())
            );
            assert!(
                index["endpoints"].as_array().unwrap().contains(&"POST /v1/chat/completions".into()),
                "{index}"
            );
            assert!(!text.contains(TOKEN));
        }
    })
    .await;
}

both_engines!(encoded_path_does_not_bypass_the_token);
async fn encoded_path_does_not_bypass_the_token(engine: Engine) {
    with_app(AppConfig::fake(engine).token(TOKEN), async |app| {
        for path in [
            "/v1/%6dodels",
            "/%76%31/models",
            "/v1%2Fmodels",
            "/v1/chat%2Fcompletions",
            "/healthz/%2e%2e/v1/models",
            "/healthz/..%2Fv1/models",
            "/healthz;/v1/models",
            "/healthz%3f/v1/models",
            "/V1/models",
        ] {
            // The client's own library would resolve some of these paths.
            let mut wire = crate::support::wire::Wire::open(app.address).await;
            wire.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
            let status = wire.response().await.status;
            assert!(matches!(status, 401 | 404), "{path}: {status}");
        }
    })
    .await;
}
