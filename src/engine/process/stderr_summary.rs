//! What a program says on stderr when it gives up, on one line for a person: the error and its causes, without the
//! backtrace that follows it and the warnings before it.

/// The most that is told, in characters.
const MOST: usize = 300;

/// The line that names the error, and what explains it.
pub(crate) fn of(stderr: &str) -> String {
    let said = stderr.lines().take_while(|line| !is_backtrace(line)).map(str::trim);
    let said: Vec<&str> = said.filter(|line| !line.is_empty() && !is_noise(line)).collect();
    let begin = said.iter().rposition(|line| names_an_error(line));
    let warning = |line: &&&str| !line.starts_with("WARNING: ");
    let words: Vec<&str> = match begin {
        Some(begin) => said[begin..].to_vec(),
        None if said.iter().any(|line| warning(&line)) => said.iter().filter(warning).copied().collect(),
        None => said,
    };
    let words: Vec<&str> = words.iter().flat_map(|line| line.split_whitespace()).collect();
    words.join(" ").chars().take(MOST).collect()
}

fn names_an_error(line: &str) -> bool {
    line.starts_with("Error") || line.starts_with("error: ") || line.contains("' panicked at ")
}

fn is_backtrace(line: &str) -> bool {
    line.trim().trim_end_matches(':').eq_ignore_ascii_case("stack backtrace")
}

/// Where in the program it was, and what is about the backtrace; frames of one whose beginning is lost.
fn is_noise(line: &str) -> bool {
    const STARTS: &[&str] =
        &["at /", "at ./", "note: run with `RUST_BACKTRACE", "note: Some details are omitted"];
    let numbered = line.split_once(": ").filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
    let frame = numbered.is_some_and(|(_, what)| what == "<unknown>" || what.contains("::"));
    let headings = ["Caused by:", "Location:"];
    frame || headings.contains(&line) || is_place(line) || STARTS.iter().any(|start| line.starts_with(start))
}

/// `src/main.rs:1:2`
fn is_place(line: &str) -> bool {
    line.split_once(".rs:")
        .is_some_and(|(path, at)| !path.contains(' ') && at.bytes().all(|b| b.is_ascii_digit() || b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_told_and_not_a_frame_of_its_backtrace() {
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
            // The beginning is lost.
            ("   7: <unknown>\n   8: <unknown>\n".into(), ""),
            ("  two\n   words \n".into(), "two words"),
        ];
        for (stderr, expected) in table {
            assert_eq!(of(&stderr), expected, "{stderr}");
        }
        assert_eq!(of(&"x".repeat(1000)).len(), MOST);
    }
}
