//! Runs the program.

pub(crate) mod serving;

use std::process::Command;

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program without the environment's settings.
pub(crate) fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[])
}

/// Runs the program with these environment variables.
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multigraft"));
    without_settings(&mut command);
    let output = command
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the program runs");
    Output {
        status: output.status.code().expect("an exit status"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Removes the settings in the environment from a run.
fn without_settings(command: &mut Command) {
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("MULTIGRAFT_") || name.starts_with("OTEL_"))
    {
        command.env_remove(name);
    }
}
