//! Products of rows and panels of quantised weights, as integer dot products with a scale for each
//! 32 inputs. Activations are quantised to eight bits too, and those that are large compared to
//! their neighbours to more bits.

/// Repeats `$body` for each row of a tile, with `$t` a constant: in a loop the sums would be kept
/// in memory.
macro_rules! each_row {
    ($tile:expr, |$t:ident| $body:expr) => {
        each_row!($tile, $t, $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($tile:expr, $t:ident, $body:expr, $($index:literal),+) => {
        $(if $index < $tile {
            const $t: usize = $index;
            $body;
        })+
    };
}

mod group;
mod layout;
mod packed;
mod product;
mod quantise;
mod rows;

pub(super) use layout::{Block, Q4, Q4K, Q4Min, Q5, Q5K, Q5Min, Q6K, Q8, Scales};
pub(super) use packed::{Bits, Nibbles};
pub(super) use product::{Product, decode_row};
pub(super) use rows::{INPUTS, Rows};
