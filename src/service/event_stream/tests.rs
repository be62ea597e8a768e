//! Tests with a paused clock, which advances only to the next timer.

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;

use futures_util::{StreamExt, TryStreamExt};

use super::*;
use crate::service::json_answer::AnswerPlan;
use crate::{
    context::RequestContext,
    engine::{Events, Turn, TurnEvent},
    pb::FinishReason,
    service::{
        choice::ChoiceBuilder, choice_stream::USAGE_GRACE, output_filter::TextFilter,
        usage_estimate::UsageEstimate,
    },
};

const LIMIT: Duration = Duration::from_secs(100);

/// Sends the events of a turn.
type TurnSender = mpsc::Sender<Result<TurnEvent, Error>>;

fn started(limit: Duration, choices: usize) -> (Vec<TurnSender>, EventStream, CancellationToken) {
    let interrupt = CancellationToken::new();
    let turn = Turn::default();
    let has_siblings = choices > 1;
    let (turns, choices) = (0..choices)
        .map(|_| {
            let (sender, events) = mpsc::channel(4);
            let events = tokio_stream::wrappers::ReceiverStream::new(events);
            let builder = ChoiceBuilder::new(&turn, AnswerPlan::Text, TextFilter::new(false, &[], None));
            (
                sender,
                ChoiceStream::running(
                    Events::from_stream(events),
                    builder,
                    UsageEstimate::default(),
                    has_siblings,
                ),
            )
        })
        .unzip();
    let request = AdmittedRequest {
        log: TurnLog::new("id".into(), "m".into(), RequestContext::in_process(), 1),
        deadline: Deadline::new(Instant::now(), limit, &MetadataMap::new(), None).unwrap(),
        started: pb::Started::default(),
        choices,
        effects: Effects::default(),
        heartbeat: None,
        is_streamed: true,
        interrupt: interrupt.clone(),
        drain_token: TaskTracker::new().token(),
    };
    (turns, request.into_stream(), interrupt)
}

fn retry() -> TurnEvent {
    let notice = pb::Notice { kind: pb::notice::Kind::Retry.into(), message: "again".into() };
    TurnEvent::Notice(Box::new(notice))
}

fn finished(tokens: u64) -> TurnEvent {
    let usage = Some(pb::Usage { output_tokens: tokens, ..pb::Usage::default() });
    TurnEvent::Finished { reason: FinishReason::Stop, usage: usage.map(Box::new) }
}

async fn next(stream: &mut EventStream) -> Event {
    stream.next().await.unwrap().unwrap().event.unwrap()
}

#[tokio::test(start_paused = true)]
async fn event_stream_first_output_releases_the_delayed_head() {
    let (turns, mut stream, _interrupt) = started(LIMIT, 1);
    for event in [retry(), TurnEvent::Text("a".into()), finished(1)] {
        turns[0].try_send(Ok(event)).unwrap();
    }
    let events: Vec<_> = stream.by_ref().try_collect().await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.sequence_number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let events: Vec<_> = events.into_iter().filter_map(|event| event.event).collect();
    assert!(
        matches!(
            events.as_slice(),
            [
                Event::Started(_),
                Event::Notice(_),
                Event::TextDelta(_),
                Event::ChoiceFinished(_),
                Event::Completed(_)
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn event_stream_head_delay_ends_and_the_deadline_follows() {
    let (turns, mut stream, _interrupt) = started(LIMIT, 1);
    let start = Instant::now();
    turns[0].try_send(Ok(retry())).unwrap();
    assert!(matches!(next(&mut stream).await, Event::Started(_)));
    assert_eq!(start.elapsed(), HEAD_DELAY);
    assert!(matches!(next(&mut stream).await, Event::Notice(_)));
    turns[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    assert!(matches!(next(&mut stream).await, Event::TextDelta(_)));
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), start.elapsed()), (tonic::Code::DeadlineExceeded, LIMIT));
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn event_stream_deadline_before_the_head_fails_the_call() {
    let (turns, mut stream, _interrupt) = started(HEAD_DELAY / 2, 1);
    turns[0].try_send(Ok(retry())).unwrap();
    let start = Instant::now();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), start.elapsed()), (tonic::Code::DeadlineExceeded, HEAD_DELAY / 2));
}

