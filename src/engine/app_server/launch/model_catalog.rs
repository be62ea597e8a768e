//! The model catalog that workers run with: that of the installed CLI, changed so that tools of clients are plain
//! functions, nothing outlives its turn and, in `chat`, nothing of Codex is left and no history is too long for it. Bound
//! to the CLI's version, so made from its own. In `agent`, Codex keeps its windows and makes summaries of what exceeds
//! them: see `events`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{
    config::{Codex, Profile},
    engine::{
        cli::{environment, probe, probe::CliInfo},
        process::{Launcher, SpawnSpec},
    },
};

/// More tokens than anybody has: in `chat` nothing is compacted or cut behind a client's back, the upstream says what
/// is too much.
const LIMITLESS: u64 = 10_000_000;

/// The models that lend their entry to one that the CLI does not know, best first.
const LENDERS: &[&str] = &["gpt-5.5", "gpt-5.4"];

/// Catalogs, one for each profile: a thread may ask for the other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Catalogs {
    pub(crate) agent: PathBuf,
    pub(crate) chat: PathBuf,
}

impl Catalogs {
    /// That of a profile.
    pub(crate) fn of(&self, profile: Profile) -> &Path {
        match profile {
            Profile::Agent => &self.agent,
            Profile::Chat => &self.chat,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(agent: &str, chat: &str) -> Self {
        Self { agent: agent.into(), chat: chat.into() }
    }
}

/// Makes the catalogs of the installed CLI, in a `folder` of their own. `models` are names that clients may use.
pub(crate) async fn write(
    codex: &Codex,
    launcher: &Launcher,
    installed: &CliInfo,
    folder: &Path,
    models: &[String],
) -> Result<Catalogs, String> {
    let launch = SpawnSpec {
        program: installed.program.clone(),
        arguments: ["debug", "models"].map(Into::into).into(),
        env: environment::environment(codex),
        folder: codex.workspace.clone(),
        ..SpawnSpec::default()
    };
    let answer = tokio::time::timeout(probe::PATIENCE, launcher.ask(launch)).await;
    let answer = answer.map_err(|_| "`codex debug models` did not answer in time".to_owned())?;
    let answer = answer.map_err(|error| format!("`codex debug models`: {error}"))?;
    if answer.code != Some(0) {
        return Err(format!(
            "Codex {} prints no catalog of its models: {}",
            installed.version,
            answer.words()
        ));
    }
    let put = |profile: Profile| -> Result<PathBuf, String> {
        let text = make(&answer.stdout, profile, models)?;
        let path = folder.join(format!("models-{}.json", profile.as_str()));
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    };
    Ok(Catalogs { agent: put(Profile::Agent)?, chat: put(Profile::Chat)? })
}

/// What `codex debug models` printed → the catalog of a profile.
fn make(printed: &str, profile: Profile, models: &[String]) -> Result<String, String> {
    let strange = |what: &str| format!("the catalog of the installed CLI is of a form not known: {what}");
    let mut catalog: Value = serde_json::from_str(printed).map_err(|error| strange(&error.to_string()))?;
    let list = catalog.get_mut("models").and_then(Value::as_array_mut).ok_or_else(|| strange("no models"))?;
    match profile {
        // An unknown model keeps its warning here: what it is told of tools depends on what it is.
        Profile::Agent => {}
        Profile::Chat => adopt(list, models),
    }
    for model in list.iter_mut().filter_map(Value::as_object_mut) {
        match profile {
            Profile::Agent => tame(model),
            Profile::Chat => strip(model),
        }
    }
    Ok(catalog.to_string())
}

/// Enters models that the CLI does not know. With an entry they are asked as any other; without one every turn
/// begins with a warning, and a history beyond a guessed window would be compacted, which in `chat` is a failure.
fn adopt(list: &mut Vec<Value>, models: &[String]) {
    let find = |slug: &str| list.iter().find(|model| model["slug"] == slug);
    let plain = |model: &&Value| model["use_responses_lite"] != true;
    let lender = LENDERS.iter().find_map(|slug| find(slug)).or_else(|| list.iter().find(plain)).cloned();
    let Some(lender) = lender else { return };
    let unknown: Vec<&String> = models.iter().filter(|slug| find(slug).is_none()).collect();
    for slug in unknown {
        let mut model = lender.clone();
        model["slug"] = slug.as_str().into();
        model["display_name"] = slug.as_str().into();
        model["description"] = "configured in codex-api".into();
        if model.get("upgrade").is_some() {
            model["upgrade"] = Value::Null;
        }
        list.push(model);
    }
}

/// Tools are functions that the model calls itself, not names in a script that Codex runs for it; and there are no
/// sub-agents, which would outlive their turn: what a model's entry says of them wins over the feature's switch.
fn tame(model: &mut Map<String, Value>) {
    set(model, "tool_mode", Value::Null);
    set(model, "multi_agent_version", Value::Null);
}

/// The model alone.
fn strip(model: &mut Map<String, Value>) {
    tame(model);
    for key in ["apply_patch_tool_type", "model_messages"] {
        set(model, key, Value::Null);
    }
    set(model, "supports_search_tool", false.into());
    set(model, "experimental_supported_tools", json!([]));
    set(model, "base_instructions", "".into());
    for key in ["context_window", "max_context_window", "auto_compact_token_limit"] {
        model.insert(key.to_owned(), LIMITLESS.into());
    }
    if let Some(policy) = model.get_mut("truncation_policy").and_then(Value::as_object_mut) {
        policy.insert("limit".to_owned(), LIMITLESS.into());
    }
}

/// Changes what is there: a key that this version does not know stays unknown to it.
fn set(model: &mut Map<String, Value>, key: &str, value: Value) {
    if let Some(old) = model.get_mut(key) {
        *old = value;
    }
}

#[cfg(test)]
mod tests;
