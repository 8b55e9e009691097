//! Clients that are slow, that send too much, and that are too many, over sockets.

use std::{
    net::SocketAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use multigraft_server::{ConnectionLimits, Ended, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{BASE, Options, Server, server, server_with};

/// Longer than anything here takes, also on a machine that does much else.
const LONG: Duration = Duration::from_secs(60);
/// A limit that a test runs into.
const SHORT: Duration = Duration::from_millis(200);

/// Limits that nothing here runs into.
fn patient() -> ConnectionLimits {
    ConnectionLimits {
        most: 100,
        headers: LONG,
        idle: LONG,
        body: LONG,
        write: LONG,
    }
}

/// A server that listens, until it is told to stop.
struct Listening {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<Ended>>,
}

async fn listen(server: &Server, limits: ConnectionLimits) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stopped = Some(stopped);
    let signal = move || {
        let stopped = stopped.take();
        async move {
            match stopped {
                Some(stopped) => drop(stopped.await),
                None => std::future::pending().await,
            }
        }
    };
    let serving = serve(listener, server.state.clone(), limits, None, LONG, signal);
    Listening {
        address,
        stop,
        ended: tokio::spawn(serving),
    }
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// What is answered to `bytes` until the server closes the connection.
    async fn answer_to(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may have enough before it has all.
        let _ = stream.write_all(bytes).await;
        to_the_end(&mut stream).await
    }
}

async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .expect("the server should close the connection");
    String::from_utf8(bytes).expect("text")
}

