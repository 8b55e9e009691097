//! Cuts prompts that are too long: vLLM's `truncate_prompt_tokens` and `truncation_side`, TGI's
//! `truncate`.

use crate::{
    contract::{
        fields::openai::{TRUNCATE_PROMPT_TOKENS, TRUNCATION_SIDE},
        limits::Limits,
    },
    http::{error::ApiError, fields::Fields},
};

/// How a prompt that is too long is truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncation {
    /// The most tokens that are kept; `None` is as many as fit beside the answer.
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
    pub(crate) fn take(fields: &mut Fields, limits: &Limits) -> Result<Option<Self>, ApiError> {
        let side = match fields.one_of(&TRUNCATION_SIDE)? {
            Some("right") => Side::Right,
            _ => Side::Left,
        };
        let most = fields.count_or(&TRUNCATE_PROMPT_TOKENS, limits)?;
        Ok(most.map(|most| Self { most, side }))
    }

    /// Keeps the last `most` tokens.
    pub(crate) fn to_last(most: usize) -> Self {
        Self {
            most: Some(most),
            side: Side::Left,
        }
    }

    /// Truncates a prompt. `room` is the number of tokens that fit beside the answer.
    pub(crate) fn apply(self, prompt: &mut Vec<u32>, room: usize) {
        // At least one token is kept: if there is no room at all, the engine refuses with the
        // reason.
        let most = self.most.unwrap_or(room).max(1);
        let dropped = prompt.len().saturating_sub(most);
        match self.side {
            Side::Left => drop(prompt.drain(..dropped)),
            Side::Right => prompt.truncate(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(json: &str) -> Vec<u32> {
        let mut fields = Fields::from_json(json.as_bytes()).expect("a test's own JSON");
        let truncation = Truncation::take(&mut fields, &Limits::default())
            .expect("valid")
            .expect("given");
        let mut prompt = vec![1, 2, 3, 4];
        truncation.apply(&mut prompt, 3);
        prompt
    }

    #[test]
    fn the_end_of_a_prompt_stays_unless_the_other_side_is_asked_for() {
        assert_eq!(cut(r#"{"truncate_prompt_tokens":2}"#), vec![3, 4]);
        assert_eq!(
            cut(r#"{"truncate_prompt_tokens":2,"truncation_side":"right"}"#),
            vec![1, 2]
        );
        assert_eq!(cut(r#"{"truncate_prompt_tokens":-1}"#), vec![2, 3, 4]);
        assert_eq!(cut(r#"{"truncate_prompt_tokens":9}"#), vec![1, 2, 3, 4]);
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for (json, field) in [
            (r#"{"truncate_prompt_tokens":0}"#, TRUNCATE_PROMPT_TOKENS.name),
            (r#"{"truncate_prompt_tokens":-2}"#, TRUNCATE_PROMPT_TOKENS.name),
            (r#"{"truncate_prompt_tokens":"all"}"#, TRUNCATE_PROMPT_TOKENS.name),
            (
                r#"{"truncate_prompt_tokens":1,"truncation_side":"up"}"#,
                TRUNCATION_SIDE.name,
            ),
        ] {
            let mut fields = Fields::from_json(json.as_bytes()).expect("a test's own JSON");
            let error = Truncation::take(&mut fields, &Limits::default()).expect_err(json);
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }
}
