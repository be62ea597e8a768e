//! An answer that is not streamed survives a response of the upstream that breaks off after text.

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, WebSocketLimit, chat_request,
        grpc::code_and_reason,
        http::{body, streamed},
        with_app,
    },
};

#[tokio::test]
async fn whole_answer_that_always_breaks_is_asked_again_up_to_the_limit() {
    for retries in [0, 2] {
        with_app(AppConfig::fake(Engine::AppServer).upstream_retries(retries), async |app| {
            let model = "fake:failed-after-text:cut";
            let status = app.grpc_error(chat_request(model, "hi")).await;
            assert_eq!(code_and_reason(&status), (Code::Unavailable, "UPSTREAM_UNAVAILABLE".into()));
            let (status, error) = app.http_error(&body(model, "hi")).await;
            assert_eq!((status, &error["code"]), (503, &json!("upstream_unavailable")));
        })
        .await;
    }
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    whole_answer_whose_response_breaks_off_is_asked_again
);
async fn whole_answer_whose_response_breaks_off_is_asked_again(engine: Engine) {
    let config = AppConfig::real(engine).upstream_retries(2);
    with_app(config.without_websocket(WebSocketLimit::FirstRetryIsSilent), async |app| {
        // The repeated answer is another one.
        // The upstream counts the attempts of each directive.
        let heals = |text: &str| {
            format!(
                r#"@@{{"text":"{text} b c d e f g","cut_after":5,"times":1,"then":{{"text":"healed"}}}}@@"#
            )
        };
        let before = app.last_request_number();
        let answer = app.complete(&body("gpt-5.5", &heals("http"))).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "healed", "{answer}");
        assert_eq!(answer["codex"]["notices"][0]["kind"], "retry", "{answer}");
        assert_eq!(app.model_calls_since(before), 2);
        let before = app.last_request_number();
        assert_eq!(app.chat(chat_request("gpt-5.5", &heals("grpc"))).await, "healed");
        assert_eq!(app.model_calls_since(before), 2);
        if engine == Engine::Exec {
            return;
        }
        // A stream is not asked again, because its client has text.
        let before = app.last_request_number();
        let text = app.post(&streamed(body("gpt-5.5", &heals("stream")))).await.text().await.unwrap();
        let last = text.trim().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
        let error: Value = serde_json::from_str(last).unwrap();
        assert_eq!(error["error"]["code"], "upstream_unavailable", "{text}");
        assert_eq!(app.model_calls_since(before), 1);
    })
    .await;
}
