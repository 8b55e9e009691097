//! Server-sent events: lines out of parts that end anywhere.

/// Collects bytes and gives out the data of whole lines.
#[derive(Debug, Default)]
pub(in crate::commands::bench) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    at: usize,
}

impl Lines {
    /// Adds what came.
    pub(in crate::commands::bench) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// What stands after `data:` in the next whole line that has it.
    pub(in crate::commands::bench) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.at..];
            let length = rest.iter().position(|&byte| byte == b'\n')?;
            let begin = self.at;
            self.at += length + 1;
            let line = self.buffer[begin..begin + length].trim_ascii();
            if line.starts_with(b"data:") {
                let line = self.buffer[begin..begin + length].trim_ascii();
                return Some(line[b"data:".len()..].trim_ascii_start());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_wherever_parts_end() {
        let text = b": keep-alive\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:[DONE]\n\ndata: cut";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.push(part);
                while let Some(data) = lines.next() {
                    found.push(String::from_utf8_lossy(data).into_owned());
                }
            }
            assert_eq!(found, ["{\"a\":1}", "[DONE]"], "cut at {cut}");
        }
    }
}
