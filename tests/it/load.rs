//! More clients than the server accepts: it serves each client or refuses it with a retry delay, no client waits past
//! its deadline, and nothing is left.

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
const PLACES: usize = 12;

/// The delay of an answer after its deadline that a busy machine may cause.
const LATE: Duration = Duration::from_secs(3);

/// The time limit of the clients that have one.
const DEADLINE: Duration = Duration::from_millis(700);

#[derive(Debug, PartialEq)]
enum Outcome {
    RunningProgram(String),
    /// With the retry delay.
    RetryAfter(Duration),
    TimedOut,
}

/// The scenario of a client.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    /// The fake codex, by the name of its scenario.
    Fake(&'static str),
    /// The real CLI returns the client's text.
    Real,
}

/// One client. Every fourth client uses the same route; each has its own prompt.
#[derive(Clone)]
struct Client {
    number: usize,
    /// The codex and its scenario.
    task: Task,
    deadline: Option<Duration>,
    url: String,
    channel: Channel,
    engine: Engine,
}

impl Client {
    /// Returns the right answer.
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
            assert!(began.elapsed() < deadline + LATE, "{} after {:?}", self.number, began.elapsed());
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
        let later =
            response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
        let text = response.text().await.unwrap();
        if body["stream"] == true && status == 200 {
            let (chunks, done) = chunks(&text);
            return if done {
                Outcome::RunningProgram(answer_of_chunks(&chunks).text)
            } else {
                outcome_of_error(200, later, &chunks[chunks.len() - 1])
            };
        }
        let answer = serde_json::from_str(&text).unwrap();
        if status == 200 {
            Outcome::RunningProgram(answer_of_completion(&answer).text)
        } else {
            outcome_of_error(status, later, &answer)
        }
    }

    async fn call(&self, stream: bool) -> Result<Outcome, Status> {
        let mut request = Request::new(chat_request(self.model(), &self.prompt()));
        match self.deadline {
            Some(deadline) if stream => request.get_mut().timeout = Some(deadline.try_into().unwrap()),
            // The client's library ends the call as well; which of the two is first is left to chance.
            Some(deadline) => request.set_timeout(deadline),
            None => {}
        }
        let mut client = pb::codex_service_client::CodexServiceClient::new(self.channel.clone());
        if stream {
            let events = collect_events(client.stream_chat(request).await?.into_inner()).await?;
            return Ok(Outcome::RunningProgram(answers(&events)[0].0.clone()));
        }
        Ok(Outcome::RunningProgram(client.chat(request).await?.into_inner().choices[0].text.clone()))
    }
}

fn outcome_of_error(status: u16, later: Option<u64>, body: &Value) -> Outcome {
    match (status, body["error"]["code"].as_str().unwrap(), later) {
        (429, "overloaded", Some(seconds @ 1..=60)) => Outcome::RetryAfter(Duration::from_secs(seconds)),
        (504 | 200, "timeout", None) => Outcome::TimedOut,
        _ => panic!("{status}, {later:?}: {body}"),
    }
}

fn outcome_of_status(status: &Status) -> Outcome {
    let (code, reason) = code_and_reason(status);
    let later = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    match (code, reason.as_str(), later) {
        (Code::ResourceExhausted, "OVERLOADED", Some(later)) => Outcome::RetryAfter(later),
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
    let asking: JoinSet<_> = clients
        .into_iter()
        .map(|client| async move {
            let outcome = client.send().await;
            (client, outcome)
        })
        .collect();
    asking.join_all().await
}

async fn assert_nothing_is_left(app: &TestApp) {
    eventually!("nobody runs and nobody waits", {
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
            Outcome::RunningProgram(text) => {
                assert_eq!(*text, client.expected(), "client {}", client.number);
                served += 1;
            }
            Outcome::RetryAfter(_) => {}
            Outcome::TimedOut => panic!("client {} has no deadline", client.number),
        }
    }
    // Whoever got a place was served.
    assert!(served >= PLACES, "{served}");
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
        // One of each way has no deadline and patience: it is served when the others have given up.
        let mut patient: Vec<Client> = clients.drain(..4).collect();
        for client in &mut patient {
            client.task = Task::Fake("fake:echo");
            client.deadline = None;
        }
        let impatient = tokio::spawn(send_all_at_once(clients));
        for (client, outcome) in send_until_served(patient).await {
            assert_eq!(outcome, Outcome::RunningProgram(client.expected()));
        }
        let mut over = 0;
        for (client, outcome) in impatient.await.unwrap() {
            match outcome {
                Outcome::RunningProgram(text) => panic!("client {}: {text}", client.number),
                Outcome::RetryAfter(_) => {}
                Outcome::TimedOut => over += 1,
            }
        }
        assert!(over >= 2, "those that ran: {over}");
        assert_nothing_is_left(app).await;
    })
    .await;
}

/// Sends each request until it is served, after a tenth of the delay that the server asks for.
async fn send_until_served(clients: Vec<Client>) -> Vec<(Client, Outcome)> {
    let asking: JoinSet<_> = clients
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
    tokio::time::timeout(crate::support::TIMEOUT, asking.join_all()).await.unwrap()
}

both_engines!(overload_with_retries_serves_each_client);
async fn overload_with_retries_serves_each_client(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let outcomes = send_until_served(clients(app).await).await;
        assert_eq!(outcomes.len(), CLIENTS);
        for (client, outcome) in outcomes {
            assert_eq!(outcome, Outcome::RunningProgram(client.expected()), "client {}", client.number);
        }
        assert_nothing_is_left(app).await;
    })
    .await;
}
