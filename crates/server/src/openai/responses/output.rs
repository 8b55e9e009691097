//! Builds the items of a response from tokens, and the events of a stream.

use std::sync::Arc;

use multigraft_engine::{Event, Finish, FinishReason, Token};
use multigraft_text::Tokenizer;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    generation::{
        chat::tools::{self, CallParser, Calling, Piece},
        stream::Chunks,
    },
    http::id::unique_id,
};

/// A part of a response.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    Message {
        id: String,
        role: &'static str,
        status: &'static str,
        content: Vec<Part>,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        arguments: String,
        status: &'static str,
    },
}

/// A message's text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
    annotations: [(); 0],
    logprobs: [(); 0],
}

impl Part {
    fn new(text: String) -> Self {
        Self {
            kind: "output_text",
            text,
            annotations: [],
            logprobs: [],
        }
    }
}

/// Sends events with sequence numbers into a stream, or nowhere if the answer is not streamed.
#[derive(Default)]
pub(super) struct Events(u64);

impl Events {
    pub(super) fn push(&mut self, chunks: Option<&mut Chunks>, kind: &str, fields: impl Serialize) {
        #[derive(Serialize)]
        struct Numbered<'a, T> {
            #[serde(rename = "type")]
            kind: &'a str,
            sequence_number: u64,
            #[serde(flatten)]
            fields: T,
        }
        if let Some(chunks) = chunks {
            let numbered = Numbered {
                kind,
                sequence_number: self.0,
                fields,
            };
            chunks.named(kind, &numbered);
            self.0 += 1;
        }
    }
}

/// The items so far; the last of them may be open.
pub(super) struct Output {
    tokenizer: Arc<Tokenizer>,
    /// The parser of calls, if tools may be called.
    parser: Option<CallParser>,
    items: Vec<Item>,
    is_open: bool,
    /// The end of the answer.
    pub(super) finish: Option<Finish>,
    pub(super) events: Events,
}

impl Output {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, calling: Option<&Calling>) -> Self {
        Self {
            tokenizer,
            parser: calling.map(|calling| CallParser::new(calling.format, &calling.tools)),
            items: Vec::new(),
            is_open: false,
            finish: None,
            events: Events::default(),
        }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether `max_output_tokens` cut the answer off.
    pub(super) fn is_cut_off(&self) -> bool {
        let reason = self.finish.as_ref().map(|finish| &finish.reason);
        reason == Some(&FinishReason::Length)
    }

    /// Handles an event of the engine.
    pub(super) fn event(&mut self, event: Event, chunks: Option<&mut Chunks>) {
        match event {
            Event::Token(token) => self.token(&token, chunks),
            Event::Finished(finish) => self.finished(finish, chunks),
            _ => {}
        }
    }

    pub(super) fn token(&mut self, token: &Token, mut chunks: Option<&mut Chunks>) {
        let pieces = match &mut self.parser {
            Some(parser) => parser.push(&tools::text_of(token, &self.tokenizer)),
            None => vec![Piece::Text(token.text.clone())],
        };
        for piece in pieces {
            self.piece(piece, chunks.as_deref_mut());
        }
    }

    pub(super) fn finished(&mut self, finish: Finish, mut chunks: Option<&mut Chunks>) {
        let pieces = match &mut self.parser {
            Some(parser) => {
                let mut pieces = parser.push(&finish.text);
                pieces.extend(parser.finish());
                pieces
            }
            None => vec![Piece::Text(finish.text.clone())],
        };
        self.finish = Some(finish);
        for piece in pieces {
            self.piece(piece, chunks.as_deref_mut());
        }
        if self.items.is_empty() {
            self.open_message(chunks.as_deref_mut());
        }
        let status = match self.is_cut_off() {
            true => "incomplete",
            false => "completed",
        };
        self.close(status, chunks);
    }

    fn piece(&mut self, piece: Piece, mut chunks: Option<&mut Chunks>) {
        match piece {
            Piece::Text(more) if more.is_empty() => {}
            Piece::Text(more) => {
                if !self.is_open || !matches!(self.items.last(), Some(Item::Message { .. })) {
                    self.open_message(chunks.as_deref_mut());
                }
                let index = self.items.len() - 1;
                if let Some(Item::Message { id, content, .. }) = self.items.last_mut()
                    && let [part] = content.as_mut_slice()
                {
                    part.text.push_str(&more);
                    let fields = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": more, "logprobs": []});
                    self.events.push(chunks, "response.output_text.delta", fields);
                }
            }
            Piece::Call { id, name, .. } => {
                self.close("completed", chunks.as_deref_mut());
                self.open(
                    Item::FunctionCall {
                        id: unique_id("fc_"),
                        call_id: id,
                        name,
                        arguments: String::new(),
                        status: "in_progress",
                    },
                    chunks,
                );
            }
            Piece::Arguments { text, .. } => {
                let index = self.items.len().saturating_sub(1);
                if let Some(Item::FunctionCall { id, arguments, .. }) = self.items.last_mut() {
                    arguments.push_str(&text);
                    let fields = json!({"item_id": id, "output_index": index, "delta": text});
                    let kind = "response.function_call_arguments.delta";
                    self.events.push(chunks, kind, fields);
                }
            }
        }
    }

    fn open_message(&mut self, mut chunks: Option<&mut Chunks>) {
        self.close("completed", chunks.as_deref_mut());
        let id = unique_id("msg_");
        let message = Item::Message {
            id: id.clone(),
            role: "assistant",
            status: "in_progress",
            content: Vec::new(),
        };
        self.open(message, chunks.as_deref_mut());
        let part = Part::new(String::new());
        let fields =
            json!({"item_id": id, "output_index": self.items.len() - 1, "content_index": 0, "part": part});
        self.events.push(chunks, "response.content_part.added", fields);
        if let Some(Item::Message { content, .. }) = self.items.last_mut() {
            content.push(part);
        }
    }

    fn open(&mut self, item: Item, chunks: Option<&mut Chunks>) {
        let fields = json!({"output_index": self.items.len(), "item": item});
        self.events.push(chunks, "response.output_item.added", fields);
        self.items.push(item);
        self.is_open = true;
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, ended: &'static str, mut chunks: Option<&mut Chunks>) {
        if !self.is_open {
            return;
        }
        self.is_open = false;
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else { return };
        let mut done: Vec<(&str, Value)> = Vec::new();
        match item {
            Item::Message {
                id, status, content, ..
            } => {
                *status = ended;
                for part in content {
                    let at = json!({"item_id": id, "output_index": index, "content_index": 0});
                    let with = |name: &str, value: Value| {
                        let mut fields = at.clone();
                        fields[name] = value;
                        fields
                    };
                    let mut text = with("text", part.text.clone().into());
                    text["logprobs"] = json!([]);
                    done.push(("response.output_text.done", text));
                    done.push(("response.content_part.done", with("part", json!(part))));
                }
            }
            Item::FunctionCall {
                id,
                name,
                arguments,
                status,
                ..
            } => {
                *status = ended;
                let fields =
                    json!({"item_id": id, "output_index": index, "name": name, "arguments": arguments});
                done.push(("response.function_call_arguments.done", fields));
            }
        }
        done.push((
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        ));
        for (kind, fields) in done {
            self.events.push(chunks.as_deref_mut(), kind, fields);
        }
    }
}
