//! The fields of OpenAI's dialect, and those of vLLM, SGLang, llama.cpp and LoRAX on its routes.

use serde_json::{Value, json};

use super::{
    Body::{
        self, Chat, ChatTokenize, Completion, Embeddings, Numbered, Reasoning, Response, ResponseText,
        StreamOptions, StructuredOutputs, Weighted,
    },
    Field, Harmless, Kind, Range, Table, rows,
};
use crate::contract::limits::Limits;

/// The bodies of the two kinds of completion.
const BOTH: &[Body] = &[Chat, Completion];
/// The same and responses.
const GENERATING: &[Body] = &[Chat, Completion, Response];
/// The bodies that choose adapters in OpenAI's way.
const CHOOSING: &[Body] = &[Chat, Completion, Embeddings];

const OPENAI: Table = Table("openai.md", "both routes");
const CHATS: Table = Table("openai.md", "chats");
const COMPLETIONS: Table = Table("openai.md", "completions");
const VLLM: Table = Table("vllm.md", "both routes");
const VLLM_CHATS: Table = Table("vllm.md", "chats");
const RESPONSES: Table = Table("responses.md", "fields");
const EMBEDDINGS: Table = Table("embeddings.md", "fields");

const TEXT: Kind = Kind::Text { filled: false };
const FILLED: Kind = Kind::Text { filled: true };
const COUNT: Kind = Kind::Count { least: 0, most: None };
/// So many alternatives to a token.
const ALTERNATIVES: Kind = Kind::Count {
    least: 0,
    most: Some(|limits: &Limits| limits.alternatives),
};
/// So many answers.
const CHOICES: Kind = Kind::Count {
    least: 1,
    most: Some(|limits: &Limits| limits.choices),
};

const BOOKKEEPING: &str = "bookkeeping of OpenAI's own service; the server keeps nothing";
const SPEED: &str = "hints about speed; the prefix cache needs none";
const CONSTRAINED: &str = "see [constrained answers](constrained.md)";
const TOOLS_PAGE: &str = "see [tools](tools.md)";
const NO_MODEL: &str = "no model here reads it";
const UNPARSED: &str = "the server does not separate reasoning from the answer";
const KEEPS_NOTHING: &str = "the server stores no responses";
const NO_LOGPROBS: &str = "responses have no log-probabilities";

