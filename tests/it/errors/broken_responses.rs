//! Upstream responses that end before `response.completed`.

use serde_json::Value;

use crate::{
    both_engines,
    support::{AppConfig, Engine, WebSocketLimit, http::body, with_app},
};

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    broken_response_is_retried_until_text_was_delivered
);
async fn broken_response_is_retried_until_text_was_delivered(engine: Engine) {
    with_app(AppConfig::real(engine).upstream_retries(2), async |app| {
        // The response breaks off before its first text: as the first response of a turn, and after one with text and a call.
        let call = r#"{"text":"look.","calls":[{"name":"exec_command","arguments":{"cmd":"true"}}]}"#;
        let healed = r#"{"text":"a b","cut_after":0,"times":1,"then":{"text":"healed"}}"#;
        for (prompt, text) in
            [(format!("@@{healed}@@"), "healed"), (format!("@@[{call},{healed}]@@"), "look.\n\nhealed")]
        {
            let before = app.last_request_number();
            let request = body("gpt-5.5", &prompt);
            let answer = app.complete(&request).await;
            assert_eq!(answer["choices"][0]["message"]["content"], text);
            if !app.is_limited_by(WebSocketLimit::FirstRetryIsSilent) {
                assert_eq!(answer["codex"]["notices"][0]["kind"], "retry", "{answer}");
            }
            let expected = 2 + usize::from(text.starts_with("look"));
            assert_eq!(app.model_calls_since(before), expected, "{prompt}");
        }
        // The response is retried up to the limit, also after text of it, because the client receives the answer as a whole.
        for (cut, attempts) in [(0, 3), (2, 3)] {
            let before = app.last_request_number();
            let (status, error) = app
                .http_error(&body("gpt-5.5", &format!(r#"@@{{"text":"a b c d","cut_after":{cut}}}@@"#)))
                .await;
            assert_eq!((status, &error["code"]), (503, &Value::from("upstream_unavailable")), "{cut}");
            let calls = app.model_calls_since(before);
            if app.is_limited_by(WebSocketLimit::FallbackRepeatsTheRequest) {
                assert!((attempts..=2 * attempts).contains(&calls), "{cut}: {calls} of {attempts}");
            } else {
                assert_eq!(calls, attempts, "{cut}");
            }
        }
    })
    .await;
}
