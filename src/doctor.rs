//! `codex-api doctor`: the checks that serving needs, each with its remedy, for a person or as JSON.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use serde_json::json;
use tonic::Request as Call;

use super::{
    config::Config,
    engine::{self, Check, Engine, Outcome, cli::environment, process::Launcher},
    pb::{self, codex_service_server::CodexService},
    service::Service,
    transport,
};

/// What is asked of the doctor.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// JSON instead of text.
    pub json: bool,
    /// Run a real turn too.
    pub turn: bool,
}

/// Runs all checks and prints them; fails if one of them does.
pub async fn run(config: Config, request: Request) -> ExitCode {
    let checks = examine(&config, request.turn).await;
    let text = if request.json { as_json(&checks) } else { as_text(&checks, io::stdout().is_terminal()) };
    // If it cannot be printed, the exit code still tells.
    drop(io::stdout().write_all(text.as_bytes()));
    let bad = checks.iter().any(|check| check.outcome == Outcome::Bad);
    ExitCode::from(u8::from(bad))
}

async fn examine(config: &Config, turn: bool) -> Vec<Check> {
    let mut checks: Vec<Check> = config
        .warnings
        .iter()
        .map(|warning| Check::odd("configuration", warning.clone(), "rename or remove the variable"))
        .collect();
    if checks.is_empty() {
        checks.push(Check::good("configuration", "no mistakes".into()));
    }
    checks.push(ports(config));
    if let Err(error) = environment::prepare(&config.codex) {
        checks.push(Check::bad(
            "CODEX_CLI_HOME",
            error.to_string(),
            "make the folder writable or name another",
        ));
    }
    let launcher = Launcher::new(PathBuf::from(super::server::OURSELVES), config.codex.cancel_grace);
    checks.extend(engine::examine(config, &launcher).await);
    if turn {
        match engine::choose(config, launcher).await {
            Ok(engine) => {
                checks.push(real_turn(config, Arc::clone(&engine)).await);
                engine.drain().await;
            }
            Err(error) => checks.push(Check::bad("turn", error.to_string(), "set CODEX_ENGINE=auto")),
        }
    } else {
        launcher.drain().await;
    }
    checks
}

fn ports(config: &Config) -> Check {
    for address in [Some(config.doors.listen), config.doors.grpc_listen].into_iter().flatten() {
        if let Err(error) = transport::bind(address) {
            let remedy = "stop what listens there, or choose another address with CODEX_GATEWAY_HOST and \
                          CODEX_GATEWAY_PORT (or CODEX_GRPC_LISTEN)";
            return Check::bad("port", format!("cannot listen on {address}: {error}"), remedy);
        }
    }
    Check::good("port", format!("{} is free", config.doors.listen))
}

async fn real_turn(config: &Config, engine: Arc<dyn Engine>) -> Check {
    let text = pb::content_part::Part::Text("Answer with the word OK.".into());
    let message = pb::Message {
        role: pb::Role::User.into(),
        parts: vec![pb::ContentPart { part: Some(text) }],
        ..pb::Message::default()
    };
    let began = Instant::now();
    let service = Service::new(config, engine);
    let request = pb::ChatRequest { messages: vec![message], ..pb::ChatRequest::default() };
    match service.chat(Call::new(request)).await {
        Ok(response) => {
            let response = response.into_inner();
            let answer: String =
                response.choices.first().map(|c| c.text.chars().take(60).collect()).unwrap_or_default();
            Check::good("turn", format!("answered {answer:?} after {:.1} s", began.elapsed().as_secs_f64()))
        }
        Err(status) => Check::bad(
            "turn",
            status.message().to_owned(),
            "see the other findings; CODEX_LOG=debug tells more",
        ),
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "ok",
        Outcome::Odd => "warning",
        Outcome::Bad => "failed",
    }
}

fn as_json(checks: &[Check]) -> String {
    let rows: Vec<_> = checks
        .iter()
        .map(|c| json!({"check": c.name, "outcome": word(c.outcome), "says": c.says, "remedy": c.remedy}))
        .collect();
    let ok = checks.iter().all(|check| check.outcome != Outcome::Bad);
    format!("{:#}\n", json!({"ok": ok, "version": env!("CARGO_PKG_VERSION"), "checks": rows}))
}

fn as_text(checks: &[Check], colour: bool) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let (mark, paint) = match check.outcome {
            Outcome::Good => ("ok  ", "32"),
            Outcome::Odd => ("note", "33"),
            Outcome::Bad => ("FAIL", "31"),
        };
        let mark = if colour { format!("\x1b[{paint}m{mark}\x1b[0m") } else { mark.to_owned() };
        // Writing to a String cannot fail.
        let line = format!("{mark}  {:<width$}  {}", check.name, check.says);
        let _ = writeln!(text, "{}", line.trim_end());
        if !check.remedy.is_empty() {
            let _ = writeln!(text, "      {:<width$}  → {}", "", check.remedy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_their_remedy() {
        let checks = [
            Check::good("short", "fine".into()),
            Check::good("nothing more to say", String::new()),
            Check::bad("engine: rather long", "broken".into(), "mend it"),
        ];
        let text = as_text(&checks, false);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "ok    short                fine",
                "ok    nothing more to say",
                "FAIL  engine: rather long  broken",
                "                           → mend it",
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&checks)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][2]["remedy"], "mend it");
    }
}
