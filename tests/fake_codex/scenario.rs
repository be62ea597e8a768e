//! Scenarios of `exec`, parsed from a model's name such as `fake:failed:401`.

use crate::failures::{self, Failure};

/// A scenario; the README beside this file describes each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    Echo,
    Report,
    Login {
        after_text: bool,
    },
    Text(usize),
    Commentary,
    Items,
    Reasoning,
    Usage,
    UnknownModel,
    Hang,
    Silent,
    Stubborn,
    Grandchild,
    Orphan,
    Crash,
    Exit0,
    Garbage,
    BadUtf8,
    LongLine(usize),
    Stderr(usize),
    Slow(u64),
    AfterEnd,
    /// Fails after a command, or waits until it is stopped.
    Acted(Option<Failure>),
    /// Fails after the loss of events.
    Lagged(Failure),
    Failed(Failure),
    Reconnect(usize, Option<Failure>),
    ReconnectForever,
    WebSocketRefused,
    Old,
    ConfigError,
    PromptTooLarge,
    NoRead,
}

/// The mark before a scenario in the name of a model. Text before the mark is ignored.
const MARK: &str = "fake:";

/// Parses the name of a model. A name without the mark is an echo. An unknown scenario is an error, so that a typing
/// error in a test does not become an echo.
pub(crate) fn parse_model(model: &str) -> Result<Scenario, String> {
    match model.find(MARK) {
        Some(at) => parse_name(&model[at + MARK.len()..]),
        None => Ok(Scenario::Echo),
    }
}

/// Parses a scenario without the name of a model.
pub(crate) fn parse_name(name: &str) -> Result<Scenario, String> {
    let name = name.strip_prefix(MARK).unwrap_or(name);
    let (head, rest) = name.split_once(':').unwrap_or((name, ""));
    let number = || rest.parse::<usize>().map_err(|e| format!("fake codex: `{name}`: {e}"));
    let failure =
        |kind: &str| failures::from_kind(kind).ok_or(format!("fake codex: unknown failure `{kind}`"));
    Ok(match head {
        "text" => Scenario::Text(number()?),
        "longline" => Scenario::LongLine(number()?),
        "stderr" => Scenario::Stderr(number()?),
        "slow" => Scenario::Slow(u64::try_from(number()?).unwrap_or(u64::MAX)),
        "failed" => Scenario::Failed(failure(rest)?),
        "acted" if rest == "hang" => Scenario::Acted(None),
        "acted" => Scenario::Acted(Some(failure(rest)?)),
        "lagged" => Scenario::Lagged(failure(rest)?),
        "reconnect" => {
            let (times, kind) = rest.split_once(':').unwrap_or((rest, "ok"));
            let times = times.parse().map_err(|e| format!("fake codex: `{name}`: {e}"))?;
            Scenario::Reconnect(times, if kind == "ok" { None } else { Some(failure(kind)?) })
        }
        _ if !rest.is_empty() => return Err(format!("fake codex: `{head}` has no parameter")),
        "echo" => Scenario::Echo,
        "report" => Scenario::Report,
        "login" => Scenario::Login { after_text: false },
        "login-after-text" => Scenario::Login { after_text: true },
        "commentary" => Scenario::Commentary,
        "items" => Scenario::Items,
        "reasoning" => Scenario::Reasoning,
        "usage" => Scenario::Usage,
        "unknown-model" => Scenario::UnknownModel,
        "hang" => Scenario::Hang,
        "silent" => Scenario::Silent,
        "stubborn" => Scenario::Stubborn,
        "grandchild" => Scenario::Grandchild,
        "orphan" => Scenario::Orphan,
        "crash" => Scenario::Crash,
        "exit0" => Scenario::Exit0,
        "garbage" => Scenario::Garbage,
        "badutf8" => Scenario::BadUtf8,
        "after-end" => Scenario::AfterEnd,
        "websocket-refused" => Scenario::WebSocketRefused,
        "reconnect-forever" => Scenario::ReconnectForever,
        "not-logged-in" => Scenario::Failed(failure("not-logged-in")?),
        "old" => Scenario::Old,
        "config-error" => Scenario::ConfigError,
        "prompt-too-large" => Scenario::PromptTooLarge,
        "noread" => Scenario::NoRead,
        _ => return Err(format!("fake codex: unknown scenario `{head}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::{Scenario, parse_model, parse_name};

    #[test]
    fn scenario_name_with_any_prefix_is_parsed() {
        assert_eq!(parse_model("fake:hang"), Ok(Scenario::Hang));
        assert_eq!(parse_model("openai/fake:text:12"), Ok(Scenario::Text(12)));
        assert_eq!(parse_name("hang"), Ok(Scenario::Hang));
        assert_eq!(parse_name("fake:hang"), Ok(Scenario::Hang));
        assert_eq!(parse_model("gpt-5.5"), Ok(Scenario::Echo));
    }

    #[test]
    fn unknown_scenario_is_an_error() {
        for name in
            ["fake:hnag", "fake:text", "fake:text:many", "fake:failed:418", "fake:hang:1", "fake:reconnect:x"]
        {
            assert!(parse_model(name).is_err(), "{name}");
        }
    }

    #[test]
    fn recorded_failures_are_all_parsed() {
        let kinds = "400 400-model 400-context-json 401 403 404 404-model 413 422 429 429-quota 429-usage-limit \
                     500 502 503 503-capacity sse-rate-limit sse-context sse-server-error cut incomplete-length \
                     incomplete-filter idle connection missing-env-key";
        for kind in kinds.split_whitespace() {
            assert!(matches!(parse_name(&format!("failed:{kind}")), Ok(Scenario::Failed(_))), "{kind}");
            assert!(
                matches!(parse_name(&format!("reconnect:2:{kind}")), Ok(Scenario::Reconnect(2, Some(_)))),
                "{kind}"
            );
        }
        assert_eq!(parse_name("reconnect:3:ok"), Ok(Scenario::Reconnect(3, None)));
    }
}
