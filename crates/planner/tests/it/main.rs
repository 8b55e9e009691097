//! The planner over bases on this machine's processor.

mod cost;
