//! `multigraft-stress` as its users run it. It tests the `multigraft` in its own folder, which
//! `cargo test --workspace` builds.

mod malformed;
mod tiny;
