//! Builds the command of one turn: arguments, environment, files and stdin of `codex exec`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::transcript::Prompt;
use crate::{
    config::{Codex, Sandbox},
    engine::{
        Format, Turn,
        cli::{environment, probe::CliInfo, provider, tls_roots::TlsRoots},
        process::{Input, SpawnSpec, private_dir::PrivateDir},
    },
    error::Error,
};

/// The parts of a command that depend on former turns.
#[derive(Debug, Default)]
pub(super) struct TurnOptions {
    /// The provider with a WebSocket, if the turn uses one.
    pub(super) websocket_provider: Option<&'static str>,
    /// The model catalog, if it was read.
    pub(super) catalog: Option<Arc<str>>,
}

/// The command of a turn.
#[derive(Debug)]
pub(super) struct TurnCommand {
    pub(super) spec: SpawnSpec,
    /// The client's files in a folder of `spec`. The CLI has read them when it reports its first item.
    pub(super) inputs: Vec<PathBuf>,
}

/// Returns the command of a turn. Writes images and schema to a private folder that belongs to the command.
pub(super) fn build(
    turn: &Turn,
    codex: &Codex,
    installed: &CliInfo,
    options: &TurnOptions,
) -> Result<TurnCommand, Error> {
    let prompt = Prompt::new(turn);
    let mut arguments = Arguments::default();
    arguments.extend(["-a", &codex.approval_policy, "exec", "--json", "--ephemeral"]);
    if codex.skip_git_repo_check {
        arguments.push("--skip-git-repo-check");
    }
    arguments.extend(["--sandbox", turn.sandbox.as_str()]);
    // The form with `=` is needed, because a name or folder may begin with a dash.
    arguments.push(format!("--model={}", turn.model));
    arguments.push_path("--cd=", &codex.workspace);
    if turn.sandbox != Sandbox::ReadOnly {
        for folder in &codex.add_dirs {
            arguments.push_path("--add-dir=", folder);
        }
    }
    // The files come before other options, because `--image` is greedy and would consume the `-` for stdin.
    let catalog_bytes = options.catalog.as_ref().map_or(0, |catalog| catalog.len());
    let temp_dir = create_dir(turn, &prompt, catalog_bytes, &codex.scratch).map_err(Error::internal)?;
    let folder = temp_dir.create_hidden().map_err(Error::internal)?;
    let inputs = write_files(turn, &prompt, &folder, &mut arguments).map_err(Error::internal)?;
    // The CLI loses events under a flood of deltas, including the answer. This file always contains the answer.
    let last_message = folder.join("last-message.txt");
    arguments.push_path("--output-last-message=", &last_message);
    arguments.set_text("model_reasoning_effort", &turn.reasoning_effort);
    arguments.set_text("model_reasoning_summary", &turn.reasoning_summary);
    if let Some(verbosity) = &turn.verbosity {
        arguments.set_text("model_verbosity", verbosity);
    }
    if let Some(tier) = &turn.service_tier {
        arguments.set_text("service_tier", tier);
    }
    // `codex --search exec` is accepted and has no effect. This key has an effect.
    arguments.set_text("web_search", if turn.web_search { "live" } else { "disabled" });
    // By default a command of the agent inherits the whole environment, including the upstream's key.
    arguments.set_text("shell_environment_policy.inherit", "core");
    let mut env = environment::environment(codex);
    TlsRoots::find(codex, installed).install(&folder, &mut env).map_err(Error::internal)?;
    let mut commands_dir = None;
    if turn.sandbox == Sandbox::WorkspaceWrite {
        // On disk, because the files of commands may be large.
        let folder = PrivateDir::create_in(&codex.scratch).map_err(Error::internal)?;
        set_private_tmpdir(folder.path(), &mut arguments, &mut env);
        commands_dir = Some(folder);
    }
    for feature in provider::disabled_features(codex, installed) {
        arguments.set_toml(&format!("features.{feature}"), "false");
    }
    if let Some((key, value)) = provider::telemetry_override(codex) {
        arguments.set_toml(key, &value.to_string());
    }
    for (key, value) in provider::settings(codex, installed) {
        arguments.set_toml(&key, &value);
    }
    if let Some(websocket) = options.websocket_provider {
        arguments.set_text("model_provider", websocket);
    }
    if let Some(catalog) = &options.catalog {
        let file = folder.join("models.json");
        fs::write(&file, catalog.as_bytes()).map_err(Error::internal)?;
        arguments.set_text("model_catalog_json", &file.to_string_lossy());
    }

    arguments.push("-");
    let spec = SpawnSpec {
        program: installed.program.clone(),
        arguments: arguments.0,
        env,
        working_dir: codex.workspace.clone(),
        stdin: Input::Text(prompt.text.into_bytes()),
        temp_dirs: [temp_dir].into_iter().chain(commands_dir).collect(),
        shared_dir: None,
        output_file: Some(last_message),
        deadline: turn.deadline,
    };
    Ok(TurnCommand { spec, inputs })
}

