//! Reads and validates the input of `exec` before a turn starts.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
};

use crate::args::Exec;

/// The maximum number of characters of one turn.
pub(crate) const MAX_CHARS: usize = 1_048_576;

/// Reads the prompt from the argument, from stdin, or from both. The error is the text for stderr; its exit code is 1.
pub(crate) fn read(exec: &Exec) -> Result<String, String> {
    let Some(argument) = exec.prompt.as_deref().filter(|p| *p != "-") else {
        if exec.prompt.is_none() {
            print_stderr("Reading prompt from stdin...\n");
        }
        let prompt = stdin()?;
        let blank = prompt.trim().is_empty();
        return if blank { Err("No prompt provided via stdin.\n".to_owned()) } else { Ok(prompt) };
    };
    if io::stdin().is_terminal() {
        return Ok(argument.to_owned());
    }
    print_stderr("Reading additional input from stdin...\n");
    let more = stdin()?;
    if more.trim().is_empty() {
        return Ok(argument.to_owned());
    }
    let end = if more.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{argument}\n\n<stdin>\n{more}{end}</stdin>"))
}

/// Reads the schema file, if the command line names one.
pub(crate) fn schema(exec: &Exec) -> Result<Option<serde_json::Value>, String> {
    let Some(path) = exec.output_schema.as_deref() else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("Failed to read output schema file {path}: {e}\n"))?;
    let value = serde_json::from_str(&text)
        .map_err(|e| format!("Output schema file {path} is not valid JSON: {e}\n"))?;
    Ok(Some(value))
}

/// Refuses a folder outside of a git repository unless `--skip-git-repo-check` is set.
pub(crate) fn check_trusted(exec: &Exec, cwd: &Path) -> Result<(), String> {
    if exec.skip_git_repo_check || cwd.ancestors().any(|dir| dir.join(".git").exists()) {
        return Ok(());
    }
    Err("Not inside a trusted directory and --skip-git-repo-check was not specified.\n".to_owned())
}

/// Returns the text on stderr for a prompt of this many characters.
pub(crate) fn too_large(chars: usize) -> String {
    format!(
        "Error: turn/start: turn/start failed: Input exceeds the maximum length of {MAX_CHARS} characters. \
         (code -32602), data: {{\"input_error_code\":\"input_too_large\",\"max_chars\":{MAX_CHARS},\
         \"actual_chars\":{chars}}}\n"
    )
}

fn stdin() -> Result<String, String> {
    let mut bytes = Vec::new();
    let fail = |cause: String| format!("Failed to read prompt from stdin: {cause}\n");
    io::stdin().lock().read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        fail(format!(
            "input is not valid UTF-8 (invalid byte at offset {}). Convert it to UTF-8 and retry \
             (e.g., `iconv -f <ENC> -t UTF-8 prompt.txt`).",
            e.utf8_error().valid_up_to()
        ))
    })
}

/// Prints a line to stderr. Ignores a closed stderr.
fn print_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
