//! Server-sent events: the `data:` lines of a stream that arrives in arbitrary parts.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

/// Collects bytes and returns the data of complete lines. Events of language model servers have one
/// `data:` line each, so that a line is an event.
#[derive(Debug, Default)]
pub struct DataLines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    at: usize,
}

impl DataLines {
    /// Adds the bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The text after `data:` in the next complete line that has it; `None` until more bytes
    /// arrive.
    #[expect(
        clippy::should_implement_trait,
        reason = "the line is borrowed from the buffer, which an iterator cannot express"
    )]
    pub fn next(&mut self) -> Option<&[u8]> {
        let line = loop {
            let rest = &self.buffer[self.at..];
            let length = rest.iter().position(|&byte| byte == b'\n')?;
            let line = self.at..self.at + length;
            self.at += length + 1;
            if self.buffer[line.clone()].trim_ascii().starts_with(b"data:") {
                break line;
            }
        };
        let line = self.buffer[line].trim_ascii();
        Some(line[b"data:".len()..].trim_ascii_start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_wherever_parts_end() {
        let text = b": keep-alive\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:[DONE]\n\ndata: cut";
        for cut in 0..text.len() {
            let mut lines = DataLines::default();
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
