//! Schemas of answers, derived from their types.

use multigraft_api as api;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    manage::adapters::{llama_cpp, sglang},
    openai::{batches, chat, completions, embeddings, files, models, responses, types::Body},
    tgi::{embed, info, tokenize, types},
};

/// A schema for each type, by the name that the table of routes uses.
pub(super) fn answers() -> Vec<(&'static str, Value)> {
    let mut of = Generator::new();
    vec![
        ("Error", of.schema::<api::ErrorBody>()),
        (
            "TgiError",
            json!({"type": "object", "required": ["error", "error_type"], "properties": {
                "error": {"type": "string"}, "error_type": {"type": "string"},
            }}),
        ),
        ("Anything", json!({})),
        (
            "Event",
            json!({"type": "object", "required": ["data"], "properties": {"data": {"type": "string",
            "description": "JSON: a chunk of the answer or an error; at the end of OpenAI's streams [DONE]"}}}),
        ),
        ("Chat", of.schema::<Body<'static, chat::Choice>>()),
        ("Completion", of.schema::<Body<'static, completions::Choice>>()),
        ("Embeddings", of.schema::<embeddings::List>()),
        ("Response", of.schema::<responses::Body<'static>>()),
        ("File", of.schema::<files::File>()),
        ("Files", of.schema::<files::Page<files::File>>()),
        ("Deleted", of.schema::<files::Deleted>()),
        ("Batch", of.schema::<batches::Shown>()),
        ("Batches", of.schema::<files::Page<batches::Shown>>()),
        ("Model", of.schema::<models::Model>()),
        ("Models", of.schema::<models::List>()),
        ("Generated", of.schema::<types::Answered>()),
        ("Embedded", of.schema::<embed::Embeddings>()),
        ("Piece", of.schema::<tokenize::Piece>()),
        ("ChatTokenized", of.schema::<tokenize::ChatTokenized>()),
        ("Info", of.schema::<info::Info>()),
        ("Version", of.schema::<info::Version>()),
        ("Stats", of.schema::<info::Figures>()),
        ("Ready", of.schema::<api::Ready>()),
        ("Usages", of.schema::<api::UsageReport>()),
        ("Adapter", of.schema::<api::Adapter>()),
        ("Adapters", of.schema::<api::Adapters>()),
        ("SglangDone", of.schema::<sglang::Done>()),
        ("LlamaCppAdapter", of.schema::<llama_cpp::Adapter>()),
        ("Key", of.schema::<api::Key>()),
        ("Keys", of.schema::<api::Keys>()),
    ]
}

struct Generator(SchemaGenerator);

impl Generator {
    fn new() -> Self {
        // Subschemas are inlined, because types of several modules have the same name.
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with(|settings| settings.inline_subschemas = true);
        Self(settings.into_generator())
    }

    fn schema<T: JsonSchema>(&mut self) -> Value {
        let schema: Schema = T::json_schema(&mut self.0);
        schema.into()
    }
}
