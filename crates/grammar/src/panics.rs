//! llguidance catches its own panics, and describes each by a backtrace with the names of
//! functions. To find those the standard library reads the program's debug information, hundreds of
//! megabytes that stay in memory, and what is found would be told to whoever sent the constraint.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Leaves [`without_backtraces`] however it ends.
struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Runs `calls`, calls of llguidance, whose panics it shall not describe. They are what they were:
/// errors of its.
pub(crate) fn without_backtraces<T>(calls: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Its hook comes with the first call of this; ours goes before it.
        let _ = llguidance::panic_utils::catch_unwind(|| Ok(()));
        let theirs = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            if DEPTH.get() == 0 {
                theirs(panicked);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let _within = Within;
    calls()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        let caught = || llguidance::panic_utils::catch_unwind::<_, ()>(|| panic!("on purpose"));
        let error = without_backtraces(caught).unwrap_err();
        assert_eq!(error.to_string(), "panic: on purpose");
        assert_eq!(DEPTH.get(), 0);
        // What it would be without.
        assert!(caught().unwrap_err().to_string().contains("<backtrace>"));
    }
}
