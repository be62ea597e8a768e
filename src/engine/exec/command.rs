//! A turn → the command line, environment, files and input of one `codex exec`.

use std::{collections::BTreeMap, ffi::OsString, fs, io, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use super::transcript::Prompt;
use crate::{
    config::{Codex, Sandbox},
    engine::{
        Format, Turn,
        cli::{environment, probe::CliInfo, provider},
        process::{Input, SpawnSpec},
    },
    error::Error,
};

/// The command of one turn.
pub(super) fn of(turn: &Turn, codex: &Codex, installed: &CliInfo) -> Result<SpawnSpec, Error> {
    let prompt = Prompt::of(turn);
    let mut arguments = Arguments::default();
    arguments.many(["-a", &codex.approval_policy, "exec", "--json", "--ephemeral"]);
    if codex.skip_git_repo_check {
        arguments.one("--skip-git-repo-check");
    }
    arguments.many(["--sandbox", turn.sandbox.as_str()]);
    // With `=`, for a name or folder that begins with a dash.
    arguments.one(format!("--model={}", turn.model));
    arguments.path("--cd=", &codex.workspace);
    if turn.sandbox != Sandbox::ReadOnly {
        for folder in &codex.add_dirs {
            arguments.path("--add-dir=", folder);
        }
    }
    // Before other options: `--image` is greedy and would eat the `-` that stands for stdin.
    let scratch = files(turn, &prompt, &codex.scratch, &mut arguments).map_err(Error::internal)?;
    // Under a flood of deltas the CLI loses events, the answer's among them; this file has it all the same.
    let last_words = scratch.path().join("last-message.txt");
    arguments.path("--output-last-message=", &last_words);
    arguments.set("model_reasoning_effort", &turn.reasoning_effort);
    arguments.set("model_reasoning_summary", &turn.reasoning_summary);
    if let Some(verbosity) = &turn.verbosity {
        arguments.set("model_verbosity", verbosity);
    }
    // `--search` is accepted before `exec` and does nothing there; this is what it means.
    arguments.set("web_search", if turn.web_search { "live" } else { "disabled" });
    // By default a command of the agent sees everything that Codex sees, its upstream's key included.
    arguments.set("shell_environment_policy.inherit", "core");
    let mut env = environment::environment(codex);
    if turn.sandbox == Sandbox::WorkspaceWrite {
        own_temporary_folder(&scratch, &mut arguments, &mut env).map_err(Error::internal)?;
    }
    for feature in provider::SWITCHED_OFF.iter().filter(|feature| installed.features.contains_key(**feature))
    {
        arguments.raw(&format!("features.{feature}"), "false");
    }
    // A response that broke off is not asked for again: the model would repeat what the client already has.
    for (key, value) in provider::settings(codex, 0) {
        arguments.raw(&key, &value);
    }

    arguments.one("-");
    Ok(SpawnSpec {
        program: installed.program.clone(),
        arguments: arguments.0,
        env,
        folder: codex.workspace.clone(),
        stdin: Input::Text(prompt.text.into_bytes()),
        scratch: vec![scratch],
        shared: None,
        last_words: Some(last_words),
        deadline: turn.deadline,
    })
}

/// By default commands may write to the temporary folder of all, where other turns' files are. They get their own.
fn own_temporary_folder(
    scratch: &TempDir,
    arguments: &mut Arguments,
    env: &mut BTreeMap<OsString, OsString>,
) -> io::Result<()> {
    let folder = scratch.path().join("tmp");
    fs::create_dir(&folder)?;
    arguments.raw("sandbox_workspace_write.exclude_slash_tmp", "true");
    arguments.set("shell_environment_policy.set.TMPDIR", &folder.to_string_lossy());
    env.insert("TMPDIR".into(), folder.into());
    Ok(())
}

/// Writes images and schema, and names them to the CLI.
fn files(turn: &Turn, prompt: &Prompt, scratch: &Path, arguments: &mut Arguments) -> io::Result<TempDir> {
    let schema = match &turn.format {
        Format::Text | Format::JsonObject => None,
        Format::JsonSchema(schema) => Some(schema),
    };
    // Pictures of the client are nobody else's on this machine.
    let ours = fs::Permissions::from_mode(0o700);
    let scratch = tempfile::Builder::new().prefix("codex-api-").permissions(ours).tempdir_in(scratch)?;
    if let Some(schema) = schema {
        let file = scratch.path().join("schema.json");
        fs::write(&file, &schema.text)?;
        arguments.path("--output-schema=", &file);
    }
    for (index, image) in prompt.images.iter().enumerate() {
        let file = scratch.path().join(format!("image-{}.{}", index + 1, image.kind.extension()));
        fs::write(&file, &image.data)?;
        arguments.path("--image=", &file);
    }
    Ok(scratch)
}

#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn one(&mut self, argument: impl Into<OsString>) {
        self.0.push(argument.into());
    }

    fn many<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) {
        self.0.extend(arguments.into_iter().map(OsString::from));
    }

    fn path(&mut self, flag: &str, path: &Path) {
        let mut argument = OsString::from(flag);
        argument.push(path);
        self.0.push(argument);
    }

    /// A configuration value that is a text.
    fn set(&mut self, key: &str, text: &str) {
        self.raw(key, &toml::Value::from(text).to_string());
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.many(["-c", &format!("{key}={value}")]);
    }
}

#[cfg(test)]
mod tests;
