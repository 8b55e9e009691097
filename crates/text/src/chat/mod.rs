//! Chat templates: from a conversation to the prompt that the model was trained to continue.
//!
//! A template is a Jinja program that comes with a model. It runs as in `transformers`: blocks are
//! trimmed, undefined values are empty, strings have Python's methods, values print as in Python,
//! and `raise_exception`, `strftime_now` (in UTC) and `tojson` are defined.
//!
//! A template sees the conversation and nothing else. Its length, the length of its tags, the
//! instructions it executes, the data it creates, the depth of its calls and the text it writes are
//! bounded (`environment`, `source`), and it runs on a stack that is large enough for the recursion
//! that remains possible (`stack`). These bounds stop faulty templates. They do not stop every
//! malicious one: the template engine counts a list that repeats the same parts (`x + x`, `[x, x]`)
//! as those few parts, and charges neither time nor memory when such a list is expanded, compared
//! or turned into a string. Do not run templates of people who must not be able to stop the server.

mod calls;
mod clock;
mod content;
mod environment;
mod json;
mod methods;
mod source;
mod stack;
mod tags;

use std::{fmt, path::Path};

use minijinja::{Environment, Value, context, value::Serde};
use multigraft_weights::gguf::Metadata;
use serde_json::Map;

use crate::TextError;
pub use calls::CallFormat;
use content::ContentForm;
pub use source::TEMPLATE_FILES;

/// The name of the template in its environment.
const DEFAULT: &str = "default";

/// The name of the template for conversations with tools, if the model has a separate one.
const TOOL_USE: &str = "tool_use";

/// Memory of an empty template, and memory per byte of a template's text, in bytes. Both were
/// measured, the latter with a template that is all code.
const ENVIRONMENT_BYTES: usize = 24 << 10;
const COMPILED: usize = 10;

/// A compiled chat template. Immutable; share it by `Arc`.
///
/// Rendering is bounded in instructions, data, depth and output. That is enough for faulty
/// templates, but not for templates that are written to exhaust the machine: run only templates of
/// models that you trust.
pub struct ChatTemplate {
    environment: Environment<'static>,
    form: ContentForm,
    has_tool_template: bool,
    calls: Option<CallFormat>,
}

