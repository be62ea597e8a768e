//! Code that depends on the operating system. Linux has `prctl`, `/proc` and a tmpfs;
//! other Unix systems use the portable fallback. The cargo feature `portable` selects the fallback on Linux, so that
//! tests can cover the fallback.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
use portable as system;

pub(crate) use system::{
    ProcessStats, SCRATCH_DIR, boot_ticks, children, descendants, has_env_entry, is_exiting, is_in_memory,
    kill_on_parent_death, own_executable, pid_namespace, reap_orphans_of_descendants, signal_on_parent_death,
    start_ticks,
};
pub use system::{disable_introspection, ignores_hangup};

/// `true` if a supervisor receives a signal when its parent exits. Otherwise the supervisor polls its parent.
pub(crate) const SIGNALS_PARENT_DEATH: bool = cfg!(all(target_os = "linux", not(feature = "portable")));
