//! The end of a batch: its results become files, with one result for every line.

use std::io::{BufWriter, Write as _};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    batch::{Batch, Status},
    error::StoreError,
    file::{Purpose, StoredFile},
    line::{LineLimits, Lines},
    store::Store,
};

/// A file that results are written to. The first result creates it.
#[derive(Default)]
struct Results(Option<(BufWriter<NamedTempFile>, u64)>);

impl Results {
    fn push(&mut self, store: &Store, line: &str) -> Result<(), StoreError> {
        let (file, bytes) = match &mut self.0 {
            Some(open) => open,
            closed => closed.insert((BufWriter::new(store.begin_file()?), 0)),
        };
        let written = writeln!(file, "{line}");
        let path = file.get_ref().path();
        written.map_err(|source| store.file_error(path, source))?;
        *bytes += line.len() as u64 + 1;
        Ok(())
    }

    fn finish(self, store: &Store, file: StoredFile) -> Result<Option<StoredFile>, StoreError> {
        let Some((written, bytes)) = self.0 else {
            return Ok(None);
        };
        let path = store.content(&file.id);
        let written = written
            .into_inner()
            .map_err(|error| store.file_error(&path, error.into_error()))?;
        store.persist(written, &file.id)?;
        Ok(Some(StoredFile { bytes, ..file }))
    }
}

impl Store {
    /// Ends a batch in the state `to`: `Completed`, `Expired` or `Cancelled`. Lines without a
    /// result get one that says why. If the process ends in between, calling it again gives the
    /// same files.
    ///
    /// # Errors
    /// If the disk or the database cannot be read or written.
    pub fn finish(&self, batch: &Batch, to: Status, limits: LineLimits, now: u64) -> Result<(), StoreError> {
        let id = &batch.begun.id;
        let (code, message) = match to {
            Status::Expired => (
                "batch_expired",
                "This request could not be executed before the completion window expired.",
            ),
            _ => (
                "batch_cancelled",
                "This request was not executed because the batch was cancelled.",
            ),
        };
        let (mut output, mut errors) = (Results::default(), Results::default());
        let mut failed = 0;
        let path = self.content(&batch.begun.input);
        let fail = |source| self.file_error(&path, source);
        for line in Lines::open(&path, limits).map_err(fail)? {
            let (number, bytes) = line.map_err(fail)?;
            match self.result(id, number)? {
                Some((true, text)) => output.push(self, &text)?,
                Some((false, text)) => {
                    failed += 1;
                    errors.push(self, &text)?;
                }
                None => {
                    failed += 1;
                    // The line may be invalid if the batch ended before its file was checked.
                    let line: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    let result = json!({
                        "id": format!("batch_req_{}_{number}", stem(id)),
                        "custom_id": line.get("custom_id"),
                        "response": null,
                        "error": {"code": code, "message": message},
                    });
                    errors.push(self, &result.to_string())?;
                }
            }
        }
        let file = |what: &str| StoredFile {
            // The same id in every attempt.
            id: format!("file-{}-{what}", stem(id)),
            tenant: batch.begun.tenant.clone(),
            name: format!("{id}_{what}.jsonl"),
            purpose: Purpose::BatchOutput,
            bytes: 0,
            created: now,
            expires: batch.begun.keep_output.map(|seconds| now.saturating_add(seconds)),
        };
        let output = output.finish(self, file("output"))?;
        let errors = errors.finish(self, file("error"))?;
        self.end(id, to, [output.as_ref(), errors.as_ref()], failed, now)
    }
}

