//! Tests of the built example over its pipes, for behaviour of a whole process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The time limit of every wait.
const LIMIT: Duration = Duration::from_secs(20);

/// A fake app-server process. Dropping it kills the process.
struct Fake {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Fake {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let here = std::env::current_exe().expect("a path");
        let built: PathBuf = here.with_file_name("fake-codex");
        assert!(built.exists(), "the example is not built: cargo build --example fake-codex");
        let mut command = Command::new(built);
        command.arg("app-server").args(args).envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a process");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::sync_channel(1024);
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    fn ready(args: &[&str]) -> Self {
        let mut fake = Self::start(args, &[]);
        fake.send(&json!({"id": 1, "method": "initialize", "params": {
            "clientInfo": {"name": "test", "version": "0"}, "capabilities": {"experimentalApi": true}}}));
        fake
    }

    fn send(&mut self, line: &Value) {
        self.try_send(line).expect("an open stdin");
    }

    fn try_send(&mut self, line: &Value) -> std::io::Result<()> {
        self.stdin.as_mut().expect("a pipe").write_all(format!("{line}\n").as_bytes())
    }

    fn start_turn(&mut self, model: &str) {
        let thread = self.thread(model);
        self.turn(&thread);
    }

    fn thread(&mut self, model: &str) -> Value {
        self.send(&json!({"id": 2, "method": "thread/start", "params": {"model": model, "ephemeral": true}}));
        let started = self.read_until(|line| line["id"] == 2);
        started["result"]["thread"]["id"].clone()
    }

    fn turn(&mut self, thread: &Value) {
        self.send(&json!({"id": 3, "method": "turn/start", "params": {"threadId": thread, "input": []}}));
    }

    /// Reads to the next message that satisfies the condition.
    fn read_until(&self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("a line");
            if let Ok(line) = serde_json::from_str(&line)
                && wanted(&line)
            {
                return line;
            }
        }
    }

    fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not exit");
            thread::yield_now();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has_method(method: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["method"] == method
}

#[test]
fn streams_run_concurrently_in_one_process() {
    let mut fake = Fake::ready(&["-c", "thread_unload_delay_secs=0"]);
    let threads: Vec<Value> = (0..50).map(|_| fake.thread("fake:stream:5:50")).collect();
    // All turns start before the test reads, so that no end is skipped.
    for thread in &threads {
        fake.turn(thread);
    }
    let mut streaming = std::collections::BTreeSet::new();
    let mut at_the_first_end = None;
    for _ in 0..50 {
        let end = fake.read_until(|line| {
            if line["method"] == "item/agentMessage/delta" {
                streaming.insert(line["params"]["threadId"].to_string());
            }
            line["method"] == "turn/completed"
        });
        at_the_first_end.get_or_insert(streaming.len());
        let text = end["params"]["turn"]["items"][0]["text"].as_str();
        assert_eq!(text.map(|text| text.matches("t=").count()), Some(5));
    }
    assert!(at_the_first_end > Some(1), "the streams run one after the other");
}

#[test]
fn closed_stdin_ends_the_process() {
    let mut fake = Fake::ready(&[]);
    fake.start_turn("fake:hang");
    fake.read_until(has_method("turn/started"));
    fake.stdin = None;
    assert_eq!(fake.status().code(), Some(0));
}

#[test]
fn die_scenario_exits_during_a_turn() {
    let mut fake = Fake::ready(&[]);
    fake.start_turn("fake:die");
    fake.read_until(has_method("item/agentMessage/delta"));
    assert_eq!(fake.status().code(), Some(1));
}

#[test]
fn stop_scenario_stops_the_process() {
    let mut fake = Fake::ready(&[]);
    fake.start_turn("fake:stop");
    fake.read_until(has_method("item/agentMessage/delta"));
    let stat = format!("/proc/{}/stat", fake.child.id());
    let deadline = Instant::now() + LIMIT;
    while !std::fs::read_to_string(&stat).expect("a process").contains(") T ") {
        assert!(Instant::now() < deadline, "the process is not stopped");
        thread::yield_now();
    }
}

#[test]
fn close_stdin_scenario_keeps_the_process_alive() {
    let mut fake = Fake::ready(&[]);
    fake.start_turn("fake:close-stdin");
    fake.read_until(has_method("item/agentMessage/delta"));
    let deadline = Instant::now() + LIMIT;
    while fake.try_send(&json!({})).is_ok() {
        assert!(Instant::now() < deadline, "stdin is still open");
        thread::yield_now();
    }
    assert!(fake.child.try_wait().expect("a child").is_none());
}

#[test]
fn flood_and_long_line_arrive_whole() {
    let mut fake = Fake::ready(&[]);
    fake.start_turn("fake:flood:3000000");
    let end = fake.read_until(has_method("turn/completed"));
    assert_eq!(end["params"]["turn"]["items"][0]["text"].as_str().map(str::len), Some(3_000_000));
    fake.start_turn("fake:longline:5000000");
    let line = fake.read_until(has_method("item/completed"));
    assert_eq!(line["params"]["item"]["aggregatedOutput"].as_str().map(str::len), Some(5_000_000));
}

#[test]
fn start_fails_in_each_mode() {
    let mut exiting = Fake::start(&[], &[("FAKE_CODEX_APP_SERVER", "dies")]);
    assert_eq!(exiting.status().code(), Some(1));
    let mut invalid = Fake::start(&["--disable", "nope"], &[]);
    assert_eq!(invalid.status().code(), Some(1));
    let mut without_home = Fake::start(&[], &[("CODEX_HOME", "/nowhere")]);
    assert_eq!(without_home.status().code(), Some(1));
    let mut without_catalog = Fake::start(&["-c", r#"model_catalog_json="/nowhere/x.json""#], &[]);
    assert_eq!(without_catalog.status().code(), Some(1));

    let mut garbage = Fake::start(&[], &[("FAKE_CODEX_APP_SERVER", "garbage")]);
    garbage.send(&json!({"id": 1, "method": "initialize"}));
    assert_eq!(garbage.lines.recv_timeout(LIMIT).expect("a line"), "warning: this is not JSON");

    let mut mute = Fake::start(&[], &[("FAKE_CODEX_APP_SERVER", "mute")]);
    mute.send(&json!({"id": 1, "method": "initialize"}));
    mute.stdin = None;
    assert_eq!(mute.status().code(), Some(0));
    assert!(mute.lines.recv_timeout(LIMIT).is_err());
}

#[test]
fn old_releases_have_fewer_features() {
    let old = [("FAKE_CODEX_VERSION", "0.110.0")];
    let mut fake = Fake::start(&["--disable", "goals"], &old);
    assert_eq!(fake.status().code(), Some(1));
    let built = std::env::current_exe().expect("a path").with_file_name("fake-codex");
    let mut command = Command::new(built);
    command.args(["debug", "models"]).envs(old).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a process");
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert_eq!((child.wait().expect("a status").code(), text.as_str()), (Some(2), ""));
}
