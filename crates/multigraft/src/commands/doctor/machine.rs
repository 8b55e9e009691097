//! Checks of processor, memory and disk.

use std::{fs, path::Path};

use multigraft_kernels::InstructionSet;

use super::{Findings, model::Base};
use crate::{
    config::{ModelSettings, default_threads},
    locate::SearchPath,
    memory::{self, Bytes},
};

/// The instruction set that is used, and whether others would be faster. The figures are those of
/// docs/performance.md.
pub(super) fn instruction_set(findings: &mut Findings) {
    const CHECK: &str = "processor";
    if let Err(error) = InstructionSet::check() {
        return findings.fail(CHECK, error.to_string(), "unset MULTIGRAFT_ISA");
    }
    let (used, best) = (InstructionSet::current(), InstructionSet::available().pop());
    if let Some(best) = best.filter(|best| *best != used) {
        let found = format!(
            "{} is used, although the processor has {}",
            used.name(),
            best.name()
        );
        return findings.warn(CHECK, found, "unset MULTIGRAFT_ISA, unless this is a test");
    }
    match used {
        InstructionSet::Scalar => findings.warn(
            CHECK,
            "none of AVX2, AVX-VNNI, AVX-512 and NEON: many times slower",
            "run on another processor; in a virtual machine, pass the host's processor through",
        ),
        InstructionSet::Avx2 => findings.ok(
            CHECK,
            "avx2 (AVX-VNNI would take about two thirds of the time, AVX-512 half)",
        ),
        InstructionSet::AvxVnni => findings.ok(
            CHECK,
            "avxvnni (AVX-512 would take about three quarters of the time)",
        ),
        InstructionSet::Avx512 | InstructionSet::Neon => findings.ok(CHECK, used.name()),
    }
}

/// Compares the compute threads with the cores that this process may use (by affinity and control
/// groups).
pub(super) fn threads(settings: &ModelSettings, findings: &mut Findings) {
    const CHECK: &str = "threads";
    let (threads, cores) = (settings.threads, default_threads());
    match threads > cores {
        true => findings.warn(
            CHECK,
            format!(
                "{threads}, but this process may use only {cores} cores: threads wait for cores in every step"
            ),
            format!("--threads {cores}"),
        ),
        false => findings.ok(CHECK, format!("{threads} of {cores} cores")),
    }
}

/// Compares the memory that is needed with the memory that is free.
pub(super) fn memory(settings: &ModelSettings, base: Option<&Base>, findings: &mut Findings) {
    const CHECK: &str = "memory";
    for (name, part) in [
        ("kv-memory", settings.kv_memory),
        ("adapter-memory", settings.adapter_memory),
    ] {
        if let (Some(part), Some(whole)) = (part, settings.memory)
            && part > whole
        {
            findings.warn(
                CHECK,
                format!("{name} is {part}, but memory, of which it is a part, is {whole}"),
                format!("raise --memory, or leave out --{name}"),
            );
        }
    }
    let (Some(base), Some(free)) = (base, memory::available()) else {
        return;
    };
    let caches = settings.memory.unwrap_or_else(|| {
        Bytes(base.kv_bytes(settings, free).0 + settings.adapter_memory.map_or(0, |bytes| bytes.0))
    });
    let (weights, all) = (Bytes(base.bytes), Bytes(base.bytes.saturating_add(caches.0)));
    let unbounded = settings.memory.is_none() && settings.adapter_memory.is_none();
    let and_adapters = if unbounded { ", and adapters" } else { "" };
    let found = format!("{weights} of weights and up to {caches} of caches{and_adapters}; {free} are free");
    if weights > free {
        findings.fail(CHECK, found, "use a smaller model, or a quantised one");
    } else if all > free {
        findings.warn(
            CHECK,
            found,
            "lower --memory (or --kv-memory and --adapter-memory), use --kv-dtype int8, or lower --context",
        );
    } else {
        findings.ok(CHECK, found);
    }
}

/// Disk space for fetched adapters.
pub(super) fn disk(settings: &ModelSettings, findings: &mut Findings) {
    const CHECK: &str = "disk";
    let cache = SearchPath::of_this_user().adapters();
    // The cache is created when something is fetched.
    let Some(existing) = cache.ancestors().find(|folder| folder.exists()) else {
        return;
    };
    if let Err(error) = writable(existing) {
        return findings.warn(
            CHECK,
            format!("cannot write to {}: {error}", existing.display()),
            "set MULTIGRAFT_CACHE and HF_HOME to a writable folder; adapters on this machine need none",
        );
    }
    let Ok(system) = rustix::fs::statvfs(existing) else {
        return;
    };
    let free = Bytes(system.f_bavail.saturating_mul(system.f_frsize));
    let taken = Bytes(size(&cache));
    let wanted = settings.disk_cache;
    let found = format!(
        "{free} are free for {}, which may take {wanted} and takes {taken}",
        cache.display()
    );
    match free.0.saturating_add(taken.0) < wanted.0 {
        true => findings.warn(
            CHECK,
            found,
            "lower --disk-cache, or set MULTIGRAFT_CACHE to a folder on a larger disk",
        ),
        false => findings.ok(CHECK, found),
    }
}

/// Whether files can be created in a folder.
pub(super) fn writable(folder: &Path) -> std::io::Result<()> {
    // The file has no name, so nothing is left behind.
    tempfile::tempfile_in(folder).map(drop)
}

/// The size of all files in a folder, as far as it can be read.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(file) if file.is_dir() => size(&entry.path()),
        Ok(file) => file.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
