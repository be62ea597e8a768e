//! Records the messages of the gateway to an app-server and its command line. A script replaces the codex for one turn, so
//! that the bare client uses the same messages, flags and environment.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{BenchResult, tally::Prompt};

/// The start of an app-server and the messages of a turn.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    /// A copy of the worker's own `CODEX_HOME`.
    pub(crate) private_home: PathBuf,
    original_home: PathBuf,
    /// Parameters of `initialize`.
    pub(crate) initialize: Value,
    thread: Value,
    items: Value,
    turn: Value,
    prompt: String,
}

/// Writes the script for `CODEX_BIN`. Its recording goes to `folder`.
pub(crate) fn script(folder: &Path, codex: &Path) -> BenchResult<PathBuf> {
    let path = folder.join("codex-recorder");
    let (folder, codex) = (folder.display(), codex.display());
    // `exec` would save a process, but then nothing copies the lines.
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in\n*\" app-server \"*)\n\
         for argument; do printf '%s\\0' \"$argument\"; done > '{folder}'/arguments.$$\n\
         env -0 > '{folder}'/env.$$\n\
         tee '{folder}'/lines.$$ | '{codex}' \"$@\" ;;\n\
         *) exec '{codex}' \"$@\" ;;\nesac\n"
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

impl Recording {
    /// Reads the recording of the worker that received `prompt`. The server must still run.
    pub(crate) fn read(folder: &Path, codex: &Path, prompt: &Prompt) -> BenchResult<Self> {
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("lines.") else { continue };
            let lines = fs::read_to_string(entry.path())?;
            let quoted = serde_json::to_string(&prompt.text)?;
            if lines.contains(quoted.trim_matches('"')) {
                return Self::parse(folder, number, codex, &lines, prompt);
            }
        }
        Err("the gateway's messages to its worker were not recorded".into())
    }

    fn parse(folder: &Path, number: &str, codex: &Path, lines: &str, prompt: &Prompt) -> BenchResult<Self> {
        let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let messages: Vec<Value> = messages.collect();
        let injection =
            |line: &Value| line["method"] == "thread/inject_items" && line.to_string().contains(&prompt.text);
        let at = messages.iter().position(injection).ok_or("no thread/inject_items")?;
        let params = |method: &str, mut among: Box<dyn Iterator<Item = &Value> + '_>| {
            let found = among.find(|line| line["method"] == method);
            found.map(|line| line["params"].clone()).ok_or(format!("no {method} was recorded"))
        };
        let arguments = fs::read(folder.join(format!("arguments.{number}")))?;
        let env = split(&fs::read(folder.join(format!("env.{number}")))?);
        let env: BTreeMap<OsString, OsString> = env.iter().filter_map(|pair| env_pair(pair)).collect();
        let original_home = env.get(OsStr::new("CODEX_HOME")).map(PathBuf::from).ok_or("no CODEX_HOME")?;
        // Next to the original, so that it is on the same file system.
        let private_home = original_home.with_file_name(format!("bench-home-{}", std::process::id()));
        crate::process::copy_folder(&original_home, &private_home)?;
        Ok(Self {
            program: codex.to_owned(),
            arguments: split(&arguments),
            env,
            private_home,
            original_home,
            initialize: params("initialize", Box::new(messages.iter()))?,
            thread: params("thread/start", Box::new(messages[..at].iter().rev()))?,
            items: messages[at]["params"].clone(),
            turn: params("turn/start", Box::new(messages[at..].iter()))?,
            prompt: prompt.text.clone(),
        })
    }

    /// Returns the environment with the original home replaced by another.
    pub(crate) fn env_with_home(&self, home: &Path) -> BTreeMap<OsString, OsString> {
        let original = self.original_home.as_os_str().as_bytes();
        let moved = |value: &OsString| match value.as_bytes().strip_prefix(original) {
            Some(rest) => OsString::from_vec([home.as_os_str().as_bytes(), rest].concat()),
            None => value.clone(),
        };
        self.env.iter().map(|(name, value)| (name.clone(), moved(value))).collect()
    }

    pub(crate) fn thread(&self, prompt: &Prompt) -> Value {
        let mut thread = self.thread.clone();
        thread["model"] = prompt.model.as_str().into();
        thread
    }

    /// Returns the parameters of a thread of a conversation. The recorded turn had tools.
    pub(crate) fn conversation(&self, tools: bool) -> Value {
        let mut thread = self.thread.clone();
        if !tools && let Some(members) = thread.as_object_mut() {
            members.remove("dynamicTools");
        }
        thread
    }

    pub(crate) fn items(&self, thread: &str, prompt: &Prompt) -> Value {
        let mut items = self.items.clone();
        replace(&mut items, &self.prompt, &prompt.text);
        items["threadId"] = thread.into();
        items
    }

    pub(crate) fn turn(&self, thread: &str) -> Value {
        let mut turn = self.turn.clone();
        turn["threadId"] = thread.into();
        turn
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.private_home));
    }
}

/// Replaces a text everywhere in a value.
fn replace(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::String(text) if text.contains(old) => *text = text.replace(old, new),
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, old, new)),
        Value::Object(members) => members.values_mut().for_each(|value| replace(value, old, new)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn split(bytes: &[u8]) -> Vec<OsString> {
    let parts = bytes.split(|&byte| byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

fn env_pair(pair: &OsStr) -> Option<(OsString, OsString)> {
    let at = pair.as_bytes().iter().position(|&byte| byte == b'=')?;
    let (name, value) = pair.as_bytes().split_at(at);
    // Variables that the script's shell added.
    let added = [&b"_"[..], b"PWD", b"OLDPWD", b"SHLVL"].contains(&name);
    (!added).then(|| (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
}

/// Returns the number of workers that a gateway has started.
pub(crate) fn workers(folder: &Path) -> BenchResult<usize> {
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("lines.")).count())
}
