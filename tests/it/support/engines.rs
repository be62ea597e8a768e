//! The two engines, with the differences of their processes and prompts.

use super::TestApp;

/// The engine that runs the turns of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One process per turn. The prompt is the whole conversation as one text.
    Exec,
    /// Warm workers. The messages of the conversation keep their roles.
    AppServer,
}

impl Engine {
    /// The value of `CODEX_ENGINE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::AppServer => "app-server",
        }
    }

    /// Returns the echo of the fake codex for a single user message, which is the prompt of the model.
    pub fn echo(self, text: &str) -> String {
        match self {
            Self::Exec => format!("USER: {text}"),
            Self::AppServer => text.to_owned(),
        }
    }
}

impl TestApp {
    /// Returns the running turn processes, without workers and their supervisors.
    pub fn turn_processes(&self) -> Vec<String> {
        without_workers(self.processes())
    }

    /// Returns the process ids of the running workers.
    pub fn workers(&self) -> Vec<u32> {
        workers(&self.processes())
    }
}

/// Removes workers and their supervisors from command lines.
pub fn without_workers(mut processes: Vec<String>) -> Vec<String> {
    processes.retain(|line| !is_worker(line));
    processes
}

/// Returns the process ids of workers, without their supervisors.
pub fn workers(processes: &[String]) -> Vec<u32> {
    let workers = processes.iter().filter(|line| is_worker(line) && !line.contains(" supervise "));
    workers.map(|line| line.split(':').next().unwrap().parse().unwrap()).collect()
}

fn is_worker(line: &str) -> bool {
    line.split(' ').any(|argument| argument == "app-server")
}
