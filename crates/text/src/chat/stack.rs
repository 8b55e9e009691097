//! Room for recursion.
//!
//! The template engine bounds how deep blocks and calls nest, but not how long a chain of operators
//! is when it compiles, nor how deep a value nests when it is printed, compared or freed: both
//! recurse. How far a template can get there is bounded by the length of its tags and by its fuel,
//! so a stack that is large enough for that makes an overflow, which would end the process,
//! impossible.

use std::thread;

use crate::TextError;

/// The stack of the thread that templates run on. Address space only: what is not used takes no
/// memory. The tests nest values as deep as fuel allows.
const STACK_BYTES: usize = 256 << 20;

/// Runs `work` on a thread of its own with a large stack.
pub(super) fn with_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TextError> + Send,
) -> Result<T, TextError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("chat-template".into())
            .stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).map_err(|error| {
            TextError::TemplateFailed(format!("no thread could be started for it: {error}"))
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(TextError::TemplateFailed("the template engine panicked".into())))
    })
}
