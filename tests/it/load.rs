//! More clients than the server takes: every answer is right or a clear "later", nobody waits past their deadline,
//! and nothing is left.

use std::time::{Duration, Instant};

use codex_api::pb;
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Codex, Engine, TestApp, ask,
        grpc::{all, answers, kind},
        http::{body, chunks, folded, streamed, whole},
        with_app,
    },
};

const CLIENTS: usize = 50;
const PLACES: usize = 12;

/// How much later than its deadline an answer may be on a busy machine.
const LATE: Duration = Duration::from_secs(3);

/// The time limit of the clients that have one. Those whose turn does not answer have to meet it.
const DEADLINE: Duration = Duration::from_millis(700);

#[derive(Debug, PartialEq)]
enum Outcome {
    Served(String),
    /// With the time after which to come back.
    Later(Duration),
    TimeOver,
}

/// What a client wants.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    /// Of the fake codex, by the name of its scenario.
    Fake(&'static str),
    /// Of the real CLI: the client's own words back.
    Real,
}

/// One client: every fourth asks in the same way, each for something of its own.
#[derive(Clone)]
struct Client {
    number: usize,
    /// Which codex, and what it is asked to do.
    task: Task,
    deadline: Option<Duration>,
    url: String,
    channel: Channel,
    engine: Engine,
}

impl Client {
    /// What a right answer says.
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

    async fn ask(&self) -> Outcome {
        let began = Instant::now();
        let outcome = match self.number % 4 {
            0 => self.post(body(self.model(), &self.prompt())).await,
            1 => self.post(streamed(body(self.model(), &self.prompt()))).await,
            2 => self.call(false).await.unwrap_or_else(|status| of_status(&status)),
            _ => self.call(true).await.unwrap_or_else(|status| of_status(&status)),
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
                Outcome::Served(folded(&chunks).text)
            } else {
                of_error(200, later, &chunks[chunks.len() - 1])
            };
        }
        let answer = serde_json::from_str(&text).unwrap();
        if status == 200 { Outcome::Served(whole(&answer).text) } else { of_error(status, later, &answer) }
    }

    async fn call(&self, stream: bool) -> Result<Outcome, Status> {
        let mut request = Request::new(ask(self.model(), &self.prompt()));
        match self.deadline {
            Some(deadline) if stream => request.get_mut().timeout = Some(deadline.try_into().unwrap()),
            // The client's library ends the call as well; which of the two is first is left to chance.
            Some(deadline) => request.set_timeout(deadline),
            None => {}
        }
        let mut client = pb::codex_service_client::CodexServiceClient::new(self.channel.clone());
        if stream {
            let events = all(client.stream_chat(request).await?.into_inner()).await?;
            return Ok(Outcome::Served(answers(&events)[0].0.clone()));
        }
        Ok(Outcome::Served(client.chat(request).await?.into_inner().choices[0].text.clone()))
    }
}

fn of_error(status: u16, later: Option<u64>, body: &Value) -> Outcome {
    match (status, body["error"]["code"].as_str().unwrap(), later) {
        (429, "overloaded", Some(seconds @ 1..=60)) => Outcome::Later(Duration::from_secs(seconds)),
        (504 | 200, "timeout", None) => Outcome::TimeOver,
        _ => panic!("{status}, {later:?}: {body}"),
    }
}

fn of_status(status: &Status) -> Outcome {
    let (code, reason) = kind(status);
    let later = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    match (code, reason.as_str(), later) {
        (Code::ResourceExhausted, "OVERLOADED", Some(later)) => Outcome::Later(later),
        (Code::DeadlineExceeded, "TIMEOUT", None) => Outcome::TimeOver,
        (Code::Cancelled, "", None) if status.message() == "Timeout expired" => Outcome::TimeOver,
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

async fn all_at_once(clients: Vec<Client>) -> Vec<(Client, Outcome)> {
    let asking: JoinSet<_> = clients
        .into_iter()
        .map(|client| async move {
            let outcome = client.ask().await;
            (client, outcome)
        })
        .collect();
    asking.join_all().await
}

async fn nothing_is_left(app: &TestApp) {
    eventually!("nobody runs and nobody waits", {
        let status = app.status().await;
        status.running_turns + status.waiting_turns == 0
    });
}

both_engines!(overload_of_the_fake_serves_or_refuses_each_client);
async fn overload_of_the_fake_serves_or_refuses_each_client(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let clients = clients(app).await;
        right_or_later(app, clients).await;
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
        right_or_later(app, clients).await;
    })
    .await;
}

async fn right_or_later(app: &TestApp, clients: Vec<Client>) {
    let outcomes = all_at_once(clients).await;
    assert_eq!(outcomes.len(), CLIENTS);
    let mut served = 0;
    for (client, outcome) in &outcomes {
        match outcome {
            Outcome::Served(text) => {
                assert_eq!(*text, client.expected(), "client {}", client.number);
                served += 1;
            }
            Outcome::Later(_) => {}
            Outcome::TimeOver => panic!("client {} has no deadline", client.number),
        }
    }
    // Whoever got a place was served.
    assert!(served >= PLACES, "{served}");
    nothing_is_left(app).await;
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
        let impatient = tokio::spawn(all_at_once(clients));
        for (client, outcome) in all_until_served(patient).await {
            assert_eq!(outcome, Outcome::Served(client.expected()));
        }
        let mut over = 0;
        for (client, outcome) in impatient.await.unwrap() {
            match outcome {
                Outcome::Served(text) => panic!("client {}: {text}", client.number),
                Outcome::Later(_) => {}
                Outcome::TimeOver => over += 1,
            }
        }
        assert!(over >= 2, "those that ran: {over}");
        nothing_is_left(app).await;
    })
    .await;
}

/// Each asks again until it is served, as the server says, but in a hurry.
async fn all_until_served(clients: Vec<Client>) -> Vec<(Client, Outcome)> {
    let asking: JoinSet<_> = clients
        .into_iter()
        .map(|client| async move {
            loop {
                match client.ask().await {
                    Outcome::Later(after) => tokio::time::sleep(after / 10).await,
                    outcome => return (client, outcome),
                }
            }
        })
        .collect();
    tokio::time::timeout(crate::support::SOON, asking.join_all()).await.unwrap()
}

both_engines!(overload_with_retries_serves_each_client);
async fn overload_with_retries_serves_each_client(engine: Engine) {
    with_app(config(Codex::Fake, engine), async |app| {
        let outcomes = all_until_served(clients(app).await).await;
        assert_eq!(outcomes.len(), CLIENTS);
        for (client, outcome) in outcomes {
            assert_eq!(outcome, Outcome::Served(client.expected()), "client {}", client.number);
        }
        nothing_is_left(app).await;
    })
    .await;
}
