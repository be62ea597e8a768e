//! One answer in the making: the engine's events in, the contract's events out. Joins messages, holds JSON answers
//! until it is clear which message is the answer, and text until a demanded call is there; filters the text. Pure.

use super::output_filter::{Filtered, TextFilter};
use crate::{
    engine::{Format, ToolChoice, Turn, TurnEvent},
    pb::{self, FinishReason, chat_event::Event},
};

/// What stands between two messages of the agent in one answer.
const MESSAGE_BREAK: &str = "\n\n";

/// Translates one turn.
#[derive(Debug)]
pub(super) struct ChoiceBuilder {
    filter: TextFilter,
    /// With a JSON format: the message that may turn out to be the answer.
    held: Option<String>,
    holds: bool,
    /// While a call is demanded and none has come: the text so far. Without the call there is no answer, and text that
    /// a client already has could not be taken back.
    waiting: Option<String>,
    any_text: bool,
    /// The next text begins a paragraph.
    breaks: bool,
    messages: u32,
    /// Why the answer is over, while only the usage is waited for.
    cut: Option<FinishReason>,
}

/// What came of an event.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Emitted {
    pub(super) events: Vec<Event>,
    pub(super) state: ChoiceState,
}

/// Whether the turn is still needed.
#[derive(Debug, Default, PartialEq)]
pub(super) enum ChoiceState {
    /// Go on.
    #[default]
    Open,
    /// The answer is whole; the turn may still tell its usage.
    Cut,
    /// The end, with the usage if it was told.
    Over(Option<pb::Usage>),
}

impl ChoiceBuilder {
    pub(super) fn new(turn: &Turn, filter: TextFilter) -> Self {
        let holds = match turn.format {
            Format::Text => false,
            Format::JsonObject | Format::JsonSchema(_) => true,
        };
        let waiting = match turn.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::Required | ToolChoice::Named(_) => Some(String::new()),
        };
        Self { filter, held: None, holds, waiting, any_text: false, breaks: false, messages: 0, cut: None }
    }

    /// Whether nothing counts before a call is there.
    pub(super) fn awaits_call(&self) -> bool {
        self.waiting.is_some()
    }

    pub(super) fn push(&mut self, event: TurnEvent) -> Emitted {
        if self.cut.is_some() {
            return self.after_the_cut(&event);
        }
        match event {
            TurnEvent::MessageStarted => self.next_message(),
            TurnEvent::Text(text) if self.holds => {
                self.held.get_or_insert_default().push_str(&text);
                Emitted::default()
            }
            TurnEvent::Text(text) if text.is_empty() => Emitted::default(),
            TurnEvent::Text(mut text) => {
                self.any_text = true;
                if std::mem::take(&mut self.breaks) {
                    text.insert_str(0, MESSAGE_BREAK);
                }
                let filtered = self.filter.push(text);
                self.out(filtered)
            }
            TurnEvent::Reasoning(text) => Event::ReasoningDelta(pb::ReasoningDelta { text }).into(),
            TurnEvent::ToolCall(call) => {
                let text = self.waiting.take().and_then(delta);
                let events = text.into_iter().chain([Event::ToolCall(call)]).collect();
                Emitted { events, state: ChoiceState::Open }
            }
            TurnEvent::Item(item) => Event::Item(item).into(),
            TurnEvent::Notice(notice) => Event::Notice(notice).into(),
            TurnEvent::Finished { reason, usage } => self.finish(reason, usage),
        }
    }

    /// The end, if the turn was cut and will say no more.
    pub(super) fn abandoned(&mut self) -> Option<Event> {
        self.cut.take().map(finished)
    }

    fn after_the_cut(&mut self, event: &TurnEvent) -> Emitted {
        match event {
            TurnEvent::Finished { usage, .. } => {
                let reason = self.cut.take().unwrap_or(FinishReason::Stop);
                Emitted { events: vec![finished(reason)], state: ChoiceState::Over(*usage) }
            }
            TurnEvent::Notice(_) => Emitted { events: Vec::new(), state: ChoiceState::Cut },
            // The agent goes on with work that nobody will see: no reason to wait for it.
            TurnEvent::MessageStarted
            | TurnEvent::Text(_)
            | TurnEvent::Reasoning(_)
            | TurnEvent::ToolCall(_)
            | TurnEvent::Item(_) => {
                let reason = self.cut.take().unwrap_or(FinishReason::Stop);
                Emitted { events: vec![finished(reason)], state: ChoiceState::Over(None) }
            }
        }
    }

    /// A new message begins: what was held is no answer, and what was told is a paragraph.
    fn next_message(&mut self) -> Emitted {
        self.messages += 1;
        if let Some(text) = self.held.take() {
            let kind = Some(pb::item::Kind::AgentMessage(pb::AgentMessage { text }));
            let id = format!("message_{}", self.messages - 1);
            return Event::Item(Box::new(pb::Item { id, status: pb::ItemStatus::Completed.into(), kind }))
                .into();
        }
        self.breaks = self.any_text;
        Emitted::default()
    }

    fn finish(&mut self, reason: FinishReason, usage: Option<pb::Usage>) -> Emitted {
        let mut events: Vec<Event> = self.waiting.take().and_then(delta).into_iter().collect();
        let mut end = None;
        let held = self.held.take().map(|text| self.filter.push(text));
        for filtered in [held, Some(self.filter.finish())].into_iter().flatten() {
            if end.is_none() {
                events.extend(delta(filtered.text));
                end = filtered.end;
            }
        }
        events.push(finished(end.unwrap_or(reason)));
        Emitted { events, state: ChoiceState::Over(usage) }
    }

    fn out(&mut self, filtered: Filtered) -> Emitted {
        self.cut = filtered.end;
        let state = if self.cut.is_some() { ChoiceState::Cut } else { ChoiceState::Open };
        let text = match &mut self.waiting {
            None => filtered.text,
            Some(waiting) => {
                waiting.push_str(&filtered.text);
                // Cut by the client's own limits, it is the answer, call or not.
                if state == ChoiceState::Open {
                    return Emitted::default();
                }
                self.waiting.take().unwrap_or_default()
            }
        };
        Emitted { events: delta(text).into_iter().collect(), state }
    }
}

