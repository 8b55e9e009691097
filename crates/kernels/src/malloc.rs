//! The allocator's policy (glibc); with another allocator these functions do nothing.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "calls of the C library")
)]

/// Has the allocator give memory that was freed back to the system. Other threads that allocate
/// wait for it, a few milliseconds.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and touches nothing but free memory of the allocator, which locks
    // it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads allocate from one arena, where the allocator would otherwise make eight for each
/// core. Each arena grows to the most that its threads ever had, and [`return_freed`] gives back
/// the end of the first alone. Call it before any thread is started. `MALLOC_ARENA_MAX` in the
/// environment takes precedence.
pub fn share_one_pool() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: it takes two numbers and sets a parameter of the allocator, which locks it.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
