//! The command line, as strict as that of the real CLI, with the same exit codes and texts.

use crate::{FAKE_ONLY, app_server::version::Release};

/// A parsed command line.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// `--version`, of the program or of `exec`.
    Version { name: &'static str },
    /// `--help`.
    Help,
    /// `login status`.
    LoginStatus,
    /// `features list`.
    FeaturesList,
    /// `debug models`.
    DebugModels,
    /// `exec --json`.
    Exec(Exec),
    /// `app-server`, with its `-c` overrides and the model of `-m`.
    AppServer { overrides: Vec<String>, model: Option<String> },
}

/// `exec` and its options, including those before the word `exec`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Exec {
    /// `-m`, or `-c model=`.
    pub(crate) model: Option<String>,
    /// `-C`.
    pub(crate) cd: Option<String>,
    /// `-i`, in order.
    pub(crate) images: Vec<String>,
    /// `--output-schema`.
    pub(crate) output_schema: Option<String>,
    /// `-o`.
    pub(crate) last_message: Option<String>,
    /// `--skip-git-repo-check`.
    pub(crate) skip_git_repo_check: bool,
    /// `None` and `-` mean stdin.
    pub(crate) prompt: Option<String>,
}

/// A refused command line.
#[derive(Debug, PartialEq)]
pub(crate) struct Usage {
    /// The exit code: 2 for invalid options, 1 for values that the real CLI validates later.
    pub(crate) code: u8,
    /// The text on stderr.
    pub(crate) text: String,
}

/// A short help text; no caller parses it.
pub(crate) const HELP: &str = "Codex CLI (fake)\n\nUsage: codex [OPTIONS] [PROMPT]\n       \
     codex [OPTIONS] <COMMAND> [ARGS]\n";

const ROOT_USAGE: &str = "codex [OPTIONS] [PROMPT]\n       codex [OPTIONS] <COMMAND> [ARGS]";
const EXEC_USAGE: &str = "codex exec [OPTIONS] [PROMPT]\n       codex exec [OPTIONS] <COMMAND> [ARGS]";

