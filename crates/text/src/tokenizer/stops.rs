//! Which tokens end a turn.

use tokenizers::Tokenizer;

/// How models write the token that ends a turn. A model's files often name only one of several: the
/// end of a document (`<|endoftext|>`) but not the end of the assistant's answer (`<|im_end|>`), or
/// the other way round, and a model that was tuned for chat goes on to write the user's part if the
/// other does not stop it.
///
/// A name counts only if it is a special token of the vocabulary, so text that spells it is not
/// affected.
const TURN_ENDS: [&str; 17] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_role_turn|>",
    "<end_of_utterance>",
    "<|END_OF_TURN_TOKEN|>",
    "<|return|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "<eos>",
    "</s>",
];

/// Adds to `eos` the special tokens that end a turn by their name, and removes repetitions.
pub(crate) fn turn_ends(tokenizer: &Tokenizer, eos: &mut Vec<u32>) {
    let added = tokenizer.get_added_vocabulary();
    let by_name = TURN_ENDS
        .iter()
        .filter(|name| added.is_special_token(name))
        .filter_map(|name| tokenizer.token_to_id(name));
    let mut all = Vec::with_capacity(eos.len() + 1);
    for id in eos.iter().copied().chain(by_name) {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    *eos = all;
}
