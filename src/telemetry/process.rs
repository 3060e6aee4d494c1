//! What the kernel says of this process, from `/proc/self`. Elsewhere than on Linux these metrics are absent.

use std::fs;

/// Clock ticks a second in `/proc/self/stat`: 100 on every Linux that user space sees (`USER_HZ`).
const TICKS_PER_SEC: f64 = 100.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}

impl Process {
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).ok();
        let status = text("/proc/self/status");
        let kib = |key| status.as_deref().and_then(|s| status_kib(s, key));
        Self {
            cpu_seconds: text("/proc/self/stat").as_deref().and_then(cpu_seconds),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            // Reading the folder opens one more.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|d| (d.count() as u64).saturating_sub(1)),
            max_fds: text("/proc/self/limits").as_deref().and_then(max_fds),
        }
    }
}

/// The name in brackets may hold anything, so fields are counted from the last `)`: utime and stime are the 12th and
/// 13th after it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SEC)
}

fn status_kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn kib_become_bytes() {
        assert_eq!(status_kib("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(max_fds("Limit x\nMax open files   1024   4096   files\n"), Some(1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let process = Process::read();
        assert!(process.resident_bytes > Some(100_000) && process.open_fds >= Some(3));
        assert!(process.virtual_bytes >= process.resident_bytes && process.cpu_seconds.is_some());
    }
}
