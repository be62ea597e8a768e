//! Projects the events of one turn to the items of a response. A pure state machine: one event in, any number out.

use tonic::Status;

use crate::{
    error::Error,
    pb::{self, chat_event::Event as Input, output_item::Item, response_event::Event},
    service::collect::MAX_RESPONSE_BYTES,
};

/// The state of one response. Owned by its stream.
#[derive(Debug)]
pub(super) struct Projection {
    /// The response so far: all items that are complete.
    response: pb::Response,
    /// Returns the time in seconds since 1970.
    clock: fn() -> i64,
    open: Option<OpenItem>,
    /// What the next message is.
    phase: pb::MessagePhase,
    next_sequence_number: u64,
    /// Bytes of all texts, which the last event repeats.
    bytes: usize,
}

/// An item whose text arrives in deltas.
#[derive(Debug)]
struct OpenItem {
    id: String,
    kind: OpenKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenKind {
    Message(pb::MessagePhase),
    Reasoning,
}

impl Projection {
    /// Begins a response with the parameters of its request.
    pub(super) fn new(settings: pb::ResponseSettings, clock: fn() -> i64) -> Self {
        Self {
            response: pb::Response { settings: Some(settings), ..pb::Response::default() },
            clock,
            open: None,
            phase: pb::MessagePhase::Unspecified,
            next_sequence_number: 0,
            bytes: 0,
        }
    }

    /// Projects an event of the turn and passes each resulting event to `emit`. Fails if the response becomes too large.
    pub(super) fn push(
        &mut self,
        event: pb::ChatEvent,
        emit: &mut impl FnMut(pb::ResponseEvent),
    ) -> Result<(), Status> {
        let id = event.id;
        let Some(event) = event.event else {
            self.restart();
            return Ok(());
        };
        match event {
            Input::Started(started) => self.start(id, started, emit),
            Input::MessageStarted(started) => {
                self.close(pb::ResponseStatus::Completed, emit);
                self.phase = started.phase();
            }
            Input::TextDelta(delta) => self.push_text(OpenKind::Message(self.phase), delta.text, emit)?,
            Input::ReasoningDelta(delta) => self.push_text(OpenKind::Reasoning, delta.text, emit)?,
            Input::ToolCall(call) => self.call(call, emit)?,
            Input::Item(item) => self.item(*item, emit)?,
            Input::Notice(notice) => {
                self.response.notices.push(notice.clone());
                emit(unnumbered(Event::Notice(notice)));
            }
            Input::ChoiceFinished(finished) => self.finish(finished.finish_reason(), emit),
            Input::Completed(completed) => self.complete(&completed, emit),
            Input::Heartbeat(heartbeat) => emit(unnumbered(Event::Heartbeat(heartbeat))),
        }
        Ok(())
    }

    fn start(&mut self, id: String, started: pb::Started, emit: &mut impl FnMut(pb::ResponseEvent)) {
        self.response.thread = started.thread;
        self.response.id = id;
        self.response.created_unix_seconds = started.created_unix_seconds;
        self.response.system_fingerprint = started.system_fingerprint;
        self.response.set_status(pb::ResponseStatus::InProgress);
        if let Some(settings) = &mut self.response.settings {
            // The default model has a name now.
            settings.model = started.model;
        }
        self.number(Event::Created(Box::new(self.response.clone())), emit);
        self.number(Event::InProgress(Box::new(self.response.clone())), emit);
    }

    /// Removes all items, because the turn begins again. Only a caller that has seen nothing gets such a turn.
    fn restart(&mut self) {
        self.response.output = Vec::new();
        self.response.activity = Vec::new();
        (self.open, self.bytes) = (None, 0);
    }

    /// Appends text to the open item of this kind, or begins one.
    fn push_text(
        &mut self,
        kind: OpenKind,
        text: String,
        emit: &mut impl FnMut(pb::ResponseEvent),
    ) -> Result<(), Status> {
        self.count(text.len())?;
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(pb::ResponseStatus::Completed, emit);
            self.open_item(kind, emit);
        }
        let output_index = self.next_index();
        let Some(open) = &mut self.open else { return Ok(()) };
        open.text.push_str(&text);
        let delta = pb::ResponseTextEvent { output_index, item_id: open.id.clone(), part_index: 0, text };
        let event = match kind {
            OpenKind::Message(_) => Event::OutputTextDelta(delta),
            OpenKind::Reasoning => Event::ReasoningSummaryTextDelta(delta),
        };
        self.number(event, emit);
        Ok(())
    }

