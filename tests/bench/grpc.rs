//! A client of the gRPC door, on the generated client.

use std::net::SocketAddr;

use codex_api::pb::{self, chat_event::Event, codex_service_client::CodexServiceClient};
use tonic::{Streaming, transport::Channel};

use crate::{
    BenchResult,
    stats::now_us,
    tally::{Prompt, Tally, TurnTimer},
};

/// Opens a connection.
pub(crate) async fn connect(address: SocketAddr) -> BenchResult<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// A client; several may share a connection.
#[derive(Debug)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    /// Runs one turn to its end.
    pub(crate) async fn turn(&mut self, ask: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let mut answer = self.ask(ask).await?;
        while answer.read(tally).await? {}
        answer.watch.end(tally);
        Ok(())
    }

    /// Runs one turn to its first token. Dropping the stream resets it.
    pub(crate) async fn begin(&mut self, ask: &Prompt, tally: &mut Tally) -> BenchResult<Begun> {
        let mut answer = self.ask(ask).await?;
        while !answer.watch.has_text() {
            if !answer.read(tally).await? {
                return Err("the answer was over before it began".into());
            }
        }
        Ok(answer)
    }

    async fn ask(&mut self, ask: &Prompt) -> BenchResult<Begun> {
        let watch = TurnTimer::start();
        let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(ask.text.clone())) };
        let message = pb::Message { role: pb::Role::User.into(), parts: vec![part], ..Default::default() };
        let request =
            pb::ChatRequest { model: ask.model.clone(), messages: vec![message], ..Default::default() };
        let events = CodexServiceClient::new(self.0.clone()).stream_chat(request).await?.into_inner();
        Ok(Begun { events, watch })
    }
}

/// A streaming answer.
#[derive(Debug)]
pub(crate) struct Begun {
    events: Streaming<pb::ChatEvent>,
    watch: TurnTimer,
}

impl Begun {
    /// Reads one event. Returns `false` at the end.
    async fn read(&mut self, tally: &mut Tally) -> BenchResult<bool> {
        let Some(event) = self.events.message().await? else { return Ok(false) };
        if let Some(Event::TextDelta(delta)) = event.event {
            tally.frames += 1;
            self.watch.text(delta.text.as_bytes(), now_us(), tally);
        }
        Ok(true)
    }
}
