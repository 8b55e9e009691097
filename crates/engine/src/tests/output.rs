//! Outputs: text, ends and log-probabilities.

use crate::sampler::Row;
use crate::sampler::logprobs::Logprobs;
use crate::testing::{
    EOS, FakeBackend, Faults, Harness, SPECIAL, VOCAB, adapter, exactly, generous, hash, logits_after,
    matching,
};
use crate::{EngineOptions, FinishReason, Request, Sampling, Stop};

/// A request whose output is forced, token by token, by biases that outweigh every logit: each
/// occurrence of a token makes it less likely than the next.
fn forced(output: &[u32], max_tokens: usize) -> Request {
    let bias = |position: usize| 200.0 - 10.0 * position as f32;
    let logit_bias = output
        .iter()
        .enumerate()
        .map(|(position, &id)| (id, bias(position)))
        .collect();
    // A repeated token falls below all others, so `output` must not repeat any.
    let sampling = Sampling {
        logit_bias,
        presence_penalty: 2.0,
        repetition_penalty: 1.0,
        ..Sampling::greedy()
    };
    Request {
        sampling,
        ..Request::new(vec![2, 3], max_tokens)
    }
}

const A: u32 = 2;
const B: u32 = 3;
const C: u32 = 4;

fn only(id: u32) -> Sampling {
    Sampling {
        logit_bias: vec![(id, 100.0)],
        ..Sampling::greedy()
    }
}

#[test]
fn the_models_own_end_token_ends_the_output_and_has_no_text() {
    let answer = Harness::alone(Request {
        sampling: only(EOS),
        ..Request::new(vec![A], 5)
    })
    .answer();
    assert_eq!(answer.reason(), &FinishReason::Eos(EOS));
    assert_eq!((answer.ids(), answer.text()), (vec![EOS], String::new()));
    assert!(answer.tokens[0].special);
    let stop = Stop {
        ignore_eos: true,
        ..Stop::default()
    };
    let answer = Harness::alone(Request {
        sampling: only(EOS),
        stop,
        ..Request::new(vec![A], 5)
    })
    .answer();
    assert_eq!(answer.reason(), &FinishReason::Length);
    assert_eq!(answer.ids(), [EOS; 5]);
}

#[test]
fn special_tokens_are_marked() {
    let answer = Harness::alone(Request {
        sampling: only(SPECIAL),
        ..Request::new(vec![A], 1)
    })
    .answer();
    assert!(answer.tokens[0].special);
    let answer = Harness::alone(Request {
        sampling: only(A),
        ..Request::new(vec![A], 1)
    })
    .answer();
    assert!(!answer.tokens[0].special);
}

#[test]
fn a_stop_token_ends_the_output_and_shows_its_text_only_on_request() {
    for (include_stop_string, text) in [(false, ""), (true, "a")] {
        let stop = Stop {
            tokens: vec![A],
            include_stop_string,
            ..Stop::default()
        };
        let answer = Harness::alone(Request {
            sampling: only(A),
            stop,
            ..Request::new(vec![B], 5)
        })
        .answer();
        assert_eq!(answer.reason(), &FinishReason::StopToken(A));
        assert_eq!((answer.ids(), answer.text()), (vec![A], text.to_owned()));
    }
}

#[test]
fn a_stop_string_across_tokens_is_held_back_and_cut() {
    for (include_stop_string, text) in [(false, ""), (true, "aaa")] {
        let stop = Stop {
            strings: vec!["aaa".to_owned()],
            include_stop_string,
            ..Stop::default()
        };
        let answer = Harness::alone(Request {
            sampling: only(A),
            stop,
            ..Request::new(vec![B], 5)
        })
        .answer();
        assert_eq!(answer.reason(), &FinishReason::StopString("aaa".to_owned()));
        assert_eq!((answer.tokens.len(), answer.text()), (3, text.to_owned()));
        assert!(answer.tokens[..2].iter().all(|token| token.text.is_empty()));
    }
}

#[test]
fn text_held_back_for_a_stop_string_that_does_not_come_is_in_the_finish() {
    let stop = Stop {
        strings: vec!["aaaa".to_owned()],
        ..Stop::default()
    };
    let answer = Harness::alone(Request {
        sampling: only(A),
        stop,
        ..Request::new(vec![B], 3)
    })
    .answer();
    assert_eq!(answer.reason(), &FinishReason::Length);
    assert_eq!(answer.finish.text, "aaa");
}

#[test]
fn incomplete_characters_are_held_back_and_never_lost() {
    // Token 12 is the first byte of "ä".
    let answer = Harness::alone(Request {
        sampling: only(12),
        ..Request::new(vec![B], 1)
    })
    .answer();
    assert_eq!(answer.tokens[0].text, "");
    assert_eq!(answer.finish.text, "\u{fffd}");
}

