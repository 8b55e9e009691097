//! `multigraft bench malformed`, some thousands of requests of it, on a base of no size.

mod program;

use program::{run, tiny};

/// All families but those whose clients wait until the server cuts them off, which takes half a
/// minute.
const QUICK: &str =
    "values,text,encoding,headers,lengths,lines,targets,chunks,pipelines,forms,half-closed,reset";

#[test]
fn a_server_minds_none_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write_base(folder.path());
    let base = folder.path().to_str().expect("UTF-8");
    let output = run(&[
        "bench",
        "malformed",
        "--base",
        base,
        "--requests",
        "3000",
        "--only",
        QUICK,
    ]);
    // What the allocator keeps takes tens of thousands of requests to settle; everything else has
    // to hold.
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
fn one_of_them_can_be_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::write_base(folder.path());
    let base = folder.path().to_str().expect("UTF-8");
    let output = run(&[
        "bench",
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
        output.stdout.starts_with("text, Answer is due\nsends "),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("statuses: [4"), "{}", output.stdout);
}

#[test]
fn nothing_to_send_is_refused() {
    let output = run(&["bench", "malformed", "--base", "x", "--requests", "0"]);
    assert_eq!(output.status, 2);
    assert!(output.stderr.contains("--requests is 0"), "{}", output.stderr);
}
