//! Builds one answer: translates the engine's events into the contract's. Joins messages unless the caller wants them apart,
//! buffers a JSON answer until its last message is known, buffers text until a demanded call arrives, and filters the text.
//! Pure.

use super::{
    json_answer::{AnswerPlan, AnswerValidator},
    output_filter::{Filtered, TextFilter},
};
use crate::{
    config::Profile,
    engine::{Format, ToolChoice, Turn, TurnEvent},
    pb::{self, FinishReason, chat_event::Event},
};

/// Separates two messages of the agent in one answer.
const MESSAGE_BREAK: &str = "\n\n";

/// Translates the events of one turn. Owned by its `ChoiceStream`.
#[derive(Debug)]
pub(super) struct ChoiceBuilder {
    filter: TextFilter,
    plan: AnswerPlan,
    /// The format is JSON, and the agent may speak before the answer, so that only the last message is the answer.
    buffer_json: bool,
    role: MessageRole,
    /// The latest message of a JSON answer. Without buffering, the text in which no object was found yet.
    json_buffer: Option<String>,
    /// The model called a tool of the client, which the client already has.
    has_called: bool,
    /// The text before a demanded call. Without the call the turn fails, and a client could not discard text that it
    /// already has.
    pre_call_buffer: Option<String>,
    any_text: bool,
    /// The caller gets each message of a text answer by itself.
    separates_messages: bool,
    /// The next text begins a paragraph.
    pending_break: bool,
    messages: u32,
    /// The reason of a truncated answer, while the turn may still report its usage.
    finish_reason: Option<FinishReason>,
    /// A limit of the caller cut the answer.
    is_cut: bool,
}

/// What the current message of a buffered JSON answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageRole {
    /// The answer if no other message follows.
    Candidate,
    /// The answer, because the model says so.
    Answer,
    /// A message after the answer, of which the client may have a part.
    Addition,
}

/// The state of an answer after an event.
#[derive(Debug, PartialEq)]
pub(super) enum ChoiceState {
    /// The answer is incomplete.
    Open,
    /// The answer is complete before its turn, which may still report its usage.
    Truncated,
    /// The answer and its turn have ended. The usage is absent if the turn did not report it.
    Ended(Option<pb::Usage>),
    /// The turn has ended, and its answer is not emitted, because it must be validated or is no JSON.
    Unchecked(Box<Unchecked>),
}

/// An answer that is not emitted.
#[derive(Debug, PartialEq)]
pub(super) struct Unchecked {
    /// The text of the model.
    pub(super) text: String,
    pub(super) reason: FinishReason,
    pub(super) usage: Option<pb::Usage>,
    /// What the answer is not. `None` if it must be validated.
    pub(super) mistake: Option<String>,
}

