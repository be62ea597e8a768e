//! The Responses API over a WebSocket: text frames `response.create` of the client, the events of the responses as text
//! frames of the server, one response after the other.

mod player;

use std::{collections::VecDeque, sync::Arc, time::Duration};

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
use tokio::time::timeout;

use self::player::{Output, Player};
use super::{
    answer::{self, Answer, Received, Refusal},
    connection::Connection,
    plan,
    record::{Open, State, Transport, Upgrade, WebSocketEnd},
    request, routes,
};

/// Maximum number of earlier responses of a connection that a request can continue.
const MAX_KNOWN: usize = 8;
/// Maximum number of requests that wait for the end of a response.
const MAX_WAITING: usize = 8;
/// Time that the client has to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const UNSUPPORTED: u16 = 1003;
const POLICY: u16 = 1008;

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
        let alive = connection.clone();
        let mut ends = state.websocket_end();
        let served = async {
            match close {
                Some(code) => self::close(&mut socket, code).await,
                None => {
                    Session { state, headers, connection, known: VecDeque::new() }.serve(&mut socket).await;
                }
            }
        };
        tokio::select! {
            () = alive.closing() => {}
            () = served => {}
            Ok(()) = ends.changed() => {
                let end = *ends.borrow_and_update();
                tokio::select! {
                    () = alive.closing() => {}
                    () = end_with(end, &mut socket, &alive) => {}
                }
            }
        }
    })
}

/// Ends a WebSocket in the middle of its work.
async fn end_with(end: Option<WebSocketEnd>, socket: &mut WebSocket, connection: &Connection) {
    match end {
        Some(WebSocketEnd::Close(code)) => close(socket, code).await,
        Some(WebSocketEnd::Reset) => connection.reset_on_close(),
        Some(WebSocketEnd::Silence) => while let Some(Ok(_)) = socket.recv().await {},
        None => {}
    }
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
        let mut player = Player::new(number, open);
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

#[cfg(test)]
mod tests;
