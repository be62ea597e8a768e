//! Reads the messages of a running turn and forwards its events.

use std::{
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc::error::TrySendError,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    RunningTurn, TurnDriver, TurnIds,
    errors::{oversized_line_error, slow_consumer_error, worker_lost_error},
    interrupt,
    live_thread::LiveThread,
    start::TurnStart,
};
use crate::{
    engine::{
        EventSender, TurnEvent,
        app_server::{
            history::turn_cache::ParkingGuard,
            rpc::{
                client::RpcClient,
                protocol::{Notification, RequestId, ToolCallResult},
                thread_queue::{ThreadMessage, ThreadReceiver},
            },
            tools::validate_calls,
            translate::{
                Input, Translator,
                output::{Action, HandOver, TranslatorOutput},
            },
            worker::lease::WorkerLease,
        },
        cli::{error_messages, thread_transport::ThreadTransport},
    },
    error::Error,
    pb::{self, FinishReason},
};

/// The state of a turn whose messages are no longer read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnState {
    Completed,
    /// The turn must be interrupted.
    Active,
    /// The turn must be interrupted and should run on a fresh thread, because its connection is probably lost.
    Silent,
    /// The client has calls, and the turn waits for their results.
    Parked,
    WorkerLost,
}

/// The result of reading a turn.
pub(super) struct TurnOutcome {
    pub(super) state: TurnState,
    /// The error to send to the client. `None` if the client received the end of the turn or has left.
    pub(super) error: Option<Error>,
    /// The calls of a parked turn.
    pub(super) parked: Option<(Vec<pb::ToolCall>, ParkingGuard)>,
}

impl TurnOutcome {
    fn new(state: TurnState, result: Result<(), Error>) -> Self {
        Self { state, error: result.err(), parked: None }
    }

    /// Returns the result of a turn whose reader panicked.
    pub(super) fn panicked() -> Self {
        Self::new(TurnState::Active, Err(Error::internal("the task of the turn panicked")))
    }
}