impl ChoiceBuilder {
    /// Creates a builder for the answer of `turn`.
    pub(super) fn new(turn: &Turn, plan: AnswerPlan, filter: TextFilter) -> Self {
        // Without tools, the only message of a turn is its answer.
        let is_only_message = turn.profile == Profile::Chat && turn.tools.is_empty();
        let buffer_json = match &plan {
            AnswerPlan::Text => turn.format != Format::Text,
            AnswerPlan::LastMessage | AnswerPlan::Translated(_) => !is_only_message,
            AnswerPlan::Validated(..) => true,
        };
        let pre_call_buffer = match turn.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::Required | ToolChoice::Named(_) => Some(String::new()),
        };
        Self {
            filter,
            plan,
            buffer_json,
            role: MessageRole::Candidate,
            json_buffer: None,
            has_called: false,
            pre_call_buffer,
            any_text: false,
            separates_messages: false,
            pending_break: false,
            messages: 0,
            finish_reason: None,
            is_cut: false,
        }
    }

    /// Tells the messages of a text answer apart, instead of joining them by empty lines.
    pub(super) fn separating_messages(mut self, separates: bool) -> Self {
        self.separates_messages = separates && matches!(self.plan, AnswerPlan::Text);
        self
    }

    /// Returns `true` if a demanded call has not arrived yet.
    pub(super) fn awaits_call(&self) -> bool {
        self.pre_call_buffer.is_some()
    }

    /// Returns `true` if the model called a tool of the client.
    pub(super) fn has_called(&self) -> bool {
        self.has_called
    }

    /// Returns `true` if the answer is the model's own, neither cut nor translated.
    pub(super) fn is_verbatim(&self) -> bool {
        let is_own = match &self.plan {
            AnswerPlan::Text | AnswerPlan::LastMessage => true,
            AnswerPlan::Translated(_) | AnswerPlan::Validated(..) => false,
        };
        is_own && !self.is_cut
    }

    /// Returns `true` if a part of a translated answer was found, which a client may have.
    pub(super) fn has_begun(&self) -> bool {
        matches!(&self.plan, AnswerPlan::Translated(stream) if stream.has_begun() && !self.is_buffered())
    }

    /// Returns `true` if nothing of the answer is emitted before its end.
    fn is_buffered(&self) -> bool {
        self.buffer_json && self.role == MessageRole::Candidate
    }

    /// Returns the validator of the answer.
    pub(super) fn validator(&self) -> Option<std::sync::Arc<AnswerValidator>> {
        match &self.plan {
            AnswerPlan::Validated(_, validator) => Some(std::sync::Arc::clone(validator)),
            AnswerPlan::Text | AnswerPlan::LastMessage | AnswerPlan::Translated(_) => None,
        }
    }

    /// Emits a validated answer and its end.
    pub(super) fn finish_checked(
        &mut self,
        text: String,
        reason: FinishReason,
        emit: &mut impl FnMut(Event),
    ) {
        let filtered = self.filter.push(text);
        self.emit_end(filtered, reason, emit);
    }

    /// Prepares for another turn that replaces a refused answer.
    pub(super) fn restart(&mut self) {
        if let AnswerPlan::Translated(stream) | AnswerPlan::Validated(Some(stream), _) = &mut self.plan {
            *stream = stream.restarted();
        }
        self.role = MessageRole::Candidate;
        self.json_buffer = None;
    }

    /// Translates one event and passes each resulting event to `emit`.
    pub(super) fn push(&mut self, event: TurnEvent, emit: &mut impl FnMut(Event)) -> ChoiceState {
        if self.finish_reason.is_some() {
            return self.push_truncated(&event, emit);
        }
        match event {
            TurnEvent::MessageStarted { is_final } => return self.start_message(is_final, emit),
            TurnEvent::Text(text) if self.is_buffered() || self.role == MessageRole::Addition => {
                self.json_buffer.get_or_insert_default().push_str(&text);
            }
            TurnEvent::Text(text) if text.is_empty() => {}
            TurnEvent::Text(text) if matches!(self.plan, AnswerPlan::Translated(_)) => {
                return self.translate(&text, emit);
            }
            TurnEvent::Text(text) => {
                let mut text = text.into_string();
                self.any_text = true;
                if std::mem::take(&mut self.pending_break) {
                    text.insert_str(0, MESSAGE_BREAK);
                }
                let filtered = self.filter.push(text);
                return self.emit(filtered, emit);
            }
            TurnEvent::Reasoning(text) => {
                emit(Event::ReasoningDelta(pb::ReasoningDelta { text: text.into() }));
            }
            TurnEvent::ToolCall(call) => {
                self.has_called = true;
                emit_text(self.pre_call_buffer.take().unwrap_or_default(), emit);
                emit(Event::ToolCall(*call));
            }
            TurnEvent::Item(item) => emit(Event::Item(item)),
            TurnEvent::Notice(notice) => emit(Event::Notice(*notice)),
            TurnEvent::Finished { reason, usage } => {
                if let Some(unchecked) = self.unchecked(reason, usage.as_deref().copied()) {
                    return ChoiceState::Unchecked(Box::new(unchecked));
                }
                self.finish(reason, emit);
                return ChoiceState::Ended(usage.as_deref().copied());
            }
        }
        ChoiceState::Open
    }

    /// Finishes an answer without further events of its turn. Emits nothing unless the answer is truncated.
    pub(super) fn finish_truncated(&mut self, emit: &mut impl FnMut(Event)) {
        if let Some(reason) = self.finish_reason.take() {
            emit(finished(reason));
        }
    }

    fn push_truncated(&mut self, event: &TurnEvent, emit: &mut impl FnMut(Event)) -> ChoiceState {
        let usage = match event {
            TurnEvent::Notice(_) => return ChoiceState::Truncated,
            TurnEvent::Finished { usage, .. } => usage.as_deref().copied(),
            // The agent continues with output that no client receives, so its usage is not awaited.
            TurnEvent::MessageStarted { .. }
            | TurnEvent::Text(_)
            | TurnEvent::Reasoning(_)
            | TurnEvent::ToolCall(_)
            | TurnEvent::Item(_) => None,
        };
        self.finish_truncated(emit);
        ChoiceState::Ended(usage)
    }

    /// Begins a message. Emits a buffered JSON message as an item, because it was not the answer. Otherwise the next text
    /// begins a paragraph if text was emitted before, unless the messages are told apart.
    fn start_message(&mut self, is_final: bool, emit: &mut impl FnMut(Event)) -> ChoiceState {
        self.emit_buffered_item(emit);
        self.messages += 1;
        if self.separates_messages && self.pre_call_buffer.is_none() {
            let rest = self.filter.flush();
            let state = self.emit(rest, emit);
            if state == ChoiceState::Open {
                let phase =
                    if is_final { pb::MessagePhase::FinalAnswer } else { pb::MessagePhase::Unspecified };
                emit(Event::MessageStarted(pb::MessageStarted { phase: phase.into() }));
            }
            return state;
        }
        self.pending_break = self.any_text && matches!(self.plan, AnswerPlan::Text);
        let has_begun = match &self.plan {
            AnswerPlan::Translated(stream) => stream.has_begun(),
            AnswerPlan::LastMessage => self.any_text,
            AnswerPlan::Text | AnswerPlan::Validated(..) => false,
        };
        if has_begun {
            // Only a message that is not buffered has begun.
            self.role = MessageRole::Addition;
            return ChoiceState::Open;
        }
        if let AnswerPlan::Translated(stream) = &mut self.plan {
            *stream = stream.restarted();
        }
        let is_validated = matches!(self.plan, AnswerPlan::Validated(..));
        self.role = if is_final && !is_validated { MessageRole::Answer } else { MessageRole::Candidate };
        ChoiceState::Open
    }

    /// Emits the text of a message that is not the answer.
    fn emit_buffered_item(&mut self, emit: &mut impl FnMut(Event)) {
        let Some(text) = self.json_buffer.take() else { return };
        let kind = Some(pb::item::Kind::AgentMessage(pb::AgentMessage { text }));
        let id = format!("message_{}", self.messages);
        emit(Event::Item(Box::new(pb::Item { id, status: pb::ItemStatus::Completed.into(), kind })));
    }

    /// Emits the part of the answer that a delta decides.
    fn translate(&mut self, text: &str, emit: &mut impl FnMut(Event)) -> ChoiceState {
        let AnswerPlan::Translated(stream) = &mut self.plan else { return ChoiceState::Open };
        let decided = stream.push(text);
        // Kept for a model that does not answer with JSON.
        if !stream.has_begun() {
            self.json_buffer.get_or_insert_default().push_str(text);
        } else {
            self.json_buffer = None;
        }
        let filtered = self.filter.push(decided);
        self.emit(filtered, emit)
    }

    /// Returns the answer if it is complete but cannot be emitted as it is.
    fn unchecked(&mut self, reason: FinishReason, usage: Option<pb::Usage>) -> Option<Unchecked> {
        if reason != FinishReason::Stop {
            // The part of the answer that the model wrote. Without a beginning of the object, its text stays as it is.
            if reason == FinishReason::Length
                && self.is_buffered()
                && let AnswerPlan::Translated(stream) | AnswerPlan::Validated(Some(stream), _) =
                    &mut self.plan
                && let Some(text) = &mut self.json_buffer
            {
                let translated = stream.push(text);
                if stream.has_begun() {
                    *text = translated;
                }
            }
            return None;
        }
        let unchecked = |text, mistake: Option<&str>| {
            let mistake = mistake.map(str::to_owned);
            Some(Unchecked { text, reason, usage, mistake })
        };
        let is_buffered = self.role != MessageRole::Addition;
        match &mut self.plan {
            AnswerPlan::Text | AnswerPlan::LastMessage => None,
            AnswerPlan::Validated(stream, _) => {
                let text = self.json_buffer.take().unwrap_or_default();
                let translated = stream.as_ref().and_then(|stream| stream.translate_whole(&text));
                unchecked(translated.unwrap_or(text), None)
            }
            AnswerPlan::Translated(stream) if stream.is_complete() => None,
            AnswerPlan::Translated(stream) => {
                let text = if is_buffered { self.json_buffer.take() } else { None }.unwrap_or_default();
                let translated = if stream.has_begun() { None } else { stream.translate_whole(&text) };
                let Some(translated) = translated else {
                    return unchecked(text, Some("is not a JSON object"));
                };
                self.json_buffer = Some(translated);
                None
            }
        }
    }

    fn finish(&mut self, reason: FinishReason, emit: &mut impl FnMut(Event)) {
        emit_text(self.pre_call_buffer.take().unwrap_or_default(), emit);
        if self.role == MessageRole::Addition {
            self.emit_buffered_item(emit);
        }
        let filtered = match self.json_buffer.take() {
            Some(text) => self.filter.push(text),
            None => Filtered::default(),
        };
        self.emit_end(filtered, reason, emit);
    }

    /// Emits the last text and the end of the answer.
    fn emit_end(&mut self, last: Filtered, reason: FinishReason, emit: &mut impl FnMut(Event)) {
        let mut end = last.end;
        emit_text(last.text, emit);
        if end.is_none() {
            let rest = self.filter.flush();
            emit_text(rest.text, emit);
            end = rest.end;
        }
        self.is_cut = end.is_some();
        emit(finished(end.unwrap_or(reason)));
    }

    fn emit(&mut self, filtered: Filtered, emit: &mut impl FnMut(Event)) -> ChoiceState {
        self.finish_reason = filtered.end;
        let state = if self.finish_reason.is_some() { ChoiceState::Truncated } else { ChoiceState::Open };
        let text = match &mut self.pre_call_buffer {
            None => filtered.text,
            Some(buffer) => {
                buffer.push_str(&filtered.text);
                // The client's own limits truncated the text, which is the answer even without a call.
                if state == ChoiceState::Open {
                    return state;
                }
                self.pre_call_buffer.take().unwrap_or_default()
            }
        };
        emit_text(text, emit);
        state
    }
}

