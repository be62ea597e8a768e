use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::config::{Config, Sources};

/// A machine with everything in a place of its own.
struct Host {
    root: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
    dotenv: Option<PathBuf>,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Self { root, env: Vec::new(), dotenv: None };
        for folder in ["work", "other", "scratch", "start", "home/.codex", "bin", "npm/codex/vendor/bin"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        for program in ["server", "npm/codex/vendor/bin/codex", "node"] {
            fs::write(host.path(program), "x").unwrap();
            fs::set_permissions(host.path(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(host.path("npm/codex/package.json"), "{}").unwrap();
        symlink(host.path("npm/codex/vendor/bin/codex"), host.path("bin/codex")).unwrap();
        let text = |name: &str| host.path(name).display().to_string();
        let env = [
            ("CODEX_SANDBOX", "workspace-write".to_owned()),
            ("CODEX_WORKSPACE", text("work")),
            ("PATH", text("bin")),
            ("HOME", text("home")),
            ("TMPDIR", text("scratch")),
        ];
        let dotenv = Some(host.path("start/.env"));
        Self { env: env.into(), dotenv, ..host }
    }

    fn path(&self, name: &str) -> PathBuf {
        // The temporary folder of macOS is behind a link.
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// Sets a variable; `@` stands for the root.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = value.replace('@', self.path("").display().to_string().trim_end_matches('/'));
        self.env.push((name, value));
        self
    }

    fn config(self, text: &str) -> Self {
        let text = text.replace('@', self.path("").display().to_string().trim_end_matches('/'));
        fs::write(self.path("home/.codex/config.toml"), text).unwrap();
        self
    }

    fn dotenv(mut self, file: Option<&str>) -> Self {
        self.dotenv = file.map(|file| self.path(file));
        self
    }

    fn codex(&self) -> Codex {
        let env = self.env.iter().map(|(name, value)| ((*name).into(), value.into())).collect();
        let sources = Sources {
            env,
            current_dir: self.path("start"),
            dotenv_file: self.dotenv.clone(),
            ..Sources::default()
        };
        Config::load(sources).unwrap().codex
    }

    /// Returns the finding, or an empty text.
    fn finding(&self) -> String {
        check(&self.codex(), &self.path("server")).err().map(|error| error.to_string()).unwrap_or_default()
    }
}

#[test]
fn check_with_a_workspace_of_its_own_passes() {
    assert_eq!(Host::new().finding(), "");
    assert_eq!(Host::new().with("CODEX_ADD_DIRS", "@/other").finding(), "");
    let servers = "[sandbox_workspace_write]\nwritable_roots = [\"@/other\"]\n[mcp_servers.files]\ncommand = \"npx\"\n\
                   args = [\"-y\", \"files\", \"@/work\", \"@/work/data.db\"]\n";
    assert_eq!(Host::new().config(servers).finding(), "");
    // A workspace below the home, below TMPDIR or beside the CLI is usual.
    for workspace in ["home/project", "scratch/project", "npm/project", "start/project"] {
        let host = Host::new();
        fs::create_dir_all(host.path(workspace)).unwrap();
        assert_eq!(host.with("CODEX_WORKSPACE", &format!("@/{workspace}")).finding(), "", "{workspace}");
    }
}

#[test]
fn check_with_something_used_below_a_writable_folder_fails() {
    // The writable folder, and what it holds.
    for (folder, what) in [
        ("@", "the codex-api executable"),
        ("@/npm", "the Codex CLI"),
        ("@/bin", "the Codex CLI"),
        ("@/bin", "a folder of PATH"),
        ("@/npm/codex/vendor", "the Codex CLI"),
        ("@/npm/codex", "the package of the Codex CLI"),
        ("@/home", "the home of the Codex CLI"),
        ("@/home/.codex", "the home of the Codex CLI"),
        ("@/start", ".env"),
        ("@/scratch", "TMPDIR"),
        ("@/work/../bin/../start", ".env"),
        ("/", "the codex-api executable"),
    ] {
        for host in [
            Host::new().with("CODEX_WORKSPACE", folder),
            Host::new().with("CODEX_ADD_DIRS", &format!("@/other,{folder}")),
            Host::new().config(&format!("[sandbox_workspace_write]\nwritable_roots = [\"{folder}\"]\n")),
            Host::new()
                .config(&format!("[profiles.p.sandbox_workspace_write]\nwritable_roots = [\"{folder}\"]\n")),
        ] {
            let finding = host.finding();
            assert!(finding.contains(what) || finding.contains("more"), "{folder} holds {what}: {finding:?}");
            // Without writing commands there is no hazard.
            assert_eq!(host.with("CODEX_SANDBOX", "read-only").finding(), "");
        }
    }
}

#[test]
fn check_with_a_writable_folder_inside_something_used_fails() {
    for (folder, what) in [("npm/codex/vendor/data", "the package of"), ("home/.codex/skills", "the home of")]
    {
        let host = Host::new();
        fs::create_dir_all(host.path(folder)).unwrap();
        let finding = host.with("CODEX_ADD_DIRS", &format!("@/{folder}")).finding();
        assert!(finding.contains("a part of") && finding.contains(what), "{folder}: {finding:?}");
    }
}

#[test]
fn check_of_files_that_do_not_exist_yet_fails() {
    // A command could create them.
    let finding = Host::new().dotenv(Some("work/.env")).finding();
    assert!(finding.contains(".env"), "{finding:?}");
    assert_eq!(Host::new().dotenv(None).finding(), "");
    for (name, value, what) in [
        ("PATH", "@/work/node_modules/.bin:@/bin", "a folder of PATH"),
        ("PATH", "bin:@/bin", "a folder of PATH"),
        ("PATH", ":@/bin", "a folder of PATH"),
        ("CODEX_BIN", "@/work/codex", "the Codex CLI"),
        ("CODEX_HOME", "@/work/home", "the home of the Codex CLI"),
        ("CODEX_CLI_HOME", "@/work/home", "the home"),
        ("SSL_CERT_FILE", "@/work/ca.pem", "certificates"),
        ("TMPDIR", "@/work/tmp", "TMPDIR"),
    ] {
        let finding = Host::new().with(name, value).finding();
        assert!(finding.contains(what), "{name}={value}: {finding:?}");
    }
}

#[test]
fn check_follows_links_in_both_directions() {
    // The workspace is a link to the CLI's folder.
    let host = Host::new();
    symlink(host.path("npm"), host.path("link")).unwrap();
    assert!(host.with("CODEX_WORKSPACE", "@/link").finding().contains("the Codex CLI"));
    // The CLI is behind a link in the workspace, which a command can replace: of the file, and of a folder on its way.
    let host = Host::new();
    symlink(host.path("bin/codex"), host.path("work/codex")).unwrap();
    assert!(host.with("CODEX_BIN", "@/work/codex").finding().contains("the Codex CLI"));
    let host = Host::new();
    symlink(host.path("bin"), host.path("work/bin")).unwrap();
    assert!(host.with("CODEX_BIN", "@/work/bin/codex").finding().contains("the Codex CLI"));
    // The login is a link into the workspace.
    let host = Host::new();
    symlink(host.path("work/auth.json"), host.path("home/.codex/auth.json")).unwrap();
    assert!(host.finding().contains("a file of the Codex CLI"));
    // Links in a circle end.
    let host = Host::new();
    symlink(host.path("b"), host.path("a")).unwrap();
    symlink(host.path("a"), host.path("b")).unwrap();
    assert_eq!(host.with("CODEX_ADD_DIRS", "@/a").finding(), "");
}

#[test]
fn check_of_a_script_includes_its_interpreter() {
    for (line, path) in
        [("#!@/work/node -x", "@/bin"), ("#!/usr/bin/env -S A=1 node\n", "@/bin:@/work/tools")]
    {
        let host = Host::new();
        let line = line.replace('@', host.path("").display().to_string().trim_end_matches('/'));
        fs::create_dir(host.path("work/tools")).unwrap();
        fs::copy(host.path("node"), host.path("work/tools/node")).unwrap();
        fs::write(host.path("npm/codex/vendor/bin/codex"), line).unwrap();
        assert!(host.with("PATH", path).finding().contains("the interpreter"), "{path}");
    }
}

#[test]
fn check_of_programs_in_the_configuration_fails() {
    for config in [
        "[mcp_servers.s]\ncommand = \"@/work/server\"\n",
        "[mcp_servers.s]\ncommand = \"python3\"\nargs = [\"-u\", \"@/work/server.py\"]\n",
        "notify = [\"@/work/notify\", \"x\"]\n",
        "notify = [\"bash\", \"@/work/notify.sh\"]\n",
    ] {
        let finding = Host::new().config(config).finding();
        assert!(finding.contains("a program of config.toml"), "{config}: {finding:?}");
    }
}

#[test]
fn check_of_variables_that_programs_load_code_from_fails() {
    for (name, value) in [
        ("LD_LIBRARY_PATH", "/usr/lib:@/work/lib"),
        ("LD_LIBRARY_PATH", "/usr/lib:"),
        ("LD_PRELOAD", "@/work/none.so"),
        ("NODE_OPTIONS", "--max-old-space-size=4096 --require=@/work/x.js"),
        ("SSL_CERT_DIR", "@/work"),
        ("GIT_CONFIG_GLOBAL", "@/work/gitconfig"),
        ("PYTHONPATH", "lib"),
    ] {
        let finding = Host::new().with(name, value).finding();
        assert!(finding.contains("load code or settings from"), "{name}={value}: {finding:?}");
    }
    for (name, value) in
        [("LD_LIBRARY_PATH", "/usr/lib"), ("NODE_OPTIONS", "--max-old-space-size=4096"), ("ENV", "prod")]
    {
        assert_eq!(Host::new().with(name, value).finding(), "", "{name}={value}");
    }
}

#[test]
fn check_of_a_workspace_that_a_command_can_replace_fails() {
    let host = Host::new();
    fs::create_dir(host.path("other/project")).unwrap();
    let finding = host.with("CODEX_WORKSPACE", "@/other/project").with("CODEX_ADD_DIRS", "@/other").finding();
    assert!(finding.contains("replace the workspace"), "{finding:?}");
}

#[test]
fn examine_of_risky_workspaces_warns() {
    let texts = |host: Host| {
        let checks = examine(&host.codex(), &host.path("server"));
        assert!(checks.iter().all(|check| check.severity == crate::engine::Severity::Warning), "{checks:?}");
        assert!(checks.iter().all(|check| !check.remedy.is_empty()));
        checks.into_iter().map(|check| check.finding).collect::<Vec<_>>().join("\n")
    };
    let reader = || Host::new().with("CODEX_SANDBOX", "read-only");
    assert_eq!(texts(reader()), "");
    assert!(texts(reader().with("CODEX_WORKSPACE", "/")).contains("the workspace is /"));
    assert!(texts(reader().with("CODEX_WORKSPACE", "@/home")).contains("the user's home"));
    assert!(texts(reader().with("CODEX_WORKSPACE", "@")).contains("the user's home"));
    let dotenv = reader().dotenv(Some("work/.env"));
    fs::write(dotenv.path("work/.env"), "CODEX_GATEWAY_TOKEN=x").unwrap();
    assert!(texts(dotenv).contains("can read"));
    assert_eq!(texts(reader().dotenv(Some("work/.env"))), "", "there is no file to read");
    let open = reader();
    fs::set_permissions(open.path("work"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(texts(open).contains("every user"));
    let all = Host::new().with("CODEX_SANDBOX", "danger-full-access");
    assert!(texts(all).contains("danger-full-access"));
}
