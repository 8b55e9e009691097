//! The lines of an input file.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use serde_json::{Map, Value};

use crate::batch::Problem;

/// Limits of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// The most lines of a file.
    pub lines: usize,
    /// The longest line, in bytes.
    pub bytes: usize,
}

/// The most problems that are reported of one file.
const MOST_PROBLEMS: usize = 100;
/// The longest `custom_id`, in bytes.
const LONGEST_ID: usize = 512;

/// A request of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The number of the line, counted from 1; blank lines count.
    pub number: u64,
    /// The client's id of the request, which its result repeats.
    pub custom_id: String,
    /// The body of the request.
    pub body: Map<String, Value>,
}

/// An iterator over the lines of a file that are not blank: their numbers and bytes.
#[derive(Debug)]
pub struct Lines {
    file: BufReader<File>,
    number: u64,
    /// The longest line that is read whole, in bytes.
    longest: usize,
}

impl Lines {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, limits: LineLimits) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            number: 0,
            longest: limits.bytes,
        })
    }
}

impl Iterator for Lines {
    /// A line that is longer than the limit is truncated to one byte more than the limit.
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            // One byte more than the limit, and the line break.
            let most = self.longest as u64 + 2;
            match (&mut self.file).take(most).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            self.number += 1;
            let is_whole = line.ends_with(b"\n") || (line.len() as u64) < most;
            if !is_whole && let Err(error) = self.file.skip_until(b'\n') {
                return Some(Err(error));
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            line.truncate(self.longest + 1);
            if !line.trim_ascii().is_empty() {
                return Some(Ok((self.number, line)));
            }
        }
    }
}

impl Line {
    /// Parses the request in `bytes`, whose `url` must be `endpoint`.
    ///
    /// # Errors
    /// The first problem.
    pub fn parse(number: u64, bytes: &[u8], endpoint: &str, limits: LineLimits) -> Result<Self, Problem> {
        let problem = |code: &str, param: Option<&str>, message: String| Problem {
            code: code.to_owned(),
            line: Some(number),
            message,
            param: param.map(str::to_owned),
        };
        if bytes.len() > limits.bytes {
            let message = format!("the line is longer than {} bytes", limits.bytes);
            return Err(problem("line_too_long", None, message));
        }
        let mut fields = match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => {
                let message = "the line is JSON, but no object".to_owned();
                return Err(problem("invalid_json_line", None, message));
            }
            Err(error) => {
                let message = format!("the line is not valid JSON: {error}");
                return Err(problem("invalid_json_line", None, message));
            }
        };
        let custom_id = match fields.remove("custom_id") {
            Some(Value::String(id)) if !id.is_empty() && id.len() <= LONGEST_ID => id,
            Some(_) => {
                let message = format!("`custom_id` must be a string of 1 to {LONGEST_ID} bytes");
                return Err(problem("invalid_custom_id", Some("custom_id"), message));
            }
            None => {
                let message = "`custom_id` is missing: it is what the answer is found by".to_owned();
                return Err(problem("missing_required_parameter", Some("custom_id"), message));
            }
        };
        match fields.remove("method") {
            Some(method) if method == "POST" => {}
            method => {
                let message = match method {
                    Some(method) => format!("`method` is {method}, but must be \"POST\""),
                    None => "`method` is missing: it must be \"POST\"".to_owned(),
                };
                return Err(problem("invalid_method", Some("method"), message));
            }
        }
        match fields.remove("url") {
            Some(url) if url == endpoint => {}
            url => {
                let message = match url {
                    Some(url) => format!("`url` is {url}, but the batch is for \"{endpoint}\""),
                    None => format!("`url` is missing: it must be \"{endpoint}\""),
                };
                return Err(problem("mismatched_url", Some("url"), message));
            }
        }
        let Some(Value::Object(body)) = fields.remove("body") else {
            let message = "`body` must be an object: the request".to_owned();
            return Err(problem("invalid_body", Some("body"), message));
        };
        if let Some((name, _)) = fields.iter().find(|(_, value)| !value.is_null()) {
            let message =
                format!("`{name}` is none of a line's fields, which are custom_id, method, url and body");
            return Err(problem("unknown_parameter", Some(name), message));
        }
        if body.get("stream").is_some_and(|stream| *stream == true) {
            let message =
                "`body.stream` is true, but the answers of a batch come in a file: leave it out".to_owned();
            return Err(problem("invalid_request", Some("body.stream"), message));
        }
        Ok(Self {
            number,
            custom_id,
            body,
        })
    }
}