#[tokio::test(start_paused = true)]
async fn event_stream_failure_before_the_head_fails_the_call_and_later_ends_the_stream() {
    let failure = || Err(Error::TurnFailed { message: "x".into() });
    let (turns, mut stream, _interrupt) = started(LIMIT, 1);
    turns[0].try_send(Ok(retry())).unwrap();
    turns[0].try_send(failure()).unwrap();
    assert!(stream.next().await.unwrap().is_err() && stream.next().await.is_none());

    let (turns, mut stream, _interrupt) = started(LIMIT, 1);
    turns[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    turns[0].try_send(failure()).unwrap();
    assert!(matches!(next(&mut stream).await, Event::Started(_)));
    assert!(matches!(next(&mut stream).await, Event::TextDelta(_)));
    assert!(stream.next().await.unwrap().is_err() && stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn event_stream_interrupt_takes_precedence_over_ready_events() {
    let (turns, mut stream, interrupt) = started(LIMIT, 1);
    turns[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    interrupt.cancel();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn event_stream_of_two_choices_keeps_arrival_order_and_adds_usage() {
    let (turns, mut stream, _interrupt) = started(LIMIT, 2);
    turns[1].try_send(Ok(TurnEvent::Text("b".into()))).unwrap();
    assert!(matches!(next(&mut stream).await, Event::Started(_)));
    let event = stream.next().await.unwrap().unwrap();
    assert_eq!((event.choice_index, event.sequence_number), (1, 1));
    turns[0].try_send(Ok(finished(2))).unwrap();
    turns[1].try_send(Ok(finished(3))).unwrap();
    let rest: Vec<_> = stream.try_collect().await.unwrap();
    let Some(Event::Completed(completed)) = &rest.last().unwrap().event else { panic!("{rest:?}") };
    assert_eq!((rest.len(), completed.usage.unwrap().output_tokens), (3, 5));
}

/// Returns a request with one choice, whose answer ends at the stop text `X`.
fn truncating(events: mpsc::Receiver<Result<TurnEvent, Error>>) -> AdmittedRequest {
    let builder =
        ChoiceBuilder::new(&Turn::default(), AnswerPlan::Text, TextFilter::new(false, &["X".into()], None));
    let events = tokio_stream::wrappers::ReceiverStream::new(events);
    AdmittedRequest {
        log: TurnLog::new("id".into(), "m".into(), RequestContext::in_process(), 1),
        deadline: Deadline::new(Instant::now(), LIMIT, &MetadataMap::new(), None).unwrap(),
        started: pb::Started::default(),
        choices: vec![ChoiceStream::running(
            Events::from_stream(events),
            builder,
            UsageEstimate::default(),
            false,
        )],
        effects: Effects::default(),
        heartbeat: None,
        is_streamed: true,
        interrupt: CancellationToken::new(),
        drain_token: TaskTracker::new().token(),
    }
}

#[tokio::test(start_paused = true)]
async fn event_stream_truncated_answer_waits_for_the_usage_up_to_the_grace() {
    let (sender, events) = mpsc::channel(4);
    let stream = truncating(events).into_stream();
    let start = Instant::now();
    sender.try_send(Ok(TurnEvent::Text("aX".into()))).unwrap();
    let events: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!((events.len(), start.elapsed()), (4, USAGE_GRACE));
    let Some(Event::Completed(completed)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let usage = completed.usage.unwrap();
    assert!(usage.estimated && usage.output_tokens == 1, "{usage:?}");
    assert!(sender.is_closed());

    let (sender, events) = mpsc::channel(4);
    let stream = truncating(events).into_stream();
    sender.try_send(Ok(TurnEvent::Text("aX".into()))).unwrap();
    sender.try_send(Ok(finished(3))).unwrap();
    let events: Vec<_> = stream.try_collect().await.unwrap();
    let Some(Event::Completed(completed)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let usage = completed.usage.unwrap();
    assert!(!usage.estimated && usage.output_tokens == 3, "{usage:?}");
}

#[tokio::test(start_paused = true)]
async fn event_stream_turn_without_a_usage_has_an_estimate() {
    for reason in [FinishReason::Stop, FinishReason::ContentFilter, FinishReason::Length] {
        let (turns, stream, _interrupt) = started(LIMIT, 2);
        turns[0].try_send(Ok(TurnEvent::Text("one two".into()))).unwrap();
        turns[0].try_send(Ok(TurnEvent::Finished { reason, usage: None })).unwrap();
        turns[1].try_send(Ok(finished(3))).unwrap();
        let events: Vec<_> = stream.try_collect().await.unwrap();
        let Some(Event::Completed(completed)) = &events.last().unwrap().event else { panic!("{events:?}") };
        let usage = completed.usage.unwrap();
        assert!(usage.estimated && usage.output_tokens == 2 + 3, "{usage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn event_stream_last_item_drops_the_turns_before_the_stream_is_dropped() {
    let (turns, mut stream, interrupt) = started(LIMIT, 2);
    turns[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    assert!(matches!(next(&mut stream).await, Event::Started(_)));
    assert!(matches!(next(&mut stream).await, Event::TextDelta(_)));
    interrupt.cancel();
    assert!(stream.next().await.unwrap().is_err());
    assert!(turns.iter().all(mpsc::Sender::is_closed));
}

#[tokio::test(start_paused = true)]
async fn event_stream_ready_choice_does_not_starve_the_other() {
    let (turns, mut stream, _interrupt) = started(LIMIT, 2);
    for _ in 0..4 {
        turns[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    }
    turns[1].try_send(Ok(TurnEvent::Text("b".into()))).unwrap();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(stream.next().await.unwrap().unwrap().choice_index);
    }
    assert_eq!(order, [0, 0, 1, 0]);
}

#[tokio::test]
async fn event_stream_with_endless_events_yields_to_other_tasks() {
    let events = futures_util::stream::repeat_with(|| Ok(TurnEvent::Text("a".into())));
    let (_, unused) = mpsc::channel(1);
    let mut request = truncating(unused);
    let builder = ChoiceBuilder::new(&Turn::default(), AnswerPlan::Text, TextFilter::new(false, &[], None));
    request.choices =
        vec![ChoiceStream::running(Events::from_stream(events), builder, UsageEstimate::default(), false)];
    let mut stream = request.into_stream();
    let other = async { "other" };
    let endless = async { while stream.next().await.is_some() {} };
    tokio::select! {
        biased;
        () = endless => panic!("the stream has no end"),
        name = other => assert_eq!(name, "other"),
    }
}

fn is_heartbeat(event: &pb::ChatEvent) -> bool {
    matches!(event.event, Some(Event::Heartbeat(_)))
}

#[tokio::test(start_paused = true)]
async fn event_stream_silence_has_heartbeats_with_numbers() {
    let (sender, events) = mpsc::channel(4);
    let mut request = truncating(events);
    request.heartbeat = Some(Duration::from_secs(30));
    let mut stream = request.into_stream();
    sender.try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    let start = Instant::now();
    let mut numbers = Vec::new();
    for (seconds, is_silence) in [(0, false), (0, false), (30, true), (60, true)] {
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!((start.elapsed().as_secs(), is_heartbeat(&event)), (seconds, is_silence));
        numbers.push(event.sequence_number);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    sender.try_send(Ok(TurnEvent::Text("b".into()))).unwrap();
    numbers.push(stream.next().await.unwrap().unwrap().sequence_number);
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    // The deadline ends the stream before the next heartbeat, due at 110 s.
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), start.elapsed()), (tonic::Code::DeadlineExceeded, LIMIT));
}

#[tokio::test(start_paused = true)]
async fn event_stream_failure_after_effects_forbids_retries() {
    for (acted, code) in [(false, tonic::Code::Unavailable), (true, tonic::Code::Aborted)] {
        let (sender, events) = mpsc::channel(4);
        let request = truncating(events);
        let (effects, interrupt) = (request.effects.clone(), request.interrupt.clone());
        let mut stream = request.into_stream();
        sender.try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
        assert!(matches!(next(&mut stream).await, Event::Started(_)));
        assert!(matches!(next(&mut stream).await, Event::TextDelta(_)));
        if acted {
            // The engine knows of the action before the stream yields its event.
            effects.record();
        }
        interrupt.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), code);
    }
}
