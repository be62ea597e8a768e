//! Overload: the server serves each client or refuses it with a retry delay, no client waits past its deadline, and no
//! turn is left.

use std::time::{Duration, Instant};

use codex_api::pb;
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TestApp, chat_request,
        grpc::{answers, code_and_reason, collect_events},
        http::{answer_of_chunks, answer_of_completion, body, chunks, streamed},
        with_app,
    },
};

const CLIENTS: usize = 50;
/// Running and waiting turns that the server accepts.
const CAPACITY: usize = 12;

/// Maximum delay of an answer after its deadline, which a busy machine may cause.
const DEADLINE_TOLERANCE: Duration = Duration::from_secs(3);

/// The time limit of the clients that have one.
const DEADLINE: Duration = Duration::from_millis(700);

#[derive(Debug, PartialEq)]
enum Outcome {
    Served(String),
    /// Refused, with the retry delay.
    RetryAfter(Duration),
    TimedOut,
}

/// The turn of a client.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    /// A scenario of the fake codex.
    Fake(&'static str),
    /// An answer of the real CLI with the marker of the client.
    Real,
}

/// One client with its own prompt. The number modulo four selects the route.
#[derive(Clone)]
struct Client {
    number: usize,
    task: Task,
    deadline: Option<Duration>,
    url: String,
    channel: Channel,
    engine: Engine,
}

impl Client {
    /// Returns the expected answer.
    fn expected(&self) -> String {
        match self.task {
            Task::Fake("fake:echo") => self.engine.echo(&self.marker()),
            Task::Real => self.marker(),
            Task::Fake(_) => (0..5).map(|n| format!("message {n}")).collect::<Vec<_>>().join("\n\n"),
        }
    }

    fn marker(&self) -> String {
        format!("I am client {} 🌍", self.number)
    }

    fn model(&self) -> &'static str {
        match self.task {
            Task::Fake(scenario) => scenario,
            Task::Real => "gpt-5.5",
        }
    }

    fn prompt(&self) -> String {
        match self.task {
            Task::Fake(_) => self.marker(),
            Task::Real => format!("@@{}@@", serde_json::json!({"text": self.marker()})),
        }
    }

    async fn send(&self) -> Outcome {
        let began = Instant::now();
        let outcome = match self.number % 4 {
            0 => self.post(body(self.model(), &self.prompt())).await,
            1 => self.post(streamed(body(self.model(), &self.prompt()))).await,
            2 => self.call(false).await.unwrap_or_else(|status| outcome_of_status(&status)),
            _ => self.call(true).await.unwrap_or_else(|status| outcome_of_status(&status)),
        };
        if let Some(deadline) = self.deadline {
            assert!(
                began.elapsed() < deadline + DEADLINE_TOLERANCE,
                "{} after {:?}",
                self.number,
                began.elapsed()
            );
        }
        outcome
    }

    async fn post(&self, body: Value) -> Outcome {
        let mut request = reqwest::Client::new().post(&self.url).json(&body);
        if let Some(deadline) = self.deadline {
            request = request.header("x-codex-timeout-seconds", deadline.as_secs_f64().to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
        let text = response.text().await.unwrap();
        if body["stream"] == true && status == 200 {
            let (chunks, done) = chunks(&text);
            return if done {
                Outcome::Served(answer_of_chunks(&chunks).text)
            } else {
                outcome_of_error(200, retry_after, &chunks[chunks.len() - 1])
            };
        }
        let answer = serde_json::from_str(&text).unwrap();
        if status == 200 {
            Outcome::Served(answer_of_completion(&answer).text)
        } else {
            outcome_of_error(status, retry_after, &answer)
        }
    }

    async fn call(&self, stream: bool) -> Result<Outcome, Status> {
        let mut request = Request::new(chat_request(self.model(), &self.prompt()));
        match self.deadline {
            Some(deadline) if stream => request.get_mut().timeout = Some(deadline.try_into().unwrap()),
            // The client library has the same deadline, so either side may end the call first.
            Some(deadline) => request.set_timeout(deadline),
            None => {}
        }
        let mut client = pb::codex_service_client::CodexServiceClient::new(self.channel.clone());
        if stream {
            let events = collect_events(client.stream_chat(request).await?.into_inner()).await?;
            return Ok(Outcome::Served(answers(&events)[0].0.clone()));
        }
        Ok(Outcome::Served(client.chat(request).await?.into_inner().choices[0].text.clone()))
    }
}

fn outcome_of_error(status: u16, retry_after: Option<u64>, body: &Value) -> Outcome {
    match (status, body["error"]["code"].as_str().unwrap(), retry_after) {
        (429, "overloaded", Some(seconds @ 1..=60)) => Outcome::RetryAfter(Duration::from_secs(seconds)),
        (504 | 200, "timeout", None) => Outcome::TimedOut,
        _ => panic!("{status}, {retry_after:?}: {body}"),
    }
}

fn outcome_of_status(status: &Status) -> Outcome {
    let (code, reason) = code_and_reason(status);
    let retry_delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    match (code, reason.as_str(), retry_delay) {
        (Code::ResourceExhausted, "OVERLOADED", Some(delay)) => Outcome::RetryAfter(delay),
        (Code::DeadlineExceeded, "TIMEOUT", None) => Outcome::TimedOut,
        (Code::Cancelled, "", None) if status.message() == "Timeout expired" => Outcome::TimedOut,
        _ => panic!("{status:?}"),
    }
}

fn config(codex: Codex, engine: Engine) -> AppConfig {
    AppConfig::new(codex, engine).max_concurrency(2).max_queue(10)
}

async fn clients(app: &TestApp) -> Vec<Client> {
    let channel = app.channel().await;
    let client = |number| Client {
        number,
        task: Task::Fake(if number % 3 == 0 { "fake:slow:20" } else { "fake:echo" }),
        deadline: None,
        url: app.url("/v1/chat/completions"),
        channel: channel.clone(),
        engine: app.engine,
    };
    (0..CLIENTS).map(client).collect()
}

async fn send_all_at_once(clients: Vec<Client>) -> Vec<(Client, Outcome)> {
    let tasks: JoinSet<_> = clients
        .into_iter()
        .map(|client| async move {
            let outcome = client.send().await;
            (client, outcome)
        })
        .collect();
    tasks.join_all().await
}

async fn assert_nothing_is_left(app: &TestApp) {
    eventually!("no turn runs or waits", {
        let status = app.status().await;
        status.running_turns + status.waiting_turns == 0
    });
}

both_engines!(overload_of_the_fake_serves_or_refuses_each_client);
async fn overload_of_the_fake_serves_or_refuses_each_client(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let clients = clients(app).await;
        assert_served_or_refused(app, clients).await;
    })
    .await;
}

