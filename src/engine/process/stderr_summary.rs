//! Summarizes the stderr of a failed program in one line: the error and its causes, without the backtrace and without
//! warnings.

/// Maximum length of a summary, in characters.
const MAX_SUMMARY_CHARS: usize = 300;

/// Returns the last error line of `stderr` with the lines that explain it.
pub(crate) fn summarize_stderr(stderr: &str) -> String {
    let lines = stderr.lines().take_while(|line| !is_backtrace(line)).map(str::trim);
    let is_text = |line: &&str| !line.is_empty() && !is_noise(line) && !is_source_line(line);
    let lines: Vec<&str> = lines.filter(is_text).collect();
    let begin = lines.iter().rposition(|line| is_error(line));
    let is_no_warning = |line: &&&str| !line.starts_with("WARNING: ");
    let lines: Vec<&str> = match begin {
        Some(begin) => lines[begin..].to_vec(),
        None if lines.iter().any(|line| is_no_warning(&line)) => {
            lines.iter().filter(is_no_warning).copied().collect()
        }
        None => lines,
    };
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    words.join(" ").chars().take(MAX_SUMMARY_CHARS).collect()
}

fn is_error(line: &str) -> bool {
    line.starts_with("Error") || line.starts_with("error: ") || line.contains("' panicked at ")
}

fn is_backtrace(line: &str) -> bool {
    line.trim().trim_end_matches(':').eq_ignore_ascii_case("stack backtrace")
}

/// Returns `true` for source locations, notes about backtraces, and frames of a backtrace whose beginning is cut off.
fn is_noise(line: &str) -> bool {
    const STARTS: &[&str] =
        &["at /", "at ./", "note: run with `RUST_BACKTRACE", "note: Some details are omitted"];
    let numbered = line.split_once(": ").filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
    let is_frame = numbered.is_some_and(|(_, symbol)| symbol == "<unknown>" || symbol.contains("::"));
    let headings = ["Caused by:", "Location:"];
    is_frame
        || headings.contains(&line)
        || is_source_location(line)
        || STARTS.iter().any(|start| line.starts_with(start))
}

/// Returns `true` for a line that quotes a file, such as `3 | key = "secret"`, or marks a place in it.
fn is_source_line(line: &str) -> bool {
    line.split_once('|').is_some_and(|(number, _)| number.trim().bytes().all(|b| b.is_ascii_digit()))
}

/// Returns `true` for a line like `src/main.rs:1:2`.
fn is_source_location(line: &str) -> bool {
    line.split_once(".rs:")
        .is_some_and(|(path, at)| !path.contains(' ') && at.bytes().all(|b| b.is_ascii_digit() || b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summarize_stderr_quotes_no_line_of_a_file() {
        let stderr = "Error loading config.toml: TOML parse error at line 3, column 7\n  |\n3 | key = s3cr3t\n  |       ^^^^^^\ninvalid value\n";
        assert_eq!(
            summarize_stderr(stderr),
            "Error loading config.toml: TOML parse error at line 3, column 7 invalid value"
        );
    }

    #[test]
    fn summarize_stderr_with_warnings_and_backtrace_returns_the_error() {
        let warning = "WARNING: proceeding, even though we could not create PATH aliases: Refusing\n";
        let trace = "\nStack backtrace:\n   0: <unknown>\n   1: core::ops::call\n             at /rustc/x.rs:5\n   8: <unknown>\n";
        let table = [
            (
                format!("{warning}Error: failed to initialize: Read-only file system (os error 30)\n{trace}"),
                "Error: failed to initialize: Read-only file system (os error 30)",
            ),
            (
                format!("{warning}Error: failed to resolve CODEX_HOME\n\nCaused by:\n    it is no folder\n{trace}"),
                "Error: failed to resolve CODEX_HOME it is no folder",
            ),
            (
                format!("Error: first\n\nCaused by:\n    0: second\n    1: third\n\nLocation:\n    src/main.rs:1:2\n{trace}"),
                "Error: first 0: second 1: third",
            ),
            (
                "\nthread 'main' (7) panicked at src/a.rs:1:2:\nit burst\nstack backtrace:\n   0: x\nnote: Some details are omitted, run\n".into(),
                "thread 'main' (7) panicked at src/a.rs:1:2: it burst",
            ),
            (format!("{warning}Not logged in\n"), "Not logged in"),
            (warning.into(), warning.trim()),
            ("error: unexpected argument '--x' found\n\nUsage: codex\n".into(), "error: unexpected argument '--x' found Usage: codex"),
            // The beginning is cut off.
            ("   7: <unknown>\n   8: <unknown>\n".into(), ""),
            ("  two\n   words \n".into(), "two words"),
        ];
        for (stderr, expected) in table {
            assert_eq!(summarize_stderr(&stderr), expected, "{stderr}");
        }
        assert_eq!(summarize_stderr(&"x".repeat(1000)).len(), MAX_SUMMARY_CHARS);
    }
}
