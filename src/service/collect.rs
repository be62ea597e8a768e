//! Collects the event stream of a request into one response, so that `Chat` and `StreamChat` have the same content.

use futures_util::{Stream, TryStreamExt};
use tonic::Status;

use crate::{
    error::Error,
    pb::{self, ChatEvent, ChatResponse, Choice, chat_event::Event},
};

/// Maximum size of the text and items of a response. A stream has no such limit, because it is not buffered.
pub(super) const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Reads the stream to its end. Fails with its error, or if the response is too large.
pub(super) async fn collect<S>(mut events: S) -> Result<ChatResponse, Status>
where
    S: Stream<Item = Result<ChatEvent, Status>> + Unpin,
{
    let mut response = ChatResponse::default();
    let mut bytes = 0;
    // The choices that the items belong to, which the response does not tell.
    let mut item_choices = Vec::new();
    while let Some(event) = events.try_next().await? {
        bytes += text_bytes(&event);
        if bytes > MAX_RESPONSE_BYTES {
            let message = format!("the response exceeds {MAX_RESPONSE_BYTES} bytes; request it as a stream");
            return Err(Error::TurnFailed { message }.into());
        }
        let choice_index = event.choice_index;
        if event.event.is_none() {
            restart(&mut response, choice_index, &mut item_choices);
            continue;
        }
        add(&mut response, event);
        item_choices.resize(response.items.len(), choice_index);
    }
    Ok(response)
}

/// Removes what a choice has emitted, because it begins again.
fn restart(response: &mut ChatResponse, index: u32, item_choices: &mut Vec<u32>) {
    response.choices.retain(|choice| choice.index != index);
    let mut choices = item_choices.iter();
    response.items.retain(|_| choices.next() != Some(&index));
    item_choices.retain(|choice| *choice != index);
}

fn text_bytes(event: &ChatEvent) -> usize {
    match &event.event {
        Some(Event::TextDelta(delta)) => delta.text.len(),
        Some(Event::ReasoningDelta(delta)) => delta.text.len(),
        Some(Event::Item(item)) => prost::Message::encoded_len(item),
        Some(
            Event::Started(_)
            | Event::ToolCall(_)
            | Event::Notice(_)
            | Event::ChoiceFinished(_)
            | Event::Completed(_)
            | Event::Heartbeat(_)
            | Event::MessageStarted(_),
        )
        | None => 0,
    }
}

fn add(response: &mut ChatResponse, event: ChatEvent) {
    let (id, index) = (event.id, event.choice_index);
    let Some(event) = event.event else { return };
    match event {
        Event::Started(started) => {
            response.id = id;
            response.created_unix_seconds = started.created_unix_seconds;
            response.model = started.model;
            response.system_fingerprint = started.system_fingerprint;
            response.thread = started.thread;
        }
        Event::TextDelta(delta) => choice(response, index).text.push_str(&delta.text),
        Event::ReasoningDelta(delta) => choice(response, index).reasoning.push_str(&delta.text),
        Event::ToolCall(call) => choice(response, index).tool_calls.push(call),
        Event::Item(item) if item.status() == pb::ItemStatus::InProgress => {}
        Event::Item(item) => response.items.push(*item),
        Event::Notice(notice) => response.notices.push(notice),
        Event::ChoiceFinished(finished) => choice(response, index).finish_reason = finished.finish_reason,
        Event::Completed(completed) => {
            if completed.thread() != pb::ThreadOrigin::Unspecified {
                response.thread = completed.thread;
            }
            response.usage = completed.usage;
        }
        Event::Heartbeat(_) | Event::MessageStarted(_) => {}
    }
}

/// Returns the choice of an index, inserted in order. Choices may begin in any order.
fn choice(response: &mut ChatResponse, index: u32) -> &mut Choice {
    let at = response.choices.partition_point(|choice| choice.index < index);
    if response.choices.get(at).is_none_or(|choice| choice.index != index) {
        response.choices.insert(at, Choice { index, ..Choice::default() });
    }
    &mut response.choices[at]
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn event(choice_index: u32, event: Event) -> Result<ChatEvent, Status> {
        Ok(ChatEvent { id: "chatcmpl-1".into(), sequence_number: 0, choice_index, event: Some(event) })
    }

    #[tokio::test]
    async fn collect_choices_are_ordered_by_index() {
        let text = |text: &str| Event::TextDelta(pb::TextDelta { text: text.into() });
        let started = pb::Started {
            created_unix_seconds: 7,
            model: "m".into(),
            system_fingerprint: "f".into(),
            thread: 3,
        };
        let done = pb::ChoiceFinished { finish_reason: pb::FinishReason::Length.into() };
        let usage = Some(pb::Usage { input_tokens: 3, ..Default::default() });
        let events = vec![
            event(0, Event::Started(started)),
            event(1, text("b")),
            event(0, text("a")),
            event(1, text("c")),
            event(1, Event::ChoiceFinished(done)),
            event(0, Event::Completed(pb::Completed { usage, thread: 1 })),
        ];
        let response = collect(stream::iter(events)).await.unwrap();
        let texts: Vec<_> = response.choices.iter().map(|c| (c.index, c.text.as_str())).collect();
        assert_eq!(texts, [(0, "a"), (1, "bc")]);
        assert_eq!(response.choices[1].finish_reason(), pb::FinishReason::Length);
        assert_eq!((response.id.as_str(), response.usage), ("chatcmpl-1", usage));
    }

    #[tokio::test]
    async fn collect_endless_answer_is_refused() {
        let megabyte = "x".repeat(1 << 20);
        let events =
            stream::repeat_with(|| event(0, Event::TextDelta(pb::TextDelta { text: megabyte.clone() })));
        let status = collect(Box::pin(events)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Aborted);
    }

    #[tokio::test]
    async fn collect_choice_that_begins_again_has_only_the_last_attempt() {
        let text = |text: &str| Event::TextDelta(pb::TextDelta { text: text.into() });
        let item = || Event::Item(Box::default());
        let restart = Ok(ChatEvent { choice_index: 1, ..ChatEvent::default() });
        let events = vec![
            event(0, text("a")),
            event(0, item()),
            event(1, text("broken")),
            event(1, item()),
            event(1, item()),
            restart,
            event(1, text("b")),
        ];
        let response = collect(stream::iter(events)).await.unwrap();
        let texts: Vec<_> = response.choices.iter().map(|c| (c.index, c.text.as_str())).collect();
        assert_eq!(texts, [(0, "a"), (1, "b")]);
        assert_eq!(response.items.len(), 1);
    }

    #[tokio::test]
    async fn collect_error_of_the_stream_is_returned() {
        let events = vec![Err(Status::aborted("no"))];
        assert_eq!(collect(stream::iter(events)).await.unwrap_err().message(), "no");
    }
}