#[test]
fn a_stop_string_in_the_final_text_is_found() {
    let stop = Stop {
        strings: vec!["\u{fffd}".to_owned()],
        ..Stop::default()
    };
    let answer = Harness::alone(Request {
        sampling: only(12),
        stop,
        ..Request::new(vec![B], 1)
    })
    .answer();
    assert_eq!(answer.reason(), &FinishReason::StopString("\u{fffd}".to_owned()));
    assert_eq!(answer.text(), "");
}

#[test]
fn penalties_see_the_output() {
    let answer = Harness::alone(forced(&[A, B, C], 3)).answer();
    // Biases of 200, 190 and 180 against a presence penalty of 2: the first keeps winning.
    assert_eq!(answer.ids(), [A, A, A]);
    let mut request = forced(&[A, B, C], 3);
    request.sampling.logit_bias = vec![(A, 100.0), (B, 100.0), (C, 100.0)];
    // Logits are between -4 and 4, so a frequency penalty of 2 excludes a token after at most five
    // occurrences.
    request.sampling.frequency_penalty = 2.0;
    request.max_tokens = 30;
    let ids = Harness::alone(request).answer().ids();
    let count = |id: u32| ids.iter().filter(|&&other| other == id).count();
    assert!(
        [A, B, C].into_iter().all(|id| (5..=15).contains(&count(id))),
        "{ids:?}"
    );
}

#[test]
fn logprobs_are_the_models_own_whatever_the_sampling() {
    let request = Request {
        sampling: only(A),
        logprobs: Some(3),
        ..Request::new(vec![B, C], 2)
    };
    let answer = Harness::alone(request).answer();
    let mut tokens = vec![B, C];
    for token in &answer.tokens {
        let logits = logits_after(&tokens, None, 0, VOCAB);
        let row = Row::new(&logits).unwrap();
        let expected = Logprobs::new(&row);
        assert_eq!(token.logprob, Some(expected.logprob(A)));
        assert_eq!(token.top, expected.top(3));
        tokens.push(A);
    }
    let answer = Harness::alone(Request::new(vec![B, C], 2)).answer();
    assert!(
        answer
            .tokens
            .iter()
            .all(|token| token.logprob.is_none() && token.top.is_empty())
    );
}

#[test]
fn prompt_logprobs_are_the_likelihood_of_each_token_given_those_before_it() {
    let prompt: Vec<u32> = (0..100).map(|i| i % VOCAB as u32).collect();
    let request = Request {
        adapter: Some(adapter(1)),
        prompt_logprobs: Some(2),
        ..Request::new(prompt.clone(), 0)
    };
    let answer = Harness::alone(request).answer();
    assert_eq!((answer.reason(), answer.tokens.len()), (&FinishReason::Length, 0));
    let scored = answer.prompt.unwrap();
    assert_eq!(scored.iter().map(|token| token.id).collect::<Vec<_>>(), prompt);
    assert_eq!(
        (scored[0].logprob, scored[0].rank, scored[0].top.len()),
        (None, None, 0)
    );
    assert_eq!(scored[7].text, "<7>");
    for position in 1..prompt.len() {
        let logits = logits_after(&prompt[..position], Some((hash(1), 1.0_f32.to_bits())), 0, VOCAB);
        let row = Row::new(&logits).unwrap();
        let expected = Logprobs::new(&row);
        assert_eq!(scored[position].logprob, Some(expected.logprob(prompt[position])));
        assert_eq!(scored[position].top, expected.top(2));
        let (its, rank) = (logits[prompt[position] as usize], scored[position].rank);
        let ahead = (0..)
            .zip(&logits)
            .filter(|&(id, &logit)| logit > its || (logit == its && id < prompt[position]));
        assert_eq!(rank, Some(ahead.count() + 1));
    }
}

#[test]
fn without_max_tokens_the_prompt_is_computed_and_nothing_else() {
    let answer = Harness::alone(Request::new(vec![A, B], 0)).answer();
    assert_eq!((answer.reason(), answer.tokens.len()), (&FinishReason::Length, 0));
}

#[test]
fn broken_logits_fail_only_their_sequence_and_name_the_adapters_hash() {
    let faults = Faults {
        broken: Some(hash(7)),
        ..Faults::default()
    };
    let mut harness = Harness::over(
        FakeBackend::with_faults(generous(), faults),
        EngineOptions::default(),
    );
    let broken = harness.submit(Request {
        adapter: Some(adapter(7)),
        ..Request::new(vec![A], 3)
    });
    let fine = Request {
        adapter: Some(adapter(8)),
        ..exactly(vec![A], 3)
    };
    let recording = harness.submit(fine.clone());
    harness.run();
    let reason = format!(
        "the logits of adapter {} are broken: the logit of token 0 is not a number",
        hash(7)
    );
    assert_eq!(broken.failure(), Some(reason));
    assert_eq!(recording.answer(), Harness::alone(fine).answer());
}

#[test]
fn a_random_seed_is_reported_and_repeats_the_answer() {
    let request = Request::new(vec![A, B], 20);
    let first = Harness::alone(request.clone()).answer();
    let seed = first.finish.seed;
    let again = Request {
        sampling: Sampling {
            seed: Some(seed),
            ..Sampling::default()
        },
        ..request.clone()
    };
    assert_eq!(Harness::alone(again).answer(), first);
    let other = Harness::alone(request).answer();
    assert_ne!(other.finish.seed, seed);
}

