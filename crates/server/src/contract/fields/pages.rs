//! The tables of fields in `docs/`, which a test writes from the rows.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::PathBuf};

use super::{Body, Field, Handling, Harmless, Table, all, either, of};
use crate::contract::limits::Limits;

const UPDATE: &str =
    "MULTIGRAFT_WRITE_DOCS=1 cargo test -p multigraft-server --lib the_tables_of_fields_are_up_to_date";

/// The field's name with the object that it is in.
fn path(field: &Field) -> String {
    let within = match field.bodies[0] {
        Body::Parameters | Body::EmbedParameters => "parameters.",
        Body::Merged => "parameters.merged_adapters.",
        Body::StreamOptions => "stream_options.",
        Body::StructuredOutputs => "structured_outputs.",
        Body::Reasoning => "reasoning.",
        Body::ResponseText => "text.",
        Body::Weighted => "adapters[].",
        Body::Numbered => "lora[].",
        _ => "",
    };
    format!("`{within}{}`", field.name)
}

/// Type, handling and note of a field: the cells of its row but the first.
fn cells(field: &Field, limits: &Limits) -> [String; 3] {
    let (kind, handling) = match field.handling {
        Handling::Supported => (field.kind.documented(limits), "supported".to_owned()),
        Handling::Ignored => ("any".to_owned(), "ignored".to_owned()),
        Handling::Rejected { unless, .. } => {
            let harmless = match unless {
                Harmless::Values(values) => either(values.iter().map(|value| format!("`{value}`"))),
                Harmless::ListOf([]) => "an empty list".to_owned(),
                Harmless::ListOf(texts) => {
                    format!(
                        "a list of {}",
                        either(texts.iter().map(|text| format!("`{text:?}`")))
                    )
                }
            };
            let handling = match harmless.is_empty() {
                true => "rejected".to_owned(),
                false => format!("rejected, unless {harmless}"),
            };
            ("any".to_owned(), handling)
        }
    };
    [kind, handling, field.note.to_owned()]
}

/// The rows of a table. Neighbours that say the same share a row.
fn table(table: Table, limits: &Limits) -> String {
    let mut text = "| field | type | handling | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    let mut rows: Vec<(Vec<String>, [String; 3])> = Vec::new();
    for field in all().filter(|field| field.table == table) {
        let cells = cells(field, limits);
        match rows.last_mut() {
            Some((names, same)) if *same == cells => names.push(path(field)),
            _ => rows.push((vec![path(field)], cells)),
        }
    }
    for (names, [kind, handling, note]) in rows {
        let _ = writeln!(text, "| {} | {kind} | {handling} | {note} |", names.join(", "));
    }
    text
}

/// `page` with the table between its markers written anew.
fn with_table(page: &str, Table(name, marker): Table, limits: &Limits) -> String {
    let begin = format!("<!-- fields: {marker} -->\n");
    let end = "<!-- end of fields -->\n";
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/{name} has no line {begin}"));
    let (_, after) = rest.split_once(end).expect("a table ends");
    format!(
        "{before}{begin}{}{end}{after}",
        table(Table(name, marker), limits)
    )
}

#[test]
fn the_tables_of_fields_are_up_to_date() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let limits = Limits::default();
    let mut tables: Vec<Table> = Vec::new();
    for field in all() {
        if !tables.contains(&field.table) {
            tables.push(field.table);
        }
    }
    for table in tables {
        let path = docs.join(table.0);
        let written = fs::read_to_string(&path).expect("the page");
        let page = with_table(&written, table, &limits);
        if env::var_os("MULTIGRAFT_WRITE_DOCS").is_some() {
            fs::write(&path, &page).expect("the page can be written");
        } else {
            let name = table.0;
            assert!(
                written == page,
                "the tables of docs/{name} are not what the rows say. Write them anew with\n  {UPDATE}"
            );
        }
    }
}

#[test]
fn no_body_has_two_rows_of_one_name() {
    for body in all().flat_map(|field| field.bodies) {
        let mut names = BTreeSet::new();
        for field in of(*body) {
            assert!(
                names.insert(field.name),
                "{body:?} has two rows for {}",
                field.name
            );
        }
    }
}

#[test]
fn every_default_of_an_adapter_fills_a_field_of_each_dialect() {
    for default in super::defaults() {
        for body in [Body::Chat, Body::Completion, Body::Parameters] {
            let filled = of(body).filter(|field| field.default == Some(default)).count();
            assert_eq!(filled, 1, "{default} in {body:?}");
        }
    }
}
