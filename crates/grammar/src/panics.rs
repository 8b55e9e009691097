//! Keeps backtraces out of llguidance's errors.
//!
//! llguidance catches its own panics and describes each by a backtrace with function names. To find
//! the names, the standard library reads the program's debug information: hundreds of megabytes
//! that stay in memory. The backtrace would also be sent to the client that sent the constraint.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Leaves [`without_backtraces`], also when it unwinds.
struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Runs `calls` of llguidance without backtraces of its panics. Panics are still returned as
/// llguidance's errors.
pub(crate) fn without_backtraces<T>(calls: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // The first such call installs llguidance's hook; ours is installed in front of it.
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
        // The behaviour without this hook.
        assert!(caught().unwrap_err().to_string().contains("<backtrace>"));
    }
}
