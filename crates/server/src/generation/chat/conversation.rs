//! A conversation, and the prompt that a chat template makes of it.

use multigraft_text::{ChatInput, ChatTemplate, Tokenizer};
use serde_json::{Map, Value, json};

use super::{
    continued,
    messages::normalise,
    tools::{self, Tools},
};
use crate::{
    contract::fields::openai as row,
    generation::defaults::Defaults,
    http::{error::ApiError, fields::Fields},
};

/// The input of a chat template, without the template.
#[derive(Debug)]
pub(crate) struct Conversation {
    messages: Vec<Value>,
    /// Whether the answer continues the last message.
    continues: bool,
    add_generation_prompt: bool,
    /// More variables of the template.
    extra: Map<String, Value>,
}

impl Conversation {
    /// Reads `messages` and the fields that control the template. The system message of `defaults`
    /// is added if there is none.
    pub(crate) fn take(fields: &mut Fields, defaults: &Defaults) -> Result<Self, ApiError> {
        let continues = fields.flag(row::CONTINUE_FINAL_MESSAGE)?.unwrap_or(false);
        let add_generation_prompt = match fields.flag(row::ADD_GENERATION_PROMPT)? {
            Some(true) if continues => {
                let problem = "and `continue_final_message` cannot both be true: an answer begins a turn or goes on with one";
                return Err(fields.complain(row::ADD_GENERATION_PROMPT, problem));
            }
            given => given.unwrap_or(!continues),
        };
        let mut messages = match fields.list(row::MESSAGES)? {
            Some(messages) => normalise(messages)?,
            None => return Err(fields.complain(row::MESSAGES, "is missing")),
        };
        let has_system = messages.iter().any(|message| message["role"] == "system");
        if let Some(system) = defaults.system().filter(|_| !has_system) {
            messages.insert(0, json!({"role": "system", "content": system}));
        }
        let extra = fields.object(row::CHAT_TEMPLATE_KWARGS)?;
        Ok(Self {
            messages,
            continues,
            add_generation_prompt,
            extra: extra.map_or_else(Map::new, Fields::into_rest),
        })
    }

    /// Renders the conversation with `template` and the special tokens of `tokenizer`.
    pub(crate) fn templated(
        self,
        template: &ChatTemplate,
        tools: Option<&Tools>,
        tokenizer: &Tokenizer,
    ) -> Result<String, ApiError> {
        let mut messages = tools::for_template(self.messages, tools, template);
        let mark = match self.continues {
            true => Some(continued::marked(&mut messages)?),
            false => None,
        };
        let described = tools.filter(|_| template.calls().is_some());
        let special = |id: Option<u32>| id.map_or_else(String::new, |id| tokenizer.token_text(id));
        let text = template
            .render(&ChatInput {
                messages: &messages,
                tools: described.map(|tools| tools.list.as_slice()),
                add_generation_prompt: self.add_generation_prompt,
                bos: &special(tokenizer.bos()),
                eos: &special(tokenizer.eos().first().copied()),
                extra: &self.extra,
            })
            .map_err(|error| ApiError::invalid("messages", error.to_string()))?;
        match mark {
            Some(mark) => continued::cut(text, &mark),
            None => Ok(text),
        }
    }
}
