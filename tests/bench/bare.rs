//! The lower bound for comparison: a client of the same app-server processes, with the same flags, environment and kind of
//! home, that does only the necessary work of a turn. It replays the messages that the gateway sends to its worker
//! (`recording`) byte for byte.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    BenchResult,
    gateway::Gateway,
    process::{Program, copy_folder},
    recording::Recording,
    stats::now_us,
    tally::{Prompt, Tally, TurnTimer},
};

/// Maximum wait for one line.
const LIMIT: Duration = Duration::from_secs(60);

/// A number of processes and the recorded messages for them.
#[derive(Debug)]
pub(crate) struct Bare {
    workers: Vec<Worker>,
    recording: Recording,
    /// Server of the recording. Files that the arguments name belong to it.
    host: Gateway,
}

#[derive(Debug)]
struct Worker {
    program: Program,
    inner: Arc<Inner>,
    running: AtomicUsize,
    home: PathBuf,
    _tasks: JoinSet<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.home));
    }
}

#[derive(Debug)]
struct Inner {
    lines: mpsc::Sender<Vec<u8>>,
    next_id: AtomicU64,
    routes: Mutex<Routes>,
}

#[derive(Debug, Default)]
struct Routes {
    answers: HashMap<u64, oneshot::Sender<Result<Answer, String>>>,
    threads: HashMap<String, mpsc::Sender<TurnUpdate>>,
}

/// The relevant fields of a response.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    thread: Option<ThreadId>,
}

#[derive(Debug, Deserialize)]
struct ThreadId {
    id: String,
}

#[derive(Debug)]
enum TurnUpdate {
    Text(String, u64),
    Completed(String),
}

/// The relevant fields of a line. Other fields are not parsed.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<&'a str>,
    params: Option<Params<'a>>,
    result: Option<Answer>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Params<'a> {
    #[serde(rename = "threadId")]
    thread: Option<&'a str>,
    delta: Option<String>,
    turn: Option<Turn>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    status: String,
}

impl Bare {
    /// Starts the processes and sends `initialize`.
    pub(crate) async fn start(
        host: Gateway,
        recording: Recording,
        count: usize,
        folder: &Path,
    ) -> BenchResult<Self> {
        let mut workers = Vec::new();
        for number in 0..count {
            let home = format!("bench-bare-{}-{number}", std::process::id());
            let home = recording.private_home.with_file_name(home);
            copy_folder(&recording.private_home, &home)?;
            let log = folder.join(format!("bare-{number}.log"));
            workers.push(Worker::start(&recording, home, folder, &log).await?);
        }
        Ok(Self { workers, recording, host })
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(|worker| worker.program.pid)
    }

    pub(crate) async fn end(self) -> BenchResult<()> {
        for mut worker in self.workers {
            worker.program.end().await?;
        }
        self.host.end().await
    }

    /// Runs one turn like the gateway, on the worker with the fewest turns.
    pub(crate) async fn turn(&self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let worker =
            self.workers.iter().min_by_key(|worker| worker.running.load(Relaxed)).ok_or("no worker")?;
        worker.running.fetch_add(1, Relaxed);
        let outcome = timeout(LIMIT, self.run_turn(&worker.inner, prompt, tally)).await;
        worker.running.fetch_sub(1, Relaxed);
        outcome.map_err(|_| "a bare turn took too long")?
    }

    async fn run_turn(&self, inner: &Inner, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let mut timer = TurnTimer::start();
        let (sender, mut updates) = mpsc::channel(1024);
        let started = inner.call_for("thread/start", self.recording.thread(prompt), Some(sender)).await?;
        let thread = started.thread.ok_or("no thread")?.id;
        inner.call("thread/inject_items", self.recording.items(&thread, prompt)).await?;
        inner.call("turn/start", self.recording.turn(&thread)).await?;
        let status = loop {
            match updates.recv().await.ok_or("the worker has exited")? {
                TurnUpdate::Text(text, now) => timer.text(text.as_bytes(), now, tally),
                TurnUpdate::Completed(status) => break status,
            }
        };
        inner.routes().threads.remove(&thread);
        if status != "completed" {
            return Err(format!("the bare turn is {status}").into());
        }
        timer.end(tally);
        // Part of a turn's work, but its response is not awaited.
        inner.send("thread/unsubscribe", &json!({"threadId": thread})).await?;
        Ok(())
    }
}

impl Worker {
    async fn start(recording: &Recording, home: PathBuf, folder: &Path, log: &Path) -> BenchResult<Self> {
        let env = recording.env_with_home(&home);
        let mut program =
            Program::start_with_pipes(&recording.program, &recording.arguments, &env, folder, log)?;
        let stdin = program.child.stdin.take().ok_or("no stdin")?;
        let stdout = program.child.stdout.take().ok_or("no stdout")?;
        let (lines, outbox) = mpsc::channel(1024);
        let inner = Arc::new(Inner { lines, next_id: AtomicU64::new(1), routes: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(write(stdin, outbox));
        tasks.spawn(read(stdout, Arc::clone(&inner)));
        timeout(LIMIT, inner.call("initialize", recording.initialize.clone())).await??;
        inner.lines.send(b"{\"method\":\"initialized\"}\n".to_vec()).await?;
        Ok(Self { program, inner, running: AtomicUsize::new(0), home, _tasks: tasks })
    }
}

impl Inner {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, method: &str, params: Value) -> BenchResult<Answer> {
        self.call_for(method, params, None).await
    }

    async fn call_for(
        &self,
        method: &str,
        params: Value,
        updates: Option<mpsc::Sender<TurnUpdate>>,
    ) -> BenchResult<Answer> {
        let (sender, answer) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Relaxed);
        self.routes().answers.insert(id, sender);
        self.write(id, method, &params).await?;
        let answer = answer.await?.map_err(|error| format!("{method}: {error}"))?;
        if let (Some(updates), Some(thread)) = (updates, &answer.thread) {
            self.routes().threads.insert(thread.id.clone(), updates);
        }
        Ok(answer)
    }

    /// Sends a call and ignores its response.
    async fn send(&self, method: &str, params: &Value) -> BenchResult<()> {
        self.write(self.next_id.fetch_add(1, Relaxed), method, params).await
    }

    async fn write(&self, id: u64, method: &str, params: &Value) -> BenchResult<()> {
        let mut line = json!({"id": id, "method": method, "params": params}).to_string().into_bytes();
        line.push(b'\n');
        Ok(self.lines.send(line).await?)
    }

    fn on_line(&self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return };
        if let (Some(id), None) = (line.id, line.method) {
            let answer = match line.error {
                Some(error) => Err(error.to_string()),
                None => Ok(line.result.unwrap_or_default()),
            };
            if let Some(waiting) = self.routes().answers.remove(&id) {
                drop(waiting.send(answer));
            }
            return;
        }
        let Some(params) = line.params else { return };
        let updates = match (line.method, params.delta, params.turn) {
            (Some("item/agentMessage/delta"), Some(delta), _) => TurnUpdate::Text(delta, now_us()),
            (Some("turn/completed"), _, Some(turn)) => TurnUpdate::Completed(turn.status),
            _ => return,
        };
        let thread = params.thread.and_then(|thread| self.routes().threads.get(thread).cloned());
        if let Some(thread) = thread {
            // A full queue means that this client is the bottleneck. The turn then fails at its time limit.
            drop(thread.try_send(updates));
        }
    }
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn read(stdout: ChildStdout, inner: Arc<Inner>) {
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    let mut line = Vec::new();
    while let Ok(1..) = stdout.read_until(b'\n', &mut line).await {
        inner.on_line(&line);
        line.clear();
    }
}
