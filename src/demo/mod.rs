//! The scripted upstream: a small OpenAI Responses API in our own process, against which the real Codex CLI runs.
//! For `serve --demo`, which needs no account, and for tests through the real CLI. It knows nothing of turns,
//! engines or doors. What it can be told: `script::Step`, and at length `docs/scripted-upstream.md`.

mod content;
mod plan;
mod record;
mod request;
mod routes;
mod schema;
mod script;
mod sse;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub use self::record::Recorded;
use self::record::State;

/// Open connections; further ones wait in the listen queue. Codex opens one for each model call.
const MAX_CONNECTIONS: usize = 4096;

/// The scripted upstream, listening on loopback. Dropping it closes the port and every connection at once.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    // Owns the accept loop, which owns the connections, which own what they serve.
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

    /// What Codex takes as the provider's `base_url`: `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The last requests for a response, oldest first: at most 256, fewer when they are large.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.recorded()
    }

    /// Forgets the recorded requests and how often each `times` step was used.
    pub fn clear(&self) {
        self.state.clear();
    }

    /// Responses being served now, those included that still hang before their headers.
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
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                Err(error) => {
                    tracing::warn!(%error, "the scripted upstream cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // Words must leave when they are spoken, not when a packet is full; without it they are only late.
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the scripted upstream broke");
    }
}

#[cfg(test)]
mod tests;
