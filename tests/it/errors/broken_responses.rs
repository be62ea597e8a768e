//! Responses of the upstream that break off.

use serde_json::Value;

use crate::{
    both_engines,
    support::{AppConfig, Engine, http::body, with_app},
};

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    broken_response_is_retried_until_text_was_delivered
);
async fn broken_response_is_retried_until_text_was_delivered(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(2), async |app| {
        // Before its first word, and as the second one of a turn that has done and said something.
        let call = r#"{"text":"look.","calls":[{"name":"exec_command","arguments":{"cmd":"true"}}]}"#;
        let healed = r#"{"text":"a b","cut_after":0,"times":1,"then":{"text":"healed"}}"#;
        for (prompt, text) in
            [(format!("@@{healed}@@"), "healed"), (format!("@@[{call},{healed}]@@"), "look.\n\nhealed")]
        {
            let before = app.upstream_request_count();
            let request = body("gpt-5.5", &prompt);
            match engine {
                Engine::AppServer => {
                    let answer = app.complete(&request).await;
                    assert_eq!(answer["choices"][0]["message"]["content"], text);
                    assert_eq!(answer["codex"]["notices"][0]["kind"], "retry", "{answer}");
                    let needed = 2 + u64::from(text.starts_with("look"));
                    assert_eq!(app.upstream_request_count() - before, needed, "{prompt}");
                }
                // It tells whole messages, and cannot know what a client has.
                Engine::Exec => {
                    let (status, error) = app.http_error(&request).await;
                    assert_eq!((status, &error["code"]), (502, &Value::from("upstream_unavailable")));
                }
            }
        }
        // As long as it is tried, and not when the client has text of it.
        for (cut, asked) in [(0, if engine == Engine::AppServer { 3 } else { 1 }), (2, 1)] {
            let before = app.upstream_request_count();
            let (status, error) = app
                .http_error(&body("gpt-5.5", &format!(r#"@@{{"text":"a b c d","cut_after":{cut}}}@@"#)))
                .await;
            assert_eq!((status, &error["code"]), (502, &Value::from("upstream_unavailable")), "{cut}");
            assert_eq!(app.upstream_request_count() - before, asked, "{cut}");
        }
    })
    .await;
}
