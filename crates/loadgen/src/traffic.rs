//! Which requests are sent: prompts, lengths, adapters, arrivals. Determined by the seed.

use std::time::Duration;

use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::arguments::{Pick, Span};

/// Common words that are one token each, with the space before them, in the vocabularies of nearly
/// all models.
const WORDS: &str = "\
able above across action after again age air all along also always am among amount and another answer any area arm around \
art ask at away back bad bank base be bed before began begin behind believe below best better between big bill bit black \
blood blue board body book both box boy bring brother build built business but buy by call came can car care case cause \
center certain chance change child choice church city class clear close cold college color come common company complete \
computer control cost could country couple course court cover create cut dark data date daughter day dead deal death deep";

/// An endless sequence of requests.
#[derive(Debug)]
pub struct Traffic {
    words: Vec<&'static str>,
    /// Tokens that the server adds to a prompt's words.
    added_tokens: usize,
    prompt_tokens: Span,
    output_tokens: Span,
    adapters: AdapterChoice,
    /// Requests per second in an open loop.
    rate: f64,
    /// When the next request of an open loop is due.
    due: Duration,
    // One generator for each, so that a change of one draw does not change the others.
    prompts: ChaCha8Rng,
    lengths: ChaCha8Rng,
    choices: ChaCha8Rng,
    arrivals: ChaCha8Rng,
}

/// One request to send.
#[derive(Debug, PartialEq)]
pub struct PlannedRequest {
    /// Its prompt.
    pub prompt: String,
    /// The adapter's index; `None` is the base.
    pub adapter: Option<usize>,
    /// Tokens to generate.
    pub output_tokens: usize,
    /// When it is sent in an open loop, from the beginning of the run.
    pub due: Duration,
}

/// How a request's adapter is chosen.
#[derive(Debug)]
enum AdapterChoice {
    Base,
    RoundRobin {
        count: usize,
        next: usize,
    },
    /// The sums of the probabilities up to each, the last being 1.
    Zipf(Vec<f64>),
}

impl Traffic {
    /// Traffic to so many `adapters` (0: to the base). In an open loop, `rate` requests arrive per
    /// second on average.
    #[must_use]
    pub fn new(
        seed: u64,
        prompt_tokens: Span,
        output_tokens: Span,
        adapters: usize,
        pick: Pick,
        rate: f64,
    ) -> Self {
        let random = |stream| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(stream);
            random
        };
        let adapters = match (adapters, pick) {
            (0, _) => AdapterChoice::Base,
            (count, Pick::RoundRobin) => AdapterChoice::RoundRobin { count, next: 0 },
            (count, Pick::Zipf(exponent)) => AdapterChoice::Zipf(zipf(count, exponent)),
        };
        Self {
            words: WORDS.split_whitespace().collect(),
            added_tokens: 0,
            prompt_tokens,
            output_tokens,
            adapters,
            rate,
            due: Duration::ZERO,
            prompts: random(0),
            lengths: random(1),
            choices: random(2),
            arrivals: random(3),
        }
    }

    /// Makes prompts shorter by the tokens that the server adds to each.
    pub fn set_added_tokens(&mut self, tokens: usize) {
        self.added_tokens = tokens;
    }

    /// A random prompt of so many words.
    pub fn prompt(&mut self, words: usize) -> String {
        let mut prompt = String::with_capacity(words * 8);
        for _ in 0..words {
            prompt.push(' ');
            prompt.push_str(self.words[self.prompts.random_range(0..self.words.len())]);
        }
        prompt
    }

    /// The next request.
    #[expect(clippy::should_implement_trait, reason = "there is always a next request")]
    pub fn next(&mut self) -> PlannedRequest {
        let words = length(&mut self.lengths, self.prompt_tokens)
            .saturating_sub(self.added_tokens)
            .max(1);
        let output_tokens = length(&mut self.lengths, self.output_tokens);
        let adapter = match &mut self.adapters {
            AdapterChoice::Base => None,
            AdapterChoice::RoundRobin { count, next } => {
                let index = *next;
                *next = (index + 1) % *count;
                Some(index)
            }
            AdapterChoice::Zipf(sums) => {
                let draw: f64 = self.choices.random();
                Some(sums.partition_point(|sum| *sum <= draw).min(sums.len() - 1))
            }
        };
        let due = self.due;
        self.due += gap(&mut self.arrivals, self.rate);
        PlannedRequest {
            prompt: self.prompt(words),
            adapter,
            output_tokens,
            due,
        }
    }

    /// Makes the next request of an open loop due at time 0.
    pub fn begin(&mut self) {
        self.due = Duration::ZERO;
    }
}

