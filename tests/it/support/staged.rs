//! A codex whose turns wait for the test, for what must happen in the middle of one. With `exec` it is a script, all but
//! its two models the fake codex's; the fake app-server can do both itself.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{Codex, Engine, executable};

/// With `exec`, the model whose turns say `before`, wait until they are let go on, and then say `after`.
const GATED: &str = "gated";

/// What the two messages of such a turn come to.
pub const GATED_ANSWER: &str = "before\n\nafter";

/// With `exec`, the model whose turns never stop talking: 8 KiB a line, as fast as they are read.
const FLOOD: &str = "flood";

/// The executable, and the gate that its turns wait at.
pub struct Staged {
    engine: Engine,
    folder: TempDir,
    gate: Authenticator,
}

/// A named pipe that is read from by who waits. Open for reading as well, so that neither side waits for the other to
/// come.
pub struct Authenticator(File);

impl Authenticator {
    /// One of that name in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        let fifo = folder.join("gate");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        Self(OpenOptions::new().read(true).write(true).open(&fifo).unwrap())
    }

    /// Lets one go on.
    pub fn open(&mut self) {
        self.0.write_all(b"\n").unwrap();
    }
}

impl Staged {
    pub fn new(engine: Engine) -> Self {
        let folder = tempfile::Builder::new().prefix("codex-api-staged-").tempdir().unwrap();
        let (gate, fifo) = (Authenticator::in_folder(folder.path()), folder.path().join("gate"));
        let message = |text: &str| {
            format!(
                r#"{{"type":"item.completed","item":{{"id":"item_0","type":"agent_message","text":"{text}"}}}}"#
            )
        };
        let script = format!(
            r#"#!/bin/sh
case " $* " in
*" --model={GATED} "*|*" --model={FLOOD} "*)
    cat > /dev/null
    echo '{{"type":"thread.started","thread_id":"staged"}}'
    echo '{{"type":"turn.started"}}' ;;
*) exec {fake} "$@" ;;
esac
case " $* " in
*" --model={FLOOD} "*) exec yes '{flood}' ;;
esac
echo '{before}'
read -r _ < {gate}
echo '{after}'
echo '{{"type":"turn.completed","usage":{{"input_tokens":1,"cached_input_tokens":0,"output_tokens":2}}}}'
"#,
            fake = executable(Codex::Fake).display(),
            gate = fifo.display(),
            flood = message(&"f".repeat(8 * 1024)),
            before = message("before"),
            after = message("after"),
        );
        let staged = Self { engine, folder, gate };
        fs::write(staged.bin(), script).unwrap();
        fs::set_permissions(staged.bin(), fs::Permissions::from_mode(0o755)).unwrap();
        staged
    }

    /// The value for `CODEX_BIN`.
    pub fn bin(&self) -> String {
        self.folder.path().join("codex").display().to_string()
    }

    /// The model whose turns say `before`, wait until they are let go on, and then say `after`.
    pub fn gated(&self) -> String {
        match self.engine {
            Engine::Exec => GATED.to_owned(),
            Engine::AppServer => format!("fake:gated:{}", self.folder.path().join("gate").display()),
        }
    }

    /// The model whose turns talk as fast as they are read, and for longer than there is room for between us and a reader.
    pub fn flood(&self) -> &'static str {
        match self.engine {
            Engine::Exec => FLOOD,
            Engine::AppServer => "fake:flood:8000000",
        }
    }

    /// Lets so many gated turns go on, those that wait and those that will.
    pub fn let_go_on(&mut self, turns: usize) {
        (0..turns).for_each(|_| self.gate.open());
    }
}
