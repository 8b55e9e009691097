//! The command line: help, settings, `inspect`, `generate`, `export`, `keys`, `usage`.

use std::fs;

use crate::program::{run, run_with};
use multigraft_testing::{fixtures, smollm2};
use serde_json::Value;

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn help_shows_commands_and_examples() {
    let output = run(&["--help"]);
    assert_eq!(output.status, 0);
    for word in ["serve", "generate", "inspect", "verify", "Start here"] {
        assert!(output.stdout.contains(word), "{word}");
    }
    let output = run(&["serve", "--help"]);
    for word in ["--kv-memory", "MULTIGRAFT_PORT", "[default: 8080]", "[server]"] {
        assert!(output.stdout.contains(word), "{word}");
    }
}

#[test]
fn an_unavailable_instruction_set_is_an_error_that_lists_the_available_ones() {
    let output = run_with(&["inspect", "nothing"], &[("MULTIGRAFT_ISA", "avx1024")]);
    assert_eq!(output.status, 2);
    let words = "MULTIGRAFT_ISA is `avx1024`, but this processor has scalar";
    assert!(output.stderr.contains(words), "{}", output.stderr);
}

#[test]
fn flags_take_precedence_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[model]\nbase = \"from-file\"\n").expect("written");
    // None of these models exists: the error names the one that was searched.
    let looked_for = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut arguments = vec!["--config", text(&file), "serve"];
        arguments.extend(flags);
        let output = run_with(&arguments, variables);
        assert_eq!(output.status, 2);
        output.stderr
    };
    let variable = [("MULTIGRAFT_BASE", "from-environment")];
    assert!(looked_for(&[], &[]).contains("`from-file`"));
    assert!(looked_for(&[], &variable).contains("`from-environment`"));
    assert!(looked_for(&["--base", "from-flag"], &variable).contains("`from-flag`"));
}

#[test]
fn invalid_settings_are_errors_that_name_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[server]\nprot = 1\n").expect("written");
    for (arguments, name) in [
        (vec!["--config", text(&file), "serve", "--base", "x"], "prot"),
        (vec!["--config", "/no/such.toml", "serve"], "/no/such.toml"),
        (vec!["serve"], "--base"),
        (vec!["serve", "--base", "x", "--kv-memory", "much"], "much"),
        (vec!["serve", "--base", "x", "--threads", "0"], "threads"),
        (
            vec!["serve", "--base", "x", "--adapter", "a=1", "--adapter", "a=2"],
            "twice",
        ),
        (vec!["--log", "=x=", "serve", "--base", "x"], "--log"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status, 2, "{arguments:?}");
        assert!(output.stderr.contains(name), "{arguments:?}: {}", output.stderr);
    }
}