    fn open_item(&mut self, kind: OpenKind, emit: &mut impl FnMut(pb::ResponseEvent)) {
        let id = self.item_id(match kind {
            OpenKind::Message(_) => "msg",
            OpenKind::Reasoning => "rs",
        });
        let empty = kind.item(String::new());
        self.number_item(&id, pb::ResponseStatus::InProgress, empty, Event::OutputItemAdded, emit);
        let part = self.part(&id, String::new());
        self.number(kind.part_event(part, true), emit);
        self.open = Some(OpenItem { id, kind, text: String::new() });
    }

    /// Ends the open item with this status, if there is one.
    fn close(&mut self, status: pb::ResponseStatus, emit: &mut impl FnMut(pb::ResponseEvent)) {
        let Some(OpenItem { id, kind, text }) = self.open.take() else { return };
        let output_index = self.next_index();
        let done =
            pb::ResponseTextEvent { output_index, item_id: id.clone(), part_index: 0, text: text.clone() };
        self.number(
            match kind {
                OpenKind::Message(_) => Event::OutputTextDone(done),
                OpenKind::Reasoning => Event::ReasoningSummaryTextDone(done),
            },
            emit,
        );
        let part = self.part(&id, text.clone());
        self.number(kind.part_event(part, false), emit);
        self.end_item(&id, status, kind.item(text), emit);
    }

    /// Adds a call, which Codex tells as a whole.
    fn call(&mut self, call: pb::ToolCall, emit: &mut impl FnMut(pb::ResponseEvent)) -> Result<(), Status> {
        self.count(call.arguments.len())?;
        self.close(pb::ResponseStatus::Completed, emit);
        let (id, output_index) = (self.item_id("fc"), self.next_index());
        let pb::ToolCall { id: call_id, name, arguments } = call;
        let mut call = pb::FunctionCall { call_id, name, arguments: String::new() };
        let added = Item::FunctionCall(call.clone());
        self.number_item(&id, pb::ResponseStatus::InProgress, added, Event::OutputItemAdded, emit);
        let text = pb::ResponseTextEvent {
            output_index,
            item_id: id.clone(),
            part_index: 0,
            text: arguments.clone(),
        };
        self.number(Event::FunctionCallArgumentsDelta(text.clone()), emit);
        self.number(Event::FunctionCallArgumentsDone(text), emit);
        call.arguments = arguments;
        self.end_item(&id, pb::ResponseStatus::Completed, Item::FunctionCall(call), emit);
        Ok(())
    }

    /// Adds an action of the agent, or a message that is not the answer.
    fn item(&mut self, item: pb::Item, emit: &mut impl FnMut(pb::ResponseEvent)) -> Result<(), Status> {
        if let Some(pb::item::Kind::AgentMessage(message)) = item.kind {
            if !message.text.is_empty() {
                self.close(pb::ResponseStatus::Completed, emit);
                let commentary = OpenKind::Message(pb::MessagePhase::Commentary);
                self.push_text(commentary, message.text, emit)?;
                self.close(pb::ResponseStatus::Completed, emit);
            }
            return Ok(());
        }
        if item.status() != pb::ItemStatus::InProgress {
            self.count(prost::Message::encoded_len(&item))?;
            self.response.activity.push(item.clone());
        }
        emit(unnumbered(Event::Activity(Box::new(item))));
        Ok(())
    }

    fn finish(&mut self, reason: pb::FinishReason, emit: &mut impl FnMut(pb::ResponseEvent)) {
        let incomplete = match reason {
            // The contract never sends the zero value.
            pb::FinishReason::Unspecified | pb::FinishReason::Stop | pb::FinishReason::ToolCalls => None,
            pb::FinishReason::Length => Some(pb::IncompleteReason::MaxOutputTokens),
            pb::FinishReason::ContentFilter => Some(pb::IncompleteReason::ContentFilter),
        };
        let status = match incomplete {
            None => pb::ResponseStatus::Completed,
            Some(_) => pb::ResponseStatus::Incomplete,
        };
        self.close(status, emit);
        self.response.set_status(status);
        self.response.set_incomplete_reason(incomplete.unwrap_or_default());
    }

