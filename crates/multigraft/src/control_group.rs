//! What a container or a service may take of the machine's memory: the limits of its control group,
//! as in the kernel's `cgroup-v2.rst` and, for older machines, `cgroup-v1/memory.rst`.

use std::fs;
use std::path::Path;

use crate::memory::Bytes;

/// How the two versions call their files.
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

/// What this process's control groups would let it take now; `None` if they have no limit (or there
/// are none).
pub(crate) fn available() -> Option<Bytes> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    available_in(&groups, Path::new("/sys/fs/cgroup"))
}

/// By the lines of `/proc/self/cgroup` (`0::/path`; version 1: `4:memory:/path`), with the groups
/// mounted at `root`.
fn available_in(groups: &str, root: &Path) -> Option<Bytes> {
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

/// What is left in the group at `path` below `folder` or in one that it is part of, whichever has
/// least. In a container its own group may be at `folder` itself, whatever its path outside.
fn least(folder: &Path, path: &str, files: &Files) -> Option<u64> {
    let own = folder.join(path);
    let groups = own.ancestors().take_while(|group| group.starts_with(folder));
    groups.filter_map(|group| left(group, files)).min()
}

fn left(group: &Path, files: &Files) -> Option<u64> {
    let number =
        |file: &str| -> Option<u64> { fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() };
    // `max`, which is no limit, is no number.
    let limit = number(files.limit)?;
    // What was read from files counts as used, but gives way.
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
    fn the_narrowest_group_counts_without_what_is_cached() {
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
        let available = |groups: &str| available_in(groups, root.path());
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
        assert_eq!(available_in(groups, root.path()), Some(Bytes(300)));
    }
}
