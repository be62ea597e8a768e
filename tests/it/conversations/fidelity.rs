//! Random conversations against a server that keeps threads and one that does not: a client cannot tell the difference.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use serde_json::json;

use super::{
    client::Client,
    player::{FUNCTIONS, World, play},
    steps::{Script, conversation},
};
use crate::support::{AppConfig, Engine, cases, with_app};

/// Number of conversations, unless `CODEX_TEST_CASES` has another one.
const CASES: u32 = 120;

/// Number of conversations at once.
const THREADS: u32 = 4;

fn config() -> AppConfig {
    // A random history may have more images than the default limit.
    AppConfig::fake(Engine::AppServer).env("CODEX_MAX_IMAGES", "1000").max_concurrency(32).workers(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_conversations_are_answered_as_without_kept_threads() {
    with_app(config(), async |kept| {
        with_app(config().env("CODEX_KEPT_THREADS", "0"), async |fresh| {
            let (kept_client, fresh_client) = (Client::new(kept).await, Client::new(fresh).await);
            let counts = tokio::task::block_in_place(|| run_cases(&kept_client, &fresh_client));
            eprintln!("{counts:?}");
            let [requests, continuable, continued] = counts;
            assert!(continued * 3 > continuable && continued * 4 > requests, "{counts:?}");
            let threads = kept.status().await.threads.unwrap();
            assert!(threads.continued_turns >= continued as u64, "{threads:?}");
            eprintln!("{threads:?}");
            assert_eq!(fresh.status().await.threads.unwrap().continued_turns, 0);
        })
        .await;
    })
    .await;
}

/// Runs random conversations. Returns the number of requests, of those with an earlier answer, and of continued ones.
fn run_cases(kept: &Client, fresh: &Client) -> [usize; 3] {
    let runtime = tokio::runtime::Handle::current();
    let counts = [const { AtomicUsize::new(0) }; 3];
    let run = || {
        let config = Config {
            cases: cases(CASES).div_ceil(THREADS),
            max_shrink_iters: 200,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config).run(&(conversation(), proptest::bool::ANY), |(steps, offers_tools)| {
            let kept = runtime.block_on(play(&world(kept), &steps, offers_tools));
            let fresh = runtime.block_on(play(&world(fresh), &steps, offers_tools));
            for (count, number) in counts.iter().zip([kept.seen.len(), kept.continuable, kept.continued]) {
                count.fetch_add(number, Ordering::Relaxed);
            }
            if kept.seen != fresh.seen {
                return Err(TestCaseError::fail(format!("{:#?}\nfresh: {:#?}", kept.seen, fresh.seen)));
            }
            assert_eq!(fresh.continued, 0);
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            if let Err(error) = thread.join().unwrap() {
                panic!("{error}");
            }
        }
    });
    counts.map(AtomicUsize::into_inner)
}

fn world(client: &Client) -> World<'_> {
    World {
        client,
        models: ["fake:directives", "b-fake:directives", "fake:directives:chat"],
        directives,
        endless: "@@text never read@@@@hang@@",
        recorded: None,
    }
}

/// Writes a script as directives of the fake.
fn directives(script: &Script) -> String {
    match script {
        Script::Digest => "?".to_owned(),
        Script::Transcript => "@@transcript@@".to_owned(),
        Script::Text(text) => format!("@@text {text}@@"),
        Script::Calls(responses, has_text, thinks) => {
            let responses = responses.iter().enumerate().map(|(number, calls)| {
                let calls = calls.iter().enumerate().map(|(index, (function, text))| {
                    // Equal calls in two responses would be one for the fake.
                    let arguments =
                        json!({"z": [number, index], "a": text}).to_string().replace(",\"", ",  \"");
                    format!("@@call {} {arguments}@@", FUNCTIONS[*function])
                });
                let think = if *thinks { "@@think secret thoughts@@" } else { "" };
                let text = if *has_text { "@@text Let me look.@@" } else { "" };
                format!("{think}{text}{}", calls.collect::<String>())
            });
            responses.collect::<Vec<_>>().join("@@then@@")
        }
        Script::Fail(kind) => format!("@@fail {kind}@@"),
        Script::Cut => "@@cut@@".to_owned(),
    }
}
