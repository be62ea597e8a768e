//! Who descends from whom, by one reading of `/proc`.

use rustix::process::Pid;

/// All processes below `root`.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// The processes right below `root`.
pub(crate) fn children(root: Pid) -> Vec<Pid> {
    parents().into_iter().filter(|(_, parent)| *parent == root).map(|(pid, _)| pid).collect()
}

/// When a process was started, in ticks since boot; none if it is gone.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    fields(&stat)?.nth(19)?.parse().ok()
}

/// Now, in the same ticks.
pub(crate) fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let whole = u64::try_from(now.tv_sec).unwrap_or_default() * per_second;
    whole + u64::try_from(now.tv_nsec).unwrap_or_default() * per_second / 1_000_000_000
}

/// What follows the name, which stands in parentheses and may hold anything: state, parent, …
fn fields(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    Some(std::str::from_utf8(stat.get(name_ends + 1..)?).ok()?.split_ascii_whitespace())
}

/// Every process with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            let parent = fields(&stat)?.nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid)?, Pid::from_raw(parent)?))
        })
        .collect()
}
