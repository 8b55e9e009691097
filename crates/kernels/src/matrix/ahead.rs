//! Asking memory for what is read next while something else is computed.

use crate::isa::{Isa, Kernel, dispatch};

/// Bytes of a cache line, on most processors.
const LINE: usize = 64;

/// Pieces of memory, asked for in equal shares.
pub(super) struct Ahead<'a> {
    pieces: &'a [&'a [u8]],
    lines: usize,
    shares: usize,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(pieces: &'a [&'a [u8]], shares: usize) -> Self {
        Self {
            pieces,
            lines: pieces.iter().map(|piece| piece.len() / LINE).sum(),
            shares,
        }
    }

    /// Asks for one of the shares.
    pub(super) fn ask(&self, share: usize) {
        let (mut from, to) = (
            self.lines * share / self.shares,
            self.lines * (share + 1) / self.shares,
        );
        let mut first = 0;
        for piece in self.pieces {
            let lines = piece.len() / LINE;
            if from < first + lines && from < to {
                let end = to.min(first + lines);
                dispatch(Ask(&piece[(from - first) * LINE..(end - first) * LINE]));
                from = end;
            }
            first += lines;
            if from >= to {
                return;
            }
        }
    }
}

struct Ask<'a>(&'a [u8]);

impl Kernel for Ask<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for line in self.0.chunks_exact(LINE) {
            isa.prefetch(&line[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_pieces_can_be_asked_for() {
        let pieces = [vec![0u8; 1000], vec![0; 10], vec![0; 64], Vec::new()];
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for shares in 1..20 {
            let ahead = Ahead::new(&pieces, shares);
            (0..shares).for_each(|share| ahead.ask(share));
        }
        Ahead::new(&[], 1).ask(0);
    }
}