    fn complete(&mut self, completed: &pb::Completed, emit: &mut impl FnMut(pb::ResponseEvent)) {
        if completed.thread() != pb::ThreadOrigin::Unspecified {
            self.response.thread = completed.thread;
        }
        self.response.usage = completed.usage;
        let is_incomplete = self.response.status() == pb::ResponseStatus::Incomplete;
        if !is_incomplete {
            self.response.completed_unix_seconds = (self.clock)();
        }
        let response = Box::new(std::mem::take(&mut self.response));
        let event = if is_incomplete { Event::Incomplete(response) } else { Event::Completed(response) };
        self.number(event, emit);
    }

    /// Ends an item. It belongs to the response from now on.
    fn end_item(
        &mut self,
        id: &str,
        status: pb::ResponseStatus,
        item: Item,
        emit: &mut impl FnMut(pb::ResponseEvent),
    ) {
        self.number_item(id, status, item.clone(), Event::OutputItemDone, emit);
        let item = pb::OutputItem { id: id.to_owned(), status: status.into(), item: Some(item) };
        self.response.output.push(item);
    }

    fn number_item(
        &mut self,
        id: &str,
        status: pb::ResponseStatus,
        item: Item,
        event: fn(Box<pb::ResponseItemEvent>) -> Event,
        emit: &mut impl FnMut(pb::ResponseEvent),
    ) {
        let item = pb::OutputItem { id: id.to_owned(), status: status.into(), item: Some(item) };
        let event =
            event(Box::new(pb::ResponseItemEvent { output_index: self.next_index(), item: Some(item) }));
        self.number(event, emit);
    }

    fn number(&mut self, event: Event, emit: &mut impl FnMut(pb::ResponseEvent)) {
        emit(pb::ResponseEvent { sequence_number: self.next_sequence_number, event: Some(event) });
        self.next_sequence_number += 1;
    }

    fn part(&self, id: &str, text: String) -> pb::ContentPartEvent {
        pb::ContentPartEvent { output_index: self.next_index(), item_id: id.to_owned(), part_index: 0, text }
    }

    /// Returns the index of the item that is open or begins.
    fn next_index(&self) -> u32 {
        u32::try_from(self.response.output.len()).unwrap_or(u32::MAX)
    }

    /// Returns the id of the item that begins. The response's own id makes it unique.
    fn item_id(&self, prefix: &str) -> String {
        let response = self.response.id.trim_start_matches("resp_");
        format!("{prefix}_{response}_{}", self.next_index())
    }

    /// Counts the bytes that the last event repeats.
    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        if self.bytes > MAX_RESPONSE_BYTES {
            let message = format!("the response exceeds {MAX_RESPONSE_BYTES} bytes");
            return Err(Error::TurnFailed { message }.into());
        }
        Ok(())
    }
}

impl OpenKind {
    fn item(self, text: String) -> Item {
        match self {
            Self::Message(phase) => Item::Message(pb::OutputMessage { text, phase: phase.into() }),
            Self::Reasoning => Item::Reasoning(pb::Reasoning { summary: text }),
        }
    }

    fn part_event(self, part: pb::ContentPartEvent, is_added: bool) -> Event {
        match (self, is_added) {
            (Self::Message(_), true) => Event::ContentPartAdded(part),
            (Self::Message(_), false) => Event::ContentPartDone(part),
            (Self::Reasoning, true) => Event::ReasoningSummaryPartAdded(part),
            (Self::Reasoning, false) => Event::ReasoningSummaryPartDone(part),
        }
    }
}

/// Returns an event that OpenAI's stream lacks.
fn unnumbered(event: Event) -> pb::ResponseEvent {
    pb::ResponseEvent { sequence_number: 0, event: Some(event) }
}

#[cfg(test)]
mod tests;
