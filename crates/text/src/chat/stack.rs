//! A stack that is large enough for templates.
//!
//! The template engine bounds how deeply blocks and calls nest. It recurses without a bound when it
//! compiles a chain of operators, and when it prints, compares or frees a nested value. The length
//! of a template's tags and its fuel bound the depth of this recursion, so a large enough stack
//! makes an overflow impossible, which would end the process.

use std::thread;

use crate::TextError;

/// The stack of the thread that templates run on, in bytes. This is address space; unused parts of
/// it take no memory. The tests nest values as deep as fuel allows.
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
