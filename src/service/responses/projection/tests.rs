use super::*;

/// Runs a whole turn. Returns the events in short form, and the last response.
fn run(inputs: Vec<Input>) -> (Vec<String>, pb::Response) {
    let mut projection = Projection::new(pb::ResponseSettings::default(), || 9);
    let (mut outline, mut last, mut numbers) = (Vec::new(), pb::Response::default(), Vec::new());
    let started = Input::Started(pb::Started { created_unix_seconds: 7, ..pb::Started::default() });
    let completed = Input::Completed(pb::Completed { usage: Some(pb::Usage::default()), thread: 3 });
    for input in [vec![started], inputs, vec![completed]].concat() {
        let event = pb::ChatEvent { id: "resp_ab".into(), event: Some(input), ..pb::ChatEvent::default() };
        projection
            .push(event, &mut |event| {
                let kind = event.event.unwrap();
                let is_ours = matches!(kind, Event::Activity(_) | Event::Notice(_) | Event::Heartbeat(_));
                if !is_ours {
                    numbers.push(event.sequence_number);
                }
                outline.push(short(&kind));
                if let Event::Completed(response) | Event::Incomplete(response) = kind {
                    last = *response;
                }
            })
            .unwrap();
    }
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    (outline, last)
}

fn short(event: &Event) -> String {
    let item = |item: &pb::ResponseItemEvent| {
        let (index, item) = (item.output_index, item.item.clone().unwrap());
        let text = match item.item.clone().unwrap() {
            Item::Message(message) => format!("{:?} {}", message.phase(), message.text),
            Item::FunctionCall(call) => format!("{} {}", call.call_id, call.arguments),
            Item::Reasoning(reasoning) => reasoning.summary,
        };
        format!("{index} {} {:?} {text}", item.id, item.status())
    };
    let text = |text: &pb::ResponseTextEvent| format!("{} {} {}", text.output_index, text.item_id, text.text);
    let part = |part: &pb::ContentPartEvent| format!("{} {} {}", part.output_index, part.item_id, part.text);
    match event {
        Event::Created(_) => "created".into(),
        Event::InProgress(_) => "in_progress".into(),
        Event::OutputItemAdded(added) => format!("added {}", item(added)),
        Event::OutputItemDone(done) => format!("done {}", item(done)),
        Event::ContentPartAdded(added) | Event::ReasoningSummaryPartAdded(added) => {
            format!("part {}", part(added))
        }
        Event::ContentPartDone(done) | Event::ReasoningSummaryPartDone(done) => {
            format!("part done {}", part(done))
        }
        Event::OutputTextDelta(delta)
        | Event::ReasoningSummaryTextDelta(delta)
        | Event::FunctionCallArgumentsDelta(delta) => format!("delta {}", text(delta)),
        Event::OutputTextDone(done)
        | Event::ReasoningSummaryTextDone(done)
        | Event::FunctionCallArgumentsDone(done) => format!("text done {}", text(done)),
        Event::Completed(_) => "completed".into(),
        Event::Incomplete(_) => "incomplete".into(),
        Event::Activity(_) => "activity".into(),
        Event::Notice(_) => "notice".into(),
        Event::Heartbeat(_) => "heartbeat".into(),
    }
}

fn text(text: &str) -> Input {
    Input::TextDelta(pb::TextDelta { text: text.into() })
}

fn started(phase: pb::MessagePhase) -> Input {
    Input::MessageStarted(pb::MessageStarted { phase: phase.into() })
}

fn finished(reason: pb::FinishReason) -> Input {
    Input::ChoiceFinished(pb::ChoiceFinished { finish_reason: reason.into() })
}

