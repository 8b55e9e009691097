//! Giving memory back to the system that is not used for now.
#![expect(unsafe_code, reason = "the system's and the allocator's calls for it")]

/// What `numbers` are is of no more use. Whole pages of them are given back where the system can do
/// that (Linux), and are zeros then; the system gives memory again as they are written. Elsewhere
/// nothing changes.
pub(crate) fn forget<T: bytemuck::AnyBitPattern>(numbers: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        let bytes = numbers.as_mut_ptr_range();
        let page = rustix::param::page_size();
        let start = (bytes.start as usize).next_multiple_of(page);
        let end = bytes.end as usize / page * page;
        if start >= end {
            return;
        }
        let skipped = start - bytes.start as usize;
        // SAFETY: the pages from `start` to `end` lie within `numbers`, which nobody else has
        // meanwhile, so they are mapped and hold nothing but these numbers. Afterwards they read as
        // they were or as zeros, and every bit pattern is a number of this type.
        let given = unsafe {
            let first = bytes.start.cast::<u8>().add(skipped);
            rustix::mm::madvise(first.cast(), end - start, rustix::mm::Advice::LinuxDontNeed)
        };
        // Refused for memory that is locked: it stays, which is no more than it was.
        let _ = given;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = numbers;
}

/// Has the allocator give back what it kept of memory that was freed, where it can be told to
/// (glibc). Other threads that allocate wait for it, a few milliseconds.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and touches nothing but free memory of the allocator, which locks
    // it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads allocate from one pool of memory, where the allocator would else make eight for
/// each core (glibc). Each pool grows to the most that its threads ever had, and of all but the
/// first [`return_freed`] does not give back the end. To be called before there are threads.
/// `MALLOC_ARENA_MAX` in the environment goes before it.
pub fn share_one_pool() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: it takes two numbers and sets a parameter of the allocator, which locks it.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_as_it_was_or_zero_and_nothing_else_changes() {
        const LEN: usize = 1 << 16;
        let mut numbers = vec![7_u16; LEN];
        for (from, to) in [(0, 0), (5, 6), (100, 40_001), (40_001, LEN), (0, LEN)] {
            numbers.fill(7);
            forget(&mut numbers[from..to]);
            assert!(numbers[from..to].iter().all(|&number| number == 7 || number == 0));
            assert!(
                numbers[..from]
                    .iter()
                    .chain(&numbers[to..])
                    .all(|&number| number == 7)
            );
            if cfg!(target_os = "linux") && to - from > 8192 {
                assert!(
                    numbers[from..to].contains(&0),
                    "{from}..{to}: no page was given back"
                );
            }
        }
    }
}
