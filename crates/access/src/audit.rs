//! The audit log: what was changed, when and by whom. Every action is a line of JSON that is
//! appended to `audit.jsonl` in the data folder.
//!
//! The file is opened for each line: actions are rare, and a file that was renamed (log rotation)
//! is created again without a signal to the server.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::{Map, Value};
use time::{UtcDateTime, format_description::well_known::Rfc3339};

use crate::secret::Secret;

/// The name of the audit log in the data folder.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// Characters of a text that are written. It keeps lines short, whatever clients send.
const LONGEST_TEXT: usize = 300;

/// Who requested an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Actor {
    /// A user of the command line on the server's machine, or the adapters file.
    Local,
    /// The holder of an API key.
    Key {
        /// The public id of the key.
        key: String,
        /// The name of the key.
        name: String,
    },
    /// A client of a server without keys.
    Anybody,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was not allowed, not possible or malformed. Nothing was changed.
    Refused,
    /// It failed because of an error of the server.
    Failed,
    /// The client disconnected before the action began.
    BrokenOff,
}

/// An action that was requested.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// Who requested it.
    #[serde(flatten)]
    pub actor: Actor,
    /// The address that the request came from.
    pub remote: Option<SocketAddr>,
    /// `adapter.add`, `key.rotate` and so on.
    pub action: &'static str,
    /// The name of the adapter or the key.
    pub what: Option<String>,
    /// The other fields of the request.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// How the action ended.
    pub outcome: Outcome,
    /// Why it was not carried out.
    pub error: Option<String>,
    /// The request's `x-request-id`.
    pub request_id: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    action: &'a Action,
}

/// The file that actions are written to.
#[derive(Clone, Debug)]
pub struct Audit(PathBuf);

impl Audit {
    /// The audit log of a data folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join(AUDIT_FILE))
    }

    /// Appends a line. Credentials in texts are removed. A line that cannot be written is logged
    /// and lost, because the action has been carried out already.
    pub fn write(&self, action: &Action, now: SystemTime) {
        let text = |text: &String| shortened_text(&redacted(text), LONGEST_TEXT);
        let action = Action {
            what: action.what.as_ref().map(text),
            error: action.error.as_ref().map(|error| text(&first_sentence(error))),
            request_id: action.request_id.as_ref().map(text),
            details: action
                .details
                .iter()
                .map(|(name, value)| (name.clone(), shortened_value(value)))
                .collect(),
            ..action.clone()
        };
        let line = Line {
            time: timestamp(now),
            action: &action,
        };
        let appended = serde_json::to_string(&line)
            .map_err(io::Error::from)
            .and_then(|line| append(&self.0, &format!("{line}\n")));
        if let Err(error) = appended {
            tracing::error!(
                %error, action = action.action, what = action.what, outcome = ?action.outcome, actor = ?action.actor,
                "`{}` cannot be written, and misses an action", self.0.display()
            );
        }
    }
}

/// Appends a whole line or nothing.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(path)?;
    // Against other writers that truncate a line they could not write whole. Not waited for,
    // because any process may hold the lock.
    let is_locked = file.try_lock().is_ok();
    let written = (&file).write(line.as_bytes())?;
    if written == line.len() {
        return Ok(());
    }
    if is_locked {
        truncate(&file, written as u64)?;
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!("only {written} of {} bytes could be written", line.len()),
    ))
}

fn truncate(file: &File, bytes: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(bytes))
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(now: SystemTime) -> String {
    let now = UtcDateTime::from(now);
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    // RFC 3339 has a form for every time that a clock shows.
    now.format(&Rfc3339).unwrap_or_default()
}

/// The first sentence of an error message; the others give the remedy.
fn first_sentence(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(first, _)| first).to_owned()
}

