//! Prefetching memory that is read next, during a computation.

use std::ops::Range;

use crate::isa::Isa;

/// Bytes of a cache line, on most processors.
pub(super) const LINE: usize = 64;

/// The cache lines of pieces of memory that are still to be prefetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefetch<'a> {
    pieces: &'a [&'a [u8]],
    /// Number of whole lines that remain, over all pieces.
    left: usize,
    /// The next line of the first piece.
    next: usize,
}

impl<'a> Prefetch<'a> {
    /// No memory.
    pub(crate) const NOTHING: Self = Self {
        pieces: &[],
        left: 0,
        next: 0,
    };

    /// The part of all pieces that corresponds to `shares` of `of` equal shares.
    pub(super) fn share(pieces: &'a [&'a [u8]], shares: Range<usize>, of: usize) -> Self {
        let lines: usize = pieces.iter().map(|piece| piece.len() / LINE).sum();
        let (mut from, to) = (lines * shares.start / of, lines * shares.end / of);
        let left = to - from;
        let mut first = 0;
        while let Some(piece) = pieces.get(first) {
            let lines = piece.len() / LINE;
            if from < lines {
                break;
            }
            from -= lines;
            first += 1;
        }
        Self {
            pieces: &pieces[first..],
            left,
            next: from,
        }
    }

    /// How many lines to prefetch in each of `steps` steps.
    pub(super) fn per_step(&self, steps: usize) -> usize {
        self.left.div_ceil(steps.max(1))
    }

    /// Prefetches the next `lines` lines.
    #[inline(always)]
    pub(super) fn issue<I: Isa>(&mut self, isa: I, lines: usize) {
        for _ in 0..lines.min(self.left) {
            let Some((piece, others)) = self.pieces.split_first() else {
                return;
            };
            match piece.get(self.next * LINE) {
                Some(line) if (self.next + 1) * LINE <= piece.len() => {
                    isa.prefetch(line);
                    self.next += 1;
                    self.left -= 1;
                }
                _ => (self.pieces, self.next) = (others, 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Scalar;

    #[test]
    fn shares_cover_all_lines_once() {
        let pieces = [
            vec![0u8; 1000],
            vec![0; 10],
            vec![0; 64],
            Vec::new(),
            vec![0; 640],
        ];
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for of in 1..20 {
            let shares = (0..of).map(|share| Prefetch::share(&pieces, share..share + 1, of));
            assert_eq!(shares.map(|prefetch| prefetch.left).sum::<usize>(), 15 + 1 + 10);
        }
        let mut all = Prefetch::share(&pieces, 0..1, 1);
        let steps = (0..100).take_while(|_| {
            all.issue(Scalar, 3);
            all.left > 0
        });
        assert!(steps.count() < 26);
    }
}
