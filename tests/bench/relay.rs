//! A relay that makes an upstream distant: bytes arrive half a round trip later, and a connection takes a whole one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use crate::BenchResult;

/// A listener in front of an upstream. Dropping it closes all connections.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Starts a relay to an address.
    pub(crate) async fn start(upstream: SocketAddr, round_trip: Duration) -> BenchResult<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(async move { drop(connect(client, upstream, round_trip).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn connect(client: TcpStream, upstream: SocketAddr, round_trip: Duration) -> BenchResult<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let half = round_trip / 2;
    // The handshake of the connection is local, so its time is added to the first bytes.
    let connected = Instant::now() + round_trip;
    tokio::join!(
        pump(from_client, to_server, connected, half),
        pump(from_server, to_client, connected, half)
    );
    Ok(())
}

/// Passes bytes on after a delay, but not before the connection counts as made.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, connected: Instant, delay: Duration) {
    let (sender, mut delayed) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            let at = Instant::now().max(connected) + delay;
            if sender.send((at, chunk[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = delayed.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _closed = to.shutdown().await;
    };
    tokio::join!(read, write);
}
