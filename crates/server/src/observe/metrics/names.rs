//! The names that have their own series.

use std::collections::HashSet;

/// The label that all other names share.
const OTHER: &str = "other";

/// The names with their own series, of which there is a limited number.
#[derive(Debug)]
pub(super) struct Names {
    most: usize,
    known: HashSet<String>,
}

impl Names {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            known: HashSet::new(),
        }
    }

    /// The label of the series of `name`.
    pub(super) fn label<'a>(&mut self, name: &'a str) -> &'a str {
        if self.known.contains(name) {
            return name;
        }
        if self.known.len() >= self.most {
            return OTHER;
        }
        self.known.insert(name.to_owned());
        name
    }

    /// Whether `label` has series.
    pub(super) fn has(&self, label: &str) -> bool {
        label == OTHER || label == super::MERGED || self.known.contains(label)
    }

    /// Removes and returns the names that are not `served` any more.
    pub(super) fn remove_others(&mut self, served: impl Fn(&str) -> bool) -> Vec<String> {
        let gone = self.known.extract_if(|name| !served(name));
        gone.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_have_their_own_label_and_who_goes_makes_room() {
        let mut names = Names::new(2);
        assert_eq!(
            ["a", "b", "c", "a"].map(|name| names.label(name)),
            ["a", "b", OTHER, "a"]
        );
        assert_eq!(names.remove_others(|name| name == "b"), ["a"]);
        assert_eq!(["c", "a", "b"].map(|name| names.label(name)), ["c", OTHER, "b"]);
    }
}