fn shortened_text(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn shortened_value(value: &Value) -> Value {
    match value {
        Value::String(text) => shortened_text(&redacted(text), LONGEST_TEXT).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::Array(_) | Value::Object(_) => match value.to_string() {
            text if text.chars().count() <= LONGEST_TEXT && text == redacted(&text) => value.clone(),
            text => shortened_text(&redacted(&text), LONGEST_TEXT).into(),
        },
    }
}

/// A text without the random part of API keys, and without the user name, password and query of
/// URLs.
fn redacted(text: &str) -> String {
    let is_end = |letter: char| letter.is_whitespace() || "`'\"<>,;()".contains(letter);
    text.split_inclusive(is_end)
        .map(|word| {
            let (word, end) = match word.char_indices().next_back() {
                Some((at, last)) if is_end(last) => word.split_at(at),
                _ => (word, ""),
            };
            format!("{}{end}", redacted_word(word))
        })
        .collect()
}

fn redacted_word(word: &str) -> String {
    if let Some(secret) = word.find("mg-").and_then(|at| Secret::parse(word.get(at..)?)) {
        return format!("mg-{}-…", secret.id());
    }
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?…"),
        None => (rest, ""),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match host.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => host.to_owned(),
    };
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use std::{
        fs, thread,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(folder: &Path) -> io::Result<Vec<Value>> {
        let text = fs::read_to_string(folder.join(AUDIT_FILE))?;
        let line = |line| serde_json::from_str(line).expect("a line is JSON");
        Ok(text.lines().map(line).collect())
    }

    fn action(what: &str) -> Action {
        Action {
            actor: Actor::Local,
            remote: None,
            action: "adapter.add",
            what: Some(what.to_owned()),
            details: Map::new(),
            outcome: Outcome::Done,
            error: None,
            request_id: None,
        }
    }

    #[test]
    fn a_line_says_who_did_what_and_how_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = Audit::new(folder.path());
        let mut done = action("acme/x");
        done.details.insert("pinned".to_owned(), true.into());
        audit.write(&done, UNIX_EPOCH + Duration::from_millis(1_764_148_489_120));
        audit.write(
            &Action {
                actor: Actor::Key {
                    key: "abc".to_owned(),
                    name: "boss".to_owned(),
                },
                remote: Some(([127, 0, 0, 1], 9).into()),
                outcome: Outcome::Refused,
                error: Some("it is taken. Choose another.".to_owned()),
                request_id: Some("r1".to_owned()),
                ..action("y")
            },
            UNIX_EPOCH,
        );
        assert_eq!(
            read(folder.path()).expect("written"),
            [
                json!({"time": "2025-11-26T09:14:49.12Z", "by": "local", "remote": null, "action": "adapter.add", "what": "acme/x",
                    "details": {"pinned": true}, "outcome": "done", "error": null, "request_id": null}),
                json!({"time": "1970-01-01T00:00:00Z", "by": "key", "key": "abc", "name": "boss", "remote": "127.0.0.1:9",
                    "action": "adapter.add", "what": "y", "outcome": "refused", "error": "it is taken", "request_id": "r1"}),
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_and_begun_anew_when_it_was_renamed_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let audit = Audit::new(folder.path());
        audit.write(&action("a"), UNIX_EPOCH);
        let path = folder.path().join(AUDIT_FILE);
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        fs::rename(&path, folder.path().join("old")).expect("renamed");
        audit.write(&action("b"), UNIX_EPOCH);
        let lines = read(folder.path()).expect("written");
        assert_eq!((lines.len(), &lines[0]["what"]), (1, &json!("b")));
    }

    #[test]
    fn lines_of_many_at_once_are_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        thread::scope(|scope| {
            for writer in 0..8 {
                let audit = Audit::new(folder.path());
                scope.spawn(move || {
                    for line in 0..50 {
                        audit.write(
                            &action(&format!("{writer}/{line}/{}", "x".repeat(200))),
                            UNIX_EPOCH,
                        );
                    }
                });
            }
        });
        assert_eq!(read(folder.path()).expect("every line is JSON").len(), 8 * 50);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_is_an_error_and_no_panic() {
        assert!(append(Path::new("/dev/full"), "line\n").is_err());
        Audit::new(Path::new("/nowhere/at/all")).write(&action("a"), UNIX_EPOCH);
    }

    #[test]
    fn credentials_are_left_out() {
        let id = Secret::new_id().expect("random");
        let secret = Secret::new(&id).expect("random");
        for (text, shown) in [
            ("https://me:pw@host/a?sig=x", "https://…@host/a?…"),
            ("`s3://bucket/a` is not", "`s3://bucket/a` is not"),
            ("an@address", "an@address"),
            (secret.reveal(), &format!("mg-{id}-…")),
            (
                &format!("key \"{}\"", secret.reveal()),
                &format!("key \"mg-{id}-…\""),
            ),
        ] {
            assert_eq!(redacted(text), shown);
        }
        let details = shortened_value(&json!({"a": [secret.reveal()]})).to_string();
        assert!(!details.contains(secret.reveal()), "{details}");
    }

    proptest! {
        #[test]
        fn any_text_is_one_short_line(text in any::<String>()) {
            let folder = tempfile::tempdir().expect("a folder");
            let audit = Audit::new(folder.path());
            let action = Action { error: Some(text.clone()), request_id: Some(text.repeat(9)), ..action(&text) };
            audit.write(&action, UNIX_EPOCH);
            prop_assert_eq!(read(folder.path()).expect("written").len(), 1);
        }
    }
}
