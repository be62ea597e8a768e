//! Workers that cannot be started any more, and a CLI that is replaced under a running server.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{health, signal_all, twenty_work, warm, workers};
use crate::{
    eventually,
    support::{Codex, TestApp, executable, http::body},
};

/// A codex that can be replaced.
pub(super) struct Replaceable(TempDir);

impl Replaceable {
    pub(super) fn new() -> Self {
        let new = Self::missing();
        new.put("");
        new
    }

    /// One that is not there yet.
    pub(super) fn missing() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn remove(&self) {
        fs::remove_file(self.bin()).unwrap();
    }

    pub(super) fn bin(&self) -> String {
        self.0.path().join("codex").display().to_string()
    }

    /// From now on it is the fake with these shell commands before it; each start leaves a line.
    pub(super) fn put(&self, before: &str) {
        let fake = executable(Codex::Fake);
        let (starts, new) = (self.0.path().join("starts"), self.0.path().join("new"));
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *app-server*) echo x >> '{}';; esac\n{before}\nexec '{}' \"$@\"\n",
            starts.display(),
            fake.display()
        );
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.bin()).unwrap();
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.0.path().join("starts")).map_or(0, |lines| lines.lines().count())
    }
}

pub(super) async fn is_ill(app: &TestApp) -> bool {
    health(app).await.0 == 503
}

#[tokio::test]
async fn an_app_server_that_cannot_start_any_more_is_told_and_tried_again() {
    for mode in ["dies", "garbage"] {
        let codex = Replaceable::new();
        let app = warm(Codex::Fake, &[("CODEX_BIN", &codex.bin())]).await;
        twenty_work(&app, Codex::Fake).await;
        assert_eq!(health(&app).await.0, 200);
        codex.put(&format!("export FAKE_CODEX_APP_SERVER={mode}"));
        let (before, began) = (codex.starts(), Instant::now());
        signal_all(&app, Signal::KILL);
        eventually!("health tells", is_ill(&app).await);
        if mode == "dies" {
            eventually!("it says why", health(&app).await.1.to_string().contains("asked to die"));
            let (code, error) = app.refused(&body("fake:text:5", "hi")).await;
            assert_eq!((code, error["code"].as_str()), (503, Some("engine_unavailable")), "{error}");
            assert!(error["message"].as_str().unwrap().contains("asked to die"), "{error}");
            // After 250 ms, 500 ms, 1 s, …: not in a storm.
            eventually!("it is tried again", codex.starts() - before >= 4);
            assert!(began.elapsed().as_millis() >= 1750, "{:?}", began.elapsed());
        }
        codex.put("");
        eventually!("it recovers", health(&app).await.0 == 200);
        twenty_work(&app, Codex::Fake).await;
        app.stop().await;
    }
}

#[tokio::test]
async fn the_reason_is_the_error_and_not_a_frame_of_its_backtrace() {
    let codex = Replaceable::new();
    let app = warm(Codex::Fake, &[("CODEX_BIN", &codex.bin())]).await;
    let says = r"Error: the disk is full\n\nStack backtrace:\n   0: <unknown>\n   8: <unknown>\n";
    codex.put(&format!("case \"$*\" in *app-server*) printf '{says}' >&2; exit 1;; esac"));
    signal_all(&app, Signal::KILL);
    eventually!("it says why", {
        let reason = health(&app).await.1["reason"].to_string();
        assert!(!reason.contains("unknown"), "{reason}");
        reason.contains("Error: the disk is full\"")
    });
    codex.put("");
    eventually!("it recovers", health(&app).await.0 == 200);
    app.stop().await;
}

#[tokio::test]
async fn a_home_that_nothing_can_be_written_in_is_told_by_health() {
    for engine in ["auto", "exec"] {
        let app = TestApp::fake(&[("CODEX_ENGINE", engine), ("CODEX_HOME", "/proc")]).await;
        let (status, told) = health(&app).await;
        assert_eq!(status, 503, "{told}");
        assert!(told["reason"].as_str().unwrap().contains("cannot write in its home /proc"), "{told}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_again_and_again_is_not_replaced_in_a_storm() {
    let codex = Replaceable::new();
    let app = warm(Codex::Fake, &[("CODEX_BIN", &codex.bin())]).await;
    let (before, began) = (codex.starts(), Instant::now());
    for _ in 0..4 {
        let (code, _) = app.refused(&body("fake:crash", "hi")).await;
        assert_eq!(code, 502);
    }
    // 250 ms, 500 ms, 1 s lie between four deaths.
    assert!(began.elapsed().as_millis() >= 1750, "{:?}", began.elapsed());
    assert!(codex.starts() - before <= 4);
    twenty_work(&app, Codex::Fake).await;
    app.stop().await;
}

#[tokio::test]
async fn another_cli_gets_a_catalog_of_its_own_and_is_looked_at_first() {
    let codex = Replaceable::new();
    let app = warm(Codex::Fake, &[("CODEX_BIN", &codex.bin())]).await;
    assert_eq!(app.status().await.codex_version, "0.169.0");
    let first = catalog_of(&app);

    codex.put("export FAKE_CODEX_VERSION=0.170.0");
    signal_all(&app, Signal::KILL);
    eventually!("it is another one", app.status().await.codex_version == "0.170.0");
    twenty_work(&app, Codex::Fake).await;
    assert_ne!(catalog_of(&app), first, "the catalog is that of the new one");

    // This one would run commands where none may run.
    codex.put("export FAKE_CODEX_VERSION=0.110.0");
    signal_all(&app, Signal::KILL);
    eventually!("it is refused", is_ill(&app).await);
    let (code, _) = app.refused(&body("fake:text:5", "hi")).await;
    assert_eq!(code, 503);
    eventually!("none of it is left running", workers(&app).is_empty());
    app.stop().await;
}

/// The catalog that the worker was started with.
pub(super) fn catalog_of(app: &TestApp) -> std::path::PathBuf {
    let line = app.processes().into_iter().find(|line| line.contains("model_catalog_json")).unwrap();
    let rest = line.split("model_catalog_json=").nth(1).unwrap();
    let path = rest.split_whitespace().next().unwrap().trim_matches('"');
    assert!(Path::new(path).is_file(), "{line}");
    path.into()
}
