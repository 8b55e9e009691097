//! Rows × panels of quantised weights, activations quantised to eight bits too: integer dot products, a scale for
//! each 32 inputs.

mod layout;
mod product;
mod quantise;

pub(super) use layout::{Bits, Block, Nibbles, Q4, Q4K, Q4Min, Q5, Q5K, Q5Min, Q6K, Q8, Scales};
pub(super) use product::Product;
pub(super) use quantise::{INPUTS, Rows};
