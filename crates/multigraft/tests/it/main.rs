//! The program as its users run it.

mod bench_serve;
mod command_line;
mod doctor;
mod logs;
mod program;
mod traces;
mod verify;
