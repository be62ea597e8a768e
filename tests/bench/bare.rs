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
    /// The number of threads.
    load: Arc<AtomicUsize>,
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
    thread: Option<Object>,
    turn: Option<Object>,
}

/// A thread or a turn.
#[derive(Debug, Deserialize)]
struct Object {
    id: String,
}

/// An event of a turn.
#[derive(Debug)]
pub(crate) enum TurnUpdate {
    /// Text, and the time of its arrival.
    Text(String, u64),
    /// A request for the result of a client's tool.
    ToolCall(ToolCall),
    /// The end with its status.
    Completed(String),
}

/// The ids of a request for the result of a client's tool.
#[derive(Debug)]
pub(crate) struct ToolCall {
    request: u64,
    pub(crate) call: String,
}

/// A thread on one of the workers. It counts as load of the worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Thread {
    inner: Arc<Inner>,
    load: Arc<AtomicUsize>,
    pub(crate) id: String,
    updates: mpsc::Receiver<TurnUpdate>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.inner.routes().threads.remove(&self.id);
        self.load.fetch_sub(1, Relaxed);
    }
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
    #[serde(rename = "callId")]
    call: Option<&'a str>,
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

    /// Runs one turn like the gateway.
    pub(crate) async fn turn(&self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let outcome = timeout(LIMIT, self.run_turn(prompt, tally)).await;
        outcome.map_err(|_| "a bare turn took too long")?
    }

    async fn run_turn(&self, prompt: &Prompt, tally: &mut Tally) -> BenchResult<()> {
        let mut timer = TurnTimer::start();
        let mut thread = self.start_thread(self.recording.thread(prompt)).await?;
        thread.inject(self.recording.items(&thread.id, prompt)).await?;
        thread.start_turn(self.recording.turn(&thread.id)).await?;
        let status = loop {
            match thread.next().await? {
                TurnUpdate::Text(text, now) => timer.text(text.as_bytes(), now, tally),
                TurnUpdate::ToolCall(_) => return Err("no tool was offered".into()),
                TurnUpdate::Completed(status) => break status,
            }
        };
        if status != "completed" {
            return Err(format!("the bare turn is {status}").into());
        }
        timer.end(tally);
        thread.unsubscribe().await
    }

    /// Starts a thread with these parameters on the worker with the fewest threads.
    pub(crate) async fn start_thread(&self, params: Value) -> BenchResult<Thread> {
        let worker = self.workers.iter().min_by_key(|worker| worker.load.load(Relaxed)).ok_or("no worker")?;
        worker.load.fetch_add(1, Relaxed);
        let (sender, updates) = mpsc::channel(1024);
        let inner = Arc::clone(&worker.inner);
        let mut thread = Thread { inner, load: Arc::clone(&worker.load), id: String::new(), updates };
        let started = thread.inner.call_for("thread/start", params, Some(sender)).await?;
        thread.id = started.thread.ok_or("no thread")?.id;
        Ok(thread)
    }

    pub(crate) const fn recording(&self) -> &Recording {
        &self.recording
    }
}

impl Thread {
    pub(crate) async fn inject(&self, params: Value) -> BenchResult<()> {
        self.inner.call("thread/inject_items", params).await.map(drop)
    }

    /// Starts a turn and returns its id.
    pub(crate) async fn start_turn(&self, params: Value) -> BenchResult<String> {
        Ok(self.inner.call("turn/start", params).await?.turn.ok_or("no turn")?.id)
    }

    /// Waits for the next event of the turn.
    pub(crate) async fn next(&mut self) -> BenchResult<TurnUpdate> {
        let next = timeout(LIMIT, self.updates.recv()).await;
        Ok(next.map_err(|_| "a bare turn took too long")?.ok_or("the worker has exited")?)
    }

    /// Sends the result of a call.
    pub(crate) async fn answer(&self, call: &ToolCall, text: &str) -> BenchResult<()> {
        let content = json!([{"type": "inputText", "text": text}]);
        let result = json!({"contentItems": content, "success": true});
        self.inner.write(&json!({"id": call.request, "result": result})).await
    }

    /// Interrupts a turn and waits for its end.
    pub(crate) async fn interrupt(&mut self, turn: &str) -> BenchResult<()> {
        self.inner.call("turn/interrupt", json!({"threadId": self.id, "turnId": turn})).await?;
        while !matches!(self.next().await?, TurnUpdate::Completed(_)) {}
        Ok(())
    }

    /// Releases the thread. This is part of a turn's work, but its response is not awaited.
    pub(crate) async fn unsubscribe(self) -> BenchResult<()> {
        self.inner.send("thread/unsubscribe", &json!({"threadId": self.id})).await
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
        Ok(Self { program, inner, load: Arc::default(), home, _tasks: tasks })
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
        self.write(&json!({"id": id, "method": method, "params": params})).await?;
        let answer = answer.await?.map_err(|error| format!("{method}: {error}"))?;
        if let (Some(updates), Some(thread)) = (updates, &answer.thread) {
            self.routes().threads.insert(thread.id.clone(), updates);
        }
        Ok(answer)
    }

    /// Sends a call and ignores its response.
    async fn send(&self, method: &str, params: &Value) -> BenchResult<()> {
        let id = self.next_id.fetch_add(1, Relaxed);
        self.write(&json!({"id": id, "method": method, "params": params})).await
    }

    async fn write(&self, message: &Value) -> BenchResult<()> {
        let mut line = message.to_string().into_bytes();
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
            (Some("item/tool/call"), ..) => {
                let (Some(request), Some(call)) = (line.id, params.call) else { return };
                TurnUpdate::ToolCall(ToolCall { request, call: call.to_owned() })
            }
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
