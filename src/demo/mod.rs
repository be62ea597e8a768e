//! The scripted upstream: a small OpenAI Responses API in this process, used as the upstream of the real Codex CLI. It
//! serves `serve --demo`, which needs no account, tests with the real CLI, and the capability probe. `script::Step` and
//! `docs/scripted-upstream.md` describe its directives.

mod answer;
mod connection;
mod content;
mod plan;
mod record;
mod request;
mod routes;
mod schema;
mod script;
mod sse;
mod strict_schema;
mod websocket;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub use self::record::{Recorded, Transport, Upgrade, WebSocketEnd};
use self::{connection::Connection, record::State};

/// Maximum number of open connections. Further connections wait in the listen queue. Codex opens one per model call.
const MAX_CONNECTIONS: usize = 4096;

/// The scripted upstream, listening on loopback. Dropping it closes the port and all connections at once.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    /// Owns the accept loop, which owns the connections.
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, routes::router(Arc::clone(&state))));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// Returns the `base_url` for Codex's provider, `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Selects the answer to the next upgrades to a WebSocket. Open WebSockets stay open.
    pub fn set_upgrade(&self, upgrade: Upgrade) {
        self.state.set_upgrade(upgrade);
    }

    /// Ends the open WebSockets. Later ones are served as usual.
    pub fn end_websockets(&self, end: WebSocketEnd) {
        self.state.end_websockets(end);
    }

    /// Returns the number of attempts to upgrade.
    pub fn upgrades(&self) -> usize {
        self.state.upgrades()
    }

    /// Sets the entries of Codex's own model list. Their ETag changes with them. By default the list is empty.
    pub fn set_models(&self, models: Vec<Value>) {
        self.state.set_models(models);
    }

    /// Returns the last requests, oldest first: at most 256, fewer if they are large.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.recorded()
    }

    /// Removes the recorded requests, the counters of `times` and the number of upgrades.
    pub fn clear(&self) {
        self.state.clear();
    }

    /// Returns the number of open responses, including those that wait before their headers.
    pub fn open_responses(&self) -> usize {
        self.state.open()
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone()));
                }
                // Usually the process has no free descriptor. An immediate retry would only use the processor.
                Err(error) => {
                    tracing::warn!(%error, "scripted upstream cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // Each delta must be sent at once and not when a packet is full. Without the option deltas are only delayed.
    let _ = stream.set_nodelay(true);
    let (connection, guard) = match Connection::new(&stream) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "scripted upstream cannot serve a connection");
            return;
        }
    };
    let router = router.layer(Extension(connection));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the scripted upstream failed");
    }
    // axum runs a WebSocket in a task of its own. The guard ends that task with this one.
    guard.websocket_closed().await;
}

#[cfg(test)]
mod tests;
