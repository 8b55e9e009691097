//! The tokens that end a turn.

use tokenizers::Tokenizer;

/// Names of tokens that end a turn. A model's files often name only one of several: the end of a
/// document (`<|endoftext|>`) but not the end of the assistant's answer (`<|im_end|>`), or the
/// other way round. If the other one does not stop it, a chat model continues with the user's turn.
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

/// Adds the special tokens with these names to `eos`, and removes duplicates.
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
