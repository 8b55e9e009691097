//! Reading server-sent events out of a body that arrives in parts.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

/// A line of data of an event. Every server that multigraft reads from writes an event's data in
/// one line, because it is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What stands after `event:`; empty if the event has no such line.
    pub kind: &'a [u8],
    /// What stands after `data:`.
    pub data: &'a [u8],
}

/// Collects the bytes of a body and gives out its events.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    next_line: usize,
    /// The kind of the event whose lines are being read.
    kind: Vec<u8>,
}

impl Events {
    /// Adds a part of the body, which may end anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.next_line);
        self.next_line = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line of data that has arrived whole. It is not held back until its event ends.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        loop {
            let rest = &self.buffer[self.next_line..];
            let length = rest.iter().position(|&byte| byte == b'\n')?;
            let begin = self.next_line;
            self.next_line += length + 1;
            let line = self.buffer[begin..begin + length].trim_ascii();
            if line.is_empty() {
                self.kind.clear();
            } else if let Some(kind) = line.strip_prefix(b"event:") {
                self.kind.clear();
                self.kind.extend_from_slice(kind.trim_ascii_start());
            } else if line.starts_with(b"data:") {
                let line = self.buffer[begin..begin + length].trim_ascii();
                return Some(Event {
                    kind: &self.kind,
                    data: line[b"data:".len()..].trim_ascii_start(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_parts_end() {
        let text = b": keep-alive\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:[DONE]\n\ndata: y\n\ndata: cut";
        for cut in 0..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                events.push(part);
                while let Some(event) = events.next_event() {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    found.push((text(event.kind), text(event.data)));
                }
            }
            let expected = [("", "{\"a\":1}"), ("x", "[DONE]"), ("", "y")];
            let expected = expected.map(|(kind, data)| (kind.to_owned(), data.to_owned()));
            assert_eq!(found, expected, "cut at {cut}");
        }
    }
}
