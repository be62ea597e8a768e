//! The command line: commands, and a flag for each setting.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::{
    config::settings::{SETTINGS, Setting},
    engine::process::supervisor::SupervisorArgs,
};

/// A command.
#[derive(Debug)]
pub enum Command {
    /// Serve until SIGTERM or Ctrl-C.
    Serve {
        /// Answer from the scripted upstream.
        demo: bool,
        /// Flags, by the environment name of their setting.
        flags: BTreeMap<String, String>,
    },
    /// Check everything that a turn needs.
    Doctor {
        /// Print JSON.
        json: bool,
        /// Also run a turn.
        turn: bool,
        /// Flags, by the environment name of their setting.
        flags: BTreeMap<String, String>,
    },
    /// Supervise a child; used by the server itself.
    Supervise(SupervisorArgs),
}

/// Parses the command line. The error contains the text to print, also for `--help`.
pub fn parse<I>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = OsString>,
{
    let matches = command().try_get_matches_from(arguments)?;
    Ok(match matches.subcommand() {
        Some(("doctor", sub)) => Command::Doctor {
            json: sub.get_flag("json"),
            turn: sub.get_flag("turn"),
            flags: flags(&[&matches, sub]),
        },
        Some(("supervise", sub)) => Command::Supervise(supervisor_args(sub)),
        Some((_, sub)) => Command::Serve {
            demo: sub.get_flag("demo") || matches.get_flag("demo"),
            flags: flags(&[&matches, sub]),
        },
        None => Command::Serve { demo: matches.get_flag("demo"), flags: flags(&[&matches]) },
    })
}

/// Returns the whole command line, for its help and its tests.
pub fn command() -> clap::Command {
    let demo = Arg::new("demo").long("demo").action(ArgAction::SetTrue).help(
        "Run the real Codex CLI with a scripted upstream in this process, without an account or a model",
    );
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    with_settings(clap::Command::new("codex-api"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves the OpenAI Codex CLI over gRPC and the OpenAI HTTP API")
        .after_help(
            "Each setting can also be set in the environment and in `.env` in the current directory, under the name \
             in brackets. Flags take precedence over the environment, and the environment over `.env`. \
             CODEX_NO_DOTENV=1 disables `.env`.\n\n\
             To try the server without an account:\n  codex-api serve --demo\n  \
             curl -N localhost:8000/v1/chat/completions -H 'content-type: application/json' \\\n    \
             -d '{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'",
        )
        .arg(demo.clone())
        .subcommand(
            with_settings(clap::Command::new("serve")).about("Serve until SIGTERM or Ctrl-C (the default command)").arg(demo),
        )
        .subcommand(
            with_settings(clap::Command::new("doctor"))
                .about("Check everything that a turn needs, and print a remedy for each problem")
                .arg(switch("json", "Print the result as JSON"))
                .arg(switch("turn", "Also run a turn, which calls the model and costs tokens")),
        )
        .subcommand(supervise_command())
}

fn with_settings(command: clap::Command) -> clap::Command {
    SETTINGS.iter().fold(command, |command, setting| command.arg(flag(setting)))
}

fn flag(setting: &Setting) -> Arg {
    let default =
        if setting.default.is_empty() { String::new() } else { format!(" (default {})", setting.default) };
    let arg = Arg::new(setting.env)
        .long(setting.flag)
        .value_name(setting.value)
        .help(format!("{}{default} [{}]", setting.help, setting.env))
        .help_heading(setting.group);
    if setting.is_switch() {
        arg.num_args(0..=1).require_equals(true).default_missing_value("1")
    } else {
        arg
    }
}

fn flags(matches: &[&ArgMatches]) -> BTreeMap<String, String> {
    let from_flag = |setting: &&Setting| {
        let value = matches.iter().rev().find_map(|m| m.get_one::<String>(setting.env))?;
        Some((setting.env.to_owned(), value.clone()))
    };
    SETTINGS.iter().filter_map(|setting| from_flag(&setting)).collect()
}

fn supervise_command() -> clap::Command {
    clap::Command::new("supervise")
        .hide(true)
        .about("Run a command and kill its descendants at its end (internal)")
        .arg(Arg::new("parent").long("parent").required(true).value_parser(value_parser!(u32)))
        .arg(Arg::new("grace-ms").long("grace-ms").required(true).value_parser(value_parser!(u64)))
        .arg(Arg::new("remove").long("remove").action(ArgAction::Append).value_parser(value_parser!(PathBuf)))
        .arg(
            Arg::new("command").num_args(1..).last(true).required(true).value_parser(value_parser!(OsString)),
        )
}

fn supervisor_args(matches: &ArgMatches) -> SupervisorArgs {
    SupervisorArgs {
        parent: matches.get_one("parent").copied().unwrap_or_default(),
        grace: Duration::from_millis(matches.get_one("grace-ms").copied().unwrap_or_default()),
        remove: matches.get_many::<PathBuf>("remove").into_iter().flatten().cloned().collect(),
        command: matches.get_many::<OsString>("command").into_iter().flatten().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Command {
        parse(line.split_whitespace().map(OsString::from)).unwrap()
    }

    #[test]
    fn command_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn parse_flags_before_or_after_the_command_are_accepted() {
        let Command::Serve { demo: true, flags } =
            parse_line("codex-api --port 9 serve --demo --enable-search")
        else {
            panic!("serve");
        };
        assert_eq!(flags["CODEX_GATEWAY_PORT"], "9");
        assert_eq!(flags["CODEX_ENABLE_SEARCH"], "1");
        let Command::Serve { demo: false, flags } = parse_line("codex-api --enable-search=0") else {
            panic!("serve")
        };
        assert_eq!(flags["CODEX_ENABLE_SEARCH"], "0");
    }

    #[test]
    fn parse_supervise_takes_the_command_after_two_dashes() {
        let Command::Supervise(args) =
            parse_line("codex-api supervise --parent=7 --grace-ms=5 -- codex --json -x")
        else {
            panic!("supervise");
        };
        assert_eq!((args.parent, args.grace), (7, Duration::from_millis(5)));
        assert_eq!(args.command, ["codex", "--json", "-x"]);
    }
}