fn length(random: &mut impl Rng, span: Span) -> usize {
    random.random_range(span.least..=span.most)
}

/// The time to the next arrival of a Poisson process, which is exponentially distributed.
fn gap(random: &mut impl Rng, rate: f64) -> Duration {
    let draw: f64 = random.random();
    Duration::from_secs_f64(-(1.0 - draw).ln() / rate)
}

/// Zipf's law for ranks `k` from 1 to `count`, with probabilities proportional to `1/k^exponent`:
/// the sums of the probabilities up to each rank.
fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    let weights = (1..=count).map(|rank| (rank as f64).powf(-exponent));
    let total: f64 = weights.clone().sum();
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use multigraft_testing::smollm2;
    use multigraft_text::Tokenizer;
    use multigraft_weights::gguf::Gguf;

    use super::*;

    const ONE: Span = Span {
        least: 100,
        most: 100,
    };

    fn traffic(seed: u64, adapters: usize, pick: Pick) -> Traffic {
        Traffic::new(seed, ONE, ONE, adapters, pick, 4.0)
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let requests = |seed| {
            let mut traffic = traffic(seed, 5, Pick::Zipf(1.0));
            (0..20).map(|_| traffic.next()).collect::<Vec<_>>()
        };
        assert_eq!(requests(7), requests(7));
        assert_ne!(requests(7), requests(8));
    }

    #[test]
    fn prompts_have_as_many_tokens_as_words_and_share_no_prefix() {
        let file = Gguf::open(&smollm2()).expect("the model");
        let tokenizer = Tokenizer::from_gguf(file.metadata()).expect("its tokenizer");
        let mut traffic = traffic(1, 0, Pick::RoundRobin);
        let every_word = format!(" {}", traffic.words.join(" "));
        assert_eq!(
            tokenizer.encode(&every_word, false).expect("tokens").len(),
            traffic.words.len()
        );
        traffic.set_added_tokens(3);
        let prompts: Vec<String> = (0..50).map(|_| traffic.next().prompt).collect();
        for (i, prompt) in prompts.iter().enumerate() {
            assert_eq!(tokenizer.encode(prompt, false).expect("tokens").len(), 97);
            let start: String = prompt.chars().take(40).collect();
            assert!(prompts[..i].iter().all(|other| !other.starts_with(&start)));
        }
    }

    #[test]
    fn round_robin_takes_all_in_turn() {
        let mut traffic = traffic(1, 3, Pick::RoundRobin);
        let picks: Vec<_> = (0..7).filter_map(|_| traffic.next().adapter).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn zipf_draws_the_kth_in_proportion_to_its_weight() {
        let mut traffic = traffic(1, 4, Pick::Zipf(1.0));
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[traffic.next().adapter.expect("an adapter")] += 1.0 / 20_000.0;
        }
        let total = 1.0 + 0.5 + 1.0 / 3.0 + 0.25;
        for (k, count) in counts.iter().enumerate() {
            let expected = 1.0 / (k + 1) as f64 / total;
            assert!((count - expected).abs() < 0.01, "{k}: {count} for {expected}");
        }
        assert_eq!(zipf(2, 0.0), [0.5, 1.0]);
    }

    #[test]
    fn arrivals_are_a_poisson_process_of_the_rate() {
        let mut traffic = traffic(1, 0, Pick::RoundRobin);
        let due: Vec<f64> = (0..10_000).map(|_| traffic.next().due.as_secs_f64()).collect();
        assert_eq!(due[0], 0.0);
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution the deviation is the mean.
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
        assert!((variance.sqrt() - 0.25).abs() < 0.01, "{variance}");
        traffic.begin();
        assert_eq!(traffic.next().due, Duration::ZERO);
    }

    #[test]
    fn lengths_are_within_their_span() {
        let span = Span { least: 3, most: 5 };
        let mut traffic = Traffic::new(1, span, span, 0, Pick::RoundRobin, 1.0);
        let mut seen = [false; 6];
        for _ in 0..100 {
            let request = traffic.next();
            seen[request.output_tokens] = true;
            assert!((3..=5).contains(&request.prompt.split_whitespace().count()));
        }
        assert_eq!(seen, [false, false, false, true, true, true]);
    }
}
