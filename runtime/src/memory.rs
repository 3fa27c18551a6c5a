//! How much memory a call may take before the machine starts to swap or kill.

use std::fs;

/// Bytes that can be allocated now: what the system calls available, less what a control group forbids. `None` where the system does
/// not say; then only the allocator's own refusal is left.
pub fn available() -> Option<u64> {
    let system = meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = || -> Option<u64> {
        let limit: u64 = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()?;
        let used: u64 = fs::read_to_string("/sys/fs/cgroup/memory.current").ok()?.trim().parse().ok()?;
        // Page cache counts as used but gives way.
        let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
        let cache = stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    };
    Some(group().map_or(system, |g| g.min(system)))
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        assert_eq!(meminfo("MemTotal: 8 kB\nMemAvailable:    25 kB\n"), Some(25 * 1024));
        assert_eq!(meminfo("MemTotal: 8 kB\n"), None);
    }
}
