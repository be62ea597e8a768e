//! The refresh token of a ChatGPT login, which the CLI may use once.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::support::{
    AppConfig, Codex, Engine, TestApp,
    login::{self, chatgpt, chatgpt_until},
    program::Program,
    with_app,
};

/// A backend of ChatGPT logins that knows no path and counts the requests for a refresh.
struct Backend {
    address: String,
    refreshes: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let refreshes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refreshes);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap_or_default();
                if head[..length].starts_with(b"POST /oauth/token") {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                let answer = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { address, refreshes, accepting }
    }

    fn refreshes(&self) -> usize {
        self.refreshes.load(Ordering::Relaxed)
    }

    /// Returns a home with this login, whose CLI reaches the backend only.
    fn home(&self, login: &Value) -> TempDir {
        let home = tempfile::tempdir().unwrap();
        let address = &self.address;
        let config =
            format!("openai_base_url = \"{address}/v1\"\nchatgpt_base_url = \"{address}/backend-api/\"\n");
        fs::write(home.path().join("config.toml"), config).unwrap();
        login::write(home.path(), login);
        home
    }

    fn config(&self, engine: Engine, home: &Path) -> AppConfig {
        let config = AppConfig::real(engine).upstream_as(crate::support::UpstreamAs::OpenAiLogin).workers(1);
        config.env("CODEX_HOME", home).env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", self.refresh_url())
    }

    fn refresh_url(&self) -> String {
        format!("{}/oauth/token", self.address)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn start_and_doctor_refresh_no_login() {
    let backend = Backend::start().await;
    let login = chatgpt("acc-1", 1);
    let home = backend.home(&login);
    for engine in [Engine::AppServer, Engine::Exec] {
        with_app(backend.config(engine, home.path()), async |app: &TestApp| {
            let health = reqwest::get(app.url("/healthz")).await.unwrap().text().await.unwrap();
            assert!(health.contains(&format!("\"engine\":\"{}\"", engine.name())), "{health}");
        })
        .await;
        let doctor = Program::new(Codex::Real, engine)
            .env("CODEX_HOME", home.path().to_str().unwrap())
            .env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", backend.refresh_url());
        let ended = doctor.run(&["doctor"]).await;
        assert!(ended.stdout.contains("ChatGPT account acc-1"), "{ended:?}");
    }
    assert_eq!(backend.refreshes(), 0);
    let left = fs::read_to_string(home.path().join("auth.json")).unwrap();
    assert_eq!(left, login.to_string(), "the file is untouched");
}

/// Shows that the backend counts: the CLI refreshes a token that has expired.
#[tokio::test]
#[ignore = "needs the real Codex CLI: run ./scripts/test.sh"]
async fn expired_login_is_refreshed_by_the_cli() {
    let backend = Backend::start().await;
    let home = backend.home(&chatgpt_until("acc-1", 1, Duration::from_secs(1_700_000_000)));
    with_app(backend.config(Engine::Exec, home.path()), async |app: &TestApp| {
        drop(app.http_error(&crate::support::http::body("gpt-5.5", "hi")).await);
    })
    .await;
    assert!(backend.refreshes() > 0);
}
