//! Requests that cost too much: the longest pauses of a neighbour's stream and of the health report while each runs ten times,
//! and the memory of the gateway afterwards.

use std::time::Duration;

use crate::{
    BenchResult,
    attacks::{self, Answer, Attack, Door},
    gateway::{Gateway, Setup},
    observer::Observer,
    options::Options,
};

/// Times that each request is sent.
const ROUNDS: usize = 10;

/// Time in which the memory must be given back.
const SETTLE: Duration = Duration::from_secs(5);

/// Results of one request.
#[derive(Debug)]
pub(crate) struct Hazard {
    pub(crate) name: &'static str,
    /// The longest pause of the neighbour's stream, whose deltas are 50 ms apart.
    pub(crate) stream_ms: f64,
    /// The slowest health report.
    pub(crate) health_ms: f64,
    /// Growth of the gateway's resident memory.
    pub(crate) grown_mib: f64,
}

pub(crate) async fn measure(setup: &Setup, options: &Options) -> BenchResult<Vec<Hazard>> {
    let mut hazards = Vec::new();
    for (number, (name, build)) in attacks::ALL.iter().enumerate() {
        options.log_progress(&format!("hazard: {name}"));
        // A new server, so that no request uses the memory of another.
        let setup = Setup { name: format!("{}-hazard-{number}", setup.name), ..setup.clone() };
        let gateway = Gateway::start(&setup).await?;
        let attack = build(name);
        let neighbours = Observer::start(gateway.address)?;
        let before = gateway.memory().resident;
        for _ in 0..options.pick(3, ROUNDS) {
            send(&gateway, &attack).await?;
        }
        let pauses = tokio::task::spawn_blocking(|| neighbours.end()).await??;
        if !pauses.goes_on {
            return Err(format!("{name}: the neighbour's stream ended").into());
        }
        drop(attack);
        tokio::time::sleep(SETTLE).await;
        let ms = |pause: Duration| pause.as_secs_f64() * 1e3;
        hazards.push(Hazard {
            name,
            stream_ms: ms(pauses.stream),
            health_ms: ms(pauses.health),
            grown_mib: (gateway.memory().resident - before) / 1024.0,
        });
        gateway.end().await?;
    }
    Ok(hazards)
}

/// Sends a request and checks that it is answered as it must be.
async fn send(gateway: &Gateway, attack: &Attack) -> BenchResult<()> {
    let (client, path, kind) = match attack.door {
        Door::Http => (reqwest::Client::builder(), "/v1/chat/completions", "application/json"),
        Door::Grpc => (
            reqwest::Client::builder().http2_prior_knowledge(),
            "/codex.v1.CodexService/Chat",
            "application/grpc",
        ),
    };
    let request = client.build()?.post(format!("http://{}{path}", gateway.address));
    let response = request.header("content-type", kind).body(attack.body.clone()).send().await?;
    let (status, grpc) = (response.status().as_u16(), response.headers().get("grpc-status").cloned());
    let text = response.text().await?;
    let is_expected = match attack.answer {
        Answer::Completion => status == 200,
        // A refused call is INVALID_ARGUMENT.
        Answer::Refusal(0, ..) => grpc.is_some_and(|grpc| grpc == "3"),
        Answer::Refusal(expected, _, part) => status == expected && text.contains(part),
    };
    if is_expected { Ok(()) } else { Err(format!("{}: {status} {text:.300}", attack.name).into()) }
}
