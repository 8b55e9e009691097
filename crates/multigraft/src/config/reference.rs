//! `docs/configuration.md`, generated from the flags of `serve`.

use std::{env, fmt::Write as _, fs, path::Path};

use clap::{Arg, CommandFactory as _, Parser as _};

use super::{ConfigFile, ModelOptions, ModelSettings, ServerOptions, ServerSettings};
use crate::cli::{Cli, Command};

/// The headings of flags in the help, and the tables of the file that have these flags as keys.
const TABLES: [(&str, &str); 2] = [("Model", "model"), ("Server", "server")];

const PAGE: &str = "docs/configuration.md";
const REMEDY: &str =
    "MULTIGRAFT_WRITE_DOCS=1 cargo test -p multigraft --bin multigraft the_page_of_settings_is_up_to_date";

const HEAD: &str = "\
<!-- Written by a test from crates/multigraft/src/config/options.rs: change the settings there. -->
# Configuration

Every setting of `multigraft serve` can be given as a flag, as an environment variable, or as a key of a TOML file (`--config FILE`).
Flags take precedence over variables, variables over the file, and the file over the defaults.

```toml
[model]
base = \"smollm2\"
adapters = \"./adapters\"
adapter.support = \"hf://org/support\"
memory = \"8GiB\"

[server]
host = \"0.0.0.0\"
port = 8000
allow-source = [\"hf://org\", \"upload\"]
```

A key of the file is the name of a flag without its dashes, in the table of its heading below; an unknown key is an error. Byte sizes
are strings (`\"512MiB\"`, `\"8GiB\"`), other numbers are numbers, choices are strings (`\"on\"`), repeatable flags are lists or tables, and a
flag without a value is `true`. Paths are relative to the file.
";

/// The page: the flags of `serve`, and those of every command.
fn page() -> String {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("serve exists");
    let mut page = HEAD.to_owned();
    for (heading, table) in TABLES {
        let _ = write!(page, "\n## `[{table}]`\n");
        let arguments = serve.get_arguments();
        arguments
            .filter(|argument| argument.get_help_heading() == Some(heading))
            .for_each(|argument| entry(&mut page, argument));
    }
    page.push_str("\n## Flags of every command\n\nThese are not keys of the file.\n");
    let arguments = command.get_arguments();
    arguments
        .filter(|argument| argument.is_global_set())
        .for_each(|argument| entry(&mut page, argument));
    page
}

/// One setting: its flag, variable, default and values, and its help text.
fn entry(page: &mut String, argument: &Arg) {
    let flag = argument.get_long().expect("settings have long names");
    let value = match argument.get_value_names() {
        Some([name]) if argument.get_action().takes_values() => format!(" {name}"),
        _ => String::new(),
    };
    let variable = argument
        .get_env()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let help = argument.get_long_help().or(argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let (help, default) = match help.rsplit_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => {
            let mut values = argument.get_default_values().iter();
            let default = values.next().and_then(|value| value.to_str());
            let is_flag = !argument.get_action().takes_values();
            let none = if is_flag { "off" } else { "none" };
            (help, default.unwrap_or(none).to_owned())
        }
    };
    let help = help.trim().trim_end_matches('.');
    let values: Vec<String> = match argument.get_action().takes_values() {
        true => argument
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect(),
        false => Vec::new(),
    };
    let values = match values.is_empty() {
        true => String::new(),
        false => format!(" · one of {}", values.join(", ")),
    };
    let _ = write!(
        page,
        "\n### `--{flag}{value}`\n\n`{variable}` · default: {default}{values}\n\n{help}.\n"
    );
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
    let page = page();
    if env::var_os("MULTIGRAFT_WRITE_DOCS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{PAGE} does not match the settings. Write it again with\n  {REMEDY}"
    );
}

#[test]
fn every_flag_of_serve_is_a_key_of_the_file() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("serve exists");
    let flags = serve.get_arguments().filter(|argument| !argument.is_global_set());
    for argument in flags.filter(|argument| argument.get_id() != "help") {
        let heading = argument.get_help_heading().unwrap_or_default();
        let table = TABLES.iter().find(|(of, _)| *of == heading);
        let (_, table) = table.unwrap_or_else(|| panic!("{argument} has the heading of no table"));
        let flag = argument.get_long().expect("settings have long names");
        // No setting is a time of day: the value is wrong, but an unknown key is another error.
        if let Err(problem) = ConfigFile::parse(&format!("[{table}]\n{flag} = 07:32:00\n")) {
            assert!(!problem.to_string().contains("unknown field"), "{problem}");
        }
    }
}

/// The settings that follow from `flags` alone.
fn resolved(flags: &[String]) -> (ModelSettings, ServerSettings) {
    let program = ["multigraft", "serve", "--base", "x"].map(str::to_owned);
    let cli = Cli::try_parse_from(program.iter().chain(flags)).expect("valid flags");
    let Command::Serve(serve) = cli.command else {
        panic!("serve was given");
    };
    let model = ModelSettings::resolve(serve.model, ModelOptions::default());
    let server = ServerSettings::resolve(serve.server, ServerOptions::default());
    (model.expect("valid"), server.expect("valid"))
}

#[test]
fn defaults_in_the_help_are_the_defaults() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("serve exists");
    let defaults = serve.get_arguments().filter_map(|argument| {
        let help = argument.get_help()?.to_string();
        let (_, default) = help.rsplit_once("[default: ")?;
        let default = default.trim_end_matches(']');
        // A default with spaces is a description.
        let is_value = !default.contains(' ');
        is_value.then(|| {
            format!(
                "--{}={default}",
                argument.get_long().expect("settings have long names")
            )
        })
    });
    let defaults: Vec<String> = defaults.collect();
    assert!(defaults.len() > 12, "{defaults:?}");
    assert_eq!(resolved(&defaults), resolved(&[]));
}
