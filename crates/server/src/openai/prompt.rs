//! What becomes of a prompt's tokens before the model sees them: vLLM's `truncate_prompt_tokens`
//! and `truncation_side`.

use serde_json::Value;

use crate::http::{
    error::ApiError,
    fields::{Fields, whole},
};

const LENGTH: &str = "truncate_prompt_tokens";
const SIDE: &str = "truncation_side";

/// How a long prompt is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truncation {
    /// The most tokens that stay; `None` is as many as there is room for beside the answer.
    most: Option<usize>,
    side: Side,
}

/// Where tokens are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Truncation {
    pub(super) fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let side = match fields.string(SIDE)?.as_deref() {
            None | Some("left") => Side::Left,
            Some("right") => Side::Right,
            Some(other) => {
                let problem = format!("is `{other}`, but must be `left` or `right`");
                return Err(fields.complain(SIDE, &problem));
            }
        };
        let most = match fields.take(LENGTH) {
            None => return Ok(None),
            Some(value) if value == -1 => None,
            Some(value) => match length(&value) {
                Some(most) => Some(most),
                None => {
                    let problem =
                        format!("is {value}, but must be a whole number: 1 or more, or -1 for what fits");
                    return Err(fields.complain(LENGTH, &problem));
                }
            },
        };
        Ok(Some(Self { most, side }))
    }

    /// Cuts a prompt beside whose answer there is room for `room` tokens; says whether anything was
    /// dropped.
    pub(super) fn apply(self, prompt: &mut Vec<u32>, room: usize) -> bool {
        // The engine says what is wrong if there is no room for anything.
        let most = self.most.unwrap_or(room).max(1);
        let dropped = prompt.len().saturating_sub(most);
        match self.side {
            Side::Left => drop(prompt.drain(..dropped)),
            Side::Right => prompt.truncate(most),
        }
        dropped > 0
    }
}

fn length(value: &Value) -> Option<usize> {
    usize::try_from(whole(value)?).ok().filter(|&most| most > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(json: &str) -> (Vec<u32>, bool) {
        let mut fields = Fields::from_json(json.as_bytes()).expect("a test's own JSON");
        let truncation = Truncation::take(&mut fields).expect("valid").expect("given");
        let mut prompt = vec![1, 2, 3, 4];
        let dropped = truncation.apply(&mut prompt, 3);
        (prompt, dropped)
    }

    #[test]
    fn the_end_of_a_prompt_stays_unless_the_other_side_is_asked_for() {
        assert_eq!(cut(r#"{"truncate_prompt_tokens":2}"#), (vec![3, 4], true));
        assert_eq!(
            cut(r#"{"truncate_prompt_tokens":2,"truncation_side":"right"}"#),
            (vec![1, 2], true)
        );
        assert_eq!(cut(r#"{"truncate_prompt_tokens":-1}"#), (vec![2, 3, 4], true));
        assert_eq!(cut(r#"{"truncate_prompt_tokens":9}"#), (vec![1, 2, 3, 4], false));
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for (json, field) in [
            (r#"{"truncate_prompt_tokens":0}"#, LENGTH),
            (r#"{"truncate_prompt_tokens":-2}"#, LENGTH),
            (r#"{"truncate_prompt_tokens":"all"}"#, LENGTH),
            (r#"{"truncate_prompt_tokens":1,"truncation_side":"up"}"#, SIDE),
        ] {
            let mut fields = Fields::from_json(json.as_bytes()).expect("a test's own JSON");
            let error = Truncation::take(&mut fields).expect_err(json);
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }
}
