//! `codex-api doctor`: checks everything that a turn needs and prints a remedy for each problem, as text or JSON.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use serde_json::json;
use tonic::Request as Call;
use tonic_types::StatusExt;

use super::{
    config::Config,
    engine::{
        Check, Engine, Severity,
        cli::environment,
        process::{Launcher, platform},
        selector,
    },
    pb::{self, codex_service_server::CodexService},
    service::Service,
    transport,
};

/// Options of the doctor.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Print JSON instead of text.
    pub json: bool,
    /// Also run a turn, which calls the model.
    pub turn: bool,
}

/// Runs all checks and prints them. Returns exit code 1 if a check fails.
pub async fn run(config: Config, request: Request) -> ExitCode {
    let checks = examine(&config, request.turn).await;
    let text = if request.json { as_json(&checks) } else { as_text(&checks, io::stdout().is_terminal()) };
    // The exit code reports the result too, so a failed write is ignored.
    drop(io::stdout().write_all(text.as_bytes()));
    let failed = checks.iter().any(|check| check.severity == Severity::Failed);
    ExitCode::from(u8::from(failed))
}

async fn examine(config: &Config, turn: bool) -> Vec<Check> {
    let mut checks: Vec<Check> = config
        .warnings
        .iter()
        .map(|warning| {
            Check::warning("configuration", warning.clone(), "change, rename or remove the variable")
        })
        .collect();
    if checks.is_empty() {
        checks.push(Check::passed("configuration", "no errors".into()));
    }
    checks.push(ports(config));
    checks.push(open_files(config));
    if let Err(error) = environment::prepare(&config.codex) {
        checks.push(Check::failed(
            "CODEX_CLI_HOME",
            error.to_string(),
            "make the folder writable or set another folder",
        ));
    }
    let launcher = Launcher::new(platform::own_executable(), config.codex.cancel_grace);
    checks.extend(selector::examine(config, &launcher).await);
    if turn {
        match selector::choose(config, launcher).await {
            Ok(engine) => {
                checks.push(real_turn(config, Arc::clone(&engine)).await);
                engine.drain().await;
            }
            Err(error) => checks.push(Check::failed("turn", error.to_string(), "set CODEX_ENGINE=auto")),
        }
    } else {
        launcher.drain().await;
    }
    checks
}

fn ports(config: &Config) -> Check {
    for address in [Some(config.server.listen), config.server.grpc_listen].into_iter().flatten() {
        if let Err(error) = transport::bind(address) {
            let remedy = "stop the program that listens there, or set CODEX_GATEWAY_HOST and CODEX_GATEWAY_PORT (or \
                          CODEX_GRPC_LISTEN) to another address";
            return Check::failed("port", format!("cannot listen on {address}: {error}"), remedy);
        }
    }
    Check::passed("port", format!("{} is free", config.server.listen))
}

fn open_files(config: &Config) -> Check {
    let connections = config.server.max_connections;
    let files =
        transport::open_files::raise_limit(connections, 1 + usize::from(config.server.grpc_listen.is_some()));
    let limit = files.limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    if files.connections < connections {
        let remedy = "raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd, ulimits of Docker), or lower CODEX_MAX_CONNECTIONS";
        let finding = format!(
            "the limit is {limit}, and {connections} connections need {}; the server accepts {}",
            files.needed, files.connections
        );
        return Check::warning("open files", finding, remedy);
    }
    Check::passed("open files", format!("{limit}, enough for {connections} connections"))
}

async fn real_turn(config: &Config, engine: Arc<dyn Engine>) -> Check {
    let text = pb::content_part::Part::Text("Answer with the word OK.".into());
    let message = pb::Message {
        role: pb::Role::User.into(),
        parts: vec![pb::ContentPart { part: Some(text) }],
        ..pb::Message::default()
    };
    let started = Instant::now();
    let service = Service::new(config, engine);
    let request = pb::ChatRequest { messages: vec![message], ..pb::ChatRequest::default() };
    match service.chat(Call::new(request)).await {
        Ok(response) => {
            let response = response.into_inner();
            let answer: String =
                response.choices.first().map(|c| c.text.chars().take(60).collect()).unwrap_or_default();
            Check::passed(
                "turn",
                format!("answered {answer:?} after {:.1} s", started.elapsed().as_secs_f64()),
            )
        }
        Err(status) => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
            Check::failed("turn", status.message().to_owned(), turn_remedy(reason))
        }
    }
}

/// Returns the remedy for a failed turn, by the reason of its error.
fn turn_remedy(reason: &str) -> &'static str {
    match reason {
        "ENGINE_UNAVAILABLE" => {
            "fix the other findings; if there are none, run `codex login` as the server's user, or set CODEX_API_KEY to \
             another key; a running server uses the new login without a restart"
        }
        "UPSTREAM_UNAVAILABLE" | "TIMEOUT" => {
            "let the server reach the upstream: check the network, DNS, HTTPS_PROXY and NO_PROXY, and SSL_CERT_FILE if a \
             proxy inspects TLS; CODEX_FAST_TLS_ROOTS=0 helps if OpenSSL trusts the upstream and rustls does not"
        }
        "INSUFFICIENT_QUOTA" | "RATE_LIMIT_EXCEEDED" => {
            "wait for the reset of the limit, or log in with another account"
        }
        "MODEL_NOT_FOUND" => "set CODEX_MODEL to a model of `codex debug models` that the account may use",
        _ => "fix the other findings; CODEX_LOG=debug logs details",
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Passed => "ok",
        Severity::Warning => "warning",
        Severity::Failed => "failed",
    }
}

fn as_json(checks: &[Check]) -> String {
    let rows: Vec<_> = checks
        .iter()
        .map(|c| json!({"check": c.name, "outcome": severity_name(c.severity), "says": c.finding, "remedy": c.remedy}))
        .collect();
    let ok = checks.iter().all(|check| check.severity != Severity::Failed);
    format!("{:#}\n", json!({"ok": ok, "version": env!("CARGO_PKG_VERSION"), "checks": rows}))
}

fn as_text(checks: &[Check], colour: bool) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let (mark, paint) = match check.severity {
            Severity::Passed => ("ok  ", "32"),
            Severity::Warning => ("note", "33"),
            Severity::Failed => ("FAIL", "31"),
        };
        let mark = if colour { format!("\x1b[{paint}m{mark}\x1b[0m") } else { mark.to_owned() };
        // Writing to a String cannot fail.
        let line = format!("{mark}  {:<width$}  {}", check.name, check.finding);
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
    fn as_text_and_as_json_contain_findings_and_remedies() {
        let checks = [
            Check::passed("short", "fine".into()),
            Check::passed("without a finding", String::new()),
            Check::failed("engine: rather long", "broken".into(), "fix it"),
        ];
        let text = as_text(&checks, false);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "ok    short                fine",
                "ok    without a finding",
                "FAIL  engine: rather long  broken",
                "                           → fix it",
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&checks)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][2]["remedy"], "fix it");
    }
}
