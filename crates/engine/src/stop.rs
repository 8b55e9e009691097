//! Stop strings: found across token boundaries, and never sent in part.

/// Searches a text that arrives in pieces. Text that might be the beginning of a stop string is
/// held back until the following text decides.
///
/// Of several stop strings the one that is complete first wins; of those that are complete at the
/// same character, the longest wins. The released text does not depend on where the pieces were
/// cut.
#[derive(Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    include: bool,
    held: String,
    /// How many bytes of the held text came before stop strings count: one that ends there does not
    /// count.
    passed: usize,
}

/// A stop string was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The rest of the text, up to the stop string, or including it if it is to be included.
    pub(crate) text: String,
    /// The stop string.
    pub(crate) stop: String,
}

impl StopStrings {
    /// None of `stops` may be empty.
    pub(crate) fn new(stops: Vec<String>, include: bool) -> Self {
        Self {
            stops,
            include,
            held: String::new(),
            passed: 0,
        }
    }

    /// Adds a piece, and returns the text that is now certain to precede any stop string.
    pub(crate) fn push(&mut self, piece: &str) -> Result<String, Stopped> {
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| {
            // Occurrences may overlap: the first that ends late enough may begin within one that
            // ends too early.
            let mut starts = self.held.char_indices().map(|(start, _)| start);
            let start = starts.find(|&start| {
                start + stop.len() > self.passed && self.held[start..].starts_with(stop.as_str())
            })?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((end, start, stop)) = found.min() {
            let stop = stop.clone();
            self.held.truncate(if self.include { end } else { start });
            return Err(Stopped {
                text: std::mem::take(&mut self.held),
                stop,
            });
        }
        Ok(self.let_through())
    }

    /// Adds a piece in which no stop string counts that ends in it. One that continues after it
    /// counts.
    pub(crate) fn pass(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        self.passed = self.held.len();
        self.let_through()
    }

    /// Releases the held text that cannot be the beginning of a stop string.
    fn let_through(&mut self) -> String {
        let undecided = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - undecided);
        self.passed = self.passed.saturating_sub(self.held.len());
        std::mem::replace(&mut self.held, rest)
    }

    /// Releases all held text. The text has ended, so no stop string can follow from it.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest proper prefix of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).skip(1);
    lengths
        .filter(|&length| text.as_bytes().ends_with(&stop.as_bytes()[..length]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::cut;

    /// The first `early` pieces come before stop strings count.
    fn watch(pieces: &[String], early: usize, stops: &[String], include: bool) -> (String, Option<String>) {
        let mut watcher = StopStrings::new(stops.to_vec(), include);
        let (early, pieces) = pieces.split_at(early);
        let mut shown: String = early.iter().map(|piece| watcher.pass(piece)).collect();
        for piece in pieces {
            match watcher.push(piece) {
                Ok(text) => shown.push_str(&text),
                Err(stopped) => return (shown + &stopped.text, Some(stopped.stop)),
            }
        }
        (shown + &watcher.finish(), None)
    }

    #[test]
    fn text_that_cannot_be_a_stop_string_is_not_held_back() {
        let mut watcher = StopStrings::new(vec!["\n\nUser:".to_owned()], false);
        assert_eq!(watcher.push("Hello"), Ok("Hello".to_owned()));
        assert_eq!(watcher.push(" you\n"), Ok(" you".to_owned()));
        assert_eq!(watcher.push("\n"), Ok(String::new()));
        assert_eq!(watcher.push("\n"), Ok("\n".to_owned()));
        assert_eq!(watcher.push("Use"), Ok(String::new()));
        let stopped = Stopped {
            text: String::new(),
            stop: "\n\nUser:".to_owned(),
        };
        assert_eq!(watcher.push("r: hi"), Err(stopped));
    }

    #[test]
    fn without_stop_strings_everything_passes() {
        let mut watcher = StopStrings::new(Vec::new(), false);
        assert_eq!(watcher.push("any"), Ok("any".to_owned()));
        assert_eq!(watcher.finish(), "");
    }

    proptest! {
        #[test]
        fn stop_strings_are_found_as_in_the_whole_text(
            pieces in prop::collection::vec("[abä]{0,4}", 0..12),
            stops in prop::collection::vec("[abä]{1,4}", 0..4),
            early: prop::sample::Index,
            include: bool,
        ) {
            let whole = pieces.concat();
            let early = early.index(pieces.len() + 1);
            let from = pieces[..early].concat().len();
            prop_assert_eq!(watch(&pieces, early, &stops, include), cut(&whole, from, &stops, include));
        }

        #[test]
        fn what_is_shown_early_is_never_taken_back(
            pieces in prop::collection::vec("[ab]{0,3}", 0..12),
            stops in prop::collection::vec("[ab]{1,4}", 1..4),
        ) {
            let mut watcher = StopStrings::new(stops.clone(), false);
            let mut seen = String::new();
            let mut shown = String::new();
            for piece in &pieces {
                seen.push_str(piece);
                let Ok(text) = watcher.push(piece) else { break };
                shown.push_str(&text);
                // Only prefixes of a stop string are held back.
                let held = &seen[shown.len()..];
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)));
            }
        }
    }
}
