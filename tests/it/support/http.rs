//! A client of the HTTP door.

use reqwest::Response;
use serde_json::{Value, json};

use super::TestApp;

/// The outcome of a chat completion over any route.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub finish_reason: String,
    /// Prompt, cached, completion and reasoning tokens.
    pub usage: [u64; 4],
}

/// Builds the body of a request with one user message.
pub fn body(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

impl TestApp {
    pub async fn post(&self, body: &Value) -> Response {
        self.post_future(body).await
    }

    /// Builds the request and returns its future for another task.
    pub fn post_future(&self, body: &Value) -> impl Future<Output = Response> + Send + use<> {
        let request = reqwest::Client::new().post(self.url("/v1/chat/completions")).json(body).send();
        async { request.await.unwrap() }
    }

    /// Sends a request that is streamed with notices and returns the whole event stream.
    pub async fn stream_with_notices(&self, body: &Value) -> String {
        let request = reqwest::Client::new().post(self.url("/v1/chat/completions"));
        let request = request.header("x-codex-notices", "1").json(&streamed(body.clone()));
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Sends a request and returns the whole chat completion. Panics if the status is an error.
    pub async fn complete(&self, body: &Value) -> Value {
        let response = self.post(body).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    /// Returns the status and the error object of a failed request.
    pub async fn http_error(&self, body: &Value) -> (u16, Value) {
        let response = self.post(body).await;
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "an error object: {body}");
        (status, body["error"].clone())
    }

    /// Returns the chunks of a streamed completion that ends with `[DONE]`.
    pub async fn stream(&self, body: &Value) -> Vec<Value> {
        let (chunks, done) = self.stream_until_end(body).await;
        assert!(done, "the stream ends with [DONE]: {chunks:?}");
        chunks
    }

    /// Returns all chunks of a stream, and whether `[DONE]` was its last data.
    pub async fn stream_until_end(&self, body: &Value) -> (Vec<Value>, bool) {
        let response = self.post(&streamed(body.clone())).await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        chunks(&text)
    }
}

/// Returns the chunks of an event stream, and whether `[DONE]` was its last data.
pub fn chunks(text: &str) -> (Vec<Value>, bool) {
    let mut frames: Vec<&str> = text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
    let done = frames.pop_if(|last| *last == "[DONE]").is_some();
    (frames.into_iter().map(|frame| serde_json::from_str(frame).unwrap()).collect(), done)
}

/// Returns the notices in an event stream.
pub fn notices(text: &str) -> Vec<Value> {
    let comments = text.split("\n\n").filter_map(|frame| frame.strip_prefix(": notice "));
    comments.map(|notice| serde_json::from_str(notice).unwrap()).collect()
}

/// Returns the request with `stream` and `stream_options.include_usage`.
pub fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// Returns the answer of a whole completion.
pub fn answer_of_completion(completion: &Value) -> Answer {
    let choice = &completion["choices"][0];
    Answer {
        text: choice["message"]["content"].as_str().unwrap_or_default().to_owned(),
        finish_reason: choice["finish_reason"].as_str().unwrap_or_default().to_owned(),
        usage: usage(&completion["usage"]),
    }
}

/// Joins the chunks of a stream and returns the answer.
pub fn answer_of_chunks(chunks: &[Value]) -> Answer {
    let choices = || chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
    let text = choices().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    let reasons: Vec<&str> = choices().filter_map(|choice| choice["finish_reason"].as_str()).collect();
    assert_eq!(reasons.len(), 1, "exactly one finish_reason: {chunks:?}");
    let usage = usage(&chunks.last().unwrap()["usage"]);
    Answer { text, finish_reason: reasons[0].to_owned(), usage }
}

fn usage(usage: &Value) -> [u64; 4] {
    let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    [
        count("/prompt_tokens"),
        count("/prompt_tokens_details/cached_tokens"),
        count("/completion_tokens"),
        count("/completion_tokens_details/reasoning_tokens"),
    ]
}