rows! {
    // OpenAI: both routes.
    MODEL = Field::new(&[Chat, Completion, Response, Embeddings, ChatTokenize], "model", TEXT, OPENAI,
        "an adapter's name, or the base's, which `\"\"` and `tgi` name too. A request that chooses no model is an error that lists the models");
    TEMPERATURE = Field::new(GENERATING, "temperature", Kind::Number(Range::between(0.0, 2.0)), OPENAI,
        "0 takes the most likely token, of equally likely ones the one of the lowest id").filled_by("temperature");
    TOP_P = Field::new(GENERATING, "top_p", Kind::Number(Range::between(0.0, 1.0)), OPENAI,
        "keeps the most likely tokens that together reach this probability").filled_by("top_p");
    FREQUENCY_PENALTY = Field::new(BOTH, "frequency_penalty", Kind::Number(Range::between(-2.0, 2.0)), OPENAI,
        "counts the tokens of the answer, not of the prompt").filled_by("frequency_penalty");
    PRESENCE_PENALTY = Field::new(BOTH, "presence_penalty", Kind::Number(Range::between(-2.0, 2.0)), OPENAI,
        "counts the tokens of the answer, not of the prompt").filled_by("presence_penalty");
    LOGIT_BIAS = Field::new(BOTH, "logit_bias", Kind::PerToken(Range::between(-100.0, 100.0)), OPENAI, "numbers that are added to the logits of these tokens");
    SEED = Field::new(BOTH, "seed", Kind::Integer, OPENAI,
        "the same seed gives the same answer, whatever else the server computes; choice `i` has the seed plus `i`");
    STOP = Field::new(BOTH, "stop", Kind::Texts(|limits| limits.stop_strings), OPENAI,
        "ends the answer; a string has at most 1,024 bytes").filled_by("stop");
    MAX_TOKENS = Field::new(BOTH, "max_tokens", COUNT, OPENAI,
        "the newer name, `max_completion_tokens`, wins. Default: 1,024, or what the context leaves").filled_by("max_tokens");
    MAX_COMPLETION_TOKENS = Field::new(BOTH, "max_completion_tokens", COUNT, OPENAI,
        "the newer name, `max_completion_tokens`, wins. Default: 1,024, or what the context leaves");
    N = Field::new(BOTH, "n", CHOICES, OPENAI, "answers to each prompt; prompts times `n` is at most 128");
    STREAM = Field::new(GENERATING, "stream", Kind::Flag, OPENAI,
        "the answer is a stream of server-sent events, ended by `[DONE]`");
    STREAM_OPTIONS = Field::new(BOTH, "stream_options", Kind::Nested(StreamOptions), OPENAI,
        "only with `stream`: true");
    INCLUDE_USAGE = Field::new(&[StreamOptions], "include_usage", Kind::Flag, OPENAI, "an extra last chunk has the usage");
    INCLUDE_OBFUSCATION = Field::ignored(&[StreamOptions], "include_obfuscation", OPENAI, "nothing is obfuscated");
    RESPONSE_FORMAT = Field::new(BOTH, "response_format", Kind::Object, OPENAI, CONSTRAINED);
    USER = Field::ignored(CHOOSING, "user", OPENAI, BOOKKEEPING);
    STORE = Field::ignored(BOTH, "store", OPENAI, BOOKKEEPING);
    METADATA = Field::ignored(BOTH, "metadata", OPENAI, BOOKKEEPING);
    SERVICE_TIER = Field::ignored(BOTH, "service_tier", OPENAI, BOOKKEEPING);
    SAFETY_IDENTIFIER = Field::ignored(BOTH, "safety_identifier", OPENAI, BOOKKEEPING);
    PROMPT_CACHE_KEY = Field::ignored(BOTH, "prompt_cache_key", OPENAI, SPEED);
    PROMPT_CACHE_RETENTION = Field::ignored(BOTH, "prompt_cache_retention", OPENAI, SPEED);
    PREDICTION = Field::ignored(BOTH, "prediction", OPENAI, SPEED);
    FUNCTIONS = Field::rejected(BOTH, "functions", "calling functions", Harmless::EMPTY_LIST, OPENAI,
        "the older name of [tools](tools.md)");
    FUNCTION_CALL = Field::rejected(BOTH, "function_call", "calling functions", Harmless::Values(&["\"none\"", "\"auto\""]), OPENAI,
        "the older name of [tool_choice](tools.md)");
    MODALITIES = Field::rejected(BOTH, "modalities", "anything but text", Harmless::ListOf(&["text"]), OPENAI,
        "answers are text");
    AUDIO = Field::rejected(BOTH, "audio", "audio", Harmless::Values(&["\"\""]), OPENAI, "answers are text");
    REASONING_EFFORT = Field::rejected(BOTH, "reasoning_effort", "choosing the effort of reasoning", Harmless::Values(&["\"\""]),
        OPENAI, NO_MODEL);
    VERBOSITY = Field::rejected(BOTH, "verbosity", "choosing the verbosity", Harmless::Values(&["\"\""]), OPENAI, NO_MODEL);
    WEB_SEARCH_OPTIONS = Field::rejected(BOTH, "web_search_options", "searching the web", Harmless::Values(&["\"\""]), OPENAI,
        "the server does not search");
    SUFFIX = Field::rejected(BOTH, "suffix", "filling in before a suffix", Harmless::Values(&["\"\""]), OPENAI,
        "the models here do not fill in");
    ADAPTER_SCALE = Field::new(CHOOSING, "adapter_scale", Kind::Number(Range::ALL), OPENAI,
        "multigraft's: multiplies an adapter's updates");
    ADAPTERS = Field::new(CHOOSING, "adapters", Kind::Objects(Some("Weighted")), OPENAI,
        "multigraft's: [several adapters](adapters.md) at once, each with `id` and `weight`");
    LORA = Field::new(CHOOSING, "lora", Kind::Objects(Some("Numbered")), OPENAI,
        "llama.cpp's: [several adapters](adapters.md) at once, each with `id` and `scale`");
    ADAPTER_SOURCE = Field::new(CHOOSING, "adapter_source", Kind::OneOf(&[("hub", ""), ("local", ""), ("s3", "")]), OPENAI,
        "LoRAX's: says what `model` is, see [LoRAX' dialect](lorax.md)");
    WEIGHTED_ID = Field::new(&[Weighted], "id", FILLED, OPENAI, "an entry of `adapters`: the adapter's name").required();
    WEIGHT = Field::new(&[Weighted], "weight", Kind::Number(Range::ALL), OPENAI,
        "an entry of `adapters`: what its updates are multiplied by; 1 if not given");
    NUMBERED_ID = Field::new(&[Numbered], "id", COUNT, OPENAI,
        "an entry of `lora`: the adapter's place in the list of `GET /lora-adapters`").required();
    SCALE = Field::new(&[Numbered], "scale", Kind::Number(Range::ALL), OPENAI,
        "an entry of `lora`: what its updates are multiplied by").required();

    // OpenAI: chats.
    MESSAGES = Field::new(&[Chat, ChatTokenize], "messages", Kind::Shape("list of messages", |_| json!({
        "type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"},
    })), CHATS, "`content` is a text or a list of text parts; images and audio are rejected; `developer` is `system`").required();
    LOGPROBS = Field::new(&[Chat], "logprobs", Kind::Flag, CHATS,
        "of the model's own distribution, before penalties, bias, temperature and filters");
    TOP_LOGPROBS = Field::new(&[Chat], "top_logprobs", ALTERNATIVES, CHATS,
        "alternatives to each token; only with `logprobs`: true");
    TOOLS = Field::new(&[Chat, Response, ChatTokenize], "tools", Kind::Shape("list of tools", |_| json!({
        "type": ["array", "null"], "items": {"type": "object"}, "maxItems": MOST_TOOLS,
    })), CHATS, TOOLS_PAGE);
    TOOL_CHOICE = Field::new(&[Chat, Response, ChatTokenize], "tool_choice", Kind::Shape("string or object", |_| json!({
        "type": ["string", "object", "null"],
    })), CHATS, TOOLS_PAGE);
    PARALLEL_TOOL_CALLS = Field::new(&[Chat, Response, ChatTokenize], "parallel_tool_calls", Kind::Flag, CHATS, TOOLS_PAGE);
    CHAT_BEST_OF = Field::rejected(&[Chat], "best_of", "choosing the best of several answers of a chat", Harmless::Values(&["1"]),
        CHATS, "a field of completions");
    ECHO_OF_CHAT = Field::rejected(&[Chat], "echo", "repeating a conversation in its answer", Harmless::Values(&["false"]), CHATS,
        "a field of completions");
    DOCUMENTS = Field::rejected(&[Chat], "documents", "documents beside the messages", Harmless::EMPTY_LIST, CHATS,
        "the server retrieves nothing");

    // OpenAI: completions.
    PROMPT = Field::new(&[Completion], "prompt", Kind::Shape("string, list of token ids, or list of either", prompts),
        COMPLETIONS, "prompts times `n` is at most 128").required();
    COMPLETION_LOGPROBS = Field::new(&[Completion], "logprobs", ALTERNATIVES, COMPLETIONS, "alternatives to each token");
    ECHO = Field::new(&[Completion], "echo", Kind::Flag, COMPLETIONS,
        "the prompt comes before the answer, with `logprobs` its tokens' too; with `max_tokens: 0` the prompt is only scored");
    BEST_OF = Field::new(&[Completion], "best_of", CHOICES, COMPLETIONS,
        "so many answers are generated to each prompt, of which the `n` of the highest mean log-probability are returned, best first. Not with `stream`. The usage counts all");

    // vLLM: both routes.
    TOP_K = Field::new(BOTH, "top_k", Kind::CountOr { others: &[0, -1], meaning: "all" }, VLLM, "0 and -1 keep all tokens").filled_by("top_k");
    MIN_P = Field::new(BOTH, "min_p", Kind::Number(Range::between(0.0, 1.0)), VLLM,
        "drops tokens that are less likely than this part of the most likely one's probability");
    TYPICAL_P = Field::new(BOTH, "typical_p", Kind::Number(Range::between(0.0, 1.0).above()), VLLM,
        "keeps the most typical tokens that together reach this probability");
    REPETITION_PENALTY = Field::new(BOTH, "repetition_penalty", Kind::Number(Range::from(0.0).above()), VLLM,
        "counts the tokens of prompt and answer").filled_by("repetition_penalty");
    MIN_TOKENS = Field::new(BOTH, "min_tokens", COUNT, VLLM,
        "before an answer has so many tokens, end tokens and `stop_token_ids` are not chosen, and a `stop` that is complete by then does not count. Where nothing else can follow, as under a [constraint](constrained.md) that is complete, the answer ends all the same. At most `max_tokens`");
    STOP_TOKEN_IDS = Field::new(BOTH, "stop_token_ids", Kind::TokenIds, VLLM, "tokens that end the answer");
    IGNORE_EOS = Field::new(BOTH, "ignore_eos", Kind::Flag, VLLM, "end tokens do not end the answer; `ignore_eos_token` is LoRAX's name");
    IGNORE_EOS_TOKEN = Field::new(BOTH, "ignore_eos_token", Kind::Flag, VLLM,
        "end tokens do not end the answer; `ignore_eos_token` is LoRAX's name");
    INCLUDE_STOP_STR = Field::new(BOTH, "include_stop_str_in_output", Kind::Flag, VLLM, "the answer contains the `stop` string that ended it");
    SKIP_SPECIAL_TOKENS = Field::new(BOTH, "skip_special_tokens", Kind::Flag, VLLM,
        "false: special tokens are in the text; the token that ends the answer is so only with `include_stop_str_in_output`");
    PROMPT_LOGPROBS = Field::new(BOTH, "prompt_logprobs", ALTERNATIVES, VLLM,
        "each token of the prompt but the first with its log-probability and rank, then so many of the most likely ones. Ranks are exact: the place among all tokens, of equals the lowest id first. In each choice of completions, beside the choices of a chat. Not with `stream`; -1 (the whole vocabulary) is rejected. With it `max_tokens` of completions may be 0");
    TRUNCATE_PROMPT_TOKENS = Field::new(BOTH, "truncate_prompt_tokens", Kind::CountOr { others: &[-1], meaning: "what fits" }, VLLM,
        "keeps the last so many tokens of the prompt; -1 is what fits beside `max_tokens`");
    TRUNCATION_SIDE = Field::new(BOTH, "truncation_side", Kind::OneOf(&[("left", ""), ("right", "")]), VLLM,
        "where `truncate_prompt_tokens` drops tokens; `right` keeps the first ones");
    RETURN_TOKEN_IDS = Field::new(BOTH, "return_token_ids", Kind::Flag, VLLM,
        "`token_ids` in each choice; `prompt_token_ids` in each choice of completions, beside the choices of a chat; streams have the prompt's in the first chunk and each token's with it");
    RETURN_TOKENS_AS_TOKEN_IDS = Field::new(BOTH, "return_tokens_as_token_ids", Kind::Flag, VLLM,
        "log-probabilities name tokens `token_id:ID`; `bytes` and `text_offset` stay those of the text");
    CONTINUOUS_USAGE_STATS = Field::new(&[StreamOptions], "continuous_usage_stats", Kind::Flag, VLLM,
        "with `include_usage`: every chunk has the usage so far, of all choices together");
    ADD_SPECIAL_TOKENS = Field::new(&[Chat, Completion, Embeddings, ChatTokenize], "add_special_tokens", Kind::Flag, VLLM,
        "BOS before a prompt (default true); of a chat on top of the template's (default false)");
    CACHE_SALT = Field::new(CHOOSING, "cache_salt", FILLED, VLLM, "requests share cached prefixes with those of the same salt only");
    PRIORITY = Field::new(BOTH, "priority", Kind::Integer, VLLM,
        "of the requests that wait within one fair share (an adapter and a key's tenant, without keys a `cache_salt`) the lowest starts first, of equals the oldest. It does not affect other shares, and running requests continue");
    STRUCTURED_OUTPUTS = Field::new(BOTH, "structured_outputs", Kind::Nested(StructuredOutputs), VLLM, CONSTRAINED);
    STRUCTURED_JSON = Field::new(&[StructuredOutputs], "json", Kind::Any, VLLM, CONSTRAINED);
    STRUCTURED_REGEX = Field::new(&[StructuredOutputs], "regex", TEXT, VLLM, CONSTRAINED);
    STRUCTURED_CHOICE = Field::new(&[StructuredOutputs], "choice", Kind::Texts(most_texts), VLLM, CONSTRAINED);
    STRUCTURED_GRAMMAR = Field::new(&[StructuredOutputs], "grammar", TEXT, VLLM, CONSTRAINED);
    STRUCTURED_JSON_OBJECT = Field::new(&[StructuredOutputs], "json_object", Kind::Flag, VLLM, CONSTRAINED);
    GUIDED_JSON = Field::new(BOTH, "guided_json", Kind::Any, VLLM, CONSTRAINED);
    GUIDED_REGEX = Field::new(BOTH, "guided_regex", TEXT, VLLM, CONSTRAINED);
    GUIDED_CHOICE = Field::new(BOTH, "guided_choice", Kind::Texts(most_texts), VLLM, CONSTRAINED);
    GUIDED_GRAMMAR = Field::new(BOTH, "guided_grammar", TEXT, VLLM, CONSTRAINED);
    GUIDED_JSON_OBJECT = Field::new(BOTH, "guided_json_object", Kind::Flag, VLLM, CONSTRAINED);
    GRAMMAR = Field::new(BOTH, "grammar", TEXT, VLLM, "llama.cpp's: see [constrained answers](constrained.md)");
    JSON_SCHEMA = Field::new(BOTH, "json_schema", Kind::Any, VLLM, "llama.cpp's: see [constrained answers](constrained.md)");
    REGEX = Field::new(BOTH, "regex", TEXT, VLLM, "SGLang's: see [constrained answers](constrained.md)");
    EBNF = Field::new(BOTH, "ebnf", TEXT, VLLM, "SGLang's: see [constrained answers](constrained.md)");
    GUIDED_DECODING_BACKEND = Field::ignored(BOTH, "guided_decoding_backend", VLLM, "there is one backend");
    DISABLE_FALLBACK = Field::ignored(&[StructuredOutputs], "disable_fallback", VLLM, "there is one backend");
    DISABLE_ANY_WHITESPACE = Field::ignored(&[StructuredOutputs], "disable_any_whitespace", VLLM, "the white space in JSON is fixed");
    DISABLE_ADDITIONAL_PROPERTIES = Field::rejected(&[StructuredOutputs], "disable_additional_properties",
        "other properties than the schema's", Harmless::Values(&["false"]), VLLM, "the schema says what may be in an object");
    WHITESPACE_PATTERN = Field::rejected(&[StructuredOutputs], "whitespace_pattern", "choosing the blanks", Harmless::NOTHING, VLLM,
        "the white space in JSON is fixed");
    GUIDED_WHITESPACE_PATTERN = Field::rejected(BOTH, "guided_whitespace_pattern", "choosing the blanks", Harmless::NOTHING, VLLM,
        "the white space in JSON is fixed");
    STRUCTURAL_TAG = Field::rejected(&[StructuredOutputs], "structural_tag", "constraints within tags", Harmless::NOTHING, VLLM,
        "a constraint holds for the whole answer");
    SPACES_BETWEEN_SPECIAL_TOKENS = Field::ignored(BOTH, "spaces_between_special_tokens", VLLM, "the tokenizers here write none");
    REQUEST_ID = Field::ignored(BOTH, "request_id", VLLM, "the server makes its own ids");
    SESSION_ID = Field::ignored(BOTH, "session_id", VLLM, "the server makes its own ids");
    STREAM_INTERVAL = Field::ignored(BOTH, "stream_interval", VLLM, "every token is a chunk");
    INCLUDE_REASONING = Field::rejected(BOTH, "include_reasoning", "leaving reasoning out", Harmless::Values(&["true"]), VLLM, UNPARSED);
    WATERMARKING = Field::rejected(BOTH, "watermarking", "a watermark", Harmless::Values(&["false"]), VLLM, "there is no watermark");
    USE_BEAM_SEARCH = Field::rejected(BOTH, "use_beam_search", "beam search", Harmless::Values(&["false"]), VLLM, "there is no beam search");
    LENGTH_PENALTY = Field::rejected(BOTH, "length_penalty", "beam search", Harmless::Values(&["1", "1.0"]), VLLM, "there is no beam search");
    BAD_WORDS = Field::rejected(BOTH, "bad_words", "words that may not come", Harmless::EMPTY_LIST, VLLM, "use `logit_bias`");
    ALLOWED_TOKEN_IDS = Field::rejected(BOTH, "allowed_token_ids", "choosing among some tokens", Harmless::EMPTY_LIST, VLLM,
        "use a [constraint](constrained.md)");
    LOGPROB_TOKEN_IDS = Field::rejected(BOTH, "logprob_token_ids", "log-probabilities of chosen tokens", Harmless::EMPTY_LIST, VLLM,
        "use `logprobs`");
    API_TOKEN = Field::rejected(BOTH, "api_token", super::tgi::OWN_TOKEN, Harmless::Values(&["\"\""]), VLLM,
        "LoRAX's; the server fetches with its own `HF_TOKEN`");

    // vLLM: chats.
    ADD_GENERATION_PROMPT = Field::new(&[Chat, ChatTokenize], "add_generation_prompt", Kind::Flag, VLLM_CHATS,
        "false: the prompt does not begin the assistant's turn");
    CONTINUE_FINAL_MESSAGE = Field::new(&[Chat, ChatTokenize], "continue_final_message", Kind::Flag, VLLM_CHATS,
        "the answer goes on with the last message, which the template leaves open. `add_generation_prompt` is then false by default, and true is rejected. A last message without text is rejected");
    CHAT_TEMPLATE_KWARGS = Field::new(&[Chat, ChatTokenize], "chat_template_kwargs", Kind::Object, VLLM_CHATS, "more variables of the template");
    CHAT_TEMPLATE = Field::rejected(&[Chat, ChatTokenize], "chat_template", "another chat template", Harmless::Values(&["\"\""]), VLLM_CHATS,
        "an adapter has one in its [defaults](adapters.md) or its [folder](adapters.md#chat-template-of-an-adapter)");

    // Responses.
    INPUT = Field::new(&[Response], "input", Kind::Shape("string or list of items", |_| json!({
        "type": ["string", "array"], "minLength": 1, "minItems": 1,
    })), RESPONSES, "the conversation").required();
    INSTRUCTIONS = Field::new(&[Response], "instructions", TEXT, RESPONSES, "a system message before the input");
    MAX_OUTPUT_TOKENS = Field::new(&[Response], "max_output_tokens", Kind::Count { least: 1, most: None }, RESPONSES,
        "if this limit cuts the answer off, `status` is `incomplete`");
    RESPONSE_TEXT = Field::new(&[Response], "text", Kind::Nested(ResponseText), RESPONSES, "the form of the answer");
    TEXT_FORMAT = Field::new(&[ResponseText], "format", Kind::Object, RESPONSES,
        "`type` is `text`, `json_object`, or `json_schema` with `schema`, which is always enforced");
    TEXT_VERBOSITY = Field::rejected(&[ResponseText], "verbosity", "choosing the verbosity", Harmless::Values(&["\"medium\""]), RESPONSES, NO_MODEL);
    RESPONSE_METADATA = Field::new(&[Response], "metadata", Kind::Object, RESPONSES, "repeated in the answer");
    RESPONSE_USER = Field::new(&[Response], "user", TEXT, RESPONSES, "repeated in the answer");
    MAX_TOOL_CALLS = Field::ignored(&[Response], "max_tool_calls", RESPONSES, "bounds calls of OpenAI's built-in tools, which are rejected");
    RESPONSE_STORE = Field::rejected(&[Response], "store", "this server keeps no responses, so storing one", Harmless::Values(&["false"]), RESPONSES,
        KEEPS_NOTHING);
    PREVIOUS_RESPONSE_ID = Field::rejected(&[Response], "previous_response_id",
        "this server keeps no responses: send the whole conversation as `input`; going on from one", Harmless::NOTHING, RESPONSES, KEEPS_NOTHING);
    CONVERSATION = Field::rejected(&[Response], "conversation",
        "this server keeps no responses: send the whole conversation as `input`; adding to a conversation", Harmless::NOTHING, RESPONSES,
        KEEPS_NOTHING);
    BACKGROUND = Field::rejected(&[Response], "background", "answering later than at once", Harmless::Values(&["false"]), RESPONSES, KEEPS_NOTHING);
    STORED_PROMPT = Field::rejected(&[Response], "prompt", "a prompt that is stored", Harmless::NOTHING, RESPONSES, KEEPS_NOTHING);
    TRUNCATION = Field::rejected(&[Response], "truncation", "dropping the middle of a conversation", Harmless::Values(&["\"disabled\""]), RESPONSES,
        "the server drops no messages");
    CONTEXT_MANAGEMENT = Field::rejected(&[Response], "context_management", "compacting a conversation", Harmless::EMPTY_LIST, RESPONSES,
        "the server drops no messages");
    RESPONSE_N = Field::rejected(&[Response], "n", "more answers than one", Harmless::Values(&["1"]), RESPONSES, "a response is one answer");
    RESPONSE_LOGPROBS = Field::rejected(&[Response], "logprobs", "log-probabilities in a response", Harmless::Values(&["false"]), RESPONSES, NO_LOGPROBS);
    RESPONSE_TOP_LOGPROBS = Field::rejected(&[Response], "top_logprobs", "log-probabilities in a response", Harmless::Values(&["0"]), RESPONSES,
        NO_LOGPROBS);
    INCLUDE = Field::rejected(&[Response], "include", "including more in a response", Harmless::ListOf(&["reasoning.encrypted_content"]), RESPONSES,
        "an answer has nothing else to include");
    REASONING = Field::new(&[Response], "reasoning", Kind::Nested(Reasoning), RESPONSES, "accepted as far as it asks for nothing");
    REASONING_SUMMARY = Field::ignored(&[Reasoning], "summary", RESPONSES, UNPARSED);
    REASONING_GENERATE_SUMMARY = Field::ignored(&[Reasoning], "generate_summary", RESPONSES, UNPARSED);
    RESPONSE_EFFORT = Field::rejected(&[Reasoning], "effort", "choosing the effort of reasoning", Harmless::Values(&["\"none\""]), RESPONSES, NO_MODEL);

    // Embeddings.
    EMBEDDINGS_INPUT = Field::new(&[Embeddings], "input", Kind::Shape("string, list of token ids, or list of either", prompts), EMBEDDINGS,
        "at most 2,048 inputs, or the length of the queue (`--max-waiting`)").required();
    POOLING = Field::new(&[Embeddings, Body::EmbedParameters], "pooling", Kind::OneOf(&[("mean", " (of all positions)"), ("last", " (the last position)")]), EMBEDDINGS,
        "the mean of the hidden states of all positions (the default), or the hidden state of the last position");
    ENCODING_FORMAT = Field::new(&[Embeddings], "encoding_format", Kind::OneOf(&[("float", ""), ("base64", "")]), EMBEDDINGS,
        "`base64` is of 32-bit floats, little-endian");
    DIMENSIONS = Field::new(&[Embeddings], "dimensions", COUNT, EMBEDDINGS,
        "only the model's own width: a prefix of a causal model's embedding has no meaning");
}

/// The most tools, as in OpenAI's API.
pub(crate) const MOST_TOOLS: usize = 128;

/// The most texts that a constraint chooses among.
const fn most_texts(_: &Limits) -> usize {
    1000
}

fn prompts(_: &Limits) -> Value {
    json!({"type": ["string", "array"], "minItems": 1, "items": {"type": ["string", "integer", "array"]}})
}
