//! The report of the fake about its command line and environment, for tests of both.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::args::Exec;

/// Returns compact JSON about this process.
pub(crate) fn report(exec: &Exec, cwd: &Path, prompt: &str, schema: Option<&Value>) -> String {
    let argv: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let env: Map<String, Value> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into()))
        .collect();
    let images: Vec<Value> = exec.images.iter().map(|path| image(cwd, path)).collect();
    json!({
        "argv": argv,
        "env": env,
        "cwd": cwd,
        "prompt_chars": prompt.chars().count(),
        "images": images,
        "schema": schema,
    })
    .to_string()
}

fn image(cwd: &Path, path: &str) -> Value {
    let file: PathBuf = cwd.join(path);
    let size = std::fs::metadata(&file).map(|m| m.len());
    json!({ "path": path, "bytes": size.as_ref().copied().unwrap_or(0), "exists": size.is_ok() })
}
