//! The upstreams, with minimal cost, in a process of their own (`bench upstream`): the Responses API for the CLI and
//! chat completions for LiteLLM. The prompt sets length and pace of the answer; each token is its time of sending. The
//! server also reports the number of open answers and the time of the last disconnect. A second port has TLS.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinSet,
};

use crate::{
    BenchResult, cache, http,
    process::Program,
    stats::now_us,
    tally::{ANSWER, ARGUMENTS, CALL, TOOL},
    tls, websocket,
};

/// Handle of the process.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    tls_address: SocketAddr,
    /// The certificate of the authority behind the port with TLS, as PEM.
    pub(crate) authority: String,
}

/// State that the process reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Open answers.
    pub(crate) open: u64,
    /// Time of the last disconnect from an unfinished answer, in microseconds.
    pub(crate) disconnected_at: u64,
    /// Bytes of all requests.
    pub(crate) received: u64,
    pub(crate) cache: cache::Totals,
}

impl Upstream {
    pub(crate) async fn start(folder: &Path) -> BenchResult<Self> {
        let me = std::env::current_exe()?;
        let log = folder.join("upstream.log");
        let mut program =
            Program::start_with_pipes(&me, &["upstream".into()], &BTreeMap::new(), folder, &log)?;
        let stdout = program.child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(10), BufReader::new(stdout).read_line(&mut line)).await??;
        let mut addresses = line.split_ascii_whitespace().map(str::parse);
        let (Some(Ok(address)), Some(Ok(tls_address))) = (addresses.next(), addresses.next()) else {
            return Err(format!("the upstream printed {line:?}").into());
        };
        let authority = std::fs::read_to_string(folder.join(tls::AUTHORITY))?;
        Ok(Self { program, address, tls_address, authority })
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn tls_base_url(&self) -> String {
        format!("https://{}/v1", self.tls_address)
    }

    pub(crate) async fn state(&self) -> BenchResult<State> {
        let answer = http::get(self.address, "/state").await?;
        let mut numbers = answer.body.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().ok_or("a number is missing");
        Ok(State {
            open: next()??,
            disconnected_at: next()??,
            received: next()??,
            cache: cache::Totals { hit: next()??, former: next()??, whole: next()?? },
        })
    }

    /// Begins to compare the requests of one conversation.
    pub(crate) async fn record(&self) -> BenchResult<()> {
        http::get(self.address, "/record/on").await.map(drop)
    }

    /// Ends the comparison of the requests and returns its result.
    pub(crate) async fn end_record(&self) -> BenchResult<cache::Totals> {
        let cache = self.state().await?.cache;
        http::get(self.address, "/record/off").await?;
        Ok(cache)
    }
}

/// The counters of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    disconnected_at: AtomicU64,
    number: AtomicU64,
    received: AtomicU64,
    cache: Mutex<Option<cache::Comparison>>,
    totals: Mutex<cache::Totals>,
}

impl Counters {
    /// Counts a model call and its bytes, and returns its number.
    pub(crate) fn on_call(&self, bytes: usize) -> BenchResult<u64> {
        self.received.fetch_add(u64::try_from(bytes)?, Relaxed);
        Ok(self.number.fetch_add(1, Relaxed))
    }

    fn state(&self) -> String {
        let totals = *lock(&self.totals);
        let numbers = [
            self.open.load(Relaxed),
            self.disconnected_at.load(Relaxed),
            self.received.load(Relaxed),
            totals.hit,
            totals.former,
            totals.whole,
        ];
        numbers.map(|number| number.to_string()).join(" ")
    }

    fn record(&self, on: bool) {
        if on {
            *lock(&self.totals) = cache::Totals::default();
        }
        *lock(&self.cache) = on.then(cache::Comparison::default);
    }

