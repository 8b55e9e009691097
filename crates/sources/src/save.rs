//! Downloads to files that are complete or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use crate::error::FetchError;
use crate::transport::STALL;

/// Consecutive attempts without any new data before the download fails.
const ATTEMPTS: u32 = 4;

/// Base of the pause between attempts, which doubles with every fruitless attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream of received bytes.
pub(crate) type ByteStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// A file on another machine.
pub(crate) trait Remote {
    /// Its bytes from `start` on, and whether the stream really begins at `start`: some servers
    /// always send the whole file.
    fn read(&self, start: u64) -> impl Future<Output = Result<(ByteStream, bool), FetchError>>;
}

/// What the server announced about a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) size: u64,
    /// 64 hexadecimal digits, if known.
    pub(crate) sha256: Option<&'a str>,
}

/// Downloads `remote` to `path` and verifies it. Resumes from what an earlier attempt left in
/// `part`.
pub(crate) async fn save(
    remote: &impl Remote,
    expected: Expected<'_>,
    part: &Path,
    path: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), FetchError> {
    let mut fruitless = 0;
    loop {
        let before = size_of(part);
        let attempt = match before == expected.size {
            true => Ok(()),
            false => receive(remote, expected.size, part, progress).await,
        };
        let arrived = size_of(part);
        match attempt {
            Ok(()) if arrived == expected.size => break,
            Err(error) if !error.is_transient() => return Err(error),
            outcome => {
                fruitless = if arrived > before { 0 } else { fruitless + 1 };
                if fruitless >= ATTEMPTS {
                    return Err(outcome.err().unwrap_or(FetchError::Short {
                        arrived,
                        size: expected.size,
                    }));
                }
                sleep(PAUSE * 2_u32.pow(fruitless)).await;
            }
        }
    }
    if let Some(wanted) = expected.sha256 {
        let found = sha256(part).map_err(|source| FetchError::file(part, source))?;
        if !found.eq_ignore_ascii_case(wanted) {
            // A resumed download would be damaged too.
            let _ = fs::remove_file(part);
            return Err(FetchError::Damaged {
                wanted: wanted.to_owned(),
                found,
            });
        }
    }
    let settle = || -> io::Result<()> {
        File::open(part)?.sync_all()?;
        fs::rename(part, path)
    };
    settle().map_err(|source| FetchError::file(path, source))
}

async fn receive(
    remote: &impl Remote,
    size: u64,
    part: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), FetchError> {
    let mut have = size_of(part);
    if have > size {
        have = 0;
    }
    let stalled = |_| FetchError::Stalled;
    let (mut arriving, begins_there) = timeout(STALL, remote.read(have)).await.map_err(stalled)??;
    if !begins_there {
        have = 0;
    }
    let fail = |source| FetchError::file(part, source);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(part)
        .map_err(fail)?;
    file.set_len(have).map_err(fail)?;
    while let Some(bytes) = timeout(STALL, arriving.next()).await.map_err(stalled)? {
        let bytes = bytes?;
        have += bytes.len() as u64;
        if have > size {
            drop(file);
            let _ = fs::remove_file(part);
            return Err(FetchError::Long { size });
        }
        file.write_all(&bytes).map_err(fail)?;
        progress(have);
    }
    Ok(())
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hasher.update(&piece[..read]),
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Formats `bytes` as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
