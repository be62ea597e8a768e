//! Parses the command line and runs one command. Exit codes: 0, 1 (failure), 64 (usage or configuration).

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use codex_api::{
    cli::{self, Command},
    config::{Config, Sources},
    doctor,
    engine::process::{platform, supervisor},
    server::{Options, Server, StartError},
    shutdown::{Shutdown, Signals},
    telemetry,
};

/// Gives the memory of large requests back, see [`give_memory_back`]. glibc keeps it: 287 MiB after four requests of 31 MB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name. Numbers of options are stable: mimalloc keeps deprecated ones.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// `EX_USAGE` of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    give_memory_back();
    match cli::parse(std::env::args_os()) {
        Ok(Command::Serve { demo, flags }) => with_config(flags, |config| serve(config, demo)),
        Ok(Command::Doctor { json, turn, flags }) => with_config(flags, |config| {
            run(config.server.threads, doctor::run(config, doctor::Request { json, turn }))
        }),
        // Runs before any other thread starts, because the parent-death signal is tied to the calling thread.
        Ok(Command::Supervise(args)) => supervisor::run(&args),
        Err(error) => {
            let usage = error.use_stderr();
            // A failed write to stderr cannot be reported.
            drop(error.print());
            ExitCode::from(if usage { USAGE } else { 0 })
        }
    }
}

/// Makes the allocator return unused pages to the system at once. By default it does so at a later allocation, which an idle
/// server does not make.
#[expect(unsafe_code, reason = "mimalloc has no safe interface to its options")]
fn give_memory_back() {
    // SAFETY: the function is not thread safe, and no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
}

fn with_config(flags: BTreeMap<String, String>, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Sources::from_process(flags).and_then(Config::load) {
        Ok(config) => match telemetry::start(&config.log) {
            Ok(()) => then(config),
            Err(error) => print_error(&error, USAGE),
        },
        Err(errors) => print_error(&errors.to_string(), USAGE),
    }
}

fn serve(config: Config, demo: bool) -> ExitCode {
    // Commands of the agent run as the same user, and must not read the server's environment and memory. The call has no
    // effect on root.
    if let Err(error) = platform::disable_introspection() {
        tracing::warn!(%error, "could not disable core dumps and ptrace");
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    run(config.server.threads, async {
        let signals = match Signals::register(platform::ignores_hangup()) {
            Ok(signals) => signals,
            Err(error) => return print_error(&error.to_string(), 1),
        };
        let app =
            match Server::start(config, Options { demo, reap_orphans: true, ..Options::default() }).await {
                Ok(app) => app,
                Err(error @ (StartError::Engine(_) | StartError::Unsafe { .. })) => {
                    return print_error(&error.to_string(), USAGE);
                }
                Err(error) => return print_error(&error.to_string(), 1),
            };
        let shutdown = Shutdown::default();
        tokio::select! {
            outcome = app.run(shutdown.clone()) => match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => print_error(&error.to_string(), 1),
            },
            () = forever(shutdown.handle_signals(signals)) => ExitCode::FAILURE,
        }
    })
}

/// Runs `work` and never completes, because the process exits when the server has drained.
async fn forever(work: impl Future<Output = ()>) {
    work.await;
    std::future::pending::<()>().await;
}

fn run(threads: usize, work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => print_error(&error.to_string(), 1),
    }
}

fn print_error(text: &str, code: u8) -> ExitCode {
    let lines = text.lines().map(|line| format!("codex-api: {line}\n")).collect::<String>();
    drop(std::io::stderr().write_all(lines.as_bytes()));
    ExitCode::from(code)
}
