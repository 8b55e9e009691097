//! `multigraft doctor` and `multigraft health`.

use std::{fs, net::TcpListener};

use crate::program::{Output, run, run_with, serving::Serving};
use multigraft_testing::{fixtures, smollm2};
use serde_json::Value;

/// The findings of `check`, worst first: level and text.
fn found(output: &Output, check: &str) -> Vec<(String, String)> {
    let findings: Vec<Value> = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let of = findings.iter().filter(|finding| finding["check"] == check);
    let mut found: Vec<(String, String)> = of
        .map(|finding| {
            (
                text(finding, "level"),
                format!("{} {}", text(finding, "found"), text(finding, "advice")),
            )
        })
        .collect();
    found.sort_by_key(|(level, _)| ["fail", "warn", "ok"].iter().position(|known| known == level));
    found
}

fn doctor(arguments: &[&str]) -> Output {
    run(&[&["doctor", "--json"], arguments].concat())
}

/// The level and the text of the worst finding of `check`.
fn worst(output: &Output, check: &str) -> (String, String) {
    let found = found(output, check);
    found
        .first()
        .cloned()
        .unwrap_or_else(|| panic!("no finding of {check}: {}", output.stdout))
}

#[test]
fn good_settings_are_all_ok_also_as_text() {
    let model = smollm2();
    let base = model.to_str().expect("UTF-8");
    let adapters = fixtures().join("../demo/adapters");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let given = [
        "--base",
        base,
        "--adapters",
        adapters.to_str().expect("UTF-8"),
        "--threads",
        "1",
        "--port",
        "0",
        "--disk-cache",
        "1MiB",
        "--data",
        data.to_str().expect("UTF-8"),
        "--kv-memory",
        "16MiB",
        "--adapter-memory",
        "16MiB",
    ];
    let output = doctor(&given);
    assert_eq!(output.status, 0, "{}", output.stdout);
    for (check, word) in [
        ("model", "llama"),
        ("threads", "1 of"),
        ("memory", "weights"),
        ("adapters", "can be read"),
        ("port", "free"),
        ("data", "will be created"),
        ("access", "this machine only"),
        ("disk", "are free"),
    ] {
        let (level, text) = worst(&output, check);
        assert!(level == "ok" && text.contains(word), "{check}: {level} {text}");
    }
    assert!(!data.exists(), "nothing is created");
    let text = run(&[&["doctor"], &given[..]].concat());
    assert!(text.stdout.contains("ok    model"), "{}", text.stdout);
}

#[test]
fn problems_are_named_with_advice() {
    let model = smollm2();
    let base = model.to_str().expect("UTF-8");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.gguf");
    fs::write(&broken, "GGUF?").expect("written");
    let file = folder.path().join("adapters.toml");
    fs::write(&file, "[adapters.a]\nsorce = \"x\"\n").expect("written");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (broken, file) = (text(&broken), text(&file));
    // An adapter of another model.
    let other = format!("x={}", text(&fixtures().join("peft/gemma2/adapters/all_r8")));
    for (arguments, check, level, word) in [
        (vec!["--base", base, "--port", &port], "port", "fail", "--port"),
        (vec!["--base", &broken], "model", "fail", "broken.gguf"),
        (vec!["--base", "/no/such.gguf"], "model", "fail", "/no/such.gguf"),
        (
            vec!["--base", base, "--adapters-file", &file],
            "adapters file",
            "fail",
            "sorce",
        ),
        (
            vec!["--base", base, "--adapter", &other],
            "adapters",
            "fail",
            "`x`",
        ),
        (
            vec!["--base", base, "--context", "99999999"],
            "model",
            "fail",
            "--context",
        ),
        (
            vec!["--base", base, "--host", "0.0.0.0"],
            "access",
            "fail",
            "multigraft keys add",
        ),
        (
            vec!["--base", base, "--allow-source", "upload"],
            "data",
            "fail",
            "--data",
        ),
        (
            vec!["--base", base, "--threads", "0"],
            "settings",
            "fail",
            "threads",
        ),
        (
            vec!["--base", base, "--host", "0.0.0.0", "--no-auth"],
            "access",
            "warn",
            "everybody",
        ),
        (
            vec!["--base", base, "--threads", "1000"],
            "threads",
            "warn",
            "--threads",
        ),
        (
            vec!["--base", base, "--memory", "1000TiB"],
            "memory",
            "warn",
            "are free",
        ),
        (
            vec!["--base", base, "--memory", "1GiB", "--kv-memory", "2GiB"],
            "memory",
            "warn",
            "kv-memory",
        ),
        (
            vec!["--base", base, "--disk-cache", "1000TiB"],
            "disk",
            "warn",
            "--disk-cache",
        ),
    ] {
        let output = doctor(
            &[
                &arguments[..],
                if arguments.contains(&"--port") {
                    &[]
                } else {
                    &["--port", "0"]
                },
            ]
            .concat(),
        );
        let found = found(&output, check);
        let is_found = found.iter().any(|(of, text)| of == level && text.contains(word));
        assert!(is_found, "{arguments:?}: {found:?}");
        if level == "fail" {
            assert_eq!(output.status, 1, "{arguments:?}");
        }
    }
    let output = run_with(
        &["doctor", "--json", "--base", base],
        &[("MULTIGRAFT_ISA", "avx1024")],
    );
    assert_eq!(worst(&output, "processor").0, "fail");
}

#[test]
fn health_checks_whether_a_server_answers() {
    let server = Serving::start(&["serve", "--threads", "1"], &[]);
    let (host, port) = server.address.rsplit_once(':').expect("a port");
    let output = run_with(
        &["health"],
        &[("MULTIGRAFT_HOST", "0.0.0.0"), ("MULTIGRAFT_PORT", port)],
    );
    assert_eq!((host, output.status), ("127.0.0.1", 0), "{}", output.stdout);
    let wrong = format!("http://{}/nothing", server.address);
    let output = run(&["health", "--url", &wrong]);
    assert_eq!(output.status, 1);
    assert!(output.stdout.contains("404"), "{}", output.stdout);
    let port = port.to_owned();
    server.stop();
    let output = run(&["health", "--port", &port]);
    assert_eq!(output.status, 1);
    assert!(output.stdout.contains("does not answer"), "{}", output.stdout);
}
