//! A client of the gRPC door, on the generated client.

use std::net::SocketAddr;

use codex_api::pb::{self, chat_event::Event, codex_service_client::CodexServiceClient};
use tonic::{Streaming, transport::Channel};

use crate::{
    BenchResult,
    stats::now_us,
    tally::{Prompt, Reply, Tally, TurnTimer},
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
    pub(crate) async fn turn(&mut self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let mut answer = self.send(prompt).await?;
        while answer.read(tally).await? {}
        answer.timer.end(tally);
        Ok(())
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn ask(&mut self, request: pb::ChatRequest, tally: &mut Tally) -> BenchResult<Reply> {
        let known = tally.lags.len();
        let mut answer = self.send_request(request).await?;
        while answer.read(tally).await? {}
        Ok(Reply::new(answer.call, known, answer.timer, tally))
    }

    /// Runs one turn to its first token. Dropping the stream resets it.
    pub(crate) async fn start_stream(
        &mut self,
        prompt: &Prompt,
        tally: &mut Tally,
    ) -> BenchResult<StartedStream> {
        let mut answer = self.send(prompt).await?;
        while !answer.timer.has_text() {
            if !answer.read(tally).await? {
                return Err("the answer ended before its first token".into());
            }
        }
        Ok(answer)
    }

    async fn send(&mut self, prompt: &Prompt) -> BenchResult<StartedStream> {
        let part = pb::ContentPart { part: Some(pb::content_part::Part::Text(prompt.text.clone())) };
        let message = pb::Message { role: pb::Role::User.into(), parts: vec![part], ..Default::default() };
        let request =
            pb::ChatRequest { model: prompt.model.clone(), messages: vec![message], ..Default::default() };
        self.send_request(request).await
    }

    async fn send_request(&mut self, request: pb::ChatRequest) -> BenchResult<StartedStream> {
        let timer = TurnTimer::start();
        let events = CodexServiceClient::new(self.0.clone()).stream_chat(request).await?.into_inner();
        Ok(StartedStream { events, timer, call: None })
    }
}

/// A streaming answer.
#[derive(Debug)]
pub(crate) struct StartedStream {
    events: Streaming<pb::ChatEvent>,
    timer: TurnTimer,
    /// The id of a tool call.
    call: Option<String>,
}

impl StartedStream {
    /// Reads one event. Returns `false` at the end.
    async fn read(&mut self, tally: &mut Tally) -> BenchResult<bool> {
        let Some(event) = self.events.message().await? else { return Ok(false) };
        match event.event {
            Some(Event::TextDelta(delta)) => {
                tally.frames += 1;
                self.timer.text(delta.text.as_bytes(), now_us(), tally);
            }
            Some(Event::ToolCall(call)) => self.call = Some(call.id),
            _ => {}
        }
        Ok(true)
    }
}