#[test]
fn reasoning_messages_and_calls_are_items_of_their_own() {
    let call = pb::ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
    let (outline, response) = run(vec![
        Input::ReasoningDelta(pb::ReasoningDelta { text: "hm".into() }),
        started(pb::MessagePhase::Unspecified),
        started(pb::MessagePhase::Unspecified),
        text("a"),
        text("b"),
        started(pb::MessagePhase::FinalAnswer),
        text("c"),
        Input::ToolCall(call),
        finished(pb::FinishReason::ToolCalls),
    ]);
    assert_eq!(
        outline,
        [
            "created",
            "in_progress",
            "added 0 rs_ab_0 InProgress ",
            "part 0 rs_ab_0 ",
            "delta 0 rs_ab_0 hm",
            "text done 0 rs_ab_0 hm",
            "part done 0 rs_ab_0 hm",
            "done 0 rs_ab_0 Completed hm",
            "added 1 msg_ab_1 InProgress Unspecified ",
            "part 1 msg_ab_1 ",
            "delta 1 msg_ab_1 a",
            "delta 1 msg_ab_1 b",
            "text done 1 msg_ab_1 ab",
            "part done 1 msg_ab_1 ab",
            "done 1 msg_ab_1 Completed Unspecified ab",
            "added 2 msg_ab_2 InProgress FinalAnswer ",
            "part 2 msg_ab_2 ",
            "delta 2 msg_ab_2 c",
            "text done 2 msg_ab_2 c",
            "part done 2 msg_ab_2 c",
            "done 2 msg_ab_2 Completed FinalAnswer c",
            "added 3 fc_ab_3 InProgress c ",
            "delta 3 fc_ab_3 {}",
            "text done 3 fc_ab_3 {}",
            "done 3 fc_ab_3 Completed c {}",
            "completed",
        ]
    );
    let ids: Vec<&str> = response.output.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["rs_ab_0", "msg_ab_1", "msg_ab_2", "fc_ab_3"]);
    assert_eq!((response.id.as_str(), response.created_unix_seconds, response.thread), ("resp_ab", 7, 3));
    assert_eq!((response.status(), response.completed_unix_seconds), (pb::ResponseStatus::Completed, 9));
}

#[test]
fn cut_response_and_its_last_item_are_incomplete() {
    for (reason, incomplete) in [
        (pb::FinishReason::Length, pb::IncompleteReason::MaxOutputTokens),
        (pb::FinishReason::ContentFilter, pb::IncompleteReason::ContentFilter),
    ] {
        let (outline, response) = run(vec![text("a"), finished(reason)]);
        assert_eq!(outline.last().unwrap(), "incomplete");
        assert_eq!(response.status(), pb::ResponseStatus::Incomplete);
        assert_eq!(response.incomplete_reason(), incomplete);
        assert_eq!(response.output[0].status(), pb::ResponseStatus::Incomplete);
        assert!(response.usage.is_some() && response.completed_unix_seconds == 0);
    }
}

#[test]
fn actions_are_activity_and_remarks_are_messages() {
    let item = |kind| {
        let status = pb::ItemStatus::Completed.into();
        Input::Item(Box::new(pb::Item { id: "1".into(), status, kind: Some(kind) }))
    };
    let remark = pb::item::Kind::AgentMessage(pb::AgentMessage { text: "look".into() });
    let command = pb::item::Kind::CommandExecution(pb::CommandExecution::default());
    let (outline, response) =
        run(vec![item(remark), item(command), text("{}"), finished(pb::FinishReason::Stop)]);
    assert!(outline.contains(&"done 0 msg_ab_0 Completed Commentary look".to_owned()), "{outline:?}");
    assert!(outline.contains(&"activity".to_owned()), "{outline:?}");
    assert_eq!((response.output.len(), response.activity.len()), (2, 1));
}

#[test]
fn restart_removes_what_was_before() {
    let mut projection = Projection::new(pb::ResponseSettings::default(), || 9);
    let mut last = None;
    let event = |event| pb::ChatEvent { event, ..pb::ChatEvent::default() };
    let inputs = [
        Some(Input::Started(pb::Started::default())),
        Some(text("lost")),
        None,
        Some(text("kept")),
        Some(finished(pb::FinishReason::Stop)),
        Some(Input::Completed(pb::Completed::default())),
    ];
    for input in inputs {
        projection.push(event(input), &mut |event| last = event.event).unwrap();
    }
    let Some(Event::Completed(response)) = last else { panic!("{last:?}") };
    let [item] = &response.output[..] else { panic!("{response:?}") };
    let Some(Item::Message(message)) = &item.item else { panic!("{item:?}") };
    assert_eq!(message.text, "kept");
}

#[test]
fn response_beyond_the_limit_fails() {
    let mut projection = Projection::new(pb::ResponseSettings::default(), || 9);
    let half = "x".repeat(MAX_RESPONSE_BYTES / 2);
    let event = |text: &str| pb::ChatEvent {
        event: Some(Input::TextDelta(pb::TextDelta { text: text.to_owned() })),
        ..pb::ChatEvent::default()
    };
    projection.push(event(&half), &mut |_| {}).unwrap();
    projection.push(event(&half), &mut |_| {}).unwrap();
    assert!(projection.push(event("x"), &mut |_| {}).is_err());
}