    fn compare(&self, body: &[u8]) {
        if let Some(comparison) = lock(&self.cache).as_mut() {
            lock(&self.totals).add(comparison.push(body));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until its parent closes its stdin. Writes the authority of its certificate to the working folder.
pub(crate) async fn serve() -> BenchResult<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let tls_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let acceptor = tls::acceptor()?;
    let mut stdout = tokio::io::stdout();
    let addresses = format!("{} {}\n", listener.local_addr()?, tls_listener.local_addr()?);
    stdout.write_all(addresses.as_bytes()).await?;
    stdout.flush().await?;

    let counters = Arc::new(Counters::default());
    let mut connections = JoinSet::new();
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 16];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let counters = Arc::clone(&counters);
                // Errors of a connection affect only that connection.
                connections.spawn(async move { drop(handle_connection(stream, &counters).await) });
            }
            accepted = tls_listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let (acceptor, counters) = (acceptor.clone(), Arc::clone(&counters));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    drop(handle_connection(stream, &counters).await);
                });
            }
            Some(_) = connections.join_next() => {}
            read = stdin.read(&mut nothing) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn handle_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    counters: &Counters,
) -> BenchResult<()> {
    let mut buffer = Vec::with_capacity(64 << 10);
    while let Some((head, length)) = http::read_message(&mut stream, &mut buffer).await? {
        let body = &buffer[head..head + length];
        let line = String::from_utf8_lossy(&buffer[..head]);
        let line = line.lines().next().unwrap_or_default();
        if line.starts_with("POST ") {
            let number = counters.on_call(head + length)?;
            counters.compare(body);
            let format: &dyn ResponseFormat =
                if line.contains("/responses") { &Responses } else { &Completions };
            counters.open.fetch_add(1, Relaxed);
            let answered = if wants_call(body) {
                call(&mut stream, number).await
            } else {
                let (tokens, pause) = requested_answer(body).unwrap_or((1, Duration::ZERO));
                answer(&mut stream, format, number, tokens, pause).await
            };
            counters.open.fetch_sub(1, Relaxed);
            if answered.is_err() {
                counters.disconnected_at.store(now_us(), Relaxed);
            }
            // Each model call of the CLI has a connection of its own.
            return answered;
        }
        if let Some(accept) = websocket::accept(&String::from_utf8_lossy(&buffer[..head])) {
            return websocket::serve(stream, &accept, counters).await;
        }
        let body = if line.starts_with("GET /state") {
            counters.state()
        } else if line.starts_with("GET /record/") {
            counters.record(line.starts_with("GET /record/on"));
            String::new()
        } else {
            r#"{"object":"list","data":[]}"#.to_owned()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        buffer.clear();
    }
    Ok(())
}

/// Returns the events of an instant answer, one JSON text each. A warm-up has no items.
pub(crate) fn events(body: &[u8], number: u64, is_warm_up: bool) -> Vec<String> {
    let mut text = String::new();
    if is_warm_up {
        created(number, &mut text);
        completed(number, 0, &mut text);
    } else {
        let (tokens, _) = requested_answer(body).unwrap_or((1, Duration::ZERO));
        let mut whole = String::new();
        Responses.begin(number, &mut text);
        for _ in 0..tokens {
            let token = format!("t={};", now_us());
            Responses.token(number, &token, &mut text);
            whole.push_str(&token);
        }
        Responses.end(number, &whole, tokens, &mut text);
    }
    text.lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect()
}

/// Parses length and pace of the requested answer in the last prompt of a request.
fn requested_answer(body: &[u8]) -> Option<(usize, Duration)> {
    let at = body.windows(ANSWER.len()).rposition(|window| window == ANSWER.as_bytes())?;
    let rest = &body[at + ANSWER.len()..];
    let end = rest.iter().position(|&byte| byte == b'.')?;
    let (tokens, pause) = str::from_utf8(&rest[..end]).ok()?.split_once(' ')?;
    Some((tokens.parse().ok()?, Duration::from_millis(pause.parse().ok()?)))
}

/// Returns whether a request asks for a call of a client's tool that it does not contain yet.
fn wants_call(body: &[u8]) -> bool {
    const OUTPUT: &[u8] = b"function_call_output";
    let Some(at) = body.windows(ANSWER.len()).rposition(|window| window == ANSWER.as_bytes()) else {
        return false;
    };
    body[..at].ends_with(CALL.as_bytes()) && !body[at..].windows(OUTPUT.len()).any(|window| window == OUTPUT)
}

/// Sends a call of the client's tool.
async fn call(stream: &mut (impl AsyncWrite + Unpin), number: u64) -> BenchResult<()> {
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
    Responses.call(number, &mut text);
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Streams an answer. Fails if the client disconnects before the end.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    format: &dyn ResponseFormat,
    number: u64,
    tokens: usize,
    pause: Duration,
) -> BenchResult<()> {
    let (mut input, mut output) = tokio::io::split(stream);
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
    format.begin(number, &mut text);
    let mut whole = String::new();
    for _ in 0..tokens {
        let from = whole.len();
        write!(whole, "t={};", now_us())?;
        format.token(number, &whole[from..], &mut text);
        if pause.is_zero() {
            if text.len() > 16 << 10 {
                output.write_all(text.as_bytes()).await?;
                text.clear();
            }
            continue;
        }
        output.write_all(text.as_bytes()).await?;
        text.clear();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The client sends nothing more, so a read returns at its disconnect.
            _ = input.read_u8() => return Err("the client disconnected".into()),
        }
    }
    format.end(number, &whole, tokens, &mut text);
    output.write_all(text.as_bytes()).await?;
    output.shutdown().await?;
    Ok(())
}

