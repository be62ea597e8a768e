//! Clocks are paused and move on only to the next timer.

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;

use super::*;
use crate::{
    context::RequestContext,
    engine::{Turn, TurnEvent},
    pb::FinishReason,
    service::output_filter::TextFilter,
};

const LIMIT: Duration = Duration::from_secs(100);

/// Where the turn of a request says what happens.
type Mouth = mpsc::Sender<Result<TurnEvent, Error>>;

fn begun(limit: Duration, choices: usize) -> (Vec<Mouth>, EventStream, CancellationToken) {
    let stop = CancellationToken::new();
    let turn = Turn::default();
    let (mouths, choices) = (0..choices)
        .map(|_| {
            let (mouth, events) = mpsc::channel(4);
            let events = tokio_stream::wrappers::ReceiverStream::new(events);
            let answer = ChoiceBuilder::new(&turn, TextFilter::new(false, &[], None));
            (mouth, Choice { events: Box::pin(events), answer })
        })
        .unzip();
    let running = StartedRequest {
        account: TurnLog::new("id".into(), "m".into(), RequestContext::in_process(), 1),
        deadline: Deadline::new(Instant::now(), limit, &MetadataMap::new(), None).unwrap(),
        started: pb::Started::default(),
        choices,
        stop: stop.clone(),
        presence: TaskTracker::new().token(),
    };
    (mouths, running.run(), stop)
}

fn retry() -> TurnEvent {
    TurnEvent::Notice(pb::Notice { kind: pb::notice::Kind::Retry.into(), message: "again".into() })
}

fn finished(tokens: u64) -> TurnEvent {
    let usage = Some(pb::Usage { output_tokens: tokens, ..pb::Usage::default() });
    TurnEvent::Finished { reason: FinishReason::Stop, usage }
}

async fn next(running: &mut EventStream) -> Event {
    running.next().await.unwrap().unwrap().event.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_told_with_the_first_sign_of_the_model() {
    let (mouths, mut running, _stop) = begun(LIMIT, 1);
    for event in [retry(), TurnEvent::Text("a".into()), finished(1)] {
        mouths[0].try_send(Ok(event)).unwrap();
    }
    let events: Vec<_> = running.by_ref().try_collect().await.unwrap();
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
async fn nothing_is_held_back_for_ever_and_the_deadline_holds_behind_it() {
    let (mouths, mut running, _stop) = begun(LIMIT, 1);
    let start = Instant::now();
    mouths[0].try_send(Ok(retry())).unwrap();
    assert!(matches!(next(&mut running).await, Event::Started(_)));
    assert_eq!(start.elapsed(), HELD_BACK);
    assert!(matches!(next(&mut running).await, Event::Notice(_)));
    mouths[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    assert!(matches!(next(&mut running).await, Event::TextDelta(_)));
    let status = running.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), start.elapsed()), (tonic::Code::DeadlineExceeded, LIMIT));
    assert!(running.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_that_is_an_error_of_the_call() {
    let (mouths, mut running, _stop) = begun(HELD_BACK / 2, 1);
    mouths[0].try_send(Ok(retry())).unwrap();
    let start = Instant::now();
    let status = running.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), start.elapsed()), (tonic::Code::DeadlineExceeded, HELD_BACK / 2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_sign_is_one_of_the_call_and_later_ends_the_stream() {
    let failure = || Err(Error::TurnFailed { message: "x".into() });
    let (mouths, mut running, _stop) = begun(LIMIT, 1);
    mouths[0].try_send(Ok(retry())).unwrap();
    mouths[0].try_send(failure()).unwrap();
    assert!(running.next().await.unwrap().is_err() && running.next().await.is_none());

    let (mouths, mut running, _stop) = begun(LIMIT, 1);
    mouths[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    mouths[0].try_send(failure()).unwrap();
    assert!(matches!(next(&mut running).await, Event::Started(_)));
    assert!(matches!(next(&mut running).await, Event::TextDelta(_)));
    assert!(running.next().await.unwrap().is_err() && running.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_patience_wins_over_what_is_said() {
    let (mouths, mut running, stop) = begun(LIMIT, 1);
    mouths[0].try_send(Ok(TurnEvent::Text("a".into()))).unwrap();
    stop.cancel();
    let status = running.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn choices_are_told_as_they_come_and_their_usage_is_added() {
    let (mouths, mut running, _stop) = begun(LIMIT, 2);
    mouths[1].try_send(Ok(TurnEvent::Text("b".into()))).unwrap();
    assert!(matches!(next(&mut running).await, Event::Started(_)));
    let event = running.next().await.unwrap().unwrap();
    assert_eq!((event.choice_index, event.sequence_number), (1, 1));
    mouths[0].try_send(Ok(finished(2))).unwrap();
    mouths[1].try_send(Ok(finished(3))).unwrap();
    let rest: Vec<_> = running.try_collect().await.unwrap();
    let Some(Event::Completed(completed)) = &rest.last().unwrap().event else { panic!("{rest:?}") };
    assert_eq!((rest.len(), completed.usage.unwrap().output_tokens), (3, 5));
}