impl TurnDriver {
    /// Forwards events until the turn completes or is cancelled.
    ///
    /// Drops `start` at the first output of the turn, because the turn cannot run again then.
    ///
    /// Creates the cancel future once and polls this future only when no message is queued, so that each delta is cheap.
    pub(super) async fn stream(
        &mut self,
        lease: &WorkerLease,
        thread: &mut LiveThread,
        running: &mut RunningTurn,
        start: &mut Option<Box<TurnStart>>,
        events: &EventSender,
    ) -> TurnOutcome {
        let RunningTurn { id, translator } = running;
        let stop = self.parts.stop.clone();
        let mut cancelled = pin!(cancelled_or_expired(events, &stop, self.deadline));
        for event in std::mem::take(&mut self.pending_events) {
            if let ControlFlow::Break(result) =
                send(events, event, &thread.receiver, cancelled.as_mut()).await
            {
                return TurnOutcome::new(TurnState::Active, result);
            }
        }
        let mut first_event = self.first_event_deadline(thread, start.as_deref());
        loop {
            // Messages have precedence, but other tasks of the thread must run too.
            tokio::task::consume_budget().await;
            let message = tokio::select! {
                biased;
                message = thread.receiver.recv() => Some(message),
                result = &mut cancelled => return TurnOutcome::new(TurnState::Active, result),
                () = expire(after(translator.idle_timeout())) => None,
                () = expire(first_event) => return TurnOutcome::new(TurnState::Silent, Ok(())),
            };
            if message.as_ref().is_some_and(shows_response) {
                first_event = None;
            }
            if let Some(ThreadMessage::Notification(Notification::Warning(warning))) = &message
                && error_messages::is_transport_fallback(&warning.message)
            {
                // Without retries Codex falls back as soon as a used connection is lost, which is no refusal.
                if !thread.is_continued || self.parts.max_retries > 0 {
                    lease.spec.transport.record_fallback(Instant::now());
                }
                thread.transport = ThreadTransport::Https;
            }
            let ends_response =
                matches!(message, Some(ThreadMessage::Notification(Notification::RawResponseCompleted(_))));
            let (state, output) = translate(translator, message);
            let mut output = match output {
                Ok(output) => output,
                Err(error) => return TurnOutcome::new(state, Err(error)),
            };
            if output.begins_action {
                self.effects.record();
            }
            if start.is_some() && (ends_response || output.is_progress()) {
                *start = None;
            }
            if let Action::Validate(calls) = output.action {
                let verdicts = tokio::select! {
                    verdicts = Box::pin(validate_calls::validate(Arc::clone(&self.tools), calls)) => verdicts,
                    result = &mut cancelled => return TurnOutcome::new(state, result),
                };
                output = match verdicts.and_then(|verdicts| translator.push(Input::Verdicts(verdicts))) {
                    Ok(output) => output,
                    Err(error) => return TurnOutcome::new(state, Err(error)),
                };
            }
            let started = TurnEvent::MessageStarted { is_final: output.is_final };
            let started = output.starts_message.then_some(started);
            for event in started.into_iter().chain(output.event) {
                self.effects.record_event(&event);
                match &event {
                    TurnEvent::Text(text) => thread.history_bytes += text.len(),
                    // The thread has the answer as the model wrote it.
                    TurnEvent::Finished { reason: FinishReason::Stop | FinishReason::Length, .. }
                        if state == TurnState::Completed =>
                    {
                        self.offer(thread, false);
                    }
                    TurnEvent::Finished { .. }
                    | TurnEvent::MessageStarted { .. }
                    | TurnEvent::Reasoning(_)
                    | TurnEvent::ToolCall(_)
                    | TurnEvent::Item(_)
                    | TurnEvent::Notice(_) => {}
                }
                if let ControlFlow::Break(result) =
                    send(events, event, &thread.receiver, cancelled.as_mut()).await
                {
                    return TurnOutcome::new(state, result);
                }
            }
            match output.action {
                // Verdicts never lead to another validation.
                Action::Continue | Action::Validate(_) => {}
                Action::Respond(results) => Box::pin(respond(&lease.rpc, results)).await,
                // A worker that ignores the interrupt is detected after the hand-over.
                Action::Interrupt => {
                    let ids = TurnIds { thread: &thread.id, turn: id };
                    drop(Box::pin(interrupt(&lease.rpc, ids, self.interrupt_timeout())).await);
                }
                // The turn is cached before its last events are sent, because the client's next request may follow at once.
                Action::HandOver(mut hand_over) => {
                    let items = std::mem::take(&mut hand_over.items);
                    self.parts.cache.insert(self.cache_key, &hand_over.calls, items);
                    let sent = hand_over_calls(*hand_over, events, &thread.receiver, cancelled.as_mut());
                    return TurnOutcome::new(state, Box::pin(sent).await);
                }
                Action::Park(mut hand_over) => {
                    let items = std::mem::take(&mut hand_over.items);
                    let parking = self.parts.cache.insert_parked(self.cache_key, &hand_over.calls, items);
                    self.offer(thread, true);
                    let parked = Some((hand_over.calls.clone(), parking.guard()));
                    let sent = hand_over_calls(*hand_over, events, &thread.receiver, cancelled.as_mut());
                    let sent = Box::pin(sent).await;
                    return TurnOutcome { parked, ..TurnOutcome::new(TurnState::Parked, sent) };
                }
                Action::Complete => return TurnOutcome::new(state, Ok(())),
            }
        }
    }

    /// Returns the time at which the turn should start over if no response has begun. `None` if the turn cannot start over,
    /// or has no connection that may have been lost since its thread's last turn.
    fn first_event_deadline(&self, thread: &LiveThread, start: Option<&TurnStart>) -> Option<Instant> {
        let start = start.filter(|start| start.can_start_thread())?;
        if !thread.is_continued || self.effects.have_begun() {
            return None;
        }
        let timeout = thread.transport.first_event_timeout(start.turn.service_tier.as_deref())?;
        Some(Instant::now() + timeout)
    }
}

/// Sends the last events of a request that ends with calls.
async fn hand_over_calls(
    hand_over: HandOver,
    events: &EventSender,
    receiver: &ThreadReceiver,
    mut cancelled: Pin<&mut impl Future<Output = Result<(), Error>>>,
) -> Result<(), Error> {
    for event in hand_over.into_events() {
        if let ControlFlow::Break(result) = send(events, event, receiver, cancelled.as_mut()).await {
            return result;
        }
    }
    Ok(())
}