fn emit_text(text: String, emit: &mut impl FnMut(Event)) {
    if !text.is_empty() {
        emit(Event::TextDelta(pb::TextDelta { text }));
    }
}

fn finished(reason: FinishReason) -> Event {
    Event::ChoiceFinished(pb::ChoiceFinished { finish_reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::json_answer::JsonStream;

    fn builder(format: &Format, stop: &[&str]) -> ChoiceBuilder {
        let turn = Turn { format: format.clone(), ..Turn::default() };
        ChoiceBuilder::new(&turn, plan(format), filter(stop))
    }

    fn plan(format: &Format) -> AnswerPlan {
        match format {
            Format::Text => AnswerPlan::Text,
            Format::JsonObject => AnswerPlan::Translated(JsonStream::default()),
            Format::JsonSchema(_) => AnswerPlan::LastMessage,
        }
    }

    /// Returns a builder for a turn that demands a call.
    fn demanding(stop: &[&str]) -> ChoiceBuilder {
        ChoiceBuilder::new(
            &Turn { tool_choice: ToolChoice::Required, ..Turn::default() },
            AnswerPlan::Text,
            filter(stop),
        )
    }

    fn filter(stop: &[&str]) -> TextFilter {
        let stop: Vec<String> = stop.iter().map(|s| (*s).to_owned()).collect();
        TextFilter::new(false, &stop, None)
    }

    fn text_delta(text: &str) -> Event {
        Event::TextDelta(pb::TextDelta { text: text.into() })
    }

    fn push(builder: &mut ChoiceBuilder, event: TurnEvent) -> (Vec<Event>, ChoiceState) {
        let mut events = Vec::new();
        let state = builder.push(event, &mut |event| events.push(event));
        (events, state)
    }

    fn run(mut builder: ChoiceBuilder, events: Vec<TurnEvent>) -> (String, Vec<Event>, Option<ChoiceState>) {
        let (mut text, mut others) = (String::new(), Vec::new());
        for event in events {
            let (events, state) = push(&mut builder, event);
            for event in events {
                if let Event::TextDelta(delta) = event {
                    text.push_str(&delta.text);
                } else {
                    others.push(event);
                }
            }
            if matches!(state, ChoiceState::Ended(_)) {
                return (text, others, Some(state));
            }
        }
        (text, others, None)
    }

    fn message(text: &str) -> [TurnEvent; 2] {
        [TurnEvent::MessageStarted { is_final: false }, TurnEvent::Text(text.into())]
    }

    fn end() -> TurnEvent {
        TurnEvent::Finished { reason: FinishReason::Stop, usage: Some(Box::default()) }
    }

    #[test]
    fn text_answer_of_several_messages_has_paragraphs() {
        let messages = ["", "look", "", "done", ""].map(|text| message(text).to_vec()).concat();
        let events = [messages, vec![end()]].concat();
        let (text, others, state) = run(builder(&Format::Text, &[]), events);
        assert_eq!(text, "look\n\ndone");
        assert_eq!(others, [finished(FinishReason::Stop)]);
        assert_eq!(state, Some(ChoiceState::Ended(Some(pb::Usage::default()))));
    }

    #[test]
    fn separate_messages_are_told_apart_and_lose_no_text() {
        let first =
            |text: &str| vec![TurnEvent::MessageStarted { is_final: true }, TurnEvent::Text(text.into())];
        let events = [message("").to_vec(), message("look <").to_vec(), first("done"), vec![end()]].concat();
        let filter = TextFilter::new(true, &[], None);
        let separating =
            ChoiceBuilder::new(&Turn::default(), AnswerPlan::Text, filter).separating_messages(true);
        let (text, others, _) = run(separating, events);
        assert_eq!(text, "look <done");
        let phases = others.iter().filter_map(|event| {
            let Event::MessageStarted(started) = event else { return None };
            Some(started.phase())
        });
        let (unknown, last) = (pb::MessagePhase::Unspecified, pb::MessagePhase::FinalAnswer);
        assert_eq!(phases.collect::<Vec<_>>(), [unknown, unknown, last]);
        // Only text is told apart.
        let separating = builder(&Format::JsonObject, &[]).separating_messages(true);
        let (text, others, _) =
            run(separating, [message("look").to_vec(), message("{}").to_vec(), vec![end()]].concat());
        assert_eq!(text, "{}");
        assert!(matches!(&others[..], [Event::Item(_), Event::ChoiceFinished(_)]), "{others:?}");
    }

    #[test]
    fn stop_text_prefix_at_a_message_end_is_kept() {
        let events = [message("a").to_vec(), message("b").to_vec(), vec![end()]].concat();
        assert_eq!(run(builder(&Format::Text, &["aX"]), events.clone()).0, "a\n\nb");
        assert_eq!(run(builder(&Format::Text, &["ab"]), events.clone()).0, "a\n\nb");
        assert_eq!(run(builder(&Format::Text, &["a\n\nb"]), events).0, "");
    }

    #[test]
    fn json_answer_of_several_messages_is_the_last_one() {
        let events = [message("let me see").to_vec(), message("{\"a\":1}").to_vec(), vec![end()]].concat();
        let (text, others, _) = run(builder(&Format::JsonObject, &[]), events);
        assert_eq!(text, "{\"a\":1}");
        let Event::Item(item) = &others[0] else { panic!("expected an item") };
        let kind = pb::item::Kind::AgentMessage(pb::AgentMessage { text: "let me see".into() });
        assert_eq!(item.kind, Some(kind));
    }

    /// Returns a builder of the agent profile, in which messages may precede the answer.
    fn agent(plan: AnswerPlan) -> ChoiceBuilder {
        let turn = Turn { profile: Profile::Agent, format: Format::JsonObject, ..Turn::default() };
        ChoiceBuilder::new(&turn, plan, filter(&[]))
    }

    #[test]
    fn json_message_that_is_final_streams_at_once() {
        for plan in [AnswerPlan::Translated(JsonStream::default()), AnswerPlan::LastMessage] {
            let mut builder = agent(plan.clone());
            for event in message("let me see") {
                assert_eq!(push(&mut builder, event).0, []);
            }
            let (events, _) = push(&mut builder, TurnEvent::MessageStarted { is_final: true });
            assert!(matches!(&events[..], [Event::Item(_)]), "{events:?}");
            for part in ["{\"a\": \"x", "y\", \"b\": 2}"] {
                assert_eq!(
                    push(&mut builder, TurnEvent::Text(part.into())).0,
                    [text_delta(part)],
                    "{plan:?}"
                );
            }
            // The client has the answer, so that another message is an item.
            let (text, others, state) =
                run(builder, [message("{\"c\": 3}").to_vec(), message("bye").to_vec(), vec![end()]].concat());
            let items = others.iter().filter(|event| matches!(event, Event::Item(_))).count();
            assert_eq!((text.as_str(), items), ("", 2), "{plan:?}");
            assert_eq!(state, Some(ChoiceState::Ended(Some(pb::Usage::default()))));
        }
    }

    #[test]
    fn final_message_without_an_answer_gives_way_to_the_next_one() {
        let last = message("{\"a\":1}").to_vec();
        let first =
            |text: &str| vec![TurnEvent::MessageStarted { is_final: true }, TurnEvent::Text(text.into())];
        let events = [first("no {object}"), last, vec![end()]].concat();
        let (text, others, _) = run(agent(AnswerPlan::Translated(JsonStream::default())), events);
        assert_eq!((text.as_str(), others.len()), ("{\"a\":1}", 2), "{others:?}");
    }

    #[test]
    fn truncated_json_answer_lacks_its_fence() {
        let long = TurnEvent::Finished { reason: FinishReason::Length, usage: None };
        let events = [message("```json\n{\"a\": [1").to_vec(), vec![long]].concat();
        let (text, others, _) = run(builder(&Format::JsonObject, &[]), events);
        assert_eq!((text.as_str(), others), ("{\"a\": [1", vec![finished(FinishReason::Length)]));
    }

    #[test]
    fn stop_text_ends_the_answer_and_keeps_the_usage() {
        let events = [message("one STOP two").to_vec(), vec![end()]].concat();
        let (text, others, state) = run(builder(&Format::Text, &["STOP"]), events);
        assert_eq!((text.as_str(), others), ("one ", vec![finished(FinishReason::Stop)]));
        assert_eq!(state, Some(ChoiceState::Ended(Some(pb::Usage::default()))));

        let events = [message("one STOP two").to_vec(), message("more").to_vec()].concat();
        let (text, _, state) = run(builder(&Format::Text, &["STOP"]), events);
        assert_eq!((text.as_str(), state), ("one ", Some(ChoiceState::Ended(None))));
    }

    #[test]
    fn demanded_call_delays_the_text_before_it() {
        let call = pb::ToolCall { id: "1".into(), ..Default::default() };
        let mut builder = demanding(&[]);
        for event in [message("look").to_vec(), message("twice").to_vec()].concat() {
            assert_eq!(push(&mut builder, event), (vec![], ChoiceState::Open));
        }
        let (events, _) = push(&mut builder, TurnEvent::Reasoning("hm".into()));
        assert_eq!(events, [Event::ReasoningDelta(pb::ReasoningDelta { text: "hm".into() })]);
        let (events, state) = push(&mut builder, TurnEvent::ToolCall(Box::new(call.clone())));
        assert_eq!(
            (events, state),
            (vec![text_delta("look\n\ntwice"), Event::ToolCall(call)], ChoiceState::Open)
        );
        assert!(!builder.awaits_call());
        assert_eq!(push(&mut builder, TurnEvent::Text("!".into())).0, [text_delta("!")]);
    }

    #[test]
    fn truncated_answer_needs_no_demanded_call() {
        let events = [message("one STOP two").to_vec(), vec![end()]].concat();
        let (text, others, _) = run(demanding(&["STOP"]), events);
        assert_eq!((text.as_str(), others), ("one ", vec![finished(FinishReason::Stop)]));
        let long = TurnEvent::Finished { reason: FinishReason::Length, usage: None };
        let (text, others, _) = run(demanding(&[]), [message("one").to_vec(), vec![long]].concat());
        assert_eq!((text.as_str(), others), ("one", vec![finished(FinishReason::Length)]));
    }
}
