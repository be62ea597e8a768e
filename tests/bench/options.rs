//! The command line of the bench.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    time::Instant,
};

use crate::BenchResult;

/// The text of `bench --help`.
pub(crate) const HELP: &str = "\
usage: bench --gateway PATH --codex PATH --fake PATH [--litellm PATH] [--quick] [--only PART,…] [--set NAME=VALUE]… \
[--bundle FILE] --out FOLDER

  --gateway  the codex-api program
  --codex    the native codex program
  --fake     the fake codex (tests/fake_codex)
  --litellm  the litellm program, for the comparison
  --quick    one short round of everything, less than four minutes
  --only     the parts to measure: start, turns, conversations, network, cancel, deltas, idle, flood, hazards
  --set      a setting of the servers with the app-server engine, NAME=VALUE; may be repeated
  --bundle   the bundle of the system's certificates, a copy that may be changed: needed for the rows over TLS
  --out      the folder for benchmarks.md and its plots
";

/// All options.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) gateway: PathBuf,
    pub(crate) codex: PathBuf,
    pub(crate) fake: PathBuf,
    pub(crate) litellm: Option<PathBuf>,
    pub(crate) quick: bool,
    pub(crate) out: PathBuf,
    /// Settings of all servers.
    pub(crate) set: Vec<(String, String)>,
    /// The bundle of the system's certificates in the mount namespace of the bench. It may be changed.
    pub(crate) bundle: Option<PathBuf>,
    only: Vec<String>,
    started: Instant,
}

impl Options {
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> BenchResult<Self> {
        let (mut gateway, mut codex, mut fake, mut litellm) = (None, None, None, None);
        let (mut bundle, mut out) = (None, None);
        let (mut quick, mut only, mut set) = (false, Vec::new(), Vec::new());
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut path = |into: &mut Option<PathBuf>| {
                *into = Some(PathBuf::from(arguments.next().ok_or(HELP)?));
                BenchResult::Ok(())
            };
            match argument.to_str() {
                Some("--gateway") => path(&mut gateway)?,
                Some("--codex") => path(&mut codex)?,
                Some("--fake") => path(&mut fake)?,
                Some("--litellm") => path(&mut litellm)?,
                Some("--bundle") => path(&mut bundle)?,
                Some("--out") => path(&mut out)?,
                Some("--quick") => quick = true,
                Some("--only") => {
                    let parts = arguments.next().ok_or(HELP)?;
                    only.extend(parts.to_string_lossy().split(',').map(str::to_owned));
                }
                Some("--set") => {
                    let pair = arguments.next().ok_or(HELP)?;
                    let (name, value) = pair.to_str().and_then(|pair| pair.split_once('=')).ok_or(HELP)?;
                    set.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(HELP.into()),
            }
        }
        let program = |path: Option<PathBuf>| crate::process::absolute(&path.ok_or(HELP)?);
        Ok(Self {
            gateway: program(gateway)?,
            codex: program(codex)?,
            fake: program(fake)?,
            // Not canonicalized: a virtual environment depends on the path of the link.
            litellm: litellm.map(std::path::absolute).transpose()?,
            out: out.ok_or(HELP)?,
            quick,
            set,
            bundle,
            only,
            started: Instant::now(),
        })
    }

    /// Returns whether a part is to be measured.
    pub(crate) fn is_selected(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == part)
    }

    /// Returns the value for a quick or a full run.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Prints progress to stderr.
    pub(crate) fn log_progress(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs();
        let _closed = writeln!(io::stderr(), "[{seconds:4} s] {text}");
    }

    pub(crate) fn elapsed_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}
