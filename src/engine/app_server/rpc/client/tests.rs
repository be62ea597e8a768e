//! Tests of the client. Each test reads the calls and writes the responses in place of an app-server.

use std::collections::HashMap;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, split};

use super::*;
use crate::engine::app_server::rpc::{
    protocol::{Notification, RpcError},
    thread_queue::{self, ThreadMessage, ThreadReceiver},
};

const SOON: Duration = Duration::from_secs(10);

struct Server {
    stdin: Lines<BufReader<ReadHalf<DuplexStream>>>,
    stdout: WriteHalf<DuplexStream>,
    tasks: TaskTracker,
}

fn pair() -> (RpcClient, Server) {
    let (ours, theirs) = tokio::io::duplex(4 << 20);
    let (stdout, stdin) = split(ours);
    let (read, write) = split(theirs);
    let tasks = TaskTracker::new();
    let client = RpcClient::start(stdin, stdout, 1 << 16, Arc::default(), &tasks);
    (client, Server { stdin: BufReader::new(read).lines(), stdout: write, tasks })
}

impl Server {
    async fn recv(&mut self) -> Value {
        let line = timeout(SOON, self.stdin.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn send(&mut self, line: &Value) {
        self.write(&format!("{line}\n")).await;
    }

    async fn write(&mut self, text: &str) {
        self.stdout.write_all(text.as_bytes()).await.unwrap();
    }

    /// Responds to the next call, which must be a call of `method`.
    async fn respond(&mut self, method: &str, result: &Value) {
        let call = self.recv().await;
        assert_eq!(call["method"], method);
        self.send(&json!({"id": call["id"], "result": result})).await;
    }
}

/// A call with a result of any shape.
#[derive(Debug, Serialize)]
struct AnyCall {
    a: u32,
}

impl Method for AnyCall {
    const NAME: &'static str = "model/list";
    type Result = Value;
}

async fn call(client: &RpcClient) -> Result<Value, CallError> {
    client.call(&AnyCall { a: 1 }, SOON).await
}

async fn start_thread(client: &RpcClient, queue: ThreadSender) -> Result<ThreadStarted, CallError> {
    client.start_thread(&StartThread(&Value::Null), SOON, queue).await
}

fn warning(thread_id: &str) -> Value {
    json!({"method": "warning", "params": {"threadId": thread_id, "message": "careful"}})
}

async fn assert_next_is_warning(receiver: &mut ThreadReceiver) {
    let message = timeout(SOON, receiver.recv()).await.unwrap();
    let ThreadMessage::Notification(Notification::Warning(warning)) = message else {
        panic!("expected a warning, got {message:?}");
    };
    assert_eq!(warning.message, "careful");
}

#[tokio::test]
async fn call_with_results_in_any_order_returns_its_own_result() {
    let (client, mut server) = pair();
    let serve = async {
        let (first, second) = (server.recv().await, server.recv().await);
        assert_eq!((&first["method"], &first["params"]), (&json!("model/list"), &json!({"a": 1})));
        server.send(&json!({"id": second["id"], "result": 2})).await;
        // Lines without a recipient, and lines without content, are skipped.
        server.write("\nnonsense\n[1]\n{\"id\":4711,\"result\":{}}\n{\"method\":\"some/news\"}\n").await;
        server.send(&json!({"id": first["id"], "error": {"code": -32600, "message": "no"}})).await;
    };
    let (first, second, ()) = tokio::join!(call(&client), call(&client), serve);
    assert!(matches!(first, Err(CallError::Refused(error)) if error.message == "no"));
    assert_eq!(second.unwrap(), 2);
    assert_eq!(client.lines_received(), 7);
}

#[tokio::test(start_paused = true)]
async fn call_refused_as_overloaded_is_retried_four_times() {
    let (client, mut server) = pair();
    let busy = json!({"code": RpcError::OVERLOADED, "message": "later"});
    let serve = async {
        for _ in 0..2 {
            let id = server.recv().await["id"].take();
            server.send(&json!({"id": id, "error": busy})).await;
        }
        server.respond("model/list", &json!("at last")).await;
        for _ in 0..=OVERLOAD_BACKOFF.len() {
            let id = server.recv().await["id"].take();
            server.send(&json!({"id": id, "error": busy})).await;
        }
    };
    let called = async { (call(&client).await, call(&client).await) };
    let ((first, second), ()) = tokio::join!(called, serve);
    assert_eq!(first.unwrap(), "at last");
    assert!(matches!(second, Err(CallError::Refused(error)) if error.is_overloaded()));
}

#[tokio::test(start_paused = true)]
async fn call_without_result_times_out_and_ping_does_not_queue() {
    let (client, mut server) = pair();
    let calls = (0..MAX_CALLS_IN_FLIGHT + 10).map(|_| call(&client));
    let outcomes = futures_util::future::join_all(calls);
    let count = async {
        let mut calls = 0;
        while server.recv().await["method"] == "model/list" {
            calls += 1;
        }
        calls
    };
    let (outcomes, _, before) = tokio::join!(outcomes, timeout(SOON, client.ping()), count);
    assert_eq!(before, MAX_CALLS_IN_FLIGHT, "the other calls wait for a permit");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CallError::TimedOut("model/list")))));
    assert!(client.0.state().pending.is_empty(), "no pending call remains");
}