/// Creates the private folder for the client's files and the catalog, in memory if there is room.
fn create_dir(turn: &Turn, prompt: &Prompt, catalog_bytes: usize, scratch: &Path) -> io::Result<PrivateDir> {
    let images: usize = prompt.images.iter().map(|image| image.data.len()).sum();
    let schema = match &turn.format {
        Format::Text | Format::JsonObject => 0,
        Format::JsonSchema(schema) => schema.text.len(),
    };
    PrivateDir::create(scratch, u64::try_from(images + schema + catalog_bytes).unwrap_or(u64::MAX))
}

/// Sets a private temporary folder for commands. By default commands may write to `/tmp`, which contains files of
/// other turns.
fn set_private_tmpdir(folder: &Path, arguments: &mut Arguments, env: &mut BTreeMap<OsString, OsString>) {
    arguments.set_toml("sandbox_workspace_write.exclude_slash_tmp", "true");
    arguments.set_text("shell_environment_policy.set.TMPDIR", &folder.to_string_lossy());
    env.insert("TMPDIR".into(), folder.into());
}

/// Writes images and schema to the private folder and adds their arguments. Returns the files.
fn write_files(
    turn: &Turn,
    prompt: &Prompt,
    folder: &Path,
    arguments: &mut Arguments,
) -> io::Result<Vec<PathBuf>> {
    let schema = match &turn.format {
        Format::Text | Format::JsonObject => None,
        Format::JsonSchema(schema) => Some(schema),
    };
    let mut files = Vec::new();
    if let Some(schema) = schema {
        let file = folder.join("schema.json");
        fs::write(&file, &schema.text)?;
        arguments.push_path("--output-schema=", &file);
        files.push(file);
    }
    for (index, image) in prompt.images.iter().enumerate() {
        let file = folder.join(format!("image-{}.{}", index + 1, image.kind.extension()));
        fs::write(&file, &image.data)?;
        arguments.push_path("--image=", &file);
        files.push(file);
    }
    Ok(files)
}

#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn push(&mut self, argument: impl Into<OsString>) {
        self.0.push(argument.into());
    }

    fn extend<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) {
        self.0.extend(arguments.into_iter().map(OsString::from));
    }

    fn push_path(&mut self, flag: &str, path: &Path) {
        let mut argument = OsString::from(flag);
        argument.push(path);
        self.0.push(argument);
    }

    /// Sets a configuration key to a string.
    fn set_text(&mut self, key: &str, text: &str) {
        self.set_toml(key, &toml::Value::from(text).to_string());
    }

    /// Sets a configuration key to a TOML value.
    fn set_toml(&mut self, key: &str, value: &str) {
        self.extend(["-c", &format!("{key}={value}")]);
    }
}

#[cfg(test)]
mod tests;
