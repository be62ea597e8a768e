//! A worker that exits or no longer replies fails each of its turns with a clear error; the next turns succeed.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use codex_api::pb;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use super::{
    OpenStream, assert_twenty_turns_succeed, one_worker, open_stream, open_twenty_streams, short_turn,
    signal_workers, twenty_turns_succeed_in_time, within, workers,
};
use crate::{
    eventually,
    support::{Codex, TIMEOUT, chat_request, grpc::code_and_reason, http::body, with_app},
};

/// The time limit of the next turns after a loss.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(2);

async fn assert_all_lost(streams: Vec<OpenStream>) {
    for reason in join_all(streams.into_iter().map(OpenStream::error_reason)).await {
        assert_eq!(reason, "FAILED_AFTER_EFFECTS");
    }
}

async fn assert_lost_worker_is_replaced(codex: Codex, signal: Signal, detection_limit: Duration) {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let in_time = with_app(one_worker(codex), async |app| {
            let before = workers(app);
            let streams = open_twenty_streams(app, codex).await;
            signal_workers(app, signal);
            within(detection_limit, "twenty errors", assert_all_lost(streams)).await;
            let in_time = twenty_turns_succeed_in_time(app, codex).await;
            eventually!("the lost worker has exited", workers(app).iter().all(|pid| !before.contains(pid)));
            assert_eq!(workers(app).len(), 1);
            in_time
        })
        .await;
        if in_time {
            return;
        }
        assert!(attempts < 3, "three times not within {RECOVERY_LIMIT:?}");
    }
}

