//! Playing one case against a server.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{sleep, timeout};

use super::answers::{Found, find};
use super::case::{Case, Due, Step};

/// How long an answer may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any of the server's limits on connections.
const CUT_OFF: Duration = Duration::from_secs(180);
/// How long it is waited for more of a request that nobody knows the end of, before the client says
/// that there is no more.
const GRACE: Duration = Duration::from_millis(300);
/// How often a connection is tried: the machine may be short of ports for a moment.
const TRIES: usize = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// What came of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The statuses of the answers.
    pub statuses: Vec<u16>,
    /// Whether the server closed the connection without an answer.
    pub is_closed: bool,
    /// What should not have been.
    pub problem: Option<String>,
}

impl Outcome {
    fn problem(mut self, problem: impl Into<String>) -> Self {
        self.problem = Some(problem.into());
        self
    }
}

/// How a client's part ended.
enum Sent {
    /// It may say that there is no more, by dropping this.
    All(OwnedWriteHalf),
    /// It said so, or the server takes no more.
    Closed,
    /// It is gone.
    Left,
}

/// Plays `case` and judges what comes back.
pub(super) async fn play(case: &Case, address: SocketAddr) -> Outcome {
    let stream = match connect(address).await {
        Ok(stream) => stream,
        Err(error) => return Outcome::default().problem(format!("no connection: {error}")),
    };
    let (reader, writer) = stream.into_split();
    if case.due == Due::Nothing {
        // Nobody reads.
        let _ = send(writer, &case.steps).await;
        return Outcome::default();
    }
    let mut conversation = Conversation {
        bytes: Vec::new(),
        at: 0,
        is_head: case.asks_for_heads(),
        outcome: Outcome::default(),
    };
    match conversation.hold(reader, writer, case).await {
        Ok(()) => conversation.outcome,
        Err(problem) => conversation.outcome.problem(problem),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut tried = 0;
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && tried < TRIES => {
                tried += 1;
                sleep(BETWEEN_TRIES).await;
            }
            connected => {
                let stream = connected?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
        }
    }
}

/// Does what the client does. That the server takes no more is for its answer to explain.
async fn send(mut writer: OwnedWriteHalf, steps: &[Step]) -> Sent {
    for step in steps {
        let sent = match step {
            Step::Send(bytes) => writer.write_all(bytes).await,
            Step::Drip(bytes, every) => drip(&mut writer, bytes, *every).await,
            Step::Pause(time) => {
                sleep(*time).await;
                Ok(())
            }
            Step::HalfClose => return Sent::Closed,
            Step::Reset => {
                // If that fails the connection is gone already.
                let _ = writer.as_ref().set_zero_linger();
                // Dropped, it would say that there is no more.
                writer.forget();
                return Sent::Left;
            }
        };
        if sent.is_err() {
            return Sent::Closed;
        }
    }
    Sent::All(writer)
}

async fn drip(writer: &mut OwnedWriteHalf, bytes: &[u8], every: Duration) -> io::Result<()> {
    for byte in bytes {
        writer.write_all(&[*byte]).await?;
        sleep(every).await;
    }
    Ok(())
}

/// What has come over a connection.
struct Conversation {
    bytes: Vec<u8>,
    /// The begin of what was not understood yet.
    at: usize,
    is_head: bool,
    outcome: Outcome,
}

impl Conversation {
    /// Sends and reads until what is due is there. An error is a problem.
    async fn hold(
        &mut self,
        mut reader: tokio::net::tcp::OwnedReadHalf,
        writer: OwnedWriteHalf,
        case: &Case,
    ) -> Result<(), String> {
        let (least, patience) = match case.due {
            Due::Answer => (1, PATIENCE),
            Due::Either(least) => (least, PATIENCE),
            Due::CutOff => (0, CUT_OFF),
            Due::Nothing => return Ok(()),
        };
        let mut sending = pin!(send(writer, &case.steps));
        // Whether the client did its part, and by what it may still say that there is no more.
        let (mut has_sent, mut open) = (false, None);
        loop {
            let enough = self.outcome.statuses.len() >= least;
            if enough && case.due == Due::Answer {
                return Ok(());
            }
            // Who does not know what the server waits for tells it that there is no more.
            let may_close = matches!(case.due, Due::Either(_)) && enough && open.is_some();
            let wait = if may_close { GRACE } else { patience };
            let read = tokio::select! {
                ended = &mut sending, if !has_sent => {
                    has_sent = true;
                    open = match ended {
                        Sent::All(writer) => Some(writer),
                        Sent::Closed => None,
                        Sent::Left => return Ok(()),
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
                Ok(Ok(1..)) => self.understand(false)?,
                // A reset is an end as well: what the server did not read it resets.
                Ok(Ok(0) | Err(_)) => return self.end(case.due, has_sent && open.is_none()),
            }
        }
    }

    /// Takes the answers that have come.
    fn understand(&mut self, is_all: bool) -> Result<(), String> {
        while self.at < self.bytes.len() {
            match find(&self.bytes[self.at..], is_all, self.is_head) {
                Found::Whole { status, length } => {
                    self.at += length;
                    // Others follow these.
                    if status >= 200 {
                        self.outcome.statuses.push(status);
                    }
                }
                Found::Part => break,
                Found::Wrong(what) => return Err(what),
            }
        }
        Ok(())
    }

    /// The server has ended the connection; `has_left` if the client said before that it sends no
    /// more.
    fn end(&mut self, due: Due, has_left: bool) -> Result<(), String> {
        self.understand(true)?;
        let answers = self.outcome.statuses.len();
        self.outcome.is_closed = answers == 0;
        let least = match due {
            Due::Answer => 1,
            Due::Either(least) => least,
            Due::CutOff | Due::Nothing => 0,
        };
        if answers < least {
            return Err(format!("closed after {answers} answers, where {least} were due"));
        }
        // An answer ends early only for those who said that they would send no more, which is how
        // most clients leave.
        if self.at < self.bytes.len() && !has_left && due != Due::CutOff {
            return Err("an answer was cut off".to_owned());
        }
        Ok(())
    }
}