/// Sends an event. Returns `Break` if the turn must end, because the client left, the turn was cancelled, or the client
/// reads too slowly.
async fn send(
    events: &EventSender,
    event: TurnEvent,
    receiver: &ThreadReceiver,
    cancelled: Pin<&mut impl Future<Output = Result<(), Error>>>,
) -> ControlFlow<Result<(), Error>> {
    let event = match events.try_send(Ok(event)) {
        Ok(()) => return ControlFlow::Continue(()),
        Err(TrySendError::Closed(_)) => return ControlFlow::Break(Ok(())),
        Err(TrySendError::Full(event)) => event,
    };
    tokio::select! {
        sent = Box::pin(events.send(event)) => match sent {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(Ok(())),
        },
        result = cancelled => ControlFlow::Break(result),
        () = Box::pin(receiver.overflow()) => ControlFlow::Break(Err(slow_consumer_error())),
    }
}

/// Translates a message, or an idle timeout if `message` is `None`. Also returns the state of the turn afterwards.
fn translate(
    translator: &mut Translator,
    message: Option<ThreadMessage>,
) -> (TurnState, Result<TranslatorOutput, Error>) {
    let input = match message {
        Some(ThreadMessage::Delta(delta)) => Input::Delta(delta),
        Some(ThreadMessage::Notification(notification)) => {
            let completed = matches!(notification, Notification::TurnCompleted(_));
            let state = if completed { TurnState::Completed } else { TurnState::Active };
            return (state, translator.push(Input::Notification(notification)));
        }
        Some(ThreadMessage::ToolCall(call)) => Input::ToolRequest(call),
        Some(ThreadMessage::Closed(reason)) => {
            return (TurnState::WorkerLost, Err(worker_lost_error(reason)));
        }
        Some(ThreadMessage::Overflow) => return (TurnState::Active, Err(slow_consumer_error())),
        Some(ThreadMessage::TooLong { limit }) => {
            return (TurnState::Active, Err(oversized_line_error(limit)));
        }
        None => Input::Idle,
    };
    (TurnState::Active, translator.push(input))
}

/// Sends results of calls to Codex.
pub(super) async fn respond(rpc: &RpcClient, results: Vec<(RequestId, ToolCallResult)>) {
    for (request, result) in results {
        rpc.respond(&request, &result).await;
    }
}

/// Completes when the turn must end, because the client left, the server stops, or the deadline expired. Returns the error that
/// the engine reports to the client, if any.
async fn cancelled_or_expired(
    events: &EventSender,
    stop: &CancellationToken,
    deadline: Option<Instant>,
) -> Result<(), Error> {
    tokio::select! {
        () = events.closed() => Ok(()),
        () = stop.cancelled() => Err(Error::Draining),
        // The service reports the deadline.
        () = sleep_until_deadline(deadline) => Ok(()),
    }
}

async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns `true` if the upstream has begun its response, or if Codex has noticed that it will not.
const fn shows_response(message: &ThreadMessage) -> bool {
    match message {
        ThreadMessage::Notification(notification) => match notification {
            Notification::ItemStarted(_)
            | Notification::ReasoningSummaryPartAdded(_)
            | Notification::PlanUpdated(_)
            | Notification::Warning(_)
            | Notification::Error(_)
            | Notification::RawResponseCompleted(_)
            | Notification::TurnCompleted(_) => true,
            // Codex reports the items that the turn begins with, too.
            Notification::ItemCompleted(_)
            | Notification::RawResponseItemCompleted(_)
            | Notification::ThreadUsageUpdated(_)
            | Notification::Unknown => false,
        },
        ThreadMessage::Delta(_)
        | ThreadMessage::ToolCall(_)
        | ThreadMessage::Overflow
        | ThreadMessage::TooLong { .. }
        | ThreadMessage::Closed(_) => true,
    }
}

/// Completes at `time`, or never if `time` is `None`. Boxes the timer, because few turns need one.
async fn expire(time: Option<Instant>) {
    match time {
        Some(time) => Box::pin(sleep_until(time)).await,
        None => std::future::pending().await,
    }
}

/// Returns the time after `duration`.
fn after(duration: Option<Duration>) -> Option<Instant> {
    duration.map(|duration| Instant::now() + duration)
}
