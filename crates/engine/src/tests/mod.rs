//! Laws of the whole crate, over the fake backend of [`crate::testing`].

mod background;
mod fairness;
mod laws;
mod lifecycle;
mod output;
mod prefix;
mod scheduling;
mod time;
