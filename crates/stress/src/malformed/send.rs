//! Runs one case against a server.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{sleep, timeout};

use super::answers::{Parsed, parse_answer};
use super::case::{Case, Expected, Step};

/// How long an answer may take, on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longer than any of the server's limits on connections.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(180);
/// How long the client waits for an answer to an ambiguous request before it shuts down its sending
/// side.
const HALF_CLOSE_AFTER: Duration = Duration::from_millis(300);
/// How often a connection is retried when the machine has no free port.
const RETRIES: usize = 20;
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The result of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The statuses of the answers.
    pub statuses: Vec<u16>,
    /// Whether the server closed the connection without an answer.
    pub is_closed: bool,
    /// What was wrong with it.
    pub problem: Option<String>,
}

impl Outcome {
    fn problem(mut self, problem: impl Into<String>) -> Self {
        self.problem = Some(problem.into());
        self
    }
}

/// How the client's actions ended.
enum SendEnd {
    /// The connection is open. Dropping the writer shuts down the sending side.
    Open(OwnedWriteHalf),
    /// The sending side is shut down, or the server reads no more.
    Closed,
    /// The client has reset the connection.
    Reset,
}

/// Runs `case` and checks the answers.
pub(super) async fn run(case: &Case, address: SocketAddr) -> Outcome {
    let stream = match connect(address).await {
        Ok(stream) => stream,
        Err(error) => return Outcome::default().problem(format!("no connection: {error}")),
    };
    let (reader, writer) = stream.into_split();
    if case.expected == Expected::Nothing {
        // Nobody reads, so errors do not matter.
        let _ = perform(writer, &case.steps).await;
        return Outcome::default();
    }
    let mut conversation = Conversation {
        bytes: Vec::new(),
        at: 0,
        is_head: case.may_be_head(),
        outcome: Outcome::default(),
    };
    match conversation.run(reader, writer, case).await {
        Ok(()) => conversation.outcome,
        Err(problem) => conversation.outcome.problem(problem),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut retries = 0;
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && retries < RETRIES => {
                retries += 1;
                sleep(RETRY_AFTER).await;
            }
            connected => {
                let stream = connected?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
        }
    }
}

/// Performs the client's actions. If the server reads no more, its answer has to explain that.
async fn perform(mut writer: OwnedWriteHalf, steps: &[Step]) -> SendEnd {
    for step in steps {
        let sent = match step {
            Step::Send(bytes) => writer.write_all(bytes).await,
            Step::Drip(bytes, every) => drip(&mut writer, bytes, *every).await,
            Step::Pause(time) => {
                sleep(*time).await;
                Ok(())
            }
            Step::HalfClose => return SendEnd::Closed,
            Step::Reset => {
                // This fails only if the connection has ended.
                let _ = writer.as_ref().set_zero_linger();
                // Dropping it would shut down the sending side first.
                writer.forget();
                return SendEnd::Reset;
            }
        };
        if sent.is_err() {
            return SendEnd::Closed;
        }
    }
    SendEnd::Open(writer)
}

async fn drip(writer: &mut OwnedWriteHalf, bytes: &[u8], every: Duration) -> io::Result<()> {
    for byte in bytes {
        writer.write_all(&[*byte]).await?;
        sleep(every).await;
    }
    Ok(())
}

/// The answers on a connection.
struct Conversation {
    /// All bytes that have arrived.
    bytes: Vec<u8>,
    /// Where the bytes begin that are not parsed yet.
    at: usize,
    is_head: bool,
    outcome: Outcome,
}

impl Conversation {
    /// Sends and reads until the expected answers have arrived. An error is a problem.
    async fn run(
        &mut self,
        mut reader: tokio::net::tcp::OwnedReadHalf,
        writer: OwnedWriteHalf,
        case: &Case,
    ) -> Result<(), String> {
        let (least, limit) = match case.expected {
            Expected::Answer => (1, ANSWER_WITHIN),
            Expected::AtLeast(least) => (least, ANSWER_WITHIN),
            Expected::Disconnect => (0, DISCONNECT_WITHIN),
            Expected::Nothing => return Ok(()),
        };
        let mut sending = pin!(perform(writer, &case.steps));
        // Whether the client has performed its actions, and the writer with which it may still shut
        // down its sending side.
        let (mut has_sent, mut open) = (false, None);
        loop {
            let enough = self.outcome.statuses.len() >= least;
            if enough && case.expected == Expected::Answer {
                return Ok(());
            }
            // The server may wait for more of an ambiguous request: tell it that there is no more.
            let may_close = matches!(case.expected, Expected::AtLeast(_)) && enough && open.is_some();
            let wait = if may_close { HALF_CLOSE_AFTER } else { limit };
            let read = tokio::select! {
                ended = &mut sending, if !has_sent => {
                    has_sent = true;
                    open = match ended {
                        SendEnd::Open(writer) => Some(writer),
                        SendEnd::Closed => None,
                        SendEnd::Reset => return Ok(()),
                    };
                    continue;
                }
                read = timeout(wait, reader.read_buf(&mut self.bytes)) => read,
            };
            match read {
                Err(_) if may_close => open = None,
                Err(_) => {
                    return Err(format!(
                        "{} seconds without an answer or an end, after {:?}",
                        wait.as_secs(),
                        self.outcome.statuses
                    ));
                }
                Ok(Ok(1..)) => self.parse(false)?,
                // A reset is an end as well: the server resets connections that it did not read to
                // the end.
                Ok(Ok(0) | Err(_)) => return self.end(case.expected, has_sent && open.is_none()),
            }
        }
    }

    /// Parses the answers that have arrived. `is_all` if no more bytes will arrive.
    fn parse(&mut self, is_all: bool) -> Result<(), String> {
        while self.at < self.bytes.len() {
            match parse_answer(&self.bytes[self.at..], is_all, self.is_head) {
                Parsed::Answer { status, length } => {
                    self.at += length;
                    // Interim answers (1xx) are followed by the final one.
                    if status >= 200 {
                        self.outcome.statuses.push(status);
                    }
                }
                Parsed::Incomplete => break,
                Parsed::Invalid(what) => return Err(what),
            }
        }
        Ok(())
    }

    /// The server has closed the connection. `is_half_closed`: the client had shut down its sending
    /// side before.
    fn end(&mut self, expected: Expected, is_half_closed: bool) -> Result<(), String> {
        self.parse(true)?;
        let answers = self.outcome.statuses.len();
        self.outcome.is_closed = answers == 0;
        let least = match expected {
            Expected::Answer => 1,
            Expected::AtLeast(least) => least,
            Expected::Disconnect | Expected::Nothing => 0,
        };
        if answers < least {
            return Err(format!(
                "closed after {answers} answers, but {least} were expected"
            ));
        }
        // An answer may end early only for a client that has shut down its sending side, which is
        // how most clients disconnect.
        if self.at < self.bytes.len() && !is_half_closed && expected != Expected::Disconnect {
            return Err("an answer was cut off".to_owned());
        }
        Ok(())
    }
}
