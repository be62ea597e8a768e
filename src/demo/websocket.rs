//! The Responses API over a WebSocket: text frames `response.create` of the client, the events of the responses as text
//! frames of the server, one response after the other.

use std::{collections::VecDeque, io, iter, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{
        State as Shared,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
        },
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    answer::{self, Answer, Received, Refusal},
    plan::{self, Act, Acts},
    record::{Open, State, Transport, Upgrade},
    request, routes,
    script::{Ending, Step},
};

/// Maximum number of earlier responses of a connection that a request can continue.
const MAX_KNOWN: usize = 8;
/// Maximum number of requests that wait for the end of a response.
const MAX_WAITING: usize = 8;
/// Time that the client has to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const NORMAL: u16 = 1000;
const UNSUPPORTED: u16 = 1003;
const POLICY: u16 = 1008;

/// The TCP connection behind a request, for ends that HTTP and WebSockets do not have.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Socket>);

#[derive(Debug)]
struct Socket {
    /// A second descriptor of the socket, because hyper owns the first.
    tcp: socket2::Socket,
    closing: CancellationToken,
    /// Dropped with the last user of the connection.
    _open: oneshot::Sender<()>,
}

/// The end of a connection's task ends its WebSocket.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    _closing: DropGuard,
    closed: oneshot::Receiver<()>,
}

impl Connection {
    pub(super) fn new(stream: &TcpStream) -> io::Result<(Self, ConnectionGuard)> {
        let (closing, (open, closed)) = (CancellationToken::new(), oneshot::channel());
        let guard = ConnectionGuard { _closing: closing.clone().drop_guard(), closed };
        let tcp = socket2::SockRef::from(stream).try_clone()?;
        Ok((Self(Arc::new(Socket { tcp, closing, _open: open })), guard))
    }

    /// Closes the connection in both directions.
    fn shut_down(&self) {
        // The client may have closed it already.
        let _ = self.0.tcp.shutdown(std::net::Shutdown::Both);
    }

    /// Makes the close of the last descriptor a TCP reset.
    fn reset_on_close(&self) {
        if let Err(error) = self.0.tcp.set_linger(Some(Duration::ZERO)) {
            tracing::warn!(%error, "scripted upstream cannot reset a connection");
        }
    }
}

impl ConnectionGuard {
    /// Completes when the connection has no user, which for a WebSocket is its end.
    pub(super) async fn websocket_closed(self) {
        // The sender is dropped and never sends.
        let _ = self.closed.await;
    }
}

/// Answers an upgrade as the upstream is told.
pub(super) async fn upgrade(
    Shared(state): Shared<Arc<State>>,
    connection: Option<Extension<Connection>>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let (Ok(upgrade), Some(Extension(connection))) = (upgrade, connection) else {
        return routes::unknown(method, uri).await;
    };
    let close = match state.next_upgrade() {
        Upgrade::Accept => None,
        Upgrade::Close(code) => Some(code),
        Upgrade::Refuse(status) => {
            return Refusal::new(status, "scripted", "the upgrade is refused").into_response();
        }
        Upgrade::Drop => {
            connection.shut_down();
            return std::future::pending().await;
        }
        Upgrade::Hang => return std::future::pending().await,
    };
    let upgrade = upgrade.max_message_size(routes::MAX_BODY_BYTES).max_frame_size(routes::MAX_BODY_BYTES);
    upgrade.on_upgrade(async move |mut socket| {
        let closing = connection.0.closing.clone();
        let served = async {
            match close {
                Some(code) => self::close(&mut socket, code).await,
                None => {
                    Session { state, headers, connection, known: VecDeque::new() }.serve(&mut socket).await
                }
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = served => {}
        }
    })
}

/// Sends a close frame and waits for the client's.
async fn close(socket: &mut WebSocket, code: u16) {
    let frame = CloseFrame { code, reason: "closed by the script".into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(CLOSE_TIMEOUT, answered).await;
    }
}

/// One WebSocket.
struct Session {
    state: Arc<State>,
    headers: HeaderMap,
    connection: Connection,
    /// The last responses, oldest first.
    known: VecDeque<Known>,
}

/// A response that a request can continue.
struct Known {
    id: String,
    /// The items of the conversation, output included.
    items: Vec<Value>,
    /// Bytes of the requests behind the response.
    size: usize,
}

impl Session {
    async fn serve(mut self, socket: &mut WebSocket) {
        let mut waiting: VecDeque<_> = VecDeque::new();
        let mut playing: Option<Player> = None;
        loop {
            if playing.is_none() {
                playing = waiting.pop_front().map(|text: Utf8Bytes| self.begin(&text));
            }
            let next = async {
                match &mut playing {
                    Some(player) => player.next().await,
                    None => std::future::pending().await,
                }
            };
            let output = tokio::select! {
                // A client cancels a response only by closing the connection.
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) if waiting.len() < MAX_WAITING => {
                        waiting.push_back(text);
                        continue;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Text(_))) => Output::Close(POLICY),
                    Some(Ok(Message::Binary(_))) => Output::Close(UNSUPPORTED),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
                output = next => output,
            };
            match output {
                Output::Frame(frame) => {
                    if socket.send(Message::Text(frame.to_string().into())).await.is_err() {
                        return;
                    }
                }
                Output::Done => self.remember(playing.take()),
                Output::Close(code) => return close(socket, code).await,
                Output::Break => return,
                Output::Reset => return self.connection.reset_on_close(),
            }
        }
    }

    /// Starts the response to a frame.
    fn begin(&self, text: &str) -> Player {
        let (open, number) = (Open::new(Arc::clone(&self.state)), self.state.next_number());
        let mut player = Player { number, ..Player::new(open) };
        if let Err(refusal) = self.answer(text, &mut player) {
            let status = refusal.status.as_u16();
            player.instead =
                Some(Output::Frame(json!({"type": "error", "status": status, "error": refusal.error})));
        }
        player
    }

    fn answer(&self, text: &str, player: &mut Player) -> Result<(), Refusal> {
        let mut body: Value = serde_json::from_str(text).map_err(|reason| {
            Refusal::bad_request("invalid_json", &format!("the frame is not JSON: {reason}"))
        })?;
        let kind = body.as_object_mut().and_then(|fields| fields.shift_remove("type")).unwrap_or_default();
        if kind != "response.create" {
            let message = format!("the scripted upstream has no frame of type {kind}");
            return Err(Refusal::bad_request("invalid_value", &message).param("type"));
        }
        player.size = text.len();
        if let Some(id) = body["previous_response_id"].as_str() {
            let Some(previous) = self.known.iter().find(|known| known.id == id) else {
                let message = format!("Previous response with id '{id}' not found.");
                let refusal = Refusal::bad_request("previous_response_not_found", &message);
                return Err(refusal.param("previous_response_id"));
            };
            player.size += previous.size;
            player.items.clone_from(&previous.items);
        }
        player.items.extend(request::items(&body["input"]));
        body["input"] = Value::Array(player.items.clone());
        let (transport, headers) = (Transport::WebSocket, &self.headers);
        let received = Received { transport, headers, size: player.size, body };
        let Answer { step, acts } = answer::answer(&self.state, received, player.number)?;
        player.acts = acts;
        player.play(step)
    }

    /// Keeps a response for requests that continue it.
    fn remember(&mut self, player: Option<Player>) {
        let Some(Player { number, items, size, succeeded: true, .. }) = player else { return };
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back(Known { id: plan::response_id(number), items, size });
    }
}

