//! A client of the gRPC door.

use codex_api::pb::{self, chat_event::Event};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::TestApp;

/// Returns the code and the stable reason of a failure.
pub fn code_and_reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
}

/// Returns the field of the first violation, or an empty string.
pub fn violated_field(status: &Status) -> String {
    let details = status.get_error_details();
    details.bad_request().map(|bad| bad.field_violations[0].field.clone()).unwrap_or_default()
}

/// Returns text and finish reason of each choice.
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

/// Returns all events of a stream that completes.
pub async fn collect_events(
    mut stream: tonic::Streaming<pb::ChatEvent>,
) -> Result<Vec<pb::ChatEvent>, Status> {
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    assert!(matches!(events.last().and_then(|last| last.event.as_ref()), Some(Event::Completed(_))));
    Ok(events)
}

impl TestApp {
    /// Returns the text of a successful unary call.
    pub async fn chat(&self, request: pb::ChatRequest) -> String {
        let response = self.grpc().await.chat(request).await.unwrap().into_inner();
        response.choices[0].text.clone()
    }

    /// Returns the error of a unary call, which must be equal to that of a stream.
    pub async fn grpc_error(&self, request: pb::ChatRequest) -> Status {
        let unary = self.grpc().await.chat(request.clone()).await.unwrap_err();
        let streamed = match self.grpc().await.stream_chat(request).await {
            Ok(stream) => collect_events(stream.into_inner()).await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!((unary.code(), unary.message()), (streamed.code(), streamed.message()));
        unary
    }
}
