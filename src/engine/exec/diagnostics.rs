//! What `codex-api doctor` asks of this engine: each thing that a turn needs, and what to do where it is missing.

use std::fs;

use super::Exec;
use crate::{
    config::Sandbox,
    engine::{
        Check, Outcome,
        cli::{environment, probe, provider},
        process::SpawnSpec,
    },
};

impl Exec {
    /// Looks at everything, in the order in which one would mend it.
    pub async fn examine(&self) -> Vec<Check> {
        let mut checks = vec![self.examine_workspace(), self.examine_home()];
        match self.installed().await {
            Ok(installed) => {
                let says = format!("{} at {}", installed.version, installed.program.display());
                checks.push(Check::good("codex", says));
                checks.push(self.examine_login(&installed.program).await);
                checks.push(self.examine_sandbox(&installed.program).await);
            }
            Err(trouble) => {
                let remedy = remedy(&checks, &trouble);
                checks.push(Check::bad("codex", trouble, remedy));
            }
        }
        checks
    }

    fn examine_workspace(&self) -> Check {
        let folder = &self.codex.workspace;
        if !folder.is_dir() {
            let says = format!("{} is not a folder", folder.display());
            return Check::bad("workspace", says, "create it or set CODEX_WORKSPACE to another");
        }
        let repository = folder.ancestors().any(|folder| folder.join(".git").exists());
        if !repository && !self.codex.skip_git_repo_check {
            let says = format!("{} is not in a git repository", folder.display());
            return Check::bad("workspace", says, "run `git init` there or set CODEX_SKIP_GIT_REPO_CHECK=1");
        }
        Check::good("workspace", folder.display().to_string())
    }

    fn examine_home(&self) -> Check {
        let Some(folder) = environment::codex_home(&environment::environment(&self.codex)) else {
            return Check::bad("home", "neither CODEX_HOME nor HOME is set".into(), "set CODEX_CLI_HOME");
        };
        if let Some(trouble) = environment::trouble(&self.codex) {
            return Check::bad(
                "home",
                trouble,
                "make it a folder that the server's user can write in, or name another with CODEX_HOME or CODEX_CLI_HOME",
            );
        }
        let config = fs::read_to_string(folder.join("config.toml")).unwrap_or_default();
        let config: toml::Table = match config.parse() {
            Ok(config) => config,
            Err(error) => {
                let says = format!("config.toml in {} is no TOML: {}", folder.display(), error.message());
                return Check::bad(
                    "home",
                    says,
                    "mend it, or give the CLI a home of its own with CODEX_CLI_HOME",
                );
            }
        };
        let servers =
            config.get("mcp_servers").and_then(|servers| servers.as_table()).map_or(0, toml::Table::len);
        if servers > 0 {
            let says =
                format!("{} configures {servers} MCP server(s): each starts in every turn", folder.display());
            return Check::odd(
                "home",
                says,
                "give the CLI a minimal home with CODEX_CLI_HOME if turns are slow to start",
            );
        }
        Check::good("home", folder.display().to_string())
    }

    async fn examine_login(&self, program: &std::path::Path) -> Check {
        if self.codex.scripted_upstream.is_some() {
            return Check::good("login", "not needed for the scripted upstream".into());
        }
        if let Some(trouble) = provider::missing_key(&self.codex) {
            return Check::bad(
                "login",
                trouble,
                "set it in the environment of the server, or in `.env` of the CLI's home",
            );
        }
        if let Some(provider) = provider::configured(&self.codex) {
            return Check::good("login", format!("by the provider {provider} of config.toml"));
        }
        if environment::environment(&self.codex).keys().any(|name| name == "CODEX_API_KEY") {
            return Check::good("login", "by CODEX_API_KEY".into());
        }
        match self.ask(program, &["login", "status"]).await {
            Ok(answer) if answer.code == Some(0) => Check::good("login", answer.words()),
            Ok(answer) => Check::bad(
                "login",
                answer.words(),
                "run `codex login`, or set CODEX_API_KEY, as the server's user",
            ),
            Err(error) => Check::bad("login", error, "run `codex login status` as the server's user"),
        }
    }

    async fn examine_sandbox(&self, program: &std::path::Path) -> Check {
        if self.codex.sandbox == Sandbox::DangerFullAccess {
            let says = "danger-full-access: commands of the agent may do all that this user may".into();
            return Check::odd("sandbox", says, "set CODEX_SANDBOX to read-only or workspace-write");
        }
        match self.ask(program, &["sandbox", "--", "true"]).await {
            Ok(answer) if answer.code == Some(0) => {
                Check::good("sandbox", self.codex.sandbox.as_str().into())
            }
            Ok(answer) => Check::odd(
                "sandbox",
                format!("a command could not be run in it: {}", answer.words()),
                "allow user namespaces for this user (in a container: for the container), or commands will fail",
            ),
            Err(error) => Check::odd("sandbox", error, "run `codex sandbox -- true` as the server's user"),
        }
    }

    async fn ask(
        &self,
        program: &std::path::Path,
        arguments: &[&str],
    ) -> Result<crate::engine::process::Answer, String> {
        let launch = SpawnSpec {
            program: program.to_owned(),
            arguments: arguments.iter().map(Into::into).collect(),
            env: environment::environment(&self.codex),
            folder: self.codex.workspace.clone(),
            ..SpawnSpec::default()
        };
        let asked = tokio::time::timeout(probe::PATIENCE, self.launcher.ask(launch)).await;
        asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())
    }
}

/// What to do about a CLI that cannot be used.
fn remedy(before: &[Check], trouble: &str) -> &'static str {
    if before.iter().any(|check| check.outcome == Outcome::Bad && check.says == trouble)
        || trouble.starts_with("CODEX_WORKSPACE ")
    {
        "mend what failed above: before that the CLI cannot be asked"
    } else if trouble.starts_with("the Codex CLI refuses its configuration") {
        "mend the config.toml in its home"
    } else {
        "install or mend it: `npm install -g @openai/codex`, or start with scripts/serve.sh, which brings it"
    }
}
