//! A codex whose turns wait for a signal of the test, so that a test can act in the middle of a turn. For `exec` a script
//! adds two models to the fake codex. The fake app-server has both models built in.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{Codex, Engine, executable};

/// The model of `exec` whose turns send `before`, wait for the gate and send `after`.
const GATED: &str = "gated";

/// The answer of a gated turn.
pub const GATED_ANSWER: &str = "before\n\nafter";

/// The model of `exec` whose turns write endless lines of 8 KiB.
const FLOOD: &str = "flood";

/// A codex and the gate of its turns.
pub struct GatedCodex {
    engine: Engine,
    folder: TempDir,
    gate: Gate,
}

/// A named pipe from which a turn reads one line to continue. The test opens the pipe for reading too, so that neither
/// side blocks in `open`.
pub struct Gate(File);

impl Gate {
    /// Creates the pipe `gate` in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        let fifo = folder.join("gate");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        Self(OpenOptions::new().read(true).write(true).open(&fifo).unwrap())
    }

    /// Lets one reader continue.
    pub fn open(&mut self) {
        self.0.write_all(b"\n").unwrap();
    }
}

impl GatedCodex {
    pub fn new(engine: Engine) -> Self {
        let folder = tempfile::Builder::new().prefix("codex-api-staged-").tempdir().unwrap();
        let (gate, fifo) = (Gate::in_folder(folder.path()), folder.path().join("gate"));
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

    /// Returns the value for `CODEX_BIN`.
    pub fn bin(&self) -> String {
        self.folder.path().join("codex").display().to_string()
    }

    /// Returns the model whose turns send `before`, wait for the gate and send `after`.
    pub fn gated_model(&self) -> String {
        match self.engine {
            Engine::Exec => GATED.to_owned(),
            Engine::AppServer => format!("fake:gated:{}", self.folder.path().join("gate").display()),
        }
    }

    /// Returns the model whose turns write without a pause, and more than the buffers between server and client hold.
    pub fn flood_model(&self) -> &'static str {
        match self.engine {
            Engine::Exec => FLOOD,
            Engine::AppServer => "fake:flood:8000000",
        }
    }

    /// Lets this number of waiting or future gated turns continue.
    pub fn open_gate(&mut self, turns: usize) {
        (0..turns).for_each(|_| self.gate.open());
    }
}