#[test]
fn inspect_shows_a_model() {
    let model = fixtures().join("peft/qwen3_moe/model");
    let output = run(&["inspect", text(&model), "--json"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(report["architecture"], "qwen3_moe");
    assert_eq!(report["experts"], 4);
    assert!(
        report["parameters"]
            .as_u64()
            .is_some_and(|parameters| parameters > 1000)
    );
    assert!(
        run(&["inspect", text(&model)])
            .stdout
            .contains("architecture   qwen3_moe")
    );
}

#[test]
fn inspect_shows_whether_an_adapter_fits_and_why_not() {
    let peft = fixtures().join("peft");
    let adapter = peft.join("llama/adapters/all_r8");
    let fits = run(&[
        "inspect",
        text(&adapter),
        "--base",
        text(&peft.join("llama/model")),
    ]);
    assert_eq!(fits.status, 0, "{}", fits.stderr);
    assert!(
        fits.stdout.contains("rank        8") && fits.stdout.contains("fits"),
        "{}",
        fits.stdout
    );
    let misfit = run(&[
        "inspect",
        text(&adapter),
        "--base",
        text(&peft.join("phi3/model")),
    ]);
    assert_eq!(misfit.status, 1, "{}", misfit.stderr);
    assert!(misfit.stdout.contains("does not fit"), "{}", misfit.stdout);
    let alone = run(&["inspect", text(&adapter)]);
    assert_eq!(alone.status, 0);
    assert!(alone.stdout.contains("rank          8"), "{}", alone.stdout);
    let gguf = fixtures().join("gguf_adapters/llama/all_r8.bf16.gguf");
    let fits = run(&["inspect", text(&gguf), "--base", text(&peft.join("llama/model"))]);
    assert!(fits.stdout.contains("read from GGUF"), "{}", fits.stdout);
    let alone = run(&["inspect", text(&gguf)]);
    assert!(alone.stdout.contains("architecture  llama"), "{}", alone.stdout);
    assert_eq!(run(&["inspect", "/no/such/thing"]).status, 2);
}

#[test]
fn export_writes_an_adapter_in_another_format_and_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = fixtures().join("peft/llama/model");
    let (gguf, peft) = (
        fixtures().join("gguf_adapters/llama/qv_r4.f32.gguf"),
        dir.path().join("peft"),
    );
    let export = |to: &str, out: &std::path::Path| {
        run(&[
            "export",
            "--base",
            text(&base),
            "--adapter",
            text(&gguf),
            "--to",
            to,
            "--out",
            text(out),
        ])
    };
    let written = export("peft", &peft);
    assert_eq!(written.status, 0, "{}", written.stderr);
    let fits = run(&["inspect", text(&peft), "--base", text(&base)]);
    assert!(fits.stdout.contains("rank        4"), "{}", fits.stdout);
    let again = export("peft", &peft);
    assert!(
        again.status == 2 && again.stderr.contains("nothing is overwritten"),
        "{}",
        again.stderr
    );
    let merged = dir.path().join("merged");
    assert_eq!(export("merged", &merged).status, 0);
    assert_eq!(run(&["inspect", text(&merged)]).status, 0);
}

#[test]
fn generate_writes_only_the_answer_to_stdout() {
    let model = smollm2();
    let arguments = [
        "generate",
        "--base",
        text(&model),
        "--raw",
        "--max-tokens",
        "8",
        "--threads",
        "2",
        "One, two, three,",
    ];
    let output = run(&arguments);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout.contains("four"), "{}", output.stdout);
    // Greedy: the same again, and without a log.
    let again = run_with(&arguments, &[("MULTIGRAFT_LOG", "error")]);
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(again.stderr, "");
}

#[test]
fn generate_needs_a_choice_if_there_are_several_adapters() {
    let model = smollm2();
    let demo = fixtures().join("../demo/adapters");
    let output = run(&[
        "generate",
        "--base",
        text(&model),
        "--adapters",
        text(&demo),
        "Hello",
    ]);
    assert_eq!(output.status, 2);
    assert!(
        output.stderr.contains("--use NAME") && output.stderr.contains("sentiment"),
        "{}",
        output.stderr
    );
}

#[test]
fn changes_of_keys_are_audited_and_usage_is_a_table_or_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = text(folder.path());
    let made = run(&[
        "keys",
        "add",
        "acme",
        "--grant",
        "a/*",
        "--tokens-per-month",
        "5",
        "--data",
        data,
    ]);
    assert_eq!(made.status, 0, "{}", made.stderr);
    assert_eq!(run(&["keys", "add", "acme", "--data", data]).status, 2);
    assert_eq!(run(&["keys", "ls", "--data", data]).status, 0);
    assert_eq!(run(&["keys", "rotate", "acme", "--data", data]).status, 0);
    assert_eq!(run(&["keys", "revoke", "none", "--data", data]).status, 2);
    let log = fs::read_to_string(folder.path().join("audit.jsonl")).expect("written");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let short = |line: &Value| {
        ["by", "action", "what", "outcome"].map(|field| line[field].as_str().expect("text").to_owned())
    };
    assert_eq!(
        lines.iter().map(short).collect::<Vec<_>>(),
        [
            ["local", "key.add", "acme", "done"],
            ["local", "key.add", "acme", "refused"],
            ["local", "key.rotate", "acme", "done"],
            ["local", "key.revoke", "none", "refused"],
        ]
    );
    let given = serde_json::json!({"role": "use", "grants": ["a/*"], "tokens_per_month": 5});
    assert_eq!(lines[0]["details"], given);
    let secret = made.stdout.lines().last().expect("the secret");
    assert!(secret.starts_with("mg-") && !log.contains(secret), "{log}");

    let used = run(&["usage", "--data", data]);
    assert_eq!(
        (used.status, used.stdout.as_str()),
        (0, "no usage in this period\n")
    );
    assert_eq!(
        run(&["usage", "--json", "--by", "key,month", "--data", data]).stdout,
        "[]\n"
    );
    for (wrong, message) in [
        ("--by=week", "week"),
        ("--from=2027-02-30", "2027-02-30"),
        ("--data=/none", "/none"),
    ] {
        let output = run(&["usage", wrong]);
        assert_eq!(output.status, 2, "{wrong}");
        assert!(output.stderr.contains(message), "{}", output.stderr);
    }
}
