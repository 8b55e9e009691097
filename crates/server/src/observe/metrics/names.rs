//! Which names have series of their own.

use std::collections::HashSet;

/// What names share that have none.
const OTHER: &str = "other";

/// Names with series of their own, at most so many.
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

    /// What the series of `name` are labelled with.
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

    /// Whether there are series of this label.
    pub(super) fn has(&self, label: &str) -> bool {
        label == OTHER || label == super::MERGED || self.known.contains(label)
    }

    /// Takes those out that are not `served` any more, and returns them.
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