/// The values of an option.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    /// One value, with its name for messages and its permitted values, if limited.
    One(&'static str, &'static [&'static str]),
    /// One value per occurrence of the option, which may be repeated.
    Again(&'static str),
    /// All following values.
    Many(&'static str),
}
use Takes::{Again, Many, Nothing, One};

type Options = &'static [(&'static str, &'static str, Takes)];

const COMMON: Options = &[
    ("--config", "-c", Again("key=value")),
    ("--enable", "", Again("FEATURE")),
    ("--disable", "", Again("FEATURE")),
    ("--help", "-h", Nothing),
];

const AGENT: Options = &[
    ("--strict-config", "", Nothing),
    ("--image", "-i", Many("FILE")),
    ("--model", "-m", One("MODEL", &[])),
    ("--oss", "", Nothing),
    ("--local-provider", "", One("OSS_PROVIDER", &[])),
    ("--profile", "-p", One("CONFIG_PROFILE_V2", &[])),
    ("--sandbox", "-s", One("SANDBOX_MODE", &["read-only", "workspace-write", "danger-full-access"])),
    ("--approve-for-me", "", Nothing),
    ("--dangerously-bypass-approvals-and-sandbox", "", Nothing),
    ("--yolo", "", Nothing),
    ("--dangerously-bypass-hook-trust", "", Nothing),
    ("--cd", "-C", One("DIR", &[])),
    ("--worktree", "", Nothing),
    ("--add-dir", "", Again("DIR")),
    ("--version", "-V", Nothing),
];

const ROOT: Options = &[
    ("--remote", "", One("ADDR", &[])),
    ("--remote-auth-token-env", "", One("ENV_VAR", &[])),
    ("--ask-for-approval", "-a", One("APPROVAL_POLICY", &["on-request", "never"])),
    ("--search", "", Nothing),
    ("--no-alt-screen", "", Nothing),
    ("--no-daemon", "", Nothing),
];

const EXEC: Options = &[
    ("--thread-source", "", One("SOURCE", &[])),
    ("--cyber-access-program", "", One("PROGRAM", &["standard", "daybreak_blue", "daybreak_red"])),
    ("--skip-git-repo-check", "", Nothing),
    ("--trust", "", Nothing),
    ("--ephemeral", "", Nothing),
    ("--ignore-user-config", "", Nothing),
    ("--ignore-rules", "", Nothing),
    ("--output-schema", "", One("FILE", &[])),
    ("--color", "", One("COLOR", &["always", "never", "auto"])),
    ("--json", "", Nothing),
    ("--output-last-message", "-o", One("FILE", &[])),
];

const APP_SERVER: Options = &[
    ("--strict-config", "", Nothing),
    ("--listen", "", One("URL", &[])),
    ("--stdio", "", Nothing),
    ("--analytics-default-enabled", "", Nothing),
];

/// Reads a command line without the program's name.
pub(crate) fn parse(argv: &[String]) -> Result<Command, Usage> {
    let mut root = Level::new(&[COMMON, AGENT, ROOT], ROOT_USAGE);
    let rest = root.read(argv, true)?;
    if root.has("--version") {
        return Ok(Command::Version { name: "codex-cli" });
    }
    if root.has("--help") {
        return Ok(Command::Help);
    }
    let Some((word, rest)) = rest.split_first() else { return Err(no_terminal()) };
    match (word.as_str(), rest.first().map(String::as_str)) {
        ("exec" | "e", _) => exec(&root, rest),
        ("app-server", _) => app_server(&root, rest),
        ("login", Some("status")) => plain(&rest[1..], "codex login status [OPTIONS]", Command::LoginStatus),
        ("features", Some("list")) => {
            plain(&rest[1..], "codex features list [OPTIONS]", Command::FeaturesList)
        }
        ("debug", Some("models")) => {
            if !Release::from_version(&crate::version()).has_catalog() {
                let text =
                    "error: unrecognized subcommand 'models'\n\nUsage: codex debug [OPTIONS] <COMMAND>\n";
                return Err(Usage { code: 2, text: text.to_owned() });
            }
            let options: Vec<String> = rest[1..].iter().filter(|a| *a != "--bundled").cloned().collect();
            plain(&options, "codex debug models [OPTIONS]", Command::DebugModels)
        }
        // Other arguments are a prompt of the interactive program or an unsupported command.
        _ => Err(no_terminal()),
    }
}

fn no_terminal() -> Usage {
    Usage { code: 1, text: "Error: stdin is not a terminal\n".to_owned() }
}

fn plain(argv: &[String], usage: &'static str, command: Command) -> Result<Command, Usage> {
    let mut level = Level::new(&[COMMON], usage);
    level.read(argv, false)?;
    Ok(if level.has("--help") { Command::Help } else { command })
}

fn exec(root: &Level, argv: &[String]) -> Result<Command, Usage> {
    let mut level = Level::new(&[COMMON, AGENT, EXEC], EXEC_USAGE);
    level.read(argv, false)?;
    if level.has("--version") {
        return Ok(Command::Version { name: "codex-cli-exec" });
    }
    if level.has("--help") {
        return Ok(Command::Help);
    }
    if let Some(word @ ("resume" | "fork" | "review" | "help")) = level.positional.as_deref() {
        return Err(Usage { code: FAKE_ONLY, text: format!("fake codex: `exec {word}` is not supported\n") });
    }
    let both = || root.found.iter().chain(&level.found);
    for (option, value) in both() {
        check_values(option, value)?;
    }
    if !level.has("--json") {
        return Err(Usage {
            code: FAKE_ONLY,
            text: "fake codex: only `exec --json` is supported\n".to_owned(),
        });
    }
    let last = |name: &str| both().rfind(|(o, _)| *o == name).map(|(_, v)| v.clone());
    let configured =
        both().filter(|(o, _)| *o == "--config").filter_map(|(_, v)| v.strip_prefix("model=")).next_back();
    let configured = configured.map(|v| v.trim_matches(['"', '\'']).to_owned());
    Ok(Command::Exec(Exec {
        model: last("--model").or(configured),
        cd: last("--cd"),
        images: both().filter(|(o, _)| *o == "--image").map(|(_, v)| v.clone()).collect(),
        output_schema: last("--output-schema"),
        last_message: last("--output-last-message"),
        skip_git_repo_check: level.has("--skip-git-repo-check"),
        prompt: level.positional,
    }))
}

fn app_server(root: &Level, argv: &[String]) -> Result<Command, Usage> {
    let mut level = Level::new(&[COMMON, APP_SERVER], "codex app-server [OPTIONS] [COMMAND]");
    level.read(argv, false)?;
    if level.has("--help") {
        return Ok(Command::Help);
    }
    if let Some(word) = level.positional.as_deref() {
        return Err(level.error(&format!("unrecognized subcommand '{word}'")));
    }
    let both = || root.found.iter().chain(&level.found);
    for (option, value) in both() {
        check_values(option, value)?;
    }
    let values = |name: &str| both().filter(|(o, _)| *o == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    Ok(Command::AppServer { overrides: values("--config"), model: values("--model").pop() })
}

/// Validates values that the real CLI checks after parsing the command line. Errors have exit code 1.
fn check_values(option: &str, value: &str) -> Result<(), Usage> {
    let refuse = |text: String| Err(Usage { code: 1, text });
    match option {
        "--config" if !value.contains('=') => {
            refuse(format!("Error parsing -c overrides: Invalid override (missing '='): {value}\n"))
        }
        "--enable" | "--disable"
            if !Release::from_version(&crate::version())
                .features()
                .lines()
                .any(|l| l.split_whitespace().next() == Some(value)) =>
        {
            refuse(format!("Error: Unknown feature flag: {value}\n"))
        }
        "--cd" if !std::path::Path::new(value).is_dir() => {
            refuse("Error: No such file or directory (os error 2)\n".to_owned())
        }
        _ => Ok(()),
    }
}

/// One level of the command line: the options of the program or of a command.
struct Level {
    known: Vec<(&'static str, &'static str, Takes)>,
    usage: &'static str,
    found: Vec<(&'static str, String)>,
    positional: Option<String>,
}

impl Level {
    fn new(known: &[Options], usage: &'static str) -> Self {
        Self { known: known.concat(), usage, found: Vec::new(), positional: None }
    }

    fn has(&self, option: &str) -> bool {
        self.found.iter().any(|(o, _)| *o == option)
    }

    /// Reads options and at most one positional argument. With `stop`, ends before the first positional argument and
    /// returns the rest.
    fn read<'a>(&mut self, argv: &'a [String], stop: bool) -> Result<&'a [String], Usage> {
        let mut at = 0;
        let mut only_positionals = false;
        while let Some(arg) = argv.get(at) {
            if !only_positionals && arg == "--" {
                only_positionals = true;
                at += 1;
            } else if only_positionals || arg == "-" || !arg.starts_with('-') {
                if stop {
                    return Ok(&argv[at..]);
                }
                if self.positional.is_some() {
                    return Err(self.error(&format!("unexpected argument '{arg}' found")));
                }
                self.positional = Some(arg.clone());
                at += 1;
            } else {
                at = self.option(argv, at)?;
            }
        }
        Ok(&[])
    }

    /// Reads one option at `at` and returns the index of the next argument.
    fn option(&mut self, argv: &[String], at: usize) -> Result<usize, Usage> {
        let arg = argv[at].as_str();
        let (name, mut attached) = match arg.split_once('=') {
            Some((name, value)) if arg.starts_with("--") => (name, Some(value)),
            _ if arg.starts_with("--") => (arg, None),
            _ => {
                let split = arg.char_indices().nth(2).map_or(arg.len(), |(i, _)| i);
                let value = arg[split..].strip_prefix('=').unwrap_or(&arg[split..]);
                (&arg[..split], (!value.is_empty()).then_some(value))
            }
        };
        let Some(&(long, _, takes)) = self.known.iter().find(|(l, s, _)| *l == name || *s == name) else {
            let tip = format!("  tip: to pass '{name}' as a value, use '-- {name}'");
            return Err(self.error(&format!("unexpected argument '{name}' found\n\n{tip}")));
        };
        if let (Nothing, Some(value)) = (takes, attached) {
            let message = format!("unexpected value '{value}' for '{long}' found; no more were expected");
            return Err(self.error(&message));
        }
        let mut next = at + 1;
        let mut values = Vec::new();
        match takes {
            Nothing => values.push(String::new()),
            One(..) | Again(_) | Many(_) => {
                while let Some(value) =
                    attached.take().map(str::to_owned).or_else(|| next_value(argv, &mut next, &values, takes))
                {
                    let parts = value.split(',').map(str::to_owned);
                    if matches!(takes, Many(_)) {
                        values.extend(parts);
                    } else {
                        values.push(value);
                    }
                    if argv[at].as_str() != name {
                        break;
                    }
                }
            }
        }
        let shown = match takes {
            Nothing => long.to_owned(),
            One(value, _) | Again(value) => format!("{long} <{value}>"),
            Many(value) => format!("{long} <{value}>..."),
        };
        if values.is_empty() {
            let message = format!("a value is required for '{shown}' but none was supplied");
            return Err(Usage {
                code: 2,
                text: format!("error: {message}\n\nFor more information, try '--help'.\n"),
            });
        }
        if let One(_, permitted) = takes
            && !permitted.is_empty()
            && !permitted.contains(&values[0].as_str())
        {
            let permitted = permitted.join(", ");
            let message =
                format!("invalid value '{}' for '{shown}'\n  [possible values: {permitted}]", values[0]);
            return Err(Usage {
                code: 2,
                text: format!("error: {message}\n\nFor more information, try '--help'.\n"),
            });
        }
        if matches!(takes, Nothing | One(..)) && self.has(long) {
            return Err(self.error(&format!("the argument '{shown}' cannot be used multiple times")));
        }
        self.found.extend(values.into_iter().map(|v| (long, v)));
        Ok(next)
    }

    fn error(&self, message: &str) -> Usage {
        let text =
            format!("error: {message}\n\nUsage: {}\n\nFor more information, try '--help'.\n", self.usage);
        Usage { code: 2, text }
    }
}

/// Returns the next argument if the option accepts another value. `--image` accepts all following values, even `-`.
fn next_value(argv: &[String], next: &mut usize, have: &[String], takes: Takes) -> Option<String> {
    let value = argv.get(*next)?;
    let option = value.starts_with('-') && value != "-";
    if option || (!have.is_empty() && !matches!(takes, Many(_))) {
        return None;
    }
    *next += 1;
    Some(value.clone())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