/// Sends a request without a body, and reads its answer's head.
async fn get(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(LONG, stream.read_u8()).await.expect("an answer");
        match byte {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

fn post(path: &str, body: Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, waiting).await.expect("it should happen in the end");
}

#[tokio::test]
async fn headers_that_do_not_come_in_time_close_the_connection() {
    let server = server();
    let limits = ConnectionLimits {
        headers: SHORT,
        ..patient()
    };
    let listening = listen(&server, limits).await;
    for sent in ["", "GET /hea", "GET /health HTTP/1.1\r\nhost: x\r\n"] {
        assert_eq!(listening.answer_to(sent.as_bytes()).await, "", "{sent:?}");
    }
    // Also where bytes come all the time.
    let mut stream = listening.connect().await;
    let (mut reads, mut writes) = stream.split();
    let drip = async {
        // Until it fails.
        let mut piece = "GET /health HTTP/1.1\r\nx: ";
        while writes.write_all(piece.as_bytes()).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
            piece = "y";
        }
    };
    let mut bytes = Vec::new();
    let closed = async { drop(reads.read_to_end(&mut bytes).await) };
    let both = async {
        tokio::select! {
            () = drip => {}
            () = closed => {}
        }
    };
    timeout(LONG, both).await.expect("the drip should be cut off");
    // Between requests there is more time.
    let mut stream = listening.connect().await;
    assert!(get(&mut stream, "/health").await.starts_with("HTTP/1.1 200"));
    sleep(SHORT * 3).await;
    assert!(get(&mut stream, "/health").await.starts_with("HTTP/1.1 200"));
    // But not for the second request's headers.
    stream.write_all(b"GET /hea").await.expect("sent");
    assert_eq!(to_the_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_more_is_closed() {
    let server = server();
    let limits = ConnectionLimits {
        idle: SHORT,
        ..patient()
    };
    let listening = listen(&server, limits).await;
    let mut stream = listening.connect().await;
    assert!(get(&mut stream, "/health").await.starts_with("HTTP/1.1 200"));
    assert_eq!(to_the_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let server = server();
    let limits = ConnectionLimits {
        body: SHORT,
        ..patient()
    };
    let listening = listen(&server, limits).await;
    let whole = post("/v1/completions", json!({"model": BASE, "prompt": "w"}));
    let answer = listening.answer_to(&whole.as_bytes()[..whole.len() - 3]).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"RequestTimeoutError\""), "{answer}");
    // One that comes in pieces, but at some pace, takes longer than that in all.
    let long = json!({"model": BASE, "prompt": "w", "max_tokens": 1, "user": "u".repeat(8000)});
    let whole = post("/v1/completions", long);
    let mut stream = listening.connect().await;
    let began = Instant::now();
    for piece in whole.as_bytes().chunks(1000) {
        stream.write_all(piece).await.expect("sent");
        sleep(SHORT / 4).await;
    }
    assert!(began.elapsed() > SHORT);
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn who_does_not_read_their_answer_is_cut_off() {
    let server = server_with(Options {
        context: 65_000,
        ..Options::default()
    });
    let limits = ConnectionLimits {
        write: SHORT,
        ..patient()
    };
    let listening = listen(&server, limits).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(listening.address).await.expect("a connection");
    let asked = json!({"model": BASE, "prompt": "a", "ignore_eos": true, "max_tokens": 64_000, "stream": true,
        "logprobs": 5});
    stream
        .write_all(post("/v1/completions", asked).as_bytes())
        .await
        .expect("sent");
    until(|| {
        let stats = server.engine.stats();
        stats.finished + stats.cancelled == 1
    })
    .await;
    // What was sent is still there; then comes the end, and it is none of an answer.
    let answer = to_the_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    assert!(!answer.contains("[DONE]"));
}

#[tokio::test]
async fn who_waits_for_a_token_is_not_cut_off() {
    let (step, gate) = mpsc::channel();
    let server = server_with(Options {
        gate: Some(gate),
        ..Options::default()
    });
    let limits = ConnectionLimits {
        headers: SHORT,
        idle: SHORT,
        body: SHORT,
        write: SHORT,
        ..patient()
    };
    let listening = listen(&server, limits).await;
    for stream in [true, false] {
        let asked = json!({"model": BASE, "prompt": "w", "max_tokens": 3, "stream": stream});
        let asked = post("/v1/completions", asked);
        let mut stream = listening.connect().await;
        stream.write_all(asked.as_bytes()).await.expect("sent");
        for _ in 0..3 {
            sleep(SHORT * 2).await;
            step.send(()).expect("a step");
        }
        let answer = to_the_end(&mut stream).await;
        assert!(answer.contains("\"finish_reason\":\"length\""), "{answer}");
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = server();
    let listening = listen(&server, patient()).await;
    let many = "x: y\r\n".repeat(101);
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    for headers in [many, long] {
        let request = format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = listening.answer_to(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let path = "a".repeat(9000);
    let request = format!("GET /v1/models/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = listening.answer_to(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    assert!(answer.contains("\"UriTooLongError\""), "{answer}");
}

#[tokio::test]
async fn a_connection_too_many_gets_503() {
    let server = server();
    let limits = ConnectionLimits { most: 1, ..patient() };
    let listening = listen(&server, limits).await;
    let mut first = listening.connect().await;
    assert!(get(&mut first, "/health").await.starts_with("HTTP/1.1 200"));
    let second = listening
        .answer_to(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert!(second.starts_with("HTTP/1.1 503"), "{second}");
    assert!(second.contains("--max-connections"), "{second}");
    assert!(get(&mut first, "/health").await.starts_with("HTTP/1.1 200"));
    drop(first);
    let again = async {
        loop {
            let mut third = listening.connect().await;
            if get(&mut third, "/health").await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}

#[tokio::test]
async fn stopping_closes_who_waits_and_lets_who_is_answered_end() {
    let (step, gate) = mpsc::channel();
    let server = server_with(Options {
        gate: Some(gate),
        ..Options::default()
    });
    let listening = listen(&server, patient()).await;
    let mut waiting = listening.connect().await;
    assert!(get(&mut waiting, "/health").await.starts_with("HTTP/1.1 200"));
    let mut asking = listening.connect().await;
    let asked = json!({"model": BASE, "prompt": "w", "max_tokens": 2, "stream": true});
    asking
        .write_all(post("/v1/completions", asked).as_bytes())
        .await
        .expect("sent");
    step.send(()).expect("a step");
    until(|| server.engine.stats().generated_tokens == 1).await;
    listening.stop.send(()).expect("serving");
    assert_eq!(to_the_end(&mut waiting).await, "");
    step.send(()).expect("a step");
    assert!(to_the_end(&mut asking).await.contains("[DONE]"));
    let ended = timeout(LONG, listening.ended)
        .await
        .expect("ended")
        .expect("no panic");
    assert_eq!(ended.expect("no fault"), Ended::Drained);
}

/// Rubbish after a request is not read, and a connection that is closed with something unread is
/// reset: the part of an answer that has not reached the client would be lost with it.
#[tokio::test]
async fn an_answer_is_whole_whatever_the_client_still_sends() {
    let server = server();
    let listening = listen(&server, patient()).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // The answer does not fit, so that most of it is on its way when the server closes.
    socket.set_recv_buffer_size(2048).expect("a small buffer");
    let stream = socket.connect(listening.address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let sending = async {
        writer.write_all(request).await.expect("sent");
        // More than the server reads of what it does not care for; it may be gone before it has
        // all.
        let _ = writer.write_all(&[b'x'; 1 << 20]).await;
    };
    let reading = async {
        let mut answer = Vec::new();
        timeout(LONG, reader.read_to_end(&mut answer))
            .await
            .expect("the server should close the connection")
            .expect("not a reset");
        String::from_utf8(answer).expect("text")
    };
    let ((), answer) = tokio::join!(sending, reading);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
}
