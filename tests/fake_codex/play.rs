//! Runs a scenario of `exec`: reads, prints and exits like the real CLI.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    FAKE_ONLY,
    args::Exec,
    env,
    failures::Failure,
    items,
    lines::{self, DEFAULT_USAGE, Usage},
    print_error, prompt, report,
    scenario::{self, Scenario},
    watch::{self, Signals},
};

/// The usage of `fake:usage`, with five different counts.
const DISTINCT_USAGE: Usage = Usage { input: 1200, cached: 1000, cache_write: 30, output: 50, reasoning: 20 };

const OLD: &str = "error: unexpected argument '--ephemeral' found\n\n  tip: to pass '--ephemeral' as a value, use \
     '-- --ephemeral'\n\nUsage: codex exec [OPTIONS] [PROMPT] [COMMAND]\n\nFor more information, try '--help'.\n";

const CONFIG_ERROR: &str =
    "Error loading config.toml: invalid type: sequence, expected a string\nin `model_reasoning_effort`\n\n";

const NO_MODEL: &str = "Error: thread/start: thread/start failed: No models are available. Set `model` explicitly or \
     check your model catalog configuration. (code -32600)\n";

pub(crate) const CRASH: &str = "\nthread 'main' (1) panicked at codex-rs/exec/src/lib.rs:1:1:\nthe scenario panics\n\
     note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";

/// Runs `codex exec --json` and returns its exit code. Fails if stdout is closed.
pub(crate) fn run(exec: &Exec) -> io::Result<u8> {
    let scenario = match env("FAKE_CODEX_SCENARIO") {
        Some(name) => scenario::parse_name(&name),
        None => scenario::parse_model(exec.model.as_deref().unwrap_or("")),
    };
    let scenario = match scenario {
        Ok(scenario) => scenario,
        Err(text) => return print_error(FAKE_ONLY, &format!("{text}\n")),
    };
    let deaf = scenario == Scenario::Stubborn;
    watch::start(if deaf { Signals::Ignored } else { Signals::Exec })?;
    watch::record_pid(std::process::id())?;
    if scenario == Scenario::Old {
        return print_error(2, OLD);
    }
    if scenario == Scenario::ConfigError {
        return print_error(1, CONFIG_ERROR);
    }
    match Invocation::read(exec, &scenario) {
        Err(text) => print_error(1, &text),
        Ok(invocation) => run_scenario(scenario, &invocation),
    }
}

/// The input of a turn.
struct Invocation<'a> {
    exec: &'a Exec,
    cwd: PathBuf,
    prompt: String,
    schema: Option<serde_json::Value>,
}

impl<'a> Invocation<'a> {
    fn read(exec: &'a Exec, scenario: &Scenario) -> Result<Self, String> {
        let here = std::env::current_dir().map_err(|e| format!("Error: {e}\n"))?;
        let cwd = exec.cd.as_deref().map_or(here.clone(), |dir| here.join(Path::new(dir)));
        let unread = *scenario == Scenario::NoRead;
        let prompt = if unread { String::new() } else { prompt::read(exec)? };
        prompt::check_trusted(exec, &cwd)?;
        if exec.model.as_deref() == Some("") {
            return Err(NO_MODEL.to_owned());
        }
        let schema = prompt::schema(exec)?;
        Ok(Self { exec, cwd, prompt, schema })
    }
}

