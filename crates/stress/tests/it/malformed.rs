//! `multigraft-stress malformed`: thousands of requests to a server with a tiny base.

use std::process::Command;

use crate::tiny;

/// What a run came to.
struct Output {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multigraft-stress"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("MULTIGRAFT_") || name.starts_with("OTEL_"))
    {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().expect("the program runs");
    Output {
        status: output.status.code().expect("an exit status"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// All families except those whose clients wait until the server disconnects them, which takes half
/// a minute.
const QUICK: &str =
    "values,text,encoding,headers,lengths,lines,targets,chunks,pipelines,forms,half-closed,reset";

#[test]
fn none_of_them_disturbs_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write_base(folder.path());
    let base = folder.path().to_str().expect("UTF-8");
    let output = run(&["malformed", "--base", base, "--requests", "3000", "--only", QUICK]);
    // Memory that the allocator keeps takes tens of thousands of requests to settle. Everything
    // else has to hold.
    let lost: Vec<&str> = output
        .stdout
        .lines()
        .filter(|line| line.contains("LOST"))
        .collect();
    assert!(
        lost.iter().all(|line| line.starts_with("resident memory")),
        "{}{}",
        output.stdout,
        output.stderr
    );
    assert!(
        !output.stdout.contains("--seed"),
        "{}{}",
        output.stdout,
        output.stderr
    );
    assert!(!output.stdout.contains("a good request"), "{}", output.stdout);
    let rows: Vec<&str> = output
        .stdout
        .lines()
        .filter(|line| line.ends_with(" 0"))
        .collect();
    for family in QUICK.split(',').chain(["all"]) {
        assert!(
            rows.iter().any(|row| row.starts_with(family)),
            "{family}: {}",
            output.stdout
        );
    }
    assert!(output.stdout.contains("all          3000"), "{}", output.stdout);
}

#[test]
fn a_request_can_be_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write_base(folder.path());
    let base = folder.path().to_str().expect("UTF-8");
    let output = run(&[
        "malformed",
        "--base",
        base,
        "--seed",
        "7",
        "--index",
        "12",
        "--only",
        "text",
    ]);
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    assert!(
        output.stdout.starts_with("text, expected: Answer\nsends "),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("statuses: [4"), "{}", output.stdout);
}

#[test]
fn zero_requests_are_refused() {
    let output = run(&["malformed", "--base", "x", "--requests", "0"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("--requests is 0"), "{}", output.stderr);
}
