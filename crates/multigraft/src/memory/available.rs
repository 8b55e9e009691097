//! Memory that this process could get now: what the machine has, within the limits of its control
//! groups (containers and services have one), as in the kernel's `cgroup-v2.rst` and, for older
//! machines, `cgroup-v1/memory.rst`.

use std::fs;
use std::path::Path;

use super::Bytes;

/// Memory that this process could get now. `None` if the system does not say (it is not Linux).
pub(crate) fn available() -> Option<Bytes> {
    let machine = of_machine(&fs::read_to_string("/proc/meminfo").ok()?);
    machine.into_iter().chain(of_control_groups()).min()
}

/// The line `MemAvailable:  12345 kB` of `/proc/meminfo`.
fn of_machine(meminfo: &str) -> Option<Bytes> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kib * 1024))
}

/// The file names of a version of control groups.
struct Files {
    limit: &'static str,
    used: &'static str,
}

const V2: Files = Files {
    limit: "memory.max",
    used: "memory.current",
};
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
};

/// Memory that the control groups of this process leave it; `None` if none of them has a limit.
fn of_control_groups() -> Option<Bytes> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    of_control_groups_in(&groups, Path::new("/sys/fs/cgroup"))
}

/// Memory that control groups leave, by the lines of `/proc/self/cgroup` (`0::/path`; version 1:
/// `4:memory:/path`), with the groups mounted at `root`.
fn of_control_groups_in(groups: &str, root: &Path) -> Option<Bytes> {
    let left = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (folder, files) = match (id, controllers) {
            ("0", "") => (root.to_owned(), V2),
            (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), V1)
            }
            _ => return None,
        };
        least(&folder, path.trim_start_matches('/'), &files)
    });
    left.min().map(Bytes)
}

/// The least memory that is left in the group at `path` below `folder` or in one of its ancestors.
/// In a container the process's group may be at `folder` itself, whatever its path outside.
fn least(folder: &Path, path: &str, files: &Files) -> Option<u64> {
    let group = folder.join(path);
    let groups = group.ancestors().take_while(|group| group.starts_with(folder));
    groups.filter_map(|group| left(group, files)).min()
}

/// The memory that is left in one group; `None` if it has no limit.
fn left(group: &Path, files: &Files) -> Option<u64> {
    let number =
        |file: &str| -> Option<u64> { fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() };
    // `max` means no limit, and does not parse as a number.
    let limit = number(files.limit)?;
    // The page cache counts as used, but the kernel reclaims it.
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
    let used = number(files.used)?.saturating_sub(cached.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, group: &str, files: &[(&str, &str)]) {
        let folder = root.join(group);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn available_memory_is_read_in_kibibytes() {
        let meminfo = "MemTotal:       24684088 kB\nMemAvailable:       2048 kB\n";
        assert_eq!(of_machine(meminfo), Some(Bytes(2 << 20)));
        assert_eq!(of_machine("MemTotal: 1 kB"), None);
    }

    #[test]
    fn the_narrowest_group_counts_without_its_page_cache() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "a",
            &[("memory.max", "1000\n"), ("memory.current", "900\n")],
        );
        write(
            root.path(),
            "a",
            &[("memory.stat", "anon 100\ninactive_file 700\n")],
        );
        write(
            root.path(),
            "a/b",
            &[("memory.max", "max\n"), ("memory.current", "900\n")],
        );
        let available = |groups: &str| of_control_groups_in(groups, root.path());
        assert_eq!(available("0::/a/b\n"), Some(Bytes(800)));
        write(root.path(), "a/b", &[("memory.max", "950\n")]);
        assert_eq!(available("0::/a/b\n"), Some(Bytes(50)));
        assert_eq!(available("0::/\n"), None);
        assert_eq!(available("0::/elsewhere/x\n"), None);
        assert_eq!(available(""), None);
        // A container sees its own group at the root.
        write(
            root.path(),
            "",
            &[("memory.max", "64\n"), ("memory.current", "60\n")],
        );
        assert_eq!(available("0::/elsewhere/x\n"), Some(Bytes(4)));
    }

    #[test]
    fn older_groups_are_read_too() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "500\n"),
            ("memory.usage_in_bytes", "200\n"),
        ];
        write(root.path(), "memory/x", &files);
        let groups = "9:name=systemd:/\n4:cpu,memory:/x\n2:cpuset:/x\n";
        assert_eq!(of_control_groups_in(groups, root.path()), Some(Bytes(300)));
    }
}
