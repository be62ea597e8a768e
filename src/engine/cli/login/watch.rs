//! Watches the login for a change of account or key. Each look costs two `stat` calls while nothing changes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{Identity, Login, LoginError, LoginKind};
use crate::{config::Codex, engine::cli::environment};

/// Time for which a missing or unreadable file may be a write in progress.
const WRITE_TIME: Duration = Duration::from_secs(1);

/// Age from which the modification time of a file tells its contents apart. The clock of a file system ticks every few
/// milliseconds, so two writes may have the same time.
const TRUSTED_AGE: Duration = Duration::from_secs(1);

/// Time for which a refusal of the upstream is reported. Afterwards a turn may try again, because an upstream may refuse
/// good tokens for a while.
const REFUSAL_TIME: Duration = Duration::from_secs(30);

/// Maximum number of attempts of a turn whose login is refused before any output.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// Pause between two looks at a file that is being written.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// The login that new processes get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CurrentLogin {
    /// Differs after each change of account, key or problem.
    pub(crate) generation: u64,
    /// The identity, or `None` if there is no login or the CLI reads it from the keyring.
    pub(crate) identity: Option<Identity>,
    /// The reason why no turn can run.
    pub(crate) problem: Option<LoginError>,
}

/// Watches the login of the CLI's home.
#[derive(Debug)]
pub(crate) struct LoginWatch {
    codex: Codex,
    /// `auth.json`, `config.toml` and `.env`.
    files: Vec<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    versions: Vec<Option<FileVersion>>,
    login: Login,
    /// The time of the first look at a file that may be half written.
    unsettled: Option<Instant>,
    /// The time of the last refusal by the upstream, with the files at that time.
    refused: Option<(Instant, LoginMark)>,
    /// The time at which every attempt of a turn was refused, although the files changed in between.
    exhausted: Option<Instant>,
    current: CurrentLogin,
}

/// Identifies the content of a file behind its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl FileVersion {
    fn read(file: &Path) -> Option<Self> {
        let meta = fs::metadata(file).ok()?;
        Some(Self {
            inode: (meta.dev(), meta.ino()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.len(),
        })
    }

    /// Returns `true` if a later write has another version.
    fn is_trusted(&self, now: SystemTime) -> bool {
        let age = now.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|now| {
            let changed = Duration::from_secs(u64::try_from(self.changed.0).ok()?);
            now.checked_sub(changed)
        });
        age.is_some_and(|age| age > TRUSTED_AGE + Duration::from_secs(1))
    }
}

impl LoginWatch {
    /// Reads the login.
    pub(crate) fn new(codex: &Codex) -> Self {
        let home = environment::codex_home(&environment::environment(codex));
        let files: Vec<PathBuf> = home
            .iter()
            .flat_map(|home| ["auth.json", "config.toml", ".env"].map(|name| home.join(name)))
            .collect();
        let versions = versions(&files);
        let login = Login::read(codex);
        let problem = login.problem(SystemTime::now());
        let current = CurrentLogin { generation: 0, identity: used_identity(&login), problem };
        let state = State { versions, login, unsettled: None, refused: None, exhausted: None, current };
        Self { codex: codex.clone(), files, state: Mutex::new(state) }
    }

    /// Returns the login. A file that is missing or unreadable for less than a second counts as unchanged.
    pub(crate) fn current(&self) -> CurrentLogin {
        self.look().current.clone()
    }

    /// Returns the login, after a write in progress has ended.
    pub(crate) async fn settled(&self) -> CurrentLogin {
        loop {
            let (current, is_settled) = {
                let state = self.look();
                (state.current.clone(), state.unsettled.is_none())
            };
            if is_settled {
                return current;
            }
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    }

    /// Returns a mark of the login for [`LoginWatch::refuse`].
    pub(crate) fn mark(&self) -> LoginMark {
        LoginMark(self.look().versions.clone())
    }

    /// Returns the login if a turn that started at `mark` and whose login was refused may run again: the files changed
    /// since, and turns can use the login.
    pub(crate) async fn changed_since(&self, mark: &LoginMark) -> Option<CurrentLogin> {
        let current = self.settled().await;
        let state = self.lock();
        let is_exhausted = state.exhausted.is_some_and(|since| since.elapsed() < REFUSAL_TIME);
        (current.problem.is_none() && state.versions != mark.0 && !is_exhausted).then_some(current)
    }

    /// Records that every attempt of a turn was refused. For a while or until a turn is accepted, no turn runs again.
    /// Otherwise each attempt could cost a refresh of a login that the upstream refuses whatever its tokens are.
    pub(crate) fn exhaust(&self) {
        self.lock().exhausted = Some(Instant::now());
    }

    /// Records that the upstream refused the login of a turn that started at `mark`. Has no effect if the login was
    /// written since, because the turn may have used the former one.
    pub(crate) fn refuse(&self, mark: &LoginMark) {
        let mut state = self.look();
        // A key can become valid again without a change of the file.
        if state.versions == mark.0 && matches!(state.login.kind, LoginKind::ChatGpt(_)) {
            state.refused = Some((Instant::now(), mark.clone()));
        }
        drop(state);
        drop(self.look());
    }

    /// Records that the upstream accepted the login.
    pub(crate) fn accept(&self) {
        let mut state = self.lock();
        (state.refused, state.exhausted) = (None, None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let versions = versions(&self.files);
        let now = SystemTime::now();
        let is_trusted = versions.iter().flatten().all(|version| version.is_trusted(now));
        if state.unsettled.is_some() || versions != state.versions || !is_trusted {
            let login = Login::read(&self.codex);
            let is_partial = matches!(login.kind, LoginKind::Missing | LoginKind::Unreadable(_));
            let since = state.unsettled.map_or(Duration::ZERO, |since| since.elapsed());
            if is_partial && state.login.identity().is_some() && since < WRITE_TIME {
                state.unsettled.get_or_insert_with(Instant::now);
                return state;
            }
            state.unsettled = None;
            state.versions = versions;
            state.login = login;
        }
        let is_over = |refused: &(Instant, LoginMark)| {
            refused.0.elapsed() >= REFUSAL_TIME || refused.1.0 != state.versions
        };
        if state.refused.as_ref().is_some_and(is_over) {
            state.refused = None;
        }
        let problem = state.login.problem(now).or(state.refused.is_some().then_some(LoginError::Refused));
        let identity = used_identity(&state.login);
        if (&problem, identity) != (&state.current.problem, state.current.identity) {
            let change = Change { identity: identity != state.current.identity, problem: problem.as_ref() };
            change.log(&state.current);
            let generation = state.current.generation + 1;
            if change.identity {
                state.exhausted = None;
            }
            state.current = CurrentLogin { generation, identity, problem };
        }
        state
    }
}

/// Returns the identity of a login that turns use.
fn used_identity(login: &Login) -> Option<Identity> {
    login.identity().filter(|_| login.required)
}

/// The files of the login at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginMark(Vec<Option<FileVersion>>);

fn versions(files: &[PathBuf]) -> Vec<Option<FileVersion>> {
    files.iter().map(|file| FileVersion::read(file)).collect()
}

/// A change that the log must report.
struct Change<'a> {
    identity: bool,
    problem: Option<&'a LoginError>,
}

impl Change<'_> {
    fn log(&self, before: &CurrentLogin) {
        match (self.problem, &before.problem) {
            (Some(error), _) => tracing::error!(%error, remedy = error.remedy(), "login cannot be used"),
            (None, Some(_)) => tracing::info!("login can be used again"),
            (None, None) if self.identity => tracing::info!("account or key of the login changed"),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
