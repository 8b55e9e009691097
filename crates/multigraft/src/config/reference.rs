//! `docs/configuration.md`, made of what `serve` can be given.

use std::{env, fmt::Write as _, fs, path::Path};

use clap::{Arg, CommandFactory as _};

use super::ConfigFile;
use crate::cli::Cli;

/// Which of the file's tables holds a flag, by the heading that it has in the help.
const TABLES: [(&str, &str); 2] = [("Model", "model"), ("Server", "server")];

const PAGE: &str = "docs/configuration.md";
const MEND: &str =
    "MULTIGRAFT_WRITE_DOCS=1 cargo test -p multigraft --bin multigraft the_page_of_settings_is_up_to_date";

const HEAD: &str = "\
<!-- Written by a test from crates/multigraft/src/config/options.rs: change the settings there. -->
# Configuration

Every setting of `multigraft serve` can be given as a flag, as an environment variable, or as a line of a TOML file
(`--config FILE`). Flags win over variables, variables over the file, the file over the defaults.

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

In the file a key is the flag's name without its dashes, in the table under whose heading it stands here; a key that no flag has
is an error. Amounts of bytes are texts (`\"512MiB\"`, `\"8GiB\"`), other numbers are numbers, choices are texts (`\"on\"`), what can be
given several times is a list or a table, a flag without a value is `true`. Paths are relative to the file.
";

/// The flags of `serve`, with those that every command has.
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
    page.push_str("\n## Of every command\n\nThese have no line in the file.\n");
    let arguments = command.get_arguments();
    arguments
        .filter(|argument| argument.is_global_set())
        .for_each(|argument| entry(&mut page, argument));
    page
}

/// One setting: how it is given, its default, what it is.
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
        "{PAGE} is not what the settings are now. Write it anew with\n  {MEND}"
    );
}

#[test]
fn every_flag_of_serve_is_a_key_of_the_file() {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("serve exists");
    let own = serve.get_arguments().filter(|argument| !argument.is_global_set());
    for argument in own.filter(|argument| argument.get_id() != "help") {
        let heading = argument.get_help_heading().unwrap_or_default();
        let table = TABLES.iter().find(|(of, _)| *of == heading);
        let (_, table) = table.unwrap_or_else(|| panic!("{argument} stands under no table's heading"));
        let flag = argument.get_long().expect("settings have long names");
        // Hardly any setting is a time of day: the value may be wrong, the key is not.
        if let Err(problem) = ConfigFile::parse(&format!("[{table}]\n{flag} = 07:32:00\n")) {
            assert!(!problem.to_string().contains("unknown field"), "{problem}");
        }
    }
}
