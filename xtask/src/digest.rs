//! Is a downloaded file the one that was meant?

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// Fails unless the file has this size in bytes and this SHA-256 in hexadecimal.
pub(crate) fn verify(path: &Path, size: u64, sha256: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let found = file.metadata()?.len();
    ensure!(
        found == size,
        "{} has {found} bytes instead of {size}",
        path.display()
    );
    let mut hasher = Sha256::new();
    io::copy(
        &mut BufReader::with_capacity(1 << 20, file),
        &mut HashWriter(&mut hasher),
    )?;
    let found: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(
        found == sha256,
        "{} has SHA-256 {found} instead of {sha256}",
        path.display()
    );
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn only_the_right_bytes_pass() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        verify(&path, 3, ABC).unwrap();
        assert!(
            verify(&path, 4, ABC)
                .unwrap_err()
                .to_string()
                .contains("3 bytes instead of 4")
        );
        std::fs::write(&path, "abd").unwrap();
        assert!(
            verify(&path, 3, ABC)
                .unwrap_err()
                .to_string()
                .contains("instead of ba7816bf")
        );
    }
}
