//! The other end of the pipes is the test: it reads calls and says what an app-server might say.

use std::collections::HashMap;

use crate::engine::app_server::rpc::{
    dispatch::CallError,
    protocol,
    thread_queue::{self, ThreadMessage},
};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines as Read, ReadHalf, WriteHalf, split,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Server {
    read: Read<BufReader<ReadHalf<DuplexStream>>>,
    write: WriteHalf<DuplexStream>,
    tasks: TaskTracker,
}

fn pair() -> (RpcClient, Server) {
    let (ours, theirs) = tokio::io::duplex(4 << 20);
    let (stdout, stdin) = split(ours);
    let (read, write) = split(theirs);
    let tasks = TaskTracker::new();
    let peer = RpcClient::start(stdin, stdout, 1 << 16, &tasks);
    (peer, Server { read: BufReader::new(read).lines(), write, tasks })
}

impl Server {
    async fn hear(&mut self) -> Value {
        let line = timeout(SOON, self.read.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn say(&mut self, line: &Value) {
        self.raw(&format!("{line}\n")).await;
    }

    async fn raw(&mut self, text: &str) {
        self.write.write_all(text.as_bytes()).await.unwrap();
    }

    /// Answers the next call, which must be this one.
    async fn answer(&mut self, method: &str, result: &Value) {
        let call = self.hear().await;
        assert_eq!(call["method"], method);
        self.say(&json!({"id": call["id"], "result": result})).await;
    }
}

async fn call(peer: &RpcClient) -> Result<Value, CallError> {
    peer.call("model/list", &json!({"a": 1}), SOON).await
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (peer, mut server) = pair();
    let serve = async {
        let (first, second) = (server.hear().await, server.hear().await);
        assert_eq!((&first["method"], &first["params"]), (&json!("model/list"), &json!({"a": 1})));
        server.say(&json!({"id": second["id"], "result": 2})).await;
        // What is nobody's, or nothing, is passed over.
        server.raw("\nnonsense\n[1]\n{\"id\":4711,\"result\":{}}\n{\"method\":\"some/news\"}\n").await;
        server.say(&json!({"id": first["id"], "error": {"code": -32600, "message": "no"}})).await;
    };
    let (first, second, ()) = tokio::join!(call(&peer), call(&peer), serve);
    assert!(matches!(first, Err(CallError::Refused(error)) if error.message == "no"));
    assert_eq!(second.unwrap(), 2);
    assert_eq!(peer.heard(), 7);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_busy_is_asked_again_but_not_for_ever() {
    let (peer, mut server) = pair();
    let busy = json!({"code": protocol::OVERLOADED, "message": "later"});
    let serve = async {
        for _ in 0..2 {
            let id = server.hear().await["id"].take();
            server.say(&json!({"id": id, "error": busy})).await;
        }
        server.answer("model/list", &json!("at last")).await;
        for _ in 0..=BACKOFF.len() {
            let id = server.hear().await["id"].take();
            server.say(&json!({"id": id, "error": busy})).await;
        }
    };
    let asked = async { (call(&peer).await, call(&peer).await) };
    let ((first, second), ()) = tokio::join!(asked, serve);
    assert_eq!(first.unwrap(), "at last");
    assert!(matches!(second, Err(CallError::Refused(error)) if error.code == protocol::OVERLOADED));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_and_is_forgotten_and_the_pulse_waits_for_none() {
    let (peer, mut server) = pair();
    let calls = (0..MAX_CALLS + 10).map(|_| call(&peer));
    let outcomes = futures_util::future::join_all(calls);
    let pulse = async {
        let mut calls = 0;
        while server.hear().await["method"] == "model/list" {
            calls += 1;
        }
        calls
    };
    let (outcomes, _, before) = tokio::join!(outcomes, timeout(SOON, peer.pulse()), pulse);
    assert_eq!(before, MAX_CALLS, "the others wait until one of them is over");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CallError::TimedOut("model/list")))));
    assert!(peer.0.routes().pending.is_empty(), "nothing stays in the table");
}

