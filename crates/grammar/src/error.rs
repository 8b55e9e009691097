/// Why an output cannot be constrained as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The constraint is longer than [`MAX_CONSTRAINT_BYTES`](crate::MAX_CONSTRAINT_BYTES).
    #[error("has {bytes} bytes, but may have at most {limit}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// It is not one, or asks for what cannot be done.
    #[error("cannot be honoured: {0}")]
    Unsupported(String),
    /// It took too much in the middle of an output.
    #[error("the constraint of the output took too much work: {0}")]
    TooComplex(String),
    /// The vocabulary cannot be constrained.
    #[error("outputs of this tokenizer cannot be constrained: {0}")]
    Vocabulary(String),
}