#[tokio::test]
async fn killed_worker_of_the_fake_fails_its_streams_and_is_replaced() {
    assert_lost_worker_is_replaced(Codex::Fake, Signal::KILL, Duration::from_secs(2)).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn killed_worker_of_the_real_cli_fails_its_streams_and_is_replaced() {
    assert_lost_worker_is_replaced(Codex::Real, Signal::KILL, Duration::from_secs(2)).await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn stopped_worker_of_the_fake_fails_its_streams_and_is_replaced() {
    assert_lost_worker_is_replaced(Codex::Fake, Signal::STOP, Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn stopped_worker_of_the_real_cli_fails_its_streams_and_is_replaced() {
    assert_lost_worker_is_replaced(Codex::Real, Signal::STOP, Duration::from_secs(5)).await;
}

/// Asserts that a turn makes the pool replace its worker. Twenty streams on the worker fail, and the next twenty turns
/// succeed.
async fn assert_turn_loses_the_worker(settings: &[(&str, &str)], model: &str, detection_limit: Duration) {
    with_app(one_worker(Codex::Fake).envs(settings), async |app| {
        let before = workers(app);
        let streams = open_twenty_streams(app, Codex::Fake).await;
        let mut grpc = app.grpc().await;
        let failing_turn = async {
            let status = grpc.chat(chat_request(model, "hi")).await.unwrap_err();
            assert_eq!(code_and_reason(&status).1, "FAILED_AFTER_EFFECTS", "{status}");
            status
        };
        let ((), status) =
            within(detection_limit, model, async { tokio::join!(assert_all_lost(streams), failing_turn) })
                .await;
        assert!(status.message().contains("look before you repeat"), "{status}");
        let is_unresponsive = status.message().contains("was lost: it did not answer");
        assert!(is_unresponsive || model != "fake:stop", "{status}");
        within(RECOVERY_LIMIT, "the next twenty turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
        eventually!("the lost worker has exited", workers(app).iter().all(|pid| !before.contains(pid)));
    })
    .await;
}

#[tokio::test]
async fn exiting_worker_fails_its_turns_and_is_replaced() {
    for model in ["fake:die", "fake:crash", "fake:exit0"] {
        assert_turn_loses_the_worker(&[], model, Duration::from_secs(5)).await;
    }
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn self_stopped_worker_fails_its_turns_and_is_replaced() {
    assert_turn_loses_the_worker(&[], "fake:stop", Duration::from_secs(5)).await;
}

#[tokio::test]
async fn worker_writing_20_mb_without_a_thread_is_replaced() {
    assert_turn_loses_the_worker(&[], "fake:babble:20000000", Duration::from_secs(15)).await;
}

#[tokio::test]
async fn line_beyond_the_limit_fails_its_own_turn_only() {
    with_app(one_worker(Codex::Fake), async |app| {
        let before = workers(app);
        let streams = open_twenty_streams(app, Codex::Fake).await;
        let (status, error) = app.http_error(&body("fake:longline:12000000", "hi")).await;
        assert_eq!((status, error["code"].as_str()), (502, Some("turn_failed")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("CODEX_SUBPROCESS_STREAM_LIMIT"), "{error}");
        let status = app.grpc_error(chat_request("fake:longline:12000000", "hi")).await;
        assert_eq!(code_and_reason(&status).1, "TURN_FAILED", "{status}");
        assert_all_continue(streams).await;
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_eq!(workers(app), before, "the worker is the same");
        eventually!("no turn runs", app.status().await.running_turns == 0);
    })
    .await;
}

/// Asserts that each stream delivers more text.
async fn assert_all_continue(streams: Vec<OpenStream>) {
    for mut stream in streams {
        within(TIMEOUT, "more text", stream.read_more_text()).await;
    }
}

/// Returns a PNG file of this size. Decoders keep but do not read the bytes after its end.
fn png_of_size(bytes: usize) -> Vec<u8> {
    let dot =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let mut file = BASE64.decode(dot).unwrap();
    file.resize(bytes, 0);
    file
}

/// Asserts that images of the maximum size, which Codex echoes in one line, do not affect other turns.
async fn large_images_leave_other_turns_intact(codex: Codex) {
    // Three images exceed the line limit together. The fake codex is not optimized, so its images are smaller.
    let file = png_of_size(if codex == Codex::Real { 4_000_000 } else { 2_200_000 });
    with_app(one_worker(codex), async |app| {
        let before = workers(app);
        let streams = open_twenty_streams(app, codex).await;
        let (model, text) = short_turn(codex);
        let mut grpc = chat_request(model, text);
        let url = format!("data:image/png;base64,{}", BASE64.encode(&file));
        let mut content = vec![json!({"type": "text", "text": text})];
        for _ in 0..3 {
            let image = pb::Image { data: file.clone().into(), ..Default::default() };
            grpc.messages[0].parts.push(pb::ContentPart { part: Some(pb::content_part::Part::Image(image)) });
            content.push(json!({"type": "image_url", "image_url": {"url": url}}));
        }
        let mut http = body(model, text);
        http["messages"][0]["content"] = content.into();
        assert_eq!(app.chat(grpc).await, "01234");
        assert_eq!(app.complete(&http).await["choices"][0]["message"]["content"], "01234");
        // Codex echoes images in tool results too.
        let call = json!({"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}});
        http["messages"] = json!([
            {"role": "user", "content": text},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": http["messages"][0]["content"]},
        ]);
        if codex == Codex::Fake {
            // The fake codex would echo the tool result, so a user message follows.
            http["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": text}));
        }
        assert_eq!(app.complete(&http).await["choices"][0]["message"]["content"], "01234");
        assert_all_continue(streams).await;
        assert_eq!(workers(app), before, "the worker is the same");
        eventually!("no turn runs", app.status().await.running_turns == 0);
    })
    .await;
}

#[tokio::test]
async fn large_images_with_the_fake_leave_other_turns_intact() {
    large_images_leave_other_turns_intact(Codex::Fake).await;
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn large_images_with_the_real_cli_leave_other_turns_intact() {
    large_images_leave_other_turns_intact(Codex::Real).await;
}

#[tokio::test]
async fn worker_with_closed_stdin_is_replaced() {
    assert_turn_loses_the_worker(&[], "fake:close-stdin", Duration::from_secs(15)).await;
}

#[tokio::test]
async fn worker_without_a_reply_to_a_call_is_replaced() {
    // The servers run concurrently, because each waits for the time limit of one RPC call.
    let models = ["fake:mute-start", "fake:mute-inject", "fake:mute-turn"];
    join_all(models.map(async |model| {
        with_app(one_worker(Codex::Fake), async |app| {
            let other_stream = open_stream(app, 0, ("fake:stream:100000:20", "hi")).await;
            let (code, error) = within(TIMEOUT, model, app.http_error(&body(model, "hi"))).await;
            // Only the last of these workers has got the turn, so that its agent may have acted.
            let expected = if model == "fake:mute-turn" {
                (502, Some("failed_after_effects"))
            } else {
                (503, Some("worker_lost"))
            };
            assert_eq!((code, error["code"].as_str()), expected, "{error}");
            assert_eq!(other_stream.error_reason().await, "FAILED_AFTER_EFFECTS");
            within(RECOVERY_LIMIT, "the next turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
        })
        .await;
    }))
    .await;
}

#[tokio::test]
async fn worker_ignoring_an_interrupt_is_replaced() {
    with_app(one_worker(Codex::Fake), async |app| {
        let before = workers(app);
        let mut grpc = app.grpc().await;
        let call = tokio::spawn(async move { grpc.chat(chat_request("fake:deaf", "hi")).await });
        eventually!("the turn runs", app.status().await.running_turns == 1);
        let other_stream = open_stream(app, 0, ("fake:stream:100000:20", "hi")).await;
        call.abort();
        assert_eq!(other_stream.error_reason().await, "FAILED_AFTER_EFFECTS");
        eventually!("the slot is free", app.status().await.running_turns == 0);
        within(RECOVERY_LIMIT, "the next turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
        eventually!("the old worker has exited", workers(app).iter().all(|pid| !before.contains(pid)));
    })
    .await;
}

#[tokio::test]
async fn garbage_between_lines_leaves_the_turns_intact() {
    with_app(one_worker(Codex::Fake), async |app| {
        let before = workers(app);
        let streams = open_twenty_streams(app, Codex::Fake).await;
        assert_eq!(app.chat(chat_request("fake:garbage", "hi")).await, "the answer among garbage");
        assert_eq!(app.chat(chat_request("fake:badutf8", "hi")).await, "the answer after bad bytes");
        assert_eq!(app.chat(chat_request("fake:stderr:1000000", "hi")).await, "the answer with much stderr");
        assert_twenty_turns_succeed(app, Codex::Fake).await;
        assert_eq!(workers(app), before, "the worker is the same");
        drop(streams);
        eventually!("no turn runs", app.status().await.running_turns == 0);
    })
    .await;
}

#[tokio::test]
async fn busy_worker_is_not_replaced() {
    with_app(one_worker(Codex::Fake).max_concurrency(64), async |app| {
        let before = workers(app);
        // Megabytes at full speed, and many calls. The ping must not wait for these calls.
        let floods = join_all((0..12).map(async |_| {
            let answer = app.complete(&body("fake:flood:3000000", "hi")).await;
            assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::len), Some(3_000_000));
        }));
        tokio::join!(floods, assert_twenty_turns_succeed(app, Codex::Fake));
        assert_eq!(workers(app), before);
    })
    .await;
}

#[tokio::test]
async fn stopped_idle_worker_is_replaced() {
    with_app(one_worker(Codex::Fake).workers(1), async |app| {
        let stopped = workers(app);
        signal_workers(app, Signal::STOP);
        eventually!("the worker is replaced", workers(app).iter().any(|worker| !stopped.contains(worker)));
        within(Duration::from_secs(5), "twenty turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
    })
    .await;
}

#[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
#[tokio::test]
async fn stopped_worker_beside_another_leaves_turns_running() {
    with_app(one_worker(Codex::Fake).workers(2), async |app| {
        eventually!("both workers run", workers(app).len() == 2);
        let stopped = workers(app)[0];
        rustix::process::kill_process(stopped, Signal::STOP).unwrap();
        // Turns on the stopped worker are restarted on the other worker.
        within(Duration::from_secs(5), "twenty turns", assert_twenty_turns_succeed(app, Codex::Fake)).await;
        eventually!("the worker is replaced", !workers(app).contains(&stopped) && workers(app).len() == 2);
    })
    .await;
}
