//! A client that sends the requests of conversations over any route, and reports failures instead of a panic.

use codex_api::pb::{self, ThreadOrigin, chat_event::Event, codex_service_client::CodexServiceClient};
use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    support::{
        TestApp,
        grpc::code_and_reason,
        http::{chunks, streamed},
    },
    tools::{
        contract::contract,
        routes::{
            Outcome, Route, outcome_of_chunks, outcome_of_completion, outcome_of_events, outcome_of_response,
        },
    },
};

/// A client of one server, with its connections.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    http: reqwest::Client,
    grpc: CodexServiceClient<Channel>,
}

/// What a client learns of a request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The answer, or the stable part of the error.
    pub outcome: Result<Outcome, String>,
    /// The thread of the turn: `continued`, `fresh`, or empty after a failure.
    pub thread: String,
}

impl Reply {
    /// Returns the answer. Panics if the request failed.
    pub fn answer(&self) -> &Outcome {
        self.outcome.as_ref().unwrap_or_else(|error| panic!("the request failed: {error}"))
    }

    /// Returns `true` if the turn ran on the thread of the conversation's former turn.
    pub fn is_continued(&self) -> bool {
        self.thread == "continued"
    }
}

impl Client {
    pub async fn new(app: &TestApp) -> Self {
        Self { url: app.url("/v1/chat/completions"), http: reqwest::Client::new(), grpc: app.grpc().await }
    }

    /// Sends a request.
    pub async fn send(&self, route: Route, body: &Value) -> Reply {
        match route {
            Route::Unary => self.unary(body).await,
            Route::Stream => self.stream(body).await,
            Route::Http => self.whole(body).await,
            Route::Sse => self.events(body).await,
        }
    }

    /// Sends a request of the contract. Panics if it fails.
    pub async fn chat(&self, request: &pb::ChatRequest) -> pb::ChatResponse {
        self.grpc.clone().chat(request.clone()).await.unwrap().into_inner()
    }

    /// Sends a streamed request and leaves after the first bytes.
    pub async fn leave(&self, body: &Value) {
        let mut response = self.post(&streamed(body.clone())).await;
        drop(response.chunk().await);
    }

    async fn post(&self, body: &Value) -> reqwest::Response {
        self.http.post(&self.url).json(body).send().await.unwrap()
    }

    async fn unary(&self, body: &Value) -> Reply {
        match self.grpc.clone().chat(contract(body)).await {
            Ok(response) => {
                let response = response.into_inner();
                let thread = name_of(response.thread());
                Reply { outcome: Ok(outcome_of_response(&response)), thread }
            }
            Err(status) => failed(&status),
        }
    }

    async fn stream(&self, body: &Value) -> Reply {
        let mut stream = match self.grpc.clone().stream_chat(contract(body)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return failed(&status),
        };
        let (mut events, mut thread) = (Vec::new(), String::new());
        loop {
            match stream.message().await {
                Ok(Some(event)) => {
                    if let Some(Event::Started(started)) = &event.event {
                        thread = name_of(started.thread());
                    }
                    events.push(event);
                }
                Ok(None) => return Reply { outcome: Ok(outcome_of_events(&events)), thread },
                Err(status) => return failed(&status),
            }
        }
    }

    async fn whole(&self, body: &Value) -> Reply {
        let response = self.post(body).await;
        let (status, thread) = (response.status(), thread_of(&response));
        let body: Value = response.json().await.unwrap();
        let outcome = if status.is_success() {
            Ok(outcome_of_completion(&body))
        } else {
            Err(format!("{} {}", status.as_u16(), body["error"]["code"]))
        };
        Reply { outcome, thread }
    }

    async fn events(&self, body: &Value) -> Reply {
        let response = self.post(&streamed(body.clone())).await;
        let (status, thread) = (response.status(), thread_of(&response));
        let text = response.text().await.unwrap();
        if !status.is_success() {
            let body: Value = serde_json::from_str(&text).unwrap();
            return Reply { outcome: Err(body["error"]["code"].to_string()), thread };
        }
        let (chunks, is_done) = chunks(&text);
        let error = chunks.iter().find(|chunk| chunk["error"].is_object());
        let outcome = match error {
            // Whether the head was sent before the failure is a matter of time.
            Some(chunk) => Err(chunk["error"]["code"].to_string()),
            None => {
                assert!(is_done, "the stream ends with [DONE]: {text}");
                Ok(outcome_of_chunks(&chunks))
            }
        };
        Reply { outcome, thread }
    }
}

fn failed(status: &tonic::Status) -> Reply {
    Reply { outcome: Err(format!("{:?}", code_and_reason(status))), thread: String::new() }
}

fn thread_of(response: &reqwest::Response) -> String {
    let header = response.headers().get("x-codex-thread");
    header.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn name_of(thread: ThreadOrigin) -> String {
    thread.as_str_name().trim_start_matches("THREAD_ORIGIN_").to_lowercase()
}
