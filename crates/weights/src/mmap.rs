//! Mapping a file into memory: the crate's only unsafe code.

use std::fs::File;

use memmap2::Mmap;

/// Maps the whole of `file` read-only. `file` must not be empty.
#[expect(
    unsafe_code,
    reason = "a memory map is the only way to open weights of many gigabytes without copying them"
)]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: The map is private to this process's reading: nothing here writes to it, and it is
    // handed out only as `&[u8]`, which stays valid for as long as the `Mmap` lives. What Rust
    // cannot check is that no other process changes the file in the meantime. If one overwrites it
    // in place, the bytes read are different numbers, never an invalid value: what is read from the
    // map are bytes, and header fields are copied out and checked once, so no later bounds depend
    // on mapped memory. If one truncates it, the kernel ends this process with SIGBUS, which is a
    // crash and not undefined behaviour. That is the contract of every memory-mapped model file;
    // files that are replaced while the server runs (adapters) are small and are read, not mapped:
    // see `bytes.rs`.
    unsafe { Mmap::map(file) }
}