#[tokio::test]
async fn every_request_of_theirs_is_answered() {
    let (_peer, mut server) = pair();
    for (method, expected) in [
        ("item/commandExecution/requestApproval", json!({"decision": "decline"})),
        ("item/fileChange/requestApproval", json!({"decision": "decline"})),
        ("applyPatchApproval", json!({"decision": "denied"})),
        ("execCommandApproval", json!({"decision": "denied"})),
        ("mcpServer/elicitation/request", json!({"action": "decline"})),
    ] {
        server.say(&json!({"id": method, "method": method, "params": {}})).await;
        assert_eq!(server.hear().await, json!({"id": method, "result": expected}));
    }
    // What nobody knows, and a tool call of a thread that nobody reads.
    for method in ["account/chatgptAuthTokens/refresh", "item/tool/requestUserInput", "item/tool/call"] {
        let params = json!({"threadId": "t", "callId": "c"});
        server.say(&json!({"id": 0, "method": method, "params": params})).await;
        assert_eq!(server.hear().await["error"]["code"], -32601, "{method}");
    }
}

#[tokio::test]
async fn a_thread_is_read_from_its_first_word_to_its_last() {
    let (peer, mut server) = pair();
    let (letterbox, mut mailbox) = thread_queue::pair();
    let started = peer.call_for("thread/start", &Value::Null, SOON, Some(letterbox));
    let serve = async {
        server.answer("thread/start", &json!({"thread": {"id": "t"}})).await;
        server.say(&json!({"method": "turn/x", "params": {"threadId": "t"}})).await;
        server.say(&json!({"method": "turn/x", "params": {"threadId": "other"}})).await;
        server
            .say(&json!({"id": 7, "method": "item/tool/call", "params": {"threadId": "t", "callId": "c"}}))
            .await;
    };
    let (started, ()) = tokio::join!(started, serve);
    started.unwrap();
    assert!(matches!(mailbox.next().await, ThreadMessage::Notification { method, .. } if method == "turn/x"));
    assert!(
        matches!(mailbox.next().await, ThreadMessage::ToolCall(call) if call.request == 7 && call.call_id == "c")
    );
    drop(server);
    assert!(matches!(mailbox.next().await, ThreadMessage::Gone(why) if &*why == "it ended"));
    assert!(matches!(call(&peer).await, Err(CallError::Gone(_))));
}

#[tokio::test]
async fn text_is_read_however_the_line_is_written() {
    let (peer, mut server) = pair();
    let (letterbox, mut mailbox) = thread_queue::pair();
    let started = peer.call_for("thread/start", &Value::Null, SOON, Some(letterbox));
    let method = "item/agentMessage/delta";
    let piece = |text: &str| json!({"threadId": "t", "itemId": "m", "delta": text});
    let serve = async {
        server.answer("thread/start", &json!({"thread": {"id": "t"}})).await;
        server.say(&json!({"method": method, "params": piece("a")})).await;
        server.say(&json!({"params": piece("b"), "method": method})).await;
        // Nobody reads this one.
        server.say(&json!({"method": "item/plan/delta", "params": piece("x")})).await;
        server.say(&json!({"method": method, "params": piece("c")})).await;
        server.say(&json!({"method": "turn/x", "params": {"threadId": "t"}})).await;
        // Answered when all before it is read.
        server.answer("model/list", &json!({})).await;
    };
    let (started, listed, ()) = tokio::join!(started, call(&peer), serve);
    assert!(started.is_ok() && listed.is_ok());
    assert!(matches!(mailbox.next().await, ThreadMessage::Delta(delta) if delta.text == "abc"));
    assert!(matches!(mailbox.next().await, ThreadMessage::Notification { method, .. } if method == "turn/x"));
}