#[test]
fn an_output_under_a_grammar_is_complete_and_ends_when_no_token_may_follow() {
    let answer = Harness::alone(Request {
        grammar: Some(matching("(ab|ba){3}\n")),
        ..Request::new(vec![A, B], 20)
    })
    .answer();
    let text = answer.text();
    assert_eq!(answer.reason(), &FinishReason::Complete, "{text:?}");
    assert_eq!((text.len(), text.ends_with('\n')), (7, true), "{text:?}");
    assert_eq!(answer.tokens.len(), answer.finish.completion_tokens);
}

#[test]
fn an_output_under_a_grammar_ends_only_where_it_may() {
    let request = |pattern| Request {
        grammar: Some(matching(pattern)),
        sampling: only(EOS),
        ..Request::new(vec![A], 20)
    };
    let answer = Harness::alone(request("a{3}b*")).answer();
    assert_eq!(answer.reason(), &FinishReason::Eos(EOS));
    assert_eq!(
        answer.text(),
        "aaa",
        "the end is preferred, but three `a` come first"
    );
    let cut_off = Harness::alone(Request {
        max_tokens: 1,
        ..request("a{3}b*")
    })
    .answer();
    assert_eq!(cut_off.reason(), &FinishReason::Length);
}

#[test]
fn log_probabilities_under_a_grammar_are_the_models_own() {
    let free = Request {
        logprobs: Some(3),
        sampling: Sampling::greedy(),
        ..Request::new(vec![A, B], 1)
    };
    let bound = Request {
        grammar: Some(matching("c+")),
        ..free.clone()
    };
    let (free, bound) = (Harness::alone(free).answer(), Harness::alone(bound).answer());
    assert_eq!(bound.ids(), [C]);
    assert_eq!(free.tokens[0].top, bound.tokens[0].top);
    assert!(bound.tokens[0].logprob < free.tokens[0].logprob);
}

#[test]
fn the_only_allowed_token_is_chosen_however_unlikely() {
    let recording = Harness::alone(Request {
        grammar: Some(matching("c")),
        sampling: Sampling {
            logit_bias: vec![(C, f32::MIN)],
            ..Sampling::greedy()
        },
        ..Request::new(vec![A], 3)
    });
    assert_eq!(recording.answer().ids(), [C]);
}

#[test]
fn no_output_ends_before_min_tokens() {
    let ends = |stop: Stop, bias: u32| {
        let request = Request {
            sampling: only(bias),
            stop: Stop {
                min_tokens: 3,
                ..stop
            },
            ..Request::new(vec![B], 6)
        };
        Harness::alone(request).answer()
    };
    let answer = ends(Stop::default(), EOS);
    assert_eq!(answer.reason(), &FinishReason::Eos(EOS));
    assert_eq!(answer.tokens.len(), 4, "three, and the end");
    let stop = Stop {
        tokens: vec![A],
        ..Stop::default()
    };
    let answer = ends(stop, A);
    assert_eq!(answer.reason(), &FinishReason::StopToken(A));
    assert_eq!(answer.tokens.len(), 4);
    // A stop string that is complete by then does not count; one that only begins by then does.
    for (string, text) in [("aa", "aa"), ("aaa", "a"), ("aaaa", "")] {
        let stop = Stop {
            strings: vec![string.to_owned()],
            ..Stop::default()
        };
        let answer = ends(stop, A);
        assert_eq!(answer.reason(), &FinishReason::StopString(string.to_owned()));
        assert_eq!(
            (answer.tokens.len(), answer.text().as_str()),
            (4, text),
            "{string}"
        );
    }
}

#[test]
fn a_complete_grammar_overrides_min_tokens() {
    for pattern in ["ab", "ab?"] {
        let request = Request {
            grammar: Some(matching(pattern)),
            sampling: only(EOS),
            stop: Stop {
                min_tokens: 5,
                ..Stop::default()
            },
            ..Request::new(vec![B], 9)
        };
        let answer = Harness::alone(request).answer();
        assert_eq!(answer.text(), "ab", "{pattern}");
        assert!(answer.tokens.len() < 5);
    }
}

#[test]
fn special_tokens_are_shown_on_request() {
    for (show_special, text) in [(false, ""), (true, "<s><s>")] {
        let request = Request {
            sampling: only(SPECIAL),
            show_special,
            ..Request::new(vec![A], 2)
        };
        assert_eq!(Harness::alone(request).answer().text(), text);
    }
    // The token that ends an output is not part of its text unless that is requested too.
    for (include_stop_string, text) in [(false, ""), (true, "<e>")] {
        let request = Request {
            sampling: only(EOS),
            show_special: true,
            stop: Stop {
                include_stop_string,
                ..Stop::default()
            },
            ..Request::new(vec![A], 2)
        };
        assert_eq!(Harness::alone(request).answer().text(), text);
    }
}