both_engines!(
    #[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
    overload_of_the_real_cli_serves_or_refuses_each_client
);
async fn overload_of_the_real_cli_serves_or_refuses_each_client(engine: Engine) {
    with_app(config(Codex::Real, engine), async |app| {
        let mut clients = clients(app).await;
        for client in &mut clients {
            client.task = Task::Real;
        }
        assert_served_or_refused(app, clients).await;
    })
    .await;
}

async fn assert_served_or_refused(app: &TestApp, clients: Vec<Client>) {
    let outcomes = send_all_at_once(clients).await;
    assert_eq!(outcomes.len(), CLIENTS);
    let mut served = 0;
    for (client, outcome) in &outcomes {
        match outcome {
            Outcome::Served(text) => {
                assert_eq!(*text, client.expected(), "client {}", client.number);
                served += 1;
            }
            Outcome::RetryAfter(_) => {}
            Outcome::TimedOut => panic!("client {} has no deadline", client.number),
        }
    }
    // Every accepted client was served.
    assert!(served >= CAPACITY, "{served}");
    assert_nothing_is_left(app).await;
}

both_engines!(overload_with_deadlines_answers_each_client_in_time);
async fn overload_with_deadlines_answers_each_client_in_time(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let mut clients = clients(app).await;
        for client in &mut clients {
            client.task = Task::Fake("fake:hang");
            client.deadline = Some(DEADLINE);
        }
        // One client per route has no deadline and retries until the others have timed out.
        let mut retrying: Vec<Client> = clients.drain(..4).collect();
        for client in &mut retrying {
            client.task = Task::Fake("fake:echo");
            client.deadline = None;
        }
        let with_deadline = tokio::spawn(send_all_at_once(clients));
        for (client, outcome) in send_until_served(retrying).await {
            assert_eq!(outcome, Outcome::Served(client.expected()));
        }
        let mut timed_out = 0;
        for (client, outcome) in with_deadline.await.unwrap() {
            match outcome {
                Outcome::Served(text) => panic!("client {}: {text}", client.number),
                Outcome::RetryAfter(_) => {}
                Outcome::TimedOut => timed_out += 1,
            }
        }
        assert!(timed_out >= 2, "running turns that timed out: {timed_out}");
        assert_nothing_is_left(app).await;
    })
    .await;
}

/// Sends each request until it is served. Waits a tenth of the requested delay before each retry.
async fn send_until_served(clients: Vec<Client>) -> Vec<(Client, Outcome)> {
    let tasks: JoinSet<_> = clients
        .into_iter()
        .map(|client| async move {
            loop {
                match client.send().await {
                    Outcome::RetryAfter(after) => tokio::time::sleep(after / 10).await,
                    outcome => return (client, outcome),
                }
            }
        })
        .collect();
    tokio::time::timeout(crate::support::TIMEOUT, tasks.join_all()).await.unwrap()
}

both_engines!(overload_with_retries_serves_each_client);
async fn overload_with_retries_serves_each_client(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let outcomes = send_until_served(clients(app).await).await;
        assert_eq!(outcomes.len(), CLIENTS);
        for (client, outcome) in outcomes {
            assert_eq!(outcome, Outcome::Served(client.expected()), "client {}", client.number);
        }
        assert_nothing_is_left(app).await;
    })
    .await;
}
