//! The gRPC door as a client sees it.

use codex_api::pb::{self, chat_event::Event};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::TestApp;

/// What tells one failure from another: the code and the stable reason.
pub fn kind(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
}

/// The field that a failure names.
pub fn field(status: &Status) -> String {
    let details = status.get_error_details();
    details.bad_request().map(|bad| bad.field_violations[0].field.clone()).unwrap_or_default()
}

/// The texts of the answers, by their index, and why each ended.
pub fn answers(events: &[pb::ChatEvent]) -> Vec<(String, pb::FinishReason)> {
    let mut answers: Vec<(String, pb::FinishReason)> = Vec::new();
    for event in events {
        let index = event.choice_index as usize;
        if answers.len() <= index {
            answers.resize(index + 1, Default::default());
        }
        match event.event.as_ref().unwrap() {
            Event::TextDelta(delta) => answers[index].0.push_str(&delta.text),
            Event::ChoiceFinished(finished) => answers[index].1 = finished.finish_reason(),
            _ => {}
        }
    }
    answers
}

/// All events of a stream that ends well.
pub async fn all(mut stream: tonic::Streaming<pb::ChatEvent>) -> Result<Vec<pb::ChatEvent>, Status> {
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    assert!(matches!(events.last().and_then(|last| last.event.as_ref()), Some(Event::Completed(_))));
    Ok(events)
}

impl TestApp {
    /// The text of a unary call that goes well.
    pub async fn chat(&self, request: pb::ChatRequest) -> String {
        let response = self.grpc().await.chat(request).await.unwrap().into_inner();
        response.choices[0].text.clone()
    }

    /// How a unary call and a stream fail, which must be the same.
    pub async fn grpc_refused(&self, request: pb::ChatRequest) -> Status {
        let unary = self.grpc().await.chat(request.clone()).await.unwrap_err();
        let streamed = match self.grpc().await.stream_chat(request).await {
            Ok(stream) => all(stream.into_inner()).await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!((unary.code(), unary.message()), (streamed.code(), streamed.message()));
        unary
    }
}