/// Checks the input file at `path`: the number of its requests, or its problems. A file that does
/// not exist is a problem too.
///
/// # Errors
/// If the file cannot be read.
pub fn validate(path: &Path, endpoint: &str, limits: LineLimits) -> io::Result<Result<u64, Vec<Problem>>> {
    let file_problem = |code: &str, message: String| Problem {
        code: code.to_owned(),
        line: None,
        message,
        param: None,
    };
    let lines = match Lines::open(path, limits) {
        // Retrying would not help, so this is a problem of the batch.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "the file is not on the server's disk any more: upload it again".to_owned();
            return Ok(Err(vec![file_problem("file_not_found", message)]));
        }
        lines => lines?,
    };
    let mut ids = HashSet::new();
    let mut problems = Vec::new();
    let mut count = 0;
    for line in lines {
        let (number, bytes) = line?;
        count += 1;
        if count > limits.lines as u64 {
            let message = format!("the file has more than {} lines", limits.lines);
            problems.push(file_problem("too_many_lines", message));
            break;
        }
        match Line::parse(number, &bytes, endpoint, limits) {
            Ok(line) if ids.contains(&line.custom_id) => problems.push(Problem {
                code: "duplicate_custom_id".to_owned(),
                line: Some(number),
                message: format!("`custom_id` is {:?}, as in a line before it", line.custom_id),
                param: Some("custom_id".to_owned()),
            }),
            Ok(line) => {
                ids.insert(line.custom_id);
            }
            Err(problem) => problems.push(problem),
        }
        if problems.len() >= MOST_PROBLEMS {
            break;
        }
    }
    if count == 0 {
        problems.push(file_problem("empty_file", "the file has no lines".to_owned()));
    }
    Ok(match problems.is_empty() {
        true => Ok(count),
        false => Err(problems),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LIMITS: LineLimits = LineLimits { lines: 4, bytes: 120 };
    const URL: &str = "/v1/completions";

    fn checked(text: &[u8]) -> Result<u64, Vec<Problem>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        fs::write(&path, text).expect("written");
        validate(&path, URL, LIMITS).expect("read")
    }

    fn line(id: &str) -> String {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"{URL}","body":{{"prompt":"x"}}}}"#)
    }

    #[test]
    fn good_lines_are_counted_whatever_stands_between_them() {
        let text = format!("{}\r\n\n  \n{}", line("a"), line("b"));
        assert_eq!(checked(text.as_bytes()), Ok(2));
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let good = line("a");
        for (bad, code, param) in [
            ("{".to_owned(), "invalid_json_line", None),
            ("[]".to_owned(), "invalid_json_line", None),
            (line("a"), "duplicate_custom_id", Some("custom_id")),
            (line(""), "invalid_custom_id", Some("custom_id")),
            (
                r#"{"x":1}"#.to_owned(),
                "missing_required_parameter",
                Some("custom_id"),
            ),
            (line("b").replace("POST", "GET"), "invalid_method", Some("method")),
            (
                line("b").replace("completions", "embeddings"),
                "mismatched_url",
                Some("url"),
            ),
            (
                line("b").replace(r#"{"prompt":"x"}"#, "7"),
                "invalid_body",
                Some("body"),
            ),
            (
                line("b").replace(r#""prompt":"x""#, r#""stream":true"#),
                "invalid_request",
                Some("body.stream"),
            ),
            (
                line("b").replace(r#""method""#, r#""y":1,"method""#),
                "unknown_parameter",
                Some("y"),
            ),
            (line(&"b".repeat(200)), "line_too_long", None),
        ] {
            let problems = checked(format!("{good}\n\n{bad}\n{}", line("c")).as_bytes()).expect_err(code);
            let [problem] = problems.as_slice() else {
                panic!("one: {problems:?}")
            };
            assert_eq!(
                (problem.code.as_str(), problem.line, problem.param.as_deref()),
                (code, Some(3), param),
                "{problem:?}"
            );
        }
        assert_eq!(checked(b"\n\n").expect_err("empty")[0].code, "empty_file");
        assert!(checked(b"\xff\xfe\x00").is_err());
        let many: String = ["a", "b", "c", "d", "e"].map(|id| line(id) + "\n").concat();
        assert_eq!(
            checked(many.as_bytes()).expect_err("many")[0].code,
            "too_many_lines"
        );
    }

    #[test]
    fn lines_of_just_the_most_bytes_are_read_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        for length in 118..=123 {
            fs::write(&path, format!("{}\nz\n", "y".repeat(length))).expect("written");
            let lines = Lines::open(&path, LIMITS).expect("opened");
            let lines: Vec<(u64, usize)> = lines
                .map(|line| line.expect("read"))
                .map(|(number, line)| (number, line.len()))
                .collect();
            assert_eq!(lines, [(1, length.min(121)), (2, 1)]);
        }
    }
}