/// The format of one API.
trait ResponseFormat: Send + Sync {
    fn begin(&self, number: u64, out: &mut String);
    fn token(&self, number: u64, token: &str, out: &mut String);
    fn end(&self, number: u64, whole: &str, tokens: usize, out: &mut String);
}

struct Responses;

impl Responses {
    fn call(&self, n: u64, out: &mut String) {
        let arguments = serde_json::Value::from(ARGUMENTS).to_string();
        let item = |status: &str, arguments: &str| {
            format!(
                r#"{{"id":"fc_{n}","type":"function_call","status":"{status}","call_id":"call_{n}","name":"{TOOL}","arguments":{arguments}}}"#
            )
        };
        created(n, out);
        let (added, done) = (item("in_progress", "\"\""), item("completed", &arguments));
        event(out, "response.output_item.added", format_args!(r#""output_index":0,"item":{added}"#));
        event(out, "response.output_item.done", format_args!(r#""output_index":0,"item":{done}"#));
        completed(n, 10, out);
    }
}

fn created(n: u64, out: &mut String) {
    event(
        out,
        "response.created",
        format_args!(
            r#""response":{{"id":"resp_{n}","object":"response","status":"in_progress","output":[]}}"#
        ),
    );
}

fn completed(n: u64, tokens: usize, out: &mut String) {
    event(
        out,
        "response.completed",
        format_args!(
            r#""response":{{"id":"resp_{n}","object":"response","status":"completed","output":[],"usage":{{"input_tokens":100,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}}}"#,
            tokens + 100
        ),
    );
}

impl ResponseFormat for Responses {
    fn begin(&self, n: u64, out: &mut String) {
        created(n, out);
        event(
            out,
            "response.output_item.added",
            format_args!(
                r#""output_index":0,"item":{{"id":"msg_{n}","type":"message","role":"assistant","status":"in_progress","content":[]}}"#
            ),
        );
    }

    fn token(&self, n: u64, token: &str, out: &mut String) {
        event(
            out,
            "response.output_text.delta",
            format_args!(r#""output_index":0,"content_index":0,"item_id":"msg_{n}","delta":"{token}""#),
        );
    }

    fn end(&self, n: u64, whole: &str, tokens: usize, out: &mut String) {
        event(
            out,
            "response.output_item.done",
            format_args!(
                r#""output_index":0,"item":{{"id":"msg_{n}","type":"message","role":"assistant","status":"completed","content":[{{"type":"output_text","text":"{whole}","annotations":[]}}]}}"#
            ),
        );
        completed(n, tokens, out);
    }
}

fn event(out: &mut String, name: &str, members: std::fmt::Arguments<'_>) {
    let _infallible = write!(out, "event: {name}\ndata: {{\"type\":\"{name}\",{members}}}\n\n");
}

struct Completions;

impl ResponseFormat for Completions {
    fn begin(&self, n: u64, out: &mut String) {
        chunk(out, n, r#"{"role":"assistant","content":""}"#, "null");
    }

    fn token(&self, n: u64, token: &str, out: &mut String) {
        chunk(out, n, &format!(r#"{{"content":"{token}"}}"#), "null");
    }

    fn end(&self, n: u64, _whole: &str, _tokens: usize, out: &mut String) {
        chunk(out, n, "{}", r#""stop""#);
        out.push_str("data: [DONE]\n\n");
    }
}

fn chunk(out: &mut String, n: u64, delta: &str, finish: &str) {
    let _infallible = write!(
        out,
        "data: {{\"id\":\"chatcmpl-{n}\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"fake\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
    );
}