/// A batch's id without its prefix.
fn stem(id: &str) -> &str {
    id.strip_prefix("batch_").unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

    use super::*;
    use crate::{FileLimits, Kept, NewBatch, Problem, Removed};

    const LIMITS: LineLimits = LineLimits { lines: 9, bytes: 999 };
    const MUCH: FileLimits = FileLimits {
        bytes: 9999,
        files: 99,
    };

    fn file(id: &str, tenant: &str, expires: Option<u64>) -> StoredFile {
        StoredFile {
            id: id.to_owned(),
            tenant: Some(tenant.to_owned()),
            name: "x.jsonl".to_owned(),
            purpose: Purpose::Batch,
            bytes: 7,
            created: 1,
            expires,
        }
    }

    fn keep(store: &Store, file: &StoredFile, text: &str, limits: FileLimits) -> Kept {
        let mut written = store.begin_file().expect("a file");
        written.write_all(text.as_bytes()).expect("written");
        store.keep(written, file, limits).expect("kept")
    }

    /// A batch of three lines, of which the first is answered and the second is not yet.
    fn begun(data: &Path) -> (Store, Batch) {
        let store = Store::open(data).expect("opened");
        let lines = "{\"custom_id\": \"a\"}\n{\"custom_id\": \"b\"}\n\n{\"custom_id\": \"c\"}\n";
        keep(&store, &file("file-1", "acme", None), lines, MUCH);
        let batch = NewBatch {
            id: "batch_1".to_owned(),
            tenant: Some("acme".to_owned()),
            key: Some("k".to_owned()),
            endpoint: "/v1/completions".to_owned(),
            input: "file-1".to_owned(),
            created: 2,
            expires: 100,
            metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            keep_output: Some(50),
        };
        assert!(store.begin(&batch, 1).expect("begun"));
        assert!(!store.begin(&batch, 1).expect("one is there already"));
        store.validated("batch_1", 3, 3).expect("validated");
        store.put("batch_1", 1, true, "first").expect("put");
        let batch = store.batch("batch_1").expect("read").expect("there");
        assert_eq!((batch.status, batch.counts.completed), (Status::InProgress, 1));
        (store, batch)
    }

    fn ended(store: &Store) -> (Batch, [Option<String>; 2]) {
        let batch = store.batch("batch_1").expect("read").expect("there");
        let text = |id: &Option<String>| {
            let path = store.content(id.as_ref()?);
            Some(fs::read_to_string(path).expect("there"))
        };
        let texts = [text(&batch.output), text(&batch.errors)];
        (batch, texts)
    }

    #[test]
    fn every_line_has_one_result_whatever_ends_the_batch() {
        let data = tempfile::tempdir().expect("a folder");
        let (store, batch) = begun(data.path());
        store.put("batch_1", 2, false, "second").expect("put");
        store.put("batch_1", 2, true, "again").expect("not put twice");
        store
            .finish(&batch, Status::Expired, LIMITS, 100)
            .expect("finished");
        let (batch, [output, errors]) = ended(&store);
        assert_eq!(output.as_deref(), Some("first\n"));
        let errors = errors.expect("there");
        let lines: Vec<&str> = errors.lines().collect();
        assert_eq!(lines[0], "second");
        let last: Value = serde_json::from_str(lines[1]).expect("JSON");
        assert_eq!(
            (&last["custom_id"], &last["error"]["code"]),
            (&json!("c"), &json!("batch_expired"))
        );
        assert_eq!(lines.len(), 2);
        assert_eq!((batch.counts.completed, batch.counts.failed), (1, 2));
        assert_eq!((batch.status, batch.times["expired"]), (Status::Expired, 100));
        let output = store.file(batch.output.as_deref().expect("there"), Some("acme"), 100);
        assert_eq!(output.expect("read").expect("there").expires, Some(150));
        assert!(store.unfinished().expect("read").is_empty());
        assert!(store.done("batch_1").expect("read").is_empty(), "rows are gone");
    }

    #[test]
    fn what_was_done_is_known_after_a_restart_and_files_without_a_row_are_swept() {
        let data = tempfile::tempdir().expect("a folder");
        let (store, batch) = begun(data.path());
        // A finish that was cut off before its transaction.
        fs::write(store.content("file-1-output"), "half").expect("written");
        drop(store);
        let store = Store::open(data.path()).expect("opened again");
        assert!(!store.content("file-1-output").exists());
        assert_eq!(store.unfinished().expect("read"), std::slice::from_ref(&batch));
        assert_eq!(store.done("batch_1").expect("read"), [1].into());
        let cancelled = [Status::InProgress];
        assert!(
            store
                .advance("batch_1", &cancelled, Status::Cancelling, 5)
                .expect("advanced")
        );
        assert!(
            !store
                .advance("batch_1", &cancelled, Status::Cancelling, 6)
                .expect("once")
        );
        store
            .finish(&batch, Status::Cancelled, LIMITS, 7)
            .expect("finished");
        let (batch, [output, errors]) = ended(&store);
        assert_eq!((batch.status, batch.counts.failed), (Status::Cancelled, 2));
        assert_eq!(output.as_deref(), Some("first\n"));
        assert!(errors.expect("there").contains("batch_cancelled"));
    }

    #[test]
    fn a_file_that_is_no_batch_fails_it_with_its_problems() {
        let data = tempfile::tempdir().expect("a folder");
        let store = Store::open(data.path()).expect("opened");
        let (_, batch) = {
            drop(store);
            begun(data.path())
        };
        let store = Store::open(data.path()).expect("opened");
        let again = NewBatch {
            id: "batch_2".to_owned(),
            ..batch.begun
        };
        assert!(store.begin(&again, 2).expect("begun"));
        let problem = Problem {
            code: "x".to_owned(),
            line: Some(2),
            message: "y".to_owned(),
            param: None,
        };
        store
            .refused("batch_2", std::slice::from_ref(&problem), 4)
            .expect("refused");
        let batch = store.batch("batch_2").expect("read").expect("there");
        assert_eq!((batch.status, batch.problems), (Status::Failed, vec![problem]));
        let list = |after, limit| {
            let batches = store.batches(Some("acme"), after, limit).expect("read");
            batches.map(|batches| {
                batches
                    .into_iter()
                    .map(|batch| batch.begun.id)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            list(None, 9),
            Some(vec!["batch_2".to_owned(), "batch_1".to_owned()])
        );
        assert_eq!(list(None, 1), Some(vec!["batch_2".to_owned()]));
        assert_eq!(list(Some("batch_2"), 9), Some(vec!["batch_1".to_owned()]));
        assert_eq!(list(Some("batch_3"), 9), None);
        assert_eq!(
            store.batches(Some("other"), None, 9).expect("read"),
            Some(Vec::new())
        );
    }

    #[test]
    fn files_are_their_tenants_within_bounds_and_until_they_expire() {
        let data = tempfile::tempdir().expect("a folder");
        let (store, _) = begun(data.path());
        let few = FileLimits { bytes: 14, files: 9 };
        assert_eq!(
            keep(&store, &file("file-2", "acme", Some(50)), "x", few),
            Kept::Kept
        );
        assert_eq!(
            keep(&store, &file("file-3", "acme", None), "x", few),
            Kept::TooManyBytes(14)
        );
        let one = FileLimits { bytes: 999, files: 2 };
        assert_eq!(
            keep(&store, &file("file-3", "acme", None), "x", one),
            Kept::TooManyFiles(2)
        );
        assert!(!store.content("file-3").exists());
        assert_eq!(keep(&store, &file("file-3", "other", None), "x", few), Kept::Kept);
        let ids = |now| {
            let files = store.files(Some("acme"), now).expect("read");
            files.into_iter().map(|file| file.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(49), ["file-2", "file-1"]);
        assert_eq!(ids(50), ["file-1"]);
        assert_eq!(store.file("file-1", Some("other"), 1).expect("read"), None);
        assert_eq!(store.file("file-1", None, 1).expect("read"), None);
        store.purge(50).expect("purged");
        assert!(!store.content("file-2").exists());
        let in_use = Removed::InUse("batch_1".to_owned());
        assert_eq!(store.remove_file("file-1").expect("asked"), in_use);
        assert_eq!(store.remove_file("file-3").expect("removed"), Removed::Removed);
        assert!(!store.content("file-3").exists());
    }
}
