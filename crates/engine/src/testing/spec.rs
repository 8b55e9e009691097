//! The specification of an answer, computed in the obvious way: one request, with everything
//! computed from scratch for every token.

use super::backend::Scaled;
use super::{EOS, HIDDEN, VOCAB, certain, decode, logits_after, states_of};
use crate::embedding::Pooling;
use crate::event::FinishReason;
use crate::request::Request;
use crate::sampler::{Row, Sampler, Scratch};

/// The tokens, text and reason of the right answer to `request`, which has a seed.
pub(crate) fn specified(request: &Request) -> (Vec<u32>, String, FinishReason) {
    let stop = &request.stop;
    let seed = request.sampling.seed.expect("a repeatable request");
    let mut sampler = Sampler::new(request.sampling.clone(), seed, &request.prompt);
    let (adapter, from) = applied(request);
    let mut grammar = request.grammar.clone();
    let mut output: Vec<u32> = Vec::new();
    let decode = |ids: &[u32]| decode(ids, request.show_special);
    let ends = |id: u32| stop.tokens.contains(&id) || (id == EOS && !stop.ignore_eos);
    let every: Vec<u32> = (0..VOCAB as u32).filter(|&id| ends(id)).collect();
    while output.len() < request.max_tokens {
        let tokens = [request.prompt.as_slice(), &output].concat();
        let logits = logits_after(&tokens, adapter, from, VOCAB);
        let row = Row::new(&logits).unwrap();
        let nth = output.len();
        let barred = if nth < stop.min_tokens {
            every.as_slice()
        } else {
            &[]
        };
        let id = match &mut grammar {
            None => sampler
                .choose_within(None, barred, nth, &row, &mut Scratch::default())
                .unwrap(),
            Some(grammar) => {
                let Some(allowed) = grammar.allowed().unwrap() else {
                    return (output.clone(), decode(&output), FinishReason::Complete);
                };
                // Only an end token can follow, so the grammar overrides `min_tokens`.
                let only_ends = allowed.iter().all(ends);
                let barred = if only_ends { &[] } else { barred };
                let chosen =
                    sampler.choose_within(Some(&allowed), barred, nth, &row, &mut Scratch::default());
                let id = chosen.unwrap();
                grammar.accept(id).unwrap();
                id
            }
        };
        sampler.note(id);
        output.push(id);
        let ended = if stop.tokens.contains(&id) {
            Some(FinishReason::StopToken(id))
        } else if id == EOS && !stop.ignore_eos {
            Some(FinishReason::Eos(id))
        } else {
            None
        };
        let shown = if ended.is_some() && !stop.include_stop_string {
            output.len() - 1
        } else {
            output.len()
        };
        let from = match output.len() > stop.min_tokens {
            true => certain(&output[..stop.min_tokens], request.show_special),
            false => usize::MAX,
        };
        let text = decode(&output[..shown]);
        let (text, found) = cut(&text, from, &stop.strings, stop.include_stop_string);
        if let Some(found) = found {
            return (output, text, FinishReason::StopString(found));
        }
        if let Some(reason) = ended {
            return (output, text, reason);
        }
    }
    let text = decode(&output);
    (output, text, FinishReason::Length)
}

/// The right embedding of `request`.
pub(crate) fn embedded(request: &Request) -> Option<Vec<f32>> {
    let (adapter, from) = applied(request);
    let states = states_of(&request.prompt, adapter, from, HIDDEN);
    let mean = |feature: usize| states.iter().map(|state| state[feature]).sum::<f32>() / states.len() as f32;
    Some(match request.embedding? {
        // Sums of so few eighths are exact.
        Pooling::Mean => (0..HIDDEN).map(mean).collect(),
        Pooling::Last => states.last()?.clone(),
    })
}

/// The adapter, and the position from which on it applies.
fn applied(request: &Request) -> (Option<Scaled>, usize) {
    let Some(used) = &request.adapter else {
        return (None, 0);
    };
    let from = used.adapter.sets_in(&request.prompt).unwrap_or(0);
    (Some((used.hash(), used.scale.to_bits())), from)
}

/// Reads a text character by character until a stop string is complete beyond its first `from`
/// bytes; of several the longest.
pub(crate) fn cut(text: &str, from: usize, stops: &[String], include: bool) -> (String, Option<String>) {
    let ends = (0..=text.len()).filter(|&end| end > from && text.is_char_boundary(end));
    for end in ends {
        let complete = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
            let shown = if include { end } else { end - stop.len() };
            return (text[..shown].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}