fn run_scenario(scenario: Scenario, invocation: &Invocation<'_>) -> io::Result<u8> {
    let exec = invocation.exec;
    if scenario == Scenario::Silent {
        watch::park_forever();
    }
    line(&lines::thread_started())?;
    let chars = invocation.prompt.chars().count();
    if scenario == Scenario::PromptTooLarge || chars > prompt::MAX_CHARS {
        return print_error(1, &prompt::too_large(chars.max(prompt::MAX_CHARS + 1)));
    }
    if matches!(scenario, Scenario::Grandchild | Scenario::Orphan) {
        watch::start_grandchild()?;
    }
    if scenario == Scenario::UnknownModel {
        line(&lines::warning(
            0,
            "Model metadata for `x` not found. Defaulting to fallback metadata; this can degrade performance and cause issues.",
        ))?;
    }
    line(&lines::turn_started())?;
    match scenario {
        Scenario::Echo | Scenario::PromptTooLarge => answer(exec, 0, &invocation.prompt),
        Scenario::Report => {
            let text = report::report(exec, &invocation.cwd, &invocation.prompt, invocation.schema.as_ref());
            answer(exec, 0, &text)
        }
        Scenario::Login { after_text } => match crate::login::request() {
            Ok(name) => answer(exec, 0, &name),
            Err(kind) => {
                if after_text {
                    line(&lines::message(0, "some text before"))?;
                }
                crate::failures::from_kind(kind).map_or(Ok(FAKE_ONLY), fail)
            }
        },
        Scenario::Text(chars) => answer(exec, 0, &digits(chars)),
        Scenario::Commentary => {
            line(&lines::message(0, "First I look."))?;
            line(&lines::message(1, "Then I think."))?;
            answer(exec, 2, "The final answer.")
        }
        Scenario::Items => {
            items::EVERY.iter().try_for_each(|text| line(text))?;
            end(exec, "the end", DEFAULT_USAGE)
        }
        Scenario::Reasoning => {
            line(&lines::item(
                "completed",
                0,
                r#""type":"reasoning","text":"**Pondering**\n\nwhat to say""#,
            ))?;
            line(&lines::item("completed", 1, r#""type":"reasoning","text":"still pondering""#))?;
            line(&lines::message(2, "final answer"))?;
            end(exec, "final answer", Usage { reasoning: 7, ..DEFAULT_USAGE })
        }
        Scenario::Usage => {
            line(&lines::message(0, "counted"))?;
            end(exec, "counted", DISTINCT_USAGE)
        }
        Scenario::UnknownModel => answer(exec, 1, &invocation.prompt),
        Scenario::Hang | Scenario::Silent | Scenario::Stubborn | Scenario::Grandchild => {
            watch::park_forever()
        }
        Scenario::Orphan => answer(exec, 0, "The grandchild stays."),
        Scenario::Crash | Scenario::Old | Scenario::ConfigError => print_error(101, CRASH),
        Scenario::Exit0 => Ok(0),
        Scenario::Garbage => {
            items::GARBAGE.iter().try_for_each(|text| line(text))?;
            answer(exec, 0, "the answer among garbage")
        }
        Scenario::BadUtf8 => {
            raw(b"{\"type\":\"item.completed\",\"item\":{\"id\":\"item_0\",\"type\":\"reasoning\",\"text\":\"caf\xe9 \xff\"}}\n")?;
            raw(b"\xff\xfe\x00\n")?;
            answer(exec, 1, "the answer after bad bytes")
        }
        Scenario::LongLine(bytes) => {
            line(&long_line(bytes))?;
            answer(exec, 1, "the answer after a long line")
        }
        Scenario::Stderr(bytes) => {
            write_log(bytes);
            answer(exec, 0, "the answer with much stderr")
        }
        Scenario::Slow(millis) => {
            for number in 0..5 {
                thread::sleep(Duration::from_millis(millis));
                line(&lines::message(number, &format!("message {number}")))?;
            }
            end(exec, "message 4", DEFAULT_USAGE)
        }
        Scenario::AfterEnd => {
            answer(exec, 0, "the answer before staying")?;
            watch::park_forever()
        }
        Scenario::Acted(failure) => {
            items::COMMAND.iter().try_for_each(|text| line(text))?;
            match failure {
                Some(failure) => fail(failure),
                None => watch::park_forever(),
            }
        }
        Scenario::Lagged(failure) => {
            line(&lines::warning(0, "in-process app-server event stream lagged; dropped 35 events"))?;
            fail(failure)
        }
        Scenario::Failed(failure) => fail(failure),
        Scenario::Reconnect(times, then) => {
            let why = then.map_or(
                "unexpected status 503 Service Unavailable: busy, url: http://127.0.0.1:9/v1/responses",
                |failure| failure.message,
            );
            for time in 1..=times {
                line(&lines::error(&format!("Reconnecting... {time}/5 ({why})")))?;
                thread::sleep(Duration::from_millis(20));
            }
            match then {
                Some(failure) => fail(failure),
                None => answer(exec, 0, "the answer after reconnecting"),
            }
        }
        Scenario::ReconnectForever => {
            let mut pause = Duration::from_millis(50);
            loop {
                line(&lines::error(
                    "Reconnecting... waiting for network (Connection failed: error sending request)",
                ))?;
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
        Scenario::WebSocketRefused => {
            for attempt in 2..=5 {
                line(&lines::error(&format!(
                    "Reconnecting... {attempt}/5 ({})",
                    crate::failures::WEBSOCKET_REFUSED
                )))?;
            }
            line(&lines::error(crate::failures::FALLBACK))?;
            answer(exec, 0, "the answer over HTTPS")
        }
        Scenario::NoRead => answer(exec, 0, "answered without reading"),
    }
}

/// Prints the last message and the end of a successful turn.
fn answer(exec: &Exec, number: usize, text: &str) -> io::Result<u8> {
    line(&lines::message(number, text))?;
    end(exec, text, DEFAULT_USAGE)
}

fn end(exec: &Exec, text: &str, usage: Usage) -> io::Result<u8> {
    if let Some(path) = &exec.last_message
        && let Err(e) = std::fs::write(path, text)
    {
        let _ = writeln!(io::stderr(), "Failed to write last message file {path:?}: {e}");
    }
    line(&lines::completed(usage))?;
    Ok(0)
}

/// Prints the end of a failed turn, with the preceding `error` line of the real CLI.
fn fail(failure: Failure) -> io::Result<u8> {
    if let Some(partial) = failure.partial {
        line(&lines::message(0, partial))?;
    }
    line(&lines::error(failure.message))?;
    line(&lines::failed(failure.message))?;
    Ok(1)
}

fn line(text: &str) -> io::Result<()> {
    raw(format!("{text}\n").as_bytes())
}

fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Returns repeated digits, so that a test detects a missing piece.
pub(crate) fn digits(chars: usize) -> String {
    "0123456789".chars().cycle().take(chars).collect()
}

/// Returns a line of this many bytes, or the shortest possible line.
fn long_line(bytes: usize) -> String {
    let with = |output: &str| {
        lines::item(
            "completed",
            0,
            &format!(
                r#""type":"command_execution","command":"/bin/bash -lc yes","aggregated_output":"{output}","exit_code":0,"status":"completed""#
            ),
        )
    };
    with(&digits(bytes.saturating_sub(with("").len())))
}

/// Writes this many bytes of log to stderr.
pub(crate) fn write_log(bytes: usize) {
    let mut left = bytes;
    let text =
        b"2026-01-01T00:00:00.000000Z ERROR codex_core::tools::router: error=the fake writes log lines\n";
    let mut err = io::stderr().lock();
    while left > 0 {
        let piece = left.min(text.len());
        if err.write_all(&text[..piece]).is_err() {
            return;
        }
        left -= piece;
    }
}

#[cfg(test)]
mod tests {
    use super::long_line;

    #[test]
    fn long_line_has_the_requested_length() {
        assert_eq!(long_line(5000).len(), 5000);
        serde_json::from_str::<serde_json::Value>(&long_line(5000)).expect("JSON");
    }
}
