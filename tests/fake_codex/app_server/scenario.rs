//! Scenarios of the app-server, parsed from a model's name such as `fake:tools:2`.

use std::time::Duration;

use super::failures::{self, Failure};

/// A scenario; the README beside the fake describes each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scenario {
    Echo,
    Report,
    Login {
        after_text: bool,
    },
    Text(usize),
    Stream(usize, Duration),
    Flood(usize),
    Slow(Duration),
    /// The path of the pipe.
    Gated(String),
    Commentary,
    Items,
    Compaction,
    Reasoning,
    Usage,
    UnknownModel,
    Tools {
        calls: usize,
        style: Style,
    },
    /// Fails after a command, or waits until it is stopped.
    Acted(Option<Failure>),
    Failed {
        failure: Failure,
        after_text: bool,
    },
    /// The used percent.
    Limits(usize),
    /// The seconds until the reset.
    UsageLimit(usize),
    Reconnect(usize, Option<Failure>),
    ReconnectForever,
    Replay(usize),
    SilentRetry(SecondAnswer),
    WebSocketRefused,
    Hang {
        after_text: bool,
    },
    Deaf {
        after_text: bool,
    },
    Grandchild,
    Die,
    Crash,
    Exit0,
    Stop,
    CloseStdin,
    Garbage,
    BadUtf8,
    LongLine(usize),
    Babble(usize),
    Stderr(usize),
    Overloaded(usize),
    MuteStart,
    MuteInject,
    MuteTurn,
    Approval,
    Memory(usize),
    /// Answers with all items that the model gets.
    Transcript,
    /// Follows the directives in the last user message.
    Directives,
}

/// The style of the tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// All at once.
    Plain,
    /// After some text.
    AfterText,
    /// 50 ms apart.
    Slow,
    /// After a command of the agent.
    AfterOwn,
    /// At first with arguments that violate the schema.
    Bad,
    /// In a response that breaks off. The next one repeats the calls.
    Broken,
    /// In a response that breaks off. The next one is a text.
    BrokenThenText,
}

/// The answer after a response that broke off without a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondAnswer {
    Same,
    Other,
    /// The same whole text twice, then the report of a content filter.
    Filtered,
}

/// The mark before a scenario in the name of a model. Text before the mark is ignored.
const MARK: &str = "fake:";

/// Parses the name of a model. A name without the mark is an echo. An unknown scenario is an error.
pub(crate) fn parse_model(model: &str) -> Result<Scenario, String> {
    model.find(MARK).map_or(Ok(Scenario::Echo), |at| parse_name(&model[at + MARK.len()..]))
}

