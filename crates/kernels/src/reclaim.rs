//! Giving pages back to the system whose contents are no longer needed.
#![expect(unsafe_code, reason = "madvise takes a raw range of memory")]

/// Gives the whole pages within `numbers`, whose values are no longer needed, back to the system
/// where that is possible (Linux). Those pages read as zeros afterwards, and take memory again as
/// they are written. Elsewhere nothing changes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reclaimed_values_are_unchanged_or_zero_and_no_others_change() {
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
