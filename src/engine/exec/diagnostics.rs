//! The checks of `codex-api doctor` for the CLI, in the order in which an operator fixes problems.

use std::path::Path;

use super::Exec;
use crate::{
    config::Sandbox,
    engine::{
        Check, Severity,
        cli::{
            environment, login,
            probe::{self, ProbeError},
            provider,
            tls_roots::TlsRoots,
            user_config::UserConfig,
            writable_roots,
        },
    },
};

impl Exec {
    /// Runs all checks.
    pub async fn examine(&self) -> Vec<Check> {
        let mut checks = vec![self.check_workspace(), self.check_home()];
        let folders = writable_roots::examine(&self.codex, self.launcher.supervisor());
        let must_not_run = folders.iter().any(|check| check.severity == Severity::Failed);
        checks.extend(folders);
        if must_not_run {
            return checks;
        }
        let login = login::checks::examine(&self.codex);
        if login::check(&self.codex).is_err_and(|error| error.endangers_login()) {
            // No process of the CLI may start with this login.
            checks.extend(login);
            return checks;
        }
        match self.cli.get().await {
            Ok(installed) => {
                let finding = format!("{} at {}", installed.version, installed.program.display());
                checks.push(Check::passed("codex", finding));
                checks.extend(login);
                checks.push(provider::examine(&self.codex));
                checks.push(TlsRoots::find(&self.codex, &installed).check());
                checks.push(self.check_sandbox(&installed.program).await);
            }
            Err(error) => {
                let may_lack_bundle =
                    matches!(*error, ProbeError::Configuration { .. } | ProbeError::TimedOut { .. });
                let remedy = if may_lack_bundle && login::checks::needs_bundle(&self.codex) {
                    login::checks::NO_BUNDLE
                } else {
                    remedy(&error)
                };
                checks.push(Check::failed("codex", error.detail(), remedy));
                checks.extend(login);
            }
        }
        checks
    }

    fn check_workspace(&self) -> Check {
        let folder = &self.codex.workspace;
        if !folder.is_dir() {
            let finding = format!("{} is not a folder", folder.display());
            return Check::failed("workspace", finding, "create it or set CODEX_WORKSPACE to another folder");
        }
        let is_repository = folder.ancestors().any(|folder| folder.join(".git").exists());
        if !is_repository && !self.codex.skip_git_repo_check {
            let finding = format!("{} is not in a git repository", folder.display());
            return Check::failed(
                "workspace",
                finding,
                "run `git init` there or set CODEX_SKIP_GIT_REPO_CHECK=1",
            );
        }
        Check::passed("workspace", folder.display().to_string())
    }

    fn check_home(&self) -> Check {
        let Some(folder) = environment::codex_home(&environment::environment(&self.codex)) else {
            return Check::failed("home", "neither CODEX_HOME nor HOME is set".into(), "set CODEX_CLI_HOME");
        };
        if let Err(error) = environment::check_home(&self.codex) {
            return Check::failed(
                "home",
                error.detail(),
                "make it a folder that the server's user can write to, or set CODEX_HOME or CODEX_CLI_HOME to another",
            );
        }
        let config = match UserConfig::try_load(&self.codex) {
            Ok(config) => config,
            Err(error) => {
                return Check::failed(
                    "home",
                    error.to_string(),
                    "fix the file, or give the CLI a separate home with CODEX_CLI_HOME",
                );
            }
        };
        let servers = config.mcp_servers().count();
        if servers > 0 {
            let finding =
                format!("{} configures {servers} MCP server(s), which start in every turn", folder.display());
            return Check::warning(
                "home",
                finding,
                "give the CLI a minimal home with CODEX_CLI_HOME if turns are slow to start",
            );
        }
        Check::passed("home", folder.display().to_string())
    }

    async fn check_sandbox(&self, program: &Path) -> Check {
        if self.codex.sandbox == Sandbox::DangerFullAccess {
            // The check of the writable folders warns.
            return Check::passed("sandbox", "none, as configured".into());
        }
        match probe::run_cli(&self.codex, &self.launcher, program, &["sandbox", "--", "true"]).await {
            Ok(output) if output.code == Some(0) => {
                Check::passed("sandbox", self.codex.sandbox.as_str().into())
            }
            Ok(output) => Check::warning(
                "sandbox",
                format!("a test command failed: {}", output.error_summary()),
                "allow user namespaces for this user (in a container: for the container), otherwise commands fail",
            ),
            Err(error) => {
                Check::warning("sandbox", error.detail(), "run `codex sandbox -- true` as the server's user")
            }
        }
    }
}

/// Returns the remedy for a CLI that cannot be used.
fn remedy(error: &ProbeError) -> &'static str {
    match error {
        ProbeError::Workspace(_) | ProbeError::Home(_) => {
            "fix the failed check above first; the CLI cannot be probed before"
        }
        ProbeError::Writable(_) => writable_roots::REMEDY,
        ProbeError::Configuration { .. } => "fix the config.toml in the CLI's home",
        ProbeError::ApprovalPolicy { .. } => "set CODEX_APPROVAL_POLICY=never",
        ProbeError::Locate(_)
        | ProbeError::Start { .. }
        | ProbeError::TimedOut { .. }
        | ProbeError::Interrupted
        | ProbeError::NotCodex { .. }
        | ProbeError::TooOld { .. } => {
            "install or update the CLI: `npm install -g @openai/codex`, or start with scripts/serve.sh, which installs it"
        }
    }
}
