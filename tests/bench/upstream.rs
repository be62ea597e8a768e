//! The upstreams, as cheap as they can be, in a process of their own (`bench upstream`): the Responses API that the
//! CLI asks and the chat completions that LiteLLM asks. The prompt says how long the answer is and at what pace; every
//! token is the time it was sent at. Also told: how many answers are open, and when one was last given up.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{Outcome, http, process::Program, stats::now_us, tally::ANSWER};

/// The process, seen from the one that started it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
}

/// What it says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Answers under way.
    pub(crate) open: u64,
    /// When a client last went away from an unfinished answer, microseconds.
    pub(crate) given_up_at: u64,
}

impl Upstream {
    pub(crate) async fn start(folder: &Path) -> Outcome<Self> {
        let me = std::env::current_exe()?;
        let log = folder.join("upstream.log");
        let mut program = Program::converse(&me, &["upstream".into()], &BTreeMap::new(), folder, &log)?;
        let stdout = program.child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(10), BufReader::new(stdout).read_line(&mut line)).await??;
        let address = line.trim().parse().map_err(|_| format!("the upstream says {line:?}"))?;
        Ok(Self { program, address })
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) async fn state(&self) -> Outcome<State> {
        let answer = http::get(self.address, "/state").await?;
        let mut numbers = answer.body.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().ok_or("a number is missing");
        Ok(State { open: next()??, given_up_at: next()?? })
    }
}

#[derive(Debug, Default)]
struct Counters {
    open: AtomicU64,
    given_up_at: AtomicU64,
    number: AtomicU64,
}

/// Serves until whoever started it closes its stdin.
pub(crate) async fn serve() -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{}\n", listener.local_addr()?).as_bytes()).await?;
    stdout.flush().await?;

    let counters = Arc::new(Counters::default());
    let mut connections = JoinSet::new();
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 16];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let counters = Arc::clone(&counters);
                // A connection that breaks is the business of whoever broke it.
                connections.spawn(async move { drop(converse(stream, &counters).await) });
            }
            Some(_) = connections.join_next() => {}
            read = stdin.read(&mut nothing) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn converse(mut stream: TcpStream, counters: &Counters) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    while let Some((head, length)) = http::read_message(&mut stream, &mut buffer).await? {
        let body = &buffer[head..head + length];
        let line = String::from_utf8_lossy(&buffer[..head]);
        let line = line.lines().next().unwrap_or_default();
        if line.starts_with("POST ") {
            let (tokens, pause) = wish(body).unwrap_or((1, Duration::ZERO));
            let number = counters.number.fetch_add(1, Relaxed);
            let words: &dyn Words = if line.contains("/responses") { &Responses } else { &Completions };
            counters.open.fetch_add(1, Relaxed);
            let answered = answer(&mut stream, words, number, tokens, pause).await;
            counters.open.fetch_sub(1, Relaxed);
            if answered.is_err() {
                counters.given_up_at.store(now_us(), Relaxed);
            }
            // Every model call of the CLI has a connection of its own anyway.
            return answered;
        }
        let body = if line.starts_with("GET /state") {
            format!("{} {}", counters.open.load(Relaxed), counters.given_up_at.load(Relaxed))
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

/// What the last prompt in a request asks for.
fn wish(body: &[u8]) -> Option<(usize, Duration)> {
    let at = body.windows(ANSWER.len()).rposition(|window| window == ANSWER.as_bytes())?;
    let rest = &body[at + ANSWER.len()..];
    let end = rest.iter().position(|&byte| byte == b'.')?;
    let (tokens, pause) = str::from_utf8(&rest[..end]).ok()?.split_once(' ')?;
    Some((tokens.parse().ok()?, Duration::from_millis(pause.parse().ok()?)))
}

/// Fails if the client goes away before the end.
async fn answer(
    stream: &mut TcpStream,
    words: &dyn Words,
    number: u64,
    tokens: usize,
    pause: Duration,
) -> Outcome<()> {
    let (mut input, mut output) = stream.split();
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
    words.begin(number, &mut text);
    let mut whole = String::new();
    for _ in 0..tokens {
        let from = whole.len();
        write!(whole, "t={};", now_us())?;
        words.token(number, &whole[from..], &mut text);
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
            // Nothing more is to come from the client, so this is its end.
            _ = input.read_u8() => return Err("given up".into()),
        }
    }
    words.end(number, &whole, tokens, &mut text);
    output.write_all(text.as_bytes()).await?;
    output.shutdown().await?;
    Ok(())
}

/// The words of one API.
trait Words: Send + Sync {
    fn begin(&self, number: u64, out: &mut String);
    fn token(&self, number: u64, token: &str, out: &mut String);
    fn end(&self, number: u64, whole: &str, tokens: usize, out: &mut String);
}

struct Responses;

impl Words for Responses {
    fn begin(&self, n: u64, out: &mut String) {
        event(
            out,
            "response.created",
            format_args!(
                r#""response":{{"id":"resp_{n}","object":"response","status":"in_progress","output":[]}}"#
            ),
        );
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
        event(
            out,
            "response.completed",
            format_args!(
                r#""response":{{"id":"resp_{n}","object":"response","status":"completed","output":[],"usage":{{"input_tokens":100,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}}}"#,
                tokens + 100
            ),
        );
    }
}

fn event(out: &mut String, name: &str, members: std::fmt::Arguments<'_>) {
    let _never_fails = write!(out, "event: {name}\ndata: {{\"type\":\"{name}\",{members}}}\n\n");
}

struct Completions;

impl Words for Completions {
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
    let _never_fails = write!(
        out,
        "data: {{\"id\":\"chatcmpl-{n}\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"fake\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
    );
}
