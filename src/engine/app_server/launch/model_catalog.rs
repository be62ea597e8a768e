//! Builds the model catalogs of workers from the catalog of the installed CLI. Both catalogs offer client tools as plain
//! functions and disable sub-agents. The `chat` catalog also removes instructions and tools of Codex and the limits of
//! windows. With the `agent` catalog, Codex keeps its windows and summarizes longer histories.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{
    config::{Codex, Profile},
    engine::{
        cli::{
            models::PRINT_CATALOG,
            probe::{self, CliInfo, ProbeError},
        },
        process::Launcher,
    },
};

/// Window of models in `chat`, so that Codex neither compacts nor cuts a history. The upstream rejects histories that
/// are too long.
const UNLIMITED_TOKENS: u64 = 10_000_000;

/// Models whose entry is the template for models that the CLI's catalog lacks, best first.
const TEMPLATE_MODELS: &[&str] = &["gpt-5.5", "gpt-5.4"];

/// The catalog files, one for each profile. A thread may use the other profile than its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Catalogs {
    pub(crate) agent: PathBuf,
    pub(crate) chat: PathBuf,
}

impl Catalogs {
    /// Returns the catalog of a profile.
    pub(crate) fn path(&self, profile: Profile) -> &Path {
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

/// The reason why the catalogs cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The CLI cannot be run.
    #[error(transparent)]
    Run(#[from] ProbeError),
    /// The CLI prints no catalog.
    #[error("Codex {version} prints no catalog of its models: {output}")]
    NotPrinted {
        /// The version of the CLI.
        version: String,
        /// Its output.
        output: String,
    },
    /// The catalog has an unknown format.
    #[error("the catalog of the installed CLI has an unknown format: {0}")]
    Format(String),
    /// A catalog cannot be written.
    #[error("{}: {cause}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
}

impl CatalogError {
    /// Returns the message for callers.
    pub(crate) fn public(&self) -> String {
        let more = "`codex-api doctor` and the log have the cause";
        match self {
            Self::Run(error) => error.to_string(),
            Self::NotPrinted { version, .. } => {
                format!("Codex {version} prints no catalog of its models; {more}")
            }
            Self::Format(_) => format!("the catalog of the installed CLI has an unknown format; {more}"),
            Self::Write { .. } => format!("the model catalogs cannot be written; {more}"),
        }
    }
}

/// Returns the catalog that the installed CLI prints.
pub(crate) async fn print(
    codex: &Codex,
    launcher: &Launcher,
    installed: &CliInfo,
) -> Result<String, CatalogError> {
    let output = probe::run_cli(codex, launcher, &installed.program, &PRINT_CATALOG).await?;
    if output.code != Some(0) {
        return Err(CatalogError::NotPrinted {
            version: installed.version.clone(),
            output: output.error_summary(),
        });
    }
    Ok(output.stdout)
}

/// Writes the catalogs of the workers to `folder`. `printed` is the CLI's catalog, `models` are names that clients may
/// request.
pub(crate) fn write_catalogs(
    printed: &str,
    folder: &Path,
    models: &[String],
) -> Result<Catalogs, CatalogError> {
    let write = |profile: Profile| -> Result<PathBuf, CatalogError> {
        let text = build(printed, profile, models)?;
        let path = folder.join(format!("models-{}.json", profile.as_str()));
        fs::write(&path, text).map_err(|cause| CatalogError::Write { path: path.clone(), cause })?;
        Ok(path)
    };
    Ok(Catalogs { agent: write(Profile::Agent)?, chat: write(Profile::Chat)? })
}

/// Returns the catalog of a profile. `printed` is the output of `codex debug models`.
fn build(printed: &str, profile: Profile, models: &[String]) -> Result<String, CatalogError> {
    let mut catalog: Value =
        serde_json::from_str(printed).map_err(|error| CatalogError::Format(error.to_string()))?;
    let list = catalog.get_mut("models").and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| CatalogError::Format("no models".to_owned()))?;
    match profile {
        // Unknown models keep their warning in `agent`, because their instructions depend on the model.
        Profile::Agent => {}
        Profile::Chat => add_unknown_models(list, models),
    }
    for model in list.iter_mut().filter_map(Value::as_object_mut) {
        match profile {
            Profile::Agent => disable_code_mode(model),
            Profile::Chat => make_chat_only(model),
        }
    }
    Ok(catalog.to_string())
}

/// Adds models that the CLI's catalog lacks. Without an entry, each turn starts with a warning. Codex also compacts a
/// history beyond a guessed window, and compaction fails in `chat`.
fn add_unknown_models(list: &mut Vec<Value>, models: &[String]) {
    let find = |slug: &str| list.iter().find(|model| model["slug"] == slug);
    let plain = |model: &&Value| model["use_responses_lite"] != true;
    let template =
        TEMPLATE_MODELS.iter().find_map(|slug| find(slug)).or_else(|| list.iter().find(plain)).cloned();
    let Some(template) = template else { return };
    let unknown: Vec<&String> = models.iter().filter(|slug| find(slug).is_none()).collect();
    for slug in unknown {
        let mut model = template.clone();
        model["slug"] = slug.as_str().into();
        model["display_name"] = slug.as_str().into();
        model["description"] = "configured in codex-api".into();
        if model.get("upgrade").is_some() {
            model["upgrade"] = Value::Null;
        }
        list.push(model);
    }
}

/// Disables code mode, in which tools are names in a script that Codex runs. Tools become plain functions. Also disables
/// sub-agents, because they outlive their turn. The entry of a model has precedence over the feature switch.
fn disable_code_mode(model: &mut Map<String, Value>) {
    set(model, "tool_mode", Value::Null);
    set(model, "multi_agent_version", Value::Null);
}

/// Removes instructions, tools and limits of Codex.
fn make_chat_only(model: &mut Map<String, Value>) {
    disable_code_mode(model);
    for key in ["apply_patch_tool_type", "model_messages"] {
        set(model, key, Value::Null);
    }
    set(model, "supports_search_tool", false.into());
    set(model, "experimental_supported_tools", json!([]));
    set(model, "base_instructions", "".into());
    for key in ["context_window", "max_context_window", "auto_compact_token_limit"] {
        model.insert(key.to_owned(), UNLIMITED_TOKENS.into());
    }
    if let Some(policy) = model.get_mut("truncation_policy").and_then(Value::as_object_mut) {
        policy.insert("limit".to_owned(), UNLIMITED_TOKENS.into());
    }
}

/// Changes an existing key. Keys that the version lacks are not added.
fn set(model: &mut Map<String, Value>, key: &str, value: Value) {
    if let Some(old) = model.get_mut(key) {
        *old = value;
    }
}

#[cfg(test)]
mod tests;
