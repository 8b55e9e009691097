//! `POST /tokenize` and `/chat_tokenize`: the tokens of a text or a chat.

use std::sync::Arc;

use axum::Json;
use multigraft_text::Detokenizer;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    caller::session::Session,
    contract::fields::{Body, openai, tgi as row},
    generation::{
        chat::{conversation::Conversation, tools::Tools},
        choice::ModelChoice,
        defaults::Defaults,
        request::Chat,
        tokens::encode,
    },
    http::{error::ApiError, fields::Fields},
};

/// A token and the part of the text that it stands for.
#[derive(Debug, Serialize, PartialEq, JsonSchema)]
pub(crate) struct Piece {
    id: u32,
    text: String,
    /// Where the part begins in the text, in characters.
    start: usize,
    /// Where the part ends. Tokens that stand for nothing in the text (BOS, the first parts of a
    /// character) have empty parts.
    stop: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatTokenized {
    tokenize_response: Vec<Piece>,
    templated_text: String,
}

/// `POST /tokenize`.
pub(crate) async fn tokenize(state: Session, mut fields: Fields) -> Result<Json<Vec<Piece>>, ApiError> {
    let Some(inputs) = fields.string(row::TOKENIZE_INPUTS)? else {
        return Err(fields.complain(row::TOKENIZE_INPUTS, "is missing"));
    };
    let add_special = fields.flag(row::ADD_SPECIAL_TOKENS)?.unwrap_or(true);
    fields.drop_unsupported(Body::Tokenize)?;
    fields.finish()?;
    Ok(Json(pieces(&state, "inputs", &inputs, add_special).await?))
}

/// `POST /chat_tokenize`: a chat request's messages after the chat template of its `model`.
pub(crate) async fn chat_tokenize(
    state: Session,
    mut fields: Fields,
) -> Result<Json<ChatTokenized>, ApiError> {
    let choice = fields.string(openai::MODEL)?.map(ModelChoice::model);
    let defaults = match &choice {
        Some(choice) => {
            choice.check(&state)?;
            state.defaults(choice)
        }
        None => Defaults::default(),
    };
    let add_special = fields.flag(openai::ADD_SPECIAL_TOKENS)?.unwrap_or(false);
    fields.drop_unsupported(Body::ChatTokenize)?;
    let tools = Tools::take(&mut fields)?;
    let conversation = Conversation::take(&mut fields, &defaults)?;
    fields.finish()?;
    // The template of an adapter is read with its files, so the adapter has to be loaded.
    let adapter_template = match &choice {
        Some(choice) => state.reserve(choice).await?.template,
        None => None,
    };
    let no_template = "the model has no chat template, so there is nothing that its messages become";
    let chat = Chat {
        field: openai::MESSAGES.name,
        conversation,
        tools,
        defaults,
        add_special,
        no_template: ApiError::invalid(openai::MESSAGES.name, no_template),
    };
    let (templated_text, _) = chat.text(&state, adapter_template.as_ref())?;
    Ok(Json(ChatTokenized {
        tokenize_response: pieces(&state, "messages", &templated_text, add_special).await?,
        templated_text,
    }))
}

async fn pieces(state: &Session, field: &str, text: &str, add_special: bool) -> Result<Vec<Piece>, ApiError> {
    let ids = encode(state.tokenizer(), field, text, add_special).await?;
    let mut detokenizer = Detokenizer::new(Arc::clone(state.tokenizer()), false);
    let mut position = Position { rest: text, at: 0 };
    Ok(ids
        .into_iter()
        .map(|id| {
            let start = position.at;
            position.advance(&detokenizer.push(id));
            Piece {
                id,
                text: state.tokenizer().token_text(id),
                start,
                stop: position.at,
            }
        })
        .collect())
}

/// The position in the text after the tokens so far.
struct Position<'a> {
    rest: &'a str,
    /// In characters.
    at: usize,
}

impl Position<'_> {
    /// Moves past `piece` if the text continues with it, perhaps without the leading space that
    /// some tokenizers add. If a tokenizer changed the text (normalised it), the position stays, so
    /// that it is never ahead of the tokens.
    fn advance(&mut self, piece: &str) {
        let rest = [piece, piece.trim_start()]
            .into_iter()
            .find_map(|piece| Some((self.rest.strip_prefix(piece)?, piece)));
        if let Some((rest, piece)) = rest {
            self.rest = rest;
            self.at += piece.chars().count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_and_skip_what_was_added() {
        let mut position = Position { rest: "é b", at: 0 };
        position.advance("<s>");
        assert_eq!(position.at, 0);
        position.advance(" é");
        assert_eq!(position.at, 1);
        position.advance(" b");
        assert_eq!((position.at, position.rest), (3, ""));
    }
}