#[tokio::test]
async fn a_thread_whose_caller_has_left_is_let_go() {
    let (peer, mut server) = pair();
    let (letterbox, mailbox) = thread_queue::pair();
    // Left before the answer.
    let started = peer.call_for("thread/start", &Value::Null, SOON, Some(letterbox));
    tokio::select! {
        biased;
        _ = started => unreachable!("it is not answered"),
        asked = server.hear() => {
            assert_eq!(asked["method"], "thread/start");
            drop(mailbox);
        }
    }
    server.say(&json!({"id": 1, "result": {"thread": {"id": "t"}}})).await;
    let farewell = server.hear().await;
    assert_eq!(
        (&farewell["method"], &farewell["params"]["threadId"]),
        (&json!("thread/unsubscribe"), &json!("t"))
    );

    // Left when the answer was there, but not looked at.
    let (letterbox, _mailbox) = thread_queue::pair();
    let mut started = Box::pin(peer.call_for("thread/start", &Value::Null, SOON, Some(letterbox)));
    tokio::select! {
        biased;
        _ = &mut started => unreachable!("it is not answered"),
        asked = server.hear() => {
            let heard = peer.heard();
            server.say(&json!({"id": asked["id"], "result": {"thread": {"id": "u"}}})).await;
            while peer.heard() == heard {
                tokio::task::yield_now().await;
            }
        }
    }
    while !peer.0.routes().threads.contains_key("u") {
        tokio::task::yield_now().await;
    }
    drop(started);
    assert_eq!(server.hear().await["params"]["threadId"], "u");
    assert!(peer.0.routes().threads.is_empty());
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_it_and_says_why() {
    let (peer, mut server) = pair();
    let asked = call(&peer);
    let serve = async {
        server.hear().await;
        server.raw(&"x".repeat((1 << 16) + 1)).await;
    };
    let (asked, ()) = tokio::join!(asked, serve);
    let words = asked.unwrap_err().to_string();
    assert!(words.contains("65536 bytes (CODEX_SUBPROCESS_STREAM_LIMIT)"), "{words}");
    assert!(peer.is_gone());
    server.tasks.close();
    timeout(SOON, server.tasks.wait()).await.expect("its task ends");
}

#[tokio::test]
async fn a_line_that_is_too_long_costs_its_thread_only_and_an_echo_nobody() {
    let (peer, mut server) = pair();
    let mut mailboxes = HashMap::new();
    for thread in ["a", "b"] {
        let (letterbox, mailbox) = thread_queue::pair();
        peer.0.routes().threads.insert(thread.to_owned(), letterbox);
        mailboxes.insert(thread, mailbox);
    }
    let words = "x".repeat(1 << 20);
    let echo = |role: &str| {
        let item = format!(r#"{{"type":"message","role":"{role}","content":[{{"text":"{words}"}}]}}"#);
        let params = format!(r#"{{"threadId":"a","turnId":"t","item":{item}}}"#);
        format!("{{\"method\":\"rawResponseItem/completed\",\"params\":{params}}}\n")
    };
    server.raw(&echo("user")).await;
    let item = format!(r#"{{"type":"commandExecution","output":"{words}"}}"#);
    let params = format!(r#"{{"item":{item},"threadId":"a","turnId":"t"}}"#);
    server.raw(&format!("{{\"method\":\"item/completed\",\"params\":{params}}}\n")).await;
    for thread in ["a", "b"] {
        server.say(&json!({"method": "turn/x", "params": {"threadId": thread}})).await;
    }
    let a = mailboxes.get_mut("a").unwrap();
    assert!(matches!(timeout(SOON, a.next()).await.unwrap(), ThreadMessage::TooLong { limit: 65536 }));
    assert!(a.lost_some());
    assert!(matches!(a.next().await, ThreadMessage::Notification { .. }));
    let b = mailboxes.get_mut("b").unwrap();
    assert!(matches!(timeout(SOON, b.next()).await.unwrap(), ThreadMessage::Notification { .. }));
    // What could be anybody's ends it.
    server.raw(&format!("{{\"method\":\"warning\",\"params\":{{\"message\":\"{words}\"}}}}\n")).await;
    assert!(
        matches!(timeout(SOON, b.next()).await.unwrap(), ThreadMessage::Gone(why) if why.contains("65536 bytes"))
    );
}
