/// Why an output cannot be constrained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The constraint is longer than [`MAX_CONSTRAINT_BYTES`](crate::MAX_CONSTRAINT_BYTES).
    #[error("has {bytes} bytes, but may have at most {limit}")]
    TooLong {
        /// The length of the constraint in bytes.
        bytes: usize,
        /// The longest that is accepted, in bytes.
        limit: usize,
    },
    /// The constraint is invalid, or cannot be enforced.
    #[error("cannot be honoured: {0}")]
    Unsupported(String),
    /// The constraint took too much work in the middle of an output.
    #[error("the constraint of the output took too much work: {0}")]
    TooComplex(String),
    /// The vocabulary cannot be constrained.
    #[error("outputs of this tokenizer cannot be constrained: {0}")]
    Vocabulary(String),
}
