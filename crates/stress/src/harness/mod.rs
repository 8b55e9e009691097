//! Servers of this program's own, what they are given, and what is asked of them and looked at: for
//! programs that measure them.

pub(super) mod answer;
pub(super) mod known;
pub(super) mod made;
pub(super) mod rest;
pub(super) mod server;
