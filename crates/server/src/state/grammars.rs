//! Compiling constraints on answers into grammars.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use multigraft_grammar::{Constraint, Grammar, GrammarError, Grammars};
use multigraft_text::Tokenizer;

use crate::http::error::ApiError;

/// Compiles constraints. The token tables are built when the first constraint arrives.
pub(crate) struct Constraints {
    tokenizer: Arc<Tokenizer>,
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

impl Constraints {
    /// For answers in the tokens of `tokenizer`.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let grammars = OnceLock::new();
        Self { tokenizer, grammars }
    }

    fn compile_now(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        let grammars = self
            .grammars
            .get_or_init(|| Grammars::new(Arc::clone(&self.tokenizer)));
        grammars.as_ref().map_err(Clone::clone)?.compile(constraint)
    }

    /// Compiles a constraint on a thread that may block.
    pub(crate) async fn compile(
        self: &Arc<Self>,
        constrained: Option<Constrained>,
    ) -> Result<Option<Grammar>, ApiError> {
        let Some(Constrained { field, constraint }) = constrained else {
            return Ok(None);
        };
        let all = Arc::clone(self);
        let compiled = tokio::task::spawn_blocking(move || all.compile_now(&constraint));
        match compiled.await {
            Ok(Ok(grammar)) => Ok(Some(grammar)),
            Ok(Err(error)) => Err(ApiError::invalid(field.clone(), format!("`{field}` {error}"))),
            Err(error) => Err(ApiError::Failed(error.to_string())),
        }
    }
}

/// A constraint and the request field that set it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constrained {
    pub(crate) field: String,
    pub(crate) constraint: Constraint,
}
