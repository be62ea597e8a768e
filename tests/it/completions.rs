//! `POST /v1/completions` over both engines.

use serde_json::{Value, json};

use crate::{
    both_engines, eventually,
    support::{AppConfig, Engine, TestApp, with_app},
};

async fn post(app: &TestApp, body: &Value) -> reqwest::Response {
    reqwest::Client::new().post(app.url("/v1/completions")).json(body).send().await.unwrap()
}

both_engines!(completion_is_the_same_whole_and_streamed);
async fn completion_is_the_same_whole_and_streamed(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let mut body = json!({"model": "fake:text:40", "prompt": "Once upon a time", "n": 2});
        let whole: Value = post(app, &body).await.json().await.unwrap();
        body["stream"] = true.into();
        let streamed = post(app, &body).await.text().await.unwrap();
        let (chunks, done) = crate::support::http::chunks(&streamed);
        assert!(done, "{streamed}");
        for index in 0..2 {
            let of_choice =
                chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
            let text: String = of_choice.clone().filter_map(|choice| choice["text"].as_str()).collect();
            let choice = &whole["choices"][index];
            assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(text), &json!("stop")));
            assert!(!text.is_empty());
            assert_eq!(of_choice.filter(|choice| choice["finish_reason"] == "stop").count(), 1);
        }
        assert!(whole["id"].as_str().unwrap().starts_with("cmpl-"), "{whole}");
        assert!(whole["usage"]["total_tokens"].as_u64().unwrap() > 0, "{whole}");
    })
    .await;
}

both_engines!(completion_is_cut_and_fails_as_a_chat_does);
async fn completion_is_cut_and_fails_as_a_chat_does(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let cut: Value = post(app, &json!({"model": "fake:text:2000", "prompt": "x", "max_tokens": 5}))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
        let failed = post(app, &json!({"model": "fake:failed:400", "prompt": "x", "stream": true})).await;
        assert_eq!(failed.status(), 400);
        let call = tokio::spawn({
            let body = json!({"model": "fake:hang", "prompt": "x"});
            reqwest::Client::new().post(app.url("/v1/completions")).json(&body).send()
        });
        eventually!("the turn runs", app.status().await.running_turns == 1);
        call.abort();
        eventually!("the turn ends", app.status().await.running_turns == 0);
    })
    .await;
}
