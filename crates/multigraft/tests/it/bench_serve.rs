//! `multigraft bench serve` against servers that answer in known ways.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::program::run;
use serde_json::{Value, json};

/// Tokens that the server counts beyond a prompt's words, like a BOS.
const ADDED: usize = 3;
/// Between tokens.
const GAP: Duration = Duration::from_millis(3);

/// A server in OpenAI's dialect that answers with meaningless text, and refuses every `refuse`th
/// request (0: none).
fn server(refuse: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(1));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            // Clients that disconnect do not matter here.
            thread::spawn(move || _ = answer(stream, &count, refuse));
        }
    });
    url
}

fn answer(stream: TcpStream, count: &AtomicUsize, refuse: usize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut stream = stream;
    let whole = |status: &str, body: &Value| {
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    if head.starts_with("GET /v1/models") {
        let models = json!({"data": [{"id": "m", "parent": null}, {"id": "a", "parent": "m"}, {"id": "b", "parent": "m"}]});
        return stream.write_all(whole("200 OK", &models).as_bytes());
    }
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let prompt = request["prompt"]
        .as_str()
        .expect("a prompt")
        .split_whitespace()
        .count();
    // The two probes have one token to generate and are never refused.
    let tokens = request["max_tokens"].as_u64().expect("a length");
    if tokens > 1 && refuse > 0 && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(refuse) {
        let error = json!({"error": {"message": "too many"}});
        return stream.write_all(whole("429 Too Many Requests", &error).as_bytes());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")?;
    for _ in 0..tokens {
        thread::sleep(GAP);
        stream.write_all(b"data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":null}]}\n\n")?;
    }
    let usage =
        json!({"choices": [], "usage": {"prompt_tokens": prompt + ADDED, "completion_tokens": tokens}});
    stream.write_all(format!("data: {usage}\n\ndata: [DONE]\n\n").as_bytes())
}

fn bench(url: &str, more: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["bench", "serve", "--url", url, "--json", "-"];
    arguments.extend(more);
    let output = run(&arguments);
    let report = serde_json::from_str(&output.stdout);
    (
        output.status,
        report.unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr)),
    )
}

#[test]
fn a_closed_loop_measures_every_request_at_exact_lengths() {
    let (status, report) = bench(
        &server(0),
        &[
            "--clients",
            "3",
            "--requests",
            "9",
            "--adapters",
            "2",
            "--prompt-tokens",
            "40",
            "--output-tokens",
            "5",
        ],
    );
    let figures = &report["figures"];
    assert_eq!(status, 0);
    assert_eq!(
        (&figures["requests"], &figures["answered"]),
        (&json!(9), &json!(9))
    );
    assert_eq!(
        (&figures["prompt_tokens"], &figures["output_tokens"]),
        (&json!(9 * 40), &json!(9 * 5))
    );
    // Four gaps of three milliseconds and the first token's own.
    assert!(
        figures["end_to_end"]["p50"].as_f64().expect("a time") >= 14.0,
        "{figures}"
    );
    assert!(
        figures["itl"]["p50"].as_f64().expect("a time") >= 2.0,
        "{figures}"
    );
    let requests = report["requests"].as_array().expect("requests");
    // After two of the warm-up, the first is again the first adapter's; nine take turns.
    assert_eq!(
        requests.iter().filter(|request| request["adapter"] == 0).count(),
        5
    );
}

#[test]
fn an_open_loop_sends_at_its_rate_and_for_its_time() {
    let (status, report) = bench(
        &server(0),
        &[
            "--mode",
            "open",
            "--rate",
            "200",
            "--duration",
            "0.3",
            // Of all seeds one in ten thousand has more than 90 arrivals in the time of 60.
            "--seed",
            "1",
            "--output-tokens",
            "2..4",
        ],
    );
    assert_eq!(status, 0);
    let sent = report["figures"]["requests"].as_f64().expect("a number");
    assert!((30.0..=90.0).contains(&sent), "{sent}");
    assert_eq!(report["load"]["rate"], 200.0);
}

#[test]
fn failures_are_counted_by_kind_and_make_the_status_1() {
    let (status, report) = bench(
        &server(4),
        &["--requests", "8", "--warmup", "0", "--output-tokens", "2"],
    );
    assert_eq!(status, 1);
    assert_eq!(report["figures"]["failures"], json!({"HTTP 429: too many": 2}));
    assert_eq!(report["figures"]["answered"], 6);
}

#[test]
fn bad_arguments_are_errors_with_the_reason() {
    let url = server(0);
    for (more, words) in [
        (
            vec!["--url", "http://127.0.0.1:1"],
            "cannot get http://127.0.0.1:1/v1/models",
        ),
        (
            vec!["--url", &url, "--adapters", "3"],
            "the server lists 2 adapters",
        ),
        (
            vec!["--url", &url, "--prompt-tokens", "2"],
            "adds 3 tokens to every prompt",
        ),
        (vec!["--clients", "0"], "--clients is 0"),
        (vec!["--rate", "0"], "--rate is 0"),
    ] {
        let output = run(&[&["bench", "serve"], &more[..]].concat());
        assert_eq!(output.status, 2, "{more:?}");
        assert!(output.stderr.contains(words), "{more:?}: {}", output.stderr);
    }
}

#[test]
fn the_help_explains_what_is_measured() {
    let output = run(&["bench", "serve", "--help"]);
    for word in ["TTFT", "Poisson", "--adapter-prefix", "zipf", "closed loop"] {
        assert!(output.stdout.contains(word), "{word}");
    }
}