/// A conversation, and the other variables of a template.
#[derive(Debug, Clone, Copy)]
pub struct ChatInput<'a> {
    /// The messages, as in OpenAI's API: objects with `role` and `content`, the latter a string, a
    /// list of `{"type": "text", "text": …}` parts, or null.
    pub messages: &'a [serde_json::Value],
    /// The tools the model may call, as JSON schemas.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Whether the text ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// The spelling of the beginning-of-text token (`bos_token` in the template); empty if there is
    /// none.
    pub bos: &'a str,
    /// The spelling of the end-of-text token (`eos_token` in the template); empty if there is none.
    pub eos: &'a str,
    /// Further variables (`chat_template_kwargs`). They override `bos_token` and `eos_token`, but
    /// not the conversation.
    pub extra: &'a Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    ///
    /// If it is not valid Jinja.
    pub fn new(source: &str) -> Result<Self, TextError> {
        Self::with_tool_use(source, None)
    }

    /// The template of a GGUF file, `None` if the file has none.
    ///
    /// # Errors
    ///
    /// If it is not a string or not valid Jinja.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>, TextError> {
        source::from_gguf(metadata)?
            .map(source::Source::compile)
            .transpose()
    }

    /// The template of a Hugging Face folder: `chat_template.jinja`, else the `chat_template` of
    /// `tokenizer_config.json`, else that of `chat_template.json`. `None` if the folder has none of
    /// them.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or the template is not valid Jinja.
    pub fn from_folder(path: &Path) -> Result<Option<Self>, TextError> {
        source::from_folder(path)?
            .map(source::Source::compile)
            .transpose()
    }

    /// The template in one file of such a folder, called `name`, which is one of
    /// [`TEMPLATE_FILES`]: Jinja, or JSON with a `chat_template` that is a string or a list of
    /// `{"name", "template"}`, of which `default` and `tool_use` are taken. `None` if it is JSON
    /// without a template.
    ///
    /// # Errors
    ///
    /// If the file does not have the format that its name promises, or the template is not valid
    /// Jinja. The message does not contain the name.
    pub fn from_file(name: &str, bytes: &[u8]) -> Result<Option<Self>, TextError> {
        source::from_file(name, bytes)
            .map_err(TextError::TemplateFile)?
            .map(source::Source::compile)
            .transpose()
    }

    fn with_tool_use(source: &str, tool_use: Option<&str>) -> Result<Self, TextError> {
        stack::with_large_stack(|| Self::compile(source, tool_use))
    }

    fn compile(source: &str, tool_use: Option<&str>) -> Result<Self, TextError> {
        let mut environment = environment::sandbox();
        let sources = [(DEFAULT, Some(source)), (TOOL_USE, tool_use)];
        for (name, source) in sources
            .into_iter()
            .filter_map(|(name, source)| Some((name, source?)))
        {
            environment
                .add_template_owned(name, source::prepare(source)?)
                .map_err(|error| TextError::TemplateSyntax(environment::describe(&error)))?;
        }
        let mut template = Self {
            environment,
            form: ContentForm::Text,
            has_tool_template: tool_use.is_some(),
            calls: None,
        };
        template.form = ContentForm::probe(|messages| template.render_messages(messages, None, &PROBE));
        template.calls = calls::probe(&template);
        Ok(template)
    }

    /// Approximate memory of the template, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |name| {
            let template = self.environment.get_template(name);
            template.map_or(0, |template| template.source().len())
        };
        ENVIRONMENT_BYTES + COMPILED * (length(DEFAULT) + length(TOOL_USE))
    }

    /// The source texts, the one without tools first, each with the name of the file in which
    /// `transformers` looks for it.
    pub fn sources(&self) -> impl Iterator<Item = (&'static str, String)> {
        let named = [(DEFAULT, source::JINJA), (TOOL_USE, source::TOOL_USE_JINJA)];
        named.into_iter().filter_map(|(name, file)| {
            let template = self.environment.get_template(name).ok()?;
            Some((file, template.source().to_owned()))
        })
    }

    /// How the model writes tool calls; `None` if the template does not show tools, or shows calls
    /// in an unknown format.
    #[must_use]
    pub fn calls(&self) -> Option<CallFormat> {
        self.calls
    }

    /// The text of a conversation.
    ///
    /// Content that is a list of parts is passed in the form that the template handles: as a list
    /// if the template iterates over the parts (it then sees parts that are not text, too),
    /// otherwise as the concatenated texts of the parts.
    ///
    /// # Errors
    ///
    /// The message of the template's `raise_exception`, why the template failed, or which limit it
    /// exceeded; or the message of the conversation that is not an object, or, if the template
    /// handles text only, that has a part which is not text.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String, TextError> {
        let messages = self.form.apply(input.messages)?;
        stack::with_large_stack(|| self.render_messages(&messages, input.tools, input))
    }

    fn render_messages(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&[serde_json::Value]>,
        input: &ChatInput<'_>,
    ) -> Result<String, TextError> {
        let name = if tools.is_some() && self.has_tool_template {
            TOOL_USE
        } else {
            DEFAULT
        };
        let template = self
            .environment
            .get_template(name)
            .map_err(|error| environment::failure(&error))?;
        let conversation = context! {
            messages => Value::from(Serde(messages)),
            tools => Value::from(Serde(tools)),
            add_generation_prompt => input.add_generation_prompt,
        };
        // The first definition of a name wins: a caller's variables never replace the conversation.
        let extra = Value::from(Serde(input.extra));
        let defaults = context! {
            documents => Value::from(()),
            bos_token => input.bos,
            eos_token => input.eos,
        };
        let mut out = environment::BoundedText::default();
        match template.render_captured_to(context! { ..conversation, ..extra, ..defaults }, &mut out) {
            Ok(_) => Ok(out.into_text()),
            Err(_) if out.is_full() => Err(TextError::TemplateLimit("output")),
            Err(error) => Err(environment::failure(&error)),
        }
    }
}

/// The other variables of a template while it is probed for the form of content that it handles.
static PROBE: std::sync::LazyLock<ChatInput<'static>> = std::sync::LazyLock::new(|| {
    static NOTHING: std::sync::LazyLock<Map<String, serde_json::Value>> = std::sync::LazyLock::new(Map::new);
    ChatInput {
        messages: &[],
        tools: None,
        add_generation_prompt: false,
        bos: "",
        eos: "",
        extra: &NOTHING,
    }
});

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("form", &self.form)
            .field("has_tool_template", &self.has_tool_template)
            .finish_non_exhaustive()
    }
}