/// Parses a scenario without the name of a model.
pub(crate) fn parse_name(name: &str) -> Result<Scenario, String> {
    let name = name.strip_prefix(MARK).unwrap_or(name);
    let (head, rest) = name.split_once(':').unwrap_or((name, ""));
    let parsed = |text: &str| text.parse::<usize>().map_err(|e| format!("fake codex: `{name}`: {e}"));
    let number = || parsed(rest);
    let number_or = |default: usize| if rest.is_empty() { Ok(default) } else { parsed(rest) };
    let millis =
        |text: &str| parsed(text).map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)));
    let failure =
        |kind: &str| failures::from_kind(kind).ok_or(format!("fake codex: unknown failure `{kind}`"));
    let tools = |style| Ok(Scenario::Tools { calls: number_or(1)?, style });
    Ok(match head {
        "text" => Scenario::Text(number()?),
        "stream" => {
            let (count, every) = rest.split_once(':').unwrap_or((rest, ""));
            Scenario::Stream(parsed(count)?, millis(every)?)
        }
        "flood" => Scenario::Flood(number()?),
        "slow" => Scenario::Slow(millis(rest)?),
        "gated" => Scenario::Gated(rest.to_owned()),
        "longline" => Scenario::LongLine(number()?),
        "babble" => Scenario::Babble(number()?),
        "stderr" => Scenario::Stderr(number()?),
        "overloaded" => Scenario::Overloaded(number()?),
        "memory" => Scenario::Memory(number()?),
        "replay" => Scenario::Replay(number()?),
        "limits" => Scenario::Limits(number()?),
        "usage-limit" => Scenario::UsageLimit(number()?),
        "tools" => return tools(Style::Plain),
        "tools-text" => return tools(Style::AfterText),
        "tools-slow" => return Ok(Scenario::Tools { calls: number_or(3)?, style: Style::Slow }),
        "tools-own" => return tools(Style::AfterOwn),
        "tools-bad" => return tools(Style::Bad),
        "tools-broken" => return tools(Style::Broken),
        "tools-broken-text" => return tools(Style::BrokenThenText),
        "silent-retry" => Scenario::SilentRetry(match rest {
            "same" => SecondAnswer::Same,
            "other" => SecondAnswer::Other,
            "filtered" => SecondAnswer::Filtered,
            _ => return Err(format!("fake codex: unknown second answer `{rest}`")),
        }),
        "acted" if rest == "hang" => Scenario::Acted(None),
        "acted" => Scenario::Acted(Some(failure(rest)?)),
        "failed" => Scenario::Failed { failure: failure(rest)?, after_text: false },
        "failed-after-text" => Scenario::Failed { failure: failure(rest)?, after_text: true },
        "reconnect" => {
            let (times, kind) = rest.split_once(':').unwrap_or((rest, "ok"));
            Scenario::Reconnect(parsed(times)?, if kind == "ok" { None } else { Some(failure(kind)?) })
        }
        _ if !rest.is_empty() => return Err(format!("fake codex: `{head}` has no parameter")),
        "echo" | "after-end" => Scenario::Echo,
        "report" => Scenario::Report,
        "login" => Scenario::Login { after_text: false },
        "login-after-text" => Scenario::Login { after_text: true },
        "commentary" => Scenario::Commentary,
        "items" => Scenario::Items,
        "compaction" => Scenario::Compaction,
        "reasoning" => Scenario::Reasoning,
        "usage" => Scenario::Usage,
        "unknown-model" => Scenario::UnknownModel,
        "not-logged-in" => Scenario::Failed { failure: failure("not-logged-in")?, after_text: false },
        "websocket-refused" => Scenario::WebSocketRefused,
        "reconnect-forever" => Scenario::ReconnectForever,
        "hang" => Scenario::Hang { after_text: false },
        "hang-after-text" => Scenario::Hang { after_text: true },
        "deaf" | "stubborn" => Scenario::Deaf { after_text: false },
        "deaf-after-text" => Scenario::Deaf { after_text: true },
        "grandchild" => Scenario::Grandchild,
        "die" => Scenario::Die,
        "crash" => Scenario::Crash,
        "exit0" => Scenario::Exit0,
        "stop" => Scenario::Stop,
        "close-stdin" => Scenario::CloseStdin,
        "garbage" => Scenario::Garbage,
        "badutf8" => Scenario::BadUtf8,
        "mute-start" => Scenario::MuteStart,
        "mute-inject" => Scenario::MuteInject,
        "mute-turn" | "silent" => Scenario::MuteTurn,
        "approval" => Scenario::Approval,
        "transcript" => Scenario::Transcript,
        "directives" => Scenario::Directives,
        _ => return Err(format!("fake codex: unknown scenario `{head}` of the app-server")),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Scenario, Style, parse_model};

    #[test]
    fn scenario_names_are_parsed_with_numbers() {
        for (name, scenario) in [
            ("gpt-5.5", Scenario::Echo),
            ("any/fake:text:12", Scenario::Text(12)),
            ("fake:stream:3:50", Scenario::Stream(3, Duration::from_millis(50))),
            ("fake:tools", Scenario::Tools { calls: 1, style: Style::Plain }),
            ("fake:tools:4", Scenario::Tools { calls: 4, style: Style::Plain }),
            ("fake:tools-slow", Scenario::Tools { calls: 3, style: Style::Slow }),
            ("fake:reconnect:2:ok", Scenario::Reconnect(2, None)),
        ] {
            assert_eq!(parse_model(name), Ok(scenario), "{name}");
        }
        assert!(matches!(
            parse_model("fake:failed-after-text:401"),
            Ok(Scenario::Failed { after_text: true, .. })
        ));
    }

    #[test]
    fn unknown_scenario_is_an_error() {
        for name in
            ["fake:hnag", "fake:text", "fake:stream:1", "fake:failed:418", "fake:hang:1", "fake:tools:x"]
        {
            assert!(parse_model(name).is_err(), "{name}");
        }
    }
}
