//! The fields of TGI's dialect, and those that LoRAX adds.

use super::{
    Body::{Embed, EmbedParameters, Generate, Merged, Parameters, Tokenize},
    Field, Harmless, Kind, Range, Table, rows,
};
use crate::contract::limits::Limits;

const TGI: Table = Table("tgi.md", "fields");
const LORAX: Table = Table("lorax.md", "fields");

/// What a field that carries a token of the adapter's source asks for.
pub(super) const OWN_TOKEN: &str = "a token of the request's own: the server fetches with its HF_TOKEN";

const POSITIVE: Kind = Kind::Count { least: 1, most: None };
/// So many alternatives to a token.
const ALTERNATIVES: Kind = Kind::Count {
    least: 0,
    most: Some(|limits: &Limits| limits.alternatives),
};
const DRAWS: &str = "its presence makes `do_sample` true; exactly 1 is accepted too";

rows! {
    INPUTS = Field::new(&[Generate, Embed], "inputs", Kind::Text { filled: true }, TGI, "the prompt").required();
    TOKENIZE_INPUTS = Field::new(&[Tokenize], "inputs", Kind::Text { filled: false }, TGI, "of `/tokenize`: may be empty").required();
    STREAM = Field::new(&[Generate], "stream", Kind::Flag, TGI, "on `/`; `/generate` and `/generate_stream` reject the other's");
    UNREAD_STREAM = Field::ignored(&[Embed, Tokenize], "stream", TGI, "of `/tokenize` and `/embed`: their answers are in one piece");
    ADD_SPECIAL_TOKENS = Field::new(&[Generate, Tokenize], "add_special_tokens", Kind::Flag, TGI, "BOS before the prompt; default true");
    OPTIONS = Field::ignored(&[Generate], "options", TGI, "about the cache of Hugging Face's hosted service");
    PARAMETERS = Field::new(&[Generate], "parameters", Kind::Nested(Parameters), TGI, "the fields below");
    EMBED_PARAMETERS = Field::new(&[Embed], "parameters", Kind::Nested(EmbedParameters), TGI,
        "of `/embed`: those that choose an adapter, and [`pooling`](embeddings.md)");
    UNREAD_PARAMETERS = Field::ignored(&[Tokenize], "parameters", TGI, "of `/tokenize`: they do not change the tokens");
    ADAPTER_ID = Field::new(&[Parameters, EmbedParameters], "adapter_id", Kind::Text { filled: false }, TGI,
        "an adapter's name, or its source; absent or empty, the base. A name that is not served is a 404");
    DO_SAMPLE = Field::new(&[Parameters], "do_sample", Kind::Flag, TGI,
        "tokens are sampled if it is true or one of the next four is given; else the most likely one is taken");
    TEMPERATURE = Field::new(&[Parameters], "temperature", Kind::Number(Range::from(0.0)), TGI,
        "0 takes the most likely token, also with `do_sample`, as in LoRAX").filled_by("temperature");
    TOP_K = Field::new(&[Parameters], "top_k", POSITIVE, TGI, DRAWS).filled_by("top_k");
    TOP_P = Field::new(&[Parameters], "top_p", Kind::Number(Range::between(0.0, 1.0).above()), TGI, DRAWS).filled_by("top_p");
    TYPICAL_P = Field::new(&[Parameters], "typical_p", Kind::Number(Range::between(0.0, 1.0).above()), TGI, DRAWS);
    SEED = Field::new(&[Parameters], "seed", Kind::Count { least: 0, most: None }, TGI, "the same seed gives the same answer");
    REPETITION_PENALTY = Field::new(&[Parameters], "repetition_penalty", Kind::Number(Range::from(0.0).above()), TGI,
        "counts the tokens of prompt and answer").filled_by("repetition_penalty");
    FREQUENCY_PENALTY = Field::new(&[Parameters], "frequency_penalty", Kind::Number(Range::between(-2.0, 2.0)), TGI,
        "counts the tokens of the answer, not of the prompt").filled_by("frequency_penalty");
    MAX_NEW_TOKENS = Field::new(&[Parameters], "max_new_tokens", POSITIVE, TGI, "default: 100, or what the context leaves").filled_by("max_tokens");
    STOP = Field::new(&[Parameters], "stop", Kind::Texts(|limits| limits.stop_strings), TGI,
        "ends the answer, which contains the string that ended it").filled_by("stop");
    TRUNCATE = Field::new(&[Parameters], "truncate", POSITIVE, TGI, "keeps the last so many tokens of the prompt");
    RETURN_FULL_TEXT = Field::new(&[Parameters], "return_full_text", Kind::Flag, TGI, "the prompt comes before the answer");
    BEST_OF = Field::new(&[Parameters], "best_of", Kind::Count { least: 1, most: Some(|limits: &Limits| limits.choices) }, TGI,
        "so many answers are sampled; the one of the highest mean log-probability is returned, the others are `details.best_of_sequences`. Not with a `seed`, in a stream, or if nothing is sampled. `/info` has `max_best_of`. All count for limits and usage");
    DETAILS = Field::new(&[Parameters], "details", Kind::Flag, TGI,
        "`finish_reason`, `generated_tokens`, `seed`, `prefill`, `tokens`; multigraft's: `adapter_id`, `adapter_hash`, `adapter_scale`");
    DECODER_INPUT_DETAILS = Field::new(&[Parameters], "decoder_input_details", Kind::Flag, TGI,
        "`prefill` has the prompt's tokens; implies `details`; not in streams");
    TOP_N_TOKENS = Field::new(&[Parameters], "top_n_tokens", ALTERNATIVES, TGI, "`top_tokens`, in `details` and in each event");
    GRAMMAR = Field::new(&[Parameters], "grammar", Kind::Object, TGI, "see [constrained answers](constrained.md)");
    WATERMARK = Field::rejected(&[Parameters], "watermark", "a watermark", Harmless::Values(&["false"]), TGI, "there is no watermark");

    // LoRAX, and multigraft.
    ADAPTER_SOURCE = Field::new(&[Parameters, EmbedParameters], "adapter_source", Kind::OneOf(&[("hub", ""), ("local", ""), ("s3", "")]), LORAX,
        "says what `adapter_id` is: `hub` and `s3` are where `--allow-source` lets adapters be fetched from on first use, `local` is a name or folder; `pbase` is rejected");
    MERGED_ADAPTERS = Field::new(&[Parameters, EmbedParameters], "merged_adapters", Kind::Nested(Merged), LORAX,
        "several adapters, merged to the numbers of PEFT's `add_weighted_adapter`");
    MERGED_IDS = Field::new(&[Merged], "ids", Kind::Texts(|_| multigraft_peft::MERGE_LIMIT), LORAX, "the adapters' names").required();
    MERGED_WEIGHTS = Field::new(&[Merged], "weights", Kind::Shape("list of numbers", |_| {
        serde_json::json!({"type": ["array", "null"], "items": {"type": "number"}})
    }), LORAX, "one for each of `ids`; all are 1 if not given");
    MERGE_STRATEGY = Field::new(&[Merged], "merge_strategy", Kind::OneOf(&[("linear", ""), ("ties", ""), ("dare_linear", ""), ("dare_ties", "")]), LORAX, "default: `linear`");
    MERGED_DENSITY = Field::new(&[Merged], "density", Kind::Number(Range::between(0.0, 1.0).above()), LORAX,
        "the fraction that is kept; required but for `linear`");
    MAJORITY_SIGN_METHOD = Field::new(&[Merged], "majority_sign_method", Kind::OneOf(&[("total", ""), ("frequency", "")]), LORAX, "default: `total`");
    ADAPTER_SCALE = Field::new(&[Parameters, EmbedParameters], "adapter_scale", Kind::Number(Range::ALL), LORAX,
        "multigraft's: multiplies an adapter's updates");
    ADAPTERS = Field::new(&[Parameters, EmbedParameters], "adapters", Kind::Objects(Some("Weighted")), LORAX,
        "multigraft's: [several adapters](adapters.md) at once, each with `id` and `weight`");
    IGNORE_EOS_TOKEN = Field::new(&[Parameters], "ignore_eos_token", Kind::Flag, LORAX, "end tokens do not end the answer");
    PRESENCE_PENALTY = Field::new(&[Parameters], "presence_penalty", Kind::Number(Range::between(-2.0, 2.0)), LORAX,
        "counts the tokens of the answer, not of the prompt").filled_by("presence_penalty");
    RETURN_K_ALTERNATIVES = Field::new(&[Parameters], "return_k_alternatives", ALTERNATIVES, LORAX,
        "each token has its `alternative_tokens`, `[{\"id\", \"text\", \"logprob\"}]`, most likely first, in `details` and in each event");
    APPLY_CHAT_TEMPLATE = Field::new(&[Parameters], "apply_chat_template", Kind::Flag, LORAX,
        "`inputs` is what a user says in a chat, in the adapter's [template](adapters.md#chat-template-of-an-adapter) and with its system message; the template writes the special tokens");
    RESPONSE_FORMAT = Field::new(&[Parameters], "response_format", Kind::Object, LORAX,
        "`{\"type\": \"json_object\", \"schema\": …}`, see [constrained answers](constrained.md)");
    API_TOKEN = Field::rejected(&[Parameters], "api_token", OWN_TOKEN, Harmless::NOTHING, LORAX,
        "the server fetches with its own `HF_TOKEN`, and keys of requests are [its own](access.md)");
    EMBED_API_TOKEN = Field::rejected(&[EmbedParameters], "api_token", OWN_TOKEN, Harmless::Values(&["\"\""]), LORAX,
        "of `/embed`: the server fetches with its own `HF_TOKEN`, and keys of requests are [its own](access.md)");
}