#[tokio::test]
async fn server_request_without_a_turn_gets_a_response() {
    let (_client, mut server) = pair();
    for (method, expected) in [
        ("item/commandExecution/requestApproval", json!({"decision": "decline"})),
        ("item/fileChange/requestApproval", json!({"decision": "decline"})),
        ("applyPatchApproval", json!({"decision": "denied"})),
        ("execCommandApproval", json!({"decision": "denied"})),
        ("mcpServer/elicitation/request", json!({"action": "decline"})),
    ] {
        server.send(&json!({"id": method, "method": method, "params": {}})).await;
        assert_eq!(server.recv().await, json!({"id": method, "result": expected}));
    }
    // An unknown request, and a tool call of a thread without a queue.
    for method in ["account/chatgptAuthTokens/refresh", "item/tool/requestUserInput", "item/tool/call"] {
        let params = json!({"threadId": "t", "callId": "c"});
        server.send(&json!({"id": 0, "method": method, "params": params})).await;
        assert_eq!(server.recv().await["error"]["code"], -32601, "{method}");
    }
}

#[tokio::test]
async fn thread_queue_from_start_to_close_receives_all_messages() {
    let (client, mut server) = pair();
    let (queue, mut receiver) = thread_queue::pair();
    let started = start_thread(&client, queue);
    let serve = async {
        server.respond("thread/start", &json!({"thread": {"id": "t"}})).await;
        server.send(&warning("t")).await;
        server.send(&warning("other")).await;
        server
            .send(&json!({"id": 7, "method": "item/tool/call", "params": {"threadId": "t", "callId": "c"}}))
            .await;
    };
    let (started, ()) = tokio::join!(started, serve);
    started.unwrap();
    assert_next_is_warning(&mut receiver).await;
    assert!(
        matches!(receiver.recv().await, ThreadMessage::ToolCall(call) if call.request == RequestId(json!(7)) && call.call_id == "c")
    );
    drop(server);
    assert!(matches!(receiver.recv().await, ThreadMessage::Closed(CloseReason::Exited)));
    assert!(matches!(call(&client).await, Err(CallError::Closed(_))));
}

#[tokio::test]
async fn delta_in_any_member_order_reaches_the_queue() {
    let (client, mut server) = pair();
    let (queue, mut receiver) = thread_queue::pair();
    let started = start_thread(&client, queue);
    let method = "item/agentMessage/delta";
    let piece = |text: &str| json!({"threadId": "t", "itemId": "m", "delta": text});
    let serve = async {
        server.respond("thread/start", &json!({"thread": {"id": "t"}})).await;
        server.send(&json!({"method": method, "params": piece("a")})).await;
        server.send(&json!({"params": piece("b"), "method": method})).await;
        // No turn reads a delta of this kind.
        server.send(&json!({"method": "item/plan/delta", "params": piece("x")})).await;
        server.send(&json!({"method": method, "params": piece("c")})).await;
        server.send(&warning("t")).await;
        // After this response, the client has read all earlier lines.
        server.respond("model/list", &json!({})).await;
    };
    let (started, listed, ()) = tokio::join!(started, call(&client), serve);
    assert!(started.is_ok() && listed.is_ok());
    assert!(matches!(receiver.recv().await, ThreadMessage::Delta(delta) if delta.text == "abc"));
    assert_next_is_warning(&mut receiver).await;
}

