//! Compiling constraints, and following an output.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use llguidance::{Matcher, ParserFactory, earley::SlicedBiasComputer};
use multigraft_text::Tokenizer;

use crate::panics::without_backtraces;
use crate::vocabulary::{of_words, vocabulary};
use crate::{Constraint, GrammarError};

/// Compiles constraints for one tokenizer. Share it by `Arc`.
pub struct Grammars {
    factory: ParserFactory,
    /// Held while a constraint is compiled, so that only one large stack exists at a time.
    compiling: Mutex<()>,
}

/// The size of the stack that constraints are compiled on, in bytes: the compiler follows rules and
/// references recursively. A level takes less than 64 KiB (measured), and the longest constraint
/// has about 19,000 levels. This is address space; unused parts of it take no memory.
const STACK_BYTES: usize = 2 << 30;

/// The beginning of llguidance's errors that were panics.
const PANIC: &str = "panic: ";
const COMPILER_FAULT: &str = "the compiler of grammars has a fault that it runs into; write it another way";

impl Grammars {
    /// A compiler for outputs in the tokens of `tokenizer`. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// If the vocabulary has no token that ends an output, or no trie can be built of it.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        Self::over(&vocabulary(tokenizer)?)
    }

    /// A compiler for outputs in these tokens: the bytes of each, by id. The tokens `eos` end an
    /// output.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_words(words: &[Vec<u8>], eos: &[u32]) -> Result<Self, GrammarError> {
        Self::over(&of_words(words, eos)?)
    }

    fn over(vocabulary: &TokEnv) -> Result<Self, GrammarError> {
        // Parts of the vocabulary whose sets are computed in advance; these are for JSON strings.
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(vocabulary, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        let compiling = Mutex::default();
        Ok(Self { factory, compiling })
    }

    /// Compiles a constraint. Takes microseconds, and up to some hundred milliseconds for the
    /// largest ones: do not call it on a thread that others wait for.
    ///
    /// # Errors
    /// If the constraint is too long, invalid, or cannot be enforced.
    pub fn compile(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        let _compiling = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |what: &str| GrammarError::Unsupported(format!("it could not be compiled: {what}"));
        thread::scope(|scope| {
            let builder = thread::Builder::new()
                .name("constraint".to_owned())
                .stack_size(STACK_BYTES);
            let compiling =
                builder.spawn_scoped(scope, || without_backtraces(|| self.compile_here(constraint)));
            let compiling =
                compiling.map_err(|error| failed(&format!("no thread could be started: {error}")))?;
            compiling
                .join()
                .unwrap_or_else(|_| Err(failed("the compiler panicked")))
        })
    }

    fn compile_here(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        let compiled = constraint.compiled()?;
        let refused = |reason: &str| GrammarError::Unsupported(constraint.explained(reason));
        let parser = self.factory.create_parser(compiled);
        let parser = parser.map_err(|error| {
            let reason = format!("{error:#}");
            refused(reason.strip_prefix(PANIC).map_or(&reason, |_| COMPILER_FAULT))
        })?;
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(warning) = matcher.grammar_warnings().first() {
            return Err(refused(warning));
        }
        if let Some(reason) = matcher.get_error() {
            return Err(refused(&reason));
        }
        let grammar = Grammar(matcher);
        match grammar.clone().allowed() {
            Ok(Some(first)) if !first.is_empty() => Ok(grammar),
            _ => Err(refused("there is no text that it allows")),
        }
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// A compiled constraint at some point of an output. A clone follows an output of its own from
/// there.
pub struct Grammar(Matcher);

impl Grammar {
    /// The tokens that may follow; `None` if the output is complete and no token may. Where the
    /// output may end but need not, the set contains the tokens that end it. Takes microseconds to
    /// some milliseconds.
    ///
    /// # Errors
    /// If it takes more work than the limit allows.
    pub fn allowed(&mut self) -> Result<Option<TokenSet>, GrammarError> {
        if self.0.is_error() {
            return Err(self.failed());
        }
        if self.0.is_stopped() {
            return Ok(None);
        }
        match without_backtraces(|| self.0.compute_mask()) {
            Ok(_) if self.0.is_error() => Err(self.failed()),
            Ok(_) if self.0.is_stopped() => Ok(None),
            Ok(allowed) => Ok(Some(TokenSet(allowed))),
            Err(error) => Err(too_complex(&error.to_string())),
        }
    }

    /// Advances by the token that followed.
    ///
    /// # Errors
    /// If the token is not one of the allowed ones.
    pub fn accept(&mut self, token: u32) -> Result<(), GrammarError> {
        without_backtraces(|| self.0.consume_token(token)).map_err(|error| too_complex(&error.to_string()))
    }

    fn failed(&self) -> GrammarError {
        too_complex(&self.0.get_error().unwrap_or_default())
    }
}

impl Clone for Grammar {
    /// The clone has its own caches, because clones are used on different threads.
    fn clone(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// A set of tokens of a vocabulary.
#[derive(Clone)]
pub struct TokenSet(SimpleVob);

impl TokenSet {
    /// Whether a token is in the set. Ids beyond the tokenizer's vocabulary never are.
    #[must_use]
    pub fn contains(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }

    /// The number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.num_set()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_zero()
    }

    /// The tokens in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter()
    }

    /// Sets the logits of all other tokens to -∞. `logits` may be longer than the tokenizer's
    /// vocabulary, because models pad their embeddings; the padding is excluded.
    pub fn keep_only(&self, logits: &mut [f32]) {
        const BITS: usize = u32::BITS as usize;
        let words = self.0.as_slice();
        for (index, logits) in logits.chunks_mut(BITS).enumerate() {
            match words.get(index).copied().unwrap_or(0) {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSet({} of {})", self.len(), self.0.len())
    }
}

/// The part of an error that users see: the rest is about the parser's internals.
fn too_complex(reason: &str) -> GrammarError {
    GrammarError::TooComplex(reason.lines().next().unwrap_or_default().trim().to_owned())
}