impl From<Event> for Emitted {
    fn from(event: Event) -> Self {
        Self { events: vec![event], state: ChoiceState::Open }
    }
}

fn delta(text: String) -> Option<Event> {
    (!text.is_empty()).then_some(Event::TextDelta(pb::TextDelta { text }))
}

fn finished(reason: FinishReason) -> Event {
    Event::ChoiceFinished(pb::ChoiceFinished { finish_reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(format: &Format, stop: &[&str]) -> ChoiceBuilder {
        let turn = Turn { format: format.clone(), ..Turn::default() };
        ChoiceBuilder::new(&turn, filter(stop))
    }

    /// One that is nothing without a call.
    fn demanding(stop: &[&str]) -> ChoiceBuilder {
        ChoiceBuilder::new(&Turn { tool_choice: ToolChoice::Required, ..Turn::default() }, filter(stop))
    }

    fn filter(stop: &[&str]) -> TextFilter {
        let stop: Vec<String> = stop.iter().map(|s| (*s).to_owned()).collect();
        TextFilter::new(false, &stop, None)
    }

    fn run(mut answer: ChoiceBuilder, events: Vec<TurnEvent>) -> (String, Vec<Event>, Option<ChoiceState>) {
        let (mut text, mut others) = (String::new(), Vec::new());
        for event in events {
            let step = answer.push(event);
            for event in step.events {
                if let Event::TextDelta(delta) = event {
                    text.push_str(&delta.text);
                } else {
                    others.push(event);
                }
            }
            if matches!(step.state, ChoiceState::Over(_)) {
                return (text, others, Some(step.state));
            }
        }
        (text, others, None)
    }

    fn message(text: &str) -> [TurnEvent; 2] {
        [TurnEvent::MessageStarted, TurnEvent::Text(text.into())]
    }

    fn end() -> TurnEvent {
        TurnEvent::Finished { reason: FinishReason::Stop, usage: Some(pb::Usage::default()) }
    }

    #[test]
    fn messages_are_paragraphs_of_a_text_answer() {
        let said = ["", "look", "", "done", ""].map(|text| message(text).to_vec()).concat();
        let events = [said, vec![end()]].concat();
        let (text, others, state) = run(answer(&Format::Text, &[]), events);
        assert_eq!(text, "look\n\ndone");
        assert_eq!(others, [finished(FinishReason::Stop)]);
        assert_eq!(state, Some(ChoiceState::Over(Some(pb::Usage::default()))));
    }

    #[test]
    fn what_a_stop_text_holds_back_is_text_all_the_same() {
        let events = [message("a").to_vec(), message("b").to_vec(), vec![end()]].concat();
        assert_eq!(run(answer(&Format::Text, &["aX"]), events.clone()).0, "a\n\nb");
        assert_eq!(run(answer(&Format::Text, &["ab"]), events.clone()).0, "a\n\nb");
        assert_eq!(run(answer(&Format::Text, &["a\n\nb"]), events).0, "");
    }

    #[test]
    fn only_the_last_message_is_a_json_answer() {
        let events = [message("let me see").to_vec(), message("{\"a\":1}").to_vec(), vec![end()]].concat();
        let (text, others, _) = run(answer(&Format::JsonObject, &[]), events);
        assert_eq!(text, "{\"a\":1}");
        let Event::Item(item) = &others[0] else { panic!("an item") };
        let kind = pb::item::Kind::AgentMessage(pb::AgentMessage { text: "let me see".into() });
        assert_eq!(item.kind, Some(kind));
    }

    #[test]
    fn after_a_stop_text_only_the_usage_is_waited_for() {
        let events = [message("one STOP two").to_vec(), vec![end()]].concat();
        let (text, others, state) = run(answer(&Format::Text, &["STOP"]), events);
        assert_eq!((text.as_str(), others), ("one ", vec![finished(FinishReason::Stop)]));
        assert_eq!(state, Some(ChoiceState::Over(Some(pb::Usage::default()))));

        let events = [message("one STOP two").to_vec(), message("more").to_vec()].concat();
        let (text, _, state) = run(answer(&Format::Text, &["STOP"]), events);
        assert_eq!((text.as_str(), state), ("one ", Some(ChoiceState::Over(None))));
    }

    #[test]
    fn text_waits_for_the_call_that_is_demanded() {
        let call = pb::ToolCall { id: "1".into(), ..Default::default() };
        let mut answer = demanding(&[]);
        for event in [message("look").to_vec(), message("twice").to_vec()].concat() {
            assert_eq!(answer.push(event), Emitted::default());
        }
        let thoughts = answer.push(TurnEvent::Reasoning("hm".into()));
        assert_eq!(thoughts.events, [Event::ReasoningDelta(pb::ReasoningDelta { text: "hm".into() })]);
        let step = answer.push(TurnEvent::ToolCall(call.clone()));
        assert_eq!(step.events, [delta("look\n\ntwice".into()).unwrap(), Event::ToolCall(call)]);
        assert!(!answer.awaits_call());
        assert_eq!(answer.push(TurnEvent::Text("!".into())).events, [delta("!".into()).unwrap()]);
    }

    #[test]
    fn an_answer_that_is_cut_needs_no_call() {
        let events = [message("one STOP two").to_vec(), vec![end()]].concat();
        let (text, others, _) = run(demanding(&["STOP"]), events);
        assert_eq!((text.as_str(), others), ("one ", vec![finished(FinishReason::Stop)]));
        let long = TurnEvent::Finished { reason: FinishReason::Length, usage: None };
        let (text, others, _) = run(demanding(&[]), [message("one").to_vec(), vec![long]].concat());
        assert_eq!((text.as_str(), others), ("one", vec![finished(FinishReason::Length)]));
    }
}
