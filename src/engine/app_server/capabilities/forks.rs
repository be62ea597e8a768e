//! Probes whether turns may start on forks of a seed. The parameter that names the seed is marked as unstable, and a fork has
//! an environment by default, so that each sign must be there.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{
    ProbeSubject,
    probe_turns::{self, ProbeResult, ProbeTurns},
    tool_names,
};
use crate::{
    demo::Recorded,
    engine::app_server::{
        launch::seed::{Seed, SeedMeta},
        rpc::dispatch::CallError,
    },
};

/// Whether turns may start on forks of a seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ForkSupport {
    /// The operator has switched the forks off, or the turns of the probe do not complete.
    #[default]
    NotProbed,
    /// All signs are there.
    Supported,
    /// A sign is missing. Holds the limitation as a verb phrase.
    Missing(&'static str),
}

/// What the probe knows of a fork.
struct Signs<'a> {
    result: &'a ProbeResult,
    /// The requests of the fork's turn.
    requests: &'a [Recorded],
    /// The key of the seed.
    key: &'a str,
    /// The tools of a thread with the same parameters that is no fork.
    offered: &'a BTreeSet<&'a str>,
}

/// Runs a turn on a fork. `offered` are the tools of a thread with the same parameters that is no fork.
pub(super) async fn probe(
    turns: &ProbeTurns<'_>,
    offered: &BTreeSet<&str>,
) -> Result<ForkSupport, CallError> {
    let ProbeSubject { codex, installed, seeds_dir, .. } = turns.subject;
    let Some(dir) = seeds_dir else { return Ok(ForkSupport::NotProbed) };
    let key = Uuid::now_v7();
    let meta = SeedMeta { key, cwd: &codex.workspace, version: &installed.version };
    let seed = match Seed::create(dir, &meta) {
        Ok(seed) => seed,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot write a seed");
            return Ok(ForkSupport::Missing(
                "cannot be given the key of a conversation, because its home is not writable",
            ));
        }
    };
    let result = turns.on_fork(seed).await?;
    let requests = turns.requests_of_thread(&result.thread.id);
    let key = key.to_string();
    Ok(judge(&Signs { result: &result, requests: &requests, key: &key, offered }))
}

fn judge(signs: &Signs<'_>) -> ForkSupport {
    let Signs { result, requests, key, offered } = signs;
    let has_key = |request: &Recorded| {
        request.body["prompt_cache_key"] == **key
            && request.headers.get("session-id").is_some_and(|id| id == key)
    };
    let mut tools = requests.iter().flat_map(|request| tool_names(&request.body));
    let last = requests.last().map(|request| &*request.body);
    let missing = if result.thread.id.is_empty() {
        "does not fork a seed (thread/fork)"
    } else if !result.thread.ephemeral || result.thread.path.is_some() {
        "stores the forks of a seed"
    } else if result.end.is_none() || requests.is_empty() {
        "does not complete a turn on a fork"
    } else if !requests.iter().all(has_key) {
        "does not send the key of a seed"
    } else if tools.any(|name| !offered.contains(name)) {
        "gives a fork tools of its own"
    } else if !result.environments_after.as_ref().is_some_and(Vec::is_empty)
        || !last.is_some_and(probe_turns::ran_nothing)
    {
        "runs commands on a fork without environment"
    } else {
        return ForkSupport::Supported;
    };
    ForkSupport::Missing(missing)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        demo::Transport,
        engine::app_server::rpc::protocol::{Thread, Turn},
    };

    const KEY: &str = "00000000-0000-7000-8000-000000000001";

    fn passed() -> ProbeResult {
        ProbeResult {
            thread: Thread {
                id: "t".into(),
                ephemeral: true,
                path: None,
                environments: Some(vec![json!({})]),
            },
            end: Some(Turn::default()),
            raw_completed: false,
            environments_after: Some(Vec::new()),
        }
    }

    fn request(key: &str, session: &str, input: &Value) -> Recorded {
        let body = json!({"prompt_cache_key": key, "tools": [{"type": "function", "name": "apply_patch"}], "input": input});
        let headers = BTreeMap::from([("session-id".to_owned(), session.to_owned())]);
        Recorded { number: 1, round: 0, transport: Transport::Http, headers, body: Arc::new(body) }
    }

    fn outputs(texts: [&str; 3]) -> Value {
        texts
            .map(|text| json!({"type": "function_call_output", "call_id": "c", "output": text}))
            .into_iter()
            .collect()
    }

    fn judged(result: &ProbeResult, requests: &[Recorded], offered: &[&str]) -> ForkSupport {
        let offered = offered.iter().copied().collect();
        judge(&Signs { result, requests, key: KEY, offered: &offered })
    }

    #[test]
    fn judge_without_any_one_sign_names_it() {
        let refused = outputs(["unsupported call"; 3]);
        let good = || vec![request(KEY, KEY, &json!([])), request(KEY, KEY, &refused)];
        let offered = ["apply_patch", "exec_command"];
        assert_eq!(judged(&passed(), &good(), &offered), ForkSupport::Supported);
        let stored = Thread { path: Some("/p".into()), ..passed().thread };
        let ran = outputs(["unsupported call", "Output:\ncodex-api-22026\n", "unsupported call"]);
        let cases = [
            (ProbeResult::default(), good(), &offered[..], "does not fork"),
            (ProbeResult { thread: stored, ..passed() }, good(), &offered, "stores"),
            (
                ProbeResult { thread: Thread { ephemeral: false, ..passed().thread }, ..passed() },
                good(),
                &offered,
                "stores",
            ),
            (ProbeResult { end: None, ..passed() }, good(), &offered, "complete"),
            (passed(), Vec::new(), &offered, "complete"),
            (passed(), vec![request("t", KEY, &refused)], &offered, "key"),
            (passed(), vec![request(KEY, "t", &refused)], &offered, "key"),
            (passed(), good(), &["exec_command"], "tools"),
            (ProbeResult { environments_after: None, ..passed() }, good(), &offered, "commands"),
            (
                ProbeResult { environments_after: Some(vec![json!({})]), ..passed() },
                good(),
                &offered,
                "commands",
            ),
            (passed(), vec![request(KEY, KEY, &ran)], &offered, "commands"),
            // A call without an output may have run.
            (passed(), vec![request(KEY, KEY, &json!([]))], &offered, "commands"),
        ];
        for (result, requests, offered, expected) in cases {
            let ForkSupport::Missing(reason) = judged(&result, &requests, offered) else {
                panic!("{expected} is not named");
            };
            assert!(reason.contains(expected), "{reason}: {expected}");
        }
    }
}