/// What a response does next.
enum Output {
    Frame(Value),
    /// The response is over.
    Done,
    /// Close the WebSocket with a code.
    Close(u16),
    /// Close the TCP connection.
    Break,
    /// Reset the TCP connection.
    Reset,
}

impl From<Ending> for Output {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Close(code) => Self::Close(code),
            Ending::Reset(true) => Self::Reset,
            Ending::Reset(false) => Self::Break,
            Ending::Frame(frame) => Self::Frame(Value::Object(frame)),
        }
    }
}

/// Plays the acts of one response.
struct Player {
    number: u64,
    /// The conversation, with the output so far.
    items: Vec<Value>,
    size: usize,
    acts: Acts,
    sequence: u64,
    /// The end of the current pause.
    until: Option<Instant>,
    /// The event before the first act.
    limits: Option<Value>,
    /// Replaces the acts.
    instead: Option<Output>,
    /// Replaces the cut.
    at_cut: Option<Ending>,
    /// Whether an end of the response was sent.
    ended: bool,
    /// Whether that end lets requests continue it.
    succeeded: bool,
    _open: Open,
}

impl Player {
    fn new(open: Open) -> Self {
        Self {
            number: 0,
            items: Vec::new(),
            size: 0,
            acts: Box::new(iter::empty()),
            sequence: 0,
            until: None,
            limits: None,
            instead: None,
            at_cut: None,
            ended: false,
            succeeded: false,
            _open: open,
        }
    }

    /// Applies the keys of a step that replace or delay its acts.
    fn play(&mut self, step: Step) -> Result<(), Refusal> {
        let pause = Duration::from_millis(step.hang_before_ms);
        self.until = (!pause.is_zero()).then(|| Instant::now() + pause);
        let is_cut = step.cut_after.is_some() || step.cut_after_events.is_some();
        if let Some((status, body)) = answer::refusal(&step)? {
            let mut frame = json!({"type": "error", "status": status.as_u16()});
            match body {
                Value::Object(fields) => fields.into_iter().for_each(|(key, value)| frame[key] = value),
                text => frame["error"] = json!({"message": text}),
            }
            let headers = answer::headers(&step);
            if !headers.is_empty() {
                frame["headers"] = json!(headers);
            }
            self.instead = Some(Output::Frame(frame));
        } else if is_cut {
            self.at_cut = step.ws;
        } else {
            self.instead = step.ws.map(Output::from);
        }
        self.limits = step.rate_limits.map(|limits| limits.event());
        Ok(())
    }

    /// Waits for the next output. Cancel safe.
    async fn next(&mut self) -> Output {
        loop {
            if let Some(until) = self.until {
                sleep_until(until).await;
                self.until = None;
            }
            if let Some(instead) = self.instead.take() {
                return self.end_with(instead);
            }
            if let Some(limits) = self.limits.take() {
                return Output::Frame(limits);
            }
            match self.acts.next() {
                Some(Act::Event(name, data)) => {
                    if name == plan::DONE {
                        self.items.push(data["item"].clone());
                    }
                    self.ended = plan::is_end(name);
                    self.succeeded = self.ended && name != "response.failed";
                    return Output::Frame(plan::numbered(name, data, &mut self.sequence));
                }
                Some(Act::Pause(time)) => self.until = Some(Instant::now() + time),
                Some(Act::Cut) => {
                    let ending = self.at_cut.take().map_or(Output::Break, Output::from);
                    return self.end_with(ending);
                }
                None if self.ended => return Output::Done,
                None => return Output::Close(NORMAL),
            }
        }
    }

    fn end_with(&mut self, last: Output) -> Output {
        self.acts = Box::new(iter::empty());
        (self.limits, self.ended) = (None, true);
        last
    }
}

#[cfg(test)]
mod tests;
