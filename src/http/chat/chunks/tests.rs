use super::*;

fn event(choice_index: u32, event: Event) -> pb::ChatEvent {
    pb::ChatEvent { id: "chatcmpl-1".into(), choice_index, event: Some(event), ..pb::ChatEvent::default() }
}

fn begun(choices: u32, include_usage: bool) -> ChunkEncoder {
    let started = event(0, Event::Started(pb::Started::default()));
    ChunkEncoder::begin(started, choices, include_usage).unwrap()
}

fn delta(text: &str) -> Event {
    Event::TextDelta(pb::TextDelta { text: text.into() })
}

fn finished() -> Event {
    Event::ChoiceFinished(pb::ChoiceFinished { finish_reason: pb::FinishReason::Stop.into() })
}

fn completed() -> Event {
    Event::Completed(pb::Completed { usage: Some(pb::Usage { input_tokens: 1, ..pb::Usage::default() }) })
}

#[test]
fn roles_come_once_and_for_every_answer() {
    let mut maker = begun(2, false);
    let role = |index, content| Chunk::Delta(index, Delta::Role { role: "assistant", content, refusal: () });
    assert_eq!(maker.roles(|index| index == 1), [role(0, Some("")), role(1, None)]);
    assert_eq!(maker.roles(|_| false), []);
}

#[test]
fn the_end_is_complete_only_when_every_answer_is() {
    let mut maker = begun(2, true);
    assert_eq!(maker.push(event(1, finished())).unwrap(), [Chunk::Finish(1, "stop")]);
    assert!(!maker.is_complete());
    assert_eq!(maker.push(event(0, finished())).unwrap(), [Chunk::Finish(0, "stop")]);
    let [Chunk::Usage(_)] = maker.push(event(0, completed())).unwrap()[..] else {
        panic!("usage was asked for")
    };
    assert!(maker.is_complete());
    maker.push(event(0, completed())).unwrap_err();
}

#[test]
fn usage_is_not_told_to_who_did_not_ask() {
    let mut maker = begun(1, false);
    maker.push(event(0, finished())).unwrap();
    assert_eq!(maker.push(event(0, completed())).unwrap(), []);
    assert!(maker.is_complete());
}

#[test]
fn what_the_contract_does_not_allow_is_an_inner_fault() {
    let not_started = ChunkEncoder::begin(event(0, delta("a")), 1, false).unwrap_err();
    assert_eq!(not_started.code(), tonic::Code::Internal);
    for wrong in
        [event(0, Event::Started(pb::Started::default())), event(1, delta("nobody's")), event(0, completed())]
    {
        assert_eq!(begun(1, false).push(wrong).unwrap_err().code(), tonic::Code::Internal);
    }
    let mut maker = begun(1, false);
    maker.push(event(0, finished())).unwrap();
    assert!(maker.push(event(0, finished())).is_err(), "a second finish reason makes clients drop things");
    assert!(maker.push(event(0, delta("late"))).is_err());
}

#[test]
fn events_without_a_place_in_openais_stream_say_nothing() {
    let mut maker = begun(1, false);
    for quiet in [event(0, Event::Item(Box::default())), pb::ChatEvent::default()] {
        assert_eq!(maker.push(quiet).unwrap(), []);
    }
    // This one says something beside it.
    let notice = maker.push(event(0, Event::Notice(pb::Notice::default()))).unwrap();
    assert!(matches!(notice[..], [Chunk::Notice(_)]), "{notice:?}");
}