#[tokio::test]
async fn start_thread_when_abandoned_unsubscribes() {
    let (client, mut server) = pair();
    let (queue, receiver) = thread_queue::pair();
    // The call is dropped before the response arrives.
    let started = start_thread(&client, queue);
    tokio::select! {
        biased;
        _ = started => unreachable!("no response was sent"),
        request = server.recv() => {
            assert_eq!(request["method"], "thread/start");
            drop(receiver);
        }
    }
    server.send(&json!({"id": 1, "result": {"thread": {"id": "t"}}})).await;
    let unsubscribe = server.recv().await;
    assert_eq!(
        (&unsubscribe["method"], &unsubscribe["params"]["threadId"]),
        (&json!("thread/unsubscribe"), &json!("t"))
    );

    // The call is dropped when the response has arrived but was not polled.
    let (queue, _receiver) = thread_queue::pair();
    let mut started = Box::pin(start_thread(&client, queue));
    tokio::select! {
        biased;
        _ = &mut started => unreachable!("no response was sent"),
        request = server.recv() => {
            let received = client.lines_received();
            server.send(&json!({"id": request["id"], "result": {"thread": {"id": "u"}}})).await;
            while client.lines_received() == received {
                tokio::task::yield_now().await;
            }
        }
    }
    while !client.0.state().threads.contains_key("u") {
        tokio::task::yield_now().await;
    }
    drop(started);
    assert_eq!(server.recv().await["params"]["threadId"], "u");
    assert!(client.0.state().threads.is_empty());
}

#[tokio::test]
async fn oversized_line_of_an_unknown_thread_closes_the_connection() {
    let (client, mut server) = pair();
    let called = call(&client);
    let serve = async {
        server.recv().await;
        server.write(&"x".repeat((1 << 16) + 1)).await;
    };
    let (called, ()) = tokio::join!(called, serve);
    let message = called.unwrap_err().to_string();
    assert!(message.contains("65536 bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"), "{message}");
    assert!(client.is_closed());
    server.tasks.close();
    timeout(SOON, server.tasks.wait()).await.expect("the connection task ends");
}

#[tokio::test]
async fn oversized_line_of_one_thread_fails_only_that_thread() {
    let (client, mut server) = pair();
    let mut receivers = HashMap::new();
    for thread in ["a", "b"] {
        let (queue, receiver) = thread_queue::pair();
        client.0.state().threads.insert(thread.to_owned(), queue);
        receivers.insert(thread, receiver);
    }
    let text = "x".repeat(1 << 20);
    let echo = |role: &str| {
        let item = format!(r#"{{"type":"message","role":"{role}","content":[{{"text":"{text}"}}]}}"#);
        let params = format!(r#"{{"threadId":"a","turnId":"t","item":{item}}}"#);
        format!("{{\"method\":\"rawResponseItem/completed\",\"params\":{params}}}\n")
    };
    server.write(&echo("user")).await;
    let item = format!(r#"{{"type":"commandExecution","output":"{text}"}}"#);
    let params = format!(r#"{{"item":{item},"threadId":"a","turnId":"t"}}"#);
    server.write(&format!("{{\"method\":\"item/completed\",\"params\":{params}}}\n")).await;
    for thread in ["a", "b"] {
        server.send(&warning(thread)).await;
    }
    let a = receivers.get_mut("a").unwrap();
    assert!(matches!(timeout(SOON, a.recv()).await.unwrap(), ThreadMessage::TooLong { limit: 65536 }));
    assert!(a.is_lossy());
    assert_next_is_warning(a).await;
    let b = receivers.get_mut("b").unwrap();
    assert_next_is_warning(b).await;
    // A line that may belong to any thread closes the connection.
    server.write(&format!("{{\"method\":\"warning\",\"params\":{{\"message\":\"{text}\"}}}}\n")).await;
    assert!(
        matches!(timeout(SOON, b.recv()).await.unwrap(), ThreadMessage::Closed(reason) if reason.to_string().contains("65536 bytes"))
    );
}

/// A pipe whose reader panics.
struct PanickingPipe;

impl AsyncRead for PanickingPipe {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        _buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        panic!("a defect of the reader");
    }
}

#[tokio::test]
async fn panic_of_the_task_closes_the_connection() {
    let tasks = TaskTracker::new();
    let client = RpcClient::start(tokio::io::sink(), PanickingPipe, 1 << 16, Arc::default(), &tasks);
    timeout(SOON, client.closed()).await.unwrap();
    let call = timeout(SOON, client.call(&AnyCall { a: 1 }, SOON)).await.unwrap();
    assert!(matches!(call, Err(CallError::Closed(CloseReason::TaskEnded))), "{call:?}");
}
